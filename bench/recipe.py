"""Which recipe and which encodings serve networks best? Validation scores only, on the four recipe-development sets.

    nice -n 10 python bench/recipe.py --stress-predict FOLDER --stressid FOLDER    # to recipe.jsonl and recipe.md

Seeded and resumable: what stands in `recipe.jsonl` is not trained again, and after `--minutes` nothing new is begun. A
score is the engine's own, that of the best validation of a member, by person, at the best learning rate of its fold; no
test sample is read. First encodings, then one factor at a time on top of each set's encoding, then rows as they were,
with the encoding, and with all that was adopted, beside the classical ones on the same folds.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from fusionbench import engine, harness
from fusionbench.api import Dropout
from fusionbench.engine import Trained
from fusionbench.engine.model import Blueprint, Model
from fusionbench.harness.dataset import Dataset
from fusionbench.harness.fit import Fitter
from fusionbench.harness.setup import member_of, splits_of

FOLDS = (0, 1)
CHOOSES, SHOWN, CLASSICAL = "concat", ("concat", "late_average", "jmt"), ("forest", "linear", "boosting")
GRID = "1e-3,3e-3,1e-2"
RAW = {"channels": 3}  # a step of watch holds ten samples of three axes
#: Encodings by set: name -> backbone of every modality and its settings; "default" is the benchmark's own.
ENCODINGS: dict[str, dict[str, tuple[str, Mapping[str, Any]]]] = {
    "stressid": {"ple": ("ple", {})},
    "watch": {"ple": ("ple", {}), "summary": ("summary", RAW)},
    "stress_predict": {"ple": ("ple", {}), "summary": ("summary", {})},
    "affect_sim": {"ple": ("ple", {}), "tcn": ("tcn", {"depth": 2})},  # nine frames, as the linear row sees
}
DEAR = ("watch", "rocket", ("rocket", RAW))  # costs as much as the rest of its set: tried last, shown, not chosen
STRONGEST = {"stressid": "boosting", "watch": "forest", "stress_predict": "forest", "affect_sim": "linear"}  # expected
#: One factor at a time: name -> changes of `train`; "steps" multiplies the benchmark's own, "dropout" is every layer's.
FACTORS: dict[str, dict[str, Any]] = {
    "dropout .3": {"dropout": 0.3},
    "moving average .98": {"ema": 0.98},
    "weight decay .1": {"weight_decay": 0.1},
    "label smoothing .1": {"label_smoothing": 0.1},
    "class balance": {"class_balance": True},
    "twice the steps": {"steps": 2},
}


@dataclass(frozen=True)
class Trial:
    """One row on one set, trained as `changes` say."""

    benchmark: str
    fuser: str
    encoding: str
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return json.dumps([self.benchmark, self.fuser, self.encoding, dict(sorted(self.changes.items())), GRID])


class Study:
    """The trials done so far, each a line of a file, and how another is done while there is time."""

    def __init__(self, file: Path, roots: Mapping[str, str], minutes: float) -> None:
        self.file, self.roots, self.until = file, roots, time.monotonic() + 60 * minutes
        self.datasets: dict[str, Dataset] = {}
        lines = file.read_text().splitlines() if file.is_file() else []
        self.found = {line["key"]: line for line in map(json.loads, lines)}

    def score(self, trial: Trial) -> float:
        """The mean over folds of the best validation score, in points; NaN where no time was left."""
        if trial.key not in self.found and time.monotonic() < self.until:
            began = time.process_time()
            folds = list(self._classical(trial) if trial.fuser in CLASSICAL else self._network(trial))
            line = {"key": trial.key, "folds": folds, "seconds": round(time.process_time() - began, 1)}
            with self.file.open("a") as file:
                file.write(json.dumps(line) + "\n")
            self.found[trial.key] = line
            print(f"{trial.key}: {100 * mean(fold['score'] for fold in folds):.1f}, {line['seconds']} s", flush=True)
        done = self.found.get(trial.key)
        return 100 * mean(fold["score"] for fold in done["folds"]) if done else math.nan

    def _setup(self, trial: Trial) -> harness.Setup:
        train = {name: value for name, value in trial.changes.items() if name not in ("dropout", "steps")}
        root = {"benchmark": {"root": self.roots[trial.benchmark]}} if trial.benchmark in self.roots else {}
        given: dict[str, Any] = {**root, "train": {**train, "lr": GRID}}
        plain = harness.setup(trial.benchmark, trial.fuser, given=given, datasets=self.datasets)
        given["train"]["steps"] = trial.changes.get("steps", 1) * plain.benchmark.steps
        backbones = {}
        if trial.encoding != "default":
            name, settings = {**ENCODINGS[trial.benchmark], DEAR[1]: DEAR[2]}[trial.encoding]
            backbones = dict.fromkeys(plain.benchmark.shapes, name)
            given |= {f"backbone.{m}": settings for m in backbones}
        return harness.setup(trial.benchmark, trial.fuser, backbones, given, datasets=self.datasets)

    def _network(self, trial: Trial) -> Iterator[dict[str, Any]]:
        setup = self._setup(trial)
        members = [
            member_of(setup.recipe, run, splits_of(setup, setup.data, run), lr)
            for run in (setup.run(fold, 0) for fold in FOLDS)
            for lr in setup.recipe.lr
        ]
        plan = Dropped(**vars(setup.trained), rate=trial.changes.get("dropout", 0.0))
        stacked = engine.stack_size(plan, members, setup.data, setup.recipe, torch.device("cpu"))
        events = engine.train(plan, members, setup.data, setup.recipe, stacked=stacked)
        scores = {e.member: e.score for e in events if isinstance(e, Trained) and e.error is None}
        for fold in FOLDS:
            rates = {m.lr: scores[n] for n, m in enumerate(members) if m.fold == fold and n in scores}
            lr = max(rates, key=lambda rate: (rates[rate], -rate))
            yield {"fold": fold, "score": rates[lr], "lr": lr, "rates": rates}

    def _classical(self, trial: Trial) -> Iterator[dict[str, Any]]:
        setup = self._setup(trial)
        fitter = Fitter(setup, setup.data)
        for fold in FOLDS:
            run = setup.run(fold, 0)
            yield {"fold": fold, "score": fitter.score(fitter.run(run), run)}


@dataclass(frozen=True)
class Dropped(Blueprint):
    """A blueprint whose models drop at this rate at least, in every dropout layer that they have."""

    rate: float = 0.0

    def build(self, seed: int, statistics: Mapping[str, tuple[Tensor, Tensor]], samples: int) -> Model:
        model = super().build(seed, statistics, samples)
        for module in model.modules():
            if isinstance(module, Dropout):
                module.p = max(module.p, self.rate)
        return model


def applies(benchmark: str, changes: Mapping[str, Any]) -> bool:
    """Smoothing is for classes, balance for a macro metric, more steps where they are few passes over the data."""
    left_out = {
        "watch": {"class_balance"},
        "stressid": {"steps"},
        "affect_sim": {"class_balance", "label_smoothing", "steps"},
    }
    return not left_out.get(benchmark, set()) & set(changes)


def most_telling(study: Study) -> None:
    """What is done first, for when the time ends: one fuser on all encodings, and what it has to come near."""
    for benchmark, known in ENCODINGS.items():
        for encoding in ("default", *known):
            study.score(Trial(benchmark, CHOOSES, encoding))
    for benchmark in ENCODINGS:
        study.score(Trial(benchmark, STRONGEST[benchmark], "default"))


def encodings(study: Study) -> tuple[dict[str, str], list[list[str]]]:
    """The encoding of each set: where the fuser that chooses scores best; of equals the default."""
    chosen, rows = {}, []
    for benchmark, known in ENCODINGS.items():
        scores = {name: study.score(Trial(benchmark, CHOOSES, name)) for name in ("default", *known)}
        judged = {name: score for name, score in scores.items() if not math.isnan(score)}
        chosen[benchmark] = max(judged, key=lambda n: judged[n]) if judged else "default"
        rows += [[benchmark, name, points(score)] for name, score in scores.items()]
    return chosen, rows


def factors(study: Study, chosen: Mapping[str, str]) -> tuple[dict[str, Any], list[list[str]]]:
    """What is adopted: a mean gain over the sets above zero, more sets gained than lost, and none lost by a point."""
    adopted: dict[str, Any] = {}
    rows = []
    for name, changes in FACTORS.items():
        gains = {
            benchmark: study.score(Trial(benchmark, CHOOSES, encoding, changes))
            - study.score(Trial(benchmark, CHOOSES, encoding))
            for benchmark, encoding in chosen.items()
            if applies(benchmark, changes)
        }
        up = sum(gain > 0 for gain in gains.values())
        takes = mean(gains.values()) > 0 and 2 * up > len(gains) and min(gains.values()) > -1
        adopted |= changes if takes else {}
        said = [points(gains[b], "+") if b in gains else "" for b in chosen]
        rows.append([name, *said, points(mean(gains.values()), "+"), "yes" if takes else "no"])
    return adopted, rows


def together(study: Study, chosen: Mapping[str, str], adopted: Mapping[str, Any]) -> list[list[str]]:
    """Each set as it was, with its encoding, and with all that was adopted; and the classical rows."""
    rows = []
    for benchmark, encoding in chosen.items():
        changes = {n: v for n, v in adopted.items() if applies(benchmark, {n: v})}
        for fuser in (*CLASSICAL, *SHOWN):
            tried = [Trial(benchmark, fuser, "default")]
            if fuser not in CLASSICAL:
                tried += [Trial(benchmark, fuser, encoding), Trial(benchmark, fuser, encoding, changes)]
            said = [points(study.score(trial)) for trial in tried]
            rows.append([benchmark, fuser, *said, *[""] * (3 - len(said))])
    return rows


def edges(study: Study) -> list[list[str]]:
    """How often each learning rate of the grid was the best of a fold."""
    picks = [fold["lr"] for line in study.found.values() for fold in line["folds"] if "lr" in fold]
    return [[rate, f"{picks.count(float(rate))} of {len(picks)}"] for rate in GRID.split(",")]


def points(value: float, sign: str = "") -> str:
    return "not done" if math.isnan(value) else f"{value:{sign}.1f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows))


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stress-predict", required=True, help="folder of the unpacked archive")
    parser.add_argument("--stressid", required=True, help="folder of the feature tables")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin nothing new after these")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of recipe.jsonl and recipe.md")
    given = parser.parse_args()
    torch.set_num_threads(1)
    roots = {"stress_predict": given.stress_predict, "stressid": given.stressid}
    study = Study(given.out / "recipe.jsonl", roots, given.minutes)
    most_telling(study)
    chosen, first = encodings(study)
    adopted, second = factors(study, chosen)
    third = together(study, chosen, adopted)
    if DEAR[0] in ENCODINGS:
        first.append([*DEAR[:2], points(study.score(Trial(DEAR[0], CHOOSES, DEAR[1])))])
    spent = sum(line["seconds"] for line in study.found.values())
    taken = ", ".join(f"{name}={value}" for name, value in adopted.items()) or "none"
    text = f"""# The recipe search

`{__doc__.splitlines()[2].split("#")[0].strip()}`, {spent:.0f} s of CPU.
Validation scores in points, mean of folds {" and ".join(map(str, FOLDS))}, one seed, learning rates {GRID}.

Encodings, chosen by {CHOOSES}: {", ".join(f"{b} {e}" for b, e in chosen.items())}.

{table(["set", "encoding", CHOOSES], first)}

Factors, one at a time on these encodings, gain of {CHOOSES}; adopted: {taken}.

{table(["factor", *chosen, "mean", "adopted"], second)}

Rows.

{table(["set", "row", "as it was", "encoding", "encoding and recipe"], third)}

Learning rates chosen.

{table(["rate", "best of a fold"], edges(study))}
"""
    (given.out / "recipe.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

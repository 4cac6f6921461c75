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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor

from fusionbench import engine, harness
from fusionbench.api import Dropout
from fusionbench.engine import Trained
from fusionbench.engine.model import Blueprint, Model
from fusionbench.harness import evaluate as evaluation
from fusionbench.harness.dataset import Dataset
from fusionbench.harness.fit import Fitter
from fusionbench.harness.setup import member_of, splits_of
from fusionbench.metrics import oriented

FOLDS = (0, 1)
#: The fusers that choose, prespecified: plain, late, gated, attention. Those shown beside them at the end.
CHOOSE = ("concat", "late_average", "gated", "attention_pool")
SHOWN, CLASSICAL = (*CHOOSE, "transformer", "jmt"), ("forest", "linear", "boosting")
GRID = "3e-4,1e-3,3e-3,1e-2,3e-2"
RAW = {"channels": 3}  # a step of watch holds ten samples of three axes
BEFORE = "before"  # what the benchmark declared when the search began
#: Encodings by set: name -> backbone of every modality and its settings.
ENCODINGS: dict[str, dict[str, tuple[str, Mapping[str, Any]]]] = {
    "stressid": {BEFORE: ("identity", {}), "ple": ("ple", {})},
    "watch": {
        BEFORE: ("tcn", {"kernel": 3, "depth": 2, "shorten": 2}),
        "ple": ("ple", {}),
        "summary": ("summary", RAW),
    },
    "stress_predict": {
        BEFORE: ("tcn", {"dim": 32, "kernel": 3, "depth": 2, "shorten": 4}),
        "ple": ("ple", {}),
        "summary": ("summary", {}),
    },
    "affect_sim": {
        BEFORE: ("identity", {}),
        "ple": ("ple", {}),
        "tcn": ("tcn", {"depth": 2}),  # nine frames, as the linear row sees
    },
}
#: One factor at a time: name -> changes of `train`; "dropout" is every layer's.
FACTORS: dict[str, dict[str, Any]] = {
    "dropout .3": {"dropout": 0.3},
    "moving average .98": {"ema": 0.98},
    "class balance": {"class_balance": True},
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
        return self._mean(
            trial.key, lambda: self._classical(trial) if trial.fuser in CLASSICAL else self._network(trial)
        )

    def damaged(self, trial: Trial) -> float:
        """Likewise of validation samples under the benchmark's table of damage, at the learning rates of `score`."""
        if math.isnan(self.score(trial)):
            return math.nan
        return self._mean(f"{trial.key} damaged", lambda: self._under_damage(trial))

    def _mean(self, key: str, do: Callable[[], Iterator[dict[str, Any]]]) -> float:
        if key not in self.found and time.monotonic() < self.until:
            began = time.process_time()
            folds = list(do())
            line = {"key": key, "folds": folds, "seconds": round(time.process_time() - began, 1)}
            with self.file.open("a") as file:
                file.write(json.dumps(line) + "\n")
            self.found[key] = line
            print(f"{key}: {100 * mean(fold['score'] for fold in folds):.1f}, {line['seconds']} s", flush=True)
        done = self.found.get(key)
        return 100 * mean(fold["score"] for fold in done["folds"]) if done else math.nan

    def _setup(self, trial: Trial) -> harness.Setup:
        train = {name: value for name, value in trial.changes.items() if name != "dropout"}
        root = {"benchmark": {"root": self.roots[trial.benchmark]}} if trial.benchmark in self.roots else {}
        given: dict[str, Any] = {**root, "train": {**train, "lr": GRID}}
        plain = harness.setup(trial.benchmark, trial.fuser, given=given, datasets=self.datasets)
        name, settings = ENCODINGS[trial.benchmark][trial.encoding]
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

    def _under_damage(self, trial: Trial) -> Iterator[dict[str, Any]]:
        """The mean over corruptions of the mean over severities, of models trained again."""
        setup = self._setup(trial)
        chosen = {fold["fold"]: fold["lr"] for fold in self.found[trial.key]["folds"]}
        damage = evaluation.parse(setup, setup.benchmark.corruptions)
        metric = setup.benchmark.task.metrics[0]
        for fold in FOLDS:
            run = setup.run(fold, 0)
            splits = splits_of(setup, setup.data, run)
            who = member_of(setup.recipe, run, splits, chosen[fold])
            (trained,) = (
                e for e in engine.train(setup.trained, [who], setup.data, setup.recipe) if isinstance(e, Trained)
            )
            model = evaluation.load_model(setup, run, trained.weights, torch.device("cpu"))
            case = evaluation.Case(run, evaluation.Network(model), replace(splits, test=splits.val))
            (found,) = evaluation.evaluate(setup, [case], setup.data, damage)
            levels: dict[str, list[float]] = {}
            for condition in (name for name, *_ in damage):
                family = ":".join(condition.split(":")[:2])
                levels.setdefault(family, []).append(oriented(metric, found.scores[condition][metric]))
            yield {"fold": fold, "score": mean(map(mean, levels.values()))}

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
    """Balance is for classes under a macro metric."""
    return "class_balance" not in changes or benchmark in ("stressid", "stress_predict")


def encodings(study: Study) -> tuple[dict[str, str], dict[str, str], list[list[str]]]:
    """The encoding of each set by clean and damaged scores together, and that by clean scores alone.

    Each has the best mean rank over the fusers that choose; of equals the first. A summary that gains a point on clean
    samples may lose ten under noise, and a board is about both.
    """
    chosen, on_clean, rows = {}, {}, []
    for benchmark, known in ENCODINGS.items():
        names = tuple(known)
        clean = {f: {n: study.score(Trial(benchmark, f, n)) for n in names} for f in CHOOSE}
        under = {f: {n: study.damaged(Trial(benchmark, f, n)) for n in names} for f in CHOOSE}
        both = {f: {n: (clean[f][n] + under[f][n]) / 2 for n in names} for f in CHOOSE}
        ranks = _ranks(both, names)
        chosen[benchmark] = min(names, key=lambda n: ranks[n])
        by_clean = _ranks(clean, names)
        on_clean[benchmark] = min(names, key=lambda n: by_clean[n])
        for n in names:
            said = [f"{points(clean[f][n])} / {points(under[f][n])}" for f in CHOOSE]
            rows.append([benchmark, n, *said, f"{1 + by_clean[n]:.2f}", f"{1 + ranks[n]:.2f}"])
    return chosen, on_clean, rows


def _ranks(scores: Mapping[str, Mapping[str, float]], names: Sequence[str]) -> dict[str, float]:
    """Encoding -> its mean rank from 0 on, over the fusers that have every score."""
    complete = [by_name for by_name in scores.values() if not any(map(math.isnan, by_name.values()))]
    return {n: mean(sum(s > by[n] for s in by.values()) for by in complete) if complete else 0.0 for n in names}


def factors(study: Study, chosen: Mapping[str, str]) -> tuple[dict[str, Any], list[list[str]]]:
    """What is adopted: a mean gain above its own standard error, over sets and fusers, where no set loses a point.

    A smaller gain is no reason for a mechanism in every training.
    """
    adopted: dict[str, Any] = {}
    rows = []
    for name, changes in FACTORS.items():
        gains: dict[str, list[float]] = {}
        for benchmark, encoding in chosen.items():
            for fuser in CHOOSE if applies(benchmark, changes) else ():
                gain = study.score(Trial(benchmark, fuser, encoding, changes))
                gain -= study.score(Trial(benchmark, fuser, encoding))
                gains.setdefault(benchmark, []).extend([] if math.isnan(gain) else [gain])
        every = [gain for found in gains.values() for gain in found]
        by_set = {b: mean(found) for b, found in gains.items() if found}
        up = sum(gain > 0 for gain in every)
        error = stdev(every) / math.sqrt(len(every)) if len(every) > 1 else 0.0
        takes = len(every) > 0 and mean(every) > error and min(by_set.values()) > -1
        adopted |= changes if takes else {}
        said = [points(by_set[b], "+") if b in by_set else "" for b in chosen]
        total = f"{mean(every):+.2f} (SE {error:.2f})" if every else "not done"
        rows.append([name, *said, total, f"{up} of {len(every)}", "yes" if takes else "no"])
    return adopted, rows


def together(study: Study, chosen: Mapping[str, str], adopted: Mapping[str, Any]) -> list[list[str]]:
    """Each set as it was, with its encoding, and with all that was adopted; and the classical rows."""
    rows = []
    for benchmark, encoding in chosen.items():
        changes = {n: v for n, v in adopted.items() if applies(benchmark, {n: v})}
        for fuser in (*CLASSICAL, *SHOWN):
            tried = [Trial(benchmark, fuser, BEFORE)]
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
    chosen, on_clean, first = encodings(study)
    adopted, second = factors(study, on_clean)
    third = together(study, chosen, adopted)
    spent = sum(line["seconds"] for line in study.found.values())
    taken = ", ".join(f"{name}={value}" for name, value in adopted.items()) or "none"
    text = f"""# The recipe search

`{__doc__.splitlines()[2].split("#")[0].strip()}`, {spent:.0f} s of CPU.
Validation scores in points, mean of folds {" and ".join(map(str, FOLDS))}, one seed, learning rates {GRID}.

Encodings, clean / damaged, chosen by the mean rank of the mean of both over {", ".join(CHOOSE)}:
{", ".join(f"{b} {e}" for b, e in chosen.items())}.

{table(["set", "encoding", *CHOOSE, "mean rank, clean", "mean rank"], first)}

Factors, one at a time, clean, on the encodings with the best clean rank, mean gain of the same; adopted: {taken}.

{table(["factor", *chosen, "mean", "gains", "adopted"], second)}

Rows.

{table(["set", "row", "as it was", "encoding", "encoding and recipe"], third)}

Learning rates chosen.

{table(["rate", "best of a fold"], edges(study))}
"""
    (given.out / "recipe.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

"""What a search leaves behind: `tuned.json`, the settings of every outer fold, and `trials.csv`, the trial table."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import fusionbench
from fusionbench.api import PROTOCOL
from fusionbench.errors import UsageError
from fusionbench.harness import Setup
from fusionbench.records import store, typed
from fusionbench.search.space import Axis, distribution, flat, settings, text
from fusionbench.search.study import changes, finished, is_default, quiet_optuna

FORMAT = 1  # of tuned.json


@dataclass(frozen=True)
class Trial:
    """One row of the trial table.

    Attributes:
        fold: the outer fold; number: counted from 0 within it.
        state: "complete", "pruned", "failed" (it could not be trained: `error`) or "killed" (and was tried again).
        score: mean validation score, larger is better; None unless complete.
        scores: of every inner fold of the first seed, then of the next, as far as it went.
        steps: optimiser steps of all members together.
    """

    fold: int
    number: int
    state: str
    score: float | None
    settings: Mapping[str, Mapping[str, Any]]
    scores: list[float]
    steps: int
    seconds: float
    default: bool
    error: str | None
    started: str


@dataclass(frozen=True)
class Chosen:
    """What came of one outer fold: the settings that won, their mean validation score, and the cost.

    Attributes:
        trial: its place among those that count, from 0: the defaults first.
    """

    settings: Mapping[str, Mapping[str, Any]]
    score: float
    default_score: float | None
    trial: int
    trials: int
    pruned: int
    failed: int
    optimiser_steps: int
    seconds: float
    versions: Mapping[str, str]
    device: str
    created: str


@dataclass(frozen=True)
class Tuned:
    """`tuned.json`: the settings of every outer fold, and all that they depend on.

    Attributes:
        metric: scores are of this one, negated where smaller is better.
        budget: trials, members a trial (inner folds x seeds), steps a member, and `optimiser_steps`, their product, an
            outer fold: equal for every fuser. What was used after pruning stands in each fold.
        space: part.name -> range; held: part.name -> value of every hyper-parameter that was not searched.
        table: the trials (in `trials.csv`, not in the JSON).
    """

    benchmark: str
    fuser: str
    backbones: Mapping[str, str]
    metric: str
    budget: Mapping[str, int]
    space: Mapping[str, str]
    held: Mapping[str, Any]
    sampler: str
    seed: int
    code: Mapping[str, str]
    data: str
    protocol: int
    folds: Mapping[str, Chosen] = field(default_factory=dict)
    table: Sequence[Trial] = ()

    def made(self) -> dict[str, str]:
        """What a study belongs to, as flat text: trials made otherwise cannot stand in one study."""
        parts: dict[str, Any] = {**self.space, **self.held, "data": self.data, "protocol": self.protocol}
        parts |= {f"code of {part}": mark for part, mark in self.code.items()}
        parts |= {f"backbone.{m}": name for m, name in self.backbones.items()}
        parts |= {"sampler": self.sampler, "seed": self.seed}
        parts |= {name: self.budget[name] for name in ("inner_folds", "seeds")}
        return _plain(parts)


def load_tuned(results: Path, setup: Setup, folds: Iterable[int] | None = None) -> dict[int, dict[str, dict[str, Any]]]:
    """Outer fold -> part -> hyper-parameter -> value, to be given to `harness.setup`.

    `setup` is the untuned one: same plugins, same settings beside the searched ones.

    Raises:
        UsageError: there is none, it was made for other code or other settings, or it lacks a fold.
    """
    path = results / setup.benchmark_name / setup.names["fuser"] / "tuned.json"
    again = f"fusionbench tune {setup.names['fuser']} -b {setup.benchmark_name}"
    old = read(path)
    if old is None:
        raise UsageError(f"{setup.names['fuser']} is not tuned on {setup.benchmark_name}: `{again}` first")
    parts = {f"code of {part}": mark for part, mark in setup.code.items()} | {"protocol": PROTOCOL}
    parts |= {name: plugin for name, plugin in setup.names.items() if name != "fuser"}
    parts |= {name: value for name, value in flat(setup.hparams).items() if name not in old.space}
    then = {name: value for name, value in old.made().items() if name in parts}
    if changed := changes(then, _plain(parts)):
        raise UsageError(f"{path} was made otherwise ({changed}): run `{again}` again")
    wanted = range(setup.benchmark.folds) if folds is None else folds
    if missing := [str(fold) for fold in wanted if str(fold) not in old.folds]:
        as_then = f"--trials {old.budget['trials']} --inner {old.budget['inner_folds']} --seeds {old.budget['seeds']}"
        rest = f"`{again} {as_then} --folds {','.join(missing)},` finds them"  # the comma: a fold, not so many
        raise UsageError(f"{path} has no settings for fold {', '.join(missing)}: {rest}")
    return {fold: {p: dict(v) for p, v in old.folds[str(fold)].settings.items()} for fold in wanted}


def budget(results: Path, setup: Setup) -> Mapping[str, int]:
    """The budget of an outer fold that `load_tuned` rests on, as `Tuned.budget`; empty if there is none."""
    tuned = read(results / setup.benchmark_name / setup.names["fuser"] / "tuned.json")
    return tuned.budget if tuned else {}


def load_trials(results: Path, benchmark: str, fuser: str) -> list[dict[str, str]]:
    """The rows of `trials.csv`, empty if there are none; a damaged one is named on standard error and left out."""
    path = results / benchmark / fuser / "trials.csv"
    try:
        text = path.read_text()
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        print(f"warning: {path} cannot be read ({error})", file=sys.stderr)
        return []
    rows = []
    for number, row in enumerate(csv.DictReader(io.StringIO(text)), 2):
        try:
            int(row["fold"]), int(row["number"]), float(row["score"] or 0), float(row["seconds"])
            if None in row or None in row.values():
                raise ValueError("too many or too few columns")
        except (KeyError, ValueError, TypeError) as error:
            print(f"warning: line {number} of {path} is damaged ({error})", file=sys.stderr)
            continue
        rows.append(row)
    return rows


def restored(results: Path, benchmark: str, fuser: str) -> dict[int, Any]:
    """Outer fold -> Optuna study in memory, made again from `tuned.json` and `trials.csv`; empty if there are none."""
    tuned, optuna = read(results / benchmark / fuser / "tuned.json"), quiet_optuna()
    studies: dict[int, Any] = {}
    for row in load_trials(results, benchmark, fuser) if tuned else []:
        assert tuned is not None
        if row["state"] not in ("complete", "pruned"):
            continue
        ranges = {name: distribution(tuned.space[name]) for name in tuned.space if row.get(name)}
        params = {n: row[n] if hasattr(r, "choices") else float(row[n]) for n, r in ranges.items()}
        complete = row["state"] == "complete"
        trial = optuna.create_trial(
            state=optuna.trial.TrialState.COMPLETE if complete else optuna.trial.TrialState.PRUNED,
            value=float(row["score"]) if complete else None, params=params, distributions=ranges,
            user_attrs={"seconds": float(row["seconds"])},
        )  # fmt: skip
        fold = int(row["fold"])
        study = studies[fold] = studies.get(fold) or optuna.create_study(direction="maximize")
        if len(study.trials) < tuned.budget["trials"]:  # what came after was not counted
            study.add_trial(trial)
    return studies


def blank(
    setup: Setup, axes: Mapping[str, Axis], trials: int, inner: int, seeds: int, sampler: str, seed: int
) -> Tuned:
    """What a search depends on, nothing found yet."""
    steps = setup.recipe.steps
    budget = {"trials": trials, "inner_folds": inner, "seeds": seeds, "steps": steps,
              "optimiser_steps": trials * inner * seeds * steps}  # fmt: skip
    held = {name: value for name, value in flat(setup.hparams).items() if name not in axes}
    backbones = {name.partition(".")[2]: plugin for name, plugin in setup.names.items() if name != "fuser"}
    return Tuned(
        setup.benchmark_name, setup.names["fuser"], backbones, setup.benchmark.task.metrics[0], budget,
        {name: str(axis.domain) for name, axis in axes.items()}, held, sampler, seed, dict(setup.code), setup.digest,
        PROTOCOL,
    )  # fmt: skip


def write(results: Path, tuned: Tuned, fold: int, study: Any, axes: Mapping[str, Axis], device: str) -> Tuned:
    """`tuned` with this fold's outcome, and the other folds on disk that were made alike; writes both files.

    Raises:
        UsageError: no trial could be trained, or the folder cannot be written.
    """
    from optuna import __version__ as optuna_version
    from optuna.trial import TrialState

    # The defaults and the first others: two machines that finish at once do not make a budget larger.
    inside = sorted(finished(study), key=lambda t: (not is_default(t), t.number))
    counted = inside[: tuned.budget["trials"]]
    complete = [t for t in counted if t.state == TrialState.COMPLETE]
    if not complete:
        why = next((t.user_attrs.get("error") for t in counted), "all were pruned")
        raise UsageError(f"no trial of fold {fold} could be trained: {why}")
    best = best_of(complete)
    failed = sum(t.user_attrs.get("error") is not None for t in counted)
    chosen = Chosen(
        settings=settings(axes, best.params),
        score=best.value,
        default_score=next((t.value for t in complete if is_default(t)), None),
        trial=counted.index(best),
        trials=len(counted),
        pruned=len(counted) - len(complete) - failed,
        failed=failed,
        optimiser_steps=sum(t.user_attrs["steps"] for t in counted),
        seconds=sum(t.user_attrs["seconds"] for t in counted),
        versions={"fusionbench": fusionbench.__version__, "torch": torch.__version__, "optuna": optuna_version},
        device=device,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    folder = results / tuned.benchmark / tuned.fuser
    folder.mkdir(parents=True, exist_ok=True)
    old = read(folder / "tuned.json")
    others = dict(old.folds) if old and old.made() == tuned.made() and old.budget == tuned.budget else {}
    table = [row_of(t, axes, fold) for t in study.trials if t.state.is_finished()]
    folds = dict(sorted({**others, **tuned.folds, str(fold): chosen}.items(), key=lambda item: int(item[0])))
    tuned = replace(tuned, folds=folds, table=[*tuned.table, *table])
    content = {"format": FORMAT, **{name: value for name, value in asdict(tuned).items() if name != "table"}}
    rows = [r for r in load_trials(results, tuned.benchmark, tuned.fuser) if r["fold"] in others and r["fold"] not in
            {str(t.fold) for t in tuned.table}]  # fmt: skip
    rows += [_csv_row(trial) for trial in tuned.table]
    table_text = io.StringIO()
    writer = csv.DictWriter(table_text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(rows, key=lambda row: (int(row["fold"]), int(row["number"]))))
    try:
        store.write(folder / "trials.csv", lambda f: f.write(table_text.getvalue().encode()))
        store.write(folder / "tuned.json", lambda f: f.write(json.dumps(content, indent=1).encode() + b"\n"))
    except OSError as error:
        raise UsageError(f"cannot write the settings to {folder}: {error.strerror or error}") from None
    return tuned


def best_of(complete: Iterable[Any]) -> Any:
    """The trial that wins; of equal scores the defaults, else by the settings, whatever was killed in between."""
    return max(complete, key=lambda t: (t.value, is_default(t), json.dumps(t.params, sort_keys=True)))


def row_of(trial: Any, axes: Mapping[str, Axis], fold: int) -> Trial:
    """An Optuna trial as a row of the table."""
    from optuna.trial import TrialState

    facts = trial.user_attrs
    state = {TrialState.COMPLETE: "complete", TrialState.FAIL: "killed"}.get(trial.state, "pruned")
    return Trial(
        fold=fold,
        number=trial.number,
        state="failed" if facts.get("error") else state,
        score=trial.value if trial.state == TrialState.COMPLETE else None,
        settings=settings(axes, trial.params),
        scores=facts.get("scores", []),
        steps=facts.get("steps", 0),
        seconds=facts.get("seconds", 0.0),
        default=is_default(trial),
        error=facts.get("error"),
        started=trial.datetime_start.isoformat(timespec="seconds") if trial.datetime_start else "",
    )


def _plain(parts: Mapping[str, Any]) -> dict[str, str]:
    """As text, so that a value is the same before and after it went through JSON."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in parts.items()}


def _csv_row(trial: Trial) -> dict[str, Any]:
    """A trial as flat columns, every hyper-parameter one of them."""
    plain = {name: value for name, value in asdict(trial).items() if name not in ("settings", "scores")}
    return {**plain, "scores": " ".join(f"{s:.6g}" for s in trial.scores),
            **{name: text(value) for name, value in flat(trial.settings).items()}}  # fmt: skip


def read(path: Path) -> Tuned | None:
    """A `tuned.json`, or None if there is none (a damaged file is named and quarantined)."""
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text())
        if content.pop("format") != FORMAT:
            raise ValueError("unknown format of settings")
        folds = {fold: typed.build(Chosen, chosen) for fold, chosen in content.pop("folds").items()}
        if not all(fold.isdecimal() for fold in folds):
            raise ValueError("a fold is not a number")
        found: Tuned = typed.build(Tuned, {**content, "folds": folds})
        if not {"trials", "inner_folds", "seeds"} <= set(found.budget):
            raise ValueError("the budget is not whole")
        return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        store.quarantine(path, error)
        return None

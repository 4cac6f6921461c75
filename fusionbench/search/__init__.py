"""Declared ranges -> Optuna, on validation data only: nested, equal budgets, resumable.

The settings of an outer fold come from that fold's own training and validation people. These are cut into inner folds
by person: each person validates once a seed, and the score of a trial is the mean, over inner folds and seeds, of the
best validation that its training met (the score by which the protocol itself chooses a checkpoint: it flatters every
trial alike). The engine is handed a dataset without the test samples.

Pruning has two levels. While the inner folds of the first seed train, as one program, their mean is compared with the
median of the complete trials at every validation; after each seed a one-sided signed-rank test compares the trial with
the best one, inner fold by inner fold, over all seeds so far. The defaults are trial 0 and never pruned.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fusionbench import engine, harness
from fusionbench.api import Batch
from fusionbench.engine import Member, Recipe, Trained
from fusionbench.engine.model import Blueprint
from fusionbench.errors import UsageError, unknown
from fusionbench.harness import Setup
from fusionbench.search.outcome import (
    Chosen,
    Trial,
    Tuned,
    blank,
    budget,
    load_trials,
    load_tuned,
    restored,
    row_of,
    write,
)
from fusionbench.search.space import HELD, SCALARS, Axis, declared, flat, nested, restrict, settings
from fusionbench.search.study import (
    SAMPLERS,
    ask,
    begin,
    finished,
    heartbeat,
    is_default,
    opened,
    requeue,
    waiting,
)

__all__ = [
    "HELD",
    "SAMPLERS",
    "SCALARS",
    "Chosen",
    "Searching",
    "Trial",
    "Tuned",
    "budget",
    "declared",
    "load_trials",
    "load_tuned",
    "nested",
    "restored",
    "restrict",
    "tune",
]

WORSE = 0.1  # largest p of the signed-rank test that ends a trial


@dataclass(frozen=True)
class Searching:
    """A validation has happened: `done` of at most `total` optimiser steps of the whole command."""

    fold: int
    finished: int
    trials: int
    done: int
    total: int
    best: float | None


def tune(
    setup: Setup,
    results: Path,
    *,
    trials: int | None = None,
    budget: int | None = None,
    given: Mapping[str, Mapping[str, Any]] | None = None,
    sampler: str = "tpe",
    storage: str | None = None,
    folds: Iterable[int] | None = None,
    inner: int = 4,
    seeds: int = 2,
    seed: int = 0,
    device: str = "auto",
    at_once: int = 1,
    stacked: int | None = None,
) -> Generator[Searching | Trial | Tuned, None, None]:
    """Searches every outer fold until `trials` are finished; yields progress, each trial, and at last the outcome.

    The same call continues a study that was interrupted, and does nothing but report where it is complete.

    Args:
        trials: finished trials an outer fold; or `budget`: optimiser steps an outer fold, rounded down to whole trials.
        given: part -> hyper-parameter -> value, what the user has set: held, not searched.
        storage: URL of a database shared by many machines; by default a file beside the records.
        inner, seeds: a trial trains inner x seeds members; `seed` is the sampler's.
        at_once: trials asked for at one time, of one architecture and different scalars, trained as one program. It
            changes which trials are made; at 1 the sampler has seen every result.
        stacked: members a program; all of a seed by default.

    Raises:
        UsageError: nothing to search, a storage that cannot be reached or belongs to another search, no budget.
    """
    if sampler not in SAMPLERS:
        raise unknown("sampler", sampler, SAMPLERS)
    outer = sorted({run.fold for run in setup.runs(folds, [0])})
    axes = declared(setup, given or {})
    if setup.recipe.groups < 1:
        raise UsageError("a search takes every training group: leave --train.groups out")
    count = _trials(setup.recipe, trials, budget, inner, seeds)
    tuned = blank(setup, axes, count, inner, seeds, sampler, seed)
    where = harness.pick(device)
    folder = results / tuned.benchmark / tuned.fuser
    validations = -(-setup.recipe.steps // setup.recipe.interval)
    for place, fold in enumerate(outer):
        rows, inside = nested(setup, fold, inner)
        job = _Job(setup, axes, restrict(setup.seen, rows).to(where), inside, seeds, count, at_once, stacked, where)
        with opened(folder, storage, _name(tuned, fold), tuned.made(), validations) as (study, alone):
            for event in _search(study, alone, job, fold, sampler, seed):
                if isinstance(event, Searching):
                    event = replace(event, done=place * event.total + event.done, total=event.total * len(outer))
                yield event
            tuned = write(results, tuned, fold, study, axes, str(where))
    yield tuned


def _name(tuned: Tuned, fold: int) -> str:
    return f"{tuned.benchmark}/{tuned.fuser}/study-fold{fold}"


@dataclass(frozen=True, eq=False)
class _Job:
    """What every trial of an outer fold shares."""

    setup: Setup
    axes: Mapping[str, Axis]
    data: Batch
    inside: list[tuple[np.ndarray, np.ndarray]]
    seeds: int
    trials: int
    at_once: int
    stacked: int | None
    device: torch.device

    @property
    def cost(self) -> int:
        """Optimiser steps of one trial."""
        return len(self.inside) * self.seeds * self.setup.recipe.steps

    def build(self, settings: Mapping[str, Mapping[str, Any]]) -> tuple[Blueprint, Recipe]:
        blueprint = self.setup.trained if self.setup.is_estimator else self.setup.blueprint
        backbones = {m: (maker, {**kept, **settings.get(f"backbone.{m}", {})})
                     for m, (maker, kept) in blueprint.backbones.items()}  # fmt: skip
        built = replace(blueprint, settings={**blueprint.settings, **settings.get("fuser", {})}, backbones=backbones)
        return built, replace(self.setup.recipe, **settings.get("train", {}))


class _Running:
    """A trial in training: the best validation so far of each of its members, seed after seed."""

    def __init__(self, trial: Any, settings: dict[str, dict[str, Any]]) -> None:
        self.trial, self.settings = trial, settings
        self.default = is_default(trial)
        self.curves: dict[tuple[int, int], list[float]] = {}  # (seed, inner fold) -> best score by validation
        self.left: set[tuple[int, int]] = set()  # have left the program: their last value stands
        self.steps = self.reported = 0
        self.pruned, self.error = False, None

    error: str | None

    @property
    def over(self) -> bool:
        return self.pruned or self.error is not None

    @property
    def scores(self) -> list[float]:
        return [curve[-1] for _, curve in sorted(self.curves.items()) if curve]

    def note(self, member: tuple[int, int], score: float) -> None:
        curve = self.curves[member]
        curve.append(max([score, *curve[-1:]]))

    def report(self, last: int) -> None:
        """Tells the pruner the mean of the first seed at every validation that all its members have met."""
        curves = list(self.curves.items())
        while any(len(c) > self.reported for _, c in curves) and all(
            len(c) > self.reported or (m in self.left and c) for m, c in curves
        ):
            mean = float(np.mean([c[min(self.reported, len(c) - 1)] for _, c in curves]))
            self.reported += 1
            if self.over or not math.isfinite(mean):
                continue
            self.trial.report(mean, self.reported)
            # The last validation costs nothing more; the defaults are never ended early.
            self.pruned = self.reported < last and not self.default and self.trial.should_prune()


def _search(
    study: Any, alone: bool, job: _Job, fold: int, sampler: str, seed: int
) -> Generator[Searching | Trial, None, None]:
    """Asks, trains and tells until there are enough finished trials, the defaults among them."""
    distributions = {name: axis.distribution() for name, axis in job.axes.items()}
    start = {name: axis.start for name, axis in job.axes.items()}
    starts = [start, *({**start, name: value} for name, axis in job.axes.items() for value in axis.grid)]
    if not alone:
        begin(study, starts, len(starts))  # once: other machines ask for them too
    while True:
        requeue(study, alone, distributions)
        over = finished(study)
        if len(over) >= job.trials:
            if any(map(is_default, over)):
                return
            if not waiting(study):
                study.enqueue_trial(start, user_attrs={"start": 0})  # another machine has died over it
        number = max(1, min(job.at_once, job.trials - len(over)))
        if alone:  # only when it is their turn, so that one that was killed is tried again before the next
            begin(study, starts, number)
        asked = [_Running(t, settings(job.axes, t.params)) for t in ask(study, number, distributions, sampler, seed)]
        best = max((t.value for t in over if t.value is not None), default=None)
        with heartbeat(study, [r.trial for r in asked]):
            for stack in _stacks(asked):
                began = time.perf_counter()
                for turn, done in _evaluate(study, job, stack):
                    steps = (len(over) + turn / job.seeds * len(stack)) * job.cost + done
                    total = job.trials * job.cost
                    yield Searching(fold, len(over), job.trials, min(int(steps), total), total, best)
                for running in stack:
                    seconds = (time.perf_counter() - began) / len(stack)
                    yield row_of(_tell(study, running, seconds), job.axes, fold)


def _evaluate(study: Any, job: _Job, stack: list[_Running]) -> Iterator[tuple[int, int]]:
    """Trains trials of one architecture, one program a seed; yields (seed, optimiser steps done with it)."""
    last = -(-job.setup.recipe.steps // job.setup.recipe.interval)
    for turn in range(job.seeds):
        alive = [running for running in stack if not running.over]
        if not alive:
            return
        if job.setup.is_estimator:
            yield from _fit(job, alive, turn)
            _prune(study, alive, turn, job.seeds)
            continue
        members, owners = [], []
        for running in alive:
            blueprint, recipe = job.build(running.settings)
            scalars = recipe.lr[0], recipe.weight_decay, recipe.label_smoothing, recipe.clip
            for number, (train, val) in enumerate(job.inside):
                members.append(Member(number, turn, train, val, *scalars))
                owners.append((running, (turn, number)))
                running.curves[turn, number] = []
        try:
            training = engine.train(
                blueprint, members, job.data, recipe, device=job.device, stacked=job.stacked or len(members)
            )
            stop: set[int] | None = None
            while True:
                event = training.send(stop)
                stop = None
                if isinstance(event, Trained):
                    running, member = owners[event.member]
                    running.left.add(member)
                    running.steps += int(event.history[-1]["step"])
                    running.error = running.error or event.error
                    continue
                for row, score in event.scores.items():
                    owners[row][0].note(owners[row][1], score)
                if turn == 0:
                    for running in alive:
                        running.report(last)
                stop = {row for row, (running, _) in enumerate(owners) if running.over}
                yield turn, event.done
        except StopIteration:
            pass
        except Exception as error:  # a sampled architecture may be impossible, or too large; the defaults may not
            if any(running.default for running in alive):
                raise
            for running in alive:
                running.error = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        _prune(study, alive, turn, job.seeds)


def _fit(job: _Job, alive: list[_Running], turn: int) -> Iterator[tuple[int, int]]:
    """Fits an estimator on each inner fold of a seed; a fit counts as one step."""
    done = 0
    for running in alive:
        blueprint, _ = job.build(running.settings)
        for number, (train, val) in enumerate(job.inside):
            running.curves[turn, number] = []
            try:
                fitted = harness.fit(blueprint, job.data, train, val, turn, job.setup.recipe.missing)
                running.note((turn, number), harness.score(fitted, job.data[val]))
            except Exception as error:  # sampled settings may be impossible; the defaults may not
                if running.default:
                    raise
                running.error = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
                break
            running.left.add((turn, number))
            running.steps, done = running.steps + 1, done + 1
            yield turn, done


def _prune(study: Any, alive: list[_Running], turn: int, seeds: int) -> None:
    """After each seed but the last, whoever is worse than the best by now."""
    for running in alive:
        if turn + 1 < seeds and not running.over and not running.default:
            running.pruned = _worse(running.scores, study)


def _worse(scores: list[float], study: Any) -> bool:
    """Is a trial worse than the best one by the signed-rank test over the inner folds and seeds so far?"""
    from scipy.stats import wilcoxon

    try:
        best = study.best_trial.user_attrs["scores"]
    except ValueError:  # none is complete
        return False
    difference = np.array(scores) - np.array(best[: len(scores)])
    if not np.isfinite(difference).all() or difference.mean() >= 0:
        return False
    return bool(wilcoxon(difference, alternative="less", zero_method="zsplit").pvalue < WORSE)


def _stacks(asked: list[_Running]) -> list[list[_Running]]:
    """The trials by architecture, in order."""
    found: dict[str, list[_Running]] = {}
    for running in asked:
        shared = {n: v for n, v in flat(running.settings).items() if n not in SCALARS}
        found.setdefault(json.dumps(shared, sort_keys=True), []).append(running)
    return list(found.values())


def _tell(study: Any, running: _Running, seconds: float) -> Any:
    """The finished trial. One that cannot be trained counts as finished: as pruned, so that samplers avoid its like."""
    from optuna.trial import TrialState

    scores = running.scores
    if not running.over and not np.isfinite(scores).all():
        running.error = "the metric is undefined on an inner fold"
    facts = {"scores": scores, "steps": running.steps, "seconds": seconds, "error": running.error}
    try:
        for name, value in facts.items():
            running.trial.set_user_attr(name, value)
    except RuntimeError:  # finished already: another machine took this one for dead, and has the trial in its queue
        return study.trials[running.trial.number]
    if running.over:
        return study.tell(running.trial, state=TrialState.PRUNED)
    return study.tell(running.trial, float(np.mean(scores)))


def _trials(recipe: Recipe, trials: int | None, budget: int | None, inner: int, seeds: int) -> int:
    """How many trials an outer fold has."""
    if seeds < 1:
        raise UsageError(f"a trial trains at least one seed, not {seeds}")
    if (trials is None) == (budget is None):
        raise UsageError("a search takes a number of trials or a budget of optimiser steps: --trials 50")
    if trials is None:
        assert budget is not None
        cost = inner * seeds * recipe.steps
        trials = budget // cost
        if trials < 1:
            raise UsageError(
                f"a budget of {budget} optimiser steps is too small for one trial: {inner} inner folds x {seeds} seeds"
                f" x {recipe.steps} steps are {cost}"
            )
    if trials < 1:
        raise UsageError(f"a search has at least one trial, the defaults, not {trials}: --trials 50")
    return trials

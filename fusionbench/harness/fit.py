"""Estimators: fitted in one call, their grid chosen on validation, fitted again from the seed; what they answer."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from fusionbench import engine
from fusionbench.api import Batch, Estimator, UsageError
from fusionbench.engine.model import Blueprint, Model
from fusionbench.engine.recipe import rates_of
from fusionbench.harness.costs import latency
from fusionbench.harness.setup import Setup, splits_of, training_of
from fusionbench.metrics import evaluate, oriented
from fusionbench.records import Run

FIRST = 0  # the seed with which the settings of a fold are chosen, unless each seed deals its own folds
PART = 8  # an estimate fits on one in so many training samples


@dataclass(frozen=True, eq=False)
class Fitted:
    """A fitted estimator, with the normalisation before it; it answers as a trained model does.

    `seen`: of one that sees the place in the recording alone, the whole dataset as it meets it; whatever was done to a
    batch's own streams, it answers by that.
    """

    model: Model
    seconds: float
    seen: Batch | None = None

    @property
    def estimator(self) -> Estimator:
        estimator: Any = self.model.fuser
        return estimator

    def answer(self, batch: Batch) -> np.ndarray:
        """(n, S, out) float32.

        Raises:
            UsageError: the estimator's answers have another shape.
        """
        parts = []
        for rows in torch.arange(len(batch)).split(engine.chunk(batch)):
            some = batch[rows] if self.seen is None else self.seen[batch.index[rows]]
            found = np.asarray(self.estimator.predict(self.model.encode(dict(some.streams), some.y.shape[1])))
            wanted = (len(some), some.y.shape[1], self.model.task.out)
            if found.shape != wanted:
                name = type(self.estimator).__name__
                raise UsageError(f"{name} answers {found.shape} where {wanted} is asked for: fusionbench check it")
            parts.append(found.astype(np.float32))
        return np.concatenate(parts)


def fit(blueprint: Blueprint, data: Batch, train: np.ndarray, val: np.ndarray, seed: int, missing: str = "") -> Fitted:
    """An estimator fitted on the samples at `train`; nothing of `data` is read but these and `val`.

    Args:
        missing: rates at which modalities are hidden in training, as `train.missing` spells them.

    Raises:
        UsageError: there are no training or no validation samples.
    """
    for side, index in (("training", train), ("validation", val)):
        if len(index) == 0:
            raise UsageError(f"there are no {side} samples")
    began = time.perf_counter()
    model = blueprint.begin(seed, data, torch.from_numpy(train)).eval()
    rates = rates_of(missing, list(blueprint.shapes))
    groups = {name: number for number, name in enumerate(dict.fromkeys(data.groups[i] for i in train))}
    sides = []
    for index in (train, val):
        part = data[index]
        streams = engine.hide(dict(part.streams), rates, part.index) if rates and index is train else part.streams
        with torch.no_grad():
            streams = model.encode(dict(streams), part.y.shape[1])
        sides.append(
            replace(
                part,
                streams=streams,
                ids=(),
                groups=[groups.setdefault(g, len(groups)) for g in part.groups],
                attributes={},
            )
        )
    fitted = Fitted(model, 0.0)
    fitted.estimator.fit(sides[0], sides[1], seed)
    return replace(fitted, seconds=time.perf_counter() - began)


class Fitter:
    """Fits the runs of one setup; what validation chooses in a fold is chosen once, with the first seed.

    Where each seed deals its own folds, the first seed's validation people may be another's test people: then each
    chooses for itself.
    """

    def __init__(self, setup: Setup, data: Batch) -> None:
        self.setup, self.data = setup, data
        self.seen = setup.seen.to("cpu") if setup.sees_order else data
        self.chosen: dict[tuple[int, int], tuple[dict[str, float], dict[str, float]]] = {}
        self._kept: dict[tuple[int, int], Fitted] = {}

    def choose(self, run: Run) -> tuple[dict[str, float], dict[str, float]]:
        """The settings of the grid for a run's fold, and the validation score of each candidate."""
        run = run if self.setup.partition else replace(run, seed=FIRST)
        place = run.fold, run.seed
        if place not in self.chosen:
            best, scores = (-math.inf, dict[str, float]()), dict[str, float]()
            candidates = grid_of(self.setup)
            for settings in candidates if len(candidates) > 1 else ():
                model = self.fit(run, settings)
                score = self.score(model, run)
                scores[", ".join(f"{name}={value:g}" for name, value in settings.items())] = score
                if score > best[0] or not best[1]:  # of equals the first
                    best = score, settings
                    self._kept[place] = model
            self.chosen[place] = best[1] or candidates[0], scores
        return self.chosen[place]

    def run(self, run: Run) -> Fitted:
        """The run's estimator, with the settings that its fold has chosen."""
        settings, _ = self.choose(run)
        kept = self._kept.pop((run.fold, run.seed), None)  # the one that was chosen, if it is this seed's
        return kept or self.fit(run, settings)

    def fit(self, run: Run, settings: Mapping[str, float]) -> Fitted:
        splits = training_of(self.setup, self.data, run)
        blueprint = replace(self.setup.trained, settings={**self.setup.trained.settings, **settings})
        missing = "" if self.setup.sees_order else self.setup.recipe.missing
        fitted = fit(blueprint, self.seen, splits.train, splits.val, run.seed, missing)
        return replace(fitted, seen=self.seen if self.setup.sees_order else None)

    def score(self, model: Fitted, run: Run) -> float:
        """The primary metric on the validation samples, higher better; minus infinity where it is undefined."""
        return score(model, self.data[splits_of(self.setup, self.data, run).val])


def score(model: Fitted, batch: Batch) -> float:
    """The primary metric, oriented; minus infinity where it is undefined."""
    primary = model.model.task.metrics[0]
    found = evaluate([primary], model.answer(batch), batch.y.numpy(), batch.y_mask.numpy())[primary]
    return oriented(primary, found) if math.isfinite(found) else -math.inf


def grid_of(setup: Setup) -> list[dict[str, float]]:
    """All combinations of the estimator's grid; what is set to another value than its default, or tuned, is held."""
    method: Any = setup.blueprint.fuser
    free = {} if setup.tuned else {n: v for n, v in method.grid.items() if n not in setup.held}
    return combinations(free)


def combinations(grid: Mapping[str, Sequence[float]]) -> list[dict[str, float]]:
    """Every combination of the values of a grid; of an empty one, a single empty one."""
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def costs_of(model: Fitted, data: Batch) -> dict[str, float | None]:
    """As `costs.measure` of a network, what applies: latency of one sample and of `batch` samples."""
    large = engine.chunk(data)
    rows = torch.arange(large) % len(data)
    one, many = data[rows[:1]], data[rows]
    cpu = torch.device("cpu")
    return {
        "flops": None,
        "latency": latency(lambda: model.answer(one), cpu),
        "latency_batch": latency(lambda: model.answer(many), cpu),
        "batch": float(large),
    }


def estimate(setup: Setup, runs: Sequence[Run], evaluations: int) -> float:
    """Seconds that fitting and evaluating these runs may take, from a fit on a part of one's training samples."""
    data, run = setup.seen, runs[0]
    splits = training_of(setup, data, run)
    model = fit(setup.trained, data, splits.train[::PART], splits.val[::PART], FIRST)
    began = time.perf_counter()
    model.answer(data[splits.test[::PART]])
    asked = time.perf_counter() - began
    choices = len({(r.fold, r.seed if setup.partition else FIRST) for r in runs})
    fits = len(runs) + choices * (len(grid_of(setup)) - 1)
    return PART * (fits * model.seconds + len(runs) * evaluations * asked)

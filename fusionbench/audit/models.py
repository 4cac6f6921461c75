"""A small forest that is asked what can be told from what, and scores with intervals over groups."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from fusionbench import metrics
from fusionbench.audit.findings import short
from fusionbench.stats.intervals import group_weights

Array = NDArray[Any]
TREES, DRAWS = 40, 400
#: How a label is scored, by the kind of the task.
METRIC = {"classify": "macro_f1", "regress": "pearson"}
#: How far above chance a score and the lower end of its interval must lie to count, and a gap above 0.
ABOVE, SURELY = 0.1, 0.03


@dataclass(frozen=True)
class Score:
    """A score, or the difference of two, with its 95 % interval over groups."""

    value: float
    low: float
    high: float

    def exceeds(self, chance: float) -> bool:
        """Is it clearly more, by size and surely?"""
        return self.value >= chance + ABOVE and self.low >= chance + SURELY

    def __str__(self) -> str:
        return f"{short(self.value)} [{short(self.low)}, {short(self.high)}]"


def told(x: Array, y: Array, folds: Array, kind: str, leaf: int = 1) -> Array:
    """(n, out) answers to y, each from a forest fitted on the samples of all other folds."""
    out = int(y.max()) + 1 if kind == "classify" else y.shape[1]
    found = np.zeros((len(y), out))
    for fold in np.unique(folds):
        asked = folds == fold
        found[asked] = fitted(x[~asked], y[~asked], x[asked], kind, out, leaf)
    return found


def fitted(x: Array, y: Array, asked: Array, kind: str, out: int, leaf: int = 1) -> Array:
    """(m, out) answers for `asked` of a forest that is fitted on x (n, d), y (n,) classes or (n, out) values."""
    from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor

    if kind == "regress":
        trees = ExtraTreesRegressor(TREES, max_features=0.33, min_samples_leaf=leaf, random_state=0)
        return np.asarray(trees.fit(x, y[:, 0] if out == 1 else y).predict(asked)).reshape(-1, out)
    trees = ExtraTreesClassifier(TREES, min_samples_leaf=leaf, class_weight="balanced", random_state=0)
    answers = np.zeros((len(asked), out))
    trees.fit(x, y)
    answers[:, trees.classes_] = trees.predict_proba(asked)
    return answers


def score(answers: Array, y: Array, group: Array, kind: str) -> Score:
    """The pooled score of answers (n, out), with its interval over groups."""
    found = _interval(*_draws(answers, y, group, kind), int(group.max()) + 1)
    return Score(found.value, max(found.low, -1.0), min(found.high, 1.0))


def gap(a: Array, b: Array, y: Array, group: Array, kind: str) -> Score:
    """The score of a less that of b, over the same resampled groups."""
    (one, first), (two, second) = (_draws(answers, y, group, kind) for answers in (a, b))
    return _interval(one - two, first - second, int(group.max()) + 1)


def between(a: Score, b: Score) -> Score:
    """The score a less the score b, of different groups."""
    half = math.hypot(a.high - a.low, b.high - b.low) / 2
    return Score(a.value - b.value, a.value - b.value - half, a.value - b.value + half)


def chance(y: Array, kind: str) -> float:
    """The most that answers without information reach: a constant, or a guess by the classes' frequencies."""
    if kind == "regress":
        return 0.0
    counts = np.bincount(y)
    constant = np.broadcast_to(counts / len(y), (len(y), len(counts)))
    return max(1 / len(counts), metrics.get(METRIC[kind]).of(constant, y))


def _draws(answers: Array, y: Array, group: Array, kind: str) -> tuple[float, Array]:
    metric, size = metrics.get(METRIC[kind]), int(group.max()) + 1
    sums = metric.collect(answers, y, group, size)
    weights = group_weights(size, DRAWS, 0)
    with np.errstate(invalid="ignore"):
        return float(np.nan_to_num(metric.finish(sums.sum(0)))), np.nan_to_num(metric.finish(weights @ sums))


def _interval(value: float, draws: Array, groups: int) -> Score:
    """Student's, from the spread over resampled groups."""
    half = float(scipy.special.stdtrit(groups - 1, 0.975) * draws.std())
    return Score(value, value - half, value + half)

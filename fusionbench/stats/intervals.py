"""Intervals: a bootstrap over groups and seeds that recomputes the metric, and the corrected variance of k folds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import scipy

from fusionbench.errors import UsageError
from fusionbench.stats.cells import Array, Cell, Metric, Table, defined, tabulate


class Interval(NamedTuple):
    """A score and its bounds, each None where undefined. `folds` says how k folds became one number."""

    score: float | None
    low: float | None
    high: float | None
    folds: Literal["one", "pooled", "mean"] = "one"


def interval(
    cells: Sequence[Cell] | Table,
    metric: Metric,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
    folds: Literal["pooled", "mean"] = "pooled",
    ratio: float | None = None,
) -> Interval:
    """The score (mean over seeds) with its interval.

    "pooled": the metric over all test steps of a seed; a percentile bootstrap resamples groups and seeds independently
    and recomputes it, drawing n - 1 of n each time, which makes the variance of a mean unbiased however few they are
    (Rao & Wu 1988). One seed: people alone are resampled; one group: no bounds. "mean": the mean over the folds of the
    metric, with the corrected variance of Nadeau & Bengio (`ratio` as in `corrected_variance`).

    Raises:
        UsageError: the level is not between 0 and 1, or the cells are not a complete table.
    """
    if not 0 < level < 1:
        raise UsageError(f"the level of an interval lies between 0 and 1, as .95 does; not {level}")
    table = tabulate(cells, metric)
    several = table.by_fold.shape[1] > 1
    if folds == "mean" and several:
        return corrected_interval(table.by_fold.mean(0), ratio, level)
    middle = table.scores.mean()
    if not math.isfinite(middle):
        return Interval(None, None, None, "pooled" if several else "one")
    seeds = seed_weights(table.seeds, draws, seed)[0]
    low, high = bounds(_weighted(resampled(table, draws, seed), seeds), middle, level)
    return Interval(float(middle), low, high, "pooled" if several else "one")


def bounds(values: Array, middle: float, level: float) -> tuple[float | None, float | None]:
    """The percentile bounds of bootstrap values, widened to hold `middle`; None if half of the values are undefined."""
    real = values[np.isfinite(values)]
    if 2 * len(real) < len(values) or not len(real):
        return None, None
    low, high = np.quantile(real, [(1 - level) / 2, (1 + level) / 2])
    return float(min(low, middle)), float(max(high, middle))


@lru_cache(maxsize=64)
def resampled(table: Table, draws: int, seed: int) -> Array:
    """(draws, R) the metric of each seed over resampled groups; NaN throughout if there is one group."""
    if len(table.groups) < 2:
        return np.full((draws, table.seeds), np.nan)
    return table.values(group_weights(len(table.groups), draws, seed))


@lru_cache(maxsize=8)
def group_weights(size: int, draws: int, seed: int) -> Array:
    """(draws, G) how often each group is drawn: G - 1 of G. The same for every fuser, so pairs stay paired."""
    return np.random.default_rng([seed, size]).multinomial(size - 1, np.full(size, 1 / size), draws).astype(float)


@lru_cache(maxsize=8)
def seed_weights(size: int, draws: int, seed: int) -> tuple[Array, Array]:
    """Two independent (draws, R) weights of the seeds, for the two sides of a comparison; rows sum to 1."""
    if size == 1:
        return np.ones((draws, 1)), np.ones((draws, 1))
    rng = np.random.default_rng([seed, size, 1])
    one, two = (rng.multinomial(size - 1, np.full(size, 1 / size), draws) / (size - 1) for _ in range(2))
    return one, two


def _weighted(values: Array, weights: Array) -> Array:
    return np.where(weights > 0, values * weights, 0.0).sum(-1)


def resampled_difference(a: Table, b: Table, draws: int, seed: int) -> Array:
    """(2 * draws,) differences of the scores: the same groups on both sides, seeds drawn independently.

    Each draw of groups meets both assignments of the two seed draws, so swapping a and b gives exactly the negatives.
    """
    left, right = resampled(a, draws, seed), resampled(b, draws, seed)
    (a1, a2), (b1, b2) = seed_weights(a.seeds, draws, seed), seed_weights(b.seeds, draws, seed)
    return np.concatenate([_weighted(left, a1) - _weighted(right, b2), _weighted(left, a2) - _weighted(right, b1)])


def corrected_variance(scores: Sequence[float] | Array, ratio: float | None = None) -> float | None:
    """The variance of a mean over k folds whose training sets overlap: (1/k + ratio) * sample variance.

    Nadeau & Bengio, Machine Learning 52 (2003). `ratio` is test size / training size, 1 / (k - 1) unless given. None
    for fewer than two folds or undefined scores.
    """
    values = np.asarray(scores, dtype=float)
    if len(values) < 2 or not np.isfinite(values).all():
        return None
    ratio = 1 / (len(values) - 1) if ratio is None else ratio
    return float((1 / len(values) + ratio) * values.var(ddof=1))


def corrected_interval(scores: Sequence[float] | Array, ratio: float | None = None, level: float = 0.95) -> Interval:
    """The mean over folds with Student's interval from the corrected variance, k - 1 degrees of freedom."""
    values = np.asarray(scores, dtype=float)
    middle, variance = defined(values.mean()), corrected_variance(values, ratio)
    if middle is None or variance is None:
        return Interval(middle, None, None, "mean")
    half = float(scipy.special.stdtrit(len(values) - 1, (1 + level) / 2)) * math.sqrt(variance)
    return Interval(middle, middle - half, middle + half, "mean")


def corrected_test(differences: Sequence[float] | Array, ratio: float | None = None) -> float | None:
    """Two-sided p of Nadeau & Bengio's corrected t-test on the differences of k folds; None where undefined."""
    values = np.asarray(differences, dtype=float)
    variance = corrected_variance(values, ratio)
    if variance is None:
        return None
    middle = abs(float(values.mean()))
    if variance <= (1e-12 * middle) ** 2:
        return 1.0 if middle == 0 else 0.0
    return float(2 * scipy.special.stdtr(len(values) - 1, -middle / math.sqrt(variance)))

"""A score and its bounds; the corrected variance of k folds; weights that resample groups."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import scipy

from fusionbench.stats.cells import Array


class Interval(NamedTuple):
    """A score and its bounds, each None where undefined. `folds` says how k folds became one number."""

    score: float | None
    low: float | None
    high: float | None
    folds: Literal["one", "pooled", "mean"] = "one"


@lru_cache(maxsize=8)
def group_weights(size: int, draws: int, seed: int) -> Array:
    """(draws, G) how often each group is drawn: G - 1 of G, for an unbiased variance of a mean (Rao & Wu 1988)."""
    return np.random.default_rng([seed, size]).multinomial(size - 1, np.full(size, 1 / size), draws).astype(float)


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

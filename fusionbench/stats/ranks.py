"""Mean ranks over ten benchmarks or more, and how far apart two must be to differ."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fusionbench.errors import UsageError

#: Fewer benchmarks than this say too little about a mean rank.
FEWEST = 10


@dataclass(frozen=True)
class CriticalDifference:
    """Mean ranks over benchmarks, Friedman's p, and how far two ranks must be apart to differ (Nemenyi)."""

    ranks: dict[str, float]
    p: float
    width: float
    benchmarks: int


def critical_difference(scores: Mapping[str, Mapping[str, float]], alpha: float = 0.05) -> CriticalDifference:
    """Friedman's test and Nemenyi's critical difference (Demsar, JMLR 2006, section 3.2.2), from ten benchmarks on.

    Raises:
        UsageError: fewer than ten benchmarks or two fusers, or a missing score.
    """
    names, table = _table(scores)
    count, size = table.shape
    if count < FEWEST:
        raise UsageError(
            f"a critical difference needs {FEWEST} benchmarks, there are {count}; read the paired tests instead"
        )
    if size < 2:
        raise UsageError("a critical difference needs two fusers or more")
    from scipy.special import chdtrc
    from scipy.stats import studentized_range

    means = rank_rows(table).mean(0)
    statistic = 12 * count / (size * (size + 1)) * ((means - (size + 1) / 2) ** 2).sum()
    quantile = float(studentized_range.ppf(1 - alpha, size, np.inf)) / math.sqrt(2)
    width = quantile * math.sqrt(size * (size + 1) / (6 * count))
    return CriticalDifference(
        dict(zip(names, means.tolist(), strict=True)), float(chdtrc(size - 1, statistic)), width, count
    )


def _table(scores: Mapping[str, Mapping[str, float]]) -> tuple[list[str], np.ndarray]:
    """Names and the (benchmark, name) scores."""
    if not scores:
        raise UsageError("there are no benchmarks to rank over")
    names = sorted({name for row in scores.values() for name in row})
    for benchmark, row in scores.items():
        for name in names:
            if (value := row.get(name)) is None or not math.isfinite(value):
                raise UsageError(f"{name} has no score on {benchmark}: finish its row or leave one of them out")
    return names, np.array([[row[name] for name in names] for row in scores.values()], dtype=float)


def rank_rows(table: np.ndarray) -> np.ndarray:
    """(benchmark, name) scores -> ranks, 1 the highest score, ties share their mean rank."""
    above = (table[:, None, :] > table[:, :, None]).sum(-1)
    equal = (table[:, None, :] == table[:, :, None]).sum(-1)
    return above + (equal + 1) / 2

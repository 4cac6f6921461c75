"""Instead of ranks: tiers that a reader sees at once, and rank intervals, from one family of all pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

from fusionbench.stats.cells import Table
from fusionbench.stats.tests import judged
from fusionbench.stats.variance import difference
from fusionbench.stats.verdicts import Verdict


@dataclass(frozen=True)
class Place:
    """Where a row stands.

    Attributes:
        score: mean over seeds, in the metric's own direction.
        low, high: the rank interval [1 + surely better, K - surely worse], widened so that neither bound falls from one
            row to the next one down.
        tier: 1 for the best row and every row not significantly worse than it; 2 for the best of the others and every
            row among them not significantly worse than that one; and so on.
    """

    score: float
    low: int
    high: int
    tier: int


@dataclass(frozen=True)
class Tiers:
    """Places, best score first, and the verdicts of all pairs (a, b) with a above b, as one family."""

    places: dict[str, Place]
    verdicts: dict[tuple[str, str], Verdict]


def tiers(
    rows: Mapping[str, Table],
    level: float = 0.05,
    *,
    higher_is_better: bool = True,
    unit: str = "person",
) -> Tiers:
    """Places of these rows; those without a defined score have none. Pass the frozen rows of a board's version."""
    scores = {name: float(table.scores.mean()) for name, table in rows.items()}
    order = [n for n in rows if scores[n] == scores[n]]  # NaN is not itself
    order.sort(key=lambda n: (-scores[n] if higher_is_better else scores[n], n))
    pairs = {f"{i} {j}": (order[i], order[j]) for i, j in combinations(range(len(order)), 2)}
    found = {key: difference(rows[a], rows[b]) for key, (a, b) in pairs.items()}
    verdicts = judged(
        pairs, found, "all pairs", None, level, higher_is_better=higher_is_better, unit=unit, settle=False
    )
    beaten = {pairs[key] for key, v in verdicts.items() if v.decision == "better"}  # (better, worse)
    return Tiers(_places(order, scores, beaten), {pairs[key]: v for key, v in verdicts.items()})


def _places(order: list[str], scores: Mapping[str, float], beaten: set[tuple[str, str]]) -> dict[str, Place]:
    size = len(order)
    low = [1 + sum((other, name) in beaten for other in order) for name in order]
    high = [size - sum((name, other) in beaten for other in order) for name in order]
    for i in range(size - 2, -1, -1):
        low[i] = min(low[i], low[i + 1])
    for i in range(1, size):
        high[i] = max(high[i], high[i - 1])
    tier, number, left = dict.fromkeys(order, 0), 0, list(order)
    while left:
        number += 1
        leader = left[0]
        for name in left:
            tier[name] = 0 if (leader, name) in beaten else number
        left = [name for name in left if not tier[name]]
    return {n: Place(scores[n], low[i], high[i], tier[n]) for i, n in enumerate(order)}

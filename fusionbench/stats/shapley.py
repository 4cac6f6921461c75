"""What each modality brings: exact Shapley values and interactions over all subsets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain, combinations
from math import factorial
from typing import Literal

from fusionbench.errors import UsageError

#: Set of present modalities -> score, oriented so that higher is better.
Lattice = Mapping[frozenset[str], float | None]
Verdict = Literal["redundant", "complementary", "synergistic"]


def shapley(lattice: Lattice, empty: float) -> dict[str, float] | None:
    """Modality -> its Shapley value (1953), in units of the score; they sum to the full score minus `empty`.

    Args:
        lattice: every non-empty subset of the modalities.
        empty: the score without any modality (chance: the majority class or the mean).

    Raises:
        UsageError: a subset is not there. A subset without a score gives None.
    """
    value, modalities = _values(lattice, empty)
    if value is None:
        return None
    size = len(modalities)
    return {
        m: sum(
            factorial(len(s)) * factorial(size - len(s) - 1) / factorial(size) * (value[s | {m}] - value[s])
            for s in _subsets(modalities - {m})
        )
        for m in sorted(modalities)
    }


def interactions(lattice: Lattice, empty: float) -> dict[tuple[str, str], float] | None:
    """Pair of modalities (sorted) -> Shapley interaction index (Grabisch & Roubens 1999).

    Above 0 the two bring more together than apart, below 0 they overlap. As `shapley` otherwise.
    """
    value, modalities = _values(lattice, empty)
    if value is None:
        return None
    size = len(modalities)

    def joint(s: frozenset[str], i: str, j: str) -> float:
        return value[s | {i, j}] - value[s | {i}] - value[s | {j}] + value[s]

    return {
        (i, j): sum(
            factorial(len(s)) * factorial(size - len(s) - 2) / factorial(size - 1) * joint(s, i, j)
            for s in _subsets(modalities - {i, j})
        )
        for i, j in combinations(sorted(modalities), 2)
    }


def verdict(lattice: Lattice, empty: float, noise: float) -> Verdict | None:
    """What the modalities are to each other, from the full set and the single ones; `noise` is what does not count.

    "redundant": all together are no better than the best alone; "synergistic": better than the sum of what each alone
    gains over `empty`; "complementary": in between. For a pair out of more, pass the lattice of that pair. None for
    fewer than two modalities or an undefined score.
    """
    value, modalities = _values(lattice, empty)
    if value is None or len(modalities) < 2:
        return None
    full, alone = value[frozenset(modalities)], [value[frozenset({m})] for m in modalities]
    if full - max(alone) <= noise:
        return "redundant"
    return "synergistic" if full - empty - sum(v - empty for v in alone) > noise else "complementary"


def _subsets(items: Iterable[str]) -> Iterable[frozenset[str]]:
    items = sorted(items)
    return map(frozenset, chain.from_iterable(combinations(items, n) for n in range(len(items) + 1)))


def _values(lattice: Lattice, empty: float) -> tuple[dict[frozenset[str], float] | None, frozenset[str]]:
    modalities = frozenset().union(*lattice)
    values: dict[frozenset[str], float] = {}
    for subset in _subsets(modalities):
        if subset and subset not in lattice:
            raise UsageError(
                f"there is no score with only {' + '.join(sorted(subset))}: run the lattice of subsets first"
            )
        score = lattice[subset] if subset else empty
        if score is None:
            return None, modalities
        values[subset] = score
    return values, modalities

"""How the minutes are spent: fixed before the race from what each candidate's training was measured to cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fusionbench.advise.candidates import Candidate
from fusionbench.errors import UsageError
from fusionbench.text import duration

#: Inner folds, by group: each group validates once a seed.
INNER = 4
#: The first look: so many inner folds, this share of a network's steps; the better half of each kind goes on.
LOOK_FOLDS, LOOK_SHARE = 2, 1 / 3
#: So many candidates that fuse, and that are single, are trained with more seeds in the end.
FINAL_FUSED, FINAL_SINGLE = 3, 1
#: Seeds, and folds to evaluate the procedure on, in the order in which less time is asked for.
GENEROUS, FRUGAL = ((3, 5), (2, 5), (2, 3)), ((1, 3),)
#: The share of the time that is planned with; the rest is for loading, evaluating and writing.
PLANNED = 0.85


@dataclass(frozen=True)
class Price:
    """What one training of one option costs in seconds, and how many options a candidate has."""

    seconds: float
    options: int


@dataclass(frozen=True)
class Schedule:
    """What is raced, and how thoroughly.

    Attributes:
        raced: the candidates; dropped: those that the time is too short for.
        outer: folds on which the procedure is evaluated; the race is run once for each, and once on everything.
        seeds: of the finalists, and of the models that answer.
        seconds: what one race takes at most; total: all of them, by so many processes.
    """

    raced: tuple[Candidate, ...]
    dropped: tuple[Candidate, ...]
    outer: int
    seeds: int
    seconds: float
    total: float


def plan(prices: Mapping[Candidate, Price], seconds: float, folds: int, jobs: int, spent: float = 0.0) -> Schedule:
    """The most thorough schedule that fits into these seconds.

    Rather fewer seeds, then fewer folds to evaluate on, then fewer candidates (the dearest go first), at last one seed.

    Args:
        folds: how many there are to evaluate on, at most.
        spent: seconds that loading and measuring have taken before.

    Raises:
        UsageError: not even the cheapest candidates fit.
    """
    cheapest = math.inf
    for ways in (GENEROUS, FRUGAL):
        raced = list(prices)
        while True:
            for seeds, most in ways:
                outer = min(folds, most)
                race = race_seconds({c: prices[c] for c in raced}, seeds)
                total = math.ceil((outer + 1) / jobs) * race
                cheapest = min(cheapest, total)
                if total <= PLANNED * seconds:
                    dropped = tuple(c for c in prices if c not in raced)
                    return Schedule(tuple(raced), dropped, outer, seeds, race, total)
            spare = [c for c in raced if _may_go(c, raced)]
            if not spare:
                break
            raced.remove(max(spare, key=lambda c: prices[c].seconds * prices[c].options))
    least = math.ceil((cheapest / PLANNED + spent) / 60 * 10) / 10
    raise UsageError(
        f"{duration(max(0.0, seconds))} are too short for one round of the cheapest candidates: --minutes {least:g} or "
        "more"
    )


def race_seconds(prices: Mapping[Candidate, Price], seeds: int) -> float:
    """What one race takes at most: whoever survives, the dearest of each kind might."""
    look = sum(p.seconds * p.options * LOOK_FOLDS * (LOOK_SHARE if c.is_network else 1) for c, p in prices.items())
    dearest = {kind: sorted((p.seconds for c, p in prices.items() if c.kind == kind), reverse=True)
               for kind in ("network", "classical", "single")}  # fmt: skip
    scored = INNER * sum(sum(costs[: survivors(len(costs))]) for costs in dearest.values())
    fused = sorted(dearest["network"] + dearest["classical"], reverse=True)
    final = sum(fused[:FINAL_FUSED]) + sum(dearest["single"][:FINAL_SINGLE])
    answering = sum(fused[:1]) + sum(dearest["single"][:1])  # trained on all of the rows, which are more
    return look + scored + (seeds - 1) * INNER * final + seeds * answering * INNER / (INNER - 1)


def survivors(number: int) -> int:
    """How many of a kind go on after the first look."""
    return min(number, max(2, math.ceil(number / 2)))


def _may_go(candidate: Candidate, raced: list[Candidate]) -> bool:
    """Two that fuse stay, and one single."""
    same = [c for c in raced if c.is_single == candidate.is_single]
    return len(same) > (1 if candidate.is_single else 2)

"""Many data sets: mean ranks, distances on fixed anchors, and what so few sets can show at all.

Sets are nested in domains and domains weigh the same. Nothing is scaled by the rows at hand except what says
so (ranks, improvability): a position on the anchors, chance to forest, does not move when a row is added.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy

from fusionbench.errors import UsageError
from fusionbench.stats.cells import Table, defined
from fusionbench.stats.intervals import group_weights
from fusionbench.stats.ranks import FEWEST, CriticalDifference, critical_difference, rank_rows
from fusionbench.stats.tests import holm_steps
from fusionbench.stats.variance import difference
from fusionbench.stats.verdicts import counted

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class DataSet:
    """One data set's rows and its fixed anchors.

    Attributes:
        rows: method -> table of the primary metric under one condition.
        chance, forest: the frozen scores that stand at 0 and 1 of a position; without a forest there is none.
        role: what may be averaged together; synthetic and recipe-development sets stand apart.
    """

    name: str
    domain: str
    rows: Mapping[str, Table]
    chance: float
    forest: float | None
    higher_is_better: bool = True
    role: str = "headline"

    def position(self, score: float | Array) -> float | Array:
        """0 at chance, 1 at the forest; NaN without one."""
        return (score - self.chance) / ((math.nan if self.forest is None else self.forest) - self.chance)


@dataclass(frozen=True)
class Standing:
    """One method over many data sets.

    Attributes:
        rank: mean over domains of the mean over sets, 1 the best; `low` and `high` resample domains, sets and
            groups.
        position: the same mean on the anchors, chance 0, forest 1; None where a set has no forest.
        improvability: the share of the distance from chance to the best row that is missing, 0 for the best; it
            moves with the best row. None where no row of any set is above chance.
        without: domain -> the rank if that domain is left out; empty for one domain.
    """

    rank: float
    low: float
    high: float
    position: float | None
    improvability: float | None
    without: dict[str, float]


def standings(sets: Sequence[DataSet], draws: int = 1000, level: float = 0.05, seed: int = 0) -> dict[str, Standing]:
    """Every method's standing, best mean rank first; the methods are those that every set has.

    Raises:
        UsageError: no sets, sets of different kinds, a name twice, no common method, or a forest that is no
            better than chance.
    """
    methods = _common(sets)
    scores = np.array([[_score(s, m) for m in methods] for s in sets])  # (N, K)
    domains = [s.domain for s in sets]
    ranks = rank_rows(_oriented(sets, scores))
    positions = np.stack([np.asarray(s.position(row)) for s, row in zip(sets, scores, strict=True)])
    gains = _oriented(sets, scores - np.array([[s.chance] for s in sets]))
    drawn = _resampled_ranks(sets, methods, draws, seed)
    low, high = np.quantile(drawn, [level / 2, 1 - level / 2], axis=0)
    best = gains.max(1, keepdims=True)
    missing = np.divide(best - gains, best, out=np.full(gains.shape, np.nan), where=best > 0)
    counts = np.isfinite(missing).all(1)
    improvable = _mean(missing[counts], [d for d, c in zip(domains, counts, strict=True) if c]) if any(counts) else None
    means, place = _mean(ranks, domains), _mean(positions, domains)
    without = {
        left: _mean(ranks[[d != left for d in domains]], [d for d in domains if d != left])
        for left in (dict.fromkeys(domains) if len(set(domains)) > 1 else ())
    }
    return {
        methods[k]: Standing(
            float(means[k]), float(min(low[k], means[k])), float(max(high[k], means[k])), defined(place[k]),
            None if improvable is None else float(improvable[k]), {d: float(r[k]) for d, r in without.items()},
        )
        for k in np.argsort(means, kind="stable")
    }  # fmt: skip


@dataclass(frozen=True)
class Beats:
    """How likely a beats b on a data set that nobody has seen.

    Attributes:
        probability: with Laplace's rule, so that few sets never make it 0 or 1; `low` and `high` its interval.
        share: the domain-weighted share of the sets seen on which a is better, each counted by how sure its own
            groups and seeds make it.
        sets: how many; `effective` in equally weighted sets.
    """

    probability: float
    low: float
    high: float
    share: float
    sets: int
    effective: float


def beats(sets: Sequence[DataSet], a: str, b: str, level: float = 0.05) -> Beats:
    """P(a beats b on a new data set), from a Beta distribution (uniform before any set is seen).

    Raises:
        UsageError: as `standings`, or a set lacks one of the two.
    """
    methods = _common(sets)
    for name in (a, b):
        if name not in methods:
            raise UsageError(f"{name} is not on every data set: finish its rows")
    sure = np.array([_sure(s, a, b) for s in sets])
    weights = _weights([s.domain for s in sets])
    share, effective = float(weights @ sure), float(1 / (weights**2).sum())
    won, lost = effective * share + 1, effective * (1 - share) + 1
    low, high = (float(scipy.special.betaincinv(won, lost, q)) for q in (level / 2, 1 - level / 2))
    return Beats(won / (won + lost), low, high, share, len(sets), effective)


def smallest_p(sets: int) -> float:
    """The smallest two-sided p that a signed-rank test can give over so many sets: 2 / 2^N."""
    return min(1.0, 2.0 ** (1 - sets))


def signed_rank(differences: Sequence[float] | Array) -> float:
    """Wilcoxon's exact two-sided signed-rank p (1945); zeros are left out, ties share their mean rank."""
    values = np.asarray(differences, dtype=float)
    values = values[values != 0]
    if not len(values):
        return 1.0
    doubled = len(values) * 2 - 2 * rank_rows(np.abs(values)[None])[0] + 2  # twice the rank, 2 for the smallest
    steps = np.rint(doubled).astype(int)
    ways = np.ones(1)  # how many sign patterns reach each sum
    for step in steps:
        grown = np.zeros(len(ways) + step)
        grown[: len(ways)] += ways
        grown[step:] += ways
        ways = grown / 2
    above = steps[values > 0].sum()
    least = min(above, steps.sum() - above)
    return float(min(1.0, 2 * ways[: least + 1].sum()))


@dataclass(frozen=True)
class Across:
    """One rival against the control over many data sets.

    Attributes:
        difference: mean over domains of the difference of positions, rival minus control; None without a forest.
        p, adjusted: signed-rank test over sets, and after Holm's correction over the rivals.
        decision: "untested" where so few sets could not separate anything, and then `reason` says so.
    """

    difference: float | None
    p: float | None
    adjusted: float | None
    decision: Literal["better", "worse", "undecided", "untested"]
    sets: int
    reason: str = ""


def against_control(
    sets: Sequence[DataSet], control: str, rivals: Sequence[str], level: float = 0.05
) -> dict[str, Across]:
    """Each rival against one control named beforehand, over data sets, on the anchors.

    With N sets the smallest p is 2 / 2^N: where that exceeds level / rivals nothing is tested.

    Raises:
        UsageError: as `standings`, or a method that a set lacks.
    """
    methods = _common(sets)
    bare = [s.name for s in sets if s.forest is None]
    if absent := [name for name in (control, *rivals) if name not in methods]:
        raise UsageError(f"{absent[0]} is not on every data set: finish its rows")
    weights = _weights([s.domain for s in sets])
    gaps = {
        name: np.array([s.position(_score(s, name)) - s.position(_score(s, control)) for s in sets]) for name in rivals
    }
    means = {name: float(weights @ gap) for name, gap in gaps.items()}
    least = smallest_p(len(sets))
    reason = f"there is no forest on {', '.join(bare)}, and so no scale that sets share" if bare else ""
    if least * len(rivals) >= level:
        those = counted(len(rivals), "rival")
        reason = f"{counted(len(sets), 'data set')} cannot separate {those}: the smallest p is {least:.2g}"
    if reason:
        return {n: Across(defined(means[n]), None, None, "untested", len(sets), reason) for n in rivals}
    ps = {name: signed_rank(gap) for name, gap in gaps.items()}
    steps = holm_steps(ps, level)
    found = {}
    for name in rivals:
        adjusted = steps[name][0]
        word: Literal["better", "worse", "undecided"] = "undecided"
        if adjusted < level:  # the ranks' direction, which is what was tested
            ranks = len(gaps[name]) - rank_rows(np.abs(gaps[name])[None])[0] + 1
            word = "better" if (np.sign(gaps[name]) * ranks).sum() > 0 else "worse"
        found[name] = Across(means[name], ps[name], adjusted, word, len(sets))
    return found


def ranks_differ(sets: Sequence[DataSet], level: float = 0.05) -> CriticalDifference:
    """Friedman's test and Nemenyi's critical difference, from ten sets on (`critical_difference`).

    Raises:
        UsageError: fewer than ten sets, or as `standings`.
    """
    if len(sets) < FEWEST:
        raise UsageError(f"a critical difference needs {FEWEST} data sets, there are {len(sets)}: read the standings")
    methods = _common(sets)
    oriented = _oriented(sets, np.array([[_score(s, m) for m in methods] for s in sets]))
    return critical_difference(
        {s.name: dict(zip(methods, row.tolist(), strict=True)) for s, row in zip(sets, oriented, strict=True)}, level
    )


def _common(sets: Sequence[DataSet]) -> list[str]:
    """The methods of every set."""
    if not sets:
        raise UsageError("there are no data sets to rank over")
    if len({s.name for s in sets}) < len(sets):
        raise UsageError("a data set is there twice")
    if len(roles := {s.role for s in sets}) > 1:
        raise UsageError(f"{' and '.join(sorted(roles))} data sets are not averaged together")
    for s in sets:
        if s.forest is not None and not (s.forest > s.chance if s.higher_is_better else s.forest < s.chance):
            raise UsageError(f"on {s.name} the forest is no better than chance: it cannot anchor a distance")
    methods = [m for m in sets[0].rows if all(m in s.rows for s in sets)]
    if not methods:
        raise UsageError("no method is on every data set")
    return methods


def _score(s: DataSet, method: str) -> float:
    score = float(s.rows[method].scores.mean())
    if not math.isfinite(score):
        raise UsageError(f"{method} has no score on {s.name}: leave one of them out")
    return score


def _oriented(sets: Sequence[DataSet], scores: Array) -> Array:
    return scores * np.array([1.0 if s.higher_is_better else -1.0 for s in sets])[:, None]


def _weights(domains: Sequence[str]) -> Array:
    """(N,) weights that give every domain the same, and its sets equal parts."""
    counts = {d: domains.count(d) for d in domains}
    return np.array([1 / (len(counts) * counts[d]) for d in domains])


def _mean(values: Array, domains: Sequence[str]) -> Array:
    return _weights(domains) @ values


def _sure(s: DataSet, a: str, b: str) -> float:
    """How sure the groups and seeds of one set make it that a is better there."""
    found = difference(s.rows[a], s.rows[b])
    gap = (_score(s, a) - _score(s, b)) * (1 if s.higher_is_better else -1)
    if found.variance is None or found.freedom is None or found.variance == 0:
        return 0.5 if gap == 0 else float(gap > 0)
    return float(scipy.special.stdtr(found.freedom, gap / math.sqrt(found.variance)))


def _resampled_ranks(sets: Sequence[DataSet], methods: list[str], draws: int, seed: int) -> Array:
    """(draws, K) mean ranks over resampled domains, sets in them and groups in those, the same for all methods."""
    ranks = []
    for s in sets:
        size = len(s.rows[methods[0]].groups)
        weights = group_weights(size, draws, seed) if size > 1 else np.ones((draws, 1))
        scores = np.stack([s.rows[m].values(weights).mean(1) for m in methods], axis=1)  # (draws, K)
        ranks.append(rank_rows(np.nan_to_num(scores if s.higher_is_better else -scores, nan=-np.inf)))
    each = np.stack(ranks)  # (N, draws, K)
    rng = np.random.default_rng([seed, len(sets), 3])
    members = [np.flatnonzero([s.domain == d for s in sets]) for d in dict.fromkeys(s.domain for s in sets)]
    total = np.zeros((draws, len(methods)))
    for _ in members:  # as many domains as there are, and in each as many sets
        domain = rng.integers(len(members), size=draws)
        for draw, d in enumerate(domain):
            total[draw] += each[rng.choice(members[d], len(members[d])), draw].mean(0)
    return total / len(members)

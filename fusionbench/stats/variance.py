"""The difference of two rows and its one variance, from which test, interval, detectable difference and power come.

The pooled metric is linearised into one influence value a group and a seed (jackknife). Their analysis of variance has
three sources: groups (how much the true difference varies between people), seeds (of each side), and what one run does
on one group beyond both. With P, S and E the shares of groups, of seeds and of the residual in the variance of the mean
(each observed spread holds its part of the residual, so E stands in both P and S),

    variance = S + max(P - E, 0),

with Satterthwaite's degrees of freedom (1946), never fewer than the smaller of those of the groups (G - 1) and of the
seeds (Welch). Flooring at S and this least number of degrees are what keeps the size in `bench/power_study.md`. Effects
of a fold's model that vary with the seed are counted in S, whatever their correlation; effects of a training set that
all seeds share are not, which is why a verdict says "given these training sets".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fusionbench.errors import UsageError
from fusionbench.stats.cells import Table
from fusionbench.stats.intervals import corrected_test

Array = np.ndarray
#: A spread below this share of the values themselves is rounding.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Sources:
    """What the difference of two rows varies with, as variances (squared units of the metric).

    Attributes:
        people: of the true difference between groups.
        seeds: of one run's score over endless groups, a side with several seeds each; where each seed deals its own
            partition there is one entry, of the difference of two runs, training sets included.
        residuals: of one run on one group beyond both, in the same order.
    """

    people: float
    seeds: tuple[float, ...]
    residuals: tuple[float, ...]

    def at(self, groups: float, seeds: float) -> tuple[float, float]:
        """The variance of the mean difference over so many groups and seeds a side, and its degrees of freedom.

        `seeds` may be infinite: what is left is what the groups alone leave open.

        Raises:
            UsageError: fewer than two groups, or than two seeds.
        """
        if groups < 2 or (self.seeds and seeds < 2):
            raise UsageError(f"a variance takes two groups and two seeds or more, not {groups:g} and {seeds:g}")
        runs = [(seed + rest / groups) / seeds for seed, rest in zip(self.seeds, self.residuals, strict=True)]
        rests = [rest / (groups * seeds) for rest in self.residuals]
        counts = [seeds] * len(runs)
        variance, freedom = spread(self.people / groups + sum(rests), runs, rests, counts, groups)
        return float(variance), float(freedom)


@dataclass(frozen=True)
class Difference:
    """Row a minus row b on one metric, in the metric's own direction.

    Attributes:
        value: difference of the pooled scores, each the mean over seeds; None where one is undefined.
        variance, freedom: of `value`, and Satterthwaite's degrees; None where there is no test, and `reason` says why.
        sources: what the variance is made of.
        seeds: of a and of b. A side with one seed is one trained model: its own noise is not in the variance.
        p_folds: of the corrected t-test over folds (Nadeau & Bengio 2003), shown beside; None without several folds.
        repartitioned: each seed dealt its own partition, so that the seeds carry the training sets.
    """

    value: float | None
    groups: int
    seeds: tuple[int, int]
    variance: float | None = None
    freedom: float | None = None
    sources: Sources | None = None
    p_folds: float | None = None
    repartitioned: bool = False
    reason: str = ""


def influence(table: Table) -> Array:
    """(R, G) influence values of the pooled metric (`Table.influence`)."""
    return table.influence


def difference(a: Table, b: Table, paired: bool = False) -> Difference:
    """Row a minus row b, with its variance.

    Where each seed dealt the groups into folds again, the same way for both rows, seeds are paired, and their variance
    holds that of the training sets.

    Args:
        paired: the same trained models answered both, as undamaged and damaged input: seed by seed.
    """
    repartitioned = bool(a.partitions or b.partitions)
    score = float(a.scores.mean() - b.scores.mean())
    seeds = a.seeds, b.seeds
    if not (np.array_equal(a.groups, b.groups) and np.array_equal(a.counts, b.counts)):
        reason = "the two were not tested on the same labels of the same groups"
        return Difference(None, 0, seeds, repartitioned=repartitioned, reason=reason)
    found = Difference(score if math.isfinite(score) else None, len(a.groups), seeds, repartitioned=repartitioned)
    if reason := _untestable(a, b):
        return replace(found, reason=reason)
    left, right = influence(a), influence(b)
    each = left.mean(0) - right.mean(0)  # (G,)
    sides = [left - right] if repartitioned or paired else [side for side in (left, right) if len(side) > 1]
    size, counts = len(each), [float(len(side)) for side in sides]
    squares = [tuple(map(float, mean_squares(side))) for side in sides]  # run and residual of each side
    rests = [rest / (size * count) for (_, rest), count in zip(squares, counts, strict=True)]
    runs = [run / count for (run, _), count in zip(squares, counts, strict=True)]
    people = float(each.var(ddof=1))
    variance, freedom = map(float, spread(people / size, runs, rests, counts, size))
    rounding = ROUNDING * max(float(np.abs(side).max()) for side in (left, right))
    if variance <= rounding**2:
        if abs(score) > rounding:
            return replace(found, reason="the difference is the same in every group and seed: no spread to test it by")
        variance = 0.0
    folds = None if repartitioned else _folds(a, b)  # dealt again, a fold is no longer the same groups
    sources = Sources(
        max(0.0, people - size * sum(rests)),
        tuple(max(0.0, run - rest / size) for run, rest in squares),
        tuple(min(rest, size * run) for run, rest in squares),  # so that `at` gives back what was observed
    )
    return replace(found, variance=variance, freedom=freedom, sources=sources, p_folds=folds)


def variance_of_score(table: Table) -> tuple[float, float] | None:
    """The variance of a row's own score (mean over seeds) and its degrees of freedom; None where it cannot be told."""
    values = influence(table)
    seeds, size = values.shape
    if size < 2 or not np.isfinite(values).all():
        return None
    people, runs, rests, counts = float(values.mean(0).var(ddof=1)), [], [], []
    if seeds > 1:
        run, rest = map(float, mean_squares(values))
        runs, rests, counts = [run / seeds], [rest / (size * seeds)], [float(seeds)]
    variance, freedom = map(float, spread(people / size, runs, rests, counts, size))
    return variance, freedom


def pooled(found: Sequence[Difference]) -> Sources | None:
    """Typical sources of a family: the mean of each component over the differences that have the same sides.

    A component of one pair rests on few degrees of freedom; what is planned rests on all of them.
    """
    known = [d.sources for d in found if d.sources is not None]
    sides = max((len(s.seeds) for s in known), default=0)
    known = [s for s in known if len(s.seeds) == sides]
    if not known:
        return None
    return Sources(
        float(np.mean([s.people for s in known])),
        tuple(float(v) for v in np.mean([s.seeds for s in known], axis=0)),
        tuple(float(v) for v in np.mean([s.residuals for s in known], axis=0)),
    )


def mean_squares(values: Array) -> tuple[Array, Array]:
    """(..., R, G) values of one side -> variance of a run's mean over these groups (residual included), residual."""
    seeds, groups = values.shape[-2:]
    runs, people = values.mean(-1, keepdims=True), values.mean(-2, keepdims=True)
    rest = values - runs - people + runs.mean(-2, keepdims=True)
    return runs[..., 0].var(-1, ddof=1), (rest**2).sum((-2, -1)) / ((seeds - 1) * (groups - 1))


def spread(
    people: Array | float,
    runs: Sequence[Array | float],
    rests: Sequence[Array | float],
    counts: Sequence[float],
    groups: float,
) -> tuple[Array, Array]:
    """The variance of the mean difference and its degrees of freedom (see the module), for one or many tables at once.

    Args:
        people: P, the observed variance over groups of the differences (mean over seeds), over G.
        runs, rests, counts: S and E of each side that has several seeds, and how many those are.
    """
    seeds = sum(runs, np.zeros(np.shape(people)))
    variance = seeds + np.maximum(people - sum(rests), 0.0)
    welch = sum((run**2 / (count - 1) for run, count in zip(runs, counts, strict=True)), np.zeros(np.shape(people)))
    residual = sum(rest**2 / ((count - 1) * (groups - 1)) for rest, count in zip(rests, counts, strict=True))
    terms = people**2 / (groups - 1) + welch + residual
    with np.errstate(divide="ignore", invalid="ignore"):
        least = np.minimum(groups - 1.0, np.where(welch > 0, seeds**2 / welch, np.inf))
        return variance, np.where(terms > 0, np.maximum(variance**2 / terms, least), groups - 1.0)


def _untestable(a: Table, b: Table) -> str:
    """Why the two cannot be tested, or nothing."""
    if not all(np.isfinite(t.scores).all() for t in (a, b)):
        return "a score is undefined"
    if len(a.groups) < 2:
        return "there is one group"
    if a.partitions != b.partitions or len(a.partitions) == 1:
        return "with a partition per seed both sides need the same two seeds or more"
    lost = a.lost | b.lost
    if lost.any():
        names = [str(name) for name in a.groups[lost]]
        some = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        return f"without {some} the metric is undefined"
    return ""


def _folds(a: Table, b: Table) -> float | None:
    if a.by_fold.shape[1] < 2 or a.by_fold.shape[1] != b.by_fold.shape[1]:
        return None
    return corrected_test(a.by_fold.mean(0) - b.by_fold.mean(0))

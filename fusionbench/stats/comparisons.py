"""Is one fuser better than another? Paired sign-flip tests over people, Holm's correction, and a sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
import scipy

from fusionbench.errors import UsageError
from fusionbench.stats.cells import Array, Cell, Metric, Table, defined, higher_is_better, tabulate
from fusionbench.stats.intervals import bounds, corrected_test, resampled_difference

#: Up to this many groups the test counts every assignment of signs.
EXACT = 14


@dataclass(frozen=True)
class Parts:
    """What the difference of two fusers varies with, as variances (squared units of the score).

    Attributes:
        people: of the true difference between people.
        seeds: of the difference between two runs over all people; None if a side has one seed.
        residual: of one pair of runs on one person, beyond both; 0 if it cannot be told from `people`.
    """

    people: float
    seeds: float | None
    residual: float

    def variance(self, groups: int, seeds: int) -> float:
        """Of the mean difference over so many people and seeds."""
        return self.people / groups + (self.seeds or 0.0) / seeds + self.residual / (groups * seeds)


@dataclass(frozen=True)
class Comparison:
    """a against b on one benchmark; None where undefined.

    Attributes:
        difference: score of a minus score of b, in the metric's own direction; `low` and `high` bound it.
        p: two-sided, that the difference is none. With one seed on a side it is about these trained models only.
        p_folds: the same from the folds' own scores by the corrected t-test, where there are several folds.
        groups, seeds: how many people, and seeds on the side that has fewer.
        smallest_p: no difference could get below this, with so few people.
        limited_by: which of the two, doubled, would shrink the uncertainty more.
        detectable: the smallest true difference that a test at alpha = .05 finds four times out of five; None if none.
        adjusted: p after Holm's correction within a family of `family` comparisons.
    """

    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    groups: int
    seeds: int
    smallest_p: float
    limited_by: Literal["people", "seeds"]
    detectable: float | None
    parts: Parts | None = None
    p_folds: float | None = None
    higher_is_better: bool = True
    adjusted: float | None = None
    family: int = 1

    def better(self, alpha: float = 0.05) -> Literal["a", "b"] | None:
        """Which side is better by the (corrected) test; None where it does not say. One seed never suffices."""
        p = self.p if self.adjusted is None else self.adjusted
        if p is None or p >= alpha or self.seeds < 2 or not self.difference:
            return None
        return "a" if (self.difference > 0) == self.higher_is_better else "b"


def compare(
    cells_a: Sequence[Cell] | Table,
    cells_b: Sequence[Cell] | Table,
    metric: Metric,
    level: float = 0.95,
    draws: int = 2000,
    flips: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Two fusers on the same people: difference, interval (paired bootstrap), test, and what limits it.

    The test flips the signs of the per-person differences, each averaged over seeds. A person's share in a pooled
    metric is the jackknife pseudo-value (see `Table.pseudo`), so CCC and F1 are tested like accuracy. Flipping alone
    would take the trained models for the methods: the null distribution therefore also carries the noise of the seeds
    (Student's t with Welch's degrees of freedom), estimated from seeds that are not paired. Without it, two copies of
    one method that differ by their seeds would be called different too often. Like the bootstrap it takes the training
    sets as given; `p_folds`, on the mean over folds instead, does not, and is the more cautious.

    Raises:
        UsageError: the two sides do not cover the same labels of the same people.
    """
    a, b = tabulate(cells_a, metric), tabulate(cells_b, metric)
    if not (np.array_equal(a.groups, b.groups) and np.array_equal(a.counts, b.counts)):
        raise UsageError("the two fusers were not tested on the same labels of the same people: finish both rows first")
    groups, seeds = len(a.groups), min(a.seeds, b.seeds)
    middle = a.scores.mean() - b.scores.mean()
    low, high = (
        bounds(resampled_difference(a, b, draws, seed), middle, level) if math.isfinite(middle) else (None, None)
    )
    smallest = 2.0 ** (1 - groups) if groups <= EXACT else max(2.0 ** (1 - groups), 1 / (1 + flips))
    left, right = a.pseudo, b.pseudo  # (R, G) each
    result = Comparison(
        defined(middle), low, high, None, groups, seeds, min(1.0, smallest), "people", None,
        p_folds=_fold_test(a, b), higher_is_better=higher_is_better(metric),
    )  # fmt: skip
    if groups < 2 or not (np.isfinite(left).all() and np.isfinite(right).all()):
        return result
    parts, noise, freedom = _parts(left, right)
    p = sign_flip(left.mean(0) - right.mean(0), noise, freedom, flips, seed)
    by_people = parts.seeds is not None and parts.people / groups >= parts.seeds / seeds
    found = smallest_detectable_difference(parts, groups, seeds)
    limit: Literal["people", "seeds"] = "people" if by_people or found is None else "seeds"
    return replace(result, p=p, limited_by=limit, detectable=found, parts=parts)


def _fold_test(a: Table, b: Table) -> float | None:
    if a.by_fold.shape[1] < 2 or a.by_fold.shape[1] != b.by_fold.shape[1]:
        return None
    return corrected_test(a.by_fold.mean(0) - b.by_fold.mean(0))


def _parts(left: Array, right: Array) -> tuple[Parts, float, float]:
    """Variance parts of the difference, the seeds' share in the SD of its mean, and that share's degrees of freedom."""
    groups = left.shape[1]
    spread = float((left.mean(0) - right.mean(0)).var(ddof=1))  # people + residual / seeds
    if min(len(left), len(right)) < 2:
        return Parts(spread, None, 0.0), 0.0, math.inf
    variances = np.array([side.mean(1).var(ddof=1) for side in (left, right)])  # of a run's score, residual included
    residuals = np.array([_residual(side) for side in (left, right)])
    counts = np.array([len(left), len(right)])
    seeds = float(np.maximum(variances - residuals / groups, 0).sum())
    people = max(0.0, spread - float((residuals / counts).sum()))
    shares = variances / counts
    noise = math.sqrt(max(0.0, float((shares - residuals / (groups * counts)).sum())))
    freedom = float(shares.sum() ** 2 / (shares**2 / (counts - 1)).sum()) if shares.any() else math.inf
    return Parts(people, seeds, float(residuals.sum())), noise, freedom


def _residual(side: Array) -> float:
    rest = side - side.mean(1, keepdims=True) - side.mean(0) + side.mean()
    return float((rest**2).sum() / ((side.shape[0] - 1) * (side.shape[1] - 1)))


def sign_flip(
    differences: Sequence[float] | Array,
    noise: float = 0.0,
    freedom: float = math.inf,
    flips: int = 10_000,
    seed: int = 0,
) -> float:
    """Two-sided p of the mean of per-group differences under random signs (Fisher 1935; Pitman 1937).

    All signs up to `EXACT` groups, else `flips` random ones and p = (1 + count) / (1 + flips). With `noise` > 0 every
    flipped mean is blurred by noise times Student's t with `freedom` degrees.
    """
    values = np.asarray(differences, dtype=float)
    exact = len(values) <= EXACT
    signs = _signs(len(values), 0 if exact else flips, seed)
    means = np.concatenate([block.astype(float) @ values for block in np.array_split(signs, 8)]) / len(values)
    observed = abs(values.mean())
    extreme = np.abs(means) >= observed - 1e-12 * np.abs(values).mean()
    if noise > 0:
        beyond = scipy.special.stdtr(freedom, (means - observed) / noise) + scipy.special.stdtr(
            freedom, -(means + observed) / noise
        )
        same = extreme & (np.abs(means) <= observed + 1e-12 * np.abs(values).mean())
        beyond = np.where(same, 1.0, beyond)  # the data themselves always count, as without noise
    else:
        beyond = extreme.astype(float)
    return float(beyond.mean()) if exact else float((1 + beyond.sum()) / (1 + flips))


@lru_cache(maxsize=4)
def _signs(size: int, flips: int, seed: int) -> Array:
    """(2^(G-1), G) every pattern of signs up to a common one, or (flips, G) random ones; small integers."""
    if flips:
        return 2 * np.random.default_rng([seed, size, 2]).integers(0, 2, (flips, size), dtype=np.int8) - 1
    return 1 - 2 * ((np.arange(2 ** max(0, size - 1))[:, None] >> np.arange(size)) & 1)


def smallest_detectable_difference(
    parts: Parts, groups: int, seeds: int, alpha: float = 0.05, power: float = 0.8
) -> float | None:
    """The true difference that a two-sided test finds with the given power, over so many people and seeds.

    Normal approximation with Student's quantile for the people; None where the smallest possible p is not below alpha.
    """
    if groups < 2 or 2.0 ** (1 - groups) >= alpha:
        return None
    reach = float(scipy.special.stdtrit(groups - 1, 1 - alpha / 2) + scipy.special.ndtri(power))
    return reach * math.sqrt(parts.variance(groups, seeds))


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjusted p values (1979), in the given order; an undefined p stays None and does not count."""
    known = sorted((p, i) for i, p in enumerate(ps) if p is not None)
    adjusted: list[float | None] = [None] * len(ps)
    running = 0.0
    for step, (p, i) in enumerate(known):
        running = max(running, min(1.0, (len(known) - step) * p))
        adjusted[i] = running
    return adjusted


def compare_family(
    fusers: Mapping[str, Sequence[Cell] | Table], reference: str, metric: Metric, draws: int = 2000, seed: int = 0
) -> dict[str, Comparison]:
    """Every fuser against one reference named beforehand, Holm-corrected within this family.

    Raises:
        UsageError: the reference is not among the fusers.
    """
    if reference not in fusers:
        raise UsageError(
            f"the reference {reference!r} has no predictions here; run it, or name one of {', '.join(fusers)}"
        )
    base = tabulate(fusers[reference], metric)
    found = {
        name: compare(cells, base, metric, draws=draws, seed=seed)
        for name, cells in fusers.items()
        if name != reference
    }
    adjusted = holm([c.p for c in found.values()])
    family = sum(p is not None for p in adjusted)
    return {name: replace(c, adjusted=p, family=family) for (name, c), p in zip(found.items(), adjusted, strict=True)}


def sentence(a: str, b: str, result: Comparison, unit: str = "people", alpha: float = 0.05, scale: float = 1.0) -> str:
    """What a comparison means, in words; "better" only where the corrected test says so.

    `scale` multiplies what is printed (100 for percent); `unit` is what a group is called.
    """
    over = f"over {result.groups} {unit}"
    p = result.p if result.adjusted is None else result.adjusted
    if result.difference is None or result.low is None or result.high is None or p is None:
        return f"{a} and {b} cannot be compared {over}: the score, or a person's share in it, is undefined."
    if not result.difference:
        return f"{a} and {b} score the same {over}."
    if (result.difference > 0) != result.higher_is_better:
        a, b = b, a
    half = (result.high - result.low) / 2
    claim = f"{a} > {b} by {_number(abs(result.difference) * scale)} +- {_number(half * scale)} {over}"
    tested = f"p = {p:.2g}" + (f", Holm-corrected within {result.family}" if result.family > 1 else "")
    if result.better(alpha):
        return f"{claim} ({tested}): {a} is better."
    if result.smallest_p * result.family >= alpha:
        return f"{claim}, but with so few {unit} no difference could count (smallest p = {result.smallest_p:.2g})."
    if result.seeds < 2:
        return f"{claim} ({tested}), of single trained models: more seeds are needed to speak of the methods."
    first, second = (unit, "seeds") if result.limited_by == "people" else ("seeds", unit)
    seen = (
        ""
        if result.detectable is None
        else f" (this can show differences from {_number(result.detectable * scale)} on)"
    )
    return f"{claim}, not told from chance ({tested}); more {first}, not more {second}, would settle it{seen}."


def _number(value: float) -> str:
    """Two significant digits, without an exponent from 1e-4 on."""
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}"

"""One test, one interval, one family: Student's t on the one variance, Holm's steps, and margins for equivalence.

Which test is used is fixed by the simulations of `bench/power_study.md`, never by the data at hand: Student's t with
Satterthwaite's degrees of freedom (`variance.difference`), in every design. On the published components its size at
.05 is .04 to .05, and .03 with ten groups and three seeds, where it is timid; also where two methods differ on nobody
(.027 to .039). Its rival, the studentised sign flip, errs up to .07 with three seeds and finds less with five seeds on
ten groups; it is `sign_flip_p`, kept for that study.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import scipy

from fusionbench import metrics
from fusionbench.errors import UsageError
from fusionbench.stats.cells import Cell, Metric, Table, tabulate
from fusionbench.stats.intervals import Interval
from fusionbench.stats.power import (
    POWER,
    critical,
    detectable_from,
    equivalence_power,
    needed_groups,
    needed_seeds,
)
from fusionbench.stats.variance import Difference, difference, variance_of_score
from fusionbench.stats.verdicts import Decision, Verdict

Array = np.ndarray


def t_test(found: Difference) -> float | None:
    """Two-sided p that the true difference is none; None where there is no test."""
    if found.value is None or found.variance is None or found.freedom is None:
        return None
    if found.variance == 0:
        return 1.0
    return float(2 * scipy.special.stdtr(found.freedom, -abs(found.value) / math.sqrt(found.variance)))


def interval_of(found: Difference, level: float = 0.05) -> tuple[float, float] | tuple[None, None]:
    """The differences that the test at this level does not reject."""
    if found.value is None or found.variance is None or found.freedom is None:
        return None, None
    half = critical(level, found.freedom) * math.sqrt(found.variance)
    return found.value - half, found.value + half


def interval(cells: Sequence[Cell] | Table, metric: Metric, level: float = 0.95) -> Interval:
    """The score (mean over seeds, pooled over folds) with Student's interval, by the variance that tests differences.

    Shares and other percentages end at 0 and 1. One group, or one without which the metric is undefined: no bounds; one
    seed: the bounds are about these trained models.

    Raises:
        UsageError: the level is not between 0 and 1, or the cells are not a complete table.
    """
    if not 0 < level < 1:
        raise UsageError(f"the level of an interval lies between 0 and 1, as .95 does; not {level}")
    table = tabulate(cells, metric)
    folds: Literal["one", "pooled"] = "pooled" if table.by_fold.shape[1] > 1 else "one"
    middle = float(table.scores.mean())
    if not math.isfinite(middle):
        return Interval(None, None, None, folds)
    found = variance_of_score(table)
    if found is None:
        return Interval(middle, None, None, folds)
    half = critical(1 - level, found[1]) * math.sqrt(found[0])
    low, high = middle - half, middle + half
    if metrics.get(metric).percent:
        low, high = max(low, min(middle, 0.0)), min(high, max(middle, 1.0))
    return Interval(middle, low, high, folds)


def sign_flip_p(
    differences: Array, observed: float, seeds: float, freedom: float, flips: int = 4096, seed: int = 0
) -> float:
    """Two-sided p of a studentised sign flip over groups, blurred by the seeds: the rival of the t test.

    Each draw flips the signs of the per-group differences, adds Student-like noise of the seeds (a normal value over a
    chi-square scale) and divides by its own standard error; p is the share of draws as extreme as `observed`.

    Args:
        differences: (G,) influence values of a minus b, mean over seeds.
        observed: the difference over its standard error.
        seeds: the share of the seeds in the variance of the mean beyond the residual; 0 for none.
        freedom: Welch's degrees of freedom of that share.
    """
    rng = np.random.default_rng([seed, len(differences)])
    size = len(differences)
    if size <= 12:
        signs = 1.0 - 2 * ((np.arange(2**size)[:, None] >> np.arange(size)) & 1)
        signs = np.repeat(signs, max(1, flips // len(signs)), axis=0)
    else:
        signs = 1.0 - 2 * rng.integers(0, 2, (flips, size))
    means = signs @ differences / size
    spread = np.maximum((differences**2).sum() - size * means**2, 0) / (size - 1) / size
    noise = scale = np.zeros(len(signs))
    if seeds > 0:
        noise = math.sqrt(seeds) * rng.standard_normal(len(signs))
        scale = seeds * rng.chisquare(freedom, len(signs)) / freedom
    drawn = np.abs(means + noise) >= abs(observed) * np.sqrt(spread + scale) * (1 - 1e-12)
    return float((1 + drawn.sum()) / (1 + len(signs)))


def holm_steps(ps: Mapping[str, float | None], level: float = 0.05) -> dict[str, tuple[float, float]]:
    """Name -> (adjusted p, the level at which it was really tested), of those that have a p.

    Holm (1979) goes from the smallest p up, against level / what is left, and stops at the first that fails; whatever
    comes after was tested, in effect, at the level of that step. Equal p values share a step's outcome.
    """
    known = sorted((p, name) for name, p in ps.items() if p is not None)
    steps: dict[str, tuple[float, float]] = {}
    running, stopped = 0.0, 0.0
    for step, (p, name) in enumerate(known):
        left = len(known) - step
        running = max(running, min(1.0, left * p))
        stopped = stopped or (level / left if running >= level else 0.0)
        steps[name] = running, stopped or level / left
    return steps


def family(
    rows: Mapping[str, Table],
    reference: str,
    name: str = "",
    margin: float | None = None,
    level: float = 0.05,
    *,
    higher_is_better: bool = True,
    unit: str = "person",
) -> dict[str, Verdict]:
    """Every row against one reference named beforehand, as verdicts of one declared family.

    Rows in another family move nothing here. The adjusted interval is at Bonferroni's level, cut at 0 on the side that
    Holm's step excludes, so that it holds for the whole family and agrees with the adjusted p (Guilbaud 2008).

    Args:
        rows: name -> table, the reference among them.
        margin: the smallest difference that matters, declared beforehand.

    Raises:
        UsageError: the reference is not among the rows, or the margin is not positive.
    """
    if reference not in rows:
        raise UsageError(
            f"the reference {reference!r} has no predictions here; run it, or name one of {', '.join(rows)}"
        )
    pairs = {row: (row, reference) for row in rows if row != reference}
    found = {row: difference(rows[row], rows[reference]) for row in pairs}
    return judged(pairs, found, name, margin, level, higher_is_better=higher_is_better, unit=unit)


def judged(
    pairs: Mapping[str, tuple[str, str]],
    found: Mapping[str, Difference],
    name: str,
    margin: float | None,
    level: float,
    *,
    higher_is_better: bool,
    unit: str,
    settle: bool = True,
) -> dict[str, Verdict]:
    """The verdicts of one family from its differences: key -> (a, b), and key -> a minus b.

    `settle` asks what can be detected, and what would settle the undecided ones, some 20 ms each.
    """
    compared = {key: Comparison(a, b, found[key], margin, higher_is_better, unit) for key, (a, b) in pairs.items()}
    return one_family(compared, name, level, settle)


@dataclass(frozen=True)
class Comparison:
    """A difference before it is judged: a minus b, the margin in its metric's units, and what one group is called."""

    a: str
    b: str
    difference: Difference
    margin: float | None = None
    higher_is_better: bool = True
    unit: str = "person"


def one_family(
    compared: Mapping[str, Comparison], name: str, level: float = 0.05, settle: bool = True
) -> dict[str, Verdict]:
    """The verdicts of comparisons that are corrected together (Holm), also of several benchmarks.

    Raises:
        UsageError: a margin is not positive, or the level no level.
    """
    if not 0 < level < 1:
        raise UsageError(f"the level of a family lies between 0 and 1, as .05 does; not {level}")
    steps = holm_steps({key: t_test(c.difference) for key, c in compared.items()}, level)
    verdicts = {}
    for key, c in compared.items():
        if c.margin is not None and not c.margin > 0:
            raise UsageError(
                f"the margin of equivalence is a positive difference in the metric's units, not {c.margin}"
            )
        d = c.difference
        low, high = interval_of(d, level)
        plain = Verdict(
            c.a, c.b, d.value, low, high, t_test(d), None, None, None, name, len(steps), "untested", c.margin, None,
            d.groups, d.seeds, c.unit, d.reason, d.p_folds, freedom=d.freedom, higher_is_better=c.higher_is_better,
            repartitioned=d.repartitioned,
        )  # fmt: skip
        verdicts[key] = _decided(plain, d, *steps[key], level, settle) if key in steps else plain
    return verdicts


def _decided(verdict: Verdict, d: Difference, adjusted: float, tested: float, level: float, settle: bool) -> Verdict:
    """The verdict with all that rests on its place in the family."""
    low, high = interval_of(d, level / verdict.size)
    if d.value is None or d.variance is None or d.freedom is None or d.sources is None or low is None or high is None:
        raise ValueError("a difference without a variance has no place in a family")
    significant = adjusted < level
    if significant:
        low, high = (max(low, 0.0), high) if d.value > 0 else (low, min(high, 0.0))
    margin = verdict.margin
    equivalent = margin is not None and -margin < low and high < margin
    attainable = margin and equivalence_power(d.variance, d.freedom, margin, level / verdict.size) >= POWER
    decision: Decision = "equivalent" if equivalent else "undecided"
    if significant:
        decision = "better" if (d.value > 0) == verdict.higher_is_better else "worse"
    target = abs(d.value) if margin is None else margin
    several = [count for count in d.seeds if count > 1]
    seeds = min(several, default=1)
    found = detectable_from(d.variance, d.freedom, tested) if settle else None
    wanted = found is not None and decision == "undecided" and 0 < target < found
    return replace(
        verdict,
        adjusted=adjusted,
        adjusted_low=low,
        adjusted_high=high,
        decision=decision,
        level=tested,
        detectable=found,
        equivalent=equivalent,
        attainable=None if margin is None else bool(attainable),
        settle_groups=needed_groups(d.sources, target, seeds, tested, d.groups + 1) if wanted else None,
        settle_seeds=needed_seeds(d.sources, target, d.groups, tested, seeds + 1)
        if wanted and len(several) == 2
        else None,
    )

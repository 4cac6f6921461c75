"""Does the test hold its size, do its intervals cover, what does it find? Simulated designs, and real answers as A/A.

    nice python bench/power_study.py                # 20,000 draws a design, to power_study.md
    python bench/power_study.py --draws 500 --short # a minute, to standard output

Every design has the groups, folds and seeds of a published board. Differences are analysed by the package's own
`stats.variance.spread`, many draws at once; the p values and intervals are `stats.t_test`'s.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import scipy
from scipy.special import ndtr, stdtr

from fusionbench.stats import Sources, Table, detectable, difference, pooled, power_of, resolve, spending
from fusionbench.stats.tests import sign_flip_p
from fusionbench.stats.variance import mean_squares, spread

Array = np.ndarray
LEVEL = 0.05
FOLDS = 5
CHUNK = 4_000_000  # numbers held at once
READING = """
The unit is a group. *Size*: how often a test at .05 calls two rows different whose true scores are
equal; *error in 11 (22)*: how often anything in a family of so many rows, all equal to one
reference, is called different by Holm; *coverage*: how often the interval holds the true
difference (in a linear design it is exactly 1 - size); SE: the true standard error of the
difference. Figures after ± are the simulation's own error. *Published* components are those of the
differences to concat on watch (10 people), stress_predict (34), affect_sim (40) and stressid (65);
*noisy seeds* has three times their seed noise and .01 more, *mostly people* a quarter of seed
noise and residual, *no difference at all* no person on whom the two methods differ. Components
inside a fold's model are shared by its groups. Fold effects that all seeds share are left out
except under "The training set", which shows what "given these training sets" means. The mixed
model is the analysis of variance with Wald's normal quantile: on balanced tables REML's variance
is the same number (a test compares with statsmodels). Under "Real answers" pairs of one benchmark
share people; the error is over rows, as if those were independent, and two seeds stand against
three. A *pilot* is a few seeds of eleven rows and their reference, from which `fusionbench power`
says what three, five and ten seeds will find at .05/11; its figures are means and SD over pilots.
"""


@dataclass(frozen=True)
class Design:
    """Standard deviations of what a row's score on a group is made of, in units of the metric.

    Attributes:
        people: of the difference between two methods that a group brings (each method brings 1 / sqrt 2 of it).
        seeds: of one run over all groups; half of its variance is shared by all folds, half by the groups of a fold.
        residual: of one run on one group, beyond both.
        training: of a fold's training set, the same for every seed (0 unless it is what is studied).
    """

    name: str
    groups: int
    count: int
    people: float
    seeds: float
    residual: float
    training: float = 0.0


#: Components of the differences to concat on the published boards: watch, stress_predict, affect_sim, stressid.
PUBLISHED = {10: (0.037, 0.010, 0.031), 34: (0.048, 0.008, 0.052), 40: (0.057, 0.003, 0.021), 65: (0.085, 0.005, 0.070)}


#: Up to this many groups the plain sign flip counts every assignment of signs.
EXACT = 14


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


def designs() -> Iterator[Design]:
    for groups, (people, seeds, residual) in PUBLISHED.items():
        for count in (3, 5):
            yield Design("published", groups, count, people, seeds, residual)
            yield Design("noisy seeds", groups, count, people, 3 * seeds + 0.01, residual)
            yield Design("mostly people", groups, count, people, seeds / 4, residual / 4)
            yield Design("no difference at all", groups, count, 0.0, seeds, residual)


def deal(groups: int) -> Array:
    return np.arange(groups) % FOLDS


def rows(d: Design, draws: int, number: int, rng: np.random.Generator, repartitioned: bool = False) -> Array:
    """(draws, number, R, G) influence values of rows that have the same expectation, over random groups."""
    shape = draws, number, d.count
    values = d.residual * rng.standard_normal((*shape, d.groups))
    values += d.people / math.sqrt(2) * rng.standard_normal((draws, number, 1, d.groups))
    values += d.seeds / math.sqrt(2) * rng.standard_normal((*shape, 1))
    each = d.seeds / math.sqrt(2) * math.sqrt(FOLDS) * rng.standard_normal((*shape, FOLDS))
    if d.training:
        sets = rng.standard_normal((draws, number, d.count if repartitioned else 1, FOLDS))
        each += d.training * math.sqrt(FOLDS) * sets
    if not repartitioned:
        return values + each[..., deal(d.groups)]
    place = rng.permuted(np.tile(deal(d.groups), (draws, 1, d.count, 1)), axis=-1)
    return values + np.take_along_axis(each, np.broadcast_to(place, (*shape, d.groups)), -1)


@dataclass(frozen=True)
class Found:
    """What the analysis of many simulated pairs says; arrays (draws,)."""

    difference: Array
    variance: Array
    freedom: Array

    @property
    def p(self) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.nan_to_num(2 * stdtr(self.freedom, -np.abs(self.difference) / np.sqrt(self.variance)), nan=1.0)


def analysed(left: Array, right: Array, paired: bool = False) -> Found:
    """The package's analysis of (..., R, G) influence values of two rows."""
    size = left.shape[-1]
    each = left.mean(-2) - right.mean(-2)
    sides = [left - right] if paired else [left, right]
    squares = [(*mean_squares(side), side.shape[-2]) for side in sides]
    runs, rests = [run / n for run, _, n in squares], [rest / (size * n) for _, rest, n in squares]
    counts = [n for _, _, n in squares]
    return Found(each.mean(-1), *spread(each.var(-1, ddof=1) / size, runs, rests, counts, size))


def chunks(draws: int, width: int) -> Iterator[int]:
    step = max(1, CHUNK // width)
    yield from (min(step, draws - start) for start in range(0, draws, step))


def simulated(d: Design, draws: int, rng: np.random.Generator, repartitioned: bool = False) -> Found:
    parts = []
    for n in chunks(draws, 2 * d.count * d.groups):
        values = rows(d, n, 2, rng, repartitioned)
        parts.append(analysed(values[:, 0], values[:, 1], repartitioned))
    return Found(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("difference", "variance", "freedom")))


def sources(d: Design) -> Sources:
    """What the analysis of variance takes the components for: a fold's own noise looks like residual in part."""
    extra = (FOLDS - 1) / 2 * d.seeds**2 * d.groups / (d.groups - 1)
    return Sources(d.people**2, (d.seeds**2 - extra / d.groups,) * 2, (d.residual**2 + extra,) * 2)


def share(hits: Array, times: int = 1) -> str:
    """A share (or so many times it) with its simulation error."""
    rate = float(np.mean(hits))
    return f"{times * rate:.3f} ± {times * math.sqrt(max(rate * (1 - rate), 1 / len(hits) ** 2) / len(hits)):.3f}"


def table(head: list[str], lines: list[list[str]]) -> str:
    body = [" | ".join(line) for line in [head, ["---"] * len(head), *lines]]
    return "\n".join(f"| {line} |" for line in body) + "\n"


def sizes(draws: int, rng: np.random.Generator) -> str:
    """Size and coverage of one test, family-wise error of 11 and 22 with one reference, predicted and real power."""
    lines = []
    for d in designs():
        one = simulated(d, draws, rng)
        wrong = families(d, draws, rng)
        target = 4 * math.sqrt(sources(d).at(d.groups, d.count)[0])
        real = np.mean(Found(one.difference + target, one.variance, one.freedom).p < LEVEL / 11)
        said = power_of(sources(d), target, d.groups, d.count, LEVEL / 11)
        lines.append(
            [d.name, str(d.groups), str(d.count), share(one.p < LEVEL), share(one.p >= LEVEL)]
            + [share(wrong[size]) for size in (11, 22)]
            + [f"{said:.2f}", f"{real:.2f}"]
        )
    head = ["differences", "groups", "seeds", "size at .05", "coverage of 95 %", "error in 11", "error in 22"]
    return table([*head, "power said (4 SE, .05/11)", "power found"], lines)


def families(d: Design, draws: int, rng: np.random.Generator) -> dict[int, Array]:
    """Size of a family -> was anything called different? Of 22 rows that equal their reference, and the first 11."""
    wrong: dict[int, list[Array]] = {11: [], 22: []}
    for n in chunks(draws, 23 * d.count * d.groups):
        values = rows(d, n, 23, rng)
        p = np.stack([analysed(values[:, i], values[:, 0]).p for i in range(1, 23)])
        for size, found in wrong.items():
            found.append(p[:size].min(0) < LEVEL / size)  # Holm errs under the global null where its first step does
    return {size: np.concatenate(found) for size, found in wrong.items()}


def rivals(draws: int, few: int, rng: np.random.Generator) -> str:
    """Size at .05 and power at .05 and .05/22 of this test and of others."""
    lines = []
    for d in designs():
        if d.name != "published" and (d.name != "mostly people" or d.count != 5):
            continue
        target = 4.5 * math.sqrt(sources(d).at(d.groups, d.count)[0])
        for name, (test, most) in RIVALS.items():
            n = min(draws, few) if most else draws
            null, real = [], []
            for part in chunks(n, 2 * d.count * d.groups):
                values = rows(d, part, 2, rng)
                null.append(test(values[:, 0], values[:, 1], d, rng))
                real.append(test(values[:, 0] + target, values[:, 1], d, rng))
            p, found = np.concatenate(null), np.concatenate(real)
            lines.append(
                [d.name, str(d.groups), str(d.count), name, share(p < LEVEL), share(p < LEVEL / 22, 22)]
                + [f"{np.mean(found < level):.2f}" for level in (LEVEL, LEVEL / 22)]
            )
    head = ["differences", "groups", "seeds", "test", "size at .05", "22 x size at .05/22"]
    return table([*head, "power of 4.5 SE at .05", "at .05/22"], lines)


def _ours(left: Array, right: Array, d: Design, rng: np.random.Generator) -> Array:
    return analysed(left, right).p


def _mixed(left: Array, right: Array, d: Design, rng: np.random.Generator) -> Array:
    """Wald's z of a mixed model: in a balanced table REML's components are those of the analysis of variance."""
    found = analysed(left, right)
    return 2 * ndtr(-np.abs(found.difference) / np.sqrt(found.variance))


def _nadeau_bengio(left: Array, right: Array, d: Design, rng: np.random.Generator) -> Array:
    each = left.mean(-2) - right.mean(-2)
    folds = np.stack([each[:, deal(d.groups) == f].mean(-1) for f in range(FOLDS)], -1)
    variance = (1 / FOLDS + 1 / (FOLDS - 1)) * folds.var(-1, ddof=1)
    return 2 * stdtr(FOLDS - 1, -np.abs(folds.mean(-1)) / np.sqrt(variance))


def _plain_flip(left: Array, right: Array, d: Design, rng: np.random.Generator) -> Array:
    each = left.mean(-2) - right.mean(-2)
    return np.array([sign_flip(one, flips=2000) for one in each])


def _blurred_flip(left: Array, right: Array, d: Design, rng: np.random.Generator) -> Array:
    """The test of the earlier boards: flips blurred by the seeds."""
    p = []
    for a, b in zip(left, right, strict=True):
        squares = [mean_squares(side) for side in (a, b)]
        runs = np.array([run / d.count for run, _ in squares])
        rests = np.array([rest / (d.count * d.groups) for _, rest in squares])
        noise = math.sqrt(max(0.0, float((runs - rests).sum())))
        freedom = float(runs.sum() ** 2 / (runs**2 / (d.count - 1)).sum())
        p.append(sign_flip(a.mean(0) - b.mean(0), noise, freedom, flips=2000))
    return np.array(p)


def _studentised_flip(left: Array, right: Array, d: Design, rng: np.random.Generator) -> Array:
    p = []
    for a, b in zip(left, right, strict=True):
        squares = [mean_squares(side) for side in (a, b)]
        runs = [float(run) / d.count for run, _ in squares]
        rest = sum(float(rest) for _, rest in squares) / (d.count * d.groups)
        freedom = sum(runs) ** 2 / sum(run**2 / (d.count - 1) for run in runs)
        found = analysed(a, b)
        observed = float(found.difference / np.sqrt(found.variance))
        p.append(sign_flip_p(a.mean(0) - b.mean(0), observed, max(0.0, sum(runs) - rest), freedom))
    return np.array(p)


def _bootstrap(left: Array, right: Array, d: Design, rng: np.random.Generator, resamples: int = 2000) -> Array:
    """A paired hierarchical bootstrap: groups on both sides at once, seeds on each; p from its percentile interval."""
    people = rng.multinomial(d.groups, np.full(d.groups, 1 / d.groups), resamples) / d.groups  # (B, G)
    seeds = [rng.multinomial(d.count, np.full(d.count, 1 / d.count), resamples) / d.count for _ in range(2)]
    p = []
    for a, b in zip(left, right, strict=True):
        means = ((a @ people.T).T * seeds[0]).sum(1) - ((b @ people.T).T * seeds[1]).sum(1)
        p.append(min(1.0, 2 * (1 + min((means <= 0).sum(), (means >= 0).sum())) / (1 + resamples)))
    return np.array(p)


Test = Callable[[Array, Array, Design, np.random.Generator], Array]
#: Name -> the test, and whether it is too slow for all draws.
RIVALS: dict[str, tuple[Test, bool]] = {
    "this t": (_ours, False),
    "studentised sign flip": (_studentised_flip, True),
    "earlier: sign flip blurred by seeds": (_blurred_flip, True),
    "plain sign flip": (_plain_flip, True),
    "Nadeau-Bengio over five folds": (_nadeau_bengio, False),
    "mixed model, Wald": (_mixed, False),
    "paired hierarchical bootstrap": (_bootstrap, True),
}


def training(draws: int, rng: np.random.Generator) -> str:
    """Size over training sets: five folds that all seeds share, and a partition for each seed."""
    lines = []
    for groups, (people, seeds, residual) in PUBLISHED.items():
        for effect in (0.5, 1.0, 2.0):
            d = Design("", groups, 5, people, seeds, residual, effect * math.sqrt(people**2 / groups))
            found = [simulated(d, draws, rng, dealt).p < LEVEL for dealt in (False, True)]
            lines.append([str(groups), f"{effect:g}", *map(share, found)])
    return table(
        ["groups", "SD of the training set / of the people, in the mean", "five folds shared", "dealt by each seed"],
        lines,
    )


# Answers instead of scores: what the linearisation of a metric adds. Steps are simulated, sums are taken, and the
# metric is jackknifed as `Table.pseudo` does it.


def accuracy(sums: Array) -> Array:
    return sums[..., 0] / sums[..., 1]


def macro_f1(sums: Array) -> Array:
    square = sums.reshape(*sums.shape[:-1], 3, 3)  # (..., label, answer)
    hits, both = np.diagonal(square, axis1=-2, axis2=-1), square.sum(-1) + square.sum(-2)
    return np.divide(2 * hits, both, out=np.full(hits.shape, np.nan), where=both > 0).mean(-1)


def ccc(sums: Array) -> Array:
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    x, y, xx, yy, xy = x / n, y / n, xx / n, yy / n, xy / n
    return 2 * (xy - x * y) / (xx - x**2 + yy - y**2 + (x - y) ** 2)


def classified(draws: int, groups: int, count: int, steps: int, edge: float, rng: np.random.Generator) -> Array:
    """(draws, 2, R, G, 9) confusion sums of answers that two methods share in part; classes of 50, 30 and 20 %."""
    shape = draws, 1, 1, groups, steps
    y = rng.choice(3, shape, p=[0.5, 0.3, 0.2])
    hard = 0.5 * rng.standard_normal((draws, 1, 1, groups, 1)) + 0.8 * rng.standard_normal(shape)
    own = 0.3 * rng.standard_normal((draws, 2, 1, groups, 1)) + 0.08 * rng.standard_normal((draws, 2, count, 1, 1))
    fold = 0.1 * rng.standard_normal((draws, 2, count, FOLDS))[..., deal(groups)][..., None]
    margin = 0.6 + np.array([edge, 0.0])[:, None, None, None] - hard + own + fold
    right = margin + 0.6 * rng.standard_normal((draws, 2, count, groups, steps)) > 0
    answer = np.where(right, y, (y + 1 + (rng.random(right.shape) < 0.4)) % 3)
    cell = 3 * np.broadcast_to(y, answer.shape) + answer
    return np.stack([(cell == k).sum(-1) for k in range(9)], -1).astype(float)


def regressed(draws: int, groups: int, count: int, steps: int, edge: float, rng: np.random.Generator) -> Array:
    """(draws, 2, R, G, 6) moments of answers to labels that vary within and between groups."""
    y = 0.5 * rng.standard_normal((draws, 1, 1, groups, 1)) + rng.standard_normal((draws, 1, 1, groups, steps))
    common = 0.4 * rng.standard_normal((draws, 1, 1, groups, 1)) + 0.4 * rng.standard_normal(y.shape)
    own = 0.2 * rng.standard_normal((draws, 2, 1, groups, 1)) + 0.05 * rng.standard_normal((draws, 2, count, 1, 1))
    fold = 0.1 * rng.standard_normal((draws, 2, count, FOLDS))[..., deal(groups)][..., None]
    slope = 0.7 + np.array([edge, 0.0])[:, None, None, None]
    x = slope * y + common + own + fold + 0.4 * rng.standard_normal((draws, 2, count, groups, steps))
    y = np.broadcast_to(y, x.shape)
    return np.stack([np.ones(x.shape).sum(-1), *(v.sum(-1) for v in (x, y, x * x, y * y, x * y))], -1)


def jackknifed(sums: Array, metric: Callable[[Array], Array]) -> Array:
    """(..., R, G, width) sums -> (..., R, G) influence values whose mean is the metric."""
    whole = sums.sum(-2, keepdims=True)
    score, without = metric(whole), metric(whole - sums)
    pseudo = sums.shape[-2] * score - (sums.shape[-2] - 1) * without
    return pseudo - pseudo.mean(-1, keepdims=True) + score


#: Metric -> its answers, sums to values, and a planted edge.
METRICS: dict[str, tuple[Callable[..., Array], Callable[[Array], Array], float]] = {
    "accuracy": (classified, lambda s: accuracy(hits(s)), 0.15),
    "macro-F1": (classified, macro_f1, 0.15),
    "CCC": (regressed, ccc, 0.1),
}


def hits(sums: Array) -> Array:
    return np.stack([sums[..., [0, 4, 8]].sum(-1), sums.sum(-1)], -1)


def answers(draws: int, rng: np.random.Generator, steps: int = 20) -> str:
    """Size and coverage on answers, pooled accuracy with groups of unequal size, macro-F1 and CCC."""
    lines = []
    for name, (make, metric, edge) in METRICS.items():
        truth = np.mean([_planted(make, metric, edge, steps, rng) for _ in range(5)])
        for groups, count in itertools.product(PUBLISHED, (3, 5)):
            null, real, lost = [], [], 0
            for n in chunks(draws, 40 * count * groups * steps):
                for kept, gap in ((null, 0.0), (real, edge)):
                    sums = make(n, groups, count, steps, gap, rng)
                    if name == "accuracy":  # groups of 1 to 3 sizes
                        sums = sums * rng.integers(1, 4, (n, 1, 1, groups, 1))
                    values = jackknifed(sums, metric)
                    fine = np.isfinite(values).all((1, 2, 3))
                    lost += int((~fine).sum())
                    kept.append(analysed(values[fine, 0], values[fine, 1]))
            p = np.concatenate([f.p for f in null])
            miss = np.concatenate([replace(f, difference=f.difference - truth).p for f in real])
            lines.append([name, str(groups), str(count), share(p < LEVEL), share(p < LEVEL / 11, 11)])
            lines[-1] += [share(miss >= LEVEL), str(lost)]
    head = ["metric", "groups", "seeds", "size at .05", "11 x size at .05/11", "coverage of a planted difference"]
    return table([*head, "undefined"], lines)


def _planted(
    make: Callable[..., Array], metric: Callable[[Array], Array], edge: float, steps: int, rng: np.random.Generator
) -> float:
    """The difference over very many groups and seeds."""
    sums = make(1, 20_000, 5, steps, edge, rng)
    score = metric(sums.sum((-3, -2)))[0]
    return float(score[0] - score[1])


def as_table(values: Array) -> Table:
    """(R, G) influence values as the table of a metric that is their mean."""
    groups = np.arange(values.shape[1])
    fold, by_fold = np.full(len(groups), -1), values.mean(1, keepdims=True)
    return Table(groups, groups * 0 + 1, fold, by_fold, lambda w: w @ values.T / w.sum(1, keepdims=True))


def pilot(d: Design, seeds: int, rng: np.random.Generator, others: int = 11) -> Sources:
    """What `fusionbench power` reads in records: typical components of so many rows against one reference."""
    values = rows(replace(d, count=seeds), 1, 1 + others, rng)[0]
    reference, *tables = map(as_table, values)
    found = pooled([difference(one, reference) for one in tables])
    assert found is not None
    return found


def planned(draws: int, pilots: int, rng: np.random.Generator) -> str:
    """Differences that are to be found with power .8 at .05/11: how often they are, and what pilots say of them."""
    lines, level = [], LEVEL / 11
    for d in designs():
        if d.name not in ("published", "noisy seeds") or d.count != 5:
            continue
        guesses = {seeds: [pilot(d, seeds, rng) for _ in range(pilots)] for seeds in (2, 3, 5)}
        for seeds in (3, 5, 10):
            target = detectable(sources(d), d.groups, seeds, level)
            found = simulated(replace(d, count=seeds), draws, rng)
            real = np.mean(replace(found, difference=found.difference + target).p < level)
            lines.append([d.name, str(d.groups), str(seeds), f"{target:.4f}", f"{real:.3f}"])
            for known in guesses.values():
                said = [power_of(guess, target, d.groups, seeds, level) for guess in known]
                lines[-1].append(f"{np.mean(said):.2f} ({np.std(said):.2f})")
    head = ["differences", "groups", "seeds", "said to be found with power .80", "power found"]
    return table([*head, *(f"a pilot of {n} seeds says (SD)" for n in (2, 3, 5))], lines)


def looked(d: Design, draws: int, rng: np.random.Generator, target: float = 0.0) -> tuple[Array, Array]:
    """(draws,) was anything found at 3, 5 or 10 seeds, and how many seeds were trained."""
    seeds, found, spent = (3, 5, 10), [], []
    for n in chunks(draws, 20 * d.groups):
        values = rows(replace(d, count=10), n, 2, rng)
        p = [analysed(values[:, 0, :k] + target, values[:, 1, :k]).p for k in seeds]
        hit = np.array([a < b for a, b in zip(p, spending(LEVEL, seeds), strict=True)])
        found.append(hit.any(0))
        spent.append(np.where(hit.any(0), np.array(seeds)[hit.argmax(0)], seeds[-1]))
    return np.concatenate(found), np.concatenate(spent)


def looks(draws: int, rng: np.random.Generator) -> str:
    """Looking at 3, 5 and 10 seeds with O'Brien-Fleming spending: false alarms, power, and seeds that are spared."""
    lines = []
    for d in designs():
        if d.count == 5 and d.name in ("published", "noisy seeds"):
            alarm, _ = looked(d, draws, rng)
            target = resolve(sources(d), 0.02, d.groups).detectable[10]
            lines.append([d.name, str(d.groups), share(alarm)])
            for edge in (target, 2 * target):
                hit, spent = looked(d, draws, rng, edge)
                lines[-1] += [share(hit), f"{spent.mean():.1f}"]
    head = ["differences", "groups", "false alarms in three looks, .05", "power where .80 is said", "seeds trained"]
    return table([*head, "power at twice that difference", "seeds trained"], lines)


def real(results: Path) -> str:
    """A/A on published answers: two of a row's five seeds against its other three, every split, row and condition."""
    from fusionbench.records import Record, store
    from fusionbench.stats import Cell, difference, t_test, tabulate

    lines = []
    for folder in sorted(path for path in results.iterdir() if path.is_dir() and path.name[0] != "."):
        kept: dict[str, list[Record]] = {}
        for r in store.load(results, folder.name):
            if r.status == "done":
                kept.setdefault(r.run.row, []).append(r)
        found: list[list[tuple[float, float]]] = []  # by row: (p of this test, p of plain flips)
        for entries in kept.values():
            seeds = sorted({r.run.seed for r in entries})
            answers = [(r, store.predictions(results, r.run)) for r in entries]
            if len(seeds) != 5 or any(kept is None for _, kept in answers):
                continue
            conditions = set.intersection(*(set(kept.answers) for _, kept in answers if kept is not None))
            pairs = []
            for condition in sorted(conditions):
                cells = [
                    Cell(r.run.seed, r.run.fold, kept.groups, kept.answers[condition], kept.y, kept.y_mask)
                    for r, kept in answers
                    if kept is not None
                ]
                for two in itertools.combinations(seeds, 2):
                    a = tabulate([c for c in cells if c.seed in two], entries[0].metrics[0])
                    b = tabulate([c for c in cells if c.seed not in two], entries[0].metrics[0])
                    p = t_test(difference(a, b))
                    if p is not None:
                        pairs.append((p, sign_flip((a.pseudo.mean(0) - b.pseudo.mean(0)), flips=1000)))
            if pairs:
                found.append(pairs)
        if not found:
            continue
        rates = np.array([np.mean(np.array(pairs) < LEVEL, axis=0) for pairs in found])  # (rows, 2)
        error = rates.std(0, ddof=1) / math.sqrt(len(rates)) if len(rates) > 1 else np.full(2, np.nan)
        spelled = [f"{m:.3f} ± {e:.3f}" for m, e in zip(rates.mean(0), error, strict=True)]
        lines.append([folder.name, str(len(rates)), str(sum(map(len, found))), *spelled])
    return table(["benchmark", "rows", "pairs", "this t calls different at .05", "plain sign flip"], lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=20_000, help="of each linear design")
    parser.add_argument("--few", type=int, default=2000, help="of the slow rivals and of simulated answers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="what has this in its title; the rest of the file stays as it is")
    parser.add_argument("--short", action="store_true", help="to standard output, few draws of what is slow")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    options = parser.parse_args(arguments)
    few = min(options.few, 200) if options.short else options.few

    def stream(number: int) -> np.random.Generator:
        return np.random.default_rng([options.seed, number])

    parts = {
        f"One variance, one test: {options.draws:,} draws a design": lambda: sizes(options.draws, stream(0)),
        f"Beside others ({few:,} draws of flips and bootstrap)": lambda: rivals(options.draws, few, stream(1)),
        f"Answers: {few:,} draws a design": lambda: answers(few, stream(2)),
        "The training set": lambda: training(options.draws, stream(3)),
        "Looking three times": lambda: looks(options.draws, stream(4)),
        "Power before the run": lambda: planned(options.draws, 20 if options.short else 200, stream(5)),
        "Real answers: seeds against other seeds": lambda: real(options.results),
    }
    before = options.out.read_text().split("\n## ")[1:] if options.only and options.out.is_file() else []
    kept = {section.partition("\n")[0]: f"## {section.rstrip()}\n" for section in before}
    words = [] if options.only else arguments or sys.argv[1:]
    text = [
        "# The test and its rivals, simulated\n" + READING,
        f"`{' '.join(['python bench/power_study.py', *words])}`\n",
    ]
    for title, make in parts.items():
        if options.only in title:
            kept[title] = f"## {title}\n\n{make()}"
            print(kept[title], flush=True)
        text += [kept[title]] if title in kept else []
    if not options.short:
        options.out.write_text("\n".join(text))


if __name__ == "__main__":
    main()

"""Power before the run: which true difference will be found, what would settle a question, and when to stop looking."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy  # its submodule loads when it is first used

from fusionbench.stats.variance import Sources, spread
from fusionbench.stats.verdicts import MOST_GROUPS, MOST_SEEDS

#: The share of true differences of the detectable size that are found.
POWER = 0.8
#: A normal distribution, for degrees of freedom beyond which the library's non-central t is slow and says the same.
LARGE = 1e5


def critical(level: float, freedom: float) -> float:
    """Student's t beyond which a two-sided test at this level rejects."""
    return float(-scipy.special.stdtrit(min(freedom, LARGE), level / 2))


def power_of(sources: Sources, difference: float, groups: int, seeds: float, level: float = 0.05) -> float:
    """How often so many groups and seeds a side find this true difference at this (corrected) level.

    The mean squares that the analysis would see are drawn (independent chi-squares, fixed draws), and the share
    found is averaged over them: degrees of freedom that are estimated cost power, which the non-central t does
    not know.
    """
    return _Trial(sources, groups, seeds, level).power(difference)


def detectable_from(variance: float, freedom: float, level: float = 0.05, power: float = POWER) -> float:
    """The true difference that is found with this power, at a variance that was observed."""
    freedom = min(freedom, LARGE)
    return math.sqrt(variance) * float(scipy.special.nctdtrinc(freedom, 1 - power, critical(level, freedom)))


def detectable(sources: Sources, groups: int, seeds: float, level: float = 0.05, power: float = POWER) -> float:
    """The smallest true difference that so many groups and seeds a side find with this power at this level.

    `seeds` may be infinite: what is left is what the groups alone can show.
    """
    return _Trial(sources, groups, seeds, level).detectable(power)


class _Trial:
    """What the test would see over so many groups and seeds: standard errors times critical values, fixed draws."""

    def __init__(self, sources: Sources, groups: int, seeds: float, level: float) -> None:
        self.error = math.sqrt(sources.at(groups, seeds)[0])
        sides = list(zip(sources.seeds, sources.residuals, strict=True)) if seeds < math.inf else []
        people = sources.people / groups + sum(rest / (groups * seeds) for _, rest in sides)
        scales = _scales(groups, seeds, len(sides))
        runs = [(seed + rest / groups) / seeds * s for (seed, rest), s in zip(sides, scales[1:], strict=False)]
        rests = [rest / (groups * seeds) * s for (_, rest), s in zip(sides, scales[1 + len(sides) :], strict=True)]
        variance, freedom = spread(people * scales[0], runs, rests, [seeds] * len(sides), groups)
        self.bounds = -scipy.special.stdtrit(np.minimum(freedom, LARGE), level / 2) * np.sqrt(variance)

    def power(self, difference: float) -> float:
        if self.error == 0:
            return float(difference != 0)
        shift, bounds = abs(difference) / self.error, self.bounds / self.error
        return float((scipy.special.ndtr(shift - bounds) + scipy.special.ndtr(-shift - bounds)).mean())

    def detectable(self, power: float) -> float:
        if self.error == 0:
            return 0.0
        low, high = 0.0, self.error
        while self.power(high) < power:
            low, high = high, 2 * high
            if high > 1e9 * self.error:
                return math.inf
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if self.power(middle) < power else (low, middle)
        return high


@lru_cache(maxsize=512)
def _scales(groups: int, seeds: float, sides: int) -> list[np.ndarray]:
    """Chi-squares over their degrees of freedom: of the groups, of each side's seeds, of each side's residual."""
    freedoms = [groups - 1.0] + [seeds - 1.0] * sides + [(seeds - 1.0) * (groups - 1.0)] * sides
    return [scipy.special.chdtri(f, u) / f for f, u in zip(freedoms, _uniforms(), strict=False)]


@lru_cache(maxsize=1)
def _uniforms(draws: int = 512) -> np.ndarray:
    """(5, draws) evenly spread points of the unit cube (a Kronecker sequence: the plastic number's relatives)."""
    root = 2.0
    for _ in range(50):
        root = (1 + root) ** (1 / 6)  # of x^6 = x + 1, five dimensions
    steps = root ** -np.arange(1.0, 6.0)
    return (0.5 + np.arange(1, draws + 1) * steps[:, None]) % 1


def needed_groups(
    sources: Sources, difference: float, seeds: float, level: float = 0.05, least: int = 2, *, power: float = POWER
) -> int | None:
    """The fewest groups, from `least` on, that find this true difference with this power at so many seeds.

    None if 10,000 do not.
    """
    return _fewest(lambda n: power_of(sources, difference, n, seeds, level) >= power, least, MOST_GROUPS)


def needed_seeds(
    sources: Sources, difference: float, groups: int, level: float = 0.05, least: int = 2, *, power: float = POWER
) -> int | None:
    """The fewest seeds a side, from `least` on, that find this true difference with this power on these groups.

    None if 1,000 do not: the groups alone forbid it.
    """
    if not sources.seeds:
        return None
    return _fewest(lambda n: power_of(sources, difference, groups, n, level) >= power, least, MOST_SEEDS)


def equivalence_power(variance: float, freedom: float, margin: float, level: float = 0.05) -> float:
    """How often two rows that are truly equal are shown to be equivalent within the margin, two-sided level `level`.

    The interval must lie within the margin, so the margin must exceed its half-width; the variance is taken as known.
    """
    if variance <= 0:
        return 1.0
    room = margin / math.sqrt(variance) - critical(level, freedom)
    return max(0.0, float(2 * scipy.special.stdtr(min(freedom, LARGE), room) - 1)) if room > 0 else 0.0


def plan(
    sources: Sources, groups: Sequence[int], seeds: Sequence[float], level: float = 0.05, size: int = 1
) -> dict[tuple[int, float], float]:
    """(groups, seeds) -> detectable difference in a family of `size` comparisons, at the level of Holm's first step."""
    return {(g, r): detectable(sources, g, r, level / size) for g in groups for r in seeds}


@dataclass(frozen=True)
class Resolution:
    """Whether, and when, seeds can settle a question about a difference of `target`.

    Attributes:
        limit: the difference that these groups find with power .8 at the corrected level with infinitely many seeds.
        hopeless: the groups alone forbid it, however many seeds are trained.
        seeds: the fewest seeds a side that would do; None if hopeless (or more than 1,000).
        looks: seeds at each look -> the level at which p is compared there (already corrected within the family).
        detectable: seeds at each look -> the difference found there with power .8 at that level.
    """

    target: float
    limit: float
    hopeless: bool
    seeds: int | None
    looks: dict[int, float]
    detectable: dict[int, float]


def resolve(
    sources: Sources,
    target: float,
    groups: int,
    looks: Sequence[int] = (3, 5, 10),
    level: float = 0.05,
    size: int = 1,
) -> Resolution:
    """What looking at so many seeds can settle: levels by O'Brien-Fleming spending, Bonferroni within the family."""
    levels = dict(zip(looks, spending(level / size, tuple(looks)), strict=True))
    limit = detectable(sources, groups, math.inf, level / size)
    return Resolution(
        target, limit, limit > target, needed_seeds(sources, target, groups, level / size), levels,
        {seeds: detectable(sources, groups, seeds, each) for seeds, each in levels.items()},
    )  # fmt: skip


@lru_cache(maxsize=256)
def spending(level: float, looks: tuple[int, ...] = (3, 5, 10)) -> tuple[float, ...]:
    """The two-sided level of each look, so that all together err no more often than `level`.

    Up to information t each side spends 2 - 2 Phi(z / sqrt(t)), z at a quarter of the level (O'Brien & Fleming
    1979; Lan & DeMets 1983), with t the share of the seeds. The estimates share their groups, so the statistics
    of two looks correlate at least as much as sqrt(t / t'); the levels are computed for that least correlation
    and so hold for every mixture of sources.
    """
    shares = np.asarray(looks, dtype=float) / looks[-1]
    total = 4 * scipy.special.ndtr(scipy.special.ndtri(level / 4) / np.sqrt(shares))  # spent up to each look
    grid = np.linspace(-10, 10, 4001)  # of the Brownian motion's standardised value
    levels: list[float] = []
    inside = np.zeros(0)
    for look, share in enumerate(shares):
        increment = total[look] - (total[look - 1] if look else 0.0)
        if look == 0:
            density = np.exp(-(grid**2) / 2) / math.sqrt(2 * math.pi)
        else:
            density = _carried(grid, inside, float(shares[look - 1]), float(share))
        bound = _bound(grid, density, float(increment))
        inside = np.where(np.abs(grid) < bound, density, 0.0)
        levels.append(float(2 * scipy.special.ndtr(-bound)))
    return tuple(levels)


def _carried(grid: np.ndarray, inside: np.ndarray, before: float, now: float) -> np.ndarray:
    """The density of the next standardised value, of those that have not stopped."""
    step = grid[1] - grid[0]
    root = math.sqrt(now - before)
    mean = grid[:, None] * math.sqrt(now) - grid[None, :] * math.sqrt(before)
    kernel = np.exp(-((mean / root) ** 2) / 2) * math.sqrt(now) / (root * math.sqrt(2 * math.pi))
    return kernel @ inside * step


def _bound(grid: np.ndarray, density: np.ndarray, increment: float) -> float:
    """The value beyond which, on both sides together, this much of the density lies."""
    step = grid[1] - grid[0]
    positive = grid >= 0
    folded = density[positive] + density[::-1][positive]
    pieces = (folded[1:] + folded[:-1]) / 2 * step
    beyond = np.append(np.cumsum(pieces[::-1])[::-1], 0.0)
    return float(np.interp(increment, beyond[::-1], grid[positive][::-1]))


def _fewest(enough: Callable[[int], bool], least: int, most: int) -> int | None:
    """The smallest whole number in range that is enough; None if the largest is not."""
    if not enough(most):
        return None
    low, high = least, most
    while low < high:
        middle = math.isqrt(low * high)  # fewer steps to small numbers
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low

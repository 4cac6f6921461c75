"""A verdict: what one comparison within its family says, as a value; and the one sentence that it is shown as."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

Decision = Literal["better", "worse", "equivalent", "undecided", "untested"]

#: One group -> several of them, where an s does not do.
PLURALS = {"person": "people"}
#: Nobody has more groups, or trains more seeds: beyond them a number is not given.
MOST_GROUPS, MOST_SEEDS = 10_000, 1000


@dataclass(frozen=True)
class Verdict:
    """Row a against row b in one family; numbers are in the metric's own units and direction, None where undefined.

    One variance gives them all, so they cannot contradict each other: `adjusted` is below the family's level
    exactly where 0 lies outside (`adjusted_low`, `adjusted_high`), which is exactly where `decision` is "better"
    or "worse".

    Attributes:
        difference: score of a minus score of b; `low` and `high` its interval at 1 - alpha, alpha the family's level.
        p: two-sided, that the true difference is none.
        adjusted: p after Holm's correction; `adjusted_low` and `adjusted_high` hold for all of the family at once.
        family, size: the name of the declared family, and how many comparisons of it were tested.
        decision: of a: "better", "worse" (by Holm), "equivalent" (the adjusted interval lies within the margin: two
            one-sided tests at half the level each), "undecided", or "untested", and then `reason` says why.
        margin: the smallest difference that matters, declared beforehand; `attainable`: if the two were truly equal,
            would these groups and seeds show it with power .8?
        equivalent: the adjusted interval lies within the margin, also where a difference is significant.
        level: at which this comparison was really tested: alpha over what Holm's step left.
        detectable: the smallest true difference found with power .8 at that level, by these groups and seeds.
        settle_groups, settle_seeds: so many groups (seeds a side) would find, with power .8 at that level, a
            difference of the margin, or without one as large as the one seen; None where no number would, or the
            comparison is not undecided, or such a difference would be found as it is.
        seeds: of a and of b. unit: what one group is called ("person", "sample", "engine").
        freedom: degrees of freedom of the test; `p_folds`: of the corrected t-test over folds, shown beside.
        repartitioned: the verdict holds over training sets dealt again; else given these training sets.
        looks: the numbers of seeds at which the comparison is looked at, `seeds` being the last so far; none where it
            is tested once.
    """

    a: str
    b: str
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    adjusted: float | None
    adjusted_low: float | None
    adjusted_high: float | None
    family: str
    size: int
    decision: Decision
    margin: float | None
    detectable: float | None
    groups: int
    seeds: tuple[int, int]
    unit: str = "person"
    reason: str = ""
    p_folds: float | None = None
    level: float | None = None
    freedom: float | None = None
    equivalent: bool = False
    attainable: bool | None = None
    settle_groups: int | None = None
    settle_seeds: int | None = None
    higher_is_better: bool = True
    repartitioned: bool = False
    looks: tuple[int, ...] = ()

    @property
    def about(self) -> str:
        """What a verdict with one seed on a side is about; empty where it is about the methods."""
        single = [name for name, seeds in zip((self.a, self.b), self.seeds, strict=True) if seeds == 1]
        return f"about the one trained model of {' and of '.join(single)}" if single else ""

    @property
    def scope(self) -> str:
        """Over which training sets the verdict holds."""
        if self.repartitioned:
            return f"over re-dealt training sets of these {counted(self.groups, self.unit)}"
        return "given these training sets"

    @property
    def given(self) -> str:
        """The scope, with the test over folds beside it, which asks how far the training sets matter."""
        return self.scope + (f" (over folds: unadjusted p {spell_p(self.p_folds)})" if self.p_folds is not None else "")

    @property
    def mirrored(self) -> Verdict:
        """b against a."""

        def turned(value: float | None) -> float | None:
            return None if value is None else -value

        words: dict[Decision, Decision] = {"better": "worse", "worse": "better"}
        return replace(
            self, a=self.b, b=self.a, difference=turned(self.difference), low=turned(self.high), high=turned(self.low),
            adjusted_low=turned(self.adjusted_high), adjusted_high=turned(self.adjusted_low),
            seeds=self.seeds[::-1], decision=words.get(self.decision, self.decision),
        )  # fmt: skip


def describe(verdict: Verdict, scale: float = 1.0) -> str:
    """One sentence, without a full stop; `scale` multiplies what is printed (100 for percent).

    The interval and p in it are the adjusted ones, which are what the decision rests on.
    """
    v = verdict
    over = f"over {counted(v.groups, v.unit)}"
    if v.decision == "untested" or v.difference is None or v.adjusted_low is None or v.adjusted_high is None:
        return f"{v.a} and {v.b} are not tested: {v.reason}"
    low, high, middle = v.adjusted_low, v.adjusted_high, v.difference
    tail = "; ".join(part for part in (v.about, v.given) if part)
    within = f" within {v.size} {v.family}".rstrip() if v.size > 1 else ""
    look = ""
    if v.looks:
        look = f", look {1 + v.looks.index(v.seeds[0])} of {len(v.looks)} ({counted(v.seeds[0], 'seed')})"
    tested = f"p = {v.p:.2g} tested at {v.level:.2g}{within}{look}" if look else f"p {spell_p(v.adjusted)}{within}"
    if v.decision in ("better", "worse"):
        if middle < 0:
            low, high, middle = -high, -low, -middle
        numbers = spell_interval(middle * scale, low * scale, high * scale)
        also = f", yet equivalent within {_short(v.margin, scale)}" if v.equivalent else ""
        return f"{v.a} is {v.decision} than {v.b} by {numbers} {over}, {tested}{also}; {tail}"
    numbers = spell_interval(middle * scale, low * scale, high * scale, signed=True)
    if v.decision == "equivalent":
        equal = f"{v.a} and {v.b} are equivalent within {_short(v.margin, scale)}"
        return f"{equal}: {numbers} {over}{within}{look}; {tail}"
    return f"{v.a} against {v.b} is undecided: {numbers} {over}, {tested}; {settles(v, scale)}; {tail}"


def settles(verdict: Verdict, scale: float = 1.0) -> str:
    """What an undecided comparison can show as it stands, and what would settle it."""
    v = verdict
    parts = []
    if v.detectable is not None:
        parts.append(f"a true difference of {_short(v.detectable, scale)} would be found")
    target = v.margin if v.margin is not None else None if v.difference is None else abs(v.difference)
    if target and v.detectable is not None and target < v.detectable:
        what = f"one of {_short(target, scale)}"
        ways = []
        if v.settle_groups is not None:
            ways.append(counted(v.settle_groups, v.unit))
        if v.settle_seeds is not None:
            ways.append(counted(v.settle_seeds, "seed"))
        takes = " or ".join(ways)
        if not ways:
            parts.append(f"{what} takes more {plural(v.unit)} and more seeds, neither alone would do")
        elif v.settle_seeds is None:
            parts.append(f"{what} takes {takes}, no number of seeds would do")
        else:
            parts.append(f"{what} takes {takes}")
    if v.margin is not None and v.attainable is False:
        parts.append(f"equivalence within {_short(v.margin, scale)} is unattainable with these {plural(v.unit)}")
    return ", ".join(parts) if parts else "there is no difference to be found"


@dataclass(frozen=True)
class AboveChance:
    """Which rows beat chance: names by what their verdict against the chance row says.

    Attributes:
        above, below: significantly better, worse than chance within the family.
        open: neither; untested: no test, so nothing is said of them.
    """

    above: tuple[str, ...]
    below: tuple[str, ...]
    open: tuple[str, ...]
    untested: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """One sentence, without a full stop."""
        tested = len(self.above) + len(self.below) + len(self.open)
        if not tested:
            return "no row was tested against chance"
        if not self.above:
            return f"nothing beats chance here: none of {counted(tested, 'row')} is significantly better"
        return f"{len(self.above)} of {counted(tested, 'row')} beat chance"


def above_chance(verdicts: Mapping[str, Verdict]) -> AboveChance:
    """Does anything beat chance here? From the family whose reference is the chance row."""

    def names(*decisions: Decision) -> tuple[str, ...]:
        return tuple(name for name, v in verdicts.items() if v.decision in decisions)

    return AboveChance(names("better"), names("worse"), names("equivalent", "undecided"), names("untested"))


def counted(number: int, unit: str) -> str:
    """`10 people`, `1 person`."""
    return f"{number:,} {unit if number == 1 else plural(unit)}"


def plural(unit: str) -> str:
    """`person` -> `people`."""
    return PLURALS.get(unit, f"{unit}s")


def spell_p(p: float | None) -> str:
    """`= .005`, `< .0001`; nothing is rounded across .05."""
    if p is None:
        return "undefined"
    if p < 1e-4:
        return "< .0001"
    digits = 2 if p >= 0.1 else 3 if p >= 0.001 else 4
    while digits < 6 and (round(p, digits) >= 0.05) != (p >= 0.05):
        digits += 1
    text = f"{p:.{digits}f}"
    return f"= {text[1:]}" if text.startswith("0") else f"= {text}"


def spell_interval(middle: float, low: float, high: float, signed: bool = False) -> str:
    """`4.7 [1.8, 7.6]`: as many decimals as leave two significant digits of the half-width."""
    half = (high - low) / 2
    places = min(6, max(0, 1 - math.floor(math.log10(half)))) if 0 < half < math.inf else 1

    def spelled(value: float, sign: str) -> str:
        return f"{round(value, places) + 0.0:{sign}.{places}f}"

    return f"{spelled(middle, '+' if signed else '')} [{spelled(low, '')}, {spelled(high, '')}]"


def _short(value: float | None, scale: float) -> str:
    """Two significant digits, never an exponent above 1e-4."""
    number = (value or 0.0) * scale
    return f"{number:.0f}" if abs(number) >= 10 else f"{number:.2g}"

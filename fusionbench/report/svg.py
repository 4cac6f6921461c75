"""Drawing for the page: scales, ticks, labels that never overlap, and an SVG that says in words what it shows.

Figures are lean SVG with classes; colours, light or dark, come from the style sheet. A panel is as wide as a phone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

#: Units of a panel's width; 1 unit is about 1 px on a phone, so text stays readable.
WIDTH = 350
FONT = 11
#: The width of a sign as a share of the font size, and of a wide one: what wide sans-serif fonts need.
SIGN, WIDE, WIDE_ONES = 0.64, 1.0, frozenset("mwMWGOQ@%=+<>~&")
Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Scale:
    """Values to positions; `log` needs values above 0."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        share = 0.5 if high == low else (value - low) / (high - low)
        return self.start + share * (self.end - self.start)


def spanning(values: Sequence[float], start: float, end: float, log: bool = False, margin: float = 0.06) -> Scale:
    """A scale over the values, with some room at both ends."""
    low, high = min(values), max(values)
    if log:
        room = (high / low) ** margin if high > low else 2.0
        return Scale(low / room, high * room, start, end, True)
    room = margin * (high - low) or abs(high) * margin or 1.0
    return Scale(low - room, high + room, start, end)


def ticks(scale: Scale, most: int = 5) -> list[float]:
    """Round values within the scale: 1, 2 or 5 times powers of ten; at least two on a logarithmic scale if it can."""
    if scale.log:
        first, last = math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high))
        for steps in ((1,), (1, 3), (1, 2, 5)):
            found = [
                s * 10.0**e for e in range(first, last + 1) for s in steps if scale.low <= s * 10.0**e <= scale.high
            ]
            if len(found) > 1:
                return found[:: math.ceil(len(found) / most)]
        return found
    raw = (scale.high - scale.low) / most
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(s * size for s in (1, 2, 5, 10) if s * size >= raw)
    first = math.ceil(scale.low / step)
    return [round(n * step, 10) for n in range(first, math.floor(scale.high / step) + 1)]


def at(value: float) -> str:
    """A coordinate, as short as it can be."""
    return f"{round(value, 1):g}"


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    where = (f' class="{kind}"' if kind else "") + ("" if anchor == "start" else f' text-anchor="{anchor}"')
    return f'<text x="{at(x)}" y="{at(y)}"{where}>{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str = "g") -> str:
    return f'<path class="{kind}" d="M{at(x1)} {at(y1)}L{at(x2)} {at(y2)}"/>'


def drawing(parts: Sequence[str], height: float, words: str, more: str = "") -> str:
    """The SVG of a panel; `words`: the finding in numbers, for those who do not see it."""
    label = escape(words, quote=True)
    return f'<svg viewBox="0 0 {WIDTH} {at(height)}" role="img" aria-label="{label}"{more}>{"".join(parts)}</svg>'


def width_of(words: str, size: float = FONT) -> float:
    return size * sum(WIDE if sign in WIDE_ONES else SIGN for sign in words)


def placed(
    points: Sequence[tuple[float, float]], labels: Sequence[str], bounds: Box
) -> list[tuple[float, float] | None]:
    """Where the labels of points stand so that none meets another label or a point; None where there is no room.

    A label touches its point: right of it, left, above or below, so that nobody wonders whose it is. Earlier labels
    have the first choice.

    Returns:
        The left end and the baseline of each label, in the order of the points.
    """
    half, high = 5.0, FONT * 1.15
    taken: list[Box] = [(x - half, y - half, x + half, y + half) for x, y in points]
    found: list[tuple[float, float] | None] = []
    for number, ((x, y), label) in enumerate(zip(points, labels, strict=True)):
        size, beside = width_of(label), half + high / 2
        places = [(x + half + 1, y), (x - half - 1 - size, y)]
        places += [(left, y + away) for away in (-beside, beside) for left in (x - size / 2, x - half, x + half - size)]
        for left, middle in places:
            box = (left, middle - high / 2, left + size, middle + high / 2)
            inside = box[0] >= bounds[0] and box[1] >= bounds[1] and box[2] <= bounds[2] and box[3] <= bounds[3]
            if inside and not any(_meet(box, other) for n, other in enumerate(taken) if n != number):
                taken.append(box)
                found.append((left, middle + FONT * 0.35))
                break
        else:
            found.append(None)
    return found


def _meet(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]

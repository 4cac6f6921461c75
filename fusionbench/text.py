"""How numbers, counts and durations are spelled, and how text is fitted to a terminal. Everything printed uses it."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence

#: One of a thing -> several of it, where an s does not do.
PLURALS = {"person": "people"}
BOLD, FAINT, RED, GREEN = "1", "2", "31", "32"
#: What is read by a program or a file is as wide as this.
PIPE = 120


def score(value: float, percent: bool) -> str:
    """`79.4` of .794 in percent, else `0.794`."""
    return f"{100 * value:.1f}" if percent else f"{value:.3f}"


def gap(value: float, percent: bool, signed: bool = False) -> str:
    """A difference of two scores."""
    scale, digits = (100.0, 1) if percent else (1.0, 3)
    return f"{round(scale * value, digits) + 0.0:{'+' if signed else ''}.{digits}f}"


def short(value: float, percent: bool) -> str:
    """A difference in a sentence: `2.9 points`, or `0.031`, two significant digits."""
    return f"{100 * value:.2g} points" if percent else f"{value:.2g}"


def count(value: float) -> str:
    """1234567 -> 1.23M."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def cost(value: float) -> str:
    """Milliseconds and the like: three digits, large ones as counts."""
    return count(value) if value >= 1000 else f"{value:.3g}"


def memory(value: float) -> str:
    """Bytes as `5.2 MB`."""
    return f"{value / 2**20:.3g} MB"


def duration(seconds: float) -> str:
    """`90 s`, `2.5 min`."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def p_value(p: float) -> str:
    """`.043`, `<.0001`; nothing is rounded across .05."""
    if p < 1e-4:
        return "<.0001"
    digits = 2 if p >= 0.1 else 3 if p >= 0.001 else 4
    while digits < 6 and (round(p, digits) >= 0.05) != (p >= 0.05):
        digits += 1
    return f"{p:.{digits}f}".removeprefix("0")


def plural(unit: str) -> str:
    """`person` -> `people`."""
    return PLURALS.get(unit, f"{unit}s")


def counted(number: int, unit: str) -> str:
    """`10 people`, `1 person`, `2,688 samples`."""
    return f"{number:,} {unit if number == 1 else plural(unit)}"


def span(numbers: Sequence[int]) -> str:
    """`3`, or `3-5` where they differ."""
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low}-{high}"


def listed(words: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    known = list(words)
    return " and ".join([", ".join(known[:-1]), known[-1]] if len(known) > 1 else known)


def wrap(text: str, width: int | None, indent: str = "") -> str:
    """The text in lines of at most so many signs; later lines are indented. None: one line."""
    if width is None:
        return text
    return textwrap.fill(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def refilled(text: str, width: int) -> str:
    """Paragraphs in lines of at most so many signs; what is indented, and so laid out by hand, stays as it is."""
    parts = text.split("\n\n")
    return "\n\n".join(part if "\n " in f"\n{part}" else wrap(" ".join(part.split()), width) for part in parts)


def elided(text: str, width: int) -> str:
    """At most so many signs, the end replaced by an ellipsis; a closing bracket stays."""
    if len(text) <= width:
        return text
    end = "…)" if text.endswith(")") else "…"
    return text[: max(0, width - len(end))] + end


def styled(text: str, *codes: str) -> str:
    """The text between codes of a terminal, if any."""
    return f"\x1b[{';'.join(codes)}m{text}\x1b[0m" if codes and text else text


def terminal_width() -> int:
    """Signs a line: COLUMNS, else the terminal's, else `PIPE`."""
    return shutil.get_terminal_size((PIPE, 24)).columns


def is_styled() -> bool:
    """May what is printed be bold and coloured? On a terminal only, and not where NO_COLOR is set."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

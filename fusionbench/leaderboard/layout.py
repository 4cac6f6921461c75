"""A table that fits a terminal: columns are spelled shorter, names are cut and columns left out until it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fusionbench import text
from fusionbench.leaderboard.boards import Board, Row
from fusionbench.leaderboard.columns import ALWAYS, Column, constant
from fusionbench.stats import Verdict

CHANCE_ROW = "chance (no input)"
#: Names are cut to so many signs at most, and when: see `Column.default`.
NAME, NAME_AT = 24, 45
SHORTEST, SHORTEST_AT = 16, 98
GAP = "  "
#: From a layout and the signs by which it is too wide to a narrower one.
Step = Callable[["Layout", int], "Layout"]


@dataclass(frozen=True)
class Layout:
    """How a table is drawn.

    Attributes:
        columns: those that are shown; short: names of those that are spelled shorter; name: signs of the longest name.
        left_out: names of the columns that did not fit.
    """

    columns: Sequence[Column]
    short: frozenset[str] = frozenset()
    name: int = 1000
    left_out: Sequence[str] = field(default_factory=list)


def cells(board: Board, row: Row, layout: Layout) -> list[str]:
    """The text of a row's cells."""
    found = []
    for column in layout.columns:
        cell = column.cell(board, column.value(board, row), column.name in layout.short)
        found.append(text.elided(cell, layout.name) if column.name == "fuser" else cell)
    return found


def constant_cells(board: Board, layout: Layout) -> list[str] | None:
    """the line of chance; None where its score is not known."""
    values = constant(board)
    if not values:
        return None
    return [
        text.elided(CHANCE_ROW, layout.name) if column.name == "fuser" else column.cell(board, values.get(column.name))
        for column in layout.columns
    ]


def lines(board: Board, rows: Sequence[Row], layout: Layout) -> list[list[str]]:
    """The cells of all rows; the line of chance stands below the ranked ones."""
    found = [cells(board, row, layout) for row in rows]
    if (line := constant_cells(board, layout)) is not None:
        found.insert(sum(row.ranked for row in rows), line)
    return found


def fitted(board: Board, rows: Sequence[Row], columns: Sequence[Column], width: int | None) -> Layout:
    """The layout that is at most so wide; what is least important gives way first. None: as wide as it is.

    Columns are spelled shorter at `Column.short_at` and left out at `Column.default`; names are cut in between.
    """
    layout = Layout(columns)
    steps: list[tuple[int, Step]] = [(NAME_AT, lambda now, over: _cut(rows, now, over, NAME))]
    steps += [(SHORTEST_AT, lambda now, over: _cut(rows, now, over, SHORTEST))]
    for c in columns:
        if c.short:
            steps.append((c.short_at, lambda now, over, c=c: replace(now, short=now.short | {c.name})))  # type: ignore[misc]
        if c.default is not None and c.default < ALWAYS:
            steps.append((c.default, lambda now, over, c=c: _without(now, c)))  # type: ignore[misc]
    for _, step in sorted(steps, key=lambda item: item[0]):
        over = 0 if width is None else _width(board, rows, layout) - width
        if over <= 0:
            break
        layout = step(layout, over)
    return layout


def _without(layout: Layout, column: Column) -> Layout:
    shown = [c for c in layout.columns if c.name != column.name]
    return replace(layout, columns=shown, left_out=[*layout.left_out, column.name])


def _cut(rows: Sequence[Row], layout: Layout, over: int, least: int) -> Layout:
    """Names as short as needed, not below `least`, and only to what still tells them apart."""
    names = {row.name for row in rows} | {CHANCE_ROW}
    longest = min(layout.name, max(map(len, names)))
    for size in range(max(least, longest - over), longest):
        if len({text.elided(name, size) for name in names}) == len(names):
            return replace(layout, name=size)
    return layout


def _width(board: Board, rows: Sequence[Row], layout: Layout) -> int:
    return sum(_widths(layout, lines(board, rows, layout))) + len(GAP) * (len(layout.columns) - 1)


def _widths(layout: Layout, found: Sequence[Sequence[str]]) -> list[int]:
    return [max(len(column.name), *(len(line[n]) for line in found), 0) for n, column in enumerate(layout.columns)]


#: The colour of a verdict; what is not significant has none.
COLOURS: Mapping[str, tuple[str, ...]] = {"better": (text.GREEN,), "worse": (text.RED,)}


def drawn(
    board: Board, rows: Sequence[Row], layout: Layout, styled: bool = False, signs: Mapping[str, str] | None = None
) -> list[str]:
    """The lines of the table: heading, rule, rows.

    Args:
        styled: with bold, faint and colour.
        signs: name of a row -> what stands in front of it, all of one length.
    """
    found = lines(board, rows, layout)
    widths = _widths(layout, found)
    before = " " * max((len(sign) for sign in signs.values()), default=0) if signs else ""

    def line(texts: Sequence[str], sign: str, codes: Sequence[tuple[str, ...]]) -> str:
        parts = []
        for column, size, cell, code in zip(layout.columns, widths, texts, codes, strict=True):
            space = " " * (size - len(cell))
            shown = text.styled(cell, *(code if styled else ()))
            parts.append(shown + space if column.left else space + shown)
        return (sign + GAP.join(parts)).rstrip()

    heading = line([c.name for c in layout.columns], before, [(text.BOLD,)] * len(layout.columns))
    rule = before + GAP.join("-" * size for size in widths)
    result, place = [heading, rule], 0
    rowed = list(rows)
    if len(found) > len(rows):
        rowed.insert(sum(row.ranked for row in rows), None)  # type: ignore[arg-type]
    for place, row in enumerate(rowed):
        sign = (signs or {}).get(row.name if row else CHANCE_ROW, before)
        result.append(line(found[place], sign, [_code(board, row, column, signs) for column in layout.columns]))
    return result


def _code(board: Board, row: Row | None, column: Column, signs: Mapping[str, str] | None) -> tuple[str, ...]:
    if row is None or not row.ranked:
        return (text.FAINT,)
    value: Any = column.value(board, row) if column.name == "difference" else None
    if isinstance(value, Verdict):
        return COLOURS.get(value.decision, ())
    return (text.BOLD,) if column.name == "fuser" and (signs or {}).get(row.name, "").strip() else ()

"""The overview over many data sets as text: a table for the terminal, Markdown, LaTeX, HTML, CSV or JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from html import escape

from fusionbench import text
from fusionbench.errors import unknown
from fusionbench.leaderboard import across
from fusionbench.leaderboard.across import Overview
from fusionbench.leaderboard.rendering import FORMATS, csv_text, latex_text, markdown_text

#: How `tabulate` calls what it can draw, and how a text is escaped there.
DRAWN: dict[str, tuple[str, Callable[[str], str]]] = {
    "markdown": ("pipe", markdown_text), "latex": ("latex_raw", latex_text), "html": ("html", escape),
}  # fmt: skip
NOTHING = "There are no two benchmarks of one kind with the same complete rows yet: fusionbench compare -b NAME"


def render(found: Sequence[Overview], notes: Sequence[str], fmt: str = "table", width: int | None = None) -> str:
    """All overviews in one of the formats of a leaderboard, ending with a line feed.

    Raises:
        UsageError: there is no such format.
    """
    if fmt not in FORMATS:
        raise unknown("format of a leaderboard", fmt, FORMATS)
    if fmt == "csv":
        return csv_text([line for overview in found for line in across.raw(overview)])
    if fmt == "json":
        content = [
            {"role": o.role, "condition": o.condition, "control": o.control, "sets": o.sets, "rows": across.raw(o),
             "notes": o.notes}
            for o in found
        ]  # fmt: skip
        return json.dumps({"overviews": content, "notes": list(notes)}, indent=1, allow_nan=False) + "\n"
    if fmt == "table":
        return _table(found, notes, width)
    return _drawn(found, notes, fmt)


def _table(found: Sequence[Overview], notes: Sequence[str], width: int | None) -> str:
    parts = [] if found else [text.wrap(NOTHING, width), ""]
    said: set[str] = set()  # what the first table says the second need not
    for overview in found:
        heads, rows = across.cells(overview)
        rows = [[text.elided(cell, 24) for cell in row] for row in rows]
        hidden = []
        while width is not None and _width(heads, rows) > width and len(heads) > 2:
            hidden.append(heads.pop())
            rows = [row[:-1] for row in rows]
        sizes = [max(len(head), *(len(row[n]) for row in rows)) for n, head in enumerate(heads)]
        lines = [heads, ["-" * size for size in sizes], *rows]
        drawn = [
            "  ".join(cell.ljust(size) if n == 0 else cell.rjust(size) for n, (cell, size) in enumerate(pairs)).rstrip()
            for pairs in (list(zip(line, sizes, strict=True)) for line in lines)
        ]
        below = [note for note in overview.notes if note not in said]
        said.update(below)
        if hidden:
            below.insert(0, f"Not shown: {text.listed(hidden[::-1])}; see --format csv.")
        parts += [text.wrap(overview.title, width), "", *drawn, "", *(text.wrap(n, width, "  ") for n in below), ""]
    return "\n".join([*parts, *(text.wrap(note, width, "  ") for note in notes)]).rstrip("\n") + "\n"


def _width(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    return sum(max(len(head), *(len(row[n]) for row in rows)) + 2 for n, head in enumerate(heads)) - 2


def _drawn(found: Sequence[Overview], notes: Sequence[str], fmt: str) -> str:
    from tabulate import tabulate

    style, escaped = DRAWN[fmt]
    parts = []
    for overview in found:
        heads, rows = across.cells(overview)
        content = [[escaped(cell) for cell in row] for row in rows]
        sides = ["left", *["right"] * (len(heads) - 1)]
        drawn = tabulate(content, list(map(escaped, heads)), tablefmt=style, disable_numparse=True, colalign=sides)
        title = {"markdown": f"### {overview.title}", "html": f"<h2>{overview.title}</h2>"}.get(fmt, overview.title)
        parts += [title, "", str(drawn), "", *_listed(overview.notes, fmt), ""]
    return "\n".join([*parts, *_listed(notes, fmt)]).rstrip("\n") + "\n"


def _listed(notes: Sequence[str], fmt: str) -> list[str]:
    if fmt == "html":
        return ["<ul>", *(f"<li>{escape(note)}</li>" for note in notes), "</ul>"] if notes else []
    return [f"- {markdown_text(note)}" if fmt == "markdown" else f"{latex_text(note)}\n" for note in notes]

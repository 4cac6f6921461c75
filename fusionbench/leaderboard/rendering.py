"""A board as text: a table for the terminal, Markdown, LaTeX, CSV, HTML or JSON. The same board, the same bytes."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from html import escape
from typing import Any

from fusionbench import text
from fusionbench.conditions import Condition
from fusionbench.errors import unknown
from fusionbench.leaderboard import columns as cols
from fusionbench.leaderboard import curves, values
from fusionbench.leaderboard.boards import Board, Row
from fusionbench.leaderboard.columns import Column
from fusionbench.leaderboard.footnotes import GLOSSARY, footnotes
from fusionbench.leaderboard.layout import Layout, drawn, fitted, lines
from fusionbench.leaderboard.statistics import DAMAGED, SCORE

QUICK_TITLE = "Quick tries (few steps, one seed): never ranked, compared with nothing"
#: What says something of a quick try.
QUICK_COLUMNS = ("fuser", SCORE, DAMAGED, "seconds")


@dataclass(frozen=True)
class View:
    """What of a board is shown, and how.

    Attributes:
        sort: a column; by default what ranks, the damaged score.
        columns: names of columns or of their groups, or "all"; by default those that fit, or the machine formats' all.
        wide: every column that is not only for those who ask.
        width: of the terminal, in signs; None: as wide as it is.
        styled: with bold and colour.
    """

    sort: str | None = None
    columns: Sequence[str] | None = None
    wide: bool = False
    width: int | None = None
    styled: bool = False


def render(board: Board, fmt: str = "table", view: View | None = None, **how: Any) -> str:
    """The board in one of the formats `FORMATS`, ending with a line feed; `how` are fields of a `View`.

    Raises:
        UsageError: there is no such format or column.
    """
    if fmt not in FORMATS:
        raise unknown("format of a leaderboard", fmt, FORMATS)
    view = replace(view or View(), **how)
    if view.sort in (SCORE, DAMAGED):
        board = replace(board, measure=view.sort)
    named = view.columns or (["all"] if fmt in ("csv", "json") else None)
    shown = cols.chosen(board, named, view.wide)
    return FORMATS[fmt](board, cols.ordered(board, view.sort), shown, view).rstrip("\n") + "\n"


def render_all(boards: Sequence[Board], fmt: str = "table", view: View | None = None, **how: Any) -> str:
    """Several boards as one text: one JSON list, one CSV under one header, the others one below the other.

    Raises:
        UsageError: as `render`.
    """
    if fmt == "json":
        contents = [json.loads(render(board, fmt, view, **how)) for board in boards]
        return json.dumps(contents, indent=1, ensure_ascii=False) + "\n"
    texts = [render(board, fmt, view, **how) for board in boards]
    if fmt != "csv":
        return "\n".join(texts)
    return csv_text([line for one in texts for line in csv.DictReader(io.StringIO(one))])


def apart(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """The rows of the table, and the quick tries that never stand among them."""
    return [row for row in rows if not row.records.quick], [row for row in rows if row.records.quick]


def _table(board: Board, rows: Sequence[Row], columns: Sequence[Column], view: View) -> str:
    bold = (text.BOLD,) if view.styled else ()
    own, quick = apart(rows)
    layout = fitted(board, own, columns, None if view.columns or view.wide else view.width)
    metric = f"{board.metric.replace('_', ' ')}{' in %' if board.percent else ''}"
    about = text.wrap(f"{board.title}: {metric}, best first by the {board.measure} column", view.width)
    title = text.styled(board.title, *bold) + about.removeprefix(board.title)
    parts = [title, "", *drawn(board, own, layout, view.styled), ""]
    if quick:
        few = Layout([c for c in cols.known(board).values() if c.name in QUICK_COLUMNS])
        few = fitted(board, quick, few.columns, view.width)
        quick_board = replace(board, chance=None)
        parts += [text.wrap(QUICK_TITLE, view.width), "", *drawn(quick_board, quick, few, view.styled), ""]
    if board.curve is not None:
        parts += [
            curves.table(board, view.width),
            *(text.wrap(line, view.width, "  ") for line in curves.answers(board)),
            "",
        ]
    notes = footnotes(board) if view.columns or view.wide else [*_hidden(board, layout), *footnotes(board)]
    terms = f"Terms: {GLOSSARY}; columns: fusionbench leaderboard --explain"
    return "\n".join(parts + [text.wrap(note, view.width, "  ") for note in [*notes, terms]])


def _hidden(board: Board, layout: Layout) -> list[str]:
    """Which columns did not fit, and how the rest is seen."""
    others = len(cols.chosen(board, wide=True)) - len(layout.columns) - len(layout.left_out)
    hidden = text.listed([*layout.left_out, f"{others} more columns"])
    return [f"Not shown: {hidden}; see fusionbench leaderboard -b {board.benchmark} --wide, or --columns NAME,NAME"]


def _markdown(board: Board, rows: Sequence[Row], columns: Sequence[Column], view: View) -> str:
    notes = [f"- {markdown_text(note)}" for note in footnotes(board)]
    parts = [f"### {markdown_text(board.title)}", "", markdown_table(board, apart(rows)[0], columns), ""]
    if quick := apart(rows)[1]:
        few = [c for c in cols.known(board).values() if c.name in QUICK_COLUMNS]
        parts += [f"{QUICK_TITLE}:", "", markdown_table(replace(board, chance=None), quick, few), ""]
    return "\n".join([*parts, *notes, f"- Terms: [glossary](../{GLOSSARY})"])


def markdown_text(words: str) -> str:
    """With what Markdown would read as its own signs escaped."""
    for sign in "\\|*_<>`~[]":
        words = words.replace(sign, f"\\{sign}")
    return words


def markdown_table(board: Board, rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """The table alone."""
    from tabulate import tabulate

    content = [[markdown_text(cell) for cell in line] for line in lines(board, rows, Layout(columns))]
    heads = [markdown_text(c.name) for c in columns]
    return str(tabulate(content, heads, tablefmt="pipe", disable_numparse=True, colalign=_sides(columns)))


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "†": r"\textsuperscript{\dag}", "‡": r"\textsuperscript{\ddag}",
    "§": r"\textsuperscript{\S}", "¶": r"\textsuperscript{\P}", "°": r"\textdegree{}", "[": "{[}", "]": "{]}",
}  # fmt: skip


def latex_text(words: str) -> str:
    """Escaped for LaTeX; brackets are wrapped, since one at the start of a line would be an option of the row's end."""
    return "".join(_LATEX.get(sign, sign) for sign in words)


def _latex(board: Board, rows: Sequence[Row], columns: Sequence[Column], view: View) -> str:
    rows = apart(rows)[0]
    sides = "".join("l" if c.left else "r" for c in columns)
    ranked = sum(row.ranked for row in rows)
    body = [" & ".join(map(latex_text, line)) + r" \\" for line in lines(board, rows, Layout(columns))]
    if ranked and len(body) > ranked:
        body.insert(ranked, r"\midrule")
    return "\n".join([
        "% needs \\usepackage{booktabs,graphicx}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex_text(board.title)}: {latex_text(board.metric)}.}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{sides}}}",
        r"\toprule",
        " & ".join(latex_text(c.name) for c in columns) + r" \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}}",
        "",
        r"\smallskip",
        r"\raggedright\footnotesize",
        *map(latex_text, [*footnotes(board), f"Terms: {GLOSSARY}."]),
        r"\end{table}",
    ])  # fmt: skip


def _html(board: Board, rows: Sequence[Row], columns: Sequence[Column], view: View) -> str:
    from tabulate import tabulate

    def table(some: Sequence[Row], shown: Sequence[Column], chance: float | None) -> str:
        content, heads = lines(replace(board, chance=chance), some, Layout(shown)), [c.name for c in shown]
        return str(tabulate(content, heads, tablefmt="html", disable_numparse=True, colalign=_sides(shown)))

    own, quick = apart(rows)
    parts = [f"<h2>{escape(board.title)}</h2>", table(own, columns, board.chance)]
    if quick:
        few = [c for c in cols.known(board).values() if c.name in QUICK_COLUMNS]
        parts += [f"<p>{escape(QUICK_TITLE)}</p>", table(quick, few, None)]
    items = "".join(f"\n<li>{escape(note)}</li>" for note in footnotes(board))
    return "\n".join([*parts, f'<ul>{items}\n<li><a href="{GLOSSARY}">Glossary</a></li>\n</ul>'])


def _sides(columns: Sequence[Column]) -> list[str]:
    return ["left" if c.left else "right" for c in columns]


def _csv(board: Board, rows: Sequence[Row], columns: Sequence[Column], view: View) -> str:
    """Numbers as they are, undefined ones empty, bounds in columns of their own; no footnotes."""
    return csv_text([{name: flat(value) for name, value in raw(board, row, columns).items()} for row in rows])


def csv_text(content: Sequence[Mapping[str, Any]]) -> str:
    """Lines of values under one header."""
    out = io.StringIO()
    names = list(dict.fromkeys(name for line in content for name in line))
    writer = csv.DictWriter(out, names, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(content)
    return out.getvalue()


def raw(board: Board, row: Row, columns: Sequence[Column]) -> dict[str, Any]:
    """The values of a row: those with bounds as `name`, `name-low` and `name-high`, a verdict with its decision."""
    line: dict[str, Any] = {
        "benchmark": board.title, "protocol": board.protocol, "data": board.data, "metric": board.metric,
        "ranked": row.ranked, "status": row.lacks, "marks": [mark.name for mark in row.marks],
    }  # fmt: skip
    for column in columns:
        value = row.label if column.name == "fuser" else column.value(board, row)
        line[column.name] = values.number(value) if isinstance(value, values.Measured) or is_dataclass(value) else value
        if column.spell in (values.as_measured, values.as_place):
            low = getattr(value, "low", None)
            line |= {f"{column.name}-low": low, f"{column.name}-high": getattr(value, "high", None)}
        if column.spell is values.as_difference:
            line |= {f"{column.name}-{part}": getattr(value, part, None) for part in ("low", "high", "decision")}
    return line


def flat(value: Any) -> Any:
    """For CSV."""
    if isinstance(value, Mapping):
        known = sorted(((str(k), v) for k, v in value.items() if v is not None), key=lambda item: item[0])
        return " ".join(f"{k}:{v:g}" if isinstance(v, float) else f"{k}:{','.join(map(str, v))}" for k, v in known)
    if isinstance(value, tuple | list):
        return " ".join(str(flat(part)) for part in value)
    return "" if value is None else value


def _json(board: Board, rows: Sequence[Row], columns: Sequence[Column], view: View) -> str:
    content = {
        "benchmark": board.benchmark, "title": board.title, "protocol": board.protocol, "data": board.data,
        "code": board.code, "metric": board.metric, "higher_is_better": board.higher_is_better,
        "chance": board.chance, "noise": board.noise, "reference": board.reference, "groups": board.groups,
        "unit": board.unit, "damage": board.damage, "ranks_by": board.measure,
        "rows": [
            {**raw(board, row, columns), "changes": list(map(str, row.records.first.changed)), "runs": row.runs,
             "conditions": row.conditions, "verdicts": row.verdicts, "places": row.places}
            for row in rows
        ],
        "learning_curve": curves.data(board),
        "columns": {column.name: column.explain for column in columns},
        "notes": footnotes(board),
        "glossary": GLOSSARY,
    }  # fmt: skip
    return json.dumps(_jsonable(content), indent=1, ensure_ascii=False, allow_nan=False)


def _jsonable(value: Any) -> Any:
    """Values as JSON has them; what never happens (infinity) is the word `never`."""
    if isinstance(value, Condition):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(k): _jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(v) for v in value]
    return "never" if isinstance(value, float) and not math.isfinite(value) else value


FORMATS: dict[str, Callable[[Board, Sequence[Row], Sequence[Column], View], str]] = {
    "table": _table, "markdown": _markdown, "latex": _latex, "csv": _csv, "html": _html, "json": _json,
}  # fmt: skip

"""A board as text: a table for the terminal, Markdown, LaTeX, CSV, HTML or JSON. The same board, the same bytes."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from fusionbench.errors import unknown
from fusionbench.leaderboard import columns as cols
from fusionbench.leaderboard.boards import DAGGERS, Board, Row
from fusionbench.leaderboard.columns import Column
from fusionbench.leaderboard.findings import DAMAGED, SCORE

CHANCE_ROW = "chance (constant answer)"


def render(board: Board, fmt: str = "table", sort: str | None = None, columns: Sequence[str] | None = None) -> str:
    """The board in one of the formats `FORMATS`, ending with a line feed.

    `sort` is a column (default: what ranks, the damaged score); `columns` are names of `columns.known(board)`.

    Raises:
        UsageError: there is no such format or column.
    """
    if fmt not in FORMATS:
        raise unknown("format of a leaderboard", fmt, FORMATS)
    machine = fmt in ("csv", "json")
    shown = cols.chosen(board, columns or (["all"] if machine else None), sort)
    return FORMATS[fmt](board, cols.ordered(board, sort), shown, footnotes(board, sort)).rstrip("\n") + "\n"


def render_all(
    boards: Sequence[Board], fmt: str = "table", sort: str | None = None, columns: Sequence[str] | None = None
) -> str:
    """Several boards as one text: one JSON list, one CSV under one header, the others one below the other.

    Raises:
        UsageError: as `render`.
    """
    if fmt == "json":
        return (
            json.dumps(
                [json.loads(render(board, fmt, sort, columns)) for board in boards], indent=1, ensure_ascii=False
            )
            + "\n"
        )
    texts = [render(board, fmt, sort, columns) for board in boards]
    if fmt != "csv":
        return "\n".join(texts)
    lines = [line for text in texts for line in csv.DictReader(io.StringIO(text))]
    return _csv_text(lines)


def _cells(board: Board, rows: Sequence[Row], columns: Sequence[Column]) -> list[list[str]]:
    """The text of every cell; the line of a constant answer stands below the ranked rows."""
    lines = [[cols.cell(c, c.get(row)) for c in columns] for row in rows]
    constant = cols.chance_values(board)
    if constant:
        line = [CHANCE_ROW if c.name == "fuser" else cols.cell(c, constant.get(c.name)) for c in columns]
        lines.insert(sum(row.ranked for row in rows), line)
    return lines


def footnotes(board: Board, sort: str | None = None) -> list[str]:
    """What a reader must know to trust the table, in whole sentences."""
    rows = board.rows
    ranked = [row for row in rows if row.ranked]
    seeds = sorted({row.values["seeds"] for row in ranked})
    folds = sorted({row.values["folds"] for row in ranked})
    spread = lambda numbers: "-".join(str(n) for n in dict.fromkeys((numbers[0], numbers[-1])))  # noqa: E731
    notes = [f"Protocol {board.protocol}, data {board.data}, code of the benchmark {board.code}."]
    if ranked:
        pooled = ", pooled over the folds of a seed" if board.pooled else ""
        several = f"{spread(folds)} folds, " if board.pooled else ""
        people = f", {board.people} people" if board.people else ""
        notes.append(f"{spread(seeds)} seeds, {several}{board.metric}{pooled} and averaged over seeds{people}.")
    if any(row.tested for row in rows):
        notes.append("Brackets: 95 % bootstrap interval over people and seeds, the metric recomputed each time.")
    untested = [row.label for row in ranked if not row.tested]
    if untested:
        names = ", ".join(untested)
        notes.append(f"No usable stored answers of {names}: scores are means over runs, with no interval or rank.")
    if board.damage:
        spelled = ", ".join(dict.fromkeys(c.rpartition(":")[0] if c.count(":") > 1 else c for c in board.damage))
        notes.append(f"Damaged: mean over {spelled}, each averaged over its severities.")
    if rare := cols.rare(board):
        notes.append(f"Fewer than half of the rows were judged under {', '.join(rare)}: a column only if asked for.")
    short = [row.label for row in ranked if board.damage and row.values.get(DAMAGED) is None]
    if short:
        notes.append(f"Not judged under all of this damage, and so without a damaged score: {', '.join(short)}.")
    measure = sort if sort in (SCORE, DAMAGED) else board.measure
    compared = [row for row in ranked if measure in row.ranks]
    if len(compared) > 1:
        word, others = "damaged" if measure == DAMAGED else "clean", len(compared) - 1
        notes.append(
            f"Rank by the {word} score: 1 + how many rows beat this one by the sign-flip test over people at .05, "
            f"Holm-corrected over its {others} comparison{'s' * (others > 1)}. A noisy row is beaten by fewer, "
            f"and may stand before a steadier one that scores more."
        )
    if board.reference:
        floor = f"; its SD over seeds is {_plain_score(board, board.noise)}" if board.noise is not None else ""
        reach = board.detectable
        seen = f"; typically a difference of {_plain_score(board, reach)} from it can be shown" if reach else ""
        notes.append(f"Reference, named beforehand: {board.reference}{floor}{seen}.")
    tuned = [row for row in ranked if row.entry.first.run.tuned]
    if tuned:
        budgets = sorted({cols.tuning(row) for row in tuned})
        equal = "the same budget" if len(budgets) == 1 else "different budgets"
        notes.append(
            f"Tuned: settings searched on the validation data of each outer fold, {equal} ({', '.join(budgets)}). "
            f"Where a tuned row meets one with default settings, the difference is also the tuning's."
        )
    if any(row.values.get("retained") is None and row.values.get(DAMAGED) is not None for row in ranked):
        notes.append("Retained, drop and rCE are left out where the clean score is within the seeds' noise of chance.")
    if any(row.values.get("seconds") is not None for row in rows) and board.device:
        notes.append(f"Seconds and ms on {board.device}, medians; timings of other machines are left out.")
    if any(row.values.get("flops") is not None for row in rows):
        notes.append(
            "FLOPs and ms: a forward pass of one sample, backbones included, operations as torch counts them; memory: "
            "the peak of a training step of one model (weights, optimiser, live tensors)."
        )
    present = {mark for row in rows for mark in row.entry.marks}
    notes += [f"{sign} {mark}: {text}." for mark, (sign, text) in DAGGERS.items() if mark in present]
    if any(not row.ranked for row in rows):
        notes.append("Rows that are incomplete, of older code or quick tries stand last and are not ranked.")
    return notes + board.notes


def _plain_score(board: Board, value: float) -> str:
    return f"{100 * value:.2g} points" if board.percent else f"{value:.2g}"


def _table(board: Board, rows: Sequence[Row], columns: Sequence[Column], notes: Sequence[str]) -> str:
    from tabulate import tabulate

    titles = [c.title.replace(":", ":\n") for c in columns]
    lines = _cells(board, rows, columns)
    body = tabulate(lines, titles, tablefmt="simple", disable_numparse=True, colalign=_sides(columns))
    return "\n".join([board.title, "", body, "", *notes])


def _markdown(board: Board, rows: Sequence[Row], columns: Sequence[Column], notes: Sequence[str]) -> str:
    from tabulate import tabulate

    def safe(text: str) -> str:
        for sign in "\\|*_<>`~[]":
            text = text.replace(sign, f"\\{sign}")
        return text

    lines = [[safe(text) for text in line] for line in _cells(board, rows, columns)]
    body = tabulate(
        lines, [safe(c.title) for c in columns], tablefmt="pipe", disable_numparse=True, colalign=_sides(columns)
    )
    return "\n".join([f"### {safe(board.title)}", "", body, "", *(f"- {safe(note)}" for note in notes)])


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "†": r"\textsuperscript{\dag}", "‡": r"\textsuperscript{\ddag}",
    "§": r"\textsuperscript{\S}", "[": "{[}", "]": "{]}",
}  # fmt: skip


def latex_text(text: str) -> str:
    """Escaped for LaTeX; brackets are wrapped, since one at the start of a line would be an option of the row's end."""
    return "".join(_LATEX.get(sign, sign) for sign in text)


def _latex(board: Board, rows: Sequence[Row], columns: Sequence[Column], notes: Sequence[str]) -> str:
    sides = "".join("l" if side == "left" else "r" for side in _sides(columns))
    ranked = sum(row.ranked for row in rows)
    lines = [" & ".join(map(latex_text, line)) + r" \\" for line in _cells(board, rows, columns)]
    if ranked and len(lines) > ranked:
        lines.insert(ranked, r"\midrule")
    return "\n".join([
        "% needs \\usepackage{booktabs,graphicx}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex_text(board.title)}: {latex_text(board.metric)}.}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{sides}}}",
        r"\toprule",
        " & ".join(latex_text(c.title) for c in columns) + r" \\",
        r"\midrule",
        *lines,
        r"\bottomrule",
        r"\end{tabular}}",
        "",
        r"\smallskip",
        r"\raggedright\footnotesize",
        *map(latex_text, notes),
        r"\end{table}",
    ])  # fmt: skip


def _html(board: Board, rows: Sequence[Row], columns: Sequence[Column], notes: Sequence[str]) -> str:
    sides = _sides(columns)

    def line(tag: str, texts: Sequence[str]) -> str:
        cells = (
            f'<{tag} style="text-align:{side}">{escape(text)}</{tag}>' for side, text in zip(sides, texts, strict=True)
        )
        return f"<tr>{''.join(cells)}</tr>"

    return "\n".join([
        "<table>",
        f"<caption>{escape(board.title)}</caption>",
        f"<thead>{line('th', [c.title for c in columns])}</thead>",
        "<tbody>",
        *(line("td", texts) for texts in _cells(board, rows, columns)),
        "</tbody>",
        "</table>",
        "<ul>",
        *(f"<li>{escape(note)}</li>" for note in notes),
        "</ul>",
    ])  # fmt: skip


def _csv(board: Board, rows: Sequence[Row], columns: Sequence[Column], notes: Sequence[str]) -> str:
    """Numbers as they are, undefined ones empty, bounds in columns of their own; no footnotes."""
    return _csv_text([{n: _flat(v) for n, v in _raw(board, row, columns).items()} for row in rows])


def _csv_text(lines: Sequence[Mapping[str, Any]]) -> str:
    out = io.StringIO()
    names = list(dict.fromkeys(name for line in lines for name in line))
    writer = csv.DictWriter(out, names, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def _raw(board: Board, row: Row, columns: Sequence[Column]) -> dict[str, Any]:
    line: dict[str, Any] = {
        "benchmark": board.title, "protocol": board.protocol, "data": board.data, "metric": board.metric,
        "ranked": row.ranked, "status": row.lacks, "marks": " ".join(row.entry.marks),
    }  # fmt: skip
    for column in columns:
        value = column.get(row)
        if column.name == "fuser":
            line["fuser"] = row.label
        elif column.name in (SCORE, DAMAGED):
            bounds = ("low", "high") if column.name == SCORE else ("damaged_low", "damaged_high")
            line |= dict(zip((column.name, *bounds), value or (None, None, None), strict=True))
        else:
            line[column.name] = value
    return line


def _flat(value: Any) -> Any:
    if isinstance(value, Mapping):
        return " ".join(f"{k}:{v:g}" for k, v in sorted(value.items()) if v is not None)
    if isinstance(value, tuple | list):
        return " ".join(map(str, value))
    return "" if value is None else value


def _json(board: Board, rows: Sequence[Row], columns: Sequence[Column], notes: Sequence[str]) -> str:
    from dataclasses import asdict

    content = {
        "benchmark": board.benchmark, "title": board.title, "protocol": board.protocol, "data": board.data,
        "code": board.code, "metric": board.metric, "higher_is_better": board.higher_is_better,
        "chance": board.chance, "noise": board.noise, "reference": board.reference, "people": board.people,
        "damage": board.damage, "ranks_by": board.measure,
        "rows": [
            {**_raw(board, row, columns), "changes": row.entry.first.changes, "runs": row.runs,
             "conditions": row.conditions}
            for row in rows
        ],
        "against_reference": {
            measure: {label: asdict(c) for label, c in found.items()} for measure, found in board.comparisons.items()
        },
        "notes": list(notes),
    }  # fmt: skip
    return json.dumps(_finite(content), indent=1, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    """For JSON: what never happens (infinity) is the word `never`."""
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return "never" if isinstance(value, float) and not math.isfinite(value) else value


def _sides(columns: Sequence[Column]) -> list[str]:
    left = {"fuser", "worst", "break_even", "lr"}
    return ["left" if c.name in left else "right" for c in columns]


FORMATS: dict[str, Callable[[Board, Sequence[Row], Sequence[Column], Sequence[str]], str]] = {
    "table": _table, "markdown": _markdown, "latex": _latex, "csv": _csv, "html": _html, "json": _json,
}  # fmt: skip

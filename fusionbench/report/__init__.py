"""Boards to one HTML page that opens from disk, with everything inside, and to figures for papers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fusionbench import text
from fusionbench.conditions import Condition, families
from fusionbench.errors import UsageError
from fusionbench.leaderboard import Board, Row, chance, findings, footnotes, helps, overviews, sentence
from fusionbench.leaderboard import columns as cols
from fusionbench.leaderboard.across import cells as overview_cells
from fusionbench.leaderboard.commands import command
from fusionbench.leaderboard.footnotes import GLOSSARY
from fusionbench.leaderboard.layout import CHANCE_ROW
from fusionbench.leaderboard.sentences import WHERE
from fusionbench.leaderboard.statistics import DAMAGED, SCORE
from fusionbench.leaderboard.values import as_measured, as_place, as_rates, measured, number, of_kind, realised
from fusionbench.progress import Advance
from fusionbench.records import store
from fusionbench.report import advice
from fusionbench.report.drawing import Picture
from fusionbench.report.figures import draw

__all__ = ["write"]

#: What the page of a fuser shows of it, where it is known.
SHOWN = (
    "score", "damaged", "difference", "interval", "p", "retained", "rce", "worst", "break-even", "hurt", "parameters",
    "flops", "latency", "memory", "seconds",
)  # fmt: skip
#: (benchmark, fuser) -> outer fold -> Optuna study of its search.
Searches = Callable[[str, str], Mapping[int, Any]]


def write(
    boards: Sequence[Board],
    out: Path,
    figures: Path | None = None,
    *,
    searches: Searches = lambda benchmark, fuser: {},
    advance: Advance = lambda done, total: None,
) -> list[Path]:
    """Writes the page, and with `figures` every figure as PNG, SVG and PDF into that folder; the paths written.

    Args:
        searches: the searches behind tuned rows; without them the page has no figure of tuning.
        advance: called with how far the drawing is.

    Raises:
        UsageError: a file cannot be written.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    names = _anchors(boards)
    drawn: list[list[Picture]] = []
    for board, name in zip(boards, names, strict=True):
        tuned = {row.fuser for row in board.ranked if row.records.first.run.budget}
        drawn.append(draw(board, name, {fuser: searches(board.benchmark, fuser) for fuser in sorted(tuned)}))
        advance(len(drawn), len(names))
    environment = Environment(
        loader=PackageLoader("fusionbench", "report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    page = environment.get_template("page.html.jinja").render(
        boards=[_board(*parts) for parts in zip(boards, names, drawn, strict=True)], groups=cols.GROUPS, terms=GLOSSARY,
        across=_across(boards),
    )  # fmt: skip
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        store.write(out, lambda f: f.write(page.encode()))
        paths = [out]
        if figures is not None:
            for pictures in drawn:
                for picture in pictures:
                    paths += picture.save(figures)
    except OSError as error:
        raise UsageError(f"cannot write {error.filename or out}: {error.strerror or error}") from None
    return paths


def _anchors(boards: Sequence[Board]) -> list[str]:
    """A name for each board that serves as an anchor and as a file name."""
    names: list[str] = []
    for board in boards:
        name = re.sub(r"[^\w-]+", "-", board.title).strip("-").lower()
        names.append(name if name not in names else f"{name}-{len(names) + 1}")
    return names


def _board(board: Board, name: str, pictures: list[Picture]) -> dict[str, Any]:
    columns, rows, ranked = list(cols.known(board).values()), cols.ordered(board), board.ranked
    lines = [_line(board, row, columns) for row in rows]
    if values := cols.constant(board):
        lines.insert(len(ranked), _constant(board, values, columns))
    return {
        "name": name,
        "title": board.title,
        "metric": board.metric.replace("_", " "),
        "facts": {
            "metric": board.metric.replace("_", " "), "modalities": ", ".join(board.modalities),
            "ranked rows": len(ranked), text.plural(board.unit): board.groups or "-",
            "seeds": max((row.seeds for row in ranked), default="-"),
            "folds": max((row.folds for row in ranked), default="-"),
            "reference": board.reference or "none", "protocol": board.protocol, "data": board.data,
        },
        "columns": [
            {"title": c.name, "help": c.explain, "group": c.group, "up": bool(c.is_up(board))} for c in columns
        ],
        "rows": lines,
        "notes": footnotes(board),
        "helps": [*helps(board), *chance(board)],
        "corruptions": _corruptions(board),
        "verdicts": _verdicts(board),
        "pictures": [
            {"name": p.name, "title": p.title, "caption": p.caption, "svg": p.svg(), "runs": p.runs, "half": p.half}
            for p in pictures
        ],
        "advice": advice.sentences(board),
        "data": json.dumps(advice.data(board)).replace("<", "\\u003c"),
        "families": list(map(str, families(board.damage))),
        "levels": max((c.level for c in board.damage), default=1),
        "fusers": [_fuser(board, row) for row in rows if row.records.used],
    }  # fmt: skip


def _across(boards: Sequence[Board]) -> list[dict[str, Any]]:
    """The tables over many data sets; none unless two boards of a kind share their rows and their reference."""
    references = {board.reference for board in boards if board.reference}
    try:
        found, notes = overviews(boards, *references) if len(references) == 1 else ([], [])
    except UsageError:  # no usable answers of the reference
        return []
    tables = []
    for overview in found:
        heads, rows = overview_cells(overview)
        tables.append({"title": overview.title, "heads": heads, "rows": rows, "notes": overview.notes})
    if tables:
        tables[-1]["notes"] = [*tables[-1]["notes"], *notes]
    return tables


def _corruptions(board: Board) -> list[dict[str, Any]]:
    """Each corruption by itself, its rows in its own order; the mean over all of them last."""
    shown = []
    kinds = list(dict.fromkeys(family.name for family in families(board.damage)))
    for name in [*kinds, DAMAGED] if kinds else []:
        scores = {row.name: of_kind(name)(board, row) if name in kinds else measured(DAMAGED)(board, row)
                  for row in board.ranked}  # fmt: skip
        known = sorted((s for s in scores.items() if s[1]), key=lambda s: -board.sign * s[1].value)  # type: ignore[union-attr]
        places = {row.name: row.places.get(name) for row in board.ranked}
        lines = [
            {
                "name": label,
                "score": as_measured(board, score),
                "place": as_place(board, at) if (at := places[label]) else "-",
            }
            for label, score in known
            if score is not None
        ]
        shown.append({"name": name if name in kinds else "all together", "rows": lines, "about": _weights(board, name)})
    return shown


def _weights(board: Board, name: str) -> str:
    """What a corruption's score averages, with weights, and the realised rates where they are known."""
    named = families(board.damage)
    own = {f: levels for f, levels in named.items() if name in (f.name, DAMAGED)}
    said = f"Mean over the severities of {next(iter(own))}."
    if len(own) > 1:
        said = f"Mean over {', '.join(map(str, own))}, each of weight 1/{len(own)} and averaged over its severities."
    row = next((row for row in board.ranked if row.label == board.reference), None)
    rates = {f: realised(row, levels) for f, levels in own.items()} if row and name != DAMAGED else {}
    taken = [f"{family} {as_rates(board, found)}" for family, found in rates.items() if found]
    return said + (f" Realised rates by severity: {'; '.join(taken)}." if taken else "")


def _verdicts(board: Board) -> list[dict[str, Any]]:
    """The sentences by measure: significant differences, and the others."""
    shown = []
    for measure in (DAMAGED, SCORE):
        said = [finding for finding in findings(board) if finding.measure == measure]
        if said:
            significant = [sentence(board, f.verdict) for f in said if f.is_significant]
            others = [sentence(board, f.verdict) for f in said if not f.is_significant]
            shown.append({"title": WHERE[measure], "significant": significant, "others": others})
    return shown


def _sortable(value: Any) -> str:
    """A value as text that the page can order: numbers as they are, of several the first."""
    value = number(value)
    return str(value) if isinstance(value, int | float | str) else ""


def _line(board: Board, row: Row, columns: Sequence[cols.Column]) -> dict[str, Any]:
    values = [column.value(board, row) for column in columns]
    cells = [{"text": c.cell(board, v), "sort": _sortable(v)} for c, v in zip(columns, values, strict=True)]
    place = row.places.get(board.measure)
    kind = "ranked" if row.ranked else "unranked"
    return {"cells": cells, "kind": kind, "top": bool(place and place.tier == 1), "anchor": _anchor(row)}


def _constant(board: Board, values: Mapping[str, Any], columns: Sequence[cols.Column]) -> dict[str, Any]:
    cells = [{"text": c.cell(board, values.get(c.name)), "sort": _sortable(values.get(c.name))} for c in columns]
    cells[[c.name for c in columns].index("fuser")] = {"text": CHANCE_ROW, "sort": CHANCE_ROW}
    return {"cells": cells, "kind": "chance", "top": False, "anchor": ""}


def _anchor(row: Row) -> str:
    return f"row-{row.runs[0]}" if row.runs else ""


def _fuser(board: Board, row: Row) -> dict[str, Any]:
    first, used, own = row.records.first, row.records.used, cols.known(board)
    changed = {change.flag for r in used for change in r.changed}
    found: dict[str, list[str]] = {}  # a tuned row has settings of its own in every fold
    for r in used:
        for part, given in r.run.hparams.items():
            for name, value in given.items():
                found.setdefault(f"{part}.{name}", []).append(_spell(value))
    settings = [
        {"name": name, "value": " | ".join(dict.fromkeys(values)), "changed": name in changed}
        for name, values in found.items()
    ]
    scores = {"clean": row.clean, **{f"{c}{_mark(row, c)}": value for c, value in row.conditions.items()}}
    place = row.places.get(board.measure)
    return {
        "anchor": _anchor(row),
        "name": row.name,
        "place": "" if place is None else as_place(board, place),
        "command": command(row.records, board.damage),
        "facts": {n: own[n].cell(board, own[n].value(board, row)) for n in SHOWN if n in own},
        "settings": settings,
        "backbones": dict(first.run.backbones),
        "code": dict(first.code),
        "versions": dict(first.versions),
        "device": ", ".join(sorted({r.device for r in used})),
        "conditions": {c: text.score(v, board.percent) for c, v in scores.items() if v is not None},
        "runs": row.runs,
    }


def _mark(row: Row, condition: Condition) -> str:
    """What stands after a condition that costs this row nothing that a test shows, or that helps it."""
    effect = row.statistics.effects.get(condition) if row.statistics else None
    return {"better": " +", "equivalent": " =", "undecided": " ="}.get(effect.decision, "") if effect else ""


def _spell(value: Any) -> str:
    return ", ".join(map(_spell, value)) if isinstance(value, list | tuple) else str(value)

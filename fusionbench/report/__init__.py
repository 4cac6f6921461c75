"""Records to one HTML page that opens from disk, with everything inside, and to figures for papers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fusionbench.errors import UsageError
from fusionbench.leaderboard import Board, Row, build, footnotes, helps, verdicts
from fusionbench.leaderboard import columns as cols
from fusionbench.leaderboard.commands import command
from fusionbench.records import Record, store
from fusionbench.records.rows import REFERENCE
from fusionbench.report import advice
from fusionbench.report.figures import Picture, draw

__all__ = ["write"]

GROUPS = {
    "damage": {"retained", "drop", "worst", "rce", "rce_alone", "effective", "break_even"},
    "cost": {
        "trained",
        "allocated",
        "flops",
        "latency",
        "latency_batch",
        "memory",
        "seconds",
        "lr",
        "seeds",
        "folds",
        "failed",
    },
    "people": {"sd_seed", "sd_fold", "sd_person", "gain", "p", "p_folds", "decile", "hurt", "regret", "regret_damaged"},
}


def write(
    records: Iterable[Record], results: Path, out: Path, figures: Path | None = None, *, reference: str = REFERENCE
) -> list[Path]:
    """Writes the page, and with `figures` every figure as PNG, SVG and PDF into that folder; the paths written.

    Raises:
        UsageError: there are no records, or a file cannot be written.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    boards = build(records, results, reference=reference)
    names = _anchors(boards)
    drawn = [draw(board, name, results) for board, name in zip(boards, names, strict=True)]
    environment = Environment(
        loader=PackageLoader("fusionbench", "report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    page = environment.get_template("page.html.jinja").render(
        boards=[_board(*parts) for parts in zip(boards, names, drawn, strict=True)]
    )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        store.write(out, lambda f: f.write(page.encode()))
        paths = [out]
        for picture in [p for pictures in drawn for p in pictures] if figures else []:
            assert figures is not None
            paths += picture.save(figures)
    except OSError as error:
        raise UsageError(f"cannot write {error.filename or out}: {error.strerror or error}") from None
    return paths


def _anchors(boards: list[Board]) -> list[str]:
    """A name for each board that serves as an anchor and as a file name."""
    names: list[str] = []
    for board in boards:
        name = re.sub(r"[^\w-]+", "-", board.title).strip("-").lower()
        names.append(name if name not in names else f"{name}-{len(names) + 1}")
    return names


def _board(board: Board, name: str, pictures: list[Picture]) -> dict[str, Any]:
    columns = [c for n, c in cols.known(board).items()]
    rows = cols.ordered(board)
    chance = cols.chance_values(board)
    lines = [_line(row, columns) for row in rows]
    if chance:
        cells = [{"text": cols.cell(c, chance.get(c.name)), "sort": _sortable(chance.get(c.name))} for c in columns]
        cells[[c.name for c in columns].index("fuser")] = {"text": "chance (constant answer)", "sort": "chance"}
        lines.insert(sum(row.ranked for row in rows), {"cells": cells, "kind": "chance", "anchor": ""})
    ranked = [row for row in rows if row.ranked]
    return {
        "name": name,
        "title": board.title,
        "metric": board.metric.replace("_", " "),
        "facts": {
            "metric": board.metric.replace("_", " "), "modalities": ", ".join(board.modalities),
            "ranked rows": len(ranked), "people": board.people or "-",
            "seeds": max((row.values["seeds"] for row in ranked), default="-"),
            "folds": max((row.values["folds"] for row in ranked), default="-"),
            "reference": board.reference or "none", "protocol": board.protocol, "data": board.data,
        },
        "columns": [{"title": c.title, "help": c.help, "group": _group(c.name), "up": c.up} for c in columns],
        "rows": lines,
        "notes": footnotes(board),
        "helps": helps(board),
        "verdicts": _verdicts(board),
        "pictures": [
            {"name": p.name, "title": p.title, "caption": p.caption, "svg": p.svg(), "runs": p.runs, "half": p.half}
            for p in pictures
        ],
        "advice": advice.sentences(board),
        "data": json.dumps(advice.data(board)).replace("<", "\\u003c"),
        "conditions": _conditions(board),
        "fusers": [_fuser(board, row) for row in rows if row.entry.used],
    }  # fmt: skip


def _verdicts(board: Board) -> list[dict[str, Any]]:
    """The sentences by measure: those that tell a difference, and those that leave it open."""
    lines, found = verdicts(board), []
    for title in ("Damaged", "Clean"):
        said = [line.removeprefix(f"{title}: ") for line in lines if line.startswith(f"{title}: ")]
        told = [line for line in said if line.endswith(" is better.")]
        if said:
            found.append({"title": title, "told": told, "open": [line for line in said if line not in told]})
    return found


def _group(name: str) -> str:
    if ":" in name:
        return "damage"
    return next((group for group, names in GROUPS.items() if name in names), "summary" if _plain(name) else "cost")


def _plain(name: str) -> bool:
    return name in ("rank", "fuser", "score", "damaged")


def _sortable(value: Any) -> str:
    """A value as text that the page can order: numbers as they are, of several the first."""
    if isinstance(value, tuple | list):
        value = value[0]
    return "" if value is None or isinstance(value, dict) else str(value)


def _line(row: Row, columns: list[cols.Column]) -> dict[str, Any]:
    cells = [{"text": cols.cell(c, c.get(row)), "sort": _sortable(c.get(row))} for c in columns]
    return {"cells": cells, "kind": "ranked" if row.ranked else "unranked", "anchor": _anchor(row)}


def _anchor(row: Row) -> str:
    return f"row-{row.runs[0]}" if row.runs else ""


def _conditions(board: Board) -> list[dict[str, Any]]:
    from fusionbench.records.rows import families

    return [{"name": name, "levels": len(levels)} for name, levels in families(board.damage).items()]


def _fuser(board: Board, row: Row) -> dict[str, Any]:
    first, entry = row.entry.first, row.entry
    changed = {change.partition("=")[0] for r in entry.used for change in r.changes}
    found: dict[str, list[str]] = {}  # a tuned row has settings of its own in every fold
    for r in entry.used:
        for part, given in r.run.hparams.items():
            for name, value in given.items():
                found.setdefault(f"{part}.{name}", []).append(_spell(value))
    settings = [
        {"name": name, "value": " | ".join(dict.fromkeys(values)), "changed": name in changed}
        for name, values in found.items()
    ]
    own = {c.name: c for c in cols.known(board).values()}
    shown = [
        n
        for n in (
            "score",
            "damaged",
            "retained",
            "rce",
            "worst",
            "break_even",
            "gain",
            "p",
            "hurt",
            "trained",
            "flops",
            "latency",
            "memory",
            "seconds",
        )
        if n in own
    ]
    return {
        "anchor": _anchor(row),
        "name": row.name,
        "ranked": row.ranked,
        "rank": row.ranks.get(board.measure),
        "command": command(entry, board.damage),
        "facts": {own[n].title: cols.cell(own[n], own[n].get(row)) for n in shown},
        "settings": settings,
        "backbones": dict(first.run.backbones),
        "code": dict(first.code),
        "versions": dict(first.versions),
        "device": ", ".join(sorted({r.device for r in entry.used})),
        "conditions": {c: cols.spell_score(v, board.percent) for c, v in row.conditions.items() if v is not None},
        "runs": row.runs,
    }


def _spell(value: Any) -> str:
    return ", ".join(map(_spell, value)) if isinstance(value, list | tuple) else str(value)

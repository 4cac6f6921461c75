"""Scores by subgroup (sex, age, site): whom does a method serve worse, and by how much?

From the per-group sums of the records, published ones too, where every group is of one subgroup.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fusionbench import stats, text
from fusionbench.errors import UsageError, unknown
from fusionbench.leaderboard.boards import Board, Row
from fusionbench.leaderboard.statistics import SCORE, tables_of
from fusionbench.records import store
from fusionbench.records.rows import RowRecords
from fusionbench.stats import Interval

FORMATS = {"table": "simple", "markdown": "pipe", "html": "html", "json": ""}
UNKNOWN = "not known"


@dataclass(frozen=True, eq=False)
class Served:
    """One row by subgroup.

    Attributes:
        scores: subgroup -> clean score and its interval over the subgroup's groups.
        gap: the highest less the lowest of them, with the interval of that difference.
    """

    row: Row
    scores: Mapping[str, Interval]
    gap: Interval


def by_subgroup(boards: Sequence[Board], results: Path, attribute: str, fmt: str, width: int) -> str:
    """The boards' ranked rows by subgroup, one table a board that has the attribute; as JSON, a list of boards.

    Raises:
        UsageError: no record has the attribute, or there is no such format.
    """
    if fmt not in FORMATS:
        raise UsageError(f"by subgroup there are the formats {text.listed(FORMATS)}, not {fmt!r}")
    known = [(board, {row.label: attributes_of(row.records, results) for row in board.ranked}) for board in boards]
    names = sorted({name for _, rows in known for found in rows.values() for name in found})
    if attribute not in names:
        raise unknown("attribute of these records", attribute, names)
    shown = []
    for board, rows in known:
        found = [s for row in board.ranked if (s := served(row, rows[row.label].get(attribute, {}), results, board))]
        if found:
            groups = next(rows[s.row.label][attribute] for s in found)
            shown.append((board, found, groups))
    if fmt == "json":
        contents = [_content(board, attribute, found, groups) for board, found, groups in shown]
        return json.dumps(contents, indent=1, ensure_ascii=False, allow_nan=False)
    return "\n".join(_table(board, attribute, found, groups, fmt, width) for board, found, groups in shown)


def attributes_of(records: RowRecords, results: Path) -> dict[str, dict[str, str]]:
    """Attribute -> group -> subgroup, of those that every run of a row has."""
    found: dict[str, dict[str, str]] = {}
    runs = [kept for r in records.used if (kept := store.evidence(results, r.run)) is not None]
    if not runs or len(runs) < len(records.used):
        return {}
    shared = set.intersection(*(set(kept.attributes) for kept in runs))
    for kept in runs:
        for name in shared:
            texts = (str(value) or UNKNOWN for value in kept.attributes[name])
            found.setdefault(name, {}).update(zip(map(str, kept.groups), texts, strict=True))
    return found


def served(row: Row, of: Mapping[str, str], results: Path, board: Board) -> Served | None:
    """A row by subgroup; None where its evidence does not say of what subgroup each group is."""
    table = tables_of(row.records, results, board.metric)[0]
    if table is None or any(str(group) not in of for group in table.groups):
        return None
    mine = np.array([of[str(group)] for group in table.groups])
    scores = {name: stats.interval(table.restricted(mine == name), board.metric) for name in np.unique(mine)}
    return Served(row, {str(name): found for name, found in scores.items()}, _gap(list(scores.values())))


def _gap(found: Sequence[Interval]) -> Interval:
    """The highest less the lowest; the people of two subgroups are different ones, so that variances add up."""
    known = sorted((f for f in found if f.score is not None), key=lambda f: f.score or 0.0)
    if len(known) < 2:
        return Interval(None, None, None)
    low, high = known[0], known[-1]
    gap = (high.score or 0.0) - (low.score or 0.0)
    halves = [
        max(f.high - f.score, f.score - f.low)  # the bounds of shares stop at 0 and 1, their half-widths do not
        for f in (low, high)
        if f.score is not None and f.high is not None and f.low is not None
    ]
    if len(halves) < 2:
        return Interval(gap, None, None)
    return Interval(gap, gap - math.hypot(*halves), gap + math.hypot(*halves))


def _table(
    board: Board, attribute: str, found: Sequence[Served], groups: Mapping[str, str], fmt: str, width: int
) -> str:
    from tabulate import tabulate

    heads, lines, notes = spelled(board, attribute, found, groups)
    drawn = tabulate(lines, heads, tablefmt=FORMATS[fmt], disable_numparse=True)
    return "\n".join([f"{board.title}: {board.metric} by {attribute}", "", str(drawn), "",
                      *(text.wrap(note, width, "  ") for note in notes)])  # fmt: skip


def spelled(
    board: Board, attribute: str, found: Sequence[Served], groups: Mapping[str, str]
) -> tuple[list[str], list[list[str]], list[str]]:
    """Headings, the cells of every row, and the notes below; `groups`: group -> subgroup."""
    names = list(dict.fromkeys(name for s in found for name in s.scores))
    sizes = {name: sum(value == name for value in groups.values()) for name in names}

    def cell(value: Interval | None) -> str:
        if value is None or value.score is None:
            return "-"
        shown = text.score(value.score, board.percent)
        if value.low is None or value.high is None:
            return shown
        return f"{shown} [{text.score(value.low, board.percent)}, {text.score(value.high, board.percent)}]"

    heads = ["fuser", *(f"{name} ({sizes[name]})" for name in names), "gap"]
    lines = [[s.row.name, *(cell(s.scores.get(name)) for name in names), cell(s.gap)] for s in found]
    unit = text.plural(board.unit)
    notes = [
        f"Clean {SCORE} by {attribute}, with 95 % intervals over {unit} and seeds; in brackets, the {unit} of each.",
        "gap: the highest less the lowest; an interval of it that holds 0 shows no difference. It is not corrected for "
        "the choice of the two, nor for the number of rows.",
    ]
    return heads, lines, notes


def _content(board: Board, attribute: str, found: Sequence[Served], groups: Mapping[str, str]) -> dict[str, Any]:
    return {
        "benchmark": board.benchmark, "metric": board.metric, "attribute": attribute, "groups": dict(groups),
        "rows": [
            {"fuser": s.row.label, "gap": s.gap._asdict(), "scores": {n: f._asdict() for n, f in s.scores.items()}}
            for s in found
        ],
    }  # fmt: skip

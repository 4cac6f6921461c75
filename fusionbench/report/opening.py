"""What a page opens with: which method, on what evidence, what to avoid; of one board, and over data sets."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusionbench import leaderboard, text
from fusionbench.errors import UsageError
from fusionbench.leaderboard import Board, Row, chance, helps, sentence
from fusionbench.leaderboard.across import ROLES, of_newest
from fusionbench.leaderboard.across import cells as overview_cells
from fusionbench.leaderboard.statistics import DAMAGED
from fusionbench.leaderboard.values import as_change, as_measured, measured
from fusionbench.report import advice

#: Verdict -> the sign that stands before a difference: colour is never all that says it.
SIGNS = {"better": "▲", "worse": "▼", "equivalent": "=", "undecided": "·", "untested": "?"}


@dataclass(frozen=True)
class Answer:
    """The answer of one board.

    Attributes:
        take: whole sentences: which method, and what the leading row's test says.
        avoid: whole sentences: what is significantly worse; or that nothing is.
    """

    take: list[str]
    avoid: list[str]


def word(board: Board) -> str:
    """What the score that ranks is called in a sentence."""
    return "damaged" if board.measure == DAMAGED else "clean"


def answer(board: Board) -> Answer:
    """Which method, on what evidence, and what to avoid, from the tests of one board alone."""
    take = [advice.sentences(board)[0]]
    top = next(iter(board.own), None)
    if top is not None and (value := measured(board.measure)(board, top)) is not None:
        said = f"Highest {word(board)} score: {top.name}, {as_measured(board, value)}"
        own = top.records.fuses
        take.append(f"{said}{'' if own else ' (it sees one modality only)'}.")
        verdict = top.verdicts.get(board.measure)
        take += [f"By its test, {sentence(board, verdict)}"] if verdict is not None else []
        if top.label == board.reference:
            take.append("It is the reference that the others are tested against.")
    return Answer([*take, *helps(board)[:1]], _avoid(board))


def below(board: Board) -> list[Row]:
    """The default rows that are significantly below the best one."""
    return [row for row in board.ranked if (place := row.places.get(board.measure)) and place.tier > 1]


def worse(board: Board) -> list[Row]:
    """The rows that fuse and are significantly worse than the reference, worst first."""
    found = [r for r in board.ranked if (v := r.verdicts.get(board.measure)) and v.decision == "worse"]
    return [row for row in reversed(found) if row.records.fuses]


def _avoid(board: Board) -> list[str]:
    if board.reference is None or not any(row.verdicts for row in board.ranked):
        return ["Nothing has been tested here, so nothing can be advised against."]
    lines = []
    if low := below(board):
        names = ", ".join(row.label for row in low)
        lines.append(f"Significantly below the best default row on the {word(board)} score: {names}.")
    lines += [sentence(board, row.verdicts[board.measure]) for row in worse(board)]
    if not lines:
        lines.append(
            f"No row is significantly worse than another on the {word(board)} score: nothing to advise against."
        )
    short = [
        r for r in board.ranked if (v := r.over_chance.get(board.measure)) and v.decision not in ("better", "untested")
    ]
    return lines + (chance(board) if short else [])


def overview(boards: Sequence[Board], audits: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A line a board: what it is, which row leads, which to take, how many are below, what the audit raised."""
    lines = []
    for board in boards:
        top, choice = next(iter(board.own), None), advice.recommended(board)
        value = measured(board.measure)(board, top) if top is not None else None
        verdict = top.verdicts.get(board.measure) if top is not None else None
        equals = advice.tied(board)
        audit = audits.get(board.benchmark)
        raised = "not committed" if audit is None else ", ".join(audit["suspicious"]) or "nothing raised"
        lines.append({
            "board": board,
            "kind": board.reads.role,
            "groups": text.counted(board.groups, board.unit) if board.groups else "-",
            "leads": "-" if top is None or value is None else f"{top.name} {as_measured(board, value)}",
            "against": _against(board, top, verdict),
            "take": "-" if choice is None else choice.label if equals else f"{choice.label} (untested)",
            "equals": len(equals),
            "below": text.counted(len(below(board)), "row"),
            "audit": raised,
        })  # fmt: skip
    return lines


def _against(board: Board, top: Row | None, verdict: Any) -> str:
    if top is not None and top.label == board.reference:
        return "is the reference"
    if verdict is None or verdict.difference is None:
        return "not tested"
    return f"{SIGNS.get(verdict.decision, '?')} {as_change(board, verdict.difference)} {verdict.decision}"


@dataclass(frozen=True)
class Over:
    """What many boards say together; every verdict is one board's own.

    Attributes:
        boards: the plain ones of the newest protocol, by kind of set.
        rows: label -> for each board its row, or None where it has no such ranked row.
        answer: which method, and what to avoid; notes: what was left out.
        tables: heading, heads, rows and notes of each overview that the statistics over data sets allow.
    """

    boards: list[Board]
    rows: dict[str, list[Row | None]]
    answer: Answer
    notes: list[str]
    tables: list[dict[str, Any]]


def over(boards: Sequence[Board]) -> Over | None:
    """The answer over data sets; None where there is one or none of the newest protocol."""
    newest, notes = of_newest(boards)
    order = list(ROLES)
    newest = sorted(newest, key=lambda b: order.index(b.reads.role) if b.reads.role in order else len(order))
    if variants := sorted({b.title for b in boards if b.title != b.benchmark}):
        notes = [*notes, f"With other settings than the benchmark's own, and so left out: {', '.join(variants)}."]
    if len(newest) < 2:
        return None
    labels = dict.fromkeys(
        row.label for b in newest for row in b.ranked if row.places.get(b.measure) and row.records.fuses
    )
    rows = {label: [next((r for r in b.ranked if r.label == label), None) for b in newest] for label in labels}
    rows = dict(sorted(rows.items(), key=lambda item: _standing(item[1], newest)))
    return Over(newest, rows, _together(newest, rows), notes, _tables(boards))


def _decision(row: Row | None, board: Board) -> str:
    verdict = row.verdicts.get(board.measure) if row is not None else None
    return verdict.decision if verdict is not None else ""


def _standing(rows: Sequence[Row | None], boards: Sequence[Board]) -> tuple[int, int, int]:
    """Most sets in the first tier first, then fewest that are worse than the reference, then most that are better."""
    first = sum(row in level for row, level in zip(rows, map(advice.tied, boards), strict=True))
    said = [_decision(row, board) for row, board in zip(rows, boards, strict=True)]
    return -first, said.count("worse"), -said.count("better")


def _together(boards: Sequence[Board], rows: Mapping[str, Sequence[Row | None]]) -> Answer:
    """Which methods are in the first tier everywhere, the smallest of them, and who is better or worse anywhere."""
    kinds = Counter(board.reads.role for board in boards)
    many = f"{len(boards)} data sets ({', '.join(f'{number} {kind}' for kind, number in kinds.items())})"
    level = [advice.tied(board) for board in boards]
    everywhere = [label for label, found in rows.items() if all(r in s for r, s in zip(found, level, strict=True))]
    lines = []
    if everywhere:
        sizes = {n: [r.costs.get("trained") or math.inf for r in rows[n] if r] for n in everywhere}
        least = [
            n for n in everywhere if all(s <= min(sizes[m][i] for m in everywhere) for i, s in enumerate(sizes[n]))
        ]
        few = [n for n in least if all(map(math.isfinite, sizes[n]))][:1]
        lines.append(
            f"Not significantly below the best default row on any of the {many}: {', '.join(everywhere)}."
            + (f" Of these, {few[0]} has the fewest trained parameters on every set." if few else "")
        )
    else:
        lines.append(f"No method stays level with the best default row on all of the {many}: choose by data set.")
    base = text.listed(dict.fromkeys(b.reference for b in boards if b.reference))
    named = {decision: _named(rows, boards, decision) for decision in ("better", "worse")}
    if base:
        better = (
            f"Better than {base}: {named['better']}." if named["better"] else f"No method is better than {base} on any."
        )
        lines.append(better)
        worse = f"Worse than {base}: {named['worse']}." if named["worse"] else f"No method is worse than {base} on any."
    else:
        worse = "Nothing has been tested, so nothing can be advised against."
    lines.append(
        "Each verdict is one set's own, corrected within it; where a set is not named the difference is undecided, "
        "equivalent or not tested. No test joins the sets here."
    )
    low = [
        label for label, found in rows.items()
        if all(r is None or ((p := r.places.get(b.measure)) and p.tier > 1) for r, b in zip(found, boards, strict=True))
    ]  # fmt: skip
    last = [f"Significantly below the best default row on every set that has it: {', '.join(low)}."] if low else []
    return Answer(lines, [worse, *last])


def _named(rows: Mapping[str, Sequence[Row | None]], boards: Sequence[Board], decision: str) -> str:
    """`jmt on watch and stressid; film on watch`: where each method came to that verdict."""
    found = {
        label: [b.title for r, b in zip(same, boards, strict=True) if _decision(r, b) == decision]
        for label, same in rows.items()
    }
    return "; ".join(f"{label} on {text.listed(sets)}" for label, sets in found.items() if sets)


def cells(found: Over) -> list[dict[str, Any]]:
    """Label -> a cell a board: the difference from the reference with its verdict."""
    lines, level = [], [advice.tied(board) for board in found.boards]
    for label, rows in found.rows.items():
        line = []
        for row, board, first in zip(rows, found.boards, level, strict=True):
            verdict = row.verdicts.get(board.measure) if row is not None else None
            said = "reference" if row is not None and row.label == board.reference else "-"
            if verdict is not None and verdict.difference is not None:
                said = f"{SIGNS.get(verdict.decision, '?')} {as_change(board, verdict.difference)}"
            line.append({
                "text": said, "row": row, "board": board,
                "kind": verdict.decision if verdict is not None else "",
                "top": row in first,
            })  # fmt: skip
        lines.append({"label": label, "cells": line})
    return lines


def _tables(boards: Sequence[Board]) -> list[dict[str, Any]]:
    """The tables over many data sets; none unless two boards of a kind share their rows and their reference."""
    references = {board.reference for board in boards if board.reference}
    try:
        found, notes = leaderboard.overviews(boards, *references) if len(references) == 1 else ([], [])
    except UsageError:  # no usable answers of the reference
        return []
    tables = []
    for one in found:
        heads, rows = overview_cells(one)
        tables.append({"title": one.title, "heads": heads, "rows": rows, "notes": one.notes})
    if tables:
        tables[-1]["notes"] = [*tables[-1]["notes"], *notes]
    return tables


def claims(boards: Sequence[Board], results: Path) -> list[str]:
    """The headline sentences that the results folder names; none where it names none, or rows that are not here."""
    try:
        named = leaderboard.read_claims(results / leaderboard.HEADLINES)
        return leaderboard.headline_sentences(leaderboard.headlines(boards, named))
    except UsageError:
        return []

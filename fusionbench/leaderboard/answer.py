"""The end of `fusionbench run`: your row, the references, the best row; what it means; how to see everything."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from fusionbench import text
from fusionbench.leaderboard import columns as cols
from fusionbench.leaderboard.boards import Board, Row
from fusionbench.leaderboard.commands import command
from fusionbench.leaderboard.layout import drawn, fitted
from fusionbench.leaderboard.rendering import QUICK_COLUMNS
from fusionbench.leaderboard.robustness import alone, late
from fusionbench.leaderboard.sentences import best, over_chance, sentence
from fusionbench.leaderboard.statistics import SCORE
from fusionbench.records.rows import REFERENCE

MINE, BEST, OTHER = "> ", "* ", "  "


def answer(boards: Sequence[Board], runs: Collection[str], width: int | None = 80, styled: bool = False) -> str:
    """What these runs have come to, board by board, in lines that are at most so wide; empty if no board has them.

    Args:
        runs: ids of the runs that were asked for.
    """
    wanted = set(runs)
    parts = []
    for board in boards:
        mine = [row for row in board.rows if wanted & {r.run.id for r in row.records.records}]
        if mine:
            parts.append(_answer(board, mine, width, styled))
    return "\n".join(parts)


def _answer(board: Board, mine: Sequence[Row], width: int | None, styled: bool) -> str:
    if all(row.records.quick for row in mine):
        rows, names = list(mine), [name for name in QUICK_COLUMNS]
        board = replace(board, chance=None)
    else:
        rows, names = _with_references(board, mine), None
    top = best(board)
    signs = {row.name: MINE if row in mine else BEST if row is top else OTHER for row in rows}
    room = None if width is None else width - len(MINE)
    layout = fitted(board, rows, cols.chosen(board, names), room)
    metric = f"{board.metric.replace('_', ' ')}{' in %' if board.percent else ''}"
    groups = f", {text.counted(board.groups, board.unit)}" if board.groups else ""
    bold = (text.BOLD,) if styled else ()
    title = f"{text.styled(board.title, *bold)}: {metric}{groups}"
    legend = f"{MINE}your row" + (f"; {BEST}the best row" if top in rows and top not in mine else "")
    others = "; the others are the references" if len(rows) > len(mine) + (top in rows and top not in mine) else ""
    notes = [
        legend + others,
        *(line for row in mine for line in [*_meaning(board, row, row is top), *_over_chance(board, row)]),
    ]
    notes.append(f"Everything: fusionbench leaderboard -b {board.benchmark} (--verdicts, --wide, --explain)")
    lines = [title, "", *drawn(board, rows, layout, styled, signs), ""]
    return "\n".join([*lines, *(text.wrap(note, width, "  ") for note in notes)]) + "\n"


def _with_references(board: Board, mine: Sequence[Row]) -> list[Row]:
    """In the order of the board: these rows, those that the protocol names, and the best; quick tries only if asked."""
    top = best(board)
    kept = [row for row in (top, late(board), *alone(board).values()) if row is not None]
    kept += [row for row in board.ranked if row.label == board.reference]
    return [row for row in cols.ordered(board) if row in mine or row in kept]


def _over_chance(board: Board, row: Row) -> list[str]:
    """Said where nothing, or not this row, beats chance."""
    found = row.over_chance.get(SCORE)
    if found is None or found.decision in ("better", "untested"):
        return []
    said = over_chance(board, SCORE)
    return [f"{said[0].upper()}{said[1:]}.", f"On the clean score, {sentence(board, found)}"]


def _meaning(board: Board, row: Row, is_best: bool) -> list[str]:
    """What the row says, in sentences."""
    again = command(row.records, board.damage, whole=True)
    if row.records.quick:
        full = f"fusionbench run -b {board.benchmark} -f {row.fuser}"
        return [f"A quick try says that {row.fuser} runs, not how good it is: it is never ranked. In full: {full}"]
    if not row.ranked:
        errors = sorted({r.error for r in row.records.records if r.error})
        why = f"; {errors[0]}" if errors else ""
        return [f"{row.label} is not ranked: {row.lacks}{why}. What is missing is trained by: {again}"]
    if row.label == board.reference:
        return [f"{row.label} is the reference, named beforehand, that the others are compared with."]
    verdict = row.verdicts.get(board.measure)
    if verdict is None:
        return [f"There is nothing to compare it with yet: fusionbench run -b {board.benchmark} -f {REFERENCE}"]
    lines = [f"On the {board.measure} score, {sentence(board, verdict)}"]
    if verdict.decision in ("undecided", "equivalent"):
        lines[0] = f"No significant difference. {lines[0]}"
    place = row.places.get(board.measure)
    if place is not None:
        total = sum(board.measure in other.places for other in board.rows)
        lines.append(f"Its place is {text.span((place.low, place.high))} of {total} default rows.")
    elif is_best:
        lines.append("It has the highest score here, which is no test: it was not named beforehand.")
    return lines

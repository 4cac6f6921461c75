"""A board in sentences: each verdict is spelled here, once; and does fusion help?"""

from __future__ import annotations

from typing import NamedTuple

from fusionbench import stats, text
from fusionbench.leaderboard.boards import Board, Row
from fusionbench.leaderboard.robustness import alone
from fusionbench.leaderboard.statistics import DAMAGED, SCORE
from fusionbench.records.rows import ALONE, ALONE_FOREST
from fusionbench.stats import Verdict

#: What each measure is called in a sentence.
WHERE = {SCORE: "Clean", DAMAGED: "Damaged"}
SIGNIFICANT = ("better", "worse")


class Finding(NamedTuple):
    """A verdict and the measure that it is about."""

    measure: str
    verdict: Verdict

    @property
    def is_significant(self) -> bool:
        return self.verdict.decision in SIGNIFICANT


def findings(board: Board) -> list[Finding]:
    """Every ranked row against the reference, by measure, best row first."""
    found = []
    for measure in WHERE:
        for row in sorted(board.ranked, key=lambda row: _order(board, row, measure)):
            if (verdict := row.verdicts.get(measure)) is not None:
                found.append(Finding(measure, verdict))
    return found


def _order(board: Board, row: Row, measure: str) -> tuple[bool, float]:
    value = row.score(measure)
    return value is None, -board.sign * (value or 0.0)


def sentence(board: Board, verdict: Verdict) -> str:
    """What a verdict says, with a full stop."""
    return f"{stats.describe(verdict, scale=100.0 if board.percent else 1.0)}."


def verdicts(board: Board) -> list[str]:
    """Every ranked row against the reference, then whether fusion helps and whether anything beats chance."""
    lines = [f"{WHERE[measure]}: {sentence(board, verdict)}" for measure, verdict in findings(board)]
    if board.reference is None and len(board.ranked) > 1:
        lines.append("No complete row of the reference, so nothing is compared: fusionbench run --fuser concat")
    return [*lines, *helps(board), *chance(board)]


def chance(board: Board) -> list[str]:
    """Does anything beat chance here? A sentence a measure."""
    known = [measure for measure in WHERE if any(measure in row.over_chance for row in board.ranked)]
    return [f"{WHERE[measure]}: {over_chance(board, measure)}." for measure in known]


def over_chance(board: Board, measure: str) -> str:
    """`nothing beats chance here: ...`, without a full stop."""
    found = {row.label: row.over_chance[measure] for row in board.ranked if measure in row.over_chance}
    return stats.above_chance(found).sentence


def helps(board: Board) -> list[str]:
    """Does fusion help here? Single and fused rows, each chosen on validation; and what might change the answer."""
    single, found = alone(board), board.fusion
    if found is None:
        takes = f"a complete row of a single modality ({ALONE}) and of a fuser, both with default settings"
        return [f"Whether fusion helps here is not known: it takes {takes}."]
    said = found.sentence(100.0 if board.percent else 1.0)
    lines = [f"Does fusion help here? {said[0].upper()}{said[1:]}."]
    if absent := [m for m in board.modalities if m not in single]:
        lines.append(f"There is no complete row of {text.listed(absent)} alone; it might be better still.")
    if not any(row.fuser == ALONE_FOREST for row in board.ranked):
        again = f"fusionbench compare {ALONE_FOREST} -b {board.benchmark}"
        lines.append(f"There is no forest of one modality; it might be better than either: {again}")
    return lines


def best(board: Board) -> Row | None:
    """The ranked row with the highest score of those that fuse."""
    return next((row for row in board.own if row.records.fuses), None)

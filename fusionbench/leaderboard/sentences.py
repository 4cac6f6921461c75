"""A board in sentences: each verdict is spelled here, once; and does fusion help?"""

from __future__ import annotations

from typing import NamedTuple

from fusionbench import stats, text
from fusionbench.leaderboard.boards import Board, Row
from fusionbench.leaderboard.robustness import alone, best_alone, late
from fusionbench.leaderboard.statistics import DAMAGED, SCORE
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
    """Every ranked row against the reference, then whether fusion helps."""
    lines = [f"{WHERE[measure]}: {sentence(board, verdict)}" for measure, verdict in findings(board)]
    if board.reference is None and len(board.ranked) > 1:
        lines.append("No complete row of the reference, so nothing is compared: fusionbench run --fuser concat")
    return lines + helps(board)


def helps(board: Board) -> list[str]:
    """Does fusion help here? The reference, named beforehand, against the single modality that validation chose."""
    single, best = alone(board), best_alone(board)
    if not single or best is None:
        return ["Whether fusion helps here is not known: there is no complete row of a single modality (unimodal)."]
    lines = [_help(board, single[best], best)]
    absent = [m for m in board.modalities if m not in single]
    if absent:
        lines.append(f"There is no complete row of {text.listed(absent)} alone; it might be better still.")
    return lines


def _help(board: Board, single: Row, modality: str) -> str:
    asked, verdict = "Does fusion help here?", single.verdicts.get(SCORE)
    if verdict is None or verdict.decision == "untested" or board.reference is None:
        return f"{asked} {board.reference or 'A fused row'} and {modality} alone cannot be compared."
    rows = {board.reference: board.row(board.reference), f"{modality} alone (validation's choice)": single}
    if (average := late(board)) is not None and average.label != board.reference:
        rows["late average"] = average
    numbers = ", ".join(
        f"{name} {'-' if row.clean is None else text.score(row.clean, board.percent)}" for name, row in rows.items()
    )
    words = {"worse": "it helps", "better": "it hurts", "equivalent": "it makes no difference that matters"}
    word = words.get(verdict.decision, "no significant difference")
    return f"{asked} {numbers}: {word}; {sentence(board, verdict)}"


def best(board: Board) -> Row | None:
    """The ranked row with the highest score of those that fuse."""
    return next((row for row in board.own if row.records.modality is None), None)

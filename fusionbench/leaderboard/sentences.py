"""A board in plain sentences: who is better, by how much, does fusion help here, and what would settle the rest."""

from __future__ import annotations

from fusionbench import stats
from fusionbench.leaderboard.boards import Board, Row, alone, best_alone, late
from fusionbench.leaderboard.columns import ordered, spell_score
from fusionbench.leaderboard.findings import DAMAGED, SCORE, oriented


def verdicts(board: Board) -> list[str]:
    """Every ranked row against the reference, then whether fusion helps. "Better" only by the corrected test."""
    lines = []
    scale = 100.0 if board.percent else 1.0
    for measure, where in ((SCORE, "Clean"), (DAMAGED, "Damaged")):
        for row in ordered(board, measure) if board.comparisons.get(measure) else []:
            result = board.comparisons[measure].get(row.label) if row.ranked else None
            if result is not None and board.reference is not None:
                lines.append(f"{where}: {stats.sentence(row.label, board.reference, result, scale=scale)}")
    if board.reference is None and sum(row.ranked for row in board.rows) > 1:
        lines.append("No complete row of the reference, so nothing is compared: fusionbench run --fuser concat")
    return lines + helps(board)


def helps(board: Board) -> list[str]:
    """Does fusion help here? The reference and the best row against the best single modality and late averaging."""
    single, best = alone(board), best_alone(board)
    if not single or best is None:
        return ["Whether fusion helps here is not known: there is no complete row of a single modality (unimodal)."]
    lines = []
    fused = [row for row in ordered(board, SCORE) if row.ranked and row.entry.modality is None]
    plain = [row for row in fused if row.label == board.reference]
    for row in dict.fromkeys([*plain, *fused[:1]]):
        lines.append(_help(board, row, single[best], best))
    absent = [m for m in board.modalities if m not in single]
    if absent:
        lines.append(f"There is no complete row of {' and '.join(absent)} alone; it might be better still.")
    return lines


def _help(board: Board, row: Row, single: Row, modality: str) -> str:
    result = board.pair(SCORE, row.label, single.label)
    average = late(board)
    values = {m: _value(board, r) for m, r in alone(board).items()}
    known = {modality: values[modality]} if values[modality] is not None else values
    half = 0.0 if result is None or result.low is None or result.high is None else (result.high - result.low) / 2
    found = stats.fusion_help(_value(board, row), known, None if average is None else _value(board, average), half)
    if found.gain is None or result is None:
        return f"Does fusion help here? {row.label} and {modality} alone cannot be compared."
    points = (lambda v: f"{100 * v:+.1f}") if board.percent else (lambda v: f"{v:+.3f}")
    numbers = f"{row.label} {_spelled(board, row)}, {modality} alone (validation's choice) {_spelled(board, single)}"
    if average is not None and average is not row:
        numbers += f", late average {_spelled(board, average)}"
    tested = "" if result.adjusted is None else f", p = {result.adjusted:.2g}, Holm-corrected within {result.family}"
    by = f"{points(found.gain)} +- {points(half)[1:]}{tested}"
    side = result.better()
    word = {"a": "it helps", "b": "it hurts", None: "not shown: the test cannot tell it from chance"}[side]
    return f"Does fusion help here? {numbers}: {word} ({by})."


def _value(board: Board, row: Row) -> float | None:
    return oriented(board.metric, row.values.get(SCORE))


def _spelled(board: Board, row: Row) -> str:
    value = row.values.get(SCORE)
    return "-" if value is None else spell_score(value, board.percent)

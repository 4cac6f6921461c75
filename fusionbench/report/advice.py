"""My sensors: which fuser to take, and from which damage on to switch a sensor off. From a board alone."""

from __future__ import annotations

import math
from typing import Any

from fusionbench import stats, text
from fusionbench.leaderboard import Board, Row
from fusionbench.leaderboard.robustness import alone, lattice
from fusionbench.leaderboard.statistics import SCORE, oriented
from fusionbench.records.rows import MISSING


def tied(board: Board) -> list[Row]:
    """The default rows that fuse and are not significantly below the best default row.

    That is asked of all pairs, which is stricter than the comparisons with the reference: a reference that some default
    row is better than by its own test is not level with the best either.
    """
    first = [row for row in board.ranked if (place := row.places.get(board.measure)) and place.tier == 1]
    beaten = any((v := row.verdicts.get(board.measure)) and v.decision == "better" for row in first)
    return [row for row in first if row.records.fuses and not (beaten and row.label == board.reference)]


def recommended(board: Board) -> Row | None:
    """Of the rows that no test separates from the best, the one with the fewest trained parameters."""
    rows = [row for row in board.own if row.records.fuses]
    return min(tied(board) or rows[:1], key=lambda row: (row.costs.get("trained") or math.inf, row.label), default=None)


def sentences(board: Board) -> list[str]:
    """Which fuser, why, and when to switch a sensor off: plain sentences."""
    choice, equals = recommended(board), tied(board)
    if choice is None:
        return ["There is no complete row of a fuser yet."]
    word = "damaged" if board.measure != SCORE else "clean"
    size = choice.costs.get("trained")
    if len(equals) > 1:
        fewest = f", and it has the fewest trained parameters of them ({text.count(size)})" if size else ""
        line = f"{len(equals)} default rows are not significantly below the best {word} score{fewest}."
    elif equals:
        line = f"every other default row is significantly below it on the {word} score."
    else:
        return [
            f"{choice.label} has the highest {word} score, but no test has been made: treat it as a guess.",
            *switching(board, choice),
            *_bonds(board, choice),
        ]
    return [f"Take {choice.label}: {line}", *switching(board, choice), *_bonds(board, choice)]


def switching(board: Board, row: Row) -> list[str]:
    """For each damage of a part of the sensors: its break-even severity, and which sensor alone is better then."""
    single, lines = alone(board), []
    for family, at in row.robustness.break_even.items():
        if at is None or family.name == MISSING:
            continue
        hit = family.targets(board.modalities)
        rest = {m: oriented(board.metric, other.clean) for m, other in single.items() if m not in hit}
        known = {m: v for m, v in rest.items() if v is not None}
        if not known:
            continue
        other = max(sorted(known), key=known.__getitem__)
        score = text.score(single[other].clean or 0.0, board.percent)
        sensors = text.listed(sorted(hit))
        if math.isfinite(at):
            when = f"break-even severity {at:.0f}: from there on" if at else "even when clean,"
            lines.append(f"{family.name} on {sensors}, {when} {other} alone ({score}) is better: switch {sensors} off.")
        else:
            lines.append(
                f"{family.name} on {sensors}: keep {sensors} at every severity; {other} alone ({score}) stays below."
            )
    return lines


def _bonds(board: Board, row: Row) -> list[str]:
    """What the modalities are to each other, where every subset has been evaluated."""
    chance, found = oriented(board.metric, board.chance), lattice(board, row)
    if chance is None or len(found) < 2 ** len(board.modalities) - 1 or len(board.modalities) < 2:
        return []
    word = stats.verdict(found, chance, board.noise or 0.0)
    pairs = stats.interactions(found, chance) or {}
    meaning = {
        "redundant": "together they are no better than the best of them alone",
        "complementary": "each adds to the others",
        "synergistic": "together they bring more than the sum of what each brings alone",
    }
    said = f"To {row.label} the modalities are {word}: {meaning[word]}." if word else ""
    lines = [said] if said else []
    if pairs:
        numbers = ", ".join(f"{a} and {b} {text.gap(v, board.percent, signed=True)}" for (a, b), v in pairs.items())
        lines.append(f"Pairwise interactions (above 0: more together): {numbers}.")
    return lines


def data(board: Board) -> dict[str, Any]:
    """Scores by condition of the ranked rows: what the page needs for values under the pointer and other mixtures."""
    conditions = list(dict.fromkeys(c for row in board.ranked for c in row.conditions))

    def short(value: float | None) -> float | None:
        return None if value is None or not math.isfinite(value) else round(value, 5)

    return {
        "percent": board.percent,
        "up": board.higher_is_better,
        "conditions": list(map(str, conditions)),
        "damage": [[str(c), str(c.family), c.level] for c in board.damage],
        "rows": [
            {
                "label": row.name,
                "alone": row.records.modality,
                "clean": short(row.clean),
                "scores": [short(row.conditions.get(c)) for c in conditions],
            }
            for row in board.ranked
        ],
    }

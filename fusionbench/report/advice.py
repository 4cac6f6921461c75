"""My sensors: which fuser to take, and from which damage on to switch a sensor off. From a board alone."""

from __future__ import annotations

import math
from typing import Any

from fusionbench import stats
from fusionbench.leaderboard.boards import Board, Row, alone, best_alone, lattice
from fusionbench.leaderboard.columns import ordered, spell_count, spell_score
from fusionbench.leaderboard.findings import SCORE, oriented


def recommended(board: Board) -> Row | None:
    """Of the rows that no test separates from the best, the one with the fewest trained parameters."""
    rows = [row for row in ordered(board) if row.ranked and row.entry.modality is None]
    tied = [row for row in rows if row.ranks.get(board.measure) == 1] or rows[:1]
    return min(tied, key=lambda row: (row.values.get("trained") or math.inf, row.label), default=None)


def sentences(board: Board) -> list[str]:
    """Which fuser, why, and when to switch a sensor off: plain sentences."""
    choice = recommended(board)
    if choice is None:
        return ["There is no complete row of a fuser yet."]
    tied = [r for r in board.rows if r.ranked and r.ranks.get(board.measure) == 1 and r.entry.modality is None]
    word = "damaged" if board.measure != SCORE else "clean"
    if len(tied) > 1:
        lines = [
            f"Take {choice.label}: {len(tied)} fusers share rank 1 on the {word} score, that is, none is shown to be "
            f"beaten, and it has the fewest trained parameters of them ({spell_count(choice.values['trained'])})."
            if choice.values.get("trained")
            else f"Take {choice.label}: {len(tied)} fusers share rank 1 on the {word} score."
        ]
    elif tied:
        lines = [f"Take {choice.label}: the only fuser of rank 1 on the {word} score."]
    else:
        lines = [f"{choice.label} has the highest {word} score, but no test has been made: treat it as a guess."]
    return lines + switching(board, choice) + _bonds(board, choice)


def switching(board: Board, row: Row) -> list[str]:
    """For each damage of a part of the sensors: from which severity on the others' best model alone is better."""
    single, found = alone(board), row.values.get("break_even") or {}
    lines = []
    for name, at in found.items():
        if at is None or name.startswith("missing:"):
            continue
        hit = stats.targets(name, board.modalities)
        rest = {m: oriented(board.metric, r.values.get(SCORE)) for m, r in single.items() if m not in hit}
        known = {m: v for m, v in rest.items() if v is not None}
        if not known:
            continue
        other = max(sorted(known), key=known.__getitem__)
        score = spell_score(single[other].values[SCORE], board.percent)
        sensors, family = " and ".join(sorted(hit)), name.partition(":")[0]
        if math.isfinite(at):
            when = f"from severity {at:.0f} on" if at else "even when clean"
            lines.append(f"{family} on {sensors}: switch {sensors} off {when}; {other} alone ({score}) is better then.")
        else:
            lines.append(
                f"{family} on {sensors}: keep {sensors} at every severity; {other} alone ({score}) stays below."
            )
    return lines


def _bonds(board: Board, row: Row) -> list[str]:
    """What the modalities are to each other, where every subset has been judged."""
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
    scale, digits = (100.0, 1) if board.percent else (1.0, 3)
    numbers = ", ".join(f"{a} and {b} {v * scale:+.{digits}f}" for (a, b), v in pairs.items())
    return [
        line for line in (said, f"Pairwise interactions (above 0: more together): {numbers}.") if line[-3:] != ": ."
    ]


def data(board: Board) -> dict[str, Any]:
    """What the page needs to answer for other mixtures of damage: scores by condition of the ranked rows."""
    rows = [row for row in ordered(board) if row.ranked]
    return {
        "metric": board.metric,
        "percent": board.percent,
        "up": board.higher_is_better,
        "best": best_alone(board),
        "damage": board.damage,
        "rows": [
            {"label": row.label, "alone": row.entry.modality, "scores": {k: v for k, v in row.conditions.items()}}
            for row in rows
        ],
    }

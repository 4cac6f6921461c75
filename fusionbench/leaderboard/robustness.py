"""What damage and absence do to a row: measures over its scores by condition, relative to the board's other rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fusionbench import stats
from fusionbench.conditions import Condition, families
from fusionbench.leaderboard.statistics import oriented
from fusionbench.records.rows import ABSENT, ALONE, CLEAN, LATE, MISSING, average

if TYPE_CHECKING:
    from fusionbench.leaderboard.boards import Board, Row


@dataclass(frozen=True)
class Robustness:
    """Measures of one row; a value is None where it is undefined. Scores are in the metric's own direction.

    Attributes:
        worst: the lowest score over the board's damage, and the condition where it is reached.
        relative, relative_alone: the loss as a share of the reference's, of the damaged modality's own model's.
        break_even: corruption of some modalities -> the severity from which the best model of an undamaged modality
            alone is better; infinity if there is none, None where every modality is damaged.
        worst_subset: the lowest score over the whole lattice, and which modalities are present there.
        over_rates: the mean score over realised rates of absent modalities.
        hurt: the share of groups that the best single modality serves better.
    """

    retained: float | None = None
    drop: float | None = None
    worst: tuple[float, Condition] | None = None
    relative: float | None = None
    relative_alone: float | None = None
    effective: float | None = None
    break_even: dict[Condition, float | None] = field(default_factory=dict)
    worst_subset: tuple[float, tuple[str, ...]] | None = None
    spread: float | None = None
    over_rates: float | None = None
    hurt: float | None = None


def robustness(board: Board, row: Row) -> Robustness:
    """All measures of one row, once every row of the board has its scores."""
    mine = curves(board, row)
    if not mine or not row.records.done:
        return Robustness()
    chance = oriented(board.metric, board.chance)
    reference = board.references.get(row.records.setting)
    base = next((other for other in board.rows if other.ranked and other.label == reference), None)
    named = {str(family): family for family in mine}
    found = stats.summary(
        _named(mine),
        # Without a known chance level nothing is known of what is left above it.
        chance=math.inf if chance is None else chance,
        noise=board.noise or 0.0,
        reference=_named(curves(board, base)) if base else None,
        alone={m: _named(curves(board, single)) for m, single in alone(board).items()},
        modalities=board.modalities,
    )
    whole = row.damaged is not None
    worst, lattice_of, subset = found["worst"], lattice(board, row), None
    if len(board.modalities) > 1 and len(lattice_of) == 2 ** len(board.modalities) - 1:
        subset = stats.worst_subset(lattice_of)
    return Robustness(
        retained=found["retained"] if whole else None,
        drop=found["drop"] if whole else None,
        worst=None if worst is None else (board.sign * worst[0], _at(board, named[worst[1]], worst[2])),
        relative=found["relative_error"] if whole else None,
        relative_alone=found["relative_error_alone"] if whole else None,
        effective=found["effective_robustness"] if whole else None,
        break_even={named[name]: at for name, at in found["break_even"].items()},
        worst_subset=None if subset is None else (board.sign * subset[1], tuple(sorted(subset[0]))),
        spread=stats.spread(lattice_of),
        over_rates=_over_rates(board, row),
        hurt=_hurt(board, row),
    )


def _named(found: dict[Condition, list[float | None]]) -> dict[str, list[float | None]]:
    return {str(family): curve for family, curve in found.items()}


def _at(board: Board, family: Condition, place: int) -> Condition:
    """The condition at a place of its curve, of which 0 is clean."""
    return families(board.damage)[family][place - 1]


def curves(board: Board, row: Row) -> dict[Condition, list[float | None]]:
    """Family -> scores at severities 0, 1, ..., oriented so that higher is better; what is whole of the damage."""
    scores = {c: oriented(board.metric, value) for c, value in row.conditions.items()}
    clean = oriented(board.metric, row.clean)
    return {
        family: [clean, *(scores[c] for c in levels)]
        for family, levels in families(board.damage).items()
        if all(c in scores for c in levels)
    }


def lattice(board: Board, row: Row) -> dict[frozenset[str], float | None]:
    """Set of present modalities -> score, oriented so that higher is better, from the row's `missing` conditions."""
    whole = frozenset(board.modalities)
    found = {whole: oriented(board.metric, row.clean)}
    for condition, value in row.conditions.items():
        if condition.name == MISSING and (left := whole - condition.targets(whole)):
            found[left] = oriented(board.metric, value)
    return found


def alone(board: Board) -> dict[str, Row]:
    """Modality -> the ranked row of that modality alone, in the benchmark's order; of several the plainest."""
    found: dict[str, Row] = {}
    for row in sorted(board.own, key=_plainness):
        if (modality := row.records.modality) is not None:
            found.setdefault(modality, row)
    return {m: found[m] for m in board.modalities if m in found}


def best_alone(board: Board) -> str | None:
    """The modality whose own model is best on validation groups (test groups must not choose it)."""
    scores = {m: average(r.chosen.get("validation") for r in row.records.used) for m, row in alone(board).items()}
    known = {m: s for m, s in scores.items() if s is not None}
    return max(sorted(known), key=known.__getitem__) if known else None


def late(board: Board) -> Row | None:
    """The plainest ranked row of late averaging."""
    return min((row for row in board.own if row.fuser == LATE), key=_plainness, default=None)


def _plainness(row: Row) -> tuple[bool, int, str]:
    return row.fuser not in (ALONE, LATE), len(row.records.first.changes), row.label


def _over_rates(board: Board, row: Row) -> float | None:
    """The area under the score over realised rates, by trapezoids, in units of the score."""
    scores = {0.0: oriented(board.metric, row.clean)}
    for condition, value in row.conditions.items():
        rate = row.records.rate(condition) if condition.name == ABSENT and not _partial(board, condition) else None
        if rate is not None and condition.severity is not None:
            scores[rate] = oriented(board.metric, value)
    area = stats.missingness_area(scores)
    return None if area is None else board.sign * area


def _partial(board: Board, condition: Condition) -> bool:
    return condition.targets(board.modalities) != frozenset(board.modalities)


def _hurt(board: Board, row: Row) -> float | None:
    best = best_alone(board)
    if best is None or not row.each or not row.records.fuses:
        return None
    return stats.share_hurt(row.each, alone(board)[best].each, 0.0, board.higher_is_better)


def regret(board: Board, row: Row, conditions: Sequence[Condition] | None = None) -> float | None:
    """Best reachable score minus score, run by run; over corruptions as the damaged score, where the best is known."""
    used, spelled = row.records.used, row.records.spelled

    def gap(name: str) -> float | None:
        best = [oriented(board.metric, r.best[name]) for r in used]
        mine = [oriented(board.metric, r.scores[name].get(board.metric)) for r in used]
        return average(None if a is None or b is None else a - b for a, b in zip(best, mine, strict=True))

    def is_known(name: str) -> bool:
        return bool(used) and all(name in r.best and name in r.scores for r in used)

    if conditions is None:
        return gap(CLEAN) if is_known(CLEAN) else None
    means = []
    for levels in families(conditions).values():
        names = [spelled.get(c, "") for c in levels]
        gaps = [gap(name) for name in names if is_known(name)]
        means += [average(gaps)] if gaps else []
    return average(means)

"""What columns show: functions of (board, row) that give a value, and spellings that make it text."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from fusionbench import stats, text
from fusionbench.conditions import Condition, families
from fusionbench.leaderboard.boards import Board, Row, family_mean
from fusionbench.leaderboard.statistics import SCORE
from fusionbench.records.rows import average
from fusionbench.stats import Place, Verdict


class Measured(NamedTuple):
    """A score with its 95 % interval."""

    value: float
    low: float | None
    high: float | None


# Spellings


def as_score(board: Board, value: float) -> str:
    return text.score(value, board.percent)


def as_measured(board: Board, value: Measured) -> str:
    middle, low, high = value
    bounds = "" if low is None or high is None else f" [{as_score(board, low)}, {as_score(board, high)}]"
    return as_score(board, middle) + bounds


def as_gap(board: Board, value: float) -> str:
    return text.gap(value, board.percent)


def as_change(board: Board, value: float) -> str:
    return text.gap(value, board.percent, signed=True)


def as_place(board: Board, value: Place) -> str:
    return text.span((value.low, value.high))


def as_difference(board: Board, value: Verdict) -> str:
    assert value.difference is not None
    return f"{as_change(board, value.difference)} {value.decision}"


def as_adjusted(board: Board, value: tuple[float, float]) -> str:
    return f"[{as_change(board, value[0])}, {as_change(board, value[1])}]"


def as_effects(board: Board, value: dict[Condition, Sequence[int]]) -> str:
    """`noise:acc:1-2 gap:all:1`; a severity of 0 stands for a family without severities."""
    parts = []
    for family, levels in value.items():
        runs: list[list[int]] = []
        for level in levels:
            if runs and level == runs[-1][-1] + 1:
                runs[-1].append(level)
            else:
                runs.append([level])
        parts += [f"{family}:{text.span(run)}" if run[0] else str(family) for run in runs]
    return " ".join(parts)


def as_worst(board: Board, value: tuple[float, Condition]) -> str:
    return f"{as_score(board, value[0])} {value[1]}"


def as_subset(board: Board, value: tuple[float, Sequence[str]]) -> str:
    return f"{as_score(board, value[0])} {'+'.join(value[1])}"


def as_break_even(board: Board, value: dict[Condition, float]) -> str:
    finite = sorted(f"{family}:{at:.0f}" for family, at in value.items() if math.isfinite(at))
    return " ".join(finite) or "never"


def as_rates(board: Board, value: Sequence[float | None]) -> str:
    return " ".join("-" if rate is None else f"{rate:.2f}".removeprefix("0") for rate in value)


def as_share(board: Board, value: float) -> str:
    return f"{100 * value:.0f} %"


def as_ratio(board: Board, value: float) -> str:
    return f"{value:.2f}"


def as_fraction(board: Board, value: float) -> str:
    return f"{value:.3f}"


def plain(spell: Callable[[Any], str]) -> Callable[[Board, Any], str]:
    """A spelling that does not depend on the board."""
    return lambda board, value: spell(value)


# Values


def measured(measure: str) -> Callable[[Board, Row], Measured | None]:
    def value(board: Board, row: Row) -> Measured | None:
        score = row.score(measure)
        return None if score is None else Measured(score, *row.bounds(measure))

    return value


def verdict(board: Board, row: Row) -> Verdict | None:
    """Against the reference, on the measure that ranks; None where they were not compared."""
    found = row.verdicts.get(board.measure)
    return None if found is None or found.difference is None else found


def of_verdict(name: str) -> Callable[[Board, Row], Any]:
    return lambda board, row: None if (found := verdict(board, row)) is None else getattr(found, name)


def adjusted(board: Board, row: Row) -> tuple[float, float] | None:
    found = verdict(board, row)
    if found is None or found.adjusted_low is None or found.adjusted_high is None:
        return None
    return found.adjusted_low, found.adjusted_high


def over_chance(board: Board, row: Row) -> Verdict | None:
    """against chance, on undamaged input."""
    found = row.over_chance.get(SCORE)
    return None if found is None or found.difference is None else found


def within_margin(board: Board, row: Row) -> str | None:
    """Is the difference from the reference shown to be too small to matter, and could it be?"""
    found = verdict(board, row)
    if found is None or found.attainable is None:
        return None
    return "yes" if found.equivalent else "no" if found.attainable else "unattainable"


def place_by(measure: str) -> Callable[[Board, Row], Place | None]:
    return lambda board, row: row.places.get(measure)


def without_loss(*decisions: str) -> Callable[[Board, Row], dict[Condition, list[int]] | None]:
    """Family -> the severities at which this row, against itself on undamaged input, came to one of these verdicts."""

    def value(board: Board, row: Row) -> dict[Condition, list[int]] | None:
        effects = row.statistics.effects if row.statistics else {}
        found = {
            family: [c.severity or 0 for c in levels if c in effects and effects[c].decision in decisions]
            for family, levels in families(board.damage).items()
        }
        return {family: levels for family, levels in found.items() if levels} or None

    return value


def robust(name: str) -> Callable[[Board, Row], Any]:
    return lambda board, row: getattr(row.robustness, name)


def break_even(board: Board, row: Row) -> dict[Condition, float] | None:
    return {family: at for family, at in row.robustness.break_even.items() if at is not None} or None


def cost(name: str) -> Callable[[Board, Row], float | None]:
    return lambda board, row: row.costs.get(name)


def worst_decile(board: Board, row: Row) -> float | None:
    return stats.worst_decile(row.each, board.higher_is_better) if row.each else None


def varies(name: str) -> Callable[[Board, Row], float | None]:
    def value(board: Board, row: Row) -> float | None:
        variance = getattr(row.statistics.varies, name) if row.statistics else None
        return None if variance is None else math.sqrt(variance)

    return value


def rates_chosen(board: Board, row: Row) -> str | None:
    """Learning rates and how many runs took each."""
    found = Counter(rate for r in row.records.used if (rate := r.chosen.get("lr")) is not None)
    return " ".join(f"{rate:g}x{n}" for rate, n in sorted(found.items())) or None


def at_edge(board: Board, row: Row) -> str | None:
    """`4 of 15`: runs whose learning rate is at an edge of the grid."""
    found = [edge for r in row.records.used if (edge := r.at_edge) is not None]
    return f"{sum(found)} of {len(found)}" if found else None


def tuning(board: Board, row: Row) -> str | None:
    """`6 trials` or `default`; None on a board where nothing is tuned."""
    budget = row.records.first.run.budget
    if budget is not None:
        return "tuned" if budget.trials is None else text.counted(budget.trials, "trial")
    return "default" if any(other.records.first.run.budget for other in board.rows) else None


def stacked(board: Board, row: Row) -> int | None:
    """With how many others the runs were trained, at most."""
    return max((r.training.others for r in row.records.used if r.how), default=None)


def damaged_metric(name: str) -> Callable[[Board, Row], float | None]:
    """A stored metric as a damaged score: mean over corruptions of the mean over severities, mean over runs."""

    def value(board: Board, row: Row) -> float | None:
        return average(average(row.records.mean(c, name) for c in same) for same in families(board.damage).values())

    return value


def of_kind(name: str) -> Callable[[Board, Row], Measured | None]:
    def value(board: Board, row: Row) -> Measured | None:
        if row.statistics and (found := row.statistics.kinds.get(name)) and found.score is not None:
            return Measured(found.score, found.low, found.high)
        same = [levels for family, levels in families(board.damage).items() if family.name == name]
        mean = average(family_mean(row, levels) for levels in same)
        return None if mean is None else Measured(mean, None, None)

    return value


def realised(row: Row, levels: Sequence[Condition]) -> list[float | None] | None:
    found = [row.records.rate(condition) for condition in levels]
    return found if any(rate is not None for rate in found) else None


def number(value: Any) -> Any:
    """What of a cell orders it: the first of several numbers, the difference of a verdict."""
    if isinstance(value, Verdict):
        return value.difference
    if isinstance(value, Place):
        return value.low
    return value[0] if isinstance(value, tuple | list) and value else value

"""Learning curves: scores by the share of training groups that was kept, and would more data change the order?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusionbench import stats, text
from fusionbench.leaderboard.statistics import SCORE, of_seeds, tables_of
from fusionbench.records.rows import SHARE, average
from fusionbench.stats import Table, Verdict

if TYPE_CHECKING:
    from fusionbench.leaderboard.boards import Board, Row


@dataclass(frozen=True)
class LearningCurve:
    """Rows that were trained on several shares of the training groups.

    Attributes:
        shares: in rising order; the last is the largest.
        rows: name, without the share -> share -> row; best first.
        reference: the name that the others are compared with; None where it has no curve.
        gains: name -> what its clean score gains from the smallest share to the largest, against what the reference
            gains: one family.
    """

    shares: list[float]
    rows: dict[str, dict[float, Row]]
    reference: str | None = None
    gains: Mapping[str, Verdict] = field(default_factory=dict)


def learning_curve(board: Board, results: Path) -> LearningCurve | None:
    """The curves of a board's ranked rows; None where no row has two shares."""
    kinds: dict[tuple[str, ...], dict[float, Row]] = {}
    for row in board.ranked:
        if not row.records.ensemble:
            kinds.setdefault(row.records.kind, {})[row.records.share] = row
    several = {kind: by_share for kind, by_share in kinds.items() if len(by_share) > 1}
    shares = sorted({share for by_share in several.values() for share in by_share})
    rows = {
        _name(by_share[shares[-1]]): by_share
        for by_share in several.values()
        if {shares[0], shares[-1]} <= set(by_share)
    }
    if not rows:
        return None
    reference = next((name for name, by_share in rows.items() if _is_reference(board, by_share[shares[-1]])), None)
    found = LearningCurve(shares, rows, reference)
    return found if reference is None else replace(found, gains=_gains(board, found, reference, results))


def _name(row: Row) -> str:
    """Its label without the share."""
    words = ["tuned"] if row.records.first.run.tuned else []
    words += [change.short for change in row.records.first.changed if change.flag != SHARE]
    return f"{row.fuser} ({', '.join(words)})" if words else row.fuser


def _is_reference(board: Board, row: Row) -> bool:
    return row.label == board.references.get(row.records.setting)


def _gains(board: Board, curve: LearningCurve, reference: str, results: Path) -> Mapping[str, Verdict]:
    """Each row's gain is a table of its own, so the test that compares rows compares what they gain."""
    gains = {}
    for name, by_share in curve.rows.items():
        ends = [by_share[curve.shares[end]].records for end in (0, -1)]
        shared = sorted(set(ends[0].seeds) & set(ends[1].seeds))
        tables = [tables_of(records, results, board.metric)[0] for records in ends]
        same = [
            of_seeds(table, [records.seeds.index(seed) for seed in shared])
            for records, table in zip(ends, tables, strict=True)
            if table is not None and shared
        ]
        if len(same) == len(ends):
            gains[name] = _gain(*same)
    if reference not in gains:
        return {}
    return stats.family(
        gains, reference, "gains from more groups", higher_is_better=board.higher_is_better, unit=board.unit
    )


def _gain(few: Table, many: Table) -> Table:
    return replace(
        many, by_fold=many.by_fold - few.by_fold, values=lambda weights: many.values(weights) - few.values(weights)
    )


def table(board: Board, width: int | None = None) -> str:
    """Score against share, as text; without intervals where they do not fit. Empty without curves."""
    curve = board.curve
    if curve is None:
        return ""
    title = f"{board.title}: {board.metric.replace('_', ' ')} by the share of the training {text.plural(board.unit)}"
    drawn = _drawn(board, curve, intervals=True)
    if width is not None and max(map(len, drawn.splitlines())) > width:
        drawn = _drawn(board, curve, intervals=False)
    return f"{title}\n\n{drawn}\n"


def _drawn(board: Board, curve: LearningCurve, *, intervals: bool) -> str:
    from tabulate import tabulate

    heads = [f"{share:g}" for share in curve.shares]
    lines = [
        [name, *(_cell(board, by_share.get(share), intervals) for share in curve.shares)]
        for name, by_share in curve.rows.items()
    ]
    some = next(iter(curve.rows.values()))
    sizes = [average(r.samples.get("train") for r in some[s].records.used) if s in some else None for s in curve.shares]
    lines.append(["training samples", *("-" if size is None else f"{size:.0f}" for size in sizes)])
    return str(tabulate(lines, ["fuser", *heads], disable_numparse=True, colalign=("left", *["right"] * len(heads))))


def _cell(board: Board, row: Row | None, intervals: bool) -> str:
    if row is None or row.clean is None:
        return "-"
    low, high = row.bounds(SCORE)
    score = text.score(row.clean, board.percent)
    if low is None or high is None or not intervals:
        return score
    return f"{score} [{text.score(low, board.percent)}, {text.score(high, board.percent)}]"


def data(board: Board) -> dict[str, Any] | None:
    """The curves as plain values: share -> name -> score with its interval; the gains as verdicts."""
    curve = board.curve
    if curve is None:
        return None
    scores = {
        f"{share:g}": {name: [rows[share].clean, *rows[share].bounds(SCORE)] for name, rows in curve.rows.items()
                       if share in rows}
        for share in curve.shares
    }  # fmt: skip
    return {"scores": scores, "reference": curve.reference, "gains": curve.gains, "answers": answers(board)}


def answers(board: Board) -> list[str]:
    """Would more data change the order? One sentence for each row but the reference."""
    curve = board.curve
    if curve is None:
        return []
    if curve.reference is None:
        return ["Would more data change the order? The reference has no learning curve, so nothing is compared."]
    return [
        _answer(board, curve, name, by_share[curve.shares[-1]])
        for name, by_share in curve.rows.items()
        if name != curve.reference and name in curve.gains
    ]


def _answer(board: Board, curve: LearningCurve, name: str, row: Row) -> str:
    """What the difference at the largest share and its trend say of a row."""
    now, trend = row.verdicts.get(SCORE), curve.gains[name]
    asked = f"Would more data change the order of {name} and {curve.reference}?"
    if now is None or now.difference is None or trend.difference is None:
        return f"{asked} They cannot be compared."
    ahead = {"better": 1, "worse": -1}.get(now.decision, 0)
    drift = {"better": 1, "worse": -1}.get(trend.decision, 0)
    if ahead and drift == -ahead:
        word = "Perhaps: the difference is real and shrinks with more data"
    elif ahead:
        word = "Not by this trend: the difference is real and does not shrink significantly"
    elif drift:
        word = f"Perhaps: no significant difference yet, but {name if drift > 0 else curve.reference} gains more"
    else:
        word = "Not known: neither the difference nor its trend is significant"
    at, change = _spelled(board, now), _spelled(board, trend)
    first, last = curve.shares[0], curve.shares[-1]
    return f"{asked} {word} (difference at {last:g}: {at}; change from {first:g} to {last:g}: {change})."


def _spelled(board: Board, verdict: Verdict) -> str:
    """`+1.2 [-0.3, 2.7]`: a difference with its corrected interval."""
    known = [verdict.difference, verdict.adjusted_low, verdict.adjusted_high]
    middle, low, high = ("-" if v is None else text.gap(v, board.percent, signed=True) for v in known)
    return f"{middle} [{low}, {high}]"

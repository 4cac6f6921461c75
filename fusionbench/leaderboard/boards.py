"""Boards: the rows of one benchmark with every number that a table, a sentence or a figure needs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from fusionbench import metrics, stats
from fusionbench.errors import UsageError
from fusionbench.leaderboard.findings import DAMAGED, SCORE, Finding, Findings, find, oriented
from fusionbench.records import Record
from fusionbench.records.rows import (
    CHANCE,
    CLEAN,
    LATE,
    REFERENCE,
    Entry,
    Pile,
    average,
    families,
    piles,
    ranking_damage,
)
from fusionbench.stats import Comparison

#: Marks that say something about a whole method or dataset, with their sign in a table and what it means.
DAGGERS = {
    "reconstruction": ("†", "rebuilt from the publication without the authors' code"),
    "transductive": ("‡", "statistics of the test people went into the features"),
    "subject dependent": ("§", "one person may stand on both sides of a split"),
}


@dataclass(eq=False)
class Row:
    """One line of a table.

    Attributes:
        label: unique on its board among the rows of the newest code.
        ranked: complete, of the newest code and not a quick try; the others stand last, with `lacks` as the reason.
        values: column -> value; None (or not there) where it is undefined.
        ranks: measure ("score", "damaged") -> 1 + how many rows beat this one (`stats.tied_ranks`).
        conditions: condition -> score.
        runs: ids of the runs behind the numbers.
    """

    label: str
    fuser: str
    entry: Entry
    ranked: bool
    lacks: str
    values: dict[str, Any] = field(default_factory=dict)
    ranks: dict[str, int] = field(default_factory=dict)
    conditions: dict[str, float | None] = field(default_factory=dict)
    tested: bool = False
    each: dict[str, float | None] = field(default_factory=dict)

    @property
    def runs(self) -> list[str]:
        return [r.run.id for r in self.entry.used]

    @property
    def name(self) -> str:
        """The label with its daggers and, in brackets, what keeps the row from being ranked."""
        signs = "".join(sign for mark, (sign, _) in DAGGERS.items() if mark in self.entry.marks)
        return f"{self.label}{signs}" + (f" ({self.lacks})" if self.lacks else "")


@dataclass(eq=False)
class Board:
    """One table: rows that were judged alike, and what their comparison rests on.

    Attributes:
        metric: the primary one; `percent` is how it is printed.
        damage: the conditions that the damaged score averages.
        chance: the score of a constant answer; noise: the SD over seeds of the reference.
        comparisons: measure -> label -> that row against the reference, Holm-corrected within this family.
        notes: whole sentences for below the table.
    """

    benchmark: str
    title: str
    protocol: int
    data: str
    code: str
    metric: str
    percent: bool
    modalities: list[str]
    damage: list[str]
    rows: list[Row]
    chance: float | None
    noise: float | None
    reference: str | None
    people: int
    device: str
    pooled: bool
    comparisons: dict[str, dict[str, Comparison]]
    findings: Findings
    notes: list[str] = field(default_factory=list)

    @property
    def batch(self) -> int:
        """The samples of the larger batch whose latency was measured."""
        return int(max((row.values.get("batch") or 0 for row in self.rows), default=0))

    @property
    def measure(self) -> str:
        """What ranks: the damaged score where there is damage (protocol, section 4), else the clean one."""
        return DAMAGED if any(row.ranked and row.values.get(DAMAGED) is not None for row in self.rows) else SCORE

    @property
    def higher_is_better(self) -> bool:
        return metrics.get(self.metric).higher_is_better

    @property
    def detectable(self) -> float | None:
        """The difference from the reference that these people and seeds can show, typically (median)."""
        known = [c.detectable for c in self.comparisons.get(self.measure, {}).values() if c.detectable is not None]
        return median(known) if known else None

    def row(self, label: str) -> Row:
        """The ranked row of that label."""
        return next(row for row in self.rows if row.label == label and row.ranked)

    def pair(self, measure: str, a: str, b: str) -> Comparison | None:
        """Row a against row b, Holm-corrected within all comparisons with b; None if they were not compared."""
        numbers = {row.label: n for n, row in enumerate(self.rows) if row.ranked}
        if a not in numbers or b not in numbers:
            return None
        return self.findings.against(measure, numbers[b]).get(numbers[a])


def build(records: Iterable[Record], results: Path, *, reference: str = REFERENCE) -> list[Board]:
    """One board for all that may be compared: benchmark, its settings, code and data, and the protocol.

    Raises:
        UsageError: there are no records.
    """
    known = list(records)
    if not known:
        raise UsageError(f"there are no records in {results}; make some: fusionbench run --fuser concat")
    return [_board(pile, results, reference) for pile in piles(known)]


def _board(pile: Pile, results: Path, reference: str) -> Board:
    entries, first = pile.entries, pile.first
    metric = first.metrics[0]
    damage = ranking_damage(entries)
    base = _find_reference(entries, reference)
    found = find(entries, results, damage, base)
    rows = [Row(e.label, e.first.run.fuser, e, e.ranked, e.lacks) for e in entries]
    counting = [r for e in entries for r in e.used]
    chance = average([v for v in (r.scores.get(CHANCE, {}).get(metric) for r in counting) if v is not None])
    measured = Counter(r.device for r in counting).most_common(1)
    board = Board(
        first.run.benchmark, _title(pile), first.protocol, first.data, first.code.get("benchmark", ""), metric,
        metrics.get(metric).percent, list(first.run.backbones), damage, rows, chance,
        _noise(found, base), None if base is None else entries[base].label,
        max((f.people for f in found.rows.values()), default=0), measured[0][0] if measured else "",
        any(e.folds_wanted > 1 for e in entries), {}, found, list(pile.notes),
    )  # fmt: skip
    for number, row in enumerate(rows):
        _fill(board, row, found.rows.get(number))
    for row in rows:
        _judge_robustness(board, row, None if base is None else rows[base])
    for measure in (SCORE, DAMAGED):
        for number, rank in found.ranks(measure).items():
            rows[number].ranks[measure] = rank
        against = {} if base is None else found.against(measure, base)
        board.comparisons[measure] = {rows[i].label: c for i, c in sorted(against.items())}
        if measure == board.measure:
            for i, c in against.items():
                rows[i].values |= {"gain": c.difference, "p": c.adjusted, "p_folds": c.p_folds}
    return board


def _title(pile: Pile) -> str:
    changes = [c.partition(".")[2] for c in pile.first.changes if c.startswith("benchmark.")]
    return pile.first.run.benchmark + (f" ({', '.join(changes)})" if changes else "")


def _find_reference(entries: Sequence[Entry], name: str) -> int | None:
    """The number of the row that is called so, else the ranked row of that fuser that changes least."""
    ranked = [(e.label != name, len(e.first.changes), n) for n, e in enumerate(entries) if e.ranked]
    same = [key for key in ranked if entries[key[2]].label == name or entries[key[2]].first.run.fuser == name]
    return min(same)[2] if same else None


def _noise(found: Findings, base: int | None) -> float | None:
    """The noise floor: the SD over seeds of the reference, or where there is none the median over rows."""
    if base is not None and base in found.rows:
        return found.rows[base].noise
    known = [f.noise for f in found.rows.values() if f.noise is not None]
    return median(known) if known else None


def _fill(board: Board, row: Row, found: Finding | None) -> None:
    """Scores, counts and costs of one row; without stored answers scores are means over runs."""
    entry, metric, values = row.entry, board.metric, row.values
    values |= {"seeds": len(entry.seeds) or len({r.run.seed for r in entry.done}), "failed": entry.failed}
    values["folds"] = len({r.run.fold for r in entry.used})
    row.tested = found is not None
    row.conditions = {c: entry.mean(c, metric) for c in (CLEAN, *entry.conditions)}
    if found is not None:
        row.conditions |= found.conditions
        row.each = found.each
        values |= {"low": found.score.low, "high": found.score.high}
        if found.damaged is not None:
            values |= {"damaged_low": found.damaged.low, "damaged_high": found.damaged.high}
        for name in ("seed", "fold", "person"):
            variance = getattr(found.varies, name)
            values[f"sd_{name}"] = None if variance is None else math.sqrt(variance)
        values["decile"] = stats.worst_decile(found.each, board.higher_is_better)
    values[SCORE] = row.conditions.get(CLEAN)
    shown = families(c for c in row.conditions if c != CLEAN)
    for name, levels in shown.items():
        values[name] = average(row.conditions[c] for c in levels)
    if board.damage and all(c in row.conditions for c in board.damage):
        values[DAMAGED] = average(average(row.conditions[c] for c in ls) for ls in families(board.damage).values())
    for name in ("ece", "brier"):
        values[name] = entry.mean(CLEAN, name)
        values[f"{name}_damaged"] = average(
            average(entry.mean(c, name) for c in levels) for levels in families(board.damage).values()
        )
    values |= {"regret": _regret(entry, metric, [CLEAN]), "regret_damaged": _regret(entry, metric, board.damage)}
    for source in ("parameters", "costs", "seconds"):
        for name in {n for r in entry.used for n in getattr(r, source)}:
            anywhere = source == "parameters" or name in ("flops", "batch")
            same = [getattr(r, source) for r in entry.used if anywhere or r.device == board.device]
            known = [costs[name] for costs in same if costs.get(name) is not None]
            values["seconds" if name == "train" else name] = median(known) if known else None
    rates = Counter(r.chosen.get("lr") for r in entry.used if r.chosen.get("lr") is not None)
    values["lr"] = " ".join(f"{lr:g}x{n}" for lr, n in sorted(rates.items()) if lr is not None) or None


def _regret(entry: Entry, metric: str, conditions: Sequence[str]) -> float | None:
    """Best reachable score minus score, run by run; over corruptions as the damaged score, where the best is known."""
    means = []
    for levels in families(conditions).values():
        known = [c for c in levels if entry.used and all(c in r.best and c in r.scores for r in entry.used)]
        gaps = [
            average(_gap(metric, r.best.get(c), r.scores[c].get(metric)) for r in entry.used) for c in known
        ]  # fmt: skip
        if gaps:
            means.append(average(gaps))
    return average(means)


def _gap(metric: str, best: float | None, score: float | None) -> float | None:
    a, b = oriented(metric, best), oriented(metric, score)
    return None if a is None or b is None else a - b


def curves(board: Board, row: Row) -> dict[str, list[float | None]]:
    """Corruption -> scores at severities 0, 1, ..., oriented so that higher is better; what is whole of the damage."""
    scores = {c: oriented(board.metric, value) for c, value in row.conditions.items()}
    return {
        name: [scores.get(CLEAN), *(scores[c] for c in levels)]
        for name, levels in families(board.damage).items()
        if all(c in scores for c in levels)
    }


def alone(board: Board) -> dict[str, Row]:
    """Modality -> the ranked row of that modality alone, in the benchmark's order; of several the plainest."""
    found: dict[str, Row] = {}
    for row in sorted(board.rows, key=lambda r: (len(r.entry.first.changes), r.label)):
        if row.ranked and (m := row.entry.modality) is not None:
            found.setdefault(m, row)
    return {m: found[m] for m in board.modalities if m in found}


def late(board: Board) -> Row | None:
    """The plainest ranked row of late averaging."""
    rows = [row for row in board.rows if row.ranked and row.fuser == LATE]
    return min(rows, key=lambda r: (len(r.entry.first.changes), r.label), default=None)


def _judge_robustness(board: Board, row: Row, base: Row | None) -> None:
    chance = oriented(board.metric, board.chance)
    mine = curves(board, row)
    if not mine or not row.entry.done:
        return
    # Without a known chance level nothing is known of what is left above it.
    found = stats.summary(
        mine, chance=math.inf if chance is None else chance, noise=board.noise or 0.0,
        reference=curves(board, base) if base else None,
        alone={m: curves(board, r) for m, r in alone(board).items()}, modalities=board.modalities,
    )  # fmt: skip
    whole = row.values.get(DAMAGED) is not None
    row.values |= {
        "retained": found["retained"] if whole else None,
        "drop": found["drop"] if whole else None,
        "worst": found["worst"],
        "rce": found["relative_error"] if whole else None,
        "rce_alone": found["relative_error_alone"] if whole else None,
        "effective": found["effective_robustness"] if whole else None,
        "break_even": found["break_even"],
    }
    row.values |= _missingness(board, row)
    single = alone(board)
    if single and row.each and row.entry.modality is None:
        best = best_alone(board)
        row.values["hurt"] = (
            stats.share_hurt(row.each, single[best].each, 0.0, board.higher_is_better) if best else None
        )


def lattice(board: Board, row: Row) -> dict[frozenset[str], float | None]:
    """Set of present modalities -> score, oriented so that higher is better, from the row's `missing` conditions."""
    whole = frozenset(board.modalities)
    found = {whole: oriented(board.metric, row.conditions.get(CLEAN))}
    for condition, value in row.conditions.items():
        if condition.startswith("missing:") and (left := whole - stats.targets(condition, whole)):
            found[left] = oriented(board.metric, value)
    return found


def _missingness(board: Board, row: Row) -> dict[str, Any]:
    """The worst subset of modalities, the spread over single absences, and the area over realised rates."""
    found = lattice(board, row)
    complete = len(found) == 2 ** len(board.modalities) - 1
    rates = {0.0: oriented(board.metric, row.conditions.get(CLEAN))}
    for condition, value in row.conditions.items():
        if condition.startswith("absent:all:"):
            realised = average(average(r.rates.get(condition, {}).values()) for r in row.entry.used)
            if realised is not None:
                rates[realised] = oriented(board.metric, value)
    worst = stats.worst_subset(found) if complete and len(board.modalities) > 1 else None
    return {
        "worst_subset": (worst[1], "+".join(sorted(worst[0]))) if worst else None,
        "spread": stats.spread(found),
        "missingness": stats.missingness_area(rates),
    }


def best_alone(board: Board) -> str | None:
    """The modality whose own model is best on validation people (test people must not choose it)."""
    scores = {m: average(r.chosen.get("validation") for r in row.entry.used) for m, row in alone(board).items()}
    known = {m: s for m, s in scores.items() if s is not None}
    return max(sorted(known), key=known.__getitem__) if known else None

"""What the evidence of a board's rows says: scores, intervals, verdicts, places."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from fusionbench import metrics, stats
from fusionbench.conditions import Condition, families
from fusionbench.errors import UsageError
from fusionbench.progress import Advance
from fusionbench.records import store
from fusionbench.records.rows import CLEAN, RowRecords
from fusionbench.records.types import condition_of
from fusionbench.stats import Components, Interval, Place, Table, Verdict

#: The two measures that are tested: on undamaged input, and the mean over the board's damage.
SCORE, DAMAGED = "score", "damaged"
#: Up to so many default rows every pair is compared, which places need.
MOST = 60


@dataclass
class RowStatistics:
    """What the evidence of one row says; a value is None where it is undefined.

    Attributes:
        conditions: condition -> score pooled over folds, mean over seeds.
        score, damaged: with their intervals; kinds: corruption -> the same, over its own conditions of the damage.
        noise: SD over seeds of the clean score; None for one seed.
        groups: how many were tested.
        each: group -> its own clean score.
        varies: what one group's share in the clean score varies with.
    """

    conditions: dict[Condition, float | None]
    score: Interval
    damaged: Interval | None
    kinds: dict[str, Interval]
    noise: float | None
    groups: int
    each: dict[str, float | None]
    varies: Components


@dataclass
class Statistics:
    """What the evidence of a board's rows says.

    Attributes:
        rows: number of the row -> its own statistics.
        verdicts: measure -> label -> that ranked row against the reference, in the family declared for it.
        places: measure -> label -> where a ranked default row stands, by one family of all their pairs.
        unit: what one group is called.
    """

    rows: dict[int, RowStatistics] = field(default_factory=dict)
    verdicts: dict[str, dict[str, Verdict]] = field(default_factory=lambda: {SCORE: {}, DAMAGED: {}})
    places: dict[str, dict[str, Place]] = field(default_factory=lambda: {SCORE: {}, DAMAGED: {}})
    unit: str = "group"


def measured(
    rows: Sequence[RowRecords], results: Path, damage: Sequence[Condition], reference: str | None, advance: Advance
) -> Statistics:
    """The statistics of a board's rows, from their evidence."""
    found = Statistics()
    tables: dict[str, dict[str, Table]] = {SCORE: {}, DAMAGED: {}}
    metric = rows[0].first.metrics[0]
    for number, row in enumerate(rows):
        clean, conditions = tables_of(row, results, metric) if row.seeds else (None, {})
        advance(number + 1, len(rows))
        if clean is None:
            continue
        levels = {f: [conditions[c] for c in same if c in conditions] for f, same in families(damage).items()}
        damaged = mean_table(levels.values()) if damage and all(c in conditions for c in damage) else None
        found.rows[number] = RowStatistics(
            conditions={c: stats.score(t, metric) for c, t in conditions.items()},
            score=stats.interval(clean, metric),
            damaged=None if damaged is None else stats.interval(damaged, metric),
            kinds={} if damaged is None else _kinds(levels, metric),
            noise=float(clean.scores.std(ddof=1)) if clean.seeds > 1 and np.isfinite(clean.scores).all() else None,
            groups=len(clean.groups),
            each=stats.per_group_scores(clean, metric),
            varies=stats.variance_components(clean, metric),
        )
        if row.ranked:
            tables[SCORE][row.label] = clean
            if damaged is not None:
                tables[DAMAGED][row.label] = damaged
    found.unit = _unit(rows, found)
    family_of = {row.label: row.family for row in rows if row.ranked}
    how: dict[str, Any] = {"higher_is_better": metrics.get(metric).higher_is_better, "unit": found.unit}
    for measure, known in tables.items():
        if reference in known:
            for name in dict.fromkeys(family_of.values()):
                members = {n: t for n, t in known.items() if n == reference or family_of[n] == name}
                found.verdicts[measure] |= stats.family(members, reference, name, **how)
        defaults = {n: t for n, t in known.items() if family_of[n] == "default rows"}
        if 1 < len(defaults) <= MOST:
            found.places[measure] = stats.tiers(defaults, **how).places
    return found


def _kinds(levels: Mapping[Condition, Sequence[Table]], metric: str) -> dict[str, Interval]:
    """The damaged score of each corruption by itself."""
    names = dict.fromkeys(family.name for family in levels)
    return {
        name: stats.interval(mean_table(tables for family, tables in levels.items() if family.name == name), metric)
        for name in names
    }


def _unit(rows: Sequence[RowRecords], found: Statistics) -> str:
    """ "sample" where every group is one, else "group": records do not say what a group is."""
    for number, known in found.rows.items():
        tested = {r.run.fold: r.samples.get("test", 0) for r in rows[number].used}
        return "sample" if sum(tested.values()) == known.groups else "group"
    return "group"


def tables_of(row: RowRecords, results: Path, metric: str) -> tuple[Table | None, dict[Condition, Table]]:
    """The tables of a row's evidence, clean and by condition; None and nothing if that of some run is not there."""
    runs = []
    for r in row.used:
        kept = store.evidence(results, r.run)
        if kept is None or CLEAN not in kept.conditions:
            return None, {}
        runs.append((r.run.seed, r.run.fold, kept))
    try:
        tables = stats.tables(runs, metric, repartitioned=bool(row.first.run.partition))
    except UsageError:  # the files contradict the records: no test can rest on them
        return None, {}
    clean = tables.pop(CLEAN)
    return clean, {condition_of(c): table for c, table in tables.items()}


def mean_table(levels: Iterable[Sequence[Table]]) -> Table:
    """The mean over corruptions of the mean over severities, as a table: it can be resampled and tested as a score."""
    parts = list(levels)

    def mean(values: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
        return np.mean([np.mean(same, axis=0) for same in values], axis=0)

    by_fold = mean([[table.by_fold for table in same] for same in parts])
    return replace(
        parts[0][0], by_fold=by_fold, values=lambda w: mean([[table.values(w) for table in same] for same in parts])
    )


def oriented(metric: str, value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else metrics.oriented(metric, value)

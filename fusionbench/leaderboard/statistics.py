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
from fusionbench.leaderboard.reading import Reading
from fusionbench.progress import Advance
from fusionbench.records import store
from fusionbench.records.rows import CLEAN, MISSING, RowRecords
from fusionbench.records.types import CHANCE, condition_of
from fusionbench.stats import Components, Fusion, Interval, Place, Table, Verdict

#: The two measures that are tested: on undamaged input, and the mean over the board's damage.
SCORE, DAMAGED = "score", "damaged"
#: One modality taken from every sample, mean over modalities: what is compared over data sets beside the clean score.
ONE_MISSING = "one modality missing"
#: Up to so many default rows every pair is compared, which places need.
MOST = 60


@dataclass
class RowStatistics:
    """What the evidence of one row says; a value is None where it is undefined.

    Attributes:
        conditions: condition -> score pooled over folds, mean over seeds.
        score, damaged: with their intervals; kinds: corruption -> the same, over its own conditions of the damage.
        effects: condition of the damage -> this row there against itself on undamaged input, one family a row.
        noise: SD over seeds of the clean score; None for one seed.
        groups: how many were tested.
        each: group -> its own clean score.
        varies: what one group's share in the clean score varies with.
    """

    conditions: dict[Condition, float | None]
    score: Interval
    damaged: Interval | None
    kinds: dict[str, Interval]
    effects: dict[Condition, Verdict]
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
        over_chance: measure -> label -> that ranked row against chance, all in one family.
        places: measure or corruption -> label -> where a ranked default row stands, by one family of all their pairs.
        fusion: does fusion help on undamaged input? None where a side has no row.
        tables: measure, corruption or `ONE_MISSING` -> label -> the table of a ranked row.
        unit: what one group is called.
    """

    rows: dict[int, RowStatistics] = field(default_factory=dict)
    verdicts: dict[str, dict[str, Verdict]] = field(default_factory=lambda: {SCORE: {}, DAMAGED: {}})
    over_chance: dict[str, dict[str, Verdict]] = field(default_factory=lambda: {SCORE: {}, DAMAGED: {}})
    places: dict[str, dict[str, Place]] = field(default_factory=lambda: {SCORE: {}, DAMAGED: {}})
    fusion: Fusion | None = None
    tables: dict[str, dict[str, Table]] = field(default_factory=lambda: {SCORE: {}, DAMAGED: {}})
    unit: str = "group"


def measured(
    rows: Sequence[RowRecords], results: Path, damage: Sequence[Condition], references: Mapping[str, str],
    reads: Reading, chance: float | None, advance: Advance,
) -> Statistics:  # fmt: skip
    """The statistics of a board's rows, from their evidence; `references`: setting -> label."""
    found = Statistics()
    metric = rows[0].first.metrics[0]
    up = metrics.get(metric).higher_is_better
    tables = found.tables
    for number, row in enumerate(rows):
        clean, conditions = tables_of(row, results, metric) if row.seeds else (None, {})
        advance(number + 1, len(rows))
        if clean is None:
            continue
        levels = {f: [conditions[c] for c in same if c in conditions] for f, same in families(damage).items()}
        whole = bool(damage) and all(c in conditions for c in damage)
        means = _means(levels) if whole else {}
        intervals = {name: stats.interval(table, metric) for name, table in means.items()}
        found.rows[number] = RowStatistics(
            conditions={c: stats.score(t, metric) for c, t in conditions.items()},
            score=stats.interval(clean, metric),
            damaged=intervals.pop(DAMAGED, None),
            kinds=intervals,
            effects=_effects(clean, {c: conditions[c] for c in damage if c in conditions}, reads, up),
            noise=float(clean.scores.std(ddof=1)) if clean.seeds > 1 and np.isfinite(clean.scores).all() else None,
            groups=len(clean.groups),
            each=stats.per_group_scores(clean, metric),
            varies=stats.variance_components(clean, metric),
        )
        if row.ranked:
            for name, table in {SCORE: clean, **means, **_one_missing(row, conditions)}.items():
                tables.setdefault(name, {})[row.label] = table
    found.unit = _unit(rows, found, reads.unit)
    family_of = {row.label: row.family for row in rows if row.ranked}
    reference_of = {row.family: references.get(row.setting) for row in rows if row.ranked}
    how: dict[str, Any] = {"higher_is_better": up, "unit": found.unit}
    for measure, known in tables.items():
        for name, reference in reference_of.items():
            if measure in (SCORE, DAMAGED) and reference in known:
                members = {n: t for n, t in known.items() if n == reference or family_of[n] == name}
                found.verdicts[measure] |= stats.family(members, reference, name, reads.margin, **how)
        if measure in (SCORE, DAMAGED) and known and chance is not None:
            found.over_chance[measure] = _over_chance(known, chance, settle=measure == SCORE, **how)
        defaults = {n: t for n, t in known.items() if family_of[n] == "default rows"}
        if measure != ONE_MISSING and 1 < len(defaults) <= MOST:
            alike = DAMAGED if len(set(tables) - {SCORE, DAMAGED, ONE_MISSING}) == 1 and measure != SCORE else measure
            found.places[measure] = found.places.get(alike) or stats.tiers(defaults, **how).places
    found.fusion = does_fusion_help([row for row in rows if row.ranked], tables[SCORE], results, reads.margin, **how)
    return found


def _means(levels: Mapping[Condition, Sequence[Table]]) -> dict[str, Table]:
    """The damaged score as a table, and that of each corruption by itself."""
    names = dict.fromkeys(family.name for family in levels)
    by_name = {name: [tables for family, tables in levels.items() if family.name == name] for name in names}
    return {DAMAGED: mean_table(levels.values())} | {name: mean_table(same) for name, same in by_name.items()}


def _one_missing(row: RowRecords, conditions: Mapping[Condition, Table]) -> dict[str, Table]:
    """The mean over each modality's absence from every sample, where all of them were evaluated."""
    modalities = list(row.first.run.backbones)
    gone = [conditions.get(Condition(MISSING, (m,), None)) for m in modalities]
    whole = [table for table in gone if table is not None]
    return {ONE_MISSING: mean_table([[table] for table in whole])} if len(whole) == len(modalities) > 1 else {}


def _effects(clean: Table, conditions: Mapping[Condition, Table], reads: Reading, up: bool) -> dict[Condition, Verdict]:
    """Each condition against undamaged input, in one family; the same trained models answer both, so seeds are paired.

    Whatever a condition costs is asked in the margin's units, too: equivalent means that it costs nothing that matters.
    """
    pairs = {str(c): (str(c), CLEAN) for c in conditions}
    found = {str(c): stats.difference(table, clean, clean.seeds > 1) for c, table in conditions.items()}
    how: dict[str, Any] = {"higher_is_better": up, "unit": reads.unit, "settle": False}
    verdicts = stats.judged(pairs, found, "conditions", reads.margin, 0.05, **how)
    return {c: verdicts[str(c)] for c in conditions}


def _over_chance(known: Mapping[str, Table], chance: float, **how: Any) -> dict[str, Verdict]:
    """Every row against the score of chance, which is taken as it is: it is no method that was sampled.

    Of the damaged score only the decisions are told, so that what would settle them is not asked.
    """
    pairs = {label: (label, CHANCE) for label in known}
    found = {label: stats.difference(table, _constant_like(table, chance)) for label, table in known.items()}
    return stats.judged(pairs, found, "rows against chance", None, 0.05, **how)


def _constant_like(table: Table, chance: float) -> Table:
    """Chance on the same groups, as if of the same seeds (two at least): it has none of its own."""
    seeds = max(2, table.seeds)
    by_fold = np.full((seeds, table.by_fold.shape[1]), chance)
    return replace(table, by_fold=by_fold, values=_Constant(chance, seeds, len(table.groups)))


@dataclass(frozen=True)
class _Constant(stats.Jackknifed):
    """`values` that no weight changes."""

    value: float
    seeds: int
    groups: int

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        return np.full((len(weights), self.seeds), self.value)

    def whole(self) -> np.ndarray:
        return np.full(self.seeds, self.value)

    def without_each(self) -> np.ndarray:
        return np.full((1 + self.groups, self.seeds), self.value)

    def restricted(self, chosen: np.ndarray) -> stats.Jackknifed:
        return replace(self, groups=int(chosen.sum()))


def does_fusion_help(
    rows: Sequence[RowRecords], known: Mapping[str, Table], results: Path, margin: float | None, **how: Any
) -> Fusion | None:
    """The best fused row against the best single modality, each chosen fold by fold on the same validation groups.

    Both sides come from the same pipelines: default rows take part if a single modality stands there that was trained
    as they were (a network with a learning rate, or a classical method without), over the seeds that all have.
    """
    rows = [row for row in rows if row.label in known and _validation(row, row.seeds) is not None]
    single = {row.label: row for row in rows if row.family == "single modalities" and row.modality is not None}
    pipelines = {_pipeline(row) for row in single.values()}
    fused = {row.label: row for row in rows if row.family == "default rows" and _pipeline(row) in pipelines}
    if not single or not fused:
        return None
    rows_of = {**single, **fused}
    seeds = sorted(set.intersection(*(set(row.seeds) for row in rows_of.values())))
    first = known[next(iter(rows_of))]
    same = [n for n in rows_of if np.array_equal(known[n].counts, first.counts)]
    tables = {n: of_seeds(known[n], [rows_of[n].seeds.index(seed) for seed in seeds]) for n in same}
    validation = {n: found for n in same if (found := _validation(rows_of[n], seeds)) is not None}

    def assemble(by_fold: tuple[str, ...]) -> Table:
        runs = [
            (r.run.seed, r.run.fold, kept)
            for fold, name in enumerate(by_fold)
            for r in rows_of[name].used
            if r.run.fold == fold and r.run.seed in seeds and (kept := store.evidence(results, r.run)) is not None
        ]
        return stats.tables(runs, rows_of[by_fold[0]].first.metrics[0])[CLEAN]

    try:
        return stats.does_fusion_help(
            {n: tables[n] for n in single if n in tables}, {n: tables[n] for n in fused if n in tables}, validation,
            margin, assemble=assemble, **how,
        )  # fmt: skip
    except UsageError:  # no seed that all have, or folds of which some lack a row: there is no choice to make
        return None


def _pipeline(row: RowRecords) -> bool:
    """Is it a network, whose learning rate validation chose?"""
    return any(r.chosen.get("lr") is not None for r in row.used)


def _validation(row: RowRecords, seeds: Sequence[int]) -> np.ndarray | None:
    """(R, F) validation scores of these seeds; None if one is not known."""
    known = {(r.run.seed, r.run.fold): r.chosen.get("validation") for r in row.used}
    found = [[known.get((seed, fold)) for fold in range(row.folds_wanted)] for seed in seeds]
    return None if not seeds or any(v is None for part in found for v in part) else np.array(found, dtype=float)


def of_seeds(table: Table, places: Sequence[int]) -> Table:
    """The same of fewer seeds."""
    if len(places) == table.seeds:
        return table
    return replace(
        table,
        by_fold=table.by_fold[places],
        values=lambda weights: table.values(weights)[:, places],
        partitions=tuple(table.partitions[place] for place in places) if table.partitions else (),
    )


def _unit(rows: Sequence[RowRecords], found: Statistics, declared: str) -> str:
    """ "sample" where every group is one, else what the benchmark declares."""
    for number, known in found.rows.items():
        tested = {r.run.fold: r.samples.get("test", 0) for r in rows[number].used}
        return "sample" if sum(tested.values()) == known.groups else declared
    return declared


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
    by_fold = _mean([[table.by_fold for table in same] for same in parts])
    return replace(parts[0][0], by_fold=by_fold, values=_MeanOf(parts))


@dataclass(frozen=True, eq=False)
class _MeanOf(stats.Jackknifed):
    """`values` of the mean of tables: what each has found already serves again."""

    parts: Sequence[Sequence[Table]]

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        return _mean([[table.values(weights) for table in same] for same in self.parts])

    def whole(self) -> np.ndarray:
        return _mean([[table.scores for table in same] for same in self.parts])

    def without_each(self) -> np.ndarray:
        return _mean([[table.without_each for table in same] for same in self.parts])

    def restricted(self, chosen: np.ndarray) -> stats.Jackknifed:
        return _MeanOf([[table.restricted(chosen) for table in same] for same in self.parts])


def _mean(values: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    return np.mean([np.mean(same, axis=0) for same in values], axis=0)


def oriented(metric: str, value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else metrics.oriented(metric, value)

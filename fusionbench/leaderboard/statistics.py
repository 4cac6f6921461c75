"""What the evidence of a board's rows says: scores, intervals, verdicts, places; kept in a cache on disk."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

import fusionbench
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
    """The statistics of a board's rows, from the cache if nothing that they rest on has changed."""
    first, key = rows[0].first, _key(rows, results, damage, reference)
    board = (first.protocol, first.data, first.code.get("benchmark"), first.run.hparams.get("benchmark"), reference)
    name = hashlib.sha256(repr(board).encode()).hexdigest()[:8]
    path = results / ".cache" / f"{first.run.benchmark}-{name}.json"
    known = _load(path, key)
    if known is not None:
        return known
    found = _compute(rows, results, damage, reference, advance)
    try:
        path.parent.mkdir(exist_ok=True)
        text = json.dumps({"key": key, **_packed(found)}).encode()
        store.write(path, lambda f: f.write(text))
    except OSError:
        pass  # a folder that cannot be written is still readable; the next call computes again
    return found


def _compute(
    rows: Sequence[RowRecords], results: Path, damage: Sequence[Condition], reference: str | None, advance: Advance
) -> Statistics:
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
        tables = stats.tables(runs, metric)
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


def _key(rows: Sequence[RowRecords], results: Path, damage: Sequence[Condition], reference: str | None) -> str:
    """What the statistics rest on: the code that computes them, the records, and the files of their evidence."""
    digest = hashlib.sha256(_code())
    folders: dict[Path, tuple[int, int]] = {}

    def state(path: Path) -> tuple[int, int]:
        try:
            found = path.stat()
            return found.st_mtime_ns, found.st_size
        except OSError:
            return 0, 0

    for row in rows:
        runs = []
        for r in row.used:
            own = store.path_of(results, r.run).with_suffix(".npz")
            published = own.with_name(store.EVIDENCE)
            if published not in folders:
                folders[published] = state(published)
            runs.append((r.run.id, r.created, sorted(r.scores), state(own), folders[published]))
        digest.update(repr((row.label, row.family, row.seeds, row.ranked, runs)).encode())
    digest.update(repr(([*map(str, damage)], reference, rows[0].first.metrics[0])).encode())
    return digest.hexdigest()


def _code() -> bytes:
    root = Path(fusionbench.__file__).parent
    files = [root / "metrics.py", Path(__file__), *sorted((root / "stats").glob("*.py"))]
    return b"".join(hashlib.sha256(path.read_bytes()).digest() for path in files)


def _packed(found: Statistics) -> dict[str, Any]:
    return {
        "rows": {
            str(n): {
                **asdict(replace(row, conditions={})),
                "conditions": {str(c): v for c, v in row.conditions.items()},
            }
            for n, row in found.rows.items()
        },
        "verdicts": {m: {n: asdict(v) for n, v in known.items()} for m, known in found.verdicts.items()},
        "places": {m: {n: asdict(p) for n, p in known.items()} for m, known in found.places.items()},
        "unit": found.unit,
    }


def _load(path: Path, key: str) -> Statistics | None:
    try:
        content = json.loads(path.read_text())
        if content["key"] != key:
            return None
        return Statistics(
            {int(n): _row(row) for n, row in content["rows"].items()},
            {m: {n: _verdict(v) for n, v in known.items()} for m, known in content["verdicts"].items()},
            {m: {n: Place(**p) for n, p in known.items()} for m, known in content["places"].items()},
            content["unit"],
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # a cache can always be computed again


def _row(content: Mapping[str, Any]) -> RowStatistics:
    return RowStatistics(**{
        **content,
        "conditions": {condition_of(c): v for c, v in content["conditions"].items()},
        "score": Interval(*content["score"]),
        "damaged": None if content["damaged"] is None else Interval(*content["damaged"]),
        "kinds": {name: Interval(*bounds) for name, bounds in content["kinds"].items()},
        "varies": Components(**content["varies"]),
    })  # fmt: skip


def _verdict(content: Mapping[str, Any]) -> Verdict:
    return Verdict(**{**content, "seeds": tuple(content["seeds"])})


def oriented(metric: str, value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else metrics.oriented(metric, value)

"""What the stored answers of a board's rows say: scores, intervals, tests and ranks; kept in a cache on disk."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

import fusionbench
from fusionbench import metrics, stats
from fusionbench.errors import UsageError
from fusionbench.records import store
from fusionbench.records.rows import CLEAN, Entry, families
from fusionbench.stats import Comparison, Components, Interval, Parts, Table

SCORE, DAMAGED = "score", "damaged"
#: Up to so many rows every pair is compared, which ranks need; beyond, each row meets the reference only.
MOST = 60


@dataclass
class Finding:
    """What the answers of one row say; a value is None where it is undefined.

    Attributes:
        conditions: condition -> score pooled over folds, mean over seeds.
        score, damaged: with their intervals.
        noise: SD over seeds of the clean score; None for one seed.
        people: how many groups were tested.
        each: group -> its own clean score.
        varies: what one group's share in the clean score varies with.
    """

    conditions: dict[str, float | None]
    score: Interval
    damaged: Interval | None
    noise: float | None
    people: int
    each: dict[str, float | None]
    varies: Components


@dataclass
class Findings:
    """What the answers of a board's rows say, by row number.

    Attributes:
        pairs: measure -> (i, j) with i < j -> row i against row j, not corrected.
    """

    rows: dict[int, Finding] = field(default_factory=dict)
    pairs: dict[str, dict[tuple[int, int], Comparison]] = field(default_factory=lambda: {SCORE: {}, DAMAGED: {}})

    def against(self, measure: str, number: int) -> dict[int, Comparison]:
        """Every row that was compared with this one, against it, Holm-corrected within this family."""
        found = {
            i if j == number else j: c if j == number else mirrored(c)
            for (i, j), c in self.pairs[measure].items()
            if number in (i, j)
        }
        adjusted = stats.holm([c.p for c in found.values()])
        family = sum(p is not None for p in adjusted)
        return {i: replace(c, adjusted=p, family=family) for (i, c), p in zip(found.items(), adjusted, strict=True)}

    def ranks(self, measure: str) -> dict[int, int]:
        """Row -> 1 + how many rows beat it by the test that is corrected within the family of its own comparisons."""
        known = sorted({i for pair in self.pairs[measure] for i in pair})
        family = {i: self.against(measure, i) for i in known}
        if len(known) > MOST or any(len(family[i]) < len(known) - 1 for i in known):
            return {}
        values = {str(i): self._oriented(measure, i) for i in known}
        ranks = stats.tied_ranks(values, lambda x, y: family[int(y)][int(x)].better() == "a")
        return {int(i): rank for i, rank in ranks.items() if rank is not None}

    def _oriented(self, measure: str, number: int) -> float | None:
        found = self.rows[number].score if measure == SCORE else self.rows[number].damaged
        if found is None or found.score is None:
            return None
        up = next(iter(self.pairs[measure].values())).higher_is_better
        return found.score if up else -found.score


def mirrored(c: Comparison) -> Comparison:
    """b against a, from a against b."""
    difference, low, high = (None if v is None else -v for v in (c.difference, c.high, c.low))
    return replace(c, difference=difference, low=low, high=high)


def find(entries: Sequence[Entry], results: Path, damage: Sequence[str], reference: int | None) -> Findings:
    """The findings of a board's rows, from the cache if nothing that they rest on has changed."""
    first, key = entries[0].first, _key(entries, results, damage, reference)
    board = (first.protocol, first.data, first.code.get("benchmark"), first.run.hparams.get("benchmark"), reference)
    name = hashlib.sha256(repr(board).encode()).hexdigest()[:8]
    path = results / ".cache" / f"{first.run.benchmark}-{name}.json"
    known = _load(path, key)
    if known is not None:
        return known
    found = _compute(entries, results, damage, reference)
    try:
        path.parent.mkdir(exist_ok=True)
        text = json.dumps({"key": key, **_packed(found)}).encode()
        store.write(path, lambda f: f.write(text))
    except OSError:
        pass  # a folder that cannot be written is still readable; the next call computes again
    return found


def _compute(entries: Sequence[Entry], results: Path, damage: Sequence[str], reference: int | None) -> Findings:
    found = Findings()
    tables: dict[str, dict[int, Table]] = {SCORE: {}, DAMAGED: {}}
    metric = entries[0].first.metrics[0]
    for number, entry in enumerate(entries):
        by_condition = _tables(entry, results, metric) if entry.seeds else {}
        if CLEAN not in by_condition:
            continue
        clean = by_condition[CLEAN]
        levels = [[by_condition[c] for c in names if c in by_condition] for names in families(damage).values()]
        whole = bool(damage) and all(c in by_condition for c in damage)
        damaged = mean_table(levels) if whole else None
        found.rows[number] = Finding(
            {c: stats.score(t, metric) for c, t in by_condition.items()},
            stats.interval(clean, metric),
            None if damaged is None else stats.interval(damaged, metric),
            float(clean.scores.std(ddof=1)) if clean.seeds > 1 and np.isfinite(clean.scores).all() else None,
            len(clean.groups),
            stats.per_group_scores(clean, metric),
            stats.variance_components(clean, metric),
        )
        if entry.ranked:
            tables[SCORE][number] = clean
            if damaged is not None:
                tables[DAMAGED][number] = damaged
    for measure, table in tables.items():
        pairs = list(combinations(table, 2))
        if len(table) > MOST:
            pairs = [pair for pair in pairs if reference in pair]
        for i, j in pairs:
            try:
                found.pairs[measure][i, j] = stats.compare(table[i], table[j], metric)
            except UsageError:  # not the same people: the two are not comparable, and ranks say nothing
                continue
    return found


def _tables(entry: Entry, results: Path, metric: str) -> dict[str, Table]:
    """Condition -> table of the row's evidence; empty if that of some run is not there."""
    runs = []
    for r in entry.used:
        kept = store.evidence(results, r.run)
        if kept is None or CLEAN not in kept.conditions:
            return {}
        runs.append((r.run.seed, r.run.fold, kept))
    try:
        return stats.tables(runs, metric)
    except UsageError:  # the files contradict the records: no test can rest on them
        return {}


def mean_table(levels: Sequence[Sequence[Table]]) -> Table:
    """The mean over corruptions of the mean over severities, as a table: it can be resampled and tested as a score."""

    def mean(parts: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
        return np.mean([np.mean(part, axis=0) for part in parts], axis=0)

    by_fold = mean([[t.by_fold for t in part] for part in levels])
    return replace(levels[0][0], by_fold=by_fold, values=lambda w: mean([[t.values(w) for t in p] for p in levels]))


def _key(entries: Sequence[Entry], results: Path, damage: Sequence[str], reference: int | None) -> str:
    """What the findings rest on: the code that computes them, the records, and the files of their answers."""
    digest = hashlib.sha256(_code())
    folders: dict[Path, tuple[int, int]] = {}

    def state(path: Path) -> tuple[int, int]:
        try:
            found = path.stat()
            return found.st_mtime_ns, found.st_size
        except OSError:
            return 0, 0

    for entry in entries:
        rows = []
        for r in entry.used:
            own = store.path_of(results, r.run).with_suffix(".npz")
            published = own.with_name(store.EVIDENCE)
            if published not in folders:
                folders[published] = state(published)
            rows.append((r.run.id, r.created, sorted(r.scores), state(own), folders[published]))
        digest.update(repr((entry.seeds, entry.ranked, rows)).encode())
    digest.update(repr((list(damage), reference, entries[0].first.metrics[0])).encode())
    return digest.hexdigest()


def _code() -> bytes:
    root = Path(fusionbench.__file__).parent
    files = [root / "metrics.py", Path(__file__), *sorted((root / "stats").glob("*.py"))]
    return b"".join(hashlib.sha256(path.read_bytes()).digest() for path in files)


def _packed(found: Findings) -> dict[str, Any]:
    return {
        "rows": {str(n): asdict(f) for n, f in found.rows.items()},
        "pairs": {m: [[i, j, asdict(c)] for (i, j), c in pairs.items()] for m, pairs in found.pairs.items()},
    }


def _load(path: Path, key: str) -> Findings | None:
    try:
        content = json.loads(path.read_text())
        if content["key"] != key:
            return None
        rows = {int(n): _finding(f) for n, f in content["rows"].items()}
        pairs = {m: {(i, j): _comparison(c) for i, j, c in found} for m, found in content["pairs"].items()}
        return Findings(rows, pairs)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # a cache can always be computed again


def _finding(f: Mapping[str, Any]) -> Finding:
    intervals = {n: None if f[n] is None else Interval(*f[n]) for n in ("score", "damaged")}
    return Finding(**{**f, **intervals, "varies": Components(**f["varies"])})


def _comparison(c: Mapping[str, Any]) -> Comparison:
    return Comparison(**{**c, "parts": None if c["parts"] is None else Parts(**c["parts"])})


def oriented(metric: str, value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else metrics.oriented(metric, value)

"""Records sorted into boards and rows: what may stand in one table, what a row is called, and what it lacks."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from fusionbench.records import Record

#: The reference rows that the protocol names: one modality alone, the average of their answers, plain fusion; the last
#: is the one that all are compared with unless another is named beforehand.
ALONE, LATE, REFERENCE = "unimodal", "late_average", "concat"
CLEAN, CHANCE = "clean", "chance"
QUICK = "quick"


@dataclass(eq=False)
class Entry:
    """The records of one table row: one fuser, one set of hyper-parameters, one version of the code.

    Attributes:
        stale: why the row is not of the newest code ("older code"), or empty.
    """

    records: list[Record]
    label: str = ""
    stale: str = ""

    @property
    def first(self) -> Record:
        return self.records[0]

    @cached_property
    def done(self) -> list[Record]:
        return [r for r in self.records if r.status == "done"]

    @property
    def failed(self) -> int:
        return len(self.records) - len(self.done)

    @property
    def folds_wanted(self) -> int:
        return self.first.complete.get("folds", 1 + max(r.run.fold for r in self.records))

    @property
    def seeds_wanted(self) -> int:
        return self.first.complete.get("seeds", 1)

    @cached_property
    def seeds(self) -> list[int]:
        """The seeds of which every fold is done."""
        folds = defaultdict(set)
        for r in self.done:
            folds[r.run.seed].add(r.run.fold)
        return sorted(seed for seed, found in folds.items() if found >= set(range(self.folds_wanted)))

    @cached_property
    def used(self) -> list[Record]:
        """What the row's numbers are made of: the seeds that have every fold, else all that is done."""
        return [r for r in self.done if r.run.seed in self.seeds] if self.seeds else self.done

    @property
    def complete(self) -> bool:
        return len(self.seeds) >= self.seeds_wanted

    @property
    def marks(self) -> list[str]:
        return sorted({mark for r in self.records for mark in r.marks})

    @property
    def ranked(self) -> bool:
        return self.complete and not self.stale and QUICK not in self.marks

    @property
    def lacks(self) -> str:
        """What keeps the row from being ranked, in words; empty if nothing does."""
        folds = len({r.run.fold for r in self.done})
        reasons = [self.stale] if self.stale else []
        if QUICK in self.marks:
            reasons.append(QUICK)
        elif not self.done:
            reasons.append("failed")
        elif not self.complete:
            part = f"{folds} of {self.folds_wanted} folds" if folds < self.folds_wanted else ""
            part = part or f"{len(self.seeds)} of {self.seeds_wanted} seeds"
            reasons.append(f"incomplete: {part}")
        if self.failed and self.done:
            reasons.append(f"{self.failed} failed")
        return ", ".join(reasons)

    @property
    def modality(self) -> str | None:
        """The one modality that a reference row looks at, else None."""
        if self.first.run.fuser != ALONE:
            return None
        return self.first.run.hparams.get("fuser", {}).get("modality") or next(iter(self.first.run.backbones), None)

    @property
    def conditions(self) -> list[str]:
        """The damage that every run of the row has been judged under, in the order of the record."""
        shared = set.intersection(*(set(r.scores) for r in self.used)) if self.used else set()
        return [c for c in (self.used[0].scores if self.used else ()) if c in shared and c not in (CLEAN, CHANCE)]

    def mean(self, condition: str, metric: str) -> float | None:
        """The mean over runs of a stored score; None if a run lacks it."""
        return average(r.scores.get(condition, {}).get(metric) for r in self.used)


@dataclass(eq=False)
class Pile:
    """The entries of one board, and what they have in common."""

    entries: list[Entry]
    notes: list[str] = field(default_factory=list)

    @property
    def first(self) -> Record:
        return self.entries[0].first

    @property
    def newest(self) -> str:
        return max(r.created for e in self.entries for r in e.records)


def average(values: Iterable[float | None]) -> float | None:
    known = list(values)
    return sum(v for v in known if v is not None) / len(known) if known and None not in known else None


def corruption(condition: str) -> str:
    """`noise:acc:3` -> `noise:acc`; what has one severity only is its own corruption."""
    return ":".join(condition.split(":")[:2])


def level(condition: str) -> int:
    """The severity; 1 where there is only one."""
    parts = condition.split(":")
    return int(parts[2]) if len(parts) > 2 else 1


def piles(records: Sequence[Record]) -> list[Pile]:
    """One pile a board, by benchmark, the newest first; what differs between boards of a benchmark is noted on each."""
    found: dict[str, dict[tuple[str, ...], list[Record]]] = defaultdict(lambda: defaultdict(list))
    for r in records:
        settings = json.dumps(r.run.hparams.get("benchmark", {}), sort_keys=True)
        identity = (str(r.protocol), r.data, r.code.get("benchmark", ""), settings, " ".join(r.metrics))
        found[r.run.benchmark][identity].append(r)
    result = []
    for benchmark in sorted(found):
        boards = [Pile(_entries(rows)) for rows in found[benchmark].values()]
        boards.sort(key=lambda p: p.newest, reverse=True)
        if len(boards) > 1:
            names = ("protocol", "data", "code of the benchmark", "settings of the benchmark", "metrics")
            differ = [n for n, c in zip(names, zip(*found[benchmark], strict=True), strict=True) if len(set(c)) > 1]
            for number, board in enumerate(boards):
                age = "the newest" if number == 0 else f"number {number + 1} by age"
                board.notes.append(
                    f"{benchmark} has {len(boards)} tables, which differ in {' and '.join(differ)}; this one is {age}. "
                    "Numbers of different tables are never averaged or compared."
                )
        result += boards
    return result


def _entries(records: Iterable[Record]) -> list[Entry]:
    rows: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for r in sorted(records, key=lambda r: (r.run.fold, r.run.seed)):
        rows[r.run.row, json.dumps(dict(r.code), sort_keys=True)].append(r)
    entries = [Entry(rows[key]) for key in sorted(rows)]
    _mark_stale(entries)
    _name(entries)
    return sorted(entries, key=lambda e: (e.label, e.stale))


def _mark_stale(entries: Sequence[Entry]) -> None:
    """Of each plugin the fingerprint of the newest record counts; rows with another one are of older code."""
    newest: dict[tuple[str, str], tuple[str, str]] = {}

    def plugins(r: Record) -> Iterable[tuple[tuple[str, str], str]]:
        for part, fingerprint in r.code.items():
            kind, _, modality = part.partition(".")
            yield (kind, r.run.backbones.get(modality, "") if modality else getattr(r.run, part, "")), fingerprint

    for entry in entries:
        for r in entry.records:
            for plugin, fingerprint in plugins(r):
                newest[plugin] = max(newest.get(plugin, ("", "")), (r.created, fingerprint))
    for entry in entries:
        if any(newest[plugin][1] != fingerprint for plugin, fingerprint in plugins(entry.first)):
            entry.stale = "older code"
    twins = defaultdict(list)
    for entry in entries:
        if not entry.stale:
            r = entry.first
            twins[r.run.fuser, r.run.tuned or tuple(r.changes), QUICK in entry.marks].append(entry)
    for same in twins.values():  # the same words, but a default has changed in between
        same.sort(key=lambda e: max(r.created for r in e.records))
        for entry in same[:-1]:
            entry.stale = "older defaults"


def _name(entries: Sequence[Entry]) -> None:
    """Short labels, unique among the rows of one code: the fuser and what differs from its defaults."""
    for entry in entries:
        entry.label = _label(entry.first, short=True)
    for same in _twins(entries):
        for entry in same:
            entry.label = _label(entry.first, short=False)
    for same in _twins(entries):
        for number, entry in enumerate(same[1:], 2):
            entry.label += f" #{number}"


def _twins(entries: Sequence[Entry]) -> list[list[Entry]]:
    groups = defaultdict(list)
    for entry in entries:
        groups[entry.label, entry.stale, QUICK in entry.marks].append(entry)
    return [same for same in groups.values() if len(same) > 1]


def _label(r: Record, short: bool) -> str:
    if r.run.tuned:  # its settings vary by fold
        return f"{r.run.fuser} (tuned)" if short else f"{r.run.fuser} (tuned: {r.run.tuned})"
    quick = {"quick", "steps", "interval", "lr"} if QUICK in r.marks else set()
    words = []
    for change in r.changes:
        part, _, rest = change.partition(".")
        if part == "benchmark" or (part == "train" and rest.partition("=")[0] in quick):
            continue  # the board's title says it, or the mark does
        words.append(rest.removeprefix("modality=") if short else change)
    return f"{r.run.fuser} ({', '.join(words)})" if words else r.run.fuser


def ranking_damage(entries: Sequence[Entry]) -> list[str]:
    """The conditions that the damaged score averages: those of the benchmark's own table.

    What was asked for besides must not move it. Records that do not say what the table is: those conditions that most
    of the rows that count have, without lattices of missing modalities (`missing:a+b`), which answer another question.
    """
    counting = [e for e in entries if e.ranked] or [e for e in entries if e.done]
    declared = {name for e in counting for r in e.used for name in r.table}
    if declared:
        return [c for c in dict.fromkeys(c for e in counting for c in e.conditions) if {c, corruption(c)} & declared]
    votes = Counter(c for e in counting for c in e.conditions)
    return [c for c, count in votes.items() if 2 * count > len(counting) and not is_lattice(c)]


def is_lattice(condition: str) -> bool:
    return condition.startswith("missing:") and "+" in condition


def families(conditions: Iterable[str]) -> dict[str, list[str]]:
    """Corruption -> its conditions by rising severity, in order of appearance."""
    found: dict[str, list[str]] = defaultdict(list)
    for condition in conditions:
        found[corruption(condition)].append(condition)
    return {name: sorted(levels, key=level) for name, levels in found.items()}

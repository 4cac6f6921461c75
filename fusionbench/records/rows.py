"""Records sorted into boards and rows: what may stand in one table, what a row is called, and what it lacks."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from fusionbench.conditions import Condition
from fusionbench.records import Record
from fusionbench.records.types import CHANCE, CLEAN, condition_of

#: The reference rows that the protocol names: one modality alone, the average of their answers, plain fusion; the last
#: is the one that all are compared with unless another is named beforehand.
ALONE, LATE, REFERENCE = "unimodal", "late_average", "concat"
#: One modality alone by a forest, which a fused network has to exceed as well.
ALONE_FOREST = "unimodal_forest"
#: What stands at 1 where data sets are put on one scale, chance at 0.
ANCHOR = "forest"
#: The setting of a fuser that looks at one modality.
MODALITY = "modality"
#: The reference row that sees nothing but the place in the recording, where samples have a time.
ORDER = "position"
QUICK = "quick"
#: The corruption that takes whole modalities away, every time; "absent" takes them at a rate.
MISSING, ABSENT = "missing", "absent"
#: The share of the training groups that is kept: the points of a learning curve differ in it.
SHARE = "train.groups"
#: Recipe settings that a quick try changes for everybody.
HURRIED = {"quick", "steps", "interval", "lr"}


#: Parts of a run whose changes stand in the title of its board, not in the name of its row.
OF_BOARD = ("benchmark", "partition")


@dataclass(eq=False)
class RowRecords:
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
    def quick(self) -> bool:
        return QUICK in self.marks

    @property
    def ranked(self) -> bool:
        return self.complete and not self.stale and not self.quick

    @property
    def lacks(self) -> str:
        """What keeps the row from being ranked, in words; empty if nothing does."""
        folds = len({r.run.fold for r in self.done})
        reasons = [self.stale] if self.stale else []
        if self.quick:
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
    def ensemble(self) -> int:
        """How many seeds an ensemble averages; 0 for a row of single models."""
        return len(self.first.run.ensemble)

    @property
    def setting(self) -> str:
        """What sets it apart from the table's own rows, so that it is compared with its like only; empty of those."""
        share = f"{self.share:g} of the groups" if self.share < 1 else ""
        return ", ".join(filter(None, [share, f"ensembles of {self.ensemble}" if self.ensemble else ""]))

    @property
    def share(self) -> float:
        """The share of the training groups that it learned from."""
        return float(self.first.run.hparams.get("train", {}).get("groups", 1.0))

    @property
    def kind(self) -> tuple[str, ...]:
        """The fuser and its settings but for `share`: rows of one kind are points of a learning curve."""
        changes = [str(change) for change in self.first.changed if change.flag != SHARE]
        return (self.first.run.fuser, self.first.run.tuned, *changes)

    @property
    def modality(self) -> str | None:
        """The one modality that the row looks at, else None: a fuser with a setting of that name sees no other."""
        settings = self.first.run.hparams.get("fuser", {})
        if MODALITY not in settings and self.first.run.fuser != ALONE:
            return None
        return settings.get(MODALITY) or next(iter(self.first.run.backbones), None)

    @property
    def fuses(self) -> bool:
        """Does it look at several modalities, rather than at one or at the position alone?"""
        return self.modality is None and self.first.run.fuser != ORDER

    @property
    def family(self) -> str:
        """The family of comparisons that the row belongs to; a new row moves nothing in another one."""
        if self.setting:
            return self.setting
        if not self.fuses:
            return "single modalities"
        if self.first.run.tuned:
            return "tuned rows"
        return "recipes" if any(change.part not in OF_BOARD for change in self.first.changed) else "default rows"

    @cached_property
    def spelled(self) -> dict[Condition, str]:
        """Condition -> how the records spell it; those that every run was evaluated on, in the order of the record."""
        shared = set.intersection(*(set(r.scores) for r in self.used)) if self.used else set()
        known = [c for c in (self.used[0].scores if self.used else ()) if c in shared and c not in (CLEAN, CHANCE)]
        return {condition_of(c): c for c in known}

    @property
    def conditions(self) -> list[Condition]:
        return list(self.spelled)

    def mean(self, condition: Condition | None, metric: str) -> float | None:
        """The mean over runs of a stored score (None: of the undamaged input); None if a run lacks it."""
        name = CLEAN if condition is None else self.spelled.get(condition, "")
        return average(r.scores.get(name, {}).get(metric) for r in self.used)

    def rate(self, condition: Condition) -> float | None:
        """The share of real steps that a condition took, mean over modalities and runs; None where none is stored."""
        name = self.spelled.get(condition, "")
        return average(average(r.rates.get(name, {}).values()) for r in self.used)


@dataclass(eq=False)
class BoardRecords:
    """The rows of one board, and what they have in common."""

    rows: list[RowRecords]
    notes: list[str] = field(default_factory=list)

    @property
    def first(self) -> Record:
        return self.rows[0].first

    @property
    def newest(self) -> str:
        return max(r.created for row in self.rows for r in row.records)


def average(values: Iterable[float | None]) -> float | None:
    known = list(values)
    return sum(v for v in known if v is not None) / len(known) if known and None not in known else None


def identity(r: Record) -> tuple[str, ...]:
    """What the numbers of one table have in common, but for the partition into folds."""
    settings = json.dumps(r.run.hparams.get("benchmark", {}), sort_keys=True)
    return str(r.protocol), r.data, r.code.get("benchmark", ""), settings, " ".join(r.metrics)


def boards(records: Sequence[Record]) -> list[BoardRecords]:
    """By benchmark, the newest board first; what differs between boards of a benchmark is noted on each."""
    found: dict[str, dict[tuple[str, ...], list[Record]]] = defaultdict(lambda: defaultdict(list))
    for r in records:
        found[r.run.benchmark][(*identity(r), r.run.partition)].append(r)
    result = []
    for benchmark in sorted(found):
        same = [BoardRecords(_rows(given)) for given in found[benchmark].values()]
        same.sort(key=lambda board: board.newest, reverse=True)
        if len(same) > 1:
            names = ("protocol", "data", "code of the benchmark", "settings of the benchmark", "metrics", "partition")
            differ = [n for n, c in zip(names, zip(*found[benchmark], strict=True), strict=True) if len(set(c)) > 1]
            for number, board in enumerate(same):
                age = "the newest" if number == 0 else f"number {number + 1} by age"
                board.notes.append(
                    f"{benchmark} has {len(same)} tables, which differ in {' and '.join(differ)}; this one is {age}. "
                    "Numbers of different tables are never averaged or compared."
                )
        result += same
    return result


def _rows(records: Iterable[Record]) -> list[RowRecords]:
    found: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for r in sorted(records, key=lambda r: (r.run.fold, r.run.seed)):
        found[r.run.row, json.dumps(dict(r.code), sort_keys=True)].append(r)
    rows = [RowRecords(found[key]) for key in sorted(found)]
    _mark_stale(rows)
    _name(rows)
    return sorted(rows, key=lambda row: (row.label, row.stale))


def plugins(r: Record) -> dict[tuple[str, str], str]:
    """(kind, name) of each plugin of a record -> the fingerprint of its code."""
    named = {"benchmark": ("benchmarks", r.run.benchmark), "fuser": ("fusers", r.run.fuser)}
    named |= {f"backbone.{modality}": ("backbones", name) for modality, name in r.run.backbones.items()}
    return {named[part]: fingerprint for part, fingerprint in r.code.items() if part in named}


def _mark_stale(rows: Sequence[RowRecords]) -> None:
    """Of each plugin the fingerprint of the newest record counts; rows with another one are of older code."""
    newest: dict[tuple[str, str], tuple[str, str]] = {}
    for row in rows:
        for r in row.records:
            for plugin, fingerprint in plugins(r).items():
                newest[plugin] = max(newest.get(plugin, ("", "")), (r.created, fingerprint))
    for row in rows:
        if any(newest[plugin][1] != fingerprint for plugin, fingerprint in plugins(row.first).items()):
            row.stale = "older code"
    known = {r.run.id: r for row in rows for r in row.records}
    for row in rows:
        members = [(known[run], then) for r in row.records for run, then in r.members.items() if run in known]
        if not row.stale and any(r.fingerprint != then for r, then in members):
            row.stale = "of older members"
    twins = defaultdict(list)
    for row in rows:
        if not row.stale:
            r = row.first
            twins[r.run.fuser, r.run.tuned or tuple(r.changes), tuple(r.run.ensemble), row.quick].append(row)
    for same in twins.values():  # the same words, but a default has changed in between
        same.sort(key=lambda row: max(r.created for r in row.records))
        for row in same[:-1]:
            row.stale = "older defaults"


def _name(rows: Sequence[RowRecords]) -> None:
    """Short labels, unique among the rows of one code: the fuser and what differs from its defaults."""
    for row in rows:
        row.label = _label(row.first, short=True)
    for same in _twins(rows):
        for row in same:
            row.label = _label(row.first, short=False)
    for same in _twins(rows):
        for number, row in enumerate(same[1:], 2):
            row.label += f" #{number}"


def _twins(rows: Sequence[RowRecords]) -> list[list[RowRecords]]:
    groups = defaultdict(list)
    for row in rows:
        groups[row.label, row.stale, row.quick].append(row)
    return [same for same in groups.values() if len(same) > 1]


def _label(r: Record, short: bool) -> str:
    words = []
    if r.run.ensemble:  # this and the share of the groups come first, for long names are cut at their end
        seeds = ", ".join(map(str, r.run.ensemble))
        words.append(f"ensemble of {len(r.run.ensemble)}" if short else f"ensemble of seeds {seeds}")
    if r.run.tuned:  # its settings vary by fold
        words.append("tuned" if short else f"tuned: {r.run.tuned}")
    for change in sorted(r.changed, key=lambda change: change.flag != SHARE):
        if change.part in OF_BOARD or (change.part == "train" and QUICK in r.marks and change.name in HURRIED):
            continue  # the board's title says it, or the mark does
        plain = short and change.part == "fuser" and change.name == MODALITY
        words.append(change.value if plain else change.short if short else str(change))
    return f"{r.run.fuser} ({', '.join(words)})" if words else r.run.fuser


def references(rows: Sequence[RowRecords], name: str) -> dict[str, str]:
    """Setting -> label of the row that the others of that setting are compared with, where it is there.

    The one that is called so, else the ranked row of that fuser that changes least.
    """
    found: dict[str, str] = {}
    for row in sorted(rows, key=lambda row: (row.label != name, len(row.first.changes))):
        if row.ranked and name in (row.label, row.first.run.fuser):
            found.setdefault(row.setting, row.label)
    return found


def ranking_damage(rows: Sequence[RowRecords]) -> list[Condition]:
    """The conditions that the damaged score averages: those of the benchmark's own table.

    What was asked for besides must not move it. Records that do not say what the table is: those conditions that most
    of the rows that count have, without lattices of missing modalities (`missing:a+b`), which answer another question.
    """
    counting = [row for row in rows if row.ranked] or [row for row in rows if row.done]
    declared = {condition_of(name) for row in counting for r in row.used for name in r.table}
    if declared:
        known = dict.fromkeys(c for row in counting for c in row.conditions)
        return [c for c in known if {c, c.family} & declared]
    votes = Counter(c for row in counting for c in row.conditions)
    return [c for c, count in votes.items() if 2 * count > len(counting) and not is_lattice(c)]


def is_lattice(condition: Condition) -> bool:
    """Does it take several modalities away at once?"""
    return condition.name == MISSING and len(condition.modalities) > 1

"""A comparison that trains seeds until a difference is settled: looks at 3, 5 and 10, planned beforehand."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fusionbench import metrics, stats, text
from fusionbench.errors import UsageError
from fusionbench.leaderboard.statistics import tables_of
from fusionbench.records import Record
from fusionbench.records.rows import REFERENCE, RowRecords, boards
from fusionbench.stats import Difference, Resolution, Table, Verdict
from fusionbench.stats.verdicts import MOST_SEEDS
from fusionbench.study import Study, plan_row

if TYPE_CHECKING:
    from fusionbench.harness import Setup
    from fusionbench.jobs import Plan

#: Seeds a side at each look.
LOOKS = (3, 5, 10)

Outcome = Literal["open", "settled", "hopeless", "undecided", "untested"]


@dataclass(frozen=True)
class Resolved:
    """What came of one row against the reference, on the clean score.

    Attributes:
        outcome: "settled" (better, worse, or at the last look equivalent within the target), "hopeless" (the groups
            alone forbid it, or it takes more than 1,000 seeds), "undecided" (after the last look), "untested"
            (`reason` says why).
        plan: from the pilot: what infinitely many seeds could settle, the looks and their levels; None without one.
        verdict: of the last look; None where nothing was looked at.
        groups: how many were tested; unit: what one is called.
        needed_groups: how many would find the target with the seeds of the last look; None where no number would do.
    """

    benchmark: str
    metric: str
    row: str
    reference: str
    target: float
    outcome: Outcome
    plan: Resolution | None = None
    verdict: Verdict | None = None
    reason: str = ""
    groups: int = 0
    unit: str = "group"
    needed_groups: int | None = None

    @property
    def sentence(self) -> str:
        """What was found, with a full stop."""
        percent = metrics.get(self.metric).percent
        if self.outcome == "untested":
            return f"{self.row} and {self.reference} are not tested: {self.reason}."
        if self.outcome == "hopeless" and self.plan is not None:
            most = f"with {text.counted(max(self.plan.looks), 'seed')}"
            way = f"{self.needed_groups:,} would do {most}" if self.needed_groups else f"nor would more do {most}"
            these, target = f"these {text.counted(self.groups, self.unit)}", text.short(self.target, percent)
            why = (
                f"whatever the seeds, {these} find a difference of {text.short(self.plan.limit, percent)}, not {target}"
            )
            if not self.plan.hopeless:
                why = f"with {these} a difference of {target} takes more than {MOST_SEEDS:,} seeds"
            return f"{self.row} against {self.reference} is hopeless: {why}; {way}."
        assert self.verdict is not None
        return f"{stats.describe(self.verdict, 100.0 if percent else 1.0)}."


@dataclass(eq=False)
class _Row:
    """A row of the study: its setup, and as it stands."""

    setup: Setup
    conditions: Sequence[str]
    key: str
    label: str
    family: str
    size: int
    state: Resolved


def resolve(
    study: Study,
    target: float,
    *,
    reference: str = REFERENCE,
    results: Path | str = "results",
    looks: Sequence[int] = LOOKS,
    level: float = 0.05,
    tell: Callable[[str], None] = print,
    device: str = "auto",
    jobs: int | None = None,
    cluster: str | None = None,
    stack: int | None = None,
    track: bool = True,
    track_artifacts: bool = False,
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
) -> list[Resolved]:
    """What `fusionbench compare --resolve` does, from Python: one outcome for each row but the reference.

    Each family of rows is tested at `level`, Bonferroni-corrected, over all looks together (O'Brien-Fleming). A row is
    trained on until it is settled, unless its family's typical variance says that the groups cannot show the target.
    Records are reused: the same call goes on where it stopped.

    Args:
        target: the difference that matters, in the metric's own units.
        reference: the label or the fuser that all are compared with, named beforehand.
        looks: seeds a side, rising; the first look is also the pilot, unless records of two seeds are there before it.
        tell: takes what is found, a line each; `say`: what is done.

    Raises:
        UsageError: the study names seeds or folds, is a quick try or has no reference; the target makes no sense.
    """
    looks = tuple(looks)
    _refuse(study, target, looks)
    how: dict[str, Any] = {
        "device": device, "jobs": jobs, "cluster": cluster, "stack": stack, "track": track,
        "track_artifacts": track_artifacts, "say": say,
    }  # fmt: skip
    found = []
    for benchmark in study.benchmarks:
        one = replace(study, benchmarks=[benchmark])
        found += _Question(one, target, reference, Path(results), looks, level, tell).answer(how)
    return found


def _refuse(study: Study, target: float, looks: Sequence[int]) -> None:
    if study.seeds is not None or study.folds is not None or study.quick:
        raise UsageError(
            f"to resolve a difference looks at {text.listed(map(str, looks))} seeds of every fold: leave seeds, folds "
            "and quick out"
        )
    if "train.groups" in study.cross or "groups" in study.train:
        raise UsageError("to resolve a difference takes every training group: leave --train.groups out")
    if study.ensemble:
        raise UsageError("to resolve a difference compares single models: ask for their ensemble afterwards")
    if not 0 < target < float("inf"):
        raise UsageError(f"a difference to resolve is a number above 0, not {target:g}")
    if len(looks) < 1 or min(looks) < 2 or list(looks) != sorted(set(looks)):
        raise UsageError(f"looks are rising numbers of seeds from 2 on, not {text.listed(map(str, looks))}")


class _Question:
    """One benchmark: which of the rows differ from the reference by the target?"""

    def __init__(
        self, study: Study, target: float, reference: str, results: Path, looks: tuple[int, ...], level: float,
        tell: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.study, self.target, self.reference, self.results = study, target, reference, results
        self.looks, self.level = looks, level
        self.tell = tell
        self.rows, self.base = self._rows()
        setup = self.base.setup
        self.benchmark, self.metric, self.unit = setup.benchmark_name, self.base.state.metric, setup.benchmark.unit
        self.declared = metrics.get(self.metric)
        if self.declared.percent and target >= 1:
            raise UsageError(
                f"a difference of {target:g} in {self.metric}, which ends at 1: say {target / 100:g}, or {target:g}%"
            )

    def answer(self, how: dict[str, Any]) -> list[Resolved]:
        """Looks until nothing is open."""
        from fusionbench.jobs import perform

        self._begin()
        for number, seeds in enumerate(self.looks, 1):
            plans = self._plans(seeds)
            if number == 1 and any(plan.todo for plan in plans):  # what is there may say that training is in vain
                self._foresee(self._tables([r for plan in plans for r in plan.done]), partly=False)
                self._give_up()
                plans = self._plans(seeds)
            if not self.open:
                break
            title = f"{self.benchmark}, look {number} of {len(self.looks)}"
            tables = self._tables(perform(plans, self.results, title, **how).records)
            self._foresee(tables, partly=True)
            self._look(number, seeds, tables)
            self._give_up()
        return [row.state for row in self.rows]

    @property
    def open(self) -> list[_Row]:
        return [row for row in self.rows if row.state.outcome == "open"]

    def _rows(self) -> tuple[list[_Row], _Row]:
        """The rows of the study but the reference, and the reference: of its fuser the row with the fewest changes."""
        from fusionbench import harness

        setups: dict[str, tuple[Setup, list[str]]] = {}
        blanks = []
        for setup, conditions in self.study.setups({}):
            tried = plan_row(setup, conditions, self.results, None, range(1), tuned=self.study.tuned)[0].setup
            run = tried.run(0, 0)
            setups[run.row] = setup, conditions
            blanks.append(replace(harness.blank(tried, run), changes=tried.changes))
        (board,) = boards(blanks)
        named = {row.first.run.row: row for row in board.rows}
        same = [row for row in board.rows if self.reference in (row.label, row.first.run.fuser)]
        if not same:
            raise UsageError(f"rows are compared with {self.reference}, which this study lacks: name it")
        base = min(same, key=lambda row: (row.label != self.reference, len(row.first.changes)))
        sizes = Counter(row.family for row in board.rows if row is not base)

        def made(key: str, row: RowRecords) -> _Row:
            first = row.first
            state = Resolved(first.run.benchmark, first.metrics[0], row.label, base.label, self.target, "open")
            return _Row(*setups[key], key, row.label, row.family, max(1, sizes[row.family]), state)

        rows = {key: made(key, named[key]) for key in setups}
        reference = rows.pop(base.first.run.row)
        if not rows:
            raise UsageError(f"{base.label} alone is compared with nothing: name another fuser")
        return list(rows.values()), reference

    def _plans(self, seeds: int) -> list[Plan]:
        """What is to do for a look: the reference and the rows that are open."""
        return [
            plan
            for row in (self.base, *self.open)
            for plan in plan_row(row.setup, row.conditions, self.results, None, range(seeds), tuned=self.study.tuned)
        ]

    def _tables(self, records: Sequence[Record]) -> dict[str, Table]:
        """Row -> its table, of those that have two seeds of every fold or more."""
        rows = [row for board in boards(records) for row in board.rows if len(row.seeds) > 1]
        found = {row.first.run.row: tables_of(row, self.results, self.metric)[0] for row in rows}
        return {key: table for key, table in found.items() if table is not None}

    def _difference(self, row: _Row, tables: dict[str, Table]) -> Difference | None:
        if row.key not in tables or self.base.key not in tables:
            return None
        return stats.difference(tables[row.key], tables[self.base.key])

    def _begin(self) -> None:
        sizes = ", ".join(f"{name} ({size})" for name, size in Counter(row.family for row in self.rows).items())
        self.tell(
            f"{self.benchmark}: is there a difference of {self._short(self.target)} to {self.base.label} in clean "
            f"{self.metric.replace('_', ' ')}? Looks at {text.listed(map(str, self.looks))} seeds, level "
            f"{self.level:g} over all of them, Bonferroni-corrected within each family: {sizes}."
        )

    def _foresee(self, tables: dict[str, Table], partly: bool) -> None:
        """Plans each family that has no plan yet from its typical variance: what could seeds settle?

        Args:
            partly: also a family of which some row has not two seeds.
        """
        for family in dict.fromkeys(row.family for row in self.open if row.state.plan is None):
            rows = [row for row in self.open if row.family == family]
            found = [d for row in rows if (d := self._difference(row, tables)) is not None]
            sources = stats.pooled(found)
            if sources is None or (len(found) < len(rows) and not partly):
                continue
            groups, size, last = found[0].groups, rows[0].size, self.looks[-1]
            plan = stats.resolve(sources, self.target, groups, self.looks, self.level, size)
            needed = stats.needed_groups(sources, self.target, last, self.level / size, groups)
            for row in rows:
                row.state = replace(row.state, plan=plan, groups=groups, unit=self.unit, needed_groups=needed)
            seeds, here = min(min(d.seeds) for d in found), text.counted(groups, self.unit)
            limit = f"infinitely many could settle a difference of {self._short(plan.limit)} with these {here}"
            if plan.limit == 0:
                limit = f"these {here} set no limit to what infinitely many could settle that would be visible yet"
            takes = f"; {text.counted(plan.seeds, 'seed')} would do" if plan.seeds else ""
            self.tell(
                f"{family.capitalize()}, by the first {seeds} seeds: {limit}, {last} find one of "
                f"{self._short(plan.detectable[last])}{takes}."
            )

    def _give_up(self) -> None:
        """Rows whose groups alone forbid the target, or that would take a thousand seeds, are open no more."""
        for row in self.open:
            if row.state.plan is not None and row.state.plan.seeds is None:
                row.state = replace(row.state, outcome="hopeless")

    def _look(self, number: int, seeds: int, tables: dict[str, Table]) -> None:
        """Tests the open rows; what is settled, at its end or broken is open no more."""
        for row in self.open:
            found, plan = self._difference(row, tables), row.state.plan
            lacking = [r.label for r in (self.base, row) if r.key not in tables or tables[r.key].seeds < seeds]
            if lacking or found is None or plan is None:
                reason = f"runs of {text.listed(lacking)} failed" if lacking or found is None else found.reason
                row.state = replace(row.state, outcome="untested", reason=reason)
                continue
            verdict = stats.at_look(
                row.label, self.base.label, found, plan, seeds, family=row.family, size=row.size, level=self.level,
                higher_is_better=self.declared.higher_is_better, unit=self.unit,
            )  # fmt: skip
            outcome: Outcome = "undecided" if seeds == self.looks[-1] else "open"
            if verdict.decision != "undecided":
                outcome = "untested" if verdict.decision == "untested" else "settled"
            row.state = replace(row.state, outcome=outcome, verdict=verdict, reason=verdict.reason)
            if outcome == "open" and verdict.difference is not None:
                self.tell(
                    f"{row.label}: open after look {number} of {len(self.looks)}, difference "
                    f"{text.gap(verdict.difference, self.declared.percent, signed=True)} by {seeds} seeds, "
                    f"p = {verdict.p:.2g} tested at {verdict.level:.2g}."
                )

    def _short(self, value: float) -> str:
        return text.short(value, self.declared.percent)

"""Before anything is trained: which true difference groups and seeds will find, from records that are there."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from fusionbench import metrics, stats, text
from fusionbench.conditions import Condition, families
from fusionbench.errors import UsageError, unknown
from fusionbench.leaderboard.reading import reading
from fusionbench.leaderboard.statistics import DAMAGED, SCORE, mean_table, tables_of
from fusionbench.records import Record
from fusionbench.records.rows import REFERENCE, RowRecords, boards, ranking_damage
from fusionbench.stats import Sources, Table
from fusionbench.stats.power import POWER
from fusionbench.stats.verdicts import MOST_GROUPS, MOST_SEEDS

#: Seeds a side that are looked at unless others are asked for.
SEEDS = (2, 3, 5, 10)


@dataclass(frozen=True)
class Outlook:
    """What so many groups and seeds will find; differences are in the metric's own units.

    Attributes:
        reference, rows: whose differences the variance is of, typical over the rows.
        groups, seeds: those of the records, the fewest seeds of a side; unit: what a group is called.
        size: comparisons in the family; each is tested at level / size.
        detectable: (groups, seeds) -> the true difference that is found with this power; limits: groups -> with any
            number of seeds.
        difference: the one that is asked about; needed_seeds: a side, on these groups; needed_groups: with these seeds;
            None where no number would do. found: how often these groups and seeds find it.
    """

    benchmark: str
    metric: str
    measure: str
    partition: str
    reference: str
    rows: tuple[str, ...]
    unit: str
    groups: int
    seeds: int
    level: float
    size: int
    power: float
    sources: Sources
    detectable: dict[tuple[int, int], float]
    limits: dict[int, float]
    difference: float | None = None
    needed_seeds: int | None = None
    needed_groups: int | None = None
    found: float | None = None

    @property
    def percent(self) -> bool:
        return metrics.get(self.metric).percent


def outlook(
    records: Iterable[Record],
    results: Path,
    *,
    rows: Sequence[str] = (),
    against: str = REFERENCE,
    measure: str = SCORE,
    difference: float | None = None,
    size: int | None = None,
    level: float = 0.05,
    power: float = POWER,
    groups: Sequence[int] = (),
    seeds: Sequence[int] = SEEDS,
    partition: str = "",
    spelled: str = "",
) -> Outlook:
    """What one more comparison on this benchmark will find.

    Args:
        records: of one benchmark; its newest table counts, and of a pilot two seeds of every fold do.
        rows: labels or fusers whose difference from the reference is planned for; all default rows unless given.
        measure: "score" (clean), or "damaged", the mean over the benchmark's damage.
        difference: in the metric's own units: how many seeds, or groups, does it take?
        size: comparisons in the family; as many as there are default rows beside the reference unless given.
        spelled: how a command names the benchmark, where it is given by path.
        groups: numbers of groups; half, once, twice and four times those of the records unless given.

    Raises:
        UsageError: records, a row or its seeds are lacking, a number makes no sense, or there is no variance.
    """
    _check(difference, size, level, power, groups, seeds)
    found = boards([r for r in records if r.run.partition == partition])
    if not found:
        where = f" with a partition {partition}" if partition else ""
        raise UsageError(f"there are no records{where} in {results}: {_pilot('BENCHMARK', partition)}")
    board, benchmark = found[0], spelled or found[0].first.run.benchmark
    metric = board.first.metrics[0]
    if difference is not None and metrics.get(metric).percent and difference >= 1:
        raise UsageError(
            f"a difference of {difference:g} in {metric}, which ends at 1: say {difference / 100:g}, or {difference:g}%"
        )
    usable = [row for row in board.rows if not row.stale and not row.quick and len(row.seeds) > 1]
    base = _row(usable, board.rows, against, benchmark)
    default = [row for row in usable if row.family == "default rows" and row is not base]
    others = [_row(usable, board.rows, name, benchmark) for name in rows] or default
    others = others or [row for row in usable if row is not base]
    if not others or base in others:
        raise UsageError(f"{base.label} stands alone on {benchmark}: {_pilot(benchmark, partition)}")
    damage = ranking_damage(board.rows) if measure == DAMAGED else []
    if measure == DAMAGED and not damage:
        raise UsageError(f"{benchmark} has no damage: leave --damaged out")
    tables = {row.label: _table(row, results, metric, damage) for row in [base, *others]}
    differences = [stats.difference(tables[row.label], tables[base.label]) for row in others]
    sources = stats.pooled(differences)
    if sources is None:
        raise UsageError(f"{others[0].label} and {base.label} cannot be compared: {differences[0].reason}")
    kept = [(row, d) for row, d in zip(others, differences, strict=True) if d.sources is not None]
    here, fewest = kept[0][1].groups, min(min(d.seeds) for _, d in kept)
    size = size or len(default) or len(others)
    groups = sorted(set(groups or (max(3, here // 2), here, 2 * here, 4 * here)))
    each, counts = level / size, sorted(set(seeds))
    planned = Outlook(
        benchmark=board.first.run.benchmark,
        metric=metric,
        measure=measure,
        partition=partition,
        reference=base.label,
        rows=tuple(row.label for row, _ in kept),
        unit=_unit(base, here, reading(board).unit),
        groups=here,
        seeds=fewest,
        level=level,
        size=size,
        power=power,
        sources=sources,
        detectable={(g, n): stats.detectable(sources, g, n, each, power) for g in groups for n in counts},
        limits={g: stats.detectable(sources, g, math.inf, each, power) for g in groups},
    )
    if difference is None:
        return planned
    return replace(
        planned,
        difference=difference,
        needed_seeds=stats.needed_seeds(sources, difference, here, each, power=power),
        needed_groups=stats.needed_groups(sources, difference, fewest, each, power=power),
        found=stats.power_of(sources, difference, here, fewest, each),
    )


def _check(
    difference: float | None, size: int | None, level: float, power: float, groups: Sequence[int], seeds: Sequence[int]
) -> None:
    for name, value in (("level", level), ("power", power)):
        if not 0 < value < 1:
            raise UsageError(f"a {name} lies between 0 and 1, not {value:g}")
    if difference is not None and not 0 < difference < math.inf:
        raise UsageError(f"a difference to be found is a number above 0, not {difference:g}")
    if size is not None and size < 1:
        raise UsageError(f"a family has 1 comparison or more, not {size}")
    for name, numbers, most in (("groups", groups, MOST_GROUPS), ("seeds", seeds, MOST_SEEDS)):
        for number in numbers:
            if not 2 <= number <= most:
                raise UsageError(f"a variance takes 2 to {most:,} {name}, not {number}")


def _pilot(benchmark: str, partition: str = "") -> str:
    dealt = f" --partition {partition}" if partition else ""
    return f"make a pilot of two seeds: fusionbench compare gated --benchmark {benchmark} --seeds 2{dealt}"


def _row(usable: Sequence[RowRecords], known: Sequence[RowRecords], name: str, benchmark: str) -> RowRecords:
    """The row of that label, else of that fuser with the fewest changes; it needs two seeds."""

    def called(rows: Sequence[RowRecords]) -> list[RowRecords]:
        same = [row for row in rows if name in (row.label, row.first.run.fuser)]
        return sorted(same, key=lambda row: (row.label != name, len(row.first.changes)))

    if same := called(usable):
        return same[0]
    if not (same := called(known)):
        raise unknown(f"row of {benchmark}", name, {row.label for row in known})
    row = same[0]
    what = row.stale or ("a quick try" if row.quick else f"{text.counted(len(row.seeds), 'seed')} with every fold")
    raise UsageError(
        f"{name} on {benchmark} is {what}, and variance takes two seeds: fusionbench run --benchmark {benchmark} "
        f"--fuser {row.first.run.fuser} --seeds 2"
    )


def _table(row: RowRecords, results: Path, metric: str, damage: Sequence[Condition]) -> Table:
    clean, conditions = tables_of(row, results, metric)
    if clean is None:
        raise UsageError(f"{row.label} has no usable stored answers in {results}: run it again")
    if not all(c in conditions for c in damage):
        raise UsageError(f"{row.label} was not evaluated under all of the damage: leave --damaged out, or run it again")
    return mean_table([[conditions[c] for c in same] for same in families(damage).values()]) if damage else clean


def _unit(row: RowRecords, groups: int, declared: str) -> str:
    tested = {r.run.fold: r.samples.get("test", 0) for r in row.records if r.run.seed == row.seeds[0]}
    return "sample" if sum(tested.values()) == groups else declared


# --------------------------------------------------------------------------------------------------------------- shown


def render(found: Outlook, fmt: str = "table", width: int | None = 80) -> str:
    """The outlook as text that fits the width, or as JSON; it ends with a line feed.

    Raises:
        UsageError: there is no such format.
    """
    if fmt not in FORMATS:
        raise unknown("format of a power table", fmt, FORMATS)
    return _json(found) if fmt == "json" else _text(found, width)


FORMATS = ("table", "json")


def _text(found: Outlook, width: int | None) -> str:
    from tabulate import tabulate

    def spelled(value: float) -> str:
        return "-" if value > (1 if found.percent else math.inf) else text.gap(value, found.percent)

    seeds = sorted({n for _, n in found.detectable})
    lines = [
        [
            f"{g:,}{' *' if g == found.groups else '  '}",
            *(spelled(found.detectable[g, n]) for n in seeds),
            spelled(most) if most else "?",
        ]
        for g, most in found.limits.items()
    ]
    head = [f"{text.plural(found.unit)}  ", *(f"{n} seeds" for n in seeds), "any number"]
    what = found.metric.replace("_", " ") + (" in %" if found.percent else "")
    table = tabulate(lines, head, disable_numparse=True, colalign=["right"] * len(head))
    rows = f"{found.rows[0]} against" if len(found.rows) == 1 else f"{len(found.rows)} rows against"
    where = f"{found.benchmark}{f' (partition {found.partition})' if found.partition else ''}"
    title = f"{where}: {'damaged ' if found.measure == DAMAGED else ''}{what}, {rows} {found.reference}"
    within = f" / {found.size} = {found.level / found.size:.2g}" if found.size > 1 else ""
    about = (
        f"The true difference that is found with power {found.power:g} at level {found.level:g}{within}, by "
        f"{text.plural(found.unit)} and seeds a side (*: as the records; -: none is):"
    )
    parts = [text.wrap(line, width, "  ") for line in (title, about)]
    return "\n".join([*parts, "", table, "", *(text.wrap(line, width, "  ") for line in sentences(found))]) + "\n"


def sentences(found: Outlook) -> list[str]:
    """What the variance is made of, and what a difference that is asked about takes."""

    def short(value: float) -> str:
        return text.short(value, found.percent)

    units, here = text.plural(found.unit), text.counted(found.groups, found.unit)
    people, seeds, rest = (
        math.sqrt(v) for v in (found.sources.people, sum(found.sources.seeds), sum(found.sources.residuals))
    )
    lines = [
        f"A difference of one seed a side has SD {short(people)} over {units}, {short(seeds)} over seeds and "
        f"{short(rest)} of a run on one {found.unit} beyond both."
    ]
    if found.seeds < 3:
        lines.append("From two seeds the variance over seeds is a rough guess: look again when there are three.")
    if found.sources.people == 0:
        lines.append(
            f"No variance over {units} is visible beyond that of runs: what any number finds is not known yet."
        )
    d = found.difference
    if d is None:
        example = "3%" if found.percent else "0.03"
        lines.append(f"How many seeds does a difference take that matters to you? --difference {example}")
    elif found.needed_seeds is not None:
        lines.append(
            f"A difference of {short(d)} takes {text.counted(found.needed_seeds, 'seed')} a side on these {here}; "
            f"{found.seeds} find it with power {found.found:.2f}."
        )
    else:
        limit = stats.detectable(found.sources, found.groups, math.inf, found.level / found.size, found.power)
        ways = (
            f"it takes {text.counted(found.needed_groups, found.unit)} with {found.seeds} seeds"
            if found.needed_groups is not None
            else f"more {units} alone would not do with {found.seeds} seeds either"
        )
        why = "" if limit <= d else f": with any number {short(limit)} is found"
        lines.append(f"No number of seeds finds a difference of {short(d)} on these {here}{why}; {ways}.")
    return lines


def _json(found: Outlook) -> str:
    def finite(value: float) -> float | None:
        return value if math.isfinite(value) else None

    content = asdict(found) | {
        "detectable": [
            {"groups": g, "seeds": n, "difference": finite(value)} for (g, n), value in found.detectable.items()
        ],
        "limits": [{"groups": g, "difference": finite(value)} for g, value in found.limits.items()],
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

"""Boards: the rows of one benchmark with every value that a table, a sentence or a figure shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from fusionbench import metrics, registry
from fusionbench.conditions import Condition, families
from fusionbench.errors import UsageError
from fusionbench.leaderboard.curves import LearningCurve, learning_curve
from fusionbench.leaderboard.reading import Reading, reading
from fusionbench.leaderboard.robustness import Robustness, robustness
from fusionbench.leaderboard.statistics import DAMAGED, SCORE, RowStatistics, Statistics, measured
from fusionbench.progress import Advance
from fusionbench.records import Record
from fusionbench.records.rows import (
    CHANCE,
    OF_BOARD,
    ORDER,
    REFERENCE,
    BoardRecords,
    RowRecords,
    average,
    plugins,
    ranking_damage,
    references,
)
from fusionbench.records.rows import boards as sorted_into_boards
from fusionbench.stats import Fusion, Place, Table, Verdict


@dataclass(frozen=True)
class Mark:
    """What a table says of a whole row by a sign after its name."""

    name: str
    sign: str
    meaning: str


#: By the name that records carry; the last two are found by comparison with a row and with the files that are here.
MARKS = {
    mark.name: mark
    for mark in (
        Mark("reconstruction", "†", "rebuilt from the publication without the authors' code"),
        Mark("transductive", "‡", "statistics of the test groups went into the features"),
        Mark("subject dependent", "§", "one group may stand on both sides of a split"),
        Mark("below the order", "¶", "below a model that sees nothing but the place in the recording"),
        Mark("other code", "°", "made by other code than what is here now: a new run makes another row"),
    )
}
BELOW_ORDER, OTHER_CODE = "below the order", "other code"


@dataclass(eq=False)
class Row:
    """One line of a table.

    Attributes:
        ranked: complete, of the newest code and not a quick try; the others stand apart, `lacks` says why.
        clean: the score on undamaged input; conditions: condition -> score; damaged: None where some of it is missing.
        costs: seconds, counts and sizes as the records name them: medians over runs, times of the board's device only.
        verdicts: measure ("score", "damaged") -> this row against the reference; over_chance: against chance.
        places: measure or corruption -> where it stands among the default rows.
    """

    records: RowRecords
    statistics: RowStatistics | None
    marks: list[Mark]
    clean: float | None = None
    conditions: dict[Condition, float | None] = field(default_factory=dict)
    damaged: float | None = None
    costs: dict[str, float | None] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    over_chance: dict[str, Verdict] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)
    robustness: Robustness = field(default_factory=Robustness)

    def __repr__(self) -> str:
        return f"Row({self.name})"

    @property
    def label(self) -> str:
        """Unique on its board among the rows of the newest code."""
        return self.records.label

    @property
    def fuser(self) -> str:
        return self.records.first.run.fuser

    @property
    def ranked(self) -> bool:
        return self.records.ranked

    @property
    def lacks(self) -> str:
        return self.records.lacks

    @property
    def runs(self) -> list[str]:
        """Ids of the runs behind the numbers."""
        return [r.run.id for r in self.records.used]

    @property
    def name(self) -> str:
        """The label with the signs of its marks and, in brackets, what keeps the row from being ranked."""
        return f"{self.label}{''.join(mark.sign for mark in self.marks)}" + (f" ({self.lacks})" if self.lacks else "")

    @property
    def each(self) -> dict[str, float | None]:
        """Group -> its own clean score; empty without evidence."""
        return self.statistics.each if self.statistics else {}

    @property
    def seeds(self) -> int:
        """Seeds of which every fold is done; of an incomplete row those that have begun."""
        return len(self.records.seeds) or len({r.run.seed for r in self.records.done})

    @property
    def folds(self) -> int:
        return len({r.run.fold for r in self.records.used})

    def score(self, measure: str) -> float | None:
        """The clean score or the damaged one."""
        return self.clean if measure == SCORE else self.damaged

    def bounds(self, measure: str) -> tuple[float | None, float | None]:
        """The 95 % interval of that score."""
        found = self.statistics and (self.statistics.score if measure == SCORE else self.statistics.damaged)
        return (found.low, found.high) if found else (None, None)


@dataclass(eq=False)
class Board:
    """One table: rows that were evaluated alike, and what their comparison rests on.

    Attributes:
        damage: the conditions that the damaged score averages.
        chance: the score of the better answer without input; noise: the SD over seeds of the reference.
        reference: the label of the row that the others are compared with; references: setting -> the same for rows
            that are compared with their like only, as ensembles are ("" for the table's own).
        groups: how many the test resamples; unit: what one is called; reads: what else the benchmark declares.
        fusion: does fusion help here? None where that cannot be asked.
        tables: measure, corruption or one missing modality -> label -> what a test over several boards needs.
        measure: what orders the rows: the damaged score where there is damage (protocol, section 4), else the clean.
        notes: whole sentences for below the table.
        curve: where rows were trained on several shares of the training groups.
    """

    benchmark: str
    title: str
    protocol: int
    data: str
    code: str
    metric: str
    metrics: list[str]
    modalities: list[str]
    damage: list[Condition]
    rows: list[Row]
    chance: float | None
    noise: float | None
    reference: str | None
    references: Mapping[str, str]
    groups: int
    unit: str
    reads: Reading
    fusion: Fusion | None
    tables: Mapping[str, Mapping[str, Table]]
    device: str
    pooled: bool
    measure: str = SCORE
    notes: list[str] = field(default_factory=list)
    curve: LearningCurve | None = None

    def __repr__(self) -> str:
        return f"Board({self.title}: {len(self.rows)} rows)"

    @property
    def percent(self) -> bool:
        return metrics.get(self.metric).percent

    @property
    def higher_is_better(self) -> bool:
        return metrics.get(self.metric).higher_is_better

    @property
    def sign(self) -> float:
        """1 where a higher score is better, else -1."""
        return 1.0 if self.higher_is_better else -1.0

    @property
    def batch(self) -> int:
        """The samples of the larger batch whose latency was measured."""
        return int(max((row.costs.get("batch") or 0 for row in self.rows), default=0))

    @property
    def ranked(self) -> list[Row]:
        """The ranked rows, best first."""
        return in_order([row for row in self.rows if row.ranked], self)

    @property
    def own(self) -> list[Row]:
        """The ranked rows that meet one another, best first: no ensembles, which are compared with their like only."""
        return [row for row in self.ranked if not row.records.setting]

    @property
    def detectable(self) -> float | None:
        """The difference from the reference that these groups and seeds show with power .8, typically (median)."""
        verdicts = [row.verdicts.get(self.measure) for row in self.own]
        known = [v.detectable for v in verdicts if v is not None and v.detectable is not None]
        return median(known) if known else None

    def row(self, label: str) -> Row:
        """The ranked row of that label."""
        return next(row for row in self.rows if row.label == label and row.ranked)


def in_order(rows: Iterable[Row], board: Board) -> list[Row]:
    """By the score that ranks, best first; undefined ones last."""

    def place(row: Row) -> tuple[bool, float, str]:
        value = row.score(board.measure)
        return value is None, -board.sign * (value or 0.0), row.label

    return sorted(rows, key=place)


#: (kind, name of a plugin) -> the fingerprint of the code that is here, None where there is none.
Here = Callable[[str, str], str | None]


def build(
    records: Iterable[Record],
    results: Path,
    *,
    reference: str = REFERENCE,
    here: Here | None = registry.fingerprint_here,
    advance: Advance = lambda done, total: None,
) -> list[Board]:
    """One board for all that may be compared: benchmark, its settings, code and data, and the protocol.

    Args:
        reference: the label or the fuser that all are compared with, named beforehand.
        here: rows of other code than it names are marked; None: no row is.
        advance: called with how far the statistics are, row by row.

    Raises:
        UsageError: there are no records.
    """
    known = list(records)
    if not known:
        raise UsageError(f"there are no records in {results}; make some: fusionbench run --fuser concat")
    return [_board(found, results, reference, here, advance) for found in sorted_into_boards(known)]


def _board(found: BoardRecords, results: Path, reference: str, here: Here | None, advance: Advance) -> Board:
    first = found.first
    metric, damage = first.metrics[0], ranking_damage(found.rows)
    bases = references(found.rows, reference)
    base = bases.get("")
    reads = reading(found)
    counting = [r for row in found.rows for r in row.used]
    chance = average(v for r in counting if (v := r.scores.get(CHANCE, {}).get(metric)) is not None)
    known = measured(found.rows, results, damage, bases, reads, chance, advance)
    devices = Counter(r.device for r in counting).most_common(1)
    device = devices[0][0] if devices else ""
    rows = [
        _row(records, known.rows.get(number), damage, device, metric, here) for number, records in enumerate(found.rows)
    ]
    board = Board(
        benchmark=first.run.benchmark,
        title=_title(found),
        protocol=first.protocol,
        data=first.data,
        code=first.code.get("benchmark", ""),
        metric=metric,
        metrics=list(first.metrics),
        modalities=list(first.run.backbones),
        damage=damage,
        rows=rows,
        chance=chance,
        noise=_noise(rows, base),
        reference=base,
        references=bases,
        groups=max((row.groups for row in known.rows.values()), default=0),
        unit=known.unit,
        reads=reads,
        fusion=known.fusion,
        tables=known.tables,
        device=device,
        pooled=any(row.records.folds_wanted > 1 for row in rows),
        measure=DAMAGED if any(row.ranked and row.damaged is not None for row in rows) else SCORE,
        notes=list(found.notes),
    )
    _compare(board, known)
    board.curve = learning_curve(board, results)
    return board


def _compare(board: Board, known: Statistics) -> None:
    """What a row is relative to the others: verdict, place, robustness, and is it below the clock?"""
    order = max(
        (board.sign * row.clean for row in board.rows if row.fuser == ORDER and row.ranked and row.clean is not None),
        default=None,
    )
    for row in board.rows:
        if order is not None and row.ranked and row.clean is not None and board.sign * row.clean < order:
            row.marks.append(MARKS[BELOW_ORDER])
    for row in board.rows:
        row.robustness = robustness(board, row)
        if row.ranked:
            row.verdicts = {m: found[row.label] for m, found in known.verdicts.items() if row.label in found}
            row.over_chance = {m: found[row.label] for m, found in known.over_chance.items() if row.label in found}
            row.places = {m: found[row.label] for m, found in known.places.items() if row.label in found}


def _title(found: BoardRecords) -> str:
    settings = [change for change in found.first.changed if change.part in OF_BOARD]
    words = ", ".join(change.short for change in settings)
    return found.first.run.benchmark + (f" ({words})" if words else "")


def _noise(rows: Sequence[Row], base: str | None) -> float | None:
    """The noise floor: the SD over seeds of the reference, or where there is none the median over rows."""
    known = {row.label: row.statistics.noise for row in rows if row.statistics and (row.ranked or base is None)}
    if base in known:
        return known[base]
    values = [noise for noise in known.values() if noise is not None]
    return median(values) if values else None


def _row(
    records: RowRecords,
    found: RowStatistics | None,
    damage: Sequence[Condition],
    device: str,
    metric: str,
    here: Here | None,
) -> Row:
    """Scores and costs of one row; without evidence scores are means over runs."""
    row = Row(records, found, _marks(records, here), records.mean(None, metric))
    row.conditions = {c: records.mean(c, metric) for c in records.conditions}
    if found is not None:
        row.clean = found.score.score
        row.conditions |= found.conditions
    if damage and all(c in row.conditions for c in damage):
        row.damaged = average(family_mean(row, levels) for levels in families(damage).values())
    row.costs = _costs(records.used, device)
    return row


def family_mean(row: Row, levels: Sequence[Condition]) -> float | None:
    """The mean over severities; None if one is not there."""
    return average(row.conditions.get(c) for c in levels)


def _marks(records: RowRecords, here: Here | None) -> list[Mark]:
    names = set(records.marks)
    now = {plugin: here(*plugin) if here else None for plugin in plugins(records.first)}
    different = any(now[plugin] not in (None, then) for plugin, then in plugins(records.first).items())
    if different and not records.stale:
        names.add(OTHER_CODE)
    return [mark for name, mark in MARKS.items() if name in names]


def _costs(used: Sequence[Record], device: str) -> dict[str, float | None]:
    """What was measured, medians over runs; a time or a size of another device does not count."""

    def typical(sources: Iterable[Mapping[str, float | None]], name: str) -> float | None:
        known = [value for costs in sources if (value := costs.get(name)) is not None]
        return median(known) if known else None

    found: dict[str, float | None] = {}
    for source in ("parameters", "costs", "seconds"):
        for name in {name for r in used for name in getattr(r, source)}:
            anywhere = source == "parameters" or name in ("flops", "batch")
            found[name] = typical([getattr(r, source) for r in used if anywhere or r.device == device], name)
    return found

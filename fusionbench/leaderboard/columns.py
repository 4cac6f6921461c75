"""The columns of a table, one declaration each: what every format, `--columns`, `--sort` and `--explain` come from.

A new statistic is one function of (board, row) and one entry in `COLUMNS`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fusionbench import metrics, text
from fusionbench.conditions import Condition, families
from fusionbench.errors import UsageError, unknown
from fusionbench.leaderboard.boards import Board, Row, family_mean, in_order
from fusionbench.leaderboard.robustness import regret
from fusionbench.leaderboard.statistics import DAMAGED, SCORE
from fusionbench.leaderboard.values import (
    Measured,
    adjusted,
    as_adjusted,
    as_break_even,
    as_change,
    as_difference,
    as_effects,
    as_gap,
    as_measured,
    as_place,
    as_rates,
    as_ratio,
    as_score,
    as_share,
    as_subset,
    as_worst,
    at_edge,
    break_even,
    cost,
    damaged_metric,
    measured,
    number,
    of_kind,
    of_verdict,
    over_chance,
    place_by,
    plain,
    rates_chosen,
    realised,
    robust,
    stacked,
    tuning,
    varies,
    verdict,
    within_margin,
    without_loss,
    worst_decile,
)
from fusionbench.records.rows import ABSENT, MISSING, is_lattice

#: Which way a column is better: its numbers up or down, as the board's metric says, or it is no matter of better.
Better = Literal["up", "down", "metric", None]
#: A column of this importance is never left out.
ALWAYS = 100
#: Groups of columns, in the order of a wide table; their names may stand for their columns.
GROUPS = {
    "summary": "where a row stands, and what it costs",
    "tests": "differences from the reference",
    "robustness": "what damage and absence do",
    "metrics": "the other metrics of the records",
    "people": "single groups, and what the score varies with",
    "cost": "sizes and times",
    "training": "how a row was trained",
    "rates": "what a condition really took",
}


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: its heading, and how `--columns` and `--sort` spell it.
        value: of a row; None where undefined.
        spell: the value as text.
        better: which way it is good.
        group: one of `GROUPS`.
        explain: what it says, in a sentence.
        default: how long it stays in a table that is too wide, `ALWAYS` the longest; None: only shown when asked for.
        short: a narrower spelling, for a table that is too wide; short_at: when, on the scale of `default`.
        left: is its text set to the left?
        undefined: what stands for None.
        asked: not even in a wide table unless it is named.
    """

    name: str
    value: Callable[[Board, Row], Any]
    spell: Callable[[Board, Any], str]
    better: Better
    group: str
    explain: str
    default: int | None = None
    short: Callable[[Board, Any], str] | None = None
    short_at: int = 0
    left: bool = False
    undefined: str = "-"
    asked: bool = False

    def cell(self, board: Board, value: Any, short: bool = False) -> str:
        """The text of a cell."""
        if value is None or value == "":
            return self.undefined
        return (self.short if short and self.short else self.spell)(board, value)

    def is_up(self, board: Board) -> bool | None:
        """Is more better? None where it is no matter of better."""
        if self.better == "metric":
            return board.higher_is_better
        return None if self.better is None else self.better == "up"


COLUMNS: tuple[Column, ...] = (
    Column("place", lambda board, row: row.places.get(board.measure), as_place, "down", "summary",
           "Where a default row stands by score: 1 + the rows surely better to all less those surely worse, from one "
           "family of all pairs of default rows; recipes, tuned rows and single modalities have none.", default=80),
    Column("fuser", lambda board, row: row.name, plain(str), None, "summary",
           "The method, and what differs from its defaults; signs and brackets are explained below the table.",
           default=ALWAYS, left=True),
    Column(SCORE, measured(SCORE), as_measured, "metric", "summary",
           "The score on undamaged input with its 95 % interval over groups and seeds.", default=ALWAYS,
           short=lambda board, value: as_score(board, value.value), short_at=70),
    Column(DAMAGED, measured(DAMAGED), as_measured, "metric", "summary",
           "The mean over the benchmark's corruptions of the mean over severities, with its 95 % interval; it ranks.",
           default=90, short=lambda board, value: as_score(board, value.value), short_at=40),
    Column("difference", verdict, as_difference, "metric", "summary",
           "The score that ranks minus that of the reference, and the verdict: better, worse or equivalent by the "
           "corrected test, else undecided (no significant difference).", default=95),
    Column("parameters", cost("trained"), plain(text.count), "down", "summary",
           "Trained parameters: those that received a gradient.", default=60),
    Column("seconds", cost("train"), plain(lambda v: f"{v:.3g}"), "down", "summary",
           "Seconds of training a run, all learning rates of its grid.", default=50),

    Column("family", lambda board, row: row.records.family, plain(str), None, "tests",
           "The family of comparisons that the row belongs to; each is corrected by itself.", left=True),
    Column("interval", adjusted, as_adjusted, None, "tests",
           "The interval of the difference, corrected for its family: what the verdict rests on."),
    Column("p", of_verdict("adjusted"), plain(text.p_value), "down", "tests",
           "The p of the difference, corrected by Holm within its family."),
    Column("p-folds", of_verdict("p_folds"), plain(text.p_value), "down", "tests",
           "The same from the folds' own scores by the corrected t-test, not corrected for the family."),
    Column("detectable", of_verdict("detectable"), as_gap, "down", "tests",
           "The true difference that these groups and seeds find with power .8 at the level that was tested."),
    Column("within-margin", within_margin, plain(str), None, "tests",
           "Is the difference shown to lie within the benchmark's margin? unattainable: of two equal rows these groups "
           "and seeds would not show it with power .8."),
    Column("over-chance", over_chance, as_difference, "metric", "tests",
           "The score minus chance (the better of a constant answer and guesses by frequency), and the verdict; all "
           "rows are one family."),
    Column("tier", lambda board, row: None if (found := row.places.get(board.measure)) is None else found.tier,
           plain(str), "down", "tests",
           "1: not significantly below the best default row; 2: not significantly below the best of the rest; ..."),

    Column("retained", robust("retained"), as_ratio, "up", "robustness",
           "The share of the gain over chance that is left under damage."),
    Column("drop", robust("drop"), as_gap, "down", "robustness", "Clean minus damaged score."),
    Column("worst", robust("worst"), as_worst, "metric", "robustness",
           "The lowest score over the benchmark's conditions, and where.", left=True),
    Column("rce", robust("relative"), as_ratio, "down", "robustness",
           "Relative corruption error: the loss under damage as a share of the reference's loss."),
    Column("rce-alone", robust("relative_alone"), as_ratio, "down", "robustness",
           "The loss as a share of what the damaged modality's own model loses."),
    Column("effective", robust("effective"), as_change, "up", "robustness",
           "Effective robustness: beyond what a better clean score than the reference's explains."),
    Column("break-even", break_even, as_break_even, None, "robustness",
           "Break-even severity: from there on the best model of an undamaged modality alone is better.", left=True),
    Column("no-loss", without_loss("equivalent", "undecided"), as_effects, None, "robustness",
           "Severities of the benchmark's corruptions that cost this row nothing: no significant loss against its own "
           "undamaged score, corrected over its conditions.", left=True),
    Column("helped", without_loss("better"), as_effects, None, "robustness",
           "Severities at which this row is significantly better than on undamaged input.", left=True),
    Column("worst-subset", robust("worst_subset"), as_subset, "metric", "robustness",
           "The lowest score over all subsets of present modalities, and which are present.", left=True),
    Column("spread", robust("spread"), as_gap, "down", "robustness",
           "The range of the score over which single modality is missing."),
    Column("over-rates", robust("over_rates"), as_score, "metric", "robustness",
           "The mean score over realised rates of absent modalities, by trapezoids."),
    Column("regret", regret, as_gap, "down", "robustness", "Best reachable score minus score, where it is known."),
    Column("regret-damaged", lambda board, row: regret(board, row, board.damage), as_gap, "down", "robustness",
           "The same under the damage whose best score is known."),

    Column("decile", worst_decile, as_score, "metric", "people", "The mean score of the worst tenth of the groups."),
    Column("hurt", robust("hurt"), as_share, "down", "people",
           "The share of groups that the best single modality serves better."),
    *(Column(f"sd-{shown}", varies(name), as_gap, None, "people",
             f"How much one group's share in the clean score varies with the {shown}, as a standard deviation.")
      for name, shown in (("seed", "seed"), ("fold", "fold"), ("person", "group"))),

    Column("allocated", cost("allocated"), plain(text.count), "down", "cost", "All parameters."),
    Column("flops", cost("flops"), plain(text.count), "down", "cost",
           "Floating-point operations of one sample's forward pass; n/a where the counter does not know one.",
           undefined="n/a"),
    Column("latency", cost("latency"), plain(text.cost), "down", "cost",
           "Milliseconds of a forward pass of one sample, median."),
    Column("latency-batch", cost("latency_batch"), plain(text.cost), "down", "cost",
           "Milliseconds of a forward pass of the largest batch, median."),
    Column("memory", cost("memory"), plain(text.memory), "down", "cost",
           "The peak of a training step: weights, optimiser, every live tensor."),

    Column("seeds", lambda board, row: row.seeds, plain(str), None, "training", "Seeds of which every fold is done."),
    Column("folds", lambda board, row: row.folds, plain(str), None, "training", "Folds that are done."),
    Column("failed", lambda board, row: row.records.failed, plain(str), None, "training", "Runs that failed."),
    Column("settings", tuning, plain(str), None, "training",
           "Searched on validation data, with the trials an outer fold, or the defaults."),
    Column("lr", rates_chosen, plain(str), None, "training",
           "Learning rates that validation chose, with the number of runs.", left=True),
    Column("edge", at_edge, plain(str), None, "training",
           "Runs whose learning rate is the least or the largest of the grid: a wider one might do better."),
    Column("stacked", stacked, plain(str), None, "training", "With how many other runs it was trained in one program."),
)  # fmt: skip

#: The two ways in which modalities go missing.
TAKEN = (
    f"{MISSING.capitalize()}: whole modalities taken from every sample. {ABSENT.capitalize()}: modalities taken sample "
    "by sample at a rate, at least one kept; the realised rate is stored."
)
#: Columns that depend on what the records hold: what `--explain` says of them.
MADE = {
    "a corruption (noise, gap, missing)": "The damaged score of that corruption alone, with its 95 % interval: the "
    "mean over its modalities of the mean over severities. It can order the table: --sort noise.",
    "a condition (noise:acc)": "The mean score over the severities of that corruption of those modalities.",
    "a metric (macro_f1, mae, ece)": "That metric on undamaged input, mean over runs.",
    "a metric-damaged (ece-damaged)": "The same as a damaged score.",
    "place:CORRUPTION (place:noise)": "Where a default row stands by the score under that corruption alone.",
    "rate:CONDITION (rate:absent:all)": "The realised share of real steps that the condition took, by severity.",
    "missing, absent": TAKEN,
}


def made(board: Board) -> Iterable[Column]:
    """The columns of what these records hold: corruptions, conditions, metrics, realised rates."""
    conditions = list(dict.fromkeys(c for row in board.rows for c in row.conditions))
    for name in dict.fromkeys(family.name for family in families(board.damage)):
        yield Column(name, of_kind(name), as_measured, "metric", "robustness", f"The damaged score of {name} alone.")
        yield Column(f"place:{name}", place_by(name), as_place, "down", "robustness",
                     f"Where a default row stands by the score under {name} alone.")  # fmt: skip
    rarely = rare(board)
    order = sorted(families(conditions).items(), key=lambda item: (is_lattice(item[0]), str(item[0])))
    for family, levels in order:
        yield Column(str(family), lambda board, row, levels=levels: family_mean(row, levels),  # type: ignore[misc]
                     as_score, "metric", "robustness", f"The mean score over the severities of {family}.",
                     asked=is_lattice(family) or family in rarely)  # fmt: skip
    for name in dict.fromkeys(m for row in board.rows for r in row.records.used for m in r.scores.get("clean", {})):
        yield from of_metric(name)
    for family, levels in order:
        yield Column(f"rate:{family}", lambda board, row, levels=levels: realised(row, levels), as_rates,  # type: ignore[misc]
                     None, "rates", f"The realised share of real steps that {family} took, by severity.",
                     asked=family not in families(board.damage))  # fmt: skip


def of_metric(name: str) -> Iterable[Column]:
    try:
        metric = metrics.get(name)
        better: Better = "up" if metric.higher_is_better else "down"
        percent = metric.percent
    except UsageError:  # records may hold a metric that is no longer here
        better, percent = None, False
    spell = plain(lambda value: text.score(value, percent))
    yield Column(name, lambda board, row: row.records.mean(None, name), spell, better, "metrics",
                 f"{name.replace('_', ' ')} on undamaged input, mean over runs.")  # fmt: skip
    yield Column(f"{name}-damaged", damaged_metric(name), spell, better, "metrics",
                 f"{name.replace('_', ' ')} as a damaged score.")  # fmt: skip


def known(board: Board) -> dict[str, Column]:
    """Every column that the board has values for, in order."""
    found = {column.name: column for column in made(board)} | {column.name: column for column in COLUMNS}
    groups = list(GROUPS)
    ordered = sorted(found.values(), key=lambda column: (groups.index(column.group), column not in COLUMNS))
    always = ("fuser", SCORE)
    return {
        c.name: c for c in ordered if c.name in always or any(c.value(board, row) is not None for row in board.rows)
    }


def rare(board: Board) -> list[Condition]:
    """The damage, beside the one that ranks, that fewer than half of the ranked rows were evaluated under."""
    ranked, ranking = [row for row in board.rows if row.ranked], families(board.damage)
    count = Counter(family for row in ranked for family in families(row.conditions))
    unusual = [f for f, n in count.items() if 2 * n < len(ranked) and f not in ranking and not is_lattice(f)]
    return sorted(unusual, key=str)


def chosen(board: Board, names: Sequence[str] | None = None, wide: bool = False) -> list[Column]:
    """The columns of these names, or of these groups, or "all"; without names the default ones, or a wide table's.

    Raises:
        UsageError: there is no such column.
    """
    columns = {column.name: column for column in COLUMNS} | known(board)  # one that is asked for may be empty
    if not names:
        columns = known(board)
        return [c for c in columns.values() if (wide and not c.asked) or c.default is not None]
    if list(names) == ["all"]:
        return list(known(board).values())
    wanted: list[str] = []
    for name in names:
        group = [c.name for c in known(board).values() if c.group == name and not c.asked]
        if name not in columns and not group:
            raise unknown(f"column of {board.benchmark}", name, columns)
        wanted += [name] if name in columns else group
    return [columns[name] for name in dict.fromkeys(["fuser", *wanted] if "fuser" not in wanted else wanted)]


def ordered(board: Board, sort: str | None = None) -> list[Row]:
    """The ranked rows by a column, best first (undefined last), then the others by label.

    Raises:
        UsageError: there is no such column, or it has no order.
    """
    others = [row for row in board.rows if not row.ranked]
    others.sort(key=lambda row: (bool(row.records.stale), row.label, row.lacks))
    ranked = [row for row in board.rows if row.ranked]
    if sort in (None, board.measure):
        return in_order(ranked, board) + others
    columns = known(board)
    if sort not in columns or (columns[sort].better is None and sort != "fuser"):
        sortable = [name for name, column in columns.items() if column.better is not None]
        raise unknown(f"column to sort {board.benchmark} by", sort or "", sortable)
    column = columns[sort]

    def place(row: Row) -> tuple[bool, float, str]:
        value = number(column.value(board, row))
        if not isinstance(value, int | float):
            return value is None, 0.0, row.label
        return False, -value if column.is_up(board) else value, row.label

    return sorted(ranked, key=place) + others


def constant(board: Board) -> dict[str, Any]:
    """Column -> value of chance, which damage does not move; empty where its score is not known."""
    if board.chance is None:
        return {}
    scores = Measured(board.chance, None, None)
    kinds = {family.name for family in families(board.damage)}
    conditions = {str(family) for row in board.rows for family in families(row.conditions)}
    return dict.fromkeys([SCORE, DAMAGED, *kinds], scores) | dict.fromkeys(conditions, board.chance)


def explain(width: int | None = None) -> str:
    """Every column in a sentence, by group, in lines of at most so many signs."""
    size = 2 + max(len(column.name) for column in COLUMNS)

    def said(name: str, sentence: str) -> str:
        return text.wrap(f"  {name:<{size}}  {sentence}", width, " " * (size + 4))

    head = "Columns, as --columns and --sort spell them; the name of a group stands for its columns. *: default."
    lines = [text.wrap(head, width)]
    for group, about in GROUPS.items():
        own = [column for column in COLUMNS if column.group == group]
        lines += ["", f"{group}: {about}"] if own else []
        lines += [said(f"{c.name}{' *' if c.default is not None else ''}", c.explain) for c in own]
    lines += [
        "",
        "and what the records hold:",
        *(text.wrap(f"  {n}: {about}", width, "    ") for n, about in MADE.items()),
    ]
    return "\n".join(lines)

"""The columns of a table: what each is called, how its numbers are printed, and which way they are good."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fusionbench.errors import unknown
from fusionbench.leaderboard.boards import Board, Row
from fusionbench.leaderboard.findings import DAMAGED, SCORE
from fusionbench.records.rows import families, is_lattice

MISSING = "-"


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: how `--columns` and `--sort` spell it.
        title: its heading.
        get: the value of a row, None where undefined.
        spell: the value as text.
        up: True if more is better, False if less is, None if it is no matter of better.
        help: what it says, in one sentence.
    """

    name: str
    title: str
    get: Callable[[Row], Any]
    spell: Callable[[Any], str]
    up: bool | None
    help: str


DEFAULT = "default"


def tuning(row: Row) -> str:
    """`6 trials`, or `default`."""
    trials, _, _ = row.entry.first.run.tuned.partition(" trials")
    return f"{trials} trials" if trials else DEFAULT


def known(board: Board, sort: str | None = None) -> dict[str, Column]:
    """Every column that the board has values for, in order; ranks are by the score that sorts, clean or damaged."""
    up = board.higher_is_better
    scale = 100.0 if board.percent else 1.0
    score = lambda v: spell_score(v, board.percent)  # noqa: E731
    rate = lambda v: f"{v:.2f}"  # noqa: E731

    def plain(name: str, title: str, spell: Callable[[Any], str], better: bool | None, text: str) -> Column:
        return Column(name, title, lambda row: row.values.get(name), spell, better, text)

    def measured(name: str, low: str, high: str) -> Callable[[Row], Any]:
        return lambda row: None if row.values.get(name) is None else tuple(row.values.get(n) for n in (name, low, high))

    def bounded(value: tuple[float, float | None, float | None]) -> str:
        middle, low, high = value
        return score(middle) + ("" if low is None or high is None else f" [{score(low)}, {score(high)}]")

    def spell_worst(value: tuple[float, str, int]) -> str:
        severity = f":{value[2]}" if f"{value[1]}:{value[2]}" in board.damage else ""
        return f"{score(value[0] if up else -value[0])} {value[1]}{severity}"

    def spell_subset(value: tuple[float, str]) -> str:
        return f"{score(value[0] if up else -value[0])} {value[1]}"

    measure = sort if sort in (SCORE, DAMAGED) else board.measure
    columns = [
        Column("rank", "#", lambda row: row.ranks.get(measure), str, False, "1 + how many rows beat it by the test"),
        Column("fuser", "fuser", lambda row: row.name, str, None, "the method, and what differs from its defaults"),
        Column(SCORE, f"{board.metric}{' %' if board.percent else ''}", measured(SCORE, "low", "high"), bounded, up,
               "the clean score with its 95 % interval"),
        Column(DAMAGED, "damaged", measured(DAMAGED, "damaged_low", "damaged_high"), bounded, up,
               "the mean over corruptions of the mean over severities, with its 95 % interval"),
    ]  # fmt: skip
    present = dict.fromkeys(c for row in board.rows for c in row.values if ":" in c)
    columns += [
        Column(c, c, lambda row, c=c: row.values.get(c), score, up,  # type: ignore[misc]
               f"the mean over the severities of {c}")
        for c in sorted(present, key=lambda c: (not c.startswith("missing"), is_lattice(c), c))
    ]  # fmt: skip
    columns += [
        plain("retained", "retained", rate, True, "the share of the gain over chance that is left under damage"),
        plain("drop", "drop", lambda v: f"{v * scale:.{1 if board.percent else 3}f}", False, "clean minus damaged"),
        Column("worst", "worst", lambda row: row.values.get("worst"), spell_worst, True,
               "the lowest score over corruptions and severities, and where"),
        plain("rce", "rCE", rate, False, f"the loss under damage as a share of the loss of {board.reference}"),
        plain("rce_alone", "rCE alone", rate, False,
              "the loss as a share of what the damaged modality's own model loses"),
        plain("effective", "effective", lambda v: f"{v * scale:+.{1 if board.percent else 3}f}", True,
              f"robustness beyond what a better clean score than that of {board.reference} explains"),
        plain("break_even", "switch off from", spell_break_even, None,
              "the severity from which the best model of an undamaged modality alone is better"),
        Column("worst_subset", "worst subset", lambda row: row.values.get("worst_subset"), spell_subset, up,
               "the lowest score over the whole lattice of present modalities, and which are present"),
        plain("spread", "spread", lambda v: f"{v * scale:.{1 if board.percent else 3}f}", False,
              "the range of the score over which single modality is missing"),
        plain("missingness", "over missing rates", lambda v: score(v if up else -v), up,
              "the mean score over rates of missing modalities, by trapezoids over the realised rates"),
        plain("gain", f"over {board.reference}", lambda v: f"{v * scale:+.{1 if board.percent else 3}f}", up,
              f"the difference from {board.reference}, the reference, in the score that ranks"),
        plain("p", "p", lambda v: f"{v:.2g}", False, "of that difference: sign-flip test, Holm-corrected"),
        plain("p_folds", "p, folds", lambda v: f"{v:.2g}", False,
              "of the difference of the folds' own scores: corrected t-test of Nadeau and Bengio, not Holm-corrected"),
        plain("decile", "worst decile", score, up, "the mean score of the worst tenth of the people"),
        plain("hurt", "hurt", lambda v: f"{100 * v:.0f} %", False,
              "the share of people whom the best single modality serves better"),
        plain("regret", "regret", lambda v: f"{v * scale:.{1 if board.percent else 3}f}", False,
              "best reachable score minus clean score"),
        plain("regret_damaged", "regret, damaged", lambda v: f"{v * scale:.{1 if board.percent else 3}f}", False,
              "the same under the damage whose best score is known"),
        plain("ece", "ECE", lambda v: f"{v:.3f}", False, "expected calibration error of the clean answers"),
        plain("ece_damaged", "ECE, damaged", lambda v: f"{v:.3f}", False, "the same under damage"),
        plain("brier", "Brier", lambda v: f"{v:.3f}", False, "squared distance of clean probabilities to the truth"),
        plain("brier_damaged", "Brier, damaged", lambda v: f"{v:.3f}", False, "the same under damage"),
        *(
            plain(f"sd_{name}", f"SD, {name}", lambda v: f"{v * scale:.{1 if board.percent else 3}f}", None,
                  f"how much one person's share in the clean score varies with the {name}, as a standard deviation")
            for name in ("seed", "fold", "person")
        ),
        plain("seeds", "seeds", str, None, "seeds of which every fold is done"),
        plain("folds", "folds", str, None, "folds that are done"),
        plain("failed", "failed", str, None, "runs that failed"),
        Column("tuning", "settings", tuning if any(tuning(row) != DEFAULT for row in board.rows) else lambda row: None,
               str, None, "searched on validation data, with its budget an outer fold, or the defaults"),
        plain("lr", "lr", str, None, "learning rates that validation chose, with the number of runs"),
        plain("trained", "trained", spell_count, False, "parameters that received a gradient"),
        plain("allocated", "parameters", spell_count, False, "all parameters"),
        plain("flops", "FLOPs", spell_count, False,
              "floating-point operations of one sample's forward pass; n/a where torch's counter does not know one"),
        plain("latency", "ms", spell_cost, False, "milliseconds of a forward pass of one sample, median"),
        plain("latency_batch", f"ms of {board.batch}", spell_cost, False, "the same of the largest batch"),
        plain("memory", "memory", lambda v: f"{v / 2**20:.3g} MB", False,
              "peak of a training step: weights, optimiser, every live tensor"),
        plain("seconds", "seconds", lambda v: f"{v:.3g}", False, "seconds of training a run, all learning rates"),
    ]  # fmt: skip
    own = {c.name for c in columns} | {"batch", "low", "high", "damaged_low", "damaged_high", "evaluate", "total"}
    extra = sorted({n for row in board.rows for n in row.values if n not in own and ":" not in n})
    columns += [plain(n, n.replace("_", " "), spell_cost, False, f"{n.replace('_', ' ')}, as measured") for n in extra]
    useful = {"rank", "fuser", SCORE}
    return {c.name: c for c in columns if c.name in useful or any(c.get(row) is not None for row in board.rows)}


def rare(board: Board) -> list[str]:
    """The damage, beside the one that ranks, that fewer than half of the ranked rows were judged under."""
    ranked = [row for row in board.rows if row.ranked]
    count = Counter(c for row in ranked for c, value in row.values.items() if ":" in c and value is not None)
    return sorted(
        c for c, n in count.items() if 2 * n < len(ranked) and c not in families(board.damage) and not is_lattice(c)
    )


def usual(board: Board) -> list[str]:
    """The columns of a table unless it is told which."""
    columns = known(board)
    hidden = {"drop", "worst", "rce_alone", "effective", "break_even", "decile", "hurt", "allocated", "failed", "lr"}
    hidden |= {
        "latency_batch",
        "batch",
        "gain",
        "p",
        "p_folds",
        "worst_subset",
        "spread",
        "missingness",
        "ece",
        "brier",
        "brier_damaged",
    }
    hidden |= {"sd_seed", "sd_fold", "sd_person", *rare(board)}
    wanted = [n for n in columns if n not in hidden and not is_lattice(n)]
    return [n for n in wanted if n != "folds" or any(row.values.get("folds", 1) > 1 for row in board.rows)]


def chosen(board: Board, names: Sequence[str] | None, sort: str | None = None) -> list[Column]:
    """The columns of these names, or the usual ones; `all` is every one.

    Raises:
        UsageError: there is no such column.
    """
    columns = known(board, sort)
    wanted = list(names) if names else usual(board)
    if wanted == ["all"]:
        return list(columns.values())
    for name in wanted:
        if name not in columns:
            raise unknown(f"column of {board.benchmark}", name, columns)
    return [columns[name] for name in dict.fromkeys(["fuser", *wanted] if "fuser" not in wanted else wanted)]


def ordered(board: Board, sort: str | None = None) -> list[Row]:
    """The ranked rows by a column, best first (undefined last), then the others by label.

    Raises:
        UsageError: there is no such column, or it has no order.
    """
    columns = known(board)
    name = sort or board.measure
    if name not in columns or (columns[name].up is None and name != "fuser"):
        raise unknown(f"column to sort {board.benchmark} by", name, [n for n, c in columns.items() if c.up is not None])
    column = columns[name]

    def place(row: Row) -> tuple[bool, float, str]:
        value = column.get(row)
        if isinstance(value, tuple):
            value = value[0]
        if value is None or isinstance(value, str | dict):
            return value is None, 0.0, row.label
        if name == "worst":  # already oriented
            return False, -value, row.label
        return False, -value if column.up else value, row.label

    ranked = sorted((row for row in board.rows if row.ranked), key=place)
    others = sorted(
        (row for row in board.rows if not row.ranked), key=lambda r: (bool(r.entry.stale), r.label, r.lacks)
    )
    return ranked + others


def chance_values(board: Board) -> dict[str, Any]:
    """The line of a constant answer: damage does not move it."""
    if board.chance is None:
        return {}
    damage = [c for c in known(board) if ":" in c]
    return {name: (board.chance, None, None) for name in (SCORE, DAMAGED)} | dict.fromkeys(damage, board.chance)


def cell(column: Column, value: Any) -> str:
    missing = "n/a" if column.name == "flops" else MISSING
    return missing if value is None or value == "" else column.spell(value)


def spell_score(value: float, percent: bool) -> str:
    return f"{100 * value:.1f}" if percent else f"{value:.3f}"


def spell_count(value: float) -> str:
    """1234567 -> 1.23M."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def spell_cost(value: float) -> str:
    return spell_count(value) if value >= 1000 else f"{value:.3g}"


def spell_break_even(found: dict[str, float | None]) -> str:
    said = {name: at for name, at in found.items() if at is not None}
    if not said:
        return MISSING
    finite = [f"{name}:{at:.0f}" for name, at in sorted(said.items()) if math.isfinite(at)]
    return " ".join(finite) or "never"

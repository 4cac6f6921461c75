"""What a reader must know to trust a table, in whole sentences: the same below every format."""

from __future__ import annotations

from fusionbench import text
from fusionbench.conditions import families
from fusionbench.leaderboard import columns as cols
from fusionbench.leaderboard import values
from fusionbench.leaderboard.boards import MARKS, Board
from fusionbench.leaderboard.statistics import DAMAGED
from fusionbench.records.rows import ABSENT, MISSING

GLOSSARY = "docs/glossary.md"
#: Where a reader of a page finds it.
GLOSSARY_NAME = "glossary"


def footnotes(board: Board) -> list[str]:
    """Everything that the numbers rest on."""
    return [*_origin(board), *_damage(board), *_tests(board), *_reading(board), *board.notes]


def _origin(board: Board) -> list[str]:
    """Protocol, data, seeds, folds and groups."""
    ranked = [row for row in board.rows if row.ranked]
    notes = [f"Protocol {board.protocol}, data {board.data}, code of the benchmark {board.code}."]
    if ranked:
        seeds, folds = ([getattr(row, name) for row in ranked] for name in ("seeds", "folds"))
        several = f"{text.span(folds)} folds, " if board.pooled else ""
        pooled = ", pooled over the folds of a seed" if board.pooled else ""
        groups = f", {text.counted(board.groups, board.unit)}" if board.groups else ""
        metric = board.metric + (" in %" if board.percent else "")
        notes.append(f"{text.span(seeds)} seeds, {several}{metric}{pooled} and averaged over seeds{groups}.")
    if any(row.statistics for row in board.rows):
        notes.append(
            f"Brackets: 95 % interval over {text.plural(board.unit)} and seeds, by the variance that tests differences."
        )
    untested = [row.label for row in ranked if row.statistics is None]
    if untested:
        names = ", ".join(untested)
        notes.append(f"No usable stored answers of {names}: scores are means over runs, with no interval or test.")
    return notes


def _damage(board: Board) -> list[str]:
    """What the damaged score averages, with its weights."""
    notes = []
    named = families(board.damage)
    if named:
        notes.append(
            f"Damaged: mean over {', '.join(map(str, named))}, each of weight 1/{len(named)} and averaged over its "
            f"severities; by corruption: --columns {','.join(dict.fromkeys(family.name for family in named))}."
        )
    if rare := cols.rare(board):
        names = ", ".join(map(str, rare))
        notes.append(f"Fewer than half of the rows were evaluated under {names}: a column only if asked for.")
    short = [row.label for row in board.rows if row.ranked and named and row.damaged is None]
    if short:
        notes.append(f"Not evaluated under all of this damage, and so without a damaged score: {', '.join(short)}.")
    names_of = {condition.name for row in board.rows for condition in row.conditions}
    if ABSENT in names_of:
        notes.append(
            f"{MISSING.capitalize()}: whole modalities taken from every sample. {ABSENT.capitalize()}: modalities "
            f"taken sample by sample at a rate, at least one kept; realised rates: --columns rate:{ABSENT}:all."
        )
    return notes


def _tests(board: Board) -> list[str]:
    """How rows are compared."""
    notes = []
    rows = [row for row in board.rows if row.ranked]
    word = "damaged" if board.measure == DAMAGED else "clean"
    if board.reference:
        floor = f"; its SD over seeds is {text.short(board.noise, board.percent)}" if board.noise is not None else ""
        reach = board.detectable
        seen = f"; typically a true difference of {text.short(reach, board.percent)} is found" if reach else ""
        notes.append(f"Reference, named beforehand: {board.reference}{floor}{seen}.")
    verdicts = [row.verdicts[board.measure] for row in rows if board.measure in row.verdicts]
    tested = {v.family: v.size for v in verdicts}
    if tested:
        given = verdicts[0].scope
        sizes = ", ".join(f"{name} ({size})" for name, size in tested.items())
        notes.append(
            f"Difference: in the {word} score; the verdict at .05 by a t test over {text.plural(board.unit)} and "
            f"seeds, {given}, Holm-corrected within each family: {sizes}."
        )
    placed = [row for row in rows if board.measure in row.places]
    if placed:
        notes.append(
            f"Place, by the {word} score: 1 + the rows surely better to {len(placed)} less those surely worse, among "
            f"the {len(placed)} default rows; other rows have none."
        )
    return notes


def _reading(board: Board) -> list[str]:
    """Tuning, undefined values, timings, marks."""
    rows, notes = board.rows, []
    ranked = [row for row in rows if row.ranked]
    budgets = {str(values.tuning(board, row)) for row in ranked if row.records.first.run.budget}
    if budgets:
        equal = "the same budget" if len(budgets) == 1 else "different budgets"
        notes.append(
            f"Tuned: settings searched on the validation data of each outer fold, {equal} "
            f"({', '.join(sorted(budgets))}). Where a tuned row meets one with default settings, the difference is "
            "also the tuning's."
        )
    if any(row.robustness.retained is None and row.damaged is not None for row in ranked):
        notes.append("Retained, drop and rce are left out where the clean score is within the seeds' noise of chance.")
    if any(row.costs.get("train") is not None for row in rows) and board.device:
        notes.append(f"Seconds and ms on {board.device}, medians; timings of other machines are left out.")
    present = {mark.name for row in rows for mark in row.marks}
    notes += [f"{mark.sign} {mark.name}: {mark.meaning}." for name, mark in MARKS.items() if name in present]
    if any(not row.ranked and not row.records.quick for row in rows):
        notes.append("Rows that are incomplete or of older code stand last and are not ranked.")
    return notes

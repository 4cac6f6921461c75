"""What a reader must know to trust a table, in whole sentences: the same below every format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from fusionbench import registry, text
from fusionbench.conditions import Condition, families
from fusionbench.leaderboard import columns as cols
from fusionbench.leaderboard import values
from fusionbench.leaderboard.boards import MARKS, Board
from fusionbench.leaderboard.sentences import best, over_chance
from fusionbench.leaderboard.statistics import DAMAGED, SCORE
from fusionbench.records.rows import ABSENT

GLOSSARY = "docs/glossary.md"
#: Where a reader of a page finds it.
GLOSSARY_NAME = "glossary"


def footnotes(board: Board) -> list[str]:
    """Everything that the numbers rest on."""
    return [*_origin(board), *_damage(board), *_tests(board), *_chance(board), *_reading(board), *board.notes]


def _several(numbers: Sequence[int], unit: str) -> str:
    """`1 seed`, `3-5 seeds`."""
    return f"{text.span(numbers)} {unit if set(numbers) == {1} else text.plural(unit)}"


def _origin(board: Board) -> list[str]:
    """Protocol, data, seeds, folds and groups."""
    ranked = [row for row in board.rows if row.ranked]
    notes = [f"Protocol {board.protocol}, data {board.data}, code of the benchmark {board.code}."]
    if ranked:
        seeds, folds = ([getattr(row, name) for row in board.own or ranked] for name in ("seeds", "folds"))
        several = f"{_several(folds, 'fold')}, " if board.pooled else ""
        pooled = ", pooled over the folds of a seed" if board.pooled else ""
        groups = f", {text.counted(board.groups, board.unit)}" if board.groups else ""
        metric = board.metric + (" in %" if board.percent else "")
        notes.append(f"{_several(seeds, 'seed')}, {several}{metric}{pooled} and averaged over seeds{groups}.")
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
        kinds = Counter(family.name for family in named)
        parts = f" ({', '.join(f'{name} {n}/{len(named)}' for name, n in kinds.items())})" if len(kinds) > 1 else ""
        notes.append(
            f"Damaged: mean over {', '.join(map(str, named))}, each of weight 1/{len(named)}{parts} and averaged over "
            f"its severities; each corruption by itself: --columns {','.join(kinds)}."
        )
        notes += _costless(board)
    if rare := cols.rare(board):
        names = ", ".join(map(str, rare))
        notes.append(f"Fewer than half of the rows were evaluated under {names}: a column only if asked for.")
    short = [row.label for row in board.rows if row.ranked and named and row.damaged is None]
    if short:
        notes.append(f"Not evaluated under all of this damage, and so without a damaged score: {', '.join(short)}.")
    if any(condition.name == ABSENT for row in board.rows for condition in row.conditions):
        notes.append(f"{cols.TAKEN} Realised rates: --columns rate:{ABSENT}:all.")
    return notes


def _costless(board: Board) -> list[str]:
    """Severities that cost no row anything that a test shows, and those that help one."""
    rows = [row for row in board.rows if row.ranked and row.statistics and row.records.fuses]
    decisions: dict[Condition, set[str]] = {}
    for row in rows:
        for condition, verdict in row.statistics.effects.items() if row.statistics else ():
            decisions.setdefault(condition, set()).add(verdict.decision)
    free = [c for c, found in decisions.items() if found <= {"equivalent", "undecided"}]
    helping = [c for c, found in decisions.items() if "better" in found]
    notes = []
    if free:
        notes.append(f"These cost no fused row significantly: {', '.join(map(str, free))}; by row: --columns no-loss.")
    if helping:
        names = ", ".join(map(str, helping))
        notes.append(f"These help some fused row significantly: {names}; by row: --columns helped.")
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
    notes += _margin(board)
    placed = [row for row in rows if board.measure in row.places]
    if placed:
        notes.append(
            f"Place, by the {word} score: 1 + the rows surely better to {len(placed)} less those surely worse, among "
            f"the {len(placed)} default rows; other rows have none."
        )
    return notes


def _margin(board: Board) -> list[str]:
    """What the benchmark calls too small to matter, and whether these groups could show it."""
    margin = board.reads.margin
    found = [v for row in board.ranked if (v := row.verdicts.get(board.measure)) and v.attainable is not None]
    if margin is None or not found:
        return []
    beyond = sum(not v.attainable and not v.equivalent for v in found)
    many = "all" if beyond == len(found) else f"{beyond} of {len(found)}"
    those = "comparisons" if len(found) > 1 else "comparison"
    note = f"Equivalent: within {text.short(margin, board.percent)}, the margin that the benchmark declares"
    note += "" if board.reads.frozen else " (named after these runs: such a verdict is post hoc)"
    if beyond:
        people = text.plural(board.unit)
        note += f"; unattainable with these {people} in {many} {those} (power below .8 if two rows were equal)"
    return [f"{note}."]


def _chance(board: Board) -> list[str]:
    """Said where some row does not beat chance."""
    tested = {row.label: v for row in board.ranked if (v := row.over_chance.get(SCORE)) and v.decision != "untested"}
    short = [label for label, v in tested.items() if v.decision != "better"]
    if not short:
        return []
    said = over_chance(board, SCORE)
    return [f"{said[0].upper()}{said[1:]}; not better: {', '.join(short)}."]


def _ceilings(board: Board) -> list[str]:
    """What the best row's regret is made of, where the benchmark, as it is here, names ceilings below its optimum."""
    same = board.title == board.benchmark and registry.fingerprint_here("benchmarks", board.benchmark) == board.code
    known, top = registry.ceilings(board.benchmark) if same else {}, best(board)
    if not known or top is None or top.clean is None:
        return []
    shown = text.listed(f"{name} {text.score(score, board.percent)}" for name, score in known.items())
    above = [name for name, score in known.items() if board.sign * (score - top.clean) > 0]
    below = [name for name in known if name not in above]
    place = f"above {below[-1]}" if below else f"below {above[0]}"
    if above and below:
        place += f" and below {above[0]}"
    return [
        f"Ceilings, the best clean score reachable with: {shown}. The best row, {top.label} "
        f"({text.score(top.clean, board.percent)}), is {place}."
    ]


def _reading(board: Board) -> list[str]:
    """Tuning, undefined values, timings, marks."""
    rows, notes = board.rows, []
    ranked = [row for row in rows if row.ranked]
    if shares := sorted({row.records.share for row in ranked if row.records.share < 1}):
        notes.append(
            f"groups={text.listed(f'{share:g}' for share in shares)}: learned from that share of the training "
            f"{text.plural(board.unit)}, other ones for each seed; compared with rows of the same share only."
        )
    if ensembles := [row for row in ranked if row.records.ensemble]:
        sizes = text.span([row.records.ensemble for row in ensembles])
        notes.append(
            f"Ensemble of n: the mean answer of a row's n seeds ({sizes} here), all of which meet the same damage; its "
            f"parameters and times are the sums of its members'. It is one predictor, so its interval is over "
            f"{text.plural(board.unit)} alone, and it is compared with ensembles only."
        )
    budgets = {str(values.tuning(board, row)) for row in ranked if row.records.first.run.budget}
    if budgets:
        equal = "the same budget" if len(budgets) == 1 else "different budgets"
        notes.append(
            f"Tuned: settings searched on the validation data of each outer fold, {equal} "
            f"({', '.join(sorted(budgets))}). Where a tuned row meets one with default settings, the difference is "
            "also the tuning's."
        )
    notes += _ceilings(board)
    edges = {row.label: [e for r in row.records.used if (e := r.at_edge) is not None] for row in ranked}
    if often := [label for label, found in edges.items() if 2 * sum(found) > len(found)]:
        notes.append(
            f"Learning rate at an edge of the grid in most runs of {', '.join(often)}: another might do better; in how "
            "many: --columns edge."
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

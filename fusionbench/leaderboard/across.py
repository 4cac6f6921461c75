"""Many data sets: which method is best over all of them, and what so few sets can say at all.

Sets of different roles (headline, recipe development, synthetic) are never averaged, nor are protocols. The two primary
conditions are the clean input and one missing modality; damage is not averaged over sets, whose ladders differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fusionbench import stats, text
from fusionbench.errors import UsageError
from fusionbench.leaderboard.boards import Board
from fusionbench.leaderboard.statistics import ONE_MISSING, SCORE
from fusionbench.records.rows import ANCHOR, REFERENCE
from fusionbench.stats import Across, Beats, DataSet, Standing

#: What may be averaged together, in the order in which it is shown, and how it is called.
ROLES = {
    "headline": "Headline sets (no choice has seen them)",
    "development": "Recipe-development sets (recipes were chosen on them)",
    "synthetic": "Synthetic sets",
}
CONDITIONS = {SCORE: "clean", ONE_MISSING: ONE_MISSING}
LEVEL = 0.05


@dataclass(frozen=True)
class Line:
    """One method over the sets; `beats` and `against` are of it and the control, None for the control itself."""

    method: str
    standing: Standing
    beats: Beats | None
    against: Across | None


@dataclass(frozen=True)
class Overview:
    """The methods over the data sets of one role under one condition, best mean rank first.

    Attributes:
        sets: domain -> the names of its sets.
        notes: whole sentences for below the table.
    """

    role: str
    condition: str
    control: str
    sets: dict[str, list[str]]
    lines: list[Line]
    notes: list[str]

    @property
    def title(self) -> str:
        return f"{ROLES[self.role]}, {CONDITIONS[self.condition]}"


def overviews(
    boards: Sequence[Board], control: str = REFERENCE, rivals: Sequence[str] = ()
) -> tuple[list[Overview], list[str]]:
    """The overviews that two sets or more allow, and what was left out, in sentences.

    Args:
        control: the method, named beforehand, that the others are tested against; rivals: those that are tested, in
            one family; by default all.

    Raises:
        UsageError: no set has the control, or one of the rivals.
    """
    newest, notes = of_newest(boards)
    methods = {label for board in newest for label in board.tables[SCORE]}
    for name in (control, *rivals):
        if name not in methods:
            raise UsageError(f"{name} is a complete row of no benchmark: fusionbench compare {name} -b NAME")
    if exhibits := [board.benchmark for board in newest if board.reads.role not in ROLES]:
        notes.append(f"Exhibits count nowhere: {', '.join(exhibits)}.")
    found = []
    for role in ROLES:
        same = [board for board in newest if board.reads.role == role]
        if len(same) == 1:
            notes.append(
                f"{ROLES[role]}: {same[0].benchmark} alone, which says nothing of a second one; see its table."
            )
        for condition in CONDITIONS if len(same) > 1 else ():
            overview = _overview(role, condition, same, control, rivals)
            notes += [overview] if isinstance(overview, str) else []
            found += [overview] if isinstance(overview, Overview) else []
    return found, notes


def of_newest(boards: Sequence[Board]) -> tuple[list[Board], list[str]]:
    """One board a benchmark: with its default settings, the newest, of the newest protocol."""
    plain = [board for board in boards if board.title == board.benchmark and board.ranked]
    protocol = max((board.protocol for board in plain), default=0)
    kept: dict[str, Board] = {}
    for board in plain:  # of one benchmark the newest first
        if board.protocol == protocol:
            kept.setdefault(board.benchmark, board)
    older = sorted({board.benchmark for board in plain} - set(kept))
    notes = [f"Of an older protocol than {protocol}, and so left out: {', '.join(older)}."] if older else []
    return list(kept.values()), notes


def _data_set(board: Board, condition: str) -> DataSet | None:
    """The default rows of a board; None without a chance level, or without any row under this condition."""
    default = {row.label for row in board.ranked if row.records.family == "default rows"}
    known = {n: t for n, t in board.tables.get(condition, {}).items() if n in default}
    rows = {n: t for n, t in known.items() if stats.score(t, board.metric) is not None}
    if not rows or board.chance is None:
        return None
    forest = stats.score(board.tables[SCORE][ANCHOR], board.metric) if ANCHOR in board.tables[SCORE] else None
    if forest is not None and board.sign * (forest - board.chance) <= 0:
        forest = None  # no anchor
    return DataSet(
        board.benchmark, board.reads.domain, rows, board.chance, forest, board.higher_is_better, board.reads.role
    )


def _overview(
    role: str, condition: str, boards: Sequence[Board], control: str, rivals: Sequence[str]
) -> Overview | str:
    """The overview, or why there is none."""
    every = {board.benchmark: _data_set(board, condition) for board in boards}
    sets = [found for found in every.values() if found is not None]
    title = f"{ROLES[role]}, {CONDITIONS[condition]}"
    lacking = [name for name, found in every.items() if found is None]
    common = [n for n in (sets[0].rows if sets else ()) if all(n in s.rows for s in sets)]
    if len(sets) < 2 or control not in common:
        why = f"{control} is not on every set" if len(sets) > 1 else f"{', '.join(lacking)} has no row under it"
        return f"{title}: not compared, since {why}."
    tested = [n for n in common if n != control and (not rivals or n in rivals)]
    against = stats.against_control(sets, control, tested, LEVEL) if tested else {}
    lines = [
        Line(n, standing, None if n == control else stats.beats(sets, n, control), against.get(n))
        for n, standing in stats.standings(sets).items()
    ]
    domains: dict[str, list[str]] = {}
    for s in sets:
        domains.setdefault(s.domain, []).append(s.name)
    notes = [*_about(sets, domains), *_power(sets, control, against)]
    if lacking:
        notes.append(f"Without a row under this condition, and so left out: {', '.join(lacking)}.")
    absent = sorted({n for s in sets for n in s.rows} - set(common))
    if absent:
        notes.append(f"Not on every set, and so not here: {', '.join(absent)}.")
    return Overview(role, condition, control, domains, lines, notes)


def _about(sets: Sequence[DataSet], domains: dict[str, list[str]]) -> list[str]:
    named = "; ".join(f"{domain}: {', '.join(names)}" for domain, names in domains.items())
    size = f"{text.counted(len(sets), 'set')} in {text.counted(len(domains), 'domain')} ({named})"
    notes = [
        f"{size}; domains weigh the same, and so do the sets of one.",
        "Mean rank: 1 the best; brackets: 95 % over resampled domains, sets and groups.",
        "Improvable: the share of the way from chance to the best row that is missing; it moves with the best row.",
    ]
    bare = [s.name for s in sets if s.forest is None]
    if bare:
        notes.append(
            f"Chance to {ANCHOR} (0 to 1) takes a {ANCHOR} on every set; there is none on {', '.join(bare)}: "
            f"fusionbench compare {ANCHOR} -b NAME"
        )
    else:
        notes.append(f"Chance to {ANCHOR}: 0 chance, 1 the undamaged {ANCHOR}; a new row moves nothing there.")
    return notes


def _power(sets: Sequence[DataSet], control: str, against: dict[str, Across]) -> list[str]:
    """What so many sets can show."""
    number, rivals = len(sets), len(against)
    notes = [f"Beats {control}: the probability on a new set of this kind, from a Beta distribution, uniform at first."]
    reasons = {a.reason for a in against.values() if a.reason}
    needed = next(n for n in range(1, 100) if stats.smallest_p(n) * rivals < LEVEL) if rivals else 0
    for reason in sorted(reasons):
        more = f"; {text.counted(rivals, 'rival')} take {needed} sets" if needed > number else ""
        notes.append(f"Nothing is tested over sets: {reason}{more}.")
    if against and not reasons:
        notes.append(
            f"Difference: from chance to {ANCHOR}, by a signed-rank test over {number} sets, Holm-corrected over "
            f"{text.counted(rivals, 'rival')}."
        )
    if number < stats.FEWEST:
        notes.append(f"A critical difference of ranks takes {stats.FEWEST} sets; there are {number}.")
    else:
        found = stats.ranks_differ(sets)
        p = f"Friedman p {text.p_value(found.p)}"
        notes.append(f"Critical difference (Nemenyi): ranks that are {found.width:.1f} apart differ; {p}.")
    return notes


# Columns, the most important first: what is too wide loses the last of them.


def _rank(line: Line) -> str:
    return f"{line.standing.rank:.1f} [{line.standing.low:.1f}, {line.standing.high:.1f}]"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def _beats(line: Line) -> str:
    return "-" if line.beats is None else f"{line.beats.probability:.2f} [{line.beats.low:.2f}, {line.beats.high:.2f}]"


def _difference(line: Line) -> str:
    found = line.against
    if found is None:
        return "-"
    return found.decision if found.difference is None else f"{found.difference:+.2f} {found.decision}"


def _without(line: Line) -> str:
    ranks = line.standing.without.values()
    return f"{min(ranks):.1f}-{max(ranks):.1f}" if ranks else "-"


def columns(control: str) -> dict[str, Callable[[Line], str]]:
    """Heading -> the text of a cell."""
    return {
        "method": lambda line: line.method,
        "mean rank": _rank,
        f"beats {control}": _beats,
        "improvable": lambda line: _share(line.standing.improvability),
        f"chance to {ANCHOR}": lambda line: "-" if line.standing.position is None else f"{line.standing.position:.2f}",
        "difference": _difference,
        "a domain left out": _without,
    }


def cells(overview: Overview) -> tuple[list[str], list[list[str]]]:
    """Headings, and the cells of every line."""
    shown = columns(overview.control)
    return list(shown), [[cell(line) for cell in shown.values()] for line in overview.lines]


def raw(overview: Overview) -> list[dict[str, Any]]:
    """The numbers of every line, for a program."""
    lines = []
    for line in overview.lines:
        s, b, a = line.standing, line.beats, line.against
        lines.append({
            "role": overview.role, "condition": overview.condition, "sets": sum(map(len, overview.sets.values())),
            "method": line.method, "rank": s.rank, "rank-low": s.low, "rank-high": s.high, "anchored": s.position,
            "improvability": s.improvability, "control": overview.control, "beats": b and b.probability,
            "beats-low": b and b.low, "beats-high": b and b.high, "difference": a and a.difference,
            "p": a and a.adjusted, "decision": a and a.decision,
        })  # fmt: skip
    return lines

"""The headline sentences of a README: comparisons that were named in a file, over several benchmarks, as one family."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from fusionbench import stats
from fusionbench.errors import UsageError, unknown
from fusionbench.leaderboard.boards import Board
from fusionbench.leaderboard.sentences import WHERE, sentence
from fusionbench.leaderboard.statistics import ONE_MISSING, SCORE
from fusionbench.stats import Comparison, Table, Verdict

FILE = "headlines.toml"
#: What is said of sets that recipes were chosen on: a family of its own, and no headline.
DEVELOPMENT = "development.toml"
FAMILY, CLAIMS = "headlines", "claims"  # what a family is called in sentences: of that file, of any other
#: In place of two rows: what validation chooses of the fused rows, and of the single modalities.
FUSED, SINGLE = "fused", "single"
MEASURES = {**WHERE, ONE_MISSING: ONE_MISSING.capitalize()}


@dataclass(frozen=True)
class Claim:
    """A comparison that was named: row against another on one benchmark under one measure."""

    benchmark: str
    row: str
    against: str
    measure: str = SCORE


class Headline(NamedTuple):
    """A claim, its board, and the verdict on it within the family of all claims."""

    claim: Claim
    board: Board
    verdict: Verdict

    @property
    def sentence(self) -> str:
        """`watch, damaged: jmt is worse than ...`, with a full stop."""
        measure = MEASURES[self.claim.measure].lower()
        return f"{self.claim.benchmark}, {measure}: {sentence(self.board, self.verdict)}"


def family_of(path: Path) -> str:
    """What the claims of a file are called in sentences."""
    return FAMILY if path.name == FILE else CLAIMS


def read(path: Path) -> list[Claim]:
    """The claims in a file: tables `[[claim]]` with benchmark, row, against and, unless clean, measure.

    Raises:
        UsageError: there is no such file, or it says anything else.
    """
    if not path.is_file():
        raise UsageError(f"there is no {path}: it names the comparisons, as [[claim]] with benchmark, row and against")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: {' '.join(str(error).split())}") from None
    given = content.get("claim")
    if not isinstance(given, list) or not given or set(content) != {"claim"}:
        raise UsageError(f"{path}: a list of claims is one [[claim]] after the other, and nothing else")
    return [_claim(path, number, one) for number, one in enumerate(given, 1)]


def _claim(path: Path, number: int, given: Any) -> Claim:
    where = f"{path}: claim {number}"
    known = {"benchmark", "row", "against", "measure"}
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise UsageError(f"{where} is a table of words: {', '.join(sorted(known))}")
    for name in given:
        if name not in known:
            raise UsageError(f"{where}: {unknown('word of a claim', name, known)}")
    if lacking := sorted(known - {"measure"} - set(given)):
        raise UsageError(f"{where} lacks {' and '.join(lacking)}")
    if given.get("measure", SCORE) not in MEASURES:
        raise UsageError(f"{where}: {unknown('measure', given['measure'], MEASURES)}")
    if len({FUSED, SINGLE} & {given["row"], given["against"]}) == 1:
        raise UsageError(f"{where}: {FUSED!r} stands against {SINGLE!r}, and neither against anything else")
    return Claim(**given)


def headlines(boards: Sequence[Board], claims: Sequence[Claim], family: str = FAMILY) -> list[Headline]:
    """The verdict on every claim, all of them one family (Holm): whatever a README says of them holds together.

    Of the verdict in this family and the one in the family of the claim's own table the weaker stands, so that no
    headline says more than a table does.

    Raises:
        UsageError: a benchmark has no board, or a board no complete row of that name.
    """
    newest: dict[str, Board] = {}
    for board in boards:
        if board.title == board.benchmark:  # its own settings and partition
            newest.setdefault(board.benchmark, board)
    compared, owners = {}, {}
    for number, claim in enumerate(dict.fromkeys(claims)):
        if claim.benchmark not in newest:
            raise unknown("benchmark with a table", claim.benchmark, newest)
        board = newest[claim.benchmark]
        (a, left), (b, right) = (_side(board, claim, name) for name in (claim.row, claim.against))
        compared[str(number)] = Comparison(
            a, b, stats.difference(left, right), board.reads.margin, board.higher_is_better, board.unit
        )
        owners[str(number)] = (claim, board)
    verdicts = stats.one_family(compared, family)
    return [Headline(*owners[key], _weaker(verdict, *owners[key])) for key, verdict in verdicts.items()]


def _weaker(verdict: Verdict, claim: Claim, board: Board) -> Verdict:
    row = next((row for row in board.ranked if row.label == claim.row), None)
    own = row.verdicts.get(claim.measure) if row and claim.against == board.reference else None
    if own is None or own.adjusted is None or verdict.adjusted is None:
        return verdict
    if own.decision != verdict.decision and "undecided" in (own.decision, verdict.decision):
        return own if own.decision == "undecided" else verdict
    return own if own.adjusted > verdict.adjusted else verdict


def _side(board: Board, claim: Claim, name: str) -> tuple[str, Table]:
    """What one side of a claim is called, and its table."""
    if name in (FUSED, SINGLE):
        if board.fusion is None or claim.measure != SCORE:
            raise UsageError(
                f"{board.benchmark} has no {FUSED} and {SINGLE} rows chosen on validation, {claim.measure}"
            )
        choice = board.fusion.fused if name == FUSED else board.fusion.single
        return choice.name, choice.table
    there = board.tables.get(claim.measure, {})
    if name not in there:
        raise unknown(f"complete row of {board.benchmark} ({claim.measure})", name, there)
    return name, there[name]


def lines(found: Sequence[Headline]) -> list[str]:
    """The sentences, and what they rest on."""
    alike = [h.verdict for h in found if h.verdict.family in (FAMILY, CLAIMS)]
    tested = max((verdict.size for verdict in alike), default=0)
    note = f"All {len(found)} are one family, corrected together (Holm) at .05"
    own = len(found) > len(alike)
    note += "; where the family of a row's own table is stricter, its verdict stands" if own and tested else ""
    return [*(h.sentence for h in found), f"{note}."]

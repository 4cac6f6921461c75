"""The Python face: a comparison in one call, and its board as a value that shows itself in a notebook."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from fusionbench import leaderboard, study
from fusionbench.errors import UsageError, unknown
from fusionbench.leaderboard import Finding
from fusionbench.leaderboard.columns import chosen
from fusionbench.report.figures import draw
from fusionbench.text import counted

#: The columns of a board that a notebook shows; `to_frame` has all.
SHOWN = ("place", "fuser", "score", "damaged", "difference")
FIGURES = ("scores", "missing", "curves", "pareto", "shapley")


class Board(leaderboard.Board):
    """The table of one benchmark, its verdicts and its figures.

    In a notebook the last line `board` shows the table; `board.row("jmt")` is one of its rows, `board.ranked` all that
    are ranked, best first. Every attribute of `fusionbench.leaderboard.Board` is there.
    """

    @staticmethod
    def of(board: leaderboard.Board) -> Board:
        """The same board, with the methods of this class."""
        return Board(**{field.name: getattr(board, field.name) for field in fields(board)})

    def to_frame(self) -> Any:
        """A pandas table with one row a row and every column that has values: what `leaderboard --format csv` gives."""
        import pandas

        return pandas.read_csv(io.StringIO(leaderboard.render(self, "csv")))

    @property
    def verdicts(self) -> list[Finding]:
        """Every ranked row against the reference: (measure, verdict), best first.

        A verdict has `a`, `b`, `difference`, `low`, `high`, `adjusted` (the corrected p) and `decision`: better, worse,
        equivalent, undecided or untested.
        """
        return leaderboard.findings(self)

    @property
    def sentences(self) -> list[str]:
        """The verdicts in words, and whether fusion helps here."""
        return leaderboard.verdicts(self)

    def plot(self, kind: str = "scores") -> Any:
        """A figure of matplotlib: scores, missing, curves (score against severity), pareto or shapley.

        Raises:
            UsageError: there is no such figure, or the board has no data for it.
        """
        if kind not in FIGURES:
            raise unknown("figure of a board", kind, FIGURES)
        drawn = {picture.name.removeprefix("board-"): picture for picture in draw(self, "board", {})}
        if kind not in drawn:
            there = ", ".join(name for name in FIGURES if name in drawn) or "none"
            raise UsageError(f"this board has no data for the figure {kind}; it has: {there}")
        return drawn[kind].figure

    def _repr_html_(self) -> str:
        few = [name for name in SHOWN if name in {c.name for c in chosen(self)}]
        return leaderboard.render(self, "html", columns=few)

    def __repr__(self) -> str:
        rows = counted(len(self.rows), "row")
        best = f", best {self.ranked[0].label}" if self.ranked else ""
        return f"Board of {self.title}: {rows} by {self.metric}{best}"

    def __str__(self) -> str:
        return leaderboard.render(self)


def compare(asked: Any, data: str | Sequence[str] = "watch", **words: Any) -> Any:
    """What `fusionbench compare` does: runs what is missing, reuses what is there, and returns the board.

    Args:
        asked: names or paths of fusers; or a `Study`, which says everything.
        data: a benchmark by name or path, or what `from_arrays`, `from_frame` and `from_dataset` return.
        words: those of `Study` (seeds, folds, corruption, options, train, cross, references, quick, ...), and
            results, device, jobs, cluster, stack, track as of `fusionbench.run`.

    Returns:
        A `Board`; of several benchmarks, or of a `Study`, a list of them.

    Raises:
        UsageError: a name, an option or the data are wrong.
    """
    known = {field.name for field in fields(study.Study)} - {"fusers", "benchmarks"}
    said = {word: words.pop(word) for word in list(words) if word in known}
    for word in words:
        if word not in HOW:
            raise unknown("word of a comparison", word, [*known, *HOW])
    if isinstance(asked, study.Study):
        if said:
            raise UsageError(f"the study says what is compared: leave {', '.join(said)} to it")
        return [Board.of(board) for board in study.compare(asked, **words)]
    fusers, benchmarks = ([given] if isinstance(given, str) else list(given) for given in (asked, data))
    found = [Board.of(board) for board in study.compare(study.Study(fusers, benchmarks, **said), **words)]
    return found[0] if isinstance(data, str) and len(found) == 1 else found


#: How the work is done: arguments of `study.compare`.
HOW = ("results", "device", "jobs", "cluster", "stack", "track")

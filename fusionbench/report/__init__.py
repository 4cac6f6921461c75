"""Boards to one HTML page that opens from disk, with everything inside, or to a folder of pages; figures for papers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fusionbench.errors import UsageError
from fusionbench.leaderboard import Board
from fusionbench.progress import Advance
from fusionbench.records import store
from fusionbench.report import pages, site
from fusionbench.report.site import check as check_site

__all__ = ["check_site", "write", "write_figures", "write_site"]

#: (benchmark, fuser) -> outer fold -> Optuna study of its search.
Searches = Callable[[str, str], Mapping[int, Any]]


def write(
    boards: Sequence[Board], out: Path, *, results: Path | None = None, advance: Advance = lambda done, total: None
) -> list[Path]:
    """Writes the page; it appears whole or not at all.

    Args:
        results: where the records are: for subgroups, for audits and for the comparisons that were named beforehand.
        advance: called with how far it is.

    Raises:
        UsageError: the file cannot be written, or an audit cannot be read.
    """
    page = pages.single(boards, results, advance)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        store.write(out, lambda f: f.write(page.encode()))
    except OSError as error:
        raise UsageError(f"cannot write {error.filename or out}: {error.strerror or error}") from None
    return [out]


def write_site(
    boards: Sequence[Board], folder: Path, *, results: Path | None = None, advance: Advance = lambda done, total: None
) -> list[Path]:
    """Writes the same as a folder of pages: an index, a page a benchmark, a page a method; the paths written.

    Raises:
        UsageError: there is a folder that no build of ours made, it cannot be written, or an audit cannot be read.
    """
    return site.write(folder, pages.several(boards, results, advance))


def write_figures(
    boards: Sequence[Board], folder: Path, *, searches: Searches = lambda benchmark, fuser: {},
    advance: Advance = lambda done, total: None,
) -> list[Path]:  # fmt: skip
    """Every figure as PNG, SVG and PDF for papers, drawn by matplotlib; the paths written.

    Args:
        searches: the searches behind tuned rows; without them there is no figure of tuning.

    Raises:
        UsageError: a file cannot be written.
    """
    from fusionbench.report.figures import draw

    paths: list[Path] = []
    try:
        for number, (board, name) in enumerate(zip(boards, pages.anchors(boards), strict=True), 1):
            tuned = {row.fuser for row in board.ranked if row.records.first.run.budget}
            found = {fuser: searches(board.benchmark, fuser) for fuser in sorted(tuned)}
            paths += [path for picture in draw(board, name, found) for path in picture.save(folder)]
            advance(number, len(boards))
    except OSError as error:
        raise UsageError(f"cannot write {error.filename or folder}: {error.strerror or error}") from None
    return paths

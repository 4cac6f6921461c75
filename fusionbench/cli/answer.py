"""What `fusionbench run` ends with: your row among its references, as wide as the terminal."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path


def answer(results: Path, benchmark: str, runs: Collection[str]) -> str:
    """The answer to these runs from all records of their benchmark; empty if none of them left a record."""
    from fusionbench import leaderboard, progress, text
    from fusionbench.records import store

    records = list(store.load(results, benchmark))
    if not records:  # every run there has ever been broke off
        return ""
    with progress.bar("statistics") as advance:
        boards = leaderboard.build(records, results, advance=advance)
    return leaderboard.answer(boards, runs, text.terminal_width(), text.is_styled())

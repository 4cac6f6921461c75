"""Records to tables and plain sentences. No torch; the statistics are kept in a cache beside the results."""

from fusionbench.leaderboard.answer import answer
from fusionbench.leaderboard.boards import Board, Row, build
from fusionbench.leaderboard.columns import explain
from fusionbench.leaderboard.footnotes import footnotes
from fusionbench.leaderboard.rendering import FORMATS, View, render, render_all
from fusionbench.leaderboard.sentences import Finding, findings, helps, sentence, verdicts
from fusionbench.leaderboard.subgroups import by_subgroup

__all__ = [
    "FORMATS",
    "Board",
    "Finding",
    "Row",
    "View",
    "answer",
    "build",
    "by_subgroup",
    "explain",
    "findings",
    "footnotes",
    "helps",
    "render",
    "render_all",
    "sentence",
    "verdicts",
]

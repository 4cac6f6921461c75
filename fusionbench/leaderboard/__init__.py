"""Records to ranked tables and plain sentences. No torch; the statistics are kept in a cache beside the results."""

from fusionbench.leaderboard.boards import Board, Row, build
from fusionbench.leaderboard.rendering import FORMATS, footnotes, render, render_all
from fusionbench.leaderboard.sentences import helps, verdicts

__all__ = ["FORMATS", "Board", "Row", "build", "footnotes", "helps", "render", "render_all", "verdicts"]

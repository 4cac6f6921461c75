"""Records to tables and plain sentences. No torch."""

from fusionbench.leaderboard.across import Overview, overviews
from fusionbench.leaderboard.answer import answer
from fusionbench.leaderboard.boards import Board, Row, build
from fusionbench.leaderboard.claims import FILE as HEADLINES
from fusionbench.leaderboard.claims import Claim, Headline, family_of, headlines
from fusionbench.leaderboard.claims import lines as headline_sentences
from fusionbench.leaderboard.claims import read as read_claims
from fusionbench.leaderboard.columns import explain
from fusionbench.leaderboard.footnotes import footnotes
from fusionbench.leaderboard.overview import render as render_overviews
from fusionbench.leaderboard.rendering import FORMATS, View, render, render_all
from fusionbench.leaderboard.sentences import Finding, chance, findings, helps, sentence, verdicts
from fusionbench.leaderboard.subgroups import by_subgroup

__all__ = [
    "FORMATS",
    "HEADLINES",
    "Board",
    "Claim",
    "Finding",
    "Headline",
    "Overview",
    "Row",
    "View",
    "answer",
    "build",
    "by_subgroup",
    "chance",
    "explain",
    "family_of",
    "findings",
    "footnotes",
    "headline_sentences",
    "headlines",
    "helps",
    "overviews",
    "read_claims",
    "render",
    "render_all",
    "render_overviews",
    "sentence",
    "verdicts",
]

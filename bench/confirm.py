"""What became of the preregistered predictions: `python bench/confirm.py [--results results]`.

Reads the sets, the rule and what it predicts from `results/PREREGISTRATION.md`, and the boards from the published
records. A hit: the row with the best clean score is of the predicted family. Regret: the best clean score less that of
the row that a strategy takes, in the unit of the set's first metric: regrets of different sets are not added up.
Exploratory, and said so: the best row under damage.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from fusionbench import leaderboard
from fusionbench.leaderboard.boards import Board, Row
from fusionbench.leaderboard.statistics import DAMAGED, SCORE
from fusionbench.records import store

HERE = Path(__file__).parents[1] / "results"
FAMILIES = {
    "trees": ("forest", "late_forest", "boosting"),
    "joint networks": ("concat", "gated", "low_rank", "tensor_fusion", "moe"),
    "networks with attention": ("attention_pool", "transformer", "cross_attention", "jmt", "bottleneck", "simbamm"),
    "late average": ("late_average",),
    "linear": ("linear",),
}
#: What the rule takes, by the family that it predicts; and what never looks at a set.
TAKES = {"trees": "forest", "joint networks": "concat"}
ALWAYS = ("forest", "late_average")


@dataclass(frozen=True)
class Prediction:
    """One line of the preregistration's table."""

    benchmark: str
    per_column: str
    family: str


def predictions(text: str) -> list[Prediction]:
    """The table of the rule: set, training samples, columns, samples a column, predicted family."""
    lines = re.findall(r"^\| (\w+) \| [\d,]+ \| \d+ \| ([\d.]+) \| ([a-z ]+) \|$", text, re.MULTILINE)
    return [Prediction(*(cell.strip() for cell in line)) for line in lines]


def family_of(row: Row) -> str:
    """Of a row at its defaults; a single modality is one of its own."""
    if row.fuser.startswith("unimodal"):
        return "single modality"
    return next((family for family, names in FAMILIES.items() if row.label in names), "")


def named(board: Board) -> list[Row]:
    """The prespecified rows: complete and at their defaults."""
    return [row for row in board.ranked if family_of(row)]


def absent(board: Board) -> list[str]:
    """The prespecified rows that the board lacks, in the order of the families."""
    there = {row.label for row in named(board)}
    return [name for names in FAMILIES.values() for name in names if name not in there]


def leader(board: Board, measure: str) -> Row:
    rows = [row for row in named(board) if row.score(measure) is not None]
    sign = 1 if board.higher_is_better else -1
    return max(rows, key=lambda row: sign * (row.score(measure) or 0.0))


def regret(board: Board, label: str, measure: str = SCORE) -> float:
    """How much worse the row of that label is than the best one; never negative."""
    taken = next((row for row in named(board) if row.label == label), None)
    if taken is None:
        raise SystemExit(f"{board.title} has no complete row {label}: fusionbench compare {label} -b {board.title}")
    best, own = leader(board, measure).score(measure), taken.score(measure)
    assert best is not None
    assert own is not None
    return abs(best - own)


def spelled(row: Row, measure: str) -> str:
    values = (row.score(measure), *row.bounds(measure))
    score, low, high = ("n/a" if value is None else f"{value:.3f}" for value in values)
    return f"{row.label} {score} [{low}, {high}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=HERE)
    results = parser.parse_args().results
    foreseen = predictions((HERE / "PREREGISTRATION.md").read_text())
    rows, explored, lacking, hits = [], [], list[str](), 0
    for prediction in foreseen:
        name = prediction.benchmark
        boards = leaderboard.build(store.load(results, name), results)
        board = next((board for board in boards if board.title == name), None)
        if board is None:
            raise SystemExit(f"{results} has no board of {name}: fusionbench compare concat -b {name}")
        lacking += [f"{row} on {name}" for row in absent(board)]
        best = leader(board, SCORE)
        hit = family_of(best) == prediction.family
        hits += hit
        taken = {"rule": TAKES[prediction.family], **{always: always for always in ALWAYS}}
        regrets = [regret(board, label) for label in taken.values()]
        rows.append(
            [name, prediction.per_column, prediction.family, best.label, family_of(best), "hit" if hit else "miss"]
            + [f"{value:.3f}" for value in regrets]
        )
        damaged = leader(board, DAMAGED)
        explored.append([name, board.metric, spelled(best, SCORE), spelled(damaged, DAMAGED)])
    head = ["set", "samples a column", "predicted", "best clean", "its family", "rule",
            "regret: rule", *(f"always {name}" for name in ALWAYS)]  # fmt: skip
    print(tabulate(rows, head, tablefmt="github", disable_numparse=True))
    print(f"\n{hits} of {len(foreseen)} predictions hit.")
    print(f"Rows that were named beforehand and are not there: {', '.join(lacking) or 'none'}.")
    print("\nBest rows with their 95 % intervals, clean and (exploratory) under each set's damage:\n")
    print(tabulate(explored, ["set", "metric", "clean", "damaged"], tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()

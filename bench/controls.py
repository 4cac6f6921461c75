"""Controls of the whole way from training to verdict: where the answer is known, does the published test give it?

    nice python bench/controls.py --results controls/      # trains what is missing there; to controls.md

- Positive: on `synergy_sim` most of the label is the product of two modalities' latents. A linear model of both side by
  side must be called worse than fusers that form products.
- Negative (A/A): concat against itself, disjoint seeds under two names. At .05 the test may call 3 to 7 % different.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fusionbench import harness, leaderboard, stats, text
from fusionbench.jobs import perform, plan_runs
from fusionbench.leaderboard.robustness import regret
from fusionbench.records import Record, store
from fusionbench.stats import Table

BENCHMARK, REFERENCE = "synergy_sim", "linear"
PRODUCTS = ("low_rank", "tensor_fusion")
OTHERS = ("late_average", "concat")
COPIES, SEEDS = "concat", 24  # of the A/A
LEVEL, LEAST, MOST = 0.05, 0.03, 0.07
READING = """
Clean input only. *Regret*: the best reachable score (`optimum` of the benchmark) minus the score. The verdict is that
of `fusionbench leaderboard --reference linear`: Student's t on the one variance, Holm-corrected. In the A/A all seeds
are trained once; a relabelling deals so many of them to each of two names, at random and disjoint, and tests the two.
Relabellings share seeds, so the share called different is less certain than its number of draws says; ± is the
standard deviation of the share over four quarters of the seeds, dealt within each, over two.
"""


def obtain(
    results: Path,
    fuser: str,
    seeds: int | None = None,
    given: dict[str, dict[str, Any]] | None = None,
    jobs: int | None = None,
) -> list[Record]:
    """Every fold and so many seeds of a fuser on `synergy_sim`, clean; what is there is not trained again."""
    setup = harness.setup(BENCHMARK, fuser, given=given)
    plan = plan_runs(setup, setup.runs(seeds=None if seeds is None else range(seeds)), results, [])
    done = perform([plan], results, fuser, jobs=jobs, track=False, say=lambda line: print(line, file=sys.stderr))
    return done.records


def positive(results: Path, fusers: Sequence[str], **how: Any) -> leaderboard.Board:
    """The board of a linear model and of these fusers, each compared with the linear model."""
    records = [r for fuser in (REFERENCE, *fusers) for r in obtain(results, fuser, **how)]
    (board,) = leaderboard.build(records, results, reference=REFERENCE)
    return board


def spelled(board: leaderboard.Board) -> str:
    lines = []
    for row in board.ranked:
        verdict, lost = row.verdicts.get("score"), regret(board, row)
        low, high = row.bounds("score")
        score = " to ".join(text.score(bound, True) for bound in (low, high) if bound is not None)
        said = "reference"
        if verdict is not None and verdict.difference is not None and verdict.adjusted is not None:
            gap = text.gap(verdict.difference, True, signed=True)
            said = f"{gap} {verdict.decision}, p {text.p_value(verdict.adjusted)}"
        lines.append([row.label, text.score(row.clean or 0.0, True), score, said, text.gap(lost or 0.0, True)])
    return table(["row", "accuracy", "95 % interval", "against linear", "regret"], lines)


def seeds_of(results: Path, records: Sequence[Record]) -> Table:
    """One table of all seeds of one row."""
    runs = [(r.run.seed, r.run.fold, e) for r in records if (e := store.evidence(results, r.run)) is not None]
    return stats.tables(runs, records[0].metrics[0])["clean"]


def part(whole: Table, seeds: Sequence[int]) -> Table:
    """The table of some of its seeds."""
    chosen = list(seeds)
    return replace(whole, by_fold=whole.by_fold[chosen], values=lambda weights: whole.values(weights)[:, chosen])


def relabelled(whole: Table, each: int, draws: int, rng: np.random.Generator) -> float:
    """How often two names for disjoint seeds of one row, so many each, are called different."""
    called = 0
    for _ in range(draws):
        dealt = rng.permutation(whole.seeds)
        p = stats.t_test(stats.difference(part(whole, dealt[:each]), part(whole, dealt[each : 2 * each])))
        called += p is not None and p < LEVEL
    return called / draws


def uncertainty(whole: Table, each: int, draws: int, rng: np.random.Generator) -> float:
    """The share's own standard error, from disjoint quarters of the seeds; NaN where they are too small."""
    quarter = whole.seeds // 4
    if quarter < 2 * each:
        return math.nan
    parts = [part(whole, range(i * quarter, (i + 1) * quarter)) for i in range(4)]
    return float(np.std([relabelled(one, each, draws, rng) for one in parts], ddof=1)) / 2


def negative(whole: Table, draws: int) -> str:
    lines = []
    for each in (2, 3, 5, whole.seeds // 2):
        rng = np.random.default_rng(each)
        share, error = relabelled(whole, each, draws, rng), uncertainty(whole, each, draws // 4, rng)
        word = "yes" if LEAST <= share <= MOST else "no"
        lines.append([str(each), str(draws), f"{share:.3f}" + ("" if math.isnan(error) else f" ± {error:.3f}"), word])
    return table(["seeds a name", "relabellings", "called different at .05", ".03 to .07"], lines)


def table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [heads, ["---"] * len(heads), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, help="where the runs are, or are to be")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="of the A/A")
    parser.add_argument("--draws", type=int, default=2000, help="relabellings")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    options = parser.parse_args(arguments)
    board = positive(options.results, (*PRODUCTS, *OTHERS))
    copies = obtain(options.results, COPIES, options.seeds, {"train": {"lr": "1e-3"}})
    options.out.write_text("\n".join([
        f"# Controls: where the answer is known\n{READING}",
        f"## {BENCHMARK}: products must beat the linear model\n\n{spelled(board)}",
        f"## A/A: {COPIES} against itself on {BENCHMARK}, {options.seeds} seeds\n",
        negative(seeds_of(options.results, copies), options.draws),
        f"`python bench/controls.py`, protocol {copies[0].protocol}, fusionbench {copies[0].versions['fusionbench']}\n",
    ]))  # fmt: skip
    print(options.out.read_text())


if __name__ == "__main__":
    main()

"""A whole comparison as one command, against the same work as public toolkits do it: `python bench/toolkit.py`.

Their way: one process a run, a plain loop over one model, a robustness sweep that meets one condition at a time. A run
of each fuser is timed in each of two kinds, the first seed of a fold (which tries every learning rate) and a later one
(which takes what the first chose), and counted as often as it occurs: other folds are taken to cost the same. Our way
is timed from the command line to the table, start-up included; it also trains the rows that `compare` adds, which are
not counted on the other side.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tabulate import tabulate

FUSERS, BENCHMARK, SEEDS, FOLDS = ("concat", "gated", "cross_attention", "jmt"), "watch", 5, 5


def one_run(fuser: str, first: bool, device: str) -> None:
    """One run of fold 0, its steps plain, in this process."""
    from fusionbench import harness
    from fusionbench.engine import loop

    loop.capturable = lambda program: False  # type: ignore[assignment]
    given = {} if first else {"train": {"lr": (1e-3,)}}
    setup = harness.setup(BENCHMARK, fuser, given=given)
    with tempfile.TemporaryDirectory() as folder:
        conditions = setup.benchmark.corruptions
        runs = setup.runs([0], [0])
        for _ in harness.execute(setup, runs, Path(folder), conditions=conditions, device=device, stacked=1):
            pass


def timed(*words: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--jobs", help="processes of our way; by the work if it is not given")
    parser.add_argument("--one", choices=FUSERS, help=argparse.SUPPRESS)
    parser.add_argument("--first", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one_run(options.one, options.first, options.device)
        return
    with tempfile.TemporaryDirectory() as folder:
        words = ["compare", *FUSERS, "-b", BENCHMARK, "--seeds", str(SEEDS), "--no-track", "--device", options.device]
        if options.jobs:
            words += ["--jobs", options.jobs]
        ours = timed("-m", "fusionbench", *words, "--results", folder)
    print(f"fusionbench {' '.join(words)}: {ours:.0f} s")
    rows, whole = [], 0.0
    for fuser in FUSERS:
        own = (__file__, "--device", options.device, "--one", fuser)
        first, later = timed(*own, "--first"), timed(*own)
        together = FOLDS * (first + (SEEDS - 1) * later)
        rows.append([fuser, f"{first:.1f}", f"{later:.1f}", f"{together:.0f}"])
        whole += together
    head = ["fuser", "first seed, s", "later seed, s", f"{SEEDS * FOLDS} runs, s"]
    print(tabulate(rows, head, tablefmt="github", disable_numparse=True))
    print(f"one process a run: {whole:.0f} s; ours / theirs: {ours / whole:.3f}, or {whole / ours:.0f} times as fast")


if __name__ == "__main__":
    main()

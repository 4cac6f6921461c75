"""Kills a search at a random moment, ten times over, and checks that it ends with the same number of finished trials.

    python bench/kill_study.py [--times 10] [--trials 8] [--seed 0]

Every time: a fresh study in a process of its own, SIGKILL at a moment drawn over the length of an undisturbed search,
and the same command once more.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BENCHMARK, FUSER = "toy_xor", "concat"


def search(folder: Path, trials: int) -> None:
    """The command under test, to its end."""
    from fusionbench import harness
    from fusionbench.search import tune

    given = {"train": {"steps": 30, "interval": 10}}
    for _ in tune(harness.setup(BENCHMARK, FUSER, given=given), folder, trials=trials, given=given, folds=[0], inner=3):
        pass


def start(folder: Path, trials: int) -> subprocess.Popen[bytes]:
    """The command under test in a process of its own; returns when its study exists."""
    calm = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, __file__, "--child", str(folder), "--trials", str(trials)]
    process = subprocess.Popen(command, env={**os.environ, **calm})
    study = folder / BENCHMARK / FUSER / "study-fold0.journal"
    while not study.is_file():
        if process.poll() is not None:
            raise SystemExit(f"the search ended with status {process.returncode} before it had begun")
        time.sleep(0.01)
    return process


def kill(folder: Path, trials: int, after: float) -> None:
    """Starts the command and kills it `after` seconds of searching."""
    process = start(folder, trials)
    time.sleep(after)
    process.kill()
    process.wait()


def finished(folder: Path) -> int:
    """How many trials were finished; as many as the outcome says that it rests on."""
    place = folder / BENCHMARK / FUSER
    with (place / "trials.csv").open() as file:
        states = [row["state"] for row in csv.DictReader(file)]
    count = len(states) - states.count("killed")
    assert count == json.loads((place / "tuned.json").read_text())["folds"]["0"]["trials"]
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=10, help="studies to kill")
    parser.add_argument("--trials", type=int, default=8, help="trials of a study")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        search(options.child, options.trials)
        return
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as place:
        whole = Path(place) / "undisturbed"
        process = start(whole, options.trials)
        began = time.perf_counter()
        process.wait()
        length = time.perf_counter() - began
        print(f"undisturbed: {finished(whole)} finished trials in {length:.1f} s")
        wrong = 0
        for number in range(options.times):
            folder, after = Path(place) / str(number), moments.uniform(0, length)
            kill(folder, options.trials, after)
            start(folder, options.trials).wait()
            wrong += finished(folder) != options.trials
            print(f"killed after {after:.2f} s, continued: {finished(folder)} finished trials", flush=True)
    if wrong:
        raise SystemExit(f"{wrong} of {options.times} studies ended with another number of finished trials")


if __name__ == "__main__":
    main()

"""Kills commands at random moments, each continued afterwards: what it ends in is what an undisturbed one ends in.

    python bench/kills.py [--kills 100] [--seed 0] [--only run,compare,...]

`run`, `compare`, `tune` and `records publish` in turn, now and then `run` in two processes, in fresh copies of a small
folder with results: SIGKILL at a moment drawn over the length of an undisturbed one, and the same command once more.
Then the scores, tables, settings and published files have to be the same, no process may live on and no other file lie
about. Exit status 1 otherwise.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import forked

TOY = ["-b", "toy_xor", "--train.steps", "12", "--train.interval", "3"]
RUN = [*TOY, "--train.lr", "1e-3,3e-3", "--jobs", "1"]
COMMANDS = {
    "run": ["run", "--fuser", "gated", "--seeds", "1", "--no-track", *RUN],
    "compare": ["compare", "gated", "low_rank", "--seeds", "1", "--no-references", "--no-track", *RUN],
    "tune": ["tune", "concat", *TOY, "--trials", "5", "--inner", "2", "--seeds", "1", "--folds", "0,1", "--no-track"],
    "publish": ["records", "publish", "toy_xor"],
    "workers": [
        "run",
        "--fuser",
        "gated",
        "--seeds",
        "1",
        *RUN,
        "--jobs",
        "2",
        "--stack",
        "2",
    ],  # and mirrored to MLflow
}
TURN = [*["run", "compare", "tune", "publish"] * 4, "workers"]
#: The folder before: mirrored to MLflow, published once, and a row more since then.
ORIGIN = [
    ["run", "--fuser", "concat", *RUN],
    ["records", "publish", "toy_xor"],
    ["run", "--fuser", "concat", "--fuser.width", "64", "--no-track", *RUN],
]
PATIENCE = 60  # seconds by the clock for processes to end, on a busy machine
TIMES = ("seconds", "created", "started", "number")  # what differs between two undisturbed ones


def begin(words: list[str], folder: Path) -> int:
    """The command's process, in a session of its own; its temporary files lie in the folder."""

    def alone() -> None:
        os.setsid()
        (folder / "tmp").mkdir(exist_ok=True)
        tempfile.tempdir = os.environ["TMPDIR"] = str(folder / "tmp")

    return forked.start(words, folder, alone)


def living(session: int) -> list[int]:
    """Processes of that session that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, of = stat.read_text().rpartition(")")[2].split()[:4]
        except (OSError, ValueError):  # it has ended meanwhile
            continue
        if int(of) == session and state != "Z":
            found.append(int(stat.parent.name))
    return found


def outcome(folder: Path) -> dict[str, Any]:
    """All that has to be the same, by what it is called."""
    from fusionbench.records import store

    results, found = folder / "results", dict[str, Any]()
    found["files"] = {
        str(p.relative_to(folder))
        for p in folder.rglob("*")
        if p.is_file() and p.name not in (forked.OUT, forked.ERR) and "mlartifacts" not in p.parts  # named at random
    }
    for record in store.load(results):
        found[f"run {record.run.id}"] = [record.status, record.scores, record.chosen, record.history]
    for path in (*results.rglob("records.jsonl"), *results.rglob("evidence.npz")):
        found[f"{path.parent.name}/{path.name}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    for path in results.rglob("tuned.json"):
        found["settings"] = _timeless(json.loads(path.read_text()))
        with path.with_name("trials.csv").open() as file:
            found["trials"] = [_timeless(row) for row in csv.DictReader(file) if row["state"] != "killed"]
    if forked.run(["leaderboard", "--columns", "score,damaged,parameters"], folder):
        raise SystemExit((folder / forked.ERR).read_text())
    found["table"] = (folder / forked.OUT).read_text()
    with sqlite3.connect(folder / "mlflow.db") as database:
        query = "select value from tags where key = 'run id' order by value"
        found["mirrored"] = [value for (value,) in database.execute(query)]
    return found


def _timeless(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _timeless(value) for key, value in content.items() if key not in TIMES}
    return content


def whole(words: list[str], folder: Path) -> float:
    """Does the command to its end; the seconds that it took."""
    began = time.perf_counter()
    if status := forked.wait(begin(words, folder)):
        raise SystemExit(f"{' '.join(words)} ended with {status}: {(folder / forked.ERR).read_text()}")
    return time.perf_counter() - began


def kill(words: list[str], folder: Path, after: float) -> tuple[bool, list[str]]:
    """Kills the command, does it again; was it killed before its end, and what was left over at once."""
    child = begin(words, folder)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    killed = forked.wait(child) == -signal.SIGKILL
    limit = time.monotonic() + PATIENCE
    while (alive := living(child)) and time.monotonic() < limit:
        time.sleep(0.05)
    for process in alive:
        os.kill(process, signal.SIGKILL)
    whole(words, folder)
    return killed, [f"process {process} lived on" for process in alive]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--only", default=",".join(COMMANDS), help="commands, by default %(default)s")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    forked.import_everything()
    draw, wrong, killed = random.Random(options.seed), 0, 0
    chosen = options.only.split(",")
    turn = [what for what in TURN if what in chosen]
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        place = Path(name)
        (place / "origin").mkdir()
        for words in ORIGIN:
            whole(words, place / "origin")
        expected, length = dict[str, Any](), dict[str, float]()
        for what in chosen:
            shutil.copytree(place / "origin", place / what)
            length[what] = whole(COMMANDS[what], place / what)
            expected[what] = outcome(place / what)
            print(f"{what}: {length[what]:.1f} s undisturbed", flush=True)
        for number in range(options.kills):
            what, folder = turn[number % len(turn)], place / str(number)
            shutil.copytree(place / "origin", folder)
            after = draw.uniform(0, length[what])
            hit, problems = kill(COMMANDS[what], folder, after)
            found, right = outcome(folder), expected[what]
            problems += [
                f"{key} differs" for key in sorted(found.keys() | right.keys()) if found.get(key) != right.get(key)
            ]
            if found["files"] != right["files"]:
                problems += [f"files: {', '.join(sorted(found['files'] ^ right['files']))}"]
            killed, wrong = killed + hit, wrong + bool(problems)
            if problems:
                print(f"{number}: {what} killed after {after:.2f} s: {'; '.join(problems)}", flush=True)
            shutil.rmtree(folder)
            if number % 20 == 19:
                print(f"{number + 1} kills, {wrong} ended otherwise", flush=True)
    print(f"{options.kills} kills, {killed} of them before the command's end; {wrong} ended otherwise than undisturbed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

"""The first command in a clone: published results are there, and what the user asks for is trained all the same."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fusionbench.records import publish, store

RUN = [
    "run",
    "--fuser",
    "concat",
    "-b",
    "toy_xor",
    "--train.steps",
    "12",
    "--train.interval",
    "6",
    "--train.lr",
    "3e-3",
]


def fusionbench(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fusionbench", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, command: Callable[..., Any]) -> Path:
    """A folder as a clone is: everything that is asked for below has been published by others."""
    folder = tmp_path_factory.mktemp("origin")
    done = command(*RUN, "--no-track", "--jobs", "1", cwd=folder)
    assert done.returncode == 0, done.stderr
    publish.publish(folder / "results", "toy_xor")
    for path in folder.glob("results/toy_xor/concat/*"):
        if path.stem not in ("records", "predictions", "evidence"):
            path.unlink()
    return folder


def clone(published: Path, target: Path) -> Path:
    shutil.copytree(published / "results", target / "results")
    assert len(list(store.load(target / "results"))) == 6
    return target


def obtained(folder: Path) -> dict[str, int]:
    """What of this user's own is there."""
    runs = folder / "results" / "toy_xor" / "concat"
    own = [path for path in runs.glob("*.json") if len(path.stem) == 16]
    mirrored = 0
    if (folder / "mlflow.db").is_file():
        with sqlite3.connect(folder / "mlflow.db") as database:
            query = "select count(distinct value) from tags where key = 'run id'"
            ((mirrored,),) = database.execute(query).fetchall()
    return {"records": len(own), "weights": len(list(runs.glob("*.safetensors"))), "mirrored": mirrored}


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_run_trains_what_others_have_published_and_a_second_time_nothing(
    published: Path, tmp_path: Path, jobs: str
) -> None:
    folder = clone(published, tmp_path)
    first = fusionbench(folder, *RUN, "--jobs", jobs)
    assert first.returncode == 0, first.stderr
    assert "0 runs on disk, 6 runs to train" in first.stderr
    assert obtained(folder) == {"records": 6, "weights": 6, "mirrored": 6}
    times = {path: path.stat().st_mtime_ns for path in folder.glob("results/toy_xor/concat/*")}
    second = fusionbench(folder, *RUN, "--jobs", jobs)
    assert "all 6 runs are on disk" in second.stderr
    assert times == {path: path.stat().st_mtime_ns for path in folder.glob("results/toy_xor/concat/*")}


def test_run_in_python_does_the_same(published: Path, tmp_path: Path) -> None:
    folder = clone(published, tmp_path)
    script = (
        "import fusionbench\n"
        "train = {'steps': 12, 'interval': 6, 'lr': '3e-3'}\n"
        "found = fusionbench.run('concat', 'toy_xor', given={'train': train}, jobs=2, device='cpu')\n"
        "print(len(found))\n"
    )
    command = [sys.executable, "-c", script]
    for _ in range(2):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
        assert done.stdout == "6\n", done.stderr
    assert "all 6 runs are on disk" in done.stderr
    assert obtained(folder) == {"records": 6, "weights": 6, "mirrored": 6}


def test_compare_takes_published_records_as_they_are(
    published: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    folder = clone(published, tmp_path)
    words = ["compare", "concat", *RUN[3:], "--no-references", "--no-track"]
    done = command(*words, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "all 6 runs are on disk" in done.stderr
    assert obtained(folder)["records"] == 0

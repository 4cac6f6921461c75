"""Makes mistakes on purpose in a copy of the code and runs the tests that ought to notice; prints those that do not.

    python bench/mutants.py [WORD ...]      # only mistakes with one of these words in their description

The mistakes stand in `mutations.py`. Exit status 1 if one survives, or if the tests fail without any.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from mutations import MUTATIONS, Mutation

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("fusionbench", "fusers", "backbones", "benchmarks", "tests", "bench", "pyproject.toml")
HEAVY = (
    "torch",
    "torch._dynamo",
    "scipy.stats",
    "sklearn.ensemble",
    "optuna",
    "mlflow",
    "pandas",
    "hypothesis",
    "pytest",
)


def copy_to(place: Path) -> None:
    """What the tests need, without what has been compiled."""
    unwanted = shutil.ignore_patterns("__pycache__")
    for name in PARTS:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, place / name, ignore=unwanted)
        else:
            shutil.copy2(ROOT / name, place / name)


def status_of(tests: Sequence[str], place: Path, log: Path) -> int:
    """Pytest's exit status, in a process forked after the imports of libraries: 0 passed, 1 failed."""
    child = os.fork()
    if child == 0:
        status = 70
        try:
            os.chdir(place)
            os.environ["PYTHONPATH"] = str(place)  # of the processes that tests start
            sys.path[:0] = [str(place), str(place / "bench")]
            for number in (1, 2):
                os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND), number)
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
            import pytest

            status = int(pytest.main(["-q", "-x", "-p", "no:cacheprovider", *tests]))
        finally:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):
                    stream.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def survives(mutation: Mutation, place: Path, log: Path) -> bool:
    """Do the tests pass in spite of it?

    Raises:
        SystemExit: they could not be run at all.
    """
    path = place / mutation.file
    whole = path.read_text()
    try:
        path.write_text(whole.replace(mutation.old, mutation.new, 1))
        status = status_of(mutation.tests, place, log)
    finally:
        path.write_text(whole)
    if status not in (0, 1):
        raise SystemExit(f"{mutation.what}: pytest ended with {status}\n{log.read_text()[-2000:]}")
    return status == 0


def main() -> int:
    sys.dont_write_bytecode = True  # of a file that is changed twice within a second
    os.environ |= {"PYTHONDONTWRITEBYTECODE": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    words = sys.argv[1:]
    chosen = [m for m in MUTATIONS if not words or any(word in m.what for word in words)]
    for name in HEAVY:
        __import__(name)
    began, survivors = time.perf_counter(), list[Mutation]()
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        place, log = Path(name) / "copy", Path(name) / "log"
        place.mkdir()
        copy_to(place)
        tests = list(dict.fromkeys(test for m in chosen for test in m.tests))
        if status_of(tests, place, log):
            raise SystemExit(f"the tests fail without any mistake:\n{log.read_text()[-3000:]}")
        for mutation in chosen:
            if survives(mutation, place, log):
                survivors.append(mutation)
            print(f"{'SURVIVES' if mutation in survivors else 'noticed'}: {mutation.what}", flush=True)
    print(f"{len(chosen)} mistakes, {len(survivors)} not noticed, {time.perf_counter() - began:.0f} s")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())

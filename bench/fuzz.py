"""Throws broken inputs at the command line: no traceback, no wrong exit status, nothing half-written.

    python bench/fuzz.py [--inputs 1000] [--seed 0] [--only commands,records,...] [--show]

Every input runs in a process forked after the imports, in a fresh copy of a small folder with results, with a time
limit. A finding is printed with its seed: `--seed S --inputs 1` makes it again. Exit status 1 if there are any.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from fuzz_inputs import CASES, SMALL, TOY

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"  # before anything that starts threads: they do not survive a fork
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

SECONDS, MEMORY = 60, 6 << 30  # of one input


@dataclass(frozen=True)
class Finding:
    """What went wrong with one input."""

    seed: int
    case: str
    words: list[str]
    status: int
    error: str

    @property
    def kind(self) -> str:
        """Inputs of one kind have one cause, most likely."""
        last = [line for line in self.error.strip().splitlines() if line.strip()]
        places = [line.strip() for line in last if line.strip().startswith("File ") and "fusionbench" in line]
        return f"{self.case} {self.status} | {last[-1][:110] if last else ''} | {places[-1] if places else ''}"


def judge(status: int, out: str, error: str) -> bool:
    """Is this how a command may end?"""
    if "Traceback (most recent call last)" in error + out:
        return False
    if status == 2:
        said = [line for line in error.splitlines() if line.startswith("error: ")]
        return len(said) == 1
    return status in (0, 1)


def attempt(seed: int, case: str, origin: Path) -> Finding | None:
    """One input in a process of its own; what is wrong with how it ended, if anything."""
    rng = random.Random(seed)
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        shutil.copytree(origin, folder, dirs_exist_ok=True)
        words = CASES[case](rng, folder)
        (folder / ".out").touch()
        child = os.fork()
        if child == 0:
            _child(words, folder)
        status = _wait(child)
        out, error = ((folder / name).read_text(errors="replace") for name in (".out", ".err"))
        if status == -signal.SIGALRM:
            error += "\ntook too long"
        left = [p.name for p in folder.rglob(".*.tmp*")]
        if judge(status, out, error) and not left:
            return None
        return Finding(seed, case, words, status, error + (f"\nleft over: {left}" if left else ""))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait(child: int) -> int:
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _child(words: list[str], folder: Path) -> None:
    """Runs the command and never returns."""
    from fusionbench import cli

    status = 70
    try:
        os.chdir(folder)
        for number, name in ((1, ".out"), (2, ".err")):
            handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(handle, number)
        sys.stdout = open(1, "w", closefd=False)
        sys.stderr = open(2, "w", closefd=False)
        signal.alarm(SECONDS)
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        resource.setrlimit(resource.RLIMIT_AS, (resource.getrlimit(resource.RLIMIT_AS)[0],) * 2)
        sys.argv = ["fusionbench", *words]
        cli.main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        os._exit(status)


def origin_of(folder: Path) -> Path:
    """A small folder as a user has one: runs, published rows, a search, plugin and data files."""
    import numpy as np

    short = [*SMALL, "--seeds", "1", "--no-track", "--jobs", "1"]
    for words in (
        ["run", "--fuser", "gated", *TOY, *short],
        ["run", "--fuser", "late_average", *TOY, *short, "--quick"],
        [
            "tune",
            "concat",
            *TOY,
            "--trials",
            "2",
            "--inner",
            "2",
            "--seeds",
            "1",
            "--folds",
            "0,",
            "--train.steps",
            "2",
            "--train.interval",
            "1",
            "--no-track",
        ],
        ["records", "publish", "toy_xor"],
        ["run", "--fuser", "concat", *TOY, *short],
    ):
        child = os.fork()
        if child == 0:
            _child(words, folder)
        if status := _wait(child):
            if words[:2] != ["records", "publish"]:
                raise SystemExit(f"{' '.join(words)} ended with {status}: {(folder / '.err').read_text()}")
    (folder / "plug.py").write_text("x = 1\n")
    (folder / "plug.pyx").write_text("x = 1\n")
    (folder / "plug.txt").write_text("text\n")
    (folder / "data.csv").write_text("a,b\n1,2\n")
    (folder / "broken.npz").write_bytes(b"PK\x03\x04")
    np.savez(folder / "odd.npz", x=np.zeros(3))
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help=", ".join(CASES))
    parser.add_argument("--show", action="store_true", help="the whole error of each kind")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    cases = options.only.split(",") if options.only else list(CASES)
    _imports()
    found: list[Finding] = []
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="fuzz-origin-") as name:
        origin = origin_of(Path(name))
        for seed in range(options.seed, options.seed + options.inputs):
            finding = attempt(seed, cases[seed % len(cases)], origin)
            if finding is not None:
                found.append(finding)
    kinds = Counter(finding.kind for finding in found)
    for kind, count in kinds.most_common():
        first = next(finding for finding in found if finding.kind == kind)
        print(f"{count:4d}  {kind}\n      seed {first.seed}: fusionbench {' '.join(map(repr, first.words))[:200]}")
        if options.show:
            print("\n".join(f"      {line}" for line in first.error.splitlines()[-12:]))
    seconds = time.perf_counter() - began
    print(f"{options.inputs} inputs, {len(found)} findings of {len(kinds)} kinds, {seconds:.0f} s")
    return 1 if found else 0


def _imports() -> None:
    """Everything that a command imports, once: a forked process finds it there."""
    import mlflow  # noqa: F401
    import optuna  # noqa: F401
    import torch

    import fusionbench.report
    import fusionbench.search
    import fusionbench.study  # noqa: F401
    from fusionbench import registry

    torch.set_num_threads(1)
    for kind in registry.KINDS:
        for plugin in registry.names(kind):
            registry.load(kind, plugin)


if __name__ == "__main__":
    sys.exit(main())

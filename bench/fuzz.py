"""Throws broken inputs at the command line: no traceback, no wrong exit status, nothing half-written.

    python bench/fuzz.py [--inputs 1000] [--seed 0] [--only commands,records,...] [--show]

Every input runs in a process forked after the imports, in a fresh copy of a small folder with results, with limits of
time and memory. A finding is printed with its seed: `--seed S --inputs 1` (and the same `--only`) makes it again. Exit
status 1 if there are any. What is thrown lies in `fuzzing/`.
"""

from __future__ import annotations

import argparse
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

import forked
from fuzzing import CASES
from fuzzing.commands import RIGHT
from fuzzing.odd import SMALL

#: Limits of one input: processor time, time by the clock (something that waits for ever), memory beyond the parent's.
SECONDS, PATIENCE, MEMORY = 60, 300, 4 << 30
#: Hidden files that stay: what a command printed here, whose results a folder holds, locks that the next one takes.
KEPT = (forked.OUT, forked.ERR, ".origin", ".lock")
#: A folder as a user has one: runs, quick ones too, published rows, a search.
ORIGIN = [
    ["run", "--fuser", "gated", "-b", "toy_xor", *SMALL],
    ["run", "--fuser", "low_rank", "-b", "toy_xor", *SMALL],
    ["run", *RIGHT["run"], "--fuser", "late_average", "--quick"],
    ["tune", *RIGHT["tune"], "--trials", "2"],
    ["records", "publish", "toy_xor"],
    ["run", *RIGHT["run"]],
]


@dataclass(frozen=True)
class Finding:
    """What is wrong with how one input ended."""

    seed: int
    case: str
    words: list[str]
    status: int
    error: str

    @property
    def kind(self) -> str:
        """Inputs of one kind have one cause, most likely."""
        said = [line.strip() for line in self.error.splitlines() if line.strip()]
        places = [line for line in said if line.startswith("File ") and "fusionbench" in line]
        return f"{self.case} {self.status} | {said[-1][:110] if said else ''} | {places[-1] if places else ''}"


def wrong(status: int, out: str, error: str) -> str:
    """What no command may do; empty if it ended as one may."""
    if "Traceback (most recent call last)" in error + out:
        return "a traceback"
    if status not in (0, 1, 2):
        return f"status {status}"
    if status == 2 and sum(line.startswith("error: ") for line in error.splitlines()) != 1:
        return "status 2 without its one line"
    if status == 0 and any(line.startswith(("error: ", "failed: ")) for line in error.splitlines()):
        return "status 0, though something failed"
    return ""


def attempt(seed: int, case: str, origin: Path) -> Finding | None:
    """One input in a process of its own; what is wrong with how it ended, if anything."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        shutil.copytree(origin, folder, dirs_exist_ok=True)
        words = CASES[case](random.Random(seed), folder)
        before = _hidden(folder)
        status = forked.run(words, folder, limited)
        out, error = ((folder / name).read_text(errors="replace") for name in (forked.OUT, forked.ERR))
        left = {name for name in _hidden(folder) - before if not name.endswith(KEPT)}
        reason = wrong(status, out, error) or (f"left over: {', '.join(sorted(left))}" if left else "")
        return Finding(seed, case, words, status, f"{error}\n{reason}") if reason else None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _hidden(folder: Path) -> set[str]:
    """Names of files that are under way begin with a dot."""
    return {path.name for path in folder.rglob(".*")}


def limited() -> None:
    """Sets the limits of this process."""
    signal.alarm(PATIENCE)
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)


def make_origin(folder: Path) -> Path:
    """A small folder with results, plugins and data."""
    import numpy as np

    for words in ORIGIN:
        if status := forked.run(words, folder):
            raise SystemExit(f"{' '.join(words)} ended with {status}: {(folder / forked.ERR).read_text()}")
    for name in (forked.OUT, forked.ERR):
        (folder / name).unlink()
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
    parser.add_argument("--only", default=",".join(CASES), help="cases, by default %(default)s")
    parser.add_argument("--show", action="store_true", help="the end of the error of each kind")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    began = time.perf_counter()
    forked.import_everything()
    cases, found = options.only.split(","), list[Finding]()
    with tempfile.TemporaryDirectory(prefix="fuzz-origin-") as name:
        origin = make_origin(Path(name))
        for seed in range(options.seed, options.seed + options.inputs):
            if finding := attempt(seed, cases[seed % len(cases)], origin):
                found.append(finding)
    kinds = Counter(finding.kind for finding in found)
    for kind, count in kinds.most_common():
        first = next(finding for finding in found if finding.kind == kind)
        print(f"{count:4d}  {kind}\n      seed {first.seed}: fusionbench {' '.join(map(repr, first.words))[:200]}")
        if options.show:
            print("\n".join(f"      {line}" for line in first.error.splitlines()[-12:]))
    took = time.perf_counter() - began
    print(f"{options.inputs} inputs, {len(found)} findings of {len(kinds)} kinds, {took:.0f} s")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

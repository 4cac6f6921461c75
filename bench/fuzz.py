"""Throws broken inputs at the command line: no traceback, no wrong exit status, nothing half-written.

    python bench/fuzz.py [--inputs 1000] [--seed 0] [--only commands,records,...] [--show]

Every input runs in a process forked after the imports, in a fresh copy of a small folder with results, with a time
limit. A finding is printed with its seed: `--seed S --inputs 1` makes it again. Exit status 1 if there are any.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"  # before anything that starts threads: they do not survive a fork
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

SECONDS, MEMORY = 60, 6 << 30  # of one input
SMALL = ["--train.steps", "2", "--train.interval", "1", "--train.lr", "1e-3"]
TOY = ["-b", "toy_xor"]

#: Values that no option expects, and some that one does.
ODD = [
    "",
    " ",
    "0",
    "-1",
    "1",
    "2",
    "1e20",
    "-0.0",
    "nan",
    "inf",
    "1e-400",
    "9" * 5000,
    "x" * 300,
    "ü",
    "a,b",
    ",",
    "0,",
    "1,,2",
    "none",
    "true",
    "None",
    "[]",
    "{}",
    "../..",
    "/",
    "/dev/null",
    "/dev/full",
    ".",
    "results",
    "toy_xor",
    "concat",
    "noise:all",
    "all",
    "noise:all:3",
    "noise:left:99",
    "::",
    "left=0.3",
    "left=nan",
    "left=2",
    "dask://",
    "dask://:x",
    "dask://[::1",
    "dask://127.0.0.1:1",
    "http://x",
    "sqlite:///x/y/z.db",
    "./plug.py",
    "./plug.pyx",
    "plug.txt",
    "data.csv",
    "broken.npz",
    "cpu",
    "cuda:99",
    "meta",
    "warp",
]
OPTIONS = {
    "run": [
        "--fuser",
        "--benchmark",
        "--seeds",
        "--folds",
        "--corruption",
        "--preset",
        "--jobs",
        "--device",
        "--stack",
        "--results",
        "--fuser.width",
        "--fuser.nothing",
        "--train.lr",
        "--train.clip",
        "--train.batch",
        "--train.missing",
        "--train.steps",
        "--train.interval",
        "--benchmark.samples",
        "--benchmark.people",
        "--backbone.left",
        "--backbone.left.dim",
        "--train.modality_dropout",
        "--cluster",
        "--tuned",
        "--quick",
        "--skip-bad",
    ],
    "compare": [
        "--benchmark",
        "--study",
        "--seeds",
        "--folds",
        "--corruption",
        "--cross",
        "--concat.width",
        "--lattice",
        "--no-references",
        "--train.clip",
        "--results",
        "--jobs",
    ],
    "tune": [
        "--benchmark",
        "--trials",
        "--budget",
        "--sampler",
        "--storage",
        "--folds",
        "--inner",
        "--seeds",
        "--seed",
        "--together",
        "--device",
        "--results",
        "--train.clip",
    ],
    "leaderboard": ["--benchmark", "--format", "--sort", "--columns", "--verdicts", "--reference", "--results"],
    "report": ["--benchmark", "--out", "--figures", "--reference", "--results"],
    "missing-grid": ["--benchmark", "--rates", "--modality", "--seeds", "--folds", "--quick"],
}
WORDS = {
    "run": [["--fuser", "concat", *TOY, "--seeds", "1", "--folds", "0,", *SMALL, "--no-track"]],
    "compare": [["concat", *TOY, "--seeds", "1", "--folds", "0,", *SMALL, "--no-references", "--no-track"]],
    "tune": [
        [
            "concat",
            *TOY,
            "--trials",
            "1",
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
        ]
    ],
    "leaderboard": [[]],
    "report": [[]],
    "missing-grid": [["concat", *TOY, "--rates", "0", "--seeds", "1", "--folds", "0,", *SMALL, "--no-track"]],
}
OTHERS = [
    ["records", "list"],
    ["records", "diff", "X", "X"],
    ["records", "publish", "X"],
    ["records", "reproduce", "X"],
    ["records", "readme"],
    ["records", "readme", "--check"],
    ["records", "submit", "X", "--out", "X"],
    ["records", "sync"],
    ["list", "X"],
    ["list", "corruptions", "--benchmark", "X"],
    ["info", "X"],
    ["check", "X"],
    ["new", "fuser", "X"],
    ["new", "X", "y"],
    ["data", "get", "X"],
    ["data", "get", "X", "--from", "X"],
    ["data", "check", "X"],
    ["data", "encode", "-b", "X"],
    ["data", "cache", "X"],
    ["X"],
    ["--X"],
]

Case = Callable[[random.Random, Path], list[str]]


def commands(rng: random.Random, folder: Path) -> list[str]:
    """A command with odd words in place of, or beside, right ones."""
    if rng.random() < 0.35:
        return [rng.choice(ODD) if word == "X" else word for word in rng.choice(OTHERS)]
    command = rng.choice(list(OPTIONS))
    words = [command, *rng.choice(WORDS[command])]
    for _ in range(rng.choice([1, 1, 1, 2])):
        words += [rng.choice(OPTIONS[command]), rng.choice(ODD)]
    if rng.random() < 0.2:
        words.insert(rng.randrange(1, len(words) + 1), rng.choice(ODD))
    return words


READERS = [
    ["leaderboard"],
    ["leaderboard", "--verdicts"],
    ["leaderboard", "--format", "json"],
    ["records", "list"],
    ["records", "publish", "toy_xor"],
    ["records", "readme"],
    ["report"],
    WORDS["run"][0],
    ["run", "--tuned", *WORDS["run"][0]],
    WORDS["compare"][0],
]


def _reader(rng: random.Random) -> list[str]:
    words = rng.choice(READERS)
    return ["run", *words] if words[0] == "--fuser" else ["compare", *words] if words[0] == "concat" else list(words)


def records(rng: random.Random, folder: Path) -> list[str]:
    """A value of a record, published line, tuned.json or journal is of another kind; then something reads it."""
    files = [p for p in (folder / "results").rglob("*") if p.suffix in (".json", ".jsonl", ".journal", ".csv")]
    path = rng.choice(sorted(files))
    if path.suffix == ".csv":
        rows = list(csv.reader(io.StringIO(path.read_text())))
        row = rng.choice(rows)
        row[rng.randrange(len(row))] = rng.choice(ODD)
        if rng.random() < 0.3:
            row.append("more")
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        path.write_text(text.getvalue())
    else:
        lines = path.read_text().split("\n") if path.suffix != ".json" else [path.read_text()]
        place = rng.randrange(len(lines))
        try:
            content = json.loads(lines[place])
        except ValueError:
            content = {}
        lines[place] = json.dumps(_mutated(rng, content))
        path.write_text("\n".join(lines))
    return _reader(rng)


def _mutated(rng: random.Random, value: Any) -> Any:
    """The same JSON with one value, somewhere, replaced, removed or doubled."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        if rng.random() < 0.1:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: _mutated(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.7:
        place = rng.randrange(len(value))
        return [*value[:place], _mutated(rng, value[place]), *value[place + 1 :]]
    return rng.choice(
        [None, True, -1, 0, 1, 3.5, 1e308, 10**30, "", "x", "clean", [], [1], {}, {"x": 1}, [[]], float("nan")]
    )


def damaged(rng: random.Random, folder: Path) -> list[str]:
    """A file of the results loses its end, has bytes turned over, is empty, a folder, or cannot be read."""
    files = sorted(p for p in (folder / "results").rglob("*") if p.is_file())
    path = rng.choice(files)
    content = path.read_bytes()
    kind = rng.randrange(5)
    if kind == 0:
        path.write_bytes(content[: rng.randrange(len(content) + 1)])
    elif kind == 1 and content:
        spoilt = bytearray(content)
        for _ in range(rng.randrange(1, 9)):
            spoilt[rng.randrange(len(spoilt))] = rng.randrange(256)
        path.write_bytes(spoilt)
    elif kind == 2:
        path.write_bytes(b"")
    elif kind == 3:
        path.unlink()
        path.mkdir()
    else:
        path.unlink()
        path.symlink_to(path.name)
    return _reader(rng)


FUSER = """
import torch
from torch import nn
from typing import Annotated
from fusionbench.api import Choice, Fuser, Range
class Mine(Fuser):
    def __init__(self, spec{arguments}):
        super().__init__(spec)
        self.out = nn.Linear(sum(spec.dims.values()), spec.out{more})
        {init}
    def forward(self, streams):
        x = self.out(torch.cat([self.pool(s).x for s in streams.values()], -1))
        {forward}
        return x
"""
BENCHMARK = """
import torch, numpy as np
from fusionbench.api import Batch, Benchmark, Splits, Stream, Task, group_folds
class Mine(Benchmark):
    shapes = {shapes}
    task = {task}
    folds, seeds, steps, batch, interval = {constants}
    corruptions = {corruptions}
    def load(self):
        n = 24
        x = torch.randn(n, 3, 2, generator=torch.Generator().manual_seed(0))
        y = (x.mean((1, 2)) > 0).long()[:, None]
        {load}
        return Batch({{"a": Stream(x, torch.ones(n, 3, dtype=torch.bool))}}, y, torch.ones(n, 1, dtype=torch.bool),
                     [str(i) for i in range(n)], [str(i // 3) for i in range(n)])
    def splits(self, data, fold):
        {splits}
        return group_folds(data.groups, 3, fold)
"""
DEEDS = [
    "pass",
    "raise ValueError('by design')",
    "raise SystemExit(0)",
    "raise SystemExit",
    "raise StopIteration",
    "return None",
    "return 3",
    "return []",
    "1 / 0",
    "assert False",
    "raise UnicodeDecodeError('utf-8', b'', 0, 1, 'x')",
    "raise MemoryError",
    "raise RecursionError",
    "raise OSError(5, 'by design')",
    "raise Exception",
    "exit(0)",
    "quit()",
]
FORWARD = [
    *DEEDS,
    "x = x * float('nan')",
    "x = x.double()",
    "x = x[:0]",
    "x = x[..., :1]",
    "x = x.detach()",
    "x = x.squeeze(1)",
    "x = torch.cat([x, x], -1)",
    "x = x + torch.randn_like(x) * 1e30",
    "x = x / 0",
    "x = x.to(torch.complex64)",
]


ARGUMENTS = [
    *[""] * 3,
    ", *, width=3",
    ", *, width: int",
    ", *, width: 'Nothing' = 3",
    ", *, w: Annotated[int, Range(4, 1)] = 2",
]
FILES = ["", "class (", "import nothing_there", "raise SystemExit(0)", "x = 1", "\0", "1/0"]
LOADS = [
    *DEEDS,
    "x[0] = float('nan')",
    "y = y * 5",
    "y = -y",
    "y = y[:0]",
    "x = x[:5]",
    "y = y.double()",
    "x = x.repeat(1, 1, 2)",
]
SPLITS = [
    *DEEDS,
    "return Splits(np.arange(3), np.arange(3), np.arange(3))",
    "return Splits(np.array([]), np.arange(3), np.arange(3, 6))",
    "return Splits(np.arange(3), np.arange(3, 6), np.array([99]))",
    "return Splits(*np.arange(24.).reshape(3, 8))",
]
SHAPES = ["{}", "{'all': (2,)}", "{'b': (2,)}", "{'a': 2}", "{'a': (3,)}", "None", "{'a b': (2,)}"]
TASKS = [
    "None",
    "Task('guess', 2, ('accuracy',))",
    "Task('classify', 2, ())",
    "Task('classify', 2, ('nothing',))",
    "Task('regress', 2, ('ccc',))",
    "Task('classify', 0, ('accuracy',))",
]
CONSTANTS = [
    "0, 1, 2, 8, 1",
    "3, 0, 2, 8, 1",
    "3, 1, 0, 8, 1",
    "3, 1, 2, 0, 1",
    "3, 1, 2, 8, 0",
    "-1, -1, -1, -1, -1",
    "'x', 1, 2, 8, 1",
]
CORRUPTIONS = ["('noise:a:1',)", "('nothing:a',)", "('noise:b',)", "(3,)", "None", "'noise:a'"]
#: part of the benchmark's text -> what is odd, and as many as it takes of what is right.
PARTS: dict[str, tuple[list[str], list[str]]] = {
    "shapes": (SHAPES, ["{'a': (2,)}"] * 15),
    "task": (TASKS, ["Task('classify', 2, ('accuracy',))"] * 12),
    "constants": (CONSTANTS, ["3, 1, 2, 8, 1"] * 15),
    "corruptions": (CORRUPTIONS, ["()"] * 10),
    "load": (LOADS, ["pass"] * 15),
    "splits": (SPLITS, ["pass"] * 15),
}


def plugins(rng: random.Random, folder: Path) -> list[str]:
    """A fuser or benchmark file that does something wrong somewhere."""
    short = [*SMALL, "--seeds", "1", "--folds", "0,", "--no-track"]
    if rng.random() < 0.5:
        arguments = rng.choice(
            [
                "",
                "",
                "",
                ", *, width=3",
                ", *, width: int",
                ", *, width: 'Nothing' = 3",
                ", *, w: Annotated[int, Range(4, 1)] = 2",
            ]
        )
        text = FUSER.format(
            arguments=arguments,
            more=rng.choice(["", "", " + 1"]),
            init=rng.choice(DEEDS) if rng.random() < 0.4 else "pass",
            forward=rng.choice(FORWARD),
        )
        if rng.random() < 0.15:
            text = rng.choice(
                [
                    "",
                    "class (",
                    "import nothing_there",
                    "raise SystemExit(0)",
                    "x = 1",
                    text + text.replace("Mine", "Other"),
                    "\0",
                    "1/0",
                ]
            )
        (folder / "mine.py").write_text(text)
        return rng.choice(
            [
                ["run", "--fuser", "./mine.py", *TOY, *short],
                ["check", "./mine.py"],
                ["info", "./mine.py"],
                ["compare", "./mine.py", "concat", *TOY, "--no-references", *short],
            ]
        )
    text = BENCHMARK.format(**{name: rng.choice(odd + right) for name, (odd, right) in PARTS.items()})
    (folder / "mine.py").write_text(text)
    return rng.choice(
        [
            ["run", "--fuser", "concat", "-b", "./mine.py", *SMALL, "--no-track"],
            ["check", "benchmarks:./mine.py"],
            ["data", "check", "./mine.py"],
            ["info", "./mine.py"],
        ]
    )


TOML = [
    'fusers = ["concat"]',
    'benchmarks = ["toy_xor"]',
    "seeds = 1",
    "folds = [0]",
    "references = false",
    "train = {steps = 2, interval = 1, lr = 1e-3}",
]


def studies(rng: random.Random, folder: Path) -> list[str]:
    """A study file with one line that is wrong."""
    odd = [
        "3",
        "-1",
        "[]",
        "[[]]",
        "{}",
        "true",
        '"x"',
        '[""]',
        "nan",
        "inf",
        "[1, 'x']",
        '{"a.b" = 3}',
        "{x = [1]}",
        "1979-05-27",
        "[0, 0]",
        '{"train.clip" = ["x"]}',
        '{concat = {width = "x"}}',
        '["noise:nothing"]',
        "99",
        "1e9",
    ]
    names = [
        "fusers",
        "benchmarks",
        "seeds",
        "folds",
        "corruption",
        "lattice",
        "options",
        "train",
        "benchmark",
        "cross",
        "references",
        "quick",
        "tuned",
        "nothing",
    ]
    name = rng.choice(names)
    lines = [line for line in TOML if not line.startswith(f"{name} ")] + [f"{name} = {rng.choice(odd)}"]
    (folder / "study.toml").write_text(
        "\n".join(lines) if rng.random() < 0.9 else "\n".join(lines)[: rng.randrange(99)]
    )
    return ["compare", "--study", "study.toml", "--no-track", "--jobs", "1"]


CASES: dict[str, Case] = {
    "commands": commands,
    "records": records,
    "damaged": damaged,
    "plugins": plugins,
    "studies": studies,
}


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

"""What `bench/fuzz.py` throws: each case spoils a folder in its own way and says which command is to read it."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzz_data import mutators

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
        "--at-once",
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


def data(rng: random.Random, folder: Path) -> list[str]:
    """A user's own data, damaged."""
    found = mutators()
    return found[rng.choice(sorted(found))](rng, folder)


CASES: dict[str, Case] = {
    "data": data,
    "commands": commands,
    "records": records,
    "damaged": damaged,
    "plugins": plugins,
    "studies": studies,
}

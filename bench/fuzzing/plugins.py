"""Fusers and benchmarks that raise, leave, or return what they should not."""

from __future__ import annotations

from pathlib import Path
from random import Random

from fuzzing.odd import SMALL, TOY

FUSER = """
import torch
from torch import nn
from typing import Annotated
from fusionbench.api import Choice, Fuser, Range
class Mine(Fuser):
    def __init__(self, spec%(arguments)s):
        super().__init__(spec)
        self.out = nn.Linear(sum(spec.dims.values()), spec.out%(more)s)
        %(init)s
    def forward(self, streams):
        x = self.out(torch.cat([self.pool(s).x for s in streams.values()], -1))
        %(forward)s
        return x
"""
DEEDS = [
    *["return None", "return 3", "return []", "1 / 0", "assert False", "exit(0)", "quit()"],
    *["raise ValueError('two\\nlines')", "raise SystemExit(0)", "raise SystemExit", "raise StopIteration"],
    *["raise UnicodeDecodeError('utf-8', b'', 0, 1, 'x')", "raise OSError(5, 'by design')", "raise MemoryError()"],
    *["raise RecursionError", "raise Exception"],
]
FORWARD = [
    *DEEDS,
    *["x = x * float('nan')", "x = x / 0", "x = x + torch.randn_like(x) * 1e30", "x = x.double()", "x = x[:0]"],
    *["x = x[..., :1]", "x = x.detach()", "x = x.squeeze(1)", "x = torch.cat([x, x], -1)"],
    *["x = x.to(torch.complex64)"],
]
ARGUMENTS = [
    *["", "", "", ", *, width=3", ", *, width: int", ", *, width: 'Nothing' = 3"],
    *[", *, w: Annotated[int, Range(4, 1)] = 2"],
]
FILES = ["", "class (", "import nothing_there", "raise SystemExit(0)", "x = 1", "\0", "1/0"]

BENCHMARK = """
import numpy as np, torch
from fusionbench.api import Batch, Benchmark, Splits, Stream, Task, group_folds

class Mine(Benchmark):
    shapes, task, folds, seeds, steps, interval = {"a": (2,), "b": (3,)}, Task("classify", 2, ("accuracy",)), 3, 1, 2, 1
    %(constant)s
    def load(self):
        n = 36
        y, rng = torch.arange(n)[:, None] %% 2, np.random.default_rng(0)
        def draw(d):
            return Stream(torch.from_numpy(rng.standard_normal((n, 1, d))).float(), torch.ones(n, 1, dtype=torch.bool))
        streams, y_mask = {"a": draw(2), "b": draw(3)}, torch.ones(n, 1, dtype=torch.bool)
        ids, groups = [f"s{i}" for i in range(n)], [f"p{i // 6}" for i in range(n)]
        %(load)s
        return Batch(streams, y, y_mask, ids, groups)
    def splits(self, data, fold):
        found = group_folds(data.groups, self.folds, fold)
        train, val, test = found.train, found.val, found.test
        %(splits)s
        return Splits(train, val, test)
"""
ODD_LOAD = [
    *DEEDS,
    "y = y - 1", "y = y.float()", "y = y + 5", "y = y[:, 0]", "y = y[:5]", "y_mask = ~y_mask", "ids = ids[:3]",
    "ids = ['a'] * n", "y = y.repeat(1, 2, 2)", "y = y.to(torch.complex64)", "ids = list(range(n))", "groups = None",
    "groups = [''] * n", "streams.pop('a')",
    "streams = None", "streams['c'] = streams['a']", "streams['a'] = draw(5)", "streams['a'] = streams['a'].x",
    "streams['a'].x.fill_(np.nan)", "streams['b'] = streams['b'].absent()",
    "streams = {m: s[:4] for m, s in streams.items()}", "n = 0; return draw(0)",
]  # fmt: skip
ODD_SPLITS = [
    *DEEDS,
    "train = test", "val = []", "test = test + 1000", "test = -test - 1", "train = train.astype(float)",
    "train = None", "val = 'abc'", "train = train[:, None]", "test = [0, 0]", "return (train, val, test)",
    "train = {1, 2}", "train = np.array([])",
]  # fmt: skip
ODD_CONSTANT = [
    "folds = 0", "seeds = -1", "steps = 0", "batch = 'many'", "interval = None", "task = None",
    "task = Task('rank', 1, ())", "task = Task('classify', 2, ('ccc',))", "shapes = {}",
    "shapes = {'all': (2,), 'b': (3,)}", "shapes = {'a': 2, 'b': (3,)}", "rates = {'a': float('nan')}",
    "rates = {'c': 1.0}", "backbones = {'a': ('nobody', {})}", "corruptions = ('noise:c',)", "corruptions = (1,)",
    "shapes = {'a b': (2,)}", "def __init__(self): raise SystemExit(0)", "seeds = 10**20", "rates = None",
    "def __init__(self, *, x): pass", "backbones = {'a': 'gru'}", "task = Task('classify', 1, ('accuracy',))",
    "version = 3", "shapes = None", "shapes = {'a': (), 'b': (3,)}", "shapes = {'a b': (2,), 'b': (3,)}", "folds = -1",
    "task = Task('classify', 2, ('nothing',))", "task = Task('classify', 2, ())", "folds = 'x'", "batch = 0",
    "interval = 0", "seeds = 0", "corruptions = ('nothing:a',)", "corruptions = None", "corruptions = 'noise:a'",
]  # fmt: skip
#: part of a benchmark's file -> what is odd there.
PARTS = {"constant": ODD_CONSTANT, "load": ODD_LOAD, "splits": ODD_SPLITS}


def plugins(rng: Random, folder: Path) -> list[str]:
    """A fuser's or a benchmark's file that does something wrong somewhere."""
    make, commands = rng.choice([(fuser, FUSERS), (benchmark, BENCHMARKS)])
    (folder / "mine.py").write_text(make(rng))
    return list(rng.choice(commands))


def fuser(rng: Random) -> str:
    """The text of a fuser."""
    if rng.random() < 0.1:
        return rng.choice(FILES)
    return FUSER % {
        "arguments": rng.choice(ARGUMENTS),
        "more": rng.choice(["", "", " + 1"]),
        "init": rng.choice(DEEDS) if rng.random() < 0.4 else "pass",
        "forward": rng.choice(FORWARD),
    }


def benchmark(rng: Random) -> str:
    """The text of a benchmark, odd in one part or two."""
    if rng.random() < 0.1:
        return rng.choice(FILES)
    parts = dict.fromkeys(PARTS, "pass")
    for part in rng.sample(list(PARTS), rng.choice([1, 1, 2])):
        parts[part] = rng.choice(PARTS[part])
    return BENCHMARK % parts


FUSERS = [
    ["run", "--fuser", "./mine.py", *TOY],
    ["compare", "./mine.py", "concat", "--no-references", *TOY],
    ["check", "./mine.py"],
    ["info", "./mine.py"],
]
BENCHMARKS = [
    ["run", "--fuser", "concat", "-b", "./mine.py", *SMALL],
    ["data", "check", "./mine.py"],
    ["check", "benchmarks:./mine.py"],
    ["info", "./mine.py"],
]

"""Damaged and absurd data files, one family a function: what a fuzzer of the command line feeds to `data` and `run`.

A mutator takes a seeded `random.Random` and an empty folder, writes files there and returns the command's arguments.
Whatever it writes, the command has to end with status 0, 1 or 2; with 2, one line stands on standard error; never a
traceback, and nothing half-written.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

Mutator = Callable[[Random, Path], list[str]]

N, PEOPLE = 36, 6
#: Names, numbers and values that have broken something before.
NAMES = [
    "y",
    "all",
    "group",
    "subject",
    "label",
    "",
    "a b",
    "x" * 300,
    "é",
    "1x",
    "../up",
    "a/b",
    "type",
    "y_mask",
    "\n",
]
NUMBERS: list[Any] = [0, -1, 1, 2, 3, 10**20, -(10**20), 1e308, float("nan"), float("inf"), -0.5, 1e-300, True]
CELLS = [
    "",
    "nan",
    "inf",
    "1e400",
    "-1",
    "9" * 5000,
    "é",
    "\x00",
    '"',
    "a,b",
    "None",
    "+-1",
    "\u0661",
    "1_0",
    " ",
    "x" * 250,
]


def mutators() -> dict[str, Mutator]:
    """Name -> what writes one damaged input and says which command to run on it."""
    return {
        "npz_bytes": npz_bytes,
        "npz_header": npz_header,
        "npz_arrays": npz_arrays,
        "npz_members": npz_members,
        "toml_values": toml_values,
        "toml_bytes": toml_bytes,
        "csv_cells": csv_cells,
        "csv_bytes": csv_bytes,
        "parquet": parquet,
        "paths": paths,
        "plugin": plugin,
        "init": init,
    }


# --------------------------------------------------------------------------------------------------------- good inputs


def arrays(rng: Random) -> dict[str, Any]:
    """Two modalities of 36 samples of six people, two classes: nothing is wrong with them."""
    draw = np.random.default_rng(rng.randrange(2**32))
    y = np.arange(N) % 2
    face = draw.standard_normal((N, 3, 2)) + y[:, None, None]
    return {"face": face, "eda": draw.standard_normal((N, 2)), "y": y, "group": np.arange(N) // (N // PEOPLE)}


def tables(rng: Random, folder: Path) -> None:
    """A table of clips and one of steps, and a benchmark.toml that reads them."""
    clips = [f"c{i},p{i // 6},{['calm', 'angry'][i % 2]},{rng.gauss(0, 1):.3f}" for i in range(N)]
    steps = [f"c{i},{t},{rng.gauss(0, 1):.3f},{rng.gauss(0, 1):.3f}" for i in range(N) for t in range(3)]
    (folder / "clips.csv").write_text("\n".join(["clip,who,state,pitch", *clips]) + "\n")
    (folder / "eda.csv").write_text("\n".join(["clip,time,mean,slope", *steps]) + "\n")
    (folder / "benchmark.toml").write_text(_toml(_settings(), _modalities()))


def _settings() -> dict[str, Any]:
    return {"file": "clips.csv", "id": "clip", "label": "state", "group": "who", "folds": 3}


def _modalities() -> dict[str, dict[str, Any]]:
    return {"eda": {"file": "eda.csv", "rate": 4.0}, "voice": {"columns": ["pitch"]}}


def _toml(settings: dict[str, Any], modalities: dict[str, dict[str, Any]]) -> str:
    lines = [f"{name} = {_value(value)}" for name, value in settings.items()]
    for m, part in modalities.items():
        lines += [f"[modalities.{_value(m)}]", *(f"{name} = {_value(value)}" for name, value in part.items())]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, str):
        return '"' + "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in value) + '"'
    return str(value)


def _command(rng: Random, target: Path | str, folder: Path) -> list[str]:
    """`data check`, mostly: `run` goes the same way and then trains."""
    if rng.random() < 0.8:
        return ["data", "check", str(target)]
    quick = [
        "--quick",
        "--no-track",
        "--jobs",
        "1",
        "--train.steps",
        "2",
        "--train.interval",
        "1",
        "--train.lr",
        "1e-3",
    ]
    return ["run", "--fuser", "concat", "-b", str(target), *quick, "--results", str(folder / "results")]


def _damaged(rng: Random, content: bytes) -> bytes:
    """Cut, flipped, doubled, or with a stretch of nonsense."""
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 3, 20])):
        at = rng.randrange(len(data) + 1)
        how = rng.randrange(4)
        if how == 0:
            del data[at:]
        elif how == 1 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif how == 2:
            data[at:at] = data[max(0, at - rng.randrange(1, 64)) : at]
        else:
            data[at : at + rng.randrange(1, 16)] = rng.randbytes(rng.randrange(1, 16))
    return bytes(data)


# -------------------------------------------------------------------------------------------------------------- arrays


def npz_bytes(rng: Random, folder: Path) -> list[str]:
    """An .npz, compressed or not, whose bytes are damaged; or another kind of file under its name."""
    path, buffer = folder / "mine.npz", io.BytesIO()
    rng.choice([np.savez, np.savez_compressed])(buffer, **arrays(rng))
    content = buffer.getvalue()
    if rng.random() < 0.2:
        other = io.BytesIO()
        np.save(other, np.zeros((N, 2)))
        content = rng.choice([other.getvalue(), b"", b"PK\x05\x06" + bytes(18), b"not an archive", rng.randbytes(300)])
    path.write_bytes(_damaged(rng, content) if rng.random() < 0.9 else content)
    return _command(rng, path, folder)


def npz_header(rng: Random, folder: Path) -> list[str]:
    """One member's header declares another shape, type or order than its bytes have."""
    path = folder / "mine.npz"
    with zipfile.ZipFile(path, "w") as archive:
        broken = rng.choice(["face", "eda", "y", "group"])
        for name, array in arrays(rng).items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            content = buffer.getvalue()
            if name == broken:
                shapes = [
                    "(1000000000000,)",
                    "(36, 99999999999999999999)",
                    "(-1, 2)",
                    "()",
                    "(36, 2.5)",
                    "None",
                    "(0, 2)",
                ]
                shape = rng.choice([*shapes, "(" * 200, "(36,) * 9999", "(True, 2)"])
                kind = rng.choice(
                    ["'<f8'", "'<f8'", "'|O'", "'<U0'", "'<c16'", "[('a', '<f8')]", "'<M8[s]'", "'nope'", "7"]
                )
                header = (
                    f"{{'descr': {kind}, 'fortran_order': {rng.choice([True, False, 3])}, 'shape': {shape}}}\n".encode()
                )
                content = (
                    b"\x93NUMPY" + bytes([rng.choice([1, 1, 1, 2, 9]), 0]) + struct.pack("<H", len(header)) + header
                )
                content += rng.randbytes(rng.choice([0, 8, 576]))
            archive.writestr(f"{name}.npy", content)
    return _command(rng, path, folder)


def npz_arrays(rng: Random, folder: Path) -> list[str]:
    """Well-formed arrays of the wrong shape, type, length, range or name."""
    given = arrays(rng)
    for _ in range(rng.choice([1, 1, 2, 3])):
        name = rng.choice([*given, "y_mask", "face_mask", "fold", "split", "id", "extra"])
        given[name] = _odd(rng, given.get(name, np.ones(N)))
    if rng.random() < 0.3:
        victim = rng.choice(list(given))
        given[rng.choice([n for n in NAMES if n and "/" not in n and "\n" not in n])] = given.pop(victim)
    path = folder / "mine.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in given.items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            archive.writestr(f"{name}.npy", buffer.getvalue())
    return _command(rng, path, folder)


def _odd(rng: Random, array: Any) -> Any:
    array = np.asarray(array)
    how = rng.randrange(9)
    if how == 0:
        return array[: rng.randrange(len(array) + 1)] if array.ndim else array
    if how == 1:
        return array.reshape(-1)[0]
    if how == 2:
        return array.reshape(*array.shape, *[1] * rng.randrange(1, 4))
    if how == 3:
        return np.array([rng.choice(CELLS) for _ in range(len(array))]) if array.ndim else array
    if how == 4:
        return array.astype(rng.choice(["f2", "f4", "i1", "u8", "c8", "?", "S3", "U2", "M8[s]", "longdouble"]))
    if how == 5:
        values = array.astype(float)
        values.reshape(-1)[rng.randrange(values.size)] = float(rng.choice(NUMBERS))
        return values
    if how == 6:
        return np.full(array.shape, float(rng.choice(NUMBERS)))
    if how == 7:
        return np.stack([array] * rng.randrange(1, 5), -1)
    return np.array([rng.randrange(-1, rng.choice([1, 2, 3, 40])) for _ in range(N)])


def npz_members(rng: Random, folder: Path) -> list[str]:
    """A zip whose members are odd: doubled, folders, no arrays, strange names."""
    path = folder / "mine.npz"
    buffer = io.BytesIO()
    np.save(buffer, np.arange(N) % 2)
    with zipfile.ZipFile(path, "w") as archive:
        for _ in range(rng.randrange(4)):
            name = rng.choice([*NAMES, "y.npy", "face.npy", "folder/", "y.txt", ".npy", "../../y.npy"])
            if name and name not in archive.namelist():
                archive.writestr(name, rng.choice([buffer.getvalue(), b"", b"text"]))
    return _command(rng, path, folder)


# -------------------------------------------------------------------------------------------------------------- tables


def toml_values(rng: Random, folder: Path) -> list[str]:
    """A benchmark.toml with a value of the wrong type or far off, in settings or in a modality."""
    tables(rng, folder)
    settings, modalities = _settings(), _modalities()
    words = [
        *("seeds", "steps", "batch", "interval", "folds", "version", "metrics", "classes", "corruptions", "per_frame"),
        *("task", "fold", "split", "label_mask", "transductive", "time", "what", *settings),
    ]
    values: list[Any] = [
        *(*NUMBERS, *CELLS, "state", "pitch", "clip", [], [1], ["a", 2], ["p*"], ["calm", "calm"], ["ccc"], [[]]),
        *(["noise:nobody"], ["noise:eda:99"], "clips.csv", "/dev/zero", ".", "nobody.csv"),
    ]
    for _ in range(rng.choice([1, 1, 2])):
        if rng.random() < 0.6:
            settings[rng.choice(words)] = rng.choice(values)
        else:
            part = modalities.setdefault(rng.choice([*modalities, *NAMES]), {"columns": ["pitch"]})
            part[rng.choice(["file", "columns", "array", "mask", "rate", "backbone", "settings"])] = rng.choice(values)
    (folder / "benchmark.toml").write_text(_toml(settings, modalities))
    return _command(rng, folder, folder)


def toml_bytes(rng: Random, folder: Path) -> list[str]:
    """A benchmark.toml whose bytes are damaged, or nested without an end."""
    tables(rng, folder)
    content = (folder / "benchmark.toml").read_bytes()
    if rng.random() < 0.1:
        content = b"x = " + b"[" * rng.choice([10, 5000])
    (folder / "benchmark.toml").write_bytes(_damaged(rng, content))
    return _command(rng, folder, folder)


def csv_cells(rng: Random, folder: Path) -> list[str]:
    """Cells, rows and headers of the tables replaced by what has broken something before."""
    tables(rng, folder)
    path = folder / rng.choice(["clips.csv", "eda.csv"])
    rows = [line.split(",") for line in path.read_text().splitlines()]
    for _ in range(rng.choice([1, 2, 10])):
        row = rows[rng.choice([0, rng.randrange(len(rows))])]
        row[rng.randrange(len(row))] = rng.choice(CELLS)
    if rng.random() < 0.2:
        rows = rng.choice([rows[:1], [], rows[:2], rows[1:], [r[:1] for r in rows], [r * 2 for r in rows]])
    path.write_text("\n".join(",".join(row) for row in rows), encoding="utf-8")
    return _command(rng, folder, folder)


def csv_bytes(rng: Random, folder: Path) -> list[str]:
    """A table whose bytes are damaged."""
    tables(rng, folder)
    path = folder / rng.choice(["clips.csv", "eda.csv"])
    path.write_bytes(_damaged(rng, path.read_bytes()))
    return _command(rng, folder, folder)


def parquet(rng: Random, folder: Path) -> list[str]:
    """A .parquet without rows, of lists or of nothing, or damaged; without pyarrow, an empty file."""
    tables(rng, folder)
    path = folder / "voice.parquet"
    try:
        import pyarrow
        from pyarrow import parquet as writer
    except ImportError:
        path.write_bytes(b"")
    else:
        clips = [f"c{i}" for i in range(N)]
        columns: list[dict[str, Any]] = [
            {"clip": [], "pitch": []}, {}, {"clip": clips, "pitch": [[1.0]] * N}, {"clip": clips, "pitch": [None] * N},
            {"clip": clips, "pitch": [{"a": 1}] * N}, {"clip": clips, "pitch": [1.5] * N}, {"pitch": [b"x"] * N},
        ]  # fmt: skip
        writer.write_table(pyarrow.table(rng.choice(columns)), path)
        if rng.random() < 0.5:
            path.write_bytes(_damaged(rng, path.read_bytes()))
    modalities = {**_modalities(), "voice": {"file": "voice.parquet"}}
    (folder / "benchmark.toml").write_text(_toml(_settings(), modalities))
    return _command(rng, folder, folder)


# ------------------------------------------------------------------------------------------------------ paths, plugins


def paths(rng: Random, folder: Path) -> list[str]:
    """Names of benchmarks that are no benchmarks: files of all kinds, folders, loops of links, far too long ones."""
    kind = rng.randrange(9)
    target = folder / rng.choice(["my.csv", "plug.pyx", "notes.txt", "noext", "a.npy", "benchmark.toml", "x.parquet"])
    if kind == 0:
        target.write_bytes(rng.choice([b"", b"a,b\n1,2\n", b"\x00\xff"]))
    elif kind == 1:
        target = folder / rng.choice(["loop", "loop.npz", "loop.py"])
        target.symlink_to(target.name)
    elif kind == 2:
        target = folder / rng.choice(["empty", "empty.npz", "empty.py"])
        target.mkdir()
    elif kind == 3:
        return _command(rng, "x" * rng.choice([256, 5000]) + rng.choice(["", ".npz", ".py"]), folder)
    elif kind == 4:
        target = folder / rng.choice(["nobody.npz", "nobody.py", "nobody", "nobody.csv"])
    elif kind == 5:
        target = folder / rng.choice(["watch.npz", "[a].npz", ".npz", "a*b.npz"])
        np.savez(target, **arrays(rng))
    elif kind == 6:
        os.mkfifo(target := folder / rng.choice(["pipe.npz", "pipe.py", "pipe.csv"]))
    elif kind == 7:
        return _command(
            rng, rng.choice(["~nobody/x.npz", "", ".", "/", "/dev/null", "-", "\\", "a\tb", "watchh"]), folder
        )
    else:
        (folder / "broken").symlink_to(folder / "nowhere")
        target = folder / "broken"
    return _command(rng, target, folder)


PLUGIN = """
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
RAISED = [
    "raise ValueError('two\\nlines')",
    "raise SystemExit(0)",
    "raise MemoryError()",
    "return None",
    "return 7",
    "1 / 0",
]
ODD_LOAD = [
    *RAISED,
    "y = y - 1", "y = y.float()", "y = y + 5", "y = y[:, 0]", "y = y[:5]", "y_mask = ~y_mask", "ids = ids[:3]",
    "ids = ['a'] * n", "ids = list(range(n))", "groups = None", "groups = [''] * n", "streams.pop('a')",
    "streams = None", "streams['c'] = streams['a']", "streams['a'] = draw(5)", "streams['a'] = streams['a'].x",
    "streams['a'].x.fill_(np.nan)", "streams['b'] = streams['b'].absent()",
    "streams = {m: s[:4] for m, s in streams.items()}", "n = 0; return draw(0)",
]  # fmt: skip
ODD_SPLITS = [
    *RAISED,
    "train = test", "val = []", "test = test + 1000", "test = -test - 1", "train = train.astype(float)",
    "train = None", "val = 'abc'", "train = train[:, None]", "test = [0, 0]", "return (train, val, test)",
    "train = {1, 2}",
]  # fmt: skip
ODD_CONSTANT = [
    "folds = 0", "seeds = -1", "steps = 0", "batch = 'many'", "interval = None", "task = None",
    "task = Task('rank', 1, ())", "task = Task('classify', 2, ('ccc',))", "shapes = {}",
    "shapes = {'all': (2,), 'b': (3,)}", "shapes = {'a': 2, 'b': (3,)}", "rates = {'a': float('nan')}",
    "rates = {'c': 1.0}", "backbones = {'a': ('nobody', {})}", "corruptions = ('noise:c',)", "corruptions = (1,)",
    "shapes = {'a b': (2,)}", "def __init__(self): raise SystemExit(0)", "seeds = 10**20", "rates = None",
    "def __init__(self, *, x): pass", "backbones = {'a': 'gru'}", "task = Task('classify', 1, ('accuracy',))",
    "version = 3",
]  # fmt: skip


def plugin(rng: Random, folder: Path) -> list[str]:
    """A benchmark's plugin that raises, returns what it should not, or declares absurd constants."""
    parts = {"constant": "pass", "load": "pass", "splits": "pass"}
    part, odd = rng.choice([("constant", ODD_CONSTANT), ("load", ODD_LOAD), ("splits", ODD_SPLITS)])
    parts[part] = rng.choice(odd)
    (folder / "mine.py").write_text(PLUGIN % parts)
    return _command(rng, folder / "mine.py", folder)


def init(rng: Random, folder: Path) -> list[str]:
    """`data init` of a folder of tables or arrays, some of them damaged."""
    if rng.random() < 0.5:
        rng.choice([csv_cells, csv_bytes, parquet])(rng, folder)
    elif rng.random() < 0.5:
        rng.choice([npz_bytes, npz_arrays])(rng, folder)
    else:
        for name, array in arrays(rng).items():
            np.save(folder / f"{name}.npy", _odd(rng, array) if rng.random() < 0.4 else array)
    if rng.random() < 0.9:
        (folder / "benchmark.toml").unlink(missing_ok=True)
    return ["data", "init", str(folder)]

"""Words, names, numbers and cells that have broken something before, and ways to damage bytes."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

#: A run that takes a moment.
SMALL = ["--train.steps", "2", "--train.interval", "1", "--train.lr", "1e-3", "--no-track", "--jobs", "1"]
TOY = ["-b", "toy_xor", "--seeds", "1", "--folds", "0,", *SMALL]

#: Values that no option expects, and some that one does.
WORDS = [
    *["", " ", ",", "::", ".", "/", "../..", "ü", "[]", "{}", "--", "x" * 300, "9" * 5000],
    *["0", "-1", "1", "2", "0,", "1,,2", "a,b", "1e20", "-0.0", "nan", "inf", "1e-400", "1000000000", "9" * 20],
    *["none", "None", "true", "all", "results", "toy_xor", "concat", "cpu", "cuda:99", "meta", "warp"],
    *["noise:all", "noise:all:3", "noise:left:99", "left=0.3", "left=nan", "left=2"],
    *["dask://", "dask://:x", "dask://[::1", "dask://127.0.0.1:1", "http://x", "sqlite:///x/y/z.db"],
    *["/dev/null", "/dev/full", "./plug.py", "./plug.pyx", "plug.txt", "data.csv", "broken.npz", "odd.npz"],
]
NAMES = [
    *["y", "all", "group", "subject", "label", "type", "y_mask", "", "a b", "x" * 300, "é", "1x"],
    *["../up", "a/b", "\n"],
]
NUMBERS: list[Any] = [0, -1, 1, 2, 3, 10**20, -(10**20), 1e308, float("nan"), float("inf"), -0.5, 1e-300, True]
CELLS = [
    *["", " ", "nan", "inf", "1e400", "-1", "+-1", "1_0", "\u0661", "None", "é", "\x00", '"', "a,b"],
    *["9" * 5000, "x" * 250],
]


def damaged(rng: Random, content: bytes) -> bytes:
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


def reader(rng: Random, target: Path | str) -> list[str]:
    """The command that reads a benchmark: `data check`, mostly, for `run` goes the same way and then trains."""
    if rng.random() < 0.8:
        return ["data", "check", str(target)]
    return ["run", "--fuser", "concat", "-b", str(target), "--quick", *SMALL]

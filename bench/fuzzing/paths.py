"""Names of benchmarks that are no benchmarks."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import numpy as np

from fuzzing.arrays import arrays
from fuzzing.odd import reader


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
        return reader(rng, "x" * rng.choice([256, 5000]) + rng.choice(["", ".npz", ".py"]))
    elif kind == 4:
        target = folder / rng.choice(["nobody.npz", "nobody.py", "nobody", "nobody.csv"])
    elif kind == 5:
        target = folder / rng.choice(["watch.npz", "[a].npz", ".npz", "a*b.npz"])
        np.savez(target, **arrays(rng))
    elif kind == 6:
        os.mkfifo(target := folder / rng.choice(["pipe.npz", "pipe.py", "pipe.csv"]))
    elif kind == 7:
        return reader(rng, rng.choice(["~nobody/x.npz", "", ".", "/", "/dev/null", "-", "\\", "a\tb", "watchh"]))
    else:
        (folder / "broken").symlink_to(folder / "nowhere")
        target = folder / "broken"
    return reader(rng, target)

"""Damaged and absurd tables: benchmark.toml, CSV and Parquet files."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from fuzzing.arrays import N, arrays, npz_arrays, npz_bytes, odd
from fuzzing.odd import CELLS, NAMES, NUMBERS, damaged, reader


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
    lines = [f"{name} = {spelled(value)}" for name, value in settings.items()]
    for m, part in modalities.items():
        lines += [f"[modalities.{spelled(m)}]", *(f"{name} = {spelled(value)}" for name, value in part.items())]
    return "\n".join(lines) + "\n"


def spelled(value: Any) -> str:
    """The value in TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(spelled, value))}]"
    if isinstance(value, str):
        return '"' + "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in value) + '"'
    return str(value)


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
    return reader(rng, folder)


def toml_bytes(rng: Random, folder: Path) -> list[str]:
    """A benchmark.toml whose bytes are damaged, or nested without an end."""
    tables(rng, folder)
    content = (folder / "benchmark.toml").read_bytes()
    if rng.random() < 0.1:
        content = b"x = " + b"[" * rng.choice([10, 5000])
    (folder / "benchmark.toml").write_bytes(damaged(rng, content))
    return reader(rng, folder)


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
    return reader(rng, folder)


def csv_bytes(rng: Random, folder: Path) -> list[str]:
    """A table whose bytes are damaged."""
    tables(rng, folder)
    path = folder / rng.choice(["clips.csv", "eda.csv"])
    path.write_bytes(damaged(rng, path.read_bytes()))
    return reader(rng, folder)


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
            path.write_bytes(damaged(rng, path.read_bytes()))
    modalities = {**_modalities(), "voice": {"file": "voice.parquet"}}
    (folder / "benchmark.toml").write_text(_toml(_settings(), modalities))
    return reader(rng, folder)


def init(rng: Random, folder: Path) -> list[str]:
    """`data init` of a folder of tables or arrays, some of them damaged."""
    if rng.random() < 0.5:
        rng.choice([csv_cells, csv_bytes, parquet])(rng, folder)
    elif rng.random() < 0.5:
        rng.choice([npz_bytes, npz_arrays])(rng, folder)
    else:
        for name, array in arrays(rng).items():
            np.save(folder / f"{name}.npy", odd(rng, array) if rng.random() < 0.4 else array)
    if rng.random() < 0.9:
        (folder / "benchmark.toml").unlink(missing_ok=True)
    return ["data", "init", str(folder)]

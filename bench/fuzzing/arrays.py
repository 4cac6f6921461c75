"""Damaged and absurd .npz files."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from fuzzing.odd import CELLS, NAMES, NUMBERS, damaged, reader

N, PEOPLE = 36, 6


def arrays(rng: Random) -> dict[str, Any]:
    """Two modalities of 36 samples of six people, two classes: nothing is wrong with them."""
    draw = np.random.default_rng(rng.randrange(2**32))
    y = np.arange(N) % 2
    face = draw.standard_normal((N, 3, 2)) + y[:, None, None]
    return {"face": face, "eda": draw.standard_normal((N, 2)), "y": y, "group": np.arange(N) // (N // PEOPLE)}


def npz_bytes(rng: Random, folder: Path) -> list[str]:
    """An .npz, compressed or not, whose bytes are damaged; or another kind of file under its name."""
    path, buffer = folder / "mine.npz", io.BytesIO()
    rng.choice([np.savez, np.savez_compressed])(buffer, **arrays(rng))
    content = buffer.getvalue()
    if rng.random() < 0.2:
        other = io.BytesIO()
        np.save(other, np.zeros((N, 2)))
        content = rng.choice([other.getvalue(), b"", b"PK\x05\x06" + bytes(18), b"not an archive", rng.randbytes(300)])
    path.write_bytes(damaged(rng, content) if rng.random() < 0.9 else content)
    return reader(rng, path)


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
    return reader(rng, path)


def npz_arrays(rng: Random, folder: Path) -> list[str]:
    """Well-formed arrays of the wrong shape, type, length, range or name."""
    given = arrays(rng)
    for _ in range(rng.choice([1, 1, 2, 3])):
        name = rng.choice([*given, "y_mask", "face_mask", "fold", "split", "id", "extra"])
        given[name] = odd(rng, given.get(name, np.ones(N)))
    if rng.random() < 0.3:
        victim = rng.choice(list(given))
        given[rng.choice([n for n in NAMES if n and "/" not in n and "\n" not in n])] = given.pop(victim)
    path = folder / "mine.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in given.items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            archive.writestr(f"{name}.npy", buffer.getvalue())
    return reader(rng, path)


def odd(rng: Random, array: Any) -> Any:
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
    return reader(rng, path)

"""The feature store: entries of encoded samples on disk, their locks and checksums, and what keeps them tidy."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusionbench import paths
from fusionbench.api import Stream
from fusionbench.errors import UsageError, unknown
from fusionbench.records.store import write

CHUNK = 32  # samples that are written and checked together


class Features:
    """A Source of encoded samples, memory-mapped: (N, T, D) and what of it is there; `digest` names the entry."""

    def __init__(self, digest: str, x: np.ndarray, mask: np.ndarray, chunks: Collection[int]) -> None:
        self.digest, self.x, self.mask = digest, x, mask
        self.shape: tuple[int, ...] = x.shape[1:]
        self.nbytes = int(x.nbytes)
        self.there = np.isin(np.arange(len(x)) // CHUNK, sorted(chunks))

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Any) -> Stream:
        rows = np.arange(len(self))[index.cpu().numpy() if isinstance(index, Tensor) else index]
        if not self.there[rows].all():
            raise UsageError(
                f"feature entry {self.digest}: {int((~self.there[rows]).sum())} samples are not encoded yet"
            )
        return Stream(torch.from_numpy(self.x[rows]), torch.from_numpy(self.mask[rows]))

    def resident(self) -> Stream:
        """All of it in memory."""
        return self[np.arange(len(self))]


class Store:
    """One entry on disk."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.path = folder() / key
        self.valid: set[int] = set()  # chunks whose checksums were right in this process

    def meta(self) -> dict[str, Any] | None:
        """What `entry.json` says; None if there is no usable entry."""
        try:
            found = json.loads((self.path / "entry.json").read_text())
            n, steps, dim = found["n"], found["steps"], found["dim"]
            right = (self.path / "x.bin").stat().st_size == 4 * n * steps * dim
            return found if right and (self.path / "mask.bin").stat().st_size == n * steps else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def missing(self, wanted: Iterable[int]) -> list[int]:
        """The chunks that are not there, or whose checksum is wrong."""
        meta = self.meta()
        if meta is None:
            return list(wanted)
        lost = []
        for chunk in wanted:
            if chunk in self.valid:
                continue
            written = self._written(chunk)
            if written is None or written != self._sums(meta, chunk):
                lost.append(chunk)
            else:
                self.valid.add(chunk)
        return lost

    def chunks(self) -> list[int]:
        """The chunks whose checksums are written, right or wrong."""
        return sorted(int(p.stem) for p in (self.path / "chunks").glob("*.json") if p.stem.isdecimal())

    def forget(self, chunks: Iterable[int]) -> None:
        """The chunks count as not encoded."""
        for chunk in chunks:
            self.valid.discard(chunk)
            self._sum_file(chunk).unlink(missing_ok=True)

    def open(self) -> Features:
        """The entry, mapped; only what was found valid in this process may be read."""
        meta = self.meta()
        if meta is None:
            raise UsageError(f"feature entry {self.path} was removed while it was in use: run the same command again")
        with contextlib.suppress(OSError):  # a read-only cache is fine
            os.utime(self.path / "entry.json")
        shape = (meta["n"], meta["steps"], meta["dim"])
        x = np.memmap(self.path / "x.bin", np.float32, "r", shape=shape)
        return Features(self.key, x, np.memmap(self.path / "mask.bin", np.bool_, "r", shape=shape[:2]), self.valid)

    def save(self, chunk: int, x: np.ndarray, mask: np.ndarray, n: int, parts: Mapping[str, Any]) -> None:
        """Writes a chunk, x (c, T, D) float32 and mask (c, T), then its checksums.

        Raises:
            UsageError: the disk is full or refuses otherwise; the chunk does not count then.
        """
        try:
            if self.meta() is None:
                self._create(n, x.shape[1], x.shape[2], parts)
            for name, array in (("x.bin", x), ("mask.bin", mask)):
                # Not through the map: a full disk would end the process there instead of raising.
                with (self.path / name).open("r+b") as file:
                    _put(file.fileno(), array.tobytes(), chunk * CHUNK * array[0].nbytes)
                    os.fsync(file.fileno())
            sums = {"x": fingerprint(x.tobytes()), "mask": fingerprint(mask.tobytes())}
            write(self._sum_file(chunk), lambda f: f.write(json.dumps(sums).encode()))
            self.valid.add(chunk)
        except OSError as error:
            raise UsageError(
                f"cannot write features to {self.path} ({error.strerror or error}); the {CHUNK * len(self.chunks())} "
                f"samples there stay valid: make room (fusionbench data cache) or set FUSIONBENCH_HOME, and run again"
            ) from None

    def _create(self, n: int, steps: int, dim: int, parts: Mapping[str, Any]) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        (self.path / "chunks").mkdir(parents=True)
        for name, size in (("x.bin", 4 * n * steps * dim), ("mask.bin", n * steps)):
            with (self.path / name).open("wb") as file:
                file.truncate(size)
        text = json.dumps({"n": n, "steps": steps, "dim": dim, "parts": parts}, indent=1)
        write(self.path / "entry.json", lambda f: f.write(text.encode()))
        self.valid.clear()

    def _sum_file(self, chunk: int) -> Path:
        return self.path / "chunks" / f"{chunk:07d}.json"

    def _written(self, chunk: int) -> dict[str, str] | None:
        try:
            found = json.loads(self._sum_file(chunk).read_text())
            return found if isinstance(found, dict) else None
        except (OSError, ValueError):
            return None

    def _sums(self, meta: Mapping[str, Any], chunk: int) -> dict[str, str]:
        sums = {}
        for name, size in (("x", 4 * meta["steps"] * meta["dim"]), ("mask", meta["steps"])):
            with (self.path / f"{name}.bin").open("rb") as file:
                file.seek(chunk * CHUNK * size)
                sums[name] = fingerprint(file.read(CHUNK * size))
        return sums

    @contextlib.contextmanager
    def lock(self) -> Iterator[Iterator[None]]:
        """Exclusive among processes; the value is an iterator that yields, twice a second, until the lock is held.

        The system releases it when its holder ends, however that happens.
        """
        locks = folder() / "locks"
        try:
            locks.mkdir(parents=True, exist_ok=True)
            file = (locks / self.key).open("w")
        except OSError as error:
            raise UsageError(f"cannot write to the cache {folder()}: {error.strerror or error}") from None

        def attempts() -> Iterator[None]:
            while True:
                try:
                    return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    yield
                    time.sleep(0.5)

        with file:
            yield attempts()


def folder() -> Path:
    """Where the entries lie."""
    return Path(paths.cache_dir()) / "features"


def _put(descriptor: int, content: bytes, offset: int) -> None:
    """Writes all of it, or raises OSError."""
    view = memoryview(content)
    while view:
        count = os.pwrite(descriptor, view, offset)
        view, offset = view[count:], offset + count


def fingerprint(*parts: bytes) -> str:
    """32 hexadecimal digits of SHA-256."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:32]


# -------------------------------------------------------------------------------------------------------- maintenance


@dataclass(frozen=True)
class Entry:
    """A line of `fusionbench data cache`: `done` of `total` samples, bytes on disk, when last used (Unix time).

    An entry that cannot be read has total 0.
    """

    key: str
    modality: str
    backbone: str
    damage: str
    done: int
    total: int
    bytes: int
    used: float


def entries() -> list[Entry]:
    """What lies in the store, the latest used first."""
    found = []
    for path in sorted(folder().glob("*")) if folder().is_dir() else []:
        if path.name == "locks" or not path.is_dir():
            continue
        store = Store(path.name)
        meta = store.meta() or {"n": 0, "parts": {}}
        parts, n = meta["parts"], meta["n"]
        done = sum(min(CHUNK, n - c * CHUNK) for c in store.chunks()) if n else 0
        size = sum(512 * p.stat().st_blocks for p in path.rglob("*"))
        mark = path / "entry.json"
        found.append(
            Entry(
                path.name,
                str(parts.get("modality", "?")),
                str(parts.get("backbone", "?")),
                str((parts.get("damage") or {}).get("corruption", "")),
                done,
                n,
                size,
                (mark if mark.exists() else path).stat().st_mtime,
            )
        )
    return sorted(found, key=lambda e: -e.used)


def verify(keys: Collection[str] = ()) -> Iterator[tuple[Entry, int]]:
    """Every entry (or those named) and how many of its chunks are damaged: next use makes those again."""
    for entry in _named(keys):
        store = Store(entry.key)
        damaged = store.missing(store.chunks())
        store.forget(damaged)
        yield entry, len(damaged)


def prune(keys: Collection[str] = (), unused_days: float = 0.0) -> Iterator[Entry]:
    """Removes entries (or those named) not used for so many days; yields each one removed. One in use is left alone."""
    for entry in _named(keys):
        if time.time() - entry.used < 86400 * unused_days:
            continue
        store = Store(entry.key)
        with store.lock() as attempts:
            if next(attempts, "held") is None:
                continue
            shutil.rmtree(store.path, ignore_errors=True)
            yield entry


def _named(keys: Collection[str]) -> list[Entry]:
    known = {entry.key: entry for entry in entries()}
    for key in keys:
        if key not in known:
            raise unknown("feature entry", key, known)
    return [entry for key, entry in known.items() if not keys or key in keys]

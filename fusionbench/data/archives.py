"""The files of a folder, a zip or a tar, and of archives inside that a manifest names; nothing leaves its folder."""

from __future__ import annotations

import gzip
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from fusionbench.errors import UsageError

CHUNK = 1 << 18
DEPTH = 3  # of archives inside archives
BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    gzip.BadGzipFile,
    EOFError,
    NotImplementedError,
    RuntimeError,
)


@dataclass(frozen=True)
class Member:
    """A file that may lie in an archive: its bytes, and what opens it."""

    size: int
    open: Callable[[], IO[bytes]]


#: path, with the archives that it lies in as folders -> member
Members = dict[str, Member]


@contextmanager
def members(source: Path, nested: Collection[str], room: Path) -> Iterator[Members]:
    """The files of a folder or an archive; of the archives inside, those called as in `nested` are looked into.

    A file that is no archive is its own only member. `room` takes what has to be unpacked on the way.

    Raises:
        UsageError: an archive is broken, or a name in it leaves the folder or is a link.
    """
    with ExitStack() as stack:
        try:
            yield _listed(source, nested, room, stack, DEPTH)
        except BROKEN as error:
            raise UsageError(f"{source} is broken or truncated ({error}): delete it and fetch it again") from None


def _listed(source: Path, nested: Collection[str], room: Path, stack: ExitStack, depth: int) -> Members:
    if source.is_dir():
        found = {p.relative_to(source).as_posix(): _of_disk(p) for p in sorted(source.rglob("*")) if p.is_file()}
    elif source.suffix == ".zip":
        found = _zip(source, stack)
    elif _is_tar(source):
        found = _tar(source, room, stack)
    else:
        return {source.name: _of_disk(source)}
    for name in list(found) if depth else []:
        if name.rpartition("/")[2] in nested:
            inner = source / name if source.is_dir() else _unpacked(found[name], name, room)
            for path, member in _listed(inner, nested, room, stack, depth - 1).items():
                if path != inner.name:  # an archive, not a file that happens to be called so
                    found[f"{name}/{path}"] = member
    return found


def _of_disk(path: Path) -> Member:
    return Member(path.stat().st_size, lambda: path.open("rb"))


def _is_tar(path: Path) -> bool:
    return path.name.endswith((".tar", ".tar.gz", ".tgz"))


def _zip(source: Path, stack: ExitStack) -> Members:
    archive = stack.enter_context(zipfile.ZipFile(source))
    found: Members = {}
    for info in archive.infolist():
        _refuse_escape(source, info.filename, link=stat.S_ISLNK(info.external_attr >> 16))
        if not info.is_dir():
            found[info.filename] = Member(info.file_size, partial(archive.open, info))
    return found


def _tar(source: Path, room: Path, stack: ExitStack) -> Members:
    """A compressed tar is decompressed first: its members are read in any order."""
    if source.suffix in (".gz", ".tgz"):
        plain = _place(room, "plain.tar")
        with gzip.open(source, "rb") as packed, plain.open("wb") as copy:
            shutil.copyfileobj(packed, copy, CHUNK)
        source = plain
    archive = stack.enter_context(tarfile.open(source, "r:"))
    found: Members = {}
    for info in archive.getmembers():
        _refuse_escape(source, info.name, link=info.issym() or info.islnk())
        if info.isfile():
            found[info.name] = Member(info.size, partial(_of_tar, archive, info))
    return found


def _of_tar(archive: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    opened = archive.extractfile(info)
    assert opened is not None  # it is a file
    return opened


def _unpacked(member: Member, name: str, room: Path) -> Path:
    target = _place(room, name.rpartition("/")[2])
    with member.open() as file, target.open("wb") as copy:
        shutil.copyfileobj(file, copy, CHUNK)
    return target


def _place(room: Path, name: str) -> Path:
    """A path in a new folder of the room."""
    folder = room / str(sum(1 for _ in room.iterdir()))
    folder.mkdir()
    return folder / name


def _refuse_escape(source: Path, member: str, link: bool) -> None:
    name = member.replace("\\", "/")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or ":" in name:
        raise UsageError(f"{source}: the member {member!r} would leave the folder: not unpacked")
    if link:
        raise UsageError(f"{source}: the member {member!r} is a link: not unpacked")

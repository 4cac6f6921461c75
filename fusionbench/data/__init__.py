"""Getting public data: download with resume, unpack, verify every file against a committed manifest. Imports no torch.

A manifest, `manifests/<name>.json`, holds addresses and checksums; licence, source and citation are declared by the
benchmark of that name. Only the files that a manifest names are ever written, and a folder appears under its name only
when all of them are there and right. Nothing is redistributed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from fusionbench import registry
from fusionbench.data.archives import CHUNK, Members, members
from fusionbench.data.fetch import Progress, download
from fusionbench.errors import UsageError, unknown
from fusionbench.paths import cache_dir, data_dir, home

MANIFESTS = Path(__file__).resolve().parent.parent / "manifests"


@dataclass(frozen=True)
class Manifest:
    """What a data set is, where it is published, and which files it must hold.

    Attributes:
        licence, source, citation: as its benchmark declares them.
        by_hand: how people fetch it themselves, where nothing can be downloaded.
        urls: what is downloaded: archives, or files as they are; none where people have to fetch it themselves.
        inside: archives that lie in other archives and are looked into.
        files: path -> (bytes, SHA-256); the SHA-256 is empty where no checksum of the published file is known.
        folders: `folder/*.txt` -> (files, bytes in all, SHA-256 of their sorted lines "name SHA-256"), where there are
            too many to list; 0, 0 and empty where they are not known.
        without: names of published files that such a pattern does not mean.
    """

    name: str
    title: str
    licence: str
    source: str
    citation: str
    by_hand: str
    urls: tuple[str, ...]
    inside: tuple[str, ...]
    files: dict[str, tuple[int, str]]
    folders: dict[str, tuple[int, int, str]]
    without: frozenset[str]

    @property
    def terms(self) -> str:
        """What a user accepts: title, licence, source and citation."""
        return f"{self.title}\nlicence: {self.licence}\nsource: {self.source}\nplease cite: {self.citation}"

    @property
    def verified(self) -> str:
        """How many files it has, or that nobody here knows what they should be."""
        if not all(digest for *_, digest in (*self.files.values(), *self.folders.values())):
            return "there, but not verified: no checksum of what was published is known"
        return f"{len(self.files) + sum(files for files, _, _ in self.folders.values())} files verified"


def names() -> list[str]:
    """Everything that `get` knows."""
    return sorted(path.stem for path in MANIFESTS.glob("*.json"))


def manifest(name: str) -> Manifest:
    """The manifest of a data set.

    Raises:
        UsageError: there is none.
    """
    if name not in names():
        raise unknown("data set", name, names())
    content = json.loads((MANIFESTS / f"{name}.json").read_text(encoding="utf-8"))
    about = registry.about_here(name)
    return Manifest(
        name=name,
        title=content["title"],
        licence=about["licence"],
        source=about["source"],
        citation=about["citation"],
        by_hand=content.get("by_hand", ""),
        urls=tuple(content["urls"]),
        inside=tuple(content.get("inside", ())),
        files={file: (size, digest) for file, (size, digest) in content.get("files", {}).items()},
        folders={pattern: (n, size, digest) for pattern, (n, size, digest) in content.get("folders", {}).items()},
        without=frozenset(content.get("without", ())),
    )


# ------------------------------------------------------------------------------------------------------ the licence


def is_accepted(name: str) -> bool:
    """Has this user accepted the data set's terms as they are now?"""
    path = _acceptance(name)
    return path.is_file() and path.read_text(encoding="utf-8") == manifest(name).terms


def accept(name: str) -> None:
    """Remembers that the user has accepted the terms, once for all downloads."""
    path = _acceptance(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{name}.{os.getpid()}")
    part.write_text(manifest(name).terms, encoding="utf-8")
    os.replace(part, path)


def _acceptance(name: str) -> Path:
    return home() / "accepted" / name


# --------------------------------------------------------------------------------------------------------- the data


def _silent(done: int, total: int) -> None:
    pass


def is_there(name: str) -> bool:
    """Is there a folder of this data set already?"""
    return data_dir(name).exists()


def get(name: str, source: str | os.PathLike[str] | None = None, progress: Progress = _silent) -> str:
    """Puts a data set where its benchmark looks for it, from the network or from `source`, a local archive or folder.

    Returns the line to print. Files already there are verified and left alone.

    Raises:
        UsageError: no such data set; it cannot be downloaded; the archive or folder is not what the manifest says; the
            disk has no room.
    """
    wanted, target = manifest(name), data_dir(name)
    try:
        if target.exists():
            _verify(wanted, target)
            return f"{target}: already there, {wanted.verified}"
        if source is not None:
            _install(wanted, Path(source).expanduser(), target)
        elif wanted.urls:
            _download(wanted, target, progress)
        else:
            raise UsageError(
                f"{name} is fetched by hand from {wanted.source} ({wanted.by_hand}); then: fusionbench data get {name} "
                f"--from FOLDER_OR_ARCHIVE (needs {', '.join([*wanted.files, *wanted.folders])})"
            )
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror or error}: {error.filename or target}") from error
    return f"{target}: {wanted.verified}"


def _download(wanted: Manifest, target: Path, progress: Progress) -> None:
    """Everything is fetched before anything is unpacked; what is complete stays for the next attempt."""
    _room(wanted, target)
    folder = cache_dir() / "downloads" / f"{wanted.name}-{_short(' '.join(wanted.urls))}"
    for url in wanted.urls:
        download(url, folder / _basename(url), progress)
    _room(wanted, target)  # once more: the downloads have taken some
    try:
        _install(wanted, folder / _basename(wanted.urls[0]) if len(wanted.urls) == 1 else folder, target)
    except UsageError:  # a wrong one must not be resumed; a full disk says nothing of what was fetched
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _basename(url: str) -> str:
    return unquote(urlsplit(url).path).rpartition("/")[2].replace("+", " ") or "download"


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _room(wanted: Manifest, target: Path) -> None:
    """Refuses what the disk cannot hold, before it is full."""
    needed = sum(size for size, _ in wanted.files.values()) + sum(size for _, size, _ in wanted.folders.values())
    target.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(target.parent).free
    if free < needed:
        raise UsageError(f"{wanted.name} needs {needed / 1e6:.0f} MB in {target.parent}, {free / 1e6:.0f} MB are free")


def _install(wanted: Manifest, source: Path, target: Path) -> None:
    """Copies the manifest's files out of an archive or folder into a folder of their own, then gives it its name."""
    if not source.exists():
        raise UsageError(f"there is no {source}")
    _room(wanted, target)
    with tempfile.TemporaryDirectory(prefix=f".{wanted.name}-", dir=target.parent, ignore_cleanup_errors=True) as temp:
        made, unpacked = Path(temp) / wanted.name, Path(temp) / "unpacked"
        made.mkdir()
        unpacked.mkdir()
        nested = {*wanted.inside, *map(_basename, wanted.urls)}
        with members(source, nested, unpacked) as found:
            for path, (size, digest) in wanted.files.items():
                _copy(source, found, path, size, digest, made / path)
            for pattern, known in wanted.folders.items():
                _copy_all(source, found, pattern, known, wanted.without, made)
        try:
            os.rename(made, target)
        except OSError:
            if not target.exists():
                raise
            _verify(wanted, target)  # another process was faster


def _copy(source: Path, found: Members, path: str, size: int, digest: str, target: Path) -> None:
    """The one member that ends in `path`, wherever its folder stands, and has the right size and SHA-256."""
    named = sorted((name for name in found if f"/{name}".endswith(f"/{path}")), key=len)
    if not named:
        raise UsageError(f"{source} holds no {path}")
    for name in named:
        if digest and found[name].size != size:
            continue
        if _write(found, name, target) == digest or not digest:
            return
    raise UsageError(f"{source}: {named[0]} is not the file that was published (its size or SHA-256 differs)")


def _copy_all(
    source: Path, found: Members, pattern: str, known: tuple[int, int, str], without: frozenset[str], target: Path
) -> None:
    """The members that match `folder/*.txt`, wherever that folder stands; right if all of them together are."""
    chosen: dict[str, str] = {}  # file name -> member
    for name in sorted(found, key=lambda name: (len(name), name)):
        folder, _, file = name.rpartition("/")
        if _matches(f"{folder.rpartition('/')[2]}/{file}", pattern, without):
            chosen.setdefault(file, name)
    count, _, digest = known
    if not chosen:
        raise UsageError(f"{source} holds no {pattern}")
    if count and len(chosen) != count:
        raise UsageError(f"{source} holds {len(chosen)} files {pattern}, {count} were published")
    place = target / pattern.rpartition("/")[0]
    digests = {file: _write(found, name, place / file) for file, name in chosen.items()}
    if digest and _joint(digests) != digest:
        raise UsageError(f"{source}: {pattern} are not the files that were published (their joint SHA-256 differs)")


def _matches(path: str, pattern: str, without: frozenset[str]) -> bool:
    file = path.rpartition("/")[2]
    return fnmatch(path, pattern) and not file.startswith(".") and file not in without


def _joint(digests: Mapping[str, str]) -> str:
    return hashlib.sha256("".join(f"{name} {digests[name]}\n" for name in sorted(digests)).encode()).hexdigest()


def _write(found: Members, name: str, target: Path) -> str:
    """Copies a member; its SHA-256."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with found[name].open() as file, target.open("wb") as copy:
        while block := file.read(CHUNK):
            digest.update(block)
            copy.write(block)
    return digest.hexdigest()


def _verify(wanted: Manifest, folder: Path) -> None:
    """Raises UsageError with the first file that is missing or not the published one."""
    again = "delete the folder and run this again"
    for path, (size, digest) in wanted.files.items():
        file = folder / path
        if not file.is_file():
            raise UsageError(f"{folder} has no {path}: {again}")
        if digest and (file.stat().st_size != size or _sha256(file) != digest):
            raise UsageError(f"{file} is not the file that was published: {again}")
    for pattern, (count, _, digest) in wanted.folders.items():
        place, _, glob = pattern.rpartition("/")
        files = [
            path for path in (folder / place).glob(glob) if _matches(f"{place}/{path.name}", pattern, wanted.without)
        ]
        if not files or (count and len(files) != count):
            raise UsageError(f"{folder} has {len(files)} files {pattern}, {count} were published: {again}")
        if digest and _joint({path.name: _sha256(path) for path in files}) != digest:
            raise UsageError(f"{folder}: {pattern} are not the files that were published: {again}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check(path: str, given: Mapping[str, Any] | None = None) -> list[str]:
    """What a benchmark's data are and what is wrong with them, line by line; see `fusionbench.datacheck`."""
    from fusionbench.datacheck import check as examine

    return examine(path, given)

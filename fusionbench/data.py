"""Getting public data: download with resume, unpack, verify every file against a committed manifest. Imports no torch.

A manifest, `manifests/<name>.json`, holds title, licence, source, the archive's URL (empty where people have to fetch
it themselves) and `files`: path -> [bytes, SHA-256]. Only these files are ever written, and a folder appears under its
name only when all of them are there and right.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import stat
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from fusionbench.errors import UsageError, unknown
from fusionbench.paths import cache_dir, data_dir

MANIFESTS = Path(__file__).resolve().parent / "manifests"
CHUNK = 1 << 18
TRIES, PAUSE, TIMEOUT = 6, 1.0, 30.0  # attempts without a new byte; seconds before the second one; seconds of silence

#: Called with (bytes so far, bytes in all or 0).
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Manifest:
    """What an archive is and which files it must hold."""

    name: str
    title: str
    licence: str
    source: str
    url: str
    files: dict[str, tuple[int, str]]


def names() -> list[str]:
    """Everything that `get` knows."""
    return sorted(path.stem for path in MANIFESTS.glob("*.json"))


def manifest(name: str) -> Manifest:
    """The manifest of a data set.

    Raises:
        UsageError: there is none.
    """
    path = MANIFESTS / f"{name}.json"
    if name not in names():
        raise unknown("data set", name, names())
    content = json.loads(path.read_text(encoding="utf-8"))
    files = {file: (size, digest) for file, (size, digest) in content.pop("files").items()}
    return Manifest(name=name, files=files, **content)


def _silent(done: int, total: int) -> None:
    pass


def get(name: str, source: str | os.PathLike[str] | None = None, progress: Progress = _silent) -> list[str]:
    """Puts a data set where its benchmark looks for it, from the network or from `source`, a local .zip or folder.

    Returns the lines to print. Files already there are verified and left alone.

    Raises:
        UsageError: no such data set; it cannot be downloaded; the archive or folder is not what the manifest says.
    """
    wanted, target = manifest(name), data_dir(name)
    about = f"{wanted.title}, licence {wanted.licence}"
    try:
        if target.exists():
            _verify(wanted, target)
            return [about, f"{target}: already there, {len(wanted.files)} files verified"]
        if source is None:
            if not wanted.url:
                needed = ", ".join(wanted.files)
                raise UsageError(
                    f"{name} is fetched by hand from {wanted.source}; then: fusionbench data get {name} --from "
                    f"FOLDER_OR_ZIP (needs {needed})"
                )
            archive = cache_dir() / "downloads" / f"{name}-{_short(wanted.url)}.zip"
            download(wanted.url, archive, progress)
            try:
                _install(wanted, archive, target)
            finally:  # a right one is not needed any more, a wrong one must not be resumed
                archive.unlink(missing_ok=True)
        else:
            _install(wanted, Path(source).expanduser(), target)
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror or error}: {error.filename or target}") from error
    return [about, f"{target}: {len(wanted.files)} files verified"]


def download(url: str, target: Path, progress: Progress = _silent) -> None:
    """Fetches `url` into `target`; a broken download leaves `target`.part, which the next attempt resumes.

    Raises:
        UsageError: the address is refused, or several attempts in a row bring nothing.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    failures = 0
    while not target.exists():
        before = part.stat().st_size if part.exists() else 0
        try:
            _fetch(url, part, progress)
            os.replace(part, target)
        except urllib.error.HTTPError as error:
            if error.code == 416:  # what is there is longer than the file: not a part of it
                part.unlink(missing_ok=True)
            elif error.code < 500 and error.code not in (408, 429):
                raise UsageError(f"{url} answers {error.code} {error.reason}; {_by_hand(url)}") from None
            reason = f"{error.code} {error.reason}"
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        else:
            return
        gained = part.exists() and part.stat().st_size > before
        failures = 0 if gained else failures + 1
        if failures == TRIES:
            raise UsageError(f"{url} cannot be downloaded ({reason}); run again to resume, or {_by_hand(url)}")
        time.sleep(min(30.0, PAUSE * 2**failures))


def _fetch(url: str, part: Path, progress: Progress) -> None:
    """One attempt: appends to `part` if the server grants the rest, else begins again."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "fusionbench", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as answer:
        granted = answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        resumed = have > 0 and answer.status == 206 and granted
        done = have if resumed else 0
        length = int(answer.headers.get("Content-Length") or 0)
        total = done + length if length else 0
        with part.open("ab" if resumed else "wb") as file:
            while block := answer.read(CHUNK):
                file.write(block)
                done += len(block)
                progress(done, total)
        if total and done < total:
            raise http.client.IncompleteRead(b"", total - done)


def _by_hand(url: str) -> str:
    return f"fetch {url} elsewhere and pass it with --from FILE.zip"


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _install(wanted: Manifest, source: Path, target: Path) -> None:
    """Copies the manifest's files out of a zip or folder into a folder of their own, then gives it its name."""
    if not source.exists():
        raise UsageError(f"there is no {source}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with _members(source) as members, tempfile.TemporaryDirectory(prefix=f".{wanted.name}-", dir=target.parent) as temp:
        made = Path(temp) / wanted.name
        for path, (size, digest) in wanted.files.items():
            _copy(source, members, path, size, digest, made / path)
        try:
            os.rename(made, target)
        except OSError:
            if not target.exists():
                raise
            _verify(wanted, target)  # another process was faster


#: name in the archive -> (bytes, opener)
_Members = dict[str, tuple[int, Callable[[], IO[bytes]]]]


def _copy(source: Path, members: _Members, path: str, size: int, digest: str, target: Path) -> None:
    """The one member that ends in `path`, wherever its folder stands, and has the right size and SHA-256."""
    named = [name for name in members if f"/{name}".endswith(f"/{path}")]
    if not named:
        raise UsageError(f"{source} holds no {path}")
    target.parent.mkdir(parents=True, exist_ok=True)
    for name in sorted(named, key=len):
        length, opener = members[name]
        if length != size:
            continue
        found = hashlib.sha256()
        with opener() as file, target.open("wb") as copy:
            while block := file.read(CHUNK):
                found.update(block)
                copy.write(block)
        if found.hexdigest() == digest:
            return
    raise UsageError(f"{source}: {named[0]} is not the file that was published (its size or SHA-256 differs)")


@contextmanager
def _members(source: Path) -> Iterator[_Members]:
    """The files of a folder or of a zip; names that leave the folder and links are refused."""
    if source.is_dir():
        files = (path for path in source.rglob("*") if path.is_file())
        yield {p.relative_to(source).as_posix(): (p.stat().st_size, lambda p=p: p.open("rb")) for p in files}  # type: ignore[misc]
        return
    try:
        with zipfile.ZipFile(source) as archive:
            found: _Members = {}
            for info in archive.infolist():
                _refuse_escape(source, info)
                if not info.is_dir():
                    found[info.filename] = info.file_size, lambda info=info: archive.open(info)  # type: ignore[misc]
            yield found
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise UsageError(f"{source} is no valid zip archive ({error}): delete it and fetch it again") from None


def _refuse_escape(source: Path, info: zipfile.ZipInfo) -> None:
    name = info.filename.replace("\\", "/")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or ":" in name:
        raise UsageError(f"{source}: the member {info.filename!r} would leave the folder: not unpacked")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise UsageError(f"{source}: the member {info.filename!r} is a link: not unpacked")


def _verify(wanted: Manifest, folder: Path) -> None:
    """Raises UsageError with the first file that is missing or not the published one."""
    for path, (size, digest) in wanted.files.items():
        file = folder / path
        if not file.is_file():
            raise UsageError(f"{folder} has no {path}: delete the folder and run this again")
        if file.stat().st_size != size or _sha256(file) != digest:
            raise UsageError(f"{file} is not the file that was published: delete the folder and run this again")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check(path: str, given: Mapping[str, Any] | None = None) -> list[str]:
    """What a benchmark's data are and what is wrong with them, line by line; see `fusionbench.datacheck`."""
    from fusionbench.datacheck import check as examine

    return examine(path, given)

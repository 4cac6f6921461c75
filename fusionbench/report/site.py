"""A folder of pages: it appears whole, or what was there stays; nothing that we did not write is ever removed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from fusionbench.errors import UsageError

#: In every folder that a build made: the files that it wrote, one a line.
MARK = ".fusionbench-site"


def check(folder: Path) -> None:
    """May a build take the place of what is there?

    Raises:
        UsageError: something is there that no build of ours wrote.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir() or folder.is_symlink():
        raise UsageError(f"{folder} is not a folder: name a new one with --site")
    there = _files(folder)
    if not there and not any(folder.iterdir()):
        return
    if MARK not in there:
        raise UsageError(f"{folder} holds something else, and no site of ours: name a new or an empty folder")
    known = {MARK, *(folder / MARK).read_text(encoding="utf-8").splitlines()}
    if strange := sorted(there - known):
        raise UsageError(f"{folder / strange[0]} is not of a site of ours: move it, or name another folder")


def write(folder: Path, pages: Mapping[str, str]) -> list[Path]:
    """Writes the pages (relative path -> text) beside the folder, then puts them in its place; the paths written.

    Raises:
        UsageError: see `check`; or the folder cannot be written.
    """
    check(folder)
    target = Path(os.path.abspath(folder))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as work:
            new, old = Path(work) / "new", Path(work) / "old"
            for name, page in {**pages, MARK: "".join(f"{name}\n" for name in sorted(pages))}.items():
                (new / name).parent.mkdir(parents=True, exist_ok=True)
                (new / name).write_text(page, encoding="utf-8")
            if target.exists():
                target.rename(old)
            try:
                new.rename(target)
            except OSError:
                if old.exists():
                    old.rename(target)
                raise
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise UsageError(f"cannot write {error.filename or folder}: {error.strerror or error}") from None
    return [folder / name for name in pages]


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}

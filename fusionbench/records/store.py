"""Records on disk: read, written, and put away where they are damaged. No torch at the top.

`results/<benchmark>/<fuser>/<run id>.json`; beside it `.npz` (per-sample answers) and `.safetensors` (weights).
What is published stands together in `records.jsonl` and `evidence.npz` of that folder: `load`, `find` and `evidence`
read both. A file of its own comes before what is published of the same run.
"""

from __future__ import annotations

import os
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np

from fusionbench.errors import UsageError
from fusionbench.records import lines
from fusionbench.records.evidence import Evidence, gather
from fusionbench.records.packing import Packed
from fusionbench.records.types import DAMAGE, Predictions, Record, Run, parse, serialised

PUBLISHED, EVIDENCE = "records.jsonl", "evidence.npz"
#: What reading an archive that somebody has damaged may raise.
ARCHIVE = (ValueError, LookupError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


def path_of(results: Path, run: Run) -> Path:
    return results / run.benchmark / run.fuser / f"{run.id}.json"


def save(results: Path, record: Record, predictions: Predictions | None, weights: Mapping[str, Any] | None) -> Path:
    """Writes the weights, the answers and, last, the record; each appears whole or not at all.

    Raises:
        UsageError: the folder cannot be written.
    """
    path = path_of(results, record.run)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if weights is not None:
            from safetensors.torch import save as serialise

            # Copies: weights may share their memory, which the format does not allow.
            payload = serialise({name: value.detach().clone().contiguous() for name, value in weights.items()})
            write(path.with_suffix(".safetensors"), lambda f: f.write(payload))
        if predictions is not None:
            arrays = {f"answers/{c}": a for c, a in predictions.answers.items()}
            arrays |= {f"attributes/{name}": a for name, a in predictions.attributes.items()}
            named = {n: getattr(predictions, n) for n in ("ids", "groups", "y", "y_mask")}
            write(path.with_suffix(".npz"), lambda f: np.savez_compressed(f, allow_pickle=False, **named, **arrays))
        text = serialised(record, indent=1)
        write(path, lambda f: f.write(text.encode() + b"\n"))
    except OSError as error:
        raise UsageError(f"cannot write the results to {path.parent}: {error.strerror or error}") from None
    return path


def find(results: Path, run: Run, own: bool = False) -> Record | None:
    """The record of this run, if there is a readable one; with `own`, published ones do not count."""
    path = path_of(results, run)
    return _read(path) if path.is_file() else None if own else published(path.parent).get(run.id)


def load(results: Path, benchmark: str = "*", fuser: str = "*") -> Iterator[Record]:
    """Every readable record by benchmark, fuser and run id; damaged ones are named and quarantined."""
    for folder in sorted(path for path in results.glob(f"{benchmark}/{fuser}") if path.is_dir()):
        own = {path.stem: path for path in folder.glob("*.json") if len(path.stem) == 16}
        others = published(folder)
        for name in sorted({*own, *others}):
            if (record := _read(own[name]) if name in own else others[name]) is not None:
                yield record


def published(folder: Path) -> dict[str, Record]:
    """Run id -> record of a folder's `records.jsonl`; a damaged line is named on standard error and left out."""
    found: dict[str, Record] = {}
    rows: dict[str, Any] = {}
    try:
        text = (folder / PUBLISHED).read_text()
    except FileNotFoundError:
        return found
    except (OSError, ValueError) as error:
        print(f"warning: {folder / PUBLISHED} cannot be read ({error})", file=sys.stderr)
        return found
    for number, line in enumerate(text.splitlines(), 1):
        try:
            if (record := lines.read(line, rows)) is None:
                continue
            if (record.run.benchmark, record.run.fuser) != (folder.parent.name, folder.name):
                raise ValueError(f"it is of {record.run.fuser} on {record.run.benchmark}")
            found[record.run.id] = record
        except DAMAGE as error:
            print(f"warning: line {number} of {folder / PUBLISHED} is damaged ({error})", file=sys.stderr)
    return found


def predictions(results: Path, run: Run) -> Predictions | None:
    """The answers of a run of one's own, or None if they are not there (a damaged file is named and quarantined)."""
    path = path_of(results, run).with_suffix(".npz")
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            answers, attributes = (
                {n.removeprefix(kind): arrays[n] for n in arrays.files if n.startswith(kind)}
                for kind in ("answers/", "attributes/")
            )
            return Predictions(arrays["ids"], arrays["groups"], arrays["y"], arrays["y_mask"], answers, attributes)
    except OSError as error:
        raise _unreadable(path, error) from None
    except ARCHIVE as error:
        quarantine(path, error)
        return None


def evidence(results: Path, run: Run) -> Evidence | None:
    """What the answers of a run say by group: from the answers themselves, else as published; None if neither is there.

    Published evidence may be of other code than a record of one's own: then it does not count.
    """
    if (answers := predictions(results, run)) is not None:
        return gather(answers)
    path = path_of(results, run)
    return None if path.is_file() else published_evidence(path.parent).get(run.id)


def published_evidence(folder: Path) -> Mapping[str, Evidence]:
    """Run id -> evidence of a folder's `evidence.npz`; a damaged file is named on standard error and counts as none."""
    path = folder / EVIDENCE
    try:
        state = path.stat()
        return _packed(path, state.st_mtime_ns, state.st_size)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _unreadable(path, error) from None
    except ARCHIVE as error:
        print(f"warning: {path} is damaged ({error}); publish again or restore it", file=sys.stderr)
        return {}


@lru_cache(maxsize=4)
def _packed(path: Path, _modified: int, _size: int) -> Packed:
    """Read once for all runs of a row; another state of the file is another key."""
    with np.load(path, allow_pickle=False) as file:
        return Packed({name: file[name] for name in file.files})


def weights(results: Path, run: Run) -> dict[str, Any] | None:
    """The best weights of a run, or None if they are not there (a damaged file is named and quarantined)."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = path_of(results, run).with_suffix(".safetensors")
    if not path.is_file():
        return None
    try:
        return dict(load_file(path))
    except OSError as error:
        raise _unreadable(path, error) from None
    except SafetensorError as error:
        quarantine(path, error)
        return None


def write(path: Path, fill: Callable[[IO[bytes]], Any]) -> None:
    """Writes a file that appears whole or not at all; where the system can, a kill leaves nothing over either."""
    if hasattr(os, "O_TMPFILE"):
        try:
            handle = os.open(path.parent, os.O_TMPFILE | os.O_RDWR, 0o644)
        except OSError:  # not every file system has files without a name
            pass
        else:
            _write_nameless(handle, path, fill)
            return
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:80]}.")
    try:
        with os.fdopen(handle, "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _write_nameless(handle: int, path: Path, fill: Callable[[IO[bytes]], Any]) -> None:
    """The file has a name only once it is whole: its own or, where another is to be replaced, `.NAME.new` first.

    A `.NAME.new` that is there already is of a process that was killed, or is under way, between the two: whole too,
    so that whoever meets it ends what the other began.
    """
    with os.fdopen(handle, "w+b") as file:
        fill(file)
        file.flush()
        os.fsync(file.fileno())
        if _named(file, path):
            return
        aside = path.with_name(f".{path.name}.new")
        while not _named(file, aside):
            _replace(aside, path)
        _replace(aside, path)


def _named(file: IO[bytes], path: Path) -> bool:
    """Gives a file without a name this one, unless it is taken."""
    # Named by a descriptor, for else Python calls link(2), which would link the link in /proc.
    here = os.open(path.parent, os.O_RDONLY)
    try:
        os.link(f"/proc/self/fd/{file.fileno()}", path, src_dir_fd=here, follow_symlinks=True)
    except FileExistsError:
        return False
    finally:
        os.close(here)
    return True


def _replace(aside: Path, path: Path) -> None:
    try:
        os.replace(aside, path)
    except FileNotFoundError:  # another process has done it
        pass
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def quarantine(path: Path, error: BaseException) -> None:
    """Renames a damaged file to `.quarantined` and says so on standard error; nothing is overwritten or lost."""
    aside = path.with_name(path.name + ".quarantined")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.quarantined{number}")
    try:
        path.rename(aside)
        done = f"quarantined as {aside.name}"
    except OSError as problem:
        done = f"could not be quarantined ({problem.strerror})"
    print(f"warning: {path} is damaged ({error}); {done}", file=sys.stderr)


def _unreadable(path: Path, error: OSError) -> UsageError:
    """Too many open files, a server that is away: the file may be valid, so it stays where it is."""
    return UsageError(f"cannot read {path}: {error.strerror or error}")


def _read(path: Path) -> Record | None:
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise _unreadable(path, error) from None
    except UnicodeDecodeError as error:
        quarantine(path, error)
        return None
    try:
        record = parse(text)
        if path != path_of(path.parents[2], record.run):
            raise ValueError("its content is not of the run that its name and folder say")
        return record
    except DAMAGE as error:
        quarantine(path, error)
        return None

"""MLflow's embedded database: it appears whole or not at all, and a broken one is quarantined and made again."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path

from fusionbench.records import store

NAME = "mlflow.db"
MAGIC = b"SQLite format 3\0"
#: Seconds in which another program may still be making a database that has no experiments yet.
PATIENCE = 10.0
#: Seconds to wait for other processes that write to the same store.
QUEUE = 300.0


def path_of(uri: str) -> Path | None:
    """The file of an embedded database; None for a server, another database or one in memory."""
    if not uri.startswith("sqlite:///"):
        return None
    name = uri.removeprefix("sqlite:///").partition("?")[0]
    return Path(name).resolve() if name and name != ":memory:" else None


@contextmanager
def locked(uri: str) -> Iterator[None]:
    """One process at a time logs to this store, and its database is there and whole."""
    from filelock import FileLock

    path = path_of(uri)
    if path is None:
        who = sha256(f"{Path.home()} {uri}".encode()).hexdigest()[:16]
        lock = Path(tempfile.gettempdir()) / f"fusionbench-mlflow-{who}.lock"
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(f".{path.name}.lock")
    with FileLock(lock, timeout=QUEUE):
        if path is not None:
            _make_ready(path)
        yield


def _make_ready(path: Path) -> None:
    for leftover in path.parent.glob(f".{path.name}.*.new*"):  # of a creation that was killed
        leftover.unlink(missing_ok=True)
    if path.exists():
        while fault := find_fault(path):
            if time.time() - path.stat().st_mtime > PATIENCE:
                break
            time.sleep(0.2)
        if not fault:
            return
        _quarantine(path, fault)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".new")
    os.close(handle)
    _create(Path(name))
    os.chmod(name, 0o644)
    if path.exists():  # another program has made one meanwhile
        Path(name).unlink()
    else:
        os.replace(name, path)


def _create(path: Path) -> None:
    """MLflow's tables and its default experiment."""
    from mlflow import MlflowClient

    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments(max_results=1)


def find_fault(path: Path) -> str:
    """Why MLflow could not use the file, in words; empty if it could, or if the file is no business of ours."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        begins = file.read(len(MAGIC))
    if begins != MAGIC:
        # A stranger's file under a name that the user gave stays where it is: MLflow itself will refuse it.
        return "it is not a database" if path.name == NAME or not begins else ""
    try:
        with closing(sqlite3.connect(path, timeout=10)) as connection:
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                return str(found)
            if not connection.execute("SELECT count(*) FROM experiments").fetchone()[0]:
                return "its creation was never finished"
    except sqlite3.OperationalError as error:
        # Busy, unreadable or out of memory is not broken; without its tables it was never finished.
        return "its creation was never finished" if "no such table" in str(error) else ""
    except sqlite3.DatabaseError as error:
        return str(error)
    return ""


def _quarantine(path: Path, fault: str) -> None:
    """Puts the database away, and what SQLite keeps beside it: a journal would be applied to the new one."""
    store.quarantine(path, ValueError(fault))
    for ending in ("-journal", "-wal", "-shm"):
        beside = path.with_name(path.name + ending)
        if beside.exists():
            store.quarantine(beside, ValueError(f"it belongs to a broken {path.name}"))

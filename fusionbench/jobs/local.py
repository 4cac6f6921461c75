"""What a worker does with a cell, in whatever process."""

from __future__ import annotations

import os
import platform
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from fusionbench import harness, registry
from fusionbench.engine import Progress
from fusionbench.errors import UsageError
from fusionbench.harness import Setup
from fusionbench.jobs.plan import Cell, Failure, Outcome, package
from fusionbench.records import Record, Run, store

#: A cell that has taken so many workers with it is reported as failed.
DEATHS = 3


def do(cell: Cell, setup: Callable[[], Setup]) -> Iterator[Progress | Record | Failure]:
    """Every run of the cell comes out once, as a record or as a failure; what is on disk is not done again."""
    left = {run.id: run for run in cell.runs}
    results = Path(cell.results)
    try:
        made = setup()
        todo = harness.plan(made, cell.runs, results, cell.conditions)
        work = harness.execute(
            made, todo, results, conditions=cell.conditions, device=cell.device, stacked=cell.stacked
        )
        for event in chain(todo.done, work):
            if isinstance(event, Record):
                left.pop(event.run.id)
                _error_file(results, event.run).unlink(missing_ok=True)
            yield event
    except Exception:  # a plugin may raise anything at all; the other cells go on
        text = traceback.format_exc()
        yield from (_failed(results, run, text) for run in left.values())


def _error_file(results: Path, run: Run) -> Path:
    return store.path_of(results, run).with_suffix(".error.txt")


def _failed(results: Path, run: Run, text: str) -> Failure:
    file = _error_file(results, run)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        store.write(file, lambda f: f.write(text.encode()))
    except OSError as error:
        text = f"{text}(and {file} cannot be written: {error.strerror})\n"
    return Failure(run, text, str(file))


_TURN = threading.Lock()  # initial weights come from torch's one generator: a process does one cell at a time
_latest: list[Setup] = []


def work(cell: Cell) -> Outcome:
    """Does the cell in this process; never raises."""
    outcome = Outcome(cell.key)
    with _TURN:
        for event in do(cell, lambda: _setup(cell)):
            if isinstance(event, Record):
                outcome.records.append(event)
            elif isinstance(event, Failure):
                outcome.failures.append(event)
    return outcome


def work_here(cell: Cell) -> Outcome:
    """`work` in a process of this machine: its share of the cores, its GPU; only the parent hears an interrupt."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=_follow, args=[os.getppid()], daemon=True).start()
        warnings.filterwarnings("ignore", "left out: ")  # the parent has listed the broken files
    torch.set_num_threads(cell.threads or 1)
    if cell.device in ("auto", "cuda") and (gpus := torch.cuda.device_count()) > 1:
        cell = replace(cell, device=f"cuda:{_slot(Path(cell.folder)) % gpus}")
    return work(cell)


def _follow(parent: int) -> None:
    """A worker whose parent was killed ends too."""
    while os.getppid() == parent:
        time.sleep(2)
    os._exit(1)


def work_there(cell: Cell) -> Outcome:
    """`work` in a worker of a cluster; a cell that has killed its workers is not begun again."""
    begun = Path(cell.folder) / cell.key
    try:
        with begun.open("a") as file:
            file.write(f"{platform.node()} {os.getpid()}\n")
        workers = begun.read_text().split("\n")[:-1]
    except OSError as error:
        text = f"UsageError: {platform.node()} cannot write to {begun.parent}: {error.strerror}\n"
        return Outcome(cell.key, [], [_failed(Path(cell.results), run, text) for run in cell.runs])
    if len(workers) > DEATHS:
        return killer(cell, "the workers (host, process) were " + ", ".join(workers[:DEATHS]))
    return work(cell)


def killer(cell: Cell, why: str) -> Outcome:
    """The outcome of a cell that nobody begins again."""
    text = f"{why}\nWorkerDied: {DEATHS} workers in turn were killed while they worked at this (out of memory?)\n"
    return Outcome(cell.key, [], [_failed(Path(cell.results), run, text) for run in cell.runs])


def _setup(cell: Cell) -> Setup:
    """The cell's setup; the data of the benchmark in hand are kept.

    Raises:
        UsageError: this worker has other code or data than the command.
    """
    # A worker of a cluster outlives an edit of a plugin file given by path.
    registry._load_path.cache_clear()
    made = harness.setup(**cell.arguments)
    if _latest and _source(_latest[0]) == _source(made):
        known = _latest[0]  # its benchmark too: it knows what it left out
        made = replace(made, benchmark=known.benchmark)
        made.__dict__.update(prepared=known.prepared, digest=known.digest)
    _latest[:] = [made]
    have = {"package": package(), "plugins": made.code, "data": made.digest}
    for what, wanted in {"package": cell.package, "plugins": cell.code, "data": cell.data}.items():
        if wanted and have[what] != wanted:
            host = platform.node()
            raise UsageError(
                f"worker {os.getpid()} on {host} has another state of the {what}: restart it, or copy them"
            )
    return made


def _source(setup: Setup) -> list[Any]:
    """All that a setup's data depend on: the benchmark and, where they encode raw media, the backbones."""
    parts = [part for part in setup.hparams if part not in ("fuser", "train")]
    given = setup.arguments["given"] or {}
    return [
        setup.benchmark_name,
        *((p, setup.names.get(p), setup.code[p], setup.hparams[p], given.get(p)) for p in parts),
    ]


_held: list[Any] = []


def _slot(folder: Path) -> int:
    """The lowest number that no other living process holds; this one holds it until it ends."""
    from filelock import FileLock, Timeout

    while not _held:
        for number in range(1024):
            lock = FileLock(folder / f"{number}.lock")
            try:
                lock.acquire(blocking=False)
            except Timeout:
                continue
            _held[:] = [number, lock]
            break
    return int(_held[0])

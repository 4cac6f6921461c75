"""One queue of cells, carried out here, by processes of this machine, or by the workers of a Dask cluster.

A cell is a few runs of one table row, as plain data: whoever takes it builds the setup again from its arguments, does
what is not on disk yet and writes the records itself. So a cell can be given to another worker at any time.

Runs that form one program of the engine stay in one cell, whatever the number of workers: on the CPU a run has the same
company under any `jobs`. On CUDA, where a program takes all that memory holds, a row is cut so that every worker has
work; its numbers then agree with those of one process as stacked members do, up to rounding.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from fusionbench import harness
from fusionbench.engine import Progress
from fusionbench.harness import Setup
from fusionbench.jobs.cluster import on_cluster
from fusionbench.jobs.local import DEATHS, do, killer, work, work_here
from fusionbench.jobs.plan import Cell, Failure, Outcome, Row, Running, cells, cut
from fusionbench.jobs.progress import watch
from fusionbench.records import Record

__all__ = ["Cell", "Failure", "Outcome", "Running", "cells", "execute", "watch", "work"]


def execute(
    rows: Iterable[Row],
    results: Path,
    *,
    device: str = "auto",
    stacked: int | None = None,
    jobs: int = 1,
    cluster: str | None = None,
) -> Iterator[Record | Failure | Running]:
    """Does what the plans say; yields each record or failure when its cell is finished, and what is under way.

    Args:
        jobs: processes on this machine, each with its share of the cores, in turn on its GPUs; 1: no other process.
        cluster: `dask://host:port`, or `dask+tls://host:port`; its workers see `results` under the same path.

    Raises:
        UsageError: the device is not there, or the cluster cannot be used.
    """
    rows = [row for row in rows if row[2].train or row[2].evaluate]
    if not rows:
        return
    if cluster is not None:
        yield from on_cluster(rows, results, cluster, device, stacked)
        return
    where = harness.pick(device)
    if jobs == 1:
        for cell, setup in cut(rows, results, 1, where, device, stacked):
            yield from _in_process(cell, setup)
        return
    folder = tempfile.mkdtemp(prefix="fusionbench-")
    try:
        import joblib

        threads = max(1, min(torch.get_num_threads(), joblib.cpu_count() // jobs))
        queue = [c for c, _ in cut(rows, results, jobs, where, device, stacked, folder, threads)]
        yield from _in_processes(queue, jobs, threads)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _in_process(cell: Cell, setup: Setup) -> Iterator[Record | Failure | Running]:
    finished = 0
    yield Running(1)
    for event in do(cell, lambda: setup):
        if isinstance(event, Progress):
            yield Running(1, max(0.0, event.done / event.total * len(cell.runs) - finished))
        else:
            finished += 1
            yield event
            yield Running(1)


def _in_processes(queue: Sequence[Cell], jobs: int, threads: int) -> Iterator[Record | Failure | Running]:
    """Through joblib's process pool, which breaks when a worker is killed: what was lost is queued again.

    Nobody knows whose cell killed the pool, so one that was lost twice in company waits until it can be alone.
    """
    import joblib
    from joblib.externals.loky.process_executor import BrokenProcessPool

    warnings.filterwarnings("ignore", "A worker stopped while some jobs")  # its memory had grown: it was replaced
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads starve one another on shared cores
    open_, lost = {cell.key: cell for cell in queue}, Counter[str]()
    while open_:
        safe = [cell for key, cell in open_.items() if lost[key] < DEATHS - 1]
        batch = safe or list(open_.values())[:1]
        handed: set[str] = set()

        def hand(batch: list[Cell] = batch, handed: set[str] = handed) -> Iterator[Any]:
            for cell in batch:
                handed.add(cell.key)
                yield joblib.delayed(work_here)(cell)

        def running(handed: set[str] = handed) -> Running:
            return Running(min(jobs, len(handed & open_.keys())))

        with joblib.parallel_config("loky", inner_max_num_threads=threads):
            pool = joblib.Parallel(
                jobs, return_as="generator_unordered", batch_size=1, pre_dispatch="n_jobs", max_nbytes=None
            )
        try:
            outcomes = pool(hand())
            yield running()
            for outcome in outcomes:
                del open_[outcome.key]
                yield from outcome.told()
                yield running()
        except BrokenProcessPool as error:
            victims = handed & open_.keys()
            lost.update(victims)
            for key in victims:
                if lost[key] >= DEATHS:
                    yield from killer(open_.pop(key), str(error)).told()
            print(f"warning: a worker was killed; {len(victims & open_.keys())} jobs go to others", file=sys.stderr)

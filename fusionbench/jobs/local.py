"""What a worker does with a job, and the processes of this machine as workers."""

from __future__ import annotations

import os
import platform
import sys
import threading
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from fusionbench import harness, paths, registry
from fusionbench.engine import Progress
from fusionbench.errors import UsageError
from fusionbench.harness import Dataset, Setup
from fusionbench.jobs.plan import Failure, Job, Outcome, Running, package
from fusionbench.records import Record, Run, store
from fusionbench.workers import follow

#: A job that has taken so many workers with it is reported as failed.
DEATHS = 3


def do(job: Job, setup: Callable[[], Setup]) -> Iterator[Progress | Record | Failure]:
    """Every run of the job comes out once, as a record or as a failure.

    What another process has done since the job was planned is not done again.
    """
    left = {run.id: run for run in job.runs}
    results = Path(job.results)
    try:
        plan = job.left(setup())
        work = harness.execute(
            plan.setup,
            plan.train,
            results,
            again=plan.evaluate,
            conditions=job.conditions,
            device=job.device,
            stacked=job.stack,
        )
        for event in chain(plan.done, work):
            if isinstance(event, Record):
                left.pop(event.run.id)
                _error_file(results, event.run).unlink(missing_ok=True)
            yield event
    except (Exception, SystemExit):  # a plugin may raise anything at all; the other jobs go on
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


_TURN = threading.Lock()  # initial weights come from torch's one generator: a process does one job at a time
_datasets: dict[str, Dataset] = {}  # the one in hand


def work(job: Job) -> Outcome:
    """Does the job in this process; never raises."""
    outcome = Outcome(job.key)
    with _TURN:
        for event in do(job, lambda: _setup(job)):
            if isinstance(event, Record):
                outcome.records.append(event)
            elif isinstance(event, Failure):
                outcome.failures.append(event)
    return outcome


def work_here(job: Job) -> Outcome:
    """`work` in a process of this machine: its share of the cores, its GPU."""
    warnings.filterwarnings("ignore", "left out: ")  # the parent has listed the broken files
    torch.set_num_threads(job.threads or 1)
    if job.device in ("auto", "cuda") and (gpus := torch.cuda.device_count()) > 1:
        job = replace(job, device=f"cuda:{_slot(paths.cache_dir() / 'gpus') % gpus}")
    return work(job)


def work_there(job: Job) -> Outcome:
    """`work` in a worker of a cluster; a job that has killed its workers is not begun again."""
    begun = Path(job.folder) / job.key
    try:
        with begun.open("a") as file:
            file.write(f"{platform.node()} {os.getpid()}\n")
        workers = begun.read_text().split("\n")[:-1]
    except OSError as error:
        text = f"UsageError: {platform.node()} cannot write to {begun.parent}: {error.strerror}\n"
        return Outcome(job.key, [], [_failed(Path(job.results), run, text) for run in job.runs])
    if len(workers) > DEATHS:
        return killer(job, "the workers (host, process) were " + ", ".join(workers[:DEATHS]))
    return work(job)


def killer(job: Job, why: str) -> Outcome:
    """The outcome of a job that nobody begins again."""
    text = f"{why}\nWorkerDied: {DEATHS} workers in turn were killed while they worked at this (out of memory?)\n"
    return Outcome(job.key, [], [_failed(Path(job.results), run, text) for run in job.runs])


def _setup(job: Job) -> Setup:
    """The job's setup; the data of the benchmark in hand are kept.

    Raises:
        UsageError: this worker has other code or data than the command.
    """
    # A worker of a cluster outlives an edit of a plugin file given by path.
    registry._load_path.cache_clear()
    made = harness.setup(**job.arguments, datasets=_datasets)
    for key in [key for key, dataset in _datasets.items() if dataset is not made.dataset]:
        del _datasets[key]
    have = {"package": package(), "plugins": made.code, "data": made.digest}
    for what, wanted in {"package": job.package, "plugins": job.code, "data": job.data}.items():
        if wanted and have[what] != wanted:
            host = platform.node()
            raise UsageError(
                f"worker {os.getpid()} on {host} has another state of the {what}: restart it, or copy them"
            )
    return made


_held: list[Any] = []


def _slot(folder: Path) -> int:
    """The lowest number that no other living process of this machine holds; this one holds it until it ends."""
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
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


def in_process(job: Job, setup: Setup) -> Iterator[Record | Failure | Running]:
    """Does the job here and now, telling how far it is."""
    finished = 0
    yield Running(1)
    for event in do(job, lambda: setup):
        if isinstance(event, Progress):
            yield Running(1, max(0.0, event.done / event.total * len(job.runs) - finished))
        else:
            finished += 1
            yield event
            yield Running(1)


def in_processes(queue: Sequence[Job], jobs: int, threads: int) -> Iterator[Record | Failure | Running]:
    """Through joblib's process pool, which breaks when a worker is killed: what was lost is queued again.

    Nobody knows whose job killed the pool, so one that was lost twice beside others waits until it can be alone.
    """
    import joblib
    from joblib.externals.loky.process_executor import BrokenProcessPool

    warnings.filterwarnings("ignore", "A worker stopped while some jobs")  # its memory had grown: it was replaced
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads starve one another on shared cores
    open_, lost = {job.key: job for job in queue}, Counter[str]()
    while open_:
        safe = [job for key, job in open_.items() if lost[key] < DEATHS - 1]
        batch = safe or list(open_.values())[:1]
        handed: set[str] = set()

        def hand(batch: list[Job] = batch, handed: set[str] = handed) -> Iterator[Any]:
            for job in batch:
                handed.add(job.key)
                yield joblib.delayed(work_here)(job)

        def running(handed: set[str] = handed) -> Running:
            return Running(min(jobs, len(handed & open_.keys())))

        with joblib.parallel_config("loky", inner_max_num_threads=threads):
            pool = joblib.Parallel(
                jobs, return_as="generator_unordered", batch_size=1, pre_dispatch="n_jobs", max_nbytes=None,
                initializer=follow, initargs=(os.getpid(),),
            )  # fmt: skip
        try:
            outcomes = pool(hand())
            yield running()
            for outcome in outcomes:
                del open_[outcome.key]
                yield from outcome.events
                yield running()
        except BrokenProcessPool as error:
            victims = handed & open_.keys()
            lost.update(victims)
            for key in victims:
                if lost[key] >= DEATHS:
                    yield from killer(open_.pop(key), str(error)).events
            print(f"warning: a worker was killed; {len(victims & open_.keys())} jobs go to others", file=sys.stderr)

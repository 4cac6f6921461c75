"""One list of jobs, done here, by processes of this machine, or by the workers of a Dask cluster.

A job is a few runs of one table row, as plain data: whoever takes it builds the setup again from its arguments, does
what it carries and writes the records itself. So a job can be given to another worker at any time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from fusionbench import harness, text, tracking
from fusionbench.errors import UsageError
from fusionbench.jobs.cluster import address_of, on_cluster
from fusionbench.jobs.local import in_process, in_processes, work
from fusionbench.jobs.plan import Failure, Job, Outcome, Plan, Running, cut, plan_runs, sized
from fusionbench.jobs.progress import watch
from fusionbench.progress import bar, counted
from fusionbench.records import Record
from fusionbench.records.types import digest

__all__ = [
    "Failure",
    "Job",
    "Outcome",
    "Performed",
    "Plan",
    "Running",
    "execute",
    "perform",
    "plan_runs",
    "sized",
    "watch",
    "work",
]

#: An estimate from which on several processes pay for their start.
WORTH_PROCESSES = 40.0  # seconds


@dataclass(frozen=True)
class Performed:
    """What came of plans: every record asked for, those obtained now among them, and what broke."""

    records: list[Record]
    fresh: list[Record] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Did everything succeed?"""
        return not self.failures and all(record.status == "done" for record in self.fresh)


def _silent(text: str) -> None:
    pass


def perform(
    plans: Sequence[Plan],
    results: Path,
    title: str,
    *,
    device: str = "auto",
    jobs: int | None = None,
    cluster: str | None = None,
    stack: int | None = None,
    track: bool = True,
    track_artifacts: bool = False,
    say: Callable[[str], None] = _silent,
) -> Performed:
    """Does what the plans say and mirrors it to MLflow: what `run` and `compare` do, as commands and in Python.

    Args:
        title: what the lines of `say` and of the progress begin with.
        jobs: processes on this machine; None: one a core for long work on a CPU, else none but this.
        cluster, stack: as in `execute`.
        track_artifacts: log weights and answers to MLflow too.
        say: takes an estimate, the end, and what failed, a line each.

    Raises:
        UsageError: the device is not there, or the cluster cannot be used.
    """
    where = harness.pick(device)  # a wrong one is told whatever is on disk
    if cluster is not None:
        address_of(cluster)
    ready = [item for plan in plans for item in plan.done]
    # Stands from the first new record until the mirror has them: a command that is killed in between is told so.
    owed = results / f".unmirrored-{digest(sorted(run.id for plan in plans for run in plan.runs))}"
    plans = [plan for plan in plans if plan.todo]
    if not plans:
        say(f"{title}: {'its run is' if len(ready) == 1 else f'all {len(ready)} runs are'} on disk")
        if track and owed.is_file():
            _mirror(ready, results, owed, track_artifacts)
        return Performed(ready)
    train, evaluate = (sum(len(getattr(plan, part)) for plan in plans) for part in ("train", "evaluate"))
    todo = f"{text.counted(train, 'run')} to train" + (f", {evaluate} to evaluate" if evaluate else "")
    if cluster is None:
        with bar("estimating") as advance:
            plans = [sized(plan, where, stack) for plan in plans]
            seconds = sum(_estimate(plan, device) for plan in counted(plans, advance, len(plans)))
        jobs = _processes(seconds, train + evaluate, where) if jobs is None else jobs
        todo += f"; estimate: {text.duration(seconds / jobs)}" + (f" in {jobs} processes" if jobs > 1 else "")
    say(f"{title}: {text.counted(len(ready), 'run')} on disk, {todo}")
    began = time.perf_counter()
    fresh: list[Record] = []
    failures: list[Failure] = []
    events = execute(plans, results, device=device, jobs=jobs or 1, cluster=cluster, stack=stack)
    for event in watch(events, train + evaluate, title):
        if isinstance(event, Failure):
            failures.append(event)
        else:
            if track and not fresh:
                owed.touch()
            fresh.append(event)
    say(f"{title}: {text.counted(len(fresh), 'run')} in {text.duration(time.perf_counter() - began)}")
    if fresh and track:
        _mirror(ready + fresh, results, owed, track_artifacts)  # with what an interrupted command has left behind
    for item in fresh:
        if item.status != "done":
            say(f"failed: {item.run.fuser} fold {item.run.fold} seed {item.run.seed}: {item.error}")
    return Performed(ready + fresh, fresh, failures)


def _mirror(records: Sequence[Record], results: Path, owed: Path, artifacts: bool) -> None:
    with bar("mirroring to MLflow") as advance:
        tracking.sync(records, results, artifacts=artifacts, advance=advance)
    owed.unlink(missing_ok=True)


def execute(
    plans: Iterable[Plan],
    results: Path,
    *,
    device: str = "auto",
    jobs: int = 1,
    cluster: str | None = None,
    stack: int | None = None,
) -> Iterator[Record | Failure | Running]:
    """Does what the plans say; yields each record or failure when its job is finished, and what is under way.

    Args:
        jobs: processes on this machine, each with its share of the cores, in turn on its GPUs; 1: no other process.
        cluster: `dask://host:port`, or `dask+tls://host:port`; its workers see `results` under the same path.
        stack: members a program; None: as the plans say, or as many as pay.

    Raises:
        UsageError: the device is not there, or the cluster cannot be used.
    """
    plans = [plan for plan in plans if plan.todo]
    if not plans:
        return
    if cluster is not None:
        yield from on_cluster(plans, results, cluster, device, stack)
        return
    where = harness.pick(device)
    plans = [plan if plan.stack else sized(plan, where, stack) for plan in plans]
    if jobs == 1:
        for job, setup in cut(plans, results, 1, where, device=device):
            yield from in_process(job, setup)
        return
    import joblib

    threads = max(1, min(torch.get_num_threads(), joblib.cpu_count() // jobs))
    pairs = cut(plans, results, jobs, where, device=device, threads=threads)
    yield from in_processes([job for job, _ in pairs], jobs, threads)


def _estimate(plan: Plan, device: str) -> float:
    """Seconds of one plan; 0 for a method that breaks, which is reported when it is run, and the others go on."""
    seconds = 0.5 * len(plan.evaluate)
    if not plan.train:
        return seconds
    try:
        return seconds + harness.estimate(plan.setup, plan.train, plan.conditions, device, plan.stack or 1)
    except UsageError:
        raise
    except (Exception, SystemExit):  # a method may raise anything at all
        return seconds


def _processes(seconds: float, runs: int, where: torch.device) -> int:
    """One process a core for long work on the CPU: small steps scale over processes, hardly over threads."""
    import joblib

    if seconds < WORTH_PROCESSES or where.type != "cpu":
        return 1
    return max(1, min(joblib.cpu_count(), runs))

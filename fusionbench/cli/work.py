"""Carrying out planned rows: an estimate first, processes or a cluster, progress, the mirror, what failed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fusionbench.errors import UsageError

if TYPE_CHECKING:
    from fusionbench.harness import Plan, Setup
    from fusionbench.records import Record
    from fusionbench.study import Row

#: An estimate from which on several processes pay for their start.
WORTH_PROCESSES = 40.0  # seconds


def options(command: Any) -> Any:
    """The flags of every command that trains."""
    for option in reversed([
        click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1"),
        click.option("--results", type=click.Path(path_type=Path), default=Path("results"), show_default=True),
        click.option("--jobs", "-j", type=click.IntRange(1), help="Processes on this machine.  [default: by the work]"),
        click.option("--cluster", metavar="dask://HOST:PORT", help="Workers of a Dask cluster; see docs/cluster.md."),
        click.option("--stack", type=click.IntRange(1), help="Members trained in one program.  [default: by size]"),
        click.option("--no-track", is_flag=True, help="Leave MLflow out."),
    ]):  # fmt: skip
        command = option(command)
    return command


def carry_out(
    rows: list[Row],
    title: str,
    *,
    device: str,
    results: Path,
    jobs: int | None,
    cluster: str | None,
    stack: int | None,
    no_track: bool,
) -> tuple[list[Record], bool]:
    """Does what the plans say and mirrors it; every record asked for, and whether all went well."""
    from fusionbench import harness, tracking
    from fusionbench import jobs as queue

    todo = [(setup, conditions, plan) for setup, conditions, plan in rows if plan.train or plan.evaluate]
    ready = [item for *_, plan in rows for item in plan.done]
    if not todo:
        click.echo(f"{title}: all {len(ready)} runs are on disk", err=True)
        return ready, True
    train, evaluate = (sum(len(getattr(plan, part)) for *_, plan in todo) for part in ("train", "evaluate"))
    harness.pick(device)  # an unknown one fails here, before anything is measured
    seconds = sum(_estimate(*row, device) for row in todo)
    if jobs is None:
        jobs = _processes(seconds, train + evaluate, device)
    work = f"{train} runs to train" + (f", {evaluate} to evaluate" if evaluate else "")
    about = "" if cluster else f": {duration(seconds / jobs)} at most" + (f" in {jobs} processes" if jobs > 1 else "")
    click.echo(f"{title}: {len(ready)} runs on disk, {work}{about}", err=True)
    began, fresh, failures = time.perf_counter(), [], 0
    events = queue.execute(todo, results, device=device, stacked=stack, jobs=jobs, cluster=cluster)
    for event in queue.watch(events, train + evaluate, title):
        if isinstance(event, queue.Failure):
            failures += 1
        else:
            fresh.append(event)
    click.echo(f"{title}: {len(fresh)} runs in {duration(time.perf_counter() - began)}", err=True)
    if fresh and not no_track:
        tracking.sync(ready + fresh, results)  # with what an interrupted command has left behind
    failed = [item for item in fresh if item.status != "done"]
    for item in failed:
        click.echo(f"failed: {item.run.fuser} fold {item.run.fold} seed {item.run.seed}: {item.error}", err=True)
    return ready + fresh, not failed and not failures


def _estimate(setup: Setup, conditions: list[str], plan: Plan, device: str) -> float:
    """Seconds of one row; 0 for a method that breaks, which is told when it is run, and the others go on."""
    from fusionbench import harness

    try:
        return harness.estimate(setup, plan, conditions, device)
    except UsageError:
        raise
    except Exception:  # a method may raise anything at all
        return 0.0


def _processes(seconds: float, runs: int, device: str) -> int:
    """One process a core for long work on the CPU: small steps scale over processes, hardly over threads."""
    import joblib

    from fusionbench import harness

    if seconds < WORTH_PROCESSES or harness.pick(device).type != "cpu":
        return 1
    return max(1, min(joblib.cpu_count(), runs))


def duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"

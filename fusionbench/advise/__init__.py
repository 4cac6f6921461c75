"""Which fusion method to use on these data, by a race within a budget of minutes, and what to expect of it.

The strongest rows (classical and networks, with and without modality dropout, each modality alone) are raced by
successive halving over steps, inner folds and seeds, on validation groups only. The same race, run again on
the other groups of each outer fold, is evaluated on test groups that no choice has seen: that score is promised, not
the winner's own on validation, which the race has picked for being high.

The schedule is fixed before from what each training was measured to cost, and whatever was obtained is kept: the same
command goes on where it was interrupted. `fit` then trains the winner on everything, as a model for use.
"""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fusionbench import audit, datacheck
from fusionbench.advise.candidates import RACED, Candidate, Entrant, entrants
from fusionbench.advise.evaluation import Evaluation, evaluate, outer_splits
from fusionbench.advise.fitting import fit
from fusionbench.advise.ledger import Ledger
from fusionbench.advise.outcome import Advice, Rival, Sensor, conclude
from fusionbench.advise.page import write_page
from fusionbench.advise.racing import Race, inner_splits, race
from fusionbench.advise.schedule import GENEROUS, Price, Schedule, plan
from fusionbench.advise.telling import tell
from fusionbench.advise.trial import cost
from fusionbench.api import Batch
from fusionbench.errors import UsageError
from fusionbench.records import plain, store
from fusionbench.text import counted, duration, listed
from fusionbench.workers import follow

__all__ = ["RACED", "Advice", "Rival", "Sensor", "advise", "fit", "spelled", "tell", "write_page"]

#: The share of the time that a race may take before its finalists get no more seeds.
PATIENCE = 0.95


def advise(
    target: str,
    *,
    minutes: float = 30.0,
    fusers: Sequence[str] = RACED,
    given: Mapping[str, Mapping[str, Any]] | None = None,
    results: Path | str = "results",
    jobs: int | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Advice:
    """Races the candidates on a benchmark or on somebody's own data, and answers which to use.

    Args:
        target: a benchmark's name, an .npz file, a folder with benchmark.toml.
        minutes: of wall clock, for everything.
        fusers: names or paths of what is raced.
        given: part (benchmark, train) -> hyper-parameter -> value, for all of them.
        results: where what is obtained is kept, and the answer (`advice.json`).
        jobs: processes; None: one a core.
        say: takes lines about the plan and how far it is.

    Raises:
        UsageError: the data are not fit for training, there are too few groups, or the time is too short for one round.
    """
    import joblib

    began = time.monotonic()
    if minutes <= 0:
        raise UsageError(f"a race takes more than {minutes:g} minutes: --minutes 30")
    if not fusers:
        raise UsageError("a race takes a fuser or more: --fusers forest,concat")
    settings = (given or {}).get("benchmark")
    _refuse_bad_data(target, settings)
    suspicions = _suspicions(target, settings)
    field = entrants(target, fusers, given)
    setup = field[0].setup
    folder = Path(results) / setup.benchmark_name / "advice"
    ledger = Ledger(folder / "trials")
    data, everything = setup.data, _labelled(setup.data)
    jobs = jobs or joblib.cpu_count()
    splits = outer_splits(setup.benchmark, setup.benchmark_name, data, GENEROUS[0][1])
    prices = _prices(field, data, everything, ledger)
    spent = time.monotonic() - began
    schedule = plan(prices, 60 * minutes - spent, len(splits), jobs, spent)
    for line in _announced(schedule, minutes, jobs):
        say(line)
    limit = PATIENCE * 60 * minutes / -(-(schedule.outer + 1) // jobs)
    tasks = [_Task(target, tuple(fusers), plain(given or {}), schedule, number, str(ledger.folder), limit)
             for number in [None, *range(schedule.outer)]]  # fmt: skip
    evaluations: list[Evaluation] = []
    whole: Race | None = None
    for number, found in enumerate(_performed(tasks, jobs), 1):
        if isinstance(found, Race):
            whole = found
            say(f"race {number} of {len(tasks)}: on everything {found.winner.candidate.name} leads")
        else:
            evaluations.append(found)
            say(f"race {number} of {len(tasks)}: fold {found.fold} chose {found.names['winner']}")
    assert whole is not None
    evaluations.sort(key=lambda one: one.fold)
    advice = conclude(field, whole, evaluations, schedule, suspicions, time.monotonic() - began)
    store.write(folder / "advice.json", lambda file: file.write(spelled(advice).encode()))
    return advice


def spelled(advice: Advice) -> str:
    """The advice as JSON."""
    return json.dumps(plain(asdict(advice)), indent=1)


def _refuse_bad_data(target: str, settings: Mapping[str, Any] | None) -> None:
    lines = datacheck.check(target, settings)
    wrong = [line.removeprefix(datacheck.WRONG) for line in lines if line.startswith(datacheck.WRONG)]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise UsageError(f"{target}: {wrong[0]}{more}: mend the data first, fusionbench data check {target}")


def _suspicions(target: str, settings: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The questions of the audit whose answer inflates every score; none of data that it cannot be asked of."""
    try:
        found = audit.audit(target, settings)
    except UsageError:
        return ()
    return tuple(finding.question for finding in found.suspicious)


def _labelled(data: Batch) -> np.ndarray:
    return np.flatnonzero(data.y_mask.any(1).cpu().numpy())


def _prices(field: Sequence[Entrant], data: Batch, rows: np.ndarray, ledger: Ledger) -> dict[Candidate, Price]:
    """What each candidate costs; measured once, so that an interrupted command goes on by the same schedule."""
    key = plain(["prices", field[0].setup.digest, [[e.name, dict(e.setup.code), e.setup.hparams] for e in field]])
    kept = ledger.get(key)
    if kept is None:
        train_rows, _ = inner_splits(data, rows)[0]
        kept = {"seconds": np.array([_cost(entrant, data, train_rows) for entrant in field])}
        ledger.put(key, kept)
    return {e.candidate: Price(float(s), len(e.options)) for e, s in zip(field, kept["seconds"], strict=True)}


def _cost(entrant: Entrant, data: Batch, rows: np.ndarray) -> float:
    """Nothing for what cannot be trained: the race says why, and goes on without it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the race
    try:
        return cost(entrant, data, rows)
    except (Exception, SystemExit):  # a method may raise anything at all
        return 0.0
    finally:
        torch.set_num_threads(threads)


def _announced(schedule: Schedule, minutes: float, jobs: int) -> Iterator[str]:
    yield (
        f"{counted(len(schedule.raced), 'candidate')}, raced on everything and, to evaluate the choice, on "
        f"{counted(schedule.outer, 'fold')}; {counted(schedule.seeds, 'seed')}, {jobs} at a time: "
        f"{duration(schedule.total)} at most of {minutes:g} min"
    )
    if schedule.dropped:
        yield f"too dear for {minutes:g} minutes, left out: {listed(c.name for c in schedule.dropped)}"


class _Task:
    """One race as plain data: on everything, or one outer fold."""

    def __init__(
        self,
        target: str,
        fusers: tuple[str, ...],
        given: Mapping[str, Mapping[str, Any]],
        schedule: Schedule,
        fold: int | None,
        folder: str,
        limit: float,
    ) -> None:
        self.target, self.fusers, self.given, self.schedule = target, fusers, given, schedule
        self.fold, self.folder, self.limit = fold, folder, limit


@lru_cache(maxsize=1)
def _entrants(target: str, fusers: tuple[str, ...], given: str) -> list[Entrant]:
    """A worker does several races on one copy of the data."""
    return entrants(target, fusers, json.loads(given))


def _perform(task: _Task) -> Race | Evaluation:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")  # the parent has seen them
    began = time.monotonic()
    field = _entrants(task.target, task.fusers, json.dumps(task.given))
    setup, ledger = field[0].setup, Ledger(Path(task.folder))
    raced = [entrant for entrant in field if entrant.candidate in task.schedule.raced]

    def left() -> float:
        return task.limit - (time.monotonic() - began)

    if task.fold is None:
        return race(raced, setup.data, _labelled(setup.data), task.schedule, ledger, left)
    split = outer_splits(setup.benchmark, setup.benchmark_name, setup.data, task.schedule.outer)[task.fold]
    return evaluate(raced, setup.data, task.fold, split, task.schedule, ledger, left)


def _performed(tasks: Sequence[_Task], jobs: int) -> Iterator[Race | Evaluation]:
    """Each as soon as it is finished, by so many processes."""
    if jobs == 1:
        yield from map(_perform, tasks)
        return
    import joblib

    with joblib.parallel_config("loky", inner_max_num_threads=1):
        pool = joblib.Parallel(
            min(jobs, len(tasks)), return_as="generator_unordered", batch_size=1, pre_dispatch="n_jobs",
            max_nbytes=None, initializer=follow, initargs=(os.getpid(),),
        )  # fmt: skip
        yield from pool(joblib.delayed(_perform)(task) for task in tasks)

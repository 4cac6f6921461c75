"""Ensembles for free: the mean of a row's seeds, evaluated from its members' weights; nothing is trained.

All members answer the same damaged input. Their stored answers would not do: each seed met damage of its own, and to
average over several draws of a noise is to average the noise away.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.special import log_softmax, logsumexp

from fusionbench import text
from fusionbench.api import Batch
from fusionbench.errors import UsageError
from fusionbench.harness.evaluate import CHANCE, CLEAN, Answering, Case, Network, evaluate, load_model, parse
from fusionbench.harness.execute import begun, blank, ended, merged, refit
from fusionbench.harness.setup import Setup, splits_of
from fusionbench.records import Record, Run, store

#: What a forward pass of the ensemble costs is the sum over its members; a training step is one member's.
ADDED = ("flops", "latency", "latency_batch")


@dataclass(frozen=True, eq=False)
class Mean:
    """Answers as its members do on average: the logarithm of their mean probabilities, or their mean value."""

    members: Sequence[Answering]
    kind: str

    def answer(self, batch: Batch) -> np.ndarray:
        """(n, S, out) float32."""
        answers = np.stack([member.answer(batch) for member in self.members]).astype(np.float64)  # (M, n, S, out)
        if self.kind == "classify":
            mean = logsumexp(log_softmax(answers, axis=-1), axis=0) - np.log(len(answers))
        else:
            mean = answers.mean(0)
        return np.asarray(mean, dtype=np.float32)


def ensembles(
    setups: Mapping[str, Setup], records: Sequence[Record], results: Path, device: torch.device
) -> Iterator[Record]:
    """The ensemble of each row and fold of these records; from disk where it is there and of the same members.

    It is evaluated under every condition that all runs of its row have been.

    Args:
        setups: run id -> the setup that the run is of.

    Raises:
        UsageError: a row has fewer than two seeds, or what a run needs to answer is not on disk.
    """
    rows: dict[str, list[Record]] = {}
    for r in records:
        if r.status == "done":
            rows.setdefault(r.run.row, []).append(r)
    refuse_partition([r.run for r in records])
    chosen: dict[str, list[Record]] = {}
    for row, members in rows.items():
        try:
            chosen[row] = _with_every_fold(members)
        except UsageError as error:  # some of its runs have failed: the other rows have theirs
            if len(rows) == 1:
                raise
            warnings.warn(f"no ensemble: {error}", stacklevel=2)
    check_members([r for members in chosen.values() for r in members], setups, results)
    for members in chosen.values():
        shared = set.intersection(*(set(r.scores) for r in members))
        conditions = [c for c in members[0].scores if c in shared and c not in (CLEAN, CHANCE)]
        for fold in sorted({r.run.fold for r in members}):
            same = sorted((r for r in members if r.run.fold == fold), key=lambda r: r.run.seed)
            yield _ensemble(setups[same[0].run.id], same, conditions, results, device)


def refuse_partition(runs: Sequence[Run]) -> None:
    """Raises UsageError where each seed has a split of its own: an ensemble's models share one."""
    if found := next((run for run in runs if run.partition), None):
        raise UsageError(
            f"an ensemble averages models of one split, and with --partition {found.partition} each seed of "
            f"{found.fuser} has its own: leave one of the two out"
        )


def _with_every_fold(records: Sequence[Record]) -> list[Record]:
    """The records of those seeds that every fold has."""
    folds = {r.run.fold for r in records}
    seeds = set.intersection(*({r.run.seed for r in records if r.run.fold == fold} for fold in folds))
    if len(seeds) < 2:
        run = records[0].run
        raise UsageError(
            f"an ensemble averages two seeds or more, {run.fuser} on {run.benchmark} has {len(seeds)}: --seeds 3"
        )
    return [r for r in records if r.run.seed in seeds]


def check_members(records: Sequence[Record], setups: Mapping[str, Setup], results: Path) -> None:
    """Raises UsageError, which names the way out, where a run's trained model is not on disk."""
    lost = [r for r in records if not store.path_of(results, r.run).with_suffix(setups[r.run.id].kept).is_file()]
    if lost:
        run = lost[0].run
        fusers = text.listed(dict.fromkeys(r.run.fuser for r in lost))
        raise UsageError(
            f"{text.counted(len(lost), 'run')} of {fusers} have no trained model in {results}, as published ones have "
            f"none (the first: {run.id}); with your own runs an ensemble is free: fusionbench run -b {run.benchmark} "
            f"-f {run.fuser}, or another --results DIR"
        )


def _ensemble(
    setup: Setup, members: Sequence[Record], conditions: Sequence[str], results: Path, device: torch.device
) -> Record:
    """One fold's ensemble, on disk."""
    seeds = [r.run.seed for r in members]
    run = replace(members[0].run, ensemble=seeds)
    of = {r.run.id: r.fingerprint for r in members}
    old = store.find(results, run, own=True)
    if old is not None and not (old.status == "done" and old.same_identity(blank(setup, run)) and old.members == of):
        old = None
    wanted = [damage for damage in parse(setup, conditions) if old is None or damage[0] not in old.scores]
    if old is not None and not wanted:
        return old
    began = time.perf_counter()
    data = setup.data.to("cpu" if setup.is_estimator else device)
    model = Mean([_model(setup, r, data, results) for r in members], setup.benchmark.task.kind)
    case = Case(run, model, splits_of(setup, data, run))
    (found,) = evaluate(setup, [case], data, wanted)
    taken = time.perf_counter() - began
    if old is not None:
        return merged(old, found, results, taken)
    fresh = replace(
        begun(setup, run, data.y.device),
        complete={"folds": setup.benchmark.folds, "seeds": 1},
        seconds={"train": sum(r.seconds.get("train", 0.0) for r in members)},
        members=of,
    )
    devices = {r.device for r in members}
    costs = {**members[0].costs, **{name: _total(r.costs.get(name) for r in members) for name in ADDED}}
    parameters = {n: sum(r.parameters[n] for r in members) for n in members[0].parameters}
    known = replace(fresh, costs=costs, parameters=parameters, device=devices.pop() if len(devices) == 1 else "")
    done = ended(setup, known, data, case, found, taken)
    store.save(results, done, found.predictions if done.status == "done" else None, None)
    return done


def _model(setup: Setup, r: Record, data: Batch, results: Path) -> Answering:
    """A trained member: its weights, or the estimator fitted again."""
    if not setup.is_estimator:
        weights = store.weights(results, r.run)
        if weights is None:
            raise UsageError(f"the weights of run {r.run.id} were damaged and are quarantined: run it again first")
        return Network(load_model(setup, r.run, weights, data.y.device))
    model, kept = refit(setup, r, data), store.predictions(results, r.run)
    answers = model.answer(data[splits_of(setup, data, r.run).test])
    if kept is None or not np.allclose(kept.answers[CLEAN], answers, atol=1e-5):
        raise UsageError(
            f"run {r.run.id} ({r.run.fuser}), fitted again, does not answer as before (another version of a library?): "
            f"delete {store.path_of(results, r.run)} and run it again"
        )
    return model


def _total(values: Iterator[float | None]) -> float | None:
    known = list(values)
    return None if None in known else sum(value for value in known if value is not None)

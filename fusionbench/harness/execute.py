"""From a setup to records: build, train, select on validation, damage, evaluate, save."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

import fusionbench
from fusionbench import engine
from fusionbench.api import PROTOCOL, Batch
from fusionbench.engine import Progress, Trained
from fusionbench.errors import UsageError
from fusionbench.harness import costs
from fusionbench.harness.evaluate import (
    Case,
    check_answers,
    check_conditions,
    evaluate,
    load_model,
    parse,
    training_rates,
)
from fusionbench.harness.setup import Setup, member_of, splits_of
from fusionbench.records import Record, Run, merge, store
from fusionbench.records.settings import Training

AT_ONCE = 16  # runs that are evaluated together at most: each holds its test samples


def execute(
    setup: Setup,
    train: Sequence[Run],
    results: Path,
    *,
    again: Sequence[Record] = (),
    conditions: Sequence[str],
    device: str = "auto",
    stacked: int | None = None,
) -> Generator[Progress | Record, None, None]:
    """Trains runs, and evaluates others on what they lack; yields progress, and each record when it is on disk.

    Args:
        again: records whose weights are on disk, to be evaluated on those conditions that they do not have.
        stacked: members a program; None: as many as pay.
    """
    where = pick(device)
    data = setup.data.to(where)
    for old in again:
        yield _evaluate_again(setup, old, data, results, conditions)
    if not train:
        return
    check_conditions(setup, train[0], data, conditions)
    check_answers(setup, train[0], data)
    members, owners = [], []
    for number, run in enumerate(train):
        splits = splits_of(setup, data, run.fold)
        for lr in setup.recipe.lr:
            members.append(member_of(setup.recipe, run, splits, lr))
            owners.append(number)
    together = stacked or engine.stack_size(setup.trained, members, data, setup.recipe, where)
    spent = {} if setup.recipe.quick else costs.measure(setup, members[0], data)
    finished: dict[int, list[Trained]] = {}
    ready: list[tuple[Run, Mapping[float, Trained]]] = []  # to be evaluated together
    for event in engine.train(setup.trained, members, data, setup.recipe, device=where, stacked=together):
        if isinstance(event, Trained):
            number = owners[event.member]
            finished.setdefault(number, []).append(event)
            if len(finished[number]) == len(setup.recipe.lr):
                candidates = sorted(finished.pop(number), key=lambda t: t.member)
                ready.append((train[number], {members[t.member].lr: t for t in candidates}))
        # Members of one program finish at one time; one that was alone is not kept waiting for another's training.
        if ready and (isinstance(event, Progress) or event.stacked == 1 or len(ready) == AT_ONCE):
            yield from _finish(setup, ready, data, results, conditions, spent)
            ready = []
        if isinstance(event, Progress):
            yield event
    yield from _finish(setup, ready, data, results, conditions, spent)


def estimate(setup: Setup, train: Sequence[Run], conditions: Sequence[str], device: str, stacked: int) -> float:
    """Seconds that training and evaluating these runs may take, from a few steps of one member."""
    where = pick(device)
    data = setup.data.to(where)
    run = train[0]
    splits = splits_of(setup, data, run.fold)
    members = [member_of(setup.recipe, run, splits, lr) for lr in setup.recipe.lr]
    together = min(stacked, len(members))
    program = engine.make_program(setup.trained, members[:together], data, replace(setup.recipe, steps=6), where)
    for step in range(6):
        if step == 2:
            began = time.perf_counter()
        program.step(step)
    a_step = (time.perf_counter() - began) / 4 * len(members) / together
    began = time.perf_counter()
    program.validate()
    a_sample = (time.perf_counter() - began) / len(splits.val) / together
    recipe = setup.recipe
    validations = math.ceil(recipe.steps / recipe.interval) * len(members) * len(splits.val)
    evaluations = (len(parse(setup, conditions)) + 1) * len(splits.test)
    a_run = recipe.steps * a_step + (validations + 1.5 * evaluations) * a_sample
    return a_run * len(train)


def pick(device: str) -> torch.device:
    """`auto` is CUDA where there is one.

    Raises:
        UsageError: the device is unknown or not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
        if chosen.type == "cuda" and chosen.index is not None:
            torch.cuda.set_device(chosen)  # streams and graphs are made on the current one
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device {device!r} cannot be used ({str(error).splitlines()[0]}); try auto or cpu") from None
    return chosen


def blank(setup: Setup, run: Run) -> Record:
    """The record's identity, nothing obtained yet."""
    return Record(run, "failed", setup.code, setup.digest, PROTOCOL, list(setup.benchmark.task.metrics))


def _finish(
    setup: Setup, ready: Sequence[tuple[Run, Mapping[float, Trained]]], data: Batch, results: Path,
    conditions: Sequence[str], spent: Mapping[str, float | None],
) -> Generator[Record, None, None]:  # fmt: skip
    """Chooses the learning rate of each run on validation, evaluates, saves."""
    cases, chosen = [], []
    for run, trained in ready:
        sound = {lr: t for lr, t in trained.items() if t.error is None}
        fresh = replace(
            blank(setup, run),
            history={f"{lr:g}": t.history for lr, t in trained.items()},
            seconds={"train": sum(t.seconds for t in trained.values())},
            changes=setup.changes,
            marks=setup.marks,
            complete={"folds": setup.benchmark.folds, "seeds": setup.benchmark.seeds},
            table=list(setup.benchmark.corruptions),
            versions=_versions(),
            device=_device_name(data.y.device),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        if not sound:
            worst = "; ".join(f"lr {lr:g}: {t.error}" for lr, t in trained.items())
            failed = replace(fresh, error=worst)
            store.save(results, failed, None, None)
            yield failed
            continue
        lr = max(sound, key=lambda rate: (sound[rate].score, -rate))
        best = sound[lr]
        cases.append(Case(run, load_model(setup, run, best.weights, data.y.device), splits_of(setup, data, run.fold)))
        chosen.append((replace(fresh, chosen={"lr": lr, "step": float(best.step), "validation": best.score}), best))
    if not cases:
        return
    began = time.perf_counter()
    together = data.y.device.type == "cuda" and all(best.stacked > 1 for _, best in chosen)
    evaluations = evaluate(setup, cases, data, parse(setup, conditions), together)
    taken = (time.perf_counter() - began) / len(cases)
    for case, (fresh, best), found in zip(cases, chosen, evaluations, strict=True):
        splits = case.splits
        if found.error is not None:
            failed = replace(fresh, error=found.error)
            store.save(results, failed, None, None)
            yield failed
            continue
        done = replace(
            fresh,
            status="done",
            scores=found.scores,
            best=found.best,
            rates={**training_rates(setup, data, splits), **found.rates},
            seconds={**fresh.seconds, "evaluate": taken},
            parameters=best.parameters,
            costs=spent,
            samples={
                "train": len(splits.train),
                "val": len(splits.val),
                "test": len(splits.test),
                "skipped": len(setup.benchmark.skipped),
            },
            how=str(Training(best.stacked - 1, best.captured)),
        )
        store.save(results, done, found.predictions, best.weights)
        yield done


def _evaluate_again(setup: Setup, old: Record, data: Batch, results: Path, conditions: Sequence[str]) -> Record:
    """New conditions for a model whose weights are on disk."""
    weights = store.weights(results, old.run)
    if weights is None:
        raise UsageError(
            f"the weights of run {old.run.id} were damaged and are quarantined: run the same command reproduce"
        )
    missing = [damage for damage in parse(setup, conditions) if damage[0] not in old.scores]
    began = time.perf_counter()
    model = load_model(setup, old.run, weights, data.y.device)
    (found,) = evaluate(setup, [Case(old.run, model, splits_of(setup, data, old.run.fold))], data, missing)
    new = replace(old, scores=found.scores, best=found.best, rates=found.rates,
                  seconds={"evaluate": time.perf_counter() - began})  # fmt: skip
    before = store.predictions(results, old.run)
    answers = {**(before.answers if before else {}), **found.predictions.answers}
    merged = merge(old, new)
    store.save(results, merged, replace(found.predictions, answers=answers), None)
    return merged


def _versions() -> dict[str, str]:
    return {
        "fusionbench": fusionbench.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} cpu, {torch.get_num_threads()} threads"

"""From a setup to records: build, train, select on validation, damage, evaluate, save."""

from __future__ import annotations

import math
import platform
import time
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

import fusionbench
from fusionbench import engine, hparams, registry
from fusionbench.api import PROTOCOL, Batch
from fusionbench.engine import Member, Progress, Trained
from fusionbench.errors import UsageError
from fusionbench.harness import costs
from fusionbench.harness.evaluate import (
    CHANCE,
    CLEAN,
    Case,
    Evaluation,
    Network,
    check_answers,
    check_conditions,
    evaluate,
    load_model,
    parse,
    training_rates,
)
from fusionbench.harness.fit import FIRST, Fitted, Fitter, costs_of
from fusionbench.harness.fit import estimate as estimate_fits
from fusionbench.harness.setup import Setup, member_of, splits_of, training_of
from fusionbench.records import Record, Run, merge, store
from fusionbench.records.settings import Training

AT_ONCE = 16  # runs that are evaluated in one go at most: each holds its test samples


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
    if setup.is_estimator:
        yield from _fit(setup, train, results, again, conditions)
        return
    data = setup.data.to(where)
    for old in again:
        yield _evaluate_again(setup, old, data, results, conditions)
    if not train:
        return
    check_conditions(setup, train[0], data, conditions)
    check_answers(setup, train[0], data)
    choosing = [run for run in train if chooses(setup, run)]
    following = [run for run in train if not chooses(setup, run)]
    known = _known_rates(setup, following, results)
    # Where a fold's first seed is neither asked for nor on disk, it makes its choice, and no more is kept of it.
    strange = {run.fold for run in following} - known.keys() - {run.fold for run in choosing}
    extra = [setup.run(fold, FIRST) for fold in sorted(strange)]
    first = [(run, lr) for run in [*choosing, *extra] for lr in setup.recipe.lr]
    size = stacked or _stack_of(setup, train[0], data, where)
    spent = {} if setup.recipe.quick else costs.measure(setup, _member(setup, train[0], setup.recipe.lr[0], data), data)
    kept = {run.id for run in choosing}
    members = len(first) + len(following)

    for event in _train(setup, first, data, where, size):
        if isinstance(event, Progress):
            yield replace(event, total=members * setup.recipe.steps)
            continue
        ready = [(run, trained) for run, trained in event if run.id in kept]
        for run, trained in event:
            if (lr := best_of(trained)) is not None:
                known[run.fold] = lr
        yield from _finish(setup, ready, data, results, conditions, spent)
    alike = [(run, known[run.fold]) for run in following if run.fold in known]
    for event in _train(setup, alike, data, where, size):
        if isinstance(event, Progress):
            done = event.done + len(first) * setup.recipe.steps
            yield replace(event, done=done, total=members * setup.recipe.steps)
        else:
            yield from _finish(setup, event, data, results, conditions, spent)
    for run in following:
        if run.fold not in known:
            failed = replace(begun(setup, run, data.y.device), error="the first seed failed at every learning rate")
            store.save(results, failed, None, None)
            yield failed


def chooses(setup: Setup, run: Run) -> bool:
    """Does this run try every learning rate? The first seed of a fold does, and the others take what it chose.

    Where each seed deals its own folds, each chooses for itself: the first seed's validation people may be another's
    test people.
    """
    return run.seed == FIRST or bool(setup.partition) or len(setup.recipe.lr) == 1


def _known_rates(setup: Setup, following: Sequence[Run], results: Path) -> dict[int, float]:
    """Fold -> the learning rate that its first seed chose, where that run is on disk."""
    found = {}
    for fold in {run.fold for run in following}:
        run = setup.run(fold, FIRST)
        old = store.find(results, run)
        if old is not None and old.status == "done" and old.same_identity(blank(setup, run)):
            lr = old.chosen.get("lr")
            if lr is not None:
                found[fold] = lr
    return found


def best_of(trained: Mapping[float, Trained]) -> float | None:
    """The learning rate with the best validation score, of equals the least; None if all failed."""
    valid = {lr: t for lr, t in trained.items() if t.error is None}
    return max(valid, key=lambda rate: (valid[rate].score, -rate), default=None)


def _member(setup: Setup, run: Run, lr: float, data: Batch) -> Member:
    return member_of(setup.recipe, run, training_of(setup, data, run), lr)


def _stack_of(setup: Setup, run: Run, data: Batch, where: torch.device) -> int:
    members = [_member(setup, run, setup.recipe.lr[0], data)]
    return engine.stack_size(setup.trained, members, data, setup.recipe, where)


Ready = Sequence[tuple[Run, Mapping[float, Trained]]]


def _train(
    setup: Setup, wanted: Sequence[tuple[Run, float]], data: Batch, where: torch.device, size: int
) -> Iterator[Progress | Ready]:
    """Trains each run at its learning rates; yields progress, and runs of which all rates are finished."""
    if not wanted:
        return
    members = [_member(setup, run, lr, data) for run, lr in wanted]
    open_ = Counter(run.id for run, _ in wanted)
    finished: dict[str, list[Trained]] = {}
    ready: list[tuple[Run, Mapping[float, Trained]]] = []  # to be evaluated in one go
    for event in engine.train(setup.trained, members, data, setup.recipe, device=where, stacked=size):
        if isinstance(event, Trained):
            run, _ = wanted[event.member]
            finished.setdefault(run.id, []).append(event)
            if len(finished[run.id]) == open_[run.id]:
                candidates = sorted(finished.pop(run.id), key=lambda t: t.member)
                ready.append((run, {wanted[t.member][1]: t for t in candidates}))
        # Members of one program finish at one time; one that was alone is not kept waiting for another's training.
        if ready and (isinstance(event, Progress) or event.stacked == 1 or len(ready) == AT_ONCE):
            yield ready
            ready = []
        if isinstance(event, Progress):
            yield event
    if ready:
        yield ready


def estimate(setup: Setup, train: Sequence[Run], conditions: Sequence[str], device: str, stacked: int) -> float:
    """Seconds that training and evaluating these runs may take, from a few steps of one member."""
    where = pick(device)
    if setup.is_estimator:
        return estimate_fits(setup, train, len(parse(setup, conditions)) + 1)
    data = setup.data.to(where)
    run = train[0]
    splits = training_of(setup, data, run)
    rates = setup.recipe.lr
    members = [member_of(setup.recipe, run, splits, lr) for lr in rates]
    size = min(stacked, len(members))
    program = engine.make_program(setup.trained, members[:size], data, replace(setup.recipe, steps=6), where)
    for step in range(6):
        if step == 2:
            began = time.perf_counter()
        program.step(step)
    a_step = (time.perf_counter() - began) / 4 / size  # of one member
    began = time.perf_counter()
    program.validate()
    a_sample = (time.perf_counter() - began) / len(splits.val) / size
    recipe = setup.recipe
    validations = math.ceil(recipe.steps / recipe.interval) * len(splits.val)
    evaluations = (len(parse(setup, conditions)) + 1) * len(splits.test)
    trainings = sum(len(rates) if chooses(setup, run) else 1 for run in train)
    a_training = recipe.steps * a_step + validations * a_sample
    return trainings * a_training + len(train) * 1.5 * evaluations * a_sample


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
    setup: Setup, ready: Ready, data: Batch, results: Path,
    conditions: Sequence[str], spent: Mapping[str, float | None],
) -> Generator[Record, None, None]:  # fmt: skip
    """Chooses the learning rate of each run on validation, evaluates, saves."""
    cases, chosen = [], []
    for run, trained in ready:
        valid = {lr: t for lr, t in trained.items() if t.error is None}
        fresh = replace(
            begun(setup, run, data.y.device),
            history={f"{lr:g}": t.history for lr, t in trained.items()},
            seconds={"train": sum(t.seconds for t in trained.values())},
        )
        if not valid:
            worst = "; ".join(f"lr {lr:g}: {t.error}" for lr, t in trained.items())
            failed = replace(fresh, error=worst)
            store.save(results, failed, None, None)
            yield failed
            continue
        lr = best_of(trained)
        assert lr is not None
        best = valid[lr]
        model = Network(load_model(setup, run, best.weights, data.y.device))
        cases.append(Case(run, model, splits_of(setup, data, run)))
        chosen.append((replace(fresh, chosen={"lr": lr, "step": float(best.step), "validation": best.score}), best))
    if not cases:
        return
    began = time.perf_counter()
    stacked = data.y.device.type == "cuda" and all(best.stacked > 1 for _, best in chosen)
    evaluations = evaluate(setup, cases, data, parse(setup, conditions), stacked)
    taken = (time.perf_counter() - began) / len(cases)
    for case, (fresh, best), found in zip(cases, chosen, evaluations, strict=True):
        known = replace(
            fresh, parameters=best.parameters, costs=spent, how=str(Training(best.stacked - 1, best.captured))
        )
        done = ended(setup, known, data, case, found, taken)
        store.save(results, done, *((found.predictions, best.weights) if done.status == "done" else (None, None)))
        yield done


def begun(setup: Setup, run: Run, device: torch.device) -> Record:
    """What a record says before there is a result."""
    return replace(
        blank(setup, run),
        changes=setup.changes,
        marks=setup.marks,
        complete={"folds": setup.benchmark.folds, "seeds": setup.benchmark.seeds},
        table=list(setup.benchmark.corruptions),
        reading={name: getattr(setup.benchmark, name) for name in registry.READING},
        versions=_versions(),
        device=_device_name(device),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def ended(setup: Setup, fresh: Record, data: Batch, case: Case, found: Evaluation, taken: float) -> Record:
    """The record with its scores; a failed one where the answers are none."""
    if found.error is not None:
        return replace(fresh, error=found.error, parameters={}, costs={}, how="")
    splits = training_of(setup, data, case.run)
    sizes = {"train": len(splits.train), "val": len(splits.val), "test": len(splits.test)}
    return replace(
        fresh,
        status="done",
        scores=found.scores,
        best=found.best,
        rates={**training_rates(setup, data, splits), **found.rates},
        seconds={**fresh.seconds, "evaluate": taken},
        samples={**sizes, "skipped": len(setup.benchmark.skipped)},
    )


def _fit(
    setup: Setup, runs: Sequence[Run], results: Path, again: Sequence[Record], conditions: Sequence[str]
) -> Iterator[Record]:
    """The runs of an estimator, on the CPU; those of `again` on the conditions that they do not have."""
    data = setup.data.to("cpu")
    fitter = Fitter(setup, data)
    spent: dict[str, float | None] = {}
    for old in again:
        model = refit(setup, old, data)
        missing = [damage for damage in parse(setup, conditions) if damage[0] not in old.scores]
        began = time.perf_counter()
        (found,) = evaluate(setup, [Case(old.run, model, splits_of(setup, data, old.run))], data, missing)
        if found.scores[CLEAN] == dict(old.scores[CLEAN]):
            yield merged(old, found, results, time.perf_counter() - began)
        else:  # another version of a library, another machine: all of its numbers must be of one model
            conditions = list(dict.fromkeys([*conditions, *(c for c in old.scores if c not in (CLEAN, CHANCE))]))
            runs = [*runs, old.run]
    if runs:
        check_conditions(setup, runs[0], data, conditions)
    for run in runs:
        model = fitter.run(run)
        chosen, tried = fitter.choose(run)
        if not spent and not setup.recipe.quick:
            spent = costs_of(model, data)
        case = Case(run, model, splits_of(setup, data, run))
        began = time.perf_counter()
        (found,) = evaluate(setup, [case], data, parse(setup, conditions))
        learned = model.estimator.learned()
        fresh = replace(
            begun(setup, run, data.y.device),
            chosen={**chosen, "validation": fitter.score(model, run)},
            history={name: [{"step": 0.0, "score": score}] for name, score in tried.items() if math.isfinite(score)},
            seconds={"train": model.seconds},
            parameters={"allocated": learned, "trained": learned},
            costs=spent,
            how="fitted in one call",
        )
        done = ended(setup, fresh, data, case, found, time.perf_counter() - began)
        store.save(results, done, found.predictions if done.status == "done" else None, None)
        yield done


def refit(setup: Setup, old: Record, data: Batch) -> Fitted:
    """The estimator of a record, fitted again from its seed with the settings that were chosen then."""
    settings = {name: value for name, value in old.chosen.items() if name != "validation" and value is not None}
    declared = hparams.read(setup.blueprint.fuser)
    typed = {name: declared[name].parse(value) for name, value in settings.items()}
    return Fitter(setup, data).fit(old.run, typed)


def _evaluate_again(setup: Setup, old: Record, data: Batch, results: Path, conditions: Sequence[str]) -> Record:
    """New conditions for a model whose weights are on disk."""
    weights = store.weights(results, old.run)
    if weights is None:
        raise UsageError(
            f"the weights of run {old.run.id} were damaged and are quarantined: run the same command reproduce"
        )
    missing = [damage for damage in parse(setup, conditions) if damage[0] not in old.scores]
    began = time.perf_counter()
    model = Network(load_model(setup, old.run, weights, data.y.device))
    (found,) = evaluate(setup, [Case(old.run, model, splits_of(setup, data, old.run))], data, missing)
    return merged(old, found, results, time.perf_counter() - began)


def merged(old: Record, found: Evaluation, results: Path, seconds: float) -> Record:
    """The record with its new conditions, on disk."""
    new = replace(old, scores=found.scores, best=found.best, rates=found.rates, seconds={"evaluate": seconds})
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

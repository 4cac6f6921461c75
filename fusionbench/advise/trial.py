"""One training on one inner split, and the models that answer in the end; nothing outside the given rows is read."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from fusionbench import engine, harness
from fusionbench.advise.candidates import Entrant
from fusionbench.api import Batch
from fusionbench.engine import Member, Recipe, Trained
from fusionbench.errors import UsageError
from fusionbench.harness.evaluate import Answering, Network, build_model

#: No member stops early: what a schedule costs is known before it begins.
NEVER = 10**6
#: Steps by which a training's cost is measured, after as many that warm up.
PROBE = 4
#: An estimator's cost is measured on one in so many samples.
PART = 4


@dataclass(frozen=True)
class Case:
    """What is trained: positions of the training and validation samples, a seed, and an option of the entrant."""

    train: np.ndarray
    val: np.ndarray
    seed: int
    option: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Trial:
    """What came of a case.

    Attributes:
        steps, scores: (V,) the primary metric, higher better, after so many steps; one entry for an estimator.
        answers: (n, S, out) to the validation samples, by the best of the checkpoints.
        seconds: of training.
    """

    steps: np.ndarray
    scores: np.ndarray
    answers: np.ndarray
    seconds: float


def train(entrant: Entrant, data: Batch, cases: Sequence[Case], share: float = 1.0) -> list[Trial]:
    """A trial for each case; networks take `share` of their steps and stand in as few programs as they fit in.

    Raises:
        UsageError: a method cannot be trained on these data.
    """
    data = entrant.view(data)
    if entrant.setup.is_estimator:
        return [_fit(entrant, data, case) for case in cases]
    found: dict[int, Trial] = {}
    recipe = shortened(entrant.setup.recipe, share)
    members = [_member(recipe, case, number) for number, case in enumerate(cases)]
    for event in _training(entrant, members, data, recipe):
        case = cases[event.member]
        if event.error:  # a learning rate that is too high for it; the others go on
            found[event.member] = Trial(np.zeros(1, int), np.array([-np.inf]), np.zeros((0, 1, 1)), event.seconds)
            continue
        model = _network(entrant, data, event)
        answers = model.answer(data[torch.from_numpy(case.val)])
        steps, scores = (np.array([entry[name] for entry in event.history]) for name in ("step", "score"))
        found[event.member] = Trial(steps.astype(int), scores.astype(float), answers, event.seconds)
    return [found[number] for number in range(len(cases))]


def refit(
    entrant: Entrant, data: Batch, rows: np.ndarray, seed: int, option: Mapping[str, Any], steps: int
) -> Answering:
    """The entrant trained on all of `rows`: nothing is held out, its number of steps comes from validation."""
    data = entrant.view(data)
    if entrant.setup.is_estimator:
        return harness.fit(entrant.blueprint(option), data, rows, rows, seed, entrant.setup.recipe.missing)
    # The learning rate follows the schedule of the whole recipe, as in the race; it stops at the first validation.
    recipe = replace(entrant.setup.recipe, interval=steps, patience=NEVER)
    member = _member(recipe, Case(rows, rows[:2], seed, option), 0)
    events = engine.train(entrant.blueprint({}), [member], data, recipe, device=data.y.device)
    event: Any = next(events)
    while not isinstance(event, Trained):
        event = events.send({0})
    if event.error:
        raise UsageError(f"{entrant.name}: {event.error}")
    return _network(entrant, data, event)


def cost(entrant: Entrant, data: Batch, train_rows: np.ndarray) -> float:
    """Seconds that one training of one option takes on these rows, from a few of its steps."""
    data = entrant.view(data)
    if entrant.setup.is_estimator:
        few = train_rows[::PART]
        began = time.perf_counter()
        harness.fit(entrant.blueprint(entrant.options[0]), data, few, few, 0)
        return PART * (time.perf_counter() - began)
    recipe = shortened(entrant.setup.recipe, 1.0)
    case = Case(train_rows, train_rows[: max(1, len(train_rows) // 4)], 0, entrant.options[0])
    members = [replace(_member(recipe, case, 0), lr=option["lr"]) for option in entrant.options]
    program = engine.make_program(entrant.blueprint({}), members, data, recipe, data.y.device)
    for step in range(2 * PROBE):
        if step == PROBE:
            began = time.perf_counter()
        program.step(step)
    a_step = (time.perf_counter() - began) / PROBE
    began = time.perf_counter()
    program.validate()
    validations = recipe.steps / recipe.interval * (time.perf_counter() - began)
    return (recipe.steps * a_step + validations) / len(members)


def shortened(recipe: Recipe, share: float) -> Recipe:
    """The recipe with a share of its steps, whole validations of them, and without an early end."""
    validations = max(1, round(share * recipe.steps / recipe.interval))
    steps = recipe.steps if share == 1 else min(recipe.steps, validations * recipe.interval)
    return replace(recipe, steps=steps, patience=NEVER)


def _member(recipe: Recipe, case: Case, number: int) -> Member:
    scalars = recipe.weight_decay, recipe.label_smoothing, recipe.clip
    return Member(number, case.seed, case.train, case.val, case.option["lr"], *scalars)


def _training(entrant: Entrant, members: Sequence[Member], data: Batch, recipe: Recipe) -> list[Trained]:
    blueprint = entrant.blueprint({})
    stacked = engine.stack_size(blueprint, members, data, recipe, data.y.device)
    events = engine.train(blueprint, members, data, recipe, device=data.y.device, stacked=stacked)
    return [event for event in events if isinstance(event, Trained)]


def _network(entrant: Entrant, data: Batch, trained: Trained) -> Network:
    return Network(build_model(entrant.blueprint({}), 0, trained.weights, data.y.device))


def _fit(entrant: Entrant, data: Batch, case: Case) -> Trial:
    fitted = harness.fit(
        entrant.blueprint(case.option), data, case.train, case.val, case.seed, entrant.setup.recipe.missing
    )
    held_out = data[torch.from_numpy(case.val)]
    return Trial(np.zeros(1, int), np.array([harness.score(fitted, held_out)]), fitted.answer(held_out), fitted.seconds)

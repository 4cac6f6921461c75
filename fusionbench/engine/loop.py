"""Trains K members of one model; the only optimiser loop. A generator: it yields progress, and `send` stops members.

A member is a fold, a seed and a few scalars. Members are trained in turn, each as a plain module, or stacked: their
parameters are rows of one matrix, one forward and one backward pass under `vmap` serve them all. Both draw the same
batches and the same noise, so a member's result does not depend on who is stacked with it beyond rounding.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import torch
from torch import Tensor

from fusionbench.api import Batch, Stream
from fusionbench.engine.alone import Alone
from fusionbench.engine.graph import Graph, capturable, first_line
from fusionbench.engine.model import Blueprint
from fusionbench.engine.program import Program
from fusionbench.engine.recipe import Member, Recipe
from fusionbench.engine.stacked import Stacked
from fusionbench.errors import UsageError


@dataclass(frozen=True)
class Progress:
    """A validation has happened: `done` of `total` steps of all members. `send` a set of members to stop."""

    done: int
    total: int
    scores: Mapping[int, float]


@dataclass(frozen=True, eq=False)
class Trained:
    """A finished member.

    Attributes:
        member: its number.
        weights: the best, and their buffers, on the CPU; `score` is theirs, oriented, after `step` steps.
        history: step, loss and score of every validation.
        parameters: how many are allocated, and how many received a gradient.
        stacked: members in its program: 1 if it was trained alone.
        captured: were its steps replayed as a CUDA graph?
        error: why it failed, if it did.
    """

    member: int
    weights: dict[str, Tensor]
    score: float
    step: int
    history: list[dict[str, float]]
    seconds: float
    parameters: dict[str, int]
    stacked: int
    captured: bool
    error: str | None = None


Event = Progress | Trained


def train(
    blueprint: Blueprint,
    members: Sequence[Member],
    data: Batch,
    recipe: Recipe,
    *,
    device: torch.device | str = "cpu",
    stacked: int = 1,
) -> Generator[Event, set[int] | None, None]:
    """Trains the members, `stacked` at a time, and yields progress and every member as soon as it is finished.

    Where the memory is not enough, those that are not finished begin again in smaller stacks.

    `data` stands once on the device; nothing of it is read but what the members' `train` and `val` indices name.

    Raises:
        UsageError: a member has no training or validation samples, or NaN among its valid inputs.
    """
    for member in members:
        _admit(data, member)
    if stacked > 1 and len(members) > 1 and not _stackable(blueprint, list(members[:2]), data, recipe, device):
        stacked = 1
    total, state, left = recipe.steps * len(members), _State(), dict(enumerate(members))
    while left:
        stack = dict(islice(left.items(), stacked))
        before, short = (len(members) - len(left)) * recipe.steps, False
        try:
            yield from _train_stack(blueprint, stack, data, recipe, torch.device(device), before, total, state)
        except torch.OutOfMemoryError:
            if len(stack) == 1:
                raise
            short = True
        left = {number: member for number, member in left.items() if number not in state.finished}
        if short:  # and the error is gone, which held the step that failed
            stacked = -(-len(stack) // 2)
            warnings.warn(f"out of memory with {len(stack)} members stacked: going on with {stacked}", stacklevel=2)
            torch.cuda.empty_cache()


@dataclass
class _State:
    """What outlives a stack."""

    finished: set[int] = field(default_factory=set)  # members that were handed out
    graphs: bool = True  # none was refused so far


def _train_stack(
    blueprint: Blueprint, stack: dict[int, Member], data: Batch, recipe: Recipe, device: torch.device,
    before: int, total: int, state: _State,
) -> Generator[Event, set[int] | None, None]:  # fmt: skip
    began, everyone, captured = time.perf_counter(), len(stack), False
    program = make_program(blueprint, list(stack.values()), data, recipe, device)
    graph = Graph(program) if state.graphs and capturable(program) else None
    rows, running = list(stack), {number: _Record(member) for number, member in stack.items()}
    for step in range(recipe.steps):
        losses = graph.step(step) if graph else program.step(step)
        if (step + 1) % recipe.interval and step + 1 < recipe.steps:
            continue
        found = dict(zip(rows, zip(losses.tolist(), program.validate(), strict=True), strict=True))
        better = {number: record.note(step + 1, *found[number]) for number, record in running.items()}
        program.keep([better.get(number, False) for number in rows])
        stop = yield Progress(
            before + (step + 1) * everyone, total, {n: r.history[-1]["score"] for n, r in running.items()}
        )
        final = step + 1 == recipe.steps
        leaving = [
            number for number, record in running.items()
            if final or record.error or record.waited >= recipe.patience or number in (stop or ())
        ]  # fmt: skip
        captured = captured or bool(graph and graph.replay)
        state.graphs = state.graphs and not (graph and graph.refused)
        for number in leaving:
            state.finished.add(number)
            record, row = running.pop(number), rows.index(number)
            yield Trained(
                number, program.weights(row), record.score, record.step, record.history,
                (time.perf_counter() - began) / everyone, program.parameters(row),
                everyone, captured, record.error,
            )  # fmt: skip
        if not running:
            return
        if len(running) <= _worth_compacting(device) * len(rows) and len(running) < len(rows):
            program.compact([row for row, number in enumerate(rows) if number in running])
            rows = list(running)
            graph = Graph(program) if graph and state.graphs else None


def _worth_compacting(device: torch.device) -> float:
    """The share of members still in training from which on the others leave the program.

    On CUDA a smaller program costs a few plain steps and a capture, and a member that is carried along costs little.
    """
    return 0.5 if device.type == "cuda" else 1.0


def _stackable(
    blueprint: Blueprint, members: list[Member], data: Batch, recipe: Recipe, device: torch.device | str
) -> bool:
    try:
        Stacked(blueprint, members, data, replace(recipe, steps=1), torch.device(device)).step(0)
    except torch.OutOfMemoryError:
        return True
    except (
        Exception,
        SystemExit,
    ) as error:  # what a method does that `vmap` cannot follow may raise anything; in turn it still runs
        reason = f"{type(error).__name__}: {first_line(error)}"
        warnings.warn(f"members are trained in turn, they cannot be stacked: {reason}", stacklevel=3)
        return False
    return True


def make_program(
    blueprint: Blueprint, members: list[Member], data: Batch, recipe: Recipe, device: torch.device
) -> Program:
    """The members ready to be stepped: alone, or stacked if there are several."""
    return (Alone if len(members) == 1 else Stacked)(blueprint, members, data, recipe, device)


@dataclass
class _Record:
    """What the engine knows of a member in training."""

    member: Member
    score: float = -math.inf
    step: int = 0
    waited: int = 0
    error: str | None = None
    history: list[dict[str, float]] = field(default_factory=list)

    def note(self, step: int, loss: float, score: float) -> bool:
        """Is this the best validation so far?"""
        self.history.append({"step": step, "loss": loss, "score": score})
        if not math.isfinite(loss):
            self.error = f"the loss became {loss} by step {step}"
            return False
        better = score > self.score or self.step == 0
        self.score, self.step, self.waited = (score, step, 0) if better else (self.score, self.step, self.waited + 1)
        return better


def _admit(data: Batch, member: Member) -> None:
    for side, index in (("training", member.train), ("validation", member.val)):
        if len(index) == 0:
            raise UsageError(f"fold {member.fold} has no {side} samples")
        for m, stream in data.streams.items():
            if isinstance(stream, Stream) and not torch.isfinite(stream.x[torch.from_numpy(index)]).all():
                raise UsageError(
                    f"the {side} samples of fold {member.fold} have NaN or infinity in {m!r} under a True mask"
                )

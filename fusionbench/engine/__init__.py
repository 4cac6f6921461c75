"""Trains K members of one model; the only optimiser loop. A generator: it yields progress, and `send` stops members.

A member is a fold, a seed and a few scalars. Members are trained in turn, each as a plain module, or stacked: their
parameters are rows of one matrix, one forward and one backward pass under `vmap` serve them all. Both draw the same
batches and the same noise, so a member's result does not depend on its company beyond rounding.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor
from torch.func import stack_module_state

from fusionbench.api import Batch, Stream
from fusionbench.engine.graph import Graph, capturable
from fusionbench.engine.model import Blueprint, Model
from fusionbench.engine.programs import Alone, Program, Stacked, chunk, hide, stacked_answers
from fusionbench.engine.recipe import Member, Recipe, rates_of
from fusionbench.errors import UsageError
from fusionbench.records.settings import Training

__all__ = [
    "Alone",
    "Event",
    "Graph",
    "Member",
    "Progress",
    "Recipe",
    "Stacked",
    "Trained",
    "capturable",
    "chunk",
    "company",
    "hide",
    "predict",
    "predict_together",
    "program",
    "rates_of",
    "train",
]


@dataclass(frozen=True)
class Progress:
    """A validation has happened: `done` of `total` steps of all members together. `send` a set of members to stop."""

    done: int
    total: int
    scores: Mapping[int, float]


@dataclass(frozen=True, eq=False)
class Trained:
    """A finished member: its number, best weights (and buffers) on the CPU, and how it got there."""

    member: int
    weights: dict[str, Tensor]
    score: float
    step: int
    history: list[dict[str, float]]
    seconds: float
    parameters: dict[str, int]
    how: Training
    error: str | None = None

    @property
    def stacked(self) -> bool:
        return self.how.others > 0


Event = Progress | Trained

LIGHT, HEAVY = 1e8, 5e8  # floating-point operations of one member's step
TOGETHER = 8192  # samples of all members that are evaluated at once


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

    `data` stands once on the device; nothing of it is read but what the members' `train` and `val` indices name.

    Raises:
        UsageError: a member has no training or validation samples, or NaN among its valid inputs.
    """
    for member in members:
        _admit(data, member)
    if stacked > 1 and len(members) > 1 and not _stackable(blueprint, list(members[:2]), data, recipe, device):
        stacked = 1
    total = recipe.steps * len(members)
    start, state = 0, _Group()
    while start < len(members):
        group = {start + i: m for i, m in enumerate(members[start : start + stacked])}
        before, state.handed_out = start * recipe.steps, False
        try:
            yield from _train_together(blueprint, group, data, recipe, torch.device(device), before, total, state)
        except torch.OutOfMemoryError:
            if len(group) == 1 or state.handed_out:
                raise
            stacked = -(-len(group) // 2)
            torch.cuda.empty_cache()
            continue
        start += len(group)


@dataclass
class _Group:
    """What outlives a group of members that train together."""

    handed_out: bool = False  # a member of it has been yielded
    graphs: bool = True  # none was refused so far


def _train_together(
    blueprint: Blueprint, group: dict[int, Member], data: Batch, recipe: Recipe, device: torch.device,
    before: int, total: int, state: _Group,
) -> Generator[Event, set[int] | None, None]:  # fmt: skip
    began, everyone = time.perf_counter(), len(group)
    together = program(blueprint, list(group.values()), data, recipe, device)
    graph = Graph(together) if state.graphs and capturable(together) else None
    running = {number: _Record(member) for number, member in group.items()}
    for step in range(recipe.steps):
        losses = graph.step(step) if graph else together.step(step)
        if (step + 1) % recipe.interval and step + 1 < recipe.steps:
            continue
        known = losses.tolist()
        scores = together.validate()
        better = []
        for row, record in enumerate(running.values()):
            better.append(record.note(step + 1, known[row], scores[row]))
        together.keep(better)
        stop = yield Progress(
            before + (step + 1) * everyone, total, {n: r.history[-1]["score"] for n, r in running.items()}
        )
        final = step + 1 == recipe.steps
        leaving = [
            row for row, (number, record) in enumerate(running.items())
            if final or record.error or record.waited >= recipe.patience or number in (stop or ())
        ]  # fmt: skip
        how = Training(everyone - 1, bool(graph and graph.replay))
        state.graphs = state.graphs and not (graph and graph.refused)
        for row in leaving:
            state.handed_out = True
            number = list(running)[row]
            record = running[number]
            yield Trained(
                number, together.weights(row), record.score, record.step, record.history,
                (time.perf_counter() - began) / everyone, together.parameters(row),
                how, record.error,
            )  # fmt: skip
        staying = [row for row in range(len(running)) if row not in leaving]
        running = {number: record for row, (number, record) in enumerate(running.items()) if row in staying}
        if not running:
            return
        if leaving:
            together.compact(staying)
            graph = Graph(together) if graph and state.graphs else None


def company(blueprint: Blueprint, members: Sequence[Member], data: Batch, recipe: Recipe, device: torch.device) -> int:
    """How many members to train as one program, if they can be stacked at all.

    On the CPU stacking saves the overhead of small steps and costs a little where a step is heavy (`bench/`): ten grids
    of learning rates together, three, or none, by a count of operations. On CUDA as many as its memory takes, at most
    256.
    """
    from torch.utils.flop_counter import FlopCounterMode

    try:
        alone = Alone(blueprint, list(members[:1]), data, replace(recipe, steps=1), device)
        with FlopCounterMode(display=False) as counter:
            alone.step(0)
    except Exception:  # a method that fails does so again in its own run, where the failure is recorded
        return 1
    if device.type != "cuda":
        flops = counter.get_total_flops()
        return len(recipe.lr) * (10 if flops < LIGHT else 3) if flops < HEAVY else 1
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    alone.step(0)
    one = max(1 << 20, torch.cuda.max_memory_allocated(device) - before + 4 * _size(alone.model))
    return int(min(256, max(1, 0.7 * torch.cuda.mem_get_info(device)[0] // one)))


def _stackable(
    blueprint: Blueprint, members: list[Member], data: Batch, recipe: Recipe, device: torch.device | str
) -> bool:
    try:
        Stacked(blueprint, members, data, replace(recipe, steps=1), torch.device(device)).step(0)
    except torch.OutOfMemoryError:
        return True
    except Exception:  # what a method does that `vmap` cannot follow may raise anything; in turn it still runs
        return False
    return True


def _size(model: Model) -> int:
    return sum(p.numel() * p.element_size() for p in model.parameters())


def program(blueprint: Blueprint, members: list[Member], data: Batch, recipe: Recipe, device: torch.device) -> Program:
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


def predict(model: Model, data: Batch) -> np.ndarray:
    """Answers (n, S, out) of one model in evaluation mode to all of `data` (on the model's device), float32."""
    model.eval()
    with torch.no_grad():
        rows = torch.arange(len(data), device=data.y.device).split(chunk(data))
        return torch.cat([model(data[r]).float().cpu() for r in rows]).numpy()


def predict_together(models: Sequence[Model], batches: Sequence[Batch]) -> list[np.ndarray]:
    """`predict` of several models of one blueprint, each to samples of its own, in one pass under `vmap`."""
    weights, buffers = stack_module_state([model.eval() for model in models])
    streams = {
        m: Stream(*(torch.cat([getattr(b.streams[m], part) for b in batches]) for part in ("x", "mask")))
        for m in batches[0].streams
    }
    whole = Batch(streams, torch.cat([b.y for b in batches]), torch.cat([b.y_mask for b in batches]))
    sizes = [len(b) for b in batches]
    starts = np.cumsum([0, *sizes[:-1]])
    rows = [torch.arange(max(sizes)) % size + int(start) for size, start in zip(sizes, starts, strict=True)]
    index = torch.stack(rows).to(whole.y.device)  # (K, n), wrapped
    few = max(1, min(chunk(whole), TOGETHER) // len(models))
    with torch.no_grad():
        parts = [stacked_answers(models[0], {**weights, **buffers}, whole, part) for part in index.split(few, 1)]
    answers = torch.cat(parts, 1).float().cpu().numpy()
    return [found[:size] for found, size in zip(answers, sizes, strict=True)]


def _admit(data: Batch, member: Member) -> None:
    for side, index in (("training", member.train), ("validation", member.val)):
        if len(index) == 0:
            raise UsageError(f"fold {member.fold} has no {side} samples")
        for m, stream in data.streams.items():
            if isinstance(stream, Stream) and not torch.isfinite(stream.x[torch.from_numpy(index)]).all():
                raise UsageError(
                    f"the {side} samples of fold {member.fold} have NaN or infinity in {m!r} under a True mask"
                )

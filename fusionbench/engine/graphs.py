"""A program's step as a CUDA graph: launched as a whole, so that small steps no longer wait for the host.

What changes from step to step (which samples, which noise, which learning rate) the graph looks up itself, in tables on
the device, by a counter that it advances. A graph is trusted only after a replay moved the weights as the
same step without it does; a method that waits for the device cannot be captured at all. Otherwise the
program goes on without a graph, and says so.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fusionbench.api import Stream, keyed
from fusionbench.engine.programs import Program

WARM_UP = 3  # steps before a capture: libraries set themselves up, the optimiser makes its moments
AGREES = 1e-4  # of the squared length of a step of all weights: how far a replay may lie from it


def capturable(program: Program) -> bool:
    """Is it on a GPU with all its data, under AdamW? Lazily read samples come through the host in every step."""
    resident = all(isinstance(stream, Stream) for stream in program.data.streams.values())
    return program.device.type == "cuda" and resident and program.recipe.optimiser == "adamw"


def on_cuda(call: Callable[[], Any]) -> Callable[[], Any]:
    """Captures a call without running it; the result runs it.

    Raises:
        RuntimeError: it does something that cannot be captured.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


class Graph:
    """The steps of a program, a few as they are and then replayed. After `program.compact` a new one is needed."""

    def __init__(self, program: Program, capture: Callable[[Callable[[], Any]], Callable[[], Any]] = on_cuda) -> None:
        self.program, self.capture = program, capture
        steps, device = range(program.recipe.steps), program.device
        self.at = torch.zeros(1, dtype=torch.int64, device=device)
        self.salts = torch.tensor([keyed.number("step", s) for s in steps], dtype=torch.int32, device=device)
        self.table = torch.tensor([program.lr(s) for s in steps], device=device)  # (steps, K)
        self.rates, self.losses = torch.zeros_like(self.table[0]), torch.zeros_like(self.table[0])
        self.replay: Callable[[], Any] | None = None
        self.next = 0  # where the counter stands
        self.waiting: float = WARM_UP  # steps without a graph

    def step(self, step: int) -> Tensor:
        """One optimiser step of every member; their losses (K,)."""
        if self.waiting:
            self.waiting -= 1
            return self._aside(step)
        if self.replay is None:
            return self._begin(step)
        if step != self.next:
            self.at.fill_(step)
        self.next = step + 1
        self.replay()
        return self.losses.clone()

    def _advance(self) -> None:
        """What is captured."""
        program, at = self.program, self.at
        self.rates.copy_(self.table.index_select(0, at)[0])
        rows, keys = program.order.index_select(0, at)[0], program.keys(self.salts.index_select(0, at))
        self.losses.copy_(program.advance(rows, keys, at[0] / program.recipe.steps))
        at += 1

    def _begin(self, step: int) -> Tensor:
        """Captures, and takes this step both ways: without the graph, and again with it."""
        self._watch_rates()
        self.at.fill_(step)
        try:
            self.replay = self.capture(self._advance)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._give_up(str(error).splitlines()[0])
            return self.program.step(step)
        state, weights = self.program.state(), self.program.weights_now()
        before, start = [t.clone() for t in state], [t.clone() for t in weights]
        losses = self.program.step(step)
        right, goal = [t.clone() for t in state], [t.clone() for t in weights]
        for tensor, old in zip(state, before, strict=True):
            tensor.copy_(old)
        self._watch_rates()
        self.at.fill_(step)
        self.replay()
        self.next = step + 1
        if not _distance(weights, goal) <= AGREES * _distance(goal, start):
            self._give_up("a replayed step differs from the same step without it")
            for tensor, value in zip(state, right, strict=True):
                tensor.copy_(value)
        return losses

    def _watch_rates(self) -> None:
        """Lets the optimiser read its learning rates from where the graph puts them."""
        for number, group in enumerate(self.program.optimiser.param_groups):
            group["lr"] = self.rates[number]

    def _give_up(self, why: str) -> None:
        warnings.warn(f"no CUDA graph, training goes on without one: {why}", stacklevel=2)
        self.replay, self.waiting = None, float("inf")

    def _aside(self, step: int) -> Tensor:
        """A step on a stream of its own, as steps before a capture have to be."""
        if self.program.device.type != "cuda" or self.waiting == float("inf"):
            return self.program.step(step)
        side, main = torch.cuda.Stream(), torch.cuda.current_stream()
        side.wait_stream(main)
        with torch.cuda.stream(side):
            losses = self.program.step(step)
        main.wait_stream(side)
        return losses


def _distance(some: list[Tensor], others: list[Tensor]) -> float:
    """Squared, over all tensors."""
    return float(sum((a.double() - b.double()).square().sum() for a, b in zip(some, others, strict=True)))

"""A program's step as a CUDA graph: launched as a whole, so that small steps no longer wait for the host.

What changes from step to step (which samples, which noise, which learning rate) the graph looks up itself, in tables
on the device, by a counter that it advances. A graph is trusted only after a replay left weights, moments and buffers
where the same step without it leaves them; a method that waits for the device cannot be captured at all. Otherwise the
program goes on without a graph, and says so.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

from fusionbench.api import Stream, keyed
from fusionbench.engine.program import Program

WARM_UP = 3  # steps before a capture: libraries set themselves up, the optimiser makes its moments
#: How far a replay may lie from a plain step, as a share of that step's squared length. A key's bias in attention has
#: no true gradient: AdamW makes a whole learning rate of its rounding, in a random direction, which alone is about 4e-3
#: of a step. A halved learning rate is .25 of it.
AGREES = 1e-2
Capture = Callable[[Callable[[], Any]], Callable[[], Any]]


_broken = False  # a capture has failed in this process


def capturable(program: Program) -> bool:
    """Is it on a GPU with all its data, under AdamW, and has no capture of this process failed so far?

    Lazily read samples come through the host in every step. A capture that fails may leave a memory pool open, on which
    another one would stumble.
    """
    resident = all(isinstance(stream, Stream) for stream in program.data.streams.values())
    return not _broken and program.device.type == "cuda" and resident and program.recipe.optimiser == "adamw"


def on_cuda(call: Callable[[], Any]) -> Callable[[], Any]:
    """Captures a call without running it; the result runs it.

    Raises:
        RuntimeError: it does something that cannot be captured.
    """
    graph, main = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    try:
        with torch.cuda.graph(graph, stream=_side(torch.cuda.current_device())):
            call()
    finally:
        torch.cuda.set_stream(main)  # a capture that cannot be ended leaves its own one current
    return graph.replay


class Graph:
    """The steps of a program, a few as they are and then replayed. After `program.compact` a new one is needed."""

    def __init__(self, program: Program, capture: Capture = on_cuda) -> None:
        self.program, self.capture = program, capture
        steps, device = range(program.recipe.steps), program.device
        self.at = torch.zeros(1, dtype=torch.int64, device=device)
        self.salts = torch.tensor([keyed.number("step", s) for s in steps], dtype=torch.int32, device=device)
        self.table = torch.tensor([program.lr(s) for s in steps], device=device)  # (steps, parameter groups)
        self.rates, self.losses = torch.zeros_like(self.table[0]), torch.zeros(len(program.members), device=device)
        self.replay: Callable[[], Any] | None = None
        self.next = 0  # where the counter stands
        self.waiting = WARM_UP  # steps without a graph
        self.refused = False

    def step(self, step: int) -> Tensor:
        """One optimiser step of every member; their losses (K,)."""
        if self.refused:
            return self.program.step(step)
        if self.waiting:
            self.waiting -= 1
            with _aside(self.program.device):
                return self.program.step(step)
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
        """Takes this step plainly; then again by the tables, and again by a graph, which must both lead to the same."""
        program = self.program
        before = [t.clone() for t in program.state()]
        with _aside(program.device):  # where the capture will be: what a method keeps of this step is no stranger there
            losses = program.step(step)
        right = [t.clone() for t in program.state()]
        try:
            self._restart(before, step)
            with _aside(program.device), _without_waiting(program.device):
                self._advance()  # an operation that waits is named here, where nothing is being captured yet
            self._compare(before, right, "a step by its tables")
            self._restart(before, step)
            places = [t.data_ptr() for t in program.state()]
            replay = _capture(self.capture, self._advance)
            if places != [t.data_ptr() for t in program.state()]:
                raise RuntimeError("the method puts new tensors in the place of its buffers")
            self._restart(before, step)
            replay()
            self._compare(before, right, "a replayed step")
            self.replay, self.next = replay, step + 1
        except (RuntimeError, TypeError) as error:  # out of memory is one of them
            reason = first_line(error)
        else:
            return losses
        warnings.warn(f"no CUDA graph, training goes on without one: {reason}", stacklevel=2)
        self.refused = True
        self._restart(right, step)
        return losses

    def _restart(self, state: list[Tensor], step: int) -> None:
        """Everything as it was before `step`; the optimiser reads its learning rates from where the graph puts them."""
        for tensor, old in zip(self.program.state(), state, strict=True):
            tensor.copy_(old)
        for number, group in enumerate(self.program.optimiser.param_groups):
            group["lr"] = self.rates[number]
        self.at.fill_(step)

    def _compare(self, before: list[Tensor], right: list[Tensor], what: str) -> None:
        """Weights member by member, and all else, moved as they should.

        Raises:
            RuntimeError: they did not.
        """
        count, weights, state = len(self.program.members), len(self.program.weights_now()), self.program.state()
        for part in (slice(weights), slice(weights, None)):
            members = count if part.stop else 1
            off, length = _distance(state[part], right[part], members), _distance(right[part], before[part], members)
            if not bool((off <= AGREES * length).all()):
                raise RuntimeError(f"{what} differs from the plain one")


def _distance(some: list[Tensor], others: list[Tensor], members: int) -> Tensor:
    """(members,) squared, over all tensors, whose first dimension is the members'."""
    gaps = [(a.double() - b.double()).square().reshape(members, -1).sum(1) for a, b in zip(some, others, strict=True)]
    return torch.stack(gaps).sum(0)


def _capture(capture: Capture, call: Callable[[], Any]) -> Callable[[], Any]:
    """Captures a call; if that fails, nothing is captured in this process any more."""
    global _broken
    _broken = True
    replay = capture(call)
    _broken = False
    return replay


def first_line(error: BaseException) -> str:
    """What went wrong first: a broken capture only says that there was something before."""
    while error.__context__ is not None:
        error = error.__context__
    return str(error).splitlines()[0] if str(error) else type(error).__name__


@cache
def _side(device: int) -> Any:
    """One stream beside the main one for each device: libraries keep a workspace for each that they meet."""
    return torch.cuda.Stream(device)


@contextmanager
def _aside(device: torch.device) -> Iterator[None]:
    """On that stream, as steps before a capture have to be."""
    if device.type != "cuda":
        yield
        return
    main, side = torch.cuda.current_stream(), _side(torch.cuda.current_device())
    side.wait_stream(main)
    try:
        with torch.cuda.stream(side):
            yield
    finally:
        main.wait_stream(side)


@contextmanager
def _without_waiting(device: torch.device) -> Iterator[None]:
    """Within it, an operation that makes the host wait for the device raises RuntimeError."""
    if device.type != "cuda":
        yield
        return
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that the mode is a prototype, which is not the method's fault
        try:
            torch.cuda.set_sync_debug_mode("error")
            yield
        finally:
            torch.cuda.set_sync_debug_mode(before)

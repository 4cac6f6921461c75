"""What a model costs to use: operations, latency, memory; measured on the device and the data it is evaluated on."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable
from dataclasses import replace
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from fusionbench import engine
from fusionbench.api import Batch
from fusionbench.engine import Member
from fusionbench.harness.setup import Setup

WARM_UP, LEAST, MOST, SECONDS = 2, 3, 50, 0.2  # repetitions of a timing: within these, until so long has passed

#: Families of operations that do multiply, and of which torch's counter knows only the members in its registry.
MULTIPLIES = (
    "rnn aten.gru lstm fft cdist pdist attention _trilinear grouped_mm scaled_mm aten.mv aten.addmv aten.dot aten.vdot "
    "aten.addr solve inv_ex cholesky svd linalg_qr geqrf eigh linalg_lu linalg_det slogdet matrix_exp"
).split()


def measure(setup: Setup, member: Member, data: Batch) -> dict[str, float | None]:
    """Costs of one model of this setup, backbones included.

    Returns:
        `flops`: of one sample's forward pass, None where torch's counter does not know an operation of it;
        `latency` and `latency_batch`: median milliseconds of a forward pass of one sample, and of `batch` samples (the
        harness's own largest); `memory`: bytes at the peak of one training step: weights, optimiser and
        everything that the step makes, without the data and the workspaces inside a kernel.
    """
    device = data.y.device
    program = engine.make_program(setup.trained, [member], data, replace(setup.recipe, steps=2), device)
    assert isinstance(program, engine.Alone)
    program.step(0)  # the optimiser's state is there from the first step on
    program.optimiser.zero_grad()  # gradients are made again, inside the ledger
    with Ledger() as ledger:
        program.step(1)
    state = [t for s in program.optimiser.state.values() for t in s.values() if isinstance(t, Tensor)]
    standing = sum(t.numel() * t.element_size() for t in [*program.model.parameters(), *state])

    model, large = program.model.eval(), engine.chunk(data)
    rows = torch.arange(large, device=device) % len(data)
    one, many = data[rows[:1]].to(device), data[rows].to(device)
    with FlopCounterMode(display=False) as counter, Ledger() as seen:  # the counter's hooks want gradients
        model(one)
    with torch.no_grad():
        return {
            "flops": None if uncounted(seen.operations) else float(counter.get_total_flops()),
            "latency": latency(lambda: model(one), device),
            "latency_batch": latency(lambda: model(many), device),
            "batch": float(large),
            "memory": float(standing + ledger.peak),
        }


def uncounted(operations: Iterable[Any]) -> bool:
    """Is there an operation that multiplies and that torch's counter passes over?"""
    packets = {operation.overloadpacket for operation in operations}
    return any(word in str(p) for p in packets - flop_registry.keys() for word in MULTIPLIES)


def latency(call: Callable[[], Any], device: torch.device) -> float:
    """Median milliseconds of a call, after a warm-up."""
    wait = (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else (lambda: None)
    times: list[float] = []
    while len(times) < WARM_UP + LEAST or (len(times) < MOST and sum(times) < SECONDS):
        wait()
        began = time.perf_counter()
        call()
        wait()
        times.append(time.perf_counter() - began)
    return 1000 * median(times[WARM_UP:])


class Ledger(TorchDispatchMode):
    """Which operations run inside it, and the most bytes that tensors made inside it hold at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: set[Any] = set()
        self.live = self.peak = 0
        self.sizes: dict[int, int] = {}  # storage -> bytes; 0 for what was there before

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations.add(operation)
        for given in tree_leaves((args, kwargs)):
            self._note(given, new=False)
        made = operation(*args, **(kwargs or {}))
        for out in tree_leaves(made):
            self._note(out, new=True)
        self.peak = max(self.peak, self.live)
        return made

    def _note(self, value: Any, new: bool) -> None:
        if not isinstance(value, Tensor):
            return
        storage = value.untyped_storage()
        key = storage._cdata
        if key not in self.sizes:
            self.sizes[key] = storage.nbytes() if new else 0
            self.live += self.sizes[key]
            weakref.finalize(storage, self._free, key)

    def _free(self, key: int) -> None:
        self.live -= self.sizes.pop(key)

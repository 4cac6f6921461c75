"""The tiny problems that fusers are checked on: ragged random batches, and exclusive-or of two modalities."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from fusionbench.api import Batch, Spec, Stream, Task, keyed
from fusionbench.check import _tools as tools
from fusionbench.check._tools import build
from fusionbench.engine.model import Criterion, criterion
from fusionbench.errors import UsageError

#: What the kit's modalities are called and how wide their steps are: as different as real ones.
WIDTHS = {"video": 5, "audio": 4, "gsr": 3, "text": 6, "ecg": 2}
SAMPLES = 64


# ----------------------------------------------------------------------------------------------------------- the data


def make_spec(plugin: type, modalities: int = 3, *, per_frame: bool = False, kind: str | None = None) -> Spec:
    """A problem for this fuser: classification unless it takes regression only."""
    dims = dict(list(WIDTHS.items())[:modalities])
    spec = Spec("regress" if kind == "regress" else "classify", dims, 3, per_frame, SAMPLES)
    return spec if kind or _classifies(plugin, modalities, per_frame) else replace(spec, kind="regress")


@cache
def _classifies(plugin: type, modalities: int, per_frame: bool) -> bool:
    """Can it be built for a classification? Asked by every check, so that it is built for this once only."""
    try:
        build(plugin, make_spec(plugin, modalities, per_frame=per_frame, kind="classify"))
    except UsageError:
        return False
    return True


def make_batch(
    spec: Spec, size: int = 4, steps: int | tuple[int, ...] = 6, seed: int = 0, *, ragged: bool = True
) -> Batch:
    """Random samples: shorter and shorter ones, with gaps, each but the first without one of its modalities."""
    generator = torch.Generator().manual_seed(seed)
    lengths = [steps] * len(spec.dims) if isinstance(steps, int) else list(steps)
    streams = {}
    for place, ((m, dim), length) in enumerate(zip(spec.dims.items(), lengths, strict=False)):
        row, step = torch.arange(size)[:, None], torch.arange(length)
        mask = step < (length - row % 3).clamp(min=1)
        gap = (step == length // 2) & (row % 2 == 1) & (length > 2)
        absent = (row > 0) & (row % (len(spec.dims) + 1) == place + 1) & (len(spec.dims) > 1)
        mask = mask & ~gap & ~absent if ragged else torch.ones_like(mask)
        streams[m] = Stream(torch.randn(size, length, dim, generator=generator), mask)
    label_steps = lengths[0] if spec.per_frame else 1
    y_mask = torch.ones(size, label_steps, dtype=torch.bool)
    if spec.per_frame and ragged:
        y_mask = torch.arange(label_steps) < (label_steps - torch.arange(size)[:, None] % 3).clamp(min=1)
    if spec.kind == "classify":
        y = torch.randint(spec.out, y_mask.shape, generator=generator)
    else:
        y = torch.randn(*y_mask.shape, spec.out, generator=generator)
    return Batch(streams, y, y_mask, index=torch.arange(size) + seed * size % SAMPLES, progress=0.5)


def task_loss(spec: Spec) -> Criterion:
    metric = "accuracy" if spec.kind == "classify" else "mse"
    return criterion(Task(spec.kind, spec.out, (metric,), spec.per_frame))


def loss_of(model: Any, batch: Batch, number: int = 0) -> Tensor:
    """The training loss, its noise keyed by `number` (global noise too: that is the business of one check only)."""
    with torch.random.fork_rng(devices=[]), keyed.scope(tools.key(number)):
        torch.manual_seed(number)
        value: Tensor = model.loss(batch, task_loss(model.spec))
    return value


def backward(model: Any, batch: Batch, number: int = 0) -> dict[str, Tensor]:
    model.zero_grad(set_to_none=True)
    loss_of(model, batch, number).backward()
    return tools.gradients(model)


def both(plugin: type, modalities: int = 3) -> list[tuple[str, Spec]]:
    spec = make_spec(plugin, modalities)
    return [("clip", spec), ("per frame", replace(spec, per_frame=True))]


def swap(batch: Batch, change: Callable[[Stream], Stream]) -> Batch:
    return replace(batch, streams={m: change(s) for m, s in batch.streams.items()})


@torch.no_grad()
def answers_of(model: nn.Module, streams: Mapping[str, Stream]) -> Tensor:
    """The answers in evaluation mode."""
    result: Tensor = model.eval()(streams)
    return result


def exclusive_or(spec: Spec, size: int, seed: int) -> Batch:
    """Each modality shows one bit as a direction in noise; the class is whether the bits differ."""
    generator = torch.Generator().manual_seed(seed)
    bits = torch.randint(2, (size, 2), generator=generator)
    streams = {}
    for place, (m, dim) in enumerate(spec.dims.items()):
        direction = torch.ones(dim) * torch.tensor([1.0, -1.0]).repeat(dim)[:dim]
        clean = (2.0 * bits[:, place, None, None] - 1.0) * direction  # (B, 1, dim)
        noise = torch.randn(size, 3, dim, generator=generator)
        streams[m] = Stream(clean + 0.4 * noise, torch.ones(size, 3, dtype=torch.bool))
    y = (bits[:, 0] ^ bits[:, 1])[:, None]
    if spec.kind == "regress":
        return Batch(streams, 2.0 * y[..., None] - 1.0, torch.ones(size, 1).bool())
    return Batch(streams, y, torch.ones(size, 1).bool())


def accuracy(model: Any, batch: Batch) -> float:
    answers = answers_of(model, batch.streams)
    right = answers.argmax(-1) == batch.y if model.spec.kind == "classify" else (answers > 0) == (batch.y > 0)
    return float(right.float().mean())

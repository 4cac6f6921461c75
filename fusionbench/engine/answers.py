"""Answers of trained models: of one, or of several of one blueprint in one pass; nothing here trains."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from fusionbench.api import Batch, Stream
from fusionbench.engine.model import Model

AT_ONCE = 8192  # samples of all members that are evaluated at once


def predict(model: Model, data: Batch) -> np.ndarray:
    """Answers (n, S, out) of one model in evaluation mode to all of `data` (on the model's device), float32."""
    model.eval()
    with torch.no_grad():
        rows = torch.arange(len(data), device=data.y.device).split(chunk(data))
        return torch.cat([model(data[r]).float().cpu() for r in rows]).numpy()


def predict_stacked(models: Sequence[Model], batches: Sequence[Batch]) -> list[np.ndarray]:
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
    with torch.no_grad():
        parts = [
            stacked_answers(models[0], {**weights, **buffers}, whole, part)
            for part in index.split(chunk(whole, len(models)), 1)
        ]
    answers = torch.cat(parts, 1).float().cpu().numpy()
    return [found[:size] for found, size in zip(answers, sizes, strict=True)]


def chunk(data: Batch, members: int = 1) -> int:
    """How many samples each of so many members answers at once.

    1,024, or what is a member's share of `AT_ONCE`, or as many as hold 512 MB of all members' input where a sample is
    large.
    """
    floats = sum(math.prod(s.shape) for s in data.streams.values())
    return max(1, min(1024, AT_ONCE // members, 2**27 // max(1, floats * members)))


def gather(data: Batch, rows: Tensor) -> tuple[dict[str, tuple[Tensor, Tensor]], Tensor, Tensor]:
    """Streams as plain pairs, y and y_mask of the samples at `rows` (any leading shape), on the device of `rows`."""
    pairs = {}
    for m, s in data.streams.items():
        if isinstance(s, Stream):  # already zero under its mask: skip the constructor
            pairs[m] = s.x[rows], s.mask[rows]
        else:
            stream = s[rows.flatten()].to(rows.device)
            pairs[m] = stream.x.unflatten(0, rows.shape), stream.mask.unflatten(0, rows.shape)
    return pairs, data.y[rows], data.y_mask[rows]


def stacked_answers(model: Model, weights: Mapping[str, Tensor], data: Batch, rows: Tensor) -> Tensor:
    """(K, n, S, out): member k, whose weights are the k-th of each stack, answers the samples at rows[k]."""
    model.eval()

    def one(weights: dict[str, Tensor], pairs: dict[str, Any], y: Tensor, y_mask: Tensor) -> Tensor:
        batch = Batch({m: Stream(*pair) for m, pair in pairs.items()}, y, y_mask)
        return functional_call(model, weights, (batch,))

    return vmap(one)(dict(weights), *gather(data, rows))

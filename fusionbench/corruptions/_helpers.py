"""What several families of damage share: counting, ranking and moving real steps, and asking the context."""

from __future__ import annotations

import torch
from torch import Tensor

from fusionbench.api import Context, Stream, UsageError, keyed


def wide(values: Tensor, x: Tensor) -> Tensor:
    """(B,) or (B, T) with trailing axes of length one, to broadcast against x (B, T, *step)."""
    return values.reshape(*values.shape, *[1] * (x.dim() - values.dim()))


def count(share: float, real: Tensor) -> Tensor:
    """share * real, rounded half up: int64, of real's shape."""
    return torch.floor(share * real.double() + 0.5).long()


def place(mask: Tensor) -> Tensor:
    """(B, T): the how-manieth real step each one is, from 0 (what stands under a False mask means nothing)."""
    return mask.long().cumsum(1) - 1


def order(mask: Tensor) -> Tensor:
    """(B, T) int64: where the real steps stand, in order, before all others."""
    return (~mask).long().argsort(dim=1, stable=True)


def ranks(keys: Tensor, mask: Tensor, site: int = 0) -> Tensor:
    """(B, T): a keyed random order of the real steps, 0, 1, ...; all others come after them."""
    draws = keyed.bits(keys.to(mask.device), mask.shape[1:], site).long()
    return torch.where(mask, draws, 1 << 31).argsort(dim=1, stable=True).argsort(dim=1, stable=True)


def stretch(keys: Tensor, mask: Tensor, share: float) -> Tensor:
    """(B, T) bool: one contiguous stretch of `share` of the real steps, at a keyed place.

    A longer stretch of the same key contains every shorter one: its start moves left by at most one step for each
    step that it is longer by.
    """
    real = mask.sum(1)  # (B,)
    length = count(share, real)
    free = real - length
    start = (keyed.uniform(keys.to(mask.device), ()).double() * (free + 1)).long()
    at = place(mask)
    return mask & (at >= start[:, None]) & (at < (start + length)[:, None])


def take(x: Tensor, index: Tensor) -> Tensor:
    """x (B, T', *step) at the steps index (B, T) -> (B, T, *step)."""
    return x[torch.arange(len(x), device=x.device)[:, None], index]


def without(stream: Stream, keys: Tensor, share: float) -> Stream:
    """`share` of the entries of a step (rounded half up, by keyed rank) are zero at every step of a sample."""
    rows, width = len(stream), stream.x[0, 0].numel()
    entries = torch.ones(rows, width, dtype=torch.bool, device=stream.x.device)
    dead = ranks(keys, entries) < count(share, entries.sum(1))[:, None]  # (B, D)
    return Stream(stream.x.masked_fill(dead.reshape(rows, 1, *stream.shape[1:]), 0.0), stream.mask)


def add(stream: Stream, extra: Tensor) -> Stream:
    """The stream plus a float64 disturbance (B, T, *step), rounded once to the stream's own type."""
    return Stream((stream.x.double() + extra).to(stream.x.dtype), stream.mask)


def gaussian(stream: Stream, keys: Tensor) -> Tensor:
    """(B, T, *step) float64 standard normal draws, keyed by sample and place."""
    return keyed.normal(keys.to(stream.x.device), stream.shape).double()


def deviation(context: Context, modality: str, x: Tensor) -> Tensor:
    """(*step) float64 standard deviation of the training split.

    Raises:
        UsageError: the context does not have it.
    """
    if modality not in context.sd:
        raise UsageError(f"this damage is scaled by training deviations: Context.sd has none for {modality!r}")
    return context.sd[modality].to(x.device).double()


def rate(context: Context, modality: str, highest: float = 0.0) -> float:
    """Steps a second.

    Raises:
        UsageError: the benchmark does not say, or the rate is too low for the damage's `highest` frequency in Hz.
    """
    found = float(context.rates.get(modality, 0.0))
    if not found > 0:
        raise UsageError(f"this damage needs the steps a second of {modality!r}: set it in the benchmark's `rates`")
    if found <= 2 * highest:
        raise UsageError(
            f"this damage reaches {highest:g} Hz: {modality!r} needs more than {2 * highest:g} steps a second, "
            f"not {found:g}"
        )
    return found


def changed(before: Stream, after: Stream) -> Tensor:
    """(B, T) bool: the real steps at which anything differs, the mask included."""
    different = (before.x != after.x).flatten(2).any(2)
    return before.mask & (different | ~after.mask)


def walk(rows: int, steps: int, width: int) -> Stream:
    """An example: ragged standardised random walks, so that nearby steps are alike and distant ones are not."""
    keys = keyed.sample_keys([str(row) for row in range(rows)], "example")
    x = keyed.normal(keys, (steps, width)).cumsum(1)  # (B, T, D)
    x = (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True)
    length = steps - torch.arange(rows) % 4 * (steps // 10)
    return Stream(x, torch.arange(steps) < length[:, None])

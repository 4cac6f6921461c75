"""Damage to the features (or samples) of any modality."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fusionbench.api import Context, Corruption, Stream, Streams, keyed

from ._helpers import add, changed, count, deviation, gaussian, order, place, ranks, stretch, take, walk, wide, without


class _Feature(Corruption):
    @staticmethod
    def example() -> tuple[Streams, Context]:
        """Two modalities of unit deviation, long enough for every share of the ladders to be met within 5 %."""
        streams = {"a": walk(8, 400, 40), "b": walk(8, 400, 60)}
        return streams, Context({m: torch.ones(s.shape[1:]) for m, s in streams.items()})


class Noise(_Feature):
    """Silent Gaussian noise; the ladder is its standard deviation over the training split's, per dimension."""

    name = "noise"
    announced = False
    ladder = (0.25, 0.5, 1.0, 1.5, 2.0)

    def damage(self, stream: Stream, amount: float, keys: Tensor, context: Context, modality: str) -> Stream:
        return add(stream, amount * deviation(context, modality, stream.x) * gaussian(stream, keys))

    @staticmethod
    def realised(before: Stream, after: Stream) -> float:
        return float((after.x - before.x)[before.mask].double().square().mean().sqrt())


class Dims(_Feature):
    """Silent dimension dropout, the same at all steps of a sample; the ladder is the share of dimensions set to zero.

    Exactly the nearest whole number of dimensions is lost, and a higher severity loses those of the lower ones too.
    """

    name = "dims"
    announced = False
    ladder = (0.1, 0.2, 0.3, 0.5, 0.7)

    def damage(self, stream: Stream, amount: float, keys: Tensor, context: Context, modality: str) -> Stream:
        return without(stream, keys, amount)

    @staticmethod
    def realised(before: Stream, after: Stream) -> float:
        alive = [(s.x != 0).any(1).double().sum() for s in (before, after)]
        return float(1 - alive[1] / alive[0])


class Gap(_Feature):
    """One contiguous announced gap; the ladder is its share of each sample's real steps (rounded half up)."""

    name = "gap"
    announced = True
    ladder = (0.1, 0.2, 0.3, 0.5, 0.7)

    def damage(self, stream: Stream, amount: float, keys: Tensor, context: Context, modality: str) -> Stream:
        return Stream(stream.x, stream.mask & ~stretch(keys, stream.mask, amount))

    @staticmethod
    def realised(before: Stream, after: Stream) -> float:
        return float(1 - after.mask.sum() / before.mask.sum())


class Frames(_Feature):
    """Scattered announced frame drops; the ladder is their share of each sample's real steps (rounded half up)."""

    name = "frames"
    announced = True
    ladder = (0.1, 0.2, 0.3, 0.5, 0.7)

    def damage(self, stream: Stream, amount: float, keys: Tensor, context: Context, modality: str) -> Stream:
        mask = stream.mask
        return Stream(stream.x, mask & (ranks(keys, mask) >= count(amount, mask.sum(1))[:, None]))

    @staticmethod
    def realised(before: Stream, after: Stream) -> float:
        return float(1 - after.mask.sum() / before.mask.sum())


class Drift(_Feature):
    """Silent gain drift, linear from 1 at the first real step; the ladder is the factor at the last real step."""

    name = "drift"
    announced = False
    ladder = (1.1, 1.25, 1.5, 2.0, 3.0)

    def damage(self, stream: Stream, amount: float, keys: Tensor, context: Context, modality: str) -> Stream:
        mask = stream.mask
        time = torch.arange(mask.shape[1], device=mask.device)
        first = mask.long().argmax(1)[:, None]
        last = torch.where(mask, time, -1).amax(1)[:, None]
        # A recording of one step has drifted all the way.
        way = torch.where(last > first, (time - first) / (last - first).clamp(min=1).double(), 1.0)  # (B, T)
        return Stream((stream.x * wide(1 + (amount - 1) * way, stream.x)).to(stream.x.dtype), mask)

    @staticmethod
    def realised(before: Stream, after: Stream) -> float:
        last = order(before.mask).gather(1, before.mask.sum(1, keepdim=True) - 1)
        return float((take(after.x, last) / take(before.x, last)).median())


class Stuck(_Feature):
    """Silent stuck sensor: from a keyed step on the value is frozen; the ladder is the frozen share of the real steps.

    The sensor freezes at the same step at all severities and stays frozen for longer; at least one step is real.
    """

    name = "stuck"
    announced = False
    ladder = (0.1, 0.2, 0.3, 0.5, 0.7)

    def damage(self, stream: Stream, amount: float, keys: Tensor, context: Context, modality: str) -> Stream:
        mask = stream.mask
        real = mask.sum(1)
        longest, length = (
            torch.minimum(count(share, real), (real - 1).clamp(min=0)) for share in (max(self.ladder), amount)
        )
        held = (keyed.uniform(keys.to(mask.device), ()).double() * (real - longest)).long()[
            :, None
        ]  # the last good one
        at = place(mask)
        frozen = mask & (at > held) & (at <= held + length[:, None])
        value = take(stream.x, order(mask).gather(1, held))  # (B, 1, *step)
        return Stream(torch.where(wide(frozen, stream.x), value, stream.x), mask)

    @staticmethod
    def realised(before: Stream, after: Stream) -> float:
        return float(changed(before, after).sum() / before.mask.sum())


class Quantise(_Feature):
    """Silent coarse quantisation; the ladder is the number of bits with which eight training deviations are resolved.

    Values are rounded to multiples of 8 SD / 2^bits (mid-tread, no saturation), so a mean off zero does no harm and a
    coarser grid is part of every finer one. A dimension that is constant in training stays as it is.
    """

    name = "quantise"
    announced = False
    ladder = (8, 6, 4, 3, 2)

    def damage(self, stream: Stream, amount: float, keys: Tensor, context: Context, modality: str) -> Stream:
        step = deviation(context, modality, stream.x) * 8 * 2.0**-amount
        x = stream.x.double()
        rounded = torch.where(step > 0, torch.round(x / torch.where(step > 0, step, 1.0)) * step, x)
        return Stream(rounded.to(stream.x.dtype), stream.mask)

    @staticmethod
    def realised(before: Stream, after: Stream) -> float:
        """Bits, from the finest distance of two values, where the training deviation is 1."""
        return math.log2(8 / float(after.x[after.mask].unique().diff().min()))

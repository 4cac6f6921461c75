"""Damage to biosignals: (B, T, channels) at `Context.rates` steps a second, scaled by the training SD."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fusionbench.api import Context, Corruption, Stream, Streams, keyed

from ._helpers import add, deviation, gaussian, place, ranks, rate, wide, without


class _Bio(Corruption):
    level = "biosignal"

    @staticmethod
    def example() -> tuple[Streams, Context]:
        """Twenty seconds at 256 Hz on ten channels of different scales: slow waves and a little noise."""
        keys = keyed.sample_keys("abc", "example")
        time = torch.arange(5120) / 256
        cycles = 1 + 4 * keyed.uniform(keys, (1, 10))
        x = torch.sin(2 * math.pi * cycles * time[:, None]) + 0.1 * keyed.normal(keys, (5120, 10))  # (3, 5120, 10)
        sd = torch.linspace(0.5, 2, 10)
        streams = {"bio": Stream(x / x.std(1, keepdim=True) * sd, time < torch.tensor([[20.0], [20.0], [15.0]]))}
        return streams, Context({"bio": sd}, {"bio": 256.0})


class _Additive(_Bio):
    """Amount * training SD * a disturbance."""

    announced = False

    def damage(self, stream: Stream, amount: float, keys: Tensor, context: Context, modality: str) -> Stream:
        wave = self.wave(stream, keys.to(stream.x.device), context, modality)
        return add(stream, amount * deviation(context, modality, stream.x) * wave)

    def wave(self, stream: Stream, keys: Tensor, context: Context, modality: str) -> Tensor:
        """The disturbance, broadcastable to (B, T, *step) float64."""
        raise NotImplementedError

    @staticmethod
    def realised(before: Stream, after: Stream) -> float:
        """Root mean square over the deviation that the signals have, which is the training split's in the example."""
        sizes = [(x[before.mask].double()).square().mean(0).sqrt() for x in (after.x - before.x, before.x)]
        return float((sizes[0] / sizes[1]).mean())


class BioNoise(_Additive):
    """Silent Gaussian noise; the ladder is its standard deviation over the training split's, per channel."""

    name = "bio_noise"
    ladder = (0.1, 0.25, 0.5, 1.0, 2.0)

    def wave(self, stream: Stream, keys: Tensor, context: Context, modality: str) -> Tensor:
        return gaussian(stream, keys)


class Wander(_Additive):
    """Silent baseline wander; the ladder is its root mean square over the training SD, per channel.

    The sum of three sine waves of keyed frequency, .05 to .5 Hz, and phase, for each channel by itself, brought to
    exactly this size over each sample's real steps.
    """

    name = "wander"
    ladder = (0.1, 0.25, 0.5, 1.0, 2.0)

    def wave(self, stream: Stream, keys: Tensor, context: Context, modality: str) -> Tensor:
        time = wide(_seconds(stream, rate(context, modality, 0.5))[None], stream.x)
        total = torch.zeros((), dtype=torch.float64, device=stream.x.device)
        for part in range(3):
            cycle, phase = (
                keyed.uniform(keys, (1, *stream.shape[1:]), site=2 * part + i).double() for i in range(2)
            )  # (B, 1, *step)
            total = total + torch.sin(2 * math.pi * (0.05 * 10**cycle * time + phase))
        return _unit(total, stream)


class PowerLine(_Additive):
    """Silent mains hum at 50 Hz, in phase on all channels; the ladder is its root mean square over the training SD.

    Needs more than 100 steps a second: mains hum that is slower is another signal.
    """

    name = "power_line"
    ladder = (0.05, 0.1, 0.25, 0.5, 1.0)

    def wave(self, stream: Stream, keys: Tensor, context: Context, modality: str) -> Tensor:
        phase = keyed.uniform(keys, (1,)).double()
        wave = torch.sin(2 * math.pi * (50 * _seconds(stream, rate(context, modality, 50)) + phase))  # (B, T)
        return _unit(wide(wave, stream.x), stream)


class Electrodes(_Bio):
    """Silent loss of channels: electrodes off, flat at zero; the ladder is their share (nearest whole number)."""

    name = "electrodes"
    announced = False
    ladder = (0.1, 0.2, 0.3, 0.4, 0.5)

    def damage(self, stream: Stream, amount: float, keys: Tensor, context: Context, modality: str) -> Stream:
        return without(stream, keys, amount)

    @staticmethod
    def realised(before: Stream, after: Stream) -> float:
        return float((after.x == 0).flatten(2).all(1).double().mean())


class Bursts(_Bio):
    """Silent motion bursts on all channels; the ladder is (how many, their peak over the training SD).

    Each sample's real span is cut into ten slots; a burst of half a second (or a slot, if that is shorter) stands at
    a keyed place of its own slot, a 1 to 8 Hz sine wave of keyed frequency and phase under a Hann window. A higher
    severity keeps the bursts of the lower ones.
    """

    name = "bursts"
    announced = False
    ladder = ((2, 0.5), (4, 0.5), (6, 1.0), (8, 1.0), (10, 2.0))

    def damage(self, stream: Stream, amount: Any, keys: Tensor, context: Context, modality: str) -> Stream:
        number, peak = amount
        keys, speed = keys.to(stream.x.device), rate(context, modality, 8)
        slot = stream.mask.sum(1, keepdim=True).double() / 10  # (B, 1) steps
        length = slot.clamp(max=0.5 * speed)
        order = ranks(keys, torch.ones(len(stream), 10, dtype=torch.bool, device=keys.device))  # burst -> slot
        where, cycle, phase = keyed.uniform(keys, (3, 10), site=1).double().unbind(1)  # (B, 10)
        start = order * slot + where * (slot - length)
        # Time within each burst, from 0 to 1: (B, T, 10)
        along = (place(stream.mask)[:, :, None] - start[:, None]) / length.clamp(min=1e-9)[:, None]
        turns = along * (length / speed)[:, None] * 8 ** cycle[:, None] + phase[:, None]
        wave = torch.sin(math.pi * along).square() * torch.sin(2 * math.pi * turns)
        inside = (along > 0) & (along < 1) & (torch.arange(10, device=keys.device) < number)
        total = torch.where(inside, wave, 0.0).sum(2)  # (B, T): the slots do not overlap
        return add(stream, peak * deviation(context, modality, stream.x) * wide(total, stream.x))


def _seconds(stream: Stream, speed: float) -> Tensor:
    """(T,) float64."""
    return torch.arange(stream.shape[0], device=stream.x.device).double() / speed


def _unit(wave: Tensor, stream: Stream) -> Tensor:
    """The wave with a root mean square of 1 over each sample's real steps."""
    real = wide(stream.mask, stream.x)
    power = (wave.square() * real).sum(1, keepdim=True) / wide(stream.mask.sum(1, keepdim=True), stream.x).clamp(min=1)
    return wave / power.sqrt().clamp(min=1e-9)

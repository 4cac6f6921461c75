"""Damage to sound: (B, T, n) frames of n samples whose steps follow each other, `Context.rates` steps a second."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fusionbench.api import Context, Corruption, Stream, Streams, keyed

from ._helpers import rate, stretch


class _Audio(Corruption):
    level = "audio"

    @staticmethod
    def example() -> tuple[Streams, Context]:
        """Two seconds of white noise at 8 kHz in frames of 20 ms, the third sample shorter."""
        x = 0.1 * keyed.normal(keyed.sample_keys("abc", "example"), (100, 160))
        streams = {"voice": Stream(x, torch.arange(100) < torch.tensor([[100], [100], [80]]))}
        return streams, Context({"voice": torch.full((160,), 0.1)}, {"voice": 50.0})


def _wave(stream: Stream) -> tuple[Tensor, Tensor]:
    """The waveform in float64 and where it is real, both (B, T * n)."""
    x = stream.x.double()
    real = stream.mask.reshape(*stream.mask.shape, *[1] * (x.dim() - 2)).expand_as(x)
    return x.flatten(1), real.flatten(1)


def _framed(wave: Tensor, stream: Stream) -> Stream:
    return Stream(wave.reshape(stream.x.shape).to(stream.x.dtype), stream.mask)


def _power(wave: Tensor, real: Tensor) -> Tensor:
    """(B, 1) mean square over the real samples."""
    return (wave.square() * real).sum(1, keepdim=True) / real.sum(1, keepdim=True).clamp(min=1)


def _mixed(stream: Stream, noise: Tensor, decibels: float) -> Stream:
    """The waveform plus noise (B, T * n) float64, scaled to the signal-to-noise ratio of each sample's real part."""
    wave, real = _wave(stream)
    scale = _power(wave, real) * 10 ** (-decibels / 10) / _power(noise, real).clamp(min=1e-300)
    return _framed(wave + noise * scale.sqrt(), stream)


class WhiteNoise(_Audio):
    """Silent white noise; the ladder is the signal-to-noise ratio in dB over each sample's real part.

    Each sample is mixed at exactly this ratio; digital silence stays silent.
    """

    name = "white_noise"
    announced = False
    ladder = (40, 30, 20, 10, 0)

    def damage(self, stream: Stream, amount: float, keys: Tensor, context: Context, modality: str) -> Stream:
        length = stream.x[0].numel()
        return _mixed(stream, keyed.normal(keys.to(stream.x.device), (length,)).double(), amount)

    @staticmethod
    def realised(before: Stream, after: Stream) -> float:
        return _ratio(before, after)


class EnvironmentNoise(_Audio):
    """Silent environment noise; the ladder is the signal-to-noise ratio in dB over each sample's real part.

    No recordings are shipped, so the noise is made here: close to pink (the sum of twelve held white noises, each an
    octave slower than the one before: Voss's method, Gardner 1978), swelling and fading by 80 % at a keyed .5 to 4 Hz.
    """

    name = "environment_noise"
    announced = False
    ladder = (20, 15, 10, 5, 0)

    def damage(self, stream: Stream, amount: float, keys: Tensor, context: Context, modality: str) -> Stream:
        keys, length = keys.to(stream.x.device), stream.x[0].numel()
        pink = torch.zeros(len(stream), length, dtype=torch.float64, device=stream.x.device)
        for octave in range(12):
            held = keyed.normal(keys, (length // 2**octave + 1,), site=octave)
            pink = pink + held.repeat_interleave(2**octave, 1)[:, :length]
        seconds = torch.arange(length, device=pink.device).double() * stream.shape[0] / length / rate(context, modality)
        cycle, phase = keyed.uniform(keys, (2, 1), site=100).double().unbind(1)  # (B, 1)
        swell = 1 + 0.8 * torch.sin(2 * math.pi * (0.5 * 8**cycle * seconds + phase))
        return _mixed(stream, pink * swell, amount)

    @staticmethod
    def realised(before: Stream, after: Stream) -> float:
        return _ratio(before, after)


class LowPass(_Audio):
    """Silent low-pass filter; the ladder is the cut-off (half the amplitude) as a share of the Nyquist frequency.

    A symmetric windowed-sinc filter of 129 taps (Hamming window) without delay; what is not real counts as silence.
    """

    name = "low_pass"
    announced = False
    ladder = (0.9, 0.75, 0.5, 0.25, 0.125)

    def damage(self, stream: Stream, amount: float, keys: Tensor, context: Context, modality: str) -> Stream:
        wave, _ = _wave(stream)
        size = wave.shape[1] + 128
        taps = _taps(amount).to(wave.device)
        product = torch.fft.rfft(wave, size) * torch.fft.rfft(taps, size)
        return _framed(torch.fft.irfft(product, size)[:, 64 : 64 + wave.shape[1]], stream)

    @staticmethod
    def realised(before: Stream, after: Stream) -> float:
        """The share of the spectrum that passes with at least half the amplitude, for a white input."""
        (x, _), (y, _) = _wave(before), _wave(after)
        x, y = torch.fft.rfft(x), torch.fft.rfft(y)
        passes = (x.conj() * y).real.sum(0) / x.abs().square().sum(0)
        return float((passes >= 0.5).double().mean())


def _taps(cut: float) -> Tensor:
    """(129,) float64 low-pass filter of unit gain at zero frequency."""
    time = torch.arange(-64, 65, dtype=torch.float64)
    taps = torch.sinc(cut * time) * (0.54 + 0.46 * torch.cos(math.pi * time / 64))
    return taps / taps.sum()


class Mute(_Audio):
    """One contiguous silent mute: zeros that the mask does not tell; the ladder is its share of the real samples."""

    name = "mute"
    announced = False
    ladder = (0.1, 0.2, 0.3, 0.4, 0.5)

    def damage(self, stream: Stream, amount: float, keys: Tensor, context: Context, modality: str) -> Stream:
        wave, real = _wave(stream)
        return _framed(wave.masked_fill(stretch(keys, real, amount), 0.0), stream)

    @staticmethod
    def realised(before: Stream, after: Stream) -> float:
        return float((before.x != after.x).sum() / (before.x != 0).sum())


class Clip(_Audio):
    """Silent hard clipping; the ladder is the percentile of each sample's magnitudes at which it clips."""

    name = "clip"
    announced = False
    ladder = (99, 95, 90, 80, 70)

    def damage(self, stream: Stream, amount: float, keys: Tensor, context: Context, modality: str) -> Stream:
        wave, real = _wave(stream)
        size = torch.where(real, wave.abs(), math.inf).sort(1).values  # what is not real comes last
        place = (torch.ceil(amount / 100 * real.sum(1, keepdim=True).double()) - 1).clamp(min=0).long()
        limit = size.gather(1, place)
        return _framed(torch.minimum(torch.maximum(wave, -limit), limit), stream)

    @staticmethod
    def realised(before: Stream, after: Stream) -> float:
        _, real = _wave(before)
        return 100 * float(1 - (before.x != after.x).sum() / real.sum())


def _ratio(before: Stream, after: Stream) -> float:
    """Signal-to-noise ratio in dB: the worst of all samples is far off if any is."""
    (wave, real), (noisy, _) = _wave(before), _wave(after)
    return float(10 * torch.log10(_power(wave, real) / _power(noisy - wave, real)).mean())

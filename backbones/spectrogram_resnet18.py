"""ResNet-18 on the log-mel spectrogram of a step's sound, frozen, ImageNet weights of torchvision: 512 values a step.

Input: a mono waveform (n,) a step, values -1 to 1, at `sample_rate`. Spectrogram as in the released code of the Joint
Multimodal Transformer: n_fft 1024, window 20 ms (Hann), hop 10 ms, 64 mel bands (HTK scale) over 0 Hz to Nyquist, power
in dB. The dB values, cut to -80 to 20, are brought to the range of a normalised picture by (dB + 30) / 25.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fusionbench.api import Choice, Stream, UsageError

from ._frames import network
from ._frozen import Frozen, expect, same_rate, within

N_FFT, BANDS = 1024, 64
WINDOW, HOP = 0.020, 0.010  # seconds


class SpectrogramResnet18(Frozen):
    dim = 512
    example = (2, 882)
    example_settings = {"weights": "random"}  # noqa: RUF012
    expects = "a mono waveform (n,), values -1 to 1, n at least 441"
    window: Tensor
    bands: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        *,
        weights: Annotated[str, "'' = torchvision's, random, or a file (.safetensors, .pth)"] = "",
        sample_rate: Annotated[int, Choice(16000, 22050, 44100), "of the waveform, Hz; checked"] = 44100,
    ) -> None:
        super().__init__(shape)
        self.sample_rate = sample_rate
        if not 1000 <= sample_rate <= N_FFT / WINDOW:
            raise UsageError(f"spectrogram_resnet18 works at 1000 to {N_FFT / WINDOW:g} Hz, not {sample_rate}")
        expect("spectrogram_resnet18", shape, len(shape) == 1 and shape[0] >= round(HOP * sample_rate), self.expects)
        self.network, _ = network("resnet18", weights)
        self.register_buffer("window", torch.hann_window(round(WINDOW * sample_rate)), persistent=False)
        self.register_buffer("bands", mel_bands(sample_rate), persistent=False)
        self.freeze()

    def admit(self, stream: Stream, rate: float | None) -> None:
        within("spectrogram_resnet18", stream, -1.0, 1.0, "sound")
        same_rate("spectrogram_resnet18", stream, rate, self.sample_rate)

    def decibels(self, wave: Tensor) -> Tensor:
        """(n, samples) -> (n, 64, frames) log-mel power in dB, floored at -100 dB."""
        hop, half = round(HOP * self.sample_rate), N_FFT // 2
        spectrum = torch.stft(
            F.pad(wave, (half, half)), N_FFT, hop, len(self.window), self.window, center=False, return_complex=True
        )
        power = spectrum.real.square() + spectrum.imag.square()  # (n, 513, frames)
        return 10 * (self.bands @ power).clamp(min=1e-10).log10()

    def encode(self, steps: Tensor) -> Tensor:
        picture = (self.decibels(steps).clamp(-80, 20) + 30) / 25  # (n, 64, frames)
        return self.network(picture.unsqueeze(1).expand(-1, 3, -1, -1))


def mel_bands(rate: int) -> Tensor:
    """(64, 513) triangular filters, evenly spaced on the HTK mel scale 2595 log10(1 + f / 700), peak 1."""
    top = 2595 * np.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, BANDS + 2) / 2595) - 1)
    hertz = np.linspace(0, rate / 2, N_FFT // 2 + 1)
    rise = (hertz - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - hertz) / (edges[2:] - edges[1:-1])[:, None]
    return torch.from_numpy(np.clip(np.minimum(rise, fall), 0, None)).float()

"""Random convolutions that never train: MiniRocket's 84 kernels (Dempster, Schmidt and Webb, KDD 2021).

"MiniRocket: A Very Fast (Almost) Deterministic Transform for Time Series Classification", arXiv 2102.00457. A kernel
has nine weights, three of them 2 and six of them -1; it runs over the clip at dilations up to the clip's length. A
feature is the share of places where the result exceeds a bias; a bias is a quantile of the result on a training sample.
Of several channels a kernel adds a few, drawn as in the authors' multivariate code.

Compared with aeon 1.6.0 (MiniRocket, its biases and channels): 40 series each of 1, 3 and 20 channels, 30 to 150
samples, 504 to 2,016 features: largest difference .023, one place of a series; one feature in 20,000 differs at all
(results that equal their bias up to rounding).

Ours: places count where the sample is real, and where a kernel wants no padding (every other one) where both its ends
are; masked steps are zeros, the mean; the dilations are those of the given `length`, whatever a clip's own; features
are standardised by the training samples; fewer features than the authors' 9,996. For clip tasks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fusionbench.api import Range, Stream, UsageError, keyed

from ._clips import Clips

TAPS, TWOS = 9, 3
KERNELS = math.comb(TAPS, TWOS)  # 84
MOST_DILATIONS, MOST_CHANNELS = 32, 9
EXAMPLES = 512  # training samples that biases, means and SDs are taken from


class Rocket(Clips):
    example = (24, 3)
    bias: Tensor  # (features a kernel, kernels), by dilation
    weight: Tensor  # (dilations, 9 channels, kernels)

    def __init__(
        self,
        shape: Sequence[int],
        *,
        channels: Annotated[int | None, "of a step that holds several samples of them in turn; none: all"] = None,
        features: Annotated[int, Range(84, 9996, log=True), "features at most; there are whole multiples of 84"] = 504,
        length: Annotated[int, Range(9, 1000, log=True), "samples of a usual clip"] = 100,
    ) -> None:
        super().__init__(shape, channels)
        if features < KERNELS or length < TAPS:
            raise UsageError(
                f"rocket needs at least {KERNELS} features and a length of {TAPS}, not {features}, {length}"
            )
        self.dilations, self.counts = dilations(length, features // KERNELS)
        kernels = torch.full((KERNELS, TAPS), -1.0)
        for row, twos in zip(kernels, combinations(range(TAPS), TWOS), strict=True):
            row[list(twos)] = 2.0
        chosen = torch.stack([torch.stack([_some(self.channels) for _ in range(KERNELS)]) for _ in self.dilations])
        weight = torch.einsum("kj,dkc->djck", kernels, chosen)  # c of each channel at tap j
        self.register_buffer("weight", weight.flatten(1, 2))
        self.register_buffer("bias", torch.zeros(sum(self.counts), KERNELS))
        self.standardise(KERNELS * sum(self.counts))

    def prepare(self, stream: Stream) -> None:
        there = stream.present.nonzero().flatten()
        if not len(there):
            return
        stream = stream[there[:: -(-len(there) // EXAMPLES)]]
        clips = self.samples(stream)
        golden = (1 + math.sqrt(5)) / 2
        numbers = torch.arange(1, self.dim + 1, dtype=torch.float64) * golden % 1
        rows = 0
        for d, count in enumerate(self.counts):
            found, _ = self._convolve(clips, d)
            for k in range(KERNELS):
                one = keyed.number("rocket", d, k) % len(clips)
                first = KERNELS * rows + k * count
                quantiles = numbers[first : first + count].float()
                self.bias[rows : rows + count, k] = found[one, clips.mask[one], k].quantile(quantiles)
            rows += count
        super().prepare(stream)

    def describe(self, stream: Stream) -> Tensor:
        """(B, T, channels) -> (B, features) shares of places above the bias: by dilation, bias, kernel."""
        shares, rows = [], 0
        for d, count in enumerate(self.counts):
            found, places = self._convolve(stream, d)
            number = places.sum(1).clamp(min=1)
            for bias in self.bias[rows : rows + count]:
                shares.append(((found > bias) & places).sum(1) / number)  # (B, kernels)
            rows += count
        return torch.cat(shares, 1)

    def _convolve(self, stream: Stream, d: int) -> tuple[Tensor, Tensor]:
        """Results (B, T, kernels) at the d-th dilation, and the places that count."""
        step, steps = self.dilations[d], stream.x.shape[1]
        side = TAPS // 2 * step
        wide = F.pad(stream.x, (0, 0, side, side))
        taps = torch.cat([wide[:, j * step : j * step + steps] for j in range(TAPS)], 2)  # (B, T, 9 channels)
        real = F.pad(stream.mask, (side, side))
        inside = stream.mask & real[:, :steps] & real[:, 2 * side : 2 * side + steps]
        padded = (torch.arange(KERNELS, device=stream.x.device) + d) % 2 == 0
        return taps @ self.weight[d], torch.where(padded, stream.mask[..., None], inside[..., None])


def dilations(length: int, each: int) -> tuple[list[int], list[int]]:
    """Dilations of a clip of `length` samples, and how many of a kernel's `each` features have each of them."""
    distinct = min(each, MOST_DILATIONS)
    exponents = np.linspace(0, math.log2((length - 1) / (TAPS - 1)), distinct)
    found, counts = np.unique((2**exponents).astype(int), return_counts=True)
    counts = (counts * (each / distinct)).astype(int)
    for number in range(each - counts.sum()):
        counts[number % len(counts)] += 1
    return found.tolist(), counts.tolist()


def _some(channels: int) -> Tensor:
    """(channels,) ones at a few channels, zeros elsewhere: up to nine, fewer likelier."""
    most = min(channels, MOST_CHANNELS)
    number = int(2 ** (torch.rand(()).item() * math.log2(most + 1)))
    return torch.zeros(channels).index_fill(0, torch.randperm(channels)[: max(1, number)], 1.0)

"""What the backbones share that describe a whole clip by fixed numbers: samples in turn, standardising, one step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fusionbench.api import Backbone, Stream, UsageError, unrolled

LARGEST = 10.0  # SDs: what damage makes of a number stays finite


class Clips(Backbone):
    """(B, T, *step) -> (B, 1, dim): `describe` is a subclass's, what it says is standardised by the training samples.

    No gradient goes through it. A sample without a real step stays masked.
    """

    clips_only = True
    mean: Tensor
    sd: Tensor

    def __init__(self, shape: Sequence[int], channels: int | None) -> None:
        super().__init__(shape)
        width = math.prod(shape)
        self.channels = width if channels is None else channels
        if self.channels < 1 or width % self.channels:
            raise UsageError(f"a step has {width} numbers, which are no whole number of samples of {channels} channels")

    def standardise(self, dim: int) -> None:
        """To be called at the end of `__init__`, with the width of what `describe` gives."""
        self.dim = dim
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("sd", torch.ones(dim))

    def describe(self, stream: Stream) -> Tensor:
        """(B, T, channels) -> (B, dim)."""
        raise NotImplementedError

    def prepare(self, stream: Stream) -> None:
        found = self.describe(self.samples(stream))[stream.present]
        if len(found):
            sd = found.std(0, correction=0)
            self.mean.copy_(found.mean(0))
            self.sd.copy_(torch.where(sd > 1e-4, sd, 1.0))  # what does not vary is not blown up

    def samples(self, stream: Stream) -> Stream:
        """(B, T, *step) -> (B, k T, channels)."""
        return unrolled(Stream(stream.x.flatten(2), stream.mask), self.channels)

    def forward(self, stream: Stream) -> Stream:
        with torch.no_grad():
            found = self.describe(self.samples(stream))
            x = ((found - self.mean) / self.sd).clamp(-LARGEST, LARGEST)
        return Stream(x[:, None], stream.present[:, None])

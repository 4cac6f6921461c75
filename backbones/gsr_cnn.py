"""The small 1-D convolutional network for skin conductance of the Joint Multimodal Transformer's released code.

Every `segment` samples become one token: convolution of 5 with stride 2, ReLU, max-pooling, convolution of 5, ReLU,
pooling, linear to `dim`. There are no published weights: it trains with the fuser. Input: channels (C,) a step; at
BioVid's 512 Hz, 704 samples make four tokens of a clip of 5.5 s. Widths and pools are ours: the code's are unknown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch.nn.functional as F
from torch import nn

from fusionbench.api import Backbone, Choice, Range, Stream

from ._biosignal import start, tokens


class GsrCnn(Backbone):
    example = (1408, 1)
    expects = "samples of C channels, (C,) a step"

    def __init__(
        self,
        shape: Sequence[int],
        *,
        dim: Annotated[int, Choice(128, 256, 512), "output width"] = 512,
        channels: Annotated[int, Choice(16, 32, 64), "of the convolutions"] = 32,
        segment: Annotated[int, Range(64, 2816, log=True), "samples that become one token"] = 704,
        pool: Annotated[int, Range(4, 32), "values of a segment after the second pooling"] = 8,
        weights: Annotated[str, "random (there are none published), or a file (.safetensors, .pth)"] = "random",
    ) -> None:
        super().__init__(shape)
        self.dim, self.segment, self.pool = dim, segment, pool
        self.first = nn.Conv1d(math.prod(shape), channels, 5, stride=2, padding=2)
        self.second = nn.Conv1d(channels, channels, 5, padding=2)
        self.out = nn.Linear(channels * pool, dim)
        start("gsr_cnn", self, weights)

    def forward(self, stream: Stream) -> Stream:
        x, mask = tokens(stream, self.segment)  # (B, T', segment, C)
        x = x.flatten(0, 1).transpose(1, 2)  # (B * T', C, segment)
        x = F.max_pool1d(F.relu(self.first(x)), 4, ceil_mode=True)
        x = F.adaptive_avg_pool1d(F.relu(self.second(x)), self.pool)  # (B * T', channels, pool)
        return Stream(self.out(x.flatten(1)).unflatten(0, mask.shape), mask)

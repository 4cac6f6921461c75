"""A dilated temporal convolutional network for biosignals (in the line of Bai et al. 2018, not causal).

Every `patch` samples are embedded as one step; residual layers of kernel 3 with dilation 1, 2, 4, ... widen the view.
There are no published weights: it trains with the fuser. Input: channels (C,) a step, at any rate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import nn

from fusionbench.api import Backbone, Choice, Dropout, Range, Stream

from ._biosignal import start, tokens


class BiosignalTcn(Backbone):
    example = (256, 2)
    expects = "samples of C channels, (C,) a step"

    def __init__(
        self,
        shape: Sequence[int],
        *,
        dim: Annotated[int, Choice(64, 128, 256), "output width"] = 128,
        patch: Annotated[int, Range(4, 256, log=True), "samples that become one step"] = 32,
        depth: Annotated[int, Range(1, 6), "residual layers; dilation doubles with each"] = 4,
        dropout: Annotated[float, Range(0.0, 0.5), "after each layer"] = 0.1,
        weights: Annotated[str, "random (there are none published), or a file (.safetensors, .pth)"] = "random",
    ) -> None:
        super().__init__(shape)
        self.dim, self.patch = dim, patch
        self.embed = nn.Linear(patch * math.prod(shape), dim)
        # A convolution as shifts + linear: faster than a grouped one when members are stacked.
        self.layers = nn.ModuleList(nn.Linear(3 * dim, dim) for _ in range(depth))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(depth))
        self.dropout = Dropout(dropout)
        start("biosignal_tcn", self, weights)

    def forward(self, stream: Stream) -> Stream:
        x, mask = tokens(stream, self.patch)  # (B, T', patch, C)
        stream = Stream(self.embed(x.flatten(2)), mask)
        for number, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            reach, steps = 2**number, mask.shape[1]
            wide = F.pad(norm(stream.x) * mask[..., None], (0, 0, reach, reach))  # (B, T' + 2 * reach, D)
            seen = torch.cat([wide[:, k * reach : k * reach + steps] for k in range(3)], -1)
            stream = Stream(stream.x + self.dropout(F.gelu(layer(seen))), mask)
        return stream

"""A small temporal convolutional network that can shorten the sequence (in the line of Bai et al. 2018, not causal).

Each layer sees `kernel` neighbouring steps, normalises and applies a GELU; each of the first `log2(shorten)` halves the
sequence. A masked step counts as zeros, and a shortened step is real if its own centre or a neighbour was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch.nn.functional as F
from torch import Tensor, nn

from fusionbench.api import Backbone, Choice, Range, Stream


class Tcn(Backbone):
    def __init__(
        self,
        shape: Sequence[int],
        *,
        dim: Annotated[int, Choice(32, 64, 128), "output width"] = 64,
        kernel: Annotated[int, Choice(3, 5, 7), "steps that one layer sees"] = 5,
        depth: Annotated[int, Range(1, 4), "layers (at least as many as halvings)"] = 3,
        shorten: Annotated[int, Choice(1, 2, 4, 8), "the sequence gets this many times shorter"] = 1,
    ) -> None:
        super().__init__(shape)
        self.dim, self.kernel = dim, kernel
        halvings = int(math.log2(shorten))
        self.strides = [2] * halvings + [1] * max(0, depth - halvings)
        widths = [math.prod(shape)] + [dim] * len(self.strides)
        # A convolution as unfold + linear: several times faster than a grouped one when members are stacked.
        self.layers = nn.ModuleList(nn.Linear(kernel * w, dim) for w in widths[:-1])
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in self.strides)

    def forward(self, stream: Stream) -> Stream:
        stream = Stream(stream.x.flatten(2), stream.mask)
        for layer, norm, stride in zip(self.layers, self.norms, self.strides, strict=True):
            patches = self._patches(stream.x, stride)  # (B, T / stride, D, kernel)
            x = F.gelu(norm(layer(patches.flatten(2))))
            stream = Stream(
                x, F.max_pool1d(stream.mask.float(), stride, ceil_mode=True).bool() if stride > 1 else stream.mask
            )
        return stream

    def _patches(self, x: Tensor, stride: int) -> Tensor:
        side = self.kernel // 2
        return F.pad(x, (0, 0, side, side + (-x.shape[1]) % stride)).unfold(1, self.kernel, stride)

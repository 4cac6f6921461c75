"""Piecewise-linear encoding of numbers: how far each of a few bins is filled (Gorishniy et al., NeurIPS 2022).

"On Embeddings for Numerical Features in Tabular Deep Learning", arXiv 2203.05556, equation 1, with bins between
quantiles of the training samples. A network then meets a number as a forest does: by where it lies among the others.

Compared with rtdl_num_embeddings 0.0.12, its answers stopped at 0 and 1: largest difference 1.2e-7; of edges 9.1e-13.

Ours: the outer bins stop at 0 and 1 as the inner ones do, so that an outlier of a damaged sensor stays one bin; a bin
of no width (many equal numbers) is a step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

from torch import Tensor

from fusionbench.api import Backbone, Choice, Stream

from ._piecewise import edges_of, filled, normal_edges


class Ple(Backbone):
    edges: Tensor  # (bins + 1, D)

    def __init__(self, shape: Sequence[int], *, bins: Annotated[int, Choice(4, 8, 16), "bins of a number"] = 8) -> None:
        super().__init__(shape)
        width = math.prod(shape)
        self.dim = bins * width
        self.register_buffer("edges", normal_edges(bins, width))

    def prepare(self, stream: Stream) -> None:
        self.edges.copy_(edges_of(stream.x.flatten(2)[stream.mask], self.edges))

    def forward(self, stream: Stream) -> Stream:
        return Stream(filled(stream.x.flatten(2), self.edges), stream.mask)

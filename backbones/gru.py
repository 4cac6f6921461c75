"""A gated recurrent unit over time (Cho et al. 2014), one direction, blind to masked steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

from fusionbench.api import GRU, Backbone, Choice, Stream


class Gru(Backbone):
    def __init__(self, shape: Sequence[int], *, dim: Annotated[int, Choice(32, 64, 128), "output width"] = 64) -> None:
        super().__init__(shape)
        self.dim = dim
        self.gru = GRU(math.prod(shape), dim)

    def forward(self, stream: Stream) -> Stream:
        return Stream(self.gru(stream.x.flatten(2), stream.mask), stream.mask)

"""One linear layer and a GELU a step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch.nn.functional as F
from torch import nn

from fusionbench.api import Backbone, Choice, Stream


class Linear(Backbone):
    def __init__(self, shape: Sequence[int], *, dim: Annotated[int, Choice(32, 64, 128), "output width"] = 64) -> None:
        super().__init__(shape)
        self.dim = dim
        self.project = nn.Linear(math.prod(shape), dim)

    def forward(self, stream: Stream) -> Stream:
        return Stream(F.gelu(self.project(stream.x.flatten(2))), stream.mask)

"""Feature concatenation: every modality's step side by side, one linear layer, a head.

The template of a fuser. It has no paper.

Not compared: our own baseline.

Ours: all of it. For a clip each modality is averaged over its real steps first.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from fusionbench.api import Choice, Fuser, Head, Spec, Streams


class Concat(Fuser):
    def __init__(self, spec: Spec, *, width: Annotated[int, Choice(64, 128, 256), "width of the joint layer"] = 128):
        super().__init__(spec)
        self.joint = nn.Linear(sum(spec.dims.values()), width)
        self.head = Head(width, spec.out)

    def forward(self, streams: Streams) -> Tensor:
        steps = [self.pool(streams[m]).x for m in self.spec.dims]  # (B, S, dims[m]) each
        return self.head(self.joint(torch.cat(steps, -1)))

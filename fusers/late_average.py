"""Decision fusion: every modality answers alone, and the answers of those that are present are averaged.

The classical late fusion (sum rule of Kittler et al., "On Combining Classifiers", 1998,
https://doi.org/10.1109/34.667881).

Not compared: our own baseline.

Ours: logits are averaged for classes (the rule adds probabilities) and values for regression; trained jointly through
the average. A step at which no modality is present is answered with zeros.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from fusionbench.api import Choice, Fuser, Head, Projections, Spec, Streams, masked_mean


class LateAverage(Fuser):
    known_failures: ClassVar[dict[str, str]] = {
        "solves_xor": "a sum of one function a modality cannot express an exclusive-or"
    }

    def __init__(
        self, spec: Spec, *, width: Annotated[int, Choice(64, 128, 256), "width of each modality's layer"] = 128
    ):
        super().__init__(spec)
        self.project = Projections(spec, width)
        self.heads = nn.ModuleDict({m: Head(width, spec.out) for m in spec.dims})

    def forward(self, streams: Streams) -> Tensor:
        pooled = {m: self.pool(s) for m, s in self.project(streams).items()}
        answers = torch.stack([self.heads[m](s.x) for m, s in pooled.items()], 2)  # (B, S, M, out)
        present = torch.stack([s.mask for s in pooled.values()], 2)  # (B, S, M)
        return masked_mean(answers, present, dim=2)

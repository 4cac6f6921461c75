"""FiLM: one modality's pooled vector scales and shifts the features of another, for every ordered pair.

Ethan Perez, Florian Strub, Harm de Vries, Vincent Dumoulin, Aaron Courville, "FiLM: Visual Reasoning with a General
Conditioning Layer", AAAI 2018. https://arxiv.org/abs/1709.07871

Features F become ReLU(gamma * F + beta); gamma = 1 + dgamma and beta are linear in the conditioning vector.

Compared with ethanjperez/film@fe43ddf: largest difference 0 (the modulation of each of two modalities by the other).

Ours: the paper conditions images on a question; here every modality conditions every other, and the results are summed.
One FiLM layer on projected steps instead of four residual blocks of convolutions with batch normalisation. Per frame
the conditioning vector is that of the frame. An absent modality conditions nothing (gamma 1, beta 0).
"""

from __future__ import annotations

from itertools import permutations
from typing import Annotated

import torch
from torch import Tensor, nn

from fusionbench.api import Choice, Fuser, Head, Projections, Spec, Stream, Streams


class FiLM(Fuser):
    def __init__(self, spec: Spec, *, width: Annotated[int, Choice(64, 128, 256), "shared width"] = 128):
        super().__init__(spec)
        self.project = Projections(spec, width)
        # (conditioned, conditioning); one modality alone conditions itself.
        self.pairs = list(permutations(spec.dims, 2)) or [(m, m) for m in spec.dims]
        self.film = nn.ModuleList(nn.Linear(width, 2 * width) for _ in self.pairs)
        self.head = Head(width, spec.out)

    def forward(self, streams: Streams) -> Tensor:
        steps = self.project(streams)
        total = []
        for (target, source), film in zip(self.pairs, self.film, strict=True):
            x, condition = steps[target], self.pool(steps[source])
            scale, shift = Stream(film(condition.x), condition.mask).x.chunk(2, -1)  # (B, S, width) each
            total.append(self.pool(Stream(torch.relu((1 + scale) * x.x + shift), x.mask)).x)
        return self.head(torch.stack(total).sum(0))

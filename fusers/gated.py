"""Gated multimodal unit: sigmoid gates computed from all modalities mix one tanh feature of each.

John Arevalo, Thamar Solorio, Manuel Montes-y-Gómez, Fabio A. González, "Gated Multimodal Units for Information
Fusion", ICLR 2017 workshop track. https://arxiv.org/abs/1702.01992

h_m = tanh(W_m x_m); every gate sees the raw features of all modalities; with two modalities the mix is
z * h_1 + (1 - z) * h_2, z = sigmoid(W [x_1; x_2]).

Not compared: the released code needs Theano and Blocks, which no Python of today runs; a test holds the equations.

Ours: for more modalities the paper's gates do not sum to one; ours are a softmax over the modalities, feature by
feature, which is the same sigmoid when there are two; gates have a bias. A clip's modalities are averaged over time
before the unit; the shared head instead of a maxout classifier. An absent modality has no share in the mix.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from fusionbench.api import Choice, Fuser, Head, Projections, Spec, Streams, softmax_over


class Gated(Fuser):
    def __init__(self, spec: Spec, *, width: Annotated[int, Choice(64, 128, 256), "width of the unit"] = 128):
        super().__init__(spec)
        self.features = Projections(spec, width)
        self.gates = nn.Linear(sum(spec.dims.values()), len(spec.dims) * width)
        self.head = Head(width, spec.out)

    def forward(self, streams: Streams) -> Tensor:
        return self.head(self.fuse(streams))

    def fuse(self, streams: Streams) -> Tensor:
        """The mix of the modalities' features, (B, S, width)."""
        pooled = {m: self.pool(streams[m]) for m in self.spec.dims}
        features = torch.stack([torch.tanh(s.x) for s in self.features(pooled).values()], -2)  # (B, S, M, width)
        mask = torch.stack([s.mask for s in pooled.values()], -1)  # (B, S, M)
        gates = self.gates(torch.cat([s.x for s in pooled.values()], -1)).unflatten(-1, (len(pooled), -1))
        return (softmax_over(gates, mask[..., None], dim=-2) * features).sum(-2)

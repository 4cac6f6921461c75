"""Vanilla multimodal transformer: self-attention over time in each modality, then cross-attention for every pair.

The baseline of Waligora et al., "Joint Multimodal Transformer for Emotion Recognition in the Wild", CVPRW 2024,
https://arxiv.org/abs/2403.10488, with the blocks of Vaswani et al., "Attention Is All You Need", 2017,
https://arxiv.org/abs/1706.03762.

One post-norm encoder a modality, both directions of every pair, concatenation, a linear layer; no positional encoding
unless asked for.

Not compared: on purpose not what the paper's public code computes, see below.

Ours: attention runs over time (the public code gives (batch, time, width) to layers that expect time first, so that it
runs over the batch); the cross-attention has the residual and norm of a transformer decoder; a modality alone attends
to itself; the shared head.
"""

from __future__ import annotations

from itertools import permutations
from typing import Annotated

import torch
from torch import Tensor, nn

from fusionbench.api import Choice, Encoder, Fuser, Head, MultiHead, Projections, Range, Spec, Stream, Streams


class Transformer(Fuser):
    def __init__(
        self,
        spec: Spec,
        *,
        width: Annotated[int, Choice(64, 128, 256), "width of every token"] = 128,
        depth: Annotated[int, Range(1, 4), "layers of each modality's encoder"] = 1,
        heads: Annotated[int, Choice(1, 2, 4), "attention heads"] = 1,
        dropout: Annotated[float, Range(0.0, 0.5), "dropout in the encoders"] = 0.1,
        positions: Annotated[bool, Choice(False, True), "add the sinusoidal positional encoding"] = False,
    ):
        super().__init__(spec)
        self.project = Projections(spec, width)
        self.encoders = nn.ModuleDict(
            {m: Encoder(width, depth, heads, dropout=dropout, positions=positions) for m in spec.dims}
        )
        self.pairs = list(permutations(spec.dims, 2)) or [(m, m) for m in spec.dims]  # (query, key)
        self.cross = nn.ModuleList(MultiHead(width, heads) for _ in self.pairs)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in self.pairs)
        self.joint = nn.Linear(len(self.pairs) * width, width)
        self.head = Head(width, spec.out)

    def forward(self, streams: Streams) -> Tensor:
        encoded = {m: Stream(self.encoders[m](s.x, s.mask), s.mask) for m, s in self.project(streams).items()}
        steps = []
        for (query, key), cross, norm in zip(self.pairs, self.cross, self.norms, strict=True):
            q, k = encoded[query], encoded[key]
            attended = norm(q.x + cross(q.x, k.x, k.mask))  # (B, T of the query, width)
            steps.append(self.pool(Stream(attended, q.mask)).x)
        return self.head(self.joint(torch.cat(steps, -1)))

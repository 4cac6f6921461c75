"""Cross-attention: every modality queries the tokens of all the others, residual and norm, pool, concatenate, a head.

The plainest use of attention (Vaswani et al., "Attention Is All You Need", 2017, https://arxiv.org/abs/1706.03762) for
fusion, and a usual baseline of papers on multimodal transformers; it has no paper of its own.

Not compared: our own baseline.

Ours: all of it. One attention layer, no encoder before it and no feed-forward part after it. A modality alone attends
to itself.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from fusionbench.api import Choice, Fuser, Head, MultiHead, Projections, Spec, Stream, Streams


class CrossAttention(Fuser):
    def __init__(
        self,
        spec: Spec,
        *,
        width: Annotated[int, Choice(64, 128, 256), "width of every token"] = 128,
        heads: Annotated[int, Choice(1, 2, 4), "attention heads"] = 1,
    ):
        super().__init__(spec)
        self.project = Projections(spec, width)
        self.cross = nn.ModuleDict({m: MultiHead(width, heads) for m in spec.dims})
        self.norms = nn.ModuleDict({m: nn.LayerNorm(width) for m in spec.dims})
        self.head = Head(len(spec.dims) * width, spec.out, hidden=width)

    def forward(self, streams: Streams) -> Tensor:
        tokens = self.project(streams)
        steps = []
        for m, s in tokens.items():
            others = [tokens[o] for o in tokens if o != m] or [s]
            memory = torch.cat([o.x for o in others], 1)  # (B, sum of T, width)
            mask = torch.cat([o.mask for o in others], 1)
            attended = self.norms[m](s.x + self.cross[m](s.x, memory, mask))  # (B, T of m, width)
            steps.append(self.pool(Stream(attended, s.mask)).x)
        return self.head(torch.cat(steps, -1))

"""Multimodal bottleneck transformer: in the last layers modalities meet only through a few bottleneck tokens.

Arsha Nagrani, Shan Yang, Anurag Arnab, Aren Jansen, Cordelia Schmid, Chen Sun, "Attention Bottlenecks for Multimodal
Fusion", NeurIPS 2021. https://arxiv.org/abs/2107.00135

Faithful: separate encoders per modality, first alone, then over [bottleneck; own tokens]; after each fusion layer the
bottleneck is the mean of the modalities' versions of it (those present); one classifier shared by the modalities, and
the answer is the mean of their logits (those present).
Simplified: one layer alone and two of fusion, post-norm, from scratch, with fixed positions, instead of a pre-trained
ViT of twelve; a clip is read from the mean of each modality's tokens instead of a CLS token, per frame from the
frame's own tokens.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import torch
from torch import Tensor, nn

from fusionbench.api import (
    Choice,
    Encoder,
    Fuser,
    Head,
    Projections,
    Range,
    Spec,
    Stream,
    Streams,
    masked_mean,
    sinusoids,
)


class _Exchange(nn.Module):
    """A fusion layer: an encoder per modality over [bottleneck; own tokens], then the mean of their bottlenecks."""

    def __init__(self, modalities: Iterable[str], width: int, heads: int, dropout: float):
        super().__init__()
        self.encoders = nn.ModuleDict({m: Encoder(width, 1, heads, dropout=dropout) for m in modalities})

    def forward(self, own: Streams, shared: Tensor) -> tuple[Streams, Tensor]:
        count, versions, changed = shared.shape[1], [], {}
        present = torch.stack([s.present for s in own.values()], 1)  # (B, M)
        always = torch.ones_like(present[:, :1]).expand(-1, count)
        for m, s in own.items():
            # The bottleneck stands first: padding then moves no token, and keyed dropout stays where it was.
            both = self.encoders[m](torch.cat([shared, s.x], 1), torch.cat([always, s.mask], 1))
            versions.append(both[:, :count])
            changed[m] = Stream(both[:, count:], s.mask)
        return changed, masked_mean(torch.stack(versions, 1), present)


class Bottleneck(Fuser):
    def __init__(
        self,
        spec: Spec,
        *,
        width: Annotated[int, Choice(64, 128, 256), "shared width"] = 128,
        tokens: Annotated[int, Range(1, 8), "bottleneck tokens"] = 4,
        alone: Annotated[int, Range(0, 2), "layers before the fusion layers"] = 1,
        depth: Annotated[int, Range(2, 4), "fusion layers; information crosses from the second on"] = 2,
        heads: Annotated[int, Choice(1, 2, 4), "attention heads"] = 4,
        dropout: Annotated[float, Range(0.0, 0.3), "dropout on residual branches"] = 0.1,
    ):
        super().__init__(spec)
        self.project = Projections(spec, width)
        self.alone = nn.ModuleDict({m: Encoder(width, alone, heads, dropout=dropout) for m in spec.dims})
        self.fusion = nn.ModuleList(_Exchange(spec.dims, width, heads, dropout) for _ in range(depth))
        self.tokens = nn.Parameter(torch.randn(tokens, width) * 0.02)
        self.head = Head(width, spec.out)

    def forward(self, streams: Streams) -> Tensor:
        own: Streams = {}
        for m, s in self.project(streams).items():
            width = s.x.shape[-1]
            # Scaled, or the positions drown what the tokens say (Vaswani et al. 2017, section 3.4).
            x = s.x * width**0.5 + sinusoids(s.x.shape[1], width, s.x.device).to(s.x.dtype)
            own[m] = Stream(self.alone[m](x, s.mask), s.mask)
        shared = self.tokens.expand(len(next(iter(own.values()))), -1, -1)  # (B, tokens, width)
        for exchange in self.fusion:
            own, shared = exchange(own, shared)
        read = [self.pool(s) for s in own.values()]
        mask = torch.stack([s.mask for s in read], 2)  # (B, S, M)
        mask = mask | ~mask.any(-1, keepdim=True)  # where all are absent, all say what zeros say
        logits = self.head(torch.stack([s.x for s in read], 2))  # (B, S, M, out)
        return masked_mean(logits, mask, 2)

"""Multimodal bottleneck transformer: in the last layers modalities meet only through a few bottleneck tokens.

Arsha Nagrani, Shan Yang, Anurag Arnab, Aren Jansen, Cordelia Schmid, Chen Sun, "Attention Bottlenecks for Multimodal
Fusion", NeurIPS 2021. https://arxiv.org/abs/2107.00135

Separate pre-norm encoders with GELU per modality, first alone, then over [own tokens; bottleneck]; after each fusion
layer the bottleneck is the mean of the modalities' versions of it; a last norm and one linear classifier shared by the
modalities. In training every modality's logits have a loss of their own, and the losses are averaged; at test the
logits are.

Compared with google-research/scenic@4a38d47: largest difference 2e-15 (the encoded tokens of two modalities after one
layer alone and two of fusion, without positions).

Ours: one layer alone and two of fusion by default, trained from scratch (released: a pre-trained ViT, 8 and 4 layers
of width 768 with 12 heads, the preset `paper`), on projected steps with fixed positions instead of patches with
learned ones; no dropping of whole layers; a clip is read from the mean of each modality's tokens instead of a class
token, per frame from the frame's own tokens; means of bottlenecks, losses and logits are over those present.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from fusionbench.api import (
    Batch,
    Choice,
    Criterion,
    Dropout,
    Fuser,
    MultiHead,
    Projections,
    Range,
    Spec,
    Stream,
    Streams,
    masked_mean,
    sinusoids,
)


class _Layer(nn.Module):
    """A pre-norm transformer layer with GELU: tokens (B, T, width), mask (B, T) -> (B, T, width)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attention = MultiHead(width, heads)
        self.feed = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), Dropout(dropout), nn.Linear(4 * width, width)
        )
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        normal = self.norm1(x)
        x = x + self.dropout(self.attention(normal, normal, mask))
        return x + self.dropout(self.feed(self.norm2(x)))


class _Exchange(nn.Module):
    """A fusion layer: a layer per modality over [bottleneck; own tokens], then the mean of their bottlenecks."""

    def __init__(self, modalities: Iterable[str], width: int, heads: int, dropout: float):
        super().__init__()
        self.layers = nn.ModuleDict({m: _Layer(width, heads, dropout) for m in modalities})

    def forward(self, own: Streams, shared: Tensor) -> tuple[Streams, Tensor]:
        count, versions, changed = shared.shape[1], [], {}
        present = torch.stack([s.present for s in own.values()], 1)  # (B, M)
        always = torch.ones_like(present[:, :1]).expand(-1, count)
        for m, s in own.items():
            # The bottleneck stands first: padding then moves no token, and keyed dropout stays where it was.
            both = self.layers[m](torch.cat([shared, s.x], 1), torch.cat([always, s.mask], 1))
            versions.append(both[:, :count])
            changed[m] = Stream(both[:, count:], s.mask)
        return changed, masked_mean(torch.stack(versions, 1), present)


class Bottleneck(Fuser):
    presets: ClassVar = {"paper": {"width": 768, "heads": 12, "alone": 8, "depth": 4, "tokens": 4, "dropout": 0.0}}

    def __init__(
        self,
        spec: Spec,
        *,
        width: Annotated[int, Choice(64, 128, 256), "shared width"] = 128,
        tokens: Annotated[int, Range(1, 8), "bottleneck tokens"] = 4,
        alone: Annotated[int, Range(0, 2), "layers before the fusion layers"] = 1,
        depth: Annotated[int, Range(2, 4), "fusion layers; information crosses from the second on"] = 2,
        heads: Annotated[int, Choice(1, 2, 4), "attention heads"] = 4,
        dropout: Annotated[float, Range(0.0, 0.3), "dropout on residual branches and in feed-forward parts"] = 0.1,
    ):
        super().__init__(spec)
        self.project = Projections(spec, width)
        self.alone = nn.ModuleDict(
            {m: nn.ModuleList(_Layer(width, heads, dropout) for _ in range(alone)) for m in spec.dims}
        )
        self.fusion = nn.ModuleList(_Exchange(spec.dims, width, heads, dropout) for _ in range(depth))
        self.tokens = nn.Parameter(torch.randn(tokens, width) * 0.02)
        self.last = nn.LayerNorm(width, eps=1e-6)
        self.answer = nn.Linear(width, spec.out)

    def forward(self, streams: Streams) -> Tensor:
        logits, mask = self._logits(streams)
        mask = mask | ~mask.any(-1, keepdim=True)  # where all are absent, all say what zeros say
        return masked_mean(logits, mask, 2)

    def loss(self, batch: Batch, criterion: Criterion) -> Tensor:
        logits, mask = self._logits(batch.streams)
        valid = mask & batch.y_mask.unsqueeze(-1)  # (B, S, M)
        losses = [criterion(logits[:, :, m], replace(batch, y_mask=valid[:, :, m])) for m in range(mask.shape[-1])]
        return masked_mean(torch.stack(losses), valid.any(0).any(0), 0)

    def _logits(self, streams: Streams) -> tuple[Tensor, Tensor]:
        """Each modality's own logits (B, S, M, out), and which are there (B, S, M)."""
        tokens: Streams = {}
        for m, s in self.project(streams).items():
            width = s.x.shape[-1]
            # Scaled, or the positions drown what the tokens say (Vaswani et al. 2017, section 3.4).
            tokens[m] = Stream(s.x * width**0.5 + sinusoids(s.x.shape[1], width, s.x.device).to(s.x.dtype), s.mask)
        read = [self.pool(s) for s in self.encode(tokens).values()]
        return self.answer(torch.stack([s.x for s in read], 2)), torch.stack([s.mask for s in read], 2)

    def encode(self, own: Streams) -> Streams:
        """The modalities' tokens (B, T, width) after all layers and the last norm."""
        for m, layers in self.alone.items():
            for layer in layers:
                own = {**own, m: Stream(layer(own[m].x, own[m].mask), own[m].mask)}
        shared = self.tokens.expand(len(next(iter(own.values()))), -1, -1)  # (B, tokens, width)
        for exchange in self.fusion:
            own, shared = exchange(own, shared)
        return {m: Stream(self.last(s.x), s.mask) for m, s in own.items()}

"""Perceiver IO: a few latents read the tokens of all modalities, think among themselves, and are queried for answers.

Andrew Jaegle et al., "Perceiver IO: A General Architecture for Structured Inputs & Outputs", ICLR 2022.
https://arxiv.org/abs/2107.14795

Encode (latents attend to all tokens), process (latents attend to latents), decode (queries attend to latents), in
pre-norm attention and feed-forward blocks; tokens carry a learned modality embedding; one learned query for a clip, and
one positional query a frame for a per-frame task.

Not compared: the authors' code is for JAX and Haiku; only ports to PyTorch by others were at hand.

Ours: fixed sinusoidal positions added to the tokens instead of concatenated Fourier features; ReLU feed-forward parts
twice as wide as the latents (paper: GELU, as wide in cross-attention); one width for tokens, latents and queries; the
shared head. 16 latents and two blocks by default.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from fusionbench.api import (
    Choice,
    Dropout,
    Feedforward,
    Fuser,
    Head,
    MultiHead,
    Projections,
    Range,
    Spec,
    Streams,
    sinusoids,
)


class _Block(nn.Module):
    """Queries (B, Q, width) attend to a memory (B, K, width), then a feed-forward part; both residual and pre-norm."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.norm_query, self.norm_memory, self.norm = (nn.LayerNorm(width) for _ in range(3))
        self.attention = MultiHead(width, heads)
        self.feedforward = Feedforward(width, 2 * width)
        self.dropout = Dropout(dropout)

    def forward(self, query: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        query = query + self.dropout(self.attention(self.norm_query(query), self.norm_memory(memory), mask))
        return query + self.dropout(self.feedforward(self.norm(query)))


class Perceiver(Fuser):
    def __init__(
        self,
        spec: Spec,
        *,
        width: Annotated[int, Choice(64, 128, 256), "shared width"] = 128,
        latents: Annotated[int, Choice(8, 16, 32), "latent vectors"] = 16,
        depth: Annotated[int, Range(1, 4), "self-attention blocks over the latents"] = 2,
        heads: Annotated[int, Choice(1, 2, 4), "attention heads"] = 4,
        dropout: Annotated[float, Range(0.0, 0.3), "dropout on residual branches"] = 0.1,
    ):
        super().__init__(spec)
        self.project = Projections(spec, width)
        self.modality = nn.ParameterDict({m: nn.Parameter(torch.randn(width) * 0.02) for m in spec.dims})
        self.latents = nn.Parameter(torch.randn(latents, width) * 0.02)
        self.query = nn.Parameter(torch.randn(width) * 0.02)
        self.encode = _Block(width, heads, dropout)
        self.process = nn.ModuleList(_Block(width, heads, dropout) for _ in range(depth))
        self.decode = _Block(width, heads, dropout)
        self.head = Head(width, spec.out)

    def forward(self, streams: Streams) -> Tensor:
        steps = self.project(streams)
        # Scaled, or the positions drown what the tokens say (Vaswani et al. 2017, section 3.4).
        scale = len(self.query) ** 0.5
        tokens = torch.cat([s.x * scale + self._places(s.x) + self.modality[m] for m, s in steps.items()], 1)
        mask = torch.cat([s.mask for s in steps.values()], 1)
        latents = self.encode(self.latents.expand(len(tokens), -1, -1), tokens, mask)  # (B, latents, width)
        for block in self.process:
            latents = block(latents, latents)
        frames = next(iter(steps.values())).x
        query = self.query + self._places(frames) if self.spec.per_frame else self.query[None]  # (S, width)
        return self.head(self.decode(query.expand(len(tokens), -1, -1), latents))

    def _places(self, x: Tensor) -> Tensor:
        return sinusoids(x.shape[1], x.shape[2], x.device).to(x.dtype)

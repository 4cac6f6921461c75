"""MulT: a crossmodal transformer for every ordered pair of modalities, unaligned; then self-attention per modality.

Yao-Hung Hubert Tsai, Shaojie Bai, Paul Pu Liang, J. Zico Kolter, Louis-Philippe Morency, Ruslan Salakhutdinov,
"Multimodal Transformer for Unaligned Multimodal Language Sequences", ACL 2019. https://arxiv.org/abs/1906.00295

Faithful: scaled projections with sinusoidal positions; pre-norm crossmodal layers whose keys and values are always the
other modality's low-level tokens; per target the pairs are concatenated and pass a self-attention transformer; a clip
is read at the last real step; residual head. Modalities keep their own clocks.
Simplified: linear projections (convolutions of size one); two layers a stack by default (the paper: four or five); no
attention dropout. Per frame every frame is read. One modality alone attends to itself.
"""

from __future__ import annotations

from itertools import permutations
from typing import Annotated

import torch
from torch import Tensor, nn

from fusionbench.api import (
    Choice,
    Dropout,
    Feedforward,
    Fuser,
    MultiHead,
    Projections,
    Range,
    Spec,
    Stream,
    Streams,
    sinusoids,
)


class _Stack(nn.Module):
    """Pre-norm transformer layers: `x` attends to `memory`, or to itself where there is none."""

    def __init__(self, width: int, depth: int, heads: int, dropout: float):
        super().__init__()
        self.attention = nn.ModuleList(MultiHead(width, heads) for _ in range(depth))
        self.feedforward = nn.ModuleList(Feedforward(width, 4 * width) for _ in range(depth))
        self.norm1 = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.norm2 = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.last = nn.LayerNorm(width)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor, memory: Tensor | None = None) -> Tensor:
        for attend, feed, norm1, norm2 in zip(self.attention, self.feedforward, self.norm1, self.norm2, strict=True):
            x = x + self.dropout(attend(norm1(x), norm1(x if memory is None else memory), mask))
            x = x + self.dropout(feed(norm2(x)))
        return self.last(x)


class MulT(Fuser):
    def __init__(
        self,
        spec: Spec,
        *,
        width: Annotated[int, Choice(32, 64, 128), "width of a modality's tokens"] = 32,
        depth: Annotated[int, Range(1, 5), "layers of every transformer"] = 2,
        heads: Annotated[int, Choice(1, 4, 8), "attention heads"] = 4,
        dropout: Annotated[float, Range(0.0, 0.3), "dropout on residual branches and in the head"] = 0.1,
        readout: Annotated[str, Choice("last", "mean"), "how a clip is read: last real step or mean"] = "last",
    ):
        super().__init__(spec)
        self.width, self.readout = width, readout
        self.project = Projections(spec, width)
        self.pairs = list(permutations(spec.dims, 2)) or [(m, m) for m in spec.dims]  # (target, source)
        self.cross = nn.ModuleList(_Stack(width, depth, heads, dropout) for _ in self.pairs)
        wide = width * len(self.pairs) // len(spec.dims)
        self.memory = nn.ModuleDict({m: _Stack(wide, depth, heads, dropout) for m in spec.dims})
        total = wide * len(spec.dims)
        self.residual = nn.Sequential(nn.Linear(total, total), nn.ReLU(), Dropout(dropout), nn.Linear(total, total))
        self.answer = nn.Linear(total, spec.out)

    def forward(self, streams: Streams) -> Tensor:
        tokens = {}
        for m, s in self.project(streams).items():
            places = sinusoids(s.x.shape[1], self.width, s.x.device).to(s.x.dtype)
            tokens[m] = Stream(s.x * self.width**0.5 + places, s.mask)
        crossed: dict[str, list[Tensor]] = {m: [] for m in tokens}
        for (target, source), stack in zip(self.pairs, self.cross, strict=True):
            crossed[target].append(stack(tokens[target].x, tokens[source].mask, tokens[source].x))
        read = []
        for m, stack in self.memory.items():
            mask = tokens[m].mask
            read.append(self._read(Stream(stack(torch.cat(crossed[m], -1), mask), mask)))  # (B, S, (M - 1) * width)
        fused = torch.cat(read, -1)
        return self.answer(fused + self.residual(fused))

    def _read(self, stream: Stream) -> Tensor:
        if self.readout == "last" and not self.spec.per_frame:
            place = stream.mask * torch.arange(1, stream.mask.shape[1] + 1, device=stream.mask.device)
            stream = Stream(stream.x, stream.mask & (place == place.amax(1, keepdim=True)))
        return self.pool(stream).x

"""MoMKE: experts that learnt one modality each all read every modality, and a soft router mixes what they say.

Wenxin Xu, Hexin Jiang, Xuefeng Liang, "Leveraging Knowledge of Modality Experts for Incomplete Multimodal Learning",
ACM Multimedia 2024. https://doi.org/10.1145/3664647.3681683

An expert is a residual stack of layers, each self-attention without an output projection plus an MLP of what was
attended to, and no norm. In the first part of training each expert reads its own modality alone and answers through a
head of its own. Afterwards every expert reads every modality; per step the router, an MLP of the modality's projected
token with a softmax, weighs the experts' outputs. The modalities' mixtures side by side (zero where one is absent)
pass one residual layer and a linear head.

Compared with wxxv/MoMKE@2dceb57, same weights, three modalities of which some are missing: largest difference 2e-7
in the joint answers, 2e-7 in what each expert answers alone. Not compared: the two stages of training.

Ours: any number of modalities; a clip's mixtures, and what an expert answers alone, are averaged over the real steps.
Ours: the stages are shares of one training: both losses are always computed and `progress` chooses, one optimiser
with one schedule, and the experts go on from where they stand (that each first returns to its best epoch, as the
released code announces, has no effect there: it updates a copy of the weights).
Ours: one model for all patterns of absence: in the second stage each sample of training keeps a random one to all of
its modalities. The released scripts train one model for every pattern that they test, with just that pattern.
Ours: width, layers and dropout are smaller by default; `paper` has the released ones.
"""

from __future__ import annotations

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
    Projections,
    Range,
    Spec,
    Stream,
    Streams,
    attention,
    keep_some,
)


class _Layer(nn.Module):
    """o + MLP(o) of o = multi-head self-attention over the real steps: (B, T, width) -> (B, T, width)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.mlp = _mlp(width, width, dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        attended = attention(q, k, v, mask[:, None, None]).transpose(1, 2).flatten(2)
        return attended + self.mlp(attended)


class _Expert(nn.ModuleList):
    """Layers with a skip around each."""

    def __init__(self, width: int, depth: int, heads: int, dropout: float) -> None:
        super().__init__(_Layer(width, heads, dropout) for _ in range(depth))

    def forward(self, stream: Stream) -> Tensor:
        x = stream.x
        for layer in self:
            x = x + layer(x, stream.mask)
        return x


def _mlp(width: int, out: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.GELU(), Dropout(dropout), nn.Linear(width, out), Dropout(dropout))


class MoMKE(Fuser):
    presets: ClassVar = {"paper": {"width": 256, "depth": 4, "heads": 2, "dropout": 0.5, "alone": 0.5}}

    def __init__(
        self,
        spec: Spec,
        *,
        width: Annotated[int, Choice(64, 128, 256), "width of every token"] = 64,
        depth: Annotated[int, Range(1, 4), "layers of an expert"] = 2,
        heads: Annotated[int, Choice(1, 2, 4), "attention heads"] = 2,
        dropout: Annotated[float, Range(0.0, 0.5), "dropout on tokens, in MLPs and before the head"] = 0.2,
        alone: Annotated[float, Range(0.1, 0.6), "share of training in which each expert learns alone"] = 0.3,
    ):
        super().__init__(spec)
        self.alone = alone
        self.project = Projections(spec, width)
        self.experts = nn.ModuleDict({m: _Expert(width, depth, heads, dropout) for m in spec.dims})
        self.routers = nn.ModuleDict({m: _mlp(width, len(spec.dims), dropout) for m in spec.dims})
        self.own_answer = nn.ModuleDict({m: nn.Linear(width, spec.out) for m in spec.dims})
        self.joint = nn.Linear(len(spec.dims) * width, len(spec.dims) * width)
        self.answer = nn.Linear(len(spec.dims) * width, spec.out)
        self.dropout = Dropout(dropout)

    def forward(self, streams: Streams) -> Tensor:
        return self._mix(self._tokens(streams))

    def loss(self, batch: Batch, criterion: Criterion) -> Tensor:
        """Before `alone` of training: what each expert answers alone, where its modality is; afterwards the mixture."""
        tokens = self._tokens(batch.streams)
        losses = []
        for m, answers in self.answers_alone(tokens).items():
            there = self.pool(tokens[m]).mask
            losses.append(criterion(answers, replace(batch, y_mask=batch.y_mask & there)))
        early = 1.0 * (batch.progress < self.alone)  # of a number or of a tensor
        return early * torch.stack(losses).sum() + (1.0 - early) * criterion(self._mix(_keep_some(tokens)), batch)

    def answers_alone(self, tokens: Streams) -> dict[str, Tensor]:
        """Each expert's own answers to its own modality's tokens, (B, S, out)."""
        own = {m: Stream(expert(tokens[m]), tokens[m].mask) for m, expert in self.experts.items()}
        return {m: self.own_answer[m](self.pool(stream).x) for m, stream in own.items()}

    def _tokens(self, streams: Streams) -> Streams:
        return {m: Stream(self.dropout(s.x), s.mask) for m, s in self.project(streams).items()}

    def _mix(self, tokens: Streams) -> Tensor:
        mixed = []
        for m, stream in tokens.items():
            weights = self.routers[m](stream.x).softmax(-1)  # (B, T, M)
            said = torch.stack([expert(stream) for expert in self.experts.values()], -2)  # (B, T, M, width)
            mixed.append(self.pool(Stream((weights.unsqueeze(-1) * said).sum(-2), stream.mask)).x)
        joint = torch.cat(mixed, -1)  # (B, S, M * width)
        return self.answer(joint + self.dropout(torch.relu(self.joint(joint))))


def _keep_some(tokens: Streams) -> Streams:
    """Of each sample's n present modalities a random 1 to n; the others become absent."""
    kept = keep_some(torch.stack([s.present for s in tokens.values()], -1).unsqueeze(1)).squeeze(1)  # (B, M)
    return {m: Stream(s.x, s.mask & kept[:, i, None]) for i, (m, s) in enumerate(tokens.items())}

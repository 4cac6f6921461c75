"""ActionMAE: training drops modalities at random, and a masked autoencoder over modality tokens decodes them back.

Sangmin Woo, Sumin Lee, Yeonju Park, Muhammad Adi Nugroho, Changick Kim, "Towards Good Practices for Missing Modality
Robust Action Recognition", AAAI 2023, https://arxiv.org/abs/2211.13916.

A temporal transformer a modality gives one token; in training a random number of tokens (never all) is dropped; the
encoder sees the rest and learned memory tokens, the decoder gets mask tokens in the places of the lost; the tokens of
all modalities are fused; the loss adds the squared error on dropped tokens, whose targets are normalised.

Not compared: the released model is one with its image encoders, drops in the middle of its forward pass and has blocks
of another library; the departures below were read off it.

Ours: tokens are means over real steps, one a step for per-frame tasks (released: a class token); post-norm layers,
one by default, and learned places (released: pre-norm, two, fixed positions); tokens are normalised before the encoder
and so are the targets, which get no gradient; the number of dropped tokens is drawn for each sample (released: for the
batch); kept tokens go to the fusion as they are and dropped ones decoded (released: all of them decoded, as soon as one
is dropped); the fusion is the paper's transformer with a class token (released default: a sum); 4 memory tokens
(released: 10). What is missing from the data is treated like what was dropped, but never taken as a target.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionbench.api import Batch, Choice, Encoder, Fuser, Head, Projections, Range, Spec, Stream, Streams, keep_some


class ActionMAE(Fuser):
    presets: ClassVar = {"paper": {"width": 512, "heads": 8, "depth": 2, "memory": 10}}

    def __init__(
        self,
        spec: Spec,
        *,
        width: Annotated[int, Choice(64, 128, 256), "width of a token"] = 128,
        heads: Annotated[int, Choice(1, 2, 4), "attention heads"] = 2,
        depth: Annotated[int, Range(1, 2), "layers of encoder, decoder and fusion"] = 1,
        memory: Annotated[int, Range(1, 10), "memory tokens"] = 4,
        reconstruction: Annotated[float, Range(0.0, 2.0), "weight of the error on dropped tokens"] = 1.0,
    ):
        super().__init__(spec)
        self.reconstruction = reconstruction
        self.project = Projections(spec, width)
        self.temporal = nn.ModuleDict({m: Encoder(width, 1, heads, 2 * width, positions=True) for m in spec.dims})
        self.place = nn.Parameter(0.02 * torch.randn(len(spec.dims), width))  # which modality a token stands for
        self.memory = nn.Parameter(0.02 * torch.randn(memory, width))
        self.lost = nn.Parameter(0.02 * torch.randn(width))
        self.answer = nn.Parameter(0.02 * torch.randn(1, width))
        self.encoder, self.decoder, self.fusion = (Encoder(width, depth, heads, 2 * width) for _ in range(3))
        self.predict = nn.Linear(width, width)
        self.head = Head(width, spec.out)

    def forward(self, streams: Streams) -> Tensor:
        return self._fuse(streams)[0]

    def loss(self, batch: Batch, criterion: Callable[[Tensor, Batch], Tensor]) -> Tensor:
        answers, decoded, target, dropped = self._fuse(batch.streams)
        error = (decoded - target.detach()).square().mean(-1)  # (B, S, M)
        return criterion(answers, batch) + self.reconstruction * (error * dropped).sum() / dropped.sum().clamp(min=1)

    def _fuse(self, streams: Streams) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Answers, decoded tokens, true tokens (B, S, M, width), and which were dropped (B, S, M)."""
        steps = []
        for m, stream in self.project(streams).items():
            steps.append(self.pool(Stream(self.temporal[m](stream.x, stream.mask), stream.mask)))
        tokens = F.layer_norm(torch.stack([s.x for s in steps], -2), self.lost.shape)  # (B, S, M, width)
        mask = torch.stack([s.mask for s in steps], -1)  # (B, S, M)
        kept = keep_some(mask) if self.training else mask
        memory = self.memory.expand(*mask.shape[:2], *self.memory.shape)
        count = memory.shape[-2]

        seen = torch.cat([torch.ones_like(memory[..., 0], dtype=torch.bool), kept], -1)
        code = self.encoder(torch.cat([memory, tokens + self.place], -2), seen)
        filled = torch.where(kept.unsqueeze(-1), code[..., count:, :], self.lost)
        decoded = self.decoder(torch.cat([code[..., :count, :], filled + self.place], -2))
        decoded = self.predict(decoded[..., count:, :])  # (B, S, M, width)

        whole = torch.where(kept.unsqueeze(-1), tokens, decoded) + self.place
        answer = self.answer.expand(*mask.shape[:2], *self.answer.shape)
        fused = self.fusion(torch.cat([answer, whole], -2))[..., 0, :]
        return self.head(fused), decoded, tokens, mask & ~kept

"""Attention pooling: the modalities' embeddings averaged with softmax weights that all of them decide together.

Method: the simple default of MERBench and of the MER challenges ("attention"). Lian, Sun, Ren, Gu, Sun, Chen, Liu, Tao,
"MERBench: A Unified Evaluation Benchmark for Multimodal Emotion Recognition", 2024, https://arxiv.org/abs/2401.03429.

Faithful: one small network a modality, a network on their concatenation that scores every modality, the weighted sum,
the head. Simplified: a stream is averaged over its real steps where the released code runs an LSTM, and absent
modalities get no weight. The released code leaves the scores as they are; ours are weights (softmax), so a single
modality always has weight 1.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from fusionbench.api import Choice, Dropout, Fuser, Head, Projections, Range, Spec, Streams, softmax_over


class AttentionPool(Fuser):
    def __init__(
        self,
        spec: Spec,
        *,
        width: Annotated[int, Choice(64, 128, 256), "width of an embedding"] = 128,
        dropout: Annotated[float, Range(0.0, 0.5), "dropout of embeddings and scorer"] = 0.1,
    ):
        super().__init__(spec)
        count = len(spec.dims)
        self.embed = Projections(
            spec, width, lambda d, w: nn.Sequential(nn.Linear(d, w), nn.ReLU(), Dropout(dropout), nn.Linear(w, w))
        )
        self.score = nn.Sequential(
            nn.Linear(count * width, width), nn.ReLU(), Dropout(dropout), nn.Linear(width, count)
        )
        self.head = Head(width, spec.out)

    def weights(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Shares of the modalities, (B, S, M), from embeddings (B, S, M, width): they sum to 1 over the real ones."""
        return softmax_over(self.score(hidden.flatten(-2)), mask)

    def forward(self, streams: Streams) -> Tensor:
        steps = [self.pool(stream) for stream in self.embed(streams).values()]
        hidden = torch.stack([s.x for s in steps], -2).relu()  # (B, S, M, width)
        mask = torch.stack([s.mask for s in steps], -1)  # (B, S, M)
        return self.head((self.weights(hidden, mask).unsqueeze(-1) * hidden).sum(-2))

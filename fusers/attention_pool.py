"""Attention pooling: the modalities' embeddings added with weights that all of them decide together.

Zheng Lian, Licai Sun, Yong Ren, Hao Gu, Haiyang Sun, Lan Chen, Bin Liu, Jianhua Tao, "MERBench: A Unified Evaluation
Benchmark for Multimodal Emotion Recognition", 2024, https://arxiv.org/abs/2401.03429. The simple default of MERBench
and of the MER challenges ("attention").

One network of three layers for each modality's utterance vector, another of them on their concatenation, whose linear
layer scores every modality; the sum weighted by the scores as they are (no softmax); a linear layer.

Compared with zeroQiaoba/MERTools@89120b7: largest difference 0 (the answers for three modalities' utterance vectors
(MERBench)).

Ours: an utterance vector is the mean over real steps (per frame: the step); an absent modality has neither embedding
nor weight; dropout is 0.1 by default; one answer, where the released code has a second one for valence.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from fusionbench.api import Choice, Dropout, Fuser, Projections, Range, Spec, Streams


class AttentionPool(Fuser):
    def __init__(
        self,
        spec: Spec,
        *,
        width: Annotated[int, Choice(64, 128, 256), "width of an embedding"] = 128,
        dropout: Annotated[float, Range(0.0, 0.5), "dropout on what goes into the networks"] = 0.1,
    ):
        super().__init__(spec)

        def network(d: int, w: int) -> nn.Sequential:
            sizes = ((d, w), (w, w), (w, w))
            layers = [part for size in sizes for part in (nn.Linear(*size), nn.ReLU())]
            return nn.Sequential(Dropout(dropout), *layers)

        self.embed = Projections(spec, width, network)
        self.score = nn.Sequential(network(len(spec.dims) * width, width), nn.Linear(width, len(spec.dims)))
        self.answer = nn.Linear(width, spec.out)

    def forward(self, streams: Streams) -> Tensor:
        steps = self.embed({m: self.pool(streams[m]) for m in self.spec.dims}).values()
        hidden = torch.stack([s.x for s in steps], -2)  # (B, S, M, width)
        mask = torch.stack([s.mask for s in steps], -1)  # (B, S, M)
        return self.answer((self.weights(hidden, mask).unsqueeze(-1) * hidden).sum(-2))

    def weights(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Weights of the modalities, (B, S, M), from embeddings (B, S, M, width): zero for absent ones."""
        return self.score(hidden.flatten(-2)) * mask

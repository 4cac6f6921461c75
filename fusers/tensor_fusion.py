"""Tensor fusion: the outer product of [1; z_m] over the modalities holds every product of up to M features.

Amir Zadeh, Minghai Chen, Soujanya Poria, Erik Cambria, Louis-Philippe Morency, "Tensor Fusion Network for Multimodal
Sentiment Analysis", EMNLP 2017. https://arxiv.org/abs/1707.07250

The tensor, products of every order with the ones appended; a classifier of two hidden ReLU layers on it. The tensor has
(width + 1)^M features. By default the width is the largest, up to 32, that keeps them within 10,000 (32, 32, 20, 9, 5
for one to five modalities); a width that makes more than a million is refused.

Compared with Justin1904/TensorFusionNetworks@ef0e78b: largest difference 0 (the answer from three embeddings: tensor
and classifier).

Ours: each modality's embedding network is one hidden layer on its mean over time (per frame: on the step) instead of an
LSTM for text and three layers for the rest; all embeddings have one width; dropout stands after the classifier's first
layer, not before it; values are not squeezed into [-3, 3]. An absent modality has z_m = 0, which leaves the products of
the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from fusionbench.api import Choice, Dropout, Fuser, Projections, Range, Spec, Streams, UsageError

LIMIT = 1_000_000


def products(vectors: Sequence[Tensor]) -> Tensor:
    """The flattened outer product of [1; v] over `vectors`, each (..., d): (..., product of the d + 1)."""
    tensor = torch.ones_like(vectors[0][..., :1])
    for vector in vectors:
        longer = torch.cat([torch.ones_like(vector[..., :1]), vector], -1)
        tensor = (tensor[..., :, None] * longer[..., None, :]).flatten(-2)
    return tensor


class TensorFusion(Fuser):
    def __init__(
        self,
        spec: Spec,
        *,
        width: Annotated[int | None, Choice(8, 16, 32), "width of an embedding (none: what fits, up to 32)"] = None,
        hidden: Annotated[int, Choice(32, 64, 128), "width of the classifier's hidden layers"] = 64,
        dropout: Annotated[float, Range(0.0, 0.5), "dropout in the classifier"] = 0.1,
    ):
        super().__init__(spec)
        count = len(spec.dims)
        width = width or max(w for w in range(1, 33) if w == 1 or (w + 1) ** count <= 10_000)
        if (width + 1) ** count > LIMIT:
            raise UsageError(
                f"tensor_fusion: width {width} with {count} modalities makes {(width + 1) ** count:,} features, more "
                f"than {LIMIT:,}; choose a smaller width, or the fuser low_rank"
            )
        self.embed = Projections(
            spec, width, lambda dim, w: nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, w))
        )
        self.head = nn.Sequential(
            nn.Linear((width + 1) ** count, hidden), nn.ReLU(), Dropout(dropout),
            nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, spec.out),
        )  # fmt: skip

    def forward(self, streams: Streams) -> Tensor:
        pooled = {m: self.pool(streams[m]) for m in self.spec.dims}
        return self.head(products([s.x for s in self.embed(pooled).values()]))

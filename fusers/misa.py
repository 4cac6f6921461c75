"""MISA: each modality in a shared and in a private subspace, kept so by three losses, fused by self-attention.

Devamanyu Hazarika, Roger Zimmermann, Soujanya Poria, "MISA: Modality-Invariant and -Specific Representations for
Multimodal Sentiment Analysis", ACM Multimedia 2020. https://arxiv.org/abs/2005.03545

One shared and M private sigmoid encoders of the modalities' vectors; similarity = central moment discrepancy of order
five between the shared vectors of every pair; difference = soft orthogonality between shared and private and between
private vectors, centred over the batch and divided by their lengths, through which no gradient goes; reconstruction
from shared + private; one transformer layer, whose feed-forward part is 2,048 wide, over the 2M vectors, concatenated
for a classifier of two layers.

Compared with declare-lab/MISA@ec42fad: largest difference 1e-08 (answers, loss and its gradient for three modalities,
from the same utterance vectors).

Ours: a modality's vector is its mean over time, projected (per frame: the projected step), instead of the last states
of a two-layer LSTM or of BERT; no dropout on attention weights and inside the feed-forward part (released: 0.1 there
too). An absent modality (per frame: a masked frame) counts in no loss and is no key of the attention.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from fusionbench.api import (
    Batch,
    Choice,
    Dropout,
    Encoder,
    Fuser,
    Projections,
    Range,
    Spec,
    Stream,
    Streams,
    masked_mean,
)


def discrepancy(x: Tensor, x_mask: Tensor, y: Tensor, y_mask: Tensor, moments: int = 5) -> Tensor:
    """Central moment discrepancy (Zellinger et al. 2017) of values in [0, 1]: x, y (N, D), masks (N,) -> ().

    Zero where either side has no samples.
    """
    x_mean, y_mean = masked_mean(x, x_mask, 0), masked_mean(y, y_mask, 0)
    total = _length(x_mean - y_mean)
    for k in range(2, moments + 1):
        total = total + _length(masked_mean((x - x_mean) ** k, x_mask, 0) - masked_mean((y - y_mean) ** k, y_mask, 0))
    return total * (x_mask.any() & y_mask.any())


def overlap(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """Mean squared entry of X^T Y, the samples of `mask` centred and of unit length: x, y (N, D), mask (N,) -> ().

    The mean over the D * D entries is the released code's; the paper has their sum. Lengths pass no gradient on.
    """
    rows = []
    for values in (x, y):
        centred = (values - masked_mean(values, mask, 0)) * mask[:, None]
        rows.append(centred / (centred.detach().norm(dim=-1, keepdim=True) + 1e-6))
    return (rows[0].T @ rows[1]).square().mean()


def _length(x: Tensor) -> Tensor:
    return (x.square().sum(-1) + 1e-12).sqrt()  # differentiable at zero


class MISA(Fuser):
    presets: ClassVar = {"paper": {"width": 128, "heads": 2, "ffn": 2048, "dropout": 0.1, "head_dropout": 0.5}}

    def __init__(
        self,
        spec: Spec,
        *,
        width: Annotated[int, Choice(64, 128, 256), "width of the subspaces"] = 128,
        heads: Annotated[int, Choice(1, 2, 4), "attention heads"] = 2,
        ffn: Annotated[int, Choice(512, 2048), "width of the feed-forward part"] = 2048,
        dropout: Annotated[float, Range(0.0, 0.5), "dropout in the attention layer"] = 0.1,
        head_dropout: Annotated[float, Range(0.0, 0.5), "dropout in the classifier"] = 0.5,
        similarity: Annotated[float, Range(0.1, 1.0), "weight of the similarity loss"] = 1.0,
        difference: Annotated[float, Range(0.1, 1.0), "weight of the difference loss"] = 0.3,
        reconstruction: Annotated[float, Range(0.1, 1.0), "weight of the reconstruction loss"] = 1.0,
    ):
        super().__init__(spec)
        self.similarity, self.difference, self.reconstruction = similarity, difference, reconstruction
        self.project = Projections(
            spec, width, lambda dim, w: nn.Sequential(nn.Linear(dim, w), nn.ReLU(), nn.LayerNorm(w))
        )
        self.private = nn.ModuleDict({m: nn.Linear(width, width) for m in spec.dims})
        self.shared = nn.Linear(width, width)
        self.decode = nn.ModuleDict({m: nn.Linear(width, width) for m in spec.dims})
        self.attend = Encoder(width, heads=heads, hidden=ffn, dropout=dropout)
        total = len(spec.dims) * width
        self.answer = nn.Sequential(
            nn.Linear(2 * total, total), Dropout(head_dropout), nn.ReLU(), nn.Linear(total, spec.out)
        )

    def _subspaces(self, streams: Streams) -> tuple[Streams, dict[str, Tensor], dict[str, Tensor]]:
        """Each modality's vectors, shared and private representations, (B, S, width)."""
        vectors = self.project({m: self.pool(streams[m]) for m in self.spec.dims})
        shared = {m: torch.sigmoid(self.shared(s.x)) for m, s in vectors.items()}
        private = {m: torch.sigmoid(self.private[m](s.x)) for m, s in vectors.items()}
        return vectors, shared, private

    def forward(self, streams: Streams) -> Tensor:
        return self._answer(*self._subspaces(streams))

    def _answer(self, vectors: Streams, shared: dict[str, Tensor], private: dict[str, Tensor]) -> Tensor:
        tokens = torch.stack([*private.values(), *shared.values()], -2)  # (B, S, 2M, width)
        mask = torch.stack([s.mask for s in vectors.values()] * 2, -1)  # (B, S, 2M)
        fused = torch.where(mask[..., None], self.attend(tokens, mask), 0.0)
        return self.answer(fused.flatten(-2))

    def loss(self, batch: Batch, criterion: Callable[[Tensor, Batch], Tensor]) -> Tensor:
        vectors, shared, private = self._subspaces(dict(batch.streams))
        total = criterion(self._answer(vectors, shared, private), batch)

        flat = {m: s.mask.flatten() for m, s in vectors.items()}  # (B * S,)
        shared, private = ({m: x.flatten(0, 1) for m, x in part.items()} for part in (shared, private))
        pairs = list(combinations(vectors, 2))
        for a, b in pairs:
            similar = discrepancy(shared[a], flat[a], shared[b], flat[b])
            total = total + self.similarity / len(pairs) * similar
            total = total + self.difference * overlap(private[a], private[b], flat[a] & flat[b])
        for m, stream in vectors.items():
            total = total + self.difference * overlap(shared[m], private[m], flat[m])
            rebuilt = Stream((self.decode[m](shared[m] + private[m])).unflatten(0, stream.mask.shape), stream.mask).x
            error = masked_mean((rebuilt - stream.x).square().mean(-1).flatten(), flat[m], 0)
            total = total + self.reconstruction / len(vectors) * error
        return total

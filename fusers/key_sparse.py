"""Key-Sparse Transformer: attention that keeps only its most important keys, in a cascade of cross-attention blocks.

Chen et al., "Key-Sparse Transformer for Multimodal Speech Emotion Recognition", ICASSP 2022,
https://arxiv.org/abs/2106.11532. Faithful: the importance of a key is the sum over queries of its attention weight, the
columns of the others are zeroed without re-normalising; two key-sparse self-attention layers a modality, then for both
directions of a pair a stack of three blocks (cross-attention, self-attention) with a skip around it, mean over time,
concatenation, an MLP. Ours: all ordered pairs of any number of modalities, padding is neither a key nor counted in an
importance, a single modality attends to itself, a layer's feed-forward part is as wide as its tokens.
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
    Head,
    Projections,
    Range,
    Spec,
    Stream,
    Streams,
    softmax_over,
)


def key_sparse_weights(q: Tensor, k: Tensor, q_mask: Tensor, k_mask: Tensor, keep: float) -> Tensor:
    """Attention weights (B, H, Q, K) with only the floor(keep * real keys), at least one, most important columns.

    q (B, H, Q, d), k (B, H, K, d), q_mask (B, Q), k_mask (B, K). A key's importance, each head's own, is the sum of its
    weights over the real queries; of equal keys the earlier one is kept. Rows are not re-normalised.
    """
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    weights = softmax_over(scores, k_mask[:, None, None])
    importance = (weights.float() * q_mask[:, None, :, None]).sum(-2)  # (B, H, K); 0 for padding
    rank = importance.sort(dim=-1, descending=True, stable=True).indices.argsort(-1)
    count = torch.floor(keep * k_mask.sum(-1) + 1e-4).clamp(min=1)  # 1e-4: 0.29 * 100 is 29
    return weights * (rank < count[:, None, None])[:, :, None]


class _Layer(nn.Module):
    """A post-norm transformer layer with key-sparse attention from a stream to a memory."""

    def __init__(self, width: int, heads: int, keep: float, dropout: float) -> None:
        super().__init__()
        self.heads, self.keep = heads, keep
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.feed = Feedforward(width, width, dropout)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = Dropout(dropout)

    def forward(self, stream: Stream, memory: Stream) -> Stream:
        q, k, v = (  # (B, H, T, width / H)
            layer(s.x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, s in ((self.query, stream), (self.key, memory), (self.value, memory))
        )
        weights = key_sparse_weights(q, k, stream.mask, memory.mask, self.keep)
        attended = self.out((self.dropout(weights) @ v).transpose(1, 2).flatten(2))
        x = self.norm1(stream.x + attended)
        return Stream(self.norm2(x + self.feed(x)), stream.mask)


class KeySparse(Fuser):
    def __init__(
        self,
        spec: Spec,
        *,
        width: Annotated[int, Choice(64, 128, 256), "width of every token"] = 64,
        depth: Annotated[int, Range(1, 3), "self-attention layers of each modality"] = 2,
        blocks: Annotated[int, Range(1, 4), "cross-attention blocks of each ordered pair"] = 3,
        heads: Annotated[int, Choice(1, 2, 4), "attention heads"] = 1,
        keep: Annotated[float, Range(0.1, 1.0), "share of the keys that is kept"] = 0.5,
        dropout: Annotated[float, Range(0.0, 0.5), "dropout on attention weights and in feed-forward parts"] = 0.1,
    ):
        super().__init__(spec)

        def layers(count: int) -> nn.ModuleList:
            return nn.ModuleList(_Layer(width, heads, keep, dropout) for _ in range(count))

        self.project = Projections(spec, width)
        self.encoders = nn.ModuleDict({m: layers(depth) for m in spec.dims})
        self.pairs = list(permutations(spec.dims, 2)) or [(m, m) for m in spec.dims]  # (query, key)
        self.cascades = nn.ModuleList(layers(2 * blocks) for _ in self.pairs)  # cross, self, cross, self, ...
        self.head = Head(len(self.pairs) * width, spec.out, hidden=width)

    def forward(self, streams: Streams) -> Tensor:
        encoded = self.project(streams)
        for m, layers in self.encoders.items():
            for layer in layers:
                encoded[m] = layer(encoded[m], encoded[m])
        steps = []
        for (query, key), cascade in zip(self.pairs, self.cascades, strict=True):
            stream = encoded[query]
            for cross, own in zip(cascade[::2], cascade[1::2], strict=True):
                stream = cross(stream, encoded[key])
                stream = own(stream, stream)
            steps.append(self.pool(Stream(encoded[query].x + stream.x, stream.mask)).x)
        return self.head(torch.cat(steps, -1))

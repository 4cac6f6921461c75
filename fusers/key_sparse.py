"""Key-Sparse Transformer: cascades of cross-attention blocks whose attention keeps only its most important keys.

Weidong Chen, Xiaofeng Xing, Xiangmin Xu, Jichen Yang, Jianxin Pang, "Key-Sparse Transformer for Multimodal Speech
Emotion Recognition", ICASSP 2022, https://arxiv.org/abs/2106.11532.

Per modality vanilla self-attention layers; for both directions of a pair a stack of blocks (key-sparse
cross-attention, then key-sparse self-attention) with a skip around it; a second skip around the whole; key-sparse
self-attention layers; mean over time, concatenation, a classifier of three layers. The importance of a key is the sum
over queries of its attention weight; the columns of the others are zeroed without re-normalising. Every group of
layers has a norm on its inputs, every layer adds positions to queries and keys (of cross-attention: not to values),
feed-forward parts are half as wide as tokens.

Compared with HappyColor/Key-Sparse-Transformer@cda9685: largest difference 2e-12 (the answers for two modalities
without padding, released depths and heads, positions as built).

Ours: positions are the sines that the released code builds (its initialisation of all matrices then draws them anew,
so that they are fixed random numbers there); steps are first projected to a common width; two vanilla layers, two
blocks and one last layer by default (released: five, three and two, the preset `paper`, with 8 heads); padding is
neither a key nor counted in an importance or in the number of keys that are kept (released: only the vanilla layers
and the cross-attention mask it), at least one key is kept, and of equal keys the earlier one, not all; with more than
two modalities the cascades of all present others are averaged; a single modality attends to itself; per frame no mean
over time is taken.
"""

from __future__ import annotations

from itertools import permutations
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from fusionbench.api import (
    Choice,
    Dropout,
    Fuser,
    Projections,
    Range,
    Spec,
    Stream,
    Streams,
    masked_mean,
    sinusoids,
    softmax_over,
)


def key_sparse_weights(q: Tensor, k: Tensor, q_mask: Tensor, k_mask: Tensor, keep: float) -> Tensor:
    """Attention weights (B, H, Q, K) with only the floor(keep * real keys), at least one, most important columns.

    q (B, H, Q, d), k (B, H, K, d), q_mask (B, Q), k_mask (B, K). A key's importance, each head's own, is the sum of its
    weights over the real queries; of equal keys the earlier one is kept. Rows are not re-normalised.
    """
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    weights = softmax_over(scores, k_mask[:, None, None])
    if keep == 1.0:  # the vanilla layers: every key stays
        return weights
    importance = (weights.float() * q_mask[:, None, :, None]).sum(-2)  # (B, H, K); 0 for padding
    rank = importance.sort(dim=-1, descending=True, stable=True).indices.argsort(-1)
    count = torch.floor(keep * k_mask.sum(-1) + 1e-4).clamp(min=1)  # 1e-4: 0.29 * 100 is 29
    return weights * (rank < count[:, None, None])[:, :, None]


class _Layer(nn.Module):
    """A post-norm transformer layer from a stream to itself, or to a memory, whose values carry no positions."""

    def __init__(self, width: int, heads: int, keep: float, dropout: float) -> None:
        super().__init__()
        self.heads, self.keep = heads, keep
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.feed_in, self.feed_out = nn.Linear(width, width // 2), nn.Linear(width // 2, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = Dropout(dropout)

    def forward(self, stream: Stream, memory: Stream | None = None) -> Stream:
        placed = _placed(stream)
        source, values = (stream, placed) if memory is None else (memory, memory.x)
        q = self._split(self.query(placed))
        k = self._split(self.key(placed if memory is None else _placed(memory)))
        weights = key_sparse_weights(q, k, stream.mask, source.mask, self.keep)
        attended = (self.dropout(weights) @ self._split(self.value(values))).transpose(1, 2).flatten(2)
        x = self.norm1(stream.x + self.dropout(self.out(attended)))
        fed = self.feed_out(self.dropout(torch.relu(self.feed_in(x))))
        return Stream(self.norm2(x + self.dropout(fed)), stream.mask)

    def _split(self, x: Tensor) -> Tensor:  # (B, T, heads * d) -> (B, heads, T, d)
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class _Group(nn.Module):
    """Layers one after the other, with a norm on what comes in (and on the memory, where they look at one)."""

    def __init__(self, width: int, depth: int, heads: int, keep: float, dropout: float, *, cross: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(width, heads, keep, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.norm_memory = nn.LayerNorm(width) if cross else None

    def forward(self, stream: Stream, memory: Stream | None = None) -> Stream:
        if memory is not None and self.norm_memory is not None:
            memory = Stream(self.norm_memory(memory.x), memory.mask)
        stream = Stream(self.norm(stream.x), stream.mask)
        for layer in self.layers:
            stream = layer(stream, memory)
        return stream


class KeySparse(Fuser):
    presets: ClassVar = {"paper": {"width": 512, "depth": 5, "blocks": 3, "last": 2, "heads": 8}}

    def __init__(
        self,
        spec: Spec,
        *,
        width: Annotated[int, Choice(64, 128, 256), "width of every token"] = 64,
        depth: Annotated[int, Range(1, 5), "vanilla self-attention layers of each modality; released: 5"] = 2,
        blocks: Annotated[int, Range(1, 3), "cross-attention blocks of each ordered pair; released: 3"] = 2,
        last: Annotated[int, Range(1, 2), "key-sparse self-attention layers at the end; released: 2"] = 1,
        heads: Annotated[int, Choice(1, 4, 8), "attention heads"] = 8,
        keep: Annotated[float, Range(0.1, 1.0), "share of the keys that is kept"] = 0.5,
        dropout: Annotated[float, Range(0.0, 0.5), "dropout in the layers"] = 0.1,
        head_dropout: Annotated[float, Range(0.0, 0.5), "dropout in the classifier"] = 0.5,
    ):
        super().__init__(spec)
        self.pairs = list(permutations(spec.dims, 2)) or [(m, m) for m in spec.dims]  # (query, key)
        self.project = Projections(spec, width)
        self.own = nn.ModuleDict({m: _Group(width, depth, heads, 1.0, dropout) for m in spec.dims})
        self.cascades = nn.ModuleList(  # cross, self, cross, self, ...
            nn.ModuleList(_Group(width, 1, heads, keep, dropout, cross=i % 2 == 0) for i in range(2 * blocks))
            for _ in self.pairs
        )
        self.last = nn.ModuleDict({m: _Group(width, last, heads, keep, dropout) for m in spec.dims})
        total = len(spec.dims) * width
        self.answer = nn.Sequential(
            nn.Linear(total, total // 2), nn.ReLU(), Dropout(head_dropout),
            nn.Linear(total // 2, total // 4), nn.ReLU(), Dropout(head_dropout), nn.Linear(total // 4, spec.out),
        )  # fmt: skip

    def forward(self, streams: Streams) -> Tensor:
        encoded = {m: self.own[m](s) for m, s in self.project(streams).items()}
        crossed: dict[str, list[Tensor]] = {m: [] for m in encoded}
        sources: dict[str, list[Tensor]] = {m: [] for m in encoded}
        for (query, key), cascade in zip(self.pairs, self.cascades, strict=True):
            stream = encoded[query]
            for cross, own in zip(cascade[::2], cascade[1::2], strict=True):
                stream = own(cross(stream, encoded[key]))
            crossed[query].append(stream.x + encoded[query].x)
            sources[query].append(encoded[key].present)
        steps = []
        for m, s in encoded.items():
            attended = masked_mean(torch.stack(crossed[m], 1), torch.stack(sources[m], 1))  # (B, T, width)
            steps.append(self.pool(self.last[m](Stream(s.x + attended, s.mask))).x)
        return self.answer(torch.cat(steps, -1))


def _placed(stream: Stream) -> Tensor:
    return stream.x + sinusoids(stream.x.shape[1], stream.x.shape[2], stream.x.device).to(stream.x.dtype)

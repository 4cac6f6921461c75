"""MMIN: cascaded residual autoencoders imagine the embeddings of missing modalities, and back again.

Method: Missing Modality Imagination Network. Zhao, Li, Jin, "Missing Modality Imagination Network for Emotion
Recognition with Uncertain Missing Modalities", ACL 2021, https://doi.org/10.18653/v1/2021.acl-long.203.

Faithful: one embedding a modality, the missing ones zero, concatenated; a cascade of autoencoders with residual
connections and a transition layer imagines the missing ones; a second cascade goes from there back to what was
available (cycle consistency); the classifier reads the concatenated codes of the first cascade; squared errors of both
directions are added. Training sees random combinations of missing modalities. Simplified: an embedding is the mean over
real steps (the paper: LSTM with maximum, text CNN); targets are the embeddings of the network itself, without their
gradient, where the paper has a frozen copy trained beforehand; errors are taken only on what was really there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor, nn

from fusionbench.api import Batch, Choice, Fuser, Head, Projections, Range, Spec, Streams, keyed


class MMIN(Fuser):
    def __init__(
        self,
        spec: Spec,
        *,
        width: Annotated[int, Choice(64, 128, 256), "width of an embedding"] = 128,
        blocks: Annotated[int, Range(1, 5), "autoencoders in a cascade"] = 3,
        imagination: Annotated[float, Range(0.0, 2.0), "weight of the error on dropped modalities"] = 1.0,
        cycle: Annotated[float, Range(0.1, 2.0), "weight of the error on the way back"] = 1.0,
    ):
        super().__init__(spec)
        self.imagination, self.cycle = imagination, cycle
        self.embed = Projections(
            spec, width, lambda d, w: nn.Sequential(nn.Linear(d, w), nn.ReLU(), nn.Linear(w, w), nn.ReLU())
        )
        self.forth = _Cascade(len(spec.dims) * width, width, blocks)
        self.back = _Cascade(len(spec.dims) * width, width, blocks)
        self.head = Head(blocks * (width // 4), spec.out, hidden=width)

    def forward(self, streams: Streams) -> Tensor:
        embeddings, mask = self._embed(streams)
        kept = keep_some(mask) if self.training else mask
        return self.head(self.forth(_blank(embeddings, kept))[1])

    def loss(self, batch: Batch, criterion: Callable[[Tensor, Batch], Tensor]) -> Tensor:
        embeddings, mask = self._embed(batch.streams)
        kept = keep_some(mask)
        imagined, code = self.forth(_blank(embeddings, kept))
        returned, _ = self.back(imagined)
        target = embeddings.detach()
        total = criterion(self.head(code), batch)
        total = total + self.imagination * _error(imagined, target, mask & ~kept)
        return total + self.cycle * _error(returned, target, kept)

    def _embed(self, streams: Streams) -> tuple[Tensor, Tensor]:
        """Embeddings (B, S, M, width), and which are there (B, S, M)."""
        steps = [self.pool(stream) for stream in self.embed(streams).values()]
        return torch.stack([s.x for s in steps], -2), torch.stack([s.mask for s in steps], -1)


class _Cascade(nn.Module):
    """Each autoencoder sees the input plus all reconstructions so far: (..., size) -> (..., size) and the codes."""

    def __init__(self, size: int, width: int, blocks: int) -> None:
        super().__init__()
        code = width // 4
        self.encode = nn.ModuleList(
            nn.Sequential(nn.Linear(size, width), nn.LeakyReLU(), nn.Linear(width, code)) for _ in range(blocks)
        )
        self.decode = nn.ModuleList(
            nn.Sequential(nn.Linear(code, width), nn.ReLU(), nn.Linear(width, size)) for _ in range(blocks)
        )
        self.transition = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, size))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        codes = []
        for encode, decode in zip(self.encode, self.decode, strict=True):
            codes.append(encode(x))
            x = x + decode(codes[-1])
        return self.transition(x), torch.cat(codes, -1)


def _blank(embeddings: Tensor, kept: Tensor) -> Tensor:
    return (embeddings * kept.unsqueeze(-1)).flatten(-2)  # (B, S, M * width)


def _error(guess: Tensor, target: Tensor, where: Tensor) -> Tensor:
    """Mean squared error over the modalities marked in `where` (B, S, M); guess (B, S, M * width)."""
    error = (guess.unflatten(-1, target.shape[-2:]) - target).square().mean(-1)
    return (error * where).sum() / where.sum().clamp(min=1)


def keep_some(mask: Tensor) -> Tensor:
    """Of the n modalities there at a step (mask (B, S, M)) a random 1 to n; one draw a sample, held over its steps."""
    draw = keyed.draw((mask.shape[0], 1, mask.shape[2] + 1), mask.device)
    order, share = draw[..., :-1], draw[..., -1:]
    before = (mask.unsqueeze(-2) & (order.unsqueeze(-2) < order.unsqueeze(-1))).sum(-1)  # (B, S, M)
    return mask & (before < 1 + torch.floor(share * mask.sum(-1, keepdim=True)))

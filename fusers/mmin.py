"""MMIN: cascaded residual autoencoders imagine the embeddings of missing modalities, and back again.

Jinming Zhao, Ruichen Li, Qin Jin, "Missing Modality Imagination Network for Emotion Recognition with Uncertain Missing
Modalities", ACL 2021, https://doi.org/10.18653/v1/2021.acl-long.203.

One embedding a modality, the missing ones blank, concatenated; a cascade of five autoencoders with residual connections
and a transition layer imagines the missing ones; a second cascade goes from there back to what was available (cycle
consistency); the classifier reads the concatenated codes of the first cascade. Training always drops at least one
modality and keeps at least one, every such combination being as likely. The squared error of the imagined ones, whose
target is blank where a modality was kept, has weight 4, that of the way back 2; both are over all slots.

Compared with AIM3-RUC/MMIN@69a45fe: largest difference 0 (both cascades, released depth, and the classifier, from the
same embeddings).

Ours: an embedding is a network of two layers on steps, averaged over real ones (released: LSTM with maximum over time,
text CNN), and blank ones are zeros (released: what the encoders make of zeros); targets are the embeddings of the
network itself, without their gradient, where the released code has a frozen copy trained beforehand on complete data;
what the data lack is blank, and no target of the imagination. A sample's draw holds over its steps; a modality alone is
never dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from fusionbench.api import Batch, Choice, Dropout, Fuser, Projections, Range, Spec, Streams, keyed


class MMIN(Fuser):
    known_failures: ClassVar[dict[str, str]] = {
        "solves_xor": "training always drops a modality: of two it never sees both"
    }
    presets: ClassVar = {"paper": {"width": 128, "blocks": 5, "imagination": 4.0, "cycle": 2.0, "dropout": 0.5}}

    def __init__(
        self,
        spec: Spec,
        *,
        width: Annotated[int, Choice(64, 128, 256), "width of an embedding"] = 128,
        blocks: Annotated[int, Range(1, 5), "autoencoders in a cascade"] = 5,
        imagination: Annotated[float, Range(0.0, 4.0), "weight of the error on imagined embeddings"] = 4.0,
        cycle: Annotated[float, Range(0.1, 4.0), "weight of the error on the way back"] = 2.0,
        dropout: Annotated[float, Range(0.0, 0.5), "dropout in the classifier"] = 0.5,
    ):
        super().__init__(spec)
        self.imagination, self.cycle = imagination, cycle
        self.embed = Projections(
            spec, width, lambda d, w: nn.Sequential(nn.Linear(d, w), nn.ReLU(), nn.Linear(w, w), nn.ReLU())
        )
        self.forth = _Cascade(len(spec.dims) * width, width, blocks)
        self.back = _Cascade(len(spec.dims) * width, width, blocks)
        self.answer = nn.Sequential(
            nn.Linear(blocks * (width // 2), width), nn.ReLU(), Dropout(dropout),
            nn.Linear(width, width), nn.ReLU(), Dropout(dropout), nn.Linear(width, spec.out),
        )  # fmt: skip

    def forward(self, streams: Streams) -> Tensor:
        embeddings, mask = self._embed(streams)
        kept = drop_some(mask) if self.training else mask
        return self.answer(self.forth(_blank(embeddings, kept))[1])

    def loss(self, batch: Batch, criterion: Callable[[Tensor, Batch], Tensor]) -> Tensor:
        embeddings, mask = self._embed(batch.streams)
        kept = drop_some(mask)
        imagined, code = self.forth(_blank(embeddings, kept))
        returned, _ = self.back(imagined)
        target, anything = embeddings.detach(), mask.any(-1, keepdim=True).expand_as(mask)
        total = criterion(self.answer(code), batch)
        total = total + self.imagination * _error(imagined, target * (~kept).unsqueeze(-1), mask)
        return total + self.cycle * _error(returned, target * kept.unsqueeze(-1), anything)

    def _embed(self, streams: Streams) -> tuple[Tensor, Tensor]:
        """Embeddings (B, S, M, width), and which are there (B, S, M)."""
        steps = [self.pool(stream) for stream in self.embed(streams).values()]
        return torch.stack([s.x for s in steps], -2), torch.stack([s.mask for s in steps], -1)


class _Cascade(nn.Module):
    """Each autoencoder sees the input plus all reconstructions so far: (..., size) -> (..., size) and the codes."""

    def __init__(self, size: int, width: int, blocks: int) -> None:
        super().__init__()
        wide, code = 2 * width, width // 2
        self.encode = nn.ModuleList(
            nn.Sequential(
                nn.Linear(size, wide), nn.LeakyReLU(), nn.Linear(wide, width), nn.LeakyReLU(), nn.Linear(width, code)
            )
            for _ in range(blocks)
        )
        self.decode = nn.ModuleList(
            nn.Sequential(nn.Linear(code, width), nn.ReLU(), nn.Linear(width, wide), nn.ReLU(), nn.Linear(wide, size))
            for _ in range(blocks)
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


def drop_some(mask: Tensor) -> Tensor:
    """Which modalities stay, of those there (mask (B, S, M)): some but not all, every combination being as likely.

    One draw a sample, held over its steps. Of one that is alone nothing is dropped.
    """
    draw = keyed.draw((mask.shape[0], 1, 1), mask.device)
    # A combination of n modalities is a number from 1 to 2^n - 2: its binary digits tell which ones stay.
    combination = 1 + torch.floor(draw * (2.0 ** mask.sum(-1, keepdim=True) - 2))
    place = mask.cumsum(-1) - 1  # of a modality among those there
    return mask & (torch.floor(combination / 2.0**place) % 2 == 1)

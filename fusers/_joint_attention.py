"""The layer that joint cross-attention and its recursive form share."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from fusionbench.api import Dropout, Stream, Streams

#: The steps of a clip in the released code, whose correlations are sums over steps: ours are so many times the mean.
STEPS = 16


def correlation(x: Tensor, joint: Tensor, mask: Tensor) -> Tensor:
    """tanh(16 * the mean over real steps of x^T joint / sqrt(D)): x (B, T, d), joint (B, T, D) -> (B, d, D)."""
    steps = mask.sum(1).clamp(min=1)[:, None, None]
    return torch.tanh((x * mask[..., None]).transpose(1, 2) @ joint * (STEPS / steps * joint.shape[-1] ** -0.5))


class JointCross(nn.Module):
    """Each modality's features multiplied by their correlation with the joint representation, added to them.

    x_m + W (ReLU(tanh(V x_m C_m))) with C_m the correlation of x_m and a linear map of [x_1; ...; x_M].
    """

    def __init__(self, modalities: Iterable[str], width: int, dropout: float) -> None:
        super().__init__()
        names = list(modalities)
        wide = len(names) * width
        self.query = nn.Linear(wide, wide)
        self.value = nn.ModuleDict({m: nn.Linear(width, width) for m in names})
        self.mix = nn.ModuleDict({m: nn.Sequential(nn.Linear(wide, width), nn.ReLU(), Dropout(dropout)) for m in names})
        self.dropout = Dropout(dropout)

    def forward(self, streams: Streams) -> Streams:
        joint = self.query(torch.cat([s.x for s in streams.values()], -1))  # (B, T, M * width)
        fused = {}
        for m, s in streams.items():
            weights = self.dropout(correlation(s.x, joint, s.mask))  # (B, width, M * width)
            attended = torch.relu(torch.tanh(self.value[m](s.x) @ weights))
            fused[m] = Stream(s.x + self.mix[m](attended), s.mask)
        return fused

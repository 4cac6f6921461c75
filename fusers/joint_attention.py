"""Joint cross-attention: each modality is correlated, feature by feature, with the joint representation of all.

R. Gnana Praveen, Wheidima Carneiro de Melo, Nasib Ullah, Haseeb Aslam, Osama Zeeshan, Théo Denorme, Marco Pedersoli,
Alessandro Koerich, Simon Bacon, Patrick Cardinal, Eric Granger, "A Joint Cross-Attention Model for Audio-Visual Fusion
in Dimensional Emotion Recognition", CVPR Workshops 2022. https://arxiv.org/abs/2203.14779

Faithful: J = [x_1; ...; x_M] per step; C_m = tanh(x_m W J / sqrt(d)) between features (width x M * width), contracted
over time; H_m = ReLU(own features + features attended through C_m); output x_m + W_h H_m, concatenated.
Changed: the paper's weights are as long as its clips (W is L x L, the maps L x k and k x L). Ours act on features, the
same at every step, and the contraction is a mean over the modality's real steps: the method works at any length.
Clip streams of different lengths are first brought to one clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import torch
from torch import Tensor, nn

from fusionbench.api import Choice, Fuser, Head, Projections, Spec, Stream, Streams, align


def correlation(x: Tensor, joint: Tensor, mask: Tensor) -> Tensor:
    """tanh of the mean over real steps of x^T joint, over sqrt(D): x (B, T, d), joint (B, T, D) -> (B, d, D)."""
    steps = mask.sum(1).clamp(min=1)[:, None, None]
    return torch.tanh((x * mask[..., None]).transpose(1, 2) @ joint / steps * joint.shape[-1] ** -0.5)


class _JointAttention(nn.Module):
    def __init__(self, modalities: Iterable[str], width: int):
        super().__init__()
        self.correlate, self.own, self.attended, self.out = (
            nn.ModuleDict({m: nn.Linear(width, width, bias=False) for m in modalities}) for _ in range(4)
        )

    def forward(self, streams: Streams) -> Streams:
        joint = torch.cat([s.x for s in streams.values()], -1)  # (B, T, M * width)
        fused = {}
        for m, s in streams.items():
            weights = correlation(self.correlate[m](s.x), joint, s.mask)  # (B, width, M * width)
            attended = self.attended[m](joint @ weights.transpose(1, 2))
            fused[m] = Stream(s.x + self.out[m](torch.relu(self.own[m](s.x) + attended)), s.mask)
        return fused


class JointAttention(Fuser):
    def __init__(self, spec: Spec, *, width: Annotated[int, Choice(64, 128, 256), "width of a modality"] = 128):
        super().__init__(spec)
        self.project = Projections(spec, width)
        self.attend = _JointAttention(spec.dims, width)
        self.head = Head(len(spec.dims) * width, spec.out, hidden=width)

    def forward(self, streams: Streams) -> Tensor:
        fused = self.attend(self.project(align({m: streams[m] for m in self.spec.dims})))
        return self.head(torch.cat([self.pool(s).x for s in fused.values()], -1))  # (B, S, M * width)

"""Recursive joint attention: joint cross-attention applied again to its own output, then a recurrent layer each way.

R. Gnana Praveen, Eric Granger, Patrick Cardinal, "Recursive Joint Attention for Audio-Visual Fusion in Regression Based
Emotion Recognition", ICASSP 2023. https://arxiv.org/abs/2304.07958

Faithful: the attended features of one pass make the joint representation of the next, with the same weights; the
concatenated result passes a bidirectional recurrent layer.
Changed: the weights that are as long as the paper's clips act on features instead, as in `joint_attention`; GRU for
LSTM. Clip streams of different lengths are first brought to one clock; a clip is read from the mean over its steps.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import torch
from torch import Tensor, nn

from fusionbench.api import GRU, Choice, Fuser, Head, Projections, Range, Spec, Stream, Streams, align


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
            total = self.correlate[m](s.x).transpose(1, 2) @ joint  # (B, width, M * width)
            steps = s.mask.sum(1).clamp(min=1)[:, None, None]
            weights = torch.tanh(total / steps * joint.shape[-1] ** -0.5)
            attended = self.attended[m](joint @ weights.transpose(1, 2))
            fused[m] = Stream(s.x + self.out[m](torch.relu(self.own[m](s.x) + attended)), s.mask)
        return fused


class RecursiveJoint(Fuser):
    def __init__(
        self,
        spec: Spec,
        *,
        width: Annotated[int, Choice(64, 128, 256), "width of a modality, and of each recurrent direction"] = 64,
        passes: Annotated[int, Range(1, 4), "times that the attention is applied"] = 2,
    ):
        super().__init__(spec)
        self.passes = passes
        self.project = Projections(spec, width)
        self.attend = _JointAttention(spec.dims, width)
        self.forth = GRU(len(spec.dims) * width, width)
        self.back = GRU(len(spec.dims) * width, width, backward=True)
        self.head = Head(2 * width, spec.out)

    def forward(self, streams: Streams) -> Tensor:
        steps = self.project(align({m: streams[m] for m in self.spec.dims}))
        for _ in range(self.passes):
            steps = self.attend(steps)
        x = torch.cat([s.x for s in steps.values()], -1)  # (B, T, M * width)
        mask = torch.stack([s.mask for s in steps.values()]).any(0)
        both = torch.cat([self.forth(x, mask), self.back(x, mask)], -1)
        return self.head(self.pool(Stream(both, mask)).x)

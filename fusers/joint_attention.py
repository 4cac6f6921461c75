"""Joint cross-attention: each modality is correlated, feature by feature, with the joint representation of all.

R. Gnana Praveen, Wheidima Carneiro de Melo, Nasib Ullah, Haseeb Aslam, Osama Zeeshan, Théo Denorme, Marco Pedersoli,
Alessandro Koerich, Simon Bacon, Patrick Cardinal, Eric Granger, "A Joint Cross-Attention Model for Audio-Visual Fusion
in Dimensional Emotion Recognition", CVPR Workshops 2022. https://arxiv.org/abs/2203.14779

Tokens of length one; J = W [x_1; ...; x_M] per step; C_m = tanh(x_m^T J / sqrt(D)) between features, contracted over
time; the modality's own values, mapped, are multiplied by C_m; tanh, ReLU, a linear layer with ReLU, added to x_m.

Compared with praveena2j/Joint-Cross-Attention-for-Audio-Visual-Fusion@f1f0a0c: largest difference 0 (the attention of
two modalities over sixteen steps, their mixing of steps made the identity).

Ours: the released code (of the journal version) mixes the steps of x_m by a learned matrix as long as its clips before
correlating; ours does not, and its contraction is sixteen times the mean over the modality's real steps (released: the
sum over the sixteen steps of a clip), so that it works at any length. Dropout is 0.1 by default (released: 0.6, the
preset `paper`); no audio-guided attention over a feature map, no recurrent layer after the fusion, the shared head.
Clip streams of different lengths are first brought to one clock, and a clip is the mean over its steps.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from fusionbench.api import Choice, Fuser, Head, Projections, Range, Spec, Stream, Streams, align

from ._joint_attention import JointCross


class JointAttention(Fuser):
    presets: ClassVar = {"paper": {"width": 512, "dropout": 0.6}}

    def __init__(
        self,
        spec: Spec,
        *,
        width: Annotated[int, Choice(64, 128, 256), "width of a modality; released: 512"] = 128,
        dropout: Annotated[float, Range(0.0, 0.6), "dropout on correlations and on what they add"] = 0.1,
    ):
        super().__init__(spec)
        self.project = Projections(spec, width)
        self.attend = JointCross(spec.dims, width, dropout)
        self.head = Head(len(spec.dims) * width, spec.out, hidden=width)

    def forward(self, streams: Streams) -> Tensor:
        tokens = self.project(align({m: streams[m] for m in self.spec.dims}))
        tokens = {m: Stream(functional.normalize(s.x, dim=-1, eps=1e-6), s.mask) for m, s in tokens.items()}
        fused = self.attend(tokens)
        return self.head(torch.cat([self.pool(s).x for s in fused.values()], -1))  # (B, S, M * width)

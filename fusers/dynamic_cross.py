"""DCA: at every step a sharp gate chooses between a modality's own features and its cross-attended ones.

R. Gnana Praveen, Jahangir Alam, "Cross-Attention is Not Always Needed: Dynamic Cross-Attention for Audio-Visual
Dimensional Emotion Recognition", ICME 2024, https://arxiv.org/abs/2403.19554.

A linear layer of the attended features gives two scores a step, a softmax of temperature 0.1 the gate; the result is
ReLU(gate_0 own + gate_1 attended); modalities are concatenated.

Compared with praveena2j/Dynamic-CrossAttention@7374796: largest difference 0 (the gate's mix of own and attended
features of two modalities).

Ours: the attended features are tanh(own + cross-attention), multi-head attention over the steps of all the other
modalities together (released: two layers of joint cross-attention; the paper says that the gate goes with any), so any
number of modalities of any lengths will do; a linear projection instead of an LSTM before the attention, and the shared
head on means over steps instead of an LSTM after it; no audio-guided attention over a feature map. Where no other
modality is there, the gate keeps the own features. A modality alone attends to itself.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from fusionbench.api import Choice, Fuser, Head, MultiHead, Projections, Range, Spec, Stream, Streams, softmax_over


class DynamicCross(Fuser):
    presets: ClassVar = {"paper": {"width": 512, "temperature": 0.1}}

    def __init__(
        self,
        spec: Spec,
        *,
        width: Annotated[int, Choice(64, 128, 256), "shared width"] = 128,
        heads: Annotated[int, Choice(1, 2, 4), "attention heads"] = 1,
        temperature: Annotated[float, Range(0.05, 1.0, log=True), "of the gate's softmax; the papers' is 0.1"] = 0.1,
    ):
        super().__init__(spec)
        self.temperature = temperature
        self.project = Projections(spec, width)
        self.cross = nn.ModuleDict({m: MultiHead(width, heads) for m in spec.dims})
        self.choose = nn.ModuleDict({m: nn.Linear(width, 2) for m in spec.dims})
        self.head = Head(len(spec.dims) * width, spec.out, hidden=width)

    def gate(self, modality: str, attended: Tensor, there: Tensor) -> Tensor:
        """Shares (B, T, 2) of own and attended features; the latter's is zero where `there` (B,) is False."""
        scores = self.choose[modality](attended) / self.temperature
        allowed = torch.stack([torch.ones_like(there), there], -1).unsqueeze(1)  # (B, 1, 2)
        return softmax_over(scores, allowed)

    def mix(self, modality: str, own: Tensor, attended: Tensor, there: Tensor) -> Tensor:
        """What the gate makes of own and attended features (B, T, width); `there` (B,): is anything attended to?"""
        share = self.gate(modality, attended, there)
        return torch.relu(share[..., :1] * own + share[..., 1:] * attended)

    def forward(self, streams: Streams) -> Tensor:
        own = self.project(streams)
        fused = []
        for m, stream in own.items():
            others = [s for other, s in own.items() if other != m] or [stream]
            memory = torch.cat([s.x for s in others], 1)  # (B, steps of the others, width)
            mask = torch.cat([s.mask for s in others], 1)
            attended = torch.tanh(stream.x + self.cross[m](stream.x, memory, mask))
            mixed = self.mix(m, stream.x, attended, mask.any(1))  # (B, T, width)
            fused.append(self.pool(Stream(mixed, stream.mask)).x)
        return self.head(torch.cat(fused, -1))

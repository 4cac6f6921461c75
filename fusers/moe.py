"""FuseMoE: shared experts, and for every modality a router that sends it to the few whose centres are nearest.

Xing Han, Huy Nguyen, Carl Harris, Nhat Ho, Suchi Saria, "FuseMoE: Mixture-of-Experts Transformers for Fleximodal
Fusion", NeurIPS 2024, https://arxiv.org/abs/2402.03226.

Per-modality routers over one pool of experts; the Laplace gate, a softmax of -||x - w_e|| (Euclidean) over the nearest
`active` experts; noise on the scores in training; residual around the experts; the entropy term that makes each
modality commit to experts and the modalities together use all of them.

Not compared: no copy of the authors' repository was at hand, only what others made of it; this follows the paper.

Ours: the layer stands once, on each modality's vector at the answer's clock, instead of inside a stack of transformers
over irregular samples; the noise has a fixed size (paper: a learned one); absent modalities reach no expert instead of
being replaced by a learned embedding; centres start on a sphere about as far out as a normalised x; the shared head.
All experts are computed and the unwanted ones weigh nothing: routing that depends on the data cannot be stacked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionbench.api import (
    Batch,
    Choice,
    Feedforward,
    Fuser,
    Head,
    Projections,
    Range,
    Spec,
    Streams,
    keyed,
    softmax_over,
)


class MoE(Fuser):
    def __init__(
        self,
        spec: Spec,
        *,
        width: Annotated[int, Choice(64, 128, 256), "shared width"] = 128,
        experts: Annotated[int, Range(2, 8), "experts in the pool"] = 4,
        active: Annotated[int, Range(1, 4), "experts that a modality is sent to (at most all)"] = 2,
        noise: Annotated[float, Range(0.0, 2.0), "standard deviation of the scores' noise in training"] = 1.0,
        balance: Annotated[float, Range(0.0, 0.1), "weight of the entropy term"] = 0.01,
    ):
        super().__init__(spec)
        self.active, self.noise, self.balance = min(active, experts), noise, balance
        self.project = Projections(spec, width)
        self.norm = nn.LayerNorm(width)
        # Of equal length, about that of a normalised x: no expert is nearest to everything from the start.
        centres = F.normalize(torch.randn(len(spec.dims), experts, width), dim=-1) * width**0.5
        self.centres = nn.Parameter(centres)
        self.experts = nn.ModuleList(Feedforward(width, 2 * width) for _ in range(experts))
        self.head = Head(len(spec.dims) * width, spec.out, hidden=width)

    def scores(self, x: Tensor) -> Tensor:
        """-||x_m - w_me||: (B, S, M, width) -> (B, S, M, experts), in float32."""
        return -torch.linalg.vector_norm(x.float().unsqueeze(-2) - self.centres.float(), dim=-1)

    def gates(self, scores: Tensor, mask: Tensor) -> Tensor:
        """Weights of the experts, zero but for the `active` best and for absent modalities; (B, S, M, experts)."""
        lowest = scores.topk(self.active, -1).values[..., -1:]
        return softmax_over(scores, (scores >= lowest) & mask.unsqueeze(-1))

    def forward(self, streams: Streams) -> Tensor:
        return self._fuse(streams)[0]

    def loss(self, batch: Batch, criterion: Callable[[Tensor, Batch], Tensor]) -> Tensor:
        answers, scores, mask = self._fuse(batch.streams)
        weight = mask.unsqueeze(-1)
        usage = (scores.softmax(-1) * weight).sum((0, 1)) / weight.sum((0, 1)).clamp(min=1)  # (M, experts)
        there = mask.any(0).any(0)
        together = usage.sum(0) / there.sum().clamp(min=1)
        apart = _entropy(usage).sum() / there.sum().clamp(min=1)
        return criterion(answers, batch) + self.balance * (apart - _entropy(together))

    def _fuse(self, streams: Streams) -> tuple[Tensor, Tensor, Tensor]:
        steps = [self.pool(stream) for stream in self.project(streams).values()]
        x = torch.stack([s.x for s in steps], -2)  # (B, S, M, width)
        mask = torch.stack([s.mask for s in steps], -1)  # (B, S, M)
        normal = self.norm(x)
        scores = self.scores(normal)
        noisy = scores
        if self.training and self.noise > 0:
            noisy = scores + self.noise * keyed.draw(scores.shape, scores.device, "normal")
        gates = self.gates(noisy, mask).to(x.dtype).unsqueeze(-1)  # (B, S, M, experts, 1)
        routed = (gates * torch.stack([expert(normal) for expert in self.experts], -2)).sum(-2)
        return self.head((x + routed).flatten(-2)), scores, mask


def _entropy(p: Tensor) -> Tensor:
    return -(p * p.clamp(min=1e-8).log()).sum(-1)

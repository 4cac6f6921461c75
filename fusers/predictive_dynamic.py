"""PDF: late fusion weighted by how likely each modality is predicted to be right, alone and relative to the others.

Method: Predictive Dynamic Fusion. Cao, Xia, Ding, Zhang, Hu, "Predictive Dynamic Fusion", ICML 2024,
https://arxiv.org/abs/2406.04802.

Faithful: each modality has its own logits, and a network of three linear layers and a sigmoid predicts from its
features, without gradient to them, the probability p_m that these logits give to the true class (absolute error).
Mono-confidence is p_m, holo-confidence is log prod_{j != m} p_j / log prod_j p_j, their sum the co-belief; the answer
is the sum of the logits weighted by the softmax of the co-beliefs, weights without gradient. At test the co-belief is
calibrated first: it is multiplied by min(1, DU_m / mean of the others' DU), DU_m the mean absolute distance of the
predicted probabilities from uniform. The loss adds cross-entropies of the answer and of every modality, and the errors
of p_m.
Compared with Yinan-Xia/PDF@8648674, `MultimodalLateFusionClf_pdf` from features on, in training and at test, and its
loss, same weights: largest difference 9.5e-7.

Ours: features are means over real steps of a projection with GELU, logits come from the shared head, and sums run
over the modalities that are there (the released code has two). Only classes have a probability of the true one, so this
method classifies only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from fusionbench.api import (
    Batch,
    Choice,
    Fuser,
    Head,
    Projections,
    Range,
    Spec,
    Streams,
    UsageError,
    masked_mean,
    softmax_over,
)


def co_belief(log_p: Tensor, mask: Tensor) -> Tensor:
    """Mono- plus holo-confidence from log p_m over the modalities that are there: (..., M), mask (..., M) -> same."""
    present = log_p * mask
    total = present.sum(-1, keepdim=True)
    return log_p.exp() + (total - present) / total.clamp(max=-1e-8)


def calibration(logits: Tensor, mask: Tensor) -> Tensor:
    """min(1, DU_m / mean DU of the others that are there), 1 for a lone modality: (..., M, classes) -> (..., M)."""
    uniformity = (logits.softmax(-1) - 1 / logits.shape[-1]).abs().mean(-1) * mask
    others = uniformity.sum(-1, keepdim=True) - uniformity
    count = mask.sum(-1, keepdim=True) - mask.to(logits.dtype)
    return (uniformity * count / others.clamp(min=1e-8)).clamp(max=1.0).where(count > 0, 1.0)


class PredictiveDynamic(Fuser):
    known_failures: ClassVar[dict[str, str]] = {
        "regress": "it predicts the probability of the true class: the method classifies only",
        "solves_xor": "its answer is a weighted sum of one function a modality, the weights learn no task",
    }

    def __init__(
        self,
        spec: Spec,
        *,
        width: Annotated[int, Choice(64, 128, 256), "width of each modality's features"] = 128,
        unimodal: Annotated[float, Range(0.0, 2.0), "weight of the modalities' own cross-entropies"] = 1.0,
        confidence: Annotated[float, Range(0.1, 2.0), "weight of the error of the predicted confidences"] = 1.0,
    ):
        super().__init__(spec)
        if spec.kind != "classify":
            raise UsageError(
                "predictive_dynamic (PDF) is defined on class probabilities: for a regression task choose another fuser"
            )
        self.unimodal, self.confidence = unimodal, confidence
        self.project = Projections(spec, width, lambda d, w: nn.Sequential(nn.Linear(d, w), nn.GELU()))
        self.heads = nn.ModuleDict({m: Head(width, spec.out) for m in spec.dims})
        self.predict = nn.ModuleDict(
            {
                m: nn.Sequential(nn.Linear(width, 2 * width), nn.Linear(2 * width, width), nn.Linear(width, 1))
                for m in spec.dims
            }
        )

    def forward(self, streams: Streams) -> Tensor:
        return self.fuse(*self._alone(streams))

    def loss(self, batch: Batch, criterion: Callable[[Tensor, Batch], Tensor]) -> Tensor:
        logits, log_p, mask = self._alone(batch.streams)
        valid = mask & batch.y_mask.unsqueeze(-1)  # (B, S, M)
        label = batch.y.long()[..., None, None].expand(*logits.shape[:-1], 1)
        true = logits.detach().softmax(-1).gather(-1, label).squeeze(-1)
        error = (log_p.exp() - true).abs()
        total = criterion(self.fuse(logits, log_p, mask), batch)
        for m in range(len(self.heads)):
            total = total + self.unimodal * criterion(logits[..., m, :], replace(batch, y_mask=valid[..., m]))
            total = total + self.confidence * masked_mean(error[..., m], valid[..., m], (0, 1))
        return total

    def fuse(self, logits: Tensor, log_p: Tensor, mask: Tensor) -> Tensor:
        """The weighted logits (B, S, classes), calibrated outside training; all that goes in has M before classes."""
        belief = co_belief(log_p, mask)
        if not self.training:
            belief = belief * calibration(logits, mask)
        return (softmax_over(belief, mask).detach().unsqueeze(-1) * logits).sum(-2)

    def _alone(self, streams: Streams) -> tuple[Tensor, Tensor, Tensor]:
        """Each modality's logits (B, S, M, classes), log p_m (B, S, M), and which are there (B, S, M)."""
        steps = {m: self.pool(stream) for m, stream in self.project(streams).items()}
        logits = torch.stack([head(steps[m].x) for m, head in self.heads.items()], -2)
        scores = torch.cat([predict(steps[m].x.detach()) for m, predict in self.predict.items()], -1)
        return logits, logsigmoid(scores.float()), torch.stack([s.mask for s in steps.values()], -1)

"""QMF: late fusion in which every modality's logits count by the confidence that their own energy expresses.

Qingyang Zhang, Haitao Wu, Changqing Zhang, Qinghua Hu, Huazhu Fu, Joey Tianyi Zhou, Xi Peng, "Provable Dynamic Fusion
for Low-Quality Multimodal Data", ICML 2023, https://arxiv.org/abs/2306.02050.

Logits f_m of each modality alone; energy E_m = -logsumexp(f_m); confidence c_m = -E_m / 10 (the released scale);
answer sum_m c_m f_m, whose gradient does not go through the confidences; cross-entropy of the answer and of every
modality; a ranking loss of weight 1 over neighbours in the batch that wants the sample with the lower loss to be the
more confident.

Compared with QingyangZhang/QMF@fe6c4c6: largest difference 3e-16 (confidences and fused logits of two modalities, from
the same logits).

Ours: a modality's network is a projection with GELU, averaged over time, and the shared head (released: BERT and
ResNet). How hard a sample is comes from its loss now, as 1 - p(true class), where the released code adds up its losses
since the start (a memory of every sample) and scales them to [0, 1]. The hinge asks for a margin as large as the
difference in hardness, as the paper does; the released one allows one. Pairs are averaged over those where both have
the modality. Energies are a matter of class logits: classifies only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from fusionbench.api import Batch, Choice, Fuser, Head, Projections, Range, Spec, Streams, UsageError


class Energy(Fuser):
    known_failures: ClassVar[dict[str, str]] = {
        "regress": "the confidence is an energy of class logits: the method classifies only",
        "solves_xor": "a sum of one term a modality: exclusive-or is not such a sum",
    }

    def __init__(
        self,
        spec: Spec,
        *,
        width: Annotated[int, Choice(64, 128, 256), "width of each modality's head"] = 128,
        rank: Annotated[float, Range(0.0, 1.0), "weight of the ranking loss; released: 1"] = 1.0,
    ):
        super().__init__(spec)
        if spec.kind != "classify":
            raise UsageError("energy (QMF) is defined on class logits: for a regression task choose another fuser")
        self.rank = rank
        self.project = Projections(spec, width, lambda d, w: nn.Sequential(nn.Linear(d, w), nn.GELU()))
        self.heads = nn.ModuleDict({m: Head(width, spec.out) for m in spec.dims})

    def forward(self, streams: Streams) -> Tensor:
        logits, mask = self._logits(streams)
        return fuse(logits, mask)

    def loss(self, batch: Batch, criterion: Callable[[Tensor, Batch], Tensor]) -> Tensor:
        logits, mask = self._logits(batch.streams)
        valid = mask & batch.y_mask.unsqueeze(-1)  # (B, S, M)
        total = criterion(fuse(logits, mask), batch)
        for m in range(len(self.heads)):
            total = total + criterion(logits[..., m, :], replace(batch, y_mask=valid[..., m]))
        label = batch.y.long()[..., None, None].expand(*logits.shape[:-1], 1)
        hard = 1 - logits.detach().softmax(-1).gather(-1, label).squeeze(-1)  # (B, S, M)
        return total + self.rank * ranking(confidence(logits), hard, valid)

    def _logits(self, streams: Streams) -> tuple[Tensor, Tensor]:
        """Each modality's own logits (B, S, M, classes), and which are there (B, S, M)."""
        steps = {m: self.pool(stream) for m, stream in self.project(streams).items()}
        logits = torch.stack([head(steps[m].x) for m, head in self.heads.items()], -2)
        return logits, torch.stack([s.mask for s in steps.values()], -1)


def confidence(logits: Tensor) -> Tensor:
    """-E / 10 with E = -logsumexp over classes: (..., classes) -> (...)."""
    return 0.1 * logits.logsumexp(-1)


def fuse(logits: Tensor, mask: Tensor) -> Tensor:
    """sum_m c_m f_m over the modalities that are there: (B, S, M, classes), (B, S, M) -> (B, S, classes)."""
    return ((confidence(logits).detach() * mask).unsqueeze(-1) * logits).sum(-2)


def ranking(confident: Tensor, hard: Tensor, valid: Tensor) -> Tensor:
    """Mean hinge over pairs of neighbours in the batch, all (B, S, M), summed over modalities.

    Of a pair the harder one has to be less confident, by at least the difference in hardness.
    """
    pair = valid & valid.roll(-1, 0)
    gap = hard - hard.roll(-1, 0)
    hinge = (gap.sign() * (confident - confident.roll(-1, 0)) + gap.abs()).clamp(min=0)
    return ((hinge * pair).sum((0, 1)) / pair.sum((0, 1)).clamp(min=1)).sum()

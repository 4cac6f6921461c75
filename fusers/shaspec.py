"""ShaSpec: features that modalities share and features of their own, joined by a residual; shared ones fill the gaps.

Method: Shared-Specific Feature Modelling. Wang, Chen, Ma, Avery, Hull, Carneiro, "Multi-modal Learning with Missing
Modality via Shared-Specific Feature Modelling", CVPR 2023, https://arxiv.org/abs/2307.14126.

Faithful: one encoder shared by all modalities gives r_m, an encoder of its own gives s_m; a modality that is there is
represented by f_m = r_m + W [r_m; s_m], with one W without bias for all modalities, an absent one by the shared
features of those that are there; the decoder reads the f_m side by side. Two terms join the task's loss: the mean
absolute difference of the shared features of neighbouring modalities (in a ring, weight .1), and the cross-entropy of a
linear classifier that tells from s_m which modality it is (weight .02).
Compared with billhhh/ShaSpec@081fe7a, `CompositionalLayer` without its weight standardisation, the alignment term and
the classifier's loss, same weights and features: largest difference 9.5e-7. The volumetric encoders and decoder of the
released code have no counterpart here.

Ours: encoders are two-layer networks over each step behind a projection to one width, averaged over real steps for a
clip, and the decoder is the shared head. An absent modality gets the mean of the present ones' shared features (the
released code takes the first of them and leaves the mean in a comment). What is absent counts in no loss. The released
second stage of training drops random modalities; here that is the recipe `--train.modality_dropout`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor, nn

from fusionbench.api import Batch, Choice, Fuser, Head, Projections, Range, Spec, Stream, Streams, masked_mean


def alignment(shared: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute difference of neighbours in the ring of modalities, summed: (N, M, D), mask (N, M) -> ().

    With two modalities the ring is one pair; a pair counts where both are there.
    """
    count = shared.shape[1]
    total = shared.new_zeros(())
    for i in range(count if count > 2 else count - 1):
        j = (i + 1) % count
        distance = (shared[:, i] - shared[:, j]).abs().mean(-1)
        total = total + masked_mean(distance, mask[:, i] & mask[:, j], 0)
    return total


def domain_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy of telling modality m from its own features: (N, M, M) logits, mask (N, M) -> ()."""
    right = logits.log_softmax(-1).diagonal(dim1=-2, dim2=-1)  # (N, M)
    return -masked_mean(right.flatten(), mask.flatten(), 0)


class ShaSpec(Fuser):
    def __init__(
        self,
        spec: Spec,
        *,
        width: Annotated[int, Choice(64, 128, 256), "width of the features"] = 128,
        align: Annotated[float, Range(0.01, 1.0, log=True), "weight of the alignment of shared features"] = 0.1,
        domain: Annotated[float, Range(0.01, 1.0, log=True), "weight of telling modalities apart"] = 0.02,
    ):
        super().__init__(spec)
        self.align, self.domain = align, domain
        self.project = Projections(spec, width)
        self.shared = _network(width)
        self.specific = nn.ModuleDict({m: _network(width) for m in spec.dims})
        self.compose = nn.Linear(2 * width, width, bias=False)
        self.tell = nn.Linear(width, len(spec.dims))
        self.head = Head(len(spec.dims) * width, spec.out, hidden=width)

    def forward(self, streams: Streams) -> Tensor:
        return self.head(self.fuse(*self._features(streams)).flatten(-2))

    def fuse(self, shared: Tensor, specific: Tensor, mask: Tensor) -> Tensor:
        """f_m of modalities that are there, the mean shared features in place of others: all (B, S, M, width)."""
        whole = shared + self.compose(torch.cat([shared, specific], -1))
        general = masked_mean(shared, mask, 2).unsqueeze(2)
        return torch.where(mask.unsqueeze(-1), whole, general)

    def loss(self, batch: Batch, criterion: Callable[[Tensor, Batch], Tensor]) -> Tensor:
        shared, specific, mask = self._features(batch.streams)
        total = criterion(self.head(self.fuse(shared, specific, mask).flatten(-2)), batch)
        there = mask.flatten(0, 1)  # (B * S, M)
        total = total + self.align * alignment(shared.flatten(0, 1), there)
        return total + self.domain * domain_loss(self.tell(specific.flatten(0, 1)), there)

    def _features(self, streams: Streams) -> tuple[Tensor, Tensor, Tensor]:
        """Shared and specific features (B, S, M, width) at the answer's clock, and which are there (B, S, M)."""
        shared, specific = [], []
        for m, stream in self.project(streams).items():
            shared.append(self.pool(Stream(self.shared(stream.x), stream.mask)))
            specific.append(self.pool(Stream(self.specific[m](stream.x), stream.mask)))
        parts = [torch.stack([s.x for s in part], 2) for part in (shared, specific)]
        return parts[0], parts[1], torch.stack([s.mask for s in shared], 2)


def _network(width: int) -> nn.Sequential:
    return nn.Sequential(nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

"""Self-MM: every modality also answers alone, taught by labels that the method generates for it.

Wenmeng Yu, Hua Xu, Ziqi Yuan, Jiele Wu, "Learning Modality-Specific Representations with Self-Supervised Multi-Task
Learning for Multimodal Sentiment Analysis", AAAI 2021, https://doi.org/10.1609/aaai.v35i12.17289, arXiv 2102.04830.

Concatenated embeddings -> fused features -> answer; from each embedding, features and an answer of its own. A generated
label moves the true one by how much nearer the modality's features are to the centre of the high (or low) labels than
the fused features are: with alpha = (D_low - D_high) / D_high, y_s = y alpha_s / (2 alpha) + (y + alpha_s - alpha) / 2,
cut to the labels' range. A modality's absolute error counts by tanh |y_s - y|. Only training uses all that.

Compared with thuiar/Self-MM@1786283: largest difference 6e-08 (the labels that are generated from the same features
and labels in the first epoch).

Ours: no memory of samples. Centres are those of the batch and of its true labels, where the released code has those of
the training set and of each modality's generated labels; instead of a running mean of generated labels that starts at
the true one, the label stands at a fixed share of the way between the two. "High" and "low" are relative to the batch's
mean label, and labels are scaled by their largest deviation, so that any scale will do (released: zero and a constant).
The task's own loss instead of the absolute error for the fused answer. Embeddings are a layer on steps, averaged over
real ones (released: BERT and LSTMs); answers have the shared head and single layers; no dropout before features. For
classes, which the paper does not have: affinity q = softmax of -D over the classes' centres, y_s = one-hot(y) + (q_s -
q) cut to >= 0 and normalised, soft cross-entropy weighted by tanh of the summed difference.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor, nn

from fusionbench.api import Batch, Choice, Fuser, Head, Projections, Range, Spec, Streams, softmax_over


class SelfMM(Fuser):
    def __init__(
        self,
        spec: Spec,
        *,
        width: Annotated[int, Choice(64, 128, 256), "width of embeddings and features"] = 128,
        unimodal: Annotated[float, Range(0.1, 2.0), "weight of the modalities' own tasks"] = 1.0,
        shift: Annotated[float, Range(0.1, 1.0), "share of the way from the true to the generated label"] = 0.5,
    ):
        super().__init__(spec)
        self.unimodal, self.shift = unimodal, shift
        self.embed = Projections(spec, width, lambda d, w: nn.Sequential(nn.Linear(d, w), nn.ReLU()))
        self.fuse = nn.Sequential(nn.Linear(len(spec.dims) * width, width), nn.ReLU())
        self.head = Head(width, spec.out)
        self.own = nn.ModuleDict({m: nn.Sequential(nn.Linear(width, width), nn.ReLU()) for m in spec.dims})
        self.own_head = nn.ModuleDict({m: nn.Linear(width, spec.out) for m in spec.dims})

    def forward(self, streams: Streams) -> Tensor:
        return self.head(self._fuse(streams)[0])

    def loss(self, batch: Batch, criterion: Callable[[Tensor, Batch], Tensor]) -> Tensor:
        fused, steps = self._fuse(batch.streams)
        total = criterion(self.head(fused), batch)
        for m, (x, mask) in steps.items():
            valid = batch.y_mask & mask  # (B, S)
            error = self._own_error(m, x, fused.detach(), batch, valid)
            total = total + self.unimodal * (error * valid).sum() / valid.sum().clamp(min=1)
        return total

    def _own_error(self, modality: str, x: Tensor, fused: Tensor, batch: Batch, valid: Tensor) -> Tensor:
        """A modality's weighted error against its generated labels, (B, S)."""
        features = self.own[modality](x)
        answers = self.own_head[modality](features)
        if self.spec.kind == "classify":
            true, label = class_labels(features.detach(), fused, batch.y, valid, batch.y_mask, self.spec.out)
            label = true + self.shift * (label - true)
            return torch.tanh((label - true).abs().sum(-1)) * -(label * answers.log_softmax(-1)).sum(-1)
        label, scale = value_labels(features.detach(), fused, batch.y, valid, batch.y_mask)
        label = batch.y + self.shift * (label - batch.y)
        return (torch.tanh((label - batch.y).abs() / scale) * (answers - label).abs()).mean(-1)

    def _fuse(self, streams: Streams) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
        """Fused features (B, S, width), and each modality's embedding and mask at the answer's clock."""
        steps = {m: self.pool(stream) for m, stream in self.embed(streams).items()}
        return self.fuse(torch.cat([s.x for s in steps.values()], -1)), {m: (s.x, s.mask) for m, s in steps.items()}


def value_labels(own: Tensor, fused: Tensor, y: Tensor, valid: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Generated values (B, S, out), and the scale of the labels (out,).

    Args:
        own, fused: features (B, S, width).
        y: true values (B, S, out).
        valid, known: (B, S), where the modality resp. the label is there (the former implies the latter).
    """
    weight = known.unsqueeze(-1).to(y.dtype)  # (B, S, 1)
    mean = (y * weight).sum((0, 1)) / weight.sum((0, 1)).clamp(min=1)  # (out,)
    scale = ((y - mean).abs() * weight).amax((0, 1)).clamp(min=1e-6)
    centred = (y - mean) / scale  # in [-1, 1]
    high = centred >= 0
    halves = torch.stack([high, ~high], -1)  # (B, S, out, 2)
    alphas, both = [], []
    for features, mask in ((own, valid), (fused, known)):
        distance, seen = _distances(features, (halves & mask[..., None, None]).flatten(-2).to(y.dtype))
        near_high, near_low = distance.unflatten(-1, (-1, 2)).unbind(-1)  # (B, S, out) each
        alphas.append((near_low - near_high) / near_high.clamp(min=1e-3))
        both.append(seen.unflatten(-1, (-1, 2)).all(-1))
    alpha_s, alpha = alphas
    divisor = torch.where(alpha < 0, alpha.clamp(max=-1e-3), alpha.clamp(min=1e-3))
    label = (centred * alpha_s / divisor + centred + alpha_s - alpha) / 2
    label = torch.where(both[0] & both[1], label.clamp(-1, 1), centred)
    return mean + scale * label, scale


def class_labels(
    own: Tensor, fused: Tensor, y: Tensor, valid: Tensor, known: Tensor, classes: int
) -> tuple[Tensor, Tensor]:
    """True classes as one-hot, and generated distributions, both (B, S, classes); y is (B, S)."""
    true = (y.unsqueeze(-1) == torch.arange(classes, device=y.device)).to(own.dtype)
    affinities = []
    for features, mask in ((own, valid), (fused, known)):
        distance, seen = _distances(features, true * mask.unsqueeze(-1))
        affinities.append(softmax_over(-distance, seen.expand(distance.shape)))
    label = (true + affinities[0] - affinities[1]).clamp(min=0)
    total = label.sum(-1, keepdim=True)
    return true, torch.where(total > 0, label / total.clamp(min=1e-6), true)


def _distances(features: Tensor, member: Tensor) -> tuple[Tensor, Tensor]:
    """Distances to the centres of groups, divided by sqrt(width): (B, S, groups); which groups have anyone: (groups,).

    features (B, S, width); member (B, S, groups) weights, 0 or 1.
    """
    count = member.sum((0, 1))  # (groups,)
    centres = torch.einsum("bsd,bsg->gd", features, member) / count.clamp(min=1).unsqueeze(-1)
    distance = (features.unsqueeze(-2) - centres).square().mean(-1)  # (B, S, groups)
    return distance.clamp(min=1e-12).sqrt(), count > 0

"""MMIM: bounds on mutual information, between modalities and from the fusion back to each, are made large in training.

Wei Han, Hui Chen, Soujanya Poria, "Improving Multimodal Fusion with Hierarchical Mutual Information Maximization for
Multimodal Sentiment Analysis", EMNLP 2021. https://arxiv.org/abs/2109.00412

One vector a modality, side by side through three linear layers (tanh between) give the answer; the second's output is
the fusion. First level: from the text's vector a network predicts a Gaussian of each other modality's; its log
likelihood plus that modality's entropy is the Barber-Agakov bound. The networks learn by likelihood alone, from vectors
that get no gradient; the vectors then gain by likelihood and entropy, which is that of one Gaussian for each polarity
of the label, on a small tanh projection. Second level: from the fusion a linear layer predicts each modality's vector;
it has to be nearer to the true one, by cosine, than to those of the other samples (contrastive predictive coding).

Compared with declare-lab/Multimodal-Infomax@cd0774c, same weights: largest difference 5e-7 in fusion, answer and
contrast; 2e-6 in the likelihood without its variance term, 2e-7 in the entropy, theirs given our bounded variance and
our diagonal. Not compared: BERT and LSTM encoders.

Ours: a vector is the mean over real steps of the projected steps (the authors: BERT's first token, LSTMs), all of one
width; any modality may predict the others in the place of the text.
Ours: likelihood of networks and of vectors in one step with one optimiser, by stopping gradients; the authors
alternate epochs with two. The log variance passes a tanh, the activation that their settings name, and its half is
subtracted, as in a Gaussian; in their code it is neither bounded nor counted.
Ours: the entropy's projection has four outputs, as there, no bias, and is drawn once and fixed (theirs belongs to the
optimiser of the epochs that do not use it). Covariances are those of the batch, without the batch before, with 1e-4
added to the diagonal. Labels are of high or low polarity relative to the batch's mean, for each output; for
classification each class is a group.
Ours: an absent modality counts in no bound. Per frame, contrasts are with the other samples at the same frame.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from fusionbench.api import (
    Batch,
    Choice,
    Criterion,
    Dropout,
    Fuser,
    Projections,
    Range,
    Spec,
    Stream,
    Streams,
    masked_mean,
    softmax_over,
)

from ._dominant import dominant as find_dominant


class _Gaussian(nn.Module):
    """Predicts mean and log variance of one vector from another."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mean, self.spread = (
            nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)) for _ in range(2)
        )

    def forward(self, x: Tensor, y: Tensor, *, fixed: bool = False) -> Tensor:
        """Log likelihood of y (..., width) given x, without its constant: (...). `fixed`: its weights do not learn."""
        mean, log_variance = _run(self.mean, x, fixed), torch.tanh(_run(self.spread, x, fixed))
        return -((y - mean).square() / log_variance.exp() + log_variance).sum(-1) / 2


def _run(layers: nn.Sequential, x: Tensor, fixed: bool) -> Tensor:
    for layer in layers:
        if fixed and isinstance(layer, nn.Linear):
            x = linear(x, layer.weight.detach(), layer.bias.detach())
        else:
            x = layer(x)
    return x


class MMIM(Fuser):
    presets: ClassVar = {"paper": {"width": 16, "hidden": 128, "dropout": 0.1, "contrast": 0.1, "bound": 0.1}}

    def __init__(
        self,
        spec: Spec,
        *,
        dominant: Annotated[str, "the modality that predicts the others; empty: text or language, else the first"] = "",
        width: Annotated[int, Choice(16, 32, 64), "width of a modality's vector"] = 32,
        hidden: Annotated[int, Choice(64, 128, 256), "width of the fusion"] = 128,
        dropout: Annotated[float, Range(0.0, 0.3), "dropout before the fusion"] = 0.1,
        contrast: Annotated[float, Range(0.01, 0.5, log=True), "weight of the bound between fusion and input"] = 0.1,
        bound: Annotated[float, Range(0.001, 0.2, log=True), "weight of the bounds between modalities"] = 0.1,
    ):
        super().__init__(spec)
        self.dominant, self.contrast, self.bound = find_dominant(spec, dominant, "mmim"), contrast, bound
        others = [m for m in spec.dims if m != self.dominant]
        self.project = Projections(spec, width)
        self.dropout = Dropout(dropout)
        self.first, self.second = nn.Linear(len(spec.dims) * width, hidden), nn.Linear(hidden, hidden)
        self.answer = nn.Linear(hidden, spec.out)
        self.likelihood = nn.ModuleDict({m: _Gaussian(width) for m in others})
        self.back = nn.ModuleDict({m: nn.Linear(hidden, width) for m in spec.dims})
        for m in others:
            self.register_buffer(f"entropy_{m}", torch.randn(4, width) * width**-0.5)

    def forward(self, streams: Streams) -> Tensor:
        return self.answer(self.fuse(self.vectors(streams)))

    def vectors(self, streams: Streams) -> Streams:
        return {m: self.pool(stream) for m, stream in self.project(streams).items()}

    def fuse(self, vectors: Streams) -> Tensor:
        """(B, S, hidden)."""
        joint = self.dropout(torch.cat([s.x for s in vectors.values()], -1))
        return torch.tanh(self.second(torch.tanh(self.first(joint))))

    def loss(self, batch: Batch, criterion: Criterion) -> Tensor:
        vectors = self.vectors(batch.streams)
        fusion = self.fuse(vectors)
        total = criterion(self.answer(fusion), batch)
        for m, back in self.back.items():
            total = total + self.contrast * contrast(vectors[m], back(fusion))
        groups = label_groups(batch, self.spec)
        x = vectors[self.dominant]
        for m, likelihood in self.likelihood.items():
            y = vectors[m]
            both = x.mask & y.mask  # (B, S)
            total = total - masked_mean(likelihood(x.x.detach(), y.x.detach()), both, (0, 1))
            known = masked_mean(likelihood(x.x, y.x, fixed=True), both, (0, 1))
            small = torch.tanh(linear(y.x, self.get_buffer(f"entropy_{m}"))).flatten(0, 1)  # (B * S, 4)
            total = total - self.bound * (known + entropy(small, groups & y.mask.flatten()[:, None]))
        return total


def contrast(truth: Stream, guess: Tensor) -> Tensor:
    """Minus the mean log share of the right guess among those for all samples that are there at the same step.

    truth (B, S, width); guess (B, S, width), one from each sample's fusion.
    """
    alike = torch.einsum("bsd,csd->sbc", _unit(truth.x), _unit(guess))
    share = softmax_over(alike, truth.mask.T[:, None]).diagonal(dim1=1, dim2=2).T  # (B, S)
    return -masked_mean(share.clamp(min=1e-12).log(), truth.mask, (0, 1))


def label_groups(batch: Batch, spec: Spec) -> Tensor:
    """(B * S, groups) bool: samples of one class; of values, those above and those below the mean of each output."""
    if spec.kind == "classify":
        groups = batch.y.unsqueeze(-1) == torch.arange(spec.out, device=batch.y.device)
    else:
        mean = masked_mean(batch.y, batch.y_mask, (0, 1))
        groups = torch.cat([batch.y > mean, batch.y < mean], -1)
    return (groups & batch.y_mask.unsqueeze(-1)).flatten(0, 1)


def entropy(x: Tensor, groups: Tensor) -> Tensor:
    """Half the mean log determinant of the groups' covariances, over groups of two and more.

    x (N, D), groups (N, G) bool -> ().
    """
    # Sums of products, not matrix products: those lose the small ones under autocast to half precision.
    member = groups.unsqueeze(-1)  # (N, G, 1)
    count = member.sum(0).clamp(min=1)  # (G, 1)
    values = x.float()[:, None]  # (N, 1, D)
    centred = (values - (values * member).sum(0) / count) * member  # (N, G, D)
    covariance = (centred.unsqueeze(-1) * centred.unsqueeze(-2)).sum(0) / count.unsqueeze(-1)
    half = log_determinant(covariance + 1e-4 * torch.eye(x.shape[-1], device=x.device)) / 2
    return masked_mean(half, groups.sum(0) >= 2, 0)


def log_determinant(matrix: Tensor) -> Tensor:
    """Of positive definite matrices (..., D, D) of a small D, by elimination: library kernels wait for the device."""
    total = []
    for _ in range(matrix.shape[-1]):
        pivot, row = matrix[..., :1, :1], matrix[..., :1, 1:]
        total.append(pivot.squeeze(-1).squeeze(-1).log())
        matrix = matrix[..., 1:, 1:] - row.transpose(-1, -2) * row / pivot
    return torch.stack(total).sum(0)


def _unit(x: Tensor) -> Tensor:
    return x * (x.square().sum(-1, keepdim=True) + 1e-8).rsqrt()

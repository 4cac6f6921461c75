"""Noise-Resistant Multimodal Transformer: a generic feature that cannot tell clean from noisy queries all tokens.

Liu et al., "Noise-Resistant Multimodal Transformer for Emotion Recognition", 2023, https://arxiv.org/abs/2305.02814.

Generic tokens are the first outputs of an encoder over [class tokens; all modalities' tokens], then layers of
self-attention among them, cross-attention to the modalities' tokens, feed-forward; in training one modality or all of
them are made noisy at random steps, and two adversaries, on the generic feature and on the answer, push both towards
saying nothing about the noise.

Not compared: no public code was found; a reconstruction from the paper's description.

Ours: the sizes, the share of noisy steps (half), gradient reversal for the adversaries, normal noise on the features,
the task's loss on clean and noisy data alike, and the per-frame form, where there is one generic token a step that
starts from its modalities' mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from fusionbench.api import (
    Batch,
    Choice,
    Encoder,
    Feedforward,
    Fuser,
    Head,
    MultiHead,
    Projections,
    Range,
    Spec,
    Stream,
    Streams,
    keyed,
    masked_mean,
    reverse_gradient,
)


class _Layer(nn.Module):
    """Post-norm: self-attention among the generic tokens, cross-attention to all tokens, feed-forward."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.own, self.cross = MultiHead(width, heads), MultiHead(width, heads)
        self.feed = Feedforward(width, 2 * width)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, g: Tensor, g_mask: Tensor, x: Tensor, x_mask: Tensor) -> Tensor:
        g = self.norm1(g + self.own(g, g, g_mask))
        g = self.norm2(g + self.cross(g, x, x_mask))
        return self.norm3(g + self.feed(g))


class NormTR(Fuser):
    def __init__(
        self,
        spec: Spec,
        *,
        width: Annotated[int, Choice(64, 128, 256), "width of every token"] = 64,
        generic: Annotated[int, Range(2, 8), "generic tokens of a clip"] = 4,
        depth: Annotated[int, Range(1, 3), "layers of the encoder and of the fusion"] = 1,
        heads: Annotated[int, Choice(1, 2, 4), "attention heads"] = 1,
        noise: Annotated[float, Range(0.1, 2.0, log=True), "SD of the noise of training, data having about 1"] = 0.5,
        share: Annotated[float, Range(0.1, 1.0), "share of the steps that are noisy, of a noisy modality"] = 0.5,
        adversary: Annotated[float, Range(0.01, 1.0, log=True), "weight of the reversed gradients"] = 0.1,
    ):
        super().__init__(spec)
        self.noise, self.share, self.adversary = noise, share, adversary
        self.project = Projections(spec, width)
        self.modalities = nn.Parameter(0.02 * torch.randn(len(spec.dims), width))
        self.classes = nn.Parameter(0.02 * torch.randn(1 if spec.per_frame else generic, width))
        self.encoder = Encoder(width, depth, heads, 2 * width)
        self.layers = nn.ModuleList(_Layer(width, heads) for _ in range(depth))
        self.head = Head(width, spec.out)
        self.tell_feature = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
        self.tell_answer = nn.Sequential(nn.Linear(spec.out, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, streams: Streams) -> Tensor:
        return self._fuse(streams)[1]

    def _fuse(self, streams: Streams) -> tuple[Tensor, Tensor]:
        """The generic feature (B, S, width) and the answer (B, S, out)."""
        projected = self.project(streams)
        tokens = [Stream(s.x + e, s.mask) for s, e in zip(projected.values(), self.modalities, strict=True)]
        x, mask = torch.cat([s.x for s in tokens], 1), torch.cat([s.mask for s in tokens], 1)  # (B, sum of T, width)
        if self.spec.per_frame:
            masks = torch.stack([s.mask for s in tokens], 2)  # (B, T, M)
            start = self.classes + masked_mean(torch.stack([s.x for s in tokens], 2), masks, dim=2)
            start_mask = masks.any(2)
        else:
            start = self.classes.expand(len(x), -1, -1)
            start_mask = torch.ones(start.shape[:2], dtype=torch.bool, device=x.device)
        encoded = self.encoder(torch.cat([start, x], 1), torch.cat([start_mask, mask], 1))
        generic = fused = encoded[:, : start.shape[1]]  # (B, T or the number of generic tokens, width)
        for layer in self.layers:
            fused = layer(fused, start_mask, x, mask)
        return self.pool(Stream(generic, start_mask)).x, self.head(self.pool(Stream(fused, start_mask)).x)

    def loss(self, batch: Batch, criterion: Callable[[Tensor, Batch], Tensor]) -> Tensor:
        """The task's loss on clean and on noisy data, and what each adversary fails to tell."""
        clean, noisy = self._fuse(batch.streams), self._fuse(self._add_noise(batch.streams))
        total = (criterion(clean[1], batch) + criterion(noisy[1], batch)) / 2
        for tell, c, n in zip((self.tell_feature, self.tell_answer), clean, noisy, strict=True):
            on_clean, on_noisy = (tell(reverse_gradient(z, self.adversary)).squeeze(-1) for z in (c, n))  # (B, S)
            wrong = softplus(-on_clean) + softplus(on_noisy)
            total = total + (wrong * batch.y_mask).sum() / batch.y_mask.sum().clamp(min=1)
        return total

    def _add_noise(self, streams: Streams) -> Streams:
        """Normal noise at random steps of one modality of a sample, drawn uniformly, or, as likely as each, of all."""
        count, first = len(self.spec.dims), streams[self.spec.modalities[0]].x
        choice = torch.floor(keyed.draw((len(first), 1, 1), first.device) * (count + 1))
        noisy = {}
        for i, m in enumerate(self.spec.dims):
            x = streams[m].x
            chosen = (choice == i) | (choice == count)
            steps = keyed.draw((*x.shape[:2], 1), x.device) < self.share
            amount = self.noise * (chosen & steps)
            noisy[m] = Stream(x + (amount * keyed.draw(x.shape, x.device, "normal")).to(x.dtype), streams[m].mask)
        return noisy

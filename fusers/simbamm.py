"""SimBaMM: one token a modality, and a plain transformer with a class token over those that are there.

Method: Simple Baseline for Multimodal Learning. Rheude, Eils, Wild, "Fusion or Confusion? Multimodal Complexity Is Not
All You Need", 2025, https://arxiv.org/abs/2512.22991: on nine data sets none of 19 methods beats it reliably.

Faithful: a modality's steps are projected, a class token is put before them, and what a transformer makes of that class
token is the modality's token (the released encoders of feature sequences; their setting `full_seq: False`); another
class token and the modalities' tokens, with fixed positions that tell them apart, go through post-norm layers in which
absent modalities are no keys; a linear layer answers from the class token.
Compared with TillmannRheude/simple_mml_baseline@9eb533f, `Multimodal_Transformer`, same weights, absent modalities
among them: largest difference 2.9e-6 where answers reach 9.8. Its encoders were read, not compared.

Ours: the encoders are one layer, and have scaled positions that those of the released sentiment tasks lack; per frame
a modality's token is the encoder's output at that step; no dropout on attention weights nor inside the feed-forward
part; linear layers start as torch starts them, not from normal draws. Their variant that hands every step to the fusion
is left out. `--preset paper` is the released fusion transformer, not the many layers of their encoders.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from fusionbench.api import Choice, Encoder, Fuser, Projections, Range, Spec, Stream, Streams, sinusoids


class SimBaMM(Fuser):
    presets: ClassVar = {"paper": {"width": 512, "depth": 4, "heads": 8, "hidden": 256, "dropout": 0.2}}

    def __init__(
        self,
        spec: Spec,
        *,
        width: Annotated[int, Choice(64, 128, 256), "width of a token"] = 128,
        depth: Annotated[int, Range(1, 4), "layers over the modalities' tokens"] = 2,
        encoder: Annotated[int, Range(1, 3), "layers over each modality's steps"] = 1,
        heads: Annotated[int, Choice(1, 2, 4), "attention heads"] = 4,
        hidden: Annotated[int, Choice(128, 256, 512), "width of the feed-forward parts"] = 256,
        dropout: Annotated[float, Range(0.0, 0.5), "dropout on residual branches"] = 0.1,
    ):
        super().__init__(spec)
        self.project = Projections(spec, width)
        self.encoders = nn.ModuleDict({m: Encoder(width, encoder, heads, hidden, dropout) for m in spec.dims})
        if not spec.per_frame:
            self.classes = nn.ParameterDict({m: nn.Parameter(0.02 * torch.randn(1, width)) for m in spec.dims})
        self.answer = nn.Parameter(0.02 * torch.randn(1, width))
        self.fusion = Encoder(width, depth, heads, hidden, dropout)
        self.out = nn.Linear(width, spec.out)

    def forward(self, streams: Streams) -> Tensor:
        steps = [self._token(m, stream) for m, stream in self.project(streams).items()]
        tokens = torch.stack([s.x for s in steps], -2)  # (B, S, M, width)
        return self.out(self.fuse(tokens, torch.stack([s.mask for s in steps], -1)))

    def fuse(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """The class token over the modalities' tokens (B, S, M, width) that are there (B, S, M): (B, S, width)."""
        x = torch.cat([self.answer.expand(*mask.shape[:2], -1, -1), tokens], -2)
        x = x + sinusoids(*x.shape[-2:], x.device).to(x.dtype)
        return self.fusion(x, torch.cat([torch.ones_like(mask[..., :1]), mask], -1))[..., 0, :]

    def _token(self, modality: str, stream: Stream) -> Stream:
        """A modality's token at the answer's clock, (B, S, width)."""
        x, mask = stream.x, stream.mask
        # Scaled, or the positions drown what the steps say (Vaswani et al. 2017, section 3.4).
        x = x * x.shape[-1] ** 0.5 + sinusoids(*x.shape[1:], x.device).to(x.dtype)
        if self.spec.per_frame:
            return Stream(self.encoders[modality](x, mask), mask)
        x = torch.cat([self.classes[modality].expand(len(x), -1, -1), x], 1)
        seen = torch.cat([torch.ones_like(mask[:, :1]), mask], 1)
        return Stream(self.encoders[modality](x, seen)[:, :1], stream.present.unsqueeze(1))

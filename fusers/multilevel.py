"""Multilevel Transformer: fine and coarse tokens of one modality are encoded, every other modality decodes them.

He et al., "Multilevel Transformer for Multimodal Emotion Recognition", 2022, https://arxiv.org/abs/2211.07711.

Tokens of two levels merged (added, or concatenated and mapped), an encoder, a decoder (self-attention, cross-attention,
feed-forward) for each other modality, mean over time, concatenation with each modality's utterance vector, an MLP.

Not compared: no public code was found; a reconstruction from the paper's description.

Ours: the first modality has the two levels, its coarse tokens are averages over windows of the fine ones, utterance
vectors are averages of the raw steps; the sizes.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from fusionbench.api import (
    Choice,
    Dropout,
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
    UsageError,
    masked_mean,
)


def coarse(stream: Stream, window: int) -> Tensor:
    """(B, T, d): at each step, the masked mean of the window of `window` steps that it belongs to."""
    number = torch.arange(stream.x.shape[1], device=stream.x.device) // window
    weight = (number[:, None] == number) & stream.mask[:, None]  # (B, T, T)
    weight = weight / weight.sum(-1, keepdim=True).clamp(min=1)
    return weight.to(stream.x.dtype) @ stream.x


class _Decoder(nn.Module):
    """A post-norm transformer decoder layer: self-attention, cross-attention to a memory, feed-forward."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.own, self.cross = MultiHead(width, heads), MultiHead(width, heads)
        self.feed = Feedforward(width, 2 * width, dropout)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = Dropout(dropout)

    def forward(self, stream: Stream, memory: Stream) -> Stream:
        x = self.norm1(stream.x + self.dropout(self.own(stream.x, stream.x, stream.mask)))
        x = self.norm2(x + self.dropout(self.cross(x, memory.x, memory.mask)))
        return Stream(self.norm3(x + self.dropout(self.feed(x))), stream.mask)


class Multilevel(Fuser):
    def __init__(
        self,
        spec: Spec,
        *,
        width: Annotated[int, Choice(64, 128, 256), "width of every token"] = 128,
        depth: Annotated[int, Range(1, 3), "layers of the encoder and of each decoder"] = 1,
        heads: Annotated[int, Choice(1, 2, 4), "attention heads"] = 1,
        window: Annotated[int, Range(2, 16), "steps of a coarse token"] = 4,
        merge: Annotated[str, Choice("add", "concat"), "how the two levels become one"] = "add",
        dropout: Annotated[float, Range(0.0, 0.5), "dropout in the encoder and the decoders"] = 0.1,
    ):
        super().__init__(spec)
        if merge not in ("add", "concat"):
            raise UsageError(f"multilevel: merge is add or concat, not {merge!r}")
        self.window = window
        self.first, *others = spec.dims
        self.project = Projections(spec, width)
        self.merge = nn.Linear(2 * width, width) if merge == "concat" else None
        self.encoder = Encoder(width, depth, heads, 2 * width, dropout, positions=True)
        self.decoders = nn.ModuleDict(
            {m: nn.ModuleList(_Decoder(width, heads, dropout) for _ in range(depth)) for m in others}
        )
        self.utterances = Projections(spec, width)
        self.head = Head(2 * len(spec.dims) * width, spec.out, hidden=width)

    def forward(self, streams: Streams) -> Tensor:
        tokens = self.project(streams)
        fine = tokens[self.first]
        rough = coarse(fine, self.window)
        merged = fine.x + rough if self.merge is None else self.merge(torch.cat([fine.x, rough], -1))
        memory = Stream(self.encoder(merged, fine.mask), fine.mask)
        decoded = [memory]
        for m, layers in self.decoders.items():
            stream = tokens[m]
            for layer in layers:
                stream = layer(stream, memory)
            decoded.append(stream)
        steps = [self.pool(s).x for s in decoded]  # (B, S, width) each
        for s in self.utterances(streams).values():
            steps.append(masked_mean(s.x, s.mask).unsqueeze(1).expand_as(steps[0]))
        return self.head(torch.cat(steps, -1))

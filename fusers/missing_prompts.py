"""Missing-aware prompts: a joint transformer is told by learned tokens which modalities it has to do without.

Lee, Tsai, Chiu, Lee, "Multimodal Prompting with Missing Modalities for Visual Recognition", CVPR 2023,
https://arxiv.org/abs/2303.03369.

Faithful: all modalities' tokens, with an embedding of their modality, go through one pre-norm transformer; each
combination of missing modalities has prompts of its own for each of the first layers, set before the sequence as the
layer is entered, where they stay (`prompt input`), or before the keys and values of its attention (`prompt attention`:
the first half of them keys, the second half values); a class token goes through a linear layer and tanh to the released
classifier: linear, LayerNorm, GELU, linear. Prompts start as the released ones: zeros, but ones in one of them, which
one depends on the combination.
Compared with YiLunLee/missing_aware_prompts@9aa5381, `Block` with both kinds of prompts and masked tokens, same
weights: largest difference 0.

Ours: the released transformer is a pre-trained ViLT that stays frozen, only prompts and read-out learn; modalities at
large have no such model, so ours is small, starts at random and trains with its prompts. What is absent is no key of
the attention, where the released code puts an empty text or a white image. Positions are fixed; per frame there is one
class token a step, which starts from the mean of the modalities at that step. No dropout.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from fusionbench.api import (
    Choice,
    Fuser,
    Projections,
    Range,
    Spec,
    Stream,
    Streams,
    UsageError,
    attention,
    masked_mean,
    sinusoids,
)

from ._combinations import count, look_up, rank


class _Block(nn.Module):
    """Pre-norm attention and feed-forward, prompts (B, P, width) before the sequence or before keys and values."""

    def __init__(self, width: int, heads: int, prompt: str) -> None:
        super().__init__()
        self.heads, self.prompt = heads, prompt
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, mask: Tensor, prompts: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, N, width), (B, N) -> the same, longer by the prompts that were set before the sequence."""
        if prompts is not None and self.prompt == "input":
            x, mask, prompts = torch.cat([prompts, x], 1), _prefix(mask, prompts.shape[1]), None
        normal = self.norm1(x)
        query, key, value = self.query(normal), self.key(normal), self.value(normal)
        seen = mask
        if prompts is not None:
            keys, values = prompts.chunk(2, 1)
            key, value = torch.cat([keys, key], 1), torch.cat([values, value], 1)
            seen = _prefix(mask, keys.shape[1])
        parts = [part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (query, key, value)]
        attended = attention(parts[0], parts[1], parts[2], seen[:, None, None])
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.feed(self.norm2(x)), mask


def _prefix(mask: Tensor, length: int) -> Tensor:
    return torch.cat([torch.ones_like(mask[:, :1]).expand(-1, length), mask], 1)


class MissingPrompts(Fuser):
    presets: ClassVar = {
        "paper": {"width": 768, "depth": 12, "heads": 12, "prompts": 16, "layers": 6, "prompt": "input"}
    }

    def __init__(
        self,
        spec: Spec,
        *,
        width: Annotated[int, Choice(64, 128, 256), "width of every token"] = 64,
        depth: Annotated[int, Range(1, 4), "layers of the transformer"] = 2,
        heads: Annotated[int, Choice(1, 2, 4), "attention heads"] = 4,
        prompts: Annotated[int, Choice(2, 4, 8, 16), "prompts of a combination in a layer (even)"] = 4,
        layers: Annotated[int, Range(1, 4), "first layers that have prompts (at most all)"] = 2,
        prompt: Annotated[str, Choice("input", "attention"), "where prompts are set"] = "input",
    ):
        super().__init__(spec)
        if prompts < 2 or prompts % 2:
            raise UsageError(f"missing_prompts: prompts is an even number from 2 on, not {prompts}")
        self.project = Projections(spec, width)
        self.modality = nn.ParameterDict({m: nn.Parameter(0.02 * torch.randn(width)) for m in spec.dims})
        self.answer = nn.Parameter(0.02 * torch.randn(1, width))
        self.blocks = nn.ModuleList(_Block(width, heads, prompt) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.prompts = nn.Parameter(_start(count(spec, "missing_prompts"), min(layers, depth), prompts, width, prompt))
        self.read = nn.Sequential(
            nn.Linear(width, width),
            nn.Tanh(),
            nn.Linear(width, 2 * width),
            nn.LayerNorm(2 * width),
            nn.GELU(),
            nn.Linear(2 * width, spec.out),
        )

    def forward(self, streams: Streams) -> Tensor:
        projected = self.project(streams)
        present = torch.stack([s.present for s in projected.values()], 1)  # (B, M)
        prompts = look_up(self.prompts, rank(present).unsqueeze(1))[:, 0]  # (B, layers, P, width)
        answer = self._class_tokens(projected)
        tokens = [answer, *(self._place(s, self.modality[m]) for m, s in projected.items())]
        x, mask = torch.cat([s.x for s in tokens], 1), torch.cat([s.mask for s in tokens], 1)
        for i, block in enumerate(self.blocks):
            x, mask = block(x, mask, prompts[:, i] if i < prompts.shape[1] else None)
        first = x.shape[1] - sum(s.x.shape[1] for s in tokens)
        return self.read(self.norm(x[:, first : first + answer.x.shape[1]]))

    def _class_tokens(self, projected: Streams) -> Stream:
        """The token of a clip, or one a step: (B, S, width)."""
        if self.spec.per_frame:
            mask = torch.stack([s.mask for s in projected.values()], 2)  # (B, T, M)
            mean = masked_mean(torch.stack([s.x for s in projected.values()], 2), mask, dim=2)
            return self._place(Stream(mean, mask.any(2)), self.answer)
        answer = self.answer.expand(len(next(iter(projected.values()))), -1, -1)
        return Stream(answer, torch.ones_like(answer[..., 0], dtype=torch.bool))

    def _place(self, stream: Stream, kind: Tensor) -> Stream:
        place = sinusoids(*stream.x.shape[1:], stream.x.device).to(stream.x.dtype)
        # Scaled, or the positions drown what the steps say (Vaswani et al. 2017, section 3.4).
        return Stream(stream.x * stream.x.shape[-1] ** 0.5 + place + kind, stream.mask)


def _start(combinations: int, layers: int, length: int, width: int, prompt: str) -> Tensor:
    """(combinations, layers, length, width) zeros, and ones at one prompt that depends on the combination."""
    start = torch.zeros(combinations, layers, length, width)
    half = length if prompt == "input" else length // 2
    row = torch.arange(combinations)
    for first in range(0, length, half):
        start[row, :, first + row % half] = 1.0
    return start

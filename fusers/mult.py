"""MulT: a crossmodal transformer for every ordered pair of modalities, unaligned; then self-attention per modality.

Yao-Hung Hubert Tsai, Shaojie Bai, Paul Pu Liang, J. Zico Kolter, Louis-Philippe Morency, Ruslan Salakhutdinov,
"Multimodal Transformer for Unaligned Multimodal Language Sequences", ACL 2019. https://arxiv.org/abs/1906.00295

Pre-norm crossmodal layers whose keys and values are always the other modality's low-level tokens; per target the pairs
are concatenated and pass a self-attention transformer of at least three layers; every transformer scales its inputs and
adds positions that begin at 1, the code's halves of sines and cosines; attention looks no further ahead than the
difference of the two lengths; a clip is read at the last real step; residual head. Modalities keep their own clocks.
`MulT.from_released` loads a checkpoint of the released code.

Compared with yaohungt/Multimodal-Transformer@a670936: largest difference 6e-07 (the answers for three modalities of
different lengths, released settings).

Ours: two layers a crossmodal transformer by default and width 32 with four heads (released: five layers, width 30, five
heads: the preset `paper`); no dropout on attention weights nor on the raw text (released: 0.1 where text is the target,
and 0.25); projections have a bias; a sample's lengths are up to its last real step, so that padding changes nothing;
the option `mean` reads a clip from all steps, per frame every frame is read; a modality alone attends to itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import permutations
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from fusionbench.api import (
    Choice,
    Dropout,
    Feedforward,
    Fuser,
    Projections,
    Range,
    Spec,
    Stream,
    Streams,
    UsageError,
    attention,
)

from ._mult_released import translate


def positions(steps: int, width: int, device: torch.device) -> Tensor:
    """(steps, width): sines of the places 1, 2, ... in the first half, cosines in the second; zeros if one is left."""
    half = width // 2
    rate = torch.exp(torch.arange(half, device=device, dtype=torch.float32) * (-math.log(10000.0) / max(1, half - 1)))
    angle = torch.arange(1, steps + 1, device=device, dtype=torch.float32)[:, None] * rate
    return torch.cat([angle.sin(), angle.cos(), angle.new_zeros(steps, width - 2 * half)], 1)


def visible(query: Tensor, key: Tensor, causal: bool) -> Tensor:
    """(B, Q, K): which keys a query may look at, from the masks (B, Q) and (B, K).

    Causal: a key no later than the query's own place plus the difference of the two lengths.
    """
    if not causal:
        return key[:, None]
    place, other = (torch.arange(m.shape[1], device=m.device) for m in (query, key))
    reach = (_length(query) - _length(key)).abs()[:, None, None]
    return key[:, None] & (other <= place[:, None] + reach)


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        for layer in (self.query, self.key, self.value, self.out):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """Queries (B, Q, width), memory (B, K, width), mask (B, Q, K) -> (B, Q, width)."""
        q, k, v = (
            layer(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, tokens in ((self.query, x), (self.key, memory), (self.value, memory))
        )
        return self.out(attention(q, k, v, mask[:, None]).transpose(1, 2).flatten(2))


class _Stack(nn.Module):
    """Pre-norm transformer layers: a stream attends to another one, always to its embedded inputs, or to itself."""

    def __init__(self, width: int, depth: int, heads: int, dropout: float, embed_dropout: float, causal: bool):
        super().__init__()
        self.causal = causal
        self.attention = nn.ModuleList(_Attention(width, heads) for _ in range(depth))
        self.feedforward = nn.ModuleList(Feedforward(width, 4 * width, dropout) for _ in range(depth))
        self.norm1 = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.norm2 = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.last = nn.LayerNorm(width)
        self.dropout, self.embed_dropout = Dropout(dropout), Dropout(embed_dropout)

    def forward(self, stream: Stream, source: Stream | None = None) -> Tensor:
        x = self._embed(stream)
        memory = None if source is None else self._embed(source)
        mask = visible(stream.mask, (source or stream).mask, self.causal)
        for attend, feed, norm1, norm2 in zip(self.attention, self.feedforward, self.norm1, self.norm2, strict=True):
            x = x + self.dropout(attend(norm1(x), norm1(x if memory is None else memory), mask))
            x = x + self.dropout(feed(norm2(x)))
        return self.last(x)

    def _embed(self, stream: Stream) -> Tensor:
        steps, width = stream.x.shape[1:]
        places = positions(steps, width, stream.x.device).to(stream.x.dtype)
        return self.embed_dropout(stream.x * width**0.5 + places)


class MulT(Fuser):
    presets: ClassVar = {"paper": {"width": 30, "depth": 5, "heads": 5}}

    def __init__(
        self,
        spec: Spec,
        *,
        width: Annotated[int, Choice(32, 64, 128), "width of a modality's tokens; released: 30"] = 32,
        depth: Annotated[int, Range(1, 5), "layers of a crossmodal transformer; released: 5"] = 2,
        heads: Annotated[int, Choice(1, 4, 8), "attention heads"] = 4,
        dropout: Annotated[float, Range(0.0, 0.3), "dropout on residual branches and in feed-forward parts"] = 0.1,
        embed_dropout: Annotated[float, Range(0.0, 0.3), "dropout on embedded tokens"] = 0.25,
        causal: Annotated[bool, Choice(True, False), "attention does not look ahead"] = True,
        readout: Annotated[str, Choice("last", "mean"), "how a clip is read: last real step or mean"] = "last",
    ):
        super().__init__(spec)
        if readout not in ("last", "mean"):
            raise UsageError(f"mult: readout is last or mean, not {readout!r}")
        self.readout = readout
        self.project = Projections(spec, width)
        self.pairs = list(permutations(spec.dims, 2)) or [(m, m) for m in spec.dims]  # (target, source)
        wide = width * len(self.pairs) // len(spec.dims)

        def stack(size: int, layers: int) -> _Stack:
            return _Stack(size, layers, heads, dropout, embed_dropout, causal)

        self.cross = nn.ModuleList(stack(width, depth) for _ in self.pairs)
        self.memory = nn.ModuleDict({m: stack(wide, max(3, depth)) for m in spec.dims})
        total = wide * len(spec.dims)
        self.residual = nn.Sequential(nn.Linear(total, total), nn.ReLU(), nn.Linear(total, total))
        self.answer = nn.Linear(total, spec.out)

    def forward(self, streams: Streams) -> Tensor:
        tokens = self.project(streams)
        crossed: dict[str, list[Tensor]] = {m: [] for m in tokens}
        for (target, source), stack in zip(self.pairs, self.cross, strict=True):
            crossed[target].append(stack(tokens[target], tokens[source]))
        read = []
        for m, stack in self.memory.items():
            mask = tokens[m].mask
            wide = Stream(torch.cat(crossed[m], -1), mask)
            read.append(self._read(Stream(stack(wide), mask)))  # (B, S, (M - 1) * width)
        fused = torch.cat(read, -1)
        return self.answer(fused + self.residual(fused))

    def _read(self, stream: Stream) -> Tensor:
        if self.readout == "last" and not self.spec.per_frame:
            place = torch.arange(1, stream.mask.shape[1] + 1, device=stream.mask.device)
            stream = Stream(stream.x, stream.mask & (place == _length(stream.mask)[:, None]))
        return self.pool(stream).x

    @classmethod
    def from_released(cls, state_dict: Mapping[str, Tensor], *, heads: int = 5) -> MulT:
        """The authors' checkpoint as a fuser of the modalities `l`, `a` and `v` (language, audio, vision), for clips.

        Sizes are inferred (heads leave no trace in a checkpoint). Features of the tokens' width are not projected, as
        there. One value a clip comes out for one output, else logits of classes.

        Raises:
            UsageError: a name is unknown or missing.
        """
        given = translate(state_dict)
        depth = sum(name.startswith("cross.0.norm1.") and name.endswith("weight") for name in given)
        dims = {m: w.shape[1] for m in "lav" if (w := given.get(f"project.{m}.weight")) is not None}
        if len(dims) < 3 or not depth or "answer.weight" not in given:
            raise UsageError("not a released MulT of language, audio and vision: projections, layers or answer missing")
        width, out = given["project.l.weight"].shape[0], given["answer.weight"].shape[0]
        model = cls(Spec("classify" if out > 1 else "regress", dims, out), width=width, depth=depth, heads=heads)
        for m, dim in dims.items():
            if dim == width:
                model.project[m] = nn.Identity()
                del given[f"project.{m}.weight"], given[f"project.{m}.bias"]
        missing, unknown = model.load_state_dict(given, strict=False)
        if missing or unknown:
            state = f"{missing[0]} is missing" if missing else f"{unknown[0]} is unknown"
            raise UsageError(f"not a released MulT: {state} (in our names)")
        return model


def _length(mask: Tensor) -> Tensor:
    """(B,): the steps up to the last real one."""
    return (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).amax(1)

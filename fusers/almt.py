"""ALMT: at several scales the dominant modality asks the others, and their answers add up to a hyper-modality.

Haoyu Zhang, Yu Wang, Guanghao Yin, Kejun Liu, Yuanyuan Liu, Tianshu Yu, "Learning Language-guided Adaptive
Hyper-modality Representation for Multimodal Sentiment Analysis", EMNLP 2023. https://arxiv.org/abs/2310.05804

A transformer compresses each modality into a few tokens, which stand before its steps. The dominant modality's tokens
pass further layers; at each scale, before the first and after every one, they query all other modalities, with keys and
values of each modality's own, and the sum of the answers is added to the hyper-modality, which starts from a parameter
and is normalised at every scale. The dominant tokens of the last scale, behind a token of its own, then attend to the
hyper-modality behind the same token; a linear layer reads that token. All layers are pre-norm.

Compared with Haoyu-ha/ALMT@da94610, same weights, its learned positions set to our fixed ones: largest difference 0
in the answer. Not compared: BERT.

Ours: any number of modalities, any of them dominant; one modality alone asks itself. Positions are fixed sinusoids
(the authors: learned for one length, and noise at the start; so learned tokens start as noise here, there as zeros),
padding is no key, and an absent modality adds nothing to the hyper-modality.
Ours: the hyper-modality starts as noise; at the authors' start, all ones, the first norm's weight has no gradient.
Queries and keys start with Xavier's scale: with that of a linear layer attention is flat and they hardly learn.
Ours: per frame nothing is compressed: a modality's tokens are its frames, the hyper-modality starts alike at each, and
every frame of the dominant modality is read.
Ours: fewer and narrower heads by default; `paper` has the released sizes.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from fusionbench.api import Choice, Fuser, Projections, Range, Spec, Stream, Streams, attention, sinusoids

from ._attention import Attention, split
from ._dominant import dominant as find_dominant


class _Layer(nn.Module):
    """Attention to a memory (a norm for queries, keys and values each), then an MLP, both with skips."""

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.attend = Attention(width, heads, head_width=head_width)
        for part in (self.attend.query, self.attend.key):
            nn.init.xavier_uniform_(part.weight)
        self.norm_query, self.norm_key, self.norm_value, self.norm_feed = (nn.LayerNorm(width) for _ in range(4))
        self.feed = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        x = x + self.attend(self.norm_query(x), self.norm_key(memory), self.norm_value(memory), mask[:, None])
        return x + self.feed(self.norm_feed(x))


class _Scale(nn.Module):
    """What the dominant tokens find in every other modality, added to the normalised hyper-modality."""

    def __init__(self, others: list[str], width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_query, self.norm_hyper = nn.LayerNorm(width), nn.LayerNorm(width)
        self.norms = nn.ModuleDict({m: nn.LayerNorm(width) for m in others})
        self.query = nn.Linear(width, width, bias=False)
        self.keys = nn.ModuleDict({m: nn.Linear(width, width, bias=False) for m in others})
        self.values = nn.ModuleDict({m: nn.Linear(width, width, bias=False) for m in others})
        self.out = nn.Linear(width, width)
        for part in (self.query, *self.keys.values()):
            nn.init.xavier_uniform_(part.weight)

    def forward(self, asking: Tensor, others: Streams, hyper: Tensor) -> Tensor:
        q = split(self.query(self.norm_query(asking)), self.heads)
        found = torch.zeros_like(q)
        for m, stream in others.items():
            x = self.norms[m](stream.x)
            k, v = split(self.keys[m](x), self.heads), split(self.values[m](x), self.heads)
            found = found + attention(q, k, v, stream.mask[:, None, None])
        return self.norm_hyper(hyper) + self.out(found.transpose(1, 2).flatten(2))


class ALMT(Fuser):
    presets: ClassVar = {
        "paper": {"width": 128, "tokens": 8, "scales": 3, "depth": 2, "heads": 8, "head_width": 64}  # for CMU-MOSI
    }

    def __init__(
        self,
        spec: Spec,
        *,
        dominant: Annotated[str, "the modality that asks; empty: text or language, else the first"] = "",
        width: Annotated[int, Choice(32, 64, 128), "width of every token"] = 64,
        tokens: Annotated[int, Range(1, 8), "tokens that a modality of a clip is compressed into"] = 4,
        scales: Annotated[int, Range(1, 4), "scales at which the dominant modality asks"] = 3,
        depth: Annotated[int, Range(1, 4), "layers of the last transformer"] = 2,
        heads: Annotated[int, Choice(2, 4, 8), "attention heads"] = 4,
        head_width: Annotated[int, Choice(8, 16, 64), "width of a head; width / heads where the dominant asks"] = 16,
    ):
        super().__init__(spec)
        self.dominant = find_dominant(spec, dominant, "almt")
        others = [m for m in spec.dims if m != self.dominant] or [self.dominant]

        def layers(count: int) -> nn.ModuleList:
            return nn.ModuleList(_Layer(width, heads, head_width) for _ in range(count))

        self.project = Projections(spec, width)
        self.compress = nn.ModuleDict({m: layers(1) for m in spec.dims})
        self.ask = nn.ModuleList(_Scale(others, width, heads) for _ in range(scales))
        self.refine = layers(scales - 1)
        self.fuse = layers(depth)
        self.hyper = nn.Parameter(torch.randn(1 if spec.per_frame else tokens, width))
        if not spec.per_frame:
            self.tokens = nn.ParameterDict({m: torch.randn(tokens, width) for m in spec.dims})
            self.answer_token = nn.Parameter(torch.randn(1, width))
        self.answer = nn.Linear(width, spec.out)

    def forward(self, streams: Streams) -> Tensor:
        short = {m: self._shorten(m, stream) for m, stream in self.project(streams).items()}
        asking, mask = _place(short[self.dominant].x), short[self.dominant].mask
        others = {m: s for m, s in short.items() if m != self.dominant} or short
        hyper = self.hyper.expand(*asking.shape[:2], -1)
        for scale, ask in enumerate(self.ask):
            if scale:
                asking = self.refine[scale - 1](asking, asking, mask)
            hyper = ask(asking, others, hyper)
        there = torch.stack([s.mask for s in short.values()]).any(0)
        if not self.spec.per_frame:
            first = self.answer_token.expand(len(hyper), -1, -1)
            asking, hyper = torch.cat([first, asking], 1), torch.cat([first, hyper], 1)
            there = torch.cat([torch.ones_like(there[:, :1]), there], 1)
        asking, hyper = _place(asking), _place(hyper)
        for layer in self.fuse:
            asking = layer(asking, hyper, there)
        return self.answer(asking if self.spec.per_frame else asking[:, :1])

    def _shorten(self, modality: str, stream: Stream) -> Stream:
        """The first outputs for a clip behind as many learned tokens; per frame those for the frames themselves."""
        layer = self.compress[modality][0]
        if self.spec.per_frame:
            x = _place(stream.x)
            return Stream(layer(x, x, stream.mask), stream.mask)
        tokens = self.tokens[modality].expand(len(stream), -1, -1)
        always = torch.ones_like(tokens[..., 0], dtype=torch.bool)
        x = _place(torch.cat([tokens, stream.x], 1))
        x = layer(x, x, torch.cat([always, stream.mask], 1))[:, : tokens.shape[1]]
        # The dominant modality asks even where it is absent: with what its learned tokens say.
        return Stream(x, always if modality == self.dominant else always & stream.present[:, None])


def _place(x: Tensor) -> Tensor:
    return x + sinusoids(x.shape[1], x.shape[2], x.device).to(x.dtype)

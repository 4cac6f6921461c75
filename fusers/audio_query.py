"""One cross-attention with the audio as the query: the query's tokens, what they attend to, and the others, averaged.

Augusma et al., "Multimodal Group Emotion Recognition In-the-wild Using Privacy-Compliant Features", ICMI 2023,
https://arxiv.org/abs/2312.05265.

A single attention from the audio to the video, concatenation with the tokens that went in, mean over steps, one linear
layer.

Compared with augusmaa/Emotiw2023@7e7d983: largest difference 1e-15 (the answers for audio and video on one clock, from
the same tokens).

Ours: the query is the modality called `audio` or `voice`; where there is none, it has to be named. All the others
together are its keys and values; a modality alone attends to itself. The mean over steps is taken of each part before
the concatenation, which is the same and needs no common clock. Steps are first projected to a common width,
where the released code has its encoders; no dropout on attention weights (released: 0.1).
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from fusionbench.api import Choice, Fuser, MultiHead, Projections, Spec, Stream, Streams, UsageError


class AudioQuery(Fuser):
    known_failures: ClassVar[dict[str, str]] = {
        "solves_xor": "its read-out is linear, and attention to one other modality only averages that modality's tokens"
    }

    def __init__(
        self,
        spec: Spec,
        *,
        query: Annotated[str, "the modality that asks; empty: audio or voice, or the only one"] = "",
        width: Annotated[int, Choice(64, 128, 256), "width of every token"] = 128,
        heads: Annotated[int, Choice(1, 2, 4), "attention heads"] = 1,
    ):
        super().__init__(spec)
        heard = [m for m in spec.dims if m in ("audio", "voice") or len(spec.dims) == 1]
        self.query = query or next(iter(heard), "")
        if self.query not in spec.dims:
            wrong = f"there is no modality {query!r}" if query else "neither audio nor voice is there"
            raise UsageError(f"audio_query: {wrong}: name the query, one of {', '.join(spec.dims)}")
        self.project = Projections(spec, width)
        self.cross = MultiHead(width, heads)
        self.answer = nn.Linear((len(spec.dims) + 1) * width, spec.out)

    def forward(self, streams: Streams) -> Tensor:
        tokens = self.project(streams)
        query = tokens[self.query]
        others = [s for m, s in tokens.items() if m != self.query]
        memory = torch.cat([s.x for s in others or [query]], 1)  # (B, sum of T, width)
        mask = torch.cat([s.mask for s in others or [query]], 1)
        attended = Stream(self.cross(query.x, memory, mask), query.mask)
        return self.answer(torch.cat([self.pool(s).x for s in [query, attended, *others]], -1))

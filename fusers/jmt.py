"""Joint Multimodal Transformer: every modality and their joint representation attend to one another, pair by pair.

Waligora et al., "Joint Multimodal Transformer for Emotion Recognition in the Wild", CVPRW 2024,
https://arxiv.org/abs/2403.10488.

As the released code with its self-attention read-out: one post-norm encoder a stream (no positional encoding), plain
cross-attention (no residual, no norm) for every ordered pair of streams with weights shared by query stream, then a
read-out over the pairs of each step of which the last token is kept. Attention is the ordinary softmax(Q K^T /
sqrt(d)) V of that code (the paper's equation has K Q^T). `JMT.from_released` loads its checkpoints.

Compared with PoloWlg/Joint-Multimodal-Transformer-6th-ABAW@691e278: largest difference 5e-13 (the fused representation
of two modalities, released sizes).

Ours: any number of modalities, masks; width 64 by default (released: 512 with one layer, one head and no dropout, the
preset `paper`); the read-out `mean` that does not depend on the order of the modalities; the shared head for classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional

from fusionbench.api import (
    Choice,
    Dropout,
    Encoder,
    Fuser,
    Head,
    MultiHead,
    Projections,
    Range,
    Spec,
    Stream,
    Streams,
    UsageError,
    align,
    masked_mean,
)

from ._jmt_released import translate


class JMT(Fuser):
    presets = {"paper": {"width": 512, "heads": 1, "depth": 1, "ffn": 512}}

    def __init__(
        self,
        spec: Spec,
        *,
        width: Annotated[int, Choice(64, 128, 256), "width of every token; released: 512"] = 64,
        depth: Annotated[int, Range(1, 3), "layers of each encoder"] = 1,
        heads: Annotated[int, Choice(1, 2, 4), "attention heads"] = 1,
        ffn: Annotated[int, Choice(0, 128, 512), "width of the feed-forward part; 0: the width of a token"] = 0,
        dropout: Annotated[float, Range(0.0, 0.5), "dropout in the encoders"] = 0.0,
        normalize: Annotated[bool, Choice(True, False), "scale every token to length one first"] = True,
        readout: Annotated[str, Choice("last", "mean"), "keep the last pairing's token, or their mean"] = "last",
        order: Annotated[str, "the modalities with commas, the last one is read; empty: the benchmark's order"] = "",
    ):
        super().__init__(spec)
        self.order = [m.strip() for m in order.split(",")] if order else list(spec.dims)
        if sorted(self.order) != sorted(spec.dims):
            raise UsageError(f"jmt: order names every modality once ({','.join(spec.dims)}), not {order!r}")
        if readout not in ("last", "mean"):
            raise UsageError(f"jmt: readout is last or mean, not {readout!r}")
        self.normalize, self.readout = normalize, readout
        joint = len(self.order)  # the joint stream's number; the modalities are 0, 1, ... in order
        self.pairs = [*permutations(range(joint), 2)]  # (query, key)
        self.pairs += [pair for m in range(joint) for pair in ((joint, m), (m, joint))]

        def encoder() -> Encoder:
            return Encoder(width, depth, heads, ffn or width, dropout)

        self.project = Projections(spec, width)
        self.joint = nn.Linear(joint * width, width)
        self.encoders = nn.ModuleList(encoder() for _ in range(joint + 1))
        self.cross = nn.ModuleList(MultiHead(width, heads) for _ in range(joint + 1))  # by query stream
        self.mix = encoder()
        self.read = MultiHead(width, heads)
        self.head = Head(width, spec.out) if spec.kind == "classify" else _Regressors(width, spec.out)

    def forward(self, streams: Streams) -> Tensor:
        return self.head(self.represent(streams))

    def represent(self, streams: Streams) -> Tensor:
        """(B, S, width): the fused representation that goes into the head."""
        projected = self.project(align(streams))
        parts = [projected[m] for m in self.order]
        if self.normalize:
            parts = [Stream(functional.normalize(s.x, dim=-1, eps=1e-6), s.mask) for s in parts]
        real = torch.stack([s.mask for s in parts]).any(0)  # (B, T): where the joint stream is
        parts.append(Stream(self.joint(torch.cat([s.x for s in parts], -1)), real))
        parts = [Stream(encode(s.x, s.mask), s.mask) for encode, s in zip(self.encoders, parts, strict=True)]
        # A step's pairings are a short sequence of tokens, (B, T, P, width); those without a query are masked.
        tokens = torch.stack([self.cross[q](parts[q].x, parts[k].x, parts[k].mask) for q, k in self.pairs], 2)
        mask = torch.stack([parts[q].mask for q, _ in self.pairs], 2)  # (B, T, P)
        fused = self._read_out(self.mix(tokens, mask), mask)
        return self.pool(Stream(fused, real)).x

    def _read_out(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """(B, T, P, width), (B, T, P) -> (B, T, width)."""
        if self.readout == "mean":
            return masked_mean(self.read(tokens, tokens, mask), mask, dim=2)
        after = mask.flip(-1).cumsum(-1).flip(-1)  # how many real pairings stand here or later
        last = (mask & (after == 1)).unsqueeze(-1)
        query = (tokens * last).sum(2, keepdim=True)  # (B, T, 1, width): only the kept token need ask
        return self.read(query, tokens, mask).squeeze(2)

    @classmethod
    def from_released(cls, state_dict: Mapping[str, Tensor], *, heads: int = 1) -> JMT:
        """The authors' checkpoint as a fuser of the modalities `v` (visual) and `a` (their second), per frame.

        Sizes are inferred (heads leave no trace in a checkpoint). Features already have the joint width: the projection
        is the identity. The head is no part of it (theirs, `final_encoder` and `out_layer1` are ignored): `represent`.

        Raises:
            UsageError: a name is unknown or missing.
        """
        given = translate(state_dict)
        depth = sum(name.startswith("mix.norm1.") and name.endswith("weight") for name in given)
        width = given["joint.weight"].shape[0] if "joint.weight" in given else 1
        ffn = given["mix.feedforward.0.0.weight"].shape[0] if depth else 0
        spec = Spec("regress", {"v": width, "a": width}, 2, per_frame=True)
        model = cls(spec, width=width, depth=depth, heads=heads, ffn=ffn)
        model.project = Projections(spec, width, lambda *_: nn.Identity())
        missing, unknown = model.load_state_dict(given, strict=False)
        if (missing := [name for name in missing if not name.startswith("head.")]) or unknown:
            state = f"{missing[0]} is missing" if missing else f"{unknown[0]} is unknown"
            raise UsageError(f"not a released JMT: {state} (in our names)")
        return model


class _Regressors(nn.ModuleList):
    """A separate network for each value: (..., width) -> (..., out)."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__(
            nn.Sequential(nn.Linear(width, 128), nn.ReLU(), Dropout(0.1), nn.Linear(128, 1)) for _ in range(out)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([head(x) for head in self], -1)

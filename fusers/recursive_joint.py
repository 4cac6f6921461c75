"""Recursive joint attention: recurrent layers, joint cross-attention applied again to its own output, recurrent layers.

R. Gnana Praveen, Eric Granger, Patrick Cardinal, "Recursive Joint Attention for Audio-Visual Fusion in Regression Based
Emotion Recognition", ICASSP 2023. https://arxiv.org/abs/2304.07958

Tokens of length one; a bidirectional LSTM for each modality, whose states and inputs a linear layer joins, brought to
length one again; the layer of `joint_attention`, whose output makes the joint representation of the next pass; the
concatenated result passes another such LSTM.

Compared with praveena2j/RecurrentJointAttentionwithLSTMs@ea196b3: largest difference 5e-15 (LSTMs, one pass and the
last LSTM, released depths, their mixing of steps made the identity).

Ours: the layer of `joint_attention` with its departures; the passes share their weights, as in the paper, and there are
two by default (released: one pass; each would have weights of its own); one LSTM layer by default (released: two, the
preset `paper`); no dropout between and after LSTM layers (released: 0.1 before the fusion); no audio-guided attention
over a feature map; the shared head. Clip streams of different lengths are first brought to one clock; the state stands
still over steps that are not there; a clip is read from the mean over its steps.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from fusionbench.api import Choice, Fuser, Head, Projections, Range, Spec, Stream, Streams, align

from ._joint_attention import JointCross


class _LSTM(nn.Module):
    """G sequences at once, each with weights of its own: (G, B, T, width_in), mask (G, B, T) -> (G, B, T, width)."""

    def __init__(self, groups: int, width_in: int, width: int) -> None:
        super().__init__()

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape).uniform_(-(width**-0.5), width**-0.5))

        self.input, self.state = parameter(groups, width_in, 4 * width), parameter(groups, width, 4 * width)
        self.bias, self.start = parameter(groups, 1, 4 * width), parameter(2, groups, 1, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        given = x @ self.input[:, None] + self.bias[:, None]  # (G, B, T, 4 * width)
        h, c = (s.expand(-1, x.shape[1], -1) for s in self.start)  # (G, B, width)
        states = []
        for t in range(x.shape[2]):
            enter, forget, new, leave = (given[:, :, t] + h @ self.state).chunk(4, -1)
            real = mask[:, :, t, None]
            c = torch.where(real, torch.sigmoid(forget) * c + torch.sigmoid(enter) * torch.tanh(new), c)
            h = torch.where(real, torch.sigmoid(leave) * torch.tanh(c), h)
            states.append(h)
        return torch.stack(states, 2)


class _Recurrent(nn.Module):
    """Both directions over each of G streams; a linear layer joins states and inputs; rows of length one.

    (G, B, T, width_in), mask (G, B, T) -> (G, B, T, width).
    """

    def __init__(self, groups: int, width_in: int, width: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            _LSTM(2 * groups, width if layer else width_in, width // 2) for layer in range(depth)
        )
        self.join = nn.ModuleList(nn.Linear(width_in + width, width) for _ in range(groups))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        out, both = x, torch.cat([mask, mask.flip(-1)])
        for layer in self.layers:
            forth, back = layer(torch.cat([out, out.flip(-2)]), both).chunk(2)
            out = torch.cat([forth, back.flip(-2)], -1)
        joined = [join(torch.cat(pair, -1)) for join, *pair in zip(self.join, x, out, strict=True)]
        return functional.normalize(torch.stack(joined), dim=-1, eps=1e-6)


class RecursiveJoint(Fuser):
    presets: ClassVar = {"paper": {"width": 512, "depth": 2, "passes": 1, "dropout": 0.6}}

    def __init__(
        self,
        spec: Spec,
        *,
        width: Annotated[int, Choice(64, 128, 256), "width of a modality and of the joint; released: 512"] = 64,
        depth: Annotated[int, Range(1, 2), "layers of each LSTM"] = 1,
        passes: Annotated[int, Range(1, 4), "times that the attention is applied"] = 2,
        dropout: Annotated[float, Range(0.0, 0.6), "dropout on correlations and on what they add"] = 0.1,
    ):
        super().__init__(spec)
        self.passes = passes
        self.project = Projections(spec, width)
        self.before = _Recurrent(len(spec.dims), width, width, depth)
        self.attend = JointCross(spec.dims, width, dropout)
        self.after = _Recurrent(1, len(spec.dims) * width, width, depth)
        self.head = Head(width, spec.out)

    def forward(self, streams: Streams) -> Tensor:
        fused, mask = self.fuse(self.project(align({m: streams[m] for m in self.spec.dims})))
        return self.head(self.pool(Stream(fused, mask)).x)

    def fuse(self, tokens: Streams) -> tuple[Tensor, Tensor]:
        """What goes into the head, (B, T, width), and where any modality is there, (B, T)."""
        masks = torch.stack([s.mask for s in tokens.values()])  # (M, B, T)
        x = functional.normalize(torch.stack([s.x for s in tokens.values()]), dim=-1, eps=1e-6)
        steps = {m: Stream(*s) for m, *s in zip(tokens, self.before(x, masks), masks, strict=True)}
        for _ in range(self.passes):
            steps = self.attend(steps)
        mask = masks.any(0)
        return self.after(torch.cat([s.x for s in steps.values()], -1)[None], mask[None])[0], mask

"""DLF: shared and specific features of every modality; language's specific ones attend to those of each other one.

Pan Wang, Qiang Zhou, Yawen Wu, Tianlong Chen, Jingtong Hu, "DLF: Disentangled-Language-Focused Multimodal Sentiment
Analysis", AAAI 2025. https://arxiv.org/abs/2412.12225

One transformer for all modalities gives shared features, one of its own each gives specific ones. Shared features pass
a transformer a modality; its last steps side by side answer through a residual layer. Language's specific features
attend to themselves, and to those of each other modality with language as the query; what comes out passes a further
transformer, and its last step answers as well. Sigmoid projections of all of these side by side, a residual layer and
a linear layer give the answer. All transformers are pre-norm and causal, with scaled inputs and fixed positions.
Training adds: the losses of the inner answers (language's three times); the error of tokens rebuilt from shared and
specific features, and of specific features extracted again from what was rebuilt; a penalty on positive cosines of a
step's shared and specific features; and a margin loss for which a sample's shared vectors, and those of samples with
the same label, are to be more alike than those of samples with other labels, by a margin that grows with the difference
of labels.

Compared with pwang322/DLF@251bf2c, same weights, complete aligned data: largest difference 2e-6 in features, 5e-7
in answers, 5e-7 in the three losses of training. Not compared: BERT, and the vectors that enter the margin loss.

Ours: any modality may lead in the place of language, with any number of others. Streams of different lengths are put
on one clock first (the authors: aligned data); projections are linear (convolutions of five steps).
Ours: padding is no key, the last step is the last real one of any modality that went in, and per frame every frame is
read. Rebuilding, penalty and inner answers count only where the modality is there.
Ours: margins compare means over time of shared features (the authors: all steps of one fixed length, flattened), per
frame with the mean label; labels are in units of their largest deviation from the batch's mean, about 3 on CMU-MOSI,
and two classes are one unit apart. Its time and memory grow with the cube of batch times modalities.
Ours: no dropout on the raw language features; parts of the released code whose output is unused are left out.
Ours: smaller and shallower by default; `paper` has the released sizes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from fusionbench.api import (
    Batch,
    Choice,
    Criterion,
    Dropout,
    Feedforward,
    Fuser,
    Projections,
    Range,
    Spec,
    Stream,
    Streams,
    align,
    masked_mean,
)

from ._attention import Attention
from ._dominant import dominant as find_dominant


class _Layer(nn.Module):
    """Pre-norm attention, with one norm for queries and memory, then a feed-forward part, both with skips."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attend = Attention(width, heads, bias=True, dropout=dropout)
        self.feed = Feedforward(width, 4 * width)
        self.norm, self.norm_feed = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        memory = self.norm(memory)
        x = x + self.attend(self.norm(x), memory, memory, mask)
        return x + self.feed(self.norm_feed(x))


class _Transformer(nn.Module):
    """A causal transformer over a stream, or from it to a memory on the same clock: (B, T, width)."""

    def __init__(self, width: int, depth: int, heads: int, attention_dropout: float, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(width, heads, attention_dropout) for _ in range(depth))
        self.last = nn.LayerNorm(width)
        self.dropout = Dropout(dropout)

    def forward(self, stream: Stream, memory: Stream | None = None) -> Tensor:
        mask = (stream if memory is None else memory).mask
        seen = torch.ones(mask.shape[1], mask.shape[1], dtype=torch.bool, device=mask.device).tril()
        seen = seen & mask[:, None]  # (B, Q, K)
        x = self._embed(stream)
        kept = None if memory is None else self._embed(memory)
        for layer in self.layers:
            x = layer(x, x if kept is None else kept, seen)
        return self.last(x)

    def _embed(self, stream: Stream) -> Tensor:
        steps, width = stream.x.shape[1:]
        return self.dropout(stream.x * width**0.5 + positions(steps, width, stream.x.device).to(stream.x.dtype))


def positions(steps: int, width: int, device: torch.device) -> Tensor:
    """(steps, width): sines, then cosines, of places counted from one, rates from 1 down to 1 / 10000."""
    half = width // 2
    rates = 10000.0 ** (-torch.arange(half, device=device) / max(1, half - 1))
    angles = torch.arange(1, steps + 1, device=device)[:, None] * rates
    return nn.functional.pad(torch.cat([angles.sin(), angles.cos()], 1), (0, width % 2))


class _Residual(nn.Module):
    """x plus an MLP of x."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.ReLU(), Dropout(dropout), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(x)


class Parts(NamedTuple):
    """The features of every modality; all streams are on one clock, (B, T, width)."""

    tokens: Streams
    specific: Streams
    shared: Streams


class Answers(NamedTuple):
    """The answer, and what the inner heads say: (B, S, out) each."""

    joint: Tensor
    shared: Tensor
    specific: dict[str, Tensor]
    there: dict[str, Tensor]  # where each modality's inner answer rests on something, (B, S)


class DLF(Fuser):
    presets: ClassVar = {
        "paper": {
            "width": 50,
            "depth": 2,
            "heads": 10,
            "dropout": 0.2,
            "attention_dropout": 0.3,
            "output_dropout": 0.5,
        }
    }

    def __init__(
        self,
        spec: Spec,
        *,
        dominant: Annotated[str, "the modality that leads; empty: text or language, else the first"] = "",
        width: Annotated[int, Choice(16, 32, 64), "width of every token"] = 32,
        depth: Annotated[int, Range(1, 3), "layers of a transformer; one more after a modality has been asked"] = 1,
        heads: Annotated[int, Choice(1, 2, 4), "attention heads"] = 4,
        dropout: Annotated[float, Range(0.0, 0.3), "dropout on what enters a transformer"] = 0.1,
        attention_dropout: Annotated[float, Range(0.0, 0.3), "dropout on attention weights"] = 0.1,
        output_dropout: Annotated[float, Range(0.0, 0.5), "dropout in residual layers"] = 0.2,
        rebuild: Annotated[float, Range(0.01, 1.0, log=True), "weight of the errors of what is rebuilt"] = 0.1,
        separate: Annotated[float, Range(0.001, 0.1, log=True), "weight of the cosine penalty and margins"] = 0.01,
    ):
        super().__init__(spec)
        self.dominant, self.rebuild, self.separate = find_dominant(spec, dominant, "dlf"), rebuild, separate
        everyone = list(spec.dims)

        def transformers(depths: dict[str, int]) -> nn.ModuleDict:
            size = (heads, attention_dropout, dropout)
            return nn.ModuleDict({m: _Transformer(width, layers, *size) for m, layers in depths.items()})

        asked = {m: depth for m in everyone if m != self.dominant}
        self.project = Projections(spec, width, lambda dim, w: nn.Linear(dim, w, bias=False))
        self.specific = transformers(dict.fromkeys(everyone, depth))
        self.shared = _Transformer(width, depth, heads, attention_dropout, dropout)
        self.decode = nn.ModuleDict({m: nn.Linear(2 * width, width, bias=False) for m in everyone})
        self.attend_shared = transformers(dict.fromkeys(everyone, depth))
        self.ask = transformers(asked)
        self.remember = transformers({m: depth + (m in asked) for m in everyone})
        self.compare = nn.ModuleDict({m: nn.Linear(width, width) for m in everyone})
        self.refine = nn.ModuleDict({m: _Residual(width, output_dropout) for m in everyone})
        self.answer_specific = nn.ModuleDict({m: nn.Linear(width, spec.out) for m in everyone})
        self.gate = nn.ModuleDict({m: nn.Linear(width, width) for m in everyone})
        total = len(everyone) * width
        self.refine_shared, self.refine_joint = _Residual(total, output_dropout), _Residual(2 * total, output_dropout)
        self.answer_shared, self.answer = nn.Linear(total, spec.out), nn.Linear(2 * total, spec.out)
        self.gate_shared = nn.Linear(total, total)

    def forward(self, streams: Streams) -> Tensor:
        return self.answers(self.parts(streams)).joint

    def parts(self, streams: Streams) -> Parts:
        own = {m: streams[m] for m in self.spec.dims}
        tokens = self.project(own if self.spec.per_frame else align(own))
        specific = {m: Stream(encode(tokens[m]), tokens[m].mask) for m, encode in self.specific.items()}
        return Parts(tokens, specific, {m: Stream(self.shared(s), s.mask) for m, s in tokens.items()})

    def answers(self, parts: Parts) -> Answers:
        common = [self._last(Stream(self.attend_shared[m](s), s.mask)).x for m, s in parts.shared.items()]
        shared = torch.cat(common, -1)  # (B, S, M * width)
        leading, fused, inner, there = parts.specific[self.dominant], [], {}, {}
        for m, stream in parts.specific.items():
            asked = leading
            if m != self.dominant:
                asked = Stream(self.ask[m](leading, stream), leading.mask | stream.mask)
            last = self._last(Stream(self.remember[m](asked), asked.mask))
            refined = self.refine[m](last.x)
            inner[m], there[m] = self.answer_specific[m](refined), last.mask
            fused.append(torch.sigmoid(self.gate[m](refined)))
        joint = torch.cat([*fused, torch.sigmoid(self.gate_shared(shared))], -1)
        answer = self.answer(self.refine_joint(joint))
        return Answers(answer, self.answer_shared(self.refine_shared(shared)), inner, there)

    def _last(self, stream: Stream) -> Stream:
        """The last real step of a clip, (B, 1, width); per frame every step."""
        if not self.spec.per_frame:
            place = stream.mask * torch.arange(1, stream.mask.shape[1] + 1, device=stream.mask.device)
            stream = Stream(stream.x, stream.mask & (place == place.amax(1, keepdim=True)))
        return self.pool(stream)

    def loss(self, batch: Batch, criterion: Criterion) -> Tensor:
        parts = self.parts(batch.streams)
        said = self.answers(parts)
        total = criterion(said.joint, batch) + criterion(said.shared, batch)
        for m, answers in said.specific.items():
            known = replace(batch, y_mask=batch.y_mask & said.there[m])
            total = total + (3.0 if m == self.dominant else 1.0) * criterion(answers, known)
        total = total + self.rebuild * self.restoration(parts)
        return total + self.separate * (self.overlap(parts) + self.margins(parts, batch))

    def restoration(self, parts: Parts) -> Tensor:
        """Squared errors of tokens rebuilt from both kinds of features, and of the specific features of those."""
        errors = []
        for m, tokens in parts.tokens.items():
            both = torch.cat([parts.specific[m].x, parts.shared[m].x], -1)
            rebuilt = Stream(self.decode[m](both), tokens.mask)
            again = self.specific[m](rebuilt)
            for guess, target in ((rebuilt.x, tokens.x), (again, parts.specific[m].x)):
                errors.append(masked_mean((guess - target).square().mean(-1), tokens.mask, (0, 1)))
        return torch.stack(errors).sum()

    def overlap(self, parts: Parts) -> Tensor:
        """The mean positive cosine of a step's specific and shared features, summed over modalities."""
        positive = []
        for m, specific in parts.specific.items():
            cosine = (_unit(specific.x) * _unit(parts.shared[m].x)).sum(-1)
            positive.append(masked_mean(cosine.clamp(min=0.0), specific.mask, (0, 1)))
        return torch.stack(positive).sum()

    def margins(self, parts: Parts, batch: Batch) -> Tensor:
        """The margin loss between the shared vectors of all samples and modalities that are there and labelled."""
        vectors = [self.compare[m](masked_mean(s.x, s.mask)) for m, s in parts.shared.items()]
        labelled = batch.y_mask.any(1)
        valid = torch.cat([s.present & labelled for s in parts.shared.values()])  # (M * B,)
        apart = label_distances(batch, self.spec).repeat(len(vectors), len(vectors))
        return margin_loss(torch.cat(vectors), 0.45 * apart, valid)


def label_distances(batch: Batch, spec: Spec) -> Tensor:
    """(B, B): how far apart the samples' labels are, per frame their means over the labelled frames.

    Values: the mean absolute difference over outputs, each in units of its largest deviation from the batch's mean.
    Classes: half the summed difference of their shares, one for two different classes.
    """
    if spec.kind == "classify":
        shares = (batch.y.unsqueeze(-1) == torch.arange(spec.out, device=batch.y.device)).float()
        means = masked_mean(shares, batch.y_mask)  # (B, out)
        return (means[:, None] - means).abs().sum(-1) / 2
    means, known = masked_mean(batch.y.float(), batch.y_mask), batch.y_mask.any(1)
    off = (means - masked_mean(means, known, 0)).abs() * known[:, None]
    return ((means[:, None] - means).abs() / off.amax(0).clamp(min=1e-6)).mean(-1)


def margin_loss(vectors: Tensor, margins: Tensor, valid: Tensor) -> Tensor:
    """The mean of max(0, margin - cosine with a like vector + cosine with an unlike one).

    Over all pairs of one of each for an anchor, then over the anchors that have both.

    Args:
        vectors: (R, width).
        margins: (R, R), zero where labels are the same.
        valid: (R,), which vectors count.
    """
    unit = _unit(vectors)
    cosine = unit @ unit.T
    pair = valid[:, None] & valid & ~torch.eye(len(valid), dtype=torch.bool, device=valid.device)
    like, unlike = pair & (margins < 1e-6), pair & (margins >= 1e-6)
    excess = (margins + cosine)[:, None] - cosine[:, :, None]  # (anchor, like, unlike)
    both = like[:, :, None] & unlike[:, None]
    total = (excess.clamp(min=0.0) * both).sum((1, 2))
    count = both.sum((1, 2))
    return (total / count.clamp(min=1)).sum() / (count > 0).sum().clamp(min=1)


def _unit(x: Tensor) -> Tensor:
    return x * (x.square().sum(-1, keepdim=True) + 1e-8).rsqrt()

"""EMT-DLFR: one global token a modality and the modalities' own tokens promote each other, also where steps are lost.

Licai Sun, Zheng Lian, Bin Liu, Jianhua Tao, "Efficient Multimodal Transformer with Dual-Level Feature Restoration for
Robust Multimodal Sentiment Analysis", IEEE Transactions on Affective Computing 2023. https://arxiv.org/abs/2208.07589

The global tokens are the modalities' utterance vectors. In every layer each modality's tokens attend to the global
tokens, then to each other, then pass a gated feed-forward part, and so do the global tokens with that modality's tokens
as the memory; the M versions of the global tokens that result are pooled by attention over versions. One set of weights
serves both directions, all modalities and all layers, as released. The head reads utterance vectors and global tokens.
Training sees every sample twice, complete and with steps erased at random. Both views are to be answered; what was
erased is reconstructed from the tokens that stand in its place (smooth L1); and as in SimSiam the two views' utterance
vectors and global tokens predict each other through a projector and a predictor, the target without its gradient.

Compared with sunlicai/EMT-DLFR@e9f0960, same weights: the transformer with padding, largest difference 1e-6; projector,
predictor and the two restoration losses, 3e-7. Not compared: its BERT and LSTM encoders, which we do not have.

Ours: tokens are linear projections of the steps plus fixed positions, and an utterance vector is their mean over real
steps (the authors: BERT, LSTM). Every width is `width`, a siamese predictor is half as wide (the authors: as global
tokens), and the head's hidden layers are twice as wide.
Ours: an erased step, like a missing one, is no key of any attention; its token is its position alone. In the authors'
data it is a vector of zeros that attention still sees. Missing steps are no targets of the reconstruction, an absent
modality none of the attraction, and both are left out of the batch's statistics.
Ours: the share of steps to erase is drawn for each modality of each sample, so that one model serves all shares. The
authors train one for every share.
Ours: biases that batch norm or softmax would take away at once are left out.
Ours: per frame the head reads the modalities' promoted tokens of that frame in place of their utterance vectors.
Ours: narrower, with fewer layers and less dropout by default; `paper` has the released sizes for CMU-MOSI.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, smooth_l1_loss

from fusionbench.api import (
    Batch,
    Choice,
    Criterion,
    Dropout,
    Fuser,
    Projections,
    Range,
    Spec,
    Stream,
    Streams,
    keyed,
    masked_mean,
    sinusoids,
)

from ._attention import Attention


class _Promotion(nn.Module):
    """Pre-norm with skips: attention to a memory, self-attention, feed-forward part with a GELU gate.

    x (B, Q, width), memory (B, K, width); their masks (B, 1, Q) and (B, 1, K), or None where all is real.
    """

    def __init__(self, width: int, heads: int, dropout: float, feed_dropout: float) -> None:
        super().__init__()
        self.cross, self.own = (Attention(width, heads, dropout=dropout) for _ in range(2))
        self.norm_cross, self.norm_memory, self.norm_own, self.norm_feed = (nn.LayerNorm(width) for _ in range(4))
        self.widen, self.narrow = nn.Linear(width, 8 * width), nn.Linear(4 * width, width)
        self.dropout = Dropout(feed_dropout)

    def forward(self, x: Tensor, mask: Tensor | None, memory: Tensor, memory_mask: Tensor | None) -> Tensor:
        memory = self.norm_memory(memory)
        x = x + self.cross(self.norm_cross(x), memory, memory, memory_mask)
        normal = self.norm_own(x)
        x = x + self.own(normal, normal, normal, mask)
        value, gate = self.widen(self.norm_feed(x)).chunk(2, -1)
        return x + self.dropout(self.narrow(value * gelu(gate)))


class _Siamese(nn.Module):
    """SimSiam (Chen and He 2021): how well each view's projection is predicted from the other's."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, width, bias=False)
        self.first, self.second = nn.Linear(width, hidden, bias=False), nn.Linear(hidden, width)
        self.scale, self.shift = nn.Parameter(torch.ones(hidden)), nn.Parameter(torch.zeros(hidden))

    def forward(self, views: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        """Minus the mean cosine over the samples of `mask` (B,) and both directions; views (B, width)."""
        z, p = [], []
        for view in views:
            z.append(standardise(self.project(view), mask))
            p.append(self.second(torch.relu(standardise(self.first(z[-1]), mask) * self.scale + self.shift)))
        alike = (_cosine(p[0], z[1].detach()) + _cosine(p[1], z[0].detach())) / 2
        return -masked_mean(alike, mask, 0)


def standardise(x: Tensor, mask: Tensor) -> Tensor:
    """Batch norm without affine part: x (B, D) by mean and variance over the samples of `mask` (B,)."""
    centred = x - masked_mean(x, mask, 0)
    return centred * (masked_mean(centred.square(), mask, 0) + 1e-5).rsqrt()


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1) * ((a.square().sum(-1) + 1e-8) * (b.square().sum(-1) + 1e-8)).rsqrt()


class View(NamedTuple):
    """What one view of the samples gives."""

    answers: Tensor  # (B, S, out)
    utterances: dict[str, Tensor]  # modality -> (B, width)
    context: Tensor  # (B, M * width), the global tokens
    local: dict[str, Tensor]  # modality -> (B, T, width), the promoted tokens


class EMTDLFR(Fuser):
    presets: ClassVar = {
        "paper": {"width": 128, "depth": 3, "heads": 4, "dropout": 0.3, "feed_dropout": 0.1}  # for CMU-MOSI
    }

    def __init__(
        self,
        spec: Spec,
        *,
        width: Annotated[int, Choice(32, 64, 128), "width of every token"] = 32,
        depth: Annotated[int, Range(1, 4), "layers, all with the same weights"] = 2,
        heads: Annotated[int, Choice(1, 2, 4), "attention heads"] = 4,
        dropout: Annotated[float, Range(0.0, 0.3), "dropout on attention weights and before the head"] = 0.1,
        feed_dropout: Annotated[float, Range(0.0, 0.3), "dropout after feed-forward parts"] = 0.1,
        erase: Annotated[float, Range(0.1, 1.0), "largest share of steps erased in the incomplete view"] = 0.5,
        attraction: Annotated[float, Range(0.1, 2.0), "weight of complete view and attraction"] = 1.0,
        reconstruction: Annotated[float, Range(0.1, 2.0), "weight of the error on erased steps"] = 1.0,
    ):
        super().__init__(spec)
        self.depth, self.erase, self.attraction, self.reconstruction = depth, erase, attraction, reconstruction
        total = len(spec.dims) * width
        self.project = Projections(spec, width)
        self.promote = _Promotion(width, heads, dropout, feed_dropout)
        self.versions = nn.Sequential(nn.Linear(total, total), nn.Tanh(), nn.Linear(total, 1, bias=False))
        self.head = nn.Sequential(
            Dropout(dropout),
            nn.Linear(2 * total, 2 * width),
            nn.ReLU(),
            nn.Linear(2 * width, 2 * width),
            nn.ReLU(),
            nn.Linear(2 * width, spec.out),
        )
        self.attract_utterance = nn.ModuleDict({m: _Siamese(width, max(1, width // 2)) for m in spec.dims})
        self.attract_context = _Siamese(total, width)
        self.reconstruct = nn.ModuleDict({m: nn.Linear(width, dim) for m, dim in spec.dims.items()})

    def forward(self, streams: Streams) -> Tensor:
        return self.view(streams).answers

    def loss(self, batch: Batch, criterion: Criterion) -> Tensor:
        partial = self._erase(batch.streams)
        whole, part = self.view(batch.streams), self.view(partial)
        there = {m: batch.streams[m].present for m in self.spec.dims}
        anything = torch.stack(list(there.values())).any(0)
        attract = self.attract_context((whole.context, part.context), anything)
        rebuild = torch.zeros_like(attract)
        for m, siamese in self.attract_utterance.items():
            attract = attract + siamese((whole.utterances[m], part.utterances[m]), there[m])
            target, erased = batch.streams[m].x.detach(), batch.streams[m].mask & ~partial[m].mask
            error = smooth_l1_loss(self.reconstruct[m](part.local[m]), target, reduction="none").mean(-1)
            rebuild = rebuild + masked_mean(error, erased, (0, 1))
        answered = criterion(part.answers, batch) + self.attraction * criterion(whole.answers, batch)
        return answered + self.attraction * attract + self.reconstruction * rebuild

    def view(self, streams: Streams) -> View:
        tokens = self.project(streams)
        utterances = {m: masked_mean(s.x, s.mask) for m, s in tokens.items()}
        context, local = self.exchange(
            torch.stack(list(utterances.values()), 1), {m: (s.x, s.mask) for m, s in tokens.items()}
        )
        context = context.flatten(1)
        if self.spec.per_frame:
            read = [Stream(local[m], s.mask).x for m, s in tokens.items()]
        else:
            read = [utterance.unsqueeze(1) for utterance in utterances.values()]
        everywhere = context.unsqueeze(1).expand(-1, read[0].shape[1], -1)  # (B, S, M * width)
        return View(self.head(torch.cat([*read, everywhere], -1)), utterances, context, local)

    def exchange(self, context: Tensor, tokens: dict[str, tuple[Tensor, Tensor]]) -> tuple[Tensor, dict[str, Tensor]]:
        """The promoted global tokens (B, M, width) and the modalities' promoted tokens (B, T, width).

        Args:
            context: global tokens (B, M, width).
            tokens: modality -> x (B, T, width), mask (B, T).
        """
        # Not Streams: the tokens of masked steps are their positions, and have to become what is missing there.
        local = {m: x + sinusoids(x.shape[1], x.shape[2], x.device).to(x.dtype) for m, (x, _) in tokens.items()}
        for _ in range(self.depth):
            versions = []
            for m, (_, mask) in tokens.items():
                promoted = self.promote(local[m], mask[:, None], context, None)
                versions.append(self.promote(context, None, local[m], mask[:, None]).flatten(1))
                local[m] = promoted
            stacked = torch.stack(versions, 1)  # (B, versions, M * width)
            pooled = (self.versions(stacked).softmax(1) * stacked).sum(1)
            context = pooled.unflatten(-1, context.shape[1:])
        return context, local

    def _erase(self, streams: Streams) -> Streams:
        """The incomplete view: of each modality of each sample a random share of the steps is gone."""
        left = {}
        for m in self.spec.dims:
            mask = streams[m].mask
            share = self.erase * keyed.draw((len(mask), 1), mask.device)
            left[m] = Stream(streams[m].x, mask & (keyed.draw(mask.shape, mask.device) >= share))
        return left

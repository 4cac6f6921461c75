"""Flex-MoE: a bank of learned tokens stands in for what is missing, and each combination is led to an expert.

Method: Flexible Mixture-of-Experts. Yun, Choi, Peng, Wu, Bao, Zhang, Xin, Long, Chen, "Flex-MoE: Modeling Arbitrary
Modality Combination via the Flexible Mixture-of-Experts", NeurIPS 2024, https://arxiv.org/abs/2410.08245.

Faithful: each modality gives tokens; those of a missing one come from a bank with an entry for each pair of observed
combination and missing modality; a transformer over all tokens has a sparse mixture of experts for its feed-forward
part: a noisy top-k gate, the same for all modalities. Complete samples train it as generalised router: their importance
and load over all experts are balanced (squared coefficients of variation). Incomplete ones train it as specialised
router: a cross-entropy sends them to the expert of their combination, and balance is asked of the experts but the
first. Both terms are added up over modalities, weight .01; the modalities' mean tokens side by side are answered by a
linear layer.
Compared with UNITES-Lab/flex-moe@8c82735, `AddtionalNoisyGate` over the gate of laekov/fastmoe@ee3c561, same weights
and noise: gates differ by 0, the loss in training by 1.4e-6 where it reaches 5.1. Its transformer was not compared.

Ours: residual connections around attention (the released layer adds the output of its attention to itself). A clip's
tokens are linear maps of its mean over real steps, per frame there is one a step (released: 16 patches of a vector).
Where there are fewer experts than combinations some share one, but none shares the first. A sample without any modality
is a combination too; it has an entry in the bank and no part in the gate's loss. Batches come in the usual order, while
the released first epochs sort samples by how complete they are. All experts are computed and the unwanted ones weigh
nothing: routing that depends on the data cannot be stacked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from fusionbench.api import (
    Batch,
    Choice,
    Dropout,
    Fuser,
    MultiHead,
    Projections,
    Range,
    Spec,
    Streams,
    keyed,
    masked_mean,
    softmax_over,
)

from ._combinations import count, look_up, rank


class Routing(NamedTuple):
    """What a gate says of tokens (..., experts): noisy scores, gates, and how surely an expert is among the chosen."""

    scores: Tensor
    gates: Tensor
    load: Tensor


def gate(clean: Tensor, spread: Tensor, noise: Tensor | None, active: int) -> Routing:
    """Noisy top-k gating (Shazeer et al. 2017, appendix A).

    Args:
        clean: scores without noise, (..., experts).
        spread: standard deviation of the noise, (..., experts).
        noise: standard normal draws, (..., experts); None outside training.
        active: how many experts share a token.
    """
    scores = clean if noise is None else clean + spread * noise
    top = scores.topk(min(active + 1, scores.shape[-1]), -1).values
    chosen = scores >= top[..., active - 1 : active]
    gates = softmax_over(scores, chosen)
    if noise is None or active >= scores.shape[-1]:
        return Routing(scores, gates, (gates > 0).to(gates.dtype))
    inside, outside = top[..., active : active + 1], top[..., active - 1 : active]
    # What a score has to beat: the next best of the others, which is another one for those that are in.
    rival = torch.where(scores > inside, inside, outside)
    return Routing(scores, gates, torch.special.ndtr((clean - rival) / spread))


def variation(total: Tensor) -> Tensor:
    """Squared coefficient of variation of (experts,) -> (); 0 for a single one."""
    if total.shape[-1] == 1:
        return total.new_zeros(())
    return total.var() / (total.mean().square() + 1e-10)


def router_loss(routing: Routing, target: Tensor, complete: Tensor, partial: Tensor) -> Tensor:
    """Balance over complete samples' tokens, and over partial ones' balance but the first expert, and their target.

    Args:
        routing: of tokens (..., experts).
        target: the expert of each token's combination, (...).
        complete, partial: (...) bool, tokens of samples with all modalities resp. with some.
    """
    right = routing.scores.log_softmax(-1).gather(-1, target.unsqueeze(-1)).squeeze(-1)
    total = -masked_mean(right.flatten(), partial.flatten(), 0)
    for part in (routing.gates, routing.load):
        flat = part.flatten(0, -2)
        total = total + variation((flat * complete.flatten()[:, None]).sum(0))
        total = total + variation((flat * partial.flatten()[:, None]).sum(0)[1:])
    return total


class FlexMoE(Fuser):
    presets: ClassVar = {
        "paper": {"width": 128, "tokens": 16, "heads": 4, "experts": 16, "active": 4, "dropout": 0.5, "routing": 0.01}
    }

    def __init__(
        self,
        spec: Spec,
        *,
        width: Annotated[int, Choice(64, 128, 256), "width of a token"] = 128,
        tokens: Annotated[int, Range(1, 16), "tokens of a modality of a clip"] = 4,
        heads: Annotated[int, Choice(1, 2, 4), "attention heads"] = 4,
        experts: Annotated[int, Range(2, 16), "experts in the pool"] = 8,
        active: Annotated[int, Range(1, 4), "experts that a token is sent to (at most all)"] = 2,
        dropout: Annotated[float, Range(0.0, 0.5), "dropout on residual branches"] = 0.1,
        routing: Annotated[float, Range(0.0, 0.1), "weight of the routers' losses"] = 0.01,
    ):
        super().__init__(spec)
        self.active, self.routing, self.experts_count = min(active, experts), routing, experts
        self.count = 1 if spec.per_frame else tokens
        modalities = len(spec.dims)
        self.project = Projections(spec, self.count * width)
        self.bank = nn.Parameter(torch.randn(count(spec, "flex_moe"), modalities, self.count, width))
        self.place = nn.Parameter(torch.zeros(modalities * self.count, width))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attend = MultiHead(width, heads)
        self.dropout = Dropout(dropout)
        self.score = nn.Linear(width, experts, bias=False)
        self.spread = nn.Linear(width, experts, bias=False)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)) for _ in range(experts)
        )
        self.answer = nn.Linear(modalities * width, spec.out)

    def forward(self, streams: Streams) -> Tensor:
        return self._fuse(streams)[0]

    def loss(self, batch: Batch, criterion: Callable[[Tensor, Batch], Tensor]) -> Tensor:
        answers, routing, mask = self._fuse(batch.streams)
        there = mask.sum(-1)
        complete = (there == mask.shape[-1])[..., None].expand(-1, -1, self.count)  # (B, S, tokens of a modality)
        partial = ((there > 0) & (there < mask.shape[-1]))[..., None].expand(-1, -1, self.count)
        target = self.expert(rank(mask))[..., None].expand(-1, -1, self.count)
        total = criterion(answers, batch)
        for m in range(mask.shape[-1]):
            own = slice(m * self.count, (m + 1) * self.count)
            part = Routing(*(values[..., own, :] for values in routing))
            total = total + self.routing * router_loss(part, target, complete, partial)
        return total

    def expert(self, index: Tensor) -> Tensor:
        """The expert of a combination: 0 for the complete one, the others in turn for the incomplete ones."""
        return torch.where(index > 0, 1 + (index - 1) % (self.experts_count - 1), 0)

    def tokens(self, streams: Streams) -> tuple[Tensor, Tensor]:
        """All modalities' tokens (B, S, M * tokens, width), from the bank where absent, and who is there (B, S, M)."""
        steps = [self.pool(stream) for stream in self.project(streams).values()]
        mask = torch.stack([s.mask for s in steps], -1)
        own = torch.stack([s.x for s in steps], 2).unflatten(-1, (self.count, -1))  # (B, S, M, tokens, width)
        filled = torch.where(mask[..., None, None], own, look_up(self.bank, rank(mask)).to(own.dtype))
        return filled.flatten(2, 3) + self.place, mask

    def _fuse(self, streams: Streams) -> tuple[Tensor, Routing, Tensor]:
        x, mask = self.tokens(streams)
        normal = self.norm1(x)
        x = x + self.dropout(self.attend(normal, normal))
        normal = self.norm2(x)
        clean, spread = self.score(normal).float(), softplus(self.spread(normal).float()) + 1e-2
        noise = keyed.draw(clean.shape, clean.device, "normal") if self.training else None
        routing = gate(clean, spread, noise, self.active)
        mixed = torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            mixed = mixed + routing.gates[..., i : i + 1].to(x.dtype) * expert(normal)
        x = x + self.dropout(mixed)
        read = x.unflatten(2, (-1, self.count)).mean(3)  # (B, S, M, width)
        return self.answer(read.flatten(-2)), routing, mask

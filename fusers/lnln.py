"""LNLN: one modality leads; a proxy made from the others steps in for it as far as it is judged to be incomplete.

Method: Language-dominated Noise-resistant Learning Network. Zhang, Wang, Yu, "Towards Robust Multimodal Sentiment
Analysis with Incomplete Data", NeurIPS 2024, https://arxiv.org/abs/2409.20012.

The dominant modality is declared (`dominant`): by default `text` or `language` where there is one, else the first in
the benchmark's order.

Faithful: pre-norm transformers turn each modality's steps into a few tokens. One more judges the completeness w of the
dominant modality's, another makes a proxy of the others' tokens and of learned ones; the dominant tokens become
w h + (1 - w) proxy. From each layer of a transformer over them a hyper-modality gathers what the others say (one
attention a modality, summed), and in the end they attend to it; their mean is answered by a linear layer. Training sees
the data with steps zeroed, at a rate that each sample and modality draws from [0, 1), about half of them being left
whole. Its loss adds the squared error of w against one minus the dominant rate (weight .9), that of tokens rebuilt by a
transformer a modality against those of the whole data (.1), and a discriminator's cross-entropy between the mended and
the whole data's dominant tokens, its gradient reversed on the way to the proxy (.8).
Compared with Haoyu-ha/LNLN@80a052c, the whole network behind the language model and its three further losses, same
weights (the released initial values replaced by random ones): largest difference 1.5e-7.

Ours: whatever is absent is no key, and w = 0 where the dominant modality is absent. Positions of steps are fixed and
scaled; learned tokens and positions start with an SD of .1 (the released 1 keeps it from learning exclusive-or at our
number of steps). Per frame a modality's tokens are linear maps of what its transformer says at that step, and the rest
happens at each step. The gradient is reversed on the way from the discriminator only: the released code reverses the
task's own gradient to the proxy as well. Zeroed text becomes zeros, not an unknown word. The target token of the last
attention that the released code computes and leaves out is not computed. A lone modality is its own companion.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from fusionbench.api import (
    Batch,
    Choice,
    Fuser,
    Projections,
    Range,
    Spec,
    Stream,
    Streams,
    UsageError,
    attention,
    keyed,
    masked_mean,
    reverse_gradient,
    sinusoids,
)


class _Attention(nn.Module):
    """Multi-head attention that normalises queries, keys and values each for itself; (..., Q, width)."""

    def __init__(self, width: int, heads: int, head: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_query, self.norm_key, self.norm_value = (nn.LayerNorm(width) for _ in range(3))
        self.query, self.key, self.value = (nn.Linear(width, heads * head, bias=False) for _ in range(3))
        self.out = nn.Linear(heads * head, width)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        query = self.query(self.norm_query(x))
        key, value = self.key(self.norm_key(memory)), self.value(self.norm_value(memory))
        parts = [part.unflatten(-1, (self.heads, -1)).transpose(-3, -2) for part in (query, key, value)]
        seen = None if mask is None else mask[..., None, None, :]
        return self.out(attention(parts[0], parts[1], parts[2], seen).transpose(-3, -2).flatten(-2))


class _Layer(nn.Module):
    """Pre-norm attention to a memory (to itself unless given) and feed-forward, both residual."""

    def __init__(self, width: int, heads: int, head: int) -> None:
        super().__init__()
        self.attend = _Attention(width, heads, head)
        self.feed = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, x: Tensor, mask: Tensor | None = None, memory: Tensor | None = None) -> Tensor:
        x = x + self.attend(x, x if memory is None else memory, mask)
        return x + self.feed(x)


class _Transformer(nn.ModuleList):
    """Layers of self-attention: (..., N, width), mask (..., N) -> (..., N, width)."""

    def __init__(self, depth: int, width: int, heads: int, head: int) -> None:
        super().__init__(_Layer(width, heads, head) for _ in range(depth))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for layer in self:
            x = layer(x, mask)
        return x


class _Hyper(nn.Module):
    """hyper <- norm(hyper) + what the dominant tokens gather from every other modality's, one attention each."""

    def __init__(self, others: list[str], width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_query, self.norm_hyper = nn.LayerNorm(width), nn.LayerNorm(width)
        self.norms = nn.ModuleDict({m: nn.LayerNorm(width) for m in others})
        self.query = nn.Linear(width, width, bias=False)
        self.keys = nn.ModuleDict({m: nn.Linear(width, width, bias=False) for m in others})
        self.values = nn.ModuleDict({m: nn.Linear(width, width, bias=False) for m in others})
        self.out = nn.Linear(width, width)

    def forward(self, hyper: Tensor, dominant: Tensor, others: dict[str, tuple[Tensor, Tensor]]) -> Tensor:
        query = self._split(self.query(self.norm_query(dominant)))
        gathered = []
        for m, (tokens, there) in others.items():
            normal = self.norms[m](tokens)
            key, value = self._split(self.keys[m](normal)), self._split(self.values[m](normal))
            gathered.append(attention(query, key, value, there[..., None, None, None]))
        total = torch.stack(gathered).sum(0)
        return self.norm_hyper(hyper) + self.out(total.transpose(-3, -2).flatten(-2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)


#: Each modality's tokens (B, S, N, width), and where it is there (B, S).
Tokens = dict[str, tuple[Tensor, Tensor]]


class Mended(NamedTuple):
    """Dominant tokens as mended, and what they are made of, (B, S, N, width); completeness (B, S)."""

    tokens: Tensor
    own: Tensor
    proxy: Tensor
    complete: Tensor


class LNLN(Fuser):
    presets: ClassVar = {"paper": {"width": 128, "tokens": 8, "depth": 2, "heads": 8, "head": 64, "hyper": 3}}

    def __init__(
        self,
        spec: Spec,
        *,
        dominant: Annotated[str, "the modality that leads; empty: text or language, else the first"] = "",
        width: Annotated[int, Choice(64, 128, 256), "width of a token"] = 64,
        tokens: Annotated[int, Range(1, 8), "tokens of a modality"] = 2,
        depth: Annotated[int, Range(1, 2), "layers of each transformer"] = 1,
        heads: Annotated[int, Choice(1, 2, 4), "attention heads"] = 4,
        head: Annotated[int, Choice(16, 32, 64), "width of an attention head"] = 16,
        hyper: Annotated[int, Range(1, 3), "layers that gather the hyper-modality (at most depth + 1)"] = 2,
        completeness: Annotated[float, Range(0.1, 1.0), "weight of the completeness loss"] = 0.9,
        adversary: Annotated[float, Range(0.1, 1.0), "weight of the discriminator's loss"] = 0.8,
        rebuild: Annotated[float, Range(0.01, 1.0, log=True), "weight of the reconstruction loss"] = 0.1,
    ):
        super().__init__(spec)
        if dominant and dominant not in spec.dims:
            raise UsageError(f"lnln: there is no modality {dominant!r} to be dominant, only {', '.join(spec.dims)}")
        named = [m for m in ("text", "language") if m in spec.dims]
        self.dominant = dominant or [*named, *spec.dims][0]
        self.others = [m for m in spec.dims if m != self.dominant] or [self.dominant]
        self.completeness, self.adversary, self.rebuild, self.count = completeness, adversary, rebuild, tokens

        def transformer() -> _Transformer:
            return _Transformer(depth, width, heads, head)

        def learned(number: int) -> nn.Parameter:
            return nn.Parameter(0.1 * torch.randn(number, width))

        self.project = Projections(spec, width)
        if spec.per_frame:
            self.split = nn.ModuleDict({m: nn.Linear(width, tokens * width) for m in spec.dims})
        else:
            self.extra = nn.ParameterDict({m: learned(tokens) for m in spec.dims})
        self.encoders = nn.ModuleDict({m: transformer() for m in spec.dims})
        self.judge_start, self.judge_place, self.judge = learned(1), learned(tokens), transformer()
        self.judged = _network(width, 1)
        self.proxy_start, self.proxy_place = learned(2 * tokens), learned(len(self.others) * tokens)
        self.proxy = transformer()
        self.lead_place, self.lead = learned(tokens), transformer()
        self.hyper_start = learned(tokens)
        self.hyper = nn.ModuleList(_Hyper(self.others, width, heads) for _ in range(min(hyper, depth + 1)))
        self.source_start, self.source_place, self.target_place = learned(1), learned(tokens), learned(tokens)
        self.cross = transformer()
        self.answer = nn.Linear(width, spec.out)
        self.rebuild_place = nn.ParameterDict({m: learned(tokens) for m in spec.dims})
        self.rebuilders = nn.ModuleDict({m: transformer() for m in spec.dims})
        self.discriminator = _network(width, 2)

    def forward(self, streams: Streams) -> Tensor:
        tokens = self.tokens(streams)
        return self.respond(self.mend(tokens), tokens)

    def loss(self, batch: Batch, criterion: Callable[[Tensor, Batch], Tensor]) -> Tensor:
        damaged, rate = self._damage(batch.streams)
        tokens, whole = self.tokens(damaged), self.tokens(batch.streams)
        mended = self.mend(tokens)
        total = criterion(self.respond(mended, tokens), batch)
        there = whole[self.dominant][1]  # (B, S)
        error = masked_mean((mended.complete - (1 - rate[:, None])).square(), there, (0, 1))
        total = total + self.completeness * error
        total = total + self.rebuild * self._rebuild_error(tokens, whole)
        return total + self.adversary * self._adversary_error(mended, whole[self.dominant][0], there)

    def tokens(self, streams: Streams) -> Tokens:
        found = {}
        for m, stream in self.project(streams).items():
            x, mask = stream.x, stream.mask
            # Scaled, or the positions drown what the steps say (Vaswani et al. 2017, section 3.4).
            x = x * x.shape[-1] ** 0.5 + sinusoids(*x.shape[1:], x.device).to(x.dtype)
            if self.spec.per_frame:
                found[m] = (self.split[m](self.encoders[m](x, mask)).unflatten(-1, (self.count, -1)), mask)
            else:
                x = torch.cat([self.extra[m].expand(len(x), -1, -1), x], 1)
                x = self.encoders[m](x, torch.cat([_always(mask[:, :1], self.count), mask], 1))
                found[m] = (x[:, : self.count].unsqueeze(1), stream.present.unsqueeze(1))
        return found

    def mend(self, tokens: Tokens) -> Mended:
        """The dominant tokens, replaced by the proxy as far as they are judged to be incomplete."""
        own, there = tokens[self.dominant]
        judged = self.judge(_before(self.judge_start, own + self.judge_place))[..., 0, :]
        complete = self.judged(judged).squeeze(-1).sigmoid() * there
        others = torch.cat([tokens[m][0] for m in self.others], -2) + self.proxy_place
        seen = torch.stack([tokens[m][1] for m in self.others], -1).repeat_interleave(self.count, -1)
        seen = torch.cat([_always(seen[..., :1], 2 * self.count), seen], -1)
        proxy = self.proxy(_before(self.proxy_start, others), seen)[..., : self.count, :]
        w = complete[..., None, None]
        return Mended(w * own + (1 - w) * proxy, own, proxy, complete)

    def respond(self, mended: Mended, tokens: Tokens) -> Tensor:
        """(B, S, out)."""
        states = [mended.tokens + self.lead_place]
        for layer in self.lead:
            states.append(layer(states[-1]))
        hyper = self.hyper_start.expand_as(mended.tokens)
        for gather, state in zip(self.hyper, states, strict=False):
            hyper = gather(hyper, state, {m: tokens[m] for m in self.others})
        source, target = _before(self.source_start, hyper + self.source_place), states[-1] + self.target_place
        for layer in self.cross:
            target = layer(target, memory=source)
        return self.answer(target.mean(-2))

    def _damage(self, streams: Streams) -> tuple[Streams, Tensor]:
        """The streams with steps zeroed, and the dominant modality's rate (B,)."""
        damaged, rates = {}, {}
        for m in self.spec.dims:
            x, mask = streams[m].x, streams[m].mask
            draw = keyed.draw((len(x), 2), x.device)
            rates[m] = draw[:, 0] * (draw[:, 1] >= 0.5)
            kept = keyed.draw(mask.shape, x.device) >= rates[m][:, None]
            damaged[m] = Stream(x * kept.unsqueeze(-1), mask)
        return damaged, rates[self.dominant]

    def _rebuild_error(self, tokens: Tokens, whole: Tokens) -> Tensor:
        """Mean squared error of the tokens rebuilt from damaged data, over the modalities that are there."""
        errors, masks = [], []
        for m, rebuilder in self.rebuilders.items():
            rebuilt = rebuilder(tokens[m][0] + self.rebuild_place[m])
            errors.append((rebuilt - whole[m][0]).square().mean((-1, -2)))
            masks.append(whole[m][1])
        return masked_mean(torch.stack(errors), torch.stack(masks), (0, 1, 2))

    def _adversary_error(self, mended: Mended, whole: Tensor, there: Tensor) -> Tensor:
        """How badly mended tokens are told from whole ones; what the proxy is taught is to make that worse."""
        w = mended.complete[..., None, None]
        shown = w * mended.own + (1 - w) * reverse_gradient(mended.proxy, 1.0)
        told = self.discriminator(torch.stack([whole, shown])).log_softmax(-1)  # (2, B, S, N, 2)
        wrong = -(told[0, ..., 0] + told[1, ..., 1]).mean(-1) / 2
        return masked_mean(wrong, there, (0, 1))


def _network(width: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width // 2), nn.LeakyReLU(0.1), nn.Linear(width // 2, out))


def _before(start: Tensor, rest: Tensor) -> Tensor:
    """Learned tokens (N, width) before those of every sample and step (B, S, K, width)."""
    return torch.cat([start.expand(*rest.shape[:2], -1, -1), rest], -2)


def _always(like: Tensor, number: int) -> Tensor:
    """(..., number) True for a mask (..., 1)."""
    return torch.ones_like(like).expand(*like.shape[:-1], number)

"""The few layers that fusers share: masked attention, encoders, pooling, a common clock, the head.

Everything here works under `torch.func.vmap`: no data-dependent branch, no boolean indexing, no global random state.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fusionbench.api import keyed
from fusionbench.api.types import Spec, Stream, Streams

if TYPE_CHECKING:
    from collections.abc import Callable


def masked_mean(x: Tensor, mask: Tensor, dim: int | tuple[int, ...] = 1) -> Tensor:
    """Mean of x (B, T, ...) over `dim` where mask (B, T) is True; zeros where it never is."""
    weight = mask.to(x.dtype).reshape(*mask.shape, *[1] * (x.dim() - mask.dim()))
    return (x * weight).sum(dim) / weight.sum(dim).clamp(min=1.0)


def resample(stream: Stream, steps: int) -> Stream:
    """The stream on a clock of `steps` steps over the same span: masked average of what each new step overlaps.

    The time axes are proportional (step t of T covers t/T to (t+1)/T of the span, padding included). (B, T, *step) ->
    (B, steps, *step); the identity if T == steps. A new step is real if it overlaps a real one.
    """
    length = stream.x.shape[1]
    if length == steps:
        return stream
    edges = (torch.arange(steps + 1, device=stream.x.device, dtype=torch.float64) * length / steps).float()
    return _overlap(stream, edges[:-1], edges[1:])


def align(streams: Mapping[str, Stream]) -> Streams:
    """Clip streams on one clock. Streams of equal T share a clock already and stay as they are.

    Otherwise every sample's modalities are stretched, each from its own valid span (up to its last real step), to the
    longest span among them; so the amount of padding changes nothing (as long as it makes no lengths equal).
    All come out as (B, max T, *step).
    """
    lengths = [s.x.shape[1] for s in streams.values()]
    if len(set(lengths)) == 1:
        return dict(streams)
    steps = max(lengths)
    spans = {m: _span(s.mask) for m, s in streams.items()}  # (B,) each
    common = torch.stack(list(spans.values())).amax(0).clamp(min=1.0)
    place = torch.arange(steps + 1, device=common.device, dtype=torch.float32)
    inside = place[:-1] < common[:, None]  # (B, steps)
    aligned = {}
    for m, stream in streams.items():
        edges = place * spans[m][:, None] / common[:, None]  # (B, steps + 1)
        stretched = _overlap(stream, edges[:, :-1], edges[:, 1:])
        aligned[m] = Stream(stretched.x, stretched.mask & inside)
    return aligned


def _span(mask: Tensor) -> Tensor:
    return (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).amax(1).float()


def _overlap(stream: Stream, start: Tensor, end: Tensor) -> Stream:
    """Averages over the intervals [start, end) of (steps,) or (B, steps), weighted by overlap with real steps."""
    x, mask = stream.x, stream.mask
    old = torch.arange(x.shape[1], device=x.device, dtype=torch.float32)
    shared = torch.minimum(end[..., None], old + 1) - torch.maximum(start[..., None], old)
    weight = shared.clamp(min=0.0) * mask[:, None, :]  # (B, steps, T)
    # Spans end on whole steps up to rounding: a sliver of a neighbour is no overlap.
    weight = torch.where(weight > 1e-4, weight, 0.0)
    total = weight.sum(-1)
    weight = weight / total.clamp(min=1e-4)[..., None]
    flat = weight.to(x.dtype) @ x.reshape(*x.shape[:2], -1)
    return Stream(flat.reshape(*flat.shape[:2], *x.shape[2:]), total > 0)


def keep_some(mask: Tensor) -> Tensor:
    """Of the n modalities at a step (mask (B, S, M)) a random 1 to n; one keyed draw a sample, held over its steps.

    For methods that hide modalities from themselves in training.
    """
    draw = keyed.draw((mask.shape[0], 1, mask.shape[2] + 1), mask.device)
    order, share = draw[..., :-1], draw[..., -1:]
    before = (mask.unsqueeze(-2) & (order.unsqueeze(-2) < order.unsqueeze(-1))).sum(-1)  # (B, S, M)
    return mask & (before < 1 + torch.floor(share * mask.sum(-1, keepdim=True)))


def sinusoids(steps: int, width: int, device: torch.device) -> Tensor:
    """(steps, width) fixed positional encoding (Vaswani et al. 2017, section 3.5)."""
    place = torch.arange(steps, device=device, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, width, 2, device=device) * (-math.log(10000.0) / width))
    return torch.stack([torch.sin(place * rate), torch.cos(place * rate)], -1).flatten(1)[:, :width]


def reverse_gradient(x: Tensor, a: float | Tensor) -> Tensor:
    """x going forward, -a times the gradient going back (Ganin et al. 2016); works under `vmap`."""
    return (1 + a) * x.detach() - a * x


def softmax_over(scores: Tensor, mask: Tensor, dim: int = -1) -> Tensor:
    """softmax over the entries where mask is True; zeros where none is."""
    scores = torch.where(mask, scores, torch.finfo(scores.dtype).min)
    return scores.softmax(dim) * mask


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d)) v over the real keys.

    q (..., Q, d), k (..., K, d), v (..., K, e), mask broadcastable to (..., Q, K), True where a key may be looked at.
    A query that may look at nothing gets zeros. Plain products: fused kernels have no batching rule under `vmap`.
    """
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    return (scores.softmax(-1) if mask is None else softmax_over(scores, mask)) @ v


class Dropout(nn.Module):
    """Dropout whose mask is keyed by (member, step, site): a member's numbers do not depend on who trains beside it."""

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0.0 <= p < 1.0:
            raise ValueError(f"a dropout rate lies in [0, 1), not {p}")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return x
        return x * (keyed.draw(x.shape, x.device) >= self.p) / (1.0 - self.p)


class MultiHead(nn.Module):
    """Multi-head attention (Vaswani et al. 2017): queries (B, Q, width), keys = values (B, K, width), mask (B, K)."""

    def __init__(self, width: int, heads: int = 1) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of {heads} heads")
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        # As torch's own attention layer starts (Xavier for the three stacked): with the default of a linear layer,
        # tokens of length one leave queries and keys hardly any gradient.
        for part in (self.query, self.key, self.value):
            nn.init.uniform_(part.weight, -((1.5 / width) ** 0.5), (1.5 / width) ** 0.5)
            nn.init.zeros_(part.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, query: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, Q, width); zeros plus the output bias for a sample whose keys are all masked."""
        q, k, v = self._split(self.query(query)), self._split(self.key(memory)), self._split(self.value(memory))
        attended = attention(q, k, v, None if mask is None else mask[..., None, None, :])
        return self.out(attended.transpose(-3, -2).flatten(-2))

    def _split(self, x: Tensor) -> Tensor:  # (B, S, heads * d) -> (B, heads, S, d)
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)


class Feedforward(nn.Sequential):
    """width -> hidden -> width with a ReLU between."""

    def __init__(self, width: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__(nn.Linear(width, hidden), nn.ReLU(), Dropout(dropout), nn.Linear(hidden, width))


class Encoder(nn.Module):
    """`depth` post-norm transformer layers over time: (B, T, width), mask (B, T) -> (B, T, width).

    Args:
        hidden: width of the feed-forward part (4 * width if None).
        positions: add the fixed positional encoding first.
    """

    def __init__(
        self,
        width: int,
        depth: int = 1,
        heads: int = 1,
        hidden: int | None = None,
        dropout: float = 0.0,
        positions: bool = False,
    ) -> None:
        super().__init__()
        self.positions = positions
        self.attention = nn.ModuleList(MultiHead(width, heads) for _ in range(depth))
        self.feedforward = nn.ModuleList(Feedforward(width, hidden or 4 * width) for _ in range(depth))
        self.norm1 = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.norm2 = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if self.positions:
            x = x + sinusoids(x.shape[1], x.shape[2], x.device).to(x.dtype)
        for attend, feed, norm1, norm2 in zip(self.attention, self.feedforward, self.norm1, self.norm2, strict=True):
            x = norm1(x + self.dropout(attend(x, x, mask)))
            x = norm2(x + self.dropout(feed(x)))
        return x


class Projections(nn.ModuleDict):
    """One linear layer a modality: every step to a shared width. Streams -> Streams of (B, T, width)."""

    def __init__(self, spec: Spec, width: int, make: Callable[[int, int], nn.Module] = nn.Linear) -> None:
        super().__init__({m: make(dim, width) for m, dim in spec.dims.items()})

    def forward(self, streams: Mapping[str, Stream]) -> Streams:
        return {m: Stream(layer(streams[m].x), streams[m].mask) for m, layer in self.items()}


class Head(nn.Sequential):
    """LayerNorm, linear, GELU, dropout, linear: (..., width) -> (..., out). For fusers with no published head."""

    def __init__(self, width: int, out: int, *, hidden: int | None = None, dropout: float = 0.1) -> None:
        hidden = hidden or width
        super().__init__(
            nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), Dropout(dropout), nn.Linear(hidden, out)
        )


class GRU(nn.Module):
    """Gated recurrent unit (Cho et al. 2014, with the reset gate applied after the product, as in cuDNN).

    x (B, T, width_in), mask (B, T) -> (B, T, width). Unrolled by hand, because library recurrences have no batching
    rule under `vmap`; the state stands still over masked steps, so that padding and gaps change nothing.
    """

    def __init__(self, width_in: int, width: int, *, backward: bool = False) -> None:
        super().__init__()
        self.backward = backward
        self.input = nn.Linear(width_in, 3 * width)
        self.state = nn.Linear(width, 3 * width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        gates = self.input(x)  # (B, T, 3 * width)
        h = torch.zeros_like(gates[:, 0, : gates.shape[-1] // 3])
        steps = range(x.shape[1])
        states = []
        for t in reversed(steps) if self.backward else steps:
            reset, update, new = gates[:, t].chunk(3, -1)
            reset_h, update_h, new_h = self.state(h).chunk(3, -1)
            update = torch.sigmoid(update + update_h)
            new = torch.tanh(new + torch.sigmoid(reset + reset_h) * new_h)
            h = torch.where(mask[:, t, None], (1 - update) * new + update * h, h)
            states.append(h)
        return torch.stack(states[::-1] if self.backward else states, 1)

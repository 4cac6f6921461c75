"""A clip of any length as a fixed set of numbers a channel: what classical methods look at."""

from __future__ import annotations

import torch
from torch import Tensor

from fusionbench.api.types import Stream

#: Of the real steps of one channel: mean, standard deviation, least, lower quartile, median, upper quartile, greatest,
#: slope over the clip (from -1 at its first real step to 1 at its last), root mean square of the differences of
#: neighbours.
SUMMARIES = ("mean", "sd", "least", "lower", "median", "upper", "greatest", "slope", "change")
#: Shares of a channel's power, without its mean, in four equal bands from 0 to half the rate.
BANDS = ("band0", "band1", "band2", "band3")


def unrolled(stream: Stream, channels: int) -> Stream:
    """(B, T, k channels) -> (B, k T, channels): steps that hold k samples, one after another, sample by sample."""
    size, steps, width = stream.x.shape
    k = width // channels
    mask = stream.mask[..., None].expand(size, steps, k)
    return Stream(stream.x.reshape(size, steps * k, channels), mask.reshape(size, steps * k))


def summary_names(dim: int, bands: bool = False) -> list[str]:
    """What `summaries` gives, in its order: `mean.0`, `mean.1`, ..., `sd.0`, ..."""
    return [f"{name}.{d}" for name in (*SUMMARIES, *(BANDS if bands else ())) for d in range(dim)]


def summaries(stream: Stream, bands: bool = False) -> Tensor:
    """(B, T, D) -> (B, 9 D), or (B, 13 D) with bands; zeros where a sample has no real step. Works under `vmap`.

    Quantiles interpolate as numpy's. The spectrum is that of the channel on the grid of all T steps, its mean taken off
    and zero at masked steps, at frequencies that do not depend on T: padding changes nothing.
    """
    x, mask = stream.x, stream.mask[..., None]  # (B, T, D), (B, T, 1)
    count = mask.sum(1)  # (B, 1)
    n = count.clamp(min=1)
    mean = x.sum(1) / n
    centred = torch.where(mask, x - mean[:, None], 0.0)
    sd = (centred.square().sum(1) / n).sqrt()
    ordered = torch.where(mask, x, torch.inf).sort(1).values
    quantiles = [_quantile(ordered, n, q) for q in (0.0, 0.25, 0.5, 0.75, 1.0)]
    t = torch.arange(x.shape[1], device=x.device, dtype=x.dtype)[:, None]
    first = torch.where(mask, t, torch.inf).amin(1, keepdim=True)
    last = torch.where(mask, t, -torch.inf).amax(1, keepdim=True)
    span = torch.where(last > first, last - first, 1.0)
    place = torch.where(mask, 2 * (t - torch.where(first.isfinite(), first, 0.0)) / span - 1, 0.0)  # (B, T, 1)
    place = torch.where(mask, place - place.sum(1, keepdim=True) / n[:, None], 0.0)
    slope = (place * centred).sum(1) / place.square().sum(1).clamp(min=1e-6)
    pairs = mask[:, 1:] & mask[:, :-1]
    steps = torch.where(pairs, x[:, 1:] - x[:, :-1], 0.0)
    change = (steps.square().sum(1) / pairs.sum(1).clamp(min=1)).sqrt()
    found = [mean, sd, *quantiles, slope, change]
    if bands:
        found += _bands(centred)
    return torch.where(count > 0, torch.cat(found, 1), 0.0)


def _quantile(ordered: Tensor, n: Tensor, q: float) -> Tensor:
    """(B, T, D) sorted, infinity last, n (B, 1) of them finite -> (B, D)."""
    place = q * (n - 1)
    low = place.floor()
    rows = [row.long()[:, None].expand(-1, 1, ordered.shape[2]) for row in (low, place.ceil())]
    below, above = (ordered.gather(1, row)[:, 0] for row in rows)
    below, above = (torch.where(v.isfinite(), v, 0.0) for v in (below, above))
    return below + (above - below) * (place - low)


def _bands(centred: Tensor, lines: int = 32) -> list[Tensor]:
    """Shares of power at `lines` frequencies between 0 and half the rate, in four bands, each (B, D)."""
    t = torch.arange(centred.shape[1], device=centred.device, dtype=centred.dtype)
    frequency = (torch.arange(lines, device=centred.device, dtype=centred.dtype) + 0.5) / lines * torch.pi
    angle = t * frequency[:, None]  # (lines, T)
    power = (angle.cos() @ centred).square() + (angle.sin() @ centred).square()  # (B, lines, D)
    power = power / power.sum(1, keepdim=True).clamp(min=1e-12)
    return [band.sum(1) for band in power.chunk(4, 1)]

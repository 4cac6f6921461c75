"""Bins between quantiles, and how far a number fills each of them."""

from __future__ import annotations

import torch
from torch import Tensor

NARROW = 1e-6  # a bin below this width is a step


def normal_edges(bins: int, width: int) -> Tensor:
    """(bins + 1, width) equally likely bins of a standard normal: what is assumed before training samples are met."""
    shares = torch.linspace(0, 1, bins + 1).clamp(1e-3, 1 - 1e-3)
    return torch.special.ndtri(shares)[:, None].repeat(1, width)


def edges_of(rows: Tensor, before: Tensor) -> Tensor:
    """(bins + 1, D) quantiles of rows (n, D), interpolated as numpy's; those of `before` where there are no rows."""
    if not len(rows):
        return before
    ordered = rows.sort(0).values  # torch.quantile takes no more than 16 million numbers
    place = torch.linspace(0, 1, len(before), dtype=torch.float64) * (len(rows) - 1)
    low, high = ordered[place.floor().long()], ordered[place.ceil().long()]
    return low + (high - low) * (place - place.floor())[:, None].float()


def filled(x: Tensor, edges: Tensor) -> Tensor:
    """(..., D) -> (..., D * bins): 0 below a bin, 1 above it, the share in between."""
    lower, upper = edges[:-1].T, edges[1:].T  # (D, bins)
    width = upper - lower
    share = (x[..., None] - lower) / width.clamp(min=NARROW)
    return torch.where(width > NARROW, share, (x[..., None] >= upper).to(x.dtype)).clamp(0, 1).flatten(-2)

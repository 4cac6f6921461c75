"""Which modalities are there, as one number, and tables with a row for each such combination."""

from __future__ import annotations

import torch
from torch import Tensor

from fusionbench.api import Spec, UsageError

LIMIT = 10


def count(spec: Spec, name: str) -> int:
    """2^M, the number of combinations of modalities, none of them included.

    Raises:
        UsageError: more modalities than a table of combinations is sensible for.
    """
    if len(spec.dims) > LIMIT:
        raise UsageError(
            f"{name} learns something for each of the 2^M combinations of modalities: at most {LIMIT}, "
            f"not {len(spec.dims)}; choose another fuser"
        )
    return int(2 ** len(spec.dims))


def rank(mask: Tensor) -> Tensor:
    """(..., M) bool -> (...) int64: 0 where all modalities are there, 2^M - 1 where none is.

    The first modality counts 1 if absent, the second 2, the third 4.
    """
    weights = 2 ** torch.arange(mask.shape[-1], device=mask.device)
    return ((~mask) * weights).sum(-1)


def look_up(table: Tensor, index: Tensor) -> Tensor:
    """Rows of table (R, ...) by index (B, S) -> (B, S, ...); a product, so that it stacks whatever is stacked."""
    chosen = index.unsqueeze(-1) == torch.arange(len(table), device=index.device)
    return torch.einsum("bsr,rd->bsd", chosen.to(table.dtype), table.flatten(1)).unflatten(-1, table.shape[1:])

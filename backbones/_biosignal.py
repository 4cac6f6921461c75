"""What the biosignal encoders share: cutting a signal into tokens, and the start of their weights."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from fusionbench.api import Stream, UsageError

from ._frozen import load_weights


def tokens(stream: Stream, length: int) -> tuple[Tensor, Tensor]:
    """(B, T, *step) -> (B, T', length, D) stretches without overlap, the last one filled with zeros; mask (B, T').

    A token is real if any of its steps is.
    """
    missing = -stream.x.shape[1] % length
    x = F.pad(stream.x.flatten(2), (0, 0, 0, missing)).unflatten(1, (-1, length))
    return x, F.pad(stream.mask, (0, missing)).unflatten(1, (-1, length)).any(2)


def start(owner: str, model: nn.Module, weights: str) -> None:
    """Leaves the weights as initialised ("random"), or loads a file.

    Raises:
        UsageError: neither is asked for, or the file does not fit.
    """
    if not weights:
        raise UsageError(f"{owner} has no published weights: write weights=random, or give a file")
    load_weights(owner, model, weights, dict)

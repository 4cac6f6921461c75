"""A clip as one step: the last real value of each channel, with its mean, least and greatest.

For records whose steps carry values forward: the last step says all that is known, and a mean over time dilutes it.
Standardised by the training samples. For clip tasks.

Not compared: the four numbers have tests against numpy.

Ours: all of it. The numbers are fixed functions of the input, so no gradient goes through them; a standardised one
stops at `LARGEST`, so that damage nobody trained on stays finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from fusionbench.api import Stream

from ._clips import Clips


class Latest(Clips):
    def __init__(
        self,
        shape: Sequence[int],
        *,
        channels: Annotated[int | None, "of a step that holds several samples of them in turn; none: all"] = None,
    ) -> None:
        super().__init__(shape, channels)
        self.standardise(4 * self.channels)

    def describe(self, stream: Stream) -> Tensor:
        x, mask = stream.x, stream.mask[..., None]  # (B, T, D), (B, T, 1)
        count = mask.sum(1)  # (B, 1)
        place = torch.arange(x.shape[1], device=x.device)[:, None]
        last = torch.where(mask, place, -1).amax(1, keepdim=True)  # (B, 1, 1)
        found = [
            torch.where(place == last, x, 0.0).sum(1),
            x.sum(1) / count.clamp(min=1),
            torch.where(mask, x, torch.inf).amin(1),
            torch.where(mask, x, -torch.inf).amax(1),
        ]
        return torch.where(count > 0, torch.cat(found, 1), 0.0)

"""A clip as one step: the summaries that classical rows look at, for networks (`fusionbench.api.summaries`).

Of each channel mean, SD, quartiles, extremes, slope, change from step to step and shares of power in four bands,
standardised by the training samples. For clip tasks.

Not compared: the summaries have tests against numpy.

Ours: all of it. The numbers are fixed functions of the input, so no gradient goes through them; a standardised summary
stops at `LARGEST`, so that damage nobody trained on stays finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from torch import Tensor

from fusionbench.api import Stream, summaries, summary_names

from ._clips import Clips


class Summary(Clips):
    def __init__(
        self,
        shape: Sequence[int],
        *,
        channels: Annotated[int | None, "of a step that holds several samples of them in turn; none: all"] = None,
        bands: Annotated[bool, "shares of power in four bands as well"] = True,
    ) -> None:
        super().__init__(shape, channels)
        self.bands = bands
        self.standardise(len(summary_names(self.channels, bands)))

    def describe(self, stream: Stream) -> Tensor:
        return summaries(stream, self.bands)

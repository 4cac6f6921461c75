"""R(2+1)D-18 (Tran et al. 2018) on face clips, frozen, pretrained on Kinetics-400 by torchvision: 512 values a clip.

Input: RGB clips (F, 3, H, W) with values 0 to 1, frames scaled to `size` and normalised with the network's own mean
and SD. The whole clip is one step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fusionbench.api import Choice

from ._frames import Frames


class R2plus1d18(Frames):
    expects = "RGB clips (F, 3, H, W), values 0 to 1"
    example = (2, 2, 3, 16, 16)
    example_settings = {"weights": "random", "size": 16}  # noqa: RUF012
    model_name = "r2plus1d_18"
    videos = True

    def __init__(
        self,
        shape: Sequence[int],
        *,
        weights: Annotated[str, "'' = torchvision's, random, or a file (.safetensors, .pth)"] = "",
        size: Annotated[int, Choice(112), "side of a frame as the network sees it, pixels"] = 112,
    ) -> None:
        super().__init__(shape, weights, size)

"""ResNet-18 (He et al. 2016) on face frames, frozen, pretrained on ImageNet by torchvision: 512 values a step.

Input: RGB frames (3, H, W) with values 0 to 1, scaled to `size` and normalised with ImageNet's mean and SD. A step that
is a clip (F, 3, H, W) gets the mean over its frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fusionbench.api import Choice

from ._frames import Frames


class Resnet18(Frames):
    example = (2, 3, 16, 16)
    example_settings = {"weights": "random", "size": 16}  # noqa: RUF012
    model_name = "resnet18"
    videos = False

    def __init__(
        self,
        shape: Sequence[int],
        *,
        weights: Annotated[str, "'' = torchvision's, random, or a file (.safetensors, .pth)"] = "",
        size: Annotated[int, Choice(112, 224), "side of a frame as the network sees it, pixels"] = 224,
    ) -> None:
        super().__init__(shape, weights, size)

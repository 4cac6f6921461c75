"""Frozen torchvision networks on face frames and clips: scaling, normalisation, pretrained weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionbench.api import Stream

from ._frozen import Frozen, expect, extra, load_weights, within


class Frames(Frozen):
    """A torchvision network without its classifier; `dim` 512. Subclasses set what it is called and what it eats."""

    dim = 512
    expects = "RGB frames (3, H, W) or clips (F, 3, H, W), values 0 to 1"
    model_name: str
    videos: bool  # does the network see a clip as a whole?
    mean: Tensor
    sd: Tensor

    def __init__(self, shape: Sequence[int], weights: str, size: int) -> None:
        super().__init__(shape)
        self.size = size
        right = len(shape) in ((4,) if self.videos else (3, 4)) and shape[-3] == 3 and min(shape) >= 1
        expect(self.model_name, shape, right, self.expects)
        self.network, self.recipe = network(self.model_name, weights)
        self.register_buffer("mean", torch.tensor(self.recipe.mean).reshape(3, 1, 1), persistent=False)
        self.register_buffer("sd", torch.tensor(self.recipe.std).reshape(3, 1, 1), persistent=False)
        self.freeze()

    def admit(self, stream: Stream, rate: float | None) -> None:
        within(self.model_name, stream, 0.0, 1.0, "pixel values")

    def encode(self, steps: Tensor) -> Tensor:
        """(n, [F,] 3, H, W) -> (n, 512)."""
        clips = steps if steps.dim() == 5 else steps.unsqueeze(1)  # (n, F, 3, H, W)
        n, f = clips.shape[:2]
        frames = clips.flatten(0, 1)
        if frames.shape[-2:] != (self.size, self.size):
            frames = F.interpolate(frames, (self.size, self.size), mode="bilinear", antialias=True)
        frames = ((frames - self.mean) / self.sd).unflatten(0, (n, f))
        if self.videos:
            return self.network(frames.transpose(1, 2))  # (n, 3, F, H, W) -> (n, 512)
        return self.network(frames.flatten(0, 1)).unflatten(0, (n, f)).mean(1)  # frames of a clip are averaged


def network(name: str, weights: str) -> tuple[nn.Module, Any]:
    """The torchvision network without its classifier, weights loaded, and the transforms of its own weights."""
    models = extra("torchvision.models", "video")
    published = models.get_model_weights(name).DEFAULT
    model = models.get_model(name, weights=None)
    model.fc = nn.Identity()
    load_weights(name, model, weights, lambda: published.get_state_dict(progress=False, check_hash=True))
    return model, published.transforms()

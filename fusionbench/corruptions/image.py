"""Damage to pictures and video: (B, T, C, H, W) in [0, 1]; formulas of ImageNet-C (Hendrycks & Dietterich, 2019).

Random numbers are keyed by sample, frame and pixel. kornia blurs; JPEG is Pillow's, because kornia's codec is a
differentiable approximation and a real file is what a camera sends. The rest is one line of torch each.
"""

from __future__ import annotations

import io
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fusionbench.api import Context, Corruption, Stream, Streams, UsageError, keyed

from ._helpers import wide


class _Image(Corruption):
    level = "image"

    def damage(self, stream: Stream, amount: float, keys: Tensor, context: Context, modality: str) -> Stream:
        if stream.x.dim() != 5:
            raise UsageError(f"{self.name} damages pictures (B, T, C, H, W); {modality} is {tuple(stream.x.shape)}")
        if stream.x.min() < 0 or stream.x.max() > 1:
            raise UsageError(f"{self.name} damages pictures in 0 to 1; {modality} goes beyond that")
        return Stream(self.picture(stream, amount, keys.to(stream.x.device)), stream.mask)

    def picture(self, stream: Stream, amount: float, keys: Tensor) -> Tensor:
        """The damaged pictures, (B, T, C, H, W) in [0, 1]."""
        raise NotImplementedError

    @staticmethod
    def example() -> tuple[Streams, Context]:
        """Grey pictures with coarse and fine detail; nothing is darker than .3 or brighter than .5."""
        keys = keyed.sample_keys("ab", "example")
        coarse = F.interpolate(keyed.uniform(keys, (9, 9, 9)), (96, 96), mode="bilinear").reshape(2, 3, 3, 96, 96)
        x = 0.3 + 0.15 * coarse + 0.05 * keyed.uniform(keys, (3, 3, 96, 96), site=1)  # (2, 3, 3, 96, 96)
        streams = {"face": Stream(x, torch.arange(3) < torch.tensor([[3], [2]]))}
        return streams, Context({"face": x.std((0, 1))}, {"face": 25.0})


class ImageNoise(_Image):
    """Silent Gaussian pixel noise, cut to 0 to 1; the ladder is its standard deviation before the cut."""

    name = "image_noise"
    announced = False
    ladder = (0.08, 0.12, 0.18, 0.26, 0.38)

    def picture(self, stream: Stream, amount: float, keys: Tensor) -> Tensor:
        rows = [  # sample by sample, for the draws are made in float64
            (x.double() + amount * keyed.normal(key, x.shape)).clamp(0, 1).to(x.dtype)
            for x, key in zip(stream.x, keys, strict=True)
        ]
        return torch.stack(rows)

    @staticmethod
    def realised(before: Stream, after: Stream) -> float:
        """The standard deviation, from the median magnitude, which the cut leaves alone in grey pictures."""
        return float((after.x - before.x)[before.mask].abs().double().median() / 0.674489750196)


class Blur(_Image):
    """Silent Gaussian blur; the ladder is its standard deviation in pixels (kernel of 4 SD a side, edges held)."""

    name = "blur"
    announced = False
    ladder = (1, 2, 3, 4, 6)

    def picture(self, stream: Stream, amount: float, keys: Tensor) -> Tensor:
        filters = _extra("kornia.filters")
        size, sigma = 8 * int(amount) + 1, float(amount)
        # In float64, for float32 convolutions are rounded to ten bits by default on some devices.
        rows = [
            filters.gaussian_blur2d(x.double(), (size, size), (sigma, sigma), border_type="replicate") for x in stream.x
        ]
        return torch.stack(rows).clamp(0, 1).to(stream.x.dtype)


class Contrast(_Image):
    """Silent loss of contrast; the ladder is the factor on each channel's difference from its mean."""

    name = "contrast"
    announced = False
    ladder = (0.4, 0.3, 0.2, 0.1, 0.05)

    def picture(self, stream: Stream, amount: float, keys: Tensor) -> Tensor:
        x = stream.x.double()
        mean = x.mean((-2, -1), keepdim=True)
        return (mean + amount * (x - mean)).clamp(0, 1).to(stream.x.dtype)

    @staticmethod
    def realised(before: Stream, after: Stream) -> float:
        deep, flat = (s.x[s.mask].double().std((-2, -1)).mean() for s in (before, after))
        return float(flat / deep)


class Brightness(_Image):
    """Silent over-exposure; the ladder is what is added to the value (the largest channel), cut at 1.

    Hue and saturation stay: the channels keep their ratios, and black becomes grey.
    """

    name = "brightness"
    announced = False
    ladder = (0.1, 0.2, 0.3, 0.4, 0.5)

    def picture(self, stream: Stream, amount: float, keys: Tensor) -> Tensor:
        x = stream.x.double()
        value = x.amax(2, keepdim=True)
        brighter = (value + amount).clamp(max=1)
        return torch.where(value > 0, x / value.clamp(min=1e-12) * brighter, brighter).clamp(0, 1).to(stream.x.dtype)

    @staticmethod
    def realised(before: Stream, after: Stream) -> float:
        return float((after.x.amax(2) - before.x.amax(2))[before.mask].median())


class Pixelate(_Image):
    """Silent loss of resolution; the ladder is the share of height and width that is left (block means, enlarged)."""

    name = "pixelate"
    announced = False
    ladder = (0.6, 0.5, 0.4, 0.3, 0.25)

    def picture(self, stream: Stream, amount: float, keys: Tensor) -> Tensor:
        rows, columns = (_blocks(size, amount, keys.device) for size in stream.x.shape[-2:])
        return (rows @ stream.x.double() @ columns).clamp(0, 1).to(stream.x.dtype)


class Jpeg(_Image):
    """Silent JPEG compression; the ladder is the quality of the codec (Pillow's scale, 4:2:0 chroma).

    Three channels are compressed as RGB, any others each as a grey picture. The codec works on the CPU.
    """

    name = "jpeg"
    announced = False
    ladder = (25, 18, 15, 10, 7)

    def picture(self, stream: Stream, amount: float, keys: Tensor) -> Tensor:
        image = _extra("PIL.Image")
        pixels = (stream.x.double() * 255).round().byte().cpu().numpy()  # (B, T, C, H, W)
        coded = np.zeros_like(pixels)
        for b, t in stream.mask.nonzero().tolist():
            if pixels.shape[2] == 3:
                coded[b, t] = _coded(image, pixels[b, t].transpose(1, 2, 0), int(amount)).transpose(2, 0, 1)
            else:
                coded[b, t] = np.stack([_coded(image, grey, int(amount)) for grey in pixels[b, t]])
        return (torch.from_numpy(coded).double() / 255).to(stream.x.dtype).to(stream.x.device)


class Occlusion(_Image):
    """Silent occlusion by a patch of one flat colour, the same at all frames; the ladder is its share of the area.

    A rectangle of the picture's proportions and of keyed colour and place; a larger one of the same sample covers every
    smaller one.
    """

    name = "occlusion"
    announced = False
    ladder = (0.1, 0.2, 0.3, 0.4, 0.5)

    def picture(self, stream: Stream, amount: float, keys: Tensor) -> Tensor:
        rows, columns = (
            _covered(size, amount, keyed.uniform(keys, (2,))[:, axis]) for axis, size in enumerate(stream.x.shape[-2:])
        )
        hidden = (rows[:, :, None] & columns[:, None, :])[:, None, None]  # (B, 1, 1, H, W)
        colour = keyed.uniform(keys, (stream.x.shape[2],), site=1).to(stream.x.dtype)  # (B, C)
        return torch.where(hidden, wide(colour[:, None], stream.x), stream.x)

    @staticmethod
    def realised(before: Stream, after: Stream) -> float:
        return float((before.x != after.x).any(2)[before.mask].double().mean())


def _covered(size: int, area: float, draw: Tensor) -> Tensor:
    """(B, size) bool: the rows (or columns) behind an occluder of a share of the area, placed by draws (B,)."""
    extent = int(area**0.5 * size + 0.5)
    start = (draw.double() * (size - extent + 1)).long()[:, None]
    pixel = torch.arange(size, device=draw.device)
    return (pixel >= start) & (pixel < start + extent)


def _extra(module: str) -> Any:
    """A module of the extra `image`.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        library = module.split(".")[0]
        raise UsageError(f"image damage needs {library}: pip install 'mm-fusionbench[image]'") from error


def _blocks(size: int, share: float, device: torch.device) -> Tensor:
    """(size, size) float64: the matrix that replaces each pixel of a line by the mean of its block."""
    block = (2 * torch.arange(size, device=device) + 1) * max(1, int(share * size)) // (2 * size)
    same = (block[:, None] == block).double()
    return same / same.sum(1, keepdim=True)


def _coded(image: Any, pixels: np.ndarray, quality: int) -> np.ndarray:
    """(H, W) or (H, W, 3) uint8 after one trip through the codec."""
    file = io.BytesIO()
    image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(image.open(file))

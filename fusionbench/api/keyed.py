"""Random numbers from an integer hash: a draw depends on its key and its place, never on who else is drawing.

A counter is made from the element's coordinates, not from its flat position, so padding a tensor or enlarging a batch
leaves the numbers of the elements that were there as they were. The mixing function is the 32-bit `lowbias32` hash of
Chris Wellons' hash prospector (public domain); the same integers come out on every device.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

# One odd multiplier a dimension, counted from the last: coordinates -> counter.
_STRIDES = (-1640531535, 668265263, -2048144777, 374761393, 1274126177, -1028477387)
_HALF = 1 << 32


def number(*words: object) -> int:
    """A signed 32-bit integer from words: the same for the same words, everywhere and for ever."""
    digest = hashlib.blake2b("|".join(map(str, words)).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little", signed=True)


def sample_keys(ids: Sequence[str], *words: object, device: torch.device | str = "cpu") -> Tensor:
    """(B,) int32 keys, one a sample, from its id and the words (corruption, seed, modality)."""
    return torch.tensor([number(*words, name) for name in ids], dtype=torch.int32, device=device)


def mix(x: Tensor) -> Tensor:
    """The hash, elementwise on int32 (a new tensor)."""
    x = x ^ ((x >> 16) & 0xFFFF)
    x = x * 0x7FEB352D
    x = x ^ ((x >> 15) & 0x1FFFF)
    x = x * (0x846CA68B - _HALF)
    return x ^ ((x >> 16) & 0xFFFF)


def bits(key: Tensor, shape: Sequence[int], site: int = 0) -> Tensor:
    """(*key.shape, *shape) int32 hashes for one key a sample (or a scalar key)."""
    total = mix(key.to(torch.int32) + number("site", site))
    counter = torch.zeros((), dtype=torch.int32, device=key.device)
    for place, size in enumerate(reversed(list(shape))):
        line = torch.arange(size, dtype=torch.int32, device=key.device) * _STRIDES[place]
        counter = line.reshape(-1, *[1] * place) + counter
    return mix(total.reshape([*total.shape, *[1] * len(shape)]) + counter)


def uniform(key: Tensor, shape: Sequence[int], site: int = 0) -> Tensor:
    """(*key.shape, *shape) float32 in [0, 1), 24 bits each."""
    return (bits(key, shape, site) & 0xFFFFFF).float() * 2.0**-24


def normal(key: Tensor, shape: Sequence[int], site: int = 0) -> Tensor:
    """(*key.shape, *shape) float32 standard normal (Box-Muller, computed in float64)."""
    first = 1.0 - uniform(key, shape, -2 * site - 1).double()  # in (0, 1]
    second = uniform(key, shape, -2 * site - 2).double()
    return (torch.sqrt(-2.0 * torch.log(first)) * torch.cos(2.0 * math.pi * second)).float()


class _Scope:
    """The key of the member that is being trained, and how many draws its forward pass has made so far."""

    def __init__(self, key: Tensor | None) -> None:
        self.key = key
        self.site = 0


_current = _Scope(None)


@contextmanager
def scope(key: Tensor) -> Iterator[None]:
    """Within it, `draw` is keyed by `key` (a scalar int32 tensor of member and step) and the count of draws (site)."""
    global _current
    outer, _current = _current, _Scope(key)
    try:
        yield
    finally:
        _current = outer


def draw(shape: Sequence[int], device: torch.device, kind: str = "uniform") -> Tensor:
    """`shape` random numbers for training noise, "uniform" or "normal", keyed by (member, step, site).

    Outside the engine there is no member: every call then gives the same numbers.
    """
    if _current.key is None:
        key, site = torch.zeros((), dtype=torch.int32, device=device), 0
    else:
        key, site = _current.key, _current.site
        _current.site += 1
    return {"uniform": uniform, "normal": normal}[kind](key, shape, site)

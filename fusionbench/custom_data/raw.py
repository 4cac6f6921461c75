"""What somebody's files hold, before any of it is checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionbench.custom_data.files import Array

#: A number beyond this one overflows float32 as soon as it is squared.
LARGEST = 1e18


@dataclass(eq=False)
class Raw:
    """What the files hold, samples in one order; only the shapes are settled."""

    origin: Path
    x: dict[str, Array]  # (N, T, *step), NaN where nothing was written
    mask: dict[str, NDArray[np.bool_]]  # (N, T)
    y: Array  # (N,), (N, K) or (N, S, K): numbers, or text in (N,) or (N, S)
    y_mask: NDArray[np.bool_] | None = None  # (N,) or (N, S)
    ids: list[str] | None = None
    groups: list[str] | None = None
    fold: list[str] | None = None
    split: list[str] | None = None
    order: NDArray[np.float64] | None = None  # (N,) when, in any unit
    attributes: dict[str, list[str]] = field(default_factory=dict)  # name -> (N,) texts
    settings: Mapping[str, Any] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    backbones: dict[str, tuple[str, Mapping[str, object]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

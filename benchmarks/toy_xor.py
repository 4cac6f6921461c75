"""Seconds long, for tests and tours: the label is the exclusive-or of two modalities; neither alone says anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch

from fusionbench.api import Batch, Benchmark, Range, Splits, Stream, Task, group_folds


class ToyXor(Benchmark):
    version = "1"
    shapes = {"left": (4,), "right": (3,)}
    task = Task("classify", 2, ("accuracy", "macro_f1"))
    folds = 3
    seeds = 2
    steps = 120
    batch = 32
    interval = 20
    licence = "Apache-2.0"
    source = "simulated by this file"
    citation = "this benchmark"
    corruptions: Sequence[str] = ("missing:left", "missing:right", "noise:left", "noise:all", "gap:all")
    unit = "person"
    margin = 0.05  # a toy is solved or it is not
    domain = "toy"
    role = "synthetic"

    def __init__(
        self,
        *,
        people: Annotated[int, Range(6, 60), "number of people"] = 12,
        noise: Annotated[float, Range(0.0, 2.0), "SD of the noise around +-1"] = 0.3,
    ) -> None:
        self.people, self.noise = people, noise

    def load(self) -> Batch:
        """240 clips of 3 to 6 steps (20 a person at the default number of people)."""
        rng = np.random.default_rng(7)
        each, steps = 20, 6
        n = self.people * each
        bits = rng.integers(0, 2, (n, 2))
        lengths = rng.integers(3, steps + 1, n)
        mask = torch.from_numpy(np.arange(steps) < lengths[:, None])
        streams = {}
        for column, (m, (width,)) in enumerate(self.shapes.items()):
            direction = np.linspace(1.0, 0.5, width)
            x = (2 * bits[:, column, None, None] - 1) * direction + self.noise * rng.standard_normal((n, steps, width))
            streams[m] = Stream(torch.from_numpy(x).float(), mask)
        y = torch.from_numpy(bits[:, 0] ^ bits[:, 1]).unsqueeze(1)
        groups = [f"person{i // each:02d}" for i in range(n)]
        ids = [f"{g}-{i % each:02d}" for i, g in enumerate(groups)]
        return Batch(streams, y, torch.ones(n, 1, dtype=torch.bool), ids, groups)

    def splits(self, data: Batch, fold: int) -> Splits:
        return group_folds(data.groups, self.folds, fold)

"""Reads the .ts files of the UEA archive: header lines with @ and #, then a case a line, dimension:dimension:class.

Cases are equally long and nothing is missing in the sets that are read here. The archive does not say who is who.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray

from fusionbench.api import Batch, Benchmark, Location, Splits, Stream, UsageError

from ._files import located
from ._official import official


class Uea(Benchmark):
    """A set of the archive on its official split; a fifth of the training cases validates.

    Attributes:
        name: of the benchmark; file: of the set, as in `NATOPS_TRAIN.ts`.
        dimensions: modality -> the dimensions of the file, from 0.
        length: steps of a case; step: how many of them one step of a stream holds, in order.
    """

    version = "1"
    role = "exhibit"
    domain = "motion"
    unit = "case"
    folds = 1
    name: str
    file: str
    dimensions: dict[str, tuple[int, ...]]
    length: int
    step: int

    def __init__(
        self, *, root: Annotated[str, Location, "folder of the .ts files; empty: where `data get` puts them"] = ""
    ) -> None:
        self.root = root
        self.notes = ["the archive does not say who is who: one person may stand on both sides of the official split"]

    def load(self) -> Batch:
        """Cases (N, length / step, step * D) a modality; the official training cases come first."""
        files = {side: f"{self.file}_{side.upper()}.ts" for side in ("train", "test")}
        folder = located(self.name, self.root, list(files.values()))
        cases, labels, ids = [], list[str](), []
        wanted = sum(map(len, self.dimensions.values())), self.length
        for side, file in files.items():
            x, names = read(folder / file)
            if x.shape[1:] != wanted:
                raise UsageError(f"{folder / file}: a case is {x.shape[1:]}, not {wanted}: dimensions by steps")
            cases.append(x)
            labels += names
            ids += [f"{side}-{k:03d}" for k in range(len(x))]
        classes = sorted(set(labels))
        if len(classes) != self.task.out:
            raise UsageError(
                f"{folder}: {self.file} has the classes {', '.join(classes)}, {self.task.out} are expected"
            )
        x = torch.from_numpy(np.concatenate(cases)).float().transpose(1, 2).unflatten(1, (-1, self.step))
        mask = torch.ones(x.shape[:2], dtype=torch.bool)
        streams = {m: Stream(x[..., list(chosen)].flatten(2), mask) for m, chosen in self.dimensions.items()}
        y = torch.tensor([[classes.index(label)] for label in labels])
        return Batch(streams, y, torch.ones_like(y, dtype=torch.bool), ids, ids)

    def splits(self, data: Batch, fold: int) -> Splits:
        return official(data.groups, np.array([name.startswith("test") for name in data.ids]))


def read(path: Path) -> tuple[NDArray[np.float64], list[str]]:
    """(cases, dimensions, steps) and the class of each case.

    Raises:
        UsageError: no data, or a case is not of finite numbers or of another shape than the first one.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    begin = next((k for k, line in enumerate(lines, 1) if line.strip().lower() == "@data"), 0)
    cases, labels = [], []
    for number, line in enumerate(lines[begin:], begin + 1):
        if not begin or not line.strip():
            continue
        *dimensions, label = line.strip().split(":")
        try:
            case = np.array([[float(cell) for cell in dimension.split(",")] for dimension in dimensions])
        except ValueError:
            case = np.empty(0)
        if case.ndim != 2 or not np.isfinite(case).all() or (cases and case.shape != cases[0].shape):
            raise UsageError(
                f"{path}, row {number}: not a case of equally many finite numbers a dimension, and a class"
            )
        cases.append(case)
        labels.append(label)
    if not cases:
        raise UsageError(f"{path}: nothing follows a line @data")
    return np.stack(cases), labels

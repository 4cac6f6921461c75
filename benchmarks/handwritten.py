"""Which digit? Six descriptions of 2,000 scans of handwritten numerals: an exhibit of a ceiling, in no headline.

Data: Multiple Features (Duin, UCI Machine Learning Repository, CC BY 4.0) as the file `handwritten_6views.mat` of
Trusted Multi-View Classification (Han et al., ICLR 2021; hanmenghan/TMC) holds them: x1 to x6 of 1,600 training and 400
test scans. Who wrote them is not known, so a scan is a group; a fifth of the training scans validates. Six scans stand
there twice, one of them in training and test: copies are one group, and no training scan has its copy in the test.

Why fusion could matter: it hardly can. The views are computed from one and the same picture, and one of them alone
answers nearly all: what remains is a ceiling, at which methods cannot be told apart. What would inflate it: writers on
both sides of the split, which cannot be excluded. References, accuracy: TMC .985.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch

from fusionbench.api import Batch, Benchmark, Location, Splits, Stream, Task, UsageError

from ._files import located
from ._matlab import arrays
from ._official import official

FILE = "handwritten_6views.mat"
#: modality -> variable, width: pixel averages, Fourier, profile correlations, Zernike, Karhunen-Loeve, morphology
VIEWS = {"pixels": ("x1", 240), "fourier": ("x2", 76), "profiles": ("x3", 216), "zernike": ("x4", 47),
         "karhunen": ("x5", 64), "morphology": ("x6", 6)}  # fmt: skip


class Handwritten(Benchmark):
    version = "1"
    role = "exhibit"
    domain = "digits"
    unit = "scan"
    shapes = {m: (width,) for m, (_, width) in VIEWS.items()}
    task = Task("classify", 10, ("accuracy", "macro_f1"))
    folds = 1
    seeds = 3
    steps = 200
    batch = 64
    interval = 20
    backbones = {m: ("ple", {}) for m in VIEWS}
    licence = "CC BY 4.0 (UCI); the repository of the file states none"
    source = "https://github.com/hanmenghan/TMC"
    citation = (
        "Duin, Multiple Features, UCI Machine Learning Repository, 1998; the file: Han, Zhang, Fu and Zhou, "
        "Trusted Multi-View Classification, ICLR 2021"
    )
    caveats = ("nobody says who wrote what: a writer may stand on both sides",)
    corruptions = (*(f"missing:{m}" for m in VIEWS), "noise:all")

    def __init__(
        self, *, root: Annotated[str, Location, "folder of the file; empty: where `data get` puts it"] = ""
    ) -> None:
        self.root = root
        self.notes = ["who wrote a digit is not known: a writer may stand on both sides of the official split"]

    def load(self) -> Batch:
        """2,000 scans, one step a view, (N, 1, D); the official training scans come first."""
        path = located("handwritten", self.root, [FILE]) / FILE
        names = [f"{name}_{side}" for name in ("gt", *(x for x, _ in VIEWS.values())) for side in ("train", "test")]
        found = arrays(path, names)
        sizes = {side: found[f"gt_{side}"].size for side in ("train", "test")}
        streams = {}
        for m, (name, width) in VIEWS.items():
            for side, size in sizes.items():
                if found[f"{name}_{side}"].shape != (size, width):
                    raise UsageError(f"{path}: {name}_{side} is {found[f'{name}_{side}'].shape}, not ({size}, {width})")
            x = np.concatenate([found[f"{name}_{side}"] for side in sizes])
            streams[m] = Stream(torch.from_numpy(x).float().unsqueeze(1), torch.ones(len(x), 1, dtype=torch.bool))
        labels = np.concatenate([found[f"gt_{side}"].ravel() for side in sizes])
        if not np.array_equal(np.unique(labels), np.arange(10) + labels.min()):
            raise UsageError(f"{path}: the labels are {np.unique(labels).tolist()}, not ten digits")
        ids = [f"{side}-{k:04d}" for side, size in sizes.items() for k in range(size)]
        y = torch.from_numpy(labels - labels.min()).long().unsqueeze(1)
        x = torch.cat([stream.x[:, 0] for stream in streams.values()], 1).numpy()
        first: dict[bytes, str] = {}
        groups = [first.setdefault(row.tobytes(), name) for row, name in zip(x, ids, strict=True)]
        return Batch(streams, y, torch.ones_like(y, dtype=torch.bool), ids, groups)

    def splits(self, data: Batch, fold: int) -> Splits:
        test = np.array([name.startswith("test") for name in data.ids])
        groups = np.array(data.groups)
        tested = np.isin(groups, groups[test])
        found = official(data.groups, tested)
        return Splits(found.train, found.val, np.flatnonzero(test))

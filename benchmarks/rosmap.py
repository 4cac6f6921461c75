"""Alzheimer's disease or not? Gene expression, methylation and microRNA of 351 people, the official split only.

Data: ROSMAP as prepared for MOGONET (Wang et al., Nature Communications 12:3445, 2021; the tables of its repository
txWang/MOGONET, MIT; the source data have terms of their own, at the AD Knowledge Portal): 200 features of each omics,
scaled to 0 to 1. A person is one sample and so a group; a fifth of the 245 official training people validates.

Why fusion could matter: three layers of regulation of the same tissue, each informative alone. What would inflate it:
the 200 features were screened on labels, so a split of one's own could test on people who chose the features; 106 test
people leave wide intervals, and many published numbers are the best epoch on these very people. References: best single
omics accuracy .821, AUROC .894; late average .840, .922 (logistic regression); MOGONET accuracy .815, AUROC .874.

That late average comes back as .922 here too, with a penalty of 100 on all 245 training people. `late_linear` learns
from the 196 that do not validate: .916 with that penalty, .900 with the one that validation picks.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch

from fusionbench.api import Batch, Benchmark, Location, Splits, Stream, Task, UsageError

from ._files import located, numbers
from ._official import official

OMICS = {"mrna": "1", "methylation": "2", "mirna": "3"}
WIDTH = 200
SIDES = ("tr", "te")


class Rosmap(Benchmark):
    version = "1"
    domain = "omics"
    unit = "person"
    margin = 0.02
    shapes = {m: (WIDTH,) for m in OMICS}
    task = Task("classify", 2, ("auroc", "accuracy", "macro_f1"))
    classes = ("normal control", "Alzheimer's disease")
    folds = 1
    seeds = 5
    steps = 200
    batch = 32
    interval = 10
    backbones = {m: ("ple", {}) for m in OMICS}
    licence = "MIT (the repository); the source data have terms of their own, at the AD Knowledge Portal"
    source = "https://github.com/txWang/MOGONET"
    citation = (
        "Wang et al., MOGONET integrates multi-omics data using graph convolutional networks allowing patient "
        "classification and biomarker identification, Nature Communications 12:3445, 2021"
    )
    caveats = (
        "the features were screened on labels: a split of one's own tests on people who chose them",
        "the best epoch on the 106 test people",
    )
    corruptions = (
        "missing:mrna",
        "missing:methylation",
        "missing:mirna",
        "noise:mrna",
        "noise:methylation",
        "noise:all",
    )

    def __init__(
        self, *, root: Annotated[str, Location, "folder that holds ROSMAP; empty: where `data get` puts it"] = ""
    ) -> None:
        self.root = root

    def load(self) -> Batch:
        """351 people, one step of 200 features an omics, (N, 1, 200); the official training people come first."""
        names = [f"ROSMAP/{n}_{side}.csv" for side in SIDES for n in (*OMICS.values(), "labels")]
        folder = located("rosmap", self.root, names) / "ROSMAP"
        labels = {side: numbers(folder / f"labels_{side}.csv")[:, 0] for side in SIDES}
        streams = {}
        for m, number in OMICS.items():
            tables = []
            for side in SIDES:
                path = folder / f"{number}_{side}.csv"
                table = numbers(path)
                if table.shape != (len(labels[side]), WIDTH):
                    raise UsageError(f"{path} is {table.shape}, not ({len(labels[side])}, {WIDTH}): people by features")
                tables.append(table)
            x = torch.from_numpy(np.concatenate(tables)).float().unsqueeze(1)
            streams[m] = Stream(x, torch.ones(x.shape[:2], dtype=torch.bool))
        y = np.concatenate(list(labels.values()))
        if not np.isin(y, (0, 1)).all():
            raise UsageError(f"{folder}: a label is {y[~np.isin(y, (0, 1))][0]:g}, not 0 or 1")
        ids = [f"{side}-{k:03d}" for side in SIDES for k in range(len(labels[side]))]
        answers = torch.from_numpy(y).long().unsqueeze(1)
        return Batch(streams, answers, torch.ones_like(answers, dtype=torch.bool), ids, ids)

    def splits(self, data: Batch, fold: int) -> Splits:
        return official(data.groups, np.array([name.startswith("te") for name in data.ids]))

"""Reads the published layout of the social-anxiety data: `<person>/experiment_1.csv`, time, three signals, class."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray

from fusionbench.api import Batch, Benchmark, Location, Stream, Task, UsageError

from ._files import located

PEOPLE = 12
SIGNALS = ("heart_rate", "temperature", "conductance")  # beats a minute, degrees Celsius, microsiemens; 4 Hz
WINDOW, STEP = 20, 4  # rows: 5 s and 1 s


class SocialAnxietyWindows(Benchmark):
    """What both variants share: everything but the splits."""

    version = "1"
    role = "exhibit"
    domain = "stress"
    unit = "person"
    shapes = {m: (STEP,) for m in SIGNALS}
    rates = {m: 1.0 for m in SIGNALS}
    task = Task("classify", 2, ("macro_f1", "accuracy"))
    classes = ("baseline", "anxious")
    seeds = 3
    steps = 150
    batch = 32
    interval = 15
    licence = "MIT"
    source = "https://github.com/rs2416/Detecting_Social_Anxiety"
    citation = (
        "Shaukat-Jali, van Zalk and Boyle, Detecting Subclinical Social Anxiety Using Physiological Data From a "
        "Wrist-Worn Wearable: Small-Scale Feasibility Study, JMIR Formative Research 5(10):e32656, 2021"
    )
    caveats = (
        "shuffled windows: neighbours of one person and minute stand on both sides",
        "the baseline always comes first: anything that drifts tells the class",
    )
    corruptions = ("missing:heart_rate", "missing:temperature", "missing:conductance", "noise:all", "gap:all")

    def __init__(
        self, *, root: Annotated[str, Location, "folder of the people's folders; empty: where `data get` puts it"] = ""
    ) -> None:
        self.root = root

    def load(self) -> Batch:
        """Windows of 20 rows that do not overlap and have one class, (N, 5, 4) a signal; groups are people."""
        folder = located("social_anxiety", self.root, [f"{person}/experiment_1.csv" for person in range(1, PEOPLE + 1)])
        windows, labels, ids, groups = [], [], [], []
        for person in range(1, PEOPLE + 1):
            signals, classes = _recording(folder / str(person) / "experiment_1.csv")
            for start in range(0, len(classes) - WINDOW + 1, WINDOW):
                rows = slice(start, start + WINDOW)
                if len(np.unique(classes[rows])) == 1:
                    windows.append(signals[rows])
                    labels.append(int(classes[start]))
                    ids.append(f"{person:02d}-{start // WINDOW:03d}")
                    groups.append(f"{person:02d}")
        x = torch.from_numpy(np.stack(windows)).float().unflatten(1, (-1, STEP))  # (N, 5, 4, 3)
        mask = torch.ones(x.shape[:2], dtype=torch.bool)
        streams = {m: Stream(x[..., k], mask) for k, m in enumerate(SIGNALS)}
        y = torch.tensor(labels).unsqueeze(1)
        return Batch(streams, y, torch.ones_like(y, dtype=torch.bool), ids, groups)


def _recording(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(rows, 3) signals and (rows,) classes."""
    signals, classes = [], []
    with path.open(newline="", encoding="utf-8-sig") as file:
        for number, cells in enumerate(csv.reader(file), 1):
            if number == 1 or not cells:
                continue
            try:
                values = [float(cell) for cell in cells[1:]]
            except ValueError:
                values = []
            if len(values) != 4 or not np.isfinite(values).all() or values[3] not in (0, 1):
                raise UsageError(f"{path}, row {number}: expected a time, three numbers and 0 or 1")
            signals.append(values[:3])
            classes.append(values[3])
    if len(classes) < WINDOW:
        raise UsageError(f"{path} has {len(classes)} rows, a window needs {WINDOW}")
    return np.array(signals), np.array(classes)

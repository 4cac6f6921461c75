"""How long does the engine last? Sensors of four subsystems of 200 simulated turbofan engines, NASA's C-MAPSS FD001.

Data: Saxena, Goebel, Simon and Eklund, PHM 2008 (a work of the US government), as published: `train_FD001.txt` (100
engines until they fail), `test_FD001.txt` (100 engines cut off before) and `RUL_FD001.txt` (the cycles that were left).
A sample is 30 cycles of one engine, 3 a step: every fifth such window of a training engine, the last one of a test
engine. The official test engines test; a fifth of the training engines validates. A modality is a subsystem: fan,
compressor, turbine, shafts; settings and sensors that are constant in FD001 are left out, and so is the cycle's number.

The label is the remaining cycles over a cap of 125, in training and test alike: an engine shows nothing of its age
before. So an RMSE of .12 is 15 cycles. The cap is declared because scores under different caps cannot be compared.

Why fusion could matter: wear in the compressor shows in temperatures, pressures and speeds of other parts, each in
noise of its own. What would inflate it: windows of one engine on both sides of a split; a cap on the test labels that
others do not set; the best epoch on the test engines. References, RMSE in cycles with this cap: deep convolutional
network 12.61 (Li, Ding and Sun, Reliability Engineering and System Safety 2018); ours, on statistics of the windows:
ridge regression 15.5, random forest 12.2.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray

from fusionbench.api import Batch, Benchmark, Location, Splits, Stream, Task, UsageError

from ._files import located, numbers
from ._official import official

#: modality -> columns of the tables: engine, cycle, three settings, then sensors 1 to 21
SUBSYSTEMS = {
    "fan": (6, 10, 19),  # low-pressure compressor outlet temperature, bypass-duct pressure, bypass ratio
    "compressor": (7, 11, 15),  # outlet temperature, pressure and static pressure
    "turbine": (8, 16, 21, 24, 25),  # outlet temperature, fuel flow, bleed enthalpy, coolant bleed of both turbines
    "shafts": (12, 13, 17, 18),  # fan and core speed, as they are and corrected
}
COLUMNS = 26
WINDOW, EVERY, STEP, CAP = 30, 5, 3, 125  # cycles: a window, from one to the next, a step, the longest label
FILES = {side: f"{side}_FD001.txt" for side in ("train", "test")}
LEFT = "RUL_FD001.txt"


class Cmapss(Benchmark):
    version = "1"
    domain = "engines"
    unit = "engine"
    margin = 0.01
    shapes = {m: (STEP * len(columns),) for m, columns in SUBSYSTEMS.items()}
    task = Task("regress", 1, ("rmse", "mae", "r2"))
    folds = 1
    seeds = 5
    steps = 300
    batch = 64
    interval = 25
    backbones = {m: ("tcn", {"dim": 32, "kernel": 3, "depth": 2, "shorten": 2}) for m in SUBSYSTEMS}  # 10 steps -> 5
    licence = "US government work"
    source = "https://data.nasa.gov/dataset/cmapss-jet-engine-simulated-data"
    citation = (
        "Saxena, Goebel, Simon and Eklund, Damage Propagation Modeling for Aircraft Engine Run-to-Failure "
        "Simulation, PHM 2008"
    )
    caveats = (
        "windows of one engine on both sides of a split",
        "a cap on the test labels that others do not set",
        "the best epoch on the test engines",
    )
    corruptions = (
        "missing:fan",
        "missing:compressor",
        "missing:turbine",
        "missing:shafts",
        "noise:compressor",
        "noise:turbine",
        "noise:all",
        "gap:all",
    )

    def __init__(
        self, *, root: Annotated[str, Location, "folder of the FD001 files; empty: where `data get` puts them"] = ""
    ) -> None:
        self.root = root

    def load(self) -> Batch:
        """Windows of 30 cycles, (N, 10, 3 D) a subsystem, y (N, 1, 1) remaining cycles over 125; groups are engines."""
        folder = located("cmapss", self.root, [*FILES.values(), LEFT])
        windows, labels, ids, groups = [], [], [], []
        left = numbers(folder / LEFT, None, header=True)[:, 0]
        for side, file in FILES.items():
            engines = _engines(folder / file)
            if side == "test" and len(left) != len(engines):
                raise UsageError(f"{folder / LEFT} has {len(left)} lives, {FILES['test']} {len(engines)} engines")
            for k, (number, table) in enumerate(engines.items()):
                after = 0 if side == "train" else left[k]
                # Counted back from the last cycle, so that the last window of every engine is there.
                ends = range(len(table), WINDOW - 1, -EVERY) if side == "train" else [len(table)]
                for end in ends:
                    windows.append(table[end - WINDOW : end])
                    labels.append(min(CAP, len(table) - end + after) / CAP)
                    ids.append(f"{side}-{number:03d}-{end:03d}")
                    groups.append(f"{side}-{number:03d}")
        x = torch.from_numpy(np.stack(windows)).float().unflatten(1, (-1, STEP))  # (N, 10, 3, 26)
        mask = torch.ones(x.shape[:2], dtype=torch.bool)
        streams = {m: Stream(x[..., list(columns)].flatten(2), mask) for m, columns in SUBSYSTEMS.items()}
        y = torch.tensor(labels).float().reshape(-1, 1, 1)
        return Batch(streams, y, torch.ones(y.shape[:2], dtype=torch.bool), ids, groups)

    def splits(self, data: Batch, fold: int) -> Splits:
        return official(data.groups, np.array([name.startswith("test") for name in data.groups]))


def _engines(path: Path) -> dict[int, NDArray[np.float64]]:
    """Engine -> (cycles, 26), its cycles in order. A header, which some copies have, is skipped."""
    table = numbers(path, None, header=True)
    if table.shape[1] != COLUMNS:
        raise UsageError(f"{path}: {table.shape[1]} columns, expected {COLUMNS}")
    engines = {}
    for number in np.unique(table[:, 0]):
        rows = table[table[:, 0] == number]
        if (rows[:, 1] != np.arange(1, len(rows) + 1)).any():
            raise UsageError(f"{path}: the cycles of engine {number:g} are not 1, 2, 3, ...")
        if len(rows) < WINDOW:
            raise UsageError(f"{path}: engine {number:g} has {len(rows)} cycles, a window needs {WINDOW}")
        engines[int(number)] = rows
    return engines

"""Did somebody fall? Two accelerometers and a gyroscope, one device: 23 young people fall and go about their day.

Data: SisFall (Sucerquia, Lopez and Vargas-Bonilla, Sensors 17(1):198, 2017), in the layout in which it comes:
`SA01/D01_SA01_R01.txt` (activity, person, trial) and `Readme.txt`. A line has nine whole numbers and a semicolon, 200 a
second: ADXL345 (acc16: 13 bits, 16 g), ITG3200 (gyro: 16 bits, 2,000 degrees a second), MMA8451Q (acc8: 14 bits, 8 g).
D01 to D19 are activities of daily living, F01 to F15 falls, which are acted. Not everybody made every trial.

A recording is one sample: six seconds around the strongest reading of acc16, within the recording, averaged to 50 Hz; a
step is ten of those. Five folds over the young people, validation people of their own. Of the 15 old people (SE01 to
SE15) one fell, a judoka: on both sides of a fold their age would tell the label, so they are left out, or, with
`protocol=young_to_old`, they alone test.

Why fusion could matter: a fall is a blow and a turn; the second accelerometer saturates where the first one does not,
and resolves more. What would inflate it: whole recordings, since all falls last 15 s and activities 12, 25 or 100;
folds over recordings, since a person repeats each activity five times; and that the window is placed by acc16, which a
device without it could not do. In `young_to_old` all falls of the test are one person's.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray

from fusionbench.api import Batch, Benchmark, Choice, Location, Splits, Stream, Task, UsageError, group_folds

from ._files import located
from ._official import official

#: modality -> first of its three columns, range, bits: a reading of one bit is 2 * range / 2^bits
SENSORS = {"acc16": (0, 16, 13), "gyro": (3, 2000, 16), "acc8": (6, 8, 14)}
COLUMNS = 9
YOUNG, OLD = [f"SA{k:02d}" for k in range(1, 24)], [f"SE{k:02d}" for k in range(1, 16)]
ACTIVITIES = {*(f"D{k:02d}" for k in range(1, 20)), *(f"F{k:02d}" for k in range(1, 16))}
NAME = re.compile(r"([DF]\d\d)_(S[AE]\d\d)_R\d\d")
PERSON = re.compile(r"\|\s*(S[AE]\d\d)\s*\|.*\|\s*([FM])\s*\|")
RATE, AVERAGED, STEP, STEPS = 200, 4, 10, 30  # Hz; readings averaged; of those in a step; steps of a window
WINDOW = AVERAGED * STEP * STEPS  # readings: six seconds
README = "Readme.txt"


class SisFall(Benchmark):
    version = "1"
    domain = "motion"
    unit = "person"
    margin = 0.01
    shapes = {m: (3 * STEP,) for m in SENSORS}
    rates = {m: RATE / AVERAGED / STEP for m in SENSORS}
    task = Task("classify", 2, ("macro_f1", "accuracy"))
    classes = ("activity", "fall")
    seeds = 3
    steps = 300
    batch = 32
    interval = 30
    backbones = {m: ("tcn", {"kernel": 3, "depth": 2, "shorten": 4}) for m in SENSORS}  # 30 steps -> 8
    licence = "freely available; the data state no licence"
    source = "https://www.mdpi.com/1424-8220/17/1/198"
    citation = "Sucerquia, Lopez and Vargas-Bonilla, SisFall: A Fall and Movement Dataset, Sensors 17(1):198, 2017"
    caveats = (
        "whole recordings: how long one lasts tells falls from activities",
        "old people in training and test: but for one they never fell",
        "folds over recordings: a person repeats each activity five times",
        "falls are acted, and the window is placed by an accelerometer",
    )
    corruptions = ("missing:acc16", "missing:gyro", "missing:acc8", "noise:acc16", "noise:gyro", "noise:all", "gap:all")

    def __init__(
        self,
        *,
        root: Annotated[str, Location, "folder of SA01 to SE15; empty: where `data get` puts them"] = "",
        protocol: Annotated[
            str, Choice("young", "young_to_old"), "folds of young people, or old people test"
        ] = "young",
        skip_bad: Annotated[bool, "leave out recordings that are wrong, instead of stopping"] = False,
    ) -> None:
        if protocol not in ("young", "young_to_old"):
            raise UsageError(f"sisfall: protocol is young or young_to_old, not {protocol!r}")
        self.root, self.protocol, self.skip_bad = root, protocol, skip_bad
        self.folds = 5 if protocol == "young" else 1
        self.people = YOUNG if protocol == "young" else YOUNG + OLD
        self.skipped: list[str] = []  # what is wrong with each recording that was left out, after load()

    def load(self) -> Batch:
        """Recordings (N, 30, 30) a sensor, g and degrees a second, reading by reading; groups are people."""
        folder = located("sisfall", self.root, self.people)
        self.skipped = []
        windows, ids = [], []
        for path in self._files(folder):
            try:
                windows.append(_window(_readings(path)))
            except UsageError as error:
                self._leave_out(f"{path}: {error}")
                continue
            ids.append(path.stem)
        if not ids:
            raise UsageError(f"{folder}: no recording can be read" + (f": {self.skipped[0]}" if self.skipped else ""))
        x = torch.from_numpy(np.stack(windows)).float().unflatten(1, (STEPS, STEP))  # (N, 30, 10, 9)
        mask = torch.ones(x.shape[:2], dtype=torch.bool)
        streams = {m: Stream(x[..., first : first + 3].flatten(2), mask) for m, (first, *_) in SENSORS.items()}
        y = torch.tensor([[int(name.startswith("F"))] for name in ids])
        groups = [name.split("_")[1] for name in ids]
        sexes = _sexes(folder / README)
        said = {
            "sex": [sexes.get(group, "") for group in groups],
            "age": ["young" if group in YOUNG else "old" for group in groups],
        }
        return Batch(streams, y, torch.ones_like(y, dtype=torch.bool), ids, groups, attributes=said)

    def splits(self, data: Batch, fold: int) -> Splits:
        if self.protocol == "young":
            return group_folds(data.groups, self.folds, fold)
        return official(data.groups, np.isin(data.groups, OLD))

    def _files(self, folder: Path) -> Iterator[Path]:
        """Every recording of these people; what stands beside them is passed over if it says that it is a readme."""
        for person in self.people:
            for path in sorted((folder / person).glob("*.txt")):
                found = NAME.fullmatch(path.stem)
                if found and found[1] in ACTIVITIES and found[2] == person:
                    yield path
                elif not path.stem.lower().startswith("readme"):
                    self._leave_out(f"{path}: its name is not <D01 to D19 or F01 to F15>_{person}_R<trial>")

    def _leave_out(self, wrong: str) -> None:
        if not self.skip_bad:
            raise UsageError(f"{wrong} (--benchmark.skip_bad leaves it out)")
        self.skipped.append(wrong)


def _readings(path: Path) -> NDArray[np.float64]:
    """(readings, 9) in g and degrees a second."""
    try:
        text = path.read_text(encoding="utf-8-sig").replace(";", "").strip()
        table = np.loadtxt(io.StringIO(text), delimiter=",", ndmin=2) if text else np.empty((0, COLUMNS))
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror or error}") from None
    except ValueError:  # not numbers, not equally many, or no text
        raise UsageError(f"row {_broken_row(path)} is not nine whole numbers and a semicolon") from None
    if len(table) < WINDOW:
        raise UsageError(f"{len(table)} readings, a window needs {WINDOW}")
    if table.shape[1] != COLUMNS or not np.isfinite(table).all():
        raise UsageError(f"row {_broken_row(path)} is not nine whole numbers and a semicolon")
    for first, greatest, bits in SENSORS.values():
        table[:, first : first + 3] *= 2 * greatest / 2**bits
    return table


def _broken_row(path: Path) -> int:
    rows = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    good = re.compile(r"\s*(-?\d+\s*,\s*){8}-?\d+\s*;?\s*")
    return next((k for k, row in enumerate(rows, 1) if row.strip() and not good.fullmatch(row)), len(rows))


def _window(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """(300, 9) six seconds around the strongest reading of the first accelerometer, four readings averaged."""
    strongest = int(np.linalg.norm(table[:, :3], axis=1).argmax())
    start = min(max(0, strongest - WINDOW // 2), len(table) - WINDOW)
    return table[start : start + WINDOW].reshape(-1, AVERAGED, COLUMNS).mean(1)


def _sexes(path: Path) -> dict[str, str]:
    """Person -> male or female, from the table in the readme; nothing where it is not there."""
    if not path.is_file():
        return {}
    found = PERSON.findall(path.read_text(encoding="utf-8", errors="replace"))
    return {person: "female" if letter == "F" else "male" for person, letter in found}

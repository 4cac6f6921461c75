"""Reads the official layout of Stress-Predict: one folder of Empatica E4 files a person, one table of labels.

A signal file is a CSV whose row 1 is its Unix start time and row 2 its sampling rate, once for each column. Labels
stand in one table, a row a second. People without labels (S01) are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray

from fusionbench.api import Batch, Benchmark, Location, Splits, Stream, Task, UsageError, data_dir, elapsed, group_folds

LABELS = "Processed_data/Improved_All_Combined_hr_rsp_binary.csv"
COLUMNS = ("Participant", "Time(sec)", "Label")
WINDOW, EVERY, STEP = 60, 30, 5  # seconds: a window, from one window's start to the next one's, a step
# modality -> file, samples a second, columns, size of one unit of the file
SIGNALS = {
    "eda": ("EDA.csv", 4, 1, 1.0),  # microsiemens
    "temp": ("TEMP.csv", 4, 1, 1.0),  # degrees Celsius
    "hr": ("HR.csv", 1, 1, 1.0),  # beats a minute
    "acc": ("ACC.csv", 32, 3, 1 / 64),  # g
}
STATISTICS = 5  # mean, SD, slope, least, greatest

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Windows:
    """One person's windows: x[m] (n, 12, D), mask[m] (n, 12), y (n,)."""

    x: dict[str, Array]
    mask: dict[str, NDArray[np.bool_]]
    y: NDArray[np.int64]


class WristStress(Benchmark):
    """What both variants share: everything but the scaling."""

    version = "1"
    shapes = {"eda": (STATISTICS,), "temp": (STATISTICS,), "hr": (STATISTICS,), "acc": (4 * STATISTICS,)}
    rates = {m: 1 / STEP for m in shapes}
    task = Task("classify", 2, ("macro_f1", "accuracy"))
    folds = 5
    seeds = 3
    steps = 200
    batch = 32
    interval = 25
    backbones = {m: ("tcn", {"dim": 32, "kernel": 3, "depth": 2, "shorten": 4}) for m in shapes}  # 12 steps -> 3
    licence = "MIT"
    source = "https://github.com/italha-d/Stress-Predict-Dataset"
    citation = "Iqbal et al., Stress Monitoring Using Wearable Sensors, Sensors 22(21):8135, 2022"
    caveats = (
        "the tasks come in one order for everybody: elapsed time alone tells the label",
        "shuffled windows: neighbours overlap by half, and stand on both sides",
    )
    corruptions = (
        "missing:eda",
        "missing:temp",
        "missing:hr",
        "missing:acc",
        "noise:eda",
        "noise:acc",
        "noise:all",
        "gap:eda",
        "gap:all",
    )
    unit = "person"
    # Of macro-F1: about two of a person's hundred windows, a change that an hour of wearing would show twice.
    margin = 0.02
    domain = "stress"
    role = "development"

    def __init__(
        self,
        *,
        root: Annotated[str, Location, "folder of the unpacked archive; empty: where `data get` puts it"] = "",
        skip_bad: Annotated[bool, "leave out people whose files are wrong, instead of stopping"] = False,
    ) -> None:
        self.root, self.skip_bad = root, skip_bad
        self.skipped: list[str] = []  # why each person was left out, after load()

    def load(self) -> Batch:
        """3,697 windows of 34 people: 12 steps of 5 s a modality, five statistics a channel; groups are people."""
        folder = self._folder()
        streams: dict[str, list[Any]] = {m: [] for m in SIGNALS}
        masks: dict[str, list[Any]] = {m: [] for m in SIGNALS}
        y, groups, ids = [], [], []
        self.skipped = []
        table = _labels(folder / LABELS)
        for number in np.unique(table[:, 0]):
            try:
                person, times, labels = _labelled(folder, table[table[:, 0] == number])
                windows = self.scale(_windows(folder, person, times, labels))
            except UsageError as error:
                if not self.skip_bad:
                    raise
                self.skipped.append(str(error))
                continue
            for m in SIGNALS:
                streams[m].append(windows.x[m])
                masks[m].append(windows.mask[m])
            y.append(windows.y)
            groups += [person] * len(windows.y)
            ids += [f"{person}-{k:03d}" for k in range(len(windows.y))]
        if not y:
            raise UsageError(f"{folder}: nobody's files can be read; the first error: {self.skipped[0]}")
        found = {
            m: Stream(torch.from_numpy(np.concatenate(streams[m])).float(), torch.from_numpy(np.concatenate(masks[m])))
            for m in SIGNALS
        }
        answers = torch.from_numpy(np.concatenate(y)).unsqueeze(1)
        return Batch(found, answers, torch.ones_like(answers, dtype=torch.bool), ids, groups)

    def scale(self, windows: Windows) -> Windows:
        """One person's windows as the model shall meet them."""
        return windows

    def splits(self, data: Batch, fold: int) -> Splits:
        return group_folds(data.groups, self.folds, fold)

    def order(self, data: Batch) -> NDArray[np.float64]:
        """Windows start every 30 s: the tasks come in one order for everybody."""
        return elapsed(data.groups)

    def _folder(self) -> Path:
        root = Path(self.root).expanduser() if self.root else data_dir("stress_predict")
        for folder in (root, *sorted(root.glob("Stress-Predict-Dataset-*"))):
            if (folder / LABELS).is_file():
                return folder
        raise UsageError(
            f"stress_predict: there is no {root / LABELS}: run `fusionbench data get stress_predict`, or name the "
            f"unpacked archive with --benchmark.root"
        )


def _labels(path: Path) -> Array:
    """(rows, 4): participant, Unix time, label, row of the file."""
    with path.open(encoding="utf-8-sig") as file:
        header = [name.strip() for name in file.readline().split(",")]
    for name in COLUMNS:
        if name not in header:
            raise UsageError(f"{path}, row 1: there is no column {name!r}, only {', '.join(header)}")
    table = _numbers(path, skip=1, columns=[header.index(name) for name in COLUMNS])
    return np.column_stack([table, np.arange(len(table)) + 2])


def _labelled(folder: Path, table: Array) -> tuple[str, Array, Array]:
    """One participant's rows of the table -> person, (seconds,) Unix times, (seconds,) labels, one second apart."""
    path, (number, times, labels, rows) = folder / LABELS, table.T
    person = f"S{int(number[0]):02d}"
    if number[0] != int(number[0]) or not (folder / "Raw_data" / person).is_dir():
        raise UsageError(f"{path}, row {rows[0]:.0f}: unknown participant {number[0]:g}, there is no Raw_data/{person}")
    for row, label in zip(rows, labels, strict=True):
        if label not in (0, 1):
            raise UsageError(f"{path}, row {row:.0f}: the label is {label:g}, not 0 or 1")
    jumps = np.flatnonzero(np.diff(times) != 1)
    if len(jumps):
        raise UsageError(f"{path}, row {rows[jumps[0] + 1]:.0f}: {person} is not labelled second after second")
    return person, times, labels


def _windows(folder: Path, person: str, times: Array, labels: Array) -> Windows:
    """Windows whose 60 seconds are all labelled; the label is stress where more than 30 of them are."""
    starts = np.arange(0, len(times) - WINDOW + 1, EVERY)
    if not len(starts):
        raise UsageError(f"{folder / LABELS}: {person} has {len(times)} labelled seconds, a window needs {WINDOW}")
    y = np.array([labels[s : s + WINDOW].mean() > 0.5 for s in starts]).astype(np.int64)
    x, mask = {}, {}
    for m in SIGNALS:
        signal, begin = _signal(folder / "Raw_data" / person / SIGNALS[m][0], m, times)
        rate = SIGNALS[m][1]
        first = np.rint((times[starts] - begin) * rate).astype(int)
        at = first[:, None] + np.arange(WINDOW * rate)  # (n, samples)
        inside = (at >= 0) & (at < len(signal))
        values = signal[np.clip(at, 0, len(signal) - 1)]  # (n, samples, channels)
        x[m], mask[m] = _statistics(values, inside, STEP * rate)
    return Windows(x, mask, y)


def _signal(path: Path, modality: str, times: Array) -> tuple[Array, float]:
    """(samples, channels) values, for acceleration with the magnitude as a fourth channel; and the start time."""
    _, rate, channels, unit = SIGNALS[modality]
    if not path.is_file():
        raise UsageError(f"there is no {path}")
    table = _numbers(path)
    if table.shape[1] != channels:
        raise UsageError(f"{path}, row 1: {table.shape[1]} columns, expected {channels}")
    if len(table) < 3 or (table[1] != rate).any():
        raise UsageError(f"{path}, row 2: the sampling rate is {rate} Hz, not {table[min(1, len(table) - 1), 0]:g}")
    begin, signal = float(table[0, 0]), table[2:] * unit
    end = begin + len(signal) / rate
    if begin > times[0] + WINDOW or end < times[-1] - WINDOW:
        raise UsageError(
            f"{path}, row {len(table)}: the signal runs from {begin:.0f} to {end:.0f} s, its labels from "
            f"{times[0]:.0f} to {times[-1]:.0f} s"
        )
    if modality == "acc":
        signal = np.concatenate([signal, np.linalg.norm(signal, axis=1, keepdims=True)], 1)
    return signal, begin


def _statistics(values: Array, inside: NDArray[np.bool_], step: int) -> tuple[Array, NDArray[np.bool_]]:
    """(n, samples, C) -> (n, steps, 5 C) and (n, steps): a step is real if at least half of its samples are."""
    n, samples, channels = values.shape
    values = values.reshape(n, samples // step, step, channels)
    inside = inside.reshape(n, samples // step, step)
    count = np.maximum(inside.sum(2), 1)[..., None]
    mean = (values * inside[..., None]).sum(2) / count  # (n, steps, C)
    values = np.where(inside[..., None], values, mean[:, :, None])  # a missing sample stands at the mean of its step
    t = np.linspace(-1, 1, step)
    slope = ((values - mean[:, :, None]) * t[:, None]).sum(2) / (t**2).sum()
    parts = [mean, values.std(2), slope, values.min(2), values.max(2)]
    return np.concatenate(parts, 2), inside.mean(2) >= 0.5


def _numbers(path: Path, skip: int = 0, columns: list[int] | None = None) -> Array:
    """A CSV of numbers; what is not a finite number is named by file and row."""
    try:
        table = np.loadtxt(path, delimiter=",", skiprows=skip, usecols=columns, ndmin=2, encoding="utf-8-sig")
        broken = np.flatnonzero(~np.isfinite(table).all(1)) if table.size else np.array([0])
    except (ValueError, UnicodeDecodeError):
        raise UsageError(f"{path}, row {_broken_row(path, skip, columns)}: not a row of numbers") from None
    if len(broken):
        raise UsageError(f"{path}, row {broken[0] + skip + 1}: not a row of finite numbers")
    return np.asarray(table)


def _broken_row(path: Path, skip: int, columns: list[int] | None) -> int:
    width = None
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for row, line in enumerate(file, 1):
            if row <= skip:
                continue
            cells = line.split(",")
            try:
                [float(cells[c]) for c in (range(len(cells)) if columns is None else columns)]
            except (ValueError, IndexError):
                return row
            if width not in (None, len(cells)):
                return row
            width = len(cells)
    return skip + 1

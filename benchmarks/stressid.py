"""Which of eleven tasks? ECG, EDA, respiration and face of 65 people, from StressID's feature tables; really missing.

Data: StressID (Chaptoukaev et al., NeurIPS 2023), the tables of its repository robustml-eurecom/stressID: a row for
each person and task, of 46 ECG, 24 EDA, 62 respiration, 84 face (action units, gaze) and 140 voice features. The
baseline is not among the tasks: nobody was filmed then. Ten people were never filmed and a few sensors failed: their
rows are masked. Five folds by person, validation people of their own. Random forests, macro-F1: physiology .47, face
.26, both .53.

The voice is off unless asked for: it was recorded in the seven talking tasks only, so that its bare absence excludes
seven of the eleven answers. `labels=stress` asks instead for the self-reported stress of the rows of `protocol.txt`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from fusionbench.api import Batch, Benchmark, Choice, Location, Splits, Stream, Task, UsageError, data_dir, group_folds

TASKS = (
    "Breathing",
    "Counting1",
    "Counting2",
    "Counting3",
    "Math",
    "Reading",
    "Relax",
    "Speaking",
    "Stroop",
    "Video1",
    "Video2",
)
# modality -> table, features, whether it has a header
TABLES = {
    "ecg": ("ecg_features.csv", 46, True),
    "eda": ("eda_features.csv", 24, True),
    "resp": ("resp_features.csv", 62, True),
    "face": ("video11tasks_aus_gaze_mean_std.csv", 84, True),
    "voice": ("HCfeatures.csv", 140, False),
}
PROTOCOL = "protocol.txt"
T = TypeVar("T")


class StressID(Benchmark):
    version = "1"
    folds = 5
    seeds = 3
    steps = 300
    batch = 32
    interval = 25
    licence = "BSD-3-Clause"
    source = "https://github.com/robustml-eurecom/stressID"
    citation = "Chaptoukaev et al., StressID: a Multimodal Dataset for Stress Identification, NeurIPS 2023"
    caveats = (
        "the voice was recorded in seven of the eleven tasks: its absence excludes them",
        "the names of the rows hold the task",
    )
    corruptions = (
        "missing:ecg",
        "missing:eda",
        "missing:resp",
        "missing:face",
        "noise:ecg",
        "noise:resp",
        "noise:face",
        "noise:all",
    )
    unit = "person"
    # Of macro-F1: about one more recording right for one person in five, who have eleven each.
    margin = 0.02
    domain = "stress"
    role = "development"

    def __init__(
        self,
        *,
        root: Annotated[str, Location, "folder of the feature tables; empty: where `data get` puts it"] = "",
        voice: Annotated[bool, "the voice as a fifth modality"] = False,
        labels: Annotated[str, Choice("task", "stress"), "which task it is, or self-reported stress"] = "task",
        skip_bad: Annotated[bool, "leave out samples with a bad row, instead of stopping"] = False,
    ) -> None:
        if labels not in ("task", "stress"):
            raise UsageError(f"stressid: labels are task or stress, not {labels!r}")
        self.root, self.labels, self.skip_bad = root, labels, skip_bad
        self.skipped: list[str] = []  # what is wrong with each row that was left out, after load()
        self.shapes = {m: (width,) for m, (_, width, _) in TABLES.items() if voice or m != "voice"}
        self.backbones = {m: ("ple", {}) for m in self.shapes}
        self.task = Task("classify", len(TASKS) if labels == "task" else 2, ("macro_f1", "accuracy"))

    def load(self) -> Batch:
        """713 rows (196 with `labels=stress`), one step a modality, (N, 1, D), absent ones masked; groups are people.

        Physiology and voice come as sign(x) log(1 + |x|): their spectral powers span seven decades.
        """
        folder = self._folder()
        self.skipped, bad = [], set[str]()
        tables = {m: self._sound(_rows(folder / TABLES[m][0], *TABLES[m][1:]), bad) for m in self.shapes}
        if self.labels == "task":
            named = sorted({name for table in tables.values() for name in table})
            answers = {name: TASKS.index(name.split("_")[1]) for name in named if name.split("_")[1] in TASKS}
        else:
            answers = dict(sorted(self._sound(_protocol(folder / PROTOCOL), bad).items()))
        answers = {name: y for name, y in answers.items() if name not in bad}
        if not answers:
            raise UsageError(f"{folder}: no row can be used; the first error: {self.skipped[0]}")
        streams = {}
        for m, (width,) in self.shapes.items():
            x = np.full((len(answers), 1, width), np.nan)
            for row, name in enumerate(answers):
                if name in tables[m]:
                    x[row, 0] = tables[m][name]
            if m != "face":
                x = np.sign(x) * np.log1p(np.abs(x))
            streams[m] = Stream(torch.from_numpy(x).float(), torch.from_numpy(np.isfinite(x).all(2)))
        y = torch.tensor(list(answers.values())).unsqueeze(1)
        groups = [name.split("_")[0] for name in answers]
        return Batch(streams, y, torch.ones_like(y, dtype=torch.bool), list(answers), groups)

    def splits(self, data: Batch, fold: int) -> Splits:
        return group_folds(data.groups, self.folds, fold)

    def _folder(self) -> Path:
        folder = Path(self.root).expanduser() if self.root else data_dir("stressid")
        needed = [TABLES[m][0] for m in self.shapes] + ([PROTOCOL] if self.labels == "stress" else [])
        for name in needed:
            if not (folder / name).is_file():
                raise UsageError(
                    f"stressid: there is no {folder / name}: `fusionbench data get stressid` says where to get it; or "
                    f"name the folder with --benchmark.root"
                )
        return folder

    def _sound(self, rows: Iterator[tuple[str, T | str]], bad: set[str]) -> dict[str, T]:
        """`person_Task` -> value of the sound rows; a bad row (a sentence) raises, or is noted with its sample."""
        found: dict[str, T] = {}
        for name, value in rows:
            if isinstance(value, str):
                if not self.skip_bad:
                    raise UsageError(f"{value} (--benchmark.skip_bad leaves it out)")
                self.skipped.append(value)
                bad.add(name)
            else:
                found[name] = value
        return found


def _rows(path: Path, width: int, header: bool) -> Iterator[tuple[str, NDArray[np.float64] | str]]:
    """`person_Task` and its features, or what is wrong with its row."""
    seen: set[str] = set()
    for row, cells in _lines(path, header):
        name, wrong = _name(cells[0])
        values = np.full(width, np.nan)
        if not wrong and name in seen:
            wrong = f"{name} stands there twice"
        elif not wrong and len(cells) != width + 1:
            wrong = f"{len(cells) - 1} features, expected {width}"
        elif not wrong:
            try:
                values = np.array(cells[1:], dtype=np.float64)
                wrong = "" if np.isfinite(values).all() else "not a row of finite numbers"
            except ValueError:
                wrong = "not a row of numbers"
        seen.add(name)
        yield name, f"{path}, row {row}: {wrong}" if wrong else values


def _protocol(path: Path) -> Iterator[tuple[str, int | str]]:
    """`person_Task` and 1 if stressed, or what is wrong with its row: file, level, stressed or not."""
    for row, cells in _lines(path, header=False):
        name, wrong = _name(cells[0])
        if len(cells) != 3 or cells[2] not in ("0", "1"):
            wrong = f"expected a file name, a number and 0 or 1, not {','.join(cells)}"
        yield name, f"{path}, row {row}: {wrong}" if wrong else int(cells[2])


def _lines(path: Path, header: bool) -> list[tuple[int, list[str]]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [(row, cells) for row, cells in enumerate(csv.reader(file), 1) if cells]
    return rows[1:] if header else rows


def _name(cell: str) -> tuple[str, str]:
    """`person_Task` of a cell, and what is wrong with it; empty if nothing."""
    name = cell.removesuffix(".wav")
    person, _, task = name.partition("_")
    right = person and task in (*TASKS, "Baseline")
    return name, "" if right else f"{cell!r} is not a person and one of the tasks, as in 2ea4_Reading"

"""Reads the official layout of BioVid Part A: one table of clips, one table of signals and one video a clip.

Every clip lasts 5.5 s. Signals: 512 Hz, 2,816 rows, tab-separated, time in microseconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fusionbench.api import Batch, Benchmark, Stream, Task, UsageError, data_dir

from . import _media as media

INDEX = "starting_point/samples.csv"
COLUMNS = ("subject_name", "class_id", "class_name", "sample_name")
CLASSES = ("BL1", "PA1", "PA2", "PA3", "PA4")
RATE, ROWS, SECONDS = 512, 2816, 5.5
REQUIRED = ("gsr", "ecg", "emg_trapezius")
SIGNALS = (*REQUIRED, "emg_corrugator", "emg_zygomaticus")
TOKENS, FRAMES = 4, 16  # of the face: tokens a clip, frames a token
PEOPLE = 87


@dataclass(frozen=True)
class Clip:
    """A line of the table of clips."""

    subject: str
    name: str
    label: int


class HeatPain(Benchmark):
    """What both variants share: everything but the splits."""

    version = "1"
    seeds = 3
    steps = 1000
    batch = 64
    interval = 50
    licence = "by agreement with its makers"
    source = "https://www.nit.ovgu.de/BioVid.html"
    citation = (
        "Walter et al., The BioVid Heat Pain Database: Data for the Advancement and Systematic Validation of an "
        "Automated Pain Recognition System, CYBCO 2013"
    )
    caveats = ("folds over clips: a person stands on both sides (biovid_subject_dependent)",)
    unit = "person"
    margin = 0.02  # a person has forty clips of two classes: not quite one more
    domain = "pain"

    def __init__(
        self, root: str, classes: str, modalities: str, signals: str, video: str, size: int, skip_bad: bool
    ) -> None:
        if classes not in ("pa4", "pa3", "pa2", "pa1", "all"):
            raise UsageError(f"classes is pa4, pa3, pa2, pa1 or all, not {classes!r}")
        self.root = Path(root).expanduser() if root else data_dir("biovid")
        self.names = CLASSES if classes == "all" else ("BL1", classes.upper())
        self.signals, self.video, self.size, self.skip_bad = signals, video, size, skip_bad
        self.modalities = [m.strip() for m in modalities.split(",") if m.strip()]
        for m in self.modalities:
            if m not in ("face", *SIGNALS):
                raise UsageError(f"biovid has the modalities face, {', '.join(SIGNALS)}, not {m!r}")
        if not self.modalities:
            raise UsageError("biovid needs at least one modality")
        self.task = Task("classify", len(self.names), ("accuracy", "macro_f1"))
        face = (FRAMES, 3, size, size)
        self.shapes = {m: face if m == "face" else (1,) for m in self.modalities}
        self.rates = {m: TOKENS / SECONDS if m == "face" else float(RATE) for m in self.modalities}
        self.backbones = {m: ("r3d_18" if m == "face" else "gsr_cnn", {}) for m in self.modalities}
        damage = {"face": ("occlusion", "image_noise"), "signal": ("bio_noise", "wander")}
        self.corruptions = tuple(
            f"{name}:{m}" for m in self.modalities for name in ("missing", *damage["face" if m == "face" else "signal"])
        )
        self.skipped: list[str] = []

    def load(self) -> Batch:
        """Clips of the chosen classes: signals (N, 2816, 1), face (N, 4, 16, 3, size, size) read on demand."""
        if "face" in self.modalities:
            media.extra("av", "video")
            media.extra("PIL.Image", "video")
        self.skipped = []
        kept, videos = list[Clip](), list[Path]()
        channels: dict[str, list[NDArray[np.float32]]] = {m: [] for m in self.modalities if m != "face"}
        for clip in self._clips():
            try:
                read, path = self._files(clip, list(channels))
            except UsageError as error:
                if not self.skip_bad:
                    raise UsageError(f"{error} (--benchmark.skip_bad leaves it out)") from None
                self.skipped.append(str(error))
                continue
            kept.append(clip)
            videos.append(path)
            for m, values in read.items():
                channels[m].append(values)
        if not kept:
            first = f"; the first error: {self.skipped[0]}" if self.skipped else ""
            raise UsageError(f"biovid: no clip of {', '.join(self.names)} in {self.root} could be read{first}")
        streams: dict[str, Any] = {}
        for m in self.modalities:
            if m == "face":
                streams[m] = Faces(videos, self.size, self.skip_bad)
            else:
                x = torch.from_numpy(np.stack(channels[m])).unsqueeze(2)
                streams[m] = Stream(x, torch.ones(x.shape[:2], dtype=torch.bool))
        y = torch.tensor([[clip.label] for clip in kept])
        ids, groups = [clip.name for clip in kept], [clip.subject for clip in kept]
        return Batch(streams, y, torch.ones(len(y), 1, dtype=torch.bool), ids, groups)

    @cached_property
    def subjects(self) -> list[str]:
        """The people of the table of clips, sorted."""
        return sorted({clip.subject for _, clip in self._table() if isinstance(clip, Clip)})

    # -------------------------------------------------------------------------------------------------------- reading

    def _clips(self) -> Iterator[Clip]:
        """The clips of the chosen classes, in the table's order."""
        for _, clip in self._table():
            if isinstance(clip, Clip):
                if clip.label >= 0:
                    yield clip
            elif self.skip_bad:
                self.skipped.append(clip)
            else:
                raise UsageError(f"{clip} (--benchmark.skip_bad leaves it out)")

    def _table(self) -> list[tuple[int, Clip | str]]:
        """(line, clip) of the whole table, label -1 where its class is not asked for; a bad line is what is wrong."""
        path = self.root / INDEX
        if not path.is_file():
            raise UsageError(
                f"biovid: there is no {INDEX} in {self.root}: name the folder that was handed out with "
                f"--benchmark.root (the data are licensed: ask the makers of BioVid)"
            )
        header, lines = media.table(path, "\t")
        names = [name.lower() for name in header]
        for column in COLUMNS:
            if column not in names:
                raise UsageError(f"{path}: there is no column {column!r}; the tab-separated columns are {names}")
        found: list[tuple[int, Clip | str]] = []
        seen: set[str] = set()
        for line, cells in lines:
            where = f"{path}, line {line}"
            if len(cells) != len(names):
                found.append((line, f"{where}: {len(cells)} columns, not {len(names)}"))
                continue
            row = dict(zip(names, cells, strict=True))
            wrong = _wrong(row, seen)
            if wrong:
                found.append((line, f"{where}: {wrong}"))
                continue
            seen.add(row["sample_name"])
            label = self.names.index(row["class_name"]) if row["class_name"] in self.names else -1
            found.append((line, Clip(row["subject_name"], row["sample_name"], label)))
        return found

    def _files(self, clip: Clip, signals: list[str]) -> tuple[dict[str, NDArray[np.float32]], Path]:
        """The clip's signals by name, each (2816,), and its video, checked without decoding it."""
        folder = self.root / self.signals / clip.subject
        if signals and not folder.is_dir():
            raise UsageError(f"unknown subject {clip.subject!r} of {INDEX}: there is no folder {folder}")
        read = read_signals(folder / f"{clip.name}_bio.csv", signals) if signals else {}
        path = self.root / self.video / clip.subject / f"{clip.name}.mp4"
        if "face" in self.modalities:
            seconds = media.probe(path).seconds
            if seconds < SECONDS - 0.5:
                raise UsageError(f"{path} lasts {seconds:.2f} s, not {SECONDS}: it is truncated")
        return read, path


def _wrong(row: dict[str, str], seen: set[str]) -> str:
    """What is wrong with a line of the table; empty if nothing."""
    name = row["sample_name"]
    if row["class_name"] not in CLASSES:
        return f"class_name is {row['class_name']!r}, not one of {', '.join(CLASSES)}"
    if row["class_id"] != str(CLASSES.index(row["class_name"])):
        return f"class_id is {row['class_id']!r}, but {row['class_name']} is {CLASSES.index(row['class_name'])}"
    if not name.startswith(f"{row['subject_name']}-{row['class_name']}-") or "/" in name:
        return f"the sample {name!r} is not <subject>-<class>-<number> of {row['subject_name']}, {row['class_name']}"
    return f"the sample {name!r} stands here a second time" if name in seen else ""


def read_signals(path: Path, wanted: list[str]) -> dict[str, NDArray[np.float32]]:
    """The wanted columns of a table of signals, each (2816,).

    Names are matched without regard to case, blanks and hyphens, and to the spelling `emp_` that some files have.

    Raises:
        UsageError: a required or wanted column is missing, or rows are too few, too many, no numbers or not at 512 Hz.
    """
    header, values = _numbers(path)
    names = [n.lower().replace(" ", "_").replace("-", "_").replace("emp_", "emg_") for n in header]
    for column in dict.fromkeys(("time", *REQUIRED, *wanted)):
        if column not in names:
            raise UsageError(f"{path}: there is no column {column!r}; the tab-separated columns are {header}")
    if len(values) != ROWS:
        raise UsageError(f"{path} has {len(values)} rows of signal, not {ROWS}")
    values = values[:, [names.index(c) for c in ("time", *wanted)]]
    step = (values[-1, 0] - values[0, 0]) / (ROWS - 1)
    if abs(step * RATE / 1e6 - 1) > 0.02:
        raise UsageError(f"{path}: its rows are {step:.0f} microseconds apart, not {1e6 / RATE:.0f} ({RATE} Hz)")
    return {m: values[:, 1 + k].astype(np.float32) for k, m in enumerate(wanted)}


def _numbers(path: Path) -> tuple[list[str], NDArray[np.float64]]:
    """The header, and all rows as finite numbers, (rows, columns)."""
    try:  # numpy reads ten times as fast, but cannot say well what is wrong
        with path.open(encoding="utf-8-sig") as file:
            header = [name.strip() for name in file.readline().split("\t")]
            values = np.loadtxt(file, delimiter="\t", ndmin=2)
        if values.shape[1] == len(header) and np.isfinite(values).all():
            return header, values
    except (OSError, ValueError):
        pass
    header, lines = media.table(path, "\t")
    rows = []
    for line, cells in lines:
        try:
            row = [float(cell) for cell in cells]
        except ValueError:
            raise UsageError(f"{path}, line {line}: not all of {cells!r} are numbers") from None
        if len(row) != len(header):
            raise UsageError(f"{path}, line {line}: {len(row)} columns, not {len(header)}")
        if not np.isfinite(row).all():
            raise UsageError(f"{path}, line {line}: a value is not finite")
        rows.append(row)
    return header, np.array(rows).reshape(-1, len(header))


class Faces:
    """A Source of (N, 4, 16, 3, size, size) frames from 0 to 1, evenly spread over the clip."""

    def __init__(self, videos: list[Path], size: int, skip_bad: bool = False) -> None:
        self.videos, self.size, self.skip_bad = videos, size, skip_bad
        self.shape: tuple[int, ...] = (TOKENS, FRAMES, 3, size, size)

    @cached_property
    def digest(self) -> str:
        return media.fingerprint(self.videos, "faces", self.shape, [str(v.parent.name) for v in self.videos])

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: Any) -> Stream:
        rows = media.positions(index, len(self))
        moments = ((np.arange(TOKENS * FRAMES) + 0.5) * SECONDS / (TOKENS * FRAMES)).tolist()
        x = torch.zeros(len(rows), *self.shape)  # (B, 4, 16, 3, size, size)
        mask = torch.zeros(len(rows), TOKENS, dtype=torch.bool)
        for place, row in enumerate(rows):
            try:
                frames = media.frames_at(self.videos[row], moments, self.size)
            except UsageError as error:
                if not self.skip_bad:
                    raise UsageError(f"{error} (--benchmark.skip_bad masks the face of this clip)") from None
                media.left_out(error)
                continue
            x[place], mask[place] = media.channels_first(frames).unflatten(0, (TOKENS, FRAMES)), True
        return Stream(x, mask)

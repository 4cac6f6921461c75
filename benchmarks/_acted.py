"""What acted emotions share: a clip of one actor, the face as frames of a video, the voice as sound on the same clock.

A token is .64 s: 8 frames, evenly spread, and the sound of the same time. A clip has 8 tokens at most (5.12 s); what
comes later is cut off, and a token of which less than half lies in the clip is masked. A modality whose file is missing
is masked. Frames are the centre square of the picture. Media are read on demand.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fusionbench.api import Batch, Benchmark, Splits, Stream, UsageError, data_dir, group_folds

from . import _media as media

TOKENS, TOKEN, FRAMES = 8, 0.64, 8  # a clip; seconds; frames a token
POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class Clip:
    """One recording: its actor, what is said of the actor, label, and files, None where there is none.

    `sound` may be a video with sound. `about` (sex, age, ...) has the same keys in every clip, "" is not known.
    """

    name: str
    actor: str
    about: Mapping[str, str]
    label: int
    video: Path | None
    sound: Path | None


class ActedEmotions(Benchmark):
    """Face and voice of actors through frozen encoders; no actor stands on two sides of a split."""

    version = "1"
    domain = "affect"
    unit = "actor"
    margin = 0.02
    rates = {"face": 1 / TOKEN, "voice": 1 / TOKEN}
    seeds = 3
    steps = 400
    batch = 32
    interval = 40
    corruptions = ("missing:face", "missing:voice", "occlusion:face", "white_noise:voice", "noise:all", "gap:all")
    home: str  # the benchmark's name

    def __init__(self, root: str, size: int, audio_rate: int, skip_bad: bool) -> None:
        self.root = Path(root).expanduser() if root else data_dir(self.home)
        self.size, self.audio_rate, self.skip_bad = size, audio_rate, skip_bad
        self.shapes = {"face": (FRAMES, 3, size, size), "voice": (round(TOKEN * audio_rate),)}
        self.backbones = {"face": ("r2plus1d_18", {}), "voice": ("spectrogram_resnet18", {"sample_rate": audio_rate})}
        self.skipped: list[str] = []

    @abstractmethod
    def clips(self) -> Iterator[Clip | str]:
        """Every clip in a fixed order, or what is wrong with a file."""

    def load(self) -> Batch:
        """Face (N, 8, 8, 3, size, size) and voice (N, 8, n), read on demand; groups are actors, `<number>_<sex>`."""
        media.extra("av", "video")
        media.extra("PIL.Image", "video")
        media.extra("soundfile", "audio")
        self.skipped = []
        kept, seconds = list[Clip](), {"face": list[float](), "voice": list[float]()}
        for clip in self.clips():
            try:
                if isinstance(clip, str):
                    raise UsageError(clip)
                lengths = _length(clip.video, video=True), _length(clip.sound, video=False)
                if not any(lengths):
                    raise UsageError(f"{self.home}: {clip.name} has neither a picture nor sound")
            except UsageError as error:
                if not self.skip_bad:
                    raise UsageError(f"{error} (--benchmark.skip_bad leaves it out)") from None
                self.skipped.append(str(error))
                continue
            kept.append(clip)
            for m, length in zip(seconds, lengths, strict=True):
                seconds[m].append(length)
        if not kept:
            first = f"; the first error: {self.skipped[0]}" if self.skipped else ""
            raise UsageError(
                f"{self.home}: no clip in {self.root} could be read{first}: run `fusionbench data get {self.home}`, or "
                f"name the folder with --benchmark.root"
            )
        streams: dict[str, Any] = {
            "face": Faces([c.video for c in kept], seconds["face"], self.size, self.skip_bad),
            "voice": Voices([c.sound for c in kept], seconds["voice"], self.audio_rate, self.skip_bad),
        }
        y = torch.tensor([[clip.label] for clip in kept])
        ids, actors = [clip.name for clip in kept], [clip.actor for clip in kept]
        said = {name: [clip.about[name] for clip in kept] for name in kept[0].about}
        return Batch(streams, y, torch.ones_like(y, dtype=torch.bool), ids, actors, attributes=said)

    def splits(self, data: Batch, fold: int) -> Splits:
        return group_folds(data.groups, self.folds, fold)


def _length(path: Path | None, video: bool) -> float:
    """Seconds; 0 where there is nothing."""
    if path is None:
        return 0.0
    with path.open("rb") as file:
        if file.read(len(POINTER)) == POINTER:
            raise UsageError(f"{path} is a Git LFS pointer, not the recording: git lfs pull fetches it")
    return media.probe(path).seconds if video else media.sound_seconds(path)


class _Tokens:
    """A Source of the clips' tokens; (N,) files and how many seconds each lasts."""

    shape: tuple[int, ...]

    def __init__(self, files: list[Path | None], seconds: list[float], skip_bad: bool) -> None:
        self.files, self.seconds, self.skip_bad = files, seconds, skip_bad

    def __len__(self) -> int:
        return len(self.files)

    @cached_property
    def digest(self) -> str:
        named = [f"{file.parent.name}/{file.name}" if file else "" for file in self.files]
        return media.fingerprint([f for f in self.files if f], type(self).__name__, self.shape, named)

    def __getitem__(self, index: Any) -> Stream:
        rows = media.positions(index, len(self))
        x, mask = torch.zeros(len(rows), *self.shape), torch.zeros(len(rows), TOKENS, dtype=torch.bool)
        for place, row in enumerate(rows):
            file, seconds = self.files[row], self.seconds[row]
            if file is None or not seconds:
                continue
            count = int(np.clip(np.floor(seconds / TOKEN + 0.5), 1, TOKENS))
            try:
                x[place, :count], mask[place, :count] = self.read(file, seconds, count), True
            except UsageError as error:
                if not self.skip_bad:
                    raise UsageError(f"{error} (--benchmark.skip_bad masks it in this clip)") from None
                media.left_out(error)
        return Stream(x, mask)

    def read(self, file: Path, seconds: float, count: int) -> torch.Tensor:
        """The first `count` tokens."""
        raise NotImplementedError


class Faces(_Tokens):
    """(N, 8, 8, 3, size, size) frames from 0 to 1."""

    def __init__(self, files: list[Path | None], seconds: list[float], size: int, skip_bad: bool) -> None:
        super().__init__(files, seconds, skip_bad)
        self.size, self.shape = size, (TOKENS, FRAMES, 3, size, size)

    def read(self, file: Path, seconds: float, count: int) -> torch.Tensor:
        moments = np.minimum((np.arange(count * FRAMES) + 0.5) * TOKEN / FRAMES, seconds)
        return media.channels_first(media.frames_at(file, moments.tolist(), self.size)).unflatten(0, (count, FRAMES))


class Voices(_Tokens):
    """(N, 8, n) mono sound, -1 to 1."""

    def __init__(self, files: list[Path | None], seconds: list[float], rate: int, skip_bad: bool) -> None:
        super().__init__(files, seconds, skip_bad)
        self.rate, self.shape = rate, (TOKENS, round(TOKEN * rate))

    def read(self, file: Path, seconds: float, count: int) -> torch.Tensor:
        return torch.from_numpy(media.sound(file, 0.0, count * self.shape[1], self.rate)).unflatten(0, (count, -1))

"""How pleasant and how aroused, at every frame? Aff-Wild2, valence-arousal track: face crops and voice of 432 videos.

Data: Kollias & Zafeiriou, "Aff-Wild2: Extending the Aff-Wild Database" (2018), handed out under licence by its makers;
read in the layout in which it comes: `VA_Estimation_Challenge/{Train_Set,Validation_Set}/<clip>.txt`, crops
`cropped_aligned/<clip>/00001.jpg` (numbered from 1; none where no face was found), and the raw videos anywhere up to
two folders deep, or their sound as `audio/<video>.wav`. A clip `<video>_left` or `_right` is one person of two.

Protocol: windows of 512 frames = 16 tokens, as in the released code of the Joint Multimodal Transformer. A token is 32
frames: every 4th frame counted back from its last one (8 crops), the sound of 32 frames at 30 a second that ends with
the last one in real time, and the last one's label. Windows slide so that every frame ends exactly one token. A missing
crop is replaced by the nearest one of its token; a token without any is masked. The official validation set is the test
set here; a fifth of the official training videos, chosen by name, validates. CCC over all valid frames pooled.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray

from fusionbench.api import Batch, Benchmark, Choice, Location, Splits, Stream, Task, UsageError, data_dir, keyed

from . import _media as media

TOKENS, TOKEN, EVERY = 16, 32, 4  # tokens a window, frames a token, frames from one crop of a token to the next
CROPS = TOKEN // EVERY
FPS = 30  # nominal: how long a token's sound lasts
INVALID = -5.0
SIDES = {"Train_Set": "train", "Validation_Set": "test"}


@dataclass(frozen=True, eq=False)
class Clip:
    """One person in one video: n annotated frames, y (n, 2), valid (n,), the frames with a crop (from 1, sorted)."""

    name: str
    y: NDArray[np.float32]
    valid: NDArray[np.bool_]
    crops: NDArray[np.int64]
    folder: Path
    video: Path
    sound: Path | None
    fps: float

    @property
    def frames(self) -> int:
        return len(self.y)


class Affwild2(Benchmark):
    version = "1"
    task = Task("regress", 2, ("ccc", "ccc_zero_filled", "mae"), per_frame=True)
    rates = {"face": FPS / TOKEN, "voice": FPS / TOKEN}
    folds = 1
    seeds = 3
    steps = 2000
    batch = 64
    interval = 100
    licence = "by agreement with its makers"
    source = "https://ibug.doc.ic.ac.uk/resources/aff-wild2/"
    citation = (
        "Kollias and Zafeiriou, Aff-Wild2: Extending the Aff-Wild Database for Affect Recognition, 2018, arXiv "
        "1811.07770"
    )
    caveats = ("frames without an annotation scored as (0, 0)",)
    corruptions = ("missing:face", "missing:voice", "occlusion:face", "white_noise:voice", "noise:all", "gap:all")
    unit = "video"
    margin = 0.02  # entries of the challenge are told apart by hundredths of CCC
    domain = "affect"

    def __init__(
        self,
        *,
        root: Annotated[str, Location, "the folder that holds VA_Estimation_Challenge and cropped_aligned"] = "",
        audio_rate: Annotated[int, Choice(16000, 44100), "sampling rate of the voice, Hz"] = 44100,
        size: Annotated[
            int,
            Choice(
                112,
            ),
            "side of a crop, pixels; others are scaled",
        ] = 112,
        stride: Annotated[int, Choice(1, 4, 8, 32), "frames from one label to the next; 1: every frame"] = 1,
        test_list: Annotated[bool, "load every frame of the official test list instead, for a submission"] = False,
        skip_bad: Annotated[bool, "leave clips with broken files out instead of stopping"] = False,
    ) -> None:
        if TOKEN % stride or stride < 1:
            raise UsageError(f"stride divides {TOKEN}; {stride} does not")
        self.root = Path(root).expanduser() if root else data_dir("affwild2")
        self.audio_rate, self.size, self.stride = audio_rate, size, 1 if test_list else stride
        self.test_list, self.skip_bad = test_list, skip_bad
        self.shapes = {"face": (CROPS, 3, size, size), "voice": (round(TOKEN / FPS * audio_rate),)}
        pretrained = {"sample_rate": audio_rate}
        self.backbones = {"face": ("r2plus1d_18", {}), "voice": ("spectrogram_resnet18", pretrained)}
        self.skipped: list[str] = []
        self.frames: dict[str, int] = {}  # clip -> its number of frames

    # ------------------------------------------------------------------------------------------------------- the data

    def load(self) -> Batch:
        """Windows of both modalities, (N, 16, ...), labels (N, 16, 2); groups are videos. Media are read on demand."""
        media.extra("av", "video")
        media.extra("PIL.Image", "video")
        self.skipped = []
        names = {name: file for name, (_, file) in self._listed.items()}
        clips = []
        for name in self._test_names() if self.test_list else names:
            try:
                clips.append(self._clip(name, names.get(name)))
            except UsageError as error:
                if not self.skip_bad:
                    raise UsageError(f"{error} (--benchmark.skip_bad leaves it out)") from None
                self.skipped.append(str(error))
        if not clips:
            first = f"; the first error: {self.skipped[0]}" if self.skipped else ""
            raise UsageError(f"affwild2: no clip of {self.root} could be read{first}")
        self.frames = {clip.name: clip.frames for clip in clips}
        return self._windows(clips)

    def splits(self, data: Batch, fold: int) -> Splits:
        """Official validation clips test; a fifth of the training videos, by a hash of their names, validate.

        Raises:
            UsageError: the data are the official test list, which has no labels.
        """
        if self.test_list:
            raise UsageError("the test list has no labels to train on: fusionbench records submit RUN answers it")
        sides = {name: side for name, (side, _) in self._listed.items()}
        videos = sorted({video_of(n) for n, s in sides.items() if s == "train"} & set(data.groups))
        videos.sort(key=lambda v: (keyed.number("affwild2", v), v))
        held = set(videos[: max(1, len(videos) // 5)])
        side = np.array([sides.get(clip_of(i), "none") for i in data.ids])
        mine = np.array([g in held for g in data.groups])
        return Splits(
            *(np.flatnonzero(s) for s in ((side == "train") & ~mine, (side == "train") & mine, side == "test"))
        )

    def submission(
        self, ids: Sequence[str], answers: NDArray[Any], path: Path, smooth: tuple[int, int] = (20, 50)
    ) -> None:
        """Writes answers (n, 16, 2) to windows as the challenge's file: `image_location,valence,arousal` a row.

        `smooth`: frames of the box filter over each clip, valence and arousal (of the released code; 1 = none).

        Raises:
            UsageError: a frame of a clip has no answer.
        """
        found: dict[str, NDArray[np.float64]] = {}
        for name, answer in zip(ids, answers, strict=True):
            clip = clip_of(name)
            frames = found.setdefault(clip, np.full((self.frames[clip], 2), np.nan))
            last = int(name.rpartition("@")[2]) - 1 + TOKEN * np.arange(TOKENS)
            inside = last < len(frames)
            frames[last[inside]] = answer[inside]
        lines = ["image_location,valence,arousal"]
        for clip, frames in sorted(found.items()):
            if np.isnan(frames).any():
                raise UsageError(f"{int(np.isnan(frames).any(1).sum())} frames of {clip} have no answer: use stride 1")
            smoothed = np.stack([box(column, width) for column, width in zip(frames.T, smooth, strict=True)], 1)
            rows = np.clip(smoothed, -1, 1)
            lines += [f"{clip}/{number:05d}.jpg,{v:.6f},{a:.6f}" for number, (v, a) in enumerate(rows, 1)]
        path.write_text("\n".join(lines) + "\n")

    # -------------------------------------------------------------------------------------------------------- reading

    @cached_property
    def _home(self) -> Path:
        """The folder that holds the annotations' folder: the root, or one folder below it."""
        inner = sorted(p for p in self.root.glob("*") if p.is_dir()) if self.root.is_dir() else []
        for home in [self.root, *inner]:
            if all((home / "VA_Estimation_Challenge" / folder).is_dir() for folder in SIDES):
                return home
        raise UsageError(
            f"affwild2: there is no VA_Estimation_Challenge/Train_Set and Validation_Set in {self.root}: name the "
            f"folder that was handed out with --benchmark.root (the data are licensed: ask the makers of Aff-Wild2)"
        )

    @cached_property
    def _listed(self) -> dict[str, tuple[str, Path]]:
        """Clip -> (side, annotation file), by side and name."""
        found: dict[str, tuple[str, Path]] = {}
        for folder, side in SIDES.items():
            place = self._home / "VA_Estimation_Challenge" / folder
            files = sorted(place.glob("*.txt"))
            if not files:
                raise UsageError(f"affwild2: there are no annotation files (*.txt) in {place}")
            for file in files:
                if file.stem in found:
                    raise UsageError(f"affwild2: {file.name} stands in both {' and '.join(SIDES)}")
                found[file.stem] = side, file
        return found

    def _test_names(self) -> list[str]:
        """The clips of the official test list.

        Raises:
            UsageError: there is no such list.
        """
        pattern = "*test_set_release.txt"
        files = sorted({p for home in {self.root, self._home} for g in (pattern, f"*/{pattern}") for p in home.glob(g)})
        if not files:
            raise UsageError(f"affwild2: there is no {pattern} in {self._home} or one folder below it")
        lines = [line.strip() for line in files[0].read_text(encoding="utf-8-sig").splitlines()]
        return sorted({line.removesuffix(".txt") for line in lines if line})

    @cached_property
    def _videos(self) -> dict[str, Path]:
        """Name -> video file, up to two folders deep; among the crops nobody looks."""
        found: dict[str, Path] = {}
        for home in dict.fromkeys([self.root, self._home]):
            for path in [*_files(home), *(p for d in _folders(home) for p in _files(d)),
                         *(p for d in _folders(home) for e in _folders(d) for p in _files(e))]:  # fmt: skip
                if path.suffix.lower() in media.VIDEOS:
                    found.setdefault(path.stem, path)
        return found

    def _clip(self, name: str, annotation: Path | None) -> Clip:
        """A clip, its files checked without decoding them. Raises UsageError, naming the file, if one is bad."""
        owner = next((n for n in (name, video_of(name)) if n in self._videos), None)
        if owner is None:
            raise UsageError(f"affwild2: there is no video {video_of(name)}.mp4 (or .avi) for the clip {name}")
        video = self._videos[owner]
        facts = media.probe(video)
        if annotation is None:
            frames = len(media.timestamps(video))
            y, valid = np.zeros((frames, 2), np.float32), np.zeros(frames, bool)
        else:
            y, valid = read_labels(annotation)
            frames, shown = len(y), facts.seconds * facts.fps
            if frames > shown + max(5.0, facts.fps):
                raise UsageError(f"{annotation} has {frames} rows, its video {video.name} only {shown:.0f} frames")
        folder = self._home / "cropped_aligned" / name
        crops = read_crops(folder, round(max(frames, facts.seconds * facts.fps) + max(5.0, facts.fps)))
        sound: Path | None = next(
            (p for s in media.SOUNDS if (p := self._home / "audio" / f"{owner}{s}").is_file()), None
        )
        if sound is None and facts.sound_rate:
            sound = video
        if sound is not None:
            length = facts.sound_seconds if sound == video else media.sound_seconds(sound)
            if length + 1.0 < frames / facts.fps:
                raise UsageError(
                    f"the sound of {sound} ends at {length:.2f} s, the clip {name} at {frames / facts.fps:.2f} s"
                )
        return Clip(name, y, valid, crops, folder, video, sound, facts.fps)

    def _windows(self, clips: list[Clip]) -> Batch:
        """Every window that has a label; of the test list, which has none, every one."""
        owner, first = [], []
        for number, clip in enumerate(clips):
            ends = window_starts(clip.frames, self.stride)
            last = ends[:, None] - 1 + TOKEN * np.arange(TOKENS)  # (n, 16) positions of the tokens' last frames
            valid = np.append(clip.valid, False)[np.minimum(last, clip.frames)]
            keep = valid.any(1) | self.test_list
            owner += [number] * int(keep.sum())
            first += ends[keep].tolist()
        at = np.stack([np.array(owner, int), np.array(first, int)], 1)  # (N, 2) clip, first token's last frame
        y, y_mask = np.zeros((len(at), TOKENS, 2), np.float32), np.zeros((len(at), TOKENS), bool)
        for row, (number, start) in enumerate(at):
            clip = clips[number]
            last = np.arange(start - 1, clip.frames, TOKEN)[:TOKENS]
            y[row, : len(last)], y_mask[row, : len(last)] = clip.y[last], clip.valid[last]
        streams = {"face": Faces(clips, at, self.size, self.skip_bad), "voice": Voices(clips, at, self.audio_rate)}
        ids = [f"{clips[number].name}@{start:06d}" for number, start in at]
        groups = [video_of(clips[number].name) for number, _ in at]
        return Batch(streams, torch.from_numpy(y), torch.from_numpy(y_mask), ids, groups)


def window_starts(frames: int, stride: int = 1) -> NDArray[np.int64]:
    """The last frame (from 1) of the first token of every window: 32 windows for each 512 frames, one frame apart.

    Token k of window s ends at frame s + 32 k: with stride 1 every frame from 1 to `frames` ends exactly one token.
    """
    blocks = np.arange(0, frames, TOKENS * TOKEN)[:, None] + np.arange(0, TOKEN, stride) + 1
    starts: NDArray[np.int64] = blocks.flatten()
    return starts[starts <= frames]


def video_of(clip: str) -> str:
    """The video of a clip: one of two people is `<video>_left` or `<video>_right`."""
    return clip.removesuffix("_left").removesuffix("_right")


def clip_of(name: str) -> str:
    """The clip of a sample."""
    return name.rpartition("@")[0]


def read_labels(path: Path) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Labels (n, 2) and which are valid (n,): a header, then `valence,arousal` a row, row i = frame i; -5 = none.

    Raises:
        UsageError: a row is not two numbers, or a label lies outside -1 to 1.
    """
    _, lines = media.table(path, ",")
    y = np.zeros((len(lines), 2))
    for row, (line, cells) in enumerate(lines):
        try:
            y[row, 0], y[row, 1] = (float(cell) for cell in cells)
        except ValueError:
            raise UsageError(f"{path}, line {line}: expected valence,arousal, found {','.join(cells)!r}") from None
        if not all(v == INVALID or -1 <= v <= 1 for v in y[row]):
            raise UsageError(f"{path}, line {line}: {','.join(cells)} is neither within -1 to 1 nor {INVALID:g}")
    if not len(lines):
        raise UsageError(f"{path} has a header and no rows")
    return y.astype(np.float32), (y != INVALID).all(1)


def read_crops(folder: Path, highest: int) -> NDArray[np.int64]:
    """The frames that have a crop, sorted.

    Raises:
        UsageError: there is no such folder, no crop in it, or one that the video cannot have.
    """
    if not folder.is_dir():
        raise UsageError(f"affwild2: there is no folder of crops {folder}")
    found = sorted(int(name[:-4]) for name in os.listdir(folder) if name.endswith(".jpg") and name[:-4].isdecimal())
    if not found:
        raise UsageError(f"there are no crops (00001.jpg, ...) in {folder}")
    if found[0] < 1 or found[-1] > highest:
        wrong = found[0] if found[0] < 1 else found[-1]
        raise UsageError(f"{folder / f'{wrong:05d}.jpg'}: crops are numbered from 1, and the video ends near {highest}")
    return np.array(found)


def token_crops(crops: NDArray[np.int64], last: int) -> list[int]:
    """The 8 frames whose crops show the token that ends at `last`; none if no crop lies within the token.

    Every 4th frame counted back from the last; one without a crop gives way to the nearest crop of the token (the
    earlier of two).
    """
    own = crops[np.searchsorted(crops, last - TOKEN + 1) : np.searchsorted(crops, last, "right")]
    if not len(own):
        return []
    return [int(own[np.abs(own - frame).argmin()]) for frame in range(last - TOKEN + EVERY, last + 1, EVERY)]


def box(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Moving average over `width` frames, centred, over what there is at the ends."""
    ones = np.ones(width)
    low = (width - 1) // 2
    part = slice(low, low + len(values))
    smoothed: NDArray[np.float64] = np.convolve(values, ones)[part] / np.convolve(np.ones(len(values)), ones)[part]
    return smoothed


class _Tokens:
    """A Source of windows: at (N, 2) = clip and last frame of the first token."""

    shape: tuple[int, ...]

    def __init__(self, clips: list[Clip], at: NDArray[np.int64]) -> None:
        self.clips, self.at = clips, at

    def __len__(self) -> int:
        return len(self.at)

    def __getitem__(self, index: Any) -> Stream:
        rows = media.positions(index, len(self))
        x = torch.zeros(len(rows), *self.shape)
        mask = torch.zeros(len(rows), TOKENS, dtype=torch.bool)
        for place, row in enumerate(rows):
            clip, start = self.clips[self.at[row, 0]], int(self.at[row, 1])
            for token, last in enumerate(range(start, min(clip.frames, start + TOKENS * TOKEN - 1) + 1, TOKEN)):
                step = self.step(clip, last)
                if step is not None:
                    x[place, token], mask[place, token] = step, True
        return Stream(x, mask)

    def step(self, clip: Clip, last: int) -> torch.Tensor | None:
        """What the token that ends at frame `last` shows; None where there is nothing."""
        raise NotImplementedError


class Faces(_Tokens):
    """(N, 16, 8, 3, size, size) crops from 0 to 1."""

    def __init__(self, clips: list[Clip], at: NDArray[np.int64], size: int, skip_bad: bool = False) -> None:
        super().__init__(clips, at)
        self.size, self.skip_bad = size, skip_bad
        self.shape = (TOKENS, CROPS, 3, size, size)

    @cached_property
    def digest(self) -> str:
        """Of the crops' names, the size of every 64th, and the windows."""
        listed = [(c.name, c.crops.tobytes(), [_size(c, n) for n in c.crops[::64]]) for c in self.clips]
        return media.fingerprint([], "faces", self.shape, self.at.tobytes(), listed)

    def step(self, clip: Clip, last: int) -> torch.Tensor | None:
        crops = clip.crops
        while frames := token_crops(crops, last):
            pictures = []
            for number in frames:
                try:
                    pictures.append(media.picture(clip.folder / f"{number:05d}.jpg", self.size))
                except UsageError as error:
                    if not self.skip_bad:
                        raise UsageError(
                            f"{error} (--benchmark.skip_bad takes it for a frame without a face)"
                        ) from None
                    media.left_out(error)
                    crops = crops[crops != number]
                    break
            else:
                return media.channels_first(pictures)
        return None


class Voices(_Tokens):
    """(N, 16, n) mono sound that ends when the token's last frame does, by the video's own timestamps."""

    def __init__(self, clips: list[Clip], at: NDArray[np.int64], rate: int) -> None:
        super().__init__(clips, at)
        self.rate = rate
        self.shape = (TOKENS, round(TOKEN / FPS * rate))

    @cached_property
    def digest(self) -> str:
        files = dict.fromkeys(p for c in self.clips for p in (c.video, c.sound) if p is not None)
        return media.fingerprint(
            files, "voices", self.shape, self.rate, self.at.tobytes(), [c.name for c in self.clips]
        )

    def step(self, clip: Clip, last: int) -> torch.Tensor | None:
        if clip.sound is None:
            return None
        count = self.shape[1]
        start = frame_end(media.timestamps(clip.video), clip.fps, last) - count / self.rate
        return torch.from_numpy(media.sound(clip.sound, start, count, self.rate))


def frame_end(times: NDArray[np.float64], fps: float, frame: int) -> float:
    """When frame number `frame` (from 1) stops being shown, in seconds: the next one's timestamp."""
    if frame < len(times):
        return float(times[frame])
    return float(times[-1]) + (frame - len(times) + 1) / fps


def _size(clip: Clip, number: int) -> int:
    return (clip.folder / f"{number:05d}.jpg").stat().st_size


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_file()) if folder.is_dir() else []


def _folders(folder: Path) -> list[Path]:
    """Subfolders that may hold videos: not the crops, not the annotations."""
    avoided = ("cropped_aligned", "VA_Estimation_Challenge")
    return sorted(p for p in folder.iterdir() if p.is_dir() and p.name not in avoided) if folder.is_dir() else []

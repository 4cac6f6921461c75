"""Reading media piece by piece: JPEG crops, frames and timestamps of a video, stretches of its sound, small tables.

Nothing is held whole. Every error names the file. PyAV decodes videos, soundfile .wav and .flac; both are extras.
"""

from __future__ import annotations

import csv
import hashlib
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fusionbench.api import UsageError

BLOCK = 20  # seconds of sound decoded at a time
VIDEOS = (".mp4", ".avi", ".mkv", ".mov", ".webm")
SOUNDS = (".wav", ".flac")


def extra(module: str, group: str) -> Any:
    """The module, imported now. Raises UsageError, naming the extra that brings it, if it is not installed."""
    try:
        return import_module(module)
    except ImportError:
        package = {"PIL": "pillow", "av": "PyAV"}.get(module.split(".")[0], module)
        raise UsageError(f"{package} is not installed: pip install 'mm-fusionbench[{group}]'") from None


def left_out(error: UsageError) -> None:
    """Says what turned out to be broken when it was decoded, long after the samples were counted: it is masked."""
    warnings.warn(f"left out: {error}", stacklevel=2)


# ----------------------------------------------------------------------------------------------------------- pictures


@lru_cache(maxsize=1200)  # two windows of 512 frames and what they overlap: 45 MB at 112 pixels
def picture(path: Path, size: int) -> NDArray[np.uint8]:
    """(size, size, 3) RGB; a picture of another size is scaled.

    Raises:
        UsageError: it cannot be decoded.
    """
    image = extra("PIL.Image", "video")
    try:
        with image.open(path) as file:
            rgb = file.convert("RGB")
            return np.asarray(rgb if rgb.size == (size, size) else rgb.resize((size, size), image.Resampling.BILINEAR))
    except (OSError, SyntaxError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as a picture: {error}") from None


def channels_first(frames: Sequence[NDArray[np.uint8]] | NDArray[np.uint8]) -> torch.Tensor:
    """Frames (H, W, 3) of bytes -> (n, 3, H, W) float32 from 0 to 1."""
    return torch.from_numpy(np.stack(list(frames))).permute(0, 3, 1, 2).float() / 255


# ------------------------------------------------------------------------------------------------------------- videos


@dataclass(frozen=True)
class Facts:
    """What a video's header says, confirmed by a look at its end; sound_rate 0: it has no sound."""

    seconds: float
    fps: float
    sound_rate: int
    sound_seconds: float


def probe(path: Path) -> Facts:
    """Length, frame rate and sound of a video.

    Raises:
        UsageError: it cannot be opened, has no picture, or ends before its header says.
    """
    with _opened(path) as container:
        if not container.streams.video:
            raise UsageError(f"{path} holds no video")
        video = container.streams.video[0]
        fps = float(video.average_rate or video.guessed_rate or 0)
        declared = _seconds(video) or (container.duration or 0) / 1e6
        if fps <= 0 or declared <= 0:
            raise UsageError(f"{path} tells neither frame rate nor length")
        last = _last(path, container, video, declared)
        if last + max(0.5, 2.5 / fps) < declared:
            raise UsageError(
                f"{path} is truncated: its header promises {declared:.2f} s, its frames end at {last:.2f} s"
            )
        sound = container.streams.audio[0] if container.streams.audio else None
        if sound is None:
            return Facts(declared, fps, 0, 0.0)
        return Facts(declared, fps, int(sound.rate), _seconds(sound) or (container.duration or 0) / 1e6)


def _seconds(stream: Any) -> float:
    """Length of a stream from its first timestamp on; 0 where the header does not say."""
    return float(stream.duration * stream.time_base) if stream.duration else 0.0


def _last(path: Path, container: Any, video: Any, declared: float) -> float:
    """Seconds from the start at which the last frame that can be read ends."""
    av = extra("av", "video")
    begin = float((video.start_time or 0) * video.time_base)
    end = begin
    try:
        container.seek(int((begin + max(0.0, declared - 1.0)) / video.time_base), stream=video)
        for packet in container.demux(video):
            if packet.pts is not None and packet.size and not packet.is_corrupt:
                end = max(end, float((packet.pts + (packet.duration or 0)) * video.time_base))
    except av.FFmpegError:  # what could be read before counts
        pass
    return end - begin


@lru_cache(maxsize=8)
def timestamps(path: Path) -> NDArray[np.float64]:
    """(n,) the real time of every frame in seconds, in order of display: packets are listed, nothing is decoded."""
    av = extra("av", "video")
    times = []
    with _opened(path) as container:
        video = container.streams.video[0]
        try:
            for packet in container.demux(video):
                if packet.pts is not None and packet.size:
                    times.append(float(packet.pts * video.time_base))
        except av.FFmpegError as error:
            raise UsageError(f"{path} breaks off after {len(times)} frames: {error}") from None
    return np.sort(np.array(times))


def frames_at(path: Path, seconds: Sequence[float], size: int) -> NDArray[np.uint8]:
    """(n, size, size, 3): at each time (rising, from the first frame on) the latest frame shown by then.

    The centre square of the picture, scaled. One frame is held at a time besides the result.

    Raises:
        UsageError: the video breaks off more than half a second before the last time.
    """
    av = extra("av", "video")
    chosen: list[NDArray[np.uint8]] = []
    frame, shown = None, float("-inf")
    with _opened(path) as container:
        video = container.streams.video[0]
        begin = float((video.start_time or 0) * video.time_base)
        decoded = container.decode(video)
        while len(chosen) < len(seconds):
            try:
                following = next(decoded)
            except StopIteration:
                break
            except av.FFmpegError as error:
                raise UsageError(f"{path} cannot be decoded after {max(shown, 0):.2f} s: {error}") from None
            if following.pts is None:
                continue
            moment = float(following.pts * video.time_base) - begin
            while frame is not None and len(chosen) < len(seconds) and seconds[len(chosen)] < moment - 1e-6:
                chosen.append(_square(frame, size))
            frame, shown = following, moment
    if frame is None or (len(chosen) < len(seconds) and seconds[-1] > shown + 0.5):
        raise UsageError(f"{path} breaks off at {max(shown, 0):.2f} s; frames up to {seconds[-1]:.2f} s are needed")
    return np.stack(chosen + [_square(frame, size)] * (len(seconds) - len(chosen)))


def _square(frame: Any, size: int) -> NDArray[np.uint8]:
    image = extra("PIL.Image", "video")
    rgb = frame.to_ndarray(format="rgb24")
    side = min(rgb.shape[:2])
    top, left = (rgb.shape[0] - side) // 2, (rgb.shape[1] - side) // 2
    square = image.fromarray(rgb[top : top + side, left : left + side])
    return np.asarray(square if side == size else square.resize((size, size), image.Resampling.BILINEAR))


def _opened(path: Path) -> Any:
    av = extra("av", "video")
    if not path.is_file():
        raise UsageError(f"there is no video {path}")
    try:
        return av.open(str(path))
    except (av.FFmpegError, OSError) as error:
        raise UsageError(f"{path} cannot be opened as a video ({error}): it is broken or truncated") from None


# -------------------------------------------------------------------------------------------------------------- sound


def sound_seconds(path: Path) -> float:
    """Length of a .wav or .flac file, or of the sound of a video; 0 where it has none."""
    if path.suffix.lower() in SOUNDS:
        soundfile = extra("soundfile", "audio")
        try:
            return float(soundfile.info(str(path)).duration)
        except (RuntimeError, OSError) as error:
            raise UsageError(f"{path} cannot be read as sound: {error}") from None
    return probe(path).sound_seconds


def sound(path: Path, start: float, count: int, rate: int) -> NDArray[np.float32]:
    """(count,) mono samples at `rate` Hz from `start` seconds on; silence before the beginning and after the end."""
    first = round(start * rate)
    parts = []
    for block in range(first // (BLOCK * rate), (first + count - 1) // (BLOCK * rate) + 1):
        begin = block * BLOCK * rate
        low, high = max(first, begin), min(first + count, begin + BLOCK * rate)
        if block < 0:
            parts.append(np.zeros(high - low, np.float32))
        else:
            parts.append(_block(path, block, rate)[low - begin : high - begin])
    return np.concatenate(parts)


@lru_cache(maxsize=4)
def _block(path: Path, block: int, rate: int) -> NDArray[np.float32]:
    """(BLOCK * rate,) samples of one stretch, resampled with a second of surroundings, cut to -1 to 1."""
    margin = 1 if block else 0
    own, wave = _decoded(path, block * BLOCK - margin, BLOCK + margin + 1)
    if own != rate:
        from scipy.signal import resample_poly

        common = gcd(own, rate)
        wave = resample_poly(wave, rate // common, own // common).astype(np.float32)
    return np.clip(wave[margin * rate : (margin + BLOCK) * rate], -1.0, 1.0)


def _decoded(path: Path, start: int, seconds: int) -> tuple[int, NDArray[np.float32]]:
    """The file's own rate, and (seconds * rate,) mono samples from `start` seconds on, zeros beyond its end."""
    if path.suffix.lower() not in SOUNDS:
        return _decoded_video(path, start, seconds)
    soundfile = extra("soundfile", "audio")
    try:
        with soundfile.SoundFile(str(path)) as file:
            rate = int(file.samplerate)
            wave = np.zeros(seconds * rate, np.float32)
            if start * rate < len(file):
                file.seek(start * rate)
                read = file.read(seconds * rate, dtype="float32", always_2d=True).mean(1)
                wave[: len(read)] = read
            return rate, wave
    except (RuntimeError, OSError) as error:
        raise UsageError(f"{path} cannot be read as sound: {error}") from None


def _decoded_video(path: Path, start: int, seconds: int) -> tuple[int, NDArray[np.float32]]:
    av = extra("av", "video")
    with _opened(path) as container:
        if not container.streams.audio:
            raise UsageError(f"{path} has no sound")
        stream = container.streams.audio[0]
        rate = int(stream.rate)
        wave = np.zeros(seconds * rate, np.float32)
        plain = av.AudioResampler(format="flt", layout="mono", rate=rate)
        try:
            if start > 0:
                container.seek(int(start / stream.time_base), stream=stream)
            for frame in container.decode(stream):
                if frame.pts is None:
                    continue
                at = round(float(frame.pts * frame.time_base) * rate) - start * rate
                if at >= len(wave):
                    break
                for piece in plain.resample(frame):
                    samples = piece.to_ndarray()[0]
                    low, high = max(at, 0), min(at + len(samples), len(wave))
                    if low < high:
                        wave[low:high] = samples[low - at : high - at]
                    at += len(samples)
        except av.FFmpegError as error:
            raise UsageError(f"the sound of {path} cannot be decoded near {start} s: {error}") from None
    return rate, wave


# ------------------------------------------------------------------------------------------------- tables and digests


def table(path: Path, delimiter: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header and (line number, cells) of every line that is not empty.

    Raises:
        UsageError: no such file, or it is empty or no text.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [(n, [c.strip() for c in r]) for n, r in enumerate(csv.reader(file, delimiter=delimiter), 1)]
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} is no text table: {error}") from None
    lines = [(n, cells) for n, cells in lines if any(cells)]
    if not lines:
        raise UsageError(f"{path} is empty")
    return lines[0][1], lines[1:]


def fingerprint(paths: Iterable[Path], *words: object) -> str:
    """A hash of files for a data digest: name, size, and the first and last 64 KiB of each, in the given order.

    No absolute path and no time of change is in it: the same data give the same hash on every machine.
    """
    digest = hashlib.sha256(repr(words).encode())
    for path in paths:
        size = path.stat().st_size
        digest.update(f"\0{path.name}\0{size}\0".encode())
        with path.open("rb") as file:
            digest.update(file.read(1 << 16))
            if size > 1 << 16:
                file.seek(-(1 << 16), os.SEEK_END)
                digest.update(file.read())
    return digest.hexdigest()[:32]


def positions(index: Any, size: int) -> list[int]:
    """An index of a Source (a number, slice, list, array or tensor) as plain positions."""
    if isinstance(index, torch.Tensor):
        index = index.cpu().numpy()
    return [int(i) for i in np.atleast_1d(np.arange(size)[index])]

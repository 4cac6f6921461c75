"""Raw media into features: how much of a frozen encoder's own speed is left when it is fed from files?

    python bench/media.py                     # CPU: 12 clips
    python bench/media.py --device cuda --clips 200

Clips as CREMA-D has them (480 x 360 pixels at 30 frames a second, sound at 16 kHz) are written to a folder, read by the
benchmarks' own sources and encoded into an empty store. Beside it stand the same encoder on media that are in memory
already, and one thread that reads without an encoder. The goal is .7 of the encoder's own speed.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tabulate import tabulate

from fusionbench import features, registry
from fusionbench.benchmarks._acted import TOKEN, Faces, Voices

SECONDS, RATE, FPS, HEIGHT, WIDTH = 3.0, 16_000, 30, 360, 480


def write(folder: Path, clips: int) -> tuple[list[Path], list[Path]]:
    """Videos of drifting colours with grain, and sounds of noise."""
    import av
    import soundfile

    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (HEIGHT // 40 + 1, WIDTH // 40 + 8, 3))
    wall = np.kron(coarse, np.ones((40, 40, 1)))
    videos, sounds = [], []
    for clip in range(clips):
        videos.append(folder / f"{clip}.mp4")
        with av.open(str(videos[-1]), "w") as container:
            stream = container.add_stream("mpeg4", rate=FPS)
            stream.width, stream.height, stream.bit_rate, stream.pix_fmt = WIDTH, HEIGHT, 1_000_000, "yuv420p"
            for number in range(round(SECONDS * FPS)):
                seen = wall[:HEIGHT, number : number + WIDTH] + rng.normal(0, 6, (HEIGHT, WIDTH, 1))
                picture = av.VideoFrame.from_ndarray(seen.clip(0, 255).astype(np.uint8), "rgb24")
                container.mux(stream.encode(picture))
            container.mux(stream.encode())
        sounds.append(folder / f"{clip}.wav")
        soundfile.write(str(sounds[-1]), rng.uniform(-0.5, 0.5, round(SECONDS * RATE)), RATE)
    return videos, sounds


def seconds(device: torch.device, work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def measure(source: Any, maker: Any, settings: dict[str, Any], unit: int, device: torch.device) -> list[str]:
    """Frames of video, or tokens of sound, a second: the encoder alone, reading alone, and both; the ratio.

    `unit` is how many frames a token has.
    """
    ids = [str(number) for number in range(len(source))]
    encoder = features.Encoder("media", source, ids, 1 / TOKEN, maker, settings, device)
    jobs = [range(first, min(first + features.READ, len(ids))) for first in range(0, len(ids), features.READ)]
    known = [encoder.read(job, None) for job in jobs[:20]]
    encoder.encode(known[0])  # the first one chooses kernels
    tokens = sum(int(stream.mask.sum()) for stream in known)
    alone = tokens / seconds(device, lambda: [encoder.encode(stream) for stream in known])
    reading = tokens / seconds(device, lambda: [encoder.read(job, None) for job in jobs[:20]])
    whole = sum(int(encoder.read(job, None).mask.sum()) for job in jobs)
    both = whole / seconds(device, lambda: features.finish(features.encode(encoder)))
    return [f"{maker.__name__}", *(f"{unit * speed:,.0f}" for speed in (alone, reading, both)), f"{both / alone:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--size", type=int, default=112, help="pixels of the square that is cut from a frame")
    given = parser.parse_args()
    device = torch.device(given.device)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FUSIONBENCH_HOME"] = folder
        videos, sounds = write(Path(folder), given.clips)
        lasting = [SECONDS] * given.clips
        faces, voices = Faces([*videos], lasting, given.size, False), Voices([*sounds], lasting, RATE, False)
        video, audio = (registry.load("backbones", name) for name in ("r2plus1d_18", "spectrogram_resnet18"))
        rows = [
            measure(faces, video, {"weights": "random"}, faces.shape[1], device),
            measure(voices, audio, {"weights": "random", "sample_rate": RATE}, 1, device),
        ]
    heads = ["encoder", "alone", "reading alone", "from files", "of the encoder's own"]
    print(f"{device}, {os.cpu_count()} cores, torch {torch.__version__}, {given.clips} clips of {SECONDS:g} s")
    print("Frames of video and tokens of sound (.64 s) a second; the goal is .7 of the encoder's own speed.\n")
    print(tabulate(rows, heads, disable_numparse=True))


if __name__ == "__main__":
    main()

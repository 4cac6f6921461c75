"""Which of 27 actions? A wrist's accelerometer and gyroscope and a camera's skeleton of 8 people, 861 clips.

Data: UTD-MHAD (Chen, Jafari and Kehtarnavaz, ICIP 2015), freely available for research, in the layout in which it
comes: `Inertial/a1_s1_t1_inertial.mat` (d_iner, T x 6 at 50 Hz: g and degrees a second) and
`Skeleton/a1_s1_t1_skeleton.mat` (d_skel, 20 joints x 3 x T at 30 Hz, metres); action, person and trial stand in the
name. Depth and colour are left out. A step is 10 inertial samples, or the mean of 3 skeletons, whose origin is the
first hip centre of the clip. Leave one person out, two other people validate; `protocol=odd_even` is the official
split: odd people train (one of them validates), even people test.

Why fusion could matter: the sensor is worn on the right wrist (on the thigh for actions 22 to 27), so it is blind to
the other limbs, while the camera's skeleton is noisy and sees no rotation. What would inflate it: random folds over
clips, since a person repeats each action four times; and the sensor's place, which alone tells 21 actions from six.
References, odd to even people, accuracy: random forest on statistics of segments .830 inertial, .849 skeleton, .909
together, .933 late average; paper (depth and inertial) .791. With `protocol=odd_even` ours learn from three people, as
the fourth validates: forest .877 [.833, .920], late_forest .909 [.839, .979]; from all four plain forests have .906 and
.903 on our summaries.
"""

from __future__ import annotations

import re
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray

from fusionbench.api import Batch, Benchmark, Choice, Location, Splits, Stream, Task, UsageError, group_folds

from ._files import located
from ._matlab import arrays

ACTIONS, PEOPLE = 27, 8
#: modality -> folder, variable, samples a step
FILES = {"inertial": ("Inertial", "d_iner", 10), "skeleton": ("Skeleton", "d_skel", 3)}
HIP = 3  # the joint at the centre of the hips
NAME = re.compile(r"a(\d+)_s(\d+)_t(\d+)")


class UtdMhad(Benchmark):
    version = "1"
    domain = "motion"
    unit = "person"
    margin = 0.02
    shapes = {"inertial": (60,), "skeleton": (60,)}
    rates = {"inertial": 5.0, "skeleton": 10.0}
    task = Task("classify", ACTIONS, ("accuracy", "macro_f1"))
    seeds = 3
    steps = 300
    batch = 32
    interval = 30
    backbones = {m: ("tcn", {"kernel": 3, "depth": 2, "shorten": 4}) for m in shapes}  # 33 and 42 steps -> 9 and 11
    licence = "freely available for research"
    source = "https://personal.utdallas.edu/~kehtar/UTD-MHAD.html"
    citation = (
        "Chen, Jafari and Kehtarnavaz, UTD-MHAD: A Multimodal Dataset for Human Action Recognition Utilizing a "
        "Depth Camera and a Wearable Inertial Sensor, ICIP 2015"
    )
    caveats = (
        "random folds over clips: a person repeats each action four times",
        "the place of the sensor tells 21 actions from six",
    )
    corruptions = ("missing:inertial", "missing:skeleton", "noise:inertial", "noise:skeleton", "noise:all", "gap:all")

    def __init__(
        self,
        *,
        root: Annotated[str, Location, "folder of Inertial and Skeleton; empty: where `data get` puts them"] = "",
        protocol: Annotated[str, Choice("loso", "odd_even"), "leave one person out, or the official split"] = "loso",
    ) -> None:
        if protocol not in ("loso", "odd_even"):
            raise UsageError(f"utd_mhad: protocol is loso or odd_even, not {protocol!r}")
        self.root, self.protocol = root, protocol
        self.folds = PEOPLE if protocol == "loso" else 1

    def load(self) -> Batch:
        """861 clips: (N, 33, 60) and (N, 42, 60), shorter ones padded; groups are people."""
        folder = located("utd_mhad", self.root, [place for place, _, _ in FILES.values()])
        names = {m: {p.name.rpartition("_")[0] for p in (folder / place).glob("a*.mat")}
                 for m, (place, _, _) in FILES.items()}  # fmt: skip
        clips = sorted(names["inertial"] | names["skeleton"], key=lambda name: (_numbers(name), name))
        if not clips:
            raise UsageError(f"{folder}: no file is called like Inertial/a1_s1_t1_inertial.mat")
        streams = {}
        for m, (place, variable, samples) in FILES.items():
            steps = []
            for clip in clips:
                path = folder / place / f"{clip}_{m}.mat"
                if clip not in names[m]:
                    raise UsageError(f"utd_mhad: there is no {path}")
                signal = arrays(path, [variable])[variable]
                if not _is_laid_out(signal, m):
                    wanted = "(time, 6)" if m == "inertial" else "(20, 3, time)"
                    raise UsageError(f"{path}: {variable} is {signal.shape}, not {wanted}")
                steps.append(_framed(signal, samples) if m == "inertial" else _averaged(signal, samples))
            streams[m] = _padded(steps)
        y = torch.tensor([[_numbers(clip)[0] - 1] for clip in clips])
        groups = [f"s{_numbers(clip)[1]}" for clip in clips]
        return Batch(streams, y, torch.ones_like(y, dtype=torch.bool), clips, groups)

    def splits(self, data: Batch, fold: int) -> Splits:
        if self.protocol == "loso":
            return group_folds(data.groups, self.folds, fold)
        people = np.array([int(group[1:]) for group in data.groups])
        sides = (people % 2 == 1) & (people != 7), people == 7, people % 2 == 0
        return Splits(*map(np.flatnonzero, sides))


def _is_laid_out(signal: NDArray[np.float64], m: str) -> bool:
    if m == "inertial":
        return signal.ndim == 2 and signal.shape[1] == 6 and len(signal) > 0
    return signal.ndim == 3 and signal.shape[:2] == (20, 3)


def _numbers(clip: str) -> tuple[int, int, int]:
    """Action, person and trial of a clip's name."""
    found = NAME.fullmatch(clip)
    numbers = tuple(map(int, found.groups())) if found else (0, 0, 0)
    if not (1 <= numbers[0] <= ACTIONS and 1 <= numbers[1] <= PEOPLE):
        raise UsageError(f"utd_mhad: {clip} is not a<1 to 27>_s<1 to 8>_t<trial>")
    return numbers[0], numbers[1], numbers[2]


def _framed(signal: NDArray[np.float64], samples: int) -> NDArray[np.float64]:
    """(T, D) -> (T / samples, samples * D), in the order of time; the last step is filled up with the last sample."""
    short = -len(signal) % samples
    return np.pad(signal, ((0, short), (0, 0)), mode="edge").reshape(-1, samples * signal.shape[1])


def _averaged(joints: NDArray[np.float64], samples: int) -> NDArray[np.float64]:
    """(20, 3, T) -> (T / samples, 60) means, as seen from where the hips were at first."""
    moved = (joints - joints[HIP, :, 0][None, :, None]).transpose(2, 0, 1)  # (T, 20, 3)
    return _framed(moved.reshape(len(moved), -1), samples).reshape(-1, samples, joints[..., 0].size).mean(1)


def _padded(clips: list[NDArray[np.float64]]) -> Stream:
    longest = max(map(len, clips))
    x = np.zeros((len(clips), longest, clips[0].shape[1]))
    for row, clip in enumerate(clips):
        x[row, : len(clip)] = clip
    mask = np.arange(longest) < np.array([len(clip) for clip in clips])[:, None]
    return Stream(torch.from_numpy(x).float(), torch.from_numpy(mask))

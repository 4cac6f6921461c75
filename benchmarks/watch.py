"""Which of seven shoulder exercises? Smart-watch accelerometer and gyroscope, 50 Hz, 10 people, 140 recordings.

Data: Burns et al., "Shoulder physiotherapy exercise recognition", Physiological Measurement 2018 (arXiv 1802.01489),
shipped inside the package seglearn (BSD-3). Windows of 2 s without overlap, so that none touches two splits; five folds
by person, validation people of their own. Published for a subject-wise random forest, leave-one-subject-out: 87.3 %.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fusionbench.api import Batch, Benchmark, Splits, Stream, Task, UsageError, group_folds

SHA256 = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"
WINDOW, STEP = 100, 10  # samples: 2 s and 0.2 s at 50 Hz


class Watch(Benchmark):
    version = "1"
    shapes = {"acc": (3 * STEP,), "gyro": (3 * STEP,)}  # raw samples: accelerometer in g, gyroscope in rad/s
    rates = {"acc": 5.0, "gyro": 5.0}
    task = Task("classify", 7, ("accuracy", "macro_f1"))
    folds = 5
    seeds = 3
    steps = 160
    batch = 32
    interval = 20
    backbones = {m: ("tcn", {"kernel": 3, "depth": 2, "shorten": 2}) for m in shapes}  # 10 steps -> 5
    licence = "BSD-3-Clause"
    source = "https://github.com/dmbee/seglearn"
    citation = "Burns et al., Shoulder physiotherapy exercise recognition, Physiological Measurement 39, 2018"
    reference_scores = {"Burns et al., random forest, leave one subject out (arXiv 1802.01489 v1)": "87.3 % accuracy"}
    caveats = ("shuffled windows: those of one recording are alike, and stand on both sides",)
    corruptions = ("missing:acc", "missing:gyro", "noise:acc", "noise:gyro", "noise:all", "gap:all")
    unit = "person"
    # Of a session of fifty two-second windows one more is right: less than that no wearer would notice.
    margin = 0.02
    domain = "motion"
    role = "development"

    def load(self) -> Batch:
        """2,369 windows of each sensor, 10 steps of 10 raw samples of 3 axes, (N, 10, 30); groups are people."""
        content = _read(_data_file())
        windows, y, groups, ids = [], [], [], []
        for number, recording in enumerate(content["X"]):
            person = f"person{int(content['subject'][number]):02d}"
            for k in range(len(recording) // WINDOW):
                windows.append(recording[k * WINDOW : (k + 1) * WINDOW])
                y.append(int(content["y"][number]))
                groups.append(person)
                ids.append(f"{number:03d}-{k:02d}")
        x = torch.from_numpy(np.stack(windows)).float().unflatten(1, (-1, STEP))  # (N, 10, 10, 6)
        mask = torch.ones(x.shape[:2], dtype=torch.bool)
        streams = {"acc": Stream(x[..., :3].flatten(2), mask), "gyro": Stream(x[..., 3:].flatten(2), mask)}
        return Batch(streams, torch.tensor(y).unsqueeze(1), torch.ones(len(y), 1, dtype=torch.bool), ids, groups)

    def splits(self, data: Batch, fold: int) -> Splits:
        return group_folds(data.groups, self.folds, fold)


def _data_file() -> Path:
    """Found without importing seglearn, which needs a library that it does not declare."""
    try:
        path = Path(str(distribution("seglearn").locate_file("seglearn/data/watch_dataset.npy")))
    except PackageNotFoundError:
        raise UsageError("the benchmark watch needs the data in seglearn: pip install seglearn") from None
    if not path.is_file():
        raise UsageError(f"seglearn is installed without {path.name}: pip install --force-reinstall seglearn")
    return path


class _Arrays(pickle.Unpickler):
    """Admits numpy arrays and plain containers, nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in {("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")}:
            # An array is rebuilt from its state; numpy 1 and 2 keep the function in different modules.
            return np.ndarray.__reduce__(np.empty(0))[0]
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return np.dtype
        if (module, name) == ("_codecs", "encode"):
            return _latin1
        raise pickle.UnpicklingError(f"{module}.{name} is not an array")


def _latin1(text: str, encoding: str) -> bytes:
    """How protocol-2 pickles of Python 3 spell bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"unexpected encoding {encoding}")
    return text.encode("latin1")


def _read(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise UsageError(
            f"{path.name} of seglearn is not the file that this benchmark knows: pip install seglearn==1.2.5"
        )
    header, _, payload = content.partition(b"\n")  # a .npy file of one object: its header ends with a line feed
    assert b"'descr': '|O'" in header
    return _Arrays(io.BytesIO(payload)).load().item()

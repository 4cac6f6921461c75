"""A deployed model on disk: a folder of model.json and .safetensors files. Nothing in it is ever unpickled.

`model.json` is the `Description`; `seed-<k>.safetensors` the weights of a network; `calibration.safetensors` the
answers that its probabilities, sets and intervals rest on, with the labels they were compared with. An estimator has
no weights that could be read again safely and by every version of a library: `training.safetensors` holds the samples
it was fitted on, and it is fitted again from its seed when it is loaded.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusionbench import harness
from fusionbench.api import Batch, Stream
from fusionbench.engine.model import Blueprint
from fusionbench.errors import UsageError
from fusionbench.harness.evaluate import Answering, Network, build_model
from fusionbench.predict.calibration import Calibration
from fusionbench.predict.description import Description, is_estimator
from fusionbench.predict.predictor import Predictor
from fusionbench.records import plain, store, typed
from fusionbench.records.types import DAMAGE

FORMAT = 1
MODEL, CALIBRATION, TRAINING = "model.json", "calibration.safetensors", "training.safetensors"
PROBE = 16  # training samples whose answers are kept, to see that a fitted estimator came back
Weights = Mapping[str, Tensor]


def save(
    folder: Path, description: Description, calibration: Calibration, *,
    weights: Sequence[Weights] = (), training: Batch | None = None, probe: np.ndarray | None = None,
) -> int:  # fmt: skip
    """Writes the folder, whole or not at all, in the place of a model that was there; its bytes.

    Raises:
        UsageError: it cannot be written, or another kind of folder is there.
    """
    check_free(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as made:
            new, old = Path(made) / "new", Path(made) / "old"
            new.mkdir()
            for seed, member in zip(description.seeds, weights, strict=False):
                _write(new / f"seed-{seed}.safetensors", member)
            if training is not None:
                assert probe is not None
                _write(new / TRAINING, {**_tensors(training), "probe": torch.from_numpy(probe)})
            _write(new / CALIBRATION, _calibration_tensors(calibration))
            text = json.dumps({"format": FORMAT, **plain(asdict(description))}, indent=1, allow_nan=False)
            store.write(new / MODEL, lambda file: file.write(text.encode() + b"\n"))
            if folder.exists():
                folder.rename(old)
            new.rename(folder)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror or error}") from None
    return sum(path.stat().st_size for path in folder.iterdir())


def check_free(folder: Path) -> None:
    """Raises UsageError if something other than a model, or an empty folder, is there."""
    if folder.exists() and not (folder / MODEL).is_file() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UsageError(f"{folder} is there and is no model: name another folder, --out DIR")


def load(folder: Path, device: str = "auto", fuser: str | None = None) -> Predictor:
    """The predictor in a folder.

    Args:
        fuser: where the fuser is, if it was given by path: a file runs only if the user names it.

    Raises:
        UsageError: the folder is damaged, of a newer version, or of plugins that are not here.
    """
    try:
        content = json.loads((folder / MODEL).read_text())
        written = content.pop("format")
        if isinstance(written, int) and written > FORMAT:
            raise UsageError(f"{folder} is of a newer fusionbench (format {written}): upgrade this one")
        description: Description = typed.build(Description, content)
        blueprint = description.blueprint(fuser)
        calibration = _calibration(description, _read(folder / CALIBRATION))
        if is_estimator(blueprint):
            fitted = _fitted(blueprint, description, _read(folder / TRAINING))
            return Predictor(description, fitted, calibration, torch.device("cpu"))
        where = harness.pick(device)
        members: list[Answering] = [
            Network(build_model(blueprint, seed, _read(folder / f"seed-{seed}.safetensors"), where))
            for seed in description.seeds
        ]
    except (*DAMAGE, RuntimeError) as error:
        reason = " ".join(str(error).split())[:150]
        raise UsageError(f"{folder} is no model that can be read ({reason}): fit it again") from None
    return Predictor(description, members, calibration, where)


def _fitted(blueprint: Blueprint, description: Description, tensors: Weights) -> list[Answering]:
    """Estimators fitted again, each compared with what it answered when it was saved."""
    data = _batch(tensors)
    members = fit_all(blueprint, data, description.seeds, description.missing)
    now = np.stack([member.answer(data[:PROBE]) for member in members])
    off = float(np.abs(now - tensors["probe"].numpy()).max())
    if off > 1e-4:
        warnings.warn(
            f"{description.fuser} was fitted again, by other versions: its answers differ by up to {off:.2g}",
            stacklevel=3,
        )
    return members


def fit_all(blueprint: Blueprint, data: Batch, seeds: Sequence[int], missing: str) -> list[Answering]:
    """An estimator of each seed on all samples. One that stops early on its `val` meets training samples there."""
    everyone = np.arange(len(data))
    return [harness.fit(blueprint, data, everyone, everyone, seed, missing) for seed in seeds]


# ------------------------------------------------------------------------------------------------------------- tensors


def _write(path: Path, tensors: Weights) -> None:
    from safetensors.torch import save as serialise

    # Copies: weights may share their memory, which the format does not allow.
    payload = serialise({name: t.detach().cpu().clone().contiguous() for name, t in tensors.items()})
    store.write(path, lambda file: file.write(payload))


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise ValueError(f"{path.name}: {error}") from None


def _tensors(data: Batch) -> dict[str, Tensor]:
    """The samples of an estimator; names become numbers."""
    groups = {name: number for number, name in enumerate(dict.fromkeys(data.groups))}
    found = {"y": data.y, "y_mask": data.y_mask, "group": torch.tensor([groups[g] for g in data.groups])}
    for m, stream in data.streams.items():
        whole = stream if isinstance(stream, Stream) else stream[torch.arange(len(data))]
        found |= {f"x/{m}": whole.x, f"mask/{m}": whole.mask}
    return found


def _batch(tensors: Weights) -> Batch:
    names = [name.removeprefix("x/") for name in tensors if name.startswith("x/")]
    streams = {m: Stream(tensors[f"x/{m}"], tensors[f"mask/{m}"]) for m in names}
    groups = [str(g) for g in tensors["group"].tolist()]
    return Batch(streams, tensors["y"], tensors["y_mask"], [str(row) for row in range(len(groups))], groups)


def _calibration_tensors(found: Calibration) -> dict[str, Tensor]:
    parts = {name: torch.from_numpy(np.asarray(getattr(found, name))) for name in ("y", "y_mask", "group", "present")}
    answers = {
        "answers/" + "+".join(m for m in found.modalities if m in shown): torch.from_numpy(a.astype(np.float32))
        for shown, a in found.answers.items()
    }
    return {**parts, **answers}


def _calibration(description: Description, tensors: Weights) -> Calibration:
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    answers = {
        frozenset(name.removeprefix("answers/").split("+")): a
        for name, a in arrays.items()
        if name.startswith("answers/")
    }
    known: dict[str, Any] = {name: arrays[name] for name in ("y", "y_mask", "group", "present")}
    modalities = tuple(description.modalities)
    return Calibration(description.task, modalities, **known, answers=answers, temperature=description.temperature)

"""A deployed model on disk: a folder of model.json and .safetensors files. Nothing in it is ever unpickled.

`model.json` is the `Description`; `seed-<k>.safetensors` the weights of a network that answers, `fold-<k>.safetensors`
of those that sets and intervals rest on; `calibration.safetensors` the folds' answers to their test groups, with the
labels. An estimator has no weights that could be read again safely and by every version of a library:
`training.safetensors` holds the samples it was fitted on, and it is fitted again from its seed when it is loaded.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusionbench import harness, hparams
from fusionbench.api import Batch, Splits, Stream
from fusionbench.engine.model import Blueprint
from fusionbench.errors import UsageError
from fusionbench.harness.evaluate import Answering, Network, build_model
from fusionbench.predict.calibration import Calibration
from fusionbench.predict.description import Description, is_estimator
from fusionbench.predict.predictor import Predictor
from fusionbench.records import plain, store, typed
from fusionbench.records.types import DAMAGE

FORMAT = 1
MODEL, CALIBRATION, TRAINING = "model.json", "calibration", "training"
PROBE = 16  # training samples whose answers are kept, to see that a fitted estimator came back
Weights = Mapping[str, Tensor]


def save_network(
    folder: Path, description: Description, calibration: Calibration, seeds: Sequence[Weights], folds: Sequence[Weights]
) -> int:
    """Writes the folder of a network, whole or not at all, in the place of a model that was there; its bytes.

    Args:
        seeds, folds: weights of the models of each of `description.seeds` and of `description.folds`.

    Raises:
        UsageError: it cannot be written, or another kind of folder is there.
    """
    parts = {f"seed-{seed}": w for seed, w in zip(description.seeds, seeds, strict=True)}
    parts |= {f"fold-{known['fold']}": w for known, w in zip(description.folds, folds, strict=True)}
    return _save(folder, description, calibration, parts)


def save_estimator(
    folder: Path, description: Description, calibration: Calibration, blueprint: Blueprint, data: Batch,
    sides: Sequence[Splits],
) -> int:  # fmt: skip
    """Likewise of an estimator: the samples, and which of them each fold trains and validates on."""
    members = _members(blueprint, description, data)
    tensors = _tensors(data)
    tensors["probe"] = torch.from_numpy(np.stack([member.answer(data[:PROBE]) for member in members]))
    for known, split in zip(description.folds, sides, strict=True):
        tensors |= {f"{side}-{known['fold']}": torch.from_numpy(getattr(split, side)) for side in ("train", "val")}
    return _save(folder, description, calibration, {TRAINING: tensors})


def _save(folder: Path, description: Description, calibration: Calibration, parts: Mapping[str, Weights]) -> int:
    check_free(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as made:
            new, old = Path(made) / "new", Path(made) / "old"
            new.mkdir()
            for name, tensors in {**parts, CALIBRATION: _calibration_tensors(calibration)}.items():
                _write(new / f"{name}.safetensors", tensors)
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
        calibration = _calibration(description, _read(folder, CALIBRATION))
        if is_estimator(blueprint):
            tensors = _read(folder, TRAINING)
            members = _fitted(blueprint, description, tensors)
            return Predictor(
                description, members, calibration, lambda: _fold_estimators(blueprint, description, tensors),
                torch.device("cpu"),
            )  # fmt: skip
        where = harness.pick(device)

        def network(name: str) -> Answering:
            return Network(build_model(blueprint, 0, _read(folder, name), where))

        members = [network(f"seed-{seed}") for seed in description.seeds]
        folds = [[network(f"fold-{known['fold']}")] for known in description.folds]
    except (*DAMAGE, RuntimeError) as error:
        reason = " ".join(str(error).split())[:150]
        raise UsageError(f"{folder} is no model that can be read ({reason}): fit it again") from None
    return Predictor(description, members, calibration, lambda: folds, where)


def _members(blueprint: Blueprint, description: Description, data: Batch) -> list[Answering]:
    """An estimator of each seed on all labelled samples. One that stops early on its `val` meets these there, too."""
    rows = np.flatnonzero(data.y_mask.any(1).numpy())
    return [harness.fit(blueprint, data, rows, rows, seed, description.missing) for seed in description.seeds]


def _fitted(blueprint: Blueprint, description: Description, tensors: Weights) -> list[Answering]:
    """The members fitted again, each compared with what it answered when it was saved."""
    data = _batch(tensors)
    members = _members(blueprint, description, data)
    now = np.stack([member.answer(data[:PROBE]) for member in members])
    off = float(np.abs(now - tensors["probe"].numpy()).max())
    if off > 1e-4:
        warnings.warn(
            f"{description.fuser} was fitted again, by other versions: its answers differ by up to {off:.2g}",
            stacklevel=3,
        )
    return members


def _fold_estimators(blueprint: Blueprint, description: Description, tensors: Weights) -> list[list[Answering]]:
    """The estimator of each fold, with the settings that its validation chose."""
    data, found = _batch(tensors), list[list[Answering]]()
    declared = hparams.read(blueprint.fuser)
    for known in description.folds:
        settings = hparams.fill(declared, known["settings"], description.fuser)
        train, val = (tensors[f"{side}-{known['fold']}"].numpy() for side in ("train", "val"))
        model = harness.fit(replace(blueprint, settings=settings), data, train, val, 0, description.missing)
        found.append([model])
    return found


# ------------------------------------------------------------------------------------------------------------- tensors


def _write(path: Path, tensors: Weights) -> None:
    from safetensors.torch import save as serialise

    # Copies: weights may share their memory, which the format does not allow.
    payload = serialise({name: t.detach().cpu().clone().contiguous() for name, t in tensors.items()})
    store.write(path, lambda file: file.write(payload))


def _read(folder: Path, name: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / f"{name}.safetensors"
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
    parts = {
        name: torch.from_numpy(np.asarray(getattr(found, name))) for name in ("y", "y_mask", "group", "fold", "present")
    }
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
    known: dict[str, Any] = {name: arrays[name] for name in ("y", "y_mask", "group", "fold", "present")}
    modalities = tuple(description.modalities)
    return Calibration(description.task, modalities, **known, answers=answers, temperature=description.temperature)

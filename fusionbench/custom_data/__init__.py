"""Your own data as a benchmark: an .npz file, or a folder with `benchmark.toml` and .npz, .npy, .csv, .parquet files.

Whatever the files look like, they end as the same few things: streams with masks, labels, ids, groups and, where
given, folds. What is inferred is said in `notes`; `docs/your-own-data.md` is the description for people.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray

from fusionbench.api import Batch, Benchmark, Splits, Stream, Task, group_folds
from fusionbench.api.types import Kind
from fusionbench.custom_data import files
from fusionbench.custom_data.files import Array
from fusionbench.errors import UsageError, unknown

SIDES = {"train": 0, "val": 1, "valid": 1, "validation": 1, "dev": 1, "test": 2}
METRICS = {"classify": ("macro_f1", "accuracy"), "regress": ("ccc", "mae")}
#: Settings of benchmark.toml that are taken over as they are: name -> type.
CONSTANTS = {"version": str, "seeds": int, "steps": int, "batch": int, "interval": int, "transductive": str}


@dataclass(eq=False)
class Raw:
    """What the files hold, samples in one order; only the shapes are settled."""

    origin: Path
    x: dict[str, Array]  # (N, T, *step), NaN where nothing was written
    mask: dict[str, NDArray[np.bool_]]  # (N, T)
    y: Array  # (N,), (N, K) or (N, S, K): numbers, or text in (N,)
    y_mask: NDArray[np.bool_] | None = None  # (N,) or (N, S)
    ids: list[str] | None = None
    groups: list[str] | None = None
    fold: list[str] | None = None
    split: list[str] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    backbones: dict[str, tuple[str, Mapping[str, object]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class OwnData(Benchmark):
    """A benchmark made of somebody's files by `load`.

    Attributes:
        origin: the .npz file or the folder.
        notes: what was inferred or left out, a line each.
        classes: the name of each class id.
    """

    origin: ClassVar[Path]
    _data: ClassVar[Batch]
    _fold: ClassVar[Sequence[int] | None]
    _side: ClassVar[Sequence[int] | None]

    def load(self) -> Batch:
        """The samples as they stood in the files when the class was made."""
        return self._data

    def splits(self, data: Batch, fold: int) -> Splits:
        """By the fold numbers (the next fold validates), by the given sides, or by whole groups."""
        if self._fold is not None:
            place = np.asarray(self._fold)
            after = (fold + 1) % self.folds
            return Splits(*map(np.flatnonzero, ((place != fold) & (place != after), place == after, place == fold)))
        if self._side is None:
            return group_folds(data.groups, self.folds, fold)
        side = np.asarray(self._side)
        train, val, test = (np.flatnonzero(side == s) for s in range(3))
        if not len(val):  # a fifth of the training groups
            groups = [data.groups[int(i)] for i in train]
            held = group_folds(groups, max(3, min(5, len(set(groups)))), 0)
            train, val = train[np.concatenate([held.train, held.val])], train[held.test]
        return Splits(np.sort(train), val, test)


def load(path: str | Path) -> type[OwnData]:
    """The benchmark in a file or folder, as a class whose `__init__` takes no arguments. Everything is read once.

    Raises:
        UsageError: the files are not what `docs/your-own-data.md` describes; file and row are named.
    """
    from fusionbench.custom_data import sources

    path = Path(path).expanduser().resolve()
    raw = sources.folder(path) if path.is_dir() else sources.npz(path)
    settings, n = raw.settings, len(raw.y)
    streams = {m: _stream(raw, m) for m in raw.x}
    task, y, y_mask, classes = _task(raw, streams)
    ids = raw.ids or [f"{row:0{len(str(n - 1))}d}" for row in range(n)]
    name, times = Counter(ids).most_common(1)[0]
    if times > 1:
        raise UsageError(f"{path}: {times} samples have the id {name!r}: an id names one sample")
    for row, name in enumerate([*ids, *(raw.groups or [])]):
        if not name:
            raise UsageError(f"{path}: sample {row % n} (from 0) has an empty {'id' if row < n else 'group'}")
    groups = raw.groups or ids
    attributes: dict[str, Any] = {
        "__doc__": f"Data of {path.name}.",
        "__module__": __name__,
        "origin": path,
        "notes": tuple(raw.notes),
        "classes": tuple(classes),
        "shapes": {m: tuple(s.shape[1:]) for m, s in streams.items()},
        "rates": raw.rates,
        "task": task,
        "backbones": {m: raw.backbones.get(m) or _backbone(s, task.per_frame) for m, s in streams.items()},
        "corruptions": tuple(settings.get("corruptions", _corruptions(streams))),
        "_data": Batch(streams, y, y_mask, ids, groups),
        **_protocol(raw, groups),
        **{name: settings[name] for name in CONSTANTS if name in settings},
    }
    return type("".join(c if c.isalnum() else "_" for c in path.stem), (OwnData,), attributes)


def _stream(raw: Raw, m: str) -> Stream:
    """NaN anywhere in a step makes the step a missing one; infinity is an error."""
    x, mask = raw.x[m], raw.mask[m]
    flat = x.reshape(*x.shape[:2], -1)
    infinite = (np.isinf(flat).any(2) & mask).any(1)
    if infinite.any():
        raise UsageError(f"{raw.origin}: {m} of sample {int(infinite.argmax())} (from 0) has infinity: mend or mask it")
    hole = np.isnan(flat)
    broken = hole.any(2) & mask
    never = np.flatnonzero(hole[mask].all(0)) if mask.any() else np.empty(0, dtype=int)
    if len(never) and not hole[mask].all():
        raise UsageError(f"{raw.origin}: column {never[0]} (from 0) of {m} is NaN in every sample: leave it out")
    if broken.any():
        worst = int(hole[mask].sum(0).argmax())
        raw.notes.append(
            f"{m}: {int(broken.sum())} of {int(mask.sum())} steps have NaN and count as missing; most of them in "
            f"column {worst} (from 0)"
        )
    mask = mask & ~broken
    if not mask.any():
        raise UsageError(f"{raw.origin}: {m} is missing in every sample")
    return Stream(torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32)), torch.from_numpy(mask))


def _task(raw: Raw, streams: Mapping[str, Stream]) -> tuple[Task, torch.Tensor, torch.Tensor, list[str]]:
    """Task, y, y_mask and the names of the classes."""
    settings, y, where = raw.settings, raw.y, f"{raw.origin}: the label"
    kind = settings.get("task") or _kind(y)
    if kind not in METRICS:
        raise UsageError(f"{raw.origin}: task is classify or regress, not {kind!r}")
    if y.dtype.kind not in "biuf" and kind == "regress":
        y = files.numbers(y.reshape(-1), raw.origin, "the label").reshape(y.shape)
    lengths = {s.shape[0] for s in streams.values()}
    clock = lengths.pop() if len(lengths) == 1 else 0
    per_frame = settings.get("per_frame", y.ndim == 3 or (y.ndim == 2 and y.shape[1] == clock > 1))
    if per_frame and y.ndim == 1:
        raise UsageError(f"{where} is one a sample, {y.shape}; per frame it is (N, T)")
    if kind == "classify":
        if y.ndim == 2 and y.shape[1] == 1:
            y = y[:, 0]
        if y.ndim > (2 if per_frame else 1):
            raise UsageError(
                f"{where} is {y.shape}; classes are (N,), or (N, T) for a label every frame (T is {clock or 'unequal'})"
            )
        y, valid, classes = _classes(raw, y)
        y = y[:, None] if y.ndim == 1 else y
        valid = valid.reshape(y.shape)
        out = len(classes)
    else:
        y = y.astype(np.float64)
        y = y[:, None, None] if y.ndim == 1 else y if y.ndim == 3 else y[:, :, None] if per_frame else y[:, None]
        if np.isinf(y).any():
            raise UsageError(f"{where} of sample {int(np.isinf(y).any((1, 2)).argmax())} (from 0) is infinite")
        valid, classes, out = np.asarray(~np.isnan(y).any(2)), [], y.shape[2]
    y_mask = np.asarray(valid & _label_mask(raw, valid.shape))
    if not y_mask.any():
        raise UsageError(f"{where}: nothing is labelled")
    if kind == "classify" and (lost := sorted(set(range(out)) - set(y[y_mask].tolist()))):
        raise UsageError(f"{where}: no sample that counts has the class {classes[lost[0]]!r}")
    metrics = settings.get("metrics") or METRICS[kind]
    metrics = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    answers = torch.from_numpy(np.where(y_mask if y.ndim == 2 else y_mask[..., None], y, 0))
    answers = answers.long() if kind == "classify" else answers.float()
    task = Task(cast(Kind, kind), out, _known(metrics, kind, raw.origin), bool(per_frame))
    return task, answers, torch.from_numpy(y_mask), classes


def _known(metrics: tuple[str, ...], kind: str, origin: Path) -> tuple[str, ...]:
    from fusionbench.metrics import get

    for name in metrics:
        if get(name).kind != kind:
            raise UsageError(f"{origin}: the metric {name} is not for a task of kind {kind}")
    return metrics


def _kind(y: Array) -> str:
    """Text and whole-number types are classes, floating-point numbers are values; text cells that are numbers too."""
    if y.dtype.kind in "biu":
        return "classify"
    if y.dtype.kind == "f":
        return "regress"
    filled = [cell for cell in files.texts(y.reshape(-1)) if cell.lower() not in files.EMPTY]
    try:
        [float(cell) for cell in filled]
    except ValueError:
        return "classify"
    return "classify" if all(cell.lstrip("+-").isdecimal() for cell in filled) else "regress"


def _classes(raw: Raw, y: Array) -> tuple[Array, NDArray[np.bool_], list[str]]:
    """Class ids, which of them are given, names of the classes: as `classes` lists them, else sorted."""
    shape = y.shape
    cells = files.texts(y.reshape(-1))
    valid = np.array([cell.lower() not in files.EMPTY for cell in cells])
    seen = {cell for cell, given in zip(cells, valid, strict=True) if given}
    whole = all(cell.lstrip("+-").isdecimal() for cell in seen)
    if whole and any(cell.startswith("-") for cell in seen):
        low = min(seen, key=int)
        raise UsageError(
            f"{raw.origin}: sample {cells.index(low) // max(1, len(cells) // shape[0])} (from 0) has the label {low}: "
            f"classes are whole numbers from 0; mark what is not labelled in y_mask, or leave the cell empty"
        )
    classes = [str(c) for c in raw.settings.get("classes", [])] or sorted(seen, key=int if whole else str)
    for row, cell in enumerate(cells):
        if valid[row] and cell not in classes:
            raise UsageError(f"{raw.origin}: sample {row} (from 0): {unknown('class', cell, classes)}")
    if len(classes) < 2:
        raise UsageError(
            f"{raw.origin}: the label is always {classes[0] if classes else 'empty'}: nothing to tell apart"
        )
    if not raw.settings.get("task") and len(classes) > max(20, valid.sum() / 4):
        raise UsageError(
            f"{raw.origin}: the label has {len(classes)} different texts or whole numbers in {valid.sum()} samples: "
            f'save values as floating-point numbers (task = "regress"), or say task = "classify" in benchmark.toml'
        )
    if classes != [str(k) for k in range(len(classes))]:
        raw.notes.append("classes: " + ", ".join(f"{name} -> {k}" for k, name in enumerate(classes)))
    number = {name: k for k, name in enumerate(classes)}
    return np.array([number.get(cell, 0) for cell in cells]).reshape(shape), valid.reshape(shape), classes


def _label_mask(raw: Raw, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    if raw.y_mask is None:
        return np.ones(shape, dtype=bool)
    mask = raw.y_mask[:, None] if raw.y_mask.ndim == 1 else raw.y_mask
    if mask.shape[0] != shape[0] or mask.shape[1] not in (1, shape[1]):
        raise UsageError(f"{raw.origin}: y_mask is {raw.y_mask.shape}, the labels {shape}")
    return np.broadcast_to(mask, shape)


def _protocol(raw: Raw, groups: Sequence[str]) -> dict[str, Any]:
    """Folds, fold numbers or sides, and whether a person stands on two sides of a split."""
    reason = str(raw.settings.get("subject_dependent", ""))
    found: dict[str, Any] = {"_fold": None, "_side": None}
    if raw.groups is None and not reason:
        reason = "no groups were given, so that one person may stand on two sides of a split"
        raw.notes.append("no groups: every sample counts as a person of its own, and scores may be too good")
    if raw.fold is not None:
        names = sorted(set(raw.fold), key=lambda f: (0, int(f), "") if f.lstrip("-").isdecimal() else (1, 0, f))
        if len(names) < 3:
            raise UsageError(
                f"{raw.origin}: {len(names)} folds; one tests, one validates, so at least three are needed"
            )
        found |= {"folds": len(names), "_fold": [names.index(f) for f in raw.fold]}
        parts = raw.fold
    elif raw.split is not None:
        for row, side in enumerate(raw.split):
            if side.lower() not in SIDES:
                raise UsageError(
                    f"{raw.origin}: sample {row} (from 0) has the split {side!r}; there are {', '.join(SIDES)}"
                )
        found |= {"folds": 1, "_side": [SIDES[side.lower()] for side in raw.split]}
        for name in ("train", "test"):
            if SIDES[name] not in found["_side"]:
                raise UsageError(f"{raw.origin}: no sample's split is {name}")
        parts = [str(side) for side in found["_side"]]
    else:
        folds = int(raw.settings.get("folds", 5))
        if len(set(groups)) < 3:
            raise UsageError(f"{raw.origin}: {len(set(groups))} groups; train, validation and test need one each")
        if folds > len(set(groups)) and "folds" in raw.settings:
            raise UsageError(f"{raw.origin}: {folds} folds of {len(set(groups))} groups: a fold needs a group")
        return {**found, "folds": max(1, min(folds, len(set(groups)))), "subject_dependent": reason}
    home: dict[str, str] = {}
    for group, part in zip(groups, parts, strict=True):
        if home.setdefault(group, part) != part and not reason:
            reason = f"group {group!r} stands in two folds or sides of the given split"
    return {**found, "subject_dependent": reason}


def _backbone(stream: Stream, per_frame: bool) -> tuple[str, Mapping[str, object]]:
    """A single step needs no encoder; longer sequences are shortened unless each frame is answered."""
    steps = stream.shape[0]
    if steps == 1:
        return "identity", {}
    return "tcn", {"kernel": 3, "depth": 2, "shorten": 1 if per_frame or steps < 8 else 2 if steps < 32 else 4}


def _corruptions(streams: Mapping[str, Stream]) -> list[str]:
    found = [f"missing:{m}" for m in streams if len(streams) > 1] + [f"noise:{m}" for m in streams]
    longer = [m for m, s in streams.items() if s.shape[0] > 1]
    return [*found, "noise:all", *(["gap:all"] if len(longer) == len(streams) else [])]

"""Which task the labels set: classes or values, one a sample or one a frame, and which of them count."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from fusionbench.api import Stream, Task
from fusionbench.api.types import Kind
from fusionbench.custom_data import files
from fusionbench.custom_data.files import Array
from fusionbench.custom_data.raw import LARGEST, Raw
from fusionbench.errors import UsageError, unknown

METRICS = {"classify": ("macro_f1", "accuracy"), "regress": ("ccc", "mae")}
Mask = NDArray[np.bool_]


def task_of(raw: Raw, streams: Mapping[str, Stream]) -> tuple[Task, torch.Tensor, torch.Tensor, list[str]]:
    """Task, y, y_mask and the names of the classes. What lies under a False `y_mask` is looked at by nobody.

    Raises:
        UsageError: the labels are of no known shape, or one that counts is no class or value.
    """
    settings, where = raw.settings, f"{raw.origin}: the label"
    lengths = {s.shape[0] for s in streams.values()}
    clock = lengths.pop() if len(lengths) == 1 else 0
    y = raw.y
    per_frame = bool(settings.get("per_frame", y.ndim == 3 or (y.ndim == 2 and y.shape[1] == clock > 1)))
    if per_frame and y.ndim == 1:
        raise UsageError(f"{where} is one a sample, {y.shape}; per frame it is (N, T)")
    if y.ndim == 3 and not per_frame:
        raise UsageError(f"{where} is {y.shape}: values every frame, so per_frame cannot be false")
    answers: Array
    counts = _label_mask(raw, (len(y), y.shape[1] if per_frame else 1))
    each = np.broadcast_to(counts.reshape(*counts.shape, *[1] * (y.ndim - 2)) if y.ndim > 1 else counts[:, 0], y.shape)
    kind = settings.get("task") or _kind(y, each)
    if kind not in METRICS:
        raise UsageError(f"{raw.origin}: task is classify or regress, not {files.clip(kind)}")
    if kind == "classify":
        if y.ndim == 2 and y.shape[1] == 1:
            y, each = y[:, 0], each[:, 0]
        if y.ndim > (2 if per_frame else 1):
            raise UsageError(
                f"{where} is {y.shape}; classes are (N,), or (N, T) for a label every frame (T is {clock or 'unequal'})"
            )
        ids, valid, classes = _classes(raw, y, each)
        answers, valid = ids.reshape(counts.shape), valid.reshape(counts.shape)
        out = len(classes)
    else:
        answers, valid, classes = _values(raw, y, each, per_frame), counts, []
        valid = valid & ~np.isnan(answers).any(2)
        out = answers.shape[2]
    if not valid.any():
        raise UsageError(f"{where}: nothing is labelled")
    if kind == "classify" and (lost := sorted(set(range(out)) - set(answers[valid].tolist()))):
        raise UsageError(f"{where}: no sample that counts has the class {classes[lost[0]]!r}")
    metrics = known(settings.get("metrics") or METRICS[kind], kind, raw.origin)
    filled = torch.from_numpy(np.where(valid if answers.ndim == 2 else valid[..., None], answers, 0))
    filled = filled.long() if kind == "classify" else filled.float()
    return Task(cast(Kind, kind), out, metrics, per_frame), filled, torch.from_numpy(valid.copy()), classes


def known(metrics: str | Collection[str], kind: str, origin: Path | str) -> tuple[str, ...]:
    """The names of metrics, as a tuple.

    Raises:
        UsageError: there is no such metric, or it is for another kind of task, or stands there twice.
    """
    from fusionbench.metrics import get

    metrics = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    for name in metrics:
        if get(name).kind != kind:
            raise UsageError(f"{origin}: the metric {name} is not for a task of kind {kind}")
        if metrics.count(name) > 1:
            raise UsageError(f"{origin}: the metric {name} is named twice")
    return metrics


def _label_mask(raw: Raw, shape: tuple[int, int]) -> Mask:
    """(N, S): which labels count, as `y_mask` says."""
    if raw.y_mask is None:
        return np.ones(shape, dtype=bool)
    mask = raw.y_mask[:, None] if raw.y_mask.ndim == 1 else raw.y_mask
    if mask.ndim != 2 or mask.shape[0] != shape[0] or mask.shape[1] not in (1, shape[1]):
        raise UsageError(f"{raw.origin}: y_mask is {raw.y_mask.shape}, the labels {shape}")
    return np.broadcast_to(mask, shape)


def _kind(y: Array, each: Mask) -> str:
    """Text and whole-number types are classes, floating-point numbers are values; text cells that are numbers too."""
    if y.dtype.kind in "biu":
        return "classify"
    if y.dtype.kind == "f":
        return "regress"
    filled = [cell for cell in files.texts(y[each]) if cell.lower() not in files.EMPTY]
    try:
        [float(cell) for cell in filled]
    except ValueError:
        return "classify"
    return "classify" if all(files.whole(cell) is not None for cell in filled) else "regress"


def _values(raw: Raw, y: Array, each: Mask, per_frame: bool) -> NDArray[np.float64]:
    """(N, S, K), NaN where nothing counts."""
    where = f"{raw.origin}: the label"
    if y.dtype.kind not in "biuf":
        cells = [
            cell if counts else "" for cell, counts in zip(files.texts(y.reshape(-1)), each.reshape(-1), strict=True)
        ]
        y = files.numbers(np.array(cells, dtype=object), raw.origin, "the label").reshape(y.shape)
    y = np.where(each, files.numbers(y, raw.origin, "the label"), np.nan)
    y = y[:, None, None] if y.ndim == 1 else y if y.ndim == 3 else y[:, :, None] if per_frame else y[:, None]
    if (large := np.abs(y) > LARGEST).any():
        row = int(large.any((1, 2)).argmax())
        size = "infinite" if np.isinf(y[row]).any() else f"beyond {LARGEST:g}"
        raise UsageError(f"{where} of sample {row} (from 0) is {size}")
    return y


def _classes(raw: Raw, y: Array, each: Mask) -> tuple[NDArray[np.int64], Mask, list[str]]:
    """Class ids, which of them are given, names of the classes: as `classes` lists them, else sorted."""
    flat = each.reshape(-1)
    cells = ["" if not counts else cell for cell, counts in zip(files.texts(y.reshape(-1)), flat, strict=True)]
    files.named(cells, raw.origin, "label")
    valid = np.array([cell.lower() not in files.EMPTY for cell in cells])
    given = int(valid.sum())
    seen = {cell for cell, there in zip(cells, valid, strict=True) if there}
    whole = {cell: k for cell in seen if (k := files.whole(cell)) is not None}
    ordered = sorted(seen, key=lambda cell: whole[cell]) if len(whole) == len(seen) else sorted(seen)
    if len(whole) == len(seen) and whole and min(whole.values()) < 0:
        low = ordered[0]
        raise UsageError(
            f"{raw.origin}: sample {cells.index(low) // max(1, len(cells) // len(y))} (from 0) has the label {low}: "
            f"classes are whole numbers from 0; mark what is not labelled in y_mask, or leave the cell empty"
        )
    classes = [str(c) for c in raw.settings.get("classes", [])] or ordered
    for name in classes:
        if classes.count(name) > 1 and len(classes) <= files.LONGEST:
            raise UsageError(f"{raw.origin}: classes names {name!r} twice")
    number = {name: k for k, name in enumerate(classes)}
    for row, cell in enumerate(cells):
        if valid[row] and cell not in number:
            raise UsageError(f"{raw.origin}: sample {row} (from 0): {unknown('class', cell, classes)}")
    if len(classes) < 2:
        raise UsageError(
            f"{raw.origin}: the label is always {classes[0] if classes else 'empty'}: nothing to tell apart"
        )
    if not raw.settings.get("task") and len(classes) > max(20, given / 4):
        raise UsageError(
            f"{raw.origin}: the label has {len(classes)} different texts or whole numbers in {given} samples: "
            f'save values as floating-point numbers (task = "regress"), or say task = "classify" in benchmark.toml'
        )
    if classes != [str(k) for k in range(len(classes))]:
        raw.notes.append("classes: " + ", ".join(f"{name} -> {k}" for k, name in enumerate(classes)))
    ids = np.array([number.get(cell, 0) for cell in cells], dtype=np.int64)
    return ids.reshape(y.shape), valid.reshape(y.shape), classes

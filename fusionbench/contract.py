"""What every benchmark has to hold before anything is trained: asked by `run` and by `data check` alike.

The code of a benchmark may be a stranger's plugin. Whatever it raises or returns, the user reads one line.
"""

from __future__ import annotations

import math
import numbers
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from fusionbench import corruptions
from fusionbench.api import Batch, Benchmark, Spec, Splits, Stream, Task, group_folds
from fusionbench.api.plugins import LIMITS, Role
from fusionbench.api.types import Source
from fusionbench.conditions import ALL
from fusionbench.errors import UsageError
from fusionbench.metrics import get

SIDES = ("train", "val", "test")


def make(maker: Callable[..., Benchmark], settings: Mapping[str, Any], name: str) -> Benchmark:
    """The benchmark, built and its constants checked.

    Raises:
        UsageError: building it fails, or a constant is absurd.
    """
    with _plugin(name, "__init__"):
        benchmark = maker(**settings)
        _constants(benchmark, name)
    return benchmark


def load(benchmark: Benchmark, name: str) -> Batch:
    """The benchmark's data, checked.

    Raises:
        UsageError: loading fails, or what is loaded is not what the benchmark declares; NaN or infinity stands under a
            True mask.
    """
    with _plugin(name, "load"):
        data = benchmark.load()
        if not isinstance(data, Batch):
            raise UsageError(f"{name}: load returns {_kind(data)}, not a Batch")
        _check_streams(benchmark, name, data)
        _check_labels(benchmark.task, name, data)
    return data


def has_order(benchmark: Benchmark) -> bool:
    """Does it say how far into its recording a sample stands?"""
    return type(benchmark).order is not Benchmark.order


def order(benchmark: Benchmark, name: str, data: Batch) -> np.ndarray | None:
    """(n,) 0 to 1, how far into its recording each sample stands, checked; None where samples have no time.

    Raises:
        UsageError: it fails, or is not one number from 0 to 1 a sample.
    """
    with _plugin(name, "order"):
        found = benchmark.order(data)
        if found is None:
            return None
        place = np.asarray(found, dtype=float)
        if place.shape != (len(data),) or not ((place >= 0) & (place <= 1)).all():
            raise UsageError(f"{name}: order is one number from 0 to 1 a sample")
    return place


def splits(benchmark: Benchmark, name: str, data: Batch, fold: int, deal: int | None = None) -> Splits:
    """The splits of a fold, as arrays of indices, checked.

    Args:
        deal: the groups dealt into folds again, in the order of that number; None: the benchmark's own partition.

    Raises:
        UsageError: splitting fails; a side is empty or unlabelled, or leaves the data; a sample stands in two of them;
            or the folds are to be dealt again and are not those of `group_folds`.
    """
    with _plugin(name, "splits"):
        found = benchmark.splits(data, fold)
        if not isinstance(found, Splits):
            raise UsageError(f"{name}: splits returns {_kind(found)} for fold {fold}, not Splits")
        sides = {side: _indices(name, fold, side, getattr(found, side), len(data)) for side in SIDES}
    if deal is not None:
        sides = _dealt(benchmark, name, data, fold, deal, sides)
    for a, b in (("train", "val"), ("train", "test"), ("val", "test")):
        if len(shared := np.intersect1d(sides[a], sides[b])):
            raise UsageError(
                f"{name}: a sample stands on two sides of the split of fold {fold}: {data.ids[int(shared[0])]!r} is in "
                f"{a} and in {b}"
            )
    for side, index in sides.items():
        if not data.y_mask[torch.as_tensor(index, device=data.y_mask.device)].any():
            raise UsageError(f"{name}: nothing in {side} of fold {fold} is labelled")
    return Splits(**sides)


# ------------------------------------------------------------------------------------------------------------ details


def _dealt(
    benchmark: Benchmark, name: str, data: Batch, fold: int, deal: int, own: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The sides of the fold in another deal. Only what is dealt by group can be: the benchmark's own must be so."""

    def sides(number: int | None) -> dict[str, np.ndarray]:
        found = group_folds(data.groups, benchmark.folds, fold, deal=number)
        return {side: np.asarray(getattr(found, side)) for side in SIDES}

    try:
        by_group = all(np.array_equal(np.sort(own[side]), index) for side, index in sides(None).items())
    except UsageError:  # one fold, or too few groups
        by_group = False
    if not by_group:
        raise UsageError(
            f"{name} has a split of its own (an official one, say), not folds of whole groups that could be dealt "
            "again: leave --partition per-seed out"
        )
    return sides(deal)


@contextmanager
def _plugin(name: str, method: str) -> Iterator[None]:
    """Whatever the plugin's code raises becomes one line."""
    try:
        yield
    except UsageError:
        raise
    except MemoryError:
        raise UsageError(f"{name}: {method} needs more memory than there is") from None
    except (Exception, SystemExit) as error:  # a plugin may raise anything at all
        frames = traceback.extract_tb(error.__traceback__)
        text = " ".join(str(error).split())[:200]
        where = f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}"
        raise UsageError(f"{name}: {method} raises {type(error).__name__}: {text} ({where})") from error


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def _whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _positive(value: Any) -> bool:
    try:
        return not isinstance(value, bool | str) and 0 < float(value) < math.inf
    except (TypeError, ValueError, OverflowError):
        return False


def _constants(benchmark: Benchmark, name: str) -> None:
    shapes = getattr(benchmark, "shapes", None)
    if not isinstance(shapes, Mapping) or not shapes:
        raise UsageError(f"{name}: shapes is modality -> shape of a step, not {shapes!r}")
    for m, step in shapes.items():
        if m == ALL:
            raise UsageError(f"{name}: a modality cannot be called {ALL!r}: that word means all modalities")
        if not isinstance(step, Sequence) or not all(_whole(n) and n > 0 for n in step):
            raise UsageError(f"{name}: the shape of a step of {m} is whole numbers above 0, not {step!r}")
    task = getattr(benchmark, "task", None)
    if not isinstance(task, Task) or task.kind not in ("classify", "regress"):
        raise UsageError(f"{name}: task is Task('classify' or 'regress', ...), not {task!r}")
    if not _whole(task.out) or task.out < (2 if task.kind == "classify" else 1):
        raise UsageError(f"{name}: the task has {task.out!r} outputs")
    Spec(task.kind, dict.fromkeys(shapes, 1), task.out)  # it refuses names that no fuser can hold
    if isinstance(task.metrics, str) or not task.metrics:
        raise UsageError(f"{name}: the task's metrics are a tuple of names, not {task.metrics!r}")
    for metric in task.metrics:
        if get(metric).kind != task.kind:
            raise UsageError(f"{name}: the metric {metric} is not for a task of kind {task.kind}")
    for count, largest in LIMITS.items():
        value = getattr(benchmark, count)
        if not _whole(value) or not 1 <= value <= largest:
            raise UsageError(f"{name}: {count} is a whole number from 1 to {largest}, not {value!r}")
    for m, rate in benchmark.rates.items():
        if m not in shapes or not _positive(rate):
            raise UsageError(f"{name}: rates is modality -> steps a second, above 0, not {m!r}: {rate!r}")
    for m, chosen in benchmark.backbones.items():
        if m not in shapes:
            raise UsageError(f"{name}: backbones names the modality {m!r}, which it does not have")
        if not (isinstance(chosen, tuple) and len(chosen) == 2 and isinstance(chosen[1], Mapping)):
            raise UsageError(f"{name}: the backbone of {m} is (name, settings), not {chosen!r}")
    for m, channels in benchmark.indicators.items():
        if m not in shapes or len(shapes[m]) != 1 or not all(_whole(c) and 0 <= c < shapes[m][0] for c in channels):
            raise UsageError(
                f"{name}: indicators is modality -> channels of its vectors, from 0, not {m!r}: {channels!r}"
            )
    if not isinstance(benchmark.version, str) or not benchmark.version:
        raise UsageError(f"{name}: version is a text, not {benchmark.version!r}")
    if benchmark.margin is not None and not _positive(benchmark.margin):
        raise UsageError(f"{name}: margin is a difference of {task.metrics[0]} above 0, not {benchmark.margin!r}")
    for word in ("unit", "domain"):
        if not isinstance(getattr(benchmark, word), str):
            raise UsageError(f"{name}: {word} is a word, not {getattr(benchmark, word)!r}")
    if benchmark.role not in get_args(Role):
        raise UsageError(f"{name}: role is one of {', '.join(get_args(Role))}, not {benchmark.role!r}")
    for spelling in benchmark.corruptions:
        corruptions.parse(spelling, list(shapes))


def _check_streams(benchmark: Benchmark, name: str, data: Batch) -> None:
    if not len(data):
        raise UsageError(f"{name} has no sample")
    if set(data.streams) != set(benchmark.shapes):
        raise UsageError(
            f"{name}: it loads {', '.join(map(str, data.streams))}, declares {', '.join(benchmark.shapes)}"
        )
    for m, stream in data.streams.items():
        if not isinstance(stream, Stream | Source):
            raise UsageError(f"{name}: {m} is {_kind(stream)}, neither a Stream nor a Source")
        if len(stream) != len(data):
            raise UsageError(f"{name}: {m} has {len(stream)} samples, the labels {len(data)}")
        if tuple(stream.shape[1:]) != tuple(benchmark.shapes[m]):
            raise UsageError(
                f"{name}: a step of {m} is {tuple(stream.shape[1:])}, declared {tuple(benchmark.shapes[m])}"
            )
        if not isinstance(stream, Stream):
            continue
        if not stream.x.is_floating_point():
            raise UsageError(f"{name}: {m} is {stream.x.dtype}, not floating-point numbers")
        finite = torch.isfinite(stream.x).flatten(1).all(1)
        if not finite.all():
            sample = data.ids[int(finite.int().argmin())] if len(data.ids) == len(data) else int(finite.int().argmin())
            raise UsageError(
                f"{name}: {m} of sample {sample} has NaN or infinity at a step that its mask calls real: mask it or "
                f"mend the data"
            )
        if not stream.mask.any():
            raise UsageError(f"{name}: {m} is missing in every sample")
    for what, given in (("ids", data.ids), ("groups", data.groups)):
        if len(given) != len(data):
            raise UsageError(f"{name}: {len(given)} {what} for {len(data)} samples")
        if not all(isinstance(text, str) and text for text in given):
            raise UsageError(f"{name}: {what} are texts that are not empty")
    for attribute, texts in data.attributes.items():
        if len(texts) != len(data) or not all(isinstance(text, str) for text in texts):
            raise UsageError(f"{name}: the attribute {attribute} is one text a sample, empty where it is not known")
    if len(set(data.ids)) < len(data):
        raise UsageError(f"{name}: two samples have the same id")


def _check_labels(task: Task, name: str, data: Batch) -> None:
    y = data.y
    dims = 2 if task.kind == "classify" else 3
    if y.dim() != dims or y.is_floating_point() != (task.kind == "regress"):
        wanted = "whole numbers (N, S)" if task.kind == "classify" else f"values (N, S, {task.out})"
        raise UsageError(f"{name}: labels are {wanted}, not {y.dtype} {tuple(y.shape)}")
    if not task.per_frame and y.shape[1] != 1:
        raise UsageError(f"{name}: a sample has one label, not {y.shape[1]}")
    valid = y[data.y_mask]
    if not len(valid):  # an official test list: its answers are somebody else's; `splits` wants labels
        return
    if task.kind == "classify" and not 0 <= int(valid.min()) <= int(valid.max()) < task.out:
        raise UsageError(f"{name}: classes run from {int(valid.min())} to {int(valid.max())}, of {task.out}")
    if task.kind == "regress" and y.shape[2] != task.out:
        raise UsageError(f"{name}: a label has {y.shape[2]} values, the task {task.out} outputs")
    if not torch.isfinite(valid.double()).all():
        raise UsageError(f"{name}: a label that counts is NaN or infinite")


def _indices(name: str, fold: int, side: str, given: Any, samples: int) -> np.ndarray:
    index = np.asarray(given)
    where = f"{name}: {side} of fold {fold}"
    if index.ndim != 1 or not len(index):
        raise UsageError(f"{where} is empty" if index.size == 0 else f"{where} is {index.shape}, not indices (n,)")
    if index.dtype.kind not in "iu":
        raise UsageError(f"{where} holds {index.dtype}, not whole numbers")
    if index.min() < 0 or index.max() >= samples:
        raise UsageError(f"{where} has indices from {index.min()} to {index.max()}, the data {samples} samples")
    if len(np.unique(index)) < len(index):
        raise UsageError(f"{where} has a sample twice")
    return index

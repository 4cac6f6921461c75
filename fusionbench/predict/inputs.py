"""What a model is asked about: arrays, a dict, a data frame, a file, a benchmark; what it lacks counts as missing."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fusionbench import contract, registry
from fusionbench.api import Batch, Source, Stream
from fusionbench.custom_data import files
from fusionbench.custom_data.python import columns_of, plain_arrays, side_by_side
from fusionbench.custom_data.raw import LARGEST
from fusionbench.custom_data.settings import ROLES
from fusionbench.custom_data.sources import ATTRIBUTE, by_row
from fusionbench.errors import UsageError, unknown

#: Arrays that describe samples and are no modality.
IGNORED = {ROLES[role] for role in ("label", "label_mask", "fold", "split", "order")}


@dataclass(frozen=True)
class Modality:
    """What a model expects of one modality: the shape of a step, how many steps it met, steps a second if known."""

    step: tuple[int, ...]
    steps: int
    rate: float | None = None


@dataclass(frozen=True, eq=False)
class Inputs:
    """Samples without labels: every modality of the model, an all-False mask where it is missing."""

    streams: dict[str, Any]
    ids: list[str]
    groups: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)


def read(
    data: Any,
    expected: Mapping[str, Modality],
    columns: Mapping[str, Sequence[str] | str] | None = None,
    unused: Collection[str] = (),
) -> Inputs:
    """The samples in whatever a user has.

    Args:
        data: a dict of arrays as docs/your-own-data.md describes them, labels not needed; a data frame; a data set of
            Hugging Face; the path of an .npz, .csv or .parquet file; a benchmark, by name or path; or a `Batch`.
        columns: of a frame or table, modality -> names or patterns; by default `eda` or `eda_*`.
        unused: modalities that the training left out on purpose: what there is of them is not looked at.

    Raises:
        UsageError: a modality that the model does not know, a step of another width, lengths that differ, or nothing.
    """
    if isinstance(data, Batch):
        return _batch(data, expected, "the batch", unused)
    if isinstance(data, str | os.PathLike):
        name = os.fspath(data)
        if Path(name).suffix not in files.FORMATS:
            return _benchmark(name, expected, unused)
        content = files.read(Path(name).expanduser())
        if files.is_table(Path(name)):
            return _table(content, expected, columns, name)
        return _arrays(content, expected, name, unused)
    if hasattr(data, "column_names"):
        named = [*expected, *(n for n in (ROLES["id"], ROLES["group"]) if n in data.column_names)]
        return _arrays({m: list(data[m]) for m in named if m in data.column_names}, expected, "the data set")
    if hasattr(data, "columns") and hasattr(data, "__getitem__"):
        return _table(columns_of(data), expected, columns, "the frame")
    if isinstance(data, np.ndarray) and len(expected) == 1:
        return _arrays({next(iter(expected)): data}, expected, "the array")
    if not isinstance(data, Mapping):
        raise UsageError(
            f"a prediction takes a dict of arrays ({', '.join(expected)}), a data frame, a file or a benchmark, not "
            f"{type(data).__name__}"
        )
    return _arrays(data, expected, "the dict", unused)


def _benchmark(name: str, expected: Mapping[str, Modality], unused: Collection[str]) -> Inputs:
    called = registry.plugin_name(name)
    benchmark = contract.make(registry.load("benchmarks", name), {}, called)
    return _batch(contract.load(benchmark, called), expected, called, unused)


def _batch(data: Batch, expected: Mapping[str, Modality], where: str, unused: Collection[str]) -> Inputs:
    streams: dict[str, Any] = {}
    for m, stream in data.streams.items():
        if m in unused:
            continue
        _check(m, tuple(stream.shape[1:]), expected, where)
        streams[m] = stream
    ids = list(data.ids) or [str(row) for row in range(len(data))]
    return _complete(streams, expected, ids, list(map(str, data.groups)), where)


def _table(
    content: Mapping[str, Any], expected: Mapping[str, Modality],
    columns: Mapping[str, Sequence[str] | str] | None, where: str,
) -> Inputs:  # fmt: skip
    """One row a sample: a modality is columns side by side."""
    for m in columns or {}:
        if m not in expected:
            raise unknown("modality of this model", m, expected)
    arrays: dict[str, Any] = {}
    for m, kind in expected.items():
        wanted = (columns or {}).get(m)
        if wanted is None and columns is None:
            wanted = m if m in content else [c for c in content if c.startswith(f"{m}_")]
        if wanted:
            arrays[m] = side_by_side(m, wanted, content, where)
            _check(m, arrays[m].shape[1:], {m: kind}, where)
    arrays |= {role: content[role] for role in (ROLES["id"], ROLES["group"]) if role in content}
    if not any(m in arrays for m in expected):
        m = next(iter(expected))
        raise UsageError(
            f"{where} has no column of {', '.join(expected)}: call them {m} or {m}_0, {m}_1, ..., or say which they "
            f"are: {{'{m}': [...]}}"
        )
    return _arrays(arrays, expected, where)


def _arrays(
    given: Mapping[str, Any], expected: Mapping[str, Modality], where: str, unused: Collection[str] = ()
) -> Inputs:
    content = plain_arrays(_without(given, unused))
    masks = {f"{m}_mask" for m in expected}
    for name in content:
        if name not in {*expected, *masks, *IGNORED, ROLES["id"], ROLES["group"]} and not name.startswith(ATTRIBUTE):
            raise UsageError(f"{where}: {unknown('modality of this model', name, expected)}")
    streams: dict[str, Any] = {}
    for m in expected:
        if m not in content:
            continue
        x, mask = by_row(Path(where), m, content, m, f"{m}_mask")
        _check(m, x.shape[2:], expected, where)
        streams[m] = _stream(x, mask, m, where)
    lengths = {m: len(stream) for m, stream in streams.items()}
    names: dict[str, list[str]] = {}
    for role in ("id", "group"):
        if ROLES[role] in content:
            names[role] = files.texts(content[ROLES[role]].reshape(-1))
            lengths[ROLES[role]] = len(names[role])
    if len(set(lengths.values())) > 1:
        spelled = ", ".join(f"{name} {n}" for name, n in lengths.items())
        raise UsageError(f"{where}: samples differ in number: {spelled}")
    size = next(iter(lengths.values()), 0)
    ids = names.get("id") or [str(row) for row in range(size)]
    return _complete(streams, expected, ids, names.get("group", []), where)


def _without(given: Any, unused: Collection[str]) -> Any:
    names = {*unused, *(f"{m}_mask" for m in unused)}
    return {n: v for n, v in given.items() if n not in names} if isinstance(given, Mapping) else given


def _stream(x: np.ndarray, mask: np.ndarray, m: str, where: str) -> Stream:
    """A step with a NaN counts as missing, as in training."""
    with np.errstate(over="ignore"):  # becomes infinite, and is refused
        values = np.ascontiguousarray(x, dtype=np.float32)
    flat = values.reshape(*values.shape[:2], -1)
    large = ((np.abs(flat) > LARGEST).any(2) & mask).any(1)
    if large.any():
        raise UsageError(
            f"{where}: {m} of sample {int(large.argmax())} (from 0) is infinite or beyond {LARGEST:g}: mend or mask it"
        )
    return Stream(torch.from_numpy(values), torch.from_numpy(mask & ~np.isnan(flat).any(2)))


def _check(m: str, step: Sequence[int], expected: Mapping[str, Modality], where: str) -> None:
    if m not in expected:
        raise UsageError(f"{where}: {unknown('modality of this model', m, expected)}")
    if tuple(step) != expected[m].step:
        wide, wanted = (" x ".join(map(str, shape)) for shape in (step, expected[m].step))
        raise UsageError(f"{where}: a step of {m} has {wide} values, the model was trained with {wanted}")


def _complete(
    streams: dict[str, Any], expected: Mapping[str, Modality], ids: list[str], groups: list[str], where: str
) -> Inputs:
    if not streams:
        raise UsageError(f"{where} has no modality of this model: {', '.join(expected)}")
    if not ids:
        raise UsageError(f"{where} has no sample")
    for m, kind in expected.items():
        if m not in streams:
            shape = (len(ids), kind.steps)
            streams[m] = Stream(torch.zeros(*shape, *kind.step), torch.zeros(shape, dtype=torch.bool))
    return Inputs({m: streams[m] for m in expected}, ids, groups)


def present(streams: Mapping[str, Any]) -> np.ndarray:
    """(n, M) which modalities each sample has; sources are read a few samples at a time."""
    columns = []
    for stream in streams.values():
        if isinstance(stream, Source) and not isinstance(stream, Stream):
            parts = [stream[rows].present for rows in torch.arange(len(stream)).split(64)]
            columns.append(torch.cat(parts).numpy())
        else:
            columns.append(stream.present.cpu().numpy())
    return np.stack(columns, 1)

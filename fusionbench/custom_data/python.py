"""Data from Python as a benchmark: a dict of arrays, a data frame, a data set of Hugging Face's `datasets`.

What is given is written once, as an .npz named by a hash of its content, under the cache folder: worker processes read
it, records keep its hash, and the same data are the same benchmark tomorrow. Neither pandas nor datasets is imported.
"""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fusionbench.custom_data import build, files, sources
from fusionbench.custom_data.files import Array
from fusionbench.custom_data.settings import ROLES
from fusionbench.errors import UsageError, unknown
from fusionbench.paths import cache_dir
from fusionbench.records import store


def from_arrays(arrays: Mapping[str, Any], name: str = "data") -> str:
    """A benchmark of named arrays, by the conventions of .npz files: y, group, id, fold, split, `<modality>_mask`.

    A modality is (N, D) or (N, T, D), or a list of N arrays (T_i, D), which is padded and masked.

    Args:
        name: what tables call it; the hash of the content follows.

    Returns:
        What `fusionbench.run`, `compare` and `--benchmark` take: the path of the file.

    Raises:
        UsageError: the arrays make no benchmark, as docs/your-own-data.md says; nothing is written then.
    """
    if not name.isidentifier():
        raise UsageError(f"the name of a benchmark has letters, digits and underscores, unlike {files.clip(name)}")
    content = plain_arrays(arrays)
    digest = hashlib.sha256()
    for key, array in sorted(content.items()):
        digest.update(f"{key}\0{array.dtype.str}{array.shape}\0".encode() + np.ascontiguousarray(array).tobytes())
    path = cache_dir() / "arrays" / f"{name}-{digest.hexdigest()[:12]}.npz"
    build(sources.of_arrays(Path(name), content, {}))  # what is wrong is said before anything is written
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            store.write(path, lambda file: np.savez(file, allow_pickle=False, **content))
        except OSError as error:
            raise UsageError(
                f"{path} cannot be written: {error.strerror}; FUSIONBENCH_HOME names another place"
            ) from None
    return str(path)


def from_frame(
    frame: Any, modalities: Mapping[str, Sequence[str] | str], label: str | Sequence[str], group: str | None = None,
    *, id: str | None = None, fold: str | None = None, split: str | None = None, name: str = "data",
) -> str:  # fmt: skip
    """A benchmark of a data frame (pandas, or whatever has `columns` and `frame[column]`) with one row a sample.

    Args:
        modalities: modality -> names or patterns of its columns, as {"eda": ["eda_*"]}.
        label: the column of labels, or several for several values.

    Returns, raises: as `from_arrays`.
    """
    given = columns_of(frame)
    columns = list(given)
    arrays: dict[str, Any] = {m: side_by_side(m, wanted, given, name) for m, wanted in modalities.items()}
    labels = [label] if isinstance(label, str) else list(label)
    chosen = _match("the label", labels, columns)
    arrays["y"] = given[chosen[0]]
    if len(chosen) > 1:
        arrays["y"] = np.stack([files.numbers(given[c], Path(name), c) for c in chosen], 1)
    for role, column in {"group": group, "id": id, "fold": fold, "split": split}.items():
        if column is not None:
            arrays[role] = files.texts(given[_match(role, [column], columns)[0]])
    return from_arrays(arrays, name)


def from_dataset(
    dataset: Any, modalities: Mapping[str, str] | Sequence[str], label: str, group: str | None = None,
    *, id: str | None = None, name: str = "data",
) -> str:  # fmt: skip
    """A benchmark of a `datasets.Dataset`, or of a `DatasetDict`, whose splits are taken as they are.

    Args:
        modalities: its columns of numbers, vectors or sequences of vectors, or modality -> column. Sequences of
            unequal lengths are padded and masked. Columns of audio or images have to be turned into numbers before.
        label: a column; a `ClassLabel` keeps the names of its classes.

    Returns, raises: as `from_arrays`.
    """
    parts = dict(dataset) if isinstance(dataset, Mapping) else {"": dataset}
    wanted = dict(modalities) if isinstance(modalities, Mapping) else {m: m for m in modalities}
    columns = {**wanted, ROLES["label"]: label}
    columns |= {role: column for role, column in {"group": group, "id": id}.items() if column is not None}
    arrays: dict[str, list[Any]] = {role: [] for role in columns}
    sides: list[str] = []
    for side, part in parts.items():
        for column in columns.values():
            if column not in part.column_names:
                raise unknown("column of the data set", column, part.column_names)
        rows = part[:]  # plain lists, whatever the version of datasets
        for role, column in columns.items():
            arrays[role] += list(rows[column])
        sides += [side] * len(rows[label])
        names = getattr((getattr(part, "features", None) or {}).get(label), "names", None)
        if names:
            start = len(sides) - len(rows[label])
            arrays[ROLES["label"]][start:] = ["" if k is None or k < 0 else names[k] for k in rows[label]]
    found: dict[str, Any] = dict(arrays)
    if len(parts) > 1:
        found["split"] = sides
    for m in wanted:
        found[m] = _vectors(found[m])
    return from_arrays(found, name)


def plain_arrays(arrays: Mapping[str, Any]) -> dict[str, Array]:
    """Arrays that need no pickle: text where there were objects, a ragged list padded and with its mask.

    Raises:
        UsageError: a value is no array of numbers or text.
    """
    if not isinstance(arrays, Mapping) or not all(isinstance(key, str) and key for key in arrays):
        raise UsageError(f"from_arrays takes a dict of name -> array, not {files.clip(arrays)}")
    content: dict[str, Array] = {}
    for key, value in arrays.items():
        content |= _array(key, value)
    return content


def columns_of(frame: Any) -> dict[str, Array]:
    """The columns of a frame, each a flat array, by their names as text."""
    return {str(column): _column(frame[column]) for column in frame.columns}


def side_by_side(modality: str, wanted: Sequence[str] | str, columns: Mapping[str, Array], name: str) -> Array:
    """(N, D) the columns that names and patterns choose, as numbers; `name` is that of the data, for errors."""
    chosen = _match(modality, [wanted] if isinstance(wanted, str) else wanted, list(columns))
    return np.stack([files.numbers(columns[c], Path(name), c) for c in chosen], 1)


# ------------------------------------------------------------------------------------------------------------ details


def _match(what: str, wanted: Sequence[str], columns: Sequence[str]) -> list[str]:
    chosen: list[str] = []
    for pattern in wanted:
        found = [pattern] if pattern in columns else fnmatch.filter(columns, pattern)
        if not found:
            raise unknown(f"column for {what}", pattern, columns)
        chosen += [column for column in found if column not in chosen]
    return chosen


def _column(series: Any) -> Array:
    """A column as a flat array; what pandas alone knows (categories, nullable numbers) as objects."""
    array = np.asarray(series.to_numpy() if hasattr(series, "to_numpy") else series)
    if array.ndim != 1:
        raise UsageError(f"a column of the frame is {array.shape}: two columns have one name")
    if array.dtype.kind != "O":
        return array
    missing = ("<NA>", "NaT", "nan")  # compared by text: pandas.NA refuses to be compared
    cells = [None if str(cell) in missing else cell for cell in array.tolist()]
    return np.array(cells, dtype=object)


def _vectors(values: Sequence[Any]) -> Any:
    """Numbers become vectors of one; None, a vector or sequence that is missing, an empty one."""
    return [np.atleast_1d(np.asarray([] if v is None else v)) for v in values]


def _array(name: str, value: Any) -> dict[str, Array]:
    """A value as an array that needs no pickle; a ragged list as a padded array and its mask."""
    try:
        ragged = isinstance(value, list | tuple) and len({np.shape(item) for item in value}) > 1
        if ragged:
            return _padded(name, [np.asarray(item) for item in value])
        array = np.asarray(value)
        if array.dtype.kind == "O":
            cells = array.reshape(-1).tolist()
            if not all(cell is None or isinstance(cell, str | int | float | np.generic) for cell in cells):
                raise ValueError(f"it holds {type(cells[0]).__name__}")
            array = np.array(files.texts(array.reshape(-1))).reshape(array.shape)
    except (TypeError, ValueError, RuntimeError) as error:  # what a foreign object raises that is asked for numbers
        raise UsageError(f"{name} is no array of numbers or text ({files.line(error)})") from None
    return {name: array}


def _padded(name: str, items: Sequence[Array]) -> dict[str, Array]:
    """(N, T, *step) with zeros behind each item's own steps, and a mask; an empty item is missing."""
    steps = {item.shape[1:] for item in items if item.size}
    if len(steps) != 1 or any(item.dtype.kind not in "biuf" for item in items if item.size):
        raise UsageError(f"{name}: the items are no sequences (T, D) of one D: {len(steps)} shapes of a step")
    step = steps.pop()
    flat = step == ()  # vectors, some of them missing, unless their lengths differ: then steps of one number
    widths = {len(item) for item in items if item.size}
    if flat and len(widths) == 1:
        items, step = [item[None] if item.size else item for item in items], (widths.pop(),)
    elif flat:
        items, step = [item[:, None] for item in items], (1,)
    x = np.zeros((len(items), max(len(item) for item in items), *step))
    mask = np.zeros(x.shape[:2], dtype=bool)
    for row, item in enumerate(items):
        if item.size:
            x[row, : len(item)], mask[row, : len(item)] = item, True
    return {name: x, f"{name}_mask": mask}

"""From files to `Raw`: the .npz convention, and the folder that benchmark.toml describes."""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionbench.custom_data import CONSTANTS, Raw, files
from fusionbench.custom_data.files import Array
from fusionbench.errors import UsageError, unknown

#: Which column or array plays which part, unless benchmark.toml says otherwise.
ROLES = {"label": "y", "label_mask": "y_mask", "id": "id", "group": "group", "fold": "fold", "split": "split"}
SETTINGS = {
    **CONSTANTS,
    **dict.fromkeys(ROLES, str),
    "file": str,
    "time": str,
    "task": str,
    "metrics": (list, str),
    "per_frame": bool,
    "classes": list,
    "folds": int,
    "corruptions": list,
    "subject_dependent": str,
    "modalities": dict,
}
MODALITY = {
    "file": str,
    "columns": (list, str),
    "array": str,
    "mask": str,
    "rate": (int, float),
    "backbone": str,
    "settings": dict,
}


def npz(path: Path, settings: Mapping[str, Any] | None = None) -> Raw:
    """An .npz file: arrays called y, id, group, fold, split, y_mask; `<name>_mask`; all others are modalities."""
    settings = settings or {}
    if path.suffix != ".npz":
        raise UsageError(f"{path} is neither an .npz file nor a folder with benchmark.toml")
    arrays = files.read(path)
    roles = {role: settings.get(role, usual) for role, usual in ROLES.items()}
    names = [n for n in arrays if n not in roles.values() and not (n.endswith("_mask") and n[:-5] in arrays)]
    table = {name: arrays[name] for name in arrays if name not in names}
    return _assemble(path, path, table, {m: _by_row(path, m, arrays, m, f"{m}_mask") for m in names}, settings)


def folder(path: Path) -> Raw:
    """A folder: benchmark.toml names the table of samples and where each modality's numbers stand."""
    settings = _settings(path / "benchmark.toml")
    main = path / settings["file"] if "file" in settings else _only_file(path)
    if not settings.get("modalities"):
        if main.suffix != ".npz":
            raise UsageError(f"{path / 'benchmark.toml'}: name the modalities: [modalities.eda], columns = [...]")
        return npz(main, settings)
    table = files.read(main)
    roles = {role: settings.get(role, usual) for role, usual in ROLES.items()}
    for role in ROLES:
        if role in settings and roles[role] not in table:
            raise UsageError(f"{main}: {unknown(f'column for {role}', roles[role], table)}")
    if roles["label"] not in table:
        raise UsageError(f'{main} has no column {roles["label"]!r}: say which one is the label: label = "..."')
    ids = files.texts(table[roles["id"]]) if roles["id"] in table else None
    order = None
    if ids is not None and settings.get("per_frame") and len(set(ids)) < len(ids):
        order = list(dict.fromkeys(ids))
        table = _frames(main, table, roles, ids, order)
        ids = order
    x, rates, backbones = {}, {}, {}
    for m, part in settings["modalities"].items():
        file = path / part["file"] if "file" in part else main
        content = table if file == main and order is None else files.read(file)
        if files.is_table(file):
            x[m] = _columns(file, m, content, part, settings, roles, ids, main, len(table[roles["label"]]))
        else:
            array = part.get("array") or (file.stem if file.suffix == ".npy" else m)
            x[m] = _by_row(file, m, content, array, part.get("mask", f"{array}_mask"))
        if "rate" in part:
            rates[m] = float(part["rate"])
        if "backbone" in part:
            backbones[m] = part["backbone"], part.get("settings", {})
    raw = _assemble(path, main, table, x, settings)
    raw.rates, raw.backbones = rates, backbones
    return raw


_Cells = tuple[Array, NDArray[np.bool_]]


def _assemble(
    origin: Path, main: Path, table: Mapping[str, Array], x: Mapping[str, _Cells], settings: Mapping[str, Any]
) -> Raw:
    """Labels, ids, groups and folds from the table of samples; every length must agree."""
    roles = {role: settings.get(role, usual) for role, usual in ROLES.items()}
    if roles["label"] not in table:
        raise UsageError(
            f"{main} has no array {roles['label']!r} of labels, only {', '.join([*table, *x]) or 'nothing'}"
        )
    if not x:
        raise UsageError(f"{main} has no modality: an array (N, D) or (N, T, D) of numbers under a name of its own")
    y = table[roles["label"]]
    if y.ndim == 0 or y.dtype.kind not in "biufUSO":
        raise UsageError(f"{main}: the label is {y.dtype} {y.shape}, not numbers (N,), (N, K), (N, T, K) or text (N,)")
    for name, length in [*((m, len(v)) for m, (v, _) in x.items()), *((n, len(v)) for n, v in table.items() if v.ndim)]:
        if length != len(y) and (name in x or name in roles.values()):
            raise UsageError(f"{origin}: {name} has {length} rows, the labels ({roles['label']}) {len(y)}")

    def text(role: str) -> list[str] | None:
        return files.texts(table[roles[role]].reshape(-1)) if roles[role] in table else None

    mask = table.get(roles["label_mask"])
    y_mask = None if mask is None else _mask(main, roles["label_mask"], mask)
    values, masks = {m: v for m, (v, _) in x.items()}, {m: k for m, (_, k) in x.items()}
    return Raw(origin, values, masks, y, y_mask, text("id"), text("group"), text("fold"), text("split"), settings)


def _by_row(path: Path, m: str, arrays: Mapping[str, Array], name: str, mask_name: str) -> _Cells:
    """An array (N, D) or (N, T, *step) and its mask (N, T), (N,), or none: everything is there."""
    if name not in arrays:
        raise UsageError(f"{path}: {unknown(f'array for the modality {m}', name, arrays)}")
    x = arrays[name]
    if x.dtype.kind not in "biuf":
        raise UsageError(f"{path}: {name} holds {x.dtype}; a modality is numbers, (N, D) or (N, T, D)")
    if x.ndim < 2 or 0 in x.shape:
        raise UsageError(f"{path}: {name} is {x.shape}; a modality is (N, D) or (N, T, D), so try {name}[:, None]")
    x = x[:, None] if x.ndim == 2 else x
    if mask_name not in arrays:
        return x, np.ones(x.shape[:2], dtype=bool)
    mask = _mask(path, mask_name, arrays[mask_name])
    mask = mask[:, None] if mask.ndim == 1 else mask
    if mask.ndim != 2 or mask.shape[0] != x.shape[0] or mask.shape[1] not in (1, x.shape[1]):
        raise UsageError(f"{path}: {mask_name} is {arrays[mask_name].shape}, {name} has (N, T) = {x.shape[:2]}")
    return x, np.array(np.broadcast_to(mask, x.shape[:2]))


def _mask(path: Path, name: str, mask: Array) -> NDArray[np.bool_]:
    values = files.numbers(mask, path, name)
    odd = np.argwhere((values != 0) & (values != 1))
    if len(odd):
        raise UsageError(f"{path}, {files.row_name(path, int(odd[0][0]))}: {name} is true or false (1 or 0)")
    return values == 1


def _columns(
    path: Path,
    m: str,
    content: Mapping[str, Array],
    part: Mapping[str, Any],
    settings: Mapping[str, Any],
    roles: Mapping[str, str],
    ids: list[str] | None,
    main: Path,
    n: int,
) -> _Cells:
    """Columns of a table side by side, (N, T, D): joined by id where both tables have one, else row by row."""
    time = settings.get("time", "time")
    wanted = part.get("columns", ["*"] if path != main else [])
    if not wanted:
        raise UsageError(f"{path}: which columns are {m}? columns = [...] under [modalities.{m}]")
    wanted = [wanted] if isinstance(wanted, str) else wanted
    free = [name for name in content if name not in {*roles.values(), time}]
    chosen: list[str] = []
    for pattern in wanted:
        found = [pattern] if pattern in content else fnmatch.filter(free, pattern)
        if not found:
            raise UsageError(f"{path}: {unknown(f'column for {m}', pattern, free)}")
        chosen += [name for name in found if name not in chosen]
    cells = np.column_stack([files.numbers(content[name], path, name) for name in chosen])  # (rows, D)
    if ids is None or roles["id"] not in content:
        if len(cells) != n:
            raise UsageError(f"{path} has {len(cells)} rows, {main} {n}: give both a column {roles['id']!r} to join by")
        return cells[:, None], np.ones((n, 1), dtype=bool)
    place = {name: row for row, name in enumerate(ids)}
    rows: list[list[int]] = [[] for _ in ids]
    for row, name in enumerate(files.texts(content[roles["id"]])):
        if name not in place:
            raise UsageError(f"{path}, {files.row_name(path, row)}: unknown {roles['id']} {name!r}: not in {main.name}")
        rows[place[name]].append(row)
    if time in content:
        clock = files.numbers(content[time], path, time)
        rows = [sorted(steps, key=lambda row: clock[row]) for steps in rows]
    longest = max(map(len, rows))
    x = np.zeros((n, longest, len(chosen)))
    mask = np.zeros((n, longest), dtype=bool)
    for sample, steps in enumerate(rows):
        x[sample, : len(steps)], mask[sample, : len(steps)] = cells[steps], True
    return x, mask


def _frames(
    path: Path, table: Mapping[str, Array], roles: Mapping[str, str], ids: list[str], order: list[str]
) -> dict[str, Array]:
    """A table of one row a frame -> one row a sample: labels padded to (N, T), the rest must not change in a sample."""
    rows: dict[str, list[int]] = {name: [] for name in order}
    for row, name in enumerate(ids):
        rows[name].append(row)
    values = np.array(files.texts(table[roles["label"]]))
    y = np.full((len(order), max(map(len, rows.values()))), "", dtype=values.dtype)  # empty: padding
    for sample, steps in enumerate(rows.values()):
        y[sample, : len(steps)] = values[steps]
    found: dict[str, Array] = {roles["label"]: y}
    for role in ("id", "group", "fold", "split"):
        if roles[role] in table:
            column = files.texts(table[roles[role]])
            for name, steps in rows.items():
                if len({column[row] for row in steps}) > 1:
                    raise UsageError(f"{path}: {roles[role]} changes within {name!r}")
            found[roles[role]] = np.array([column[steps[0]] for steps in rows.values()])
    return found


def _settings(path: Path) -> dict[str, Any]:
    """benchmark.toml, every name and type checked."""
    if not path.is_file():
        raise UsageError(f"there is no {path}: an own benchmark is an .npz file or a folder with benchmark.toml")
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}") from None
    _typed(path, "setting", settings, SETTINGS)
    for m, part in settings.get("modalities", {}).items():
        if not isinstance(part, dict):
            raise UsageError(f"{path}: modalities.{m} is a table: [modalities.{m}]")
        _typed(path, f"setting of modalities.{m}", part, MODALITY)
    return settings


def _typed(path: Path, what: str, given: Mapping[str, Any], allowed: Mapping[str, Any]) -> None:
    for name, value in given.items():
        if name not in allowed:
            raise UsageError(f"{path}: {unknown(what, name, allowed)}")
        if not isinstance(value, allowed[name]) or (isinstance(value, bool) and allowed[name] is not bool):
            raise UsageError(f"{path}: {name} cannot be {value!r}")


def _only_file(path: Path) -> Path:
    found = sorted(p for p in path.iterdir() if p.suffix in files.SUFFIXES)
    if len(found) != 1:
        spelled = ", ".join(p.name for p in found) or "none"
        raise UsageError(f'{path / "benchmark.toml"}: which file has the labels (file = "...")? There are: {spelled}')
    return found[0]

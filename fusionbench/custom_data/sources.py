"""From files to `Raw`: the .npz convention, and the folder that benchmark.toml describes."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionbench.custom_data import files, settings, words
from fusionbench.custom_data.files import Array
from fusionbench.custom_data.raw import Raw
from fusionbench.errors import UsageError, unknown

_Cells = tuple[Array, NDArray[np.bool_]]
Roles = dict[str, str]
#: An array of an .npz whose name begins so is an attribute of the samples, not a modality.
ATTRIBUTE = "attribute_"


def npz(path: Path) -> Raw:
    """An .npz file: arrays called y, id, group, fold, split, y_mask; `<name>_mask`; all others are modalities."""
    if path.suffix != ".npz":
        raise UsageError(f"{path} is neither an .npz file nor a folder with benchmark.toml")
    return of_arrays(path, files.read(path), {})


def of_arrays(path: Path, arrays: Mapping[str, Array], given: Mapping[str, Any]) -> Raw:
    """What named arrays hold, by the convention of .npz files; `given` are settings of a benchmark.toml."""
    arrays = dict(arrays)
    roles = _label(path, arrays, given, _roles(path, arrays, given))
    taken = [*roles.values(), *_match(path, "attributes", given.get("attributes", []), arrays, list(arrays))]
    names = [n for n in arrays if n not in taken and not (n.endswith("_mask") and n[:-5] in arrays)]
    names = [n for n in names if not n.startswith(ATTRIBUTE)]
    for name in names:
        _refuse_role(path, name, arrays[name], given)
    table = {name: arrays[name] for name in arrays if name not in names}
    x = {m: by_row(path, m, arrays, m, f"{m}_mask") for m in names}
    return _assemble(path, path, table, x, given, roles)


def folder(path: Path) -> Raw:
    """A folder: benchmark.toml names the table of samples and where each modality's numbers stand."""
    given = settings.read(path / "benchmark.toml")
    main = path / given["file"] if "file" in given else _only_file(path)
    table = _arrays(path, main.name) if "*" in main.name else files.read(main)
    if not given.get("modalities"):
        if files.is_table(main):
            raise UsageError(f"{path / 'benchmark.toml'}: name the modalities: [modalities.eda], columns = [...]")
        return of_arrays(path, table, given)
    roles = _label(main, table, given, _roles(main, table, given))
    if roles["label"] not in table:
        hint = words.hint("label", table)
        raise UsageError(f'{main} has no column {roles["label"]!r}: say which one is the label: label = "{hint}"')
    ids = _texts(main, table, roles, "id")
    order = None
    if ids is not None and given.get("per_frame") and len(set(ids)) < len(ids):
        order = list(dict.fromkeys(ids))
        attributes = _match(main, "attributes", given.get("attributes", []), table, list(table))
        table = _frames(main, table, roles, ids, order, attributes)
        ids = order
    x, rates, backbones = {}, {}, {}
    for m, part in given["modalities"].items():
        file = path / part["file"] if "file" in part else main
        content = table if file == main and order is None else files.read(file)
        if files.is_table(file):
            x[m] = _columns(file, m, content, part, given, roles, ids, main, len(table[roles["label"]]))
        else:
            array = part.get("array") or (file.stem if file.suffix == ".npy" and file != main else m)
            x[m] = by_row(file, m, content, array, part.get("mask", f"{array}_mask"))
        if "rate" in part:
            rates[m] = float(part["rate"])
        if "backbone" in part:
            backbones[m] = part["backbone"], part.get("settings", {})
    raw = _assemble(path, main, table, x, given, roles)
    raw.rates, raw.backbones = rates, backbones
    return raw


def _arrays(path: Path, pattern: str) -> dict[str, Array]:
    """`file = "*.npy"`: the arrays of several files, each under its file's name."""
    found: dict[str, Array] = {}
    for file in sorted(p for p in path.iterdir() if fnmatch.fnmatch(p.name, pattern)):
        if file.suffix != ".npy":
            raise UsageError(
                f"{path / 'benchmark.toml'}: {pattern} of file stands for .npy files only, not {file.name}"
            )
        found |= files.read(file)
    if not found:
        raise UsageError(f"{path / 'benchmark.toml'}: there is no file {pattern}")
    return found


def _roles(path: Path, table: dict[str, Array], given: Mapping[str, Any]) -> Roles:
    """Role -> name of the column or array that plays it; `label` may still be several.

    Raises:
        UsageError: a name that was given is not there; both folds and sides are there.
    """
    roles = {role: given.get(role, usual) for role, usual in settings.ROLES.items()}
    for role, name in roles.items():
        if role in given and role != "label" and name not in table:
            raise UsageError(f"{path}: {unknown(f'column for {role}', name, table)}")
    if roles["fold"] in table and roles["split"] in table:
        chosen = [role for role in ("fold", "split") if role in given]
        if len(chosen) != 1:
            raise UsageError(
                f"{path} has both {roles['fold']!r} and {roles['split']!r}, folds and sides of one split: leave one out"
            )
        del table[roles.pop("split" if chosen == ["fold"] else "fold")]
    taken: dict[str, str] = {}
    for role, name in roles.items():
        for part in name if isinstance(name, list) else [name]:
            if part in table and taken.setdefault(part, role) != role:
                raise UsageError(f"{path}: {part!r} cannot be both {taken[part]} and {role}")
    return roles


def _label(path: Path, table: dict[str, Array], given: Mapping[str, Any], roles: Roles) -> Roles:
    """Several columns of labels become one of several values, under the name that is returned as the role's."""
    if not isinstance(roles["label"], list):
        if "label" in given and roles["label"] not in table:
            raise UsageError(f"{path}: {unknown('column for label', roles['label'], table)}")
        return roles
    free = [name for name in table if name not in [n for role, n in roles.items() if role != "label"]]
    chosen = _match(path, "label", roles["label"], table, free)
    if len(chosen) == 1:
        return {**roles, "label": chosen[0]}
    if given.get("task", "regress") != "regress":
        raise UsageError(f"{path}: the labels {', '.join(chosen)} are values, of a task regress")
    columns = []
    for name in chosen:
        column = files.numbers(table[name], path, name)
        if column.shape != (len(column),) or len(column) != len(table[chosen[0]]):
            raise UsageError(f"{path}: the label {name} is {column.shape}; of several labels, each is (N,)")
        columns.append(column)
    for name in chosen:
        del table[name]
    table["+".join(chosen)] = np.stack(columns, 1)
    return {**roles, "label": "+".join(chosen)}


def _match(path: Path, what: str, wanted: Sequence[str], table: Mapping[str, Any], free: Sequence[str]) -> list[str]:
    """The columns that names and patterns choose, in order."""
    chosen: list[str] = []
    for pattern in wanted:
        found = [pattern] if pattern in table else fnmatch.filter(free, pattern)
        if not found:
            raise UsageError(f"{path}: {unknown(f'column for {what}', pattern, free)}")
        chosen += [name for name in found if name not in chosen]
    return chosen


def _refuse_role(path: Path, name: str, array: Array, given: Mapping[str, Any]) -> None:
    """An array of people's numbers is no modality, however it is called."""
    role = words.role(name, single=array.ndim < 2 or array.shape[1:] == (1,))
    if role is not None:
        usual = given.get(role, settings.ROLES[role])
        means = f'say {role} = "{name}" in benchmark.toml' if given else f"save it as {usual}"
        raise UsageError(
            f"{path}: did you mean {usual} by {name!r}? {means}, or leave it out: as it is, it would be a modality"
        )


def _texts(main: Path, table: Mapping[str, Array], roles: Roles, role: str) -> list[str] | None:
    if role not in roles or roles[role] not in table:
        return None
    column = table[roles[role]]
    if column.ndim != 1 and column.shape[1:] != (1,):
        raise UsageError(f"{main}: {roles[role]} is {column.shape}, not one {role} a sample, (N,)")
    return files.named(files.texts(column.reshape(-1)), main, role)


def _assemble(
    origin: Path,
    main: Path,
    table: Mapping[str, Array],
    x: Mapping[str, _Cells],
    given: Mapping[str, Any],
    roles: Roles,
) -> Raw:
    """Labels, ids, groups and folds from the table of samples; every length must agree."""
    label = roles["label"]
    if label not in table:
        raise UsageError(f"{main} has no array {label!r} of labels, only {', '.join([*table, *x]) or 'nothing'}")
    if not x:
        raise UsageError(f"{main} has no modality: an array (N, D) or (N, T, D) of numbers under a name of its own")
    y = table[label]
    if not 1 <= y.ndim <= 3 or y.dtype.kind not in "biufUSO" or (y.dtype.kind in "USO" and y.ndim > 2):
        raise UsageError(f"{main}: the label is {y.dtype} {y.shape}, not numbers (N,), (N, K), (N, T, K) or text (N,)")
    if 0 in y.shape:
        raise UsageError(f"{main}: the label is {y.shape}: there is no sample")
    mask = table.get(roles["label_mask"])
    y_mask = None if mask is None else _mask(main, roles["label_mask"], mask)
    texts = {role: _texts(main, table, roles, role) for role in ("id", "group", "fold", "split")}
    there = {roles.get(role, role): found for role, found in texts.items() if found is not None}
    order, attributes = _order(main, table, roles), _attributes(main, table, given)
    lengths: dict[str, int] = {name: len(part) for name, part in {**there, **attributes}.items()}
    lengths |= {} if order is None else {roles["order"]: len(order)}
    lengths |= {m: len(values) for m, (values, _) in x.items()}
    if y_mask is not None:
        if not 1 <= y_mask.ndim <= 2:
            raise UsageError(f"{main}: {roles['label_mask']} is {y_mask.shape}, not (N,) or (N, T)")
        lengths[roles["label_mask"]] = len(y_mask)
    for name, length in lengths.items():
        if length != len(y):
            raise UsageError(f"{origin}: {name} has {length} rows, the labels ({label}) {len(y)}")
    values, masks = {m: v for m, (v, _) in x.items()}, {m: k for m, (_, k) in x.items()}
    return Raw(
        origin, values, masks, y, y_mask, texts["id"], texts["group"], texts["fold"], texts["split"], order, attributes,
        settings=given,
    )  # fmt: skip


def _attributes(main: Path, table: Mapping[str, Array], given: Mapping[str, Any]) -> dict[str, list[str]]:
    """Attribute -> one text a sample: the columns that benchmark.toml names, and arrays called `attribute_<name>`."""
    chosen = {name: name for name in _match(main, "attributes", given.get("attributes", []), table, list(table))}
    chosen |= {name.removeprefix(ATTRIBUTE): name for name in table if name.startswith(ATTRIBUTE)}
    return {short: _texts(main, table, {short: name}, short) or [] for short, name in chosen.items()}


def _order(main: Path, table: Mapping[str, Array], roles: Roles) -> NDArray[np.float64] | None:
    """When each sample was taken, (N,)."""
    if roles["order"] not in table:
        return None
    times = files.numbers(table[roles["order"]], main, roles["order"])
    if times.ndim > 2 or times.shape[1:] not in ((), (1,)):
        raise UsageError(f"{main}: {roles['order']} is {times.shape}, not one time a sample, (N,)")
    if not np.isfinite(times).all():
        raise UsageError(f"{main}: {roles['order']} has a time that is no number")
    return times.reshape(-1)


def by_row(path: Path, m: str, arrays: Mapping[str, Array], name: str, mask_name: str) -> _Cells:
    """An array (N, D) or (N, T, *step) and its mask (N, T), (N,), or none: everything is there."""
    if name not in arrays:
        raise UsageError(f"{path}: {unknown(f'array for the modality {m}', name, arrays)}")
    x = arrays[name]
    if x.dtype.kind not in "biuf":
        raise UsageError(f"{path}: {name} holds {x.dtype}; a modality is numbers, (N, D) or (N, T, D)")
    if x.ndim < 2 or 0 in x.shape:
        advice = f", so try {name}[:, None]" if x.ndim == 1 and len(x) else ""
        raise UsageError(f"{path}: {name} is {x.shape}; a modality is (N, D) or (N, T, D){advice}")
    x = x[:, None] if x.ndim == 2 else x
    if mask_name not in arrays:
        return x, np.ones(x.shape[:2], dtype=bool)
    mask = _mask(path, mask_name, arrays[mask_name])
    mask = mask[:, None] if mask.ndim == 1 else mask
    if mask.ndim != 2 or mask.shape[0] != x.shape[0] or mask.shape[1] not in (1, x.shape[1]):
        raise UsageError(f"{path}: {mask_name} is {arrays[mask_name].shape}, {name} has (N, T) = {x.shape[:2]}")
    return x, np.array(np.broadcast_to(mask, x.shape[:2]))


def _mask(path: Path, name: str, mask: Array) -> NDArray[np.bool_]:
    """True where a cell says 1 or true."""
    if mask.dtype.kind in "OUS" and mask.ndim == 1:
        spelled = {"true": "1", "false": "0", "yes": "1", "no": "0"}
        mask = np.array([spelled.get(cell.lower(), cell) for cell in files.texts(mask)], dtype=object)
    values = files.numbers(mask, path, name)
    odd = np.argwhere((values != 0) & (values != 1))
    if len(odd):
        where = files.row_name(path, int(odd[0][0])) if values.ndim else f"{values}"
        raise UsageError(f"{path}, {where}: {name} is true or false (1 or 0)")
    return values == 1


def _columns(
    path: Path,
    m: str,
    content: Mapping[str, Array],
    part: Mapping[str, Any],
    given: Mapping[str, Any],
    roles: Roles,
    ids: list[str] | None,
    main: Path,
    n: int,
) -> _Cells:
    """Columns of a table side by side, (N, T, D): joined by id where both tables have one, else row by row."""
    time = given.get("time", "time")
    wanted = part.get("columns", ["*"] if path != main else [])
    if not wanted:
        raise UsageError(f"{path}: which columns are {m}? columns = [...] under [modalities.{m}]")
    wanted = [wanted] if isinstance(wanted, str) else wanted
    attributes = _match(path, "attributes", given.get("attributes", []), content, list(content)) if path == main else []
    free = [name for name in content if name not in {*roles.values(), *attributes, time}]
    chosen = _match(path, m, wanted, content, free)
    for name in chosen:
        if name not in wanted and (role := words.role(name, single=True)) in ("label", "group"):
            raise UsageError(
                f"{path}: a pattern makes {name!r} a column of {m}; did you mean {role} = {name!r}? If not, name it"
            )
    cells = np.column_stack([files.numbers(content[name], path, name) for name in chosen])  # (rows, D)
    if ids is None or roles["id"] not in content:
        if len(cells) != n:
            raise UsageError(f"{path} has {len(cells)} rows, {main} {n}: give both a column {roles['id']!r} to join by")
        return cells[:, None], np.ones((n, 1), dtype=bool)
    place = {name: row for row, name in enumerate(ids)}
    rows: list[list[int]] = [[] for _ in ids]
    for row, name in enumerate(files.texts(content[roles["id"]])):
        if name not in place:
            raise UsageError(
                f"{path}, {files.row_name(path, row)}: unknown {roles['id']} {files.clip(name)}: not in {main.name}"
            )
        rows[place[name]].append(row)
    if time in content:
        clock = files.numbers(content[time], path, time)
        rows = [sorted(steps, key=lambda row: clock[row]) for steps in rows]
    longest = max(map(len, rows))
    files.refuse_memory(path, 8 * n * longest * len(chosen))
    x = np.zeros((n, longest, len(chosen)))
    mask = np.zeros((n, longest), dtype=bool)
    for sample, steps in enumerate(rows):
        x[sample, : len(steps)], mask[sample, : len(steps)] = cells[steps], True
    return x, mask


def _frames(
    path: Path, table: Mapping[str, Array], roles: Roles, ids: list[str], order: list[str], attributes: list[str]
) -> dict[str, Array]:
    """A table of one row a frame -> one row a sample: labels padded to (N, T), the rest must not change in a sample."""
    rows: dict[str, list[int]] = {name: [] for name in order}
    for row, name in enumerate(ids):
        rows[name].append(row)
    shape = (len(order), max(map(len, rows.values())))
    label = table[roles["label"]]
    if label.ndim == 2:  # several values a frame; NaN: padding
        y: Array = np.full((*shape, label.shape[1]), np.nan)
    else:
        label = np.array(files.named(files.texts(label), path, "label"))
        y = np.full(shape, "", dtype=label.dtype)  # empty: padding
    for sample, steps in enumerate(rows.values()):
        y[sample, : len(steps)] = label[steps]
    found: dict[str, Array] = {roles["label"]: y}
    if (mask_name := roles["label_mask"]) in table:
        given = _mask(path, mask_name, table[mask_name])
        found[mask_name] = np.zeros(shape, dtype=bool)
        for sample, steps in enumerate(rows.values()):
            found[mask_name][sample, : len(steps)] = given[steps]
    kept: Roles = {role: roles[role] for role in ("id", "group", "fold", "split") if role in roles}
    kept |= {name: name for name in attributes}
    for role, named in kept.items():
        column = _texts(path, table, kept, role)
        if column is not None:
            for name, steps in rows.items():
                if len({column[row] for row in steps}) > 1:
                    raise UsageError(f"{path}: {named} changes within {name!r}")
            found[named] = np.array([column[steps[0]] for steps in rows.values()], dtype=object)
    if (timed := roles["order"]) in table:
        times = files.numbers(table[timed], path, timed).reshape(len(ids))
        found[timed] = np.array([times[steps[0]] for steps in rows.values()])
    return found


def _only_file(path: Path) -> Path:
    found = sorted(p for p in path.iterdir() if p.suffix in files.FORMATS)
    if len(found) != 1:
        spelled = ", ".join(p.name for p in found) or "none"
        raise UsageError(f'{path / "benchmark.toml"}: which file has the labels (file = "...")? There are: {spelled}')
    return found[0]

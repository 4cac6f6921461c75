"""A first `benchmark.toml` for somebody's folder: which table has the samples, which columns play which part."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fusionbench.custom_data import files, words
from fusionbench.custom_data.files import Array
from fusionbench.custom_data.settings import ROLES
from fusionbench.errors import UsageError

MEDIA = {
    "pictures": (".jpg", ".jpeg", ".png", ".bmp"),
    "sound": (".wav", ".flac", ".mp3", ".ogg"),
    "video": (".mp4", ".avi", ".mkv", ".mov", ".webm"),
}
_FEW = 12  # distinct values of a column of numbers that may still be classes
_BARE = re.compile(r"[A-Za-z0-9_-]+")


@dataclass
class Draft:
    """What was found: settings (line, comment), modalities (name, lines), and what was left out."""

    settings: list[tuple[str, str]] = field(default_factory=list)
    modalities: list[tuple[str, list[str]]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def text(self) -> str:
        lines = [
            "# What the files of this folder mean: a guess from their names and contents, so read it through.",
            "# Every setting is described in docs/your-own-data.md; then: fusionbench data check FOLDER",
            "",
            *(f"{line}  # {comment}" if comment else line for line, comment in self.settings),
            "",
            "# seeds = 3                  # runs with other initial weights and batches",
            "# steps = 300                # of training; batch = 32, interval = 25",
        ]
        for name, part in self.modalities:
            lines += ["", f"[modalities.{name}]", *part]
        return "\n".join([*lines, *(f"# left out: {text}" for text in self.left_out)]) + "\n"


def draft(folder: Path) -> str:
    """The text of a benchmark.toml for the tables (.csv, .parquet) or arrays (.npy, .npz) of a folder.

    Raises:
        UsageError: there is none, or nothing in it can be the label or a modality.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}")
    found = sorted(p for p in folder.iterdir() if p.suffix in files.FORMATS and p.is_file())
    tables = {p: files.read(p) for p in found if files.is_table(p)}
    if tables:
        return _tables(folder, tables, [p for p in found if p not in tables]).text()
    archives = [p for p in found if p.suffix == ".npz"]
    if len(archives) > 1:
        raise UsageError(
            f"{folder} has {len(archives)} .npz files: a benchmark is one of them, as it is, or a folder of one"
        )
    if archives:
        return _arrays(archives[0].name, archives[0], files.read(archives[0])).text()
    if found:
        return _arrays("*.npy", folder, {p.stem: files.read(p)[p.stem] for p in found}).text()
    raise UsageError(_nothing(folder))


def _nothing(folder: Path) -> str:
    """What a folder without tables and arrays holds, and the way out."""
    suffixes = [p.suffix.lower() for p in folder.rglob("*")]
    media = [f"{n} files of {kind}" for kind, ends in MEDIA.items() if (n := sum(s in ends for s in suffixes))]
    if media:
        return (
            f"{folder} has {' and '.join(media)} but no table: raw media need a plugin that reads them "
            f"(docs/your-own-data.md, Raw video), or features in a table or an array beside them"
        )
    return f"{folder} has no {', '.join(files.FORMATS)} file"


# ------------------------------------------------------------------------------------------------------------- arrays


def _arrays(file: str, path: Path, arrays: Mapping[str, Array]) -> Draft:
    """Arrays by the names that they have: those with one value a sample may be labels, groups, ids, folds."""
    lengths = [len(a) for a in arrays.values() if a.ndim >= 2]
    n = max(set(lengths), key=lengths.count) if lengths else 0
    single = [name for name, a in arrays.items() if len(a.shape[:1]) and len(a) == n and a.size == n]
    roles = _roles(single, arrays)
    if "label" not in roles:  # a label of several values, or every frame
        meant = [name for name in arrays if name == ROLES["label"] or words.role(name, single=False) == "label"]
        roles |= {"label": meant[0]} if meant else {}
    if "label" not in roles:
        raise UsageError(f"{path} has no array that looks like labels: call it y; there are {', '.join(arrays)}")
    made = Draft([(f"file = {_quoted(file)}", "the arrays")])
    made.settings += _spelled(roles, arrays)
    masks = {f"{name}_mask" for name in arrays}
    for name, a in arrays.items():
        if name in roles.values() or name in masks:
            continue
        if a.ndim < 2 or len(a) != n or a.dtype.kind not in "biuf" or 0 in a.shape:
            made.left_out.append(f"{name!r}, {a.dtype} {a.shape}: no (N, D) or (N, T, D) of numbers with N = {n}")
            continue
        lines = [f"file = {_quoted(file)}", f"array = {_quoted(name)}  # {a.shape} {a.dtype}"]
        made.modalities.append((_identifier(name, [m for m, _ in made.modalities]), lines))
    if not made.modalities:
        raise UsageError(f"{path} has no array (N, D) or (N, T, D) of numbers beside the labels: no modality")
    return made


# ------------------------------------------------------------------------------------------------------------- tables


def _tables(folder: Path, tables: Mapping[Path, Mapping[str, Array]], arrays: Sequence[Path]) -> Draft:
    """The table with labels has the samples; the others, and arrays of as many rows, are modalities."""
    main = max(tables, key=lambda p: (*_rank(tables[p]), -len(next(iter(tables[p].values())))))
    table = tables[main]
    n = len(next(iter(table.values())))
    roles = _roles(list(table), table)
    shared = [name for name in table if any(name in other for p, other in tables.items() if p != main)]
    keys = [name for name in shared if len(set(files.texts(table[name]))) == n]
    if keys:
        roles["id"] = keys[0]
    elif "id" in roles and len(set(files.texts(table[roles["id"]]))) < n:
        del roles["id"]  # an id names one row
    if "label" not in roles:
        free = [name for name in table if name not in roles.values() and words.plain(name) not in words.TIMES]
        text = [name for name in free if not _numeric(table[name])]
        few = [name for name in free if _numeric(table[name]) and 2 <= len(set(files.texts(table[name]))) <= _FEW]
        if not (text or few):
            raise UsageError(
                f"{main} has no column that looks like a label: call it label; there are {', '.join(table)}"
            )
        roles["label"] = (text or few)[-1]
    made = Draft([(f"file = {_quoted(main.name)}", f"one row a sample: {n}")])
    made.settings += _spelled(roles, table)
    times = [name for p in tables for name in tables[p] if words.plain(name) in words.TIMES]
    if times:
        made.settings.append((f"time = {_quoted(times[0])}", "the order of the rows of one id"))
    own = [c for c in table if c not in roles.values() and c not in times[:1]]
    for name in own:
        if not _numeric(table[name]):
            made.left_out.append(f"column {name!r} of {main.name}: text")
        elif role := words.role(name, single=True):
            made.left_out.append(f"column {name!r} of {main.name}: it sounds like a {role}")
    columns = [c for c in own if _numeric(table[c]) and not words.role(c, single=True)]
    for m, part in _families(columns).items():
        lines = [f"columns = [{', '.join(map(_quoted, part))}]"]
        made.modalities.append((_identifier(m, [k for k, _ in made.modalities]), lines))
    for path, other in tables.items():
        if path == main:
            continue
        joined = "id" in roles and roles["id"] in other
        columns = [c for c in other if c not in (*roles.values(), *times[:1]) and _numeric(other[c])]
        if not columns or not (joined or len(next(iter(other.values()))) == n):
            made.left_out.append(f"{path.name}: neither {n} rows nor a column that {main.name} has a unique value of")
            continue
        lines = [f"file = {_quoted(path.name)}", f"columns = [{', '.join(map(_quoted, columns))}]"]
        if joined:
            lines[0] += f"  # joined by {_quoted(roles['id'])}; several rows of one are its steps"
            lines.append("# rate = 4.0                 # steps a second, if it has one")
        made.modalities.append((_identifier(path.stem, [k for k, _ in made.modalities]), lines))
    for path in arrays:
        content = files.read(path) if path.suffix == ".npy" else {}
        a = content.get(path.stem)
        if a is None or a.ndim < 2 or len(a) != n or a.dtype.kind not in "biuf":
            made.left_out.append(f"{path.name}: no array of {n} rows")
            continue
        lines = [f"file = {_quoted(path.name)}  # {a.shape}, in the order of {main.name}"]
        made.modalities.append((_identifier(path.stem, [k for k, _ in made.modalities]), lines))
    if not made.modalities:
        raise UsageError(
            f"{folder} has labels ({main.name}) but no column or array of numbers beside them: no modality"
        )
    return made


def _rank(table: Mapping[str, Array]) -> tuple[int, int]:
    """How much it looks like the table of samples: it has a label, then a group or split."""
    roles = _roles(list(table), table)
    return int("label" in roles), len(roles)


def _roles(names: Sequence[str], content: Mapping[str, Array]) -> dict[str, str]:
    """Role -> the first name that means it; its usual name before all others. Folds before sides of one split."""
    found: dict[str, str] = {}
    for role, usual in ROLES.items():
        if usual in names:
            found[role] = usual
    for name in names:
        meant = words.role(name, single=True)
        if meant is not None and meant not in found and content[name].size:
            found[meant] = name
    if "fold" in found and "split" in found:
        del found["split"]
    return found


def _spelled(roles: Mapping[str, str], content: Mapping[str, Array]) -> list[tuple[str, str]]:
    lines = []
    for role in ROLES:
        if role in roles:
            values = content[roles[role]]
            distinct = len(set(files.texts(values.reshape(-1)[:100_000])))
            about = {"label": f"{distinct} different values", "group": f"{distinct} people or videos, never split"}
            lines.append((f"{role} = {_quoted(roles[role])}", about.get(role, "")))
    if "group" not in roles:
        lines.append(('# group = "subject"', "who it is: without it, one person may stand on two sides of a split"))
    return lines


def _families(columns: Sequence[str]) -> dict[str, list[str]]:
    """Columns by what stands before the first _ or . of their names, if that makes groups; else all in one."""
    found: dict[str, list[str]] = {}
    for name in columns:
        found.setdefault(re.split(r"[_.\-]|\d", name, maxsplit=1)[0] or "features", []).append(name)
    if len(found) > 1 and all(len(part) > 1 for part in found.values()):
        return found
    return {"features": list(columns)} if columns else {}


def _numeric(column: Array) -> bool:
    try:
        files.numbers(column, Path(), "")
    except UsageError:
        return False
    return bool(np.ndim(column) == 1)


def _identifier(name: str, taken: Sequence[str]) -> str:
    """A name that a modality can have, not taken yet."""
    plain = re.sub(r"\W", "_", name, flags=re.ASCII).strip("_").lower() or "features"
    plain = f"m_{plain}" if plain[0].isdigit() or plain in ("all", "type", "training") else plain
    found, number = plain, 2
    while found in taken:
        found, number = f"{plain}{number}", number + 1
    return found


def _quoted(text: str) -> str:
    return json.dumps(text)  # a TOML string is one, with the same escapes

"""Results that somebody edited, or a disk spoilt; then a command that reads them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from random import Random
from typing import Any

from fuzzing import odd
from fuzzing.commands import RIGHT

READERS = [
    ["leaderboard"],
    ["leaderboard", "--verdicts"],
    ["leaderboard", "--format", "json"],
    ["records", "list"],
    ["records", "publish", "toy_xor"],
    ["records", "readme"],
    ["report"],
    ["run", *RIGHT["run"]],
    ["run", "--tuned", *RIGHT["run"]],
    ["compare", *RIGHT["compare"]],
    ["tune", *RIGHT["tune"]],
]
OTHER: list[Any] = [None, True, -1, 0, 1, 3.5, 1e308, 10**30, "", "x", "clean", [], [1], {}, {"x": 1}, [[]]]


def records(rng: Random, folder: Path) -> list[str]:
    """A value of a record, published line, tuned.json or journal is of another kind."""
    files = [p for p in (folder / "results").rglob("*") if p.suffix in (".json", ".jsonl", ".journal", ".csv")]
    path = rng.choice(sorted(files))
    if path.suffix == ".csv":
        path.write_text(_other_cell(rng, path.read_text()))
    else:
        lines = path.read_text().split("\n") if path.suffix != ".json" else [path.read_text()]
        place = rng.randrange(len(lines))
        try:
            content = json.loads(lines[place])
        except ValueError:  # the end of the last line
            content = {}
        lines[place] = json.dumps(_other_value(rng, content))
        path.write_text("\n".join(lines))
    return list(rng.choice(READERS))


def _other_cell(rng: Random, text: str) -> str:
    rows = list(csv.reader(io.StringIO(text)))
    row = rng.choice(rows)
    row[rng.randrange(len(row))] = rng.choice(odd.WORDS)
    if rng.random() < 0.3:
        row.append("more")
    spelled = io.StringIO()
    csv.writer(spelled, lineterminator="\n").writerows(rows)
    return spelled.getvalue()


def _other_value(rng: Random, value: Any) -> Any:
    """The same JSON with one value, somewhere, replaced, removed or doubled."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        if rng.random() < 0.1:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: _other_value(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.7:
        place = rng.randrange(len(value))
        return [*value[:place], _other_value(rng, value[place]), *value[place + 1 :]]
    return rng.choice([*OTHER, float("nan")])


def damaged(rng: Random, folder: Path) -> list[str]:
    """A file of the results loses its end, has bytes changed, is empty, a folder, or a link to itself."""
    path = rng.choice(sorted(p for p in (folder / "results").rglob("*") if p.is_file()))
    kind = rng.randrange(4)
    if kind == 0:
        path.write_bytes(odd.damaged(rng, path.read_bytes()))
    elif kind == 1:
        path.write_bytes(b"")
    else:
        path.unlink()
        path.mkdir() if kind == 2 else path.symlink_to(path.name)
    return list(rng.choice(READERS))

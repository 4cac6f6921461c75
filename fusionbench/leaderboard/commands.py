"""The command that makes a row again."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from fusionbench.conditions import Condition
from fusionbench.records.rows import RowRecords


def command(row: RowRecords, damage: Sequence[Condition] = (), whole: bool = False) -> str:
    """The command that makes a row again.

    Args:
        damage: what the benchmark adds by itself.
        whole: with every seed and fold, also of a row that has not all of them.
    """
    run = row.first.run
    if row.ensemble:
        return _of_ensemble(row)
    words = ["fusionbench", "run", "--benchmark", run.benchmark, "--fuser", run.fuser]
    if run.tuned:
        words.append("--tuned")
    for change in row.first.changed:
        if row.quick and change.part == "train":
            continue
        value = run.hparams.get(change.part, {}).get(change.name)
        words += [f"--{change.flag}", change.value if value is None else _flag(value)]
    if row.quick:
        words.append("--quick")
    elif not whole:
        seeds, folds = ({getattr(r.run, name) for r in row.records} for name in ("seed", "fold"))
        words += _numbers("--seeds", sorted(seeds), row.seeds_wanted, counts=True)
        words += _numbers("--folds", sorted(folds), row.folds_wanted, counts=False)
    for condition in row.conditions:
        if condition not in damage:
            words += ["--corruption", row.spelled[condition]]
    return shlex.join(words)


def _of_ensemble(row: RowRecords) -> str:
    run = row.first.run
    words = ["fusionbench", "compare", run.fuser, "--benchmark", run.benchmark, "--no-references", "--ensemble"]
    words += ["--tuned"] if run.tuned else []
    for change in row.first.changed:
        flag = f"{run.fuser}.{change.name}" if change.part == "fuser" else change.flag
        words += [f"--{flag}", _flag(run.hparams.get(change.part, {}).get(change.name, change.value))]
    words += _numbers("--seeds", run.ensemble, 0, counts=True)
    return shlex.join(words)


def _numbers(flag: str, numbers: Sequence[int], wanted: int, counts: bool) -> list[str]:
    """Nothing for the first so many that are wanted; `counts`: `5` may stand for the first five."""
    first = list(numbers) == list(range(len(numbers)))
    if first and len(numbers) == wanted:
        return []
    if first and counts:
        return [flag, str(len(numbers))]
    return [flag, ",".join(map(str, numbers)) + ("," if len(numbers) == 1 else "")]


def _flag(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(_flag, value)) if isinstance(value, list | tuple) else str(value)

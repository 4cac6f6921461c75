"""The command that makes a row again."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from fusionbench.records.rows import QUICK, Entry


def command(entry: Entry, damage: Sequence[str] = ()) -> str:
    """The command that makes a row again; `damage` is what the benchmark adds by itself."""
    run = entry.first.run
    words = ["fusionbench", "run", "--benchmark", run.benchmark, "--fuser", run.fuser]
    quick = QUICK in entry.marks
    if run.tuned:
        words.append("--tuned")
    for change in [] if run.tuned else entry.first.changes:
        name, _, spelled = change.partition("=")
        part, _, last = name.rpartition(".")
        if quick and part == "train":
            continue
        value = run.hparams[part].get(last) if part in run.hparams else None
        words += [f"--{name}", spelled if value is None else _flag(value)]
    seeds = sorted({r.run.seed for r in entry.records})
    if quick:
        words.append("--quick")
    elif len(seeds) != entry.seeds_wanted or seeds != list(range(len(seeds))):
        whole = seeds == list(range(len(seeds)))
        words += ["--seeds", str(len(seeds)) if whole else ",".join(map(str, seeds)) + ("," if len(seeds) == 1 else "")]
    folds = sorted({r.run.fold for r in entry.records})
    if not quick and folds != list(range(entry.folds_wanted)):
        words += ["--folds", ",".join(map(str, folds)) + ("," if len(folds) == 1 else "")]
    for condition in entry.conditions:
        if condition not in damage:
            words += ["--corruption", condition]
    return shlex.join(words)


def _flag(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(_flag, value)) if isinstance(value, list | tuple) else str(value)

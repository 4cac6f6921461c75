"""What others can check: the finished rows of a benchmark in two small files a fuser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fusionbench.errors import UsageError, unknown
from fusionbench.records import packing, store
from fusionbench.records.rows import CLEAN, piles
from fusionbench.records.store import ANSWERS, PUBLISHED
from fusionbench.records.types import Predictions, Record, serialised


def publish(results: Path, benchmark: str) -> list[Path]:
    """Writes `records.jsonl` and `predictions.npz` for every fuser with a finished row; the paths.

    Finished: complete, of the newest code, data and protocol, no quick try. What the tables and their tests need is
    kept; histories are not. The same records give the same bytes.

    Raises:
        UsageError: nothing is finished, a run has no stored answers, or a published line is damaged.
    """
    there = [path.name for path in results.glob("[!.]*") if path.is_dir()]
    if benchmark not in there:
        raise unknown(f"benchmark with records in {results}", benchmark, there)
    for path in sorted((results / benchmark).glob(f"*/{PUBLISHED}")):
        _refuse_damaged(path)
    records = list(store.load(results, benchmark))
    finished = [e for e in piles(records)[0].entries if e.ranked] if records else []
    if not finished:
        raise UsageError(f"no row of {benchmark} is finished: fusionbench run --benchmark {benchmark} --fuser concat")
    fusers: dict[str, list[Record]] = {}
    for entry in finished:
        fusers.setdefault(entry.first.run.fuser, []).extend(entry.used)
    return [path for fuser in sorted(fusers) for path in _publish(results, fusers[fuser])]


def _publish(results: Path, records: Sequence[Record]) -> list[Path]:
    folder = store.path_of(results, records[0].run).parent
    ordered = sorted(records, key=lambda r: r.run.id)
    before: dict[str, np.ndarray] = {}
    if (folder / ANSWERS).is_file():
        with np.load(folder / ANSWERS, allow_pickle=False) as file:
            before = {name: file[name] for name in file.files}
    kept: dict[str, Predictions] = {}
    for r in ordered:
        answers = store.predictions(results, r.run)
        if answers is None or CLEAN not in answers.answers:
            raise UsageError(
                f"run {r.run.id} ({r.run.fuser}, fold {r.run.fold}, seed {r.run.seed}) has no stored answers: delete "
                f"{store.path_of(results, r.run)} and run it again"
            )
        kept[r.run.id] = answers
        if store.path_of(results, r.run).is_file():  # it comes before what was published of the same run
            before = {name: a for name, a in before.items() if not name.startswith(r.run.id)}
    arrays = packing.pack(kept, ordered[0].metrics, before)
    lines = "".join(serialised(replace(r, history={})) + "\n" for r in ordered)
    try:
        store.write(folder / ANSWERS, lambda f: np.savez_compressed(f, **arrays))  # type: ignore[arg-type]
        store.write(folder / PUBLISHED, lambda f: f.write(lines.encode()))
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror or error}") from None
    return [folder / PUBLISHED, folder / ANSWERS]


def _refuse_damaged(path: Path) -> None:
    if len(store.published(path.parent)) != len(path.read_text(errors="replace").splitlines()):
        raise UsageError(f"{path} has a damaged or repeated line: mend or remove it before publishing again")

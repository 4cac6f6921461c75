"""What others can check: the finished rows of a benchmark in two small files a fuser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fusionbench.errors import UsageError, unknown
from fusionbench.records import store
from fusionbench.records.evidence import Evidence, condensed
from fusionbench.records.lines import written
from fusionbench.records.packing import Packed, pack
from fusionbench.records.rows import CLEAN, BoardRecords, boards, identity
from fusionbench.records.store import EVIDENCE, PUBLISHED
from fusionbench.records.types import Record


def publish(results: Path, benchmark: str) -> list[Path]:
    """Writes `records.jsonl` and `evidence.npz` for every fuser with a finished row; the paths.

    Finished: complete, of the newest code, data and protocol, no quick try, whatever its partition into folds; of each
    setting of the benchmark, as of the default one. What the tables and their tests need is kept; histories and answers
    are not. The same records give the same bytes.

    Raises:
        UsageError: nothing is finished, a run has no stored answers, or a published line is damaged.
    """
    there = [path.name for path in results.glob("[!.]*") if path.is_dir()]
    if benchmark not in there:
        raise unknown(f"benchmark with records in {results}", benchmark, there)
    for path in sorted((results / benchmark).glob(f"*/{PUBLISHED}")):
        _refuse_damaged(path)
    found = boards(list(store.load(results, benchmark)))
    finished = [row for board in _newest(found) for row in board.rows if row.ranked]
    if not finished:
        raise UsageError(f"no row of {benchmark} is finished: fusionbench run --benchmark {benchmark} --fuser concat")
    fusers: dict[str, list[Record]] = {}
    for row in finished:
        fusers.setdefault(row.first.run.fuser, []).extend(row.used)
    return [path for fuser in sorted(fusers) for path in _publish(results, fusers[fuser])]


def _newest(found: Sequence[BoardRecords]) -> list[BoardRecords]:
    """Of boards, the newest first, those of the newest protocol and code, and of each setting the newest data."""
    last, _, code, *_ = identity(found[0].first)
    newest: dict[str, tuple[str, ...]] = {}
    for board in found:
        protocol, _, made, settings, _ = identity(board.first)
        if (protocol, made) == (last, code):
            newest.setdefault(settings, identity(board.first))
    return [board for board in found if identity(board.first) in newest.values()]


def _publish(results: Path, records: Sequence[Record]) -> list[Path]:
    folder = store.path_of(results, records[0].run).parent
    metrics = list(dict.fromkeys([*records[0].metrics, *records[0].scores.get(CLEAN, ())]))
    kept: dict[str, Evidence] = {}
    for r in records:
        evidence = store.evidence(results, r.run)
        if evidence is None or CLEAN not in evidence.conditions:
            what = f"{'ensemble' if r.run.ensemble else 'run'} {r.run.id}"
            raise UsageError(
                f"{what} ({r.run.fuser}, fold {r.run.fold}, seed {r.run.seed}) has no stored answers: delete "
                f"{store.path_of(results, r.run)} and run it again"
            )
        kept[r.run.id] = condensed(evidence, metrics)
    earlier = store.published_evidence(folder)
    others = [r.run.id for r in records if not store.path_of(results, r.run).is_file()]
    before = earlier.arrays_of(others) if isinstance(earlier, Packed) else {}
    arrays = pack(kept, metrics, before)
    text = written([replace(r, history={}) for r in records])
    try:
        store.write(folder / EVIDENCE, lambda f: np.savez_compressed(f, **arrays))  # type: ignore[arg-type]
        store.write(folder / PUBLISHED, lambda f: f.write(text.encode()))
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror or error}") from None
    return [folder / PUBLISHED, folder / EVIDENCE]


def _refuse_damaged(path: Path) -> None:
    text = path.read_text(errors="replace")
    if len(store.published(path.parent)) != sum('"record":' not in line for line in text.splitlines()):
        raise UsageError(f"{path} has a damaged or repeated line: mend or remove it before publishing again")

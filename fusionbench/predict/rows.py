"""The trained models of a benchmark row: the mean over its folds and seeds, by name, run id or row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fusionbench import harness, registry
from fusionbench.errors import UsageError, unknown
from fusionbench.harness import Setup
from fusionbench.jobs.plan import ORIGIN
from fusionbench.predict.description import describe
from fusionbench.predict.fitting import Folds, done_by_fold, labelled, refuse, scores
from fusionbench.predict.predictor import Predictor
from fusionbench.records import Record, Run, compare, store
from fusionbench.records.rows import RowRecords, boards
from fusionbench.text import counted


def load_row(
    name: str, results: Path, data: str | None = None, fuser: str | None = None, device: str = "auto"
) -> Predictor:
    """The models of a row that was run here.

    Args:
        name: `watch/jmt`, the default row of that fuser there, or the id of a run (its first digits) of the row.
        data: where the benchmark is, if it was given by path; fuser: likewise.

    Raises:
        UsageError: there is no such row, it was not trained here, or its data or code have changed.
    """
    row = find(name, results)
    runs = _complete(row)
    first = runs[0]
    if first.run.tuned or first.run.partition:
        own = "settings" if first.run.tuned else "people"
        raise UsageError(
            f"{name} has {own} of its own in each fold or seed: fusionbench fit makes one model of a fuser"
        )
    setup = harness.setup_of(first, benchmark=data or _origin(first, results), fuser=fuser)
    refuse(setup)
    lost = [r for r in runs if not store.path_of(results, r.run).with_suffix(setup.kept).is_file()]
    if lost:
        raise UsageError(
            f"{len(lost)} of {counted(len(runs), 'run')} of {name} have left no trained model in {results}: "
            f"{_command(first)} trains them here"
        )
    _same(setup, first, name)
    seeds = sorted({r.run.seed for r in runs})
    by_seed = [done_by_fold([r for r in runs if r.run.seed == seed]) for seed in seeds]
    folds = Folds.gather(setup, by_seed, results, device)
    description = describe(
        setup, seeds=seeds, scores=scores(runs, results), temperature=folds.calibration.temperature,
        samples=len(labelled(setup.data)), versions=dict(first.versions), protocol=first.protocol,
        note=f"{row.label} on {first.run.benchmark}: the mean of {counted(len(runs), 'model')}, "
        f"{counted(len(by_seed[0]), 'fold')} x {counted(len(seeds), 'seed')}",
    )  # fmt: skip
    where = harness.pick("cpu" if setup.is_estimator else device)
    members = [member for models in folds.models for member in models]
    return Predictor(description, members, folds.calibration, lambda: folds.models, where)


def find(name: str, results: Path) -> RowRecords:
    """The row that a name means.

    Raises:
        UsageError: none, or several that are not the default.
    """
    benchmark, slash, fuser = name.strip("/").partition("/")
    if not slash:
        run = _run(name, results)
        benchmark, fuser, wanted = run.benchmark, run.fuser, run.row
    else:
        wanted = ""
    for folder, what in ((results / benchmark, "benchmark"), (results / benchmark / fuser, "fuser")):
        if not folder.is_dir():
            there = [p.name for p in folder.parent.glob("*") if p.is_dir() and not p.name.startswith(".")]
            raise UsageError(f"{unknown(f'{what} with records in {folder.parent}', folder.name, there)}")
    known = [r for r in store.load(results, benchmark, fuser) if r.status == "done" and not r.run.ensemble]
    rows = [row for board in boards(known) for row in board.rows] if known else []
    chosen = [row for row in rows if row.first.run.row == wanted] if wanted else rows
    fresh = [row for row in chosen if not row.stale] or chosen
    default = [row for row in fresh if not row.first.changes and not row.quick] or fresh
    if not default:
        raise UsageError(f"{fuser} has no finished run on {benchmark}: fusionbench run --fuser {fuser} -b {benchmark}")
    if len(default) > 1:
        spelled = "; ".join(f"{row.first.run.id[:8]} is {row.label}" for row in default)
        raise UsageError(f"{name} is several rows, name one by a run of it: {spelled}")
    return default[0]


def _run(name: str, results: Path) -> Run:
    if len(name) < 4 or not set(name) <= set("0123456789abcdef"):
        raise UsageError(
            f"{name} is no folder of a model, nor a row as watch/jmt, nor the id of a run: fusionbench fit FUSER DATA "
            f"--out {name}"
        )
    run = compare.find(results, name).run
    if run.ensemble:
        raise UsageError(f"{name} is an ensemble: {run.benchmark}/{run.fuser} answers as the mean of its seeds")
    return run


def _complete(row: RowRecords) -> Sequence[Record]:
    """The runs whose seeds have the same folds as the first one's."""
    folds: dict[int, set[int]] = {}
    for r in row.used:
        folds.setdefault(r.run.seed, set()).add(r.run.fold)
    most = max(folds.values(), key=len)
    return sorted((r for r in row.used if folds[r.run.seed] == most), key=lambda r: (r.run.seed, r.run.fold))


def _origin(record: Record, results: Path) -> str | None:
    """Where custom data were when the row was made; None of a benchmark that is here.

    Raises:
        UsageError: they are not there any more, or are a plugin file, which runs only if the user names it.
    """
    name = record.run.benchmark
    if name in registry.names("benchmarks"):
        return None
    note = results / name / ORIGIN
    path = note.read_text() if note.is_file() else f"{name}.npz"
    if registry.is_own(path) and Path(path).exists():
        return path
    raise UsageError(f"{name} was given by path: say where it is, --data PATH")


def _same(setup: Setup, record: Record, name: str) -> None:
    if setup.digest != record.data:
        raise UsageError(f"the data of {setup.benchmark_name} have changed since {name} was run: {_command(record)}")
    changed = [part for part, code in setup.code.items() if record.code.get(part) != code]
    if changed:
        raise UsageError(f"the code of {', '.join(changed)} has changed since {name} was run: {_command(record)}")


def _command(record: Record) -> str:
    return f"fusionbench run --fuser {record.run.fuser} -b {record.run.benchmark}"

"""Mirrors records to MLflow after the fact: a table row is a parent run, each fold and seed of it a child.

Our own records are the truth, never the mirror: MLflow may be away, broken or removed, and nothing is lost.
"""

from __future__ import annotations

import os
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fusionbench.records import Record, store
from fusionbench.tracking import content, database

#: How MLflow behaves while it is written to; what the user has set comes first.
#: A connection of its own for each access never writes to a database that has been moved away in between.
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SQLALCHEMYSTORE_POOLCLASS": "NullPool",
}


@dataclass
class Mirrored:
    """What a sync has done.

    Attributes:
        runs, rows: how many were logged, or logged again because they have changed.
        problem: why not everything is there; empty if it is.
        experiments: benchmark -> MLflow's id of its experiment.
    """

    runs: int = 0
    rows: int = 0
    problem: str = ""
    experiments: dict[str, str] = field(default_factory=dict)

    def addresses(self, uri: str) -> list[str]:
        """Where MLflow's page shows the table of each benchmark."""
        from fusionbench.tracking.experiment import ADDRESS

        server = uri.rstrip("/") if uri.startswith("http") else "http://127.0.0.1:5000"
        return [server + ADDRESS.format(identity) for identity in self.experiments.values()]


def default_uri() -> str:
    """`MLFLOW_TRACKING_URI`, else a database file in the working directory: no server needed."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path(database.NAME).resolve()}"


def sync(
    records: Sequence[Record],
    results: Path,
    uri: str | None = None,
    *,
    artifacts: bool = False,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Mirrored:
    """Logs the rows of these records, with all their folds and seeds on disk: what MLflow lacks or has otherwise.

    Warns, and loses nothing, if MLflow cannot be reached.

    Args:
        artifacts: log weights and answers too, of the runs that have files of their own.
        advance: is called with the runs that are there and all that are asked for.
    """
    uri = uri or default_uri()
    done = Mirrored()
    if records:
        safe = f"the records are in {results}; `fusionbench records sync` tries again"
        _guarded(lambda: _sync(records, results, uri, artifacts, advance, done), uri, safe, done)
    return done


def sync_study(tuned: Any, uri: str | None = None) -> Mirrored:
    """Logs a search: a parent run an outer fold, its trials below; what MLflow lacks or has otherwise."""
    uri = uri or default_uri()
    done = Mirrored()
    _guarded(lambda: _sync_study(tuned, uri, done), uri, "the search is in tuned.json and trials.csv", done)
    return done


def _guarded(log: Callable[[], None], uri: str, safe: str, done: Mirrored) -> None:
    try:
        with _settings():
            log()
    except Exception as error:  # the mirror may fail in any way at all; what it mirrors is on disk
        reason = str(error).strip() or type(error).__name__
        done.problem = reason.splitlines()[0][:200]
        warnings.warn(
            f"MLflow at {uri} did not take the runs ({done.problem}). Nothing is lost: {safe}, "
            "--no-track leaves MLflow out",
            stacklevel=4,
        )


@contextmanager
def _settings() -> Iterator[None]:
    """`SETTINGS` in the environment, for as long as it takes; MLflow's chatter off for good."""
    import logging

    for chatty in ("mlflow", "mlflow.store.db.utils", "alembic"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    ours = [name for name in SETTINGS if name not in os.environ]
    os.environ.update({name: SETTINGS[name] for name in ours})
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


def _sync(
    records: Sequence[Record],
    results: Path,
    uri: str,
    artifacts: bool,
    advance: Callable[[int, int], None],
    done: Mirrored,
) -> None:
    from fusionbench import leaderboard
    from fusionbench.tracking.experiment import Experiment

    todo = []
    for benchmark in sorted({r.run.benchmark for r in records}):
        given = {r.run.id: r for r in records if r.run.benchmark == benchmark}
        known = {r.run.id: r for r in store.load(results, benchmark)} | given
        rows: dict[str, list[Record]] = defaultdict(list)
        for item in known.values():
            rows[content.row_key(item)].append(item)
        asked = {content.row_key(item) for item in given.values()}
        todo.append((benchmark, known, {key: items for key, items in rows.items() if key in asked}))
    total, there = sum(len(items) for *_, rows in todo for items in rows.values()), 0
    advance(there, total)
    for benchmark, known, rows in todo:
        boards = leaderboard.build(known.values(), results)
        lines = {run: (board, row) for board in boards for row in board.rows for run in row.runs}
        with database.locked(uri):
            experiment = Experiment.open(uri, f"fusionbench/{benchmark}")
            if boards:
                experiment.set_view(boards[0].metric, boards[0].higher_is_better, boards[0].measure == "damaged")
            done.experiments[benchmark] = experiment.identity
        for key, items in rows.items():
            board, line = next((lines[r.run.id] for r in items if r.run.id in lines), (None, None))
            parent = content.of_row(key, items, board, line)
            with database.locked(uri):  # one row at a time: other processes need not wait for all of them
                runs = experiment.row(key)
                identity, logged = runs.put(parent)
                done.rows += logged
                for item in items:
                    done.runs += runs.put(content.of_record(item, results, artifacts), identity)[1]
                    there += 1
                    advance(there, total)


def _sync_study(tuned: Any, uri: str, done: Mirrored) -> None:
    from fusionbench.tracking.experiment import Experiment

    with database.locked(uri):
        experiment = Experiment.open(uri, f"fusionbench/{tuned.benchmark}/tuning")
        for fold, chosen in tuned.folds.items():
            key = content.search_key(tuned, fold)
            runs = experiment.row(key)
            identity, logged = runs.put(content.of_search(key, tuned, fold, chosen))
            done.rows += logged
            for trial in tuned.table:
                if str(trial.fold) == str(fold):
                    done.runs += runs.put(content.of_trial(key, trial), identity)[1]

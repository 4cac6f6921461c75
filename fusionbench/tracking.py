"""Mirrors records to MLflow: batches, after the fact, once each. Our own records are the truth, never the mirror."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from fusionbench.records import Record, store

TAG = "fusionbench.mirror"


def default_uri() -> str:
    """`MLFLOW_TRACKING_URI`, else a database file in the working directory: no server needed."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path('mlflow.db').resolve()}"


def sync(records: Sequence[Record], results: Path, uri: str | None = None) -> int:
    """Logs the records that the store does not have yet, and says how many.

    Warns, and loses nothing, if the store cannot be reached.
    """
    uri = uri or default_uri()
    return _guarded(
        lambda: _sync(records, results, uri), uri,
        f"the records are in {results}; `fusionbench records sync` tries again",
    )  # fmt: skip


def _guarded(log: Callable[[], int], uri: str, safe: str) -> int:
    for name, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    }.items():
        os.environ.setdefault(name, value)
    try:
        return log()
    except Exception as error:  # the mirror may fail in any way at all; what it mirrors is on disk
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        warnings.warn(
            f"MLflow at {uri} did not take the runs ({reason}). Nothing is lost: {safe}, --no-track leaves MLflow out",
            stacklevel=3,
        )
        return 0


def sync_study(tuned: Any, uri: str | None = None) -> None:
    """Logs a search as a parent run an outer fold, its trials below; again only if it has more trials than before."""
    uri = uri or default_uri()
    _guarded(lambda: _sync_study(tuned, uri), uri, "the search is in tuned.json and trials.csv")


def _sync(records: Sequence[Record], results: Path, uri: str) -> int:
    import logging

    from mlflow import MlflowClient

    for chatty in ("mlflow", "mlflow.store.db.utils", "alembic"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    client = MlflowClient(tracking_uri=uri)
    logged = 0
    for benchmark in sorted({r.run.benchmark for r in records}):
        experiment = _experiment(client, f"fusionbench/{benchmark}", uri)
        known = _mirrored(client, experiment)
        for item in records:
            if item.run.benchmark == benchmark and _key(item) not in known:
                _log(client, experiment, item, results)
                logged += 1
    return logged


def _experiment(client: Any, name: str, uri: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    local = uri.startswith("sqlite:")
    location = Path(uri.removeprefix("sqlite:///")).resolve().parent / "mlartifacts" / name if local else None
    return str(client.create_experiment(name, artifact_location=location.as_uri() if location else None))


def _mirrored(client: Any, experiment: str) -> set[str]:
    """Keys of the complete runs that are there already."""
    keys, token = set(), None
    while True:
        query = "attributes.status != 'RUNNING'"
        page = client.search_runs([experiment], query, max_results=1000, page_token=token)
        keys |= {run.data.tags.get(TAG, "") for run in page}
        token = page.token
        if not token:
            return keys


def _key(item: Record) -> str:
    """What makes a mirrored run the same one: identity and the conditions that it was judged under."""
    words = [item.run.id, *sorted(item.code.values()), item.data, str(item.protocol), item.status, *sorted(item.scores)]
    return hashlib.sha256("|".join(words).encode()).hexdigest()[:16]


def _log(client: Any, experiment: str, item: Record, results: Path) -> None:
    from mlflow.entities import Metric, Param, RunTag

    ended = int(datetime.fromisoformat(item.created).timestamp() * 1000) if item.created else 0
    begun = ended - int(1000 * sum(item.seconds.values()))
    parts = {**{f"backbone.{m}": b for m, b in item.run.backbones.items()}, **_flat(item.run.hparams)}
    params = [Param(name, str(value)[:6000]) for name, value in parts.items()]
    metrics = [
        Metric(f"test/{_spell(condition)}/{name}", value, ended, 0)
        for condition, scores in item.scores.items()
        for name, value in scores.items()
        if value is not None
    ]
    for lr, history in item.history.items():
        for entry in history:
            for name in ("loss", "score"):
                value = entry.get(name)
                if value is not None:
                    metrics.append(Metric(f"validation/lr {lr}/{name}", value, begun, int(entry["step"])))
    tags = {
        TAG: _key(item),
        "benchmark": item.run.benchmark,
        "fuser": item.run.fuser,
        "fold": item.run.fold,
        "seed": item.run.seed,
        "run id": item.run.id,
        "data": item.data,
        "protocol": item.protocol,
        **{f"code.{part}": digest for part, digest in item.code.items()},
        **({"error": item.error} if item.error else {}),
    }
    name = f"{item.run.fuser} fold {item.run.fold} seed {item.run.seed}"
    run = client.create_run(experiment, start_time=begun, run_name=name)
    identity = run.info.run_id
    client.log_batch(identity, tags=[RunTag(key, str(value)) for key, value in tags.items()])
    for start in range(0, len(params), 100):
        client.log_batch(identity, params=params[start : start + 100])
    for start in range(0, len(metrics), 1000):
        client.log_batch(identity, metrics=metrics[start : start + 1000])
    path = store.path_of(results, item.run)
    if path.is_file():
        client.log_artifact(identity, str(path))
    client.set_terminated(identity, "FINISHED" if item.status == "done" else "FAILED", ended)


def _flat(hparams: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {f"{part}.{name}": value for part, values in hparams.items() for name, value in values.items()}


def _spell(condition: str) -> str:
    """MLflow's names have no plus sign."""
    return condition.replace(":", "/").replace("+", " and ")


def _sync_study(tuned: Any, uri: str) -> int:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag

    client = MlflowClient(tracking_uri=uri)
    experiment = _experiment(client, f"fusionbench/{tuned.benchmark}/tuning", uri)
    known = _mirrored(client, experiment)
    logged = 0
    for fold, chosen in tuned.folds.items():
        trials = [t for t in tuned.table if str(t.fold) == fold]
        words = [tuned.fuser, fold, str(len(trials)), *sorted(tuned.code.values()), str(chosen.created)]
        key = hashlib.sha256("|".join(words).encode()).hexdigest()[:16]
        if key in known:
            continue
        parent = client.create_run(experiment, run_name=f"{tuned.fuser} outer fold {fold}").info.run_id
        tags = {"benchmark": tuned.benchmark, "fuser": tuned.fuser, "fold": fold, "sampler": tuned.sampler}
        best = [Param(name, str(value)) for name, value in _flat(chosen.settings).items()]
        client.log_batch(parent, tags=[RunTag(n, str(v)) for n, v in tags.items()], params=best,
                         metrics=[Metric("validation", chosen.score, 0, 0)])  # fmt: skip
        for trial in trials:
            child = client.create_run(
                experiment, run_name=f"trial {trial.number}", tags={"mlflow.parentRunId": parent, "state": trial.state}
            ).info.run_id
            scores = [Metric("validation", trial.score, 0, 0)] if trial.score is not None else []
            params = [Param(name, str(value)) for name, value in _flat(trial.settings).items()]
            client.log_batch(child, metrics=[*scores, Metric("optimiser steps", trial.steps, 0, 0)], params=params)
            client.set_terminated(child, "FINISHED" if trial.state in ("complete", "pruned") else "FAILED")
        client.log_batch(parent, tags=[RunTag(TAG, key)])
        client.set_terminated(parent, "FINISHED")
        logged += 1
    return logged

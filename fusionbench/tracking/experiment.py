"""Runs of an MLflow experiment, each there once: found by a tag, logged again in place when what they show changes."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fusionbench.tracking import database
from fusionbench.tracking.content import Content

#: Tags by which a run is found again: what it is of, its row, what cannot change in it, and all that it shows. This
#: one is set when everything is logged: a run without it was broken off and is completed next time. And the files that
#: were copied, with their sizes.
KEY, ROW, FIXED, SHOWN, COPIED = (f"fusionbench.{name}" for name in ("key", "row", "fixed", "shown", "copied"))
PARENT, NAME, SOURCE = "mlflow.parentRunId", "mlflow.runName", "mlflow.source.name"
#: How much MLflow takes in one call.
METRICS_AT_ONCE, PARAMS_AT_ONCE = 800, 100


#: The view of an experiment that shows a table: MLflow's page opens it at `ADDRESS`. Its format is MLflow's own and not
#: documented; a version that does not know it shows its usual page.
VIEW = "mlflow.sharedViewState.table"
ADDRESS = "/#/experiments/{}/runs?workflowType=machine_learning&viewStateShareKey=table"
COLUMNS = ("score low", "score high", "damaged", "runs", "cost/trained", "cost/seconds")


@dataclass
class Experiment:
    """One experiment of a store."""

    client: Any
    identity: str
    tags: dict[str, str]

    @classmethod
    def open(cls, uri: str, name: str) -> Experiment:
        """The experiment of that name, made if there is none."""
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=uri)
        found = client.get_experiment_by_name(name)
        if found is not None:
            if found.lifecycle_stage == "deleted":
                client.restore_experiment(found.experiment_id)
            return cls(client, str(found.experiment_id), dict(found.tags))
        file = database.path_of(
            uri
        )  # a server knows best where artifacts go, MLflow alone would use the working directory
        location = (file.parent / "mlartifacts" / name).as_uri() if file else None
        return cls(client, str(client.create_experiment(name, artifact_location=location)), {})

    def set_view(self, metric: str, higher_is_better: bool, damaged: bool) -> None:
        """Training runs, not chats, are what MLflow's page opens; `VIEW` lists the rows, the best first."""
        view = {
            "searchFilter": "tags.kind = 'row'",
            "orderByKey": f"metrics.`{'damaged' if damaged else metric}`",
            "orderByAsc": not higher_is_better,
            "selectedColumns": [*(f"metrics.`{name}`" for name in (metric, *COLUMNS)), "tags.`lacks`"],
        }
        tags = {
            "mlflow.experimentKind": "custom_model_development",
            "mlflow.experiment.primaryMetric.name": metric,
            VIEW: json.dumps(view),
        }
        for name, value in tags.items():
            if self.tags.get(name) != value:
                self.client.set_experiment_tag(self.identity, name, value)

    def row(self, key: str) -> Runs:
        """The runs that are there of a row: the parent and its children."""
        found: dict[str, Any] = {}
        token = None
        while True:
            query = f"tags.`{ROW}` = '{key}'"
            page = self.client.search_runs([self.identity], query, max_results=500, page_token=token)
            for run in page:
                mine = run.data.tags.get(KEY, "")
                if mine in found:  # two machines have mirrored it at the same time
                    self.client.delete_run(run.info.run_id)
                else:
                    found[mine] = run
            token = page.token
            if not token:
                return Runs(self, found)


@dataclass
class Runs:
    """The runs of one row; `known`: key -> the MLflow run."""

    experiment: Experiment
    known: dict[str, Any]

    def put(self, content: Content, parent: str = "") -> tuple[str, bool]:
        """Logs what is not there yet or shown otherwise; MLflow's id of the run, and whether anything was logged."""
        client, there, shown = self.experiment.client, self.known.get(content.key), f"{content.digest} {parent}"
        copied = [f"{path.name} {path.stat().st_size}" for path in content.copied]
        if there is not None and there.data.tags.get(SHOWN) == shown:
            if set(copied).issubset(there.data.tags.get(COPIED, "").split(", ")):
                return there.info.run_id, False
        if there is not None and _must_go(there, content):
            client.delete_run(there.info.run_id)
            there = None
        if there is None:
            tags = {KEY: content.key, ROW: content.row, FIXED: content.fixed}
            there = client.create_run(
                self.experiment.identity, start_time=content.began, run_name=content.name, tags=tags
            )  # fmt: skip
        identity = there.info.run_id
        for name in ("error", "lacks"):
            if name in there.data.tags and name not in content.tags:
                client.delete_tag(identity, name)
        self._log(identity, content, parent)
        if copied:
            client.set_tag(identity, COPIED, ", ".join(copied))
        client.set_terminated(identity, content.status, content.ended)
        client.set_tag(identity, SHOWN, shown)
        return identity, True

    def _log(self, identity: str, content: Content, parent: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, Metric, Param, RunTag

        client, now = self.experiment.client, int(time.time() * 1000)  # the newest of a metric is what MLflow shows
        tags = {**content.tags, NAME: content.name, SOURCE: "fusionbench", **({PARENT: parent} if parent else {})}
        metrics = [Metric(name, value, now, 0) for name, value in content.metrics.items()]
        metrics += [
            Metric(name, value, content.ended or now, step)
            for name, points in content.series.items()
            for step, value in points
        ]
        params = [Param(name, value) for name, value in content.params.items()]
        client.log_batch(
            identity, metrics[:METRICS_AT_ONCE], params[:PARAMS_AT_ONCE], [RunTag(k, v) for k, v in tags.items()]
        )
        for start in range(METRICS_AT_ONCE, len(metrics), METRICS_AT_ONCE):
            client.log_batch(identity, metrics[start : start + METRICS_AT_ONCE])
        for start in range(PARAMS_AT_ONCE, len(params), PARAMS_AT_ONCE):
            client.log_batch(identity, params=params[start : start + PARAMS_AT_ONCE])
        if content.data is not None:
            name, version = content.data
            client.log_inputs(identity, [DatasetInput(Dataset(name, version[:36] or "unknown", "fusionbench", "{}"))])
        with TemporaryDirectory() as folder:
            for name, made in content.files.items():
                Path(folder, name).write_bytes(made())
                client.log_artifact(identity, str(Path(folder, name)))
        for path in content.copied:
            client.log_artifact(identity, str(path))


def _must_go(there: Any, content: Content) -> bool:
    """Has it parameters or series that would have to change, or metrics to be taken away? MLflow can do neither."""
    shown = {*content.metrics, *content.series}
    return there.data.tags.get(FIXED) != content.fixed or not shown.issuperset(there.data.metrics)

"""The mirror in MLflow: a real database, a real server, broken databases, and servers that are not there."""

from __future__ import annotations

import math
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import fusionbench
from fusionbench import tracking
from fusionbench.cli.tables import sync_records
from fusionbench.records import Predictions, Record, Run, store
from fusionbench.tracking import content, database
from fusionbench.tracking.experiment import Experiment

ROOT = Path(fusionbench.__file__).parent.parent
RUN = Run(
    "watch",
    "concat",
    {"acc": "identity"},
    0,
    1,
    {"train": {"lr": (0.001, 0.003), "missing": "", "clip": 1.0}, "fuser": {"width": 128}, "benchmark": {}},
)
DONE = Record(
    RUN,
    "done",
    code={"fuser": "abc"},
    data="0123",
    protocol=1,
    metrics=["accuracy", "nll"],
    scores={
        "clean": {"accuracy": 0.5, "nll": None},
        "missing:acc+ppg": {"accuracy": 0.25},
        "noise:all:3": {"nll": 2.0},
    },
    history={"0.001": [{"step": 25, "loss": 0.5, "score": 0.25}, {"step": 50, "loss": 0.25, "score": 0.5}]},
    seconds={"train": 2.0, "evaluate": 1.0},
    parameters={"trained": 90, "allocated": 100},
    costs={"flops": None, "latency": 0.5, "memory": 2**21},
    created="2025-01-01T00:00:10+00:00",
)
PARAMS = {
    "fuser": "concat",
    "backbone.acc": "identity",
    "train.lr": "0.001, 0.003",
    "train.missing": "",
    "train.clip": "1.0",
    "fuser.width": "128",
}

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables and nothing in them: making one takes seconds, so it is made once."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    with tracking._settings(), database.locked(f"sqlite:///{path}"):
        pass
    return path


def client(uri: str) -> Any:
    from mlflow import MlflowClient

    with tracking._settings():
        return MlflowClient(tracking_uri=uri)


@pytest.fixture
def uri(empty: Path, tmp_path: Path) -> Iterator[str]:
    shutil.copy(empty, tmp_path / "mlflow.db")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # a mirror that fails only warns: here that is a failure
        yield f"sqlite:///{tmp_path / 'mlflow.db'}"


def found(uri: str, kind: str, name: str = "fusionbench/watch") -> list[Any]:
    """The MLflow runs of a kind: row, run, search or trial."""
    mlflow = client(uri)
    experiment = mlflow.get_experiment_by_name(name)
    return list(mlflow.search_runs([experiment.experiment_id], f"tags.kind = '{kind}'")) if experiment else []


def counts(uri: str) -> tuple[int, int]:
    return len(found(uri, "row")), len(found(uri, "run"))


def save(results: Path, done: Record = DONE) -> Path:
    answers = Predictions(np.array(["a"]), np.array(["p"]), np.zeros((1, 1)), np.ones((1, 1), bool), {})
    return store.save(results, done, answers, None)


def seeds(*numbers: int) -> list[Record]:
    return [replace(DONE, run=replace(RUN, seed=n), scores={"clean": {"accuracy": n / 10}}) for n in numbers]


# --------------------------------------------------------------------------------------------------- what a run shows


def test_a_row_is_a_parent_and_its_record_a_child_with_all_that_is_asked_of_them(tmp_path: Path, uri: str) -> None:
    save(tmp_path / "results")
    done = tracking.sync([DONE], tmp_path / "results", uri)
    assert (done.rows, done.runs, done.problem) == (1, 1, "")
    (child,), (parent,) = found(uri, "run"), found(uri, "row")
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert (child.info.run_name, parent.info.run_name) == ("concat fold 0 seed 1", "concat")
    assert child.info.status == parent.info.status == "FINISHED"
    assert (child.info.start_time, child.info.end_time) == (1735689607000, 1735689610000)
    assert child.data.params == {**PARAMS, "fold": "0", "seed": "1"}
    assert parent.data.params == PARAMS
    costs = {"cost/trained": 90, "cost/parameters": 100, "cost/ms": 0.5, "cost/MB": 2, "cost/seconds": 2}
    assert child.data.metrics == costs | {
        "accuracy": 0.5,
        "accuracy/missing:acc and ppg": 0.25,
        "nll/noise:all:3": 2.0,
        "training loss/lr 0.001": 0.25,
        "validation score/lr 0.001": 0.5,
    }
    assert parent.data.metrics == costs | {
        "accuracy": 0.5,
        "accuracy/missing:acc and ppg": 0.25,
        "runs": 1,
        "failed": 0,
        "cost/seconds of all": 3,
    }
    assert {
        "benchmark": "watch",
        "run id": RUN.id,
        "data": "0123",
        "code.fuser": "abc",
    }.items() <= child.data.tags.items()
    assert "error" not in child.data.tags
    assert [(d.dataset.name, d.dataset.digest) for d in child.inputs.dataset_inputs] == [("watch", "0123")]
    mlflow = client(uri)
    history = mlflow.get_metric_history(child.info.run_id, "training loss/lr 0.001")
    assert [(m.step, m.value) for m in history] == [(25, 0.5), (50, 0.25)]
    assert [a.path for a in mlflow.list_artifacts(parent.info.run_id)] == ["damage.png"]
    assert [a.path for a in mlflow.list_artifacts(child.info.run_id)] == [f"{RUN.id}.json"]
    copy = Path(mlflow.download_artifacts(child.info.run_id, f"{RUN.id}.json", str(tmp_path)))
    assert copy.read_bytes() == store.path_of(tmp_path / "results", RUN).read_bytes().rstrip()


def test_intervals_and_the_damaged_score_are_those_of_the_table(tmp_path: Path, uri: str) -> None:
    """Six people, answers on disk: what the parent shows is what the leaderboard says."""
    from fusionbench import leaderboard

    rng, people = np.random.default_rng(0), np.repeat([f"p{i}" for i in range(6)], 10)
    y = rng.integers(0, 2, (60, 1))
    records = []
    for seed in range(2):
        answers = {c: rng.normal(size=(60, 1, 2)).astype("f4") for c in ("clean", "noise:acc:1", "noise:acc:2")}
        scores = {c: {"accuracy": float((a.argmax(-1) == y).mean())} for c, a in answers.items()}
        records.append(replace(DONE, run=replace(RUN, seed=seed), scores=scores, table=["noise:acc"]))
        kept = Predictions(np.arange(60).astype(str), people, y, np.ones((60, 1), bool), answers)
        store.save(tmp_path / "results", records[-1], kept, None)
    assert tracking.sync(records[:1], tmp_path / "results", uri).rows == 1  # the other seed of the row is on disk
    (board,) = leaderboard.build(records, tmp_path / "results")
    values = content.values_of(board, board.rows[0])
    (parent,) = found(uri, "row")
    shown = {"accuracy": "score", "score low": "low", "score high": "high", "damaged": "damaged"}
    assert {n: parent.data.metrics[n] for n in shown} == {n: values[c] for n, c in shown.items()}
    assert parent.data.metrics["score low"] < parent.data.metrics["accuracy"] < parent.data.metrics["score high"]
    assert parent.data.metrics["runs"] == len(found(uri, "run")) == 2


def test_mlflow_opens_the_rows_as_a_table(tmp_path: Path, uri: str) -> None:
    done = tracking.sync([DONE], tmp_path, uri)
    experiment = client(uri).get_experiment_by_name("fusionbench/watch")
    assert done.experiments == {"watch": experiment.experiment_id}
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert "tags.kind = 'row'" in experiment.tags["mlflow.sharedViewState.table"]
    (address,) = done.addresses("http://here:1/")
    assert address.startswith(f"http://here:1/#/experiments/{experiment.experiment_id}/runs?")


def test_a_failed_run_is_mirrored_as_failed_and_later_as_well(tmp_path: Path, uri: str) -> None:
    failed = replace(DONE, status="failed", scores={}, history={}, error="lr 0.001: the loss became nan by step 25")
    tracking.sync([failed], tmp_path, uri)
    (run,), (row,) = found(uri, "run"), found(uri, "row")
    assert run.info.status == row.info.status == "FAILED"
    assert run.data.tags["error"] == failed.error
    assert not any(name.startswith("accuracy") for name in run.data.metrics | row.data.metrics)
    assert tracking.sync([failed], tmp_path, uri) == replace(
        tracking.sync([], tmp_path, uri), experiments={"watch": "1"}
    )
    tracking.sync([DONE], tmp_path, uri)
    (run,), (row,) = found(uri, "run"), found(uri, "row")
    assert (run.info.status, row.info.status, run.data.metrics["accuracy"]) == ("FINISHED", "FINISHED", 0.5)
    assert "error" not in run.data.tags


def test_a_tuned_row_shows_every_value_of_a_parameter(tmp_path: Path, uri: str) -> None:
    records = [
        replace(DONE, run=replace(RUN, fold=f, tuned="6 trials, 0ab", hparams={"fuser": {"width": 64 * (f + 1)}}))
        for f in range(2)
    ]
    tracking.sync(records[:1], tmp_path, uri)
    assert found(uri, "row")[0].data.params["fuser.width"] == "64"
    tracking.sync(records, tmp_path, uri)  # MLflow cannot change a parameter: the parent is made again
    (parent,), children = found(uri, "row"), found(uri, "run")
    assert parent.data.params == {
        "fuser": "concat", "backbone.acc": "identity", "tuned": "6 trials, 0ab", "fuser.width": "128 | 64"
    }  # fmt: skip
    assert {c.data.tags["mlflow.parentRunId"] for c in children} == {parent.info.run_id}
    assert sorted(c.data.params["fuser.width"] for c in children) == ["128", "64"]


def test_weights_and_answers_are_artifacts_on_request(tmp_path: Path, uri: str) -> None:
    path = save(tmp_path)
    path.with_suffix(".safetensors").write_bytes(b"weights")

    def names() -> set[str]:
        return {Path(a.path).suffix for a in client(uri).list_artifacts(found(uri, "run")[0].info.run_id)}

    tracking.sync([DONE], tmp_path, uri)
    assert names() == {".json"}
    assert tracking.sync([DONE], tmp_path, uri, artifacts=True).runs == 1
    assert names() == {".json", ".npz", ".safetensors"}
    assert tracking.sync([DONE], tmp_path, uri, artifacts=True).runs == 0
    assert tracking.sync([DONE], tmp_path, uri).runs == 0
    assert names() == {".json", ".npz", ".safetensors"}
    path.with_suffix(".safetensors").write_bytes(b"other weights")
    assert tracking.sync([DONE], tmp_path, uri, artifacts=True).runs == 1
    assert counts(uri) == (1, 1)


def test_more_than_a_batch_of_metrics_and_of_params(tmp_path: Path, uri: str) -> None:
    """The store takes 1000 entries, 100 of them parameters, at a time."""
    many = replace(
        DONE,
        run=replace(RUN, hparams={"fuser": {f"p{i}": i for i in range(120)}}),
        scores={f"noise:m{i}:1": {"accuracy": i / 1000, "nll": 1.0} for i in range(520)},
    )
    assert tracking.sync([many], tmp_path, uri).runs == 1
    (run,) = found(uri, "run")
    assert len(run.data.params) == 124
    assert sum(name.startswith(("accuracy/", "nll/")) for name in run.data.metrics) == 1040


def test_values_that_are_no_numbers_do_not_stop_the_mirror(tmp_path: Path, uri: str) -> None:
    """Records come from the harness too, before JSON has turned NaN into null."""
    odd = {"accuracy": math.nan, "nll": 0.5}
    history = {"0.001": [{"step": 25, "loss": math.nan, "score": -math.inf}]}
    assert tracking.sync([replace(DONE, scores={"clean": odd}, history=history)], tmp_path, uri).runs == 1
    (run,) = found(uri, "run")
    assert run.data.metrics["nll"] == 0.5
    assert "accuracy" not in run.data.metrics


@given(st.text(max_size=300))
def test_any_name_becomes_one_that_mlflow_takes(name: str) -> None:
    from mlflow.utils.validation import _validate_metric_name, _validate_param_name, _validate_tag_name

    for validate in (_validate_metric_name, _validate_param_name, _validate_tag_name):
        validate(content.legal(name))
    assert len(content.legal(name)) <= 250


def test_the_search_of_a_fold_is_a_parent_of_its_trials(uri: str) -> None:
    def trial(number: int, score: float | None, state: str = "complete") -> Any:
        return SimpleNamespace(
            fold=0, number=number, state=state, score=score, settings={"fuser": {"width": 64}}, steps=10
        )

    chosen = SimpleNamespace(settings={"fuser": {"width": 64}}, score=0.5, created="then")
    tuned = SimpleNamespace(
        benchmark="watch", fuser="concat", folds={"0": chosen}, table=[trial(0, 0.5)], code={"fuser": "abc"},
        data="0123", protocol=1, sampler="tpe",
    )  # fmt: skip
    assert tracking.sync_study(tuned, uri) == tracking.Mirrored(runs=1, rows=1)
    assert tracking.sync_study(tuned, uri) == tracking.Mirrored()
    tuned.table.append(trial(1, None, "failed"))
    assert tracking.sync_study(tuned, uri) == tracking.Mirrored(runs=1, rows=1)
    name = "fusionbench/watch/tuning"
    (parent,), trials = found(uri, "search", name), found(uri, "trial", name)
    assert (parent.info.run_name, parent.data.metrics["trials"]) == ("concat outer fold 0", 2)
    assert sorted((t.info.run_name, t.info.status) for t in trials) == [("trial 0", "FINISHED"), ("trial 1", "FAILED")]
    assert {t.data.tags["mlflow.parentRunId"] for t in trials} == {parent.info.run_id}


# ------------------------------------------------------------------------------------------------------ once, not twice


def test_more_seeds_change_the_parent_and_nothing_is_there_twice(tmp_path: Path, uri: str) -> None:
    assert tracking.sync(seeds(1), tmp_path, uri).runs == 1
    (before,) = found(uri, "row")
    done = tracking.sync(seeds(1, 2), tmp_path, uri)
    assert (done.rows, done.runs) == (1, 1)
    (after,) = found(uri, "row")
    assert after.info.run_id == before.info.run_id
    assert (before.data.metrics["accuracy"], after.data.metrics["accuracy"]) == (0.1, pytest.approx(0.15))
    assert (before.data.metrics["runs"], after.data.metrics["runs"]) == (1, 2)
    done = tracking.sync(seeds(2, 1), tmp_path, uri)
    assert (done.rows, done.runs) == (0, 0)
    assert counts(uri) == (1, 2)
    tracking.sync([*seeds(1), replace(seeds(2)[0], scores={"clean": {"accuracy": 0.0}})], tmp_path, uri)
    (lower,) = found(uri, "row")  # a lower value than the last counts too
    assert (lower.data.metrics["accuracy"], counts(uri)) == (0.05, (1, 2))


def test_a_record_from_disk_is_the_one_that_was_just_made(tmp_path: Path, uri: str) -> None:
    save(tmp_path)
    tracking.sync([DONE], tmp_path, uri)
    done = tracking.sync(list(store.load(tmp_path)), tmp_path, uri)
    assert (done.rows, done.runs) == (0, 0)


def test_more_conditions_are_logged_into_the_same_run_and_other_code_into_another(tmp_path: Path, uri: str) -> None:
    tracking.sync([DONE], tmp_path, uri)
    judged = replace(DONE, scores={**DONE.scores, "lag:all:1": {"accuracy": 0.1}})
    tracking.sync([judged], tmp_path, uri)
    (run,) = found(uri, "run")
    assert (run.data.metrics["accuracy/lag:all:1"], counts(uri)) == (0.1, (1, 1))
    tracking.sync([replace(DONE, code={"fuser": "edited"})], tmp_path, uri)
    assert counts(uri) == (2, 2)


def test_a_run_that_was_half_mirrored_is_completed(tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("the connection is gone")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_terminated", refuse)
        with pytest.warns(UserWarning, match="the connection is gone"):
            assert tracking.sync([DONE], tmp_path, uri).problem == "the connection is gone"
    assert tracking.sync([DONE], tmp_path, uri) == tracking.Mirrored(1, 1, "", {"watch": "1"})
    assert [run.info.status for run in found(uri, "run") + found(uri, "row")] == ["FINISHED", "FINISHED"]


def test_an_experiment_that_was_deleted_comes_back(tmp_path: Path, uri: str) -> None:
    done = tracking.sync([DONE], tmp_path, uri)
    client(uri).delete_experiment(done.experiments["watch"])
    assert tracking.sync([DONE], tmp_path, uri).problem == ""
    assert counts(uri) == (1, 1)


def test_every_benchmark_is_an_experiment(tmp_path: Path, uri: str) -> None:
    records = [replace(DONE, run=replace(RUN, benchmark=name)) for name in ("watch", "toy_xor")]
    assert tracking.sync(records, tmp_path, uri).runs == 2
    assert [len(found(uri, "run", f"fusionbench/{name}")) for name in ("watch", "toy_xor")] == [1, 1]


# ---------------------------------------------------------------------------------------------------- the database file


def test_the_uri_comes_from_the_environment_else_a_file_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert tracking.default_uri() == f"sqlite:///{tmp_path.resolve() / 'mlflow.db'}"
    assert database.path_of("sqlite:///mlflow.db") == tmp_path.resolve() / "mlflow.db"
    assert [database.path_of(u) for u in ("sqlite://", "sqlite:///:memory:", "http://here")] == [None] * 3
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somewhere:5000")
    assert tracking.default_uri() == "http://somewhere:5000"


def test_artifacts_lie_beside_a_database_that_is_named_by_a_relative_path(uri: str, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        Experiment.open("sqlite:///mlflow.db", "fusionbench/toy")
    made = client(uri).get_experiment_by_name("fusionbench/toy")
    assert made.artifact_location == (tmp_path / "mlartifacts/fusionbench/toy").as_uri()


def process(code: str, cwd: Path) -> subprocess.Popen[str]:
    """A Python process of this checkout; it says `ready` when its imports are done and goes on at a line of input."""
    opening = "import sys; from pathlib import Path; import mlflow, mlflow.store.db.utils\n"
    opening += "from fusionbench import tracking; from fusionbench.records import store\n"
    return subprocess.Popen(
        [sys.executable, "-c", f"{opening}print('ready', flush=True); sys.stdin.readline()\n{code}"], cwd=cwd,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
    )  # fmt: skip


def started(*processes: subprocess.Popen[str]) -> None:
    for one in processes:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    for one in processes:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()


def test_two_processes_at_once_and_one_killed_before_them_leave_one_whole_database(tmp_path: Path) -> None:
    for record in seeds(1, 2):
        save(tmp_path / "results", record)
    sync = "print(tracking.sync(list(store.load(Path('results'))), Path('results')).problem or 'fine')"
    killed, first, second = process(sync, tmp_path), process(sync, tmp_path), process(sync, tmp_path)
    started(killed)
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size for path in tmp_path.glob(".mlflow.db.*.new")):
        assert time.monotonic() < deadline, "the creation never began"
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "mlflow.db").exists(), "it was killed too late to show anything"
    started(first, second)
    said = [one.communicate(timeout=120) for one in (first, second)]
    assert [out for out, _ in said] == ["fine\n", "fine\n"], said
    assert sorted(path.name for path in tmp_path.glob("*mlflow*")) == [".mlflow.db.lock", "mlflow.db"]
    assert counts(f"sqlite:///{tmp_path / 'mlflow.db'}") == (1, 2)


def damaged_page(path: Path) -> None:
    text = bytearray(path.read_bytes())
    text[4096 : 3 * 4096] = os.urandom(2 * 4096)
    path.write_bytes(text)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:10000])


def no_database(path: Path) -> None:
    path.write_bytes(b"this is no database, and somebody may still want it")


def never_finished(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM experiments")


def without_tables(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    "harm", [damaged_page, cut_short, no_database, never_finished, without_tables], ids=lambda harm: harm.__name__
)
def test_a_broken_database_is_quarantined_and_made_again(
    tmp_path: Path, uri: str, empty: Path, harm: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    path = tmp_path / "mlflow.db"
    tracking.sync([DONE], tmp_path, uri)
    harm(path)
    Path(f"{path}-journal").write_bytes(b"of the old one")
    os.utime(path, (0, 0))  # nobody is making it just now
    kept = path.read_bytes()
    monkeypatch.setattr(database, "_create", lambda new: shutil.copy(empty, new))
    assert tracking.sync([DONE], tmp_path, uri) == tracking.Mirrored(1, 1, "", {"watch": "1"})
    assert path.with_name("mlflow.db.quarantined").read_bytes() == kept
    assert not Path(f"{path}-journal").exists()
    assert f"warning: {path} is damaged" in capsys.readouterr().err
    assert counts(uri) == (1, 1)


def test_what_is_not_broken_stays(tmp_path: Path, uri: str, capsys: Any) -> None:
    """A document named by mistake; a database that is busy or of an older MLflow."""
    letter = tmp_path / "letter.txt"
    letter.write_text("Dear reader")
    os.utime(letter, (0, 0))
    with pytest.warns(UserWarning, match="Nothing is lost"):
        assert tracking.sync([DONE], tmp_path, f"sqlite:///{letter}").problem
    assert letter.read_text() == "Dear reader"
    path = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'cfd24bdc0731'")
    os.utime(path, (0, 0))
    with pytest.warns(UserWarning, match="out-of-date database schema"):
        assert tracking.sync([DONE], tmp_path, uri).problem
    assert not list(tmp_path.glob("*quarantined*"))
    assert capsys.readouterr().err == ""


# ------------------------------------------------------------------------------------------------------------- servers


@pytest.fixture(scope="module")
def server(empty: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real `mlflow server` on this machine."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(empty, folder / "mlflow.db")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    words = ["server", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--host", "127.0.0.1", "--workers", "1"]
    words += ["--port", str(port), "--artifacts-destination", str(folder / "artifacts")]
    with (folder / "log").open("w") as log:
        running = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *words], cwd=folder, stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        )  # fmt: skip
        try:
            for _ in range(1200):
                try:
                    urllib.request.urlopen(f"{uri}/health", timeout=5).close()
                    break
                except OSError:
                    time.sleep(0.1)
                if running.poll() is not None:
                    break
            else:
                running.kill()
            if running.poll() is not None:
                pytest.skip(f"mlflow server does not start here: {(folder / 'log').read_text()[-500:]}")
            yield uri
        finally:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()


def test_a_real_server_takes_rows_runs_and_files_once(tmp_path: Path, server: str) -> None:
    path = save(tmp_path)
    assert tracking.sync([DONE], tmp_path, server, artifacts=True) == tracking.Mirrored(1, 1, "", {"watch": "1"})
    assert tracking.sync([DONE], tmp_path, server, artifacts=True) == tracking.Mirrored(0, 0, "", {"watch": "1"})
    more = replace(DONE, run=replace(RUN, seed=2))
    assert tracking.sync([DONE, more], tmp_path, server).rows == 1
    assert counts(server) == (1, 2)
    (parent,) = found(server, "row")
    assert parent.data.params == PARAMS
    mlflow = client(server)
    (run,) = [r for r in found(server, "run") if r.data.params["seed"] == "1"]
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    copy = mlflow.download_artifacts(run.info.run_id, path.with_suffix(".npz").name, str(tmp_path / ".."))
    assert Path(copy).read_bytes() == path.with_suffix(".npz").read_bytes()
    picture = mlflow.download_artifacts(parent.info.run_id, "damage.png", str(tmp_path))
    assert Path(picture).read_bytes().startswith(b"\x89PNG")


def test_records_sync_says_by_its_exit_status_whether_all_is_there(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def status(uri: str) -> int:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            found = CliRunner().invoke(
                sync_records, ["--results", str(tmp_path)], standalone_mode=False, catch_exceptions=False
            )
        return int(found.return_value)

    assert status("http://127.0.0.1:9") == 0  # nothing to do
    save(tmp_path, replace(DONE, run=replace(RUN, benchmark="exit")))
    assert status("http://127.0.0.1:9") == 1
    assert status(server) == 0
    assert status(server) == 0
    assert len(found(server, "run", "fusionbench/exit")) == 1


def nobody() -> Iterator[str]:
    yield "http://127.0.0.1:9"


def silent() -> Iterator[str]:
    """Takes the connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def stranger() -> Iterator[str]:
    """Answers, but is no MLflow."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404)
            self.end_headers()
            self.wfile.write(b"<html>nothing here</html>")

        do_POST = do_GET

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Page) as page:
        thread = Thread(target=page.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{page.server_port}"
        page.shutdown()
        thread.join()


def no_such_place() -> Iterator[str]:
    yield "nonsense://nowhere"


@pytest.mark.parametrize("make", [nobody, silent, stranger, no_such_place], ids=lambda make: make.__name__)
def test_a_store_that_does_not_answer_is_a_warning_and_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[], Iterator[str]]
) -> None:
    path = save(tmp_path)
    before = path.read_bytes()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")  # the user's own wish wins over ours
    from mlflow import MlflowClient  # noqa: F401  (its import is no part of the time)

    place = make()
    uri = next(place)
    began = time.monotonic()
    with pytest.warns(UserWarning, match="Nothing is lost") as caught:
        done = tracking.sync([DONE], tmp_path, uri)
    assert time.monotonic() - began < 8
    next(place, None)
    assert (done.rows, done.runs) == (0, 0)
    (said,) = [str(w.message) for w in caught if "Nothing is lost" in str(w.message)]
    assert said.startswith(f"MLflow at {uri} did not take the runs ({done.problem})")
    assert str(tmp_path) in said
    assert "\n" not in said
    assert path.read_bytes() == before

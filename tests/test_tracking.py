"""The mirror in MLflow: a real embedded database, and servers that are not there.

A real `mlflow server` takes seconds of CPU to start and says nothing that the client library does not say of the
database, so there is none here.
"""

from __future__ import annotations

import math
import shutil
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

from fusionbench import tracking
from fusionbench.records import Predictions, Record, Run, store

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
    created="2025-01-01T00:00:10+00:00",
)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """`sync` sets defaults in the environment: they end with the test."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables and nothing in them: making one takes seconds, so it is made once."""
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    assert client(f"sqlite:///{path}").search_experiments()
    return path


def client(uri: str) -> Any:
    import logging

    logging.getLogger("alembic").setLevel(logging.ERROR)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


@pytest.fixture
def uri(empty: Path, tmp_path: Path) -> Iterator[str]:
    shutil.copy(empty, tmp_path / "mlflow.db")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # a mirror that fails only warns: here that is a failure
        yield f"sqlite:///{tmp_path / 'mlflow.db'}"


def runs(uri: str, benchmark: str = "watch") -> list[Any]:
    store = client(uri)
    experiment = store.get_experiment_by_name(f"fusionbench/{benchmark}")
    return list(store.search_runs([experiment.experiment_id])) if experiment else []


def save(results: Path, done: Record = DONE) -> Path:
    answers = Predictions(np.array(["a"]), np.array(["p"]), np.zeros((1, 1)), np.ones((1, 1), bool), {})
    return store.save(results, done, answers, None)


def test_a_record_is_mirrored_with_everything_that_is_asked_of_it(tmp_path: Path, uri: str) -> None:
    path = save(tmp_path / "results")
    assert tracking.sync([DONE], tmp_path / "results", uri) == 1
    (run,) = runs(uri)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "concat fold 0 seed 1"
    assert (run.info.start_time, run.info.end_time) == (1735689607000, 1735689610000)
    assert run.data.params == {
        "backbone.acc": "identity",
        "train.lr": "(0.001, 0.003)",
        "train.missing": "",
        "train.clip": "1.0",
        "fuser.width": "128",
    }
    assert run.data.metrics == {
        "test/clean/accuracy": 0.5,
        "test/missing/acc and ppg/accuracy": 0.25,
        "test/noise/all/3/nll": 2.0,
        "validation/lr 0.001/loss": 0.25,
        "validation/lr 0.001/score": 0.5,
    }
    expected = {
        "benchmark": "watch",
        "fuser": "concat",
        "fold": "0",
        "seed": "1",
        "run id": RUN.id,
        "data": "0123",
        "protocol": "1",
        "code.fuser": "abc",
    }
    assert expected.items() <= run.data.tags.items()
    assert "error" not in run.data.tags
    store = client(uri)
    history = store.get_metric_history(run.info.run_id, "validation/lr 0.001/loss")
    assert [(m.step, m.value) for m in history] == [(25, 0.5), (50, 0.25)]
    assert [a.path for a in store.list_artifacts(run.info.run_id)] == [path.name]
    copy = store.download_artifacts(run.info.run_id, path.name, str(tmp_path))
    assert Path(copy).read_bytes() == path.read_bytes()


def test_mirroring_twice_logs_once_and_a_change_logs_again(tmp_path: Path, uri: str) -> None:
    other = replace(DONE, run=replace(RUN, seed=2))
    assert tracking.sync([DONE], tmp_path, uri) == 1
    assert tracking.sync([DONE, other], tmp_path, uri) == 1
    assert tracking.sync([other, DONE], tmp_path, uri) == 0
    again = replace(DONE, code={"fuser": "edited"})
    judged = replace(DONE, scores={**DONE.scores, "lag:all:1": {"accuracy": 0.1}})
    assert tracking.sync([again, judged], tmp_path, uri) == 2
    assert len(runs(uri)) == 4


def test_every_benchmark_is_an_experiment(tmp_path: Path, uri: str) -> None:
    records = [replace(DONE, run=replace(RUN, benchmark=name)) for name in ("watch", "toy_xor")]
    assert tracking.sync(records, tmp_path, uri) == 2
    assert [len(runs(uri, name)) for name in ("watch", "toy_xor")] == [1, 1]


def test_a_failed_run_is_mirrored_as_failed(tmp_path: Path, uri: str) -> None:
    failed = replace(DONE, status="failed", scores={}, history={}, error="lr 0.001: the loss became nan by step 25")
    assert tracking.sync([failed], tmp_path, uri) == 1
    (run,) = runs(uri)
    assert run.info.status == "FAILED"
    assert run.data.tags["error"] == failed.error
    assert run.data.metrics == {}
    assert tracking.sync([failed], tmp_path, uri) == 0
    assert tracking.sync([DONE], tmp_path, uri) == 1  # the same run, now well


def test_a_run_that_was_half_mirrored_is_mirrored_again(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("the connection is gone")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_terminated", refuse)
        with pytest.warns(UserWarning, match="the connection is gone"):
            assert tracking.sync([DONE], tmp_path, uri) == 0
    assert tracking.sync([DONE], tmp_path, uri) == 1
    assert sorted(run.info.status for run in runs(uri)) == ["FINISHED", "RUNNING"]


def test_more_than_a_batch_of_metrics_and_of_params(tmp_path: Path, uri: str) -> None:
    """The store takes 1000 metrics and 100 parameters at a time."""
    many = replace(
        DONE,
        run=replace(RUN, hparams={"fuser": {f"p{i}": i for i in range(120)}}),
        scores={f"noise:m{i}:1": {"accuracy": i / 1000, "nll": 1.0} for i in range(520)},
    )
    assert tracking.sync([many], tmp_path, uri) == 1
    (run,) = runs(uri)
    assert len(run.data.params) == 121
    assert len(run.data.metrics) == 1042


def test_values_that_are_no_numbers_do_not_stop_the_mirror(tmp_path: Path, uri: str) -> None:
    """Records come from the harness too, before JSON has turned NaN into null."""
    odd = {"accuracy": math.nan, "nll": 0.5}
    history = {"0.001": [{"step": 25, "loss": math.nan, "score": -math.inf}]}
    assert tracking.sync([replace(DONE, scores={"clean": odd}, history=history)], tmp_path, uri) == 1
    (run,) = runs(uri)
    assert run.data.metrics["test/clean/nll"] == 0.5
    assert math.isnan(run.data.metrics.get("test/clean/accuracy", math.nan))


def test_the_uri_comes_from_the_environment_else_a_file_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert tracking.default_uri() == f"sqlite:///{tmp_path.resolve() / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somewhere:5000")
    assert tracking.default_uri() == "http://somewhere:5000"


# ------------------------------------------------------------------------------------------- servers that do not answer


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

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
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
        assert tracking.sync([DONE], tmp_path, uri) == 0
    assert time.monotonic() - began < 8
    next(place, None)
    (said,) = [str(w.message) for w in caught if "Nothing is lost" in str(w.message)]
    assert said.startswith(f"MLflow at {uri} did not take the runs (")
    assert str(tmp_path) in said
    assert "\n" not in said
    assert path.read_bytes() == before


def test_a_database_that_is_damaged_is_a_warning_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.write_bytes(b"this is no database, and somebody may still want it")
    before = path.read_bytes()
    with pytest.warns(UserWarning, match="Nothing is lost"):
        assert tracking.sync([DONE], tmp_path, f"sqlite:///{path}") == 0
    assert path.read_bytes() == before

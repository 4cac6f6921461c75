"""What must hold whatever is thrown at it: choices on validation, training people's statistics, bad plugins."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fusionbench import harness, jobs
from fusionbench.errors import UsageError
from fusionbench.harness import evaluate
from fusionbench.records import Record, Run, store, typed

FAST = {"train": {"steps": "40", "interval": "10"}}


def data(folder: Path) -> str:
    """Trained on one kind of people, tested on another: 80 % zeros, then 80 % ones; values ten times as large."""
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(12), 10)
    side = np.array(["train", "val", "test"])[np.minimum(people // 4, 2)]
    y = np.where(np.arange(120) % 5 == 0, 1, 0)
    y = np.where(side == "test", 1 - y, y)
    x = (2.0 * y - 1)[:, None] * np.where(side == "test", 10, 1)[:, None] + 0.05 * rng.standard_normal((120, 3))
    np.savez(folder / "own.npz", a=x, b=rng.standard_normal((120, 2)), y=y, group=people, split=side)
    return str(folder / "own.npz")


def obtain(setup: harness.Setup, results: Path, conditions: tuple[str, ...] = ()) -> Record:
    (run,) = setup.runs([0], [0])
    (found,) = (e for e in harness.execute(setup, [run], results, conditions=conditions) if isinstance(e, Record))
    return found


def test_the_learning_rate_is_that_of_the_best_validation_and_of_equals_the_smallest(tmp_path: Path) -> None:
    rates = {"train": {**FAST["train"], "lr": "1e-7,3e-3"}}
    found = obtain(harness.setup("toy_xor", "concat", given=rates), tmp_path)
    best = {float(lr): max(entry["score"] for entry in history) for lr, history in found.history.items()}
    assert best[1e-7] < best[3e-3]
    assert found.chosen["lr"] == 3e-3
    assert found.chosen["validation"] == best[3e-3]
    easy = {"train": {"steps": "60", "interval": "20", "lr": "3e-3,1e-2,5e-3"}}
    found = obtain(harness.setup(data(tmp_path), "concat", given=easy), tmp_path)
    assert {max(entry["score"] for entry in history) for history in found.history.values()} == {1.0}
    assert found.chosen["lr"] == 3e-3


def test_chance_and_the_scale_of_damage_are_those_of_training_people(tmp_path: Path) -> None:
    setup = harness.setup(data(tmp_path), "concat", given=FAST)
    found = obtain(setup, tmp_path)
    # The majority of training, eight in ten, is a minority of the test: alone it has .2, guesses .32, the other one .8.
    assert 0.2 <= found.scores["chance"]["accuracy"] == pytest.approx(0.32, abs=0.08)
    splits = setup.benchmark.splits(setup.data, 0)
    (run,) = setup.runs([0], [0])
    case = evaluate.Case(run, torch.nn.Identity(), splits)  # type: ignore[arg-type]  # asked nothing
    scale = evaluate._Trial(setup, case, setup.data).context.sd["a"]
    train = setup.data.streams["a"].x[splits.train].flatten(0, 1)
    torch.testing.assert_close(scale, train.std(0, correction=0), rtol=1e-4, atol=1e-4)


FUSER = """
import torch
from torch import nn
from fusionbench.api import Fuser
class Mine(Fuser):
    def __init__(self, spec):
        super().__init__(spec)
        self.out = nn.Linear(sum(spec.dims.values()), spec.out{more})
    def forward(self, streams):
        x = self.out(torch.cat([self.pool(s).x for s in streams.values()], -1))
        {deed}
        return x
"""


def plugin(folder: Path, name: str, deed: str = "pass", more: str = "") -> str:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(FUSER.format(deed=deed, more=more))
    return str(folder / f"{name}.py")


def test_answers_of_nan_are_a_failed_run(tmp_path: Path) -> None:
    bad = plugin(tmp_path / "p", "not_a_number", "x = x if self.training else x * float('nan')")
    found = obtain(harness.setup("toy_xor", bad, given=FAST), tmp_path)
    assert found.status == "failed"
    assert found.error is not None
    assert found.error.startswith("it answered NaN or infinity to ")
    assert found.scores == {}


def test_too_many_outputs_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    wide = plugin(tmp_path / "p", "wide", more=" + 1")
    with pytest.raises(
        UsageError, match=r"wide.py answers \(2, 1, 3\) where \(2, 1, 2\) is asked for: fusionbench check"
    ):
        obtain(harness.setup("toy_xor", wide, given=FAST), tmp_path)


def test_an_exit_of_a_plugin_is_its_failure(tmp_path: Path) -> None:
    setup = harness.setup("toy_xor", plugin(tmp_path / "p", "leaver", "raise SystemExit(0)"), given=FAST)
    done = jobs.perform([jobs.plan_runs(setup, setup.runs([0], [0]), tmp_path, [])], tmp_path, "it", track=False)
    assert not done.ok
    assert done.failures[0].error == "SystemExit: 0"


def test_two_files_of_one_name_do_not_share_a_folder(tmp_path: Path) -> None:
    one, other = plugin(tmp_path / "one", "mine"), plugin(tmp_path / "other", "mine")
    results = tmp_path / "results"
    first = harness.setup("toy_xor", one, given=FAST)
    obtain(first, results)
    jobs.plan_runs(first, first.runs([0], [0]), results, [])
    second = harness.setup("toy_xor", other, given=FAST)
    with pytest.raises(
        UsageError, match=r"holds the results of .*one/mine.py: rename .*other/mine.py, or give --results"
    ):
        jobs.plan_runs(second, second.runs([0], [0]), results, [])
    Path(one).unlink()  # moved away: the folder is free
    jobs.plan_runs(second, second.runs([0], [0]), results, [])


def test_a_file_that_a_record_names_runs_only_if_the_user_names_it(tmp_path: Path) -> None:
    found = obtain(harness.setup("toy_xor", "concat", given=FAST), tmp_path)
    foreign = replace(found, run=replace(found.run, fuser=plugin(tmp_path / "p", "foreign", "raise SystemExit(7)")))
    with pytest.raises(UsageError, match=r"names the file .*foreign.py: if you trust it, say --fuser"):
        harness.reproduce(foreign)


def test_a_record_in_another_folder_is_quarantined(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = obtain(harness.setup("toy_xor", "concat", given=FAST), tmp_path)
    path = store.path_of(tmp_path, found.run)
    other = tmp_path / "toy_xor" / "gated" / path.name
    other.parent.mkdir()
    path.rename(other)
    assert list(store.load(tmp_path)) == []
    assert "not of the run that its name and folder say" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fold": "1"}, "fold of a Run cannot be '1'"),
        ({"fold": True}, "fold of a Run cannot be True"),
        ({"hparams": []}, r"hparams of a Run cannot be \[\]"),
        ({"fuser": None}, "fuser of a Run cannot be None"),
    ],
)
def test_values_of_another_type_are_named(change: dict[str, object], said: str) -> None:
    whole = {"benchmark": "b", "fuser": "f", "backbones": {}, "fold": 0, "seed": 0, "hparams": {}}
    assert typed.build(Run, whole) == Run("b", "f", {}, 0, 0, {})
    with pytest.raises(ValueError, match=said):
        typed.build(Run, {**whole, **change})
    with pytest.raises(ValueError, match="fold"):
        typed.build(Run, {k: v for k, v in whole.items() if k != "fold"})


def test_a_full_disk_and_a_closed_pipe_are_no_tracebacks() -> None:
    command = f"{sys.executable} -m fusionbench list"
    full = subprocess.run(f"{command} > /dev/full", shell=True, capture_output=True, text=True, check=False)
    assert (full.returncode, full.stderr) == (2, "error: No space left on device\n")
    closed = subprocess.run(f"{command} | head -1", shell=True, capture_output=True, text=True, check=False)
    assert (closed.stdout.count("\n"), closed.stderr) == (1, "")


BLOCKED = """
        import ctypes, os, pathlib, sys
        if "loky" in str(sys.orig_argv):  # a worker: its parent tries the method too, before it hands out work
            pathlib.Path(r"{folder}", str(os.getpid())).touch()
            ctypes.PyDLL(None).sleep(600)  # in native code, without letting any other thread of Python have its turn
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process that is blocked in native code")
def test_workers_end_with_a_parent_that_was_killed_whatever_they_are_at(tmp_path: Path) -> None:
    began = tmp_path / "began"
    began.mkdir()
    blocked = plugin(tmp_path / "p", "blocked", BLOCKED.format(folder=began).strip())
    words = ["run", "--fuser", blocked, "-b", "toy_xor", "--jobs", "2", "--stack", "1", "--no-track"]
    process = subprocess.Popen(
        [sys.executable, "-m", "fusionbench", *words],
        cwd=tmp_path,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),  # as under nohup
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def workers() -> list[int]:
        return [int(path.name) for path in began.iterdir()]

    def alive(pid: int) -> bool:
        """An ended process that nobody has waited for has no command line."""
        with suppress(FileNotFoundError, ProcessLookupError):
            return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
        return False

    try:
        while len(workers()) < 2:
            assert process.poll() is None
            time.sleep(0.1)
        process.kill()
        process.wait()
        limit = time.monotonic() + 60  # the kernel needs milliseconds, unless the machine is very busy
        while any(map(alive, workers())) and time.monotonic() < limit:
            time.sleep(0.1)
        assert not any(map(alive, workers()))
    finally:
        process.kill()
        for pid in filter(alive, workers()):
            os.kill(pid, signal.SIGKILL)

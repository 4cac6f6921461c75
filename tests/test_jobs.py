"""Many workers and one: the same table, whoever did it, and whoever was killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from joblib.externals.loky import get_reusable_executor

from fusionbench import engine, harness, jobs
from fusionbench.api import UsageError
from fusionbench.jobs import cluster, local, progress
from fusionbench.jobs import plan as planning
from fusionbench.records import Record, store

FAST = {"train": {"steps": "12", "interval": "6", "lr": "1e-3,3e-3"}}
CONDITIONS = ["missing:left"]

#: A linear readout of both modalities that does something else at its third step in any process but this one.
PLUGIN = """
import os, signal, time, torch
from torch import nn
from fusionbench.api import Fuser
def first(marker):
    try:
        open(marker, "x").close()
    except FileExistsError:
        return False
    return True
class Mine(Fuser):
    steps = 0
    def __init__(self, spec):
        super().__init__(spec)
        self.out = nn.Linear(sum(spec.dims.values()), spec.out)
    def forward(self, streams):
        Mine.steps += 1
        if Mine.steps == 3 and os.getpid() != {parent}:
            {deed}
        return self.out(torch.cat([self.pool(s).x for s in streams.values()], -1))
"""


@pytest.fixture(scope="module", autouse=True)
def _pool() -> Iterator[None]:
    """The other tests of a session do not pay for idle workers."""
    yield
    get_reusable_executor().shutdown(wait=True, kill_workers=True)


def plugin(folder: Path, name: str, deed: str = "pass") -> str:
    path = folder / f"{name}.py"
    path.write_text(PLUGIN.format(parent=os.getpid(), deed=deed))
    return str(path)


def once(folder: Path, deed: str) -> str:
    """Only who creates the marker does it."""
    marker = folder / "marker"
    return f"if first({str(marker)!r}): {deed}"


KILL = "os.kill(os.getpid(), signal.SIGKILL)"


def plans(
    results: Path, *fusers: str, seeds: Sequence[int] = (0, 1), folds: Sequence[int] = (0, 1, 2)
) -> list[jobs.Plan]:
    setups = [harness.setup("toy_xor", fuser, given=FAST) for fuser in fusers]
    return [jobs.plan_runs(s, s.runs(folds, seeds), results, CONDITIONS) for s in setups]


def cut(asked: list[jobs.Plan], results: Path, workers: int = 1, stack: int | None = None) -> list[jobs.Job]:
    """The jobs of plans, cut for so many workers on the CPU."""
    where = torch.device("cpu")
    sized = [jobs.sized(plan, where, stack) for plan in asked]
    return [job for job, _ in planning.cut(sized, results, workers, where, device="cpu")]


def obtain(results: Path, *fusers: str, **options: object) -> tuple[list[Record], list[jobs.Failure]]:
    events = list(jobs.execute(plans(results, *fusers), results, **{"device": "cpu", **options}))  # type: ignore[arg-type]
    return [e for e in events if isinstance(e, Record)], [e for e in events if isinstance(e, jobs.Failure)]


def assert_same_table(a: list[Record], b: list[Record], where: tuple[Path, Path]) -> None:
    """The same runs and scores; answers, and scores that are continuous in them, differ as stacked members may."""
    one, other = ({r.run.id: r for r in found} for found in (a, b))
    assert one.keys() == other.keys()
    assert len(one) == len(a) == len(b)
    for name, mine in one.items():
        theirs = other[name]
        assert mine.scores.keys() == theirs.scores.keys()
        for condition, values in mine.scores.items():
            assert values == pytest.approx(theirs.scores[condition], abs=1e-5), condition
        assert mine.chosen["lr"] == theirs.chosen["lr"]
        assert mine.changes == theirs.changes
        kept = [store.predictions(folder, mine.run) for folder in where]
        for condition in ("clean", "missing:left"):
            np.testing.assert_allclose(*(k.answers[condition] for k in kept if k), atol=1e-4)


@pytest.fixture(autouse=True)
def a_fold_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for heavier fusers: a light one would put all runs of a row into one job."""
    monkeypatch.setattr("fusionbench.engine.size.FOLDS", 1)


def test_cells_are_plain_whole_programs_and_the_same_for_any_number_of_jobs(tmp_path: Path) -> None:
    asked = plans(tmp_path, "concat", "jmt")
    one, two, five = (cut(asked, tmp_path, n) for n in (1, 2, 5))
    assert one == two == five
    assert [len(job.runs) for job in one] == [2] * 6  # the seeds of a fold, whose first one tries two learning rates
    assert [job.stack for job in one] == [2] * 6
    assert all(len({run.fold for run in job.runs}) == 1 for job in one)
    assert len({job.key for job in one}) == 6
    assert {run.id for job in one for run in job.runs} == {run.id for plan in asked for run in plan.train}
    alone = cut(asked, tmp_path, 2, stack=1)
    assert [len(job.runs) for job in alone] == [2] * 6
    assert [len(job.runs) for job in cut(asked[:1], tmp_path, 2, stack=4)] == [4, 2]
    assert len(cut([*asked, *asked], tmp_path, 2)) == 6  # the same work is done once


def test_on_cuda_a_row_is_cut_for_the_workers(tmp_path: Path) -> None:
    asked = plans(tmp_path, "concat", seeds=range(5))  # 15 runs
    cuda = torch.device("cuda")

    def sizes(workers: int, stack: int = 256) -> list[int]:
        sized = [jobs.sized(plan, cuda, stack) for plan in asked]
        return [len(job.runs) for job, _ in planning.cut(sized, tmp_path, workers, cuda)]

    assert sizes(1) == [15]
    assert sizes(2) == [10, 5]
    assert sizes(20) == [5, 5, 5]
    assert sizes(1, stack=2) == [5, 5, 5]


def test_two_processes_give_the_scores_of_one(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    mine = os.path.relpath(plugin(tmp_path, "mine"))  # relative: the workers get it as absolute
    here, _ = obtain(a, "concat", mine)
    there, failures = obtain(b, "concat", mine, jobs=2)
    assert failures == []
    assert len(here) == 12
    assert_same_table(here, there, (a, b))
    assert obtain(b, "concat", mine, jobs=2) == ([], [])


def test_a_failing_cell_is_told_with_its_traceback_and_the_others_finish(tmp_path: Path) -> None:
    broken = plugin(tmp_path, "broken", once(tmp_path, "raise ZeroDivisionError('by design')"))
    found, failures = obtain(tmp_path / "r", broken, "concat", jobs=2)
    assert len(failures) == 2
    assert len(found) == 10
    file = Path(failures[0].file)
    assert file.name == f"{failures[0].run.id}.error.txt"
    assert "broken.py" in file.read_text()
    assert failures[0].error == "ZeroDivisionError: by design"
    again, failures = obtain(tmp_path / "r", broken, "concat", jobs=2)  # the marker is there: it is well now
    assert (len(again), failures) == (2, [])
    assert not file.exists()


def test_a_killed_worker_loses_nothing_and_a_killer_is_reported(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    fragile = plugin(tmp_path, "fragile", once(tmp_path, KILL))
    deadly = plugin(tmp_path, "deadly", KILL)
    whole, _ = obtain(a, "concat", fragile, stack=12)  # this process is spared
    found, failures = obtain(b, fragile, deadly, "concat", jobs=2, stack=12)  # a job each
    assert (tmp_path / "marker").exists()
    assert_same_table(whole, found, (a, b))
    assert "a worker was killed" in capfd.readouterr().err
    assert len(failures) == 6
    assert {f.run.fuser for f in failures} == {"deadly"}
    assert failures[0].error.startswith("WorkerDied: 3 workers in turn were killed")


def test_in_one_process_too_a_failing_cell_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, calls = engine.train, []

    def fails_once(*args: object, **options: object) -> object:
        calls.append(args)
        if len(calls) == 1:
            raise ZeroDivisionError("by design")
        return train(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "train", fails_once)
    found, failures = obtain(tmp_path, "concat")
    assert (len(found), len(failures)) == (4, 2)
    assert Path(failures[0].file).is_file()


def test_a_cell_given_again_does_only_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (job,) = cut(plans(tmp_path, "concat", folds=[0]), tmp_path)
    first = jobs.work(job)
    assert len(first.records) == 2
    store.path_of(tmp_path, job.runs[1]).unlink()
    trained, train = [], engine.train
    monkeypatch.setattr(
        engine, "train", lambda b, members, *a, **k: trained.extend(members) or train(b, members, *a, **k)
    )
    again = jobs.work(job)
    assert {r.run.id: r.scores for r in again.records} == {r.run.id: r.scores for r in first.records}
    assert {(m.fold, m.seed) for m in trained} == {(0, 1)}


@pytest.mark.parametrize(("what", "word"), [("package", "package"), ("data", "data"), ("code", "plugins")])
def test_a_worker_with_other_code_or_data_refuses(what: str, word: str, tmp_path: Path) -> None:
    from dataclasses import replace

    (job,) = cut(plans(tmp_path, "concat", folds=[0]), tmp_path)
    other = {"fuser": "0"} if what == "code" else "0"
    outcome = jobs.work(replace(job, **{what: other}))
    assert outcome.records == []
    assert f"another state of the {word}" in outcome.failures[0].error
    assert not list(tmp_path.glob("*/*/*.json"))


def test_an_edited_plugin_file_is_read_again_by_a_worker_that_lives_on(tmp_path: Path) -> None:
    mine = tmp_path / "concat_more.py"
    plugin(tmp_path, "concat_more")
    outcomes = []
    for line in ("ONE = 1", "TWO = 2"):
        mine.write_text(f"{mine.read_text()}\n{line}\n")
        local.registry._load_path.cache_clear()
        (job,) = cut(plans(tmp_path / "r", str(mine), folds=[0]), tmp_path / "r")
        outcomes.append(jobs.work(job))
    assert [len(o.records) for o in outcomes] == [2, 2]
    assert outcomes[0].records[0].code["fuser"] != outcomes[1].records[0].code["fuser"]


def test_slots_go_round_and_are_freed_by_the_death_of_their_holder(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib\nfrom fusionbench.jobs import local\n"
        "print(local._slot(pathlib.Path(sys.argv[1])), local._slot(pathlib.Path(sys.argv[1])), flush=True)\ninput()\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    first = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    assert first.stdout.readline() == "0 0\n"
    assert local._slot(tmp_path) == 1
    local._held.clear()
    first.kill()
    first.wait()
    assert local._slot(tmp_path) == 0
    local._held.clear()


# A cluster


@pytest.fixture(scope="module")
def dask_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """A scheduler and two workers on this machine: its address and its process."""
    pytest.importorskip("distributed", reason="the extra [dask] is not installed")
    from distributed import Client

    folder = tmp_path_factory.mktemp("dask")
    with (folder / "log").open("w") as log:

        def start(*words: str) -> subprocess.Popen[bytes]:
            return subprocess.Popen([sys.executable, "-m", "dask", *words], stderr=log, stdout=log, cwd=folder)

        here = ["--host", "127.0.0.1", "--no-dashboard"]
        running = [start("scheduler", *here, "--port", "0", "--scheduler-file", "scheduler.json")]
        alone = ["--nthreads", "1", "--no-nanny", "--memory-limit", "0"]
        running += [start("worker", *here, *alone, "--scheduler-file", "scheduler.json") for _ in range(2)]
        try:
            deadline = time.monotonic() + 60
            while not (folder / "scheduler.json").exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            with Client(scheduler_file=str(folder / "scheduler.json"), set_as_default=False) as client:
                client.wait_for_workers(2, timeout=60)
                planning.package.cache_clear()  # the files may have changed since the session began
                client.run(cluster.ping, str(folder))
                yield client.scheduler.address.replace("tcp://", "dask://"), running[0].pid
        finally:
            for process in running:
                process.kill()
                process.wait()


def test_workers_with_another_version_are_named(
    dask_cluster: tuple[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "package", lambda: "0123")
    with pytest.raises(UsageError, match=r"worker tcp://127.* has fusionbench of code .*, this is 0123: install"):
        obtain(tmp_path, "concat", cluster=dask_cluster[0])


def test_a_killed_worker_of_a_cluster_leaves_the_table_the_same(dask_cluster: tuple[str, int], tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    fragile = plugin(tmp_path, "fragile", once(tmp_path, KILL))
    whole, _ = obtain(a, "concat", fragile)
    found, failures = obtain(b, fragile, "concat", cluster=dask_cluster[0])
    assert (tmp_path / "marker").exists()
    assert failures == []
    assert_same_table(whole, found, (a, b))
    assert not list(b.glob(".jobs-*"))
    from distributed import Client

    with Client(dask_cluster[0].replace("dask://", "tcp://"), set_as_default=False) as client:
        # Otherwise Dask gives up what stood behind a killer in its queue, and joblib waits for it for ever.
        assert client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.allowed_failures) > 1000
    # One worker is left; joblib would otherwise stay in this process, where the deed is not done.
    done, failures = obtain(
        tmp_path / "c", plugin(tmp_path, "where", "raise OSError('there')"), cluster=dask_cluster[0]
    )
    assert (len(done), len(failures)) == (0, 6)
    assert failures[0].error == "OSError: there"


def test_a_lost_scheduler_is_one_line(dask_cluster: tuple[str, int], tmp_path: Path) -> None:
    """The last test of the cluster."""
    address, process = dask_cluster
    deed = f"os.kill({process}, signal.SIGKILL); __import__('time').sleep(5)"
    with pytest.raises(UsageError, match=r"the scheduler at dask://.* was lost .*: finished runs are on disk"):
        obtain(tmp_path, plugin(tmp_path, "fatal", deed), cluster=address)


def test_a_cell_that_has_killed_its_workers_is_not_begun_again(tmp_path: Path) -> None:
    from dataclasses import replace

    folder = tmp_path / ".jobs"
    folder.mkdir()
    (job,) = cut(plans(tmp_path, "concat", folds=[0]), tmp_path)
    job = replace(job, folder=str(folder))
    (folder / job.key).write_text("host 1\nhost 2\nhost 3\n")
    outcome = local.work_there(job)
    assert outcome.records == []
    assert "3 workers in turn were killed" in outcome.failures[0].error
    assert Path(outcome.failures[0].file).is_file()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (
            "dask://127.0.0.1:9",
            r"no Dask scheduler answers at dask://127.0.0.1:9 \(.*refused\); start one: dask",
        ),
        ("ray://127.0.0.1:8786", "--cluster takes dask://host:port or dask\\+tls://host:port, not 'ray://"),
        ("dask://127.0.0.1:port", "--cluster takes dask://host:port"),
    ],
)
def test_a_cluster_that_is_not_there_is_one_line_at_once(address: str, message: str, tmp_path: Path) -> None:
    asked = plans(tmp_path, "concat", folds=[0])
    began = time.monotonic()
    with pytest.raises(UsageError, match=message):
        list(jobs.execute(asked, tmp_path, cluster=address))
    assert time.monotonic() - began < 5


def test_an_open_address_without_encryption_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="neither password nor encryption"):
        assert cluster.address_of("dask://10.0.0.7") == ("tcp://10.0.0.7:8786", 8786)
    assert cluster.address_of("dask+tls://10.0.0.7:90") == ("tls://10.0.0.7:90", 90)
    assert cluster.address_of("dask://localhost:90") == ("tcp://localhost:90", 90)
    assert cluster.address_of("dask://[::1]:90") == ("tcp://[::1]:90", 90)


# What is shown


def test_lines_where_there_is_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = plans(tmp_path, "concat", folds=[0])[0].train[0]
    done = Record(run, "done", {}, "", 1, ["accuracy"])
    failure = jobs.Failure(run, "Traceback\nValueError: no\n", "there.error.txt")
    events = [jobs.Running(2), done, failure, jobs.Running(1, 0.5), done]
    assert list(jobs.watch(events, 4, "two rows", every=0.0)) == [done, failure, done]
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "two rows: 0 of 4 runs done, 2 jobs running, 0 failed"
    assert "failed: concat fold 0 seed 0: ValueError: no (all of it: there.error.txt)" in lines
    assert "two rows: 1 of 4 runs done, 1 job running, 1 failed, 0 s left" in lines
    assert lines[-1].startswith("two rows: 2 of 4 runs done, 0 jobs running, 1 failed")
    list(jobs.watch(events, 4, "two rows"))
    assert len(capsys.readouterr().err.splitlines()) == 2  # the failure and the end


def test_the_time_left_is_what_the_rest_takes_at_this_pace() -> None:
    state = progress._State(10, done=3, failed=1, part=1.0, began=time.monotonic() - 600)
    assert state.left == "10 min left"
    state.done = 8
    assert state.left == "0 s left"


def test_a_terminal_gets_one_live_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    run = plans(tmp_path, "concat", folds=[0])[0].train[0]
    done = Record(run, "done", {}, "", 1, ["accuracy"])
    failure = jobs.Failure(run, "ValueError: no", "there.error.txt")
    assert list(jobs.watch([jobs.Running(2), done, failure], 4, "two rows")) == [done, failure]
    shown = capsys.readouterr().err
    assert "1 of 4 runs, " in shown
    assert "failed: concat fold 0 seed 0: ValueError: no" in shown


def test_what_a_command_was_killed_before_mirroring_is_mirrored_by_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirrored: list[int] = []

    def killed(records: Sequence[Record], *rest: object, **how: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs.tracking, "sync", killed)
    with pytest.raises(KeyboardInterrupt):
        jobs.perform(plans(tmp_path, "concat", folds=[0]), tmp_path, "it", jobs=1)
    monkeypatch.setattr(jobs.tracking, "sync", lambda records, *rest, **how: mirrored.append(len(records)))
    done = jobs.perform(plans(tmp_path, "concat", folds=[0]), tmp_path, "it", jobs=1)
    assert (len(done.records), done.fresh, mirrored) == (2, [], [2])
    assert not list(tmp_path.glob(".unmirrored*"))
    jobs.perform(plans(tmp_path, "concat", folds=[0]), tmp_path, "it", jobs=1)
    assert mirrored == [2], "once is enough"

"""The command line: what a user types and reads, as a process where it matters that it is one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fusionbench import cli
from fusionbench.records import store
from fusionbench.text import counted

Finished = tuple[Path, subprocess.CompletedProcess[str]]
Command = Callable[..., subprocess.CompletedProcess[str]]
TOY = ["-b", "toy_xor", "--train.steps", "12", "--train.interval", "6", "--train.lr", "3e-3"]


def fusionbench(*words: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fusionbench", *map(str, words)],
        cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A folder in which concat has run on toy_xor: three folds, two seeds, mirrored to MLflow."""
    folder = tmp_path_factory.mktemp("study")
    done = fusionbench("run", "--fuser", "concat", *TOY, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_run_prints_an_estimate_and_its_answer(finished: Finished) -> None:
    folder, done = finished
    assert "0 runs on disk, 6 runs to train; estimate: " in done.stderr
    for word in ("> ", "concat", "accuracy", "score", "damaged", "parameters", "seconds", "chance", "reference"):
        assert word in done.stdout
    assert "[" in done.stdout  # the interval
    assert len(list(folder.glob("results/toy_xor/concat/*.json"))) == 6
    assert (folder / "mlflow.db").is_file()
    assert "\r" not in done.stderr  # no progress bar where there is no terminal


def test_running_again_does_only_what_is_missing(finished: Finished, command: Command) -> None:
    folder, _ = finished
    again = command("run", "--fuser", "concat", *TOY, "--no-track", cwd=folder)
    assert "all 6 runs are on disk" in again.stderr
    victim = sorted(folder.glob("results/toy_xor/concat/*.json"))[2]
    before = victim.read_text()
    victim.unlink()
    third = command("run", "--fuser", "concat", *TOY, "--no-track", cwd=folder)
    assert "5 runs on disk, 1 run to train" in third.stderr
    old, new = json.loads(before), json.loads(victim.read_text())
    for condition, scores in old["scores"].items():  # it was stacked the first time: equal but for rounding
        assert scores == pytest.approx(new["scores"][condition], abs=1e-4)


def test_a_damaged_record_is_named_set_aside_and_done_again(finished: Finished, command: Command) -> None:
    folder, _ = finished
    victim = sorted(folder.glob("results/toy_xor/concat/*.json"))[0]
    victim.write_text(victim.read_text()[:200])
    done = command("run", "--fuser", "concat", *TOY, "--no-track", cwd=folder)
    assert done.returncode == 0
    assert f"{victim.name} is damaged" in done.stderr
    assert victim.with_name(victim.name + ".quarantined").is_file()
    assert victim.is_file()


def test_leaderboard_and_records_read_the_same_folder(finished: Finished, command: Command) -> None:
    folder, _ = finished
    table = command("leaderboard", cwd=folder)
    assert table.returncode == 0
    assert "toy_xor" in table.stdout
    assert command("leaderboard", "--format", "json", cwd=folder).stdout.strip().startswith(("[", "{"))
    listed = command("records", "list", cwd=folder)
    assert len(listed.stdout.splitlines()) == 6


def test_quick_is_marked_and_presets_are_named(command: Command, tmp_path: Path) -> None:
    done = command("run", "--fuser", "jmt", "-b", "toy_xor", "--quick", "--no-track", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "quick" in done.stdout
    (item,) = store.load(tmp_path / "results")
    assert item.marks == ["quick"]
    refused = command("run", "--fuser", "jmt", "-b", "toy_xor", "--preset", "papper", cwd=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr == "error: no preset of jmt is called 'papper'; did you mean paper?\n"


def test_flags_of_every_part_reach_the_record(command: Command, tmp_path: Path) -> None:
    done = command(
        "run", "-f", "gated", *TOY, "--seeds", "0,", "--folds", "1", "--benchmark.noise=0.5", "--backbone.left", "tcn",
        "--backbone.left.dim", "32", "--fuser.width", "64", "--train.modality_dropout", "0.2", "--no-track",
        "-c", "frames:right:3", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (item,) = store.load(tmp_path / "results")
    assert item.run.backbones == {"left": "tcn", "right": "identity"}
    assert item.run.hparams["backbone.left"]["dim"] == 32
    assert item.run.hparams["benchmark"]["noise"] == 0.5
    assert item.run.hparams["fuser"]["width"] == 64
    assert item.run.hparams["train"]["modality_dropout"] == 0.2
    assert "frames:right:3" in item.scores


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "--fuser", "jnt"], "no fuser is called 'jnt'; did you mean jmt?"),
        (["run", "--fuser", "concat", "--fuser.widht", "3"], "no hyper-parameter of concat is called 'widht'"),
        (["run", "--fuser", "concat", "--seedz", "3"], "no flag is called '--seedz'; did you mean --seeds?"),
        (["run", "--fuser", "concat", "--seeds", "x"], "--seeds takes a number"),
        (["run", "--fuser", "concat", "--fuser.width", "wide"], "width takes a whole number, not 'wide'"),
        (["run", "--fuser", "concat", "-c", "noize:left"], "no corruption is called 'noize'; did you mean noise?"),
        (["run", "--fuser", "concat", "-b", "toy_xor", "-c", "noise:left:6"], "severities of noise are 0 to 5, not 6"),
        (["run", "--fuser", "concat", "-b", "toy_xor", "-c", "noise:up"], "there is no modality 'up'"),
        (["run", "--fuser", "concat", "stray"], "unexpected argument 'stray'"),
        (["run", "--fuser", "./none.py"], "there is no plugin file ./none.py"),
        (["run", "--fuser", "broken.py"], "plugin file broken.py does not import: ZeroDivisionError"),
        (["run", "--fuser", "double.py"], "defines exactly one Fuser, this one One, Two"),
        (["run", "--fuser", "concat", "--results", "/proc/none"], "the results folder /proc/none cannot be written"),
        (["run", "--fuser", "concat", "--device", "warp"], "device 'warp' cannot be used"),
        (["runn"], "no command is called 'runn'; did you mean run?"),
        (["info", "jnt"], "no plugin is called 'jnt'; did you mean jmt?"),
        (["list", "fuser"], "'fuser' is not one of"),
        (["leaderboard"], "no records"),
        (["compare", "concat", "--cross", "modality_dropout"], "--cross takes"),
        (["compare"], "compare what?"),
        (["missing-grid", "concat", "--rates", "1.2"], "--rates takes rates in [0, 1)"),
        (["new", "fuser", "My-Fuser"], "'My-Fuser' cannot name a fuser"),
    ],
)
def test_bad_input_gets_one_line_and_status_2(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "double.py").write_text(
        "from fusionbench.api import Fuser\nclass One(Fuser): ...\nclass Two(Fuser): ...\n"
    )
    # In this process: importing torch for each of these in its own would take a minute.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fusionbench", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert end.value.code == 2
    assert message in line
    assert not list(tmp_path.glob("results/*/*"))


def test_check_says_how_many_ran_and_new_writes_what_passes_it(command: Command, tmp_path: Path) -> None:
    done = command("new", "fuser", "my_mix", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    package = tmp_path / "fusionbench-my-mix"
    written = package / "fusionbench_my_mix" / "__init__.py"
    mine = tmp_path / "my_mix.py"
    mine.write_text(written.read_text())
    checked = command("check", "./my_mix.py", cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout
    assert "checks ran in" in checked.stdout
    (tmp_path / "deaf.py").write_text(mine.read_text().replace("self.joint(torch", "self.joint(0 * torch"))
    broken = command("check", "deaf.py", "--only", "every_modality_matters", cwd=tmp_path)
    assert broken.returncode == 1
    assert "FAILED" in broken.stdout


def test_help_lists_hyper_parameters_with_ranges(command: Command, tmp_path: Path) -> None:
    shown = command("run", "--fuser", "jmt", "--help", cwd=tmp_path).stdout
    for word in ("--fuser.readout", "last | mean", "--train.lr", "0.0001 to 0.03, log", "--backbone.acc.dim"):
        assert word in shown


def test_list_finds_everything_and_verify_imports_it(command: Command, tmp_path: Path) -> None:
    shown = command("list", cwd=tmp_path).stdout
    for word in ("fusers:", "jmt", "backbones:", "tcn", "benchmarks:", "watch", "corruptions:", "noise"):
        assert word in shown
    assert "noise:acc" in command("list", "corruptions", "--benchmark", "watch", cwd=tmp_path).stdout
    verified = command("list", "fusers", "--verify", cwd=tmp_path)
    assert verified.returncode == 0
    assert "BROKEN" not in verified.stdout


def test_an_unreachable_tracking_server_is_a_warning(tmp_path: Path) -> None:
    done = fusionbench(
        "run", "-f", "concat", *TOY, "--seeds", "1", "--folds", "1", cwd=tmp_path,
        MLFLOW_TRACKING_URI="http://127.0.0.1:9",
    )  # fmt: skip
    assert done.returncode == 0
    assert "warning: MLflow at http://127.0.0.1:9 did not take the runs" in done.stderr
    assert len(list(tmp_path.glob("results/toy_xor/concat/*.json"))) == 1


def test_an_interrupted_command_keeps_what_is_finished_and_goes_on(command: Command, tmp_path: Path) -> None:
    # Sixty runs are several programs one after another, so that most are still to come when the first is on disk.
    words = ["run", "-f", "concat", "-b", "toy_xor", "--seeds", "20", "--jobs", "1", "--no-track"]
    words += ["--train.steps", "60", "--train.interval", "30", "--train.lr", "1e-3"]
    process = subprocess.Popen(
        [sys.executable, "-m", "fusionbench", *words], cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background inherit it ignored
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("results/toy_xor/concat/*.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"the same command goes on from there" in said
    kept = len(list(tmp_path.glob("results/toy_xor/concat/*.json")))
    assert 1 <= kept < 60
    again = command(*words, cwd=tmp_path)
    assert f"{counted(kept, 'run')} on disk, {counted(60 - kept, 'run')} to train" in again.stderr


def test_missing_grid_and_compare_in_one_command_each(command: Command, tmp_path: Path) -> None:
    grid = command(
        "missing-grid", "concat", "-b", "toy_xor", "--rates", "0,0.5", "--seeds", "1", "--folds", "1",
        "--train.steps", "12", "--train.interval", "6", "--train.lr", "3e-3", "--no-track", cwd=tmp_path,
    )  # fmt: skip
    assert grid.returncode == 0, grid.stderr
    assert "trained at 0.5" in grid.stdout
    assert "realised rate" in grid.stdout
    (half,) = [line for line in grid.stdout.splitlines() if "trained at 0.5" in line]
    assert 0.3 < float(half.split()[3]) < 0.5  # one of two modalities is always kept
    compared = command(
        "compare", "gated", "-b", "toy_xor", "--seeds", "2", "--folds", "1", "--lattice", "--gated.width", "64",
        "--cross", "train.modality_dropout=0,0.3", "--train.steps", "12", "--train.interval", "6",
        "--train.lr", "3e-3", "--no-track", cwd=tmp_path,
    )  # fmt: skip
    assert compared.returncode == 0, compared.stderr
    for word in ("gated", "late_average", "concat", "unimodal", "modality_dropout"):
        assert word in compared.stdout

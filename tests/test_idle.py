"""The idle share is counted from what the driver says; without a driver there is one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import idle
import pytest

SCRIPT = Path(idle.__file__)


def test_idle_is_the_rest_between_the_first_kernel_and_the_last() -> None:
    assert idle.idle([0, 0, 0.5, 1, 0, 0.5, 0]) == pytest.approx(1 - 2 / 4)
    assert idle.idle([0, 0]) is None


def test_a_command_is_watched_while_it_runs_and_its_status_kept() -> None:
    shares = iter([0.0, *[1.0] * 1000])
    status, seconds, said = idle.watched(
        [sys.executable, "-c", "import time; time.sleep(0.7); exit(3)"], shares.__next__
    )
    assert status == 3
    assert 0.7 <= seconds < 20
    assert said
    assert set(said) == {1.0}, "the first answer is of before"


def test_without_a_driver_nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    made = tmp_path / "made"
    command = [sys.executable, str(SCRIPT), sys.executable, "-c", f"open({str(made)!r}, 'w')"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "nvidia-smi names no GPU here\n")
    assert not made.exists()


def test_a_command_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho 0\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    done = subprocess.run([sys.executable, str(SCRIPT), "nowhere"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "nowhere cannot be run: No such file or directory\n"

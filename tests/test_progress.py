"""A bar for what takes a moment, on a terminal only, whether the work says how far it is or not."""

from __future__ import annotations

import io
import sys
import time

import pytest

from fusionbench import progress
from fusionbench.jobs.progress import _State


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Called by a test itself: between a fixture and its test, pytest puts its own standard error back."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    return screen


def wait_for(text: str, terminal: Terminal) -> None:
    limit = time.monotonic() + 60
    while text not in terminal.getvalue():
        assert time.monotonic() < limit, terminal.getvalue()
        time.sleep(0.01)


def test_silent_work_shows_a_bar_which_is_gone_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = at_a_terminal(monkeypatch)
    with progress.bar("long work", patience=0.0):
        wait_for("long work", terminal)
    assert terminal.getvalue().endswith("\x1b[2K")


def test_work_that_is_soon_done_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = at_a_terminal(monkeypatch)
    with progress.bar("short work", patience=600) as advance:
        advance(1, 2)
    assert terminal.getvalue() == ""


def test_where_there_is_no_terminal_there_is_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.bar("long work", patience=0.0) as advance:
        advance(1, 2)
    assert capsys.readouterr().err == ""


def test_a_bar_is_gone_when_its_work_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = at_a_terminal(monkeypatch)

    def failing() -> None:
        with progress.bar("long work", patience=0.0):
            wait_for("long work", terminal)
            raise ValueError("by design")

    with pytest.raises(ValueError, match="by design"):
        failing()
    assert "\x1b[?25h" in terminal.getvalue()  # the cursor is back


def test_the_counts_beside_a_bar_leave_room_at_80_columns() -> None:
    state = _State(total=9999, done=9998, jobs=64, failed=123)
    state.began -= 1e6
    assert len(state.brief) + len(" ") * 2 + 10 + 12 <= 80

"""The fuzzer notices what no command may do, and throws something at every command. CI runs it on 1,000 inputs."""

from __future__ import annotations

import random
from pathlib import Path

import fuzz  # of bench/
import pytest
from fuzzing import DATA, commands

from fusionbench import cli

LINE = "error: no fuser is called 'x'\n"


@pytest.mark.parametrize(
    ("status", "out", "error", "reason"),
    [
        (0, "a table\n", "warning: x is damaged\n", ""),
        (1, "", "failed: concat fold 0 seed 0: by design\n", ""),
        (2, "", LINE, ""),
        (2, "", "warning: x is damaged\n" + LINE, ""),
        (2, "", "", "status 2 without its one line"),
        (2, "", LINE + LINE, "status 2 without its one line"),
        (0, "", "failed: concat fold 0 seed 0: by design\n", "status 0, though something failed"),
        (0, "", LINE, "status 0, though something failed"),
        (-14, "", "", "status -14"),
        (70, "", "", "status 70"),
        (1, "", "Traceback (most recent call last):\n  ...\n", "a traceback"),
        (0, "Traceback (most recent call last):\n  ...\n", "", "a traceback"),
    ],
)
def test_what_no_command_may_do_is_noticed(status: int, out: str, error: str, reason: str) -> None:
    assert fuzz.wrong(status, out, error) == reason


def test_something_is_thrown_at_every_command() -> None:
    thrown = {words[0] for seed in range(600) if (words := commands.commands(random.Random(seed), Path()))}
    assert set(cli.COMMANDS) <= thrown


@pytest.mark.parametrize("name", DATA)
def test_an_input_is_the_same_for_the_same_seed(tmp_path: Path, name: str) -> None:
    def written(folder: Path) -> dict[str, bytes]:
        folder.mkdir()
        DATA[name](random.Random(name), folder)
        return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file() and p.suffix in (".csv", ".toml")}

    assert written(tmp_path / "a") == written(tmp_path / "b")

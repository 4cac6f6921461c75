"""A thousand broken inputs: no traceback, no wrong exit status."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("inputs", "seed", "cases"),
    [(300, 0, "commands,studies"), (400, 1, "records,damaged"), (160, 2, "plugins"), (140, 3, "data")],
)
def test_broken_inputs_end_in_one_line(inputs: int, seed: int, cases: str) -> None:
    words = ["--inputs", str(inputs), "--seed", str(1_000_000 * (seed + 1)), "--only", cases, "--show"]
    command = [sys.executable, str(ROOT / "bench" / "fuzz.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert f"{inputs} inputs, 0 findings" in done.stdout

"""One thread a worker: tests run side by side, and spinning threads starve one another. And the command line."""

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

for name, value in {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "MKL_NUM_THREADS": "1"}.items():
    os.environ.setdefault(name, value)
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.fixture(scope="session")
def command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`fusionbench WORDS` in a folder, in this process: to import torch in one of its own takes three seconds.

    What is mirrored to MLflow needs a process: MLflow keeps the database that it has opened first.
    """
    from fusionbench import cli

    def call(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
        out, err, line = io.StringIO(), io.StringIO(), ["fusionbench", *map(str, words)]
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            patch.chdir(cwd)
            patch.setattr(sys, "argv", line)
            with pytest.raises(SystemExit) as end:
                cli.main()
        return subprocess.CompletedProcess(line, int(end.value.code or 0), out.getvalue(), err.getvalue())

    return call

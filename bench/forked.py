"""Commands in processes forked after the imports: a command then takes as long as its work, not as Python's start."""

from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

OUT, ERR = ".out", ".err"  # what a command prints, in its folder


def import_everything() -> None:
    """Everything that a command imports, once: a forked process finds it there."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"  # before torch starts threads: they do not survive a fork
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    import jinja2  # noqa: F401
    import optuna  # noqa: F401
    import safetensors.torch  # noqa: F401
    import torch._dynamo  # that torch imports when it profiles

    import fusionbench
    from fusionbench import registry

    torch.set_num_threads(1)
    for module in pkgutil.walk_packages([str(Path(fusionbench.__file__).parent)], "fusionbench."):
        if not module.name.endswith("__main__"):
            with contextlib.suppress(ImportError):  # of an optional library
                importlib.import_module(module.name)
    for kind in registry.KINDS:
        for plugin in registry.names(kind):
            registry.load(kind, plugin)


def start(words: Sequence[str], folder: Path, before: Callable[[], None] = lambda: None) -> int:
    """The process of `fusionbench WORDS` in that folder; `before` is called in it first."""
    if child := os.fork():
        return child
    _run(words, folder, before)
    raise AssertionError


def wait(child: int) -> int:
    """Its exit status, negative if a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run(words: Sequence[str], folder: Path, before: Callable[[], None] = lambda: None) -> int:
    """The exit status of `fusionbench WORDS` in that folder."""
    return wait(start(words, folder, before))


def _run(words: Sequence[str], folder: Path, before: Callable[[], None]) -> None:
    """Never returns."""
    from fusionbench import cli

    status = 70
    try:
        os.chdir(folder)
        os.environ["FUSIONBENCH_HOME"] = str(folder / "home")
        for number, name in ((1, OUT), (2, ERR)):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
        before()
        sys.argv = ["fusionbench", *words]
        cli.main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(status)

"""The flags of every command that trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

#: `None` where all seeds share one partition.
PARTITION = click.option(
    "--partition", type=click.Choice(["per-seed"]), help="Each seed deals the groups into folds again."
)


def options(command: Any) -> Any:
    """The flags of every command that trains."""
    for option in reversed([
        click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1"),
        click.option("--results", type=click.Path(path_type=Path), default=Path("results"), show_default=True),
        click.option("--jobs", "-j", type=click.IntRange(1), help="Processes on this machine.  [default: by the work]"),
        click.option("--cluster", metavar="dask://HOST:PORT", help="Workers of a Dask cluster; see docs/cluster.md."),
        click.option("--stack", type=click.IntRange(1), help="Members trained in one program.  [default: by size]"),
        click.option("--no-track", is_flag=True, help="Leave MLflow out."),
        click.option("--track-artifacts", is_flag=True, help="Log weights and answers to MLflow too."),
    ]):  # fmt: skip
        command = option(command)
    return command

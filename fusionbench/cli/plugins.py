"""`fusionbench check` and `new`: check a plugin, or begin one."""

from __future__ import annotations

from pathlib import Path

import click

from fusionbench import registry
from fusionbench.cli.catalogue import find
from fusionbench.cli.flags import completed
from fusionbench.errors import UsageError


@click.command("check")
@click.argument("names", nargs=-1, required=True, metavar="NAME|FILE.py...", shell_complete=completed(*registry.KINDS))
@click.option("--only", multiple=True, metavar="CHECK", help="One check; may be repeated.")
def check_command(names: tuple[str, ...], only: tuple[str, ...]) -> int:
    """Check plugins with the conformance kit: a line per check, and how many ran. Exit status 0 or 1.

    A name may also be a kind, as `fusers`: then all of that kind.
    """
    from fusionbench import check, progress

    chosen = []
    for name in names:
        if name in registry.KINDS:
            chosen += [(name, each) for each in registry.names(name)]
        else:
            kind, _ = find(name)
            chosen.append((kind, name.partition(":")[2] or name if not registry.is_path(name) else name))
    broken = 0
    for kind, name in chosen:
        with progress.bar(f"checking {name}"):
            report = check.report(kind, name, only)
        click.echo(str(report))
        broken += not report.ok
    if len(chosen) > 1:
        click.echo(f"{len(chosen) - broken} of {len(chosen)} plugins conform")
    return 1 if broken else 0


@click.group("new")
def new_command() -> None:
    """Begin a plugin as a small package that can be installed and published."""


@new_command.command("fuser")
@click.argument("name")
@click.option("--into", type=click.Path(path_type=Path), default=Path("."), help="Where its folder goes.")
def new_fuser(name: str, into: Path) -> int:
    """A package with one fuser, its two-line test and its entry point."""
    if not name.isidentifier() or not name.islower():
        raise UsageError(f"{name!r} cannot name a fuser: use lower-case letters, digits and underscores, as my_fuser")
    if name in registry.names("fusers"):
        raise UsageError(f"{name!r} is taken by {registry.names('fusers')[name]}")
    folder = into / f"fusionbench-{name.replace('_', '-')}"
    if folder.exists():
        raise UsageError(f"{folder} exists already")
    files = {
        "pyproject.toml": PYPROJECT,
        f"{PREFIX}{name}/__init__.py": MODULE,
        f"tests/test_{name}.py": TEST,
        "README.md": README,
    }
    try:
        for path, text in files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            filled = text.replace("NAME", name).replace("CLASS", name.title().replace("_", ""))
            target.write_text(filled.replace("PREFIX", PREFIX))
    except OSError as error:
        raise UsageError(f"cannot write {folder}: {error.strerror}; try --into DIR") from None
    click.echo(f"{folder}: pip install -e {folder}, then fusionbench check {name} and fusionbench run --fuser {name}")
    return 0


PREFIX = "fusionbench_"

PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "fusionbench-NAME"
version = "0.1.0"
dependencies = ["mm-fusionbench"]

[project.entry-points."fusionbench.fusers"]
NAME = "PREFIXNAME"

[tool.hatch.build.targets.wheel]
packages = ["PREFIXNAME"]
"""

MODULE = '''\
"""NAME: one sentence on what it computes. Paper, year, link."""

from typing import Annotated

import torch
from torch import nn

from fusionbench.api import Choice, Fuser, Head


class CLASS(Fuser):
    def __init__(self, spec, *, width: Annotated[int, Choice(64, 128, 256), "width of the joint layer"] = 128):
        super().__init__(spec)
        self.joint = nn.Linear(sum(spec.dims.values()), width)
        self.head = Head(width, spec.out)

    def forward(self, streams):
        steps = [self.pool(streams[m]).x for m in self.spec.dims]  # (B, S, dims[m]) each
        return self.head(self.joint(torch.cat(steps, -1)))
'''

TEST = """\
from fusionbench.check import report


def test_NAME(): assert (r := report("fusers", "NAME")).ok, r
"""

README = """\
# fusionbench-NAME

A fuser for fusionbench: `pip install -e .`, `fusionbench check NAME`, `fusionbench run --fuser NAME`.
"""

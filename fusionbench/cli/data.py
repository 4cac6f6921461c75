"""`fusionbench data`: get public data, describe and check your own."""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fusionbench import text

if TYPE_CHECKING:
    from fusionbench.harness import Setup

SETTINGS = {"ignore_unknown_options": True, "allow_extra_args": True}


@click.group("data")
def data_command() -> None:
    """Get public data, check your own (docs/your-own-data.md)."""


@data_command.command("get")
@click.argument("name", required=False)
@click.option("--from", "source", metavar="FILE|DIR", help="An archive or folder that is here already.")
@click.option("--accept", is_flag=True, help="Accept the licence without being asked.")
@click.pass_context
def get_data(ctx: click.Context, name: str | None, source: str | None, accept: bool) -> int:
    """Download public data, check every file, unpack; a broken download goes on where it stopped.

    Shows licence and citation, and asks once. Without a NAME: what there is.
    """
    from fusionbench import data

    if name is None:
        click.echo(ctx.get_help() + "\n\nData sets:")
        for known in map(data.manifest, data.names()):
            how = "" if known.urls else "; fetched by hand, then --from"
            line = f"  {known.name:<16}{known.title}, licence {known.licence}{how}"
            click.echo(text.wrap(line, text.terminal_width(), " " * 18))
        return 0
    wanted = data.manifest(name)
    click.echo(wanted.terms)
    if not data.is_there(name) and (source or wanted.urls):
        _accept(name, accept)
    shown = sys.stderr.isatty()

    def progress(done: int, total: int) -> None:
        if shown:
            print(f"\r{done / 1e6:.0f} of {total / 1e6:.0f} MB", end="", file=sys.stderr)

    line = data.get(name, source, progress)
    if shown:
        print(file=sys.stderr)
    click.echo(line)
    return 0


def _accept(name: str, given: bool) -> None:
    """Asks whether the user accepts the terms, unless they have: once for each data set.

    Raises:
        UsageError: they do not, or nobody is there to be asked.
    """
    from fusionbench import data
    from fusionbench.errors import UsageError

    if data.is_accepted(name):
        return
    try:
        accepted = given or click.confirm("Do you accept its licence, and will you cite it?")
    except click.Abort:  # nobody answers
        accepted = False
    if not accepted:
        raise UsageError(f"{name} was not fetched: its licence was not accepted (--accept does so without asking)")
    data.accept(name)


@data_command.command("check", context_settings=SETTINGS)
@click.argument("path")
@click.pass_context
def check_data(ctx: click.Context, path: str) -> int:
    """What is in the data, and what is wrong with it: leaks, duplicates across splits, dead columns.

    PATH is an .npz file, a folder with benchmark.toml, a .py plugin, or a benchmark's name: --benchmark.root DIR then
    says where its data are. Exit status 1: something is wrong; 2: `run` would refuse the data.
    """
    from fusionbench import data
    from fusionbench.cli.flags import dotted

    lines = data.check(path, dotted(ctx).hparams.get("benchmark"))
    for line in lines:
        click.echo(text.wrap(line, text.terminal_width(), "  "))
    return 1 if any(line.startswith("wrong: ") for line in lines) else 0


@data_command.command("init")
@click.argument("folder", type=click.Path(path_type=Path))
def init_data(folder: Path) -> int:
    """Look at the tables or arrays of FOLDER and write a commented benchmark.toml there.

    What it says is a guess: read it, then `fusionbench data check FOLDER`.
    """
    from fusionbench.custom_data import draft
    from fusionbench.errors import UsageError
    from fusionbench.paths import path_of
    from fusionbench.records import store

    target = path_of(str(folder)) / "benchmark.toml"
    if target.exists():
        raise UsageError(f"{folder} has a benchmark.toml: delete it first, or go on: fusionbench data check {folder}")
    text = draft.draft(target.parent)
    try:
        store.write(target, lambda file: file.write(text.encode()))
    except OSError as error:
        raise UsageError(f"{target} cannot be written: {error.strerror}") from None
    click.echo(text, nl=False)
    click.echo(f"written to {target}; read it through, then: fusionbench data check {folder}", err=True)
    return 0


@data_command.command("encode", context_settings=SETTINGS)
@click.option("--benchmark", "-b", required=True, metavar="NAME|PATH")
@click.option("--skip-bad", is_flag=True, help="Leave broken files out.")
@click.pass_context
def encode_data(ctx: click.Context, benchmark: str, skip_bad: bool) -> int:
    """Encode raw media through their frozen backbones, once; a broken encoding goes on where it stopped.

    Settings as for `run`: --benchmark.root DIR, --backbone.face r3d_18, --backbone.face.weights FILE.
    """
    from fusionbench import harness
    from fusionbench.cli.flags import dotted

    given = dotted(ctx)
    if skip_bad:
        given.hparams.setdefault("benchmark", {})["skip_bad"] = "true"
    setup = harness.setup(benchmark, "concat", given.backbones, given.hparams)
    encode(setup)
    encoded = ", ".join(setup.prepared.digests) or "nothing: no modality has a frozen backbone"
    click.echo(f"{setup.benchmark_name}: {len(setup.data)} samples; encoded: {encoded}")
    return 0


def encode(setup: Setup) -> None:
    """Loads the data, its raw media through their frozen backbones; a bar for each modality on a terminal."""
    from fusionbench import progress

    for modality, events in groupby(setup.dataset.encode(), key=lambda event: event.modality):
        with progress.bar(f"encoding {modality}") as advance:
            for event in events:
                advance(event.done, event.total)


@data_command.command("cache")
@click.argument("what", type=click.Choice(["list", "verify", "prune"]), default="list")
@click.option("--unused-days", type=float, default=30.0, show_default=True, help="With prune: not used for so long.")
@click.argument("keys", nargs=-1)
def cache_data(what: str, unused_days: float, keys: tuple[str, ...]) -> int:
    """List, verify or prune the encoded features (in FUSIONBENCH_HOME, or where XDG says)."""
    from fusionbench import features

    if what == "verify":
        broken = 0
        for entry, damaged in features.verify(keys):
            broken += damaged
            click.echo(f"{entry.key}  {f'{damaged} chunks damaged, made again at next use' if damaged else 'ok'}")
        return 1 if broken else 0
    if what == "prune":
        for entry in features.prune(keys, 0.0 if keys else unused_days):
            click.echo(f"{entry.key}  removed, {entry.bytes / 1e6:.1f} MB")
        return 0
    for entry in features.entries():
        damage = f"  {entry.damage}" if entry.damage else ""
        size = f"{entry.done} of {entry.total} samples, {entry.bytes / 1e6:.1f} MB"
        click.echo(f"{entry.key}  {entry.modality}  {entry.backbone}  {size}{damage}")
    return 0

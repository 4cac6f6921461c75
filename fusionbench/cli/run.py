"""`fusionbench run`: one fuser, one benchmark, every fold and seed that is not on disk yet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fusionbench.cli import work
from fusionbench.cli.flags import Given, completed, dotted, numbers
from fusionbench.errors import UsageError

PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


@click.command("run", context_settings=PASS_ON)
@click.option(
    "--fuser",
    "-f",
    metavar="NAME|FILE.py",
    shell_complete=completed("fusers"),
    help="The fusion method; `fusionbench list fusers`.",
)
@click.option(
    "--benchmark",
    "-b",
    default="watch",
    show_default=True,
    metavar="NAME|PATH",
    shell_complete=completed("benchmarks"),
    help="The data and task.",
)
@click.option("--seeds", metavar="N|LIST", help="5: seeds 0 to 4; 0,3: these two.  [default: the benchmark's]")
@click.option("--folds", metavar="N|LIST", help="In the same way.  [default: all]")
@click.option("--corruption", "-c", multiple=True, metavar="NAME:MODALITY[:1-5]", help="More damage; may be repeated.")
@click.option("--quick", is_flag=True, help="One fold, one seed, few steps; marked as such and never ranked.")
@click.option("--preset", metavar="NAME", help="Settings that the fuser names, as `paper`.")
@click.option("--tuned", is_flag=True, help="With the settings that `fusionbench tune` found for each fold.")
@work.PARTITION
@click.option("--skip-bad", is_flag=True, help="Leave broken files out; the record says how many.")
@work.options
@click.option("--help", "-h", "help_", is_flag=True, help="With --fuser: its hyper-parameters too.")
@click.pass_context
def run_command(ctx: click.Context, fuser: str | None, help_: bool, **options: Any) -> int:
    """Train one fuser on one benchmark and print what it came to.

    Every hyper-parameter is a flag: --fuser.width 128, --train.lr 1e-3, --benchmark.noise 0.5, --backbone.acc tcn,
    --backbone.acc.dim 64. `fusionbench run --fuser NAME --help` lists them.
    """
    if help_ or fuser is None:
        click.echo(ctx.get_help())
        if fuser is not None:
            click.echo(_flag_help(fuser, options["benchmark"], dotted(ctx)))
        elif not help_:
            raise UsageError("which fuser? fusionbench run --fuser jmt; `fusionbench list fusers` names them")
        return 0
    return run(fuser, dotted(ctx), **options)


def run(
    fuser: str,
    given: Given,
    benchmark: str,
    seeds: str | None,
    folds: str | None,
    corruption: tuple[str, ...],
    quick: bool,
    preset: str | None,
    tuned: bool,
    partition: str | None,
    skip_bad: bool,
    results: Path,
    **how: Any,
) -> int:
    """Does what is missing, prints what it came to; the exit status."""
    asked = {"seeds": numbers(seeds, "seeds"), "folds": numbers(folds, "folds")}
    from fusionbench import jobs, study
    from fusionbench.cli.data import encode

    def begin(setup: Any) -> None:
        check_writable(results)
        encode(setup)

    if skip_bad:
        given.hparams.setdefault("benchmark", {})["skip_bad"] = "true"
    plans = study.plan_run(
        fuser,
        benchmark,
        results=results,
        backbones=given.backbones,
        given=given.hparams,
        preset=preset,
        corruption=corruption,
        quick=quick,
        tuned=tuned,
        partition=partition or "",
        begin=begin,
        **asked,
    )
    setup = plans[0].setup
    title = f"{' '.join([setup.names['fuser'], *setup.changes])} on {setup.benchmark_name}"
    done = jobs.perform(plans, results, title, say=say, track=not how.pop("no_track"), **how)
    from fusionbench.cli.answer import answer

    click.echo(answer(results, setup.benchmark_name, [r.run.id for r in done.records]), nl=False)
    return 0 if done.ok else 1


def say(line: str) -> None:
    """A line on standard error, broken at words where a terminal would break it anywhere."""
    import sys

    from fusionbench import text

    click.echo(text.wrap(line, text.terminal_width(), "  ") if sys.stderr.isatty() else line, err=True)


def check_writable(results: Path) -> None:
    """Fails before any work is done if the results cannot be kept; makes no folder, for it may come to nothing."""
    import contextlib
    import os

    missing = [folder for folder in (results, *results.parents) if not folder.exists()]
    try:
        results.mkdir(parents=True, exist_ok=True)
        if not os.access(results, os.W_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise UsageError(
            f"the results folder {results} cannot be written: {error.strerror}; try --results DIR"
        ) from None
    with contextlib.suppress(OSError):  # somebody has begun to write there
        for folder in missing:
            folder.rmdir()


def _flag_help(fuser: str, benchmark: str, given: Given) -> str:
    from fusionbench import contract, hparams, registry
    from fusionbench.engine import Recipe

    maker = registry.load("benchmarks", benchmark)
    parts = {"fuser": registry.load("fusers", fuser), "train": Recipe, "benchmark": maker}
    protocol = contract.make(maker, {}, benchmark)
    shapes = protocol.shapes
    for m in shapes:
        name = given.backbones.get(m, protocol.backbones.get(m, ("identity", {}))[0])
        parts[f"backbone.{m}"] = registry.load("backbones", name)
    formatter = click.HelpFormatter(width=110)
    with formatter.section("Hyper-parameters (search range in brackets)"):
        rows = [
            (f"--{part}.{h.name}", f"{h.help} [{h.domain or 'not searched'}]  default: {_spell(h.default)}")
            for part, target in parts.items()
            for h in hparams.read(target).values()
        ]
        formatter.write_dl(rows)
    return formatter.getvalue()


def _spell(value: Any) -> str:
    return ",".join(f"{v:g}" for v in value) if isinstance(value, tuple) else repr(value) if value == "" else str(value)

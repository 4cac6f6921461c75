"""`fusionbench tune`: search on validation data only, the same budget for every fuser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fusionbench.cli.compare import split
from fusionbench.cli.flags import completed, numbers
from fusionbench.cli.run import PASS_ON, check_writable
from fusionbench.errors import UsageError


@click.command("tune", context_settings={**PASS_ON, "help_option_names": ["-h", "--help"]})
@click.argument("fusers", nargs=-1, shell_complete=completed("fusers"))
@click.option(
    "--benchmark", "-b", default="watch", show_default=True, metavar="NAME|PATH", shell_complete=completed("benchmarks")
)
@click.option("--trials", type=int, help="Finished trials an outer fold.  [default: 20]")
@click.option("--budget", type=int, help="Instead: optimiser steps an outer fold.")
@click.option("--sampler", default="tpe", show_default=True, help="tpe, random or gp")
@click.option("--storage", metavar="URL", help="A database for many machines.  [default: a file beside the records]")
@click.option("--folds", metavar="N|LIST", help="Outer folds.  [default: all]")
@click.option("--inner", type=click.IntRange(2), default=4, show_default=True, help="Inner folds, by person.")
@click.option("--seeds", type=click.IntRange(1), default=2, show_default=True, help="Seeds of a trial.")
@click.option("--seed", type=int, default=0, show_default=True, help="The sampler's.")
@click.option("--at-once", type=click.IntRange(1), default=1, show_default=True, help="Trials asked for at one time.")
@click.option("--device", default="auto", show_default=True)
@click.option("--results", type=click.Path(path_type=Path), default=Path("results"), show_default=True)
@click.option("--no-track", is_flag=True, help="Leave MLflow out.")
@click.pass_context
def tune_command(
    ctx: click.Context, benchmark: str, trials: int | None, budget: int | None, folds: str | None, results: Path,
    no_track: bool, **options: Any,
) -> int:  # fmt: skip
    """Search each fuser's declared ranges, nested in the outer folds; `run --tuned` uses what is found.

    Dotted flags hold a value: --train.weight_decay 0.01, --backbone.acc.dim 64. Safe to interrupt and to run again.
    """
    names, dotted = split([*options.pop("fusers"), *ctx.args])
    if not names:
        raise UsageError("tune what? fusionbench tune jmt concat -b watch --trials 20")
    outer = numbers(folds, "folds")
    check_writable(results)
    from fusionbench import harness, progress, search, tracking

    shared = {part: values for part, values in dotted.items() if part in ("train", "benchmark") or "backbone" in part}
    for name in names:
        given = {**shared, **({"fuser": dotted[name]} if name in dotted else {})}
        setup = harness.setup(benchmark, name, given=given)
        title = f"{setup.names['fuser']} on {setup.benchmark_name}"
        events = search.tune(
            setup, results, trials=None if budget else 20 if trials is None else trials, budget=budget, given=given,
            folds=outer, **options,
        )  # fmt: skip
        with progress.bar(title) as advance:
            for event in events:
                if isinstance(event, search.Searching):
                    advance(event.done, event.total)
                elif isinstance(event, search.Trial):
                    shown = "-" if event.score is None else f"{event.score:.4f}"
                    click.echo(f"{title}: fold {event.fold} trial {event.number} {event.state} {shown}", err=True)
                else:
                    _tell(title, event)
                    if not no_track:
                        tracking.sync_study(event)
    return 0


def _tell(title: str, tuned: Any) -> None:
    from fusionbench.text import counted, duration

    for fold, chosen in tuned.folds.items():
        found = " ".join(f"{p}.{n}={v}" for p, values in chosen.settings.items() for n, v in values.items())
        click.echo(
            f"{title}, outer fold {fold}: {chosen.score:.4f} on validation after {counted(chosen.trials, 'trial')}, "
            f"{chosen.optimiser_steps:,} steps, {duration(chosen.seconds)}: {found}"
        )

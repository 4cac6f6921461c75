"""`fusionbench advise`: which fusion method to use on these data, within a budget of minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fusionbench.cli.flags import dotted
from fusionbench.cli.run import PASS_ON, check_writable, say
from fusionbench.errors import UsageError


@click.command("advise", context_settings={**PASS_ON, "help_option_names": ["-h", "--help"]})
@click.argument("data")
@click.option("--minutes", type=float, default=30.0, show_default=True, help="Of wall clock, for the race.")
@click.option("--fusers", metavar="NAME,NAME", help="What is raced.  [default: the strongest rows]")
@click.option("--jobs", "-j", type=click.IntRange(1), help="Processes on this machine.  [default: one a core]")
@click.option("--results", type=click.Path(path_type=Path), default=Path("results"), show_default=True)
@click.option(
    "--out", "-o", type=click.Path(path_type=Path), metavar="DIR", help="Also train the winner for `predict`."
)
@click.option("--report", type=click.Path(path_type=Path), metavar="FILE.html", help="Also a page.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.pass_context
def advise_command(
    ctx: click.Context,
    data: str,
    minutes: float,
    fusers: str | None,
    jobs: int | None,
    results: Path,
    out: Path | None,
    report: Path | None,
    form: str,
) -> int:
    """Race the strongest methods on DATA and say which to use, what to expect, and which sensors to keep.

    DATA is a benchmark, an .npz file or a folder with benchmark.toml. --train.steps 200 and --benchmark.NAME VALUE hold
    for all that is raced. Safe to interrupt: the same command goes on.

    With --out the winner is then trained on everything, as `fusionbench fit` does it; that comes after the minutes of
    the race, with an estimate before it. Exit status 1: --out was asked for, and there is nothing to train.
    """
    given: dict[str, Any] = dotted(ctx).hparams
    for part in given:
        if part not in ("train", "benchmark"):
            raise UsageError(f"--{part}. is of one method; a race takes --train. and --benchmark.")
    check_writable(results)
    from fusionbench import advise, text
    from fusionbench.advise import fitting
    from fusionbench.predict import folder

    if out is not None:
        folder.check_free(out)
    names = [name.strip() for name in fusers.split(",") if name.strip()] if fusers else advise.RACED
    found = advise.advise(data, minutes=minutes, fusers=names, given=given, results=results, jobs=jobs, say=say)
    if report is not None:
        advise.write_page(found, report)
        say(f"written to {report}")
    reason = fitting.refusal(found)
    if out is not None and reason is None:
        advise.fit(found, out, results=results, jobs=jobs, say=say)
    made = out if reason is None else None
    click.echo(
        advise.spelled(found) if form == "json" else advise.tell(found, text.terminal_width(), made), nl=form == "json"
    )
    if out is None or reason is None:
        return 0
    say(f"{out} is not written: {reason}")
    return 1

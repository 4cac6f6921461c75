"""The command line. Every command imports what it needs when it runs: help and lists answer at once."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from typing import Any

import click

import fusionbench
from fusionbench.errors import UsageError, unknown

#: command -> module of this package that defines a function of that name (hyphens become underscores).
COMMANDS = {
    "advise": ("advise", "Race the strongest methods on your data: which to use, and what to expect."),
    "run": ("run", "Train one fuser on one benchmark and print the table."),
    "compare": ("compare", "Compare fusers under one protocol, references always beside them."),
    "missing-grid": ("compare", "Train rate x test rate of missing modalities."),
    "power": ("power", "Before the run: which difference will be found, how many seeds to buy."),
    "list": ("catalogue", "Names and one-line summaries of plugins."),
    "info": ("catalogue", "What a plugin computes, its hyper-parameters and their search ranges."),
    "check": ("plugins", "Check plugins with the conformance kit."),
    "new": ("plugins", "Begin a plugin as a small package."),
    "leaderboard": ("tables", "Ranked tables from the records on disk."),
    "report": ("tables", "One self-contained HTML page from the records."),
    "records": ("tables", "Records: list, compare, reproduce, publish."),
    "fit": ("predict", "Train one model for use, on all groups, and say how sure it is."),
    "predict": ("predict", "Answers of a trained model to new samples."),
    "tune": ("tune", "Search hyper-parameters, nested, on validation data only."),
    "data": ("data", "Get public data, check your own."),
    "audit": ("audit", "What in the data makes scores that no new person would see."),
}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"fusionbench.cli.{COMMANDS[name][0]}")
        return getattr(module, f"{name.replace('-', '_')}_command")

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            raise unknown("command", args[0], COMMANDS)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(fusionbench.__version__, prog_name="fusionbench")
def cli() -> None:
    """Which multimodal fusion method should I use, and is the difference real?

    Exit status: 0 all done, 1 some run or check failed, 2 wrong usage or input.
    """


def main() -> None:
    """The entry point: one line and status 2 for wrong usage, 130 when interrupted."""
    # Spinning threads starve one another on shared cores: seconds a step instead of milliseconds.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    try:
        status = cli.main(standalone_mode=False) or 0
        sys.stdout.flush()  # a full disk or a closed pipe shows here, not after the last line
        sys.exit(status)
    except UsageError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f" (see {context.command_path} --help)" if context else ""
        print(f"error: {error.format_message()}{hint}", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        print("interrupted: finished runs are on disk; the same command goes on from there", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `fusionbench list | head`
        _forget_output()
    except OSError as error:  # no disk, no permission, a name that is too long: the machine's, not this program's
        named = "" if error.filename is None else f": {str(error.filename)[:200]}"
        print(f"error: {error.strerror or error}{named}", file=sys.stderr)
        _forget_output()
        sys.exit(2)
    except MemoryError as error:
        reason = str(error).partition("\n")[0]
        print(f"error: there is not enough memory for this{f' ({reason})' if reason else ''}", file=sys.stderr)
        sys.exit(2)


def _forget_output() -> None:
    """What could not be written is not tried again when Python ends, which would say so at length."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

"""`fusionbench power`: which difference will be found, before anything is trained."""

from __future__ import annotations

from pathlib import Path

import click

from fusionbench.cli import work
from fusionbench.cli.flags import amount, counts
from fusionbench.errors import UsageError


@click.command("power", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("rows", nargs=-1)
@click.option("--benchmark", "-b", default="watch", show_default=True, metavar="NAME|PATH", help="With records.")
@click.option(
    "--against",
    "--reference",
    "against",
    default="concat",
    show_default=True,
    metavar="ROW",
    help="What the rows are compared with.",
)
@click.option("--difference", metavar="0.03|3%", help="In the metric's units: how many seeds does it take?")
@click.option("--family", type=click.IntRange(1), help="Comparisons made at once.  [default: the default rows]")
@click.option("--level", default=0.05, show_default=True, help="Of the whole family.")
@click.option("--power", default=0.8, show_default=True, help="How often a true difference is to be found.")
@click.option("--groups", metavar="10,20", help="Numbers of groups.  [default: half to four times the records']")
@click.option("--seeds", metavar="3,5", help="Numbers of seeds a side.  [default: 2,3,5,10]")
@click.option("--damaged", is_flag=True, help="On the damaged score instead of the clean one.")
@work.PARTITION
@click.option("--format", "fmt", default="table", show_default=True, help="table or json")
@click.option(
    "--results", type=click.Path(path_type=Path), default=Path("results"), show_default=True, help="The results folder."
)
def power_command(
    rows: tuple[str, ...], benchmark: str, against: str, difference: str | None, family: int | None, level: float,
    power: float, groups: str | None, seeds: str | None, damaged: bool, partition: str | None, fmt: str, results: Path,
) -> int:  # fmt: skip
    """Which true difference will be found, by groups and seeds, and how many seeds one takes.

    The variance is that of records on disk, published ones or a pilot of two seeds (fusionbench compare gated
    --benchmark mine.csv --seeds 2): of ROWS, or of all default rows, against one reference.
    """
    from fusionbench import progress, registry, text
    from fusionbench.leaderboard import outlook
    from fusionbench.records import store

    name = registry.plugin_name(benchmark)
    with progress.bar("reading records") as advance:
        records = list(progress.counted(store.load(results, name), advance))
    if not records:
        raise UsageError(
            f"there are no records of {name} in {results}: make a pilot of two seeds: fusionbench compare gated "
            f"--benchmark {benchmark} --seeds 2"
        )
    found = outlook.outlook(
        records,
        results,
        rows=rows,
        against=against,
        measure=outlook.DAMAGED if damaged else outlook.SCORE,
        difference=amount(difference, "--difference"),
        size=family,
        level=level,
        power=power,
        groups=counts(groups, "groups"),
        seeds=counts(seeds, "seeds") or outlook.SEEDS,
        partition=partition or "",
        spelled=benchmark,
    )
    click.echo(outlook.render(found, fmt, text.terminal_width()), nl=False)
    return 0

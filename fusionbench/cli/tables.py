"""`fusionbench leaderboard`, `report` and `records`: what is on disk, without torch where nothing is trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fusionbench.errors import UsageError, unknown

if TYPE_CHECKING:
    from fusionbench.leaderboard import Board
    from fusionbench.records import Record
    from fusionbench.report import Searches

RESULTS = click.option(
    "--results", type=click.Path(path_type=Path), default=Path("results"), show_default=True, help="The results folder."
)
REFERENCE = click.option(
    "--reference", default="concat", show_default=True, help="The fuser that all are compared with."
)


def _records(results: Path, benchmark: str) -> list[Record]:
    """The records of one benchmark (a name, or a path as `run` takes it), or of all.

    Raises:
        UsageError: there are none.
    """
    from fusionbench import progress, registry
    from fusionbench.records import store

    there = [path.name for path in results.glob("*") if path.is_dir() and not path.name.startswith(".")]
    if not there:
        raise UsageError(f"there are no records in {results}; make some: fusionbench run --fuser concat")
    if benchmark != "*" and (benchmark := registry.plugin_name(benchmark)) not in there:
        raise unknown(f"benchmark with records in {results}", benchmark, there)
    with progress.bar("reading records") as advance:
        return list(progress.counted(store.load(results, benchmark), advance))


def _boards(results: Path, benchmark: str, reference: str) -> list[Board]:
    from fusionbench import leaderboard, progress

    records = _records(results, benchmark)
    with progress.bar("statistics") as advance:
        return leaderboard.build(records, results, reference=reference, advance=advance)


@click.command("leaderboard")
@click.option("--benchmark", "-b", default="*", metavar="NAME", help="Only this one.  [default: all]")
@click.option("--format", "fmt", default="table", show_default=True, help="table, markdown, latex, csv, html or json")
@click.option("--sort", metavar="COLUMN", help="A column of the table.")
@click.option("--columns", metavar="A,B,...", help="Only these columns, or groups of columns, in this order; or all.")
@click.option("--wide", is_flag=True, help="Every column that has values, however wide the terminal is.")
@click.option("--explain", is_flag=True, help="What each column says, in a sentence.")
@click.option("--by", metavar="ATTRIBUTE", help="Scores and gaps by subgroup: sex, age, site, where records have it.")
@click.option("--verdicts", is_flag=True, help="Also the sentences: what is better, and does fusion help?")
@click.option("--across", is_flag=True, help="Instead: the methods over all data sets, by kind of set.")
@click.option(
    "--headlines",
    is_flag=False,
    flag_value="",
    metavar="[FILE]",
    help="Instead: the comparisons that a file names, as one family.  [alone: headlines.toml in the results]",
)
@click.option("--rivals", metavar="A,B,...", help="With --across: only these are tested against the reference.")
@REFERENCE
@RESULTS
def leaderboard_command(
    benchmark: str, fmt: str, sort: str | None, columns: str | None, wide: bool, explain: bool, by: str | None,
    verdicts: bool, across: bool, headlines: str | None, rivals: str | None, reference: str, results: Path,
) -> int:  # fmt: skip
    """Tables from the records on disk, best first: what fits the terminal, or the columns that are asked for."""
    from fusionbench import leaderboard, text

    width = text.terminal_width()
    if explain:
        click.echo(leaderboard.explain(width))
        return 0
    if rivals and not across:
        raise UsageError("--rivals are tested over many data sets: add --across")
    named = None if headlines is None else Path(headlines or results / leaderboard.HEADLINES)
    claims = leaderboard.read_claims(named) if named else []
    wanted = dict.fromkeys(claim.benchmark for claim in claims) if claims and benchmark == "*" else [benchmark]
    boards = [board for name in wanted for board in _boards(results, name, reference)]
    if by:
        click.echo(leaderboard.by_subgroup(boards, results, by, fmt, width))
        return 0
    if named:
        family = leaderboard.family_of(named)
        said = leaderboard.headline_sentences(leaderboard.headlines(boards, claims, family))
        click.echo("\n".join(text.wrap(line, width, "  ") for line in said))
        return 0
    if across:
        found = leaderboard.overviews(boards, reference, rivals.split(",") if rivals else ())
        click.echo(leaderboard.render_overviews(*found, fmt, width), nl=False)
        return 0
    view = leaderboard.View(sort, columns.split(",") if columns else None, wide, width, text.is_styled())
    click.echo(leaderboard.render_all(boards, fmt, view))
    for board in boards if verdicts else []:
        click.echo("\n".join(text.wrap(line, width, "  ") for line in leaderboard.verdicts(board)))
    return 0


@click.command("report")
@click.option("--benchmark", "-b", default="*", metavar="NAME", help="Only this one.  [default: all]")
@click.option("--out", "-o", type=click.Path(path_type=Path), help="The page.  [default: report.html]")
@click.option("--site", type=click.Path(path_type=Path), metavar="DIR", help="A folder of pages instead.")
@click.option("--figures", type=click.Path(path_type=Path), help="Also every figure as PNG, SVG and PDF, in here.")
@REFERENCE
@RESULTS
def report_command(
    benchmark: str, out: Path | None, site: Path | None, figures: Path | None, reference: str, results: Path
) -> int:
    """One self-contained HTML page from the records on disk, or a folder of pages: one a benchmark, one a method."""
    from fusionbench import progress, report

    if site is not None:
        report.check_site(site)
    boards = _boards(results, benchmark, reference)
    said = []
    with progress.bar("pages") as advance:
        if site is not None:
            pages = report.write_site(boards, site, results=results, advance=advance)
            said.append(f"{pages[0]} and {len(pages) - 1} more pages")
        if site is None or out is not None:
            said += map(str, report.write(boards, out or Path("report.html"), results=results, advance=advance))
    if figures is not None:
        with progress.bar("figures") as advance:
            paths = report.write_figures(boards, figures, searches=_searches(results), advance=advance)
        said.append(f"{len(paths)} figures in {figures}")
    click.echo("\n".join(said))
    return 0


def _searches(results: Path) -> Searches:
    """The searches that are on disk; torch is imported if there is one."""

    def found(benchmark: str, fuser: str) -> Mapping[int, Any]:
        if not (results / benchmark / fuser / "tuned.json").is_file():
            return {}
        from fusionbench import search

        return search.restored(results, benchmark, fuser)

    return found


@click.group("records")
def records_command() -> None:
    """Records: list, compare, reproduce, publish; mirror them to MLflow again."""


@records_command.command("list")
@click.option("--benchmark", "-b", default="*", metavar="NAME")
@RESULTS
def list_records(benchmark: str, results: Path) -> int:
    """One line a record: id, benchmark, fuser, fold, seed, status, primary score."""
    for item in _records(results, benchmark):
        score = item.scores.get("clean", {}).get(item.metrics[0])
        shown = "n/a" if score is None else f"{score:.4f}"
        members = [f"ensemble of {len(item.run.ensemble)}"] if item.run.ensemble else []
        label = " ".join([item.run.fuser, *item.changes, *members])
        words = (item.run.id, item.run.benchmark, f"fold {item.run.fold}", f"seed {item.run.seed}", item.status)
        click.echo("  ".join([*words, f"{item.metrics[0]} {shown}", label]))
    return 0


@records_command.command("sync")
@click.option(
    "--artifacts", is_flag=True, help="Also the weights and the answers that runs have in files of their own."
)
@RESULTS
def sync_records(artifacts: bool, results: Path) -> int:
    """Mirror to MLflow what it does not have yet; exit status 1 if it could not take everything."""
    from fusionbench import progress, text, tracking
    from fusionbench.records import store

    with progress.bar("mirroring") as advance:
        done = tracking.sync(list(store.load(results)), results, artifacts=artifacts, advance=advance)
    uri = tracking.default_uri()
    click.echo(f"{text.counted(done.rows, 'row')} and {text.counted(done.runs, 'run')} logged to {uri}")
    if done.rows or done.runs:
        opened = "" if uri.startswith("http") else f" (start it: mlflow ui --backend-store-uri {uri})"
        click.echo("\n".join([f"as tables in MLflow{opened}:", *done.addresses(uri)]))
    return 1 if done.problem else 0


@records_command.command("diff")
@click.argument("first")
@click.argument("second")
@RESULTS
def diff_records(first: str, second: str, results: Path) -> int:
    """What differs between two records, and whether their scores do."""
    from fusionbench.records import compare

    click.echo("\n".join(compare.diff(compare.find(results, first), compare.find(results, second))))
    return 0


@records_command.command("publish")
@click.argument("benchmark")
@RESULTS
def publish_records(benchmark: str, results: Path) -> int:
    """Fold a benchmark's finished rows into one records.jsonl and one evidence.npz a fuser, to be committed."""
    from fusionbench import progress
    from fusionbench.records import publish

    with progress.bar("publishing"):
        written = publish.publish(results, benchmark)
    click.echo("\n".join(map(str, written)))
    return 0


@records_command.command("submit")
@click.argument("run_id")
@click.option("--out", "-o", type=click.Path(path_type=Path), required=True, help="The file to hand in.")
@click.option("--root", metavar="DIR", help="Where the data are, if not in their usual place.")
@RESULTS
def submit_record(run_id: str, out: Path, root: str | None, results: Path) -> int:
    """Answers of a run to a challenge's official test list, in the challenge's format (affwild2)."""
    from fusionbench import harness
    from fusionbench.records import compare

    old = compare.find(results, run_id)
    harness.submit(harness.setup_of(old, root=root, settings={"test_list": True}), old, results, out)
    click.echo(f"{out}")
    return 0


@records_command.command("readme")
@click.option("--check", is_flag=True, help="Write nothing; exit status 1 if the file is not what would be written.")
@RESULTS
def readme_records(check: bool, results: Path) -> int:
    """Write results/README.md from the published records alone."""
    from fusionbench import progress
    from fusionbench.leaderboard.readme import readme
    from fusionbench.records import store

    with progress.bar("statistics"):
        text = readme(results)
    if check:
        path = results / "README.md"
        same = path.is_file() and path.read_text() == text
        click.echo(f"{path} is {'up to date' if same else 'stale: fusionbench records readme'}")
        return 0 if same else 1
    store.write(results / "README.md", lambda f: f.write(text.encode()))
    click.echo(f"{results / 'README.md'}")
    return 0


@records_command.command("reproduce")
@click.argument("run_id")
@click.option("--benchmark", metavar="PATH", help="Where the benchmark is now, if it was given by path.")
@click.option("--fuser", metavar="FILE.py", help="Where the fuser is now, if it was given by path.")
@click.option("--root", metavar="DIR", help="Where the data are, if not in their usual place.")
@click.option("--device", default="auto", show_default=True)
@RESULTS
def reproduce_record(
    run_id: str, benchmark: str | None, fuser: str | None, root: str | None, device: str, results: Path
) -> int:
    """Run it again from the record; did the number come back within its interval? Exit status 0 or 1."""
    from fusionbench import harness, progress
    from fusionbench.records import compare, store

    old = compare.find(results, run_id)
    with progress.bar("training it again"):
        new = harness.reproduce(old, benchmark=benchmark, fuser=fuser, root=root, device=device)
    is_reproduced, sentence = harness.is_reproduced(old, new, store.evidence(results, old.run))
    click.echo(sentence)
    return 0 if is_reproduced else 1

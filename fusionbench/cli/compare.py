"""`fusionbench compare` and `missing-grid`: several fusers under one protocol, references always beside them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fusionbench.cli import work
from fusionbench.cli.flags import amount, completed, numbers
from fusionbench.cli.run import PASS_ON, check_writable, say
from fusionbench.errors import UsageError, unknown

if TYPE_CHECKING:
    from fusionbench.records import Record
    from fusionbench.study import Study


@click.command("compare", context_settings={**PASS_ON, "help_option_names": ["-h", "--help"]})
@click.argument("fusers", nargs=-1, shell_complete=completed("fusers"))
@click.option(
    "--benchmark",
    "-b",
    "benchmarks",
    multiple=True,
    metavar="NAME|PATH",
    shell_complete=completed("benchmarks"),
    help="May be repeated.",
)
@click.option("--study", "file", type=click.Path(path_type=Path), help="A TOML file that holds the same words.")
@click.option("--seeds", metavar="N|LIST", help="5: seeds 0 to 4; 0,3: these two.  [default: the benchmark's]")
@click.option("--folds", metavar="N|LIST", help="In the same way.  [default: all]")
@click.option("--corruption", "-c", multiple=True, metavar="NAME:MODALITY[:1-5]", help="More damage; may be repeated.")
@click.option("--lattice", is_flag=True, help="Also every subset of missing modalities.")
@click.option("--cross", multiple=True, metavar="PART.NAME=V1,V2", help="Every fuser with each value.")
@click.option("--no-references", is_flag=True, help="Leave out each modality alone, late average and concat.")
@click.option("--quick", is_flag=True, help="One fold, one seed, few steps; marked as such and never ranked.")
@click.option("--tuned", is_flag=True, help="With the settings that `fusionbench tune` found, for every fuser.")
@click.option("--ensemble", is_flag=True, help="Also the mean of each row's seeds; nothing more is trained.")
@click.option("--reference", default="concat", show_default=True, help="The fuser that all are compared with.")
@click.option("--resolve", metavar="0.02|2%", help="Train 3, 5, then 10 seeds until so large a difference is settled.")
@work.PARTITION
@work.options
@click.pass_context
def compare_command(ctx: click.Context, **options: Any) -> int:
    """Compare fusers: run what is missing, reuse what is there; the tables and the verdicts last.

    FUSERS are names or paths, or `all`. Options of one fuser: --jmt.width 256; of all: --train.modality_dropout 0.3,
    --backbone.acc gru, --backbone.acc.dim 64. Each modality alone, late average and concat are always added. Safe to
    interrupt and to run again.
    """
    words, dotted = split([*options.pop("fusers"), *ctx.args])
    study = _study(words, dotted, options)
    target = amount(options["resolve"], "--resolve")
    return _answer(study, options) if target is None else _resolve(study, target, options)


def _study(fusers: list[str], dotted: dict[str, dict[str, str]], options: dict[str, Any]) -> Study:
    from fusionbench import study as studies

    if options["file"]:
        words = (
            "benchmarks", "seeds", "folds", "corruption", "lattice", "cross", "no_references", "quick", "tuned",
            "ensemble",
            "partition",
        )  # fmt: skip
        if fusers or dotted or any(options[word] for word in words):
            raise UsageError(
                f"{options['file']} says what is compared: leave fusers, settings and --quick to that file"
            )
        return studies.read(options["file"])
    if not fusers:
        raise UsageError("compare what? fusionbench compare concat jmt -b watch")
    train, benchmark, backbones = (dotted.pop(part, {}) for part in ("train", "benchmark", "backbone"))
    several = _several(train)
    encoded = [part for part in dotted if part.startswith("backbone.")]
    backbone = {part.removeprefix("backbone."): dotted.pop(part) for part in encoded}
    quick = options["quick"]
    return studies.Study(
        fusers=fusers,
        benchmarks=options["benchmarks"] or ("watch", "affect_sim"),
        seeds=numbers(options["seeds"], "seeds") or ([0] if quick else None),
        folds=numbers(options["folds"], "folds") or ([0] if quick else None),
        corruption=options["corruption"],
        lattice=options["lattice"],
        options=dotted,
        backbones=backbones,
        backbone=backbone,
        train={name: value for name, value in train.items() if f"train.{name}" not in several},
        benchmark=benchmark,
        cross={**several, **_cross(options["cross"])},
        references=not options["no_references"],
        quick=quick,
        tuned=options.get("tuned", False),
        ensemble=options.get("ensemble", False),
        partition=options.get("partition") or "",
    )


def split(words: list[str]) -> tuple[list[str], dict[str, dict[str, str]]]:
    """Names, and flags such as --jmt.width 256."""
    names, given = [], dict[str, dict[str, str]]()
    words = list(words)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            names.append(word)
            continue
        flag, equals, value = word.removeprefix("--").partition("=")
        part, dot, name = flag.rpartition(".")
        if not dot:
            raise unknown("flag", word, ["--benchmark", "--study", "--seeds", "--folds", "--corruption", "--cross"])
        if not equals:
            value = words.pop(0) if words and not words[0].startswith("--") else "true"
        given.setdefault(part, {})[name] = value
    return names, given


def _cross(spelled: tuple[str, ...]) -> dict[str, list[str]]:
    crossed = {}
    for text in spelled:
        name, equals, values = text.partition("=")
        if not equals or "." not in name or not values:
            raise UsageError(f"--cross takes train.modality_dropout=0,0.3, not {text!r}")
        crossed[name] = values.split(",")
    return crossed


def _several(train: dict[str, str]) -> dict[str, list[str]]:
    """`--train.groups 0.25,0.5,1` is `--cross train.groups=0.25,0.5,1`: of settings that take one number."""
    given = {name: value.split(",") for name, value in train.items() if "," in value}
    if not given:
        return {}
    from fusionbench import hparams
    from fusionbench.engine import Recipe

    numbers = {name for name, declared in hparams.read(Recipe).items() if declared.type in (int, float)}
    return {f"train.{name}": values for name, values in given.items() if name in numbers}


def _resolve(study: Study, target: float, options: dict[str, Any]) -> int:
    """Looks at more and more seeds until every row is settled, or cannot be."""
    from fusionbench import text
    from fusionbench.looks import resolve

    def tell(line: str) -> None:
        click.echo(text.wrap(line, text.terminal_width(), "  "))

    check_writable(options["results"])
    how = {name: options[name] for name in ("results", "device", "jobs", "cluster", "stack", "track_artifacts")}
    found = resolve(
        study, target, reference=options["reference"], tell=tell, say=say, track=not options["no_track"], **how
    )
    for one in found:
        tell(one.sentence)
    for benchmark in dict.fromkeys(one.benchmark for one in found):
        tell(f"Everything: fusionbench leaderboard -b {benchmark} (each row with all of its seeds, tested once)")
    return 1 if any(one.outcome == "untested" for one in found) else 0


def _answer(study: Study, options: dict[str, Any]) -> int:
    from fusionbench import leaderboard, progress, text

    obtained, ok = _obtain(study, options)
    with progress.bar("statistics") as advance:
        how: dict[str, Any] = {"reference": options["reference"], "advance": advance}
        boards = leaderboard.build(obtained, options["results"], **how) if obtained else []
    for board in boards:
        width = text.terminal_width()
        click.echo(leaderboard.render(board, width=width, styled=text.is_styled()))
        for line in leaderboard.verdicts(board):
            click.echo(text.wrap(line, width, "  "))
    return 0 if ok else 1


def _obtain(study: Study, options: dict[str, Any]) -> tuple[list[Record], bool]:
    """Every record of the study, the missing ones obtained now, and whether all succeeded."""
    check_writable(options["results"])
    from fusionbench import jobs, progress, text
    from fusionbench.study import ensembles, plan_study

    with progress.bar("preparing the rows"):
        plans = plan_study(study, options["results"])
    how = {name: options[name] for name in ("device", "jobs", "cluster", "stack", "track_artifacts")}
    title = text.counted(len(plans), "row")
    done = jobs.perform(plans, options["results"], title, say=say, track=not options["no_track"], **how)
    if not study.ensemble:
        return done.records, done.ok
    return [*done.records, *ensembles(plans, done.records, options["results"], options["device"])], done.ok


@click.command("missing-grid", context_settings={**PASS_ON, "help_option_names": ["-h", "--help"]})
@click.argument("fusers", nargs=-1, shell_complete=completed("fusers"))
@click.option(
    "--benchmark", "-b", default="watch", show_default=True, metavar="NAME|PATH", shell_complete=completed("benchmarks")
)
@click.option("--rates", default="0,0.3,0.5,0.7", show_default=True, help="Rates in training, of every modality.")
@click.option("--modality", "-m", multiple=True, help="Only these modalities go missing.  [default: all]")
@click.option("--seeds", metavar="N|LIST")
@click.option("--folds", metavar="N|LIST")
@click.option("--quick", is_flag=True)
@work.options
@click.pass_context
def missing_grid_command(
    ctx: click.Context, benchmark: str, rates: str, modality: tuple[str, ...], **options: Any
) -> int:
    """Train rate x test rate: how each fuser stands missing modalities that it did, or did not, meet in training.

    A sample loses each modality at the rate, completely at random, and keeps at least one. Realised rates are printed.
    """
    from fusionbench import contract, corruptions, registry

    names, dotted = split([*options.pop("fusers"), *ctx.args])
    if not names:
        raise UsageError("missing-grid of what? fusionbench missing-grid concat jmt -b watch")
    protocol = contract.make(registry.load("benchmarks", benchmark), {}, benchmark)
    target = "+".join(modality) or "all"
    tested = [c for c, *_ in corruptions.parse(f"absent:{target}", list(protocol.shapes))]
    trained = [_rate(text) for text in rates.split(",")]
    base = _study(names, dotted, {
        **options, "file": None, "benchmarks": (benchmark,), "corruption": (f"absent:{target}",), "lattice": False,
        "cross": (), "no_references": True,
    })  # fmt: skip
    spelled = {r: ",".join(f"{m}={r:g}" for m in (modality or protocol.shapes)) if r else "" for r in trained}
    obtained: dict[float, list[Record]] = {}
    ok = True
    for rate, missing in spelled.items():
        obtained[rate], fine = _obtain(replace(base, train={**base.train, "missing": missing}), options)
        ok = ok and fine
    for row in dict.fromkeys(map(_name, obtained[trained[0]])):
        rows = {rate: [r for r in found if _name(r) == row] for rate, found in obtained.items()}
        click.echo(_grid(row, benchmark, rows, tested, modality or tuple(protocol.shapes)))
    return 0 if ok else 1


def _name(item: Record) -> str:
    """The fuser and its settings: `unimodal` stands once a modality."""
    return " ".join([item.run.fuser, *(c for c in item.changes if c.startswith("fuser."))])


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not 0.0 <= rate < 1.0:
        raise UsageError(f"--rates takes rates in [0, 1), as 0,0.3,0.5, not {text!r}")
    return rate


def _grid(
    fuser: str, benchmark: str, rows: dict[float, list[Record]], tested: list[str], targets: tuple[str, ...]
) -> str:
    """One fuser's table; the realised rates are those of the modalities that go missing."""
    from tabulate import tabulate

    done = {rate: [r for r in found if r.status == "done"] for rate, found in rows.items()}
    some = next((r for found in done.values() for r in found), None)
    if some is None:
        return f"{fuser} on {benchmark}: every run failed"
    metric = some.metrics[0]
    table = [
        [f"trained at {rate:g}", *(_mean([r.scores[c][metric] for r in found]) for c in ["clean", *tested])]
        for rate, found in done.items()
    ]
    realised = [
        _mean([v for found in done.values() for r in found for v in map(r.rates[c].get, targets)]) for c in tested
    ]
    table.append(["realised rate", "0.000", *realised])
    for row, found in zip(table, done.values(), strict=False):
        met = [r.rates["training"].get(m) for r in found if "training" in r.rates for m in targets]
        row.insert(1, _mean(met) if met else "0.000")
    table[-1].insert(1, "")
    from fusionbench.corruptions.missing import Absent

    head = [f"{fuser} on {benchmark}, {metric}", "realised", "tested at 0", *(f"{rate:g}" for rate in Absent.ladder)]
    return tabulate(table, head, disable_numparse=True, colalign=("left", *["right"] * (len(head) - 1))) + "\n"


def _mean(values: list[float | None]) -> str:
    known = [v for v in values if v is not None]
    return f"{sum(known) / len(known):.3f}" if known else "n/a"

"""`fusionbench fit` and `predict`: one model for use, and its answers to new samples."""

from __future__ import annotations

from pathlib import Path

import click

from fusionbench.cli.flags import completed, dotted, numbers
from fusionbench.cli.run import PASS_ON, check_writable, say

RESULTS = click.option(
    "--results", type=click.Path(path_type=Path), default=Path("results"), show_default=True, help="The results folder."
)
DEVICE = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1")


@click.command("fit", context_settings={**PASS_ON, "help_option_names": ["-h", "--help"]})
@click.argument("fuser", shell_complete=completed("fusers"))
@click.argument("data", shell_complete=completed("benchmarks"))
@click.option("--out", "-o", type=click.Path(path_type=Path), help="The folder.  [default: FUSER-DATA]")
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="Models that answer together.")
@click.option("--folds", metavar="N|LIST", help="Folds to choose and calibrate on.  [default: all]")
@click.option("--quick", is_flag=True, help="One fold and few steps, to see that it runs.")
@DEVICE
@RESULTS
@click.option("--jobs", "-j", type=click.IntRange(1), help="Processes on this machine.  [default: by the work]")
@click.option("--no-track", is_flag=True, help="Leave MLflow out.")
@click.pass_context
def fit_command(
    ctx: click.Context, fuser: str, data: str, out: Path | None, seeds: int, folds: str | None, quick: bool,
    device: str, results: Path, jobs: int | None, no_track: bool,
) -> int:  # fmt: skip
    """Train one model for use, on all groups of DATA: a benchmark's name, my.npz, or a folder with benchmark.toml.

    The folds of the data come first (what is on disk is not run again): they choose learning rate and steps, calibrate
    probabilities and sets, and say what to expect. Hyper-parameters are flags as of `run`: --fuser.width 128.
    """
    given, chosen = dotted(ctx), numbers(folds, "folds")
    check_writable(results)
    from fusionbench import predict, registry

    out = out or Path(f"{registry.plugin_name(fuser)}-{registry.plugin_name(data)}")
    model = predict.fit(
        fuser, data, out, results=results, backbones=given.backbones, given=given.hparams, folds=chosen, seeds=seeds,
        quick=quick, device=device, jobs=jobs, track=not no_track, say=say,
    )  # fmt: skip
    _tell(model.summary())
    click.echo(f"use it: fusionbench predict {out} --input new.npz --out answers.csv")
    return 0


@click.command("predict")
@click.argument("model")
@click.option("--input", "-i", "source", required=True, metavar="FILE|NAME", help=".npz, .csv, .parquet, a benchmark.")
@click.option("--out", "-o", type=click.Path(path_type=Path), default=Path("answers.csv"), show_default=True)
@click.option("--coverage", type=float, default=0.9, show_default=True, help="Of sets and intervals.")
@click.option("--data", metavar="PATH", help="Where a row's benchmark is, if it was given by path.")
@click.option("--fuser", metavar="FILE.py", help="Where the fuser is, if it was given by path.")
@DEVICE
@RESULTS
def predict_command(
    model: str, source: str, out: Path, coverage: float, data: str | None, fuser: str | None, device: str, results: Path
) -> int:
    """Answers to new samples, as a .csv file: one line a sample, with how sure it is.

    MODEL is a folder that `fusionbench fit` wrote; or a row that was run here, as watch/jmt or the id of one of its
    runs: then its folds and seeds answer together. Modalities that the input lacks count as missing.
    """
    from fusionbench import predict

    predictor = predict.load_model(model, results=results, data=data, fuser=fuser, device=device)
    answers = predictor.answers(source, coverage=coverage)
    answers.write(out)
    _tell(predictor.summary())
    click.echo(f"{out}: {len(answers.ids):,} samples answered")
    return 0


def _tell(lines: list[str]) -> None:
    from fusionbench import text

    for line in lines:
        click.echo(text.wrap(line, text.terminal_width(), "  "))

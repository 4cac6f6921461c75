"""Trained models in use: fit one for good, load it or the models of a benchmark row, predict, say how sure.

`fitting` trains on all groups, `folder` keeps a model on disk, `rows` finds the models of a row, `inputs` reads what a
user has, `calibration` says what an answer is worth, `predictor` puts them together.
"""

from __future__ import annotations

from pathlib import Path

from fusionbench.errors import UsageError
from fusionbench.predict import folder
from fusionbench.predict.calibration import Abstention, Calibration
from fusionbench.predict.fitting import fit
from fusionbench.predict.predictor import Answers, Predictor
from fusionbench.predict.rows import load_row

__all__ = ["Abstention", "Answers", "Calibration", "Predictor", "fit", "load_model"]


def load_model(
    name: Path | str,
    *,
    results: Path | str = "results",
    data: str | None = None,
    fuser: str | None = None,
    device: str = "auto",
) -> Predictor:
    """A trained model that can be asked.

    Args:
        name: the folder that `fusionbench fit` wrote; or a row that was run here, as `watch/jmt` or the id of one of
            its runs: then the mean over its folds and seeds.
        results: where rows are; data, fuser: where benchmark and fuser of a row are, if they were given by path.

    Raises:
        UsageError: there is no such model, and how to get one.
    """
    path = Path(name).expanduser()
    if (path / folder.MODEL).is_file():
        return folder.load(path, device, fuser)
    if path.is_dir() and not (Path(results) / str(name)).is_dir():
        raise UsageError(f"{name} is no model: `fusionbench fit FUSER DATA --out DIR` writes one")
    if not Path(results).is_dir():
        raise UsageError(
            f"there is no model folder {name} and there are no records in {results}: fusionbench fit FUSER DATA --out "
            f"{name}"
        )
    return load_row(str(name), Path(results), data, fuser, device)

"""Finding a data set's files and reading plain tables of numbers; every error names the file and the row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fusionbench.api import UsageError, data_dir


def located(name: str, root: str, needed: Sequence[str]) -> Path:
    """The folder that holds the needed files: `root`, or where `data get` puts the data set.

    Raises:
        UsageError: one of them is not there; it names the way to get it.
    """
    folder = Path(root).expanduser() if root else data_dir(name)
    for path in needed:
        if not (folder / path).exists():
            raise UsageError(
                f"{name}: there is no {folder / path}: run `fusionbench data get {name}`, or name the folder with "
                f"--benchmark.root"
            )
    return folder


def numbers(path: Path, delimiter: str | None = ",", header: bool = False) -> NDArray[np.float64]:
    """(rows, columns) of a text table; no delimiter: blanks. With `header`, a first line that is no row is skipped.

    Raises:
        UsageError: a row is not of finite numbers or of another length than the first.
    """
    named = False
    try:
        with path.open(encoding="utf-8-sig") as file:
            first = file.readline()
        named = header and not _is_row(first, delimiter)
        table = np.loadtxt(path, delimiter=delimiter, skiprows=int(named), ndmin=2, encoding="utf-8-sig")
        if table.size and np.isfinite(table).all():
            return np.asarray(table)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError:  # named below
        pass
    raise UsageError(f"{path}, row {_broken_row(path, delimiter, int(named))}: not a row of finite numbers")


def _is_row(line: str, delimiter: str | None) -> bool:
    try:
        return bool(np.isfinite([float(cell) for cell in line.split(delimiter) if cell.strip()]).all())
    except ValueError:
        return False


def _broken_row(path: Path, delimiter: str | None, skip: int) -> int:
    width = None
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for row, line in enumerate(file, 1):
            if row > skip and line.strip():
                cells = len(line.split(delimiter))
                if not _is_row(line, delimiter) or width not in (None, cells):
                    return row
                width = cells
    return skip + 1

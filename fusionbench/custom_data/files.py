"""Files of arrays and tables read as named columns: .npz, .npy, .csv, .parquet. Never a pickle."""

from __future__ import annotations

import csv
import importlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionbench.errors import UsageError

Array = NDArray[Any]
SUFFIXES = (".npz", ".npy", ".csv", ".parquet")
EMPTY = ("", "nan", "na", "n/a", "null", "none")


def read(path: Path) -> dict[str, Array]:
    """Name -> array whose first axis is the rows. A .npy file has one name, its own; cells of a .csv are text.

    Raises:
        UsageError: the file is missing, of another kind, damaged or holds pickled objects; the columns are unequal.
    """
    if not path.is_file():
        raise UsageError(f"there is no {path}")
    readers = {".npz": _npz, ".npy": _npy, ".csv": _csv, ".parquet": _parquet}
    if path.suffix not in readers:
        raise UsageError(f"{path}: {path.suffix or 'no suffix'} is not read, only {', '.join(SUFFIXES)}")
    return readers[path.suffix](path)


def is_table(path: Path) -> bool:
    """Are its columns single cells, to be put side by side?"""
    return path.suffix in (".csv", ".parquet")


def row_name(path: Path, index: int) -> str:
    """How a person finds a row: line of a .csv (its header is row 1), else the position from 0."""
    return f"row {index + 2}" if path.suffix == ".csv" else f"row {index} (from 0)"


def numbers(values: Array, path: Path, name: str) -> NDArray[np.float64]:
    """A column or array as numbers; empty cells and None are NaN.

    Raises:
        UsageError: a cell is no number; file, column and row are named.
    """
    if values.dtype.kind in "biuf":
        return values.astype(np.float64)
    if values.dtype.kind not in "OUS" or values.ndim != 1:
        raise UsageError(f"{path}: {name} holds {values.dtype}, not numbers")
    found = np.empty(len(values))
    for row, cell in enumerate(texts(values)):
        try:
            found[row] = np.nan if cell.lower() in EMPTY else float(cell)
        except ValueError:
            raise UsageError(f"{path}, {row_name(path, row)}: {name} is {cell!r}, not a number") from None
    return found


def texts(values: Array) -> list[str]:
    """A column as text; whole numbers without a decimal point, None as the empty text."""
    if values.dtype.kind == "f":
        return [f"{v:g}" if v == np.rint(v) else str(v) for v in values.tolist()]
    return ["" if v is None else str(v).strip() for v in values.tolist()]


def _npz(path: Path) -> dict[str, Array]:
    try:
        with np.load(path, allow_pickle=False) as content:
            return {name: _plain(path, name, content) for name in content.files}
    except (OSError, zipfile.BadZipFile, EOFError, ValueError) as error:
        raise UsageError(f"{path} is no sound .npz file ({error}): save it again with numpy.savez") from None


def _plain(path: Path, name: str, content: Any) -> Array:
    try:
        return np.asarray(content[name])
    except ValueError:  # an object array
        raise UsageError(
            f"{path}: {name!r} holds Python objects, which are never unpickled: save it as numbers or as text "
            f"(dtype str), ragged sequences padded with a mask"
        ) from None


def _npy(path: Path) -> dict[str, Array]:
    try:
        return {path.stem: np.load(path, allow_pickle=False)}
    except (OSError, EOFError, ValueError) as error:
        raise UsageError(f"{path} is no sound .npy file of numbers or text ({error})") from None


def _csv(path: Path) -> dict[str, Array]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [cells for cells in csv.reader(file) if cells]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} is no sound .csv file in UTF-8 ({error})") from None
    if len(rows) < 2:
        raise UsageError(f"{path} needs a header and at least one row")
    header = [name.strip() for name in rows[0]]
    for name in header:
        if header.count(name) > 1:
            raise UsageError(f"{path}, row 1: two columns are called {name!r}")
    for index, cells in enumerate(rows[1:]):
        if len(cells) != len(header):
            raise UsageError(f"{path}, {row_name(path, index)}: {len(cells)} cells, the header has {len(header)}")
    return {name: np.array(column) for name, column in zip(header, zip(*rows[1:], strict=True), strict=True)}


def _parquet(path: Path) -> dict[str, Array]:
    try:
        pyarrow: Any = importlib.import_module("pyarrow")
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise UsageError(f"{path}: .parquet files need pyarrow: pip install pyarrow") from None
    try:
        table = parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise UsageError(f"{path} is no sound .parquet file ({str(error).splitlines()[0]})") from None
    return {name: table[name].to_numpy() for name in table.column_names}

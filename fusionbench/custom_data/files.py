"""Files of arrays and tables read as named columns: .npz, .npy, .csv, .parquet. Never a pickle, never a traceback."""

from __future__ import annotations

import csv
import importlib
import math
import os
import re
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from fusionbench.errors import UsageError

Array = NDArray[Any]
EMPTY = ("", "nan", "na", "n/a", "null", "none", "<na>", "nat")
LONGEST = 200  # characters of a name: of a class, a sample, a group
#: What numpy, zipfile and their decompressors raise on bytes that are not what they claim.
DAMAGED = (
    ArithmeticError, AttributeError, EOFError, LookupError, OSError, RuntimeError, SyntaxError, TypeError, ValueError,
    struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")


def read(path: Path) -> dict[str, Array]:
    """Name -> array whose first axis is the rows. A .npy file has one name, its own; cells of a .csv are text.

    Raises:
        UsageError: the file is missing, of another kind, damaged, larger than memory or holds pickled objects; the
            columns are unequal.
    """
    if not os.path.isfile(path):  # unlike Path.is_file, it never raises: loops of links, names that are too long
        raise UsageError(f"there is no {path}")
    if path.suffix not in FORMATS:
        raise UsageError(f"{path}: {path.suffix or 'no suffix'} is not read, only {', '.join(FORMATS)}")
    try:
        found = FORMATS[path.suffix].read(path)
    except MemoryError:
        raise UsageError(f"{path} needs more memory than there is") from None
    for name in found:
        if not name.isprintable() or len(name) > LONGEST:
            raise UsageError(f"{path}: {clip(name)} is no name of a column or array: {LONGEST} characters on one line")
    return found


def is_table(path: Path) -> bool:
    """Are its columns single cells, to be put side by side?"""
    return path.suffix in FORMATS and FORMATS[path.suffix].table


def row_name(path: Path, index: int) -> str:
    """How a person finds a row: line of a .csv (its header is row 1), else the position from 0."""
    return f"row {index + 2}" if path.suffix == ".csv" else f"row {index} (from 0)"


def numbers(values: Array, path: Path, name: str) -> NDArray[np.float64]:
    """A column or array as numbers; empty cells and None are NaN.

    Raises:
        UsageError: a cell is no number; file, column and row are named.
    """
    if values.dtype.kind in "biuf":
        with np.errstate(over="ignore"):  # a long double: infinite, and refused as such
            return values.astype(np.float64)
    if values.dtype.kind not in "OUS" or values.ndim != 1:
        raise UsageError(f"{path}: {name} holds {values.dtype} {values.shape}, not numbers")
    found = np.empty(len(values))
    for row, cell in enumerate(texts(values)):
        try:
            found[row] = np.nan if cell.lower() in EMPTY else float(cell)
        except ValueError:
            raise UsageError(f"{path}, {row_name(path, row)}: {name} is {clip(cell)}, not a number") from None
    return found


def texts(values: Array) -> list[str]:
    """A column as text; whole numbers without a decimal point, None as the empty text."""
    if values.dtype.kind == "f":
        return [f"{v:.0f}" if v == np.rint(v) and abs(v) < 1e15 else str(v) for v in values.tolist()]
    return [_text(v) for v in values.tolist()]


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace").strip()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return f"{value:.0f}"
    return "" if value is None else str(value).strip()


def named(cells: Iterable[str], path: Path, what: str) -> list[str]:
    """Names of samples, groups or classes, as they are.

    Raises:
        UsageError: one is too long, or cannot be printed on a line.
    """
    found = list(cells)
    for row, cell in enumerate(found):
        if len(cell) > LONGEST:
            raise UsageError(
                f"{path}: the {what} of sample {row} (from 0) has {len(cell)} characters; {LONGEST} at most"
            )
        if not cell.isprintable():
            raise UsageError(f"{path}: the {what} of sample {row} (from 0), {clip(cell)}, cannot be printed on a line")
    return found


def whole(cell: str) -> int | None:
    """The whole number that a cell spells, of 18 digits at most; None where it spells something else."""
    return int(cell) if _WHOLE.fullmatch(cell) else None


def clip(value: Any) -> str:
    """A value as an error quotes it: short, on one line."""
    spelled = repr(value)
    return spelled if len(spelled) <= 60 else f"{spelled[:57]}..."


def line(error: BaseException) -> str:
    """What an exception of a library says, on one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


# ------------------------------------------------------------------------------------------------------------- arrays


def _npz(path: Path) -> dict[str, Array]:
    """Every member's header is compared with its bytes before anything is allocated."""
    found: dict[str, Array] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if not info.is_dir()]
            refuse_memory(path, sum(info.file_size for info in members))
            for info in members:
                name = info.filename.removesuffix(".npy")
                if not info.filename.endswith(".npy"):
                    raise UsageError(f"{path}: {clip(info.filename)} in it is no array; numpy.savez writes arrays only")
                if name in found:
                    raise UsageError(f"{path}: two arrays are called {name!r}")
                with archive.open(info) as file:
                    found[name] = _array(path, name, file, info.file_size)
    except DAMAGED as error:
        raise UsageError(f"{path} is no valid .npz file ({line(error)}): save it again with numpy.savez") from None
    return found


def _npy(path: Path) -> dict[str, Array]:
    try:
        size = path.stat().st_size
        refuse_memory(path, size)
        with path.open("rb") as file:
            return {path.stem: _array(path, path.stem, file, size)}
    except DAMAGED as error:
        raise UsageError(f"{path} is no valid .npy file of numbers or text ({line(error)})") from None


def _array(path: Path, name: str, file: IO[bytes], size: int) -> Array:
    """An array in numpy's format that is exactly as long as its header says."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a header written by Python 2 is as good
        version = npy_format.read_magic(file)
        read_header = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
        shape, fortran, dtype = read_header(file)
    if dtype.hasobject:
        raise UsageError(
            f"{path}: {name!r} holds Python objects, which are never unpickled: save it as numbers or as text "
            f"(dtype str), ragged sequences padded with a mask"
        )
    content = file.read()
    if any(n < 0 for n in shape) or math.prod(shape) * dtype.itemsize != len(content):
        raise UsageError(
            f"{path}: {clip(name)} says that it is {clip(shape)} of {dtype}, but {len(content)} bytes follow"
        )
    array = np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")
    return array.astype(dtype.newbyteorder("="), order="C")  # a copy: writable, of this machine's byte order


def refuse_memory(path: Path, size: int) -> None:
    """Raises UsageError if so many bytes cannot be held, before the machine starts to swap or kills the process."""
    if not hasattr(os, "sysconf"):  # Windows
        return
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > there:
        raise UsageError(f"{path} needs {size / 1e9:.1f} GB of memory; this machine has {there / 1e9:.1f}")


# ------------------------------------------------------------------------------------------------------------- tables


def _csv(path: Path) -> dict[str, Array]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [cells for cells in csv.reader(file) if cells]
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(f"{path} is no valid .csv file in UTF-8 ({line(error)})") from None
    if len(rows) < 2:
        raise UsageError(f"{path} needs a header and at least one row")
    header = [name.strip() for name in rows[0]]
    for name in header:
        if header.count(name) > 1:
            raise UsageError(f"{path}, row 1: two columns are called {clip(name)}")
    for index, cells in enumerate(rows[1:]):
        if len(cells) != len(header):
            raise UsageError(f"{path}, {row_name(path, index)}: {len(cells)} cells, the header has {len(header)}")
    # Objects, not numpy's text: one long cell would widen them all.
    columns = zip(*rows[1:], strict=True)
    return {name: np.array(column, dtype=object) for name, column in zip(header, columns, strict=True)}


def _parquet(path: Path) -> dict[str, Array]:
    try:
        pyarrow: Any = importlib.import_module("pyarrow")
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise UsageError(f"{path}: .parquet files need pyarrow: pip install pyarrow") from None
    try:
        table = parquet.read_table(path)
        found = {
            name: np.asarray(column.to_numpy()) for name, column in zip(table.column_names, table.columns, strict=True)
        }
    except (*DAMAGED, pyarrow.ArrowException) as error:
        raise UsageError(f"{path} is no valid .parquet file ({line(error)})") from None
    if not found or not table.num_rows:
        raise UsageError(f"{path} has no row")
    if len(found) < len(table.column_names):
        raise UsageError(f"{path}: two columns have one name")
    return found


# ------------------------------------------------------------------------------------------------------------ formats


@dataclass(frozen=True)
class Format:
    """How files of one suffix are read.

    Attributes:
        read: path -> name -> array, as `read` above; raises UsageError where the file is not valid.
        table: its columns are single cells, to be put side by side.
    """

    read: Callable[[Path], dict[str, Array]]
    table: bool = False


#: Suffix -> format. A new one is a function and an entry.
FORMATS: dict[str, Format] = {
    ".npz": Format(_npz),
    ".npy": Format(_npy),
    ".csv": Format(_csv, table=True),
    ".parquet": Format(_parquet, table=True),
}

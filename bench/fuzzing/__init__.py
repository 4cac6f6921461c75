"""What `bench/fuzz.py` throws: a case spoils a fresh folder in its own way and returns the words of the command.

Whatever a case writes, the command has to end with status 0, 1 or 2; with 2, one line stands on standard error.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

from fuzzing import arrays, commands, paths, plugins, results, studies, tables

Case = Callable[[Random, Path], list[str]]

#: A user's own data, by what is wrong with them.
DATA: dict[str, Case] = {
    "npz_bytes": arrays.npz_bytes,
    "npz_header": arrays.npz_header,
    "npz_arrays": arrays.npz_arrays,
    "npz_members": arrays.npz_members,
    "toml_values": tables.toml_values,
    "toml_bytes": tables.toml_bytes,
    "csv_cells": tables.csv_cells,
    "csv_bytes": tables.csv_bytes,
    "parquet": tables.parquet,
    "init": tables.init,
    "paths": paths.paths,
}


def data(rng: Random, folder: Path) -> list[str]:
    """A user's own data, damaged."""
    return DATA[rng.choice(sorted(DATA))](rng, folder)


CASES: dict[str, Case] = {
    "data": data,
    "commands": commands.commands,
    "records": results.records,
    "damaged": results.damaged,
    "plugins": plugins.plugins,
    "studies": studies.studies,
}

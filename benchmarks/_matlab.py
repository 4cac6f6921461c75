"""Arrays of a MATLAB file, version 5 to 7. Nothing is unpickled: such a file holds numbers and names, no objects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fusionbench.api import UsageError


def arrays(path: Path, wanted: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """The wanted variables as finite numbers.

    Raises:
        UsageError: the file is broken or no MATLAB file, or a variable is missing or no table of finite numbers.
    """
    from scipy.io import loadmat

    try:
        found = loadmat(str(path), variable_names=list(wanted))
    except Exception as error:  # what scipy raises on a broken file depends on the byte that is broken
        raise UsageError(f"{path} cannot be read as a MATLAB file: {' '.join(str(error).split())[:100]}") from None
    values = {}
    for name in wanted:
        value = found.get(name)
        if value is None:
            raise UsageError(f"{path} has no variable {name}")
        if value.dtype.kind not in "biuf" or not np.isfinite(value).all():
            raise UsageError(f"{path}: {name} is no table of finite numbers")
        values[name] = value.astype(np.float64)
    return values

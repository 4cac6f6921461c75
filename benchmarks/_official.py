"""An official split into training and test, of which a fifth of the training groups validates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fusionbench.api import Splits, group_folds


def official(groups: Sequence[str], test: NDArray[np.bool_]) -> Splits:
    """Test samples are those of `test` (N,); which training groups validate depends on their names alone."""
    train = np.flatnonzero(~test)
    val = train[group_folds([groups[i] for i in train], 5, 0).test]
    return Splits(np.setdiff1d(train, val), val, np.flatnonzero(test))

"""Logistic regression, or ridge, on the summaries of all modalities together; per frame on a window of nine frames.

Missing modalities: a model of its own for each set of modalities that is there. It learns from the samples that have
all of the set, if these are at least half of those that have any; single lost frames are zeros beside their mask.

Not compared: the linear models are scikit-learn's own.

Ours: the summaries (`fusionbench.api.summaries`), how absent modalities are taken, the grid that validation tries.
"""

from __future__ import annotations

from typing import Annotated, Any

from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fusionbench.api import Range, Spec

from ._classical import BySet


class Linear(BySet):
    grid = {"penalty": (1.0, 10.0, 100.0)}
    complete = True
    known_failures = {"solves_xor": "a linear map of two bits cannot tell whether they differ"}

    def __init__(
        self,
        spec: Spec,
        *,
        penalty: Annotated[float, Range(0.01, 1000.0, log=True), "L2 penalty of the standardised weights"] = 10.0,
    ) -> None:
        super().__init__(spec)
        self.penalty = penalty

    def make(self, seed: int) -> Any:
        if self.spec.kind == "classify":
            return make_pipeline(StandardScaler(), LogisticRegression(C=1 / self.penalty, max_iter=2000, tol=1e-3))
        return make_pipeline(StandardScaler(), Ridge(alpha=self.penalty))

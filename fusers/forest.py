"""Random forest on the summaries of all modalities together (Breiman 2001), by scikit-learn.

Missing modalities: a forest of its own for each set of modalities that is there, on their summaries alone. In training
the summaries of an absent modality are zeros (the mean), and a column says so.
"""

from __future__ import annotations

from typing import Annotated, Any

from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

from fusionbench.api import Range, Spec

from ._classical import BySet


class Forest(BySet):
    grid = {"leaf": (1, 4)}

    def __init__(
        self,
        spec: Spec,
        *,
        trees: Annotated[int, Range(50, 500), "trees"] = 100,
        leaf: Annotated[int, Range(1, 20, log=True), "least samples a leaf"] = 1,
        share: Annotated[float, Range(0.02, 1.0, log=True), "share of the columns that a split chooses from"] = 0.1,
    ) -> None:
        super().__init__(spec)
        self.settings = {"n_estimators": trees, "min_samples_leaf": leaf, "max_features": share}

    def make(self, seed: int) -> Any:
        maker = RandomForestClassifier if self.spec.kind == "classify" else RandomForestRegressor
        return maker(**self.settings, random_state=seed)

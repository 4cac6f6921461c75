"""Random forest on the summaries of all modalities together (Breiman 2001), by scikit-learn.

Missing modalities: their summaries are zero (the mean of training) and a column says that they are absent. In training
every clip stands there as it is; a forest that has met no absent modality hardly splits on that column.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

from fusionbench.api import Range, Spec

from ._classical import Table, answers_of, leaves, marked


class Forest(Table):
    grid = {"leaf": (1, 5)}

    def __init__(
        self,
        spec: Spec,
        *,
        trees: Annotated[int, Range(50, 500), "trees"] = 200,
        leaf: Annotated[int, Range(1, 20, log=True), "least samples a leaf"] = 1,
        share: Annotated[float, Range(0.02, 1.0, log=True), "share of the columns that a split chooses from"] = 0.1,
    ) -> None:
        super().__init__(spec)
        self.settings = {"n_estimators": trees, "min_samples_leaf": leaf, "max_features": share}

    def learn(self, x: dict[str, np.ndarray], y: np.ndarray, groups: np.ndarray, val: Any, seed: int) -> None:
        maker = RandomForestClassifier if self.spec.kind == "classify" else RandomForestRegressor
        self.model = maker(**self.settings, random_state=seed).fit(marked(x), y)

    def answer(self, x: dict[str, np.ndarray]) -> np.ndarray:
        return answers_of(self.model, marked(x), self.spec)

    def learned(self) -> int:
        return leaves(self.model)

"""A random forest of each modality alone, their probabilities (or values) averaged, by scikit-learn.

Missing modalities: each forest learns from the samples that have its modality, and the average is over those present.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

from fusionbench.api import Range, Spec

from ._classical import Rows, Table, model_size, outputs, plain, there, to_answers


class LateForest(Table):
    grid = {"leaf": (1, 4)}
    known_failures = {"solves_xor": "each modality alone says nothing of an exclusive-or: late fusion cannot solve it"}

    def __init__(
        self,
        spec: Spec,
        *,
        trees: Annotated[int, Range(50, 500), "trees a modality"] = 100,
        leaf: Annotated[int, Range(1, 20, log=True), "least samples a leaf"] = 1,
        share: Annotated[float, Range(0.02, 1.0, log=True), "share of the columns that a split chooses from"] = 0.1,
    ) -> None:
        super().__init__(spec)
        self.settings = {"n_estimators": trees, "min_samples_leaf": leaf, "max_features": share}

    def learn(self, x: Rows, y: np.ndarray, groups: np.ndarray, seed: int) -> None:
        maker = RandomForestClassifier if self.spec.kind == "classify" else RandomForestRegressor
        self.models = {
            m: maker(**self.settings, random_state=seed).fit(rows[there(rows)], plain(y[there(rows)]))
            for m, rows in x.items()
            if there(rows).any()
        }

    def answer(self, x: Rows) -> np.ndarray:
        total = np.zeros((len(next(iter(x.values()))), self.spec.out))
        count = np.zeros((len(total), 1))
        for m, model in self.models.items():
            who = there(x[m])
            if who.any():
                total[who] += outputs(model, x[m][who], self.spec)
                count[who] += 1
        prior = np.exp(self.prior) if self.spec.kind == "classify" else self.prior
        return to_answers(np.where(count > 0, total / np.maximum(count, 1), prior), self.spec)

    def learned(self) -> int:
        return sum(map(model_size, self.models.values())) if self.fitted else 0

"""Logistic regression, or ridge, on the summaries of each modality alone; their probabilities (or values) averaged.

Missing modalities: each model learns from the samples that have its modality, and the average is over those present.

Not compared: the linear models are scikit-learn's own.

Ours: the summaries (`fusionbench.api.summaries`), one penalty for all modalities, and the grid that validation tries.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fusionbench.api import Range, Spec

from ._classical import Rows, Table, model_size, outputs, plain, there, to_answers


class LateLinear(Table):
    grid = {"penalty": (1.0, 10.0, 100.0)}
    known_failures = {"solves_xor": "each modality alone says nothing of an exclusive-or: late fusion cannot solve it"}

    def __init__(
        self,
        spec: Spec,
        *,
        penalty: Annotated[float, Range(0.01, 1000.0, log=True), "L2 penalty of the standardised weights"] = 10.0,
    ) -> None:
        super().__init__(spec)
        self.penalty = penalty

    def learn(self, x: Rows, y: np.ndarray, groups: np.ndarray, seed: int) -> None:
        self.models = {}
        for m, rows in x.items():
            known = y[there(rows)]
            if len(known) > 1 and (self.spec.kind == "regress" or len(np.unique(known)) > 1):
                self.models[m] = self._model().fit(rows[there(rows)], plain(known))

    def answer(self, x: Rows) -> np.ndarray:
        total = np.zeros((len(next(iter(x.values()))), self.spec.out))
        count = np.zeros((len(total), 1))
        for m, model in self.models.items():
            present = there(x[m])
            if present.any():
                total[present] += outputs(model, x[m][present], self.spec)
                count[present] += 1
        prior = np.exp(self.prior) if self.spec.kind == "classify" else self.prior
        return to_answers(np.where(count > 0, total / np.maximum(count, 1), prior), self.spec)

    def learned(self) -> int:
        return sum(map(model_size, self.models.values())) if self.fitted else 0

    def _model(self) -> Any:
        if self.spec.kind == "classify":
            return make_pipeline(StandardScaler(), LogisticRegression(C=1 / self.penalty, max_iter=2000, tol=1e-3))
        return make_pipeline(StandardScaler(), Ridge(alpha=self.penalty))

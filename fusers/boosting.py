"""Histogram gradient boosting on the summaries of all modalities together, by scikit-learn.

Missing modalities: their summaries are NaN, which a split sends to the side that suits the training samples. So that
it meets them, every training sample that has several modalities stands there twice: as it is, and without one of them.

Not compared: the boosting is scikit-learn's own.

Ours: the summaries (`fusionbench.api.summaries`), how absent modalities are taken, the grid that validation tries.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from fusionbench.api import Range, Spec

from ._classical import Rows, Table, outputs, there, to_answers


class Boosting(Table):
    grid = {"rate": (0.05, 0.15)}

    def __init__(
        self,
        spec: Spec,
        *,
        rounds: Annotated[int, Range(30, 300, log=True), "trees, one after the other (a class)"] = 80,
        rate: Annotated[float, Range(0.02, 0.3, log=True), "what a tree adds"] = 0.05,
        leaves: Annotated[int, Range(4, 31, log=True), "leaves a tree, at most"] = 15,
        share: Annotated[float, Range(0.05, 1.0, log=True), "share of the columns that a split chooses from"] = 0.2,
    ) -> None:
        super().__init__(spec)
        self.settings = {"max_iter": rounds, "learning_rate": rate, "max_leaf_nodes": leaves, "max_features": share}

    def learn(self, x: Rows, y: np.ndarray, groups: np.ndarray, seed: int) -> None:
        twice, who = _with_one_hidden(x, np.random.default_rng(seed))
        rows, labels = np.concatenate(list(twice.values()), 1), y[who]
        self.known = ~np.isnan(rows).all(0)  # columns of modalities that training has seen: there are bins for no other
        rows = rows[:, self.known]
        settings: dict[str, Any] = {**self.settings, "early_stopping": False, "random_state": seed}
        if self.spec.kind == "classify":
            many = len(np.unique(labels)) > 1  # of one class there is nothing to learn
            self.models = [HistGradientBoostingClassifier(**settings).fit(rows, labels)] if many else []
        else:
            self.models = [HistGradientBoostingRegressor(**settings).fit(rows, column) for column in labels.T]

    def answer(self, x: Rows) -> np.ndarray:
        rows = np.concatenate(list(x.values()), 1)[:, self.known]
        if not self.models:
            return np.tile(self.prior, (len(rows), 1))
        return to_answers(np.concatenate([outputs(model, rows, self.spec) for model in self.models], 1), self.spec)

    def learned(self) -> int:
        """Thresholds and values of the trees, as the library keeps them."""
        models = self.models if self.fitted else []
        return sum(2 * len(tree.nodes) for model in models for step in model._predictors for tree in step)


def _with_one_hidden(x: Rows, rng: np.random.Generator) -> tuple[Rows, np.ndarray]:
    """The rows, below them those with several modalities less one of these; and which row each one was."""
    present = np.stack([there(rows) for rows in x.values()], 1)  # (n, M)
    several = np.flatnonzero(present.sum(1) > 1)
    hidden = np.where(present, rng.random(present.shape), -1.0).argmax(1)
    found = {}
    for place, (m, rows) in enumerate(x.items()):
        copy = rows[several].copy()
        copy[hidden[several] == place] = np.nan
        found[m] = np.concatenate([rows, copy])
    return found, np.concatenate([np.arange(len(present)), several])

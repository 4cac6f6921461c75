"""Stacked generalisation (Wolpert 1992): forests of each modality, a linear model on their out-of-fold answers.

The answers that the linear model learns from are those of forests that have not seen the person (four folds by person
inside training). Missing modalities: a linear model of its own for each set of modalities that is there.

Not compared: the models are scikit-learn's own.

Ours: the summaries (`fusionbench.api.summaries`), how absent modalities are taken, the grid that validation tries.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge

from fusionbench.api import Range, Spec

from ._classical import BySet, Rows, model_size, outputs, plain, there

FOLDS = 4


class Stacking(BySet):
    grid = {"penalty": (0.1, 10.0)}
    complete = True
    known_failures = {"solves_xor": "each modality alone says nothing of an exclusive-or: late fusion cannot solve it"}

    def __init__(
        self,
        spec: Spec,
        *,
        trees: Annotated[int, Range(20, 300), "trees of a modality's forest"] = 60,
        leaf: Annotated[int, Range(1, 20, log=True), "least samples a leaf"] = 2,
        share: Annotated[float, Range(0.02, 1.0, log=True), "share of the columns that a split chooses from"] = 0.1,
        penalty: Annotated[float, Range(0.01, 100.0, log=True), "L2 penalty of the linear model"] = 0.1,
    ) -> None:
        super().__init__(spec)
        self.settings = {"n_estimators": trees, "min_samples_leaf": leaf, "max_features": share}
        self.penalty = penalty

    def make(self, seed: int) -> Any:
        if self.spec.kind == "classify":
            return LogisticRegression(C=1 / self.penalty, max_iter=1000)
        return Ridge(alpha=self.penalty)

    def learn(self, x: Rows, y: np.ndarray, groups: np.ndarray, seed: int) -> None:
        people = np.random.default_rng(seed).permutation(np.unique(groups))
        place = {person: number % FOLDS for number, person in enumerate(people)}
        fold = np.array([place[person] for person in groups])
        self.forests: dict[str, Any] = {}
        unseen = {}
        for m, rows in x.items():
            has = there(rows)
            unseen[m] = np.full((len(rows), self.spec.out), np.nan)
            if not has.any():
                continue
            self.forests[m] = self._forest(seed).fit(rows[has], plain(y[has]))
            for k in range(FOLDS):
                inside, outside = has & (fold != k), has & (fold == k)
                if outside.any():  # of a single person there is nobody else to learn from
                    model = self._forest(seed).fit(rows[inside], plain(y[inside])) if inside.any() else self.forests[m]
                    unseen[m][outside] = outputs(model, rows[outside], self.spec)
        super().learn(unseen, y, groups, seed)

    def answer(self, x: Rows) -> np.ndarray:
        seen = {}
        for m, rows in x.items():
            has = there(rows)
            seen[m] = np.full((len(rows), self.spec.out), np.nan)
            if m in self.forests and has.any():
                seen[m][has] = outputs(self.forests[m], rows[has], self.spec)
        return super().answer(seen)

    def learned(self) -> int:
        return super().learned() + sum(map(model_size, self.forests.values())) if self.fitted else 0

    def _forest(self, seed: int) -> Any:
        maker = RandomForestClassifier if self.spec.kind == "classify" else RandomForestRegressor
        return maker(**self.settings, random_state=seed)

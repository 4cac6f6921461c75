"""The place in the recording alone: a random forest that sees when a sample was taken and nothing of the signals.

Not a fusion method but a reference: where tasks come in one order for everybody, elapsed time tells the label, and a
method that scores below this row has shown nothing about its sensors. The harness hands it the position (0 to 1, as the
benchmark declares it in `order`) as the only stream; damage does not touch it.

Not compared: our own baseline.

Ours: all of it. It is `forest` on a single number.
"""

from __future__ import annotations

from typing import Annotated, Any

from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

from fusionbench.api import Range, Spec

from ._classical import BySet


class Position(BySet):
    sees_order = True
    grid = {"leaf": (5, 20)}

    def __init__(
        self,
        spec: Spec,
        *,
        trees: Annotated[int, Range(50, 500), "trees"] = 100,
        leaf: Annotated[int, Range(1, 40, log=True), "least samples a leaf"] = 5,
    ) -> None:
        super().__init__(spec)
        self.settings = {"n_estimators": trees, "min_samples_leaf": leaf}

    def make(self, seed: int) -> Any:
        maker = RandomForestClassifier if self.spec.kind == "classify" else RandomForestRegressor
        return maker(**self.settings, random_state=seed)

"""Random forest on the summaries of one modality alone (Breiman 2001), by scikit-learn. The others are never looked at.

Not a fusion method but a reference: where it exceeds every fused row, fusion has not helped.

Not compared: scikit-learn's own forest, and summaries that are documented in `fusionbench.api.summaries`.

Ours: all of it. It is `forest` with a single input; where that is missing it answers the prior.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, ClassVar

from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

from fusionbench.api import Range, Spec, UsageError

from ._classical import BySet


class UnimodalForest(BySet):
    grid = {"leaf": (1, 4)}
    known_failures: ClassVar[dict[str, str]] = {
        "every_modality_matters": "it looks at one modality, as it should",
        "solves_xor": "one modality does not tell the exclusive-or of two",
    }

    def __init__(
        self,
        spec: Spec,
        *,
        modality: Annotated[str, "the modality that is used; empty: the benchmark's first"] = "",
        trees: Annotated[int, Range(50, 500), "trees"] = 100,
        leaf: Annotated[int, Range(1, 20, log=True), "least samples a leaf"] = 1,
        share: Annotated[float, Range(0.02, 1.0, log=True), "share of the columns that a split chooses from"] = 0.1,
    ) -> None:
        chosen = modality or spec.modalities[0]
        if chosen not in spec.dims:
            raise UsageError(f"unimodal_forest: there is no modality {modality!r}, only {', '.join(spec.dims)}")
        super().__init__(replace(spec, dims={chosen: spec.dims[chosen]}))
        self.settings = {"n_estimators": trees, "min_samples_leaf": leaf, "max_features": share}

    def make(self, seed: int) -> Any:
        maker = RandomForestClassifier if self.spec.kind == "classify" else RandomForestRegressor
        return maker(**self.settings, random_state=seed)

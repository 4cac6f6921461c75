"""One modality alone: its steps through a linear layer, pooled, a head. The others are never looked at.

Not a fusion method but the reference that every one of them has to beat; the harness runs it for each modality.

Not compared: our own baseline.

Ours: all of it. It is `concat` with a single input.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from torch import Tensor, nn

from fusionbench.api import Choice, Fuser, Head, Spec, Streams, UsageError


class Unimodal(Fuser):
    known_failures: ClassVar[dict[str, str]] = {
        "every_modality_matters": "it looks at one modality, as it should",
        "solves_xor": "one modality does not tell the exclusive-or of two",
    }

    def __init__(
        self,
        spec: Spec,
        *,
        modality: Annotated[str, "the modality that is used; empty: the benchmark's first"] = "",
        width: Annotated[int, Choice(64, 128, 256), "width of the linear layer"] = 128,
    ):
        super().__init__(spec)
        self.modality = modality or spec.modalities[0]
        if self.modality not in spec.dims:
            raise UsageError(f"unimodal: there is no modality {modality!r}, only {', '.join(spec.dims)}")
        self.sees = (self.modality,)
        self.project = nn.Linear(spec.dims[self.modality], width)
        self.head = Head(width, spec.out)

    def forward(self, streams: Streams) -> Tensor:
        return self.head(self.project(self.pool(streams[self.modality]).x))

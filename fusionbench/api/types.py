"""The values that flow through the harness: streams, batches, tasks. All frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from fusionbench.errors import UsageError

Kind = Literal["classify", "regress"]


@dataclass(frozen=True, eq=False)
class Stream:
    """One modality of a batch.

    Padding, dropped frames, a dead sensor and a missing modality are one thing: `mask` is False there, and `x` is
    filled with zeros there on construction, so that whatever lay under a False mask (NaN included) is gone.

    Attributes:
        x: (B, T, *step) values.
        mask: (B, T) bool, True where a step is real.

    Raises:
        ValueError: the shapes do not agree, or the mask is not boolean.
    """

    x: Tensor
    mask: Tensor

    def __post_init__(self) -> None:
        if self.mask.dtype != torch.bool:
            raise ValueError(f"a stream's mask is boolean, not {self.mask.dtype}")
        if self.x.dim() < 3 or self.mask.shape != self.x.shape[:2]:
            raise ValueError(f"a stream is x (B, T, *step), mask (B, T), not {self.x.shape} and {self.mask.shape}")
        wide = self.mask.reshape(*self.mask.shape, *[1] * (self.x.dim() - 2))
        object.__setattr__(self, "x", torch.where(wide, self.x, 0.0))

    def __len__(self) -> int:
        return self.x.shape[0]

    def __getitem__(self, index: Any) -> Stream:
        return Stream(self.x[index], self.mask[index])

    def __repr__(self) -> str:
        return (
            f"Stream(x {tuple(self.x.shape)} {self.x.dtype}, {float(self.mask.float().mean()):.0%} of the steps real)"
        )

    def to(self, device: torch.device | str) -> Stream:
        return Stream(self.x.to(device), self.mask.to(device))

    @property
    def shape(self) -> tuple[int, ...]:
        """(T, *step)."""
        return tuple(self.x.shape[1:])

    @property
    def present(self) -> Tensor:
        """(B,) bool: has the sample any real step of this modality?"""
        return self.mask.any(1)

    def absent(self) -> Stream:
        """The same stream with every step masked."""
        return Stream(self.x, torch.zeros_like(self.mask))


#: Every modality of the benchmark is always present as a key; absence is an all-False mask.
Streams = dict[str, Stream]


@runtime_checkable
class Source(Protocol):
    """A lazy stack of raw media or of encoded features: indexing reads and decodes (to the CPU), nothing is held whole.

    Attributes:
        shape: (T, *step).
        digest: a hash of the content, the same on every machine.
    """

    shape: tuple[int, ...]
    digest: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any) -> Stream: ...


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples with their labels: a whole dataset, or some of it by `batch[index]`.

    Attributes:
        streams: modality -> Stream (or Source, in a dataset of raw media), all of one length B.
        y: (B, S) integer classes or (B, S, out) values; S = 1 for a clip, the label's clock per frame. Labels under a
            False `y_mask` are zeros (given NaN or not).
        y_mask: (B, S) bool.
        ids: B sample names, and groups: B subject (or video) names. Both empty in a training batch: a method has no
            business with who it looks at (`Estimator.fit` alone gets groups, as whole numbers).
        index: (B,) positions in the dataset.
        progress: 0..1 through training, a number or a scalar tensor.
        attributes: name (sex, age, site) -> B texts, for scores by subgroup; no method meets them.
    """

    streams: dict[str, Any]
    y: Tensor
    y_mask: Tensor
    ids: Sequence[str] = ()
    groups: Sequence[Any] = ()
    index: Tensor = field(default=None)  # type: ignore[assignment]
    progress: float | Tensor = 0.0
    attributes: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.y.shape[:2] != self.y_mask.shape or self.y_mask.dtype != torch.bool:
            raise ValueError(f"labels are y (B, S[, out]), y_mask (B, S) bool, not {self.y.shape}, {self.y_mask.shape}")
        wide = self.y_mask.reshape(*self.y_mask.shape, *[1] * (self.y.dim() - 2))
        nothing = torch.zeros((), dtype=self.y.dtype, device=self.y.device)
        object.__setattr__(self, "y", torch.where(wide, self.y, nothing))
        if self.index is None:
            object.__setattr__(self, "index", torch.arange(len(self.y), device=self.y.device))

    def __len__(self) -> int:
        return self.y.shape[0]

    def __getitem__(self, index: Any) -> Batch:
        """The samples at `index` (integers, or a slice)."""
        if isinstance(index, slice):
            index = torch.arange(len(self))[index]
        index = torch.as_tensor(index, device=self.y.device)
        if index.dtype == torch.bool:
            index = index.nonzero().flatten()
        rows = index.tolist() if len(self.ids) or len(self.groups) or self.attributes else []
        return replace(
            self,
            streams={
                m: s[index] if isinstance(s, Stream) else s[index].to(self.y.device) for m, s in self.streams.items()
            },
            y=self.y[index],
            y_mask=self.y_mask[index],
            ids=[self.ids[i] for i in rows if len(self.ids)],
            groups=[self.groups[i] for i in rows if len(self.groups)],
            index=self.index[index],
            attributes={name: [texts[i] for i in rows] for name, texts in self.attributes.items()},
        )

    def __repr__(self) -> str:
        shapes = ", ".join(f"{m} {tuple(s.shape)}" for m, s in self.streams.items())
        return f"Batch({len(self)} samples; a sample has {shapes}; y {tuple(self.y.shape[1:])} {self.y.dtype})"

    def to(self, device: torch.device | str) -> Batch:
        streams = {m: s.to(device) if isinstance(s, Stream) else s for m, s in self.streams.items()}
        index = self.index.to(device)
        return replace(self, streams=streams, y=self.y.to(device), y_mask=self.y_mask.to(device), index=index)


@dataclass(frozen=True, eq=False)
class Splits:
    """Three index arrays into one dataset. Training, model selection and search never see `test`."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


@dataclass(frozen=True)
class Task:
    """What is asked.

    Attributes:
        kind: "classify" (y: class ids) or "regress" (y: `out` values).
        out: number of classes or of values.
        metrics: names from `fusionbench.metrics`; the first one selects checkpoints and ranks.
        per_frame: one answer a frame of the label's clock, else one a clip.
    """

    kind: Kind
    out: int
    metrics: tuple[str, ...]
    per_frame: bool = False


@dataclass(frozen=True)
class Spec:
    """All that a fuser may know of the data.

    Attributes:
        kind: "classify" or "regress".
        dims: modality -> width of one step, in the benchmark's order.
        out: outputs a step.
        per_frame: answers at every step (then all streams share the label's clock), else one a clip.
        samples: number of training samples.
        rates: modality -> steps a second, where it is known.
    """

    kind: Kind
    dims: Mapping[str, int]
    out: int
    per_frame: bool = False
    samples: int = 1
    rates: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.dims:
            if not name.isidentifier() or hasattr(torch.nn.ModuleDict(), name):
                raise UsageError(f"a modality cannot be called {name!r}: use letters, digits and underscores")

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.dims)

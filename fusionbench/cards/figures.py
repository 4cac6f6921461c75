"""What a card says of the data in numbers: small, without a sample, made where the data are and committed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fusionbench import contract, hparams, registry
from fusionbench.api import Batch, Benchmark, Stream
from fusionbench.text import counted


@dataclass(frozen=True)
class Modality:
    """Steps of a sample; shares of samples without it, and of missing steps in the others (None: raw media)."""

    steps: int
    absent: float | None
    missing: float | None


@dataclass(frozen=True)
class Figures:
    """The numbers of a card.

    Attributes:
        code: fingerprint of the benchmark that loaded the data: other code may load other data.
        unit: what a group is.
        splits: folds, then training, validation and test samples on average.
        labels: how many samples (frames) each class has; empty for values.
        attributes: name -> its values, sorted.
    """

    code: str
    samples: int
    groups: int
    unit: str
    splits: Sequence[int]
    labels: Sequence[int]
    attributes: Mapping[str, Sequence[str]]
    modalities: Mapping[str, Modality]

    @property
    def counted(self) -> str:
        """`713 samples of 65 people`."""
        return f"{counted(self.samples, 'sample')} of {counted(self.groups, self.unit)}"


def measure(name: str, given: Mapping[str, Any] | None = None) -> Figures:
    """The figures of a benchmark's data.

    Raises:
        UsageError: there is no such benchmark, or its data cannot be read.
    """
    plugin = registry.load("benchmarks", name)
    benchmark = contract.make(plugin, hparams.fill(hparams.read(plugin), given or {}, name), name)
    data = contract.load(benchmark, name)
    folds = [contract.splits(benchmark, name, data, fold) for fold in range(benchmark.folds)]
    sides = (sum(len(getattr(f, side)) for f in folds) / len(folds) for side in contract.SIDES)
    return Figures(
        code=registry.fingerprint(plugin),
        samples=len(data),
        groups=len(set(data.groups)),
        unit=benchmark.unit,
        splits=(len(folds), *map(round, sides)),
        labels=_labels(benchmark, data),
        attributes={a: sorted(set(texts) - {""}) for a, texts in data.attributes.items()},
        modalities={m: _modality(stream) for m, stream in data.streams.items()},
    )


def _labels(benchmark: Benchmark, data: Batch) -> tuple[int, ...]:
    if benchmark.task.kind != "classify":
        return ()
    return tuple(int(n) for n in data.y[data.y_mask].bincount(minlength=benchmark.task.out))


def _modality(stream: Any) -> Modality:
    if not isinstance(stream, Stream):
        return Modality(int(stream.shape[0]), None, None)
    absent = 1 - float(stream.present.float().mean())
    missing = 1 - float(stream.mask[stream.present].float().mean())
    return Modality(int(stream.shape[0]), round(absent, 6), round(missing, 6))

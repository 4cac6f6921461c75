"""The data as the audit looks at them: a row of numbers a sample, one label, a group, a place in the recording."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fusionbench import contract, hparams, registry
from fusionbench.api import Batch, Benchmark, Splits, Stream, elapsed, summaries
from fusionbench.errors import UsageError

Array = NDArray[np.float64]
Whole = NDArray[np.int64]
#: Models look at so many samples at most, evenly taken, and at so many numbers of a modality.
LIMIT, COLUMNS = 2500, 120
FOLDS = 5  # of shuffled folds, of folds by group, and at most of the data's own


@dataclass(frozen=True, eq=False)
class Samples:
    """The labelled samples of a benchmark (evenly thinned to `LIMIT`), and the whole of its data beside them.

    Attributes:
        data: everything; splits: the data's own folds, at most `FOLDS`.
        rows: (n,) positions of the samples in `data`; all that follows is of those.
        x: modality -> (n, d) summaries of a stream, or its numbers where it has one step; NaN where it is absent.
        y: (n,) classes, or (n, out) values; per frame the commonest class, or the mean.
        group: (n,) numbers from 0 on.
        place: (n,) elapsed time, 0 to 1: as the benchmark declares it, else by the order of the samples in a group.
        timed: does the benchmark declare it?
    """

    benchmark: Benchmark
    name: str
    data: Batch
    splits: Sequence[Splits]
    rows: Whole
    x: Mapping[str, Array]
    y: NDArray[Any]
    group: Whole
    place: Array
    timed: bool

    @property
    def kind(self) -> str:
        return self.benchmark.task.kind

    @property
    def groups(self) -> int:
        """How many there are."""
        return int(self.group.max()) + 1

    @property
    def grouped(self) -> bool:
        """Has a group several samples, as a rule?"""
        return len(self.rows) >= 3 * self.groups

    @cached_property
    def features(self) -> Array:
        """(n, d) of all modalities; 0 where one is absent, and a column that says so where it is at times."""
        columns = []
        for x in self.x.values():
            absent = np.isnan(x[:, :1])
            columns += [np.nan_to_num(x)] + ([absent.astype(float)] if 0 < absent.mean() < 1 else [])
        return np.concatenate(columns, 1)

    @cached_property
    def mixed(self) -> bool:
        """Do the data's own folds put one group on two sides?"""
        groups = np.asarray(self.data.groups)
        return any(len(np.intersect1d(groups[s.test], groups[np.concatenate([s.train, s.val])])) for s in self.splits)

    @cached_property
    def by_group(self) -> Whole:
        """(n,) folds of whole groups, drawn at random."""
        order = np.random.default_rng(0).permutation(self.groups)
        return (np.argsort(order) % min(FOLDS, self.groups))[self.group]

    def own(self, side: str, fold: int) -> NDArray[np.bool_]:
        """(n,) which samples stand on a side of one of the data's own folds."""
        return np.isin(self.rows, getattr(self.splits[fold], side))


def load(target: str, given: Mapping[str, Any] | None = None) -> Samples:
    """The samples of an .npz file, a folder with benchmark.toml, a .py plugin, or a benchmark by name.

    Raises:
        UsageError: there is no such data, they cannot be read, or there are too few to say anything.
    """
    plugin, name = registry.load("benchmarks", target), registry.plugin_name(target)
    benchmark = contract.make(plugin, hparams.fill(hparams.read(plugin), given or {}, name), name)
    data = contract.load(benchmark, name)
    splits = [contract.splits(benchmark, name, data, fold) for fold in range(min(benchmark.folds, FOLDS))]
    return samples(benchmark, name, data, splits)


def samples(benchmark: Benchmark, name: str, data: Batch, splits: Sequence[Splits]) -> Samples:
    """The same of data that are loaded.

    Raises:
        UsageError: fewer than 40 labelled samples or 5 groups, one class only, or raw media alone.
    """
    labelled = np.flatnonzero(data.y_mask.any(1).numpy())
    rows = labelled[np.unique(np.linspace(0, len(labelled) - 1, min(len(labelled), LIMIT)).round().astype(int))]
    group = np.unique(np.asarray(data.groups)[rows], return_inverse=True)[1]
    if len(rows) < 40 or group.max() < 4:
        raise UsageError(
            f"{name}: an audit needs 40 labelled samples of 5 groups; there are {len(rows)} of {group.max() + 1}"
        )
    y = _labels(benchmark, data, rows)
    if len(np.unique(y, axis=0)) < 2:
        raise UsageError(f"{name}: every label is the same: there is nothing to audit")
    x = {m: _numbers(s, rows) for m, s in data.streams.items() if isinstance(s, Stream)}
    if not x:
        raise UsageError(f"{name}: raw media are not audited; audit what their encoders make of them")
    order = contract.order(benchmark, name, data)
    place = elapsed(data.groups) if order is None else order
    return Samples(benchmark, name, data, splits, rows, x, y, group, place[rows], order is not None)


def _labels(benchmark: Benchmark, data: Batch, rows: Whole) -> NDArray[Any]:
    y, mask = data.y.numpy()[rows], data.y_mask.numpy()[rows]
    if benchmark.task.kind == "regress":
        return np.asarray((y * mask[..., None]).sum(1) / mask.sum(1)[:, None], dtype=float)
    votes = (y[..., None] == np.arange(benchmark.task.out)) & mask[..., None]
    return np.unique(votes.sum(1).argmax(1), return_inverse=True)[1]


def _numbers(stream: Stream, rows: Whole) -> Array:
    """(n, d) what a stream says of a sample: nine summaries a channel, or as many of them as `COLUMNS` allows."""
    flat = Stream(stream.x[rows].flatten(2), stream.mask[rows])
    width = flat.shape[1]
    if flat.shape[0] == 1:
        found = flat.x[:, 0]
    else:
        found = torch.cat([summaries(flat[part]) for part in torch.arange(len(rows)).split(512)])
        if found.shape[1] > COLUMNS:  # mean, SD, slope
            found = torch.cat([found[:, k * width : (k + 1) * width] for k in (0, 1, 7)], 1)
    if found.shape[1] > 4 * COLUMNS:
        found = found[:, torch.linspace(0, found.shape[1] - 1, 4 * COLUMNS).long()]
    x = found.double().numpy().copy()
    x[~flat.present.numpy()] = np.nan
    return x

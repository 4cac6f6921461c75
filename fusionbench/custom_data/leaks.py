"""Columns that give the label or the group away: a copy of the answer, a person's number, a pattern of missing steps.

A column is suspected of the label if one interval of its values for each class, or its order for a value, answers
samples of groups that did not choose the interval almost without error, and if its classes are ten standard deviations
apart, as copies are and sensors are not. A modality whose columns together do so, one a class, is named too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fusionbench.api import Batch, Benchmark, Stream, Task

GIVEN_AWAY = 0.98  # balanced accuracy from which a class counts as given away
APART = 4.0  # distance of two classes' medians over the wider 10 % to 90 % range: ten standard deviations
ORDERED = 0.995  # |Spearman's correlation|
LEAST = {"classify": 20, "regress": 30}  # samples: with fewer, chance alone orders some column as the label is
COLUMNS, ROWS = 1024, 2000  # looked at in one modality at most
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Suspect:
    """A leak that the data suggest: `column` of the modality (None: which of its steps are there)."""

    modality: str
    what: str  # label | group
    column: int | None
    share: float  # of unseen groups' samples answered right; 1 for a group

    def __str__(self) -> str:
        where = f"column {self.column} (from 0) of {self.modality}"
        if self.column is None:
            where = f"which steps of {self.modality} are missing"
        elif self.column < 0:
            where = f"{self.modality}, one column a class,"
        if self.what == "group":
            return f"suspected leak: {where} tells the group of every sample: a number of the person is no measurement"
        return f"suspected leak: {where} alone tells the label of {self.share:.1%} of the samples of unseen groups"


@dataclass(frozen=True)
class Crossing:
    """Groups that stand on two sides of a split, and the folds in which they do."""

    sides: tuple[str, str]
    groups: frozenset[str]
    folds: tuple[int, ...]

    def __str__(self) -> str:
        (a, b), others = self.sides, len(self.groups) - 1
        who = f"group {min(self.groups)!r}" + (f" and {others} more" if others else "")
        return f"leak: {who} in {a} and in {b} (fold{'s' * (len(self.folds) > 1)} {', '.join(map(str, self.folds))})"


def crossing(benchmark: Benchmark, data: Batch) -> Iterator[Crossing]:
    """Groups on two sides of the benchmark's own splits, a pair of sides each.

    Raises:
        UsageError: the data cannot be split.
    """
    groups = np.asarray(data.groups)
    found: dict[tuple[str, str], tuple[set[str], list[int]]] = {}
    for fold in range(benchmark.folds):
        splits = benchmark.splits(data, fold)
        for a, b in (("train", "val"), ("train", "test"), ("val", "test")):
            shared = np.intersect1d(groups[getattr(splits, a)], groups[getattr(splits, b)])
            if len(shared):
                people, folds = found.setdefault((a, b), (set(), []))
                people.update(map(str, shared))
                folds.append(fold)
    yield from (Crossing(sides, frozenset(people), tuple(folds)) for sides, (people, folds) in found.items())


def suspects(task: Task, data: Batch) -> Iterator[Suspect]:
    """Every leak of the label or the group, one a modality and kind at most: the most telling column."""
    rows, units = _units(task, data)
    names, groups = np.unique(np.asarray(data.groups), return_inverse=True)
    for m, stream in data.streams.items():
        if not isinstance(stream, Stream):
            continue
        if len(rows) >= LEAST[task.kind]:
            columns, there = _columns(stream, task, rows, units)
            yield from _label(task, data, m, columns, there, rows, units, groups, number=True)
            presence = stream.mask.double().mean(1, keepdim=True).numpy()[rows]
            if not task.per_frame and np.ptp(presence):
                everywhere = np.ones(len(rows), dtype=bool)
                yield from _label(task, data, m, presence, everywhere, rows, units, groups, number=False)
        if len(names) >= 5 and len(data) >= 3 * len(names):
            means, present = _means(stream)
            if (column := _tells_group(means[present], groups[present], len(names))) is not None:
                yield Suspect(m, "group", column, 1.0)


# ------------------------------------------------------------------------------------------------ what is looked at


def _units(task: Task, data: Batch) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(sample, step) of the labels that count, thinned out evenly over the samples."""
    rows, steps = np.nonzero(data.y_mask.numpy())
    keep = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), ROWS)).astype(int))
    return rows[keep], steps[keep]


def _means(stream: Stream) -> tuple[Array, NDArray[np.bool_]]:
    """(N, D) mean over the real steps, and which samples have any."""
    x, mask = stream.x.flatten(2)[:, :, :COLUMNS].double(), stream.mask.double()[..., None]
    return ((x * mask).sum(1) / mask.sum(1).clamp(min=1)).numpy(), stream.present.numpy()


def _columns(
    stream: Stream, task: Task, rows: NDArray[np.int64], units: NDArray[np.int64]
) -> tuple[Array, NDArray[np.bool_]]:
    """What one column says of each labelled unit: the frame's value, or the clip's mean, then its first real step."""
    flat = stream.x.flatten(2)[:, :, :COLUMNS]
    if task.per_frame:
        step = np.minimum(units, stream.shape[0] - 1)
        return flat[rows, step].double().numpy(), stream.mask[rows, step].numpy()
    means, present = _means(stream)
    if stream.shape[0] == 1:
        return means[rows], present[rows]
    first = stream.mask.int().argmax(1)
    beginning = flat[torch.arange(len(flat)), first].double().numpy()
    return np.concatenate([means, beginning], 1)[rows], present[rows]


# ------------------------------------------------------------------------------------------------------ the label


def _label(
    task: Task, data: Batch, m: str, columns: Array, there: NDArray[np.bool_], rows: NDArray[np.int64],
    units: NDArray[np.int64], groups: NDArray[np.int64], number: bool,
) -> Iterator[Suspect]:  # fmt: skip
    """The column that tells the label of units whose groups had no say in how it is read, if there is one."""
    rows, units, columns = rows[there], units[there], columns[there]
    half = _halves(groups[rows])
    if len(rows) < LEAST[task.kind] or min(half.sum(), (~half).sum()) < LEAST[task.kind] // 3:
        return
    y = data.y.numpy()[rows, units]
    width = min(COLUMNS, int(np.prod(data.streams[m].shape[1:])))
    if task.kind == "regress":
        for k in range(task.out):
            found = np.minimum(*(_order(columns[side], y[side, k]) for side in (half, ~half)))
            if len(found) and found.max() >= ORDERED:
                yield Suspect(m, "label", int(found.argmax()) % width if number else None, float(found.max()))
                return
        return
    classes = np.unique(y)
    if len(classes) < 2:
        return
    order = columns.argsort(0, kind="stable")
    each = np.stack([_interval(columns, order, y == k, half) for k in classes])  # (classes, columns)
    if not number:  # that a sensor is off for one class only says enough
        if each.max() >= GIVEN_AWAY:
            yield Suspect(m, "label", None, float(each.max()))
        return
    least = each.min(0)
    for c in np.flatnonzero(least >= GIVEN_AWAY):
        if _apart(columns[:, c], y) >= APART:
            yield Suspect(m, "label", int(c) % width, float(least[c]))
            return
    if all(any(_apart(columns[:, c], y == k) >= APART for c in np.flatnonzero(scores >= GIVEN_AWAY))
           for k, scores in zip(classes, each, strict=True)):  # fmt: skip
        yield Suspect(m, "label", -1, float(each.max(1).min()))


def _apart(column: Array, y: NDArray[np.integer]) -> float:
    """The smallest distance of two classes' medians, over the widest range of a class without its outer tenths."""
    low, middle, high = np.array([np.quantile(column[y == k], (0.1, 0.5, 0.9)) for k in np.unique(y)]).T
    gap = float(np.diff(np.sort(middle)).min())
    return gap / max(float((high - low).max()), 1e-9 * gap, 1e-300)


def _halves(groups: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Half of the groups, the same ones each time: every other one in their order."""
    return np.asarray(np.unique(groups, return_inverse=True)[1] % 2 == 0)


def _order(columns: Array, y: Array) -> Array:
    """(C,) |Spearman's correlation| with y; 0 where one of them is constant."""
    from scipy.stats import rankdata

    if np.ptp(y) == 0:
        return np.zeros(columns.shape[1])
    a, b = rankdata(columns, axis=0), rankdata(y)
    a, b = a - a.mean(0), b - b.mean()
    below = np.sqrt((a**2).sum(0) * (b**2).sum())
    return np.abs(a.T @ b) / np.where(below == 0, np.inf, below)


def _interval(columns: Array, order: NDArray[np.int64], positive: NDArray[np.bool_], half: NDArray[np.bool_]) -> Array:
    """(C,) balanced accuracy of the best interval of each half of the groups on the other half, the lower of the two.

    Only a column that separates all samples well is tried; the others get their (lower) score on those.
    """
    score, _, _ = _best_interval(columns, order, positive)
    sides = [(side, ~side) for side in (half, ~half)]
    if not all(positive[s].any() and (~positive[s]).any() for s in (half, ~half)):
        return np.zeros(columns.shape[1])  # a class of one half only: no unseen group can be asked
    good = np.flatnonzero(score >= GIVEN_AWAY)
    for fitted, asked in sides if len(good) else []:
        part = columns[fitted][:, good]
        _, low, high = _best_interval(part, part.argsort(0, kind="stable"), positive[fitted])
        inside = (columns[asked][:, good] >= low) & (columns[asked][:, good] <= high)
        truth = positive[asked]
        balanced = 0.5 * (inside[truth].mean(0) + (~inside[~truth]).mean(0))
        score[good] = np.minimum(score[good], balanced)
    return score


def _best_interval(columns: Array, order: NDArray[np.int64], positive: NDArray[np.bool_]) -> tuple[Array, Array, Array]:
    """(C,) each: the balanced accuracy of the best interval, and its bounds, half way to the next values outside."""
    ranked = np.take_along_axis(columns, order, 0)
    weight = np.where(positive, 1 / max(1, positive.sum()), -1 / max(1, (~positive).sum()))
    total = np.concatenate([np.zeros((1, columns.shape[1])), weight[order].cumsum(0)])  # (n + 1, C)
    cut = np.ones_like(total, dtype=bool)  # between equal values there is no bound
    cut[1:-1] = ranked[1:] > ranked[:-1]
    floor = np.where(cut, total, np.inf)
    lowest = np.minimum.accumulate(floor, 0)
    gain = np.where(cut, total - lowest, -np.inf)
    end = gain.argmax(0)
    each = np.arange(columns.shape[1])
    start = np.where(np.arange(len(total))[:, None] <= end, floor, np.inf).argmin(0)
    padded = np.concatenate([np.full((1, len(each)), -np.inf), ranked, np.full((1, len(each)), np.inf)])
    with np.errstate(invalid="ignore"):
        low = (padded[start, each] + padded[start + 1, each]) / 2
        high = (padded[end, each] + padded[end + 1, each]) / 2
    return 0.5 * (1 + gain[end, each]), low, high


# ------------------------------------------------------------------------------------------------------ the group


def _tells_group(means: Array, groups: NDArray[np.int64], names: int) -> int | None:
    """The first column by whose order every group stands in one piece, apart from all others."""
    if len(np.unique(groups)) < names or len(means) < 3 * names:
        return None
    order = means.argsort(0, kind="stable")
    ranked, owner = np.take_along_axis(means, order, 0), groups[order]
    changes = owner[1:] != owner[:-1]
    apart = ~(changes & (ranked[1:] == ranked[:-1])).any(0)  # two groups with one value are not told apart
    found = np.flatnonzero((changes.sum(0) == names - 1) & apart)
    return int(found[0]) if len(found) else None

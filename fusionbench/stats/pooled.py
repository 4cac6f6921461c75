"""The metric of each seed, pooled over folds, by how often each group counts: from sums of runs or their scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from fusionbench import metrics
from fusionbench.records.evidence import Evidence

Array = np.ndarray


class Jackknifed(ABC):
    """The metric of every seed, for any weighting of a table's groups, and faster than so with a group left out."""

    @abstractmethod
    def __call__(self, weights: Array) -> Array:
        """Weights (B, G), none negative -> (B, R) the metric with each group counted so often."""

    @abstractmethod
    def whole(self) -> Array:
        """(R,) of all groups."""

    @abstractmethod
    def without_each(self) -> Array:
        """(1 + G, R) of all groups, and of all but each."""

    @abstractmethod
    def restricted(self, chosen: Array) -> Jackknifed:
        """The values of a table of some groups alone, `chosen` (G,) bool: as with weights of 0 for all others."""


def without_each(size: int) -> Array:
    """(1 + G, G) the weights of that."""
    return np.vstack([np.ones(size), 1 - np.eye(size)])


@dataclass(frozen=True, eq=False)
class Member:
    """A run of a table: its seed and fold by number, and where its groups stand among those of the table.

    `size` is how many groups it has tested, of which a subgroup's table holds some.
    """

    seed: int
    fold: int
    place: Array
    kept: Evidence
    size: int


Found = tuple[Array, Callable[[Array], Array]]  # `by_fold` and `values` of a table


def from_sums(
    members: Sequence[Member], values: Sequence[Array], shape: tuple[int, ...], metric: metrics.Metric
) -> list[Found]:
    """Sums of all folds are added up: the metric is pooled. `values` are (C, G, width) of each run."""
    finish = metric.finish
    if metric.narrow is not None and metric.narrow[0](values[0][:1, :1]).shape[-1] < values[0].shape[-1]:
        values, finish = [metric.narrow[0](sums) for sums in values], metric.narrow[1]
    seeds, folds, size = shape
    conditions, _, width = values[0].shape
    stack = np.zeros((conditions, seeds, size, width))
    by_fold = np.full((conditions, seeds, folds), np.nan)
    for m, sums in zip(members, values, strict=True):
        stack[:, m.seed, m.place] += sums
        by_fold[:, m.seed, m.fold] = finish(sums.sum(1, dtype=np.float64))

    return [(own, OfSums(sums, finish)) for own, sums in zip(by_fold, stack, strict=True)]


@dataclass(frozen=True, eq=False)
class OfSums(Jackknifed):
    """The metric of pooled sums (R, G, width)."""

    sums: Array
    finish: Callable[[Array], Array]

    def __call__(self, weights: Array) -> Array:
        return self.finish(np.tensordot(weights, self.sums, (1, 1)))

    def whole(self) -> Array:
        return self(np.ones((1, self.sums.shape[1])))[0]

    def without_each(self) -> Array:
        total = self.sums.sum(1, keepdims=True)
        return self.finish(np.moveaxis(np.concatenate([total, total - self.sums], axis=1), 1, 0))

    def restricted(self, chosen: Array) -> Jackknifed:
        return OfSums(self.sums[:, chosen], self.finish)


def from_scores(
    members: Sequence[Member], values: Sequence[Array], shape: tuple[int, ...], metric: metrics.Metric
) -> list[Found]:
    """Scores of different models are not comparable: the mean over folds, each with the mean weight of its groups.

    `values` are (C, k, columns) of each run.
    """
    seeds, folds, _ = shape
    made = [OfScores(members, [scores[c] for scores in values], shape, metric) for c in range(len(values[0]))]
    by_fold = np.full((len(values[0]), seeds, folds), np.nan)
    for number, one in enumerate(made):
        for m, found in zip(members, one.runs(), strict=True):
            by_fold[number, m.seed, m.fold] = found
    return list(zip(by_fold, made, strict=True))


@dataclass(frozen=True, eq=False)
class OfScores(Jackknifed):
    """The mean over the runs of a seed of each one's metric, by the scores (k, columns) of each."""

    members: Sequence[Member]
    scores: Sequence[Array]
    shape: tuple[int, ...]
    metric: metrics.Metric

    def of_run(self, m: Member, scores: Array, weights: Array) -> Array:
        """(B,) the metric of one run, by weights (B, g) of its own groups."""
        found = np.full(len(weights), np.nan)
        like_first = (weights == weights[:1]).all(1)  # where a group of another run is left out, nothing changes here
        rows = np.asarray(weights.any(1) & ~like_first)
        rows[0] = weights[0].any()
        if rows.any() and len(scores) and not np.isnan(scores).any():
            found[rows] = self.metric.finish(scores, m.kept.y, m.kept.group, weights[rows])
        found[like_first] = found[0]
        return found

    @cached_property
    def each(self) -> list[Array]:
        """Of each run (1 + g,) the metric of all of its own groups, and of all but each."""
        found = []
        for m, scores in zip(self.members, self.scores, strict=True):
            size = len(m.place)
            if self.metric.without_each is None or np.isnan(scores).any() or not len(scores):
                found.append(self.of_run(m, scores, without_each(size)))
            else:
                found.append(self.metric.without_each(scores, m.kept.y, m.kept.group, size))
        return found

    def runs(self) -> list[float]:
        """The metric of each run."""
        if self.metric.without_each is not None:
            return [float(found[0]) for found in self.each]
        ones = [np.ones((1, len(m.place))) for m in self.members]
        return [float(self.of_run(*of)[0]) for of in zip(self.members, self.scores, ones, strict=True)]

    def __call__(self, weights: Array) -> Array:
        above, below = np.zeros((2, len(weights), self.shape[0]))
        for m, scores in zip(self.members, self.scores, strict=True):
            own = weights[:, m.place]
            self._add(above, below, m, self.of_run(m, scores, own), own.sum(1) / m.size)
        return metrics.ratio(above, below)

    def whole(self) -> Array:
        above, below = np.zeros((2, 1, self.shape[0]))
        for m, found in zip(self.members, self.runs(), strict=True):
            self._add(above, below, m, np.array([found]), np.array([len(m.place) / m.size]))
        return metrics.ratio(above, below)[0]

    def without_each(self) -> Array:
        above, below = np.zeros((2, 1 + self.shape[-1], self.shape[0]))
        for m, found in zip(self.members, self.each, strict=True):
            size = len(m.place)
            rows = np.zeros(len(above), dtype=np.int64)  # without a group of another run nothing changes in this one
            rows[1 + m.place] = 1 + np.arange(size)
            self._add(above, below, m, found[rows], np.where(rows == 0, size, size - 1) / m.size)
        return metrics.ratio(above, below)

    def restricted(self, chosen: Array) -> Jackknifed:
        renumbered = chosen.cumsum() - 1
        members, scores = [], []
        for m, own in zip(self.members, self.scores, strict=True):
            inside = chosen[m.place]  # of its groups
            samples = inside[m.kept.group]
            group = (inside.cumsum() - 1)[m.kept.group[samples]]
            kept = replace(m.kept, y=m.kept.y[samples], group=group)
            members.append(replace(m, place=renumbered[m.place[inside]], kept=kept))
            scores.append(own[samples])
        return OfScores(members, scores, (*self.shape[:-1], int(chosen.sum())), self.metric)

    @staticmethod
    def _add(above: Array, below: Array, m: Member, found: Array, share: Array) -> None:
        known = ~np.isnan(found)
        above[:, m.seed] += np.where(known, share * found, 0.0)
        below[:, m.seed] += np.where(known, share, 0.0)

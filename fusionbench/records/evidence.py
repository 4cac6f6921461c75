"""What a run's answers say, group by group: all that scores, intervals and tests are computed from. Numpy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionbench import metrics
from fusionbench.records.types import Predictions

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Evidence:
    """The test samples of one run, and what its answers to them come to.

    Attributes:
        groups: (G,) names, in order; those without a label are left out.
        counts: (G,) labelled steps.
        y, group: (k,) or (k, out) labels, and the group of each; empty where no metric asks for scores.
        conditions: C names, the clean one first.
        values: metric -> sums (C, G, width) or scores (C, k, columns); (1, ...) of the first condition alone. Metrics
            that collect the same are kept once.
    """

    groups: Array
    counts: Array
    y: Array
    group: Array
    conditions: tuple[str, ...]
    values: Mapping[str, Array]

    def of(self, metric: str) -> Array | None:
        """The sums or scores of a metric, (C, ...) or (1, ...); None if nothing like it was collected."""
        collect = metrics.get(metric).collect
        return next((found for name, found in self.values.items() if metrics.get(name).collect is collect), None)


def gather(answers: Predictions, names: Sequence[str]) -> Evidence:
    """The evidence of stored answers for these metrics, under every condition."""
    mask = np.asarray(answers.y_mask, dtype=bool)  # (n, S)
    labelled = mask.any(1)
    groups, place = np.unique(np.asarray(answers.groups)[labelled], return_inverse=True)
    group = np.repeat(place, mask.sum(1)[labelled])
    y = np.asarray(answers.y)[mask]
    shown = [np.asarray(a)[mask] for a in answers.answers.values()]
    values: dict[str, Array] = {}
    for name in names:
        metric = metrics.get(name)
        if metric.filled or any(metrics.get(other).collect is metric.collect for other in values):
            continue
        found = [_collected(metric, pred, y, group, len(groups)) for pred in shown]
        if found:
            values[name] = np.stack(found)
    return Evidence(groups, np.bincount(group, minlength=len(groups)), y, group, tuple(answers.answers), values)


def _collected(metric: metrics.Metric, pred: Array, y: Array, group: Array, size: int) -> Array:
    """NaN where an answer is none: the largest of three NaN is not a class."""
    broken = np.asarray(np.isnan(pred).any(1))
    if not broken.any():
        return metric.collect(pred, y, group, size)
    found = metric.collect(np.where(broken[:, None], 0.0, pred), y, group, size).astype(np.float64)
    found[group[broken] if metric.evidence == "sums" else broken] = np.nan
    return found

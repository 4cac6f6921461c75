"""What a run's answers say, group by group: all that scores, intervals and tests are computed from. Numpy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionbench import metrics
from fusionbench.records.types import Predictions

Array = NDArray[Any]
#: What no published metric may differ by where answers or ranks are stored in few levels.
TOLERANCE = 1e-4


@dataclass(frozen=True, eq=False)
class Evidence:
    """The labelled test steps of one run, and what its answers to them come to.

    Attributes:
        groups: (G,) names, in order; those without a label are left out.
        counts: (G,) labelled steps.
        conditions: C names, the clean one first.
        values: metric -> sums (C, G, width) or scores (C, k, columns); (1, ...) of the first condition alone. Metrics
            that collect the same are kept once.
        group, y: (k,) the group of each step and (k[, out]) its label; empty where only sums are known.
        answers: (C, k, out) if they are known: any metric can be collected from them.
        attributes: name -> (G,) texts, of those that are one and the same in every group; empty where one is not known.
        rounded: the answers had been rounded to 1,024 levels or less before the sums were taken.
    """

    groups: Array
    counts: Array
    conditions: tuple[str, ...]
    values: Mapping[str, Array] = field(default_factory=dict)
    group: Array = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    y: Array = field(default_factory=lambda: np.zeros(0))
    answers: Array | None = None
    rounded: bool = False
    attributes: Mapping[str, Array] = field(default_factory=dict)

    def of(self, metric: str) -> Array | None:
        """The sums or scores of a metric, (C, ...) or (1, ...); None if they are not known."""
        declared = metrics.get(metric)
        if declared.filled:
            return None
        for name, found in self.values.items():
            if metrics.get(name).collect is declared.collect:
                return found
        if self.answers is None:
            return None
        return np.stack([_collected(declared, a, self.y, self.group, len(self.groups)) for a in self.answers])

    def pooled(self, metric: str) -> Array:
        """(C,) or (1,) the metric of this run under each condition, as far as it is known."""
        declared, found = metrics.get(metric), self.of(metric)
        if found is None:
            return np.zeros(0)
        if declared.evidence == "sums":
            return declared.finish(found.sum(1, dtype=np.float64))
        weights = np.ones((1, len(self.groups)))
        return np.concatenate([declared.finish(scores, self.y, self.group, weights) for scores in found])


def gather(answers: Predictions) -> Evidence:
    """The evidence of stored answers."""
    mask = np.asarray(answers.y_mask, dtype=bool)  # (n, S)
    labelled = mask.any(1)
    groups, place = np.unique(np.asarray(answers.groups)[labelled], return_inverse=True)
    group = np.repeat(place, mask.sum(1)[labelled])
    shown = np.stack([np.asarray(a)[mask] for a in answers.answers.values()]) if answers.answers else None
    counts = np.bincount(group, minlength=len(groups))
    y = np.asarray(answers.y)[mask]
    attributes = {}
    for name, texts in answers.attributes.items():
        pairs = np.unique(np.stack([place, np.unique(texts[labelled], return_inverse=True)[1]]), axis=1)
        if pairs.shape[1] == len(groups):  # one text a group
            attributes[name] = np.unique(texts[labelled])[pairs[1]]
    return Evidence(groups, counts, tuple(answers.answers), {}, group, y, shown, attributes=attributes)


def condensed(evidence: Evidence, names: Sequence[str]) -> Evidence:
    """What of it is published: of the first metric under every condition, of all others on the clean input.

    Scores become ranks. Where a group is a single step its sums are no less than its answer: then the answers stay,
    unless the first metric is of scores, whose ranks under damage take a byte where answers take two a class.
    """
    if evidence.answers is None or ((evidence.counts == 1).all() and metrics.get(names[0]).evidence == "sums"):
        return evidence
    values: dict[str, Array] = {}
    for name in dict.fromkeys(names):
        metric = metrics.get(name)
        if metric.filled or any(metrics.get(other).collect is metric.collect for other in values):
            continue
        found = evidence.of(name)
        if found is None:
            continue
        kept = found if not values else found[:1]
        values[name] = kept if metric.evidence == "sums" else _ranks(metric, kept, evidence)
    ranked = any(metrics.get(name).evidence == "scores" for name in values)
    steps = {"group": evidence.group, "y": evidence.y} if ranked else {}
    return Evidence(
        evidence.groups,
        evidence.counts,
        evidence.conditions,
        values,
        rounded=evidence.rounded,
        attributes=evidence.attributes,
        **steps,
    )


def _ranks(metric: metrics.Metric, scores: Array, evidence: Evidence) -> Array:
    """(C, k, columns) ranks from 0 on, ties sharing one; under damage 256 of them where that moves nothing."""
    weights = np.ones((1, len(evidence.groups)))

    def value(ranks: Array) -> float:
        return float(metric.finish(ranks, evidence.y, evidence.group, weights)[0])

    kept = []
    for number, columns in enumerate(scores):
        if np.isnan(columns).any():
            kept.append(columns)
            continue
        ranks = np.stack([np.unique(column, return_inverse=True)[1] for column in columns.T], axis=1)
        few = np.rint(ranks * np.minimum(1, 255 / np.maximum(ranks.max(0), 1)))
        close = abs(value(few) - value(ranks)) <= TOLERANCE
        kept.append(few if number and close else ranks.astype(float))
    return np.stack(kept)


def _collected(metric: metrics.Metric, pred: Array, y: Array, group: Array, size: int) -> Array:
    """NaN where an answer is none: the largest of three NaN is not a class."""
    broken = np.asarray(np.isnan(pred).any(1))
    if not broken.any():
        return metric.collect(pred, y, group, size)
    found = metric.collect(np.where(broken[:, None], 0.0, pred), y, group, size).astype(np.float64)
    found[group[broken] if metric.evidence == "sums" else broken] = np.nan
    return found

"""Stored predictions as a table of seeds by groups, and what can be read from it: scores, people, variance."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fusionbench import metrics
from fusionbench.errors import UsageError
from fusionbench.stats.sums import SUMS

Array = np.ndarray
#: The name of a metric, or a function of (pred (k, out), y (k,) or (k, out)); only names in `SUMS` are fast.
Metric = str | Callable[[Array, Array], float | None]


@dataclass(frozen=True, eq=False)
class Cell:
    """The test predictions of one run.

    Attributes:
        seed, fold: which run.
        groups: (n,) the person or video of each sample.
        pred: (n, S, out) answers.
        y: (n, S) class ids or (n, S, out) values.
        y_mask: (n, S) bool, True where there is a label.
    """

    seed: int
    fold: int
    groups: Array
    pred: Array
    y: Array
    y_mask: Array


@dataclass(frozen=True, eq=False)
class Table:
    """One fuser on one benchmark: the metric of every seed for any weighting of the G groups.

    Attributes:
        groups: (G,) names; groups without a label are left out.
        counts: (G,) labelled steps.
        fold: (G,) the fold that tests a group, -1 if several do.
        by_fold: (R, F) the metric of each run by itself, NaN where undefined or not there.
        values: whole-number weights (B, G) -> (B, R) the metric with each group repeated that often.
    """

    groups: Array
    counts: Array
    fold: Array
    by_fold: Array
    values: Callable[[Array], Array]

    @property
    def seeds(self) -> int:
        return len(self.by_fold)

    @cached_property
    def scores(self) -> Array:
        """(R,) the metric of each seed, pooled over folds."""
        return self.values(np.ones((1, len(self.groups))))[0]

    @cached_property
    def pseudo(self) -> Array:
        """(R, G) jackknife pseudo-values, G T - (G - 1) T(all but g): each group's share in the pooled metric.

        They are the group's own scores where the metric is a mean and groups have equal size, and stay defined where a
        group alone has no CCC or F1; their mean estimates the metric (Tukey 1958; Miller 1974).
        """
        size = len(self.groups)
        if size < 2:
            return np.full((self.seeds, size), np.nan)
        values = self.values(np.vstack([np.ones(size), 1 - np.eye(size)]))  # (1 + G, R)
        return (size * values[:1] - (size - 1) * values[1:]).T


def tabulate(cells: Sequence[Cell] | Table, metric: Metric) -> Table:
    """The table of one fuser's cells; a table comes back as it is, so that one can serve many questions.

    Raises:
        UsageError: no cells, a run twice, seeds that do not cover the same labels, or an unknown metric.
    """
    if isinstance(cells, Table):
        return cells
    if metric == metrics.ZERO_FILLED:
        raise UsageError(f"{metric} only mirrors public numbers and is not tested: use ccc")
    if not cells:
        raise UsageError("no predictions are stored: run the benchmark before comparing")
    runs = [(cell.seed, cell.fold) for cell in cells]
    if len(set(runs)) < len(runs):
        raise UsageError("two records are of the same seed and fold: keep one of them")
    seeds, folds = (sorted(set(column)) for column in zip(*runs, strict=True))
    names, rows = np.unique(np.concatenate([cell.groups for cell in cells]), return_inverse=True)
    parts = np.split(rows, np.cumsum([len(cell.groups) for cell in cells])[:-1])
    flat = {run: _flat(cell, part) for run, cell, part in zip(runs, cells, parts, strict=True)}

    by_run = np.zeros((len(seeds), len(folds), len(names)), dtype=np.int64)
    for (seed, fold), (_, _, row) in flat.items():
        by_run[seeds.index(seed), folds.index(fold)] = np.bincount(row, minlength=len(names))
    if (by_run != by_run[:1]).any():
        bad = seeds[int(np.argmax((by_run != by_run[:1]).any((1, 2))))]
        raise UsageError(
            f"seed {bad} does not cover the same folds and people as seed {seeds[0]}: finish the row first"
        )
    keep = by_run[0].sum(0) > 0
    fold = np.where((by_run[0] > 0).sum(0) == 1, (by_run[0] > 0).argmax(0), -1)[keep]
    values, by_fold = _evaluators(flat, seeds, folds, keep, metric)
    return Table(names[keep], by_run[0].sum(0)[keep], fold, by_fold, values)


def _flat(cell: Cell, group: Array) -> tuple[Array, Array, Array]:
    """pred (k, out), y (k,) or (k, out) and the group index (k,) of the labelled steps."""
    mask = np.asarray(cell.y_mask, dtype=bool)  # (n, S)
    return cell.pred[mask], cell.y[mask], np.broadcast_to(group[:, None], mask.shape)[mask]


Run = tuple[int, int]


def _evaluators(
    flat: Mapping[Run, tuple[Array, Array, Array]], seeds: list[int], folds: list[int], keep: Array, metric: Metric
) -> tuple[Callable[[Array], Array], Array]:
    """`values` and `by_fold` of a table: through sums where the metric has them, else by repeating steps."""
    by_fold = np.full((len(seeds), len(folds)), np.nan)
    if isinstance(metric, str) and metric in SUMS:
        kind = SUMS[metric]
        sums = {run: kind.collect(*steps, len(keep))[keep] for run, steps in flat.items()}
        for seed, fold in flat:
            by_fold[seeds.index(seed), folds.index(fold)] = kind.finish(sums[seed, fold].sum(0))
        stack = np.stack([sum(s for (r, _), s in sums.items() if r == seed) for seed in seeds])  # (R, G, width)
        return lambda weights: kind.finish(np.tensordot(weights, stack, (1, 1))), by_fold

    function = metric if callable(metric) else metrics.get(metric).function
    for (seed, fold), (pred, y, _) in flat.items():
        by_fold[seeds.index(seed), folds.index(fold)] = _call(function, pred, y)
    place = np.cumsum(keep) - 1  # group index among those kept
    pooled = []
    for seed in seeds:
        pred, y, row = (
            np.concatenate(part) for part in zip(*(s for (r, _), s in flat.items() if r == seed), strict=True)
        )
        pooled.append((pred, y, place[row]))

    def values(weights: Array) -> Array:
        def one(pred: Array, y: Array, row: Array, weight: Array) -> float:
            index = np.repeat(np.arange(len(row)), weight[row])
            return _call(function, pred[index], y[index])

        whole = weights.astype(np.int64)
        return np.array([[one(*steps, weight) for steps in pooled] for weight in whole])

    return values, by_fold


def _call(function: Callable[[Array, Array], float | None], pred: Array, y: Array) -> float:
    value = function(pred, y) if len(y) else None
    return math.nan if value is None else float(value)


def higher_is_better(metric: Metric) -> bool:
    """The direction of a named metric; a function is taken to be a score, so that higher is better."""
    return callable(metric) or metrics.get(metric).higher_is_better


def defined(value: float) -> float | None:
    """The value, or None where it is not a finite number."""
    return float(value) if math.isfinite(value) else None


def score(cells: Sequence[Cell] | Table, metric: Metric) -> float | None:
    """The metric pooled over the folds of each seed, averaged over seeds; None where undefined."""
    return defined(tabulate(cells, metric).scores.mean())


def per_group_scores(cells: Sequence[Cell] | Table, metric: Metric) -> dict[str, float | None]:
    """Group -> its own metric averaged over seeds, None where a group alone has none (a constant label, say)."""
    table = tabulate(cells, metric)
    own = table.values(np.eye(len(table.groups))).mean(1)  # (G,)
    return {str(name): defined(value) for name, value in zip(table.groups, own, strict=True)}


def worst_decile(scores: Mapping[str, float | None], higher_is_better: bool = True) -> float | None:
    """The mean over the worst tenth of the groups (at least one); groups without a score do not count."""
    known = sorted((s for s in scores.values() if s is not None), reverse=not higher_is_better)
    tenth = known[: math.ceil(len(known) / 10)]
    return sum(tenth) / len(tenth) if tenth else None


def share_hurt(
    fused: Mapping[str, float | None],
    unimodal: Mapping[str, float | None],
    margin: float = 0.0,
    higher_is_better: bool = True,
) -> float | None:
    """The share of groups that the fused model serves worse, by more than `margin`, than the best unimodal model.

    Args:
        fused, unimodal: group -> score; `unimodal` is of the one modality that is best over all groups, chosen on
            validation data.
    """
    sign = 1.0 if higher_is_better else -1.0
    gains = [sign * (f - u) for g, f in fused.items() if f is not None and (u := unimodal.get(g)) is not None]
    return sum(gain < -margin for gain in gains) / len(gains) if gains else None


@dataclass(frozen=True)
class Components:
    """Variances (squared units of the score) of one run's answer to one group; None where it cannot be told."""

    seed: float | None
    fold: float | None
    person: float | None
    residual: float | None


def variance_components(cells: Sequence[Cell] | Table, metric: Metric) -> Components:
    """What one group's share in the score varies with: the seed, the fold (model), the person; the rest is residual.

    Analysis of variance on the (seed x group) pseudo-values, negative estimates set to 0 (Searle, Casella & McCulloch
    1992, ch. 4). One seed: person and residual cannot be told apart, both are None. Folds of one person each
    (leave one out): the fold is part of the person.
    """
    table = tabulate(cells, metric)
    values = table.pseudo  # (R, G)
    if not np.isfinite(values).all() or len(table.groups) < 2:
        return Components(None, None, None, None)
    seeds, size = values.shape
    person = values.mean(0)  # (G,)
    seed = residual = None
    if seeds > 1:
        rest = values - values.mean(1, keepdims=True) - person + values.mean()
        residual = float((rest**2).sum() / ((seeds - 1) * (size - 1)))
        seed = max(0.0, float(values.mean(1).var(ddof=1)) - residual / size)
    folds, place, counts = np.unique(table.fold, return_inverse=True, return_counts=True)
    fold, spread = None, float(person.var(ddof=1))
    if len(folds) > 1 and folds[0] >= 0 and size > len(folds):
        means = np.bincount(place, weights=person) / counts  # (F,)
        spread = float(((person - means[place]) ** 2).sum() / (size - len(folds)))
        typical = (size - (counts**2).sum() / size) / (len(folds) - 1)
        between = float((counts * (means - person.mean()) ** 2).sum() / (len(folds) - 1))
        fold = max(0.0, (between - spread) / typical)
    return Components(seed, fold, None if residual is None else max(0.0, spread - residual / seeds), residual)

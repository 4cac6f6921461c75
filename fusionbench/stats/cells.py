"""Stored predictions as a table of seeds by groups, and what can be read from it: scores, people, variance."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from fusionbench import metrics
from fusionbench.errors import UsageError
from fusionbench.records.evidence import Evidence, gather
from fusionbench.records.rows import CLEAN
from fusionbench.records.types import Predictions
from fusionbench.stats.pooled import Array, Jackknifed, Member, from_scores, from_sums, without_each

#: The name of a metric.
Metric = str


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
        fold: (G,) the fold that tests a group, -1 if several do, under one seed or under different ones.
        by_fold: (R, F) the metric of each run by itself, NaN where undefined or not there.
        values: weights (B, G), none negative -> (B, R) the metric with each group counted so often.
        partitions: the seeds, where each has dealt the groups into folds again; empty where all share one partition.
    """

    groups: Array
    counts: Array
    fold: Array
    by_fold: Array
    values: Callable[[Array], Array]
    partitions: tuple[int, ...] = ()

    @property
    def seeds(self) -> int:
        return len(self.by_fold)

    @cached_property
    def scores(self) -> Array:
        """(R,) the metric of each seed, pooled over folds."""
        if isinstance(self.values, Jackknifed):
            return self.values.whole()
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
        values = self.without_each
        return (size * values[:1] - (size - 1) * values[1:]).T

    @cached_property
    def without_each(self) -> Array:
        """(1 + G, R) the metric of all groups, and of all but each."""
        if isinstance(self.values, Jackknifed):
            return self.values.without_each()
        return self.values(without_each(len(self.groups)))

    @cached_property
    def influence(self) -> Array:
        """(R, G) influence values of the pooled metric: their mean over groups is the score of the seed.

        They are the pseudo-values, moved so that the metric's own bias does not stand in a difference. NaN where
        leaving a group out leaves the metric undefined.
        """
        return self.pseudo - self.pseudo.mean(1, keepdims=True) + self.scores[:, None]

    @cached_property
    def lost(self) -> Array:
        """(G,) is the metric of some seed undefined without this group?"""
        return ~np.isfinite(self.pseudo).all(0)

    def restricted(self, chosen: Array) -> Table:
        """The table of some of its groups alone, `chosen` (G,) bool; `by_fold` stays that of all."""
        if not isinstance(self.values, Jackknifed):
            raise TypeError("only tables of evidence can be restricted")
        groups, counts, fold = self.groups[chosen], self.counts[chosen], self.fold[chosen]
        return replace(self, groups=groups, counts=counts, fold=fold, values=self.values.restricted(chosen))


def tabulate(cells: Sequence[Cell] | Table, metric: Metric) -> Table:
    """The table of one fuser's cells; a table comes back as it is, so that one can serve many questions.

    Raises:
        UsageError: no cells, a run twice, seeds that do not cover the same labels, or an unknown metric.
    """
    if isinstance(cells, Table):
        return cells
    return tables([(c.seed, c.fold, _evidence(c)) for c in cells], metric)[CLEAN]


def _evidence(cell: Cell) -> Evidence:
    return gather(Predictions(cell.groups, cell.groups, cell.y, cell.y_mask, {CLEAN: cell.pred}))


def tables(runs: Sequence[tuple[int, int, Evidence]], metric: Metric, repartitioned: bool = False) -> dict[str, Table]:
    """Condition -> table of one fuser, from the (seed, fold, evidence) of its runs; what some run lacks is left out.

    Args:
        repartitioned: each seed has dealt the groups into folds again, so a group is tested in other folds by others.

    Raises:
        UsageError: no runs, a run twice, seeds that do not cover the same labels, or an unknown metric.
    """
    declared = metrics.get(metric)
    if declared.filled:
        raise UsageError(f"{metric} only mirrors public numbers and is not tested: name another metric")
    if not runs:
        raise UsageError("no predictions are stored: run the benchmark before comparing")
    if len({(seed, fold) for seed, fold, _ in runs}) < len(runs):
        raise UsageError("two records are of the same seed and fold: keep one of them")
    seeds, folds = sorted({seed for seed, *_ in runs}), sorted({fold for _, fold, _ in runs})
    names, rows = np.unique(np.concatenate([kept.groups for *_, kept in runs]), return_inverse=True)
    parts = np.split(rows, np.cumsum([len(kept.groups) for *_, kept in runs])[:-1])
    members = [
        Member(seeds.index(seed), folds.index(fold), place, kept, len(place))
        for (seed, fold, kept), place in zip(runs, parts, strict=True)
    ]
    by_run = np.zeros((len(seeds), len(folds), len(names)), dtype=np.int64)
    for m in members:
        by_run[m.seed, m.fold, m.place] = m.kept.counts
    covered = by_run.sum(1, keepdims=True) if repartitioned else by_run
    if (covered != covered[:1]).any():
        bad = seeds[int(np.argmax((covered != covered[:1]).any((1, 2))))]
        raise UsageError(
            f"seed {bad} does not cover the same folds and people as seed {seeds[0]}: finish the row first"
        )
    tested = (by_run > 0).any(0)  # (F, G)
    fold = np.where(tested.sum(0) == 1, tested.argmax(0), -1)
    conditions, values = _shared(members, declared)
    build = from_sums if declared.evidence == "sums" else from_scores
    made = build(members, values, by_run.shape, declared) if conditions else []
    dealt = tuple(seeds) if repartitioned else ()
    return {c: Table(names, by_run[0].sum(0), fold, *found, dealt) for c, found in zip(conditions, made, strict=True)}


def _shared(members: Sequence[Member], metric: metrics.Metric) -> tuple[list[str], list[Array]]:
    """The conditions that every run has, in the order of the first, and each run's sums or scores under them."""
    found = [m.kept.of(metric.name) for m in members]
    known = [() if f is None else m.kept.conditions[: len(f)] for m, f in zip(members, found, strict=True)]
    shared = [c for c in known[0] if all(c in others for others in known)]
    parts = zip(found, known, strict=True)
    return shared, [f[[names.index(c) for c in shared]] for f, names in parts if f is not None]


def higher_is_better(metric: Metric) -> bool:
    """The direction of a metric."""
    return metrics.get(metric).higher_is_better


def defined(value: float) -> float | None:
    """The value, or None where it is not a finite number."""
    return float(value) if math.isfinite(value) else None


def score(cells: Sequence[Cell] | Table, metric: Metric) -> float | None:
    """The metric pooled over the folds of each seed, averaged over seeds; None where undefined."""
    return defined(tabulate(cells, metric).scores.mean())


def per_group_scores(cells: Sequence[Cell] | Table, metric: Metric) -> dict[str, float | None]:
    """Group -> its own metric averaged over seeds, None where a group alone has none (a constant label, say)."""
    table = tabulate(cells, metric)
    if metrics.get(metric).evidence == "scores" and (table.counts == 1).all():
        return dict.fromkeys(map(str, table.groups))  # one step has no rank
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

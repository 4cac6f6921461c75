"""Intervals, variance components and ranks, against hand values, slow oracles and simulated truth."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionbench.errors import UsageError
from fusionbench.metrics import METRICS
from fusionbench.stats import (
    Cell,
    Jackknifed,
    corrected_test,
    corrected_variance,
    critical_difference,
    interval,
    per_group_scores,
    score,
    share_hurt,
    tabulate,
    variance_components,
    worst_decile,
)
from fusionbench.stats.intervals import group_weights

KINDS = {name: metric.kind for name, metric in METRICS.items()}


def cells_of(
    kind: str, rng: np.random.Generator, groups: int = 6, seeds: int = 3, folds: int = 1, each: int = 4, steps: int = 3
) -> list[Cell]:
    """Predictions that know something, ragged masks, a fifth of the labels missing; the data do not depend on `rng`."""
    data = np.random.default_rng(7)
    cells = []
    for fold in range(folds):
        names = np.repeat([f"p{g:02d}" for g in range(fold, groups, folds)], each)
        mask = data.random((len(names), steps)) > 0.2
        if kind == "classify":
            y = data.integers(0, 3, (len(names), steps))
            signal = np.eye(3)[y]
        else:
            y = data.standard_normal((len(names), steps, 2))
            signal = y
        for seed in range(seeds):
            pred = signal + rng.standard_normal(signal.shape)
            cells.append(Cell(seed, fold, names, np.where(mask[..., None], pred, np.nan), y, mask))
    return cells


def counted(seed: int, hits: list[int], total: int = 10, names: list[str] | None = None) -> Cell:
    """A classification cell in which group g has hits[g] right answers of `total`."""
    groups = np.repeat(names or [f"p{g:02d}" for g in range(len(hits))], total)
    right = np.concatenate([np.arange(total) < h for h in hits])
    pred = np.stack([1.0 - right, right], axis=-1)[:, None, :]  # (n, 1, 2)
    return Cell(seed, 0, groups, pred, np.ones((len(groups), 1), int), np.ones((len(groups), 1), bool))


def metric_of(cells: list[Cell], name: str, seed: int, groups: list[str]) -> float:
    """The slow way: the steps of these groups (with repetitions) of this seed, pooled."""
    pred, y = [], []
    for group in groups:
        for cell in (c for c in cells if c.seed == seed):
            for i in np.flatnonzero(cell.groups == group):
                pred.append(cell.pred[i][cell.y_mask[i]])
                y.append(cell.y[i][cell.y_mask[i]])
    return METRICS[name].of(np.concatenate(pred), np.concatenate(y))


def test_undefined_is_none() -> None:
    cell = counted(0, [1, 2])
    empty = Cell(0, 0, cell.groups, cell.pred, cell.y, np.zeros_like(cell.y_mask))
    assert score([empty], "accuracy") is None
    assert interval([empty], "accuracy")[:3] == (None, None, None)
    constant = Cell(0, 0, np.array(["a", "b"]), np.full((2, 1, 1), 0.3), np.full((2, 1, 1), 0.3), np.ones((2, 1), bool))
    assert score([constant], "ccc") is None
    assert score([constant], "pearson") is None
    far = Cell(0, 0, np.array(["a", "b"]), np.full((2, 1, 1), 0.1), np.full((2, 1, 1), 0.3), np.ones((2, 1), bool))
    assert score([far], "ccc") == 0.0
    alone = interval([counted(0, [3]), counted(1, [5])], "accuracy")
    assert alone.score == pytest.approx(0.4)
    assert alone.low is None
    assert alone.high is None


@pytest.mark.parametrize("value", [0.1, 0.3, -0.7, 1.1, 3.3e5])
def test_the_rounding_of_a_constant_is_no_variance(value: float) -> None:
    same = np.full((7, 1, 1), value)
    cell = Cell(0, 0, np.arange(7) // 2, same, same, np.ones((7, 1), bool))
    assert [score([cell], name) for name in ("ccc", "pearson", "r2")] == [None, None, None]


def test_predictions_that_are_not_numbers_give_none() -> None:
    cells = cells_of("regress", np.random.default_rng(0))
    bad = [Cell(c.seed, c.fold, c.groups, np.full_like(c.pred, np.nan), c.y, c.y_mask) for c in cells]
    assert score(bad, "ccc") is None
    assert interval(bad, "ccc")[:3] == (None, None, None)


def test_incomplete_rows_are_refused_in_one_line() -> None:
    full = cells_of("classify", np.random.default_rng(0), folds=2)
    with pytest.raises(UsageError, match="seed 2 does not cover the same folds"):
        interval(full[:-1], "accuracy")
    with pytest.raises(UsageError, match="same seed and fold"):
        score([*full, full[0]], "accuracy")
    with pytest.raises(UsageError, match="no predictions"):
        score([], "accuracy")
    with pytest.raises(UsageError, match="level"):
        interval(full, "accuracy", level=95)
    with pytest.raises(UsageError, match="macro_f1"):
        score(full, "macro_f2")
    with pytest.raises(UsageError, match="name another metric"):
        score(full, "ccc_zero_filled")


def test_the_bootstrap_variance_of_a_mean_is_unbiased_for_few_people() -> None:
    hits = [2, 9, 5, 7, 4]
    values = tabulate([counted(0, hits)], "accuracy").values(group_weights(5, 40_000, 0))[:, 0]
    assert values.var() == pytest.approx(np.var(np.array(hits) / 10, ddof=1) / 5, rel=0.03)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(0, 10), min_size=3, max_size=3), min_size=1, max_size=4))
def test_an_interval_holds_its_score_and_shrinks_with_its_level(hits: list[list[int]]) -> None:
    cells = [counted(s, row) for s, row in enumerate(hits)]
    wide, narrow = (interval(cells, "accuracy", level=level) for level in (0.95, 0.5))
    assert wide.score == pytest.approx(np.mean(hits) / 10)
    assert 0 <= wide.low <= narrow.low <= wide.score <= narrow.high <= wide.high <= 1


def test_intervals_cover_the_truth() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):  # people of mean accuracy .5, seeds of mean effect 0
        people, seeds = rng.normal(0.5, 0.12, 15), rng.normal(0, 0.03, 4)
        cells = [counted(s, list(rng.binomial(20, np.clip(people + e, 0, 1))), 20) for s, e in enumerate(seeds)]
        found = interval(cells, "accuracy")
        covered += found.low <= 0.5 <= found.high
    assert 0.90 <= covered / 300 <= 0.99


def test_an_interval_widens_with_what_seeds_do() -> None:
    """Seeds that move all groups alike leave the groups' spread as it is; the interval must not."""
    calm = [counted(s, [4, 5, 6, 5, 4, 6]) for s in range(3)]
    moved = [counted(s, [4 + e, 5 + e, 6 + e, 5 + e, 4 + e, 6 + e]) for s, e in enumerate((-2, 0, 2))]
    narrow, wide = interval(calm, "accuracy"), interval(moved, "accuracy")
    assert narrow.score == pytest.approx(wide.score)
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def test_an_interval_of_one_seed_and_equal_groups_is_that_of_a_mean() -> None:
    hits = [2, 9, 5, 7, 4]
    found = interval([counted(0, hits)], "accuracy", level=0.9)
    half = 2.131847 * np.std(np.array(hits) / 10, ddof=1) / math.sqrt(5)  # t table, 4 degrees
    assert (found.low, found.high) == pytest.approx((0.54 - half, 0.54 + half), rel=1e-6)


def test_corrected_variance_by_hand() -> None:
    scores = [0.5, 0.7, 0.6, 0.8, 0.9]  # sample variance .025
    assert corrected_variance(scores) == pytest.approx((1 / 5 + 1 / 4) * 0.025)
    assert corrected_variance(scores, ratio=0.5) == pytest.approx(0.7 * 0.025)
    t = 0.2 / math.sqrt((1 / 3 + 1 / 2) * 0.01)
    p = 1 - t / math.sqrt(2 + t * t)  # closed form, 2 degrees
    assert corrected_test([0.1, 0.2, 0.3]) == pytest.approx(p, rel=1e-5)
    assert corrected_test([0.0, 0.0]) == 1.0
    assert corrected_variance([0.5]) is None
    assert corrected_variance([0.5, math.nan]) is None
    assert corrected_test([0.5]) is None


def runs(rng: np.random.Generator, kind: str, people: int, seeds: int, edge: float, folds: int = 1) -> list[Cell]:
    """One method's cells: person effects of its own, an effect of every trained model, noise of every answer."""
    own = rng.normal(0, 0.3, people)
    data = np.random.default_rng(11)
    cells = []
    for fold in range(folds):
        who = np.arange(fold, people, folds)
        names = np.repeat(who, 12)
        y = data.standard_normal((len(names), 1, 1)) if kind == "ccc" else data.integers(0, 2, (len(names), 1))
        for seed in range(seeds):
            skill = edge + own[names] + rng.normal(0, 0.15)
            signal = (y if kind == "ccc" else np.eye(2)[y]).astype(float)
            pred = signal + np.exp(-0.7 * skill)[:, None, None] * rng.standard_normal(signal.shape)
            cells.append(Cell(seed, fold, names.astype(str), pred, y, np.ones((len(names), 1), bool)))
    return cells


def cells_with(table: np.ndarray) -> list[Cell]:
    """Cells whose mean absolute error on group g at seed s is table[s, g]."""
    people = table.shape[1]
    return [Cell(s, 0, np.arange(people).astype(str), row[:, None, None], np.zeros((people, 1, 1)),
                 np.ones((people, 1), bool)) for s, row in enumerate(table)]  # fmt: skip


def test_variance_components_find_what_was_put_in() -> None:
    rng = np.random.default_rng(0)
    seeds, people, folds = 60, 400, 40
    fold = np.arange(people) % folds
    table = (rng.normal(0, 0.3, (seeds, 1)) + rng.normal(0, 0.2, folds)[fold] + rng.normal(0, 0.5, people)
             + rng.normal(0, 0.4, (seeds, people)))  # fmt: skip
    cells = [
        Cell(s, f, np.flatnonzero(fold == f).astype(str), table[s, fold == f][:, None, None],
             np.zeros(((fold == f).sum(), 1, 1)), np.ones(((fold == f).sum(), 1), bool))
        for s in range(seeds) for f in range(folds)
    ]  # fmt: skip
    found = variance_components([Cell(c.seed, c.fold, c.groups, c.pred + 10, c.y, c.y_mask) for c in cells], "mae")
    assert (found.seed, found.residual) == pytest.approx((0.09, 0.16), rel=0.35)
    assert found.person == pytest.approx(0.25, rel=0.2)
    assert found.fold == pytest.approx(0.04, rel=0.6)


def test_the_noise_of_few_seeds_is_not_taken_for_people() -> None:
    table = np.random.default_rng(0).normal(10, 0.5, (2, 2000))
    assert variance_components(cells_with(table), "mae").person < 0.02


def test_variance_components_that_cannot_be_told_are_none() -> None:
    one = variance_components([counted(0, [3, 5, 9])], "accuracy")
    assert (one.seed, one.fold, one.person, one.residual) == (None, None, None, None)
    two = variance_components([counted(0, [3, 5, 9]), counted(1, [3, 5, 9])], "accuracy")
    assert (two.seed, two.fold, two.residual) == (0.0, None, pytest.approx(0.0))
    assert two.person == pytest.approx(np.var([0.3, 0.5, 0.9], ddof=1))
    assert variance_components([counted(0, [3])], "accuracy").person is None


def test_people() -> None:
    scores = per_group_scores([counted(0, [1, 5, 9]), counted(1, [3, 5, 7])], "accuracy")
    assert scores == pytest.approx({"p00": 0.2, "p01": 0.5, "p02": 0.8})
    twenty = {str(i): i / 20 for i in range(20)}
    assert worst_decile(twenty) == pytest.approx(0.025)
    assert worst_decile(twenty, higher_is_better=False) == pytest.approx(0.925)
    assert worst_decile({**scores, "p03": None}) == pytest.approx(0.2)
    assert worst_decile({"a": None}) is None
    other = {"p00": 0.3, "p01": 0.5, "p02": None}
    assert share_hurt(scores, other) == 0.5
    assert share_hurt(scores, other, higher_is_better=False) == 0.0
    assert share_hurt(scores, other, margin=0.2) == 0.0
    assert share_hurt(scores, {}) is None
    flat = Cell(0, 0, np.array(["a", "a", "b", "b"]), np.array([1.0, 1, 0, 1])[:, None, None],
                np.array([1.0, 1, 0, 1])[:, None, None], np.ones((4, 1), bool))  # fmt: skip
    assert per_group_scores([flat], "ccc") == {"a": None, "b": 1.0}


def test_mean_ranks_and_the_critical_difference() -> None:
    rows = {f"b{i}": {"x": 0.9, "y": 0.8, "z": 0.8 if i % 2 else 0.7} for i in range(10)}
    found = critical_difference(rows)
    assert found.ranks == pytest.approx({"x": 1.0, "y": 2.25, "z": 2.75})
    assert found.width == pytest.approx(2.343 * math.sqrt(3 * 4 / 60), abs=1e-3)  # Demsar 2006, table 5
    assert found.p == pytest.approx(math.exp(-10 * (1 + 0.25**2 + 0.75**2) / 2), rel=1e-9)  # chi-square, 2 degrees
    nine = {name: row for name, row in rows.items() if name != "b9"}
    with pytest.raises(UsageError, match="needs 10 benchmarks, there are 9"):
        critical_difference(nine)
    with pytest.raises(UsageError, match="z has no score on b3"):
        critical_difference({**rows, "b3": {"x": 0.9, "y": 0.8}})
    with pytest.raises(UsageError, match="no benchmarks"):
        critical_difference({})


def test_the_critical_difference_is_scikit_posthocs() -> None:
    """Two mean ranks are further apart than the width exactly where that library's Nemenyi p is below .05."""
    reason = "scikit-posthocs is not installed: pip install 'mm-fusionbench[stats]'"
    posthocs = pytest.importorskip("scikit_posthocs", reason=reason)
    from scipy.stats import friedmanchisquare

    rng = np.random.default_rng(1)
    table = rng.normal(0, 1, (12, 5)) + np.array([0, 0.4, 0.9, 1.4, 2.2])
    names = [f"f{n}" for n in range(5)]
    found = critical_difference({f"b{n}": dict(zip(names, row.tolist(), strict=True)) for n, row in enumerate(table)})
    p = np.asarray(posthocs.posthoc_nemenyi_friedman(table))
    apart = np.array([[abs(found.ranks[a] - found.ranks[b]) > found.width for b in names] for a in names])
    assert (apart == (p < 0.05)).all()
    assert 0 < apart.sum() < 20
    assert found.p == pytest.approx(friedmanchisquare(*table.T).pvalue)


def test_the_module_imports_neither_torch_nor_what_is_slow() -> None:
    heavy = ("torch", "scipy.special", "scipy.stats", "pandas")
    code = f"import sys, fusionbench.stats; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("metric", ["auroc", "auprc", "macro_f1", "ccc"])
def test_leaving_out_groups_is_to_weigh_them_with_nought(metric: str) -> None:
    """The short ways of jackknife and subgroup give what weights do; ties, several steps a group, empty classes."""
    rng = np.random.default_rng(3)
    kind = "regress" if metric == "ccc" else "classify"
    runs = []
    for seed in (0, 1):
        for fold in (0, 1):
            groups = np.array([f"g{fold}{i}" for i in rng.integers(0, 7, 40)])
            y = rng.integers(0, 3, (40, 1)) if kind == "classify" else rng.normal(size=(40, 1, 1))
            pred = np.round(rng.normal(size=(40, 1, 3 if kind == "classify" else 1)), 1)  # ties
            runs.append(Cell(seed, fold, np.sort(groups), pred, y, np.ones((40, 1), dtype=bool)))
    shared = {run.fold: (run.groups, run.y) for run in runs if run.seed == 0}  # a fold is the same for every seed
    table = tabulate([replace(run, groups=shared[run.fold][0], y=shared[run.fold][1]) for run in runs], metric)
    size = len(table.groups)
    by_weights = table.values(np.vstack([np.ones(size), 1 - np.eye(size)]))
    assert isinstance(table.values, Jackknifed)
    np.testing.assert_allclose(table.without_each, by_weights, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(table.scores, by_weights[0], rtol=1e-12, atol=1e-12)
    chosen = rng.random(size) < 0.6
    chosen[:1], chosen[-1:] = True, False
    some = table.restricted(chosen)
    spread = np.zeros((4, size))
    spread[:, chosen] = rng.integers(0, 3, (4, chosen.sum()))
    np.testing.assert_allclose(some.values(spread[:, chosen]), table.values(spread), rtol=1e-12, atol=1e-12)
    left_out = np.vstack([np.ones(chosen.sum()), 1 - np.eye(chosen.sum())])
    np.testing.assert_allclose(some.without_each, some.values(left_out), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(some.scores, table.values(1.0 * chosen[None])[0], rtol=1e-12, atol=1e-12)
    assert list(some.groups) == list(table.groups[chosen])
    with pytest.raises(TypeError):
        replace(table, values=lambda weights: weights[:, :1]).restricted(chosen)

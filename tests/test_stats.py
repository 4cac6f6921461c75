"""Intervals, paired tests and ranks, against hand values, slow oracles and simulated truth."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionbench.errors import UsageError
from fusionbench.metrics import METRICS
from fusionbench.stats import (
    Cell,
    compare,
    compare_family,
    corrected_interval,
    corrected_test,
    corrected_variance,
    critical_difference,
    critical_difference_diagram,
    holm,
    interval,
    per_group_scores,
    ranks,
    score,
    sentence,
    share_hurt,
    sign_flip,
    smallest_detectable_difference,
    tabulate,
    tied_ranks,
    variance_components,
    worst_decile,
)
from fusionbench.stats.intervals import group_weights, seed_weights

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
    assert compare([empty], [empty], "accuracy").p is None
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
    result = compare(bad, cells, "ccc")
    assert (result.difference, result.low, result.p) == (None, None, None)
    assert "cannot be compared" in sentence("a", "b", result)


def test_incomplete_rows_are_refused_in_one_line() -> None:
    full = cells_of("classify", np.random.default_rng(0), folds=2)
    with pytest.raises(UsageError, match="seed 2 does not cover the same folds"):
        interval(full[:-1], "accuracy")
    with pytest.raises(UsageError, match="same seed and fold"):
        score([*full, full[0]], "accuracy")
    with pytest.raises(UsageError, match="no predictions"):
        score([], "accuracy")
    with pytest.raises(UsageError, match="same labels of the same people"):
        compare([counted(0, [1, 2, 3])], [counted(0, [1, 2])], "accuracy")
    with pytest.raises(UsageError, match="level"):
        interval(full, "accuracy", level=95)
    with pytest.raises(UsageError, match="macro_f1"):
        score(full, "macro_f2")
    with pytest.raises(UsageError, match="name another metric"):
        score(full, "ccc_zero_filled")


def test_the_bootstrap_is_resampling_of_people_and_seeds() -> None:
    cells = cells_of("regress", np.random.default_rng(2), groups=5)
    draws = 400
    weights, seeds = group_weights(5, draws, 3), seed_weights(3, draws, 3)[0]
    assert (weights.sum(1) == 4).all()
    slow = []
    for weight, share in zip(weights, seeds, strict=True):
        people = [f"p{g:02d}" for g in range(5) for _ in range(int(weight[g]))]
        slow.append(sum(share[s] * metric_of(cells, "ccc", s, people) for s in range(3) if share[s]))
    found = interval(cells, "ccc", draws=draws, seed=3)
    assert found[1:3] == pytest.approx(np.quantile(slow, [0.025, 0.975]), rel=1e-9)


def test_the_bootstrap_variance_of_a_mean_is_unbiased_for_few_people() -> None:
    hits = [2, 9, 5, 7, 4]
    values = tabulate([counted(0, hits)], "accuracy").values(group_weights(5, 40_000, 0))[:, 0]
    assert values.var() == pytest.approx(np.var(np.array(hits) / 10, ddof=1) / 5, rel=0.03)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(0, 10), min_size=3, max_size=3), min_size=1, max_size=4), st.integers(0, 5))
def test_an_interval_holds_its_score_and_shrinks_with_its_level(hits: list[list[int]], seed: int) -> None:
    cells = [counted(s, row) for s, row in enumerate(hits)]
    wide, narrow = (interval(cells, "accuracy", level=level, draws=100, seed=seed) for level in (0.95, 0.5))
    assert wide.score == pytest.approx(np.mean(hits) / 10)
    assert 0 <= wide.low <= narrow.low <= wide.score <= narrow.high <= wide.high <= 1


def test_intervals_cover_the_truth() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):  # people of mean accuracy .5, seeds of mean effect 0
        people, seeds = rng.normal(0.5, 0.12, 15), rng.normal(0, 0.03, 4)
        cells = [counted(s, list(rng.binomial(20, np.clip(people + e, 0, 1))), 20) for s, e in enumerate(seeds)]
        found = interval(cells, "accuracy", draws=300)
        covered += found.low <= 0.5 <= found.high
    assert 0.90 <= covered / 300 <= 0.99


def test_k_folds_say_how_they_became_one_number() -> None:
    cells = cells_of("classify", np.random.default_rng(3), folds=3)
    assert interval(cells_of("classify", np.random.default_rng(3)), "accuracy").folds == "one"
    assert interval(cells, "accuracy", draws=50).folds == "pooled"
    found = interval(cells, "macro_f1", folds="mean")
    by_fold = [np.mean([metric_of(cells, "macro_f1", s, [f"p{g:02d}" for g in range(f, 6, 3)]) for s in range(3)])
               for f in range(3)]  # fmt: skip
    assert found == pytest.approx((*corrected_interval(by_fold)[:3], "mean"))
    assert found.score == pytest.approx(np.mean(by_fold))


def test_corrected_variance_by_hand() -> None:
    scores = [0.5, 0.7, 0.6, 0.8, 0.9]  # sample variance .025
    assert corrected_variance(scores) == pytest.approx((1 / 5 + 1 / 4) * 0.025)
    assert corrected_variance(scores, ratio=0.5) == pytest.approx(0.7 * 0.025)
    found = corrected_interval(scores)
    assert found.high - found.score == pytest.approx(2.776445 * math.sqrt(0.01125), rel=1e-6)  # t table, 4 degrees
    t = 0.2 / math.sqrt((1 / 3 + 1 / 2) * 0.01)
    p = 1 - t / math.sqrt(2 + t * t)  # closed form, 2 degrees
    assert corrected_test([0.1, 0.2, 0.3]) == pytest.approx(p, rel=1e-5)
    assert corrected_test([0.0, 0.0]) == 1.0
    assert corrected_variance([0.5]) is None
    assert corrected_variance([0.5, math.nan]) is None
    assert corrected_test([0.5]) is None


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-8, 8), min_size=1, max_size=8))
def test_sign_flip_counts_every_assignment_of_signs(differences: list[int]) -> None:
    total = abs(sum(differences))
    flips = [sum(s * d for s, d in zip(signs, differences, strict=True))
             for signs in itertools.product([1, -1], repeat=len(differences))]  # fmt: skip
    assert sign_flip(differences) == pytest.approx(np.mean([abs(f) >= total for f in flips]))


def test_sign_flip_at_random_agrees_with_all_signs_and_with_noise_is_a_convolution() -> None:
    d = np.random.default_rng(0).normal(0.4, 1, 16)
    signs = np.array(list(itertools.product([1, -1], repeat=16)))
    exact = (np.abs(signs @ d / 16) >= abs(d.mean())).mean()
    assert sign_flip(d) == pytest.approx(exact, abs=0.015)
    assert sign_flip(np.ones(40), flips=99) == pytest.approx(1 / 100)  # (1 + 0) / (1 + draws), never 0
    d, rng = d[:6], np.random.default_rng(1)
    means = signs[rng.integers(0, 2**16, 200_000), :6] @ d / 6 + 0.3 * rng.standard_t(4, 200_000)
    own = 2 * abs(d.mean()) / 0.3  # the observed signs, whose share counts whole: here is what the blur takes from it
    taken = rng.standard_t(4, 200_000)
    expected = (np.abs(means) >= abs(d.mean())).mean() + ((taken < 0) & (taken > -own)).mean() / 2**5
    assert sign_flip(d, noise=0.3, freedom=4) == pytest.approx(expected, abs=0.004)
    assert sign_flip(d, noise=1e-12) == pytest.approx(sign_flip(d))
    assert sign_flip([1.0] * 5, noise=1e-3, freedom=4) >= 2**-4


def test_ten_people_cannot_go_below_two_in_a_thousand() -> None:
    best = compare([counted(s, [9] * 10) for s in range(2)], [counted(s, [1] * 10) for s in range(2)], "accuracy")
    assert best.smallest_p == best.p == pytest.approx(2 / 1024)
    assert best.difference == pytest.approx(0.8)
    assert best.better() == "a"
    four = compare([counted(s, [9] * 4) for s in range(2)], [counted(s, [1] * 4) for s in range(2)], "accuracy")
    assert four.p == pytest.approx(0.125)
    assert (four.better(), four.detectable, four.limited_by) == (None, None, "people")
    assert "with so few people no difference could count" in sentence("a", "b", four)


def test_groups_of_equal_size_are_tested_on_their_own_scores() -> None:
    cells = [counted(0, [3, 7, 5]), counted(1, [4, 8, 1])]
    np.testing.assert_allclose(tabulate(cells, "accuracy").pseudo, [[0.3, 0.7, 0.5], [0.4, 0.8, 0.1]])
    a, b = [3, 7, 5, 9, 2, 8], [4, 4, 4, 7, 3, 5]
    found = compare([counted(0, a)], [counted(0, b)], "accuracy")
    assert found.p == pytest.approx(sign_flip(np.subtract(a, b)))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 3), st.sampled_from(["macro_f1", "ccc", "mae"]))
def test_compare_is_antisymmetric(seed: int, seeds_a: int, seeds_b: int, name: str) -> None:
    rng = np.random.default_rng(seed)
    a, b = (cells_of(KINDS[name], rng, seeds=n, each=2) for n in (seeds_a, seeds_b))
    one, two = compare(a, b, name, draws=60), compare(b, a, name, draws=60)
    assert one.difference == pytest.approx(-two.difference)
    assert (one.low, one.high) == pytest.approx((-two.high, -two.low))
    assert one.low <= one.difference <= one.high
    assert one.p == pytest.approx(two.p)
    assert one.better() == {"a": "b", "b": "a", None: None}[two.better()]
    assert (one.limited_by, one.detectable) == (two.limited_by, pytest.approx(two.detectable))
    assert 0 < one.p <= 1


def test_one_fuser_under_two_names_is_not_different() -> None:
    cells = cells_of("regress", np.random.default_rng(0), groups=12)
    found = compare(cells, cells, "ccc")
    assert (found.difference, found.p, found.better()) == (0.0, 1.0, None)
    assert sentence("jmt", "copy", found) == "jmt and copy score the same over 12 people."


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


@pytest.mark.parametrize(
    ("name", "people", "seeds", "folds"),
    [("accuracy", 20, 3, 1), ("macro_f1", 10, 3, 1), ("ccc", 10, 5, 1), ("ccc", 34, 2, 1), ("accuracy", 20, 3, 5)],
)
def test_two_copies_are_rarely_called_different(name: str, people: int, seeds: int, folds: int) -> None:
    rng = np.random.default_rng(5)
    kind = "ccc" if name == "ccc" else "accuracy"
    trials = 300
    wrong = 0
    for _ in range(trials):
        one, two = (runs(rng, kind, people, seeds, 0, folds) for _ in range(2))
        wrong += compare(one, two, name, draws=2, flips=400).p < 0.05
    assert wrong / trials <= 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / trials)


def test_flipping_signs_alone_would_call_copies_different() -> None:
    """Why the test carries the noise of the seeds: all people share one trained model."""
    rng = np.random.default_rng(6)
    naive = 0
    for _ in range(200):
        left, right = (rng.normal(0, 0.3, (3, 1)) + rng.normal(0, 0.3, (3, 34)) for _ in range(2))
        naive += sign_flip(left.mean(0) - right.mean(0), flips=400) < 0.05
    assert naive / 200 > 0.2


@pytest.mark.parametrize("name", ["accuracy", "ccc"])
def test_a_planted_difference_is_found(name: str) -> None:
    rng = np.random.default_rng(8)
    found = [compare(runs(rng, name, 34, 5, 0.7), runs(rng, name, 34, 5, 0), name, draws=2, flips=400)
             for _ in range(60)]  # fmt: skip
    assert np.mean([c.better() == "a" for c in found]) > 0.9


def cells_with(table: np.ndarray) -> list[Cell]:
    """Cells whose mean absolute error on group g at seed s is table[s, g]."""
    people = table.shape[1]
    return [Cell(s, 0, np.arange(people).astype(str), row[:, None, None], np.zeros((people, 1, 1)),
                 np.ones((people, 1), bool)) for s, row in enumerate(table)]  # fmt: skip


def test_the_detectable_difference_is_found_four_times_out_of_five() -> None:
    rng = np.random.default_rng(9)
    people, seeds, shift = 25, 4, 0.1
    hits, promised = 0, []
    for _ in range(250):
        tables = [rng.normal(0, 0.02, (seeds, 1)) + rng.normal(0.5, 0.1, people) + rng.normal(0, 0.1, (seeds, people))
                  for _ in range(2)]  # fmt: skip
        tables[0] += shift
        found = compare(*map(cells_with, tables), "mae", draws=2, flips=400)
        hits += found.p < 0.05
        promised.append(found.detectable)
    assert np.median(promised) == pytest.approx(shift, abs=0.025)
    assert 0.7 < hits / 250 < 0.95


def test_folds_are_tested_by_their_own_scores_too() -> None:
    a, b = (cells_of("classify", np.random.default_rng(s), folds=3) for s in (1, 2))
    means = [[np.mean([score([c], "accuracy") for c in cells if c.fold == f]) for f in range(3)] for cells in (a, b)]
    assert compare(a, b, "accuracy", draws=2).p_folds == pytest.approx(corrected_test(np.subtract(*means)))
    assert compare(a[:3], b[:3], "accuracy", draws=2).p_folds is None


def test_what_limits_a_comparison() -> None:
    rng = np.random.default_rng(0)
    people = [cells_with(rng.normal(0.5, 0.2, 12) + rng.normal(0, 0.01, (4, 12))) for _ in range(2)]
    seeds = [cells_with(rng.normal(0.5, 0.01, 12) + rng.normal(0, 0.2, (4, 1))) for _ in range(2)]
    single = [cells[:1] for cells in people]
    assert compare(*people, "mae", draws=50).limited_by == "people"
    assert compare(*seeds, "mae", draws=50).limited_by == "seeds"
    alone = compare(*single, "mae", draws=50)
    assert (alone.limited_by, alone.seeds, alone.better(1.1)) == ("seeds", 1, None)
    assert "of single trained models: more seeds are needed" in sentence("a", "b", alone)


def test_more_people_and_more_seeds_detect_less() -> None:
    found = compare(*(cells_with(np.random.default_rng(s).normal(0.5, 0.1, (3, 12))) for s in (1, 2)), "mae",
                    draws=10).parts  # fmt: skip
    assert found.variance(12, 3) == pytest.approx(found.people / 12 + found.seeds / 3 + found.residual / 36)
    sizes = [smallest_detectable_difference(found, people, 3) for people in (6, 12, 24, 48)]
    assert sizes == sorted(sizes, reverse=True)
    assert smallest_detectable_difference(found, 12, 6) < smallest_detectable_difference(found, 12, 3)
    assert smallest_detectable_difference(found, 5, 3) is None  # the smallest p is 1/16


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


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.01, None, 0.9, 0.8]) == [0.03, None, 1.0, 1.0]
    assert holm([]) == []


@settings(max_examples=50)
@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=7))
def test_holm_rejects_what_its_definition_rejects(ps: list[float]) -> None:
    for alpha in (0.01, 0.05, 0.2):
        rejected = set()
        for step, i in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
            if (len(ps) - step) * ps[i] > alpha:
                break
            rejected.add(i)
        assert {i for i, p in enumerate(holm(ps)) if p <= alpha} == rejected


def test_a_family_is_corrected_and_words_follow_the_correction() -> None:
    low, high = [4, 5, 3, 6, 4, 5, 4, 3], [9, 9, 8, 9, 9, 9, 9, 9]
    noisy = [9, 2, 8, 3, 9, 4, 7, 2]
    fusers = {name: [counted(s, hits) for s in range(3)] for name, hits in
              [("concat", low), ("jmt", high), ("noisy", noisy), ("copy", low)]}  # fmt: skip
    family = compare_family(fusers, "concat", "accuracy", draws=200)
    assert list(family) == ["jmt", "noisy", "copy"]
    assert family["jmt"].adjusted == pytest.approx(3 * 2 / 256)
    assert {c.family for c in family.values()} == {3}
    words = sentence("jmt", "concat", family["jmt"], scale=100)
    assert words.startswith("jmt > concat by 46 +- ")
    assert words.endswith("over 8 people (p = 0.023, Holm-corrected within 3): jmt is better.")
    words = sentence("noisy", "concat", family["noisy"], unit="videos")
    assert "not told from chance" in words
    assert "more videos, not more seeds, would settle it" in words
    assert "better" not in words
    with pytest.raises(UsageError, match="reference 'jtm'"):
        compare_family(fusers, "jtm", "accuracy")


def test_of_an_error_less_is_better() -> None:
    def off(error: float) -> list[Cell]:
        return [Cell(s, 0, np.arange(8).astype(str), np.full((8, 1, 1), error), np.zeros((8, 1, 1)),
                     np.ones((8, 1), bool)) for s in range(2)]  # fmt: skip

    found = compare(off(0.1), off(0.3), "mae")
    assert found.difference == pytest.approx(-0.2)
    assert found.better() == "a"
    assert sentence("jmt", "concat", found).startswith("jmt > concat by 0.2 +- ")
    assert sentence("concat", "jmt", compare(off(0.3), off(0.1), "mae")).endswith("jmt is better.")


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


def test_ranks_tie_where_the_test_cannot_separate() -> None:
    scores = {"a": 0.9, "b": 0.88, "c": 0.7, "d": None, "e": 0.69}
    separated = {("a", "c"), ("a", "e"), ("b", "e")}
    assert tied_ranks(scores, lambda x, y: (x, y) in separated) == {"a": 1, "b": 1, "c": 2, "d": None, "e": 3}


def test_mean_ranks_and_the_critical_difference() -> None:
    rows = {f"b{i}": {"x": 0.9, "y": 0.8, "z": 0.8 if i % 2 else 0.7} for i in range(10)}
    assert ranks(rows) == pytest.approx({"x": 1.0, "y": 2.25, "z": 2.75})
    found = critical_difference(rows)
    assert found.width == pytest.approx(2.343 * math.sqrt(3 * 4 / 60), abs=1e-3)  # Demsar 2006, table 5
    assert found.p == pytest.approx(math.exp(-10 * (1 + 0.25**2 + 0.75**2) / 2), rel=1e-9)  # chi-square, 2 degrees
    nine = {name: row for name, row in rows.items() if name != "b9"}
    with pytest.raises(UsageError, match="needs 10 benchmarks, there are 9"):
        critical_difference(nine)
    with pytest.raises(UsageError, match="z has no score on b3"):
        ranks({**rows, "b3": {"x": 0.9, "y": 0.8}})
    with pytest.raises(UsageError, match="no benchmarks"):
        ranks({})


def test_the_diagram_names_the_library_that_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {f"b{i}": {"x": 0.9, "y": 0.8} for i in range(10)}
    monkeypatch.setitem(sys.modules, "scikit_posthocs", None)
    with pytest.raises(UsageError, match="pip install scikit-posthocs"):
        critical_difference_diagram(rows)


def test_the_module_imports_neither_torch_nor_what_is_slow() -> None:
    heavy = ("torch", "scipy.special", "scipy.stats", "pandas")
    code = f"import sys, fusionbench.stats; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"

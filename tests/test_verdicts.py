"""One variance, one test, one interval, one family: against other libraries, slow loops and simulated truth."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as oracle

from fusionbench.errors import UsageError
from fusionbench.metrics import METRICS
from fusionbench.stats import (
    Cell,
    Sources,
    Table,
    Verdict,
    above_chance,
    choose,
    describe,
    detectable,
    difference,
    does_fusion_help,
    equivalence_power,
    family,
    holm_steps,
    influence,
    interval_of,
    needed_groups,
    needed_seeds,
    plan,
    pooled,
    power_of,
    resolve,
    spending,
    t_test,
    tabulate,
    tiers,
)
from fusionbench.stats.tests import sign_flip_p

Array = np.ndarray


def table_of(values: Array, folds: int = 1) -> Table:
    """A metric that is the mean of its groups' values (R, G)."""
    groups = np.array([f"p{g:02d}" for g in range(values.shape[1])])
    fold = np.arange(len(groups)) % folds
    by_fold = np.stack([values[:, fold == f].mean(1) for f in range(folds)], axis=1)
    return Table(groups, np.full(len(groups), 10), fold, by_fold, lambda w: w @ values.T / w.sum(1, keepdims=True))


def drawn(
    rng: np.random.Generator, groups: int = 12, seeds: int = 4, edge: float = 0.0, people: float = 0.05, folds: int = 1
) -> Table:
    """A row over people whose difficulty every row shares."""
    shared = 0.1 * np.random.default_rng(groups).standard_normal(groups)
    own = people * rng.standard_normal(groups) + 0.01 * rng.standard_normal((seeds, 1))
    return table_of(0.7 + edge + shared + own + 0.03 * rng.standard_normal((seeds, groups)), folds)


def test_with_one_seed_it_is_the_paired_t_test_and_says_what_it_is_about() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.75, 0.1, 14), rng.normal(0.7, 0.1, 14)
    found = difference(table_of(a[None]), table_of(b[None]))
    expected = oracle.ttest_rel(a, b)
    assert t_test(found) == pytest.approx(expected.pvalue)
    assert interval_of(found, 0.05) == pytest.approx(tuple(expected.confidence_interval()))
    verdict = family({"x": table_of(a[None]), "ref": table_of(b[None])}, "ref")["x"]
    assert verdict.about == "about the one trained model of x and of ref"
    assert verdict.about in describe(verdict)
    assert verdict.settle_seeds is None
    seeds = table_of(a + 0.02 * rng.standard_normal((5, 14)) + 0.02 * rng.standard_normal((5, 1)))
    one = family({"x": seeds, "ref": table_of(b[None])}, "ref", margin=1e-4)["x"]
    assert one.about == "about the one trained model of ref"
    assert (one.decision, one.settle_seeds) == ("undecided", None)
    with pytest.raises(UsageError, match="two seeds or more"):
        Sources(1.0, (1.0,), (1.0,)).at(10, 1)


def test_the_variance_is_the_analysis_of_variance_by_hand() -> None:
    rng = np.random.default_rng(1)
    left, right = rng.normal(0, 1, (3, 6)), rng.normal(0, 1, (4, 6)) + rng.normal(0, 2, (4, 1))
    share, seeds = 0.0, 0.0
    squares = []
    for side in (left, right):
        count, size = side.shape
        rest = sum(
            (side[r, g] - side[r].mean() - side[:, g].mean() + side.mean()) ** 2
            for r in range(count)
            for g in range(size)
        ) / ((count - 1) * (size - 1))
        run = sum((side[r].mean() - side.mean()) ** 2 for r in range(count)) / (count - 1)
        share += rest / (count * size)
        seeds += run / count
        squares += [(run / count, count - 1), (rest / (count * size), (count - 1) * (size - 1))]
    each = [left[:, g].mean() - right[:, g].mean() for g in range(6)]
    people = sum((d - np.mean(each)) ** 2 for d in each) / 5 / 6
    found = difference(table_of(left), table_of(right))
    assert found.value == pytest.approx(left.mean() - right.mean())
    variance = seeds + max(people - share, 0)
    assert found.variance == pytest.approx(variance)
    terms = people**2 / 5 + sum(value**2 / freedom for value, freedom in squares)
    welch = seeds**2 / sum(value**2 / freedom for value, freedom in squares[::2])
    assert found.freedom == pytest.approx(max(variance**2 / terms, min(5, welch)))


def test_the_variance_is_that_of_the_difference() -> None:
    """Over many draws of people and seeds, unequal in number, with noise that the people of a fold share."""
    rng, found = np.random.default_rng(2), []
    for _ in range(3000):
        fold = 0.5 * rng.standard_normal((7, 3))[:, np.arange(9) % 3]
        both = rng.standard_normal((7, 9)) + 0.4 * rng.standard_normal((7, 1)) + fold
        found.append(difference(table_of(both[:3] + 1.5 * rng.standard_normal(9)), table_of(both[3:])))
    spread = np.var([d.value for d in found])
    assert np.mean([d.variance for d in found]) == pytest.approx(spread, rel=0.06)
    typical = pooled(found)
    assert typical is not None
    assert typical.people == pytest.approx(1.5**2, rel=0.12)


def test_the_variance_is_that_of_a_mixed_model() -> None:
    reason = "statsmodels is not installed: pip install 'mm-fusionbench[stats]'"
    mixed = pytest.importorskip("statsmodels.regression.mixed_linear_model", reason=reason).MixedLM
    pandas = pytest.importorskip("pandas")
    rng, (groups, seeds) = np.random.default_rng(0), (8, 4)
    shared = rng.standard_normal(groups)
    sides = [
        shared
        + 0.8 * rng.standard_normal(groups)
        + 0.7 * rng.standard_normal((seeds, 1))
        + 0.5 * rng.standard_normal((seeds, groups))
        for _ in range(2)
    ]
    rows = [
        {"y": sides[m][r, g], "m": m, "p": g, "s": m * seeds + r, "both": m * groups + g, "all": 1}
        for m in range(2)
        for r in range(seeds)
        for g in range(groups)
    ]
    parts = {"p": "0 + C(p)", "both": "0 + C(both)", "s": "0 + C(s)"}
    fit = mixed.from_formula("y ~ m", groups="all", vc_formula=parts, re_formula="0", data=pandas.DataFrame(rows)).fit()
    found = difference(table_of(sides[1]), table_of(sides[0]))
    assert found.value == pytest.approx(fit.params["m"], abs=1e-6)
    assert found.variance == pytest.approx(fit.bse["m"] ** 2, rel=1e-3)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_influence_values_are_a_leave_one_out_loop(metric: str) -> None:
    rng = np.random.default_rng(3)
    names = np.repeat([f"p{g}" for g in range(5)], rng.integers(6, 12, 5))
    y = rng.integers(0, 3, (len(names), 1))
    pred = np.eye(3)[y] + rng.standard_normal((len(names), 1, 3))
    table = tabulate([Cell(0, 0, names, pred, y, np.ones_like(y, bool))], metric)
    function = METRICS[metric].of
    whole = function(pred[:, 0], y[:, 0])
    without = np.array([function(pred[names != g, 0], y[names != g, 0]) for g in table.groups])
    np.testing.assert_allclose(influence(table)[0], whole + 4 * (without.mean() - without), rtol=1e-9)


def auroc(scores: Array, y: Array) -> Table:
    """The area of scores (R, n), each sample a group of its own."""

    def values(weights: Array) -> Array:
        above = (scores[:, :, None] > scores[:, None, :]) + 0.5 * (scores[:, :, None] == scores[:, None, :])
        pos, neg = weights * (y == 1), weights * (y == 0)
        with np.errstate(invalid="ignore"):
            return np.einsum("bi,rij,bj->br", pos, above, neg) / (pos.sum(1) * neg.sum(1))[:, None]

    size = len(y)
    by_fold = values(np.ones((1, size))).T
    return Table(np.array([f"s{i}" for i in range(size)]), np.ones(size, int), np.zeros(size, int), by_fold, values)


def test_the_area_under_the_curve_has_delongs_variance() -> None:
    rng = np.random.default_rng(4)
    y = (np.arange(120) % 3 == 0).astype(int)
    common = rng.standard_normal(120)
    a, b = (1.2 * y + common + rng.standard_normal(120) for _ in range(2))
    parts = []
    for score in (a, b):  # DeLong's structural components
        above = (score[y == 1][:, None] > score[y == 0][None]).astype(float)
        parts.append((above.mean(1), above.mean(0)))
    gap = [parts[0][k] - parts[1][k] for k in range(2)]
    delong = gap[0].var(ddof=1) / len(gap[0]) + gap[1].var(ddof=1) / len(gap[1])
    found = difference(auroc(a[None], y), auroc(b[None], y))
    assert found.variance == pytest.approx(delong, rel=0.03)
    verdict = family({"x": auroc(a[None], y), "ref": auroc(b[None], y)}, "ref", unit="sample")["x"]
    assert "over 120 samples" in describe(verdict)


def test_where_nothing_can_be_tested_the_reason_is_said() -> None:
    rng = np.random.default_rng(5)
    ref = drawn(rng)
    few = np.array([1, 1, 0, 0, 0])  # leaving out neither positive alone is undefined, but one positive is
    lone = auroc(rng.standard_normal((1, 5)), np.array([1, 0, 0, 0, 0]))
    assert t_test(difference(auroc(rng.standard_normal((1, 5)), few), auroc(rng.standard_normal((1, 5)), few)))
    assert difference(lone, lone).reason == "without s0 the metric is undefined"
    verdict = family({"x": lone, "ref": lone}, "ref")["x"]
    assert (verdict.decision, verdict.p, verdict.size) == ("untested", None, 0)
    assert describe(verdict) == "x and ref are not tested: without s0 the metric is undefined"
    assert "same labels" in difference(drawn(rng, groups=9), ref).reason
    one = table_of(np.ones((2, 1)))
    assert difference(one, one).reason == "there is one group"
    steady = table_of(np.array([[0.5, 0.6, 0.7]]))
    shifted = table_of(np.array([[0.6, 0.7, 0.8]]))
    assert "no spread" in difference(steady, shifted).reason
    assert t_test(difference(steady, steady)) == 1.0
    undefined = table_of(np.full((2, 12), np.nan))
    assert difference(undefined, ref).reason == "a score is undefined"
    with pytest.raises(UsageError, match="name one of x"):
        family({"x": ref}, "concat")
    with pytest.raises(UsageError, match="margin"):
        family({"x": ref, "ref": ref}, "ref", margin=0.0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_the_textbooks(ps: list[float]) -> None:
    """Adjusted p of the k-th smallest: the largest of (m - j + 1) p(j) up to it, at most 1 (Holm 1979)."""
    found = holm_steps({str(number): p for number, p in enumerate(ps)})
    order = sorted(range(len(ps)), key=lambda number: ps[number])
    for place, number in enumerate(order):
        want = max((len(ps) - j) * ps[order[j]] for j in range(place + 1))
        assert found[str(number)][0] == pytest.approx(min(1.0, want))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(2, 14), st.booleans(), st.sampled_from([None, 0.02, 0.2]))
def test_nothing_that_is_said_contradicts_anything_else(
    seed: int, seeds: int, groups: int, up: bool, margin: float | None
) -> None:
    rng = np.random.default_rng(seed)
    edges = rng.choice([0, 0.02, 0.1], 6)
    rows = {f"r{i}": drawn(rng, groups, seeds, edge, people=rng.choice([0, 0.05])) for i, edge in enumerate(edges)}
    found = family(rows, "r0", "default rows", margin, higher_is_better=up)
    ps = [v.p or 0.0 for v in found.values()]
    by_hand = [max(min(1.0, (len(ps) - sorted(ps).index(q)) * q) for q in ps if q <= p) for p in ps]
    assert [v.adjusted for v in found.values()] == pytest.approx(by_hand)
    for v in found.values():
        assert None not in (v.difference, v.low, v.high, v.adjusted, v.adjusted_low, v.adjusted_high, v.detectable)
        assert v.adjusted_low <= v.difference <= v.adjusted_high
        assert v.low <= v.difference <= v.high
        assert (v.p < 0.05) == (not v.low <= 0 <= v.high)
        assert (v.adjusted < 0.05) == (not v.adjusted_low < 0 < v.adjusted_high) == (v.decision in ("better", "worse"))
        if v.decision in ("better", "worse"):
            assert (v.decision == "better") == ((v.difference > 0) == up)
        if abs(v.difference) >= v.detectable:
            assert v.decision in ("better", "worse")
        if v.decision == "equivalent":
            assert -margin < v.adjusted_low < v.adjusted_high < margin
        if v.decision != "undecided":
            assert v.settle_groups is v.settle_seeds is None
        if v.settle_groups is not None:
            assert v.settle_groups > groups
        assert 0.05 / v.size <= v.level <= 0.05
        assert describe(v, 100).endswith("given these training sets")
        back = v.mirrored
        assert (back.difference, back.adjusted_low) == (-v.difference, -v.adjusted_high)
        assert back.mirrored == v


def test_two_rows_in_either_order_say_the_same() -> None:
    rng = np.random.default_rng(6)
    a, b = drawn(rng, seeds=3, edge=0.1), drawn(rng, seeds=5)
    one, other = family({"a": a, "b": b}, "b")["a"], family({"a": a, "b": b}, "a")["b"]
    assert one.decision == "better"
    assert other.decision == "worse"
    assert other.p == pytest.approx(one.p)
    assert (other.low, other.high) == pytest.approx((-one.high, -one.low))


def test_a_row_of_another_family_moves_nothing() -> None:
    rng = np.random.default_rng(7)
    rows = {name: drawn(rng, edge=edge) for name, edge in [("ref", 0), ("a", 0.05), ("b", 0.02)]}
    before = family(rows, "ref", "default rows")
    family({**rows, "tuned": drawn(rng)}, "ref", "tuned")
    assert family(rows, "ref", "default rows") == before
    assert {v.family for v in before.values()} == {"default rows"}


VERDICT = Verdict(
    "jmt", "concat", -0.047, -0.07, -0.024, 0.00045, 0.005, -0.076, -0.018, "default rows", 11, "worse", None, 0.05,
    10, (5, 5), level=0.05 / 11,
)  # fmt: skip


def test_the_sentence() -> None:
    assert describe(VERDICT, 100) == (
        "jmt is worse than concat by 4.7 [1.8, 7.6] over 10 people, p = .005 within 11 default rows; "
        "given these training sets"
    )
    assert describe(replace(VERDICT, repartitioned=True), 100).endswith(
        "; over re-dealt training sets of these 10 people"
    )
    assert describe(replace(VERDICT, p_folds=0.12), 100).endswith(
        "; given these training sets (over folds: unadjusted p = .12)"
    )
    open_ = replace(
        VERDICT, decision="undecided", adjusted=0.3, adjusted_high=0.02, settle_groups=42, settle_seeds=None
    )
    assert describe(open_, 100) == (
        "jmt against concat is undecided: -4.7 [-7.6, 2.0] over 10 people, p = .30 within 11 default rows; "
        "a true difference of 5 would be found, one of 4.7 takes 42 people, no number of seeds would do; "
        "given these training sets"
    )
    equal = replace(VERDICT, decision="equivalent", margin=0.1, unit="engine", groups=1, size=1)
    assert describe(equal, 100).startswith("jmt and concat are equivalent within 10: -4.7 [-7.6, -1.8] over 1 engine;")
    assert "p = .0499" in describe(replace(VERDICT, adjusted=0.04994))
    assert "p < .0001" in describe(replace(VERDICT, adjusted=1e-7))


def test_equivalence_is_found_where_it_can_be() -> None:
    rng = np.random.default_rng(8)
    rows = {f"r{i}": drawn(rng, groups=40, seeds=5, people=0.01) for i in range(5)}
    found = family(rows, "r0", margin=0.05)
    assert {v.decision for v in found.values()} == {"equivalent"}
    assert all(v.attainable for v in found.values())
    assert not any(v.attainable for v in family(rows, "r0", margin=0.001).values())
    hits, variance, freedom = [], 0.01**2, 20.0
    for _ in range(4000):  # the normal value and its spread, as the test sees them
        spread = math.sqrt(variance * rng.chisquare(freedom) / freedom)
        hits.append(abs(0.01 * rng.standard_normal()) + oracle.t.ppf(0.975, freedom) * spread < 0.035)
    assert equivalence_power(variance, freedom, 0.035) == pytest.approx(np.mean(hits), abs=0.05)


def test_rank_intervals_and_tiers_are_counted_from_all_pairs() -> None:
    rng = np.random.default_rng(9)
    edges = {"a": 0.4, "b": 0.38, "c": 0.2, "d": 0.19, "e": -0.3}
    found = tiers({name: drawn(rng, edge=edge) for name, edge in edges.items()})
    beaten = {pair for pair, v in found.verdicts.items() if v.decision == "better"}
    assert len(found.verdicts) == 10
    assert {v.size for v in found.verdicts.values()} == {10}
    order = list(found.places)
    assert [found.places[n].score for n in order] == sorted((p.score for p in found.places.values()), reverse=True)
    assert {n: found.places[n].tier for n in order} == {"a": 1, "b": 1, "c": 2, "d": 2, "e": 3}
    for n, place in found.places.items():
        assert place.low <= 1 + sum((o, n) in beaten for o in order) <= place.high
        assert place.high >= 5 - sum((n, o) in beaten for o in order) >= place.low
    for above, below in itertools.pairwise(found.places.values()):
        assert above.low <= below.low
        assert above.high <= below.high
    down = tiers({n: drawn(np.random.default_rng(9), edge=-e) for n, e in edges.items()}, higher_is_better=False)
    assert next(iter(down.places)) in ("a", "b")
    assert list(down.places)[-1] == "e"


def test_nothing_beats_chance() -> None:
    rng = np.random.default_rng(10)
    rows = {"chance": table_of(np.full((3, 12), 0.5))} | {f"r{i}": drawn(rng, seeds=3, edge=-0.2) for i in range(3)}
    nothing = above_chance(family(rows, "chance"))
    assert nothing.sentence == "nothing beats chance here: none of 3 rows is significantly better"
    rows["good"] = drawn(rng, seeds=3, edge=0.2)
    assert above_chance(family(rows, "chance")).above == ("good",)
    assert above_chance({}).sentence == "no row was tested against chance"


def test_power_is_what_is_found_and_detectable_is_its_inverse() -> None:
    sources = Sources(0.04**2, (0.01**2, 0.02**2), (0.03**2, 0.03**2))
    rng, found = np.random.default_rng(11), 0
    edge = detectable(sources, 10, 3, 0.05 / 5)
    assert power_of(sources, edge, 10, 3, 0.05 / 5) == pytest.approx(0.8, abs=1e-6)
    for _ in range(1500):
        left = 0.04 * rng.standard_normal(10) + 0.01 * rng.standard_normal((3, 1)) + 0.03 * rng.standard_normal((3, 10))
        right = 0.02 * rng.standard_normal((3, 1)) + 0.03 * rng.standard_normal((3, 10))
        found += t_test(difference(table_of(left + edge), table_of(right))) < 0.05 / 5
    assert found / 1500 == pytest.approx(0.8, abs=0.04)
    grid = plan(sources, [10, 40], [3, 5, math.inf], size=5)
    assert grid[10, 3] == pytest.approx(edge)
    assert grid[10, 3] > grid[10, 5] > grid[10, math.inf] > grid[40, math.inf]
    groups, seeds = needed_groups(sources, 0.055, 5, 0.01), needed_seeds(sources, 0.065, 10, 0.01)
    assert power_of(sources, 0.055, groups - 1, 5, 0.01) < 0.8 <= power_of(sources, 0.055, groups, 5, 0.01)
    assert power_of(sources, 0.065, 10, seeds - 1, 0.01) < 0.8 <= power_of(sources, 0.065, 10, seeds, 0.01)


def test_hopeless_is_said_at_once() -> None:
    sources = Sources(0.04**2, (0.01**2,) * 2, (0.03**2,) * 2)
    small, large = resolve(sources, 0.02, 10, size=11), resolve(sources, 0.09, 10, size=11)
    assert small.hopeless
    assert small.seeds is None
    assert not large.hopeless
    assert large.seeds is not None
    assert list(large.looks) == [3, 5, 10]
    assert large.detectable[10] < large.detectable[5] < large.detectable[3]
    assert small.limit == large.limit < large.detectable[10]


def test_spending_errs_no_more_often_than_its_level() -> None:
    assert spending(0.05, (1,)) == pytest.approx((0.05,), abs=1e-6)
    # Lan and DeMets' bounds for four equal looks at .05, as in their tables and in every program since
    bounds = -oracle.norm.ppf(np.array(spending(0.05, (1, 2, 3, 4))) / 2)
    np.testing.assert_allclose(bounds, [4.333, 2.963, 2.359, 2.014], atol=0.003)
    rng = np.random.default_rng(12)
    runs, people = rng.standard_normal((40_000, 10)), rng.standard_normal((40_000, 1))
    for share in (0.0, 0.1, 2.0):
        stops = False
        for count, level in zip((3, 5, 10), spending(0.05), strict=True):
            z = (runs[:, :count].mean(1) + share * people[:, 0]) / math.sqrt(1 / count + share**2)
            stops = stops | (2 * oracle.norm.sf(np.abs(z)) < level)
        assert np.mean(stops) < 0.05 + 0.003


def test_the_rival_sign_flip_agrees_where_nothing_is_special() -> None:
    rng = np.random.default_rng(13)
    for size in (10, 40):
        values = rng.normal(0.3, 1, size)
        expected = oracle.ttest_1samp(values, 0)
        assert sign_flip_p(values, float(expected.statistic), 0.0, 1.0) == pytest.approx(expected.pvalue, abs=0.03)


def lattice(
    rng: np.random.Generator, gain: float, folds: int = 5
) -> tuple[dict[str, Table], dict[str, Table], dict[str, Array]]:
    """Three single modalities and four fused rows whose true score is theirs plus `gain`; validation is noisy."""
    level = {"video": 0.60, "audio": 0.66, "forest audio": 0.70}
    single = {name: drawn(rng, 30, 5, edge - 0.7, 0.02, folds) for name, edge in level.items()}
    fused = {f"f{i}": drawn(rng, 30, 5, gain, 0.02, folds) for i in range(4)}
    truth = level | dict.fromkeys(fused, 0.7 + gain)
    return single, fused, {n: truth[n] + 0.02 * rng.standard_normal((5, folds)) for n in truth}


@pytest.mark.parametrize(("gain", "word"), [(0.1, "helps"), (0.0, "makes no difference"), (-0.1, "hurts")])
def test_whether_fusion_helps_is_found_where_the_answer_is_known(gain: float, word: str) -> None:
    found = [does_fusion_help(*lattice(np.random.default_rng(seed), gain), margin=0.06) for seed in range(20)]
    assert sum(f.word == word for f in found) >= 18
    opposite = {"helps", "hurts"} - {word}
    assert sum(f.word in opposite for f in found) <= 1
    assert "chosen on validation in each fold" in found[0].sentence(100)


def test_a_choice_on_validation_does_not_flatter_the_side_with_more_rows() -> None:
    wrong = dict.fromkeys(("validation", "test"), 0)
    for seed in range(100):
        rng = np.random.default_rng(seed)
        single = {"alone": drawn(rng, 12, 3, people=0.05)}
        fused = {f"f{i}": drawn(rng, 12, 3, people=0.05) for i in range(12)}
        validation = {n: rng.standard_normal((3, 1)) for n in (*single, *fused)}
        wrong["validation"] += does_fusion_help(single, fused, validation).word == "helps"
        best = max(fused, key=lambda n: fused[n].scores.mean())
        wrong["test"] += family({best: fused[best], **single}, "alone")[best].decision == "better"
    assert wrong["validation"] / 100 < 0.07
    assert wrong["test"] / 100 > 0.1


def test_a_nested_choice_takes_each_folds_people_from_the_row_of_that_fold() -> None:
    rng = np.random.default_rng(14)
    a, b = drawn(rng, 10, 3, folds=2), drawn(rng, 10, 3, folds=2)
    validation = {"a": np.array([[1.0, 0.0]] * 3), "b": np.array([[0.0, 1.0]] * 3)}
    found = choose({"a": a, "b": b}, validation)
    assert (found.by_fold, found.name) == (("a", "b"), "a (1 fold), b (1)")
    expected = np.where(a.fold == 0, a.values(np.eye(10)).T, b.values(np.eye(10)).T)
    np.testing.assert_allclose(influence(found.table), expected, atol=1e-9)
    np.testing.assert_allclose(found.table.by_fold, np.stack([a.by_fold[:, 0], b.by_fold[:, 1]], 1))
    assert choose({"a": a, "b": b}, validation, higher_is_better=False).by_fold == ("b", "a")
    whole = replace(a, fold=np.full(10, -1))
    assert not choose({"a": whole, "b": b}, validation).nested
    with pytest.raises(UsageError, match="b has no validation score"):
        choose({"a": a, "b": b}, {"a": validation["a"]})
    with pytest.raises(UsageError, match="different seeds"):
        choose({"a": a, "b": drawn(rng, 10, 5, folds=2)}, validation)

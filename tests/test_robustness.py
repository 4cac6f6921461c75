"""Robustness measures and Shapley values, against hand values and slow oracles."""

from __future__ import annotations

import math
from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionbench.errors import UsageError
from fusionbench.stats import (
    break_even,
    damaged,
    drop,
    effective_robustness,
    interactions,
    missingness_area,
    relative_error,
    retained,
    shapley,
    spread,
    summary,
    targets,
    verdict,
    worst,
    worst_subset,
)

KNOWS = {"chance": 0.5, "noise": 0.02}
AUDIO = [0.9, 0.8, 0.8, 0.7, 0.7, 0.5]  # losses .1 .1 .2 .2 .4
CURVES = {"noise:audio": AUDIO, "missing:video": [0.9, 0.6]}


def lattice(**values: float) -> dict[frozenset[str], float]:
    """ab=.7 -> {a, b}: .7."""
    return {frozenset(name): value for name, value in values.items()}


def test_curves_by_hand() -> None:
    assert damaged(CURVES) == pytest.approx((0.7 + 0.6) / 2)  # every corruption weighs the same
    assert retained(CURVES, **KNOWS) == pytest.approx(0.15 / 0.4)
    assert drop(CURVES, **KNOWS) == pytest.approx(0.25)
    assert worst(CURVES) == (0.5, "noise:audio", 5)
    reference = [0.8, 0.8, 0.7, 0.6, 0.6, 0.5]  # losses 0 .1 .2 .2 .3
    assert relative_error(AUDIO, reference, **KNOWS) == pytest.approx(1.0 / 0.8)
    assert effective_robustness(AUDIO, reference, **KNOWS) == pytest.approx((0.8 - 1.0) / 5)
    assert relative_error(AUDIO, AUDIO, **KNOWS) == pytest.approx(1.0)
    assert effective_robustness(AUDIO, AUDIO, **KNOWS) == pytest.approx(0.0)


def test_effective_robustness_by_its_definition() -> None:
    rng = np.random.default_rng(0)
    s, r = rng.random(6) + 0.6, rng.random(6)
    expected = np.mean([s[level] - (r[level] + s[0] - r[0]) for level in range(1, 6)])
    assert effective_robustness(s.tolist(), r.tolist(), chance=0.0, noise=0.0) == pytest.approx(expected)


def test_relative_error_is_undefined_where_the_reference_loses_nothing() -> None:
    assert relative_error(AUDIO, [0.8] * 6, **KNOWS) is None
    assert relative_error(AUDIO, [0.8, 0.79, 0.8, 0.8, 0.8, 0.8], **KNOWS) is None
    assert relative_error(AUDIO, [0.8, 0.9, 0.9, 0.9, 0.9, 0.9], **KNOWS) is None


@pytest.mark.parametrize("above", [0.0, 0.015, -0.1])
def test_a_constant_predictor_does_not_look_robust(above: float) -> None:
    curves = {name: [0.5 + above] * len(curve) for name, curve in CURVES.items()}
    found = summary(curves, **KNOWS, reference=CURVES, alone={"video": {"noise:audio": [0.7] * 6}},
                    modalities=["audio", "video"])  # fmt: skip
    assert found["damaged"] < damaged(CURVES)
    for measure in ("retained", "drop", "relative_error", "relative_error_alone", "effective_robustness"):
        assert found[measure] is None
    assert found["break_even"]["noise:audio"] == 0  # switch it off at once


def test_undefined_scores_stay_undefined() -> None:
    hole = {"noise:audio": [0.9, None, 0.8]}
    assert damaged(hole) is None
    assert retained(hole, **KNOWS) is None
    assert drop(hole, **KNOWS) is None
    assert worst(hole) is None
    assert damaged({}) is None
    assert damaged({"noise:audio": [0.9]}) is None
    assert relative_error([0.9, None], [0.9, 0.8], **KNOWS) is None
    assert effective_robustness([0.9, 0.8], [0.9, None], **KNOWS) is None
    assert break_even([0.9, None], {"video": 0.8}, {"audio"}) is None
    assert retained({"noise:audio": [None, 0.8]}, **KNOWS) is None


def test_break_even_is_against_the_modalities_that_are_not_damaged() -> None:
    alone = {"audio": 0.85, "video": 0.75, "bio": 0.6}
    assert break_even(AUDIO, alone, {"audio"}) == 3  # .7 < .75
    assert break_even(AUDIO, alone, {"audio", "video"}) == 5
    assert break_even(AUDIO, {"video": 0.4}, {"audio"}) == math.inf
    assert break_even(AUDIO, {"video": 0.95}, {"audio"}) == 0
    assert break_even(AUDIO, alone, {"audio", "video", "bio"}) is None


def test_targets_of_a_condition() -> None:
    both = ["audio", "video"]
    assert targets("noise:audio", both) == targets("noise:audio:3", both) == {"audio"}
    assert targets("gap:all", both) == targets("gap:all:2", both) == targets("gap", both) == set(both)
    assert targets("noise:audio+video:3", [*both, "bio"]) == set(both)


def test_summary_puts_the_measures_together() -> None:
    alone = {
        "audio": {"noise:audio": [0.8, 0.7, 0.6, 0.5, 0.5, 0.5]},  # loses 1.2
        "video": {"noise:audio": [0.7] * 6, "missing:video": [0.7, 0.5]},  # loses .2
    }
    found = summary(CURVES, **KNOWS, reference=CURVES, alone=alone, modalities=["audio", "video"])
    assert found["clean"] == 0.9
    assert found["relative_error"] == pytest.approx(1.0)
    assert found["relative_error_alone"] == pytest.approx((1.0 / 1.2 + 0.3 / 0.2) / 2)
    assert found["break_even"] == {"noise:audio": 5, "missing:video": 1}
    bare = summary(CURVES, **KNOWS)
    assert bare["damaged"] == pytest.approx(0.65)
    assert (bare["relative_error"], bare["effective_robustness"]) == (None, None)
    assert bare["break_even"] == {"noise:audio": None, "missing:video": None}


def test_missingness() -> None:
    assert missingness_area({0.0: 0.9, 0.1: 0.8, 0.9: 0.4}) == pytest.approx((0.1 * 0.85 + 0.8 * 0.6) / 0.9)
    assert missingness_area({0.0: 0.7, 0.5: 0.7}) == pytest.approx(0.7)
    assert missingness_area({0.5: 0.9}) is None
    assert missingness_area({0.0: 0.9, 0.5: None}) is None
    three = lattice(a=0.6, b=0.5, c=0.55, ab=0.7, ac=0.8, bc=0.65, abc=0.9)
    assert worst_subset(three) == (frozenset("b"), 0.5)
    assert spread(three) == pytest.approx(0.8 - 0.65)
    assert worst_subset({**three, frozenset("a"): None}) is None
    assert spread({**three, frozenset("ab"): None}) is None
    assert spread(lattice(a=0.5)) is None


def test_shapley_by_hand() -> None:
    two = lattice(a=0.7, b=0.6, ab=0.9)
    assert shapley(two, 0.5) == pytest.approx({"a": 0.25, "b": 0.15})
    assert interactions(two, 0.5) == pytest.approx({("a", "b"): 0.1})
    assert shapley({**two, frozenset("a"): None}, 0.5) is None
    assert interactions({**two, frozenset("a"): None}, 0.5) is None
    with pytest.raises(UsageError, match="no score with only a: run the lattice"):
        shapley(lattice(b=0.6, ab=0.9), 0.5)


@st.composite
def games(draw: st.DrawFn) -> dict[frozenset[str], float]:
    names = "abcd"[: draw(st.integers(2, 4))]
    subsets = [frozenset(s) for n in range(1, len(names) + 1) for s in combinations(names, n)]
    return {s: draw(st.floats(0, 1)) for s in subsets}


@settings(max_examples=40, deadline=None)
@given(games(), st.floats(0, 0.5))
def test_shapley_values_are_mean_gains_over_all_orders(game: dict[frozenset[str], float], empty: float) -> None:
    names = sorted(frozenset().union(*game))
    value = {**game, frozenset(): empty}
    orders = list(permutations(names))
    gains = dict.fromkeys(names, 0.0)
    for order in orders:
        for i, name in enumerate(order):
            gains[name] += (value[frozenset(order[: i + 1])] - value[frozenset(order[:i])]) / len(orders)
    found = shapley(game, empty)
    assert found == pytest.approx(gains, abs=1e-12)
    assert sum(found.values()) == pytest.approx(game[frozenset(names)] - empty, abs=1e-12)  # efficiency
    pairs = interactions(game, empty)
    for i, j in combinations(names, 2):  # the pair as one player, in all orders of the others and it
        others = [n for n in names if n not in (i, j)]
        orders = list(permutations([*others, "pair"]))
        mean = 0.0
        for order in orders:
            s = frozenset(order[: order.index("pair")])
            mean += (value[s | {i, j}] - value[s | {i}] - value[s | {j}] + value[s]) / len(orders)
        assert pairs[i, j] == pytest.approx(mean, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(games(), st.floats(0, 0.5))
def test_a_dummy_gets_nothing_and_equals_get_the_same(game: dict[frozenset[str], float], empty: float) -> None:
    value = {**game, frozenset(): empty}
    dummy = {**game, **{s | {"z"}: v for s, v in value.items()}}
    found = shapley(dummy, empty)
    assert found["z"] == pytest.approx(0, abs=1e-12)
    assert {m: found[m] for m in found if m != "z"} == pytest.approx(shapley(game, empty), abs=1e-12)
    assert all(v == pytest.approx(0, abs=1e-12) for pair, v in interactions(dummy, empty).items() if "z" in pair)
    by_size = {s: (len(s) / 4) ** 2 for s in game}  # all modalities interchangeable
    assert len({round(v, 9) for v in shapley(by_size, empty).values()}) == 1


def test_verdicts() -> None:
    assert verdict(lattice(a=0.8, b=0.8, ab=0.81), 0.5, noise=0.02) == "redundant"
    assert verdict(lattice(a=0.8, b=0.8, ab=0.9), 0.5, noise=0.02) == "complementary"
    assert verdict(lattice(a=0.7, b=0.6, ab=0.8), 0.5, noise=0.02) == "complementary"
    assert verdict(lattice(a=0.5, b=0.5, ab=0.95), 0.5, noise=0.02) == "synergistic"  # exclusive-or
    assert verdict(lattice(a=0.5, b=0.5, ab=0.51), 0.5, noise=0.02) == "redundant"
    assert verdict(lattice(a=0.8), 0.5, noise=0.02) is None
    assert verdict({**lattice(a=0.8, ab=0.9), frozenset("b"): None}, 0.5, noise=0.02) is None

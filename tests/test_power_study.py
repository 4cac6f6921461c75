"""A short form of the power study: the published designs, with fewer draws."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import fusionbench

SCRIPT = Path(fusionbench.__file__).parent.parent / "bench" / "power_study.py"


@pytest.fixture(scope="module")
def study() -> ModuleType:
    if not SCRIPT.is_file():
        pytest.skip(f"{SCRIPT.name} is not part of an installed package")
    spec = importlib.util.spec_from_file_location("power_study", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["power_study"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("groups", [10, 34, 40, 65])
@pytest.mark.parametrize("count", [3, 5])
def test_the_test_holds_its_size_and_finds_what_was_said(study: ModuleType, groups: int, count: int) -> None:
    rng = np.random.default_rng([groups, count])
    for d in study.designs():
        if (d.groups, d.count) != (groups, count) or d.name == "noisy seeds":
            continue
        found = study.simulated(d, 4000, rng)
        assert 0.02 < np.mean(found.p < 0.05) < 0.06
        for wrong in study.families(d, 300, rng).values():
            assert wrong.mean() < 0.09
        edge = 4 * np.sqrt(study.sources(d).at(groups, count)[0])
        moved = study.Found(found.difference + edge, found.variance, found.freedom)
        said = study.power_of(study.sources(d), edge, groups, count, 0.05 / 11)
        assert np.mean(moved.p < 0.05 / 11) == pytest.approx(said, abs=0.05)


@pytest.mark.parametrize("name", ["accuracy", "macro-F1", "CCC"])
def test_metrics_that_are_no_mean_hold_it_too(study: ModuleType, name: str) -> None:
    make, metric, _ = study.METRICS[name]
    sums = make(400, 10, 5, 20, 0.0, np.random.default_rng(1))
    values = study.jackknifed(sums, metric)
    assert np.mean(study.analysed(values[:, 0], values[:, 1]).p < 0.05) < 0.08
    score = metric(sums.sum(-2))
    np.testing.assert_allclose(values.mean(-1), score)


def test_other_tests_are_too_liberal_or_find_less(study: ModuleType) -> None:
    d = next(d for d in study.designs() if (d.name, d.groups, d.count) == ("published", 10, 5))
    rng = np.random.default_rng(3)
    values = study.rows(d, 1000, 2, rng)
    edge = 4.5 * np.sqrt(study.sources(d).at(10, 5)[0])
    size, power = {}, {}
    for name in ("this t", "mixed model, Wald", "Nadeau-Bengio over five folds", "earlier: sign flip blurred by seeds"):
        test = study.RIVALS[name][0]
        size[name] = np.mean(test(values[:, 0], values[:, 1], d, rng) < 0.05)
        power[name] = np.mean(test(values[:, 0] + edge, values[:, 1], d, rng) < 0.05 / 22)
    assert size["mixed model, Wald"] > 0.07
    assert power["this t"] > 3 * power["earlier: sign flip blurred by seeds"]
    assert power["this t"] > 3 * power["Nadeau-Bengio over five folds"]


def test_a_partition_for_each_seed_carries_the_training_sets(study: ModuleType) -> None:
    d = study.Design("", 34, 5, 0.05, 0.01, 0.05, training=0.05 / np.sqrt(34))
    rng = np.random.default_rng(4)
    assert np.mean(study.simulated(d, 3000, rng).p < 0.05) > 0.09
    assert 0.02 < np.mean(study.simulated(d, 3000, rng, repartitioned=True).p < 0.05) < 0.065


def test_what_is_said_before_the_run_is_found_after_it(study: ModuleType) -> None:
    """Predicted against realised power within 5 points, from the components and, on average, from pilots."""
    rng = np.random.default_rng(5)
    level = 0.05 / 11
    for d in study.designs():
        if d.name != "published" or d.count != 5 or d.groups not in (10, 40):
            continue
        for seeds in (3, 10):
            target = study.detectable(study.sources(d), d.groups, seeds, level)
            found = study.simulated(study.replace(d, count=seeds), 4000, rng)
            moved = study.Found(found.difference + target, found.variance, found.freedom)
            assert np.mean(moved.p < level) == pytest.approx(0.8, abs=0.05)
        said = [study.power_of(study.pilot(d, 5, rng), target, d.groups, 10, level) for _ in range(40)]
        assert np.mean(said) == pytest.approx(0.8, abs=0.05)


def test_looks_err_as_often_as_said_find_what_they_should_and_spare_seeds(study: ModuleType) -> None:
    d = next(d for d in study.designs() if (d.name, d.groups, d.count) == ("published", 34, 5))
    rng = np.random.default_rng(6)
    target = study.resolve(study.sources(d), 0.02, 34).detectable[10]
    assert 0.03 < study.looked(d, 3000, rng)[0].mean() < 0.065
    found, spent = study.looked(d, 3000, rng, target)
    assert found.mean() == pytest.approx(0.8, abs=0.05)
    assert spent.mean() < 9.5
    assert study.looked(d, 500, rng, 2 * target)[1].mean() < 6

"""The scikit-learn face: its own checks, and what people do with an estimator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.ensemble import BaggingClassifier
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks

from fusionbench.api import UsageError
from fusionbench.sklearn import FusionClassifier, FusionRegressor, Modalities, _held_out

FAST = {"steps": 40, "interval": 20, "lr": (1e-2,)}
GROUPS = {"left": slice(0, 3), "right": [3, 4]}
#: check of scikit-learn -> why this estimator does not pass it.
KNOWN = {
    "check_methods_subset_invariance": "answers are float32: batches of other sizes differ by its rounding, about 1e-7"
}


@parametrize_with_checks([FusionClassifier("linear"), FusionRegressor("linear")])
def test_checks_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


def test_checks_of_scikit_learn_on_networks() -> None:
    """Those of the interface; the long ones, which learn, were run by hand: all pass but `KNOWN`."""
    model = FusionClassifier("concat", train={"steps": 10, "interval": 10, "lr": (1e-2,)})
    tried = check_estimator(model, legacy=False, expected_failed_checks=KNOWN, on_skip=None)
    assert len(tried) > 10
    assert {r["status"] for r in tried} <= {"passed", "skipped", "xfail"}


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An array of two modalities, whose exclusive-or is the class, and 12 groups."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (240, 2))
    x = (2 * bits - 1)[:, [0, 0, 0, 1, 1]] + 0.3 * rng.standard_normal((240, 5))
    return x, np.where(bits[:, 0] ^ bits[:, 1], "different", "same"), np.repeat(np.arange(12), 20)


def test_it_works_where_estimators_do(data: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    x, y, groups = data
    model = FusionClassifier("concat", modalities=GROUPS, train=FAST)
    scores = cross_val_score(model, x, y, groups=groups, cv=GroupKFold(2), params={"groups": groups})
    assert scores.mean() > 0.9
    search = GridSearchCV(model, {"fuser": ["concat", "late_average"]}, cv=GroupKFold(2), refit=False)
    search.fit(x, y, groups=groups)
    assert search.best_params_ == {"fuser": "concat"}, "what is decided apart cannot be joined to an exclusive-or"
    piped = make_pipeline(StandardScaler(), FusionClassifier("forest", modalities=GROUPS)).fit(x, y)
    assert piped.score(x, y) > 0.9
    assert piped.predict_proba(x[:3]).shape == (3, 2)
    assert BaggingClassifier(FusionClassifier("linear"), n_estimators=2).fit(x, y).predict(x[:2]).shape == (2,)
    assert clone(model).get_params() == model.get_params()


def test_arrays_frames_and_modalities_are_one_thing(data: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    pandas = pytest.importorskip("pandas")
    x, y, groups = data
    model = FusionClassifier("concat", modalities=GROUPS, train=FAST).fit(x, y, groups)
    wanted = model.predict_proba(x)
    frame = pandas.DataFrame(x, columns=["left_a", "left_b", "left_c", "r1", "r2"])
    named = clone(model).set_params(modalities={"left": ["left_*"], "right": ["r1", "r2"]}).fit(frame, y, groups)
    np.testing.assert_array_equal(named.predict_proba(frame), wanted)
    several = Modalities({"left": x[:, :3], "right": x[:, 3:]})
    other = FusionClassifier("concat", train=FAST).fit(several, y, groups)
    np.testing.assert_array_equal(other.predict_proba(several), wanted)
    assert len(several[groups == 0]) == len(several[np.arange(20)]) == len(several[:20]) == 20
    alone = FusionClassifier("linear")
    assert len(cross_val_score(alone, several, y, groups=groups, cv=GroupKFold(2))) == 2
    assert repr(several) == "Modalities of 240 samples: left (3,), right (2,)"

    holes = x.copy()
    holes[:, 3:] = np.nan
    np.testing.assert_array_equal(model.predict_proba(holes), other.predict_proba(Modalities({"left": x[:, :3]})))


def test_sequences_and_several_values() -> None:
    rng = np.random.default_rng(1)
    y = 100 + 5 * rng.standard_normal((120, 2))
    series = [np.repeat((row[:1] - 100)[None], rng.integers(2, 6), 0) + 0.1 for row in y]
    x = Modalities({"series": series, "other": y[:, 1:] - 100})
    model = FusionRegressor("concat", train={**FAST, "steps": 80}).fit(x, y)
    assert model.predict(x).shape == (120, 2)
    assert model.score(x, y) > 0.7, "values far from 0 are learned on their own scale"


def test_nobody_trains_and_validates_at_once() -> None:
    groups = [f"p{k}" for k in np.random.default_rng(2).integers(0, 15, 200)]
    train, val = _held_out(groups, 0.2, np.random.RandomState(0))
    assert not {groups[i] for i in train} & {groups[i] for i in val}
    assert len({groups[i] for i in val}) == 3
    assert sorted([*train, *val]) == list(range(200))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fuser": "concta"}, "did you mean concat?"),
        ({"modalities": {"a": [7]}}, "a has column 7; there are 5"),
        ({"modalities": {"a": slice(5, 9)}}, "no column is of a"),
        ({"modalities": {"a": "eda_*"}}, "no column for a is called 'eda_*'"),
        ({"settings": {"widht": 3}}, "did you mean width?"),
        ({"train": {"step": 3}}, "did you mean steps?"),
    ],
)
def test_bad_arguments_are_one_line(data: Any, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        FusionClassifier(**{"fuser": "concat", "train": FAST, **change}).fit(data[0], data[1])
    assert message in str(error.value)
    with pytest.raises(UsageError, match="as many samples as one another: a 3, b 2"):
        Modalities({"a": np.zeros((3, 1)), "b": np.zeros((2, 1))})


def test_a_modality_that_was_not_there_in_training_is_refused(data: Any) -> None:
    x, y, _ = data
    model = FusionClassifier("concat", train=FAST).fit(Modalities({"left": x}), y)
    with pytest.raises(UsageError, match="no modality of this model is called 'lefd'; did you mean left"):
        model.predict(Modalities({"lefd": x}))

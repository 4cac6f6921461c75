"""Metrics against scikit-learn and against numbers worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from fusionbench import metrics
from fusionbench.errors import UsageError


def classification(seed: int, n: int = 60, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    return rng.standard_normal((n, classes)) + 1.5 * np.eye(classes)[y], y.astype(float)


def regression(seed: int, n: int = 50, out: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.standard_normal((n, out))
    return 0.6 * y + 0.5 * rng.standard_normal((n, out)) + 0.2, y


ORACLES: dict[str, Callable[[Any, Any], float]] = {
    "accuracy": lambda p, y: sklearn.accuracy_score(y, p.argmax(1)),
    "macro_f1": lambda p, y: sklearn.f1_score(y, p.argmax(1), average="macro"),
    "weighted_f1": lambda p, y: sklearn.f1_score(y, p.argmax(1), average="weighted"),
    "balanced_accuracy": lambda p, y: np.mean([(p.argmax(1) == y)[y == c].mean() for c in np.unique(y)]),
    "nll": lambda p, y: sklearn.log_loss(y, metrics.probabilities(p), labels=range(p.shape[1])),
    "brier": lambda p, y: np.mean(
        [
            sum((q - (c == k)) ** 2 for k, q in enumerate(row))
            for row, c in zip(metrics.probabilities(p), y, strict=True)
        ]
    ),
    "pearson": lambda p, y: np.mean([np.corrcoef(p[:, j], y[:, j])[0, 1] for j in range(y.shape[1])]),
    "mae": lambda p, y: sklearn.mean_absolute_error(y, p),
    "mse": lambda p, y: sklearn.mean_squared_error(y, p),
    "rmse": lambda p, y: sklearn.root_mean_squared_error(y, p),
    "uar": lambda p, y: sklearn.balanced_accuracy_score(y, p.argmax(1)),
    "auroc": lambda p, y: sklearn.roc_auc_score(y, metrics.probabilities(p), multi_class="ovr"),
    "auprc": lambda p, y: sklearn.average_precision_score(np.eye(p.shape[1])[y.astype(int)], metrics.probabilities(p)),
    "r2": lambda p, y: sklearn.r2_score(y, p),
    "ccc": lambda p, y: np.mean(
        [
            2
            * np.corrcoef(p[:, j], y[:, j])[0, 1]
            * p[:, j].std()
            * y[:, j].std()
            / (p[:, j].var() + y[:, j].var() + (p[:, j].mean() - y[:, j].mean()) ** 2)
            for j in range(y.shape[1])
        ]
    ),
}


def ece_by_hand(pred: np.ndarray, y: np.ndarray, bins: int = 15) -> float:
    members: dict[int, list[tuple[float, bool]]] = {}
    for row, label in zip(metrics.probabilities(pred), y, strict=True):
        members.setdefault(min(int(row.max() * bins), bins - 1), []).append((row.max(), row.argmax() == label))
    gaps = [abs(np.mean([r for _, r in m]) - np.mean([c for c, _ in m])) * len(m) for m in members.values()]
    return float(sum(gaps) / len(y))


def test_every_metric_has_an_oracle() -> None:
    assert {*ORACLES, "ece", "ccc_zero_filled"} == set(metrics.METRICS)


@pytest.mark.parametrize("name", ORACLES)
@given(seed=st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_a_metric_agrees_with_its_oracle(name: str, seed: int) -> None:
    metric = metrics.get(name)
    pred, y = classification(seed) if metric.kind == "classify" else regression(seed)
    assert metric.of(pred, y) == pytest.approx(ORACLES[name](pred, y), abs=1e-9)


@pytest.mark.parametrize("name", ["macro_f1", "weighted_f1", "balanced_accuracy"])
def test_a_class_that_does_not_occur_is_left_out(name: str) -> None:
    """Class 1 is answered and never true, class 3 neither."""
    answers, y = np.array([0, 1, 2, 2, 0]), np.array([0.0, 0, 2, 0, 2])
    pred = np.eye(4)[answers]
    assert metrics.get(name).of(pred, y) == pytest.approx(ORACLES[name](pred, y))


@given(seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_ece_agrees_with_a_slow_loop(seed: int) -> None:
    pred, y = classification(seed)
    assert metrics.get("ece").of(pred, y) == pytest.approx(ece_by_hand(pred, y), abs=1e-12)


def test_ece_of_a_certain_and_right_answer_is_zero_and_of_a_wrong_one_is_one() -> None:
    sure = 100 * np.eye(3)
    assert metrics.get("ece").of(sure, np.array([0.0, 1, 2])) == pytest.approx(0.0)
    assert metrics.get("ece").of(sure, np.array([1.0, 2, 0])) == pytest.approx(1.0)


def test_values_worked_out_by_hand() -> None:
    x, y = np.array([[1.0], [2], [3]]), np.array([[2.0], [3], [4]])
    assert metrics.get("ccc").of(x, y) == pytest.approx(4 / 7)  # cov 2/3, both variances 2/3, means one apart
    assert metrics.get("pearson").of(x, y) == pytest.approx(1.0)
    assert metrics.get("r2").of(x, y) == pytest.approx(-0.5)
    answers, labels, one = np.eye(2)[[0, 1, 1]], np.array([0.0, 0, 1]), np.zeros(3, int)
    assert metrics.get("accuracy").collect(answers, labels, one, 1).tolist() == [[1, 1, 0, 1]]
    assert metrics.ccc_each(np.hstack([x, -y]), np.hstack([x, y])).tolist() == pytest.approx(
        [1.0, -4 / 3 / (4 / 3 + 36)]
    )


def test_large_logits_do_not_overflow() -> None:
    pred = np.array([[1e4, 0.0], [0.0, 1e4]])
    assert metrics.get("nll").of(pred, np.array([0.0, 1.0])) == pytest.approx(0.0)
    assert metrics.get("nll").of(pred, np.array([1.0, 0.0])) == pytest.approx(-math.log(1e-12))


@pytest.mark.parametrize("value", [0.0, 0.1, 0.3, 0.7])
@pytest.mark.parametrize("n", [3, 10, 97])
def test_a_constant_has_no_correlation(value: float, n: int) -> None:
    """Whatever rounding makes of its mean: the mean of ten 0.1 is not 0.1."""
    constant, moving = np.full((n, 1), value), np.arange(n)[:, None] * 0.1
    assert math.isnan(metrics.get("pearson").of(constant, moving))
    assert math.isnan(metrics.get("pearson").of(moving, constant))
    assert math.isnan(metrics.get("ccc").of(constant, constant))
    assert math.isnan(metrics.get("r2").of(moving, constant))
    assert metrics.get("ccc").of(constant, moving) == pytest.approx(0.0, abs=1e-12)
    assert metrics.get("ccc").of(constant, constant + 1) == pytest.approx(0.0, abs=1e-12)


def test_an_answer_that_is_not_a_number_earns_nothing() -> None:
    """argmax of NaN is class 0: a broken answer may not score as a lucky one."""
    pred, y, mask = np.full((4, 1, 2), np.nan), np.zeros((4, 1)), np.ones((4, 1), bool)
    for name in (name for name, metric in metrics.METRICS.items() if metric.kind == "classify"):
        assert math.isnan(metrics.evaluate([name], pred, y, mask)[name]), name


@pytest.mark.parametrize("name", metrics.METRICS)
def test_what_lies_under_the_mask_does_not_count(name: str) -> None:
    metric = metrics.get(name)
    pred, y = classification(3) if metric.kind == "classify" else regression(3)
    pred, y = pred.reshape(10, -1, pred.shape[1]), y.reshape(10, -1, *y.shape[1:])
    mask = np.random.default_rng(0).random(pred.shape[:2]) < 0.6
    dirty = np.where(mask[..., None], pred, np.nan).astype(np.float32)
    labels = np.where(mask.reshape(*mask.shape, *[1] * (y.ndim - 2)), y, -5.0)
    got = metrics.evaluate([name], dirty, labels, mask)[name]
    if metric.filled:
        assert got != pytest.approx(metric.of(pred[mask], y[mask]), abs=1e-3)
        return
    assert got == pytest.approx(metric.of(pred[mask].astype(np.float32).astype(float), y[mask]))


def test_nothing_labelled_is_nothing_known() -> None:
    pred, y = np.zeros((3, 2, 2)), np.zeros((3, 2))
    scores = metrics.evaluate(["accuracy", "nll"], pred, y, np.zeros((3, 2), bool))
    assert all(math.isnan(score) for score in scores.values())


def affect(rho: float, mean: float, sd: float, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, 1) answers and labels with exactly this CCC, mean and SD on both sides."""
    a, b = np.linalg.qr(np.column_stack([np.ones(n), np.random.default_rng(1).standard_normal((n, 2))]))[0][:, 1:].T
    y, x = a, rho * a + math.sqrt(1 - rho**2) * b
    return (*((mean + sd * math.sqrt(n) * v)[:, None] for v in (x, y)),)


def test_zero_filling_invalid_frames_inflates_ccc() -> None:
    """Ten per cent of invalid frames, mean label .3: .472 is printed as .523."""
    pred, y = np.zeros((1000, 1, 1)), np.zeros((1000, 1, 1))
    mask = np.ones((1000, 1), bool)
    mask[::10] = False
    pred[mask], y[mask] = affect(0.472, 0.3, 0.29, 900)
    pred[~mask], y[~mask] = 0.8, -5.0  # whatever stands there
    scores = metrics.evaluate(["ccc", "ccc_zero_filled"], pred, y, mask)
    assert scores["ccc"] == pytest.approx(0.472)
    assert scores["ccc_zero_filled"] == pytest.approx(0.523, abs=1e-3)
    everything = metrics.evaluate(["ccc", "ccc_zero_filled"], pred, y, np.ones_like(mask))
    assert everything["ccc"] == everything["ccc_zero_filled"]


def test_ccc_pools_all_samples() -> None:
    pred, y = regression(5, 40)
    mask = np.ones((8, 5), bool)
    pooled = metrics.evaluate(["ccc"], pred.reshape(8, 5, 2), y.reshape(8, 5, 2), mask)["ccc"]
    assert pooled == pytest.approx(metrics.get("ccc").of(pred, y))
    by_sample = [metrics.get("ccc").of(p, t) for p, t in zip(pred.reshape(8, 5, 2), y.reshape(8, 5, 2), strict=True)]
    assert pooled != pytest.approx(np.mean(by_sample), abs=0.01)


@pytest.mark.parametrize("name", metrics.METRICS)
def test_a_perfect_answer_beats_a_noisy_one(name: str) -> None:
    metric = metrics.get(name)
    pred, y = classification(8) if metric.kind == "classify" else regression(8)
    perfect = 50 * np.eye(4)[y.astype(int)] if metric.kind == "classify" else y
    assert metrics.oriented(name, metric.of(perfect, y)) > metrics.oriented(name, metric.of(pred, y))


def test_an_unknown_metric_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="no metric is called 'acuracy'; did you mean accuracy"):
        metrics.get("acuracy")


def weighted(name: str, n: int = 60, classes: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Answers with many ties, labels, and the group of each of them."""
    rng = np.random.default_rng(len(name) + classes)
    y = rng.integers(0, classes, n)
    return (
        np.round(4 * (rng.standard_normal((n, classes)) + np.eye(classes)[y])) / 4,
        y.astype(float),
        rng.integers(0, 7, n),
    )


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(
    ("name", "oracle"), [("auroc", sklearn.roc_auc_score), ("auprc", sklearn.average_precision_score)]
)
def test_a_rank_metric_takes_weights_of_groups(name: str, oracle: Callable[..., float], classes: int) -> None:
    """Whole weights repeat samples, others weigh them; groups of weight 0 are not there."""
    pred, y, row = weighted(name, classes=classes)
    metric = metrics.get(name)
    rng = np.random.default_rng(0)
    weights = np.vstack([np.ones(7), rng.integers(0, 3, (5, 7)), rng.random((5, 7)), np.eye(7)[:2] + 1])
    found = metric.finish(metric.collect(pred, y, row, 7), y, row, weights)
    ranked = metrics.probabilities(pred)
    assert found.shape == (13,)
    for got, weight in zip(found, weights, strict=True):
        of_class = [
            oracle(y == c, ranked[:, c], sample_weight=weight[row]) for c in range(1 if classes == 2 else 0, classes)
        ]
        assert got == pytest.approx(np.mean(of_class), abs=1e-12)


@pytest.mark.parametrize("name", ["auroc", "auprc"])
def test_a_rank_metric_of_one_class_is_undefined_and_of_sure_answers_exact(name: str) -> None:
    metric = metrics.get(name)
    assert math.isnan(metric.of(np.eye(2)[[0, 1, 0]], np.zeros(3)))
    sure = np.array([[0.0, 900], [0, 800], [0, 700], [900, 0]])  # all probabilities but the last are 1.0
    assert metric.of(sure, np.array([1.0, 1, 0, 0])) == 1.0


@pytest.mark.parametrize("name", metrics.METRICS)
def test_what_a_metric_ranks_by_may_be_transformed(name: str) -> None:
    """Published are ranks: any increasing transform of the scores gives the same."""
    metric = metrics.get(name)
    if metric.evidence == "sums":
        return
    for classes in (2, 4):
        pred, y = classification(5, classes=classes)
        row = np.arange(len(y)) % 9
        scores = metric.collect(pred, y, row, 9)
        ranks = np.stack([np.unique(s, return_inverse=True)[1] for s in scores.T], axis=1)
        weights = np.random.default_rng(0).random((4, 9))
        one, two = (metric.finish(s, y, row, weights) for s in (scores, ranks))
        assert one.tolist() == two.tolist()


def test_concordance_from_sums_is_that_of_the_samples() -> None:
    """Of answers that are shifted: what the difference of means takes off stands in both."""
    rng = np.random.default_rng(0)
    y = rng.standard_normal((60, 2))
    pred = 0.5 * y + 1.0 + 0.1 * rng.standard_normal((60, 2))
    declared = metrics.get("ccc")
    sums = declared.collect(pred, y, np.arange(60) % 6, 6)
    assert float(declared.finish(sums.sum(0))) == pytest.approx(metrics.ccc_each(pred, y).mean())


@pytest.mark.parametrize(("groups", "steps"), [(7, 60), (40, 40), (300, 300)])
def test_pairs_are_won_alike_by_groups_and_by_samples(groups: int, steps: int) -> None:
    rng = np.random.default_rng(groups)
    score, positive = rng.integers(0, 12, steps).astype(float), rng.random(steps) < 0.4  # with ties
    weights = rng.integers(0, 4, (9, groups)).astype(float)
    sides = [won(score, positive, np.arange(steps) % groups, weights)
             for won in (metrics._won_by_groups, metrics._won_by_samples)]  # fmt: skip
    np.testing.assert_allclose(*sides, rtol=1e-12)

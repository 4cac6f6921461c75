"""What a score is: plain numpy on the valid answers, each metric with its direction. NaN where undefined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionbench.errors import unknown

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Metric:
    """A measure: `function(pred, y)`, its task kind, its direction, and how tables print it.

    Classification: pred (n, classes) scores (any increasing transform of probability; ECE, Brier and NLL take logits),
    y (n,) class ids. Regression: pred (n, out), y (n, out).
    """

    function: Callable[[Array, Array], float]
    kind: str
    higher_is_better: bool
    percent: bool = False


def confusion(pred: Array, y: Array) -> Array:
    """(classes, classes) counts, rows the truth."""
    classes = pred.shape[1]
    return np.bincount(y.astype(int) * classes + pred.argmax(1), minlength=classes**2).reshape(classes, classes) * 1.0


def accuracy(pred: Array, y: Array) -> float:
    """Share of right answers."""
    return float((pred.argmax(1) == y).mean())


def macro_f1(pred: Array, y: Array) -> float:
    """Mean F1 over the classes that occur in the truth or in the answers."""
    f1, support = _f1(pred, y)
    return float(f1[support >= 0].mean())


def weighted_f1(pred: Array, y: Array) -> float:
    """F1 averaged over the classes by their share of the truth."""
    f1, support = _f1(pred, y)
    return float(np.average(f1, weights=np.clip(support, 0, None)))


def _f1(pred: Array, y: Array) -> tuple[Array, Array]:
    """F1 a class, and its support (-1 where the class neither occurs nor is answered)."""
    counts = confusion(pred, y)
    hit, total = counts.diagonal(), counts.sum(0) + counts.sum(1)
    support = np.where(total > 0, counts.sum(1), -1.0)
    return 2 * hit / np.maximum(total, 1.0), support


def balanced_accuracy(pred: Array, y: Array) -> float:
    """Mean recall over the classes of the truth."""
    counts = confusion(pred, y)
    support = counts.sum(1)
    return float((counts.diagonal()[support > 0] / support[support > 0]).mean())


def probabilities(pred: Array) -> Array:
    """softmax of logits (n, classes)."""
    e = np.exp(pred - pred.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def nll(pred: Array, y: Array) -> float:
    """Mean negative log-likelihood of the truth, natural logarithm, from logits."""
    p = probabilities(pred)[np.arange(len(y)), y.astype(int)]
    return float(-np.log(np.maximum(p, 1e-12)).mean())


def brier(pred: Array, y: Array) -> float:
    """Mean squared distance of the probabilities to the truth (Brier 1950), 0 to 2, from logits."""
    p = probabilities(pred)
    p[np.arange(len(y)), y.astype(int)] -= 1.0
    return float((p**2).sum(1).mean())


def ece(pred: Array, y: Array, bins: int = 15) -> float:
    """Expected calibration error of the top answer over equal bins of confidence (Guo et al. 2017), from logits."""
    p = probabilities(pred)
    confidence, right = p.max(1), p.argmax(1) == y
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(place, right - confidence, bins)
    return float(np.abs(gaps).sum() / len(y))


def _centred(x: Array) -> Array:
    """x minus its mean; exactly zero where x is constant, whatever rounding makes of its mean."""
    return np.where(x.max(0) == x.min(0), 0.0, x - x.mean(0))


def ccc_each(pred: Array, y: Array) -> Array:
    """(out,) concordance correlation coefficients, 2 cov / (var + var + (difference of means)^2) (Lin 1989).

    NaN where both sides are one and the same constant.
    """
    dx, dy = _centred(pred), _centred(y)
    below = (dx**2).mean(0) + (dy**2).mean(0) + (pred.mean(0) - y.mean(0)) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(2 * (dx * dy).mean(0) / below)


def ccc(pred: Array, y: Array) -> float:
    """Mean CCC over the outputs, all valid answers pooled."""
    return float(ccc_each(pred, y).mean())


def pearson(pred: Array, y: Array) -> float:
    """Mean Pearson correlation over the outputs; NaN where a side is constant."""
    dx, dy = _centred(pred), _centred(y)
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(((dx * dy).mean(0) / np.sqrt((dx**2).mean(0) * (dy**2).mean(0))).mean())


def mae(pred: Array, y: Array) -> float:
    """Mean absolute error."""
    return float(np.abs(pred - y).mean())


def mse(pred: Array, y: Array) -> float:
    """Mean squared error."""
    return float(((pred - y) ** 2).mean())


def r2(pred: Array, y: Array) -> float:
    """Mean coefficient of determination over the outputs; NaN where the truth is constant."""
    below = (_centred(y) ** 2).mean(0)
    below = np.where(below > 0, below, np.nan)
    return float((1 - ((pred - y) ** 2).mean(0) / below).mean())


METRICS: dict[str, Metric] = {
    "accuracy": Metric(accuracy, "classify", True, percent=True),
    "macro_f1": Metric(macro_f1, "classify", True, percent=True),
    "weighted_f1": Metric(weighted_f1, "classify", True, percent=True),
    "balanced_accuracy": Metric(balanced_accuracy, "classify", True, percent=True),
    "nll": Metric(nll, "classify", False),
    "brier": Metric(brier, "classify", False),
    "ece": Metric(ece, "classify", False),
    "ccc": Metric(ccc, "regress", True),
    "pearson": Metric(pearson, "regress", True),
    "mae": Metric(mae, "regress", False),
    "mse": Metric(mse, "regress", False),
    "r2": Metric(r2, "regress", True),
}
#: Exists only for comparison with public numbers: invalid frames count as (0, 0) for both sides, which inflates CCC.
ZERO_FILLED = "ccc_zero_filled"


def get(name: str) -> Metric:
    """The metric of that name.

    Raises:
        UsageError: there is none.
    """
    if name == ZERO_FILLED:
        return METRICS["ccc"]
    if name not in METRICS:
        raise unknown("metric", name, METRICS)
    return METRICS[name]


def evaluate(names: Sequence[str], pred: Array, y: Array, y_mask: NDArray[np.bool_]) -> dict[str, float]:
    """Every named metric over the valid answers of all samples pooled.

    pred (n, S, out), y (n, S) or (n, S, out), y_mask (n, S). NaN where a metric is undefined or no answer is valid.
    """
    scores = {}
    for name in names:
        if name == ZERO_FILLED:
            filled = [np.where(y_mask[..., None], a, 0.0).reshape(-1, a.shape[-1]) for a in (pred, y)]
            scores[name] = ccc(*filled)
        elif not y_mask.any():
            scores[name] = float("nan")
        else:
            valid = pred[y_mask].astype(np.float64)
            truth = y[y_mask].astype(np.float64)
            scores[name] = float("nan") if np.isnan(valid).any() else get(name).function(valid, truth)
    return scores


def oriented(name: str, value: float) -> float:
    """The value so that higher is better."""
    return value if get(name).higher_is_better else -value

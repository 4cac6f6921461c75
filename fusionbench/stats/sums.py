"""Metrics as functions of sums over groups, so that resampling people costs one matrix product instead of a pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fusionbench.metrics import probabilities

Array = np.ndarray
BINS = 15  # of `fusionbench.metrics.ece`


@dataclass(frozen=True)
class Sums:
    """A metric T that depends on the data only through sums over steps.

    Attributes:
        collect: (pred (k, out), y (k,) or (k, out), row (k,) group index, G) -> (G, width) sums of each group.
        finish: (..., width) sums -> (...) values of the metric; NaN where it is undefined.
    """

    collect: Callable[[Array, Array, Array, int], Array]
    finish: Callable[[Array], Array]


def _by_group(row: Array, size: int, *columns: Array) -> Array:
    return np.stack([np.bincount(row, weights=column, minlength=size) for column in columns], axis=1)  # (G, width)


def _ratio(above: Array, below: Array) -> Array:
    return np.divide(above, below, out=np.full(np.shape(below), np.nan), where=below > 0)


def _hits(pred: Array, y: Array, row: Array, size: int) -> Array:
    return _by_group(row, size, pred.argmax(-1) == y, np.ones(len(y)))


def _confusion(pred: Array, y: Array, row: Array, size: int) -> Array:
    cells = pred.shape[-1] ** 2
    place = row * cells + y.astype(np.int64) * pred.shape[-1] + pred.argmax(-1)
    return np.bincount(place, minlength=size * cells).reshape(size, cells).astype(float)


def _square(sums: Array) -> tuple[Array, Array, Array]:
    """Confusion sums (..., C * C) -> hits, labels and answers of each class, (..., C)."""
    classes = round(sums.shape[-1] ** 0.5)
    table = sums.reshape(*sums.shape[:-1], classes, classes)  # (..., label, answer)
    return np.diagonal(table, axis1=-2, axis2=-1), table.sum(-1), table.sum(-2)


def _nanmean(values: Array) -> Array:
    real = ~np.isnan(values)
    return _ratio(np.where(real, values, 0.0).sum(-1), real.sum(-1))


def _macro_f1(sums: Array) -> Array:
    hits, labels, answers = _square(sums)
    return _nanmean(_ratio(2 * hits, labels + answers))  # a class that neither occurs nor is answered is left out


def _weighted_f1(sums: Array) -> Array:
    hits, labels, answers = _square(sums)
    f1 = _ratio(2 * hits, labels + answers)
    return _ratio(np.where(labels > 0, f1 * labels, 0.0).sum(-1), labels.sum(-1))


def _balanced_accuracy(sums: Array) -> Array:
    hits, labels, _ = _square(sums)
    return _nanmean(_ratio(hits, labels))


def _errors(power: int) -> Callable[[Array, Array, Array, int], Array]:
    def collect(pred: Array, y: Array, row: Array, size: int) -> Array:
        error = np.abs(pred - y.reshape(pred.shape)).astype(float) ** power  # (k, out)
        return _by_group(row, size, error.mean(-1), np.ones(len(error)))

    return collect


def _nll(pred: Array, y: Array, row: Array, size: int) -> Array:
    truth = probabilities(pred.astype(float))[np.arange(len(y)), y.astype(int)]
    return _by_group(row, size, -np.log(np.maximum(truth, 1e-12)), np.ones(len(y)))


def _brier(pred: Array, y: Array, row: Array, size: int) -> Array:
    distance = probabilities(pred.astype(float)) - (np.arange(pred.shape[1]) == y[:, None])
    return _by_group(row, size, (distance**2).sum(1), np.ones(len(y)))


def _gaps(pred: Array, y: Array, row: Array, size: int) -> Array:
    p = probabilities(pred.astype(float))
    confidence = p.max(1)
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.bincount(row * BINS + place, (p.argmax(1) == y) - confidence, size * BINS).reshape(size, BINS)
    return np.column_stack([gaps, np.bincount(row, minlength=size)])  # (G, BINS + 1)


def _moments(pred: Array, y: Array, row: Array, size: int) -> Array:
    x, y = pred.astype(float), y.reshape(pred.shape).astype(float)
    one = np.ones(len(x))
    columns = [
        c for o in range(x.shape[1]) for c in (one, x[:, o], y[:, o], x[:, o] ** 2, y[:, o] ** 2, x[:, o] * y[:, o])
    ]
    return _by_group(row, size, *columns)


def _central(sums: Array) -> tuple[Array, ...]:
    """Moment sums (..., out * 6) -> means, variances and covariance of answer and label, (..., out) each."""
    moments = sums.reshape(*sums.shape[:-1], -1, 6)  # (..., out, 6)
    n = moments[..., :1]
    means = np.divide(moments, n, out=np.full(moments.shape, np.nan), where=n > 0)
    x, y, xx, yy, xy = np.moveaxis(means[..., 1:], -1, 0)
    return x, y, _positive(xx - x**2, xx), _positive(yy - y**2, yy), xy - x * y


def _positive(variance: Array, square: Array) -> Array:
    return np.where(variance > 1e-13 * square, variance, 0.0)  # below it, the rounding of a constant


def _ccc(sums: Array) -> Array:
    x, y, var_x, var_y, cov = _central(sums)
    return _ratio(2 * cov, var_x + var_y + (x - y) ** 2).mean(-1)


def _pearson(sums: Array) -> Array:
    _, _, var_x, var_y, cov = _central(sums)
    return _ratio(cov, np.sqrt(var_x * var_y)).mean(-1)


def _r2(sums: Array) -> Array:
    x, y, var_x, var_y, cov = _central(sums)
    return (1 - _ratio(var_x + var_y - 2 * cov + (x - y) ** 2, var_y)).mean(-1)


def _mean(sums: Array) -> Array:
    return _ratio(sums[..., 0], sums[..., 1])


def _calibration(sums: Array) -> Array:
    return _ratio(np.abs(sums[..., :-1]).sum(-1), sums[..., -1])


#: The metrics of `fusionbench.metrics`, under the same names, as functions of sums.
SUMS = {
    "accuracy": Sums(_hits, _mean),
    "macro_f1": Sums(_confusion, _macro_f1),
    "weighted_f1": Sums(_confusion, _weighted_f1),
    "balanced_accuracy": Sums(_confusion, _balanced_accuracy),
    "nll": Sums(_nll, _mean),
    "brier": Sums(_brier, _mean),
    "ece": Sums(_gaps, _calibration),
    "ccc": Sums(_moments, _ccc),
    "pearson": Sums(_moments, _pearson),
    "r2": Sums(_moments, _r2),
    "mae": Sums(_errors(1), _mean),
    "mse": Sums(_errors(2), _mean),
}

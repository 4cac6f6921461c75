"""What a score is: each metric one declaration, from which scoring, tests, publishing and training follow. Numpy only.

A metric is a function of sums over groups (people, videos): `collect` takes the sums, `finish` the function. So a
resampling of groups costs a matrix product, and the sums are all that has to be published. What a rank metric (AUROC)
needs is no sum: it declares `evidence="scores"` and is a function of one value a sample and of the groups' weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fusionbench.errors import unknown

Array = NDArray[Any]

#: (pred (k, out), y (k,) class ids or (k, out) values, group (k,) group of each, G) -> (G, width) sums of each group;
#: with evidence "scores": -> (k, columns) what each sample is ranked by, any increasing transform of it will do.
Collect = Callable[[Array, Array, Array, int], Array]


@dataclass(frozen=True)
class Metric:
    """A measure of answers to labels: pred (k, out) logits and y (k,) class ids, or both (k, out) values.

    Attributes:
        name: its name, everywhere.
        kind: "classify" or "regress".
        collect: as `Collect` says.
        finish: (..., width) sums -> (...) the metric, NaN where it is undefined; with evidence "scores":
            (scores (k, columns), y (k,), group (k,), weights (B, G)) -> (B,), each sample with the weight of its group.
        better: "higher" or "lower".
        loss: what a model is trained with where this metric ranks: a name in `engine.model.LOSSES`.
        evidence: "sums" or "scores". Scores of different models are not comparable: such a metric is computed within a
            fold and averaged over folds, where sums are pooled.
        score: (pred, y) -> the metric of one model, where the sums would lose digits.
        probabilities: it reads how sure an answer is, not only which it is.
        percent: how tables print it.
        narrow: a linear map of sums to fewer, which may be taken of each group before groups are added up, and what
            finishes those: narrow[1](narrow[0](sums)) is finish(sums).
        filled: steps without a label count, as zeros on both sides. Only to mirror public numbers; never tested.
        without_each: with evidence "scores", (scores, y, group, G) -> (1 + G,) the metric of all groups and of all but
            each, where that is faster than by weights.
    """

    name: str
    kind: Literal["classify", "regress"]
    collect: Collect
    finish: Callable[..., Array]
    better: Literal["higher", "lower"]
    loss: str
    evidence: Literal["sums", "scores"] = "sums"
    score: Callable[[Array, Array], float] | None = None
    probabilities: bool = False
    percent: bool = False
    narrow: tuple[Callable[[Array], Array], Callable[[Array], Array]] | None = None
    filled: bool = False
    without_each: Callable[[Array, Array, Array, int], Array] | None = None

    @property
    def higher_is_better(self) -> bool:
        return self.better == "higher"

    def of(self, pred: Array, y: Array) -> float:
        """The metric of these answers, all pooled; NaN where it is undefined."""
        if self.score is not None:
            return float(self.score(pred, y))
        group = np.zeros(len(y), dtype=np.int64)
        found = self.collect(pred, y, group, 1)
        if self.evidence == "sums":
            return float(self.finish(found[0]))
        return float(self.finish(found, y, group, np.ones((1, 1)))[0])


def by_group(group: Array, size: int, *columns: Array) -> Array:
    """(G, width) the sums of columns (k,) over the steps of each group."""
    if size == 1:  # summed in pairs, which loses fewer digits
        return np.array([[float(column.sum()) for column in columns]])
    return np.stack([np.bincount(group, column, size) for column in columns], axis=1)


def ratio(above: Array, below: Array) -> Array:
    """above / below, NaN where there is nothing below."""
    return np.divide(above, below, out=np.full(np.broadcast(above, below).shape, np.nan), where=below > 0)


def _mean(sums: Array) -> Array:
    return ratio(sums[..., 0], sums[..., 1])


def _known_mean(values: Array) -> Array:
    """The mean over the last axis of what is not NaN."""
    real = ~np.isnan(values)
    return ratio(np.where(real, values, 0.0).sum(-1), real.sum(-1))


# Which class is answered.


def _confusion(pred: Array, y: Array, group: Array, size: int) -> Array:
    """(G, C * C) counts by label and answer."""
    cells = pred.shape[1] ** 2
    place = group * cells + y.astype(np.int64) * pred.shape[1] + pred.argmax(1)
    return np.bincount(place, minlength=size * cells).reshape(size, cells).astype(float)


def _classes(sums: Array) -> tuple[Array, Array, Array]:
    """Confusion sums (..., C * C) -> hits, labels and answers of each class, (..., C)."""
    classes = math.isqrt(sums.shape[-1])
    table = sums.reshape(*sums.shape[:-1], classes, classes)
    return np.diagonal(table, axis1=-2, axis2=-1), table.sum(-1), table.sum(-2)


def _margins(sums: Array) -> Array:
    """The same as one array (..., 3 C)."""
    return np.concatenate(_classes(sums), axis=-1)


def _split(margins: Array) -> tuple[Array, Array, Array]:
    size = margins.shape[-1] // 3
    return margins[..., :size], margins[..., size : 2 * size], margins[..., 2 * size :]


def _accuracy(margins: Array) -> Array:
    hits, labels, _ = _split(margins)
    return ratio(hits.sum(-1), labels.sum(-1))


def _macro_f1(margins: Array) -> Array:
    """The mean F1 over the classes that occur in the truth or in the answers."""
    hits, labels, answers = _split(margins)
    return _known_mean(ratio(2 * hits, labels + answers))


def _weighted_f1(margins: Array) -> Array:
    """F1 averaged over the classes by their share of the truth."""
    hits, labels, answers = _split(margins)
    f1 = ratio(2 * hits, labels + answers)
    return ratio(np.where(labels > 0, f1 * labels, 0.0).sum(-1), labels.sum(-1))


def _balanced_accuracy(margins: Array) -> Array:
    """Mean recall over the classes of the truth."""
    hits, labels, _ = _split(margins)
    return _known_mean(ratio(hits, labels))


# How sure it is answered.

BINS = 15  # of confidence


def probabilities(pred: Array) -> Array:
    """softmax of logits (k, classes)."""
    e = np.exp(pred.astype(np.float64) - pred.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def _nll(pred: Array, y: Array, group: Array, size: int) -> Array:
    """Negative log-likelihood of the truth, natural logarithm."""
    truth = probabilities(pred)[np.arange(len(y)), y.astype(np.int64)]
    return by_group(group, size, -np.log(np.maximum(truth, 1e-12)), np.ones(len(y)))


def _brier(pred: Array, y: Array, group: Array, size: int) -> Array:
    """Squared distance of the probabilities to the truth (Brier 1950), 0 to 2."""
    distance = probabilities(pred) - (np.arange(pred.shape[1]) == y[:, None])
    return by_group(group, size, (distance**2).sum(1), np.ones(len(y)))


def _gaps(pred: Array, y: Array, group: Array, size: int) -> Array:
    """(G, BINS + 1): right answers minus confidence in each bin of the top answer's confidence, and the steps."""
    p = probabilities(pred)
    confidence, right = p.max(1), p.argmax(1) == y
    place = group * BINS + np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    gaps = np.bincount(place, right - confidence, size * BINS).reshape(size, BINS)
    return np.column_stack([gaps, np.bincount(group, minlength=size)])


def _ece(sums: Array) -> Array:
    """Expected calibration error of the top answer over equal bins of confidence (Guo et al. 2017)."""
    return ratio(np.abs(sums[..., :-1]).sum(-1), sums[..., -1])


# How far a value is off.


def _errors(power: int) -> Collect:
    def collect(pred: Array, y: Array, group: Array, size: int) -> Array:
        """(G, out + 1): the errors of each output to that power, and the steps."""
        error = np.abs(pred - y.reshape(pred.shape)).astype(np.float64) ** power
        return by_group(group, size, *error.T, np.ones(len(error)))

    return collect


_absolute, _squared = _errors(1), _errors(2)


def _mean_error(sums: Array) -> Array:
    return ratio(sums[..., :-1].mean(-1), sums[..., -1])


def _root_mean_error(sums: Array) -> Array:
    """The mean over the outputs of the root of the mean squared error."""
    return np.sqrt(ratio(sums[..., :-1], sums[..., -1:])).mean(-1)


def _moments(pred: Array, y: Array, group: Array, size: int) -> Array:
    """(G, out * 6): of each output the steps, and the sums of x, y, x^2, y^2 and x y."""
    columns = []
    one = np.ones(len(pred))
    for x, t in zip(pred.astype(np.float64).T, y.reshape(pred.shape).astype(np.float64).T, strict=True):
        columns += [one, x, t, x**2, t**2, x * t]
    return by_group(group, size, *columns)


def _central(sums: Array) -> tuple[Array, ...]:
    """Moment sums (..., out * 6) -> means, variances and covariance of answer and label, (..., out) each."""
    moments = sums.reshape(*sums.shape[:-1], -1, 6)
    n = moments[..., :1]
    means = np.divide(moments, n, out=np.full(moments.shape, np.nan), where=n > 0)
    x, y, xx, yy, xy = np.moveaxis(means[..., 1:], -1, 0)
    return x, y, _variance(xx - x**2, xx), _variance(yy - y**2, yy), xy - x * y


def _variance(value: Array, square: Array) -> Array:
    return np.where(value > 1e-13 * square, value, 0.0)  # below it, the rounding of a constant


def _ccc(sums: Array) -> Array:
    x, y, var_x, var_y, cov = _central(sums)
    return ratio(2 * cov, var_x + var_y + (x - y) ** 2).mean(-1)


def _pearson(sums: Array) -> Array:
    _, _, var_x, var_y, cov = _central(sums)
    return ratio(cov, np.sqrt(var_x * var_y)).mean(-1)


def _r2(sums: Array) -> Array:
    x, y, var_x, var_y, cov = _central(sums)
    return (1 - ratio(var_x + var_y - 2 * cov + (x - y) ** 2, var_y)).mean(-1)


# The same of one model: the mean is taken off before anything is squared.


def _centred(x: Array) -> Array:
    """x minus its mean; exactly zero where x is constant, whatever rounding makes of its mean."""
    return np.where(x.max(0) == x.min(0), 0.0, x - x.mean(0))


def ccc_each(pred: Array, y: Array) -> Array:
    """(out,) concordance correlation coefficients, 2 cov / (var + var + (difference of means)^2) (Lin 1989).

    NaN where both sides are one and the same constant.
    """
    dx, dy = _centred(pred), _centred(y)
    below = (dx**2).mean(0) + (dy**2).mean(0) + (pred.mean(0) - y.mean(0)) ** 2
    return ratio(2 * (dx * dy).mean(0), below)


def _ccc_of(pred: Array, y: Array) -> float:
    return float(ccc_each(pred, y).mean())


def _pearson_of(pred: Array, y: Array) -> float:
    dx, dy = _centred(pred), _centred(y)
    return float(ratio((dx * dy).mean(0), np.sqrt((dx**2).mean(0) * (dy**2).mean(0))).mean())


def _error_of(power: int) -> Callable[[Array, Array], float]:
    return lambda pred, y: float((np.abs(pred - y) ** power).mean())


def _r2_of(pred: Array, y: Array) -> float:
    return float((1 - ratio(((pred - y) ** 2).mean(0), (_centred(y) ** 2).mean(0))).mean())


# In which order samples stand.


def _log_odds(pred: Array, y: Array, group: Array, size: int) -> Array:
    """(k, 1) of the second of two classes, or (k, C) of each class against the rest; never saturated."""
    if pred.shape[1] == 2:
        return pred[:, 1:] - pred[:, :1]
    columns = []
    for c in range(pred.shape[1]):
        others = np.delete(pred, c, axis=1)
        top = others.max(1)
        columns.append(pred[:, c] - top - np.log(np.exp(others - top[:, None]).sum(1)))
    return np.stack(columns, axis=1)


def _one_against_rest(scores: Array, y: Array) -> list[tuple[Array, Array]]:
    """(what ranks (k,), positive (k,) bool) of the positive class, or of each of several."""
    first = 1 if scores.shape[1] == 1 else 0
    return [(scores[:, c], y == c + first) for c in range(scores.shape[1])]


def _auroc(scores: Array, y: Array, group: Array, weights: Array) -> Array:
    """The chance that a positive sample stands above a negative one, ties half; mean over classes one against rest.

    Weights cost a product with a (G, G) matrix of pairs of groups or, of many small groups, a pass over the samples.
    """
    size = weights.shape[1]
    wins = _won_by_samples if size * size > 8 * len(y) else _won_by_groups
    found = []
    for score, positive in _one_against_rest(scores, y):
        counts = weights @ by_group(group, size, positive, ~positive)  # (B, 2)
        found.append(ratio(wins(score, positive, group, weights), counts.prod(1)))
    return _known_mean(np.stack(found, axis=-1))


def _won_by_groups(score: Array, positive: Array, group: Array, weights: Array) -> Array:
    """(B,) pairs in which a positive stands above a negative, ties half, by pairs of groups."""
    size = weights.shape[1]
    levels, level = np.unique(score, return_inverse=True)
    place = level[~positive] * size + group[~positive]
    negatives = np.bincount(place, minlength=len(levels) * size).reshape(-1, size)
    beaten = negatives.cumsum(0) - 0.5 * negatives  # (levels, G) negatives below, ties half
    pairs = np.zeros((size, size))
    np.add.at(pairs, group[positive], beaten[level[positive]])
    return ((weights @ pairs) * weights).sum(1)


def _won_by_samples(score: Array, positive: Array, group: Array, weights: Array) -> Array:
    """The same, sample by sample in the order of their scores."""
    order = np.argsort(score, kind="stable")
    above, owner = positive[order], group[order]
    _, first, count = np.unique(score[order], return_index=True, return_counts=True)
    before = np.concatenate([[0], (~above).cumsum()])  # negatives before each place
    fewest, most = (before[np.repeat(place, count)[above]] for place in (first, first + count))  # of a positive's level
    parts = []
    for part in np.array_split(weights, 1 + weights.shape[0] * len(score) // 2_000_000):
        below = np.zeros((len(part), before[-1] + 1))
        np.cumsum(part[:, owner[~above]], 1, out=below[:, 1:])
        parts.append((part[:, owner[above]] * (below[:, fewest] + below[:, most])).sum(1) / 2)
    return np.concatenate(parts)


def _auroc_without_each(scores: Array, y: Array, group: Array, size: int) -> Array:
    """The same of all groups, and of all but each: what a group wins, loses and holds of the pairs, by sorting."""
    found = []
    for score, positive in _one_against_rest(scores, y):
        above, below, within = _pairs_of_groups(score, positive, group, size)
        counts = by_group(group, size, positive, ~positive)  # (G, 2)
        won = above.sum() - np.concatenate([[0], above + below - within])
        total = counts.sum(0)
        left = np.concatenate([total[None], total - counts])
        found.append(ratio(won, left.prod(1)))
    return _known_mean(np.stack(found, axis=-1))


def _pairs_of_groups(score: Array, positive: Array, group: Array, size: int) -> tuple[Array, Array, Array]:
    """(G,) each: pairs that a group's positives win, that its negatives lose, and that it wins within itself."""
    levels, level = np.unique(score, return_inverse=True)
    positives, negatives = (np.bincount(level[of], minlength=len(levels)) for of in (positive, ~positive))
    beaten = negatives.cumsum() - 0.5 * negatives  # of each level
    beating = positives[::-1].cumsum()[::-1] - 0.5 * positives
    above = np.bincount(group[positive], beaten[level[positive]], minlength=size)
    below = np.bincount(group[~positive], beating[level[~positive]], minlength=size)
    cells, cell = np.unique(group * len(levels) + level, return_inverse=True)  # levels within each group, in order
    negatives = np.bincount(cell[~positive], minlength=len(cells))
    first = np.searchsorted(cells // len(levels), np.arange(size))  # of each group
    before = np.concatenate([[0], negatives.cumsum()])[first]
    own = negatives.cumsum() - 0.5 * negatives - before[cells // len(levels)]
    return above, below, np.bincount(group[positive], own[cell[positive]], minlength=size)


def _auprc(scores: Array, y: Array, group: Array, weights: Array) -> Array:
    """Average precision: the mean over positive samples of the precision at their score; mean over classes."""
    found = []
    for score, positive in _one_against_rest(scores, y):
        order = np.argsort(-score, kind="stable")
        starts = np.flatnonzero(np.diff(score[order], prepend=np.inf))  # the first sample of each level
        parts = []
        for part in np.array_split(weights, 1 + weights.shape[0] * len(y) // 2_000_000):
            weight = part[:, group[order]]  # (b, k)
            right = np.add.reduceat(weight * positive[order], starts, axis=1)
            every = np.add.reduceat(weight, starts, axis=1).cumsum(1)
            precision = ratio(right.cumsum(1), every)
            total = right.sum(1)
            parts.append(ratio(np.where(right > 0, right * precision, 0.0).sum(1), total))
        found.append(np.concatenate(parts))
    return _known_mean(np.stack(found, axis=-1))


def _classify(name: str, collect: Collect, finish: Callable[..., Array], **how: Any) -> Metric:
    return Metric(name, "classify", collect, finish, loss="cross_entropy", **how)


def _answered(name: str, finish: Callable[[Array], Array]) -> Metric:
    """A metric of which class is answered, of the margins of the confusion alone."""
    how: dict[str, Any] = {"better": "higher", "percent": True, "narrow": (_margins, finish)}
    return _classify(name, _confusion, lambda sums: finish(_margins(sums)), **how)


def _ranked(name: str, finish: Callable[..., Array], **how: Any) -> Metric:
    """A metric of the order in which answers stand."""
    return _classify(name, _log_odds, finish, better="higher", probabilities=True, evidence="scores", **how)


_DECLARED = (
    _answered("accuracy", _accuracy),
    _answered("macro_f1", _macro_f1),
    _answered("weighted_f1", _weighted_f1),
    _answered("balanced_accuracy", _balanced_accuracy),
    _answered("uar", _balanced_accuracy),
    _classify("nll", _nll, _mean, better="lower", probabilities=True),
    _classify("brier", _brier, _mean, better="lower", probabilities=True),
    _classify("ece", _gaps, _ece, better="lower", probabilities=True),
    _ranked("auroc", _auroc, without_each=_auroc_without_each),
    _ranked("auprc", _auprc),
    Metric("ccc", "regress", _moments, _ccc, "higher", "concordance", score=_ccc_of),
    Metric("pearson", "regress", _moments, _pearson, "higher", "squared", score=_pearson_of),
    Metric("mae", "regress", _absolute, _mean_error, "lower", "squared", score=_error_of(1)),
    Metric("mse", "regress", _squared, _mean_error, "lower", "squared", score=_error_of(2)),
    Metric("r2", "regress", _moments, _r2, "higher", "squared", score=_r2_of),
    Metric("rmse", "regress", _squared, _root_mean_error, "lower", "squared"),
)  # fmt: skip
METRICS: dict[str, Metric] = {metric.name: metric for metric in _DECLARED}
#: Exists only for comparison with public numbers: it inflates CCC.
METRICS["ccc_zero_filled"] = replace(METRICS["ccc"], name="ccc_zero_filled", filled=True)


def get(name: str) -> Metric:
    """The metric of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in METRICS:
        raise unknown("metric", name, METRICS)
    return METRICS[name]


def evaluate(names: Sequence[str], pred: Array, y: Array, y_mask: NDArray[np.bool_]) -> dict[str, float]:
    """Every named metric over the valid answers of all samples pooled.

    pred (n, S, out), y (n, S) or (n, S, out), y_mask (n, S). NaN where a metric is undefined or no answer is valid.
    """
    scores = {}
    for metric in map(get, names):
        if metric.filled:
            shown, truth = (np.where(y_mask[..., None], a, 0.0).reshape(-1, a.shape[-1]) for a in (pred, y))
        else:
            shown, truth = (a[y_mask].astype(np.float64) for a in (pred, y))
        undefined = not len(shown) or bool(np.isnan(shown).any())
        scores[metric.name] = math.nan if undefined else metric.of(shown, truth)
    return scores


def oriented(name: str, value: float) -> float:
    """The value so that higher is better."""
    return value if get(name).higher_is_better else -value

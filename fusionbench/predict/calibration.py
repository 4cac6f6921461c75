"""How sure an answer is: calibrated probabilities, sets and intervals that cover the truth, and when to abstain.

All of it rests on answers to groups that the answering model has not seen: each fold's model on the fold's test groups.
A set or interval of coverage 90 % holds the truth of nine in ten new samples, where a new sample is one of a new group
drawn as those were: the group is the unit, however many samples it has. For each set of modalities that is there,
the model's answers with these alone are calibrated, so that it holds for every one of them. It says nothing of damage
that no mask announces, nor of people, places or sensors unlike those of the data. Numpy only.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusionbench import metrics
from fusionbench.api import Task

LEAST_GROUPS = 19  # below, sets and intervals are so wide, and their coverage so uncertain, that they help nobody
SHARES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)  # of the samples that are answered, in the abstention curve

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Abstention:
    """What the primary metric is if only the surest answers are given: `share` of them, those above `confidence`."""

    share: float
    confidence: float
    score: float


@dataclass(frozen=True, eq=False)
class Calibration:
    """Answers to groups that the answering models had not seen, and what follows from them.

    Attributes:
        task: of the answers; modalities: in the order of `present`.
        y, y_mask: labels (n, S[, out]) and which of them count; group (n,): whole numbers.
        fold: (n,) from 0, whose model answered.
        present: (n, M) which modalities each sample has.
        answers: modalities that were shown -> (n, S, out), log-probabilities or values.
        temperature: what logits are divided by, fitted on validation samples; 1 for values.
    """

    task: Task
    modalities: tuple[str, ...]
    y: NDArray[np.generic]
    y_mask: Mask
    group: NDArray[np.int64]
    fold: NDArray[np.int64]
    present: Mask
    answers: Mapping[frozenset[str], Array]
    temperature: float = 1.0

    @property
    def groups(self) -> int:
        """How many groups there are to calibrate on, whatever modalities they have."""
        return len(np.unique(self.group[self.y_mask.any(1)]))

    def refusal(self) -> str:
        """Why no sets or intervals are offered; empty if they are."""
        if self.groups >= LEAST_GROUPS:
            return ""
        return f"sets and intervals need {LEAST_GROUPS} groups to calibrate on, there are {self.groups}"

    def sets(self, there: Collection[str], answers: Array, coverage: float) -> Mask | None:
        """(n, S, out) which classes belong to the set of each new sample of which these modalities are there.

        A class belongs to it unless its misfit to the answer of each fold's model is beyond those of that fold's own
        test groups in too many cases, counted over all folds (cross-conformal prediction: Vovk 2015).

        Args:
            answers: (folds, n, S, out) of each fold's model.

        Returns None where too few groups have all of these modalities, or answers with these alone are not known.
        """
        if (known := self._misfits(there)) is None:
            return None
        asked = 1.0 - probabilities(answers, self.temperature)
        beyond = np.full(asked.shape[1:], known.new)
        for fold, column in enumerate(known.by_fold(0)):
            beyond += column.at_least(asked[fold])
        return np.asarray(beyond > 1 - coverage + 1e-12)

    def intervals(self, there: Collection[str], answers: Array, coverage: float) -> Array | None:
        """(n, S, out, 2) likewise the least and the largest value (CV+: Barber, Candes, Ramdas and Tibshirani 2021)."""
        if (known := self._misfits(there)) is None:
            return None
        ends = np.empty((*answers.shape[1:], 2))
        for k in range(answers.shape[-1]):
            centres = answers[..., k].astype(np.float64)
            ends[..., k, 1] = known.upper(k, centres, coverage)
            ends[..., k, 0] = -known.upper(k, -centres, coverage)
        return ends

    def _misfits(self, there: Collection[str]) -> Misfits | None:
        shown = frozenset(there)
        if shown not in self.answers:
            return None
        rows = np.flatnonzero(self.present[:, [self.modalities.index(m) for m in shown]].all(1))
        mask = self.y_mask[rows]  # (k, S)
        group, fold = (np.repeat(column[rows], mask.sum(1)) for column in (self.group, self.fold))
        if len(np.unique(group)) < LEAST_GROUPS:
            return None
        found = misfit(self.task, self.answers[shown][rows][mask], self.y[rows][mask], self.temperature)
        return Misfits.of(found, group, fold, 1 + int(self.fold.max()))

    def abstention(self) -> list[Abstention]:
        """The primary metric where only the surest answers are given, clean; empty for values, which have no sureness.

        Sureness is the largest calibrated probability.
        """
        if self.task.kind != "classify":
            return []
        mask = self.y_mask
        answers, y = self.answers[frozenset(self.modalities)][mask], self.y[mask]
        confidence = probabilities(answers, self.temperature).max(1)
        order = np.argsort(-confidence, kind="stable")
        found = []
        for share in SHARES:
            kept = order[: max(1, round(share * len(order)))]
            score = metrics.get(self.task.metrics[0]).of(answers[kept].astype(np.float64), y[kept])
            found.append(Abstention(len(kept) / len(order), float(confidence[kept[-1]]), score))
        return found


def misfit(task: Task, answers: Array, y: NDArray[np.generic], temperature: float) -> Array:
    """(k, 1) one minus the probability of the truth, or (k, out) absolute errors: large where the answer is wrong.

    (Sets of least size: Sadinle, Lei and Wasserman, JASA 2019.)
    """
    if task.kind == "classify":
        found = probabilities(answers, temperature)
        return 1.0 - found[np.arange(len(y)), y.astype(np.int64)][:, None]
    return np.abs(answers.astype(np.float64) - y.astype(np.float64).reshape(answers.shape))


@dataclass(frozen=True, eq=False)
class Column:
    """Misfits of one fold in rising order, and the weight of the first so many of them."""

    scores: Array
    weight: Array

    def at_least(self, bound: Array) -> Array:
        """The weight of those that are `bound` or more."""
        return np.asarray(self.weight[-1] - self.weight[np.searchsorted(self.scores, bound, side="left")])

    def at_most(self, bound: Array) -> Array:
        """The weight of those that are `bound` or less."""
        return np.asarray(self.weight[np.searchsorted(self.scores, bound, side="right")])


@dataclass(frozen=True, eq=False)
class Misfits:
    """How wrong the folds' models were, (k, columns), and what each case counts.

    Each of G groups has the weight 1 / (G + 1), which its samples share, and a new one, of which nothing is known, the
    rest: `new` (hierarchical conformal prediction: Lee, Barber and Willett 2023).
    """

    columns: list[list[Column]]  # [output][fold]
    new: float

    @staticmethod
    def of(scores: Array, group: NDArray[np.int64], fold: NDArray[np.int64], folds: int) -> Misfits:
        """From scores (k, columns), and the group and the fold of each (k,)."""
        names, place, sizes = np.unique(group, return_inverse=True, return_counts=True)
        new = 1.0 / (len(names) + 1)
        weights = new / sizes[place]
        columns = []
        for column in scores.T:
            parts = []
            for number in range(folds):
                mine = np.flatnonzero(fold == number)
                mine = mine[np.argsort(column[mine], kind="stable")]
                parts.append(Column(column[mine], np.concatenate([[0.0], np.cumsum(weights[mine])])))
            columns.append(parts)
        return Misfits(columns, new)

    def by_fold(self, output: int) -> list[Column]:
        return self.columns[output]

    def upper(self, output: int, centres: Array, coverage: float) -> Array:
        """The least bound that answer + misfit, over the cases, stays below with weight `coverage`; else infinity.

        centres (folds, ...): the answer of each fold's model. By bisection, to a billionth of the range.
        """
        parts = self.columns[output]

        def weight(bound: Array) -> Array:
            return np.asarray(sum(part.at_most(bound - centre) for part, centre in zip(parts, centres, strict=True)))

        largest = max(part.scores[-1] for part in parts if len(part.scores))
        low, high = centres.min(0) - 1e-9 * (1 + largest), centres.max(0) + largest * (1 + 1e-9) + 1e-12
        reached = weight(high) >= coverage - 1e-12
        for _ in range(40):
            middle = (low + high) / 2
            enough = weight(middle) >= coverage - 1e-12
            low, high = np.where(enough, low, middle), np.where(enough, middle, high)
        return np.where(reached, high, np.inf)


def probabilities(answers: Array, temperature: float = 1.0) -> Array:
    """(..., out) softmax of logits divided by the temperature."""
    flat = answers.reshape(-1, answers.shape[-1]).astype(np.float64) / temperature
    return metrics.probabilities(flat).reshape(answers.shape) if len(flat) else flat.reshape(answers.shape)


def mean_answer(task: Task, members: Sequence[Array]) -> Array:
    """What several models answer together, as one would: the logarithm of mean probabilities, or mean values."""
    if task.kind == "regress":
        return np.mean([m.astype(np.float64) for m in members], axis=0)
    return np.log(np.maximum(np.mean([probabilities(m) for m in members], axis=0), 1e-12))


def fit_temperature(answers: Array, y: NDArray[np.generic]) -> float:
    """The temperature, .05 to 20, that makes the labels y (k,) likeliest, given answers (k, out) (Guo et al. 2017).

    As if one more label were wrong (Platt 1999): validation samples that are all answered right prove no certainty.
    """
    from scipy.optimize import minimize_scalar

    doubt = 1.0 / (len(y) + 2)

    def loss(log_temperature: float) -> float:
        found = probabilities(answers, np.exp(log_temperature))
        logs = np.log(np.maximum(found, 1e-12))
        return float(-(1 - doubt) * logs[np.arange(len(y)), y.astype(np.int64)].mean() - doubt * logs.mean())

    if not len(y):
        return 1.0
    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded").x))

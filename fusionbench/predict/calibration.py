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
        present: (n, M) which modalities each sample has.
        answers: modalities that were shown -> (n, S, out), log-probabilities or values.
        temperature: what logits are divided by, fitted on validation samples; 1 for values.
    """

    task: Task
    modalities: tuple[str, ...]
    y: NDArray[np.generic]
    y_mask: Mask
    group: NDArray[np.int64]
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

    def threshold(self, there: Collection[str], coverage: float) -> Array | None:
        """(1,) or (out,) the score up to which a class or value belongs to the set, where these modalities are there.

        None where too few groups have all of them, or where the answers with these alone are not known.
        """
        shown = frozenset(there)
        if shown not in self.answers:
            return None
        rows = np.flatnonzero(self.present[:, [self.modalities.index(m) for m in shown]].all(1))
        mask = self.y_mask[rows]  # (k, S)
        answers, y = self.answers[shown][rows][mask], self.y[rows][mask]
        group = np.repeat(self.group[rows], mask.sum(1))
        if len(np.unique(group)) < LEAST_GROUPS:
            return None
        scores = misfit(self.task, answers, y, self.temperature)
        return np.array([quantile(column, group, coverage) for column in scores.T])

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


def quantile(scores: Array, group: NDArray[np.int64], coverage: float) -> float:
    """The score that a new sample of a new group stays below with probability `coverage`; infinity if there is none.

    Each of G groups has the weight 1 / (G + 1), which its samples share, and the new one the rest, at infinity
    (hierarchical conformal prediction: Lee, Barber and Willett 2023).
    """
    names, place, sizes = np.unique(group, return_inverse=True, return_counts=True)
    order = np.argsort(scores, kind="stable")
    weights = 1.0 / ((len(names) + 1) * sizes[place[order]])
    reached = np.cumsum(weights) >= coverage - 1e-12
    return float(scores[order][reached.argmax()]) if reached.any() else float("inf")


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

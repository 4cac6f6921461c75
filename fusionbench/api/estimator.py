"""A fuser that is fitted in one call: forest, boosting, ridge, stacking. What `Fuser` is for gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from fusionbench.api.types import Batch, Spec, Streams

#: The least probability that an answer gives a class: one that training has not met is unlikely, not impossible.
FLOOR = 1e-6


class Estimator(ABC):
    """A fusion method without gradients. Its hyper-parameters are the keyword-only arguments of `__init__`.

    It meets what a network's fuser meets: streams normalised by the training people, encoded by frozen backbones (what
    trains becomes `identity`), zero-filled under a False mask, on the CPU.

    Attributes:
        grid: hyper-parameter -> the few numbers that the harness tries on validation, with the first seed of a fold, as
            it picks a network's learning rate; all combinations. The default is one of them. A hyper-parameter that is
            set to another value than its default, or by a search, is held.
        sees_order: it meets nothing but the place in the recording (`Benchmark.order`), as one stream called position.
        known_failures, presets: as in `Fuser`.
    """

    sees_order: ClassVar[bool] = False
    grid: ClassVar[Mapping[str, Sequence[float]]] = {}
    known_failures: ClassVar[Mapping[str, str]] = {}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def __init__(self, spec: Spec) -> None:
        self.spec = spec

    @abstractmethod
    def fit(self, train: Batch, val: Batch, seed: int) -> None:
        """Learns from `train`; `val` is for early stopping only. Every draw comes from `seed`.

        Here alone `groups` are given, as whole numbers from 0 on, for folds inside the training samples. A class of
        the task may have no sample, and a label under a False `y_mask` is none.
        """

    @abstractmethod
    def predict(self, streams: Streams) -> np.ndarray:
        """(B, S, out): log-probabilities, none below log(`FLOOR`), or values; S as in `Fuser.forward`.

        A sample of which no modality has a real step gets what the training labels alone say: their frequencies, or
        their mean.
        """

    def learned(self) -> int:
        """How many numbers `fit` has learned (coefficients, thresholds, values of leaves); 0: it does not count."""
        return 0


def log_probabilities(probabilities: np.ndarray, classes: np.ndarray, out: int) -> np.ndarray:
    """(..., len(classes)) of the classes met in training -> (..., out) logarithms; others get `FLOOR`."""
    filled = np.zeros((*probabilities.shape[:-1], out))
    filled[..., np.asarray(classes, dtype=int)] = probabilities
    filled = np.maximum(filled, FLOOR)
    return np.asarray(np.log(np.maximum(filled / filled.sum(-1, keepdims=True), FLOOR)))


def prior(train: Batch, spec: Spec) -> np.ndarray:
    """(out,) what the training labels alone say: the logarithms of their frequencies, or their mean."""
    labels = train.y.numpy()[train.y_mask.numpy()]
    if spec.kind == "regress":
        return labels.mean(0) if len(labels) else np.zeros(spec.out)
    counts = np.bincount(labels.astype(int), minlength=spec.out)
    return log_probabilities(counts / max(1, counts.sum()), np.arange(spec.out), spec.out)

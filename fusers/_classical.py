"""What the classical rows share: streams as rows of a table, and classes or sets of modalities that training lacks.

A row of a clip task is a clip: the summaries of each modality (`api.summaries`), or its values where a clip is one
step. A row of a task per frame is a frame: the steps around it, and which of them are real.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fusionbench.api import Batch, Estimator, Spec, Stream, Streams, log_probabilities, prior, summaries


class Table(Estimator):
    """A classical method on a table: `features` makes rows, `learn` and `answer` are the method's."""

    reach = 4  # frames on either side of the one that is answered

    def learn(self, x: dict[str, np.ndarray], y: np.ndarray, groups: np.ndarray, val: Any, seed: int) -> None:
        """From modality -> (n, D) rows, NaN where it is absent, and labels (n,) or (n, out)."""
        raise NotImplementedError

    def answer(self, x: dict[str, np.ndarray]) -> np.ndarray:
        """(n, out) log-probabilities or values."""
        raise NotImplementedError

    def fit(self, train: Batch, val: Batch, seed: int) -> None:
        self.prior = prior(train, self.spec)
        x, y, groups = self._labelled(train)
        if len(y):
            self.learn(x, y, groups, self._labelled(val), seed)
        self.fitted = len(y) > 0

    def predict(self, streams: Streams) -> np.ndarray:
        real = np.stack([streams[m].present.numpy() for m in self.spec.dims]).any(0)  # (B,)
        steps = next(iter(streams.values())).x.shape[1] if self.spec.per_frame else 1
        answers = np.tile(self.prior, (len(real), steps, 1))
        if real.any() and self.fitted:
            kept = {m: streams[m][np.flatnonzero(real)] for m in self.spec.dims}
            answers[real] = self.answer(self.features(kept)).reshape(real.sum(), steps, self.spec.out)
        return answers

    def features(self, streams: Streams) -> dict[str, np.ndarray]:
        """Modality -> (B S, D), NaN in the rows where it has nothing real."""
        make = self._frames if self.spec.per_frame else self._clip
        return {m: make(streams[m], m in self.spec.rates) for m in self.spec.dims}

    def _clip(self, stream: Stream, rate: bool) -> np.ndarray:
        one = stream.x.shape[1] == 1  # in this whole set: its values say all that its summaries would
        rows = stream.x[:, 0] if one else summaries(stream, bands=rate)
        return np.where(stream.present.numpy()[:, None], rows.double().numpy(), np.nan)

    def _frames(self, stream: Stream, rate: bool) -> np.ndarray:
        """(B, T, D) -> (B T, (2 reach + 1) (D + 1)): values and mask of the steps around each."""
        x, mask = stream.x.double().numpy(), stream.mask.numpy()
        known = np.concatenate([x, mask[..., None]], 2)
        padded = np.pad(known, ((0, 0), (self.reach, self.reach), (0, 0)))
        windows = np.concatenate([padded[:, k : k + x.shape[1]] for k in range(2 * self.reach + 1)], 2)
        return windows.reshape(-1, windows.shape[2])

    def _labelled(self, batch: Batch) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """Rows, labels and groups where there is a label and something real to see."""
        real = np.stack([batch.streams[m].present.numpy() for m in self.spec.dims]).any(0)
        keep = (batch.y_mask.numpy() & real[:, None]).ravel()
        x = {m: rows[keep] for m, rows in self.features(dict(batch.streams)).items()}
        y = batch.y.numpy().reshape(len(keep), -1)[keep]
        groups = np.repeat(np.asarray(batch.groups if len(batch.groups) else range(len(batch))), batch.y.shape[1])
        return x, y[:, 0].astype(int) if self.spec.kind == "classify" else y, groups[keep]


def joined(x: Mapping[str, np.ndarray]) -> np.ndarray:
    """One table, NaN where a modality is absent."""
    return np.concatenate(list(x.values()), 1)


def marked(x: Mapping[str, np.ndarray]) -> np.ndarray:
    """One table without NaN: zeros where a modality is absent, and a column for each that says whether it is there."""
    parts = [part for rows in x.values() for part in (np.nan_to_num(rows), ~np.isnan(rows[:, :1]))]
    return np.concatenate(parts, 1)


def answers_of(model: Any, rows: np.ndarray, spec: Spec) -> np.ndarray:
    """A scikit-learn model's answers (n, out): log-probabilities, or values."""
    if spec.kind == "classify":
        return log_probabilities(model.predict_proba(rows), model.classes_, spec.out)
    return np.asarray(model.predict(rows)).reshape(len(rows), spec.out)


def leaves(forest: Any) -> int:
    """Thresholds and values of the trees of a forest."""
    return sum(int(t.tree_.node_count) + int(t.tree_.value.size) for t in forest.estimators_)

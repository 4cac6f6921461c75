"""What the classical rows share: streams as rows of a table, and one model for each set of modalities that is there.

A row of a clip task is a clip: the summaries of each modality (`api.summaries`), or its values where every clip is one
step. A row of a task per frame is a frame: the steps around it, and which of them are real.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fusionbench.api import Batch, Estimator, Spec, Stream, Streams, log_probabilities, prior, summaries, unrolled

REACH = 4  # frames on either side of the one that is answered
Rows = dict[str, np.ndarray]  # modality -> (n, D), NaN where the sample has nothing real of it


class Table(Estimator):
    """A classical method on a table: this makes the rows, `learn` and `answer` are the method's."""

    def learn(self, x: Rows, y: np.ndarray, groups: np.ndarray, seed: int) -> None:
        """From rows and labels, (n,) classes or (n, out) values."""
        raise NotImplementedError

    def answer(self, x: Rows) -> np.ndarray:
        """(n, out) log-probabilities or values."""
        raise NotImplementedError

    def fit(self, train: Batch, val: Batch, seed: int) -> None:
        self.prior = prior(train, self.spec)
        self.channels = {m: channels_of(train.streams[m]) for m in self.spec.dims}
        self.single = {m: bool((train.streams[m].mask.sum(1) <= 1).all()) for m in self.spec.dims}
        real = _seen(dict(train.streams), self.spec.dims)
        keep = (train.y_mask.numpy() & real[:, None]).ravel()
        y = train.y.numpy().reshape(len(keep), -1)[keep]
        groups = np.repeat(np.asarray(train.groups if len(train.groups) else range(len(train))), train.y.shape[1])
        self.fitted = len(y) > 0
        if self.fitted:
            x = {m: rows[keep] for m, rows in self.features(dict(train.streams)).items()}
            self.learn(x, y[:, 0].astype(int) if self.spec.kind == "classify" else y, groups[keep], seed)

    def predict(self, streams: Streams) -> np.ndarray:
        real = _seen(streams, self.spec.dims)
        steps = next(iter(streams.values())).x.shape[1] if self.spec.per_frame else 1
        answers = np.tile(self.prior, (len(real), steps, 1)).astype(float)
        if real.any() and self.fitted:
            kept = {m: streams[m][np.flatnonzero(real)] for m in self.spec.dims}
            answers[real] = self.answer(self.features(kept)).reshape(real.sum(), steps, self.spec.out)
        return answers

    def features(self, streams: Streams) -> Rows:
        """Modality -> (B S, D)."""
        return {m: (self._frames if self.spec.per_frame else self._clip)(streams[m], m) for m in self.spec.dims}

    def _clip(self, stream: Stream, m: str) -> np.ndarray:
        present = stream.present.numpy()[:, None]
        if self.single[m]:  # its values say all that their summaries would; of a longer clip, their mean
            rows = stream.x.sum(1) / stream.mask.sum(1, keepdim=True).clamp(min=1)
        else:
            rows = summaries(unrolled(stream, self.channels[m]), bands=m in self.spec.rates)
        return np.where(present, rows.double().numpy(), np.nan)

    def _frames(self, stream: Stream, m: str) -> np.ndarray:
        """(B, T, D) -> (B T, (2 REACH + 1) (D + 1)): values and mask of the steps around each."""
        known = np.concatenate([stream.x.double().numpy(), stream.mask.numpy()[..., None]], 2)
        steps = known.shape[1]
        padded = np.pad(known, ((0, 0), (REACH, REACH), (0, 0)))
        windows = np.concatenate([padded[:, k : k + steps] for k in range(2 * REACH + 1)], 2)
        windows[~stream.present.numpy()] = np.nan
        return windows.reshape(-1, windows.shape[2])


def _seen(streams: Streams, modalities: Any) -> np.ndarray:
    """(B,) has the sample any real step at all?"""
    return np.stack([streams[m].present.numpy() for m in modalities]).any(0)


class BySet(Table):
    """One model for each set of modalities that is there, on their columns alone; made when such a sample is met.

    (Reduced models: Saar-Tsechansky and Provost, JMLR 2007.) Each learns from every training sample that has any of
    the set, or, `complete`, from those that have all of it while these are at least half.
    """

    complete = False

    def make(self, seed: int) -> Any:
        """A scikit-learn model, not fitted."""
        raise NotImplementedError

    def learn(self, x: Rows, y: np.ndarray, groups: np.ndarray, seed: int) -> None:
        self.x, self.y, self.seed = x, y, seed
        self.models: dict[tuple[str, ...], Any] = {}
        self._model(tuple(x))

    def answer(self, x: Rows) -> np.ndarray:
        present = np.stack([there(rows) for rows in x.values()], 1)  # (n, M)
        answers = np.empty((len(present), self.spec.out))
        for pattern in np.unique(present, axis=0):
            names = tuple(m for m, has in zip(x, pattern, strict=True) if has)
            who = (present == pattern).all(1)
            model = self._model(names) if names else None
            if model is None:
                answers[who] = self.prior
            else:
                found = outputs(model, marked({m: x[m][who] for m in names}), self.spec)
                answers[who] = to_answers(found, self.spec)
        return answers

    def _model(self, names: tuple[str, ...]) -> Any:
        """The model of this set; None where training has nothing to tell answers apart by."""
        if names not in self.models:
            present = np.stack([there(self.x[m]) for m in names])  # (modalities, n)
            who = present.any(0)
            if self.complete and 2 * present.all(0).sum() >= who.sum():
                who = present.all(0)
            y = self.y[who]
            enough = len(y) > 1 and (self.spec.kind == "regress" or len(np.unique(y)) > 1)
            rows = marked({m: self.x[m][who] for m in names})
            self.models[names] = self.make(self.seed).fit(rows, plain(y)) if enough else None
        return self.models[names]

    def learned(self) -> int:
        return model_size(self.models[tuple(self.x)]) if self.fitted else 0


def there(rows: np.ndarray) -> np.ndarray:
    """(n,) is the modality there?"""
    return ~np.isnan(rows[:, 0])


def outputs(model: Any, rows: np.ndarray, spec: Spec) -> np.ndarray:
    """(n, out) probabilities, zero of a class that training lacked, or values, of a scikit-learn model."""
    if spec.kind == "regress":
        return np.asarray(model.predict(rows)).reshape(len(rows), -1)
    found = np.zeros((len(rows), spec.out))
    found[:, model.classes_] = model.predict_proba(rows)
    return found


def to_answers(found: np.ndarray, spec: Spec) -> np.ndarray:
    """Probabilities as logarithms, floored; values as they are."""
    return log_probabilities(found, np.arange(spec.out), spec.out) if spec.kind == "classify" else found


def plain(y: np.ndarray) -> np.ndarray:
    """One value a sample as scikit-learn wants it, (n,)."""
    return y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y


def marked(x: Mapping[str, np.ndarray]) -> np.ndarray:
    """One table without NaN: zeros where a modality is absent, and a column for each that says whether it is there."""
    parts = [part for rows in x.values() for part in (np.nan_to_num(rows), ~np.isnan(rows[:, :1]))]
    return np.concatenate(parts, 1)


def model_size(model: Any) -> int:
    """Numbers that a scikit-learn model has learned: thresholds and values of trees, or coefficients; 0 for None."""
    model = getattr(model, "steps", [(None, model)])[-1][1]  # the last of a pipeline
    if hasattr(model, "estimators_"):
        return sum(int(tree.tree_.node_count) + int(tree.tree_.value.size) for tree in model.estimators_)
    if hasattr(model, "coef_"):
        return int(np.size(model.coef_) + np.size(model.intercept_))
    return 0


def channels_of(stream: Stream) -> int:
    """How many channels a step really has: fewer than its width if it holds several samples, one after the other.

    So it is if, for a divisor c of the width, neighbours inside a step (c columns apart) are as alike as the last
    samples of one step and the first of the next: squared differences within a factor of two, correlation above .5.
    """
    x, mask = stream.x.numpy(), stream.mask.numpy()
    width, pairs = x.shape[2], mask[:, 1:] & mask[:, :-1]
    if pairs.sum() < 2:
        return width
    variance = x[mask].var(0).mean()
    for c in (c for c in range(1, width // 2 + 1) if width % c == 0):
        samples = x[mask].reshape(-1, width // c, c)
        inside = np.square(np.diff(samples, axis=1)).mean(0)  # (k - 1, c)
        across = np.square(x[:, 1:, :c] - x[:, :-1, -c:])[pairs].mean(0)  # (c,)
        alike = (inside < 2 * across).all() and (across < 2 * inside).all()
        if alike and max(inside.max(), across.max()) < variance:
            return c
    return width

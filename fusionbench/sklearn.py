"""Any fuser as an estimator of scikit-learn: fit, predict, score, clone, in pipelines, searches and cross-validation.

    from fusionbench.sklearn import FusionClassifier, Modalities

    model = FusionClassifier("gated", modalities={"face": slice(0, 40), "voice": slice(40, 60)})
    cross_val_score(model, x, y, groups=people, cv=GroupKFold(5), params={"groups": people})

For a comparison with tests use `fusionbench.compare`: here nothing is recorded, and nothing keeps the comparison fair.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.model_selection import GroupShuffleSplit
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets, unique_labels
from sklearn.utils.validation import _num_samples, check_array, check_is_fitted, validate_data

from fusionbench import engine, harness, hparams, registry
from fusionbench.api import Batch, Estimator, Stream, Task
from fusionbench.custom_data import backbone_for
from fusionbench.custom_data.python import plain_arrays
from fusionbench.engine import Member, Recipe, Trained
from fusionbench.engine.model import Blueprint
from fusionbench.errors import UsageError, unknown
from fusionbench.harness.evaluate import Answering, Network, build_model
from fusionbench.harness.fit import combinations
from fusionbench.harness.fit import score as validation_score
from fusionbench.predict.calibration import probabilities
from fusionbench.predict.inputs import Modality, read

__all__ = ["FusionClassifier", "FusionRegressor", "Modalities"]

ONLY = "x"  # what the modality of an array without column groups is called


class Modalities:
    """Several arrays over the same samples, with a length and indexing, so that scikit-learn can take folds of it.

    Args:
        arrays: modality -> (N, D) or (N, T, D), or a list of N sequences; `<modality>_mask` (N, T) or (N,).

    Raises:
        UsageError: no array, or arrays of different lengths.
    """

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        self.arrays = plain_arrays(arrays)
        lengths = {name: len(array) for name, array in self.arrays.items()}
        if len(set(lengths.values())) != 1:
            spelled = ", ".join(f"{name} {n}" for name, n in lengths.items()) or "there are none"
            raise UsageError(f"modalities have as many samples as one another: {spelled}")
        self.shape = (next(iter(lengths.values())),)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Modalities:
        """The samples at `index`: integers, a mask, a slice."""
        rows = index[0] if isinstance(index, tuple) else index  # scikit-learn asks for [rows, ...]
        rows = np.atleast_1d(np.arange(len(self))[rows])
        return Modalities({name: array[rows] for name, array in self.arrays.items()})

    def __repr__(self) -> str:
        return f"Modalities of {len(self)} samples: {', '.join(f'{n} {a.shape[1:]}' for n, a in self.arrays.items())}"


class _Fusion(BaseEstimator):
    """What the two estimators share: arguments as `FusionClassifier` lists them."""

    kind: Any = "classify"

    def __init__(
        self, fuser: str = "concat", *, modalities: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None, train: Mapping[str, Any] | None = None, validation: float = 0.2,
        metric: str = "accuracy", random_state: Any = 0, device: str = "auto",
    ) -> None:  # fmt: skip
        self.fuser = fuser
        self.modalities = modalities
        self.settings = settings
        self.train = train
        self.validation = validation
        self.metric = metric
        self.random_state = random_state
        self.device = device

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def _fit(self, arrays: Mapping[str, Any], y: np.ndarray, out: int, groups: Any) -> None:
        """Trains on modality -> array and labels (N,) whole numbers or (N, out) values."""
        n = len(y)
        if n < 2:
            raise ValueError(f"n_samples={n}: a model needs samples to train and to validate on")
        names = list(map(str, range(n) if groups is None else groups))
        if len(names) != n:
            raise ValueError(f"there are {len(names)} groups for {n} samples")
        self.expected_ = _expected(arrays)
        streams = read(arrays, self.expected_).streams
        labels = (
            torch.from_numpy(y).long()[:, None] if self.kind == "classify" else torch.from_numpy(y).float()[:, None]
        )
        data = Batch(streams, labels, torch.ones(n, 1, dtype=torch.bool), list(map(str, range(n))), names)
        random = check_random_state(self.random_state)
        train, val = _held_out(names, self.validation, random)
        self.blueprint_ = self._blueprint(streams, out)
        seed = int(random.randint(2**31 - 1))
        if issubclass(self.blueprint_.fuser, Estimator):
            self.model_: Answering = self._fit_estimator(data, train, val, seed)
        else:
            self.model_ = self._train_network(data, train, val, seed)

    def _blueprint(self, streams: Mapping[str, Stream], out: int) -> Blueprint:
        method = registry.load("fusers", self.fuser)
        settings = hparams.fill(hparams.read(method), self.settings or {}, registry.plugin_name(self.fuser))
        fitted = issubclass(method, Estimator)
        chosen = {m: ("identity", {}) if fitted else backbone_for(s, False) for m, s in streams.items()}
        backbones = {m: (maker := registry.load("backbones", name), hparams.fill(hparams.read(maker), given, name))
                     for m, (name, given) in chosen.items()}  # fmt: skip
        task = Task(self.kind, out, (self.metric,))
        return Blueprint(task, {m: tuple(s.shape[1:]) for m, s in streams.items()}, method, settings, backbones)

    def _fit_estimator(self, data: Batch, train: np.ndarray, val: np.ndarray, seed: int) -> Answering:
        """The settings of its grid with the best validation score; what is given is held."""
        if self.train:
            raise UsageError(f"{self.fuser} is fitted in one call: leave train out")
        held = set(self.settings or {})
        method: Any = self.blueprint_.fuser
        best: tuple[float, Any] = (-math.inf, None)
        for settings in combinations({n: v for n, v in method.grid.items() if n not in held}):
            blueprint = replace(self.blueprint_, settings={**self.blueprint_.settings, **settings})
            model = harness.fit(blueprint, data, train, val, seed)
            score = validation_score(model, data[val])
            if best[1] is None or score > best[0]:
                best = score, model
        return best[1]

    def _train_network(self, data: Batch, train: np.ndarray, val: np.ndarray, seed: int) -> Answering:
        """The learning rate and the step with the best validation score."""
        given = {"steps": 300, "batch": 32, "interval": 25, **(self.train or {})}
        recipe = Recipe(**hparams.fill(hparams.read(Recipe), given, "training"))
        where = harness.pick(self.device)
        scalars = recipe.weight_decay, recipe.label_smoothing, recipe.clip
        members = [Member(0, seed, train, val, lr, *scalars) for lr in recipe.lr]
        events = engine.train(self.blueprint_, members, data.to(where), recipe, device=where, stacked=len(members))
        done = [event for event in events if isinstance(event, Trained)]
        whole = [t for t in done if t.error is None]
        if not whole:
            raise UsageError(f"training failed: {done[0].error}")
        best = max(whole, key=lambda t: (t.score, -members[t.member].lr))
        self.n_iter_ = best.step
        return Network(build_model(self.blueprint_, seed, best.weights, where))

    def _answers(self, x: Any) -> np.ndarray:
        """(N, out) logits or values."""
        check_is_fitted(self, "model_")
        arrays = x.arrays if isinstance(x, Modalities) else self._columns(self._table(x, reset=False))
        streams = read(arrays, self.expected_).streams
        n, task = len(next(iter(streams.values()))), self.blueprint_.task
        y = torch.zeros(n, 1, dtype=torch.long) if task.kind == "classify" else torch.zeros(n, 1, task.out)
        model: Any = self.model_
        batch = Batch(streams, y, torch.zeros(n, 1, dtype=torch.bool))
        if isinstance(model, Network):
            batch = batch.to(next(model.model.parameters()).device)
        return model.answer(batch)[:, 0]

    def _table(self, x: Any, *, reset: bool) -> np.ndarray:
        found: np.ndarray = validate_data(self, x, reset=reset, dtype=np.float64, ensure_all_finite="allow-nan")
        return found

    def _columns(self, table: np.ndarray) -> dict[str, np.ndarray]:
        """Modality -> (N, D) of a table."""
        if self.modalities is None:
            return {ONLY: table}
        names = list(getattr(self, "feature_names_in_", ()))
        return {m: table[:, _chosen(m, wanted, names, table.shape[1])] for m, wanted in self.modalities.items()}

    def _inputs(self, x: Any) -> dict[str, np.ndarray]:
        """Modality -> array of what `fit` was given."""
        if isinstance(x, Modalities):
            return x.arrays
        return self._columns(self._table(x, reset=True))


class FusionClassifier(ClassifierMixin, _Fusion):
    """A fuser that answers classes.

    A NaN makes its step a missing one: in a table, it makes the modality of that sample missing.

    Args:
        fuser: any registered fuser, network or estimator, or the path of one.
        modalities: of an array or data frame: modality -> its columns, as a slice, indices, or names and patterns;
            None: all columns are one modality. `Modalities` bring their own.
        settings: the fuser's hyper-parameters.
        train: those of the training: lr (of several validation chooses), steps, batch, interval, modality_dropout, ...
        validation: the share of groups (without `groups`, of samples) that is held out to choose and to stop early on.
        metric: what is validated on; the loss follows from it.
        random_state: of the held-out groups, the initial weights and the batches; device: auto, cpu, cuda.
    """

    def fit(self, X: Any, y: Any, groups: Any = None) -> FusionClassifier:
        """Trains on X (an array, a data frame or `Modalities`) and labels y (N,).

        Args:
            groups: (N,) who each sample is of: nobody trains and validates at once.
        """
        arrays, y = self._inputs(X), _labels(y, _num_samples(X))
        check_classification_targets(y)
        self.classes_ = unique_labels(y)
        if len(self.classes_) < 2:
            raise ValueError("a classifier needs two classes at least; the labels have only one class")
        self._fit(arrays, np.searchsorted(self.classes_, y), len(self.classes_), groups)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """(N,) classes."""
        answers = self._answers(X)
        return np.asarray(self.classes_[answers.argmax(1)])

    def predict_proba(self, X: Any) -> np.ndarray:
        """(N, classes) probabilities, in the order of `classes_`."""
        return probabilities(self._answers(X))


class FusionRegressor(RegressorMixin, _Fusion):
    """A fuser that answers values, one or several a sample; its arguments are those of `FusionClassifier`.

    Values are brought to mean 0 and standard deviation 1 for the training, and back for the answers.
    """

    kind = "regress"

    def __init__(
        self, fuser: str = "concat", *, modalities: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None, train: Mapping[str, Any] | None = None, validation: float = 0.2,
        metric: str = "mse", random_state: Any = 0, device: str = "auto",
    ) -> None:  # fmt: skip
        super().__init__(
            fuser, modalities=modalities, settings=settings, train=train, validation=validation, metric=metric,
            random_state=random_state, device=device,
        )  # fmt: skip

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = True
        return tags

    def fit(self, X: Any, y: Any, groups: Any = None) -> FusionRegressor:
        """Trains on X (an array, a data frame or `Modalities`) and values y, (N,) or (N, K)."""
        arrays, y = self._inputs(X), _labels(y, _num_samples(X), values=True)
        self._single = y.ndim == 1
        y = y.reshape(len(y), -1)
        self._mean = y.mean(0)
        deviation = y.std(0)
        self._scale = np.where(deviation > 0, deviation, 1.0)
        self._fit(arrays, (y - self._mean) / self._scale, y.shape[1], groups)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """(N,) or (N, K) values."""
        values = self._answers(X).astype(np.float64) * self._scale + self._mean
        return values[:, 0] if self._single else values


# ------------------------------------------------------------------------------------------------------------- details


def _expected(arrays: Mapping[str, Any]) -> dict[str, Modality]:
    """What `fit` was given is what `predict` expects."""
    found = {}
    for m, array in arrays.items():
        if m.endswith("_mask") and m.removesuffix("_mask") in arrays:
            continue
        if array.ndim < 2:
            raise UsageError(f"{m} is {array.shape}; a modality is (N, D) or (N, T, D)")
        steps = array[:, None] if array.ndim == 2 else array
        found[m] = Modality(tuple(steps.shape[2:]), steps.shape[1])
    return found


def _held_out(groups: Sequence[str], share: float, random: Any) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation samples, by whole groups."""
    if len(set(groups)) < 2:
        raise UsageError("all samples are of one group: nobody is left to validate on")
    splitter = GroupShuffleSplit(1, test_size=share, random_state=random)
    train, val = next(splitter.split(np.zeros(len(groups)), groups=list(groups)))
    return train, val


def _labels(y: Any, samples: int, values: bool = False) -> np.ndarray:
    """(N,), of values also (N, K)."""
    if y is None:
        raise ValueError("this estimator requires y to be passed, but the target y is None")
    if values:
        found = check_array(y, ensure_2d=False, dtype=np.float64, input_name="y")
    else:
        from sklearn.utils.validation import column_or_1d

        found = column_or_1d(y, warn=True)
        if found.dtype.kind == "f" and not np.isfinite(found).all():
            raise ValueError("Input y contains NaN or infinity")
    if len(found) != samples:
        raise ValueError(f"X has {samples} samples, y {len(found)}: inconsistent numbers of samples")
    return np.asarray(found)


def _chosen(m: str, wanted: Any, names: Sequence[str], width: int) -> list[int]:
    """The columns of a modality, as indices."""
    if isinstance(wanted, slice):
        found = list(range(width))[wanted]
    else:
        found = []
        for one in [wanted] if isinstance(wanted, str) else list(wanted):
            if not isinstance(one, str):
                if not -width <= int(one) < width:
                    raise UsageError(f"{m} has column {one}; there are {width}")
                found.append(int(one))
                continue
            there = [one] if one in names else fnmatch.filter(names, one)
            if not there:
                raise unknown(f"column for {m}", one, names)
            found += [list(names).index(name) for name in there]
    if not found:
        raise UsageError(f"no column is of {m}: {wanted!r} of {width}")
    return found

"""What is searched, and on whose data: declared ranges, and people who are never tested."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fusionbench import hparams
from fusionbench.api import Batch, Choice, Range, Stream, group_folds
from fusionbench.engine import Recipe
from fusionbench.errors import UsageError
from fusionbench.harness import Setup
from fusionbench.hparams import HParam

#: May differ between the members of one program; everything else makes another program.
SCALARS = ("train.lr", "train.weight_decay", "train.label_smoothing", "train.clip")
#: Declared ranges that are not searched, and why.
HELD = {
    "train.patience": "a budget: a longer one is never worse",
    "train.precision": "arithmetic, not a method",
    "train.modality_dropout": "a recipe that the tables cross with every fuser",
}


@dataclass(frozen=True)
class Axis:
    """One searched hyper-parameter. `start` is what trial 0 takes; `grid` the other values that a default names."""

    hparam: HParam
    domain: Range | Choice
    start: Any
    grid: tuple[Any, ...] = ()

    def distribution(self) -> Any:
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if isinstance(self.domain, Choice):
            return CategoricalDistribution([text(value) for value in self.domain.values])
        low, high = self.domain.low, self.domain.high
        if int in (self.hparam.type, *typing.get_args(self.hparam.type)):
            return IntDistribution(int(low), int(high), log=self.domain.log)
        return FloatDistribution(low, high, log=self.domain.log)


def declared(setup: Setup, given: Mapping[str, Mapping[str, Any]]) -> dict[str, Axis]:
    """part.name -> axis of every declared range of fuser, backbones and training that the user has not set.

    A range is widened to hold the default. A default of several numbers (the learning rates) is a grid: a trial takes
    one of them, trial 0 the middle one, and the others follow at once.

    Raises:
        UsageError: nothing is left, or several learning rates are set.
    """
    parts: dict[str, Any] = {"fuser": setup.blueprint.fuser}
    parts |= {f"backbone.{m}": maker for m, (maker, _) in setup.blueprint.backbones.items()}
    parts |= {} if setup.is_estimator else {"train": Recipe}
    held = {f"{part}.{name}" for part, values in given.items() for name in values} | set(HELD)
    if setup.benchmark.task.kind == "regress":
        held.add("train.label_smoothing")  # there is no cross-entropy
    axes = {}
    for part, target in parts.items():
        for name, h in hparams.read(target).items():
            if h.domain is None or f"{part}.{name}" in held:
                continue
            axis = axis_of(h, h.domain, setup.hparams[part][name])
            if axis is not None:
                axes[f"{part}.{name}"] = axis
    if not axes:
        raise UsageError(f"{setup.names['fuser']} has no declared range to search: leave a hyper-parameter unset")
    if "train.lr" not in axes and len(setup.recipe.lr) > 1:
        raise UsageError("a trial has one learning rate: set --train.lr to one value, or leave it to the search")
    return axes


def settings(axes: Mapping[str, Axis], params: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """part -> hyper-parameter -> value of a trial's parameters."""
    found: dict[str, dict[str, Any]] = {}
    for key, value in params.items():
        part, _, name = key.rpartition(".")
        found.setdefault(part, {})[name] = axes[key].hparam.parse(value)
    return found


def nested(setup: Setup, fold: int, inner: int) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
    """The samples of an outer fold's training and validation people, and (training, validation) of each inner fold.

    The second are positions within the first. By person; each person validates in one inner fold.

    Raises:
        UsageError: a person also stands in the fold's test set (and the benchmark does not say so), or too few people.
    """
    splits = setup.benchmark.splits(setup.data, fold)
    rows = np.sort(np.concatenate([splits.train, splits.val]))
    groups = [setup.data.groups[i] for i in rows]
    tested = {setup.data.groups[i] for i in splits.test} & set(groups)
    if tested and not setup.benchmark.subject_dependent:
        raise UsageError(f"{setup.benchmark_name}: {min(tested)} trains and is tested in fold {fold}")
    if not 2 <= inner <= len(set(groups)):
        raise UsageError(f"fold {fold} has {len(set(groups))} people to choose settings by: not {inner} inner folds")
    cuts = [group_folds(groups, inner, number) for number in range(inner)]
    return rows, [(np.sort(np.concatenate([cut.train, cut.val])), cut.test) for cut in cuts]


def restrict(data: Batch, rows: np.ndarray) -> Batch:
    """The dataset of these samples alone; raw media stay on disk."""
    index = torch.from_numpy(rows)
    streams = {m: s[index] if isinstance(s, Stream) else _View(s, index) for m, s in data.streams.items()}
    ids, groups = ([names[i] for i in rows] for names in (data.ids, data.groups))
    return Batch(streams, data.y[index], data.y_mask[index], ids, groups)


@dataclass(frozen=True, eq=False)
class _View:
    """Some samples of a lazy source."""

    source: Any
    index: torch.Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.source.shape)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: Any) -> Stream:
        return self.source[self.index[torch.as_tensor(index).cpu()]]


def axis_of(h: HParam, domain: Range | Choice, default: Any) -> Axis | None:
    """The axis of a declared range around a default; None if there is nothing to choose."""
    values = list(default) if isinstance(default, tuple) and isinstance(domain, Range) else [default]
    if isinstance(domain, Choice):
        known = domain.values
        domain = Choice(*known, *(v for v in values if v not in known))
        values = [text(v) for v in values]
        empty = len(domain.values) < 2
    else:
        if not values or any(v is None for v in values):  # "none" is no number: it cannot be searched beside them
            return None
        low, high = min(domain.low, *values), max(domain.high, *values)
        domain = Range(low, high, domain.log and low > 0)
        empty = low == high
    middle = len(values) // 2
    return None if empty else Axis(h, domain, values[middle], (*values[:middle], *values[middle + 1 :]))


def distribution(spelled: str) -> Any:
    """The distribution of a range as `str` spells it: `64 | 128`, `0.1 to 10, log`."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if " to " not in spelled:
        return CategoricalDistribution(spelled.split(" | "))
    bounds, _, log = spelled.partition(", ")
    low, high = map(float, bounds.split(" to "))
    return FloatDistribution(low, high, log=bool(log))


def flat(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """part -> name -> value as part.name -> value."""
    return {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}


def text(value: Any) -> Any:
    """A value as Optuna and a table can hold it: tuples as text."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else value

"""What a member is and how it is trained: the recipe, its data order, its learning-rate schedule."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Annotated, get_args, get_type_hints

import numpy as np
import torch
from torch import Tensor

from fusionbench.api import Batch, Choice, Criterion, Range, keyed
from fusionbench.errors import UsageError
from fusionbench.hparams import Added


@dataclass(frozen=True)
class Penalty:
    """Marks a scalar of the recipe by which a penalty on the answers is weighed: the loss grows by scalar x `of`.

    A training scalar that acts on the loss is thus one line of `Recipe`: flag, record, search range and what it does.
    `of` takes answers (B, S, out) and their batch, and works under `vmap`.
    """

    of: Callable[[Tensor, Batch], Tensor]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How every member is trained: the same for every fuser."""

    lr: Annotated[tuple[float, ...], Range(1e-4, 3e-2, log=True), "learning rates; validation chooses"] = (
        3e-4,
        1e-3,
        3e-3,
        1e-2,
    )
    weight_decay: Annotated[float, Range(1e-5, 1e-1, log=True), "decoupled weight decay"] = 1e-2
    label_smoothing: Annotated[float, Range(0.0, 0.2), "of the cross-entropy"] = 0.0
    clip: Annotated[float, Range(0.1, 10.0, log=True), "largest norm of the gradient"] = 1.0
    optimiser: Annotated[str, Choice("adamw", "sgd"), "sgd has momentum 0.9"] = "adamw"
    steps: Annotated[int, "optimiser steps; 0: as the benchmark says"] = 0
    batch: Annotated[int, "samples a step; 0: as the benchmark says"] = 0
    interval: Annotated[int, "steps between validations; 0: as the benchmark says"] = 0
    warmup: Annotated[float, Range(0.0, 0.3), "share of the steps with a rising learning rate; then a cosine"] = 0.1
    patience: Annotated[int, Range(1, 20), "validations without a better one before stopping"] = 5
    modality_dropout: Annotated[float, Range(0.0, 0.7), "share of modalities hidden in training, one always kept"] = 0.0
    missing: Annotated[str, "training rates of missingness, as audio=0.3,video=0.1, fixed by sample"] = ""
    class_balance: Annotated[bool, Added, "weigh cross-entropy by the inverse frequency of a class in training"] = False
    ema: Annotated[float, Added, "decay of the weights' moving average, then validated and kept; 0: none"] = 0.0
    groups: Annotated[float, Added, "share of the training groups that is kept, for learning curves"] = 1.0
    precision: Annotated[str, Choice("float32", "bf16"), "bf16: autocast on CUDA"] = "float32"
    quick: Annotated[bool, "cut short: marked, never ranked"] = False

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of all its values: `Recipe().fingerprint` is what a preregistration freezes."""
        return hashlib.sha256(repr(sorted(asdict(self).items())).encode()).hexdigest()[:16]

    def __post_init__(self) -> None:
        valid = {
            "lr": len(self.lr) > 0 and min(self.lr, default=0) > 0,
            "weight_decay": self.weight_decay >= 0,
            "label_smoothing": 0 <= self.label_smoothing < 1,
            "clip": self.clip > 0,
            "warmup": 0 <= self.warmup <= 1,
            "ema": 0 <= self.ema < 1,
            "groups": 0 < self.groups <= 1,
            "modality_dropout": 0 <= self.modality_dropout < 1,
            "patience": self.patience >= 1,
            **{name: getattr(self, name) >= 0 for name in ("steps", "batch", "interval")},
        }
        for name, ok in valid.items():
            if not ok:
                raise UsageError(f"train.{name} cannot be {getattr(self, name)!r}: `run --help` shows its range")


def penalised(criterion: Criterion, recipe: Recipe) -> Criterion:
    """The criterion and the penalties whose scalars are set."""
    hints = get_type_hints(type(recipe), include_extras=True)
    found = [
        (getattr(recipe, name), mark.of)
        for name, hint in hints.items()
        for mark in get_args(hint)
        if isinstance(mark, Penalty) and getattr(recipe, name)
    ]
    if not found:
        return criterion
    return lambda answers, batch: criterion(answers, batch) + sum(value * of(answers, batch) for value, of in found)


@dataclass(frozen=True, eq=False)
class Member:
    """One training: indices into the resident data, a seed, and the scalars that may differ in one program."""

    fold: int
    seed: int
    train: np.ndarray
    val: np.ndarray
    lr: float
    weight_decay: float = 0.01
    label_smoothing: float = 0.0
    clip: float = 1.0


def order(member: Member, steps: int, batch: int) -> Tensor:
    """(steps, B) positions: the member's own permutations one after the other, so that every batch is full."""
    rng = np.random.default_rng(keyed.number("order", member.seed, member.fold) & 0x7FFFFFFF)
    rounds = -(-steps * batch // len(member.train))
    stream = np.concatenate([rng.permutation(member.train) for _ in range(rounds)])
    return torch.from_numpy(stream[: steps * batch].reshape(steps, batch).astype(np.int64))


def schedule(step: int, recipe: Recipe) -> float:
    """The learning rate's factor: a linear rise, then a half cosine to zero."""
    rise = max(1, round(recipe.warmup * recipe.steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, recipe.steps - rise)))


def rates_of(text: str, modalities: list[str]) -> dict[str, float]:
    """`audio=0.3,video=0.1` -> rates of every modality; empty if none is named."""
    if not text:
        return {}
    rates = dict.fromkeys(modalities, 0.0)
    for part in text.split(","):
        name, _, rate = part.partition("=")
        try:
            value = float(rate)
        except ValueError:
            value = -1.0
        if name not in rates or not 0.0 <= value < 1.0:
            raise UsageError(
                f"--train.missing takes {modalities[0]}=0.3, rates in [0, 1) of {modalities}, not {part!r}"
            )
        rates[name] = value
    return rates

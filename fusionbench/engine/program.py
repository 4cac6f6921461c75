"""K members over one resident dataset, ready to be stepped: what `alone` and `stacked` have in common."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusionbench.api import Batch, Streams, keyed
from fusionbench.corruptions.missing import drop_modalities
from fusionbench.engine.answers import chunk
from fusionbench.engine.model import Blueprint, Model, class_weights, criterion
from fusionbench.engine.recipe import Member, Recipe, order, penalised, rates_of, schedule
from fusionbench.metrics import evaluate, oriented


class Program:
    """K members over one resident dataset: their batches, their noise keys, their learning rates."""

    def __init__(
        self, blueprint: Blueprint, members: list[Member], data: Batch, recipe: Recipe, device: torch.device
    ) -> None:
        self.members, self.data, self.recipe, self.device = members, data, recipe, device
        self.task = blueprint.task
        models, balance = [], []
        for member in members:
            index = torch.from_numpy(member.train).to(data.y.device)
            if recipe.class_balance:
                balance.append(class_weights(blueprint.task, data, index))
            models.append(blueprint.begin(member.seed, data, index))
        self.order = torch.stack([order(m, recipe.steps, recipe.batch) for m in members], 1).to(device)  # (steps, K, B)
        self.key = torch.tensor([keyed.number("train", m.seed, m.fold) for m in members], dtype=torch.int32).to(device)
        self.rates = rates_of(recipe.missing, list(blueprint.shapes))
        self.zero, self.nan = torch.zeros((), device=device), torch.full((), torch.nan, device=device)
        self._validated()
        self.balance = torch.stack(balance).to(device) if balance else None  # (K, out)
        self._install([m.to(device) for m in models])
        self.average = [torch.zeros_like(w) for w in self.weights_now()] if recipe.ema else []
        self.taken = torch.zeros((), dtype=torch.float64, device=device)  # steps that are in the average

    def step(self, step: int) -> Tensor:
        """One optimiser step of every member; their losses (K,)."""
        for group, rate in zip(self.optimiser.param_groups, self.lr(step), strict=True):
            group["lr"] = rate
        return self.advance(self.order[step], self.keys(keyed.number("step", step)), step / self.recipe.steps)

    def lr(self, step: int) -> list[float]:
        """The learning rate of each parameter group of the optimiser."""
        return [peak * schedule(step, self.recipe) for peak in self.peaks]

    def keys(self, salt: int | Tensor) -> Tensor:
        """(K,) int32 keys of a step's noise."""
        return keyed.mix(self.key + salt)

    def advance(self, rows: Tensor, keys: Tensor, progress: float | Tensor) -> Tensor:
        """One optimiser step on the samples at `rows` (K, B). Nothing in it waits for the device."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16"):
            losses = self._losses(rows, keys, progress)
        self.optimiser.zero_grad()
        losses.sum().backward()
        self._clip()
        self.optimiser.step()
        if self.recipe.ema:
            torch._foreach_lerp_(self.average, self.weights_now(), 1 - self.recipe.ema)
            self.taken += 1
        return torch.where(self.dead, self.nan, losses.detach())

    def validate(self) -> list[float]:
        """The primary metric, oriented, of every member on its validation samples."""
        primary, scores = self.task.metrics[0], []
        answers = self.predict(self.data, self.val)
        for (y, y_mask), answer in zip(self.truth, answers, strict=True):
            score = evaluate([primary], answer[: len(y)], y, y_mask)[primary]
            scores.append(oriented(primary, score) if math.isfinite(score) else -math.inf)
        return scores

    def _validated(self) -> None:
        """What never changes from one validation to the next: where its samples are, and on the host what is true."""
        longest = max(len(m.val) for m in self.members)
        index = torch.from_numpy(np.stack([np.resize(m.val, longest) for m in self.members]))
        self.val = index.to(self.device)  # (K, V), wrapped
        known: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # members of one fold share their samples
        for m in self.members:
            if id(m.val) not in known:
                rows = torch.from_numpy(m.val).to(self.data.y.device)
                known[id(m.val)] = self.data.y[rows].cpu().numpy(), self.data.y_mask[rows].cpu().numpy()
        self.truth = [known[id(m.val)] for m in self.members]

    def predict(self, data: Batch, index: Tensor) -> list[np.ndarray]:
        """Answers (n, S, out) of every member to its own samples, index (K, n), as float32 on the CPU."""
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16"):
            chunks = [self._answers(data, rows).float().cpu() for rows in index.split(chunk(data, len(index)), 1)]
        return list(torch.cat(chunks, 1).numpy())

    def _loss(self, model: Any, streams: Streams, batch: Batch, key: Tensor, of_loss: Mapping[str, Any]) -> Tensor:
        """One member's loss on one batch (inside `vmap` when stacked)."""
        with keyed.scope(key):
            hidden = self._hide(streams, batch)
            batch = batch if hidden is streams else replace(batch, streams=hidden)
            return model(batch, penalised(criterion(self.task, **of_loss), self.recipe))

    def _hide(self, streams: Streams, batch: Batch) -> Streams:
        """Training under missingness: fixed by sample (`missing`), drawn again each step (`modality_dropout`)."""
        if self.rates:
            streams = hide(streams, self.rates, batch.index)
        if self.recipe.modality_dropout:
            uniforms = keyed.draw((len(batch.y), len(streams)), batch.y.device)
            rates = dict.fromkeys(streams, self.recipe.modality_dropout)
            streams = drop_modalities(streams, rates, uniforms, keep_one=True)
        return streams

    def _optimiser(self, rows: list[list[Tensor]]) -> torch.optim.Optimizer:
        """One parameter group, and so one call, for all members of equal learning rate and weight decay."""
        alike: dict[tuple[float, float], list[Tensor]] = {}
        for row, m in zip(rows, self.members, strict=True):
            alike.setdefault((m.lr, m.weight_decay), []).extend(row)
        self.peaks = [lr for lr, _ in alike]
        groups = [{"params": found, "lr": lr, "weight_decay": decay} for (lr, decay), found in alike.items()]
        if self.recipe.optimiser == "sgd":
            return torch.optim.SGD(groups, momentum=0.9, foreach=False)
        return torch.optim.AdamW(groups, fused=True, capturable=self.device.type == "cuda")

    optimiser: torch.optim.Optimizer
    dead: Tensor  # (K,) bool: a gradient was not finite

    def _install(self, models: list[Model]) -> None:
        raise NotImplementedError

    def state(self) -> list[Tensor]:
        """Every tensor that a step changes in place."""
        kept = [t for s in self.optimiser.state.values() for t in s.values() if isinstance(t, Tensor)]
        averaged = [*self.average, self.taken] if self.recipe.ema else []
        return [*self.weights_now(), *self._buffers(), *kept, self.dead, *averaged]

    def chosen(self) -> list[Tensor]:
        """What is validated and kept, as `weights_now`: these, or their moving average without its start at zero."""
        if not self.recipe.ema:
            return self.weights_now()
        share = (1 - self.recipe.ema**self.taken).float()
        return [average / share for average in self.average]

    def weights_now(self) -> list[Tensor]:
        """The parameters themselves, detached."""
        raise NotImplementedError

    def _buffers(self) -> list[Tensor]:
        raise NotImplementedError

    def _losses(self, rows: Tensor, keys: Tensor, progress: float | Tensor) -> Tensor:
        raise NotImplementedError

    def _answers(self, data: Batch, rows: Tensor) -> Tensor:
        raise NotImplementedError

    def _clip(self) -> None:
        raise NotImplementedError

    def keep(self, better: list[bool]) -> None:
        """Remember the present weights of the members that are better than ever."""
        raise NotImplementedError

    def weights(self, row: int) -> dict[str, Tensor]:
        """The best weights and buffers of a member, on the CPU."""
        raise NotImplementedError

    def parameters(self, row: int) -> dict[str, int]:
        """How many parameters are allocated, and how many of them received a gradient."""
        raise NotImplementedError

    def compact(self, staying: list[int]) -> None:
        """Go on with these rows only."""
        raise NotImplementedError


def hide(streams: Streams, rates: Mapping[str, float], index: Tensor) -> Streams:
    """Streams (B, ...) of the samples at `index`, with modalities absent at these rates, one always kept.

    Keyed by the position in the dataset: the same samples miss the same modalities at every step.
    """
    uniforms = keyed.uniform(keyed.mix(index.to(torch.int32)), (len(streams),))
    return drop_modalities(streams, rates, uniforms, keep_one=True)

"""Members ready to be stepped: alone as a plain module, or stacked as rows of one matrix of parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, vmap

from fusionbench.api import Batch, Stream, Streams, keyed
from fusionbench.corruptions.missing import drop_modalities
from fusionbench.engine.model import Blueprint, Model, criterion, statistics
from fusionbench.engine.recipe import Member, Recipe, order, rates_of, schedule
from fusionbench.metrics import evaluate, oriented


class Program:
    """K members over one resident dataset: their batches, their noise keys, their learning rates."""

    def __init__(
        self, blueprint: Blueprint, members: list[Member], data: Batch, recipe: Recipe, device: torch.device
    ) -> None:
        self.members, self.data, self.recipe, self.device = members, data, recipe, device
        self.task = blueprint.task
        models = []
        for member in members:
            index = torch.from_numpy(member.train).to(data.y.device)
            models.append(blueprint.build(member.seed, statistics(data, index), len(member.train)))
        self.order = torch.stack([order(m, recipe.steps, recipe.batch) for m in members], 1).to(device)  # (steps, K, B)
        self.key = torch.tensor([keyed.number("train", m.seed, m.fold) for m in members], dtype=torch.int32).to(device)
        self.rates = rates_of(recipe.missing, list(blueprint.shapes))
        self._install([m.to(device) for m in models])

    def step(self, step: int) -> Tensor:
        """One optimiser step of every member; their losses (K,)."""
        for group, rate in zip(self.optimiser.param_groups, self.lr(step), strict=True):
            group["lr"] = rate
        return self.advance(self.order[step], self.keys(keyed.number("step", step)), step / self.recipe.steps)

    def lr(self, step: int) -> list[float]:
        return [member.lr * schedule(step, self.recipe) for member in self.members]

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
        return torch.where(self.dead, torch.nan, losses.detach())

    def validate(self) -> list[float]:
        """The primary metric, oriented, of every member on its validation samples."""
        longest = max(len(m.val) for m in self.members)
        index = torch.from_numpy(np.stack([np.resize(m.val, longest) for m in self.members]))  # (K, V), wrapped
        answers = self.predict(self.data, index.to(self.device))
        scores = []
        for member, answer in zip(self.members, answers, strict=True):
            val = torch.from_numpy(member.val).to(self.data.y.device)
            y, y_mask = self.data.y[val].cpu().numpy(), self.data.y_mask[val].cpu().numpy()
            primary = self.task.metrics[0]
            score = evaluate([primary], answer[: len(val)], y, y_mask)[primary]
            scores.append(oriented(primary, score) if math.isfinite(score) else -math.inf)
        return scores

    def predict(self, data: Batch, index: Tensor) -> list[np.ndarray]:
        """Answers (n, S, out) of every member to its own samples, index (K, n), as float32 on the CPU."""
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16"):
            chunks = [self._answers(data, rows).float().cpu() for rows in index.split(chunk(data), 1)]
        return list(torch.cat(chunks, 1).numpy())

    def _loss(self, model: Any, streams: Streams, batch: Batch, key: Tensor, smoothing: Any) -> Tensor:
        """One member's loss on one batch (inside `vmap` when stacked)."""
        with keyed.scope(key):
            streams = self._hide(streams, batch)
            return model(replace(batch, streams=streams), criterion(self.task, smoothing))

    def _hide(self, streams: Streams, batch: Batch) -> Streams:
        """Training under missingness: fixed by sample (`missing`), drawn anew each step (`modality_dropout`)."""
        if self.rates:
            streams = hide(streams, self.rates, batch.index)
        if self.recipe.modality_dropout:
            uniforms = keyed.draw((len(batch.y), len(streams)), batch.y.device)
            rates = dict.fromkeys(streams, self.recipe.modality_dropout)
            streams = drop_modalities(streams, rates, uniforms, keep_one=True)
        return streams

    def _optimiser(self, rows: list[list[Tensor]]) -> torch.optim.Optimizer:
        """One parameter group a member."""
        groups = [
            {"params": row, "lr": m.lr, "weight_decay": m.weight_decay}
            for row, m in zip(rows, self.members, strict=True)
        ]
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
        return [*self.weights_now(), *self._buffers(), *kept, self.dead]

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


def chunk(data: Batch) -> int:
    """How many samples are evaluated at once: 1,024, or as many as hold 512 MB where a sample is large."""
    shapes = [s.shape for s in data.streams.values()]
    return max(1, min(1024, 2**27 // max(1, sum(map(math.prod, shapes)))))


def gather(data: Batch, rows: Tensor) -> tuple[dict[str, tuple[Tensor, Tensor]], Tensor, Tensor]:
    """Streams as plain pairs, y and y_mask of the samples at `rows` (any leading shape), on the device of `rows`."""
    pairs = {}
    for m, s in data.streams.items():
        if isinstance(s, Stream):  # already zero under its mask: skip the constructor
            pairs[m] = s.x[rows], s.mask[rows]
        else:
            stream = s[rows.flatten()].to(rows.device)
            pairs[m] = stream.x.unflatten(0, rows.shape), stream.mask.unflatten(0, rows.shape)
    return pairs, data.y[rows], data.y_mask[rows]


def stacked_answers(model: Model, weights: Mapping[str, Tensor], data: Batch, rows: Tensor) -> Tensor:
    """(K, n, S, out): member k, whose weights are the k-th of each stack, answers the samples at rows[k]."""
    model.eval()

    def one(weights: dict[str, Tensor], pairs: dict[str, Any], y: Tensor, y_mask: Tensor) -> Tensor:
        batch = Batch({m: Stream(*pair) for m, pair in pairs.items()}, y, y_mask)
        return functional_call(model, weights, (batch,))

    return vmap(one)(dict(weights), *gather(data, rows))


def hide(streams: Streams, rates: Mapping[str, float], index: Tensor) -> Streams:
    """Streams (B, ...) of the samples at `index`, with modalities absent at these rates, one always kept.

    Keyed by the position in the dataset: the same samples miss the same modalities at every step.
    """
    uniforms = keyed.uniform(keyed.mix(index.to(torch.int32)), (len(streams),))
    return drop_modalities(streams, rates, uniforms, keep_one=True)


class Alone(Program):
    """One member as a plain module: the reference path, and the faster one where a step is heavy."""

    def _install(self, models: list[Model]) -> None:
        (self.model,) = models
        self.optimiser = self._optimiser([list(self.model.parameters())])
        self.dead = torch.zeros(1, dtype=torch.bool, device=self.device)
        self.best: dict[str, Tensor] = {}

    def weights_now(self) -> list[Tensor]:
        return [p.detach() for p in self.model.parameters()]

    def _buffers(self) -> list[Tensor]:
        return list(self.model.buffers())

    def _losses(self, rows: Tensor, keys: Tensor, progress: float | Tensor) -> Tensor:
        self.model.train()
        pairs, y, y_mask = gather(self.data, rows[0])
        streams = {m: Stream(*pair) for m, pair in pairs.items()}
        batch = Batch(streams, y, y_mask, index=rows[0], progress=progress)
        return self._loss(self.model, streams, batch, keys[0], self.members[0].label_smoothing).unsqueeze(0)

    def _answers(self, data: Batch, rows: Tensor) -> Tensor:
        self.model.eval()
        pairs, y, y_mask = gather(data, rows[0])
        return self.model(Batch({m: Stream(*pair) for m, pair in pairs.items()}, y, y_mask)).unsqueeze(0)

    def _clip(self) -> None:
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.members[0].clip)
        self.dead |= ~norm.isfinite()

    def keep(self, better: list[bool]) -> None:
        if better[0]:
            self.best = {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def weights(self, row: int) -> dict[str, Tensor]:
        return {name: value.cpu() for name, value in (self.best or self.model.state_dict()).items()}

    def parameters(self, row: int) -> dict[str, int]:
        trained = sum(p.numel() for p in self.model.parameters() if p.grad is not None and p.grad.abs().max() > 0)
        return {"allocated": sum(p.numel() for p in self.model.parameters()), "trained": trained}


class Stacked(Program):
    """K members as rows of one matrix of parameters (K, N); forward and backward once under `vmap`."""

    def _install(self, models: list[Model]) -> None:
        self.model = models[0]
        shapes = {name: p.shape for name, p in self.model.named_parameters()}
        self.shapes, self.sizes = shapes, [math.prod(s) for s in shapes.values()]
        if len(list(self.model.named_parameters(remove_duplicate=False))) != len(shapes):
            raise ValueError("weights with two names cannot be stacked")
        self.flat = torch.stack([torch.cat([p.detach().flatten() for p in m.parameters()]) for m in models])
        self.flat.requires_grad_()
        self.buffers = {name: torch.stack([dict(m.named_buffers())[name] for m in models])
                        for name, _ in self.model.named_buffers()}  # fmt: skip
        self.smoothing = torch.tensor([m.label_smoothing for m in self.members], device=self.device)
        self.limit = torch.tensor([[m.clip] for m in self.members], device=self.device)
        self.dead = torch.zeros(len(models), dtype=torch.bool, device=self.device)
        self.touched = torch.zeros(self.flat.shape, dtype=torch.bool, device=self.device)
        self.best, self.best_buffers = self.flat.detach().clone(), dict(self.buffers)
        self._rows()

    def _rows(self) -> None:
        """The optimiser steps on the rows themselves: views of the one matrix, one a member."""
        self.rows = list(self.flat.detach().unbind(0))
        self.optimiser = self._optimiser([[row] for row in self.rows])

    def weights_now(self) -> list[Tensor]:
        return [self.flat.detach()]

    def _buffers(self) -> list[Tensor]:
        return list(self.buffers.values())

    def _named(self, flat: Tensor) -> dict[str, Tensor]:
        parts = flat.split(self.sizes, -1)
        return {
            name: part.reshape(*flat.shape[:-1], *shape)
            for part, (name, shape) in zip(parts, self.shapes.items(), strict=True)
        }

    def _losses(self, rows: Tensor, keys: Tensor, progress: float | Tensor) -> Tensor:
        self.model.train()

        def one(
            weights: dict[str, Tensor], pairs: dict[str, Any], y: Tensor, y_mask: Tensor, index: Tensor, key: Tensor,
            smoothing: Tensor,
        ) -> Tensor:  # fmt: skip
            streams = {m: Stream(*pair) for m, pair in pairs.items()}
            batch = Batch(streams, y, y_mask, index=index, progress=progress)
            call = lambda *args: functional_call(self.model, weights, args)  # noqa: E731
            return self._loss(call, streams, batch, key, smoothing)

        pairs, y, y_mask = gather(self.data, rows)
        weights = {**self._named(self.flat), **self.buffers}
        return vmap(one)(weights, pairs, y, y_mask, rows, keys, self.smoothing)

    def _answers(self, data: Batch, rows: Tensor) -> Tensor:
        return stacked_answers(self.model, {**self._named(self.flat), **self.buffers}, data, rows)

    def _clip(self) -> None:
        assert self.flat.grad is not None
        norm = self.flat.grad.norm(dim=1, keepdim=True)
        grad = self.flat.grad * (self.limit / (norm + 1e-6)).clamp(max=1.0)
        # A member whose gradient is not finite stands still and is reported at the next validation.
        grad = torch.where(norm.isfinite(), grad, 0.0)
        for row, g in zip(self.rows, grad.unbind(0), strict=True):
            row.grad = g
        torch.logical_and(norm.isfinite(), self.flat.grad != 0, out=self.touched)
        self.dead |= ~norm.isfinite().squeeze(1)
        self.flat.grad = None

    def keep(self, better: list[bool]) -> None:
        won = torch.tensor(better, device=self.device)
        self.best = torch.where(won[:, None], self.flat.detach(), self.best)
        self.best_buffers = {
            name: torch.where(won.reshape(-1, *[1] * (value.dim() - 1)), value, self.best_buffers[name])
            for name, value in self.buffers.items()
        }

    def weights(self, row: int) -> dict[str, Tensor]:
        named = {**self._named(self.best[row]), **{name: b[row] for name, b in self.best_buffers.items()}}
        return {name: named[name].detach().cpu().clone() for name in self.model.state_dict()}

    def parameters(self, row: int) -> dict[str, int]:
        parts = self.touched[row].split(self.sizes)
        trained = sum(size for part, size in zip(parts, self.sizes, strict=True) if part.any())
        return {"allocated": sum(self.sizes), "trained": trained}

    def compact(self, staying: list[int]) -> None:
        rows = torch.tensor(staying, device=self.device)
        states = [self.optimiser.state[self.rows[row]] for row in staying]
        self.members = [self.members[row] for row in staying]
        self.flat = self.flat.detach()[rows].clone().requires_grad_()
        self.buffers = {name: value[rows] for name, value in self.buffers.items()}
        self.best, self.best_buffers = self.best[rows], {n: v[rows] for n, v in self.best_buffers.items()}
        self.smoothing, self.limit, self.key = self.smoothing[rows], self.limit[rows], self.key[rows]
        self.order, self.touched, self.dead = self.order[:, rows], self.touched[rows], self.dead[rows]
        self._rows()
        for row, state in zip(self.rows, states, strict=True):
            self.optimiser.state[row] = state

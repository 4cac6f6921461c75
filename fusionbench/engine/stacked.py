"""K members as rows of one matrix of parameters: one forward and one backward pass under `vmap` serve them all."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from fusionbench.api import Batch, Stream
from fusionbench.engine.answers import gather, stacked_answers
from fusionbench.engine.model import Model
from fusionbench.engine.program import Program


class Stacked(Program):
    """K members as rows of one matrix of parameters (K, N); forward and backward once under `vmap`."""

    def _install(self, models: list[Model]) -> None:
        self.model = models[0]
        if self.device.type == "cuda":  # a CPU hardly gains, and its published numbers stay what they are to the bit
            shorten(self.model)
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
            of_loss: dict[str, Tensor],
        ) -> Tensor:  # fmt: skip
            streams = {m: Stream(*pair) for m, pair in pairs.items()}
            batch = Batch(streams, y, y_mask, index=index, progress=progress)
            call = lambda *args: functional_call(self.model, weights, args)  # noqa: E731
            return self._loss(call, streams, batch, key, of_loss)

        pairs, y, y_mask = gather(self.data, rows)
        weights = {**self._named(self.flat), **self.buffers}
        of_loss = {"label_smoothing": self.smoothing}
        if self.balance is not None:
            of_loss["balance"] = self.balance
        return vmap(one)(weights, pairs, y, y_mask, rows, keys, of_loss)

    def _answers(self, data: Batch, rows: Tensor) -> Tensor:
        (flat,) = self.chosen()
        return stacked_answers(self.model, {**self._named(flat), **self.buffers}, data, rows)

    def _clip(self) -> None:
        assert self.flat.grad is not None
        norm = self.flat.grad.norm(dim=1, keepdim=True)
        finite = norm.isfinite()
        grad = self.flat.grad * (self.limit / (norm + 1e-6)).clamp(max=1.0)
        # A member whose gradient is not finite stands still and is reported at the next validation.
        grad = torch.where(finite, grad, self.zero)
        for row, g in zip(self.rows, grad.unbind(0), strict=True):
            row.grad = g
        torch.logical_and(finite, self.flat.grad != 0, out=self.touched)
        self.dead |= ~finite.squeeze(1)
        self.flat.grad = None

    def keep(self, better: list[bool]) -> None:
        won = torch.tensor(better, device=self.device)
        (flat,) = self.chosen()
        self.best = torch.where(won[:, None], flat, self.best)
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
        self.average = [average[rows] for average in self.average]
        self.balance = None if self.balance is None else self.balance[rows]
        self._validated()
        self._rows()
        for row, state in zip(self.rows, states, strict=True):
            self.optimiser.state[row] = state


def shorten(model: Model) -> None:
    """Linear layers as a product and a sum, in place: `vmap` multiplies by one as well, and so does the way back."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.forward = partial(_linear, module)  # type: ignore[method-assign]


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    flat = x.reshape(-1, x.shape[-1]) @ layer.weight.t()
    if layer.bias is not None:
        flat = flat + layer.bias.to(flat.dtype)
    return flat.reshape(*x.shape[:-1], -1)

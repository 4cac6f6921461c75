"""One member as a plain module: what every method can do, and the faster way where a step is heavy."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from fusionbench.api import Batch, Stream
from fusionbench.engine.answers import gather
from fusionbench.engine.model import Model
from fusionbench.engine.program import Program


class Alone(Program):
    """The reference path."""

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
        of_loss: dict[str, Any] = {"label_smoothing": self.members[0].label_smoothing}
        if self.balance is not None:
            of_loss["balance"] = self.balance[0]
        return self._loss(self.model, streams, batch, keys[0], of_loss).unsqueeze(0)

    def _answers(self, data: Batch, rows: Tensor) -> Tensor:
        self.model.eval()
        pairs, y, y_mask = gather(data, rows[0])
        batch = Batch({m: Stream(*pair) for m, pair in pairs.items()}, y, y_mask)
        answers = functional_call(self.model, self._averaged(), (batch,)) if self.recipe.ema else self.model(batch)
        return answers.unsqueeze(0)

    def _averaged(self) -> dict[str, Tensor]:
        """The moving averages by every name that a weight has; nothing where there are none."""
        found = dict(zip(map(id, self.model.parameters()), self.chosen(), strict=True)) if self.recipe.ema else {}
        return {n: found[id(p)] for n, p in self.model.named_parameters(remove_duplicate=False) if found}

    def _clip(self) -> None:
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.members[0].clip)
        self.dead |= ~norm.isfinite()

    def keep(self, better: list[bool]) -> None:
        if better[0]:
            now = {**self.model.state_dict(), **self._averaged()}
            self.best = {name: value.detach().clone() for name, value in now.items()}

    def weights(self, row: int) -> dict[str, Tensor]:
        return {name: value.cpu() for name, value in (self.best or self.model.state_dict()).items()}

    def parameters(self, row: int) -> dict[str, int]:
        trained = sum(p.numel() for p in self.model.parameters() if p.grad is not None and p.grad.abs().max() > 0)
        return {"allocated": sum(p.numel() for p in self.model.parameters()), "trained": trained}

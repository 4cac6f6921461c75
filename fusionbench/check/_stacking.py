"""Can members of a fuser be trained as one program, stacked by `torch.func`?"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from fusionbench.api import Batch, Stream, keyed
from fusionbench.check import _tools as tools
from fusionbench.check._problems import answers_of, both, make_batch, task_loss
from fusionbench.check._tools import build, same


class _Loss(nn.Module):
    """A fuser whose forward is its loss, so that `functional_call` reaches it."""

    fuser: nn.Module

    def __init__(self, fuser: Any) -> None:
        super().__init__()
        self.fuser = fuser

    def forward(self, batch: Batch) -> Tensor:
        fuser: Any = self.fuser
        value: Tensor = fuser.loss(batch, task_loss(fuser.spec))
        return value


def stackable(plugin: type) -> None:
    """Members stacked with `torch.func` have the losses, gradients and answers that they have alone."""
    for task, spec in both(plugin):
        members = [_Loss(build(plugin, spec, seed)).train() for seed in range(3)]
        batches = [make_batch(spec, seed=seed) for seed in range(3)]
        base, untrained = copy.deepcopy(members[0]), [copy.deepcopy(member.fuser) for member in members]

        def one(parameters: Any, buffers: Any, number: Tensor, data: Any, base: _Loss = base) -> Tensor:
            x, mask, y, y_mask, index, progress = data
            streams = {m: Stream(x[m], mask[m]) for m in x}
            batch = Batch(streams, y, y_mask, index=index, progress=progress)
            with keyed.scope(number):
                result: Tensor = functional_call(base, (parameters, buffers), (batch,))
            return result

        def answer(parameters: Any, buffers: Any, data: Any, base: _Loss = base) -> Tensor:
            streams = {m: Stream(data[0][m], data[1][m]) for m in data[0]}
            own = [
                {name.removeprefix("fuser."): value for name, value in group.items()} for group in (parameters, buffers)
            ]
            result: Tensor = functional_call(base.fuser, (own[0], own[1]), (streams,))
            return result

        keys, data = torch.arange(3, dtype=torch.int32), [_tensors(b) for b in batches]
        alone = []
        for number, (member, tensors) in enumerate(zip(members, data, strict=True)):
            parameters = dict(member.named_parameters())
            buffers = {name: b.clone() for name, b in member.named_buffers()}
            member.zero_grad()
            value = one(parameters, buffers, keys[number], tensors)
            value.backward()
            alone.append((value.detach(), tools.gradients(member)))
        parameters, buffers = stack_module_state(members)
        kept = {name: b.clone() for name, b in buffers.items()}
        together = _stack(data)
        values = vmap(one)(parameters, buffers, keys, together)
        values.sum().backward()
        base.eval()
        answers = vmap(answer)(parameters, kept, together)
        for number, (value, want) in enumerate(alone):
            same(values[number], value, f"{task}: loss of a stacked member")
            got = {n: torch.zeros_like(p[0]) if p.grad is None else p.grad[number] for n, p in parameters.items()}
            tools.same_gradients(got, want, f"{task}, stacked")
            lone = answers_of(untrained[number], batches[number].streams)
            same(answers[number], lone, f"{task}: answers of a stacked member")


def _tensors(batch: Batch) -> Any:
    x = {m: s.x for m, s in batch.streams.items()}
    mask = {m: s.mask for m, s in batch.streams.items()}
    return x, mask, batch.y, batch.y_mask, batch.index, torch.tensor(0.5)


def _stack(parts: list[Any]) -> Any:
    """The same nest of tuples and dictionaries, every tensor stacked over the list."""
    if isinstance(parts[0], dict):
        return {name: _stack([part[name] for part in parts]) for name in parts[0]}
    if isinstance(parts[0], tuple):
        return tuple(_stack(list(column)) for column in zip(*parts, strict=True))
    return torch.stack(parts)

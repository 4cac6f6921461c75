"""How many members to train as one program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from fusionbench.api import Batch
from fusionbench.engine.alone import Alone
from fusionbench.engine.model import Blueprint, Model
from fusionbench.engine.recipe import Member, Recipe

LIGHT, HEAVY = 1e8, 5e8  # floating-point operations of one member's step


def stack_size(
    blueprint: Blueprint, members: Sequence[Member], data: Batch, recipe: Recipe, device: torch.device
) -> int:
    """How many members to train as one program, if they can be stacked at all.

    On the CPU stacking saves the overhead of small steps and costs a little where a step is heavy (`bench/`): ten grids
    of learning rates at once, three, or none, by a count of operations. On CUDA as many as its memory takes, at most
    256.
    """
    from torch.utils.flop_counter import FlopCounterMode

    try:
        alone = Alone(blueprint, list(members[:1]), data, replace(recipe, steps=1), device)
        with FlopCounterMode(display=False) as counter:
            alone.step(0)
    except Exception:  # a method that fails does so again in its own run, where the failure is recorded
        return 1
    if device.type != "cuda":
        flops = counter.get_total_flops()
        return len(recipe.lr) * (10 if flops < LIGHT else 3) if flops < HEAVY else 1
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    alone.step(0)
    one = max(1 << 20, torch.cuda.max_memory_allocated(device) - before + 4 * _size(alone.model))
    return int(min(256, max(1, 0.7 * torch.cuda.mem_get_info(device)[0] // one)))


def _size(model: Model) -> int:
    return sum(p.numel() * p.element_size() for p in model.parameters())

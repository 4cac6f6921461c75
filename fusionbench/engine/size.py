"""How many members to train as one program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from fusionbench.api import Batch
from fusionbench.engine.alone import Alone
from fusionbench.engine.answers import chunk
from fusionbench.engine.graph import WARM_UP, Graph, capturable
from fusionbench.engine.loop import make_program
from fusionbench.engine.model import Blueprint
from fusionbench.engine.recipe import Member, Recipe

HEAVY = 5e8  # floating-point operations of one member's step
FOLDS = 3  # whose learning rates are tried in one program on a CPU: five folds are then work for two processes
MOST = 64  # members of one program on CUDA
SHARE = 0.7  # of the free memory that they may take: other processes live there too, and no allocator wastes nothing


def stack_size(
    blueprint: Blueprint, members: Sequence[Member], data: Batch, recipe: Recipe, device: torch.device
) -> int:
    """How many members to train as one program, if they can be stacked at all.

    On the CPU stacking saves the overhead of small steps and costs a little where a step is heavy (`bench/`): the
    learning rates of three folds at once, or none, by a count of operations. On CUDA as many as its memory takes, by
    what two of them were seen to take, at most 64.
    """
    from torch.utils.flop_counter import FlopCounterMode

    try:
        if device.type == "cuda":
            needed, answer = needs(blueprint, members[0], data, recipe, device)
            torch.cuda.empty_cache()
            return fitting(data, needed, answer, len(members[0].val), torch.cuda.mem_get_info(device)[0])
        alone = Alone(blueprint, list(members[:1]), data, replace(recipe, steps=1), device)
        with FlopCounterMode(display=False) as counter:
            alone.step(0)
    except (Exception, SystemExit):  # a method that fails does so again in its own run, where the failure is recorded
        return 1
    flops = counter.get_total_flops()
    return FOLDS * len(recipe.lr) if flops < HEAVY else 1


def fitting(data: Batch, needed: float, answer: float, samples: int, free: int) -> int:
    """As many members as hold their share of `free` bytes, by what `needs` found, each with `samples` to validate on.

    A member takes the same whoever is beside it, and a validation what the samples take that are answered at once.
    """
    sizes = [k for k in range(1, MOST + 1) if k * (needed + min(chunk(data, k), samples) * answer) <= SHARE * free]
    return max(sizes, default=1)


def needs(
    blueprint: Blueprint, member: Member, data: Batch, recipe: Recipe, device: torch.device
) -> tuple[float, float]:
    """Bytes a member takes in training, and bytes a sample takes in a validation, on CUDA.

    Of two members stacked, from before they are built until after a step has been captured: the copies that this takes
    are more than what a step needs. The graph keeps its memory, so a validation comes on top.
    """
    began = _from_here(device)
    program = make_program(blueprint, [member, member], data, replace(recipe, steps=WARM_UP + 2), device)
    steps = Graph(program) if capturable(program) else program
    for step in range(WARM_UP + 2):
        steps.step(step)
    program.keep([True, True])
    needed = torch.cuda.max_memory_allocated(device) - began
    standing = _from_here(device)
    program.validate()
    answers = torch.cuda.max_memory_allocated(device) - standing
    return needed / 2, answers / (2 * min(chunk(data, 2), len(member.val)))


def _from_here(device: torch.device) -> int:
    """Bytes allocated now, from where the peak is measured."""
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)

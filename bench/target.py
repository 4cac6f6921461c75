"""The engine's goal on a GPU, by one command: `python bench/target.py [--device cuda] [--fusers jmt,concat]`.

Ten members of width 128 over ten bare loops of the same model, at 16 steps a sample and batches of 32: at most .03; and
one member over one bare loop: at most .3. Both sides take turns in one process. Beside the ratio stands what it rests
on: milliseconds of a step, whether the engine's was replayed as a CUDA graph, and how many operations it has (without
views) forward, backward, and in clipping and the optimiser. It runs on a CPU too, for which there is no goal.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from tabulate import tabulate
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from fusionbench import engine, harness, hparams, registry
from fusionbench.api import Batch, Stream, Task
from fusionbench.engine import Member, Recipe
from fusionbench.engine.graph import WARM_UP
from fusionbench.engine.model import Blueprint
from fusionbench.engine.model import statistics as split_statistics
from fusionbench.engine.recipe import order

STEPS, WIDTH, BATCH, MEMBERS, SAMPLES = 16, 128, 32, 10, 2000
DIMS = {"a": 128, "b": 64}
ROUND = 200  # steps before the learning-rate schedule begins again
GOALS = {MEMBERS: 0.03, 1: 0.3}  # members -> of as many bare loops
Step = Callable[[], object]


def samples(device: torch.device) -> Batch:
    """Noise in two modalities, a tenth of the steps masked, four classes."""
    generator = torch.Generator().manual_seed(0)
    streams = {
        m: Stream(torch.randn(SAMPLES, STEPS, width, generator=generator),
                  torch.rand(SAMPLES, STEPS, generator=generator) < 0.9)
        for m, width in DIMS.items()
    }  # fmt: skip
    y = torch.randint(0, 4, (SAMPLES, 1), generator=generator)
    return Batch(streams, y, torch.ones_like(y, dtype=torch.bool)).to(device)


def blueprint(fuser: str) -> Blueprint:
    method, identity = registry.load("fusers", fuser), registry.load("backbones", "identity")
    settings = {name: h.default for name, h in hparams.read(method).items()} | {"width": WIDTH}
    shapes = {m: (width,) for m, width in DIMS.items()}
    return Blueprint(Task("classify", 4, ("accuracy",)), shapes, method, settings, dict.fromkeys(DIMS, (identity, {})))


def members(count: int) -> list[Member]:
    half = SAMPLES // 2
    return [Member(0, seed, np.arange(half), np.arange(half, SAMPLES), 1e-3) for seed in range(count)]


def stepper(plan: Blueprint, count: int, data: Batch, recipe: Recipe) -> tuple[Step, engine.Graph | None, Any]:
    """The engine's step, its graph if it may have one, and the program."""
    program = engine.make_program(plan, members(count), data, recipe, data.y.device)
    graph = engine.Graph(program) if engine.capturable(program) else None
    turn = iter_steps()
    return (lambda: (graph or program).step(next(turn))), graph, program


def iter_steps() -> Iterator[int]:
    while True:
        yield from range(ROUND)


def bare(plan: Blueprint, data: Batch, precision: str) -> Step:
    """A hand-written loop over the same tensors, with torch's optimiser as it comes."""
    (who,), device = members(1), data.y.device
    model = plan.build(0, split_statistics(data, torch.from_numpy(who.train).to(device)), len(who.train))
    model.to(device).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    rows, turn = order(who, ROUND, BATCH).to(device), iter_steps()

    def step() -> None:
        row = rows[next(turn)]
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            answers = model(data[row])
        loss = nn.functional.cross_entropy(answers[:, 0].float(), data.y[row, 0])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()

    return step


def milliseconds(device: torch.device, step: Step, count: int) -> float:
    """Of one step, everything it began having ended."""
    wait = (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else (lambda: None)
    wait()
    began = time.perf_counter()
    for _ in range(count):
        step()
    wait()
    return 1000 * (time.perf_counter() - began) / count


class Operations(TorchDispatchMode):
    """Counts what is dispatched inside it and computes: a view of what is there costs a host's time alone."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not (operation.is_view or operation.namespace != "aten" or "_unsafe_view" in str(operation))
        return operation(*args, **(kwargs or {}))


def operations(program: Any) -> str:
    """Forward / backward / clip and optimiser, of one step more."""
    forward, backward, update = Operations(), Operations(), Operations()
    half = program.recipe.precision == "bf16"
    with forward, torch.autocast(program.device.type, torch.bfloat16, enabled=half):
        losses = program._losses(program.order[0], program.keys(0), 0.0)
    program.optimiser.zero_grad()
    with backward:
        losses.sum().backward()
    with update:
        program._clip()
        program.optimiser.step()
    return f"{forward.count} / {backward.count} / {update.count}"


def measure(fuser: str, count: int, data: Batch, options: argparse.Namespace) -> list[str]:
    """A row: so many members as one program over as many bare loops, the medians of rounds in which they take turns."""
    device, plan = data.y.device, blueprint(fuser)
    recipe = Recipe(steps=ROUND, batch=BATCH, interval=ROUND, precision=options.precision)
    ours, graph, _ = stepper(plan, count, data, recipe)
    theirs = bare(plan, data, options.precision)
    milliseconds(device, ours, max(5, WARM_UP + 2))  # the last of them is a replay already
    milliseconds(device, theirs, 5)
    pairs = [(milliseconds(device, ours, options.steps), milliseconds(device, theirs, options.steps))
             for _ in range(options.rounds)]  # fmt: skip
    ratio = statistics.median(mine / (count * other) for mine, other in pairs)
    mine, other = (statistics.median(side) for side in zip(*pairs, strict=True))
    replayed = bool(graph and graph.replay)
    ended = stepper(plan, count, data, recipe)[2]  # a replayed program is not stepped plainly beside its graph
    ended.step(0)
    goal = GOALS.get(count) if device.type == "cuda" else None
    met = "-" if goal is None else f"{'met' if ratio <= goal else 'missed'} ({goal:g})"
    return [fuser, f"{count}", f"{mine:.2f}", f"{other:.2f}", f"{ratio:.3f}", met, "yes" if replayed else "no",
            operations(ended)]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--fusers", default="jmt,transformer,concat")
    parser.add_argument("--members", default=f"1,{MEMBERS}", help="as 1,5,10,32,128")
    parser.add_argument("--matmul", default="highest,high", help="of float32 products; high is TF32 on a GPU")
    parser.add_argument("--precision", choices=["float32", "bf16"], default="float32", help="bf16: autocast")
    parser.add_argument("--steps", type=int, default=0, help="a round; 0: 100 on a GPU, 3 on a CPU")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = harness.pick(options.device)
    options.steps = options.steps or (100 if device.type == "cuda" else 3)
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()}, CPU"
    print(
        f"{machine}, {options.threads} threads; torch {torch.__version__}, numpy {np.__version__}; {options.precision}"
    )
    data = samples(device)
    for matmul in options.matmul.split(","):
        torch.set_float32_matmul_precision(matmul)
        rows = [measure(fuser, int(count), data, options)
                for fuser in options.fusers.split(",") for count in options.members.split(",")]  # fmt: skip
        print(f"\nfloat32 products: {matmul}\n")
        head = ["fuser", "members", "ms a step", "ms a bare loop", "ratio", "goal", "replayed", "operations"]
        print(tabulate(rows, head, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()

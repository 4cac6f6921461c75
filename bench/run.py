"""Speed as ratios, measured in alternation in one process: `python bench/run.py [--device cuda] [--whole]`.

Every row compares two ways of doing the same work on the same tensors, taking turns, and prints the median ratio.
Seconds of a busy machine mean little; ratios of alternating measurements mean more.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import argparse
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate
from torch import nn

from fusionbench import engine, harness, search
from fusionbench.api import Batch, Spec, Stream
from fusionbench.engine import Member
from fusionbench.engine.model import statistics as split_statistics
from fusionbench.engine.recipe import order
from fusionbench.features.store import Features
from fusionbench.records import Record

LIGHT, HEAVY = ("concat", "gated", "low_rank"), ("jmt", "transformer")
Step = Callable[[], object]


def synchronised(device: torch.device, step: Step, steps: int) -> float:
    """Seconds a step."""
    began = time.perf_counter()
    for _ in range(steps):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - began) / steps


def ratio(device: torch.device, one: Step, other: Step, steps: int, rounds: int = 7) -> float:
    """Median of time(one) / time(other) over rounds in which they take turns."""
    for step in (one, other):
        synchronised(device, step, 3)
    return statistics.median(
        synchronised(device, one, steps) / synchronised(device, other, steps) for _ in range(rounds)
    )


def members(setup: harness.Setup, count: int) -> list[Member]:
    splits = setup.benchmark.splits(setup.data, 0)
    return [Member(0, seed, splits.train, splits.val, 1e-3) for seed in range(count)]


def stepper(setup: harness.Setup, count: int, data: Batch, device: torch.device) -> Step:
    """One optimiser step of `count` members in one program; the steps go round."""
    recipe = replace(setup.recipe, steps=200)
    program = engine.make_program(setup.trained, members(setup, count), data, recipe, device)
    one = engine.Graph(program) if engine.capturable(program) else program
    state = {"step": -1}

    def step() -> None:
        state["step"] = (state["step"] + 1) % 200
        one.step(state["step"])

    return step


def bare(setup: harness.Setup, data: Batch, device: torch.device) -> Step:
    """A hand-written loop over the same tensors: no masks in the loss, torch's own optimiser as it comes."""
    (who,) = members(setup, 1)
    model = setup.trained.build(0, split_statistics(data, torch.from_numpy(who.train).to(device)), len(who.train))
    model.to(device).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    rows = order(who, 200, setup.recipe.batch).to(device)
    streams, y = data.streams, data.y[:, 0]
    state = {"step": -1}

    def step() -> None:
        state["step"] = (state["step"] + 1) % 200
        row = rows[state["step"]]
        batch = Batch({m: Stream(s.x[row], s.mask[row]) for m, s in streams.items()}, data.y[row], data.y_mask[row])
        loss = nn.functional.cross_entropy(model(batch)[:, 0], y[row])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()

    return step


def against_a_bare_loop(device: torch.device) -> Iterator[list[str]]:
    for name in (*LIGHT, *HEAVY):
        setup = harness.setup("watch", name)
        data = setup.data.to(device)
        steps = 40 if name in LIGHT else 8
        found = ratio(device, stepper(setup, 1, data, device), bare(setup, data, device), steps)
        yield [f"{name}: engine, 1 member / bare loop", f"{found:.2f}"]


def against_in_turn(device: torch.device) -> Iterator[list[str]]:
    for name in (*LIGHT, *HEAVY):
        setup = harness.setup("watch", name)
        data = setup.data.to(device)
        alone = stepper(setup, 1, data, device)
        for count in (5, 10, 32) if name in LIGHT else (3, 9):
            found = ratio(device, stepper(setup, count, data, device), alone, max(2, 40 // count), rounds=5) / count
            yield [f"{name}: {count} members stacked / {count} in turn", f"{found:.2f}"]


def answering(device: torch.device) -> Iterator[list[str]]:
    """Ten models on the test samples of a fold: what `evaluate` does stacked on a GPU and one by one on a CPU."""
    for name in ("concat", "jmt"):
        setup = harness.setup("watch", name)
        data = setup.data.to(device)
        splits = harness.splits_of(setup, data, setup.run(0, 0))
        stats = split_statistics(data, torch.from_numpy(splits.train).to(device))
        models = [setup.trained.build(seed, stats, len(splits.train)).to(device) for seed in range(10)]
        test = data[splits.test]
        stacked = partial(engine.predict_stacked, models, [test] * 10)
        one_by_one = partial(lambda models, test: [engine.predict(model, test) for model in models], models, test)
        yield [f"{name}: 10 models answer stacked / one by one", f"{ratio(device, stacked, one_by_one, 2):.2f}"]


def over_samples(device: torch.device) -> Iterator[list[str]]:
    """A step costs the same however many samples there are."""
    setup = harness.setup("watch", "concat")
    small = stepper(setup, 1, setup.data.to(device), device)
    for times in (4, 40):
        rows = torch.arange(len(setup.data)).repeat(times)
        data = replace(setup.data, ids=[], groups=[])[rows].to(device)
        found = ratio(device, stepper(setup, 1, data, device), small, 40, rounds=5)
        yield [f"concat: a step with {len(rows):,} samples / {len(setup.data):,}", f"{found:.2f}"]


def from_disk(device: torch.device) -> Iterator[list[str]]:
    """Samples that stay in memory-mapped files, as encoded media do, against the same samples in memory."""
    setup = harness.setup("watch", "concat")
    rows = torch.arange(len(setup.data)).repeat(40)
    data = replace(setup.data, ids=[], groups=[])[rows]
    resident = stepper(setup, 1, data.to(device), device)
    with tempfile.TemporaryDirectory() as folder:
        streams = {}
        for m, stream in data.streams.items():
            parts = []
            for name, tensor in (("x", stream.x), ("mask", stream.mask)):
                path = Path(folder, f"{m}.{name}")
                tensor.numpy().tofile(path)
                parts.append(np.memmap(path, tensor.numpy().dtype, "r", shape=tuple(tensor.shape)))
            streams[m] = Features(m, *parts, range(len(rows)))
        mapped = stepper(setup, 1, replace(data, streams=streams).to(device), device)
        yield [f"concat: a step with {len(rows):,} samples on disk / in memory",
               f"{ratio(device, mapped, resident, 40, rounds=5):.2f}"]  # fmt: skip


def over_time(device: torch.device) -> Iterator[list[str]]:
    """Resident memory after 1,000 steps over after 200."""
    setup = harness.setup("watch", "concat")
    step = stepper(setup, 3, setup.data.to(device), device)
    sizes = []
    for _ in range(5):
        for _ in range(200):
            step()
        sizes.append(int(Path("/proc/self/statm").read_text().split()[1]))
    yield ["concat: resident memory after 1,000 steps / after 200", f"{sizes[-1] / sizes[0]:.2f}"]


def searching(device: torch.device) -> Iterator[list[str]]:
    """Trials whose inner folds, or that themselves, train as one program."""
    for name in ("concat", "gated"):
        setup = harness.setup("watch", name)
        ways: dict[str, dict[str, int]] = {"in turn": {"stacked": 1}, "one program": {}}
        if name == "concat":
            ways["4 trials at once"] = {"at_once": 4}
        taken: dict[str, list[float]] = {way: [] for way in ways}
        held = {"train": {"optimiser": "adamw", "warmup": 0.1}, "fuser": dict(setup.hparams["fuser"])}
        for _ in range(3):
            for way, how in ways.items():
                with tempfile.TemporaryDirectory() as folder:
                    began = time.perf_counter()
                    for _ in search.tune(setup, Path(folder), trials=4, folds=[0], seeds=1,
                                         given=held, device=str(device), **how):  # fmt: skip
                        pass
                    taken[way].append(time.perf_counter() - began)
        base = statistics.median(taken.pop("in turn"))
        for way, seconds in taken.items():
            yield [f"{name}: a search, 4 inner folds {way} / in turn", f"{statistics.median(seconds) / base:.2f}"]


def over_modalities(device: torch.device) -> Iterator[list[str]]:
    from fusionbench import registry

    for name in ("concat", "jmt"):
        steps = {}
        for count in (2, 3, 5):
            torch.manual_seed(0)
            spec = Spec("classify", {f"m{i}": 32 for i in range(count)}, 4)
            fuser = registry.load("fusers", name)(spec).to(device).train()
            mask = torch.ones(32, 10, dtype=torch.bool, device=device)
            streams = {m: Stream(torch.randn(32, 10, 32, device=device), mask) for m in spec.dims}
            steps[count] = lambda fuser=fuser, streams=streams: fuser(streams).sum().backward()
        for count in (3, 5):
            found = ratio(device, steps[count], steps[2], 20 if name == "concat" else 5, rounds=5)
            yield [f"{name}: forward and backward with {count} modalities / 2", f"{found:.2f}"]


def evaluation(device: torch.device) -> Iterator[list[str]]:
    with tempfile.TemporaryDirectory() as folder:
        for name in ("concat", "jmt"):
            setup = harness.setup("watch", name)
            events = harness.execute(
                setup, setup.runs([0], [0]), Path(folder), conditions=setup.benchmark.corruptions, device=str(device)
            )
            (done,) = [e for e in events if isinstance(e, Record)]
            found = done.seconds["evaluate"] / done.seconds["train"]
            yield [f"{name}: evaluation under {len(done.scores) - 2} conditions / training", f"{found:.2f}"]


def memory(device: torch.device) -> Iterator[list[str]]:
    """What members add to the peak, each count in a process of its own."""
    used = {}
    for count in (1, 10, 32):
        done = subprocess.run(
            [sys.executable, __file__, "--device", str(device), "--peak", str(count)],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        used[count] = float(done.stdout)
    for count in (10, 32):
        yield [f"gated: peak memory of {count} members / 1 ({used[1] / 1e6:.0f} MB)", f"{used[count] / used[1]:.2f}"]


def peak(count: int, device: torch.device) -> float:
    """Bytes: of the device, or of this whole process."""
    setup = harness.setup("watch", "gated")
    synchronised(device, stepper(setup, count, setup.data.to(device), device), 5)
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def first_step(device: torch.device) -> Iterator[list[str]]:
    code = "from fusionbench import harness; s = harness.setup('watch', 'concat'); harness.estimate"
    empty = "import torch"
    seconds = {}
    for text in (code, empty):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", text], check=True)
        seconds[text] = time.perf_counter() - began
    yield ["start-up: ready to train / import torch", f"{seconds[code] / seconds[empty]:.2f}"]


def whole(device: torch.device) -> Iterator[list[str]]:
    """4 fusers x 5 seeds x 5 folds with all corruptions: as it is chosen, over one member at a time."""
    for name in ("concat", "gated", "cross_attention", "jmt"):
        taken = []
        for stacked in (None, 1):
            setup = harness.setup("watch", name)
            with tempfile.TemporaryDirectory() as folder:
                conditions = setup.benchmark.corruptions
                runs = setup.runs(None, range(5))
                began = time.perf_counter()
                for _ in harness.execute(
                    setup, runs, Path(folder), conditions=conditions, device=str(device), stacked=stacked
                ):
                    pass
                taken.append(time.perf_counter() - began)
        yield [f"{name}: 25 runs, stacked as chosen / in turn ({taken[0]:.0f} s)", f"{taken[0] / taken[1]:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--whole", action="store_true", help="also 100 whole runs, which takes a while")
    parser.add_argument("--only", help="a part: searching, memory, over_samples, ...")
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = harness.pick(options.device)
    if options.peak:
        print(peak(options.peak, device))
        return
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()}, CPU"
    print(f"{machine}, {options.threads} threads; torch {torch.__version__}, numpy {np.__version__}")
    parts = [
        against_a_bare_loop, against_in_turn, evaluation, answering, searching, over_samples, from_disk,
        over_modalities, memory, over_time,
    ]  # fmt: skip
    chosen = [part for part in [*parts, first_step, *([whole] if options.whole else [])]
              if options.only in (None, part.__name__)]  # fmt: skip
    rows = [row for part in chosen for row in part(device)]
    print(tabulate(rows, ["what", "ratio"], tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()

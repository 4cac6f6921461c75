"""What is in a benchmark's data and what is wrong with it: shapes, gaps, balance, leaks, duplicates, dead columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import torch

from fusionbench import contract, harness, hparams, registry
from fusionbench.api import Batch, Benchmark, Stream
from fusionbench.check import benchmarks as kit
from fusionbench.check._tools import NotApplicable
from fusionbench.custom_data import leaks
from fusionbench.errors import UsageError
from fusionbench.harness.evaluate import check_conditions
from fusionbench.records.rows import REFERENCE
from fusionbench.text import counted

#: What begins a line about something that has to be mended, and about something to know.
WRONG, NOTE = "wrong: ", "note: "
#: Of the conformance kit, what says something about data rather than about a class.
CHECKS = (kit.shapes, kit.labels, kit.finite, kit.ids, kit.disjoint_samples, kit.folds, kit.duplicates)


def check(target: str, given: Mapping[str, Any] | None = None) -> list[str]:
    """The report on an .npz file, a folder with benchmark.toml, a .py plugin or a benchmark's name.

    `given` are the benchmark's settings, as `root` of one whose data lie elsewhere.

    Whatever has to be mended is a line that begins with `wrong: `; the last line counts them.

    Raises:
        UsageError: there is no such data, they cannot be read, or `run` would refuse them.
    """
    setup = harness.setup(target, REFERENCE, given={"benchmark": dict(given or {})})
    benchmark, data = setup.benchmark, _accepted(setup)
    plugin = registry.load("benchmarks", target)
    maker = partial(plugin, **hparams.fill(hparams.read(plugin), given or {}, setup.benchmark_name))
    lines = [*_overview(target, benchmark, data), *_streams(data), *_labels(benchmark, data)]
    lines += [f"{NOTE}{text}" for text in benchmark.notes]
    lines += [f"{NOTE}left out: {text}" for text in benchmark.skipped]
    lines += [*_kit(maker), *_leaks(benchmark, data), *_suspects(benchmark, data)]
    lines += [*_dead_columns(data), *_empty_rows(benchmark, data), *_advice(data)]
    wrong = sum(line.startswith(WRONG) for line in lines)
    return [*lines, f"{wrong} thing{'s are' if wrong != 1 else ' is'} wrong" if wrong else "nothing is wrong"]


def _accepted(setup: harness.Setup) -> Batch:
    """The data, after everything that `run` does to them before it trains: what it refuses is refused here."""
    benchmark, name = setup.benchmark, setup.benchmark_name
    frozen = any(getattr(backbone, "frozen", False) for backbone, _ in setup.blueprint.backbones.values())
    data = contract.load(benchmark, name) if frozen else setup.data  # encoding media may take hours
    for fold in range(benchmark.folds):
        contract.splits(benchmark, name, data, fold)
    if not frozen:
        run = setup.runs()[0]
        train = torch.from_numpy(harness.splits_of(setup, data, run).train)
        setup.trained.begin(run.seed, data, train)
        check_conditions(setup, run, data, benchmark.corruptions)
    return data


def _overview(target: str, benchmark: Benchmark, data: Batch) -> Iterator[str]:
    sizes = np.unique(np.asarray(data.groups), return_counts=True)[1]
    task, kind = benchmark.task, f"{benchmark.task.out} {'classes' if benchmark.task.kind == 'classify' else 'values'}"
    groups = f"{counted(len(sizes), benchmark.unit)} ({sizes.min()} to {sizes.max()} each)"
    yield f"{target}: {len(data)} samples of {groups}, {counted(benchmark.folds, 'fold')}"
    clock = f"every frame, {data.y.shape[1]} at most" if task.per_frame else "a sample"
    yield f"task: {task.kind}, {kind} {clock}; ranked by {task.metrics[0]}"
    if benchmark.transductive:
        yield f"{NOTE}transductive: {benchmark.transductive}"
    if benchmark.subject_dependent:
        yield f"{NOTE}subject dependent: {benchmark.subject_dependent}"


def _streams(data: Batch) -> Iterator[str]:
    for m, stream in data.streams.items():
        if not isinstance(stream, Stream):
            yield f"{m}: {tuple(stream.shape)}, raw media, read when needed"
            continue
        absent = 1 - float(stream.present.float().mean())
        steps = 1 - float(stream.mask[stream.present].float().mean())
        yield (
            f"{m}: {stream.shape[0]} steps of {tuple(stream.shape[1:])}; missing in {absent:.1%} of the samples, "
            f"{steps:.1%} of the steps of the others (padding included)"
        )


def _labels(benchmark: Benchmark, data: Batch) -> Iterator[str]:
    valid = data.y[data.y_mask]
    unlabelled = f"; {1 - float(data.y_mask.float().mean()):.1%} without a label"
    if benchmark.task.kind == "classify":
        names = benchmark.classes or range(benchmark.task.out)
        counts = torch.bincount(valid.clamp(min=0), minlength=benchmark.task.out)
        shares = ", ".join(f"{name} {int(c) / max(1, len(valid)):.0%}" for name, c in zip(names, counts, strict=False))
        yield f"labels: {shares}{unlabelled}"
        if counts.max() > 0.8 * len(valid):
            yield f"{NOTE}one class has {int(counts.max()) / len(valid):.0%} of the labels: accuracy says little"
        return
    for k in range(benchmark.task.out):
        v = valid[:, k]
        spread = float(v.std()) if len(v) > 1 else 0.0
        yield f"label {k}: {v.min():.4g} to {v.max():.4g}, mean {v.mean():.4g}, SD {spread:.4g}{unlabelled}"


def _kit(maker: Any) -> Iterator[str]:
    """What the kit's checks of data find; a check that says why it does not apply finds nothing."""
    for function in CHECKS:
        try:
            function(maker)
        except NotApplicable:
            continue
        except (AssertionError, UsageError) as error:
            yield f"{WRONG}{error}"


def _leaks(benchmark: Benchmark, data: Batch) -> Iterator[str]:
    """People who stand on two sides of a split, fold by fold."""
    if benchmark.subject_dependent and len(set(data.groups)) == len(data):
        return  # no groups were given: nothing to find, and said above
    with suppress(UsageError):  # said by the check of folds
        yield from (f"{WRONG}{crossing}" for crossing in leaks.crossing(benchmark, data))


def _suspects(benchmark: Benchmark, data: Batch) -> Iterator[str]:
    """Columns that give the label or the group away."""
    for suspect in leaks.suspects(benchmark.task, data):
        yield f"{WRONG}{suspect}"


def _empty_rows(benchmark: Benchmark, data: Batch) -> Iterator[str]:
    """Samples in which a sensor says nothing but zero: off, rather than at rest; where flags say so, all is well."""
    for m, stream in data.streams.items():
        if isinstance(stream, Stream) and stream.x[0].numel() > 1 and m not in benchmark.indicators:
            zero = stream.present & (stream.x.flatten(1) == 0).all(1)
            if zero.any() and not zero[stream.present].all():
                first = data.ids[int(zero.int().argmax())]
                yield (
                    f"{NOTE}{m}: {int(zero.sum())} sample{'s are' if zero.sum() > 1 else ' is'} zero throughout (as "
                    f"{first}): if nothing was measured there, mask it"
                )


def _dead_columns(data: Batch) -> Iterator[str]:
    for m, stream in data.streams.items():
        if not isinstance(stream, Stream):
            continue
        x = stream.x[stream.mask].flatten(1)
        constant = torch.nonzero(x.amax(0) == x.amin(0)).flatten().tolist() if len(x) else []
        if constant:
            spelled = ", ".join(map(str, constant[:8])) + (" ..." if len(constant) > 8 else "")
            yield f"{NOTE}{m}: {len(constant)} constant column{'s' * (len(constant) > 1)} (from 0): {spelled}"


def _advice(data: Batch) -> Iterator[str]:
    digests = [digest for digest in kit._digests(data) if digest]
    if len(set(digests)) < len(digests):
        yield f"{NOTE}{len(digests) - len(set(digests))} samples have the same values as another one"
    for m, stream in data.streams.items():
        if stream.shape[0] > 1000:
            yield f"{NOTE}{m}: {stream.shape[0]} steps are slow to train on: frame the signal, (N, T / 50, 50 D)"

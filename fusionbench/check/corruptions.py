"""The contract of a corruption: a pure function of streams, severity and keys, honest about what it takes away."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from fusionbench.api import Context, Stream, Streams, keyed
from fusionbench.check import _tools as tools
from fusionbench.check._tools import Check, NotApplicable, pad
from fusionbench.errors import UsageError

LEVELS = ("feature", "crossmodal", "audio", "image", "biosignal")
ROWS = 12  # samples in the checks that compare sample with sample


def material(plugin: Any, rows: int | None = ROWS) -> tuple[Streams, Context]:
    """Suitable streams, the first `rows` samples of each: what its `example()` gives, else ragged random walks."""
    suited = plugin.example()
    if suited is not None:
        streams, context = suited
    else:
        streams = {m: _walk(seed, width) for seed, (m, width) in enumerate({"left": 4, "right": 3}.items())}
        context = Context(
            {m: torch.ones(s.shape[1:]) for m, s in streams.items()}, dict.fromkeys(streams, 50.0), streams
        )
    return ({m: s[torch.arange(min(rows, len(s)))] for m, s in streams.items()} if rows else dict(streams)), context


def _walk(seed: int, width: int) -> Stream:
    """40 ragged random walks of 400 steps: slow enough that a delay shows."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(40, 400, width, generator=generator).cumsum(1)
    x = (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True)
    return Stream(x, torch.arange(400) < 400 - 20 * (torch.arange(40)[:, None] % 5))


def make_keys(plugin: Any, streams: Streams, seed: int = 0) -> dict[str, Tensor]:
    """A key a sample and modality, as `fusionbench.corruptions.keys` gives them, but made from row numbers."""
    return {
        m: keyed.mix(torch.arange(len(s), dtype=torch.int32) + keyed.number(plugin.name, seed, m))
        for m, s in streams.items()
    }


def _apply(
    plugin: Any, streams: Streams, severity: int, context: Context, seed: int = 0, target: str = "all"
) -> Streams:
    result: Streams = plugin(target).apply(dict(streams), severity, make_keys(plugin, streams, seed), context)
    return result


def _top(plugin: Any) -> int:
    return len(plugin.ladder)


def declared(plugin: Any) -> None:
    """It has a name, says whether it is announced, names a known level, and its ladder climbs or falls throughout."""
    assert isinstance(plugin.name, str), "its name is no string"
    assert plugin.name.replace("_", "").isalnum(), f"its name {plugin.name!r} is not of letters, digits and _"
    assert isinstance(plugin.announced, bool), "announced is neither True nor False"
    assert plugin.level in LEVELS, f"its level {plugin.level!r} is none of {', '.join(LEVELS)}"
    ladder = list(plugin.ladder)
    assert ladder, "its ladder is empty"
    climbs = [after > before for before, after in pairwise(ladder)]
    assert all(climbs) or not any(climbs), f"its ladder {ladder} turns round"
    assert len(set(ladder)) == len(ladder), f"its ladder {ladder} has a step twice"


def identity(plugin: Any) -> None:
    """Severity 0 is the identity to the bit."""
    streams, context = material(plugin)
    tools.same_streams(_apply(plugin, streams, 0, context), streams, "at severity 0")


def shape(plugin: Any) -> None:
    """Damaged streams have the modalities, shapes and types of the given ones, and their numbers are finite."""
    streams, context = material(plugin)
    for severity in range(1, _top(plugin) + 1):
        damaged = _apply(plugin, streams, severity, context)
        assert list(damaged) == list(streams), f"the modalities are {list(damaged)}, were {list(streams)}"
        for m, s in streams.items():
            got = damaged[m]
            assert isinstance(got, Stream), f"{m} is a {type(got).__name__}, not a Stream"
            assert got.x.shape == s.x.shape, f"{m} is {tuple(got.x.shape)}, was {tuple(s.x.shape)}"
            assert got.x.dtype == s.x.dtype, f"{m} is {got.x.dtype}, was {s.x.dtype}"
            tools.finite(got.x, f"{m} at severity {severity}")


def grows(plugin: Any) -> None:
    """The distance from clean is above 0 at severity 1 and never shrinks as severity grows, averaged over samples."""
    streams, context = material(plugin, 2000)
    before = 0.0
    for severity in range(1, _top(plugin) + 1):
        distance = _distance(streams, _apply(plugin, streams, severity, context))
        assert distance > 0, f"nothing changes at severity {severity}"
        assert distance >= 0.99 * before, (
            f"severity {severity} is milder ({distance:.3g}) than the one before ({before:.3g})"
        )
        before = distance


def _distance(clean: Streams, damaged: Streams) -> float:
    """Root mean square change of the steps that are still real, in SD of the clean ones, plus the share lost."""
    total = 0.0
    for m, s in clean.items():
        kept = damaged[m].mask & s.mask
        change = torch.where(kept, (damaged[m].x.double() - s.x.double()).pow(2).flatten(2).mean(2), 0.0)
        spread = s.x[s.mask].double().var().clamp(min=1e-12)
        lost = (s.mask & ~damaged[m].mask).sum() / s.mask.sum().clamp(min=1)
        total += float((change.sum() / s.mask.sum().clamp(min=1) / spread).sqrt() + lost)
    return total


def same_draws(plugin: Any) -> None:
    """A sample meets the same damage whatever the batch, its order, and whoever drew before."""
    streams, context = material(plugin)
    size = min(len(s) for s in streams.values())
    keys = make_keys(plugin, streams)
    for severity in {1, _top(plugin)}:
        whole = _apply(plugin, streams, severity, context)
        torch.manual_seed(99)
        for rows in (list(range(size)), list(reversed(range(size))), [size - 1], [0, size // 2]):
            index = torch.tensor(rows)
            part = {m: s[index] for m, s in streams.items()}
            got = plugin("all").apply(part, severity, {m: k[index] for m, k in keys.items()}, context)
            for m in streams:
                what = f"{m} of samples {rows} by themselves, at severity {severity}"
                tools.same(got[m].x, whole[m].x[index], what, 1e-6)
                assert torch.equal(got[m].mask, whole[m].mask[index]), f"{what}: another mask"


def keyed_draws(plugin: Any) -> None:
    """Draws come from the keys: other keys give other damage, and no generator is called."""
    streams, context = material(plugin)
    severity = _top(plugin)
    with tools.untouched_random("the damage"), _no_generators():
        first = _apply(plugin, streams, severity, context)
    second = _apply(plugin, streams, severity, context, seed=1)
    if all(torch.equal(first[m].x, second[m].x) and torch.equal(first[m].mask, second[m].mask) for m in streams):
        raise NotApplicable("it draws nothing: the damage is the same under all keys")


@contextmanager
def _no_generators() -> Iterator[None]:
    """Whoever makes a generator of his own meanwhile is told to use the keys."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("it makes a random generator of its own: draw with api.keyed from the given keys")

    with ExitStack() as stack:
        for owner, name in (
            (torch, "Generator"),
            (torch, "manual_seed"),
            (np.random, "default_rng"),
            (np.random, "RandomState"),
            (np.random, "seed"),
            (random, "Random"),
            (random, "seed"),
        ):
            stack.enter_context(mock.patch.object(owner, name, refuse))
        yield


def modalities_differ(plugin: Any) -> None:
    """Two modalities are damaged each by its own draws, not both by the same."""
    streams, context = material(plugin)
    first = next(iter(streams))
    twins = _twice(streams, first)
    context = Context(_twice(context.sd, first), _twice(context.rates, first), dict(_twice(context.others, first)))
    damaged = _apply(plugin, twins, _top(plugin), context)
    other = _apply(plugin, twins, _top(plugin), context, seed=1)
    if torch.equal(damaged["one"].x, other["one"].x) and torch.equal(damaged["two"].x, other["two"].x):
        raise NotApplicable("it draws nothing: the damage is the same under all keys")
    equal = torch.equal(damaged["one"].x, damaged["two"].x) and torch.equal(damaged["one"].mask, damaged["two"].mask)
    assert not equal, "two modalities with keys of their own got the same draws"


def _twice(table: Mapping[str, Any], first: str) -> dict[str, Any]:
    return {twin: table[first] for twin in ("one", "two")} if first in table else {}


def only_target(plugin: Any) -> None:
    """A damage of one modality leaves the others as they are, and `all` damages every one."""
    streams, context = material(plugin)
    if len(streams) < 2:
        first = next(iter(streams))
        streams = {first: streams[first], "bystander": streams[first]}
    target = next(iter(streams))
    damaged = _apply(plugin, streams, _top(plugin), context, target=target)
    rest = [m for m in streams if m != target]
    tools.same_streams({m: damaged[m] for m in rest}, {m: streams[m] for m in rest}, f"under damage of {target}")
    assert _distance({target: streams[target]}, damaged) > 0, f"{target} itself is not damaged"


def input_untouched(plugin: Any) -> None:
    """Streams, keys and context are not written to."""
    streams, context = material(plugin)
    keys = make_keys(plugin, streams)
    before, before_keys = tools.copied(streams), {m: k.clone() for m, k in keys.items()}
    before_sd, before_others = {m: v.clone() for m, v in context.sd.items()}, tools.copied(context.others)
    plugin("all").apply(streams, _top(plugin), keys, context)
    tools.same_streams(streams, before, "after damage")
    tools.same_streams(context.others, before_others, "the context after damage")
    assert all(torch.equal(keys[m], before_keys[m]) for m in keys), "the keys were written to"
    assert all(torch.equal(context.sd[m], before_sd[m]) for m in context.sd), "the context was written to"


def value_range(plugin: Any) -> None:
    """Images within 0 and 1 stay there."""
    if plugin.level != "image":
        raise NotApplicable(f"values of level {plugin.level} have no bounds")
    streams, context = material(plugin)
    for m, s in list(streams.items()):
        low, high = s.x[s.mask].min(), s.x[s.mask].max()
        streams[m] = Stream((s.x - low) / (high - low).clamp(min=1e-6), s.mask)  # from black to white
    for severity in range(1, _top(plugin) + 1):
        for m, s in _apply(plugin, streams, severity, context).items():
            least, most = float(s.x.min()), float(s.x.max())
            assert least >= -1e-6, f"{m} at severity {severity} falls to {least:.3g}"
            assert most <= 1 + 1e-6, f"{m} at severity {severity} reaches {most:.3g}"


def honest_label(plugin: Any) -> None:
    """Announced: only the mask tells, it shrinks and what is left is unchanged. Silent: the mask stays as it was."""
    streams, context = material(plugin, 200)
    for severity in range(1, _top(plugin) + 1):
        damaged = _apply(plugin, streams, severity, context)
        lost = 0
        for m, s in streams.items():
            got = damaged[m]
            assert not (got.mask & ~s.mask).any(), f"{m}: steps that were masked became real"
            if not plugin.announced:
                assert torch.equal(got.mask, s.mask), f"{m}: it calls itself silent, but the mask changed"
                continue
            lost += int((s.mask & ~got.mask).sum())
            still = got.mask.reshape(*got.mask.shape, *[1] * (s.x.dim() - 2))
            unchanged = torch.equal(torch.where(still, got.x, 0.0), torch.where(still, s.x, 0.0))
            assert unchanged, f"{m}: it calls itself announced, but values changed where the mask is still True"
        assert lost or not plugin.announced, f"it calls itself announced, but the mask stays at severity {severity}"


def realised_rate(plugin: Any) -> None:
    """The amount of damage measured by `realised` lies within 5 % of the ladder's."""
    streams, context = material(plugin, None)
    if plugin.realised(*[next(iter(streams.values()))] * 2) is None:
        raise NotApplicable("its `realised(before, after)`, the measured amount of damage, says nothing")
    for severity, amount in enumerate(plugin.ladder, 1):
        damaged = _apply(plugin, streams, severity, context)
        for m, s in streams.items():
            got = float(plugin.realised(s, damaged[m]))
            near = abs(got - amount) <= 0.05 * max(abs(amount), 1.0 if amount == 0 else 0.0)
            assert near, f"{m} at severity {severity}: {got:.4g} was realised, the ladder says {amount:g}"


def refuses(plugin: Any) -> None:
    """NaN, an empty stream, an unknown modality and a severity off the ladder are refused with a UsageError."""
    streams, context = material(plugin, 4)
    holed = {m: Stream(s.x.clone().index_fill(1, torch.tensor([0]), float("nan")), s.mask) for m, s in streams.items()}
    empty = {m: s[torch.arange(0)] for m, s in streams.items()}
    cases: list[tuple[str, Streams, int, str]] = [
        ("NaN in a real step", holed, 1, "all"),
        ("an empty stream", empty, 1, "all"),
        ("an unknown modality", streams, 1, "nobody"),
        ("severity -1", streams, -1, "all"),
        (f"severity {_top(plugin) + 1}", streams, _top(plugin) + 1, "all"),
    ]
    for what, given, severity, target in cases:
        try:
            _apply(plugin, given, severity, context, target=target)
        except UsageError:
            continue
        raise AssertionError(f"{what} is not refused")


def padding(plugin: Any) -> None:
    """The amount of padding changes nothing, and padding stays masked."""
    streams, context = material(plugin)
    longer = {m: pad(s, 7) for m, s in streams.items()}
    for severity in {1, _top(plugin)}:
        want, got = _apply(plugin, streams, severity, context), _apply(plugin, longer, severity, context)
        for m, s in streams.items():
            steps = s.x.shape[1]
            assert not got[m].mask[:, steps:].any(), f"{m}: padding became real"
            assert torch.equal(got[m].mask[:, :steps], want[m].mask), f"{m}: the mask depends on the amount of padding"
            tools.same(got[m].x[:, :steps], want[m].x, f"{m} at severity {severity}, with more padding")


def absent(plugin: Any) -> None:
    """A sample without the modality stays without it, its numbers finite."""
    streams, context = material(plugin)
    gone = {m: s.absent() for m, s in streams.items()}
    for m, s in _apply(plugin, gone, _top(plugin), context).items():
        assert not s.mask.any(), f"{m}: steps of an absent modality became real"
        tools.finite(s.x, f"{m}, absent")


def device(plugin: Any) -> None:
    """On a GPU the masks are the same and the values within 1e-6."""
    if not torch.cuda.is_available():
        raise NotApplicable("there is no CUDA device here")
    streams, context = material(plugin)
    there = {m: s.to("cuda") for m, s in streams.items()}
    moved = Context(context.sd, context.rates, {m: s.to("cuda") for m, s in context.others.items()})
    want = _apply(plugin, streams, _top(plugin), context)
    got: Mapping[str, Stream] = plugin("all").apply(there, _top(plugin), make_keys(plugin, streams), moved)
    for m in streams:
        assert got[m].x.is_cuda, f"{m} left the device"
        assert torch.equal(got[m].mask.cpu(), want[m].mask), f"{m}: another mask on the GPU"
        tools.same(got[m].x.cpu(), want[m].x, f"{m} on the GPU", 1e-6)


CHECKS: list[Check] = [
    declared,
    identity,
    shape,
    grows,
    same_draws,
    keyed_draws,
    modalities_differ,
    only_target,
    input_untouched,
    value_range,
    honest_label,
    realised_rate,
    refuses,
    padding,
    absent,
    device,
]

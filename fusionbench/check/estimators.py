"""The contract of an estimator: it is fitted on tiny ragged data, and what must hold of its answers is asserted."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from fusionbench import hparams
from fusionbench.api import FLOOR, Batch, Spec, Stream
from fusionbench.check import _tools as tools
from fusionbench.check._problems import WIDTHS, exclusive_or, make_batch, swap
from fusionbench.check._tools import Check, pad

SIZE = 40  # samples that it learns from, of PEOPLE people
PEOPLE = 8


def _specs(modalities: int = 3) -> list[tuple[str, Spec]]:
    """Every kind of task; the first modality's rate is known."""
    dims = dict(list(WIDTHS.items())[:modalities])
    return [
        (f"{kind}, {'per frame' if per_frame else 'clip'}", Spec(kind, dims, 3, per_frame, SIZE, {"video": 4.0}))
        for kind in ("classify", "regress")
        for per_frame in (False, True)
    ]


def _samples(spec: Spec, size: int = SIZE, seed: int = 0, **given: Any) -> Batch:
    return replace(make_batch(spec, size, seed=seed, **given), groups=[i % PEOPLE for i in range(size)])


def _fitted(plugin: Any, spec: Spec, train: Batch | None = None, seed: int = 0, **given: Any) -> Any:
    model = plugin(spec, **{**tools.few(plugin), **given})
    model.fit(train or _samples(spec), _samples(spec, seed=1), seed)
    return model


def _answers(model: Any, streams: Mapping[str, Stream]) -> torch.Tensor:
    found = model.predict(dict(streams))
    assert isinstance(found, np.ndarray), f"predict returns {type(found).__name__}, not an array"
    return torch.from_numpy(found)


def _same(got: torch.Tensor, want: torch.Tensor, what: str) -> None:
    tools.same(got, want, what, 1e-5)


def hyperparameters(plugin: type) -> None:
    """Every hyper-parameter has a type, a default, a help text and, if it is a number, a range or choice."""
    tools.declarations(plugin)


def grid(plugin: Any) -> None:
    """The grid names hyper-parameters and gives each a few numbers of its type, the default among them."""
    declared = hparams.read(plugin)
    for name, values in plugin.grid.items():
        assert name in declared, f"the grid names {name!r}, which is no hyper-parameter"
        for value in values:
            assert isinstance(value, numbers.Real), f"the grid of {name} has {value!r}, which is no number"
            declared[name].parse(value)
        assert declared[name].default in values, f"the default of {name} is not in its grid {tuple(values)}"
    combinations = int(np.prod([len(values) for values in plugin.grid.values()]))
    assert combinations <= 12, f"the grid has {combinations} combinations: a few, or it is a search"


def shape(plugin: type) -> None:
    """Answers are (B, S, out) finite numbers, S = 1 for a clip and T per frame, for every task and a batch of one."""
    for task, spec in _specs():
        model = _fitted(plugin, spec)
        for size in (4, 1):
            answers = _answers(model, _samples(spec, size, seed=2).streams)
            want = (size, 6 if spec.per_frame else 1, spec.out)
            assert tuple(answers.shape) == want, f"{task}: answers are {tuple(answers.shape)}, not {want}"
            tools.finite(answers, f"{task}: answers")


def corners(plugin: type) -> None:
    """Both ends of every declared range construct, fit and answer."""
    for settings in tools.corners(plugin):
        # Many trees take long, and are alike: one modality and one kind of task are enough to see that they construct.
        specs = _specs(1)[:1] if settings.keys() & {*tools.REPEATED} else _specs()[::2]
        with tools.setting(settings):
            for spec in (spec for _, spec in specs):
                tools.finite(_answers(_fitted(plugin, spec, **settings), _samples(spec, 4).streams), "answers")


def modalities(plugin: type) -> None:
    """It fuses 1, 2 and 5 modalities."""
    for count in (1, 2, 5):
        for task, spec in _specs(count):
            tools.finite(_answers(_fitted(plugin, spec), _samples(spec, 4).streams), f"{count} modalities, {task}")


def lengths(plugin: type) -> None:
    """Clips are of other lengths than those of training, of one step too, and each modality may have its own."""
    _, spec = _specs()[0]
    for steps in (6, 1, (7, 3, 1)):
        model = _fitted(plugin, spec, _samples(spec, steps=steps))
        for other in (1, 30, (1, 16, 40)):
            answers = _answers(model, _samples(spec, 4, steps=other).streams)
            tools.finite(answers, f"fitted on T = {steps}, asked on T = {other}: answers")


def log_probabilities(plugin: type) -> None:
    """Answers to a classification are logarithms of probabilities, none below 1e-6, that add up to one."""
    for task, spec in _specs()[:2]:
        answers = _answers(_fitted(plugin, spec), _samples(spec, 8, seed=2).streams).double()
        total = answers.exp().sum(-1)
        assert (total - 1).abs().max() < 1e-3, f"{task}: probabilities add up to {float(total.max()):.3g}"
        assert answers.min() >= np.log(FLOOR) - 1e-6, f"{task}: a probability is below {FLOOR:g}"


def missing_class(plugin: type) -> None:
    """A class of which training has no sample gets a small probability; a single class, and all labels masked, fit."""
    for task, spec in _specs()[:2]:
        train = _samples(spec)
        for what, y in (("class 1 has no sample", 2 * (train.y > 0)), ("one class only", torch.full_like(train.y, 2))):
            answers = _answers(_fitted(plugin, spec, replace(train, y=y)), train.streams)
            tools.finite(answers, f"{task}, {what}: answers")
            likely = float(answers[..., 1].exp().max())
            assert likely < 0.01, f"{task}, {what}: it gets probability {likely:.2g}"
        none = replace(train, y_mask=torch.zeros_like(train.y_mask))
        tools.finite(_answers(_fitted(plugin, spec, none), train.streams), f"{task}, nothing labelled: answers")


def label_mask(plugin: type) -> None:
    """A label under a False `y_mask` teaches nothing, whatever number stands there."""
    for task, spec in _specs():
        train = _samples(spec)
        y_mask = train.y_mask.clone()
        y_mask[::3] = False
        train = replace(train, y_mask=y_mask)
        other = replace(train)
        wide = y_mask if spec.kind == "classify" else y_mask[..., None]
        object.__setattr__(other, "y", torch.where(wide, train.y, torch.full_like(train.y, 2)))  # Batch would clear it
        got, want = (_answers(_fitted(plugin, spec, b), train.streams) for b in (other, train))
        _same(got, want, f"{task}: answers, another label where y_mask is False")


def padding(plugin: type) -> None:
    """The amount of padding, in training or in use, changes no answer."""
    for task, spec in _specs():
        train, test = _samples(spec), _samples(spec, 6, seed=2)
        extra = 5 if spec.per_frame else 0
        filler = torch.zeros(SIZE, extra, *train.y.shape[2:], dtype=train.y.dtype)
        y, y_mask = torch.cat([train.y, filler], 1), torch.cat([train.y_mask, torch.zeros(SIZE, extra).bool()], 1)
        padded = replace(swap(train, lambda s: pad(s, 5)), y=y, y_mask=y_mask)
        model = _fitted(plugin, spec, train)
        want, real = _answers(model, test.streams), test.y_mask[..., None]
        for what, answers in (
            ("asked about padded samples", _answers(model, swap(test, lambda s: pad(s, 5)).streams)),
            ("fitted on padded samples", _answers(_fitted(plugin, spec, padded), test.streams)),
        ):
            got = answers[:, : want.shape[1]]
            _same(torch.where(real, got, 0.0), torch.where(real, want, 0.0), f"{task}: answers, {what}")


def absent(plugin: type) -> None:
    """Any modality may be absent, in use and in training; with nothing real the answer is the training prior."""
    for task, spec in _specs():
        train, test = _samples(spec), _samples(spec, 4, seed=2, ragged=False)
        model = _fitted(plugin, spec, train)
        for gone in spec.dims:
            streams = {m: s.absent() if m == gone else s for m, s in test.streams.items()}
            tools.finite(_answers(model, streams), f"{task}, without {gone}: answers")
            never = replace(train, streams={**train.streams, gone: train.streams[gone].absent()})
            tools.finite(_answers(_fitted(plugin, spec, never), test.streams), f"{task}, {gone} never seen: answers")
        answers = _answers(model, swap(test, Stream.absent).streams)
        labels = train.y[train.y_mask]
        if spec.kind == "regress":
            want = labels.mean(0)
        else:
            want = (torch.bincount(labels, minlength=spec.out) / len(labels)).clamp(min=FLOOR).log()
        _same(answers, want.expand_as(answers), f"{task}: answers where every modality is absent (the training prior)")


def samples_independent(plugin: type) -> None:
    """A sample's answer is the same alone, in another order, and among any neighbours."""
    for task, spec in _specs():
        model, test = _fitted(plugin, spec), _samples(spec, 6, seed=2)
        whole = _answers(model, test.streams)
        for row in range(len(test)):
            _same(_answers(model, test[[row]].streams), whole[[row]], f"{task}: the answer of sample {row} alone")
        order = [2, 5, 0, 4, 3, 1]
        _same(_answers(model, test[order].streams), whole[order], f"{task}: answers of the permuted batch")


def dict_order(plugin: type) -> None:
    """Streams are found by the name of their modality, not by their place in the dictionary."""
    for task, spec in _specs():
        spec = replace(spec, dims=dict.fromkeys(spec.dims, 4))
        model, test = _fitted(plugin, spec), _samples(spec, 6, seed=2)
        turned = dict(reversed(list(test.streams.items())))
        _same(_answers(model, turned), _answers(model, test.streams), f"{task}: answers, streams in reverse order")


def every_modality_matters(plugin: type) -> None:
    """Every modality that tells the label moves the answers."""
    _, spec = _specs()[0]
    train = _samples(spec, ragged=False)
    shift = (train.y[..., None] - 1.0) * 4
    train = swap(train, lambda s: Stream(s.x + shift, s.mask))
    model = _fitted(plugin, spec, train, **tools.smallest(plugin))  # of a few trees one may meet no split on a modality
    before = _answers(model, train.streams)
    for m in spec.dims:
        mixed = {**train.streams, m: train.streams[m][torch.arange(SIZE).roll(SIZE // 2)]}
        assert not torch.equal(_answers(model, mixed), before), f"answers are the same with {m} of other samples"


def repeatable(plugin: type) -> None:
    """The same seed gives the same answers, whatever was asked before; no global random state is read or moved."""
    for task, spec in _specs():
        test, other = _samples(spec, 6, seed=2), _samples(spec, 6, seed=3)
        with tools.untouched_random(f"{task}: it"):
            first = _fitted(plugin, spec, seed=5)
            want = _answers(first, test.streams)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(99)
            second = _fitted(plugin, spec, seed=5)
        _answers(second, swap(other, Stream.absent).streams)
        _answers(second, {m: s.absent() if m == "audio" else s for m, s in other.streams.items()})
        _same(_answers(second, test.streams), want, f"{task}: answers of a second fit with the same seed")


def inputs_untouched(plugin: type) -> None:
    """Neither the streams, their dictionary nor the labels are written to."""
    for task, spec in _specs():
        train, test = _samples(spec), dict(_samples(spec, 6, seed=2).streams)
        before, learned, y = tools.copied(test), tools.copied(train.streams), train.y.clone()
        _fitted(plugin, spec, train).predict(test)
        tools.same_streams(test, before, f"{task}, after predict")
        tools.same_streams(train.streams, learned, f"{task}, after fit")
        assert torch.equal(train.y, y), f"{task}: fit wrote to the labels"


def learned(plugin: type) -> None:
    """`learned` is a count."""
    count = _fitted(plugin, _specs()[0][1]).learned()
    assert isinstance(count, int), f"learned() gives {type(count).__name__}"
    assert count >= 0, f"learned() gives {count}"


def solves_xor(plugin: type) -> None:
    """It learns exclusive-or of two modalities: at least 90 % on fresh samples."""
    spec = Spec("classify", dict(list(WIDTHS.items())[:2]), 2, False, 512)
    train, val, fresh = exclusive_or(spec, 512, 0), exclusive_or(spec, 128, 2), exclusive_or(spec, 256, 1)
    model = plugin(spec)
    model.fit(replace(train, groups=[i % PEOPLE for i in range(512)]), val, 0)
    right = float((_answers(model, fresh.streams).argmax(-1) == fresh.y).float().mean())
    assert right >= 0.9, f"it answers {right:.0%} of fresh samples correctly (chance is 50%)"


CHECKS: list[Check] = [
    hyperparameters,
    grid,
    shape,
    corners,
    modalities,
    lengths,
    log_probabilities,
    missing_class,
    label_mask,
    padding,
    absent,
    samples_independent,
    dict_order,
    every_modality_matters,
    repeatable,
    inputs_untouched,
    learned,
    solves_xor,
]

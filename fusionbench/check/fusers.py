"""The contract of a fuser: tiny ragged data go in, and what must hold is asserted."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fusionbench.api import Batch, Spec, Stream, keyed
from fusionbench.check import _tools as tools
from fusionbench.check._problems import (
    accuracy,
    answers_of,
    backward,
    both,
    exclusive_or,
    loss_of,
    make_batch,
    make_spec,
    swap,
    task_loss,
)
from fusionbench.check._stacking import stackable
from fusionbench.check._tools import Check, NotApplicable, build, finite, pad, quiet, same

# ------------------------------------------------------------------------------------------------- what it must accept


def hyperparameters(plugin: type) -> None:
    """Every hyper-parameter has a type, a default, a help text and, if it is a number, a range or choice."""
    tools.declarations(plugin)


def shape(plugin: type) -> None:
    """Answers are (B, S, out) numbers, S = 1 for a clip and T per frame, for a batch of one too."""
    for task, spec in both(plugin):
        model = build(plugin, spec)
        for size in (4, 1):
            batch = make_batch(spec, size)
            for training in (False, True):
                answers = model.train(training)(batch.streams)
                where = f"{task}, batch of {size}, {'training' if training else 'evaluation'}"
                assert isinstance(answers, Tensor), f"{where}: forward returns {type(answers).__name__}, not a tensor"
                want = (size, 6 if spec.per_frame else 1, spec.out)
                assert tuple(answers.shape) == want, f"{where}: answers are {tuple(answers.shape)}, not {want}"
                assert answers.is_floating_point(), f"{where}: answers are {answers.dtype}"
                finite(answers, f"{where}: answers")
            finite(loss_of(model, batch), f"{task}, batch of {size}: loss")


def corners(plugin: type) -> None:
    """Both ends of every declared range construct, answer and train, blind to padding and to neighbours."""
    spec = make_spec(plugin)
    batch = make_batch(spec)
    usual = build(plugin, spec)
    blind = tools.holds(lambda: _blind(usual, batch, answers_of(usual, batch.streams)))  # else that of other checks
    for settings in tools.corners(plugin):
        with tools.setting(settings):
            model = build(plugin, spec, **settings)
            answers = answers_of(model, batch.streams)
            assert answers.shape == (4, 1, spec.out), f"answers are {tuple(answers.shape)}, not {(4, 1, spec.out)}"
            if blind:
                _blind(model, batch, answers)
            for name, gradient in backward(model.train(), batch).items():
                finite(gradient, f"gradient of {name}")


def _blind(model: Any, batch: Batch, answers: Tensor) -> None:
    padded = swap(batch, lambda s: pad(s, 5))
    same(answers_of(model, padded.streams), answers, "answers after more padding")
    same(answers_of(model, batch[[3]].streams), answers[3:], "the answer of a sample alone, not in its batch")


def modalities(plugin: type) -> None:
    """It fuses 1, 2, 3, 4 or 5 modalities, clip and per frame."""
    for count in range(1, 6):
        for task, spec in both(plugin, count)[: 1 if count == 4 else 2]:  # many are slow: 5 per frame stand for 4
            model, batch = build(plugin, spec), make_batch(spec)
            want = (4, 6 if spec.per_frame else 1, spec.out)
            got = tuple(answers_of(model, batch.streams).shape)
            assert got == want, f"{count} modalities, {task}: answers are {got}, not {want}"
            for name, gradient in backward(model.train(), batch).items():
                finite(gradient, f"{count} modalities, {task}: gradient of {name}")


def lengths(plugin: type) -> None:
    """T may be 1, 16 or 300, and for a clip each modality may have its own."""
    for task, spec in both(plugin):
        model = build(plugin, spec)
        own: list[int | tuple[int, ...]] = [1, 16, 300]
        for steps in own if spec.per_frame else [*own, (7, 3, 1), (1, 16, 40)]:
            batch = make_batch(spec, 2, steps)
            answers = answers_of(model, batch.streams)
            want = (2, steps if spec.per_frame else 1, spec.out)
            assert tuple(answers.shape) == want, f"{task}, T = {steps}: answers are {tuple(answers.shape)}, not {want}"
            finite(answers, f"{task}, T = {steps}: answers")
            if steps != 300:
                for name, gradient in backward(model.train(), batch).items():
                    finite(gradient, f"{task}, T = {steps}: gradient of {name}")


def regress(plugin: type) -> None:
    """It answers regression, clip and per frame, of one and of several values."""
    for per_frame in (False, True):
        for out in (1, 2):
            spec = replace(make_spec(plugin, kind="regress", per_frame=per_frame), out=out)
            model, batch = build(plugin, spec), make_batch(spec)
            want = (4, 6 if per_frame else 1, out)
            assert tuple(answers_of(model, batch.streams).shape) == want, f"answers are not {want}"
            for name, gradient in backward(model.train(), batch).items():
                finite(gradient, f"gradient of {name}")


def classify(plugin: type) -> None:
    """It answers classification, clip and per frame, of two and of five classes."""
    for per_frame in (False, True):
        for out in (2, 5):
            spec = replace(make_spec(plugin, kind="classify", per_frame=per_frame), out=out)
            model, batch = build(plugin, spec), make_batch(spec)
            want = (4, 6 if per_frame else 1, out)
            assert tuple(answers_of(model, batch.streams).shape) == want, f"answers are not {want}"
            for name, gradient in backward(model.train(), batch).items():
                finite(gradient, f"gradient of {name}")


# --------------------------------------------------------------------------------------------------- masks and padding


def mask_values(plugin: type) -> None:
    """What lies under a False mask changes neither answers nor loss."""
    for task, spec in both(plugin):
        model, batch = build(plugin, spec), make_batch(spec)
        filled = swap(batch, lambda s: tools.refill(s, 100.0))
        same(answers_of(model, filled.streams), answers_of(model, batch.streams), f"{task}: answers")
        same(loss_of(model.train(), filled), loss_of(model, batch), f"{task}: loss")


def nan_under_mask(plugin: type) -> None:
    """NaN under a False mask, of inputs or labels, is harmless to answers, loss and gradients."""
    for task, spec in both(plugin):
        model, batch = build(plugin, spec), make_batch(spec)
        holed = swap(batch, lambda s: tools.refill(s, float("nan")))
        if spec.kind == "regress":
            labels = torch.where(batch.y_mask[..., None], batch.y, float("nan"))
            holed = replace(holed, y=labels)
        finite(answers_of(model, holed.streams), f"{task}: answers")
        finite(loss_of(model.train(), holed), f"{task}: loss")
        for name, gradient in backward(model, holed).items():
            finite(gradient, f"{task}: gradient of {name}")


def _padded(plugin: type) -> list[tuple[str, Spec, Batch, Batch]]:
    """Batches and the same with more padding: equally much where clocks are shared, else as much as each likes."""
    cases = []
    for task, spec in both(plugin):
        batch = make_batch(spec)
        extra = 5 if spec.per_frame else 0
        more = swap(batch, lambda s: pad(s, 5))
        filler = torch.zeros(len(batch), extra, *batch.y.shape[2:], dtype=batch.y.dtype)
        y, y_mask = torch.cat([batch.y, filler], 1), torch.cat([batch.y_mask, torch.zeros(4, extra).bool()], 1)
        cases.append((task, spec, batch, replace(more, y=y, y_mask=y_mask)))
    spec = make_spec(plugin)
    batch = make_batch(spec, steps=(6, 9, 4))
    by = dict(zip(spec.dims, (3, 1, 2), strict=True))
    more = replace(batch, streams={m: pad(s, by[m]) for m, s in batch.streams.items()})
    cases.append(("clip with lengths of their own", spec, batch, more))
    return cases


def padding(plugin: type) -> None:
    """The amount of padding changes no answer."""
    for task, spec, batch, padded in _padded(plugin):
        model = build(plugin, spec)
        want, got = answers_of(model, batch.streams), answers_of(model, padded.streams)[:, : batch.y.shape[1]]
        real = batch.y_mask[..., None]
        same(torch.where(real, got, 0.0), torch.where(real, want, 0.0), f"{task}: answers after more padding")


def padding_training(plugin: type) -> None:
    """The amount of padding changes neither loss, gradients nor running statistics in training."""
    for task, spec, batch, padded in _padded(plugin):
        first = build(plugin, spec).train()
        second = copy.deepcopy(first)
        with quiet():
            want, got = backward(first, batch), backward(second, padded)
            same(loss_of(second, padded), loss_of(first, batch), f"{task}: loss after more padding")
        tools.same_gradients(got, want, f"{task}, after more padding")
        for (name, old), new in zip(first.named_buffers(), second.buffers(), strict=True):
            same(new.double(), old.double(), f"{task}: buffer {name} after more padding")


def absent(plugin: type) -> None:
    """Any modality may be absent from any sample, all of them too: answers and gradients stay finite."""
    for task, spec in both(plugin):
        model, full = build(plugin, spec), make_batch(spec, ragged=False)
        for gone in [*([m] for m in spec.dims), list(spec.dims)]:
            lost = torch.tensor([True, False, False, False])[:, None]
            for who in (lost, torch.ones_like(lost)):
                streams = {m: Stream(s.x, s.mask & ~who) if m in gone else s for m, s in full.streams.items()}
                where = f"{task}, without {' and '.join(gone)} in {'one sample' if who is lost else 'all samples'}"
                finite(answers_of(model, streams), f"{where}: answers")
                for name, gradient in backward(model.train(), replace(full, streams=streams)).items():
                    finite(gradient, f"{where}: gradient of {name}")


def finite_gradients(plugin: type) -> None:
    """Gradients of parameters and inputs are finite on ragged data, large values included."""
    for task, spec in both(plugin):
        model, batch = build(plugin, spec).train(), make_batch(spec, 8)
        for scale in (0.0, 1.0, 100.0):
            inputs = {m: (s.x * scale).requires_grad_() for m, s in batch.streams.items()}
            streams = {m: Stream(inputs[m], s.mask) for m, s in batch.streams.items()}
            parameters = backward(model, replace(batch, streams=streams), 1)
            where = f"{task}, inputs x {scale:g}"
            for name, gradient in parameters.items():
                finite(gradient, f"{where}: gradient of {name}")
            for m, x in inputs.items():
                finite(torch.zeros(()) if x.grad is None else x.grad, f"{where}: gradient of the inputs {m}")


def label_mask(plugin: type) -> None:
    """A label under a False `y_mask` trains nothing, whatever number stands there."""
    for task, spec in both(plugin):
        batch = make_batch(spec)
        y_mask = batch.y_mask.clone()
        y_mask[1] = False
        batch = replace(batch, y_mask=y_mask)
        other = replace(batch)
        wide = y_mask if spec.kind == "classify" else y_mask[..., None]
        object.__setattr__(other, "y", torch.where(wide, batch.y, torch.full_like(batch.y, 2)))  # Batch would clear it
        model = build(plugin, spec).train()
        got, want = backward(copy.deepcopy(model), other), backward(model, batch)
        tools.same_gradients(got, want, f"{task}, another label where y_mask is False")


# ------------------------------------------------------------------------------------------- who may look at what


def samples_independent(plugin: type) -> None:
    """In evaluation a sample's answer is the same alone and among any neighbours."""
    for task, spec in both(plugin):
        model, batch = build(plugin, spec), make_batch(spec)
        whole = answers_of(model, batch.streams)
        for row in range(len(batch)):
            alone = answers_of(model, batch[[row]].streams)
            same(alone, whole[row : row + 1], f"{task}: the answer of sample {row} alone, not in its batch")


def batch_order(plugin: type) -> None:
    """A permuted batch gets permuted answers."""
    order = [2, 0, 3, 1]
    for task, spec in both(plugin):
        model, batch = build(plugin, spec), make_batch(spec)
        got, want = answers_of(model, batch[order].streams), answers_of(model, batch.streams)[order]
        same(got, want, f"{task}: answers of the permuted batch")


def dict_order(plugin: type) -> None:
    """Streams are found by the name of their modality, not by their place in the dictionary."""
    for task, spec in both(plugin):
        spec = replace(spec, dims=dict.fromkeys(spec.dims, 4))  # equal widths: a mix-up would not even crash
        model, batch = build(plugin, spec), make_batch(spec)
        turned = dict(reversed(list(batch.streams.items())))
        same(answers_of(model, turned), answers_of(model, batch.streams), f"{task}: answers, streams in reverse order")


def every_modality_matters(plugin: type) -> None:
    """Every modality gets a gradient above 1e-5 of the largest."""
    for task, spec in both(plugin):
        model, total = build(plugin, spec).train(), dict.fromkeys(spec.dims, 0.0)
        for seed in range(3):
            batch = make_batch(spec, 8, seed=seed, ragged=False)
            inputs = {m: s.x.clone().requires_grad_() for m, s in batch.streams.items()}
            streams = {m: Stream(inputs[m], s.mask) for m, s in batch.streams.items()}
            backward(model, replace(batch, streams=streams), seed)
            for m, x in inputs.items():
                total[m] += 0.0 if x.grad is None else float(x.grad.abs().max())
        largest = max(total.values())
        for m, reached in total.items():
            assert reached > 1e-5 * largest, f"{task}: the input {m} gets no gradient"


def every_parameter_trains(plugin: type) -> None:
    """Every parameter gets a gradient above 1e-5 of the largest (biases of attention keys excepted)."""
    for task, spec in both(plugin):
        model = build(plugin, spec).train()
        total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
        for name, parameter in model.named_parameters():
            assert parameter.requires_grad, f"{name} is frozen: make it a buffer"
        for seed in range(4):
            batch = replace(make_batch(spec, 16, seed=seed), progress=0.25 * (seed + 1))
            for name, gradient in backward(model, batch, seed).items():
                total[name] += gradient.abs()
        try:
            tools.all_train(total)
        except AssertionError as error:
            raise AssertionError(f"{task}: {error}") from None


def loss(plugin: type) -> None:
    """The loss is one finite number that depends on the labels, and the labels change no answer."""
    for task, spec in both(plugin):
        batch = make_batch(spec)
        y = (batch.y + 1) % spec.out if spec.kind == "classify" else batch.y + 1.0
        other = replace(batch, y=y)
        model = build(plugin, spec).train()
        models = [copy.deepcopy(model), model]
        values = [loss_of(model, b) for model, b in zip(models, (batch, other), strict=True)]
        for value in values:
            assert value.shape == (), f"{task}: the loss has shape {tuple(value.shape)}, not ()"
            finite(value, f"{task}: loss")
        assert not torch.equal(*values), f"{task}: the loss is the same for other labels: call criterion"
        got, want = (answers_of(model, batch.streams) for model in models)
        same(got, want, f"{task}: answers after a loss with other labels")


def inputs_untouched(plugin: type) -> None:
    """Neither the streams nor their dictionary are written to."""
    for task, spec in both(plugin):
        model, batch = build(plugin, spec), make_batch(spec)
        streams = dict(batch.streams)
        before, y = tools.copied(streams), batch.y.clone()
        model.eval()(streams)
        tools.same_streams(streams, before, f"{task}, after forward")
        backward(model.train(), replace(batch, streams=streams))
        tools.same_streams(streams, before, f"{task}, after loss")
        assert torch.equal(batch.y, y), f"{task}: loss wrote to the labels"


# --------------------------------------------------------------------------------------------------- seeds and state


def repeatable(plugin: type) -> None:
    """The same seed gives the same weights, loss and answers, whatever was asked before and whatever the noise key."""
    for task, spec in both(plugin):
        first, second = build(plugin, spec), build(plugin, spec)
        batch, other = make_batch(spec), make_batch(spec, seed=1)
        want = answers_of(first, batch.streams)
        with keyed.scope(tools.key(1)):
            answers_of(second, other.streams)
            same(answers_of(second, batch.streams), want, f"{task}: answers of a second model of the same seed", 1e-6)
            same(answers_of(first, batch.streams), want, f"{task}: answers asked again, under another noise key", 1e-6)
        values = [loss_of(model.train(), batch, 1) for model in (first, second)]
        same(values[1], values[0], f"{task}: loss of a second model of the same seed", 1e-6)


def seeded(plugin: type) -> None:
    """Another seed gives other weights."""
    spec = make_spec(plugin)
    tools.same_weights_other_seed(build(plugin, spec, 0), build(plugin, spec, 1))


def state_dict(plugin: type) -> None:
    """`state_dict` carries the whole model through a file read with `weights_only=True`."""
    for task, spec in both(plugin):
        batch, trained, fresh = make_batch(spec), build(plugin, spec, 0).train(), build(plugin, spec, 1)
        backward(trained, batch)
        with torch.no_grad():
            for parameter in trained.parameters():
                if parameter.grad is not None:
                    parameter -= 0.01 * parameter.grad.sign()
        tools.reload(trained, fresh)
        got, want = (answers_of(model, batch.streams) for model in (fresh, trained))
        same(got, want, f"{task}: answers of a fresh model that loaded the weights")
        stray = tools.stray_tensors(trained)
        assert not stray, f"{task}: {', '.join(stray)} would not follow the model to another device: register a buffer"


def no_global_random(plugin: type) -> None:
    """Neither `forward` nor `loss` draws from a global random state."""
    for _, spec in both(plugin):
        model, batch = build(plugin, spec), make_batch(spec)
        for training in (False, True):
            mode = "training" if training else "evaluation"
            with tools.untouched_random(f"forward in {mode}"):
                model.train(training)(batch.streams)
        with tools.untouched_random("loss"):
            model.loss(batch, task_loss(spec))


# ------------------------------------------------------------------------------------------- how fast it may be run


def bf16(plugin: type) -> None:
    """Under bfloat16 autocast answers stay close to float32 and the loss trains."""
    for task, spec in both(plugin):
        model, batch = build(plugin, spec), make_batch(spec, 8)
        want = answers_of(model, batch.streams)
        with torch.autocast("cpu", torch.bfloat16):
            got = answers_of(model, batch.streams).float()
            gradients = backward(model.train(), batch)
        finite(got, f"{task}: answers in bfloat16")
        error = float((got - want).pow(2).mean().sqrt() / want.pow(2).mean().sqrt().clamp(min=1e-3))
        assert error < 0.1, f"{task}: bfloat16 answers are {error:.0%} off"
        for name, gradient in gradients.items():
            finite(gradient, f"{task}: gradient of {name} in bfloat16")


# ----------------------------------------------------------------------------------------------------- does it learn?


def solves_xor(plugin: type) -> None:
    """It learns exclusive-or of two modalities: at least 90 % on fresh samples after at most 3 x 150 steps."""
    spec = make_spec(plugin, 2)
    spec = replace(spec, out=2 if spec.kind == "classify" else 1, samples=512)
    train, fresh = exclusive_or(spec, 512, 0), exclusive_or(spec, 256, 1)
    best = 0.0
    for seed, rate in enumerate((2e-3, 1e-2, 5e-4)):
        model = build(plugin, spec, seed)
        if not list(model.parameters()):
            raise NotApplicable("it has no parameters")
        optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
        for step in range(150):
            rows = torch.randint(512, (48,), generator=torch.Generator().manual_seed(1000 * seed + step))
            optimizer.zero_grad()
            loss_of(model.train(), replace(train[rows], progress=step / 150), step).backward()
            optimizer.step()
            if step % 10 == 9:
                best = max(best, accuracy(model, fresh))
                if best >= 0.95:
                    return
    assert best >= 0.9, f"it answers {best:.0%} of fresh samples correctly (chance is 50%)"


CHECKS: list[Check] = [
    hyperparameters,
    shape,
    corners,
    modalities,
    lengths,
    classify,
    regress,
    mask_values,
    nan_under_mask,
    padding,
    padding_training,
    absent,
    finite_gradients,
    label_mask,
    samples_independent,
    batch_order,
    dict_order,
    every_modality_matters,
    every_parameter_trains,
    loss,
    inputs_untouched,
    repeatable,
    seeded,
    state_dict,
    no_global_random,
    bf16,
    stackable,
    solves_xor,
]

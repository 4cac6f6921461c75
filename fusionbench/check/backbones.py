"""The contract of a backbone: an encoder of one modality that respects time, masks and seeds."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from fusionbench import hparams
from fusionbench.api import Backbone, Stream, keyed
from fusionbench.check import _tools as tools
from fusionbench.check._tools import Check, NotApplicable, build, finite, pad, quiet, same

TRAINING = 17  # seed of the samples that it is prepared with


def example(plugin: Any) -> tuple[int, ...]:
    """(T, *step) of a stream that suits it: what its `example` says, else vectors of 3."""
    return tuple(plugin.example)


def make(plugin: Any, seed: int = 0, **given: Any) -> Any:
    """Prepared, never with downloaded weights: its `example_settings`, or `weights="random"` where it has that."""
    model = make_blank(plugin, seed, **given)
    with torch.no_grad():
        model.prepare(make_stream(plugin, 12, seed=TRAINING))
    return model


def make_blank(plugin: Any, seed: int = 0, **given: Any) -> Any:
    """As `make`, but it has met no training sample."""
    drawn = {"weights": "random"} if "weights" in hparams.read(plugin) else {}
    settings = {**drawn, **getattr(plugin, "example_settings", {}), **given}
    return build(plugin, example(plugin)[1:], seed, **settings)


def make_stream(plugin: Any, size: int = 4, steps: int | None = None, seed: int = 0, *, ragged: bool = True) -> Stream:
    """Values between 0 and 1; the second sample is shorter, the third has a gap, the last is all masked."""
    length, *step = example(plugin)
    length = steps or length
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(size, length, dtype=torch.bool)
    if ragged:
        mask[1 % size, max(1, length // 2) :] = False
        mask[2 % size, length // 3] = length < 3
        mask[-1] = size == 1
    return Stream(torch.rand(size, length, *step, generator=generator), mask)


@torch.no_grad()
def _encode(model: nn.Module, stream: Stream) -> Stream:
    result: Stream = model.eval()(stream)
    return result


def _score(stream: Stream) -> Tensor:
    """One number that depends on every valid value, each with a weight of its own."""
    width = torch.arange(1, stream.x.shape[2] + 1, dtype=torch.float32)
    steps = torch.arange(1, stream.x.shape[1] + 1, dtype=torch.float32)
    real = torch.where(stream.mask[..., None], stream.x, 0.0)
    return (real * torch.cos(width) * torch.sin(steps)[:, None]).sum() / stream.mask.sum().clamp(min=1)


def _backward(model: nn.Module, stream: Stream, number: int = 0) -> dict[str, Tensor]:
    model.zero_grad(set_to_none=True)
    with keyed.scope(tools.key(number)):
        score = _score(model(stream))
    if score.requires_grad:
        score.backward()
    return tools.gradients(model)


def hyperparameters(plugin: type) -> None:
    """Every hyper-parameter has a type, a default, a help text and, if it is a number, a range or choice."""
    tools.declarations(plugin)


def dim(plugin: type) -> None:
    """Its output is a Stream (B, T', dim) of finite numbers, for a batch of one too."""
    for size in (4, 1):
        model, stream = make(plugin), make_stream(plugin, size)
        for training in (False, True):
            out = model.train(training)(stream)
            where = f"batch of {size}, {'training' if training else 'evaluation'}"
            assert isinstance(out, Stream), f"{where}: forward returns {type(out).__name__}, not a Stream"
            assert out.x.dim() == 3, f"{where}: the output is {tuple(out.x.shape)}, not (B, T', dim)"
            assert len(out) == size, f"{where}: {len(out)} samples came out"
            assert out.x.shape[2] == model.dim, f"{where}: dim is {model.dim}, the output's steps have {out.x.shape[2]}"
            finite(out.x, where)


def corners(plugin: type) -> None:
    """Both ends of every declared range construct, encode and train, blind to padding."""
    stream = make_stream(plugin)
    blind = tools.holds(lambda: _blind(make(plugin), stream))  # else it is the business of other checks
    for settings in tools.corners(plugin):
        with tools.setting(settings):
            model = make(plugin, **settings)
            out = _encode(model, stream)
            assert out.x.shape[2] == model.dim, f"dim is {model.dim}, the output's steps have {out.x.shape[2]}"
            if blind:
                _blind(model, stream)
            for name, gradient in _backward(model.train(), stream).items():
                finite(gradient, f"gradient of {name}")


def lengths(plugin: type) -> None:
    """A stream of one step is encoded, and one of twice the usual length."""
    model = make(plugin)
    for steps in (1, 2 * example(plugin)[0]):
        out = _encode(model, make_stream(plugin, steps=steps))
        assert out.x.shape[1] >= 1, f"T = {steps}: no step came out"
        finite(out.x, f"T = {steps}")


def mask_follows_time(plugin: type) -> None:
    """A sample is real as long as its input was: all steps of a full one, none of an absent one."""
    model = make(plugin)
    full = make_stream(plugin, 1, ragged=False)
    steps = full.x.shape[1]
    whole = _encode(model, full)
    assert whole.mask.all(), "steps of a fully real sample are masked"
    assert not _encode(model, full.absent()).mask.any(), "steps of an absent sample are real"
    before = 0
    for length in range(1, steps + 1):
        prefix = torch.arange(steps)[None] < length
        mask = _encode(model, Stream(full.x, prefix)).mask
        if mask.shape == prefix.shape:
            assert torch.equal(mask, prefix), f"{length} of {steps} steps are real, the output's mask says otherwise"
        count = int(mask.sum())
        assert mask[:, :count].all(), (
            f"with the first {length} of {steps} steps real, the real outputs are not the first"
        )
        assert count >= max(before, 1), f"with {length} of {steps} steps real only {count} outputs are"
        share = -(-length * mask.shape[1] // steps) + 1
        assert count <= share, f"with {length} of {steps} steps real, {count} of {mask.shape[1]} outputs are"
        before = count


def mask_values(plugin: type) -> None:
    """What lies under a False mask, NaN included, changes no output."""
    model, stream = make(plugin), make_stream(plugin)
    want = _encode(model, stream)
    for value in (100.0, float("nan")):
        got = _encode(model, tools.refill(stream, value))
        same(got.x, want.x, f"with {value} under the mask")


def padding(plugin: type) -> None:
    """The amount of padding changes no real output, and what it adds is masked."""
    _blind(make(plugin), make_stream(plugin))


def _blind(model: nn.Module, stream: Stream) -> None:
    want = _encode(model, stream)
    for extra in (1, stream.x.shape[1]):
        _same_front(_encode(model, pad(stream, extra)), want, f"{extra} more steps of padding")


def _same_front(got: Stream, want: Stream, what: str) -> None:
    steps = want.x.shape[1]
    assert got.x.shape[1] >= steps, f"{what}: fewer steps come out"
    assert torch.equal(got.mask[:, :steps], want.mask), f"{what}: the mask of the steps that were there changed"
    assert not got.mask[:, steps:].any(), f"{what}: added steps are real"
    same(got.x[:, :steps] * want.mask[..., None], want.x * want.mask[..., None], what)


def padding_training(plugin: type) -> None:
    """The amount of padding changes neither outputs, gradients nor running statistics in training."""
    stream = make_stream(plugin)
    longer = pad(stream, stream.x.shape[1])
    first, second = make(plugin).train(), make(plugin).train()
    with quiet():
        _same_front(second(longer), first(stream), "after more padding")
        want, got = _backward(first, stream), _backward(second, longer)
    tools.same_gradients(got, want, "after more padding")
    for (name, old), new in zip(first.named_buffers(), second.buffers(), strict=True):
        same(new.double(), old.double(), f"buffer {name} after more padding")


def absent(plugin: type) -> None:
    """A stream whose samples are all masked gives finite outputs and gradients."""
    model, stream = make(plugin), make_stream(plugin).absent()
    finite(_encode(model, stream).x, "outputs")
    for name, gradient in _backward(model.train(), stream).items():
        finite(gradient, f"gradient of {name}")


def samples_independent(plugin: type) -> None:
    """In evaluation a sample's output is the same alone and among any neighbours."""
    model, stream = make(plugin), make_stream(plugin)
    whole = _encode(model, stream)
    for row in range(len(stream)):
        alone = _encode(model, stream[[row]])
        same(alone.x, whole.x[[row]], f"the output of sample {row} alone, not in its batch")
        assert torch.equal(alone.mask, whole.mask[[row]]), f"the mask of sample {row} depends on its neighbours"


def batch_order(plugin: type) -> None:
    """A permuted batch gets permuted outputs."""
    model, stream, order = make(plugin), make_stream(plugin), [2, 0, 3, 1]
    same(_encode(model, stream[order]).x, _encode(model, stream).x[order], "outputs of the permuted batch")


def every_parameter_trains(plugin: type) -> None:
    """Every parameter gets a gradient above 1e-5 of the largest (biases of attention keys excepted)."""
    model = make(plugin).train()
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for seed in range(3):
        for name, gradient in _backward(model, make_stream(plugin, 4, seed=seed), seed).items():
            total[name] += gradient.abs()
    tools.all_train(total)


def finite_gradients(plugin: type) -> None:
    """Gradients of parameters and inputs are finite on ragged data, blank and large inputs included."""
    model, stream = make(plugin).train(), make_stream(plugin)
    for scale in (0.0, 1.0, 100.0):
        x = (stream.x * scale).requires_grad_()
        for name, gradient in _backward(model, Stream(x, stream.mask)).items():
            finite(gradient, f"inputs x {scale:g}: gradient of {name}")
        finite(torch.zeros(()) if x.grad is None else x.grad, f"inputs x {scale:g}: gradient of the inputs")


def inputs_untouched(plugin: type) -> None:
    """The stream that comes in is not written to."""
    stream = make_stream(plugin)
    before = tools.copied({"stream": stream})
    for training in (False, True):
        make(plugin).train(training)(stream)
        tools.same_streams({"stream": stream}, before, "after forward")


def deterministic(plugin: type) -> None:
    """The same seed gives the same weights and outputs, whatever was asked before and whatever the noise key."""
    first, second, stream = make(plugin), make(plugin), make_stream(plugin)
    want = _encode(first, stream).x
    with keyed.scope(tools.key(1)):
        _encode(second, make_stream(plugin, seed=1))
        same(_encode(second, stream).x, want, "outputs of a second one of the same seed", 0.0)
        same(_encode(first, stream).x, want, "outputs asked again, under another noise key", 0.0)


def seeded(plugin: type) -> None:
    """Another seed gives other weights."""
    tools.same_weights_other_seed(make(plugin, 0), make(plugin, 1))


def state_dict(plugin: type) -> None:
    """`state_dict` carries the whole model through a file read with `weights_only=True`."""
    stream, trained, fresh = make_stream(plugin), make(plugin, 0).train(), make(plugin, 1)
    trained(stream)
    tools.reload(trained, fresh)
    same(_encode(fresh, stream).x, _encode(trained, stream).x, "outputs of a fresh one that loaded the weights")
    stray = tools.stray_tensors(trained)
    assert not stray, f"{', '.join(stray)} would not follow the model to another device: register a buffer"


def no_global_random(plugin: type) -> None:
    """`forward` draws from no global random state."""
    model, stream = make(plugin), make_stream(plugin)
    for training in (False, True):
        with tools.untouched_random(f"forward in {'training' if training else 'evaluation'}"):
            model.train(training)(stream)


def stackable(plugin: Any) -> None:
    """Members stacked with `torch.func` have the outputs and gradients that they have alone."""
    if plugin.frozen:
        raise NotApplicable("it is frozen: its outputs are computed once, no member is stacked")
    members = [make(plugin, seed).train() for seed in range(3)]
    streams = [make_stream(plugin, seed=seed) for seed in range(3)]
    base, keys = copy.deepcopy(members[0]), torch.arange(3, dtype=torch.int32)

    def one(parameters: Any, buffers: Any, number: Tensor, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        with keyed.scope(number):
            out: Stream = functional_call(base, (parameters, buffers), (Stream(x, mask),))
        return out.x, _score(out)

    alone = []
    for number, (member, stream) in enumerate(zip(members, streams, strict=True)):
        buffers = {name: b.clone() for name, b in member.named_buffers()}
        out, score = one(dict(member.named_parameters()), buffers, keys[number], stream.x, stream.mask)
        if score.requires_grad:
            score.backward()
        alone.append((out.detach(), tools.gradients(member)))
    parameters, buffers = stack_module_state(members)
    x, mask = torch.stack([s.x for s in streams]), torch.stack([s.mask for s in streams])
    outs, scores = vmap(one)(parameters, buffers, keys, x, mask)
    if scores.requires_grad:
        scores.sum().backward()
    for number, (out, want) in enumerate(alone):
        same(outs[number], out, "output of a stacked member")
        got = {n: torch.zeros_like(p[0]) if p.grad is None else p.grad[number] for n, p in parameters.items()}
        tools.same_gradients(got, want, "stacked")


def prepare(plugin: Any) -> None:
    """What it learns from training samples is theirs alone, stands in buffers, and moves nothing else."""
    if plugin.prepare is Backbone.prepare:
        raise NotApplicable("it learns nothing before training")
    assert not plugin.frozen, (
        "it is frozen: encoded once for all folds, it cannot learn from the training samples of one"
    )
    blank, stream, probe = make_blank(plugin), make_stream(plugin, 12, seed=TRAINING), make_stream(plugin)
    before, clean = copy.deepcopy(blank.state_dict()), tools.copied({"stream": stream})
    weights = {name for name, _ in blank.named_parameters()}
    want = _prepared(blank, stream)
    tools.same_streams({"stream": stream}, clean, "after prepare")
    for name, value in before.items():
        now = want[name]
        assert now.shape == value.shape, (
            f"{name} was {tuple(value.shape)} and is {tuple(now.shape)}: no stack holds both"
        )
        assert name not in weights or torch.equal(now, value), f"prepare changed the parameter {name}"
    _same_state(_prepared(make_blank(plugin), stream), want, "prepared by the same samples", 0.0)
    for value in (100.0, float("nan")):
        _same_state(_prepared(make_blank(plugin), tools.refill(stream, value)), want, f"with {value} under the mask")
    _same_state(_prepared(make_blank(plugin), pad(stream, stream.x.shape[1])), want, "after more padding")
    fresh = make_blank(plugin)
    tools.reload(blank, fresh)
    same(_encode(fresh, probe).x, _encode(blank, probe).x, "outputs of one that loaded what another has learned")
    for name, value in _prepared(make_blank(plugin), stream.absent()).items():
        finite(value, f"{name}, where every training sample lacks the modality")


def _prepared(model: nn.Module, stream: Stream) -> dict[str, Tensor]:
    with torch.no_grad(), tools.untouched_random("prepare"):
        model.prepare(stream)  # type: ignore[operator]
    return copy.deepcopy(model.state_dict())


def _same_state(got: dict[str, Tensor], want: dict[str, Tensor], what: str, tolerance: float = 1e-4) -> None:
    for name, value in want.items():
        same(got[name].double(), value.double(), f"{what}: {name}", tolerance)


CHECKS: list[Check] = [
    hyperparameters,
    dim,
    corners,
    lengths,
    mask_follows_time,
    mask_values,
    padding,
    padding_training,
    absent,
    samples_independent,
    batch_order,
    every_parameter_trains,
    finite_gradients,
    inputs_untouched,
    deterministic,
    seeded,
    state_dict,
    no_global_random,
    stackable,
    prepare,
]

"""What is trained: normalise -> backbones -> (the label's clock, per frame) -> fuser; and the task's loss."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from fusionbench import metrics
from fusionbench.api import (
    Backbone,
    Batch,
    Criterion,
    Fuser,
    Source,
    Spec,
    Stream,
    Streams,
    Task,
    keyed,
    masked_mean,
    prior,
    resample,
)
from fusionbench.errors import UsageError, unknown

LEARNED_FROM = 4096  # samples that a backbone is prepared with


class Normalise(nn.Module):
    """(x - mean) / SD of the training split, per feature; one a modality whose steps are vectors."""

    mean: Tensor
    sd: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("sd", torch.ones(width))

    def forward(self, stream: Stream) -> Stream:
        return Stream((stream.x - self.mean) / self.sd, stream.mask)


class Model(nn.Module):
    """One member's whole model. `statistics` are the training split's mean and SD by modality.

    `prior` (out,), what the training labels alone say, is its answer to a sample of which the fuser sees nothing.
    """

    prior: Tensor

    def __init__(
        self,
        task: Task,
        backbones: Mapping[str, Backbone],
        fuser: Fuser,
        statistics: Mapping[str, tuple[Tensor, Tensor]],
    ) -> None:
        super().__init__()
        self.task = task
        self.normalise = nn.ModuleDict({m: Normalise(len(mean)) for m, (mean, _) in statistics.items()})
        for m, (mean, sd) in statistics.items():
            self.normalise[m].mean.copy_(mean)  # type: ignore[operator]
            self.normalise[m].sd.copy_(sd)  # type: ignore[operator]
        self.backbones = nn.ModuleDict(dict(backbones))
        self.fuser = fuser
        self.register_buffer("prior", torch.zeros(task.out))

    @torch.no_grad()
    def prepare(self, data: Batch, index: Tensor) -> None:
        """Backbones that ask for it learn from the normalised samples at `index`, of many from an even selection."""
        some = index.sort().values.cpu()[:: -(-len(index) // LEARNED_FROM)]
        backbone: Any
        for m, backbone in self.backbones.items():
            if type(backbone).prepare is not Backbone.prepare:
                stream = data.streams[m][some.to(data.y.device)].to("cpu")
                stream = self.normalise[m](stream) if m in self.normalise else stream
                try:
                    backbone.prepare(stream)
                except Exception as error:  # a plugin may raise anything at all
                    what = f"backbone {type(backbone).__name__} cannot learn from the training samples of {m}"
                    raise UsageError(f"{what}: {type(error).__name__}: {error}") from error

    def encode(self, streams: Streams, steps: int) -> Streams:
        """What the fuser sees; `steps` is the label's clock."""
        encoded = {}
        for m, backbone in self.backbones.items():
            stream = self.normalise[m](streams[m]) if m in self.normalise else streams[m]
            stream = backbone(stream)
            encoded[m] = resample(stream, steps) if self.task.per_frame else stream
        return encoded

    def forward(self, batch: Batch, criterion: Criterion | None = None) -> Tensor:
        """The answers (B, S, out); or, given a criterion, the fuser's loss."""
        encoded = self.encode(dict(batch.streams), batch.y.shape[1])
        if criterion is None:
            answers = self.fuser(encoded)
            if not isinstance(answers, Tensor) or answers.shape[-1:] != self.prior.shape:
                return answers  # whoever asks says that it is no answer
            seen = torch.stack([encoded[m].present for m in self.fuser.sees]).any(0)  # (B,)
            return torch.where(seen[:, None, None], answers, self.prior.to(answers.dtype))
        return self.fuser.loss(replace(batch, streams=encoded), criterion)


@dataclass(frozen=True)
class Blueprint:
    """How to build a member: classes and settings of the fuser and of each modality's backbone."""

    task: Task
    shapes: Mapping[str, tuple[int, ...]]
    fuser: type[Fuser]
    settings: Mapping[str, Any]
    backbones: Mapping[str, tuple[type[Backbone], Mapping[str, Any]]] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)

    def begin(self, seed: int, data: Batch, index: Tensor) -> Model:
        """A member before its first step, on the CPU, with what it must know of the training samples at `index`.

        Nothing of `data` is read but these.
        """
        model = self.build(seed, statistics(data, index.to(data.y.device)), len(index))
        model.prepare(data, index)
        labelled = Batch({}, data.y[index.to(data.y.device)].cpu(), data.y_mask[index.to(data.y.device)].cpu())
        model.prior.copy_(torch.from_numpy(prior(labelled, model.fuser.spec)))
        return model

    def build(self, seed: int, statistics: Mapping[str, tuple[Tensor, Tensor]], samples: int) -> Model:
        """A member with the initial weights of `seed`, on the CPU, leaving the global generator as it was.

        Each backbone and the fuser have seeds of their own: two fusers meet the same backbone weights at one seed.
        """
        with torch.random.fork_rng(devices=[]):
            backbones = {}
            for m, shape in self.shapes.items():
                maker, settings = self.backbones[m]
                torch.default_generator.manual_seed(keyed.number("backbone", seed, m) & 0x7FFFFFFF)
                backbones[m] = _construct(f"backbone {maker.__name__} of {m}", maker, shape, **settings)
            dims = {m: b.dim for m, b in backbones.items()}
            spec = Spec(self.task.kind, dims, self.task.out, self.task.per_frame, samples, self.rates)
            torch.default_generator.manual_seed(keyed.number("fuser", seed) & 0x7FFFFFFF)
            fuser = _construct(f"fuser {self.fuser.__name__}", self.fuser, spec, **self.settings)
            return Model(self.task, backbones, fuser, statistics)


def _construct(what: str, maker: Any, first: Any, **settings: Any) -> Any:
    """A plugin's instance; what its constructor raises becomes one line that names it.

    Raises:
        UsageError: the settings do not go together, as a width that its heads do not divide.
    """
    try:
        return maker(first, **settings)
    except UsageError:
        raise
    except (Exception, SystemExit) as error:  # a plugin may raise anything at all
        chosen = ", ".join(f"{name}={value!r}" for name, value in settings.items())
        raise UsageError(f"{what} cannot be built with {chosen}: {type(error).__name__}: {error}") from error


def statistics(data: Batch, index: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and SD (floored at 1e-4 of the largest, so that a constant feature stays small) of each vector modality.

    Over the real steps of the samples at `index` (the training split of a fold), each (D,), on the data's device.

    Raises:
        UsageError: a lazily read modality has NaN or infinity at a real step.
    """
    found = {}
    for m, stream in data.streams.items():
        if not isinstance(stream, Stream):
            if len(stream.shape) != 2:
                continue
            mean, sd = (value.to(data.y.device) for value in _moments(m, stream, index.cpu()))
        elif stream.x.dim() == 3:
            x, mask = stream.x[index].flatten(0, 1).double(), stream.mask[index].flatten()
            mean = masked_mean(x, mask, 0)
            sd = masked_mean((x - mean) ** 2, mask, 0).sqrt()
        else:
            continue
        floor = 1e-4 * sd.max().clamp(min=1e-6)
        found[m] = (mean.float(), torch.where(sd > floor, sd, torch.ones_like(sd)).float())
    return found


_MOMENTS: dict[tuple[str, bytes], tuple[Tensor, Tensor]] = {}  # every member of a fold asks for the same


def _moments(m: str, source: Source, index: Tensor, rows: int = 1024) -> tuple[Tensor, Tensor]:
    """Mean and SD (D,) over the real steps of the samples at `index`, read `rows` at a time in rising order.

    Moments of pieces are joined by the updating formula of Chan, Golub and LeVeque (1979). Kept by content.
    """
    index = index.sort().values
    key = source.digest, hashlib.sha256(index.numpy().tobytes()).digest()
    if key not in _MOMENTS:
        count, mean, squares = 0, torch.zeros(source.shape[-1]).double(), torch.zeros(source.shape[-1]).double()
        for part in index.split(rows):
            stream = source[part]
            x, mask = stream.x.flatten(0, 1).double(), stream.mask.flatten()
            new = int(mask.sum())
            if not new:
                continue
            own = masked_mean(x, mask, 0)
            away, share = own - mean, new / (count + new)
            squares = squares + new * masked_mean((x - own) ** 2, mask, 0) + away**2 * count * share
            mean, count = mean + away * share, count + new
        if not torch.isfinite(squares).all():
            raise UsageError(f"the training samples have NaN or infinity in {m!r} under a True mask")
        _MOMENTS[key] = mean, (squares / max(count, 1)).sqrt()
    return _MOMENTS[key]


def class_weights(task: Task, data: Batch, index: Tensor) -> Tensor:
    """(out,) the inverse frequency of each class among the labels of the samples at `index`, 1 for the most frequent.

    Raises:
        UsageError: the task has no classes.
    """
    if task.kind != "classify":
        raise UsageError("train.class_balance needs a task of classes: leave it out for one of values")
    labels = data.y[index][data.y_mask[index]].long().cpu()
    counts = torch.bincount(labels, minlength=task.out).clamp(min=1)  # what is never met weighs nothing anyway
    return (counts.max() / counts).float().to(data.y.device)


def _cross_entropy(
    answers: Tensor, batch: Batch, label_smoothing: float | Tensor, balance: Tensor | None = None
) -> Tensor:
    logp = answers.float().log_softmax(-1)  # (B, S, out)
    right = logp.gather(-1, batch.y.long().unsqueeze(-1)).squeeze(-1)
    losses = -(1 - label_smoothing) * right - label_smoothing * logp.mean(-1)
    weight = batch.y_mask if balance is None else batch.y_mask * balance[batch.y.long()]
    return masked_mean(losses, weight, (0, 1))


def _squared(answers: Tensor, batch: Batch, _: float | Tensor) -> Tensor:
    return masked_mean(((answers.float() - batch.y) ** 2).mean(-1), batch.y_mask, (0, 1))


def _absolute(answers: Tensor, batch: Batch, _: float | Tensor) -> Tensor:
    return masked_mean((answers.float() - batch.y).abs().mean(-1), batch.y_mask, (0, 1))


def _concordance(answers: Tensor, batch: Batch, _: float | Tensor) -> Tensor:
    """The mean of 1 - CCC over the outputs, moments over the batch's valid answers."""
    x, y, mask = answers.float().flatten(0, 1), batch.y.flatten(0, 1), batch.y_mask.flatten()
    mean_x, mean_y = masked_mean(x, mask, 0), masked_mean(y, mask, 0)
    dx, dy = x - mean_x, y - mean_y
    below = masked_mean(dx**2 + dy**2, mask, 0) + (mean_x - mean_y) ** 2
    return (1 - 2 * masked_mean(dx * dy, mask, 0) / below.clamp(min=1e-8)).mean() * mask.any()


#: What a metric may declare as its training loss; each is zero where nothing is labelled.
LOSSES: dict[str, Callable[..., Tensor]] = {
    "cross_entropy": _cross_entropy,
    "squared": _squared,
    "absolute": _absolute,
    "concordance": _concordance,
}


def criterion(task: Task, label_smoothing: float | Tensor = 0.0, **balance: Tensor) -> Criterion:
    """The loss that the task's first metric declares, weighted by `y_mask` and never indexed by it.

    Of cross-entropy alone: `label_smoothing`, and `balance`, a weight (out,) for the samples of each class.

    Raises:
        UsageError: there is no such metric or no such loss.
    """
    name = metrics.get(task.metrics[0]).loss
    if name not in LOSSES:
        raise unknown(f"loss (of the metric {task.metrics[0]})", name, LOSSES)
    loss = LOSSES[name]
    return lambda answers, batch: loss(answers, batch, label_smoothing, **balance)

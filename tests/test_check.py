"""The kit is proved on plugins that are broken on purpose: each is caught by name, and by no other check."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionbench import registry
from fusionbench.api import (
    Backbone,
    Batch,
    Benchmark,
    Choice,
    Context,
    Corruption,
    Fuser,
    Spec,
    Splits,
    Stream,
    Streams,
    Task,
    group_folds,
    keyed,
    masked_mean,
)
from fusionbench.check import CHECKS, report
from fusionbench.errors import UsageError

BROKEN: list[Any] = []


def caught_by(kind: str, *names: str) -> Callable[[type], type]:
    """Registers a broken plugin with all the checks that it must fail."""

    def register(plugin: type) -> type:
        BROKEN.append(pytest.param(kind, plugin, set(names), id=plugin.__name__))
        return plugin

    return register


# ----------------------------------------------------------------------------------------------------------- fusers


class Good(Fuser):
    """A small honest fuser: every modality projected, pooled, concatenated."""

    def __init__(self, spec: Spec, *, width: Annotated[int, Choice(8, 16), "width of everything"] = 16) -> None:
        super().__init__(spec)
        self.project = nn.ModuleDict({m: nn.Linear(dim, width) for m, dim in spec.dims.items()})
        self.joint = nn.Linear(width * len(spec.dims), width)
        self.head = nn.Linear(width, spec.out)

    def mix(self, streams: Streams) -> Tensor:  # (B, S, M * width)
        return torch.cat([self.pool(Stream(p(streams[m].x), streams[m].mask)).x for m, p in self.project.items()], -1)

    def read(self, joint: Tensor) -> Tensor:
        return self.head(torch.tanh(self.joint(joint)))

    def forward(self, streams: Streams) -> Tensor:
        return self.read(self.mix(streams))


@caught_by("fusers", "samples_independent")
class AttendsOverTheBatch(Good):
    def forward(self, streams: Streams) -> Tensor:
        x = self.mix(streams).transpose(0, 1)  # (S, B, D): who expects (B, S, D) attends to the neighbours
        return self.read((x @ x.transpose(1, 2)).softmax(-1).matmul(x).transpose(0, 1))


@caught_by("fusers", "shape", "samples_independent")
class SqueezesBatchOfOne(Good):
    def forward(self, streams: Streams) -> Tensor:
        return self.read(self.mix(streams).squeeze(0))


@caught_by("fusers", "every_parameter_trains")
class AllocatesForNothing(Good):
    def __init__(self, spec: Spec, *, width: Annotated[int, Choice(8, 16), "width of everything"] = 16) -> None:
        super().__init__(spec, width=width)
        self.spare = nn.Linear(width, width)


@caught_by("fusers", "every_parameter_trains")
class DetachesAnEncoder(Good):
    def forward(self, streams: Streams) -> Tensor:
        first, *rest = self.mix(streams).chunk(len(self.spec.dims), -1)
        return self.read(torch.cat([first.detach() if rest else first, *rest], -1))

    def loss(self, batch: Batch, criterion: Any) -> Tensor:  # the inputs still matter: only the encoder is cut off
        return super().loss(batch, criterion) + sum(masked_mean(s.x, s.mask).mean() for s in batch.streams.values())


@caught_by("fusers", "state_dict", "stackable")
class WeightsThatNoOptimiserSees(Good):
    def __init__(self, spec: Spec, *, width: Annotated[int, Choice(8, 16), "width of everything"] = 16) -> None:
        super().__init__(spec, width=width)
        self.rank = torch.randn(width * len(spec.dims))  # neither parameter nor buffer

    def forward(self, streams: Streams) -> Tensor:
        return self.read(self.mix(streams) * self.rank)


@caught_by("fusers", "seeded")
class SeedsItself(Good):
    def __init__(self, spec: Spec, *, width: Annotated[int, Choice(8, 16), "width of everything"] = 16) -> None:
        torch.manual_seed(0)
        super().__init__(spec, width=width)


@caught_by("fusers", "repeatable")
class BuiltFromNumpy(Good):
    def __init__(self, spec: Spec, *, width: Annotated[int, Choice(8, 16), "width of everything"] = 16) -> None:
        super().__init__(spec, width=width)
        self.scale = nn.Parameter(torch.from_numpy(np.random.default_rng().standard_normal(spec.out)).float())

    def forward(self, streams: Streams) -> Tensor:
        return super().forward(streams) * self.scale


@caught_by("fusers", "padding", "padding_training")
class AveragesPadding(Good):
    def pool(self, stream: Stream) -> Stream:
        if self.spec.per_frame:
            return stream
        return Stream(stream.x.mean(1, keepdim=True), stream.present.unsqueeze(1))


@caught_by("fusers", "padding", "padding_training")
class TakesTheLastStep(Good):
    def pool(self, stream: Stream) -> Stream:
        return stream if self.spec.per_frame else Stream(stream.x[:, -1:], stream.mask[:, -1:])


@caught_by("fusers", "padding", "padding_training")
class DependsOnT(Good):
    def forward(self, streams: Streams) -> Tensor:
        return super().forward(streams) / next(iter(streams.values())).x.shape[1]


@caught_by("fusers", "padding_training")
class BatchStatisticsOfPadding(Good):
    def forward(self, streams: Streams) -> Tensor:
        if self.training:
            streams = {
                m: Stream((s.x - s.x.mean((0, 1))) / (s.x.std((0, 1)) + 1.0), s.mask) for m, s in streams.items()
            }
        return super().forward(streams)


@caught_by("fusers", "padding_training")
class ReconstructsPadding(Good):
    def loss(self, batch: Batch, criterion: Any) -> Tensor:
        own = sum((self.project[m](s.x) ** 2).mean() for m, s in batch.streams.items())  # the mean counts masked steps
        return super().loss(batch, criterion) + own


@caught_by("fusers", "label_mask", "padding_training")
class ScoresUnlabelledFrames(Good):
    def loss(self, batch: Batch, criterion: Any) -> Tensor:
        if self.spec.kind == "regress":
            return F.mse_loss(self(batch.streams), batch.y)
        return F.cross_entropy(self(batch.streams).flatten(0, 1), batch.y.flatten())


@caught_by("fusers", "inputs_untouched")
class WritesToItsInput(Good):
    def forward(self, streams: Streams) -> Tensor:
        for stream in streams.values():
            stream.x.detach().copy_(stream.x.detach().clamp(-0.5, 0.5))
        return super().forward(streams)


@caught_by("fusers", "dict_order")
class GoesByDictOrder(Good):
    def mix(self, streams: Streams) -> Tensor:
        parts = zip(self.project.values(), streams.values(), strict=True)
        return torch.cat([self.pool(Stream(p(s.x), s.mask)).x for p, s in parts], -1)


@caught_by("fusers", "every_modality_matters")
class IgnoresOthers(Fuser):
    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.head = nn.Linear(next(iter(spec.dims.values())), spec.out)

    def forward(self, streams: Streams) -> Tensor:
        return self.head(self.pool(streams[next(iter(self.spec.dims))]).x)


@caught_by("fusers", "no_global_random", "stackable", "padding_training")
class LibraryDropout(Good):
    def forward(self, streams: Streams) -> Tensor:
        return self.read(F.dropout(self.mix(streams), 0.3, self.training))


@caught_by("fusers", "repeatable")
class NoiseInEvaluation(Good):
    def forward(self, streams: Streams) -> Tensor:
        return self.read(self.mix(streams) + keyed.draw((self.joint.in_features,), self.joint.weight.device, "normal"))


@caught_by("fusers", "repeatable")
class RemembersEarlierCalls(Good):
    calls = 0

    def forward(self, streams: Streams) -> Tensor:
        if not self.training:
            self.calls = min(self.calls + 1, 3)
        return super().forward(streams) * (1.0 if self.calls < 2 else 1.0 + 2e-5)  # too little for the other checks


@caught_by("fusers", "state_dict")
class KeepsItsLastAnswer(Good):
    def forward(self, streams: Streams) -> Tensor:
        self.last = super().forward(streams)
        return self.last


@caught_by("fusers", "absent")
class DividesByPresentModalities(Good):
    def forward(self, streams: Streams) -> Tensor:
        present = torch.stack([s.present for s in streams.values()]).float().sum(0)  # (B,): zero if all are absent
        return super().forward(streams) * (present / present)[:, None, None]


@caught_by("fusers", "finite_gradients")
class Overflows(Good):
    def read(self, joint: Tensor) -> Tensor:
        return super().read(torch.log1p(torch.exp(joint)))


@caught_by("fusers", "lengths", "padding", "padding_training")
class NeedsOneClock(Good):
    def forward(self, streams: Streams) -> Tensor:
        steps = torch.cat([p(streams[m].x) for m, p in self.project.items()], -1)
        mask = torch.stack([s.mask for s in streams.values()]).any(0)
        return self.read(self.pool(Stream(steps, mask)).x)


@caught_by("fusers", "lengths")
class LearnedPositionsUpTo100(Good):
    def __init__(self, spec: Spec, *, width: Annotated[int, Choice(8, 16), "width of everything"] = 16) -> None:
        super().__init__(spec, width=width)
        self.positions = nn.ParameterDict({m: nn.Parameter(torch.randn(100, d)) for m, d in spec.dims.items()})

    def mix(self, streams: Streams) -> Tensor:
        moved = {m: Stream(s.x + self.positions[m][: s.x.shape[1]], s.mask) for m, s in streams.items()}
        return super().mix(moved)


@caught_by("fusers", "modalities")
class NeedsTwoModalities(Good):
    def forward(self, streams: Streams) -> Tensor:
        second = streams[list(self.spec.dims)[1]]
        return super().forward(streams) + self.pool(second).x.mean(-1, keepdim=True)


@caught_by("fusers", "corners")
class BreaksAtACorner(Good):
    def __init__(self, spec: Spec, *, heads: Annotated[int, Choice(2, 4, 5), "heads"] = 2) -> None:
        super().__init__(spec)
        self.heads = heads

    def read(self, joint: Tensor) -> Tensor:
        return super().read(joint.unflatten(-1, (self.heads, -1)).softmax(-2).flatten(-2))


@caught_by("fusers", "corners")
class BreaksWithAnOption(Good):
    def __init__(self, spec: Spec, *, readout: Annotated[str, Choice("mean", "last"), "of a clip"] = "mean") -> None:
        super().__init__(spec)
        self.readout = readout

    def pool(self, stream: Stream) -> Stream:
        if self.readout == "last" and not self.spec.per_frame:
            return Stream(stream.x[:, -1:], stream.mask[:, -1:])
        return super().pool(stream)


@caught_by("fusers", "hyperparameters")
class DeclaresNoRange(Good):
    def __init__(self, spec: Spec, *, width: Annotated[int, "width of everything"] = 16) -> None:
        super().__init__(spec, width=width)


@caught_by("fusers", "loss")
class LabelsReachTheAnswer(Good):
    def __init__(self, spec: Spec, *, width: Annotated[int, Choice(8, 16), "width of everything"] = 16) -> None:
        super().__init__(spec, width=width)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, streams: Streams) -> Tensor:
        return super().forward(streams) + (0.0 if self.training else self.seen)

    def loss(self, batch: Batch, criterion: Any) -> Tensor:
        self.seen = masked_mean(batch.y.float(), batch.y_mask, (0, 1)).mean()
        return super().loss(batch, criterion)


@caught_by("fusers", "loss")
class ForgetsTheCriterion(Good):
    def loss(self, batch: Batch, criterion: Any) -> Tensor:
        answers = self(batch.streams).pow(2).mean(-1)
        return masked_mean(answers, batch.y_mask, (0, 1))


@caught_by("fusers", "samples_independent", "batch_order")
class CountsItsBatch(Good):
    def forward(self, streams: Streams) -> Tensor:
        x = self.mix(streams)
        return self.read(x + torch.arange(len(x))[:, None, None])


@caught_by("fusers", "bf16")
class SubtractsLargeNumbers(Good):
    def read(self, joint: Tensor) -> Tensor:
        x = self.joint(joint)
        return self.head(300 * x - 299 * x)


@caught_by("fusers", "stackable")
class BranchesOnData(Good):
    def forward(self, streams: Streams) -> Tensor:
        x = self.mix(streams)
        return self.read(x if x.mean().item() > 0 else x + 0)


@caught_by("fusers", "regress")
class ClassifiesOnly(Good):
    def __init__(self, spec: Spec, *, width: Annotated[int, Choice(8, 16), "width of everything"] = 16) -> None:
        if spec.kind != "classify":
            raise UsageError("it classifies only")
        super().__init__(spec, width=width)


@caught_by("fusers", "classify")
class RegressesOnly(Good):
    def __init__(self, spec: Spec, *, width: Annotated[int, Choice(8, 16), "width of everything"] = 16) -> None:
        if spec.kind != "regress":
            raise UsageError("it regresses only")
        super().__init__(spec, width=width)


class Additive(Good):
    """An honest method that cannot express exclusive-or, and does not say so."""

    def read(self, joint: Tensor) -> Tensor:
        return self.head(self.joint(joint))


# -------------------------------------------------------------------------------------------------------- backbones


class GoodBackbone(Backbone):
    def __init__(self, shape: Sequence[int], *, dim: Annotated[int, Choice(4, 8), "output width"] = 8) -> None:
        super().__init__(shape)
        self.dim = dim
        self.project = nn.Linear(shape[0], dim)

    def forward(self, stream: Stream) -> Stream:
        return Stream(self.project(stream.x), stream.mask)


class GoodPictureBackbone(Backbone):
    """Refuses what is not a picture, and says what it likes; the kit never asks it for downloaded weights."""

    example = (4, 1, 6, 6)

    def __init__(self, shape: Sequence[int], *, weights: Annotated[str, "'' = downloaded, or random"] = "") -> None:
        assert weights == "random"
        if len(shape) != 3:
            raise UsageError(f"it encodes pictures (C, H, W), not {tuple(shape)}")
        super().__init__(shape)
        self.dim = 4
        self.convolve = nn.Conv2d(shape[0], self.dim, 3)

    def forward(self, stream: Stream) -> Stream:
        x = self.convolve(stream.x.flatten(0, 1)).mean((-1, -2))
        return Stream(x.unflatten(0, stream.mask.shape), stream.mask)


@caught_by("backbones", "corners")
class HalvesTimeBadly(GoodBackbone):
    def __init__(
        self,
        shape: Sequence[int],
        *,
        dim: Annotated[int, Choice(4, 8), "output width"] = 8,
        shorten: Annotated[int, Choice(1, 2), "the sequence gets this many times shorter"] = 1,
    ) -> None:
        super().__init__(shape, dim=dim)
        self.shorten = shorten

    def forward(self, stream: Stream) -> Stream:
        out = super().forward(stream)
        if self.shorten == 1:
            return out
        x = F.avg_pool1d(out.x.transpose(1, 2), 2, ceil_mode=True).transpose(1, 2)  # half a pair may be padding
        return Stream(x, F.max_pool1d(out.mask.float(), 2, ceil_mode=True).bool())


@caught_by("backbones", "mask_follows_time", "padding", "padding_training")
class LastStepOnly(GoodBackbone):
    def forward(self, stream: Stream) -> Stream:
        out = super().forward(stream)
        return Stream(out.x[:, -1:], out.mask[:, -1:])


@caught_by("backbones", "dim", "corners")
class LiesAboutItsDim(GoodBackbone):
    def forward(self, stream: Stream) -> Stream:
        return Stream(super().forward(stream).x[..., :-1], stream.mask)


@caught_by("backbones", "mask_follows_time", "padding", "padding_training")
class ClaimsThatAllIsReal(GoodBackbone):
    def forward(self, stream: Stream) -> Stream:
        return Stream(self.project(stream.x), torch.ones_like(stream.mask))


@caught_by("backbones", "padding", "padding_training")
class ConvolvesOverPadding(GoodBackbone):
    def forward(self, stream: Stream) -> Stream:
        x = self.project(stream.x)  # the bias stands under the mask too
        return Stream(x + F.pad(x, (0, 0, 0, 1))[:, 1:], stream.mask)


@caught_by("backbones", "every_parameter_trains")
class BackboneWithASpareLayer(GoodBackbone):
    def __init__(self, shape: Sequence[int], *, dim: Annotated[int, Choice(4, 8), "output width"] = 8) -> None:
        super().__init__(shape, dim=dim)
        self.classifier = nn.Linear(dim, 2)


@caught_by("backbones", "deterministic")
class NoisyBackbone(GoodBackbone):
    def forward(self, stream: Stream) -> Stream:
        x = self.project(stream.x)
        return Stream(x + keyed.draw(x.shape[2:], x.device, "normal"), stream.mask)


@caught_by("backbones", "lengths", "mask_follows_time")
class LosesShortStreams(GoodBackbone):
    def forward(self, stream: Stream) -> Stream:
        out = super().forward(stream)
        return Stream(out.x[:, 1:], out.mask[:, 1:])


class CentredBackbone(GoodBackbone):
    """Honest: its buffer holds the mean of the real steps of training."""

    mean: Tensor

    def __init__(self, shape: Sequence[int], *, dim: Annotated[int, Choice(4, 8), "output width"] = 8) -> None:
        super().__init__(shape, dim=dim)
        self.register_buffer("mean", torch.zeros(shape[0]))

    def prepare(self, stream: Stream) -> None:
        self.mean.copy_(masked_mean(stream.x.flatten(0, 1), stream.mask.flatten(), 0))

    def forward(self, stream: Stream) -> Stream:
        return super().forward(Stream(stream.x - self.mean, stream.mask))


@caught_by("backbones", "prepare")
class LearnsFromPadding(CentredBackbone):
    def prepare(self, stream: Stream) -> None:
        self.mean.copy_(stream.x.mean((0, 1)))


@caught_by("backbones", "prepare")
class LearnsOutsideItsBuffers(CentredBackbone):
    offset = 0.0

    def prepare(self, stream: Stream) -> None:
        self.offset = float(masked_mean(stream.x.flatten(0, 1), stream.mask.flatten(), 0).mean())

    def forward(self, stream: Stream) -> Stream:
        return super().forward(Stream(stream.x - self.offset, stream.mask))


@caught_by("backbones", "prepare")
class LearnsIntoItsWeights(CentredBackbone):
    def prepare(self, stream: Stream) -> None:
        super().prepare(stream)
        self.project.bias.copy_(-self.project(self.mean))


@caught_by("backbones", "prepare")
class DividesByTheSamplesThere(CentredBackbone):
    def prepare(self, stream: Stream) -> None:
        self.mean.copy_(stream.x.sum((0, 1)) / stream.mask.sum())


# ------------------------------------------------------------------------------------------------------- benchmarks


class Frames:
    """Pictures that are drawn when they are asked for."""

    shape = (2, 1, 4, 4)

    def __len__(self) -> int:
        return 60

    def __getitem__(self, index: Any) -> Stream:
        keys = keyed.sample_keys([str(i) for i in torch.as_tensor(index).tolist()])
        return Stream(keyed.uniform(keys, self.shape), torch.ones(len(keys), 2, dtype=torch.bool))


class GoodLazyBenchmark(Benchmark):
    shapes: ClassVar = {"face": (1, 4, 4)}
    task = Task("regress", 2, ("ccc",), per_frame=True)

    def load(self) -> Batch:
        y = torch.from_numpy(np.random.default_rng(0).random((60, 2, 2))).float()
        y_mask = torch.arange(60)[:, None].expand(60, 2) % 7 > 0
        return Batch({"face": Frames()}, y, y_mask, [f"clip{i}" for i in range(60)], [f"p{i % 6}" for i in range(60)])

    def splits(self, data: Batch, fold: int) -> Splits:
        return group_folds(data.groups, 3, fold)


class GoodBenchmark(Benchmark):
    """Twelve people, ten clips each; everybody moves in a way of his own."""

    shapes: ClassVar = {"left": (4,), "right": (3,)}
    task = Task("classify", 2, ("accuracy",))
    folds = 3
    corruptions: ClassVar = ("noise:left", "missing:right")

    def load(self) -> Batch:
        rng = np.random.default_rng(0)
        person = np.repeat(np.arange(12), 10)
        streams = {}
        for m, (width,) in self.shapes.items():
            x = 5 * rng.standard_normal((12, 1, width))[person] + rng.standard_normal((120, 5, width))
            streams[m] = Stream(torch.from_numpy(x).float(), torch.from_numpy(rng.random((120, 5)) < 0.9))
        y = torch.from_numpy(rng.integers(0, 2, (120, 1)))
        ids = [f"clip{i}" for i in range(120)]
        return Batch(streams, y, torch.ones(120, 1).bool(), ids, [f"person{p}" for p in person])

    def splits(self, data: Batch, fold: int) -> Splits:
        return group_folds(data.groups, self.folds, fold)


@caught_by("benchmarks", "disjoint_samples", "disjoint_groups", "duplicates")
class ValidatesOnTheTestSet(GoodBenchmark):
    def splits(self, data: Batch, fold: int) -> Splits:
        splits = super().splits(data, fold)
        return Splits(splits.train, splits.test, splits.test)


@caught_by("benchmarks", "disjoint_groups", "permuted_labels")
class RandomFoldsOverClips(GoodBenchmark):
    def splits(self, data: Batch, fold: int) -> Splits:
        return Splits(*np.split(np.random.default_rng(fold).permutation(120), [80, 100]))


@caught_by("benchmarks", "disjoint_groups")
class DependentWithoutSayingSo(GoodBenchmark):
    subject_dependent = "as the paper did"


@caught_by("benchmarks", "same_twice")
class LoadsAnewEachTime(GoodBenchmark):
    def load(self) -> Batch:
        data = super().load()
        left = data.streams["left"]
        noisy = Stream(
            left.x + 1e-6 * torch.from_numpy(np.random.default_rng().random(left.x.shape)).float(), left.mask
        )
        return Batch({**data.streams, "left": noisy}, data.y, data.y_mask, data.ids, data.groups)


def _changed(data: Batch, **changes: Any) -> Batch:
    kept = {name: getattr(data, name) for name in ("streams", "y", "y_mask", "ids", "groups")}
    return Batch(**{**kept, **changes})


@caught_by("benchmarks", "duplicates", "permuted_labels")
class SameRecordingUnderTwoNames(GoodBenchmark):
    def load(self) -> Batch:
        data = super().load()
        again = torch.arange(120) % 60  # people 6 to 11 are people 0 to 5 once more
        return _changed(data, streams={m: s[again] for m, s in data.streams.items()})


@caught_by("benchmarks", "finite")
class NaNInValidSteps(GoodBenchmark):
    def load(self) -> Batch:
        data = super().load()
        x = data.streams["left"].x.clone()
        x[7, 2, 1], mask = float("nan"), data.streams["left"].mask.clone()
        mask[7, 2] = True
        return _changed(data, streams={**data.streams, "left": Stream(x, mask)})


@caught_by("benchmarks", "labels", "folds")
class ClassThatNeverOccurs(GoodBenchmark):
    task = Task("classify", 3, ("accuracy",))


@caught_by("benchmarks", "ids")
class SameNameTwice(GoodBenchmark):
    def load(self) -> Batch:
        data = super().load()
        return _changed(data, ids=["clip0", *data.ids[:-1]])


@caught_by("benchmarks", "shapes")
class ShapesThatAreNotItsOwn(GoodBenchmark):
    def load(self) -> Batch:
        data = super().load()
        return _changed(data, streams={**data.streams, "right": data.streams["left"]})


@caught_by("benchmarks", "corruptions")
class DamagesWhatItDoesNotHave(GoodBenchmark):
    corruptions: ClassVar = ("noise:video",)


@caught_by("benchmarks", "declared")
class MetricOfAnotherTask(GoodBenchmark):
    task = Task("classify", 2, ("ccc",))


@caught_by("benchmarks", "folds")
class EmptyValidation(GoodBenchmark):
    def splits(self, data: Batch, fold: int) -> Splits:
        splits = super().splits(data, fold)
        return Splits(splits.train, splits.val[:0], splits.test)


@caught_by("benchmarks", "indicators")
class EveryChannelAnIndicator(GoodBenchmark):
    indicators: ClassVar = {"right": (0, 1, 2)}


# ------------------------------------------------------------------------------------------------------ corruptions


class GoodCorruption(Corruption):
    """Drops a share of the steps, each by its own draw."""

    name = "sample_damage"
    announced = True
    ladder: ClassVar[tuple[float, ...]] = (0.2, 0.4, 0.6)

    def damage(self, stream: Stream, amount: float, keys: Tensor, context: Context, modality: str) -> Stream:
        return Stream(stream.x, stream.mask & (keyed.uniform(keys, stream.mask.shape[1:]) >= amount))

    @staticmethod
    def realised(before: Stream, after: Stream) -> float:
        return float(1 - after.mask.sum() / before.mask.sum())


class GoodNoise(Corruption):
    name = "sample_noise"
    announced = False
    ladder: ClassVar[tuple[float, ...]] = (0.5, 1.0)

    def damage(self, stream: Stream, amount: float, keys: Tensor, context: Context, modality: str) -> Stream:
        return Stream(stream.x + amount * keyed.normal(keys, stream.shape), stream.mask)


@caught_by("corruptions", "identity")
class NeverQuiteTheIdentity(GoodNoise):
    def apply(self, streams: Streams, severity: int, keys: Mapping[str, Tensor], context: Context) -> Streams:
        found = super().apply(streams, severity, keys, context)
        return found if severity else {m: Stream(s.x * (1 + 1e-6), s.mask) for m, s in found.items()}


@caught_by("corruptions", "modalities_differ")
class SameDrawsForAllModalities(GoodCorruption):
    def _damage_all(self, streams: Any, targets: Any, amount: float, keys: Any, context: Context) -> Streams:
        return super()._damage_all(streams, targets, amount, dict.fromkeys(keys, next(iter(keys.values()))), context)


@caught_by("corruptions", "keyed_draws", "padding", "same_draws")
class BringsItsOwnGenerator(GoodNoise):
    def damage(self, stream: Stream, amount: float, keys: Tensor, context: Context, modality: str) -> Stream:
        draws = torch.randn(stream.x.shape, generator=torch.Generator().manual_seed(0))
        return Stream(stream.x + amount * draws, stream.mask)


@caught_by("corruptions", "same_draws")
class DrawsByPlaceInTheBatch(GoodNoise):
    def damage(self, stream: Stream, amount: float, keys: Tensor, context: Context, modality: str) -> Stream:
        return super().damage(stream, amount, keys + torch.arange(len(keys)).int(), context, modality)


@caught_by("corruptions", "grows")
class GetsMilder(GoodNoise):
    ladder: ClassVar[tuple[float, ...]] = (1.0, 0.5)


@caught_by("corruptions", "input_untouched")
class WritesToTheStream(GoodNoise):
    def damage(self, stream: Stream, amount: float, keys: Tensor, context: Context, modality: str) -> Stream:
        found = super().damage(Stream(stream.x.clamp(-1, 1), stream.mask), amount, keys, context, modality)
        stream.x.clamp_(-1, 1)
        return found


@caught_by("corruptions", "honest_label")
class SilentButMasks(GoodCorruption):
    announced = False


@caught_by("corruptions", "honest_label")
class AnnouncedButSilent(GoodNoise):
    announced = True


@caught_by("corruptions", "realised_rate")
class HalfOfWhatItSays(GoodCorruption):
    def damage(self, stream: Stream, amount: float, keys: Tensor, context: Context, modality: str) -> Stream:
        return super().damage(stream, 0.5 * amount, keys, context, modality)


@caught_by("corruptions", "refuses")
class SkipsNaN(GoodNoise):
    def apply(self, streams: Streams, severity: int, keys: Mapping[str, Tensor], context: Context) -> Streams:
        if not all(s.x.isfinite().all() for s in streams.values()):
            return streams
        return super().apply(streams, severity, keys, context)


@caught_by("corruptions", "padding")
class ShareOfThePaddedLength(GoodCorruption):
    def damage(self, stream: Stream, amount: float, keys: Tensor, context: Context, modality: str) -> Stream:
        steps = stream.mask.shape[1]
        start = (keyed.uniform(keys, ()) * (1 - amount) * steps)[:, None]
        place = torch.arange(steps)
        return Stream(stream.x, stream.mask & ~((place >= start) & (place < start + amount * steps)))

    realised = GoodCorruption.realised
    ladder: ClassVar[tuple[float, ...]] = (0.2, 0.4)
    known_failures: ClassVar = {"realised_rate": "its length is a share of the padded sequence"}


@caught_by("corruptions", "value_range")
class TooBright(GoodNoise):
    level = "image"


# ------------------------------------------------------------------------------------------------------------ tests


@pytest.mark.parametrize(("kind", "plugin", "names"), BROKEN)
def test_a_broken_plugin_fails_exactly_the_checks_that_it_breaks(kind: str, plugin: type, names: set[str]) -> None:
    only = [check.__name__ for check in CHECKS[kind] if check.__name__ != "solves_xor"]
    found = report(kind, plugin, only)
    assert set(found.failed) == names, found


@pytest.mark.parametrize(
    ("kind", "plugin"),
    [
        ("fusers", Good),
        ("backbones", GoodBackbone),
        ("backbones", GoodPictureBackbone),
        ("backbones", CentredBackbone),
        ("benchmarks", GoodBenchmark),
        ("benchmarks", GoodLazyBenchmark),
        ("corruptions", GoodCorruption),
        ("corruptions", GoodNoise),
    ],
)
def test_the_honest_ones_that_the_broken_ones_are_made_from_pass(kind: str, plugin: type) -> None:
    found = report(kind, plugin)
    assert found.ok, found
    assert found.ran >= len(CHECKS[kind]) - 4


def test_every_check_of_the_kit_catches_somebody() -> None:
    caught = {kind: {name for p in BROKEN if p.values[0] == kind for name in p.values[2]} for kind in CHECKS}
    assert sum(p.values[0] == "fusers" for p in BROKEN) >= 25
    elsewhere = {"mask_values", "nan_under_mask", "solves_xor"}  # the two tests below
    assert {check.__name__ for check in CHECKS["fusers"]} - caught["fusers"] == elsewhere


def test_additive_fusion_does_not_solve_exclusive_or() -> None:
    found = report("fusers", Additive, ["solves_xor"])
    assert not found.ok
    assert "chance is 50%" in found.failed["solves_xor"]


def test_values_under_the_mask_would_be_noticed_if_streams_did_not_clear_them(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = ["mask_values", "nan_under_mask"]
    assert report("fusers", AveragesPadding, checks).ok
    monkeypatch.setattr(Stream, "__post_init__", lambda stream: None)
    assert set(report("fusers", AveragesPadding, checks).failed) == set(checks)


def test_an_excuse_holds_only_as_long_as_the_check_fails() -> None:
    class Excused(AveragesPadding):
        known_failures: ClassVar = {"padding": "it averages everything"}

    class Outdated(Good):
        known_failures: ClassVar = {"padding": "it averaged everything once"}

    class Misspelt(Good):
        known_failures: ClassVar = {"paddding": "it averages everything"}

    excused = report("fusers", Excused, ["padding", "shape"])
    assert excused.ok
    assert [result.status for result in excused.results] == ["passed", "excused"]
    assert "it averages everything" in str(excused)
    outdated = report("fusers", Outdated, ["padding", "shape"])
    assert "no longer true" in outdated.failed["padding"]
    assert not outdated.ok
    misspelt = report("fusers", Misspelt, ["shape"])
    assert "did you mean padding?" in misspelt.failed["known_failures"]
    assert not misspelt.ok


def test_a_plugin_for_which_nothing_ran_fails() -> None:
    class Elsewhere(GoodBenchmark):
        def load(self) -> Batch:
            raise UsageError("the files of Elsewhere are not here")

    found = report("benchmarks", Elsewhere)
    assert found.ran == 0
    assert not found.ok
    assert "nothing ran, so this plugin fails" in str(found)
    assert "the files of Elsewhere are not here" in str(found)


def test_a_plugin_that_is_excused_from_everything_fails() -> None:
    class Hopeless(AveragesPadding):
        known_failures: ClassVar = {"padding": "no"}

    found = report("fusers", Hopeless, ["padding"])
    assert found.ran == 1
    assert not found.ok


def test_a_report_is_a_line_per_check_and_how_many_ran() -> None:
    found = report("fusers", AveragesPadding, ["shape", "padding"])
    head, shape, padding, counts = str(found).splitlines()
    assert head == "fuser AveragesPadding"
    assert shape.split()[:2] == ["passed", "shape"]
    assert padding.split()[:2] == ["FAILED", "padding"]
    assert counts.startswith("2 checks ran in ")
    assert counts.endswith(": 1 passed, 1 failed, 0 excused; 0 not applicable")
    assert repr(found).startswith(f"{head}, {counts}; padding: clip")


def test_an_exception_is_one_line_with_its_place_in_the_plugins_file(tmp_path: Any) -> None:
    path = tmp_path / "crashing.py"
    path.write_text(
        "from fusionbench.api import Fuser\n\n\nclass Crashing(Fuser):\n    def forward(self, streams):\n"
        "        raise RuntimeError('no luck\\ntoday')\n"
    )
    message = report("fusers", str(path), ["shape"]).failed["shape"]
    assert message == "RuntimeError: no luck (crashing.py, line 6)"


def test_a_plugin_is_named_by_path_by_name_or_by_class(tmp_path: Path) -> None:
    path = str(next(o.path for n, o in registry.names("fusers").items() if n == "concat"))
    by_class = report("fusers", registry.load("fusers", "concat"), ["shape"])
    by_name = report("fusers", "concat", ["shape"])
    assert by_name.ok
    assert by_class.ok
    assert (by_name.plugin, by_class.plugin) == ("concat", "Concat")
    assert report("fusers", path, ["shape"]).ok  # the file of the plugin itself
    rival = tmp_path / "concat.py"
    rival.write_text(Path(path).read_text())
    with pytest.raises(UsageError, match="would both be 'concat'"):
        report("fusers", str(rival))


@pytest.mark.parametrize(
    ("kind", "plugin", "only", "message"),
    [
        ("fuser", "concat", [], "did you mean fusers"),
        ("fusers", "concta", [], "did you mean concat"),
        ("fusers", "concat", ["pading"], "did you mean padding"),
        ("backbones", Good, [], "not a backbone"),
    ],
)
def test_wrong_questions_are_refused_with_a_way_out(kind: str, plugin: Any, only: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        report(kind, plugin, only)


def test_every_check_is_one_sentence() -> None:
    for checks in CHECKS.values():
        for check in checks:
            sentence = (check.__doc__ or "").strip().splitlines()[0]
            assert sentence.endswith("."), check.__name__

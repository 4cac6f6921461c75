"""The four kinds of plugin: a fuser, a backbone, a benchmark, a corruption. A plugin is a file with one class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from fusionbench.api import keyed
from fusionbench.api.layers import masked_mean
from fusionbench.api.types import Batch, Spec, Splits, Stream, Streams, Task
from fusionbench.errors import UsageError

#: The largest constants of a benchmark that make sense; each is a whole number, 1 at least.
LIMITS = {"folds": 10**5, "seeds": 10**4, "steps": 10**7, "batch": 10**6, "interval": 10**7}

Criterion = Callable[[Tensor, Batch], Tensor]
Role = Literal["headline", "development", "synthetic", "exhibit"]


class Fuser(nn.Module):
    """A fusion method. Its hyper-parameters are the keyword-only arguments of `__init__(self, spec, *, ...)`.

    `known_failures` maps the name of a check of the kit to the reason why this method cannot pass it; `presets` names
    settings, as `{"paper": {"width": 512}}` for `--preset paper`. `sees` are the modalities that it looks at, all by
    default: to a sample that has none of them, the harness answers what the training labels alone say.
    """

    known_failures: ClassVar[Mapping[str, str]] = {}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec
        self.sees: Sequence[str] = spec.modalities

    @abstractmethod
    def forward(self, streams: Streams) -> Tensor:
        """(B, S, out): S = 1 for a clip task; per frame, S steps of the label's clock, which all streams share then.

        Streams are (B, T, dims[m]); for a clip their T may differ.
        """

    def loss(self, batch: Batch, criterion: Criterion) -> Tensor:
        """The scalar to minimise; override only to add the method's own terms.

        `criterion(answers (B, S, out), batch)` is the task's loss, weighted by `batch.y_mask`.
        """
        return criterion(self(batch.streams), batch)

    @classmethod
    def owner(cls, parameter: str, modalities: Sequence[str]) -> str | None:
        """The modality that alone uses a parameter, by its dotted name; None where modalities share it.

        By default the modality whose name is a part of the parameter's: `project.face.weight` belongs to `face`.
        """
        owners = [m for m in modalities if m in parameter.split(".")]
        return owners[0] if len(owners) == 1 else None

    def trust(self, streams: Streams) -> dict[str, Tensor] | None:
        """Modality -> (B, S) weight in 0..1 that the method gives it (gates, attention); None: it has no such thing."""
        return None

    def pool(self, stream: Stream) -> Stream:
        """A stream at the answer's clock: as it is per frame, else its masked mean over time, (B, 1, d)."""
        if self.spec.per_frame:
            return stream
        return Stream(masked_mean(stream.x, stream.mask).unsqueeze(1), stream.present.unsqueeze(1))


class Backbone(nn.Module):
    """An encoder of one modality.

    Args of `__init__(self, shape, *, ...)`: `shape` is the (*step) shape of the stream that comes in.

    Attributes:
        dim: width of its output's steps.
        frozen: it never trains, so its features are encoded once and kept.
        stepwise: a step of a frozen encoder stands for itself: masked ones need not be encoded.
        clips_only: it makes one step of a clip, and is refused where an answer a frame is asked for.
        example: (T, *step) of a small stream for the conformance kit, and `example_settings` that suit it.
    """

    known_failures: ClassVar[Mapping[str, str]] = {}
    dim: int
    frozen: bool = False
    stepwise: bool = False
    clips_only: bool = False
    example: tuple[int, ...] = (7, 3)  # odd: strides of 2 meet an incomplete pair
    example_settings: Mapping[str, Any] = {}

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, stream: Stream) -> Stream:
        """(B, T, *shape) -> (B, T', dim); the mask follows time."""

    def prepare(self, stream: Stream) -> None:
        """Learns from a fold's training samples, before training, what its buffers hold; most have nothing to learn.

        Called by the harness with a copy of the samples, normalised, on the CPU, at most a few thousand. Parameters
        stay as they were drawn, buffers keep their shapes: members of several folds are stacked. Not for frozen ones.
        """
        return None

    def admit(self, stream: Stream, rate: float | None) -> None:
        """Refuses raw media that a frozen encoder is not made for; `rate`: steps a second, where it is known.

        Raises:
            UsageError: what it expects, and what it was given.
        """
        return None


class Benchmark(ABC):
    """A dataset, a task and a protocol. Constants may be set on the class or in `__init__(self, *, ...)`.

    Attributes:
        version: bumped when the data or the splits change.
        shapes: modality -> shape of one step.
        rates: modality -> steps a second, where it means something.
        task: what is asked.
        folds, seeds: how many a complete row has.
        steps, batch, interval: optimiser steps, samples a step, steps between validations.
        backbones: modality -> (default backbone, its settings); ("identity", {}) unless named.
        indicators: modality -> channels that say when and whether something was measured (times, observed-flags):
            damage to values leaves them alone. What was never measured is a real step whose flags are 0; what damage
            hides is a step under a False mask.
        corruptions: the damage of the default table, as "noise:audio" (severities 1 to 5), "noise:all" or
            "missing:video".
        transductive: the reason, if any statistic of the test people went into the features; shown in every table.
        subject_dependent: the reason, if one person may stand on two sides of a split; the name says so too.
        unit: what a group is, as tables and sentences say it: "person", "video", "engine".
        margin: the smallest difference of the first metric that matters, in its own units (.02: two points of
            accuracy). It is declared before the benchmark is run: a margin that has seen the scores proves nothing.
            None: nothing is called equivalent.
        domain: the kind of data ("motion", "affect", "engines"); over many data sets domains weigh the same. Empty:
            a domain of its own.
        role: "headline"; "development" where a recipe was chosen on it; "synthetic"; or "exhibit", which shows
            something and counts nowhere. Sets of different roles are never averaged.
        classes: their names, in the order of the labels.
        unused: modalities of the data that its settings leave out; a model for use ignores them in its input.
        skipped: what `load` left out, and why, a line each.
        notes: what `load` has inferred, a line each.
        licence, source, citation: of the data, for its card: a name, an address, who to cite.
        reference_scores: who measured what, how -> the score; caveats: what would inflate one, a sentence each.
    """

    known_failures: ClassVar[Mapping[str, str]] = {}
    version: str = "1"
    shapes: Mapping[str, tuple[int, ...]]
    rates: Mapping[str, float] = {}
    task: Task
    folds: int = 1
    seeds: int = 3
    steps: int = 300
    batch: int = 32
    interval: int = 25
    backbones: Mapping[str, tuple[str, Mapping[str, object]]] = {}
    indicators: Mapping[str, Sequence[int]] = {}
    corruptions: Sequence[str] = ()
    transductive: str = ""
    subject_dependent: str = ""
    unit: str = "group"
    margin: float | None = None
    domain: str = ""
    role: Role = "headline"
    classes: Sequence[str] = ()
    unused: Sequence[str] = ()
    skipped: Sequence[str] = ()
    notes: Sequence[str] = ()
    licence: str = ""
    source: str = ""
    citation: str = ""
    reference_scores: Mapping[str, str] = {}
    caveats: Sequence[str] = ()

    @abstractmethod
    def load(self) -> Batch:
        """The whole dataset. Raises UsageError where files are missing or wrong, naming the file."""

    @abstractmethod
    def splits(self, data: Batch, fold: int) -> Splits:
        """The three index sets of a fold, 0 <= fold < folds; validation people differ from training and test people."""

    def order(self, data: Batch) -> np.ndarray | None:
        """(n,) how far into its recording each sample stands, 0 to 1; None: samples have no time.

        `elapsed` makes it of the groups and of times. What knows nothing else is a row of its own on the board.
        """
        return None

    def optimum(
        self, streams: Streams, truth: Batch, damage: tuple[Corruption, int, Context] | None = None
    ) -> Mapping[str, float] | None:
        """The best reachable score by metric on these samples, where it can be computed; None where it cannot.

        `streams` as the model meets them; `truth` the same samples undamaged; `damage`: corruption, severity, context.
        """
        return None

    def submission(self, ids: Sequence[str], answers: np.ndarray, path: Path) -> None:
        """Writes answers (n, S, out) to a challenge's unlabelled test list in its official format.

        Raises:
            UsageError: there is no such list, or the file cannot be written.
        """
        raise UsageError(f"{type(self).__name__} has no official test list to answer")


def group_folds(
    groups: Sequence[str], folds: int, fold: int, val_share: float = 0.2, *, deal: int | None = None
) -> Splits:
    """Splits by whole groups (people, videos): fold `fold` of `folds` is the test set.

    Groups are put in an order that depends on their names alone and cut into `folds` blocks; the `val_share` of all
    groups that follow the test block (cyclically) validate, the others train.

    Args:
        deal: another order, of that number; None: the one partition that all seeds share.

    Raises:
        UsageError: fewer than three groups or than `folds`.
    """
    words = ("fold",) if deal is None else ("fold", deal)
    names = sorted(set(groups), key=lambda g: (keyed.number(*words, g), g))
    if len(names) < max(3, folds):
        raise UsageError(f"{folds} folds by group need at least {max(3, folds)} groups; there are {len(names)}")
    if len(names) - -(-len(names) // folds) < 2:
        raise UsageError(f"{folds} folds of {len(names)} groups leave fewer than two to train and to validate on")
    blocks = np.array_split(np.arange(len(names)), folds)
    test = {names[i] for i in blocks[fold]}
    after = int(blocks[fold][-1]) + 1
    rest = [names[(after + i) % len(names)] for i in range(len(names) - len(test))]
    val = set(rest[: min(len(rest) - 1, max(1, round(val_share * len(names))))])
    side = np.array([2 if g in test else 1 if g in val else 0 for g in groups])
    return Splits(*(np.flatnonzero(side == s) for s in range(3)))


def elapsed(groups: Sequence[str], times: Sequence[float] | np.ndarray | None = None) -> np.ndarray:
    """(n,) time since the first sample of the same group, 1 at the end of the longest group.

    `times` are in any unit; without them the samples of a group stand in their order, evenly apart.
    """
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    counts = np.bincount(group)
    if times is None:
        found = np.empty(len(group))
        found[np.argsort(group, kind="stable")] = np.concatenate([np.arange(n) for n in counts])
    else:
        found = np.asarray(times, dtype=float)
        first = np.full(len(counts), np.inf)
        np.minimum.at(first, group, found)
        found = found - first[group]
    return np.asarray(found / max(float(found.max()), 1e-12))


@dataclass(frozen=True, eq=False)
class Context:
    """What damage may know besides the streams: statistics of the training split, and the other samples.

    Attributes:
        sd: modality -> (*step) standard deviation over the real steps of the training split.
        rates: modality -> steps a second.
        others: streams of the whole split under damage (for mismatched pairs), or empty.
        indicators: modality -> channels that are no values (see `Benchmark.indicators`).
    """

    sd: Mapping[str, Tensor]
    rates: Mapping[str, float] = field(default_factory=dict)
    others: Streams = field(default_factory=dict)
    indicators: Mapping[str, Sequence[int]] = field(default_factory=dict)


class Corruption(ABC):
    """One kind of damage, on one modality or on `all`. A pure function of streams, severity and keys.

    Severity 0 is the identity to the bit; distance from clean grows with severity.

    Attributes:
        name: as it is spelled, `noise` in `noise:audio:3`.
        announced: does the mask tell that the steps are lost, or is the damage silent?
        level: the data that it is meant for: "feature" (any modality), "crossmodal", "audio", "image", "biosignal".
        moves: whole steps come from elsewhere, another time or another sample, and bring their indicators along; other
            damage cannot change indicators.
        ladder: the amount (a number, or a tuple of them) at severities 1, 2, ...; its unit is the class's to say.
    """

    known_failures: ClassVar[Mapping[str, str]] = {}
    name: ClassVar[str]
    announced: ClassVar[bool]
    level: ClassVar[str] = "feature"
    moves: ClassVar[bool] = False
    ladder: ClassVar[tuple[Any, ...]]

    def __init__(self, modality: str = "all") -> None:
        self.modality = modality

    def apply(self, streams: Streams, severity: int, keys: Mapping[str, Tensor], context: Context) -> Streams:
        """New streams, damaged; the given ones are not written to.

        Args:
            severity: 0 to len(ladder).
            keys: modality -> (B,) int32 keys, one a sample (see `fusionbench.corruptions.keys`).

        Raises:
            UsageError: the modality is not there, the severity is off the ladder, or a stream is empty or not finite.
        """
        if not 0 <= severity <= len(self.ladder):
            raise UsageError(f"{self.name} has severities 0 to {len(self.ladder)}, not {severity}")
        targets = list(streams) if self.modality == "all" else self.modality.split("+")
        for modality in targets:
            if modality not in streams:
                raise UsageError(
                    f"{self.name}:{self.modality}: there is no modality {modality!r}, only {list(streams)}"
                )
            if streams[modality].x.numel() == 0 or not torch.isfinite(streams[modality].x).all():
                raise UsageError(f"{self.name}: the stream of {modality} is empty or not finite")
        if severity == 0:
            return dict(streams)
        damaged = self._damage_all(streams, targets, self.ladder[severity - 1], keys, context)
        kept = {} if self.moves else {m: c for m, c in context.indicators.items() if damaged[m] is not streams[m]}
        for modality, channels in kept.items():
            x = damaged[modality].x.clone()  # (B, T, D)
            x[..., list(channels)] = streams[modality].x[..., list(channels)]
            damaged = {**damaged, modality: Stream(x, damaged[modality].mask)}
        return damaged

    def _damage_all(
        self, streams: Streams, targets: Sequence[str], amount: Any, keys: Mapping[str, Tensor], context: Context
    ) -> Streams:
        return {m: self.damage(s, amount, keys[m], context, m) if m in targets else s for m, s in streams.items()}

    def damage(self, stream: Stream, amount: Any, keys: Tensor, context: Context, modality: str) -> Stream:
        """One modality's stream, damaged by `amount` of the ladder."""
        raise NotImplementedError(f"{type(self).__name__} defines neither damage nor _damage_all")

    @staticmethod
    def example() -> tuple[Streams, Context] | None:
        """Streams and their context that suit this damage, for the conformance kit; None: any will do."""
        return None

    @staticmethod
    def realised(before: Stream, after: Stream) -> float | None:
        """The amount of damage measured, in the unit of the ladder; None where it cannot be."""
        return None

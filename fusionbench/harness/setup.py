"""Everything about a table row but fold and seed: plugins loaded, hyper-parameters filled in, data prepared."""

from __future__ import annotations

import hashlib
import sys
import warnings
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from fusionbench import contract, features, hparams, registry
from fusionbench.api import Batch, Benchmark, Estimator, Splits, Stream, keyed
from fusionbench.engine import Member, Recipe
from fusionbench.engine.model import Blueprint
from fusionbench.errors import UsageError, unknown
from fusionbench.records import Run, plain
from fusionbench.records.types import PER_SEED

#: The only stream of a method that sees nothing but the place in the recording.
POSITION = "position"
QUICK = {"steps": 30, "interval": 15, "lr": (1e-3,)}


class Dataset:
    """A benchmark's samples as the trainer meets them: loaded, checked, encoded and hashed once, for many setups."""

    def __init__(
        self, name: str, benchmark: Benchmark, encoders: Mapping[str, Any], prepared: features.Prepared | None = None
    ) -> None:
        self.name, self.benchmark, self.encoders, self._prepared = name, benchmark, encoders, prepared

    def encode(self) -> Generator[features.Encoding, None, None]:
        """Loads and checks the samples, raw media through their frozen backbones; yields progress."""
        if self._prepared is None:
            self._prepared = yield from features.prepare(self.benchmark, self._load(), self.encoders)

    @property
    def prepared(self) -> features.Prepared:
        """The samples, and how their raw media were encoded."""
        features.finish(self.encode())
        assert self._prepared is not None
        return self._prepared

    def _load(self) -> Batch:
        data = contract.load(self.benchmark, self.name)
        for reason in self.benchmark.skipped:
            warnings.warn(f"left out: {reason}", stacklevel=2)
        return data

    @cached_property
    def digest(self) -> str:
        """Hash of the samples, masks, labels and names."""
        digest, data = hashlib.sha256(), self.prepared.data
        for m, stream in sorted(data.streams.items()):
            encoded = self.prepared.digests.get(m)
            parts = (
                (encoded,) if encoded else (stream.x, stream.mask) if isinstance(stream, Stream) else (stream.digest,)
            )
            for part in (m, *parts):
                digest.update(part.encode() if isinstance(part, str) else part.numpy().tobytes())
        for tensor in (data.y, data.y_mask):
            digest.update(tensor.numpy().tobytes())
        digest.update("\n".join([*data.ids, *data.groups]).encode())
        return digest.hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Setup:
    """Everything about a table row but fold and seed, loaded and checked."""

    benchmark_name: str
    benchmark: Benchmark
    dataset: Dataset
    blueprint: Blueprint
    recipe: Recipe
    names: Mapping[str, str]  # part (fuser, backbone.<modality>) -> plugin name
    hparams: Mapping[str, Mapping[str, Any]]
    code: Mapping[str, str]
    changes: list[str] = field(default_factory=list)
    tuned: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)  # of `setup`: another process builds the same from them
    held: frozenset[str] = frozenset()  # hyper-parameters of the fuser that are not at their defaults
    partition: str = ""  # "per-seed": each seed deals the groups into folds anew

    def __repr__(self) -> str:
        return f"Setup({' '.join([self.names['fuser'], *self.changes])} on {self.benchmark_name})"

    @property
    def prepared(self) -> features.Prepared:
        return self.dataset.prepared

    @property
    def data(self) -> Batch:
        return self.prepared.data

    @property
    def digest(self) -> str:
        return self.dataset.digest

    @cached_property
    def trained(self) -> Blueprint:
        """The blueprint of what is trained: encoded modalities come as vectors."""
        if self.sees_order:
            return replace(
                self.blueprint, shapes={POSITION: (1,)}, backbones={POSITION: self.blueprint.backbones[POSITION]}
            )
        rates = {m: rate for m, rate in self.benchmark.rates.items() if m not in self.prepared.encoders}
        return replace(self.blueprint, shapes=self.prepared.shapes, backbones=self.prepared.backbones, rates=rates)

    @property
    def sees_order(self) -> bool:
        """Does it meet nothing but the place in the recording?"""
        return self.is_estimator and bool(getattr(self.blueprint.fuser, "sees_order", False))

    @cached_property
    def seen(self) -> Batch:
        """The samples as the method meets them: with the streams of the benchmark, or with the position alone."""
        if not self.sees_order:
            return self.data
        place = contract.order(self.benchmark, self.benchmark_name, self.data)
        if place is None:
            raise UsageError(f"{self.names['fuser']}: {self.benchmark_name} gives no order of its samples")
        x = torch.from_numpy(place).float()[:, None, None].expand(-1, self.data.y.shape[1], 1)
        return replace(self.data, streams={POSITION: Stream(x, torch.ones(x.shape[:2], dtype=torch.bool))})

    @property
    def is_estimator(self) -> bool:
        """Is it fitted in one call, instead of trained?"""
        return issubclass(self.blueprint.fuser, Estimator)

    @property
    def kept(self) -> str:
        """The file beside a record from which, or beside which, it can be evaluated on more conditions."""
        return ".npz" if self.is_estimator else ".safetensors"  # an estimator is fitted again

    @property
    def marks(self) -> list[str]:
        known = {
            "quick": self.recipe.quick,
            "tuned": bool(self.tuned),
            "transductive": bool(self.benchmark.transductive),
            "subject dependent": bool(self.benchmark.subject_dependent),
            "reconstruction": "Reconstruction from" in _module_doc(self.blueprint.fuser),
        }
        return [mark for mark, holds in known.items() if holds]

    def run(self, fold: int, seed: int) -> Run:
        backbones = {m: self.names[f"backbone.{m}"] for m in self.benchmark.shapes}
        return Run(
            benchmark=self.benchmark_name,
            fuser=self.names["fuser"],
            backbones=backbones,
            fold=fold,
            seed=seed,
            hparams=plain(self.hparams),
            tuned=self.tuned,
            partition=self.partition,
        )

    def runs(self, folds: Iterable[int] | None = None, seeds: Iterable[int] | None = None) -> list[Run]:
        """Every fold and seed asked for; the benchmark's own number of each by default.

        Raises:
            UsageError: there is no such fold, or the folds are to be dealt by each seed and cannot be.
        """
        folds = list(range(self.benchmark.folds) if folds is None else folds)
        for fold in folds:
            if not 0 <= fold < self.benchmark.folds:
                raise UsageError(f"{self.benchmark_name} has folds 0 to {self.benchmark.folds - 1}, not {fold}")
        seeds = list(range(self.benchmark.seeds) if seeds is None else seeds)
        runs = [self.run(fold, seed) for fold in folds for seed in seeds]
        for run in runs if self.partition else ():  # every deal is checked before anything is trained
            splits_of(self, self.data, run)
        return runs


def setup(
    benchmark: str,
    fuser: str,
    backbones: Mapping[str, str] | None = None,
    given: Mapping[str, Mapping[str, Any]] | None = None,
    quick: bool = False,
    tuned: str = "",
    datasets: dict[str, Dataset] | None = None,
    partition: str = "",
) -> Setup:
    """Loads the plugins and fills in every hyper-parameter.

    Args:
        backbones: modality -> backbone, where not the benchmark's default.
        given: part (benchmark, train, fuser, backbone.<modality>) -> hyper-parameter -> value.
        tuned: the search that `given` comes from, for records and tables.
        datasets: those of setups made before; one of the same benchmark, settings and encoders is shared, a new one
            is added.
        partition: "per-seed": each seed deals the groups into folds anew; empty: one partition for all seeds.

    Raises:
        UsageError: a plugin, modality, part, hyper-parameter or partition is unknown, or a value is of the wrong type.
    """
    if partition not in ("", PER_SEED):
        raise unknown("partition", partition, [PER_SEED])
    arguments: dict[str, Any] = {
        "benchmark": benchmark, "fuser": fuser, "backbones": backbones, "given": given, "quick": quick, "tuned": tuned,
        "partition": partition,
    }  # fmt: skip
    given, backbones = dict(given or {}), dict(backbones or {})
    code, settings, declared = {}, {}, {}

    def prepare(part: str, target: Any, owner: str, extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
        declared[part] = hparams.read(target)
        filled = hparams.fill(declared[part], {**(extra or {}), **given.pop(part, {})}, owner)
        settings[part] = {n: _content(n, value) for n, value in filled.items() if _of_a_run(declared[part][n], value)}
        return filled

    maker = registry.load("benchmarks", benchmark)
    benchmark_name = registry.plugin_name(benchmark)
    protocol = contract.make(maker, prepare("benchmark", maker, benchmark_name), benchmark_name)
    code["benchmark"] = registry.fingerprint(maker)

    constants = {name: getattr(protocol, name) for name in ("steps", "batch", "interval")}
    given["train"] = {n: v for n, v in given.get("train", {}).items() if n not in constants or str(v) != "0"}
    method = registry.load("fusers", fuser)
    names = {"fuser": registry.plugin_name(fuser)}
    fitted = issubclass(method, Estimator)
    ordered = fitted and method.sees_order
    if ordered and not contract.has_order(protocol):
        raise UsageError(
            f"{names['fuser']} sees when samples were taken, and {benchmark_name} does not say: it declares no order"
        )
    recipe = Recipe(**prepare("train", Recipe, "training", {**constants, **(QUICK if quick else {}), "quick": quick}))
    if fitted:
        recipe = _of_estimator(recipe, names["fuser"])
        kept = ("missing", "quick", "groups")
        settings["train"] = {name: value for name, value in settings["train"].items() if name in kept}
    prepare("fuser", method, names["fuser"])
    code["fuser"] = registry.fingerprint(method)

    for m in backbones:
        if m not in protocol.shapes:
            raise unknown(f"modality of {benchmark_name}", m, protocol.shapes)
    chosen = {}
    for m in protocol.shapes:
        default, defaults = protocol.backbones.get(m, ("identity", {}))
        name = backbones.get(m, default)
        encoder = registry.load("backbones", name)
        if fitted and not encoder.frozen:
            name, encoder = "identity", registry.load("backbones", "identity")
            given.pop(f"backbone.{m}", None)
            if len(protocol.shapes[m]) != 1:
                step = " x ".join(map(str, protocol.shapes[m]))
                raise UsageError(
                    f"{names['fuser']} takes vectors, a step of {m} is {step}: give it a frozen encoder, --backbone.{m}"
                )
        if protocol.task.per_frame and encoder.clips_only:
            raise UsageError(
                f"{name} makes one step of a clip, {benchmark_name} asks for an answer a frame: another --backbone.{m}"
            )
        part = f"backbone.{m}"
        names[part] = registry.plugin_name(name)
        chosen[m] = encoder, prepare(part, encoder, f"{names[part]} ({m})", defaults if name == default else {})
        code[part] = registry.fingerprint(encoder)
    for part in given:
        raise unknown("part of a run", part, [*settings, *(f"backbone.{m}" for m in protocol.shapes)])

    chosen_names = {m: names[f"backbone.{m}"] for m in backbones}
    changes = [
        f"backbone.{m}={n}"
        for m, n in chosen_names.items()
        if n != ("identity" if fitted and n == "identity" else protocol.backbones.get(m, ("identity", {}))[0])
    ]
    for part, filled in settings.items():
        usual = {name: h.default for name, h in declared[part].items()}
        if part == "train":
            usual |= {**constants, **(QUICK if quick else {}), "quick": quick}
        if part.startswith("backbone.") and f"{part}={names[part]}" not in changes:
            usual |= protocol.backbones.get(part.partition(".")[2], ("identity", {}))[1]
        changes += [f"{part}.{name}={_spell(value)}" for name, value in filled.items() if value != usual[name]]
    if tuned:
        changes = [f"tuned={tuned}"]
    if partition:
        changes.append(f"partition={partition}")
    blueprint = Blueprint(protocol.task, protocol.shapes, method, settings["fuser"], chosen, protocol.rates)
    if ordered:
        blueprint = replace(blueprint, backbones={**chosen, POSITION: (registry.load("backbones", "identity"), {})})
    held = frozenset(n for n, value in settings["fuser"].items() if value != declared["fuser"][n].default)
    # Setups of one benchmark and the same backbones share one copy of its data.
    parts = [part for part in settings if part not in ("fuser", "train")]
    asked = arguments["given"] or {}  # where the data lie is no setting
    key = repr([[benchmark_name, p, names.get(p), code[p], settings[p], asked.get(p)] for p in parts])
    known = {} if datasets is None else datasets
    dataset = known.setdefault(key, Dataset(benchmark_name, protocol, chosen))
    return Setup(
        benchmark_name,
        dataset.benchmark,
        dataset,
        blueprint,
        recipe,
        names,
        settings,
        code,
        changes,
        tuned,
        arguments,
        held,
        partition,
    )


def _of_estimator(recipe: Recipe, name: str) -> Recipe:
    """What of a recipe an estimator follows: missing modalities in training. Of steps and rates it knows nothing.

    Raises:
        UsageError: it asks for what changes a row's meaning and is of networks alone.
    """
    if recipe.precision != "float32":
        raise UsageError(f"{name} is fitted on the CPU in double precision: leave --train.precision out")
    if recipe.modality_dropout:
        raise UsageError(
            f"{name} meets each sample once: --train.missing hides modalities from it, not modality_dropout"
        )
    kept: dict[str, Any] = {name: getattr(recipe, name) for name in ("missing", "quick", "groups")}
    return Recipe(**kept, lr=(recipe.lr[0],), steps=1, interval=1, batch=1)


def _of_a_run(hparam: hparams.HParam, value: Any) -> bool:
    """Where the data lie is no part of it, nor what published runs could not know of and nobody has asked for."""
    return not hparam.location and not (hparam.added and value == hparam.default)


def _content(name: str, value: Any) -> Any:
    """A file of weights is what is in it, not where it lies."""
    if name != "weights" or not isinstance(value, str) or not (path := Path(value).expanduser()).is_file():
        return value
    with path.open("rb") as file:
        return f"{path.name}@{hashlib.file_digest(file, 'sha256').hexdigest()[:8]}"


def member_of(recipe: Recipe, run: Run, splits: Splits, lr: float) -> Member:
    scalars = recipe.weight_decay, recipe.label_smoothing, recipe.clip
    return Member(run.fold, run.seed, splits.train, splits.val, lr, *scalars)


def splits_of(setup: Setup, data: Batch, run: Run) -> Splits:
    """The samples that a run trains on, is selected by, and is tested on."""
    deal = run.seed if setup.partition else None
    return contract.splits(setup.benchmark, setup.benchmark_name, data, run.fold, deal)


def training_of(setup: Setup, data: Batch, run: Run) -> Splits:
    """The split that a run learns from: of its training groups the share that `train.groups` keeps.

    Groups are put in an order that depends on fold, seed and name alone, and the first are kept: a smaller share is
    part of a larger one, and each seed keeps others. Validation and test groups stay.

    Raises:
        UsageError: fewer than two groups are left.
    """
    splits, share = splits_of(setup, data, run), setup.recipe.groups
    if share == 1:
        return splits
    names = sorted(
        {data.groups[i] for i in splits.train}, key=lambda g: (keyed.number("train.groups", run.fold, run.seed, g), g)
    )
    count = round(share * len(names))
    if count < 2:
        raise UsageError(
            f"train.groups {share:g} leaves {count} of the {len(names)} training groups of {setup.benchmark_name} "
            f"(fold {run.fold}): two are the least, a share of {2 / len(names):.2g}"
        )
    kept = set(names[:count])
    return replace(splits, train=splits.train[[data.groups[i] in kept for i in splits.train]])


def _module_doc(plugin: type) -> str:
    return sys.modules[plugin.__module__].__doc__ or ""


def _spell(value: Any) -> str:
    return (
        ",".join(map(_spell, value))
        if isinstance(value, tuple)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )

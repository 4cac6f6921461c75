"""Everything about a table row but fold and seed: plugins loaded, hyper-parameters filled in, data prepared."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Mapping
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
from fusionbench.harness.dataset import Dataset
from fusionbench.records import Run, plain
from fusionbench.records.types import PER_SEED

#: The only stream of a method that sees nothing but the place in the recording.
POSITION = "position"
QUICK = {"steps": 30, "interval": 15, "lr": (1e-3,)}


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
    partition: str = ""  # "per-seed": each seed deals the groups into folds again

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


class _Parts:
    """The parts of a run (benchmark, train, fuser, backbone.<modality>) as their hyper-parameters are filled in.

    Attributes:
        given: what the user has set and no part has taken yet.
        code: part -> fingerprint of its plugin; settings: part -> hyper-parameter -> value, as a run holds them.
        usual: part -> hyper-parameter -> what it is where nobody says anything.
    """

    def __init__(self, given: Mapping[str, Mapping[str, Any]] | None) -> None:
        self.given = {part: dict(values) for part, values in (given or {}).items()}
        self.code: dict[str, str] = {}
        self.settings: dict[str, dict[str, Any]] = {}
        self.usual: dict[str, dict[str, Any]] = {}

    def fill(self, part: str, target: Any, owner: str, usual: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Every hyper-parameter of a part: what is given, else `usual`, else its own default.

        Raises:
            UsageError: one is unknown, or a value is of the wrong type.
        """
        declared = hparams.read(target)
        filled = hparams.fill(declared, {**(usual or {}), **self.given.pop(part, {})}, owner)
        self.settings[part] = {n: _content(n, v) for n, v in filled.items() if _of_a_run(declared[n], v)}
        self.usual[part] = {**{n: h.default for n, h in declared.items()}, **(usual or {})}
        return filled


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
        partition: "per-seed": each seed deals the groups into folds again; empty: one partition for all seeds.

    Raises:
        UsageError: a plugin, modality, part, hyper-parameter or partition is unknown, or a value is of the wrong type.
    """
    if partition not in ("", PER_SEED):
        raise unknown("partition", partition, [PER_SEED])
    arguments: dict[str, Any] = {
        "benchmark": benchmark, "fuser": fuser, "backbones": backbones, "given": given, "quick": quick, "tuned": tuned,
        "partition": partition,
    }  # fmt: skip
    parts = _Parts(given)
    maker, benchmark_name = registry.load("benchmarks", benchmark), registry.plugin_name(benchmark)
    protocol = contract.make(maker, parts.fill("benchmark", maker, benchmark_name), benchmark_name)
    method, fuser_name = registry.load("fusers", fuser), registry.plugin_name(fuser)
    ordered = issubclass(method, Estimator) and method.sees_order
    if ordered and not contract.has_order(protocol):
        raise UsageError(
            f"{fuser_name} sees when samples were taken, and {benchmark_name} does not say: it declares no order"
        )
    recipe = _recipe(parts, protocol, method, fuser_name, quick)
    parts.fill("fuser", method, fuser_name)
    parts.code |= {"benchmark": registry.fingerprint(maker), "fuser": registry.fingerprint(method)}
    names = {"fuser": fuser_name}
    encoders = _encoders(parts, names, protocol, benchmark_name, method, backbones or {})
    for part in parts.given:
        raise unknown("part of a run", part, [*parts.settings, *(f"backbone.{m}" for m in protocol.shapes)])
    settings = parts.settings
    blueprint = Blueprint(
        task=protocol.task,
        shapes=protocol.shapes,
        fuser=method,
        settings=settings["fuser"],
        backbones=encoders,
        rates=protocol.rates,
    )
    if ordered:
        blueprint = replace(blueprint, backbones={**encoders, POSITION: (registry.load("backbones", "identity"), {})})
    # Setups of one benchmark and the same backbones share one copy of its data.
    of_data = [part for part in settings if part not in ("fuser", "train")]
    asked = arguments["given"] or {}  # where the data lie is no setting
    key = repr([[benchmark_name, p, names.get(p), parts.code[p], settings[p], asked.get(p)] for p in of_data])
    known = {} if datasets is None else datasets
    dataset = known.setdefault(key, Dataset(benchmark_name, protocol, encoders))
    return Setup(
        benchmark_name=benchmark_name,
        benchmark=dataset.benchmark,
        dataset=dataset,
        blueprint=blueprint,
        recipe=recipe,
        names=names,
        hparams=settings,
        code=parts.code,
        changes=_changes(parts, names, protocol, method, backbones or {}, tuned, partition),
        tuned=tuned,
        arguments=arguments,
        held=frozenset(n for n, value in settings["fuser"].items() if value != parts.usual["fuser"][n]),
        partition=partition,
    )


def _recipe(parts: _Parts, protocol: Benchmark, method: Any, fuser_name: str, quick: bool) -> Recipe:
    """How it is trained: by the benchmark's constants, unless others are given (0 means the benchmark's)."""
    constants = {name: getattr(protocol, name) for name in ("steps", "batch", "interval")}
    given = parts.given.get("train", {})
    parts.given["train"] = {n: v for n, v in given.items() if n not in constants or str(v) != "0"}
    usual = {**constants, **(QUICK if quick else {}), "quick": quick}
    recipe = Recipe(**parts.fill("train", Recipe, "training", usual))
    if not issubclass(method, Estimator):
        return recipe
    kept = ("missing", "quick", "groups")
    parts.settings["train"] = {name: v for name, v in parts.settings["train"].items() if name in kept}
    return _of_estimator(recipe, fuser_name)


def _usual_backbone(protocol: Benchmark, modality: str) -> tuple[str, Mapping[str, Any]]:
    return protocol.backbones.get(modality, ("identity", {}))


def _encoders(
    parts: _Parts,
    names: dict[str, str],
    protocol: Benchmark,
    benchmark_name: str,
    method: Any,
    backbones: Mapping[str, str],
) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Modality -> (backbone, its settings); what trains becomes the identity for an estimator. Adds to `names`."""
    for m in backbones:
        if m not in protocol.shapes:
            raise unknown(f"modality of {benchmark_name}", m, protocol.shapes)
    chosen = {}
    for m, shape in protocol.shapes.items():
        part = f"backbone.{m}"
        default, defaults = _usual_backbone(protocol, m)
        name = backbones.get(m, default)
        encoder = registry.load("backbones", name)
        if issubclass(method, Estimator) and not encoder.frozen:
            name, encoder = "identity", registry.load("backbones", "identity")
            parts.given.pop(part, None)
            if len(shape) != 1 and not method.sees_order:
                step = " x ".join(map(str, shape))
                raise UsageError(
                    f"{names['fuser']} takes vectors, a step of {m} is {step}: give it a frozen encoder, --{part}"
                )
        if protocol.task.per_frame and encoder.clips_only:
            raise UsageError(
                f"{name} makes one step of a clip, {benchmark_name} asks for an answer a frame: another --{part}"
            )
        names[part] = registry.plugin_name(name)
        filled = parts.fill(part, encoder, f"{names[part]} ({m})", defaults if name == default else {})
        chosen[m] = encoder, filled
        parts.code[part] = registry.fingerprint(encoder)
    return chosen


def _changes(
    parts: _Parts,
    names: Mapping[str, str],
    protocol: Benchmark,
    method: Any,
    backbones: Mapping[str, str],
    tuned: str,
    partition: str,
) -> list[str]:
    """What differs from the defaults, as `fuser.width=256`; of tuned settings, which vary by fold, the search alone."""
    changes = []
    for m in backbones:
        name = names[f"backbone.{m}"]
        replaced = issubclass(method, Estimator) and name == "identity"
        if not replaced and name != _usual_backbone(protocol, m)[0]:
            changes.append(f"backbone.{m}={name}")
    for part, filled in parts.settings.items():
        usual = parts.usual[part]
        changes += [f"{part}.{name}={_spell(value)}" for name, value in filled.items() if value != usual[name]]
    if tuned:
        changes = [f"tuned={tuned}"]
    return [*changes, f"partition={partition}"] if partition else changes


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

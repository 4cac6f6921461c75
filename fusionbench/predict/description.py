"""What a deployed model is, as plain values: all that is needed to build it again without its training data."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch

from fusionbench import hparams, registry
from fusionbench.api import Estimator, Stream, Task
from fusionbench.api.types import Kind
from fusionbench.engine.model import Blueprint
from fusionbench.errors import UsageError
from fusionbench.features import Encoder
from fusionbench.harness import Setup
from fusionbench.predict.inputs import Modality
from fusionbench.records import plain


@dataclass(frozen=True)
class Description:
    """`model.json` of a folder.

    Attributes:
        fuser, benchmark: names of plugins; settings: the fuser's hyper-parameters.
        kind, out, metrics, per_frame: the task; classes: names of the classes, empty where there are none.
        clock: labels a sample, as the model met them.
        modalities: modality -> `step` and `steps` that come in, `rate`, `backbone` with its `settings`, `frozen`, and
            `shape`, the step that the trained part sees. A frozen backbone also says `weights`, a hash of them.
        unused: modalities of the data that its settings left out: an input may have them, nothing looks at them.
        seeds: one trained model each; chosen: learning rate and steps, or the settings of an estimator.
        groups: hashes of the names of the groups that were trained on; unit: what one is called.
        scores: metric -> score on groups that the folds' models had not seen, with its interval.
        folds: of each fold's model `fold` and, of an estimator, the `settings` that its validation chose.
        code: part -> fingerprint of the plugin's file. note: how the model was made, in a sentence.
    """

    fuser: str
    benchmark: str
    settings: Mapping[str, Any]
    kind: str
    out: int
    metrics: list[str]
    per_frame: bool
    classes: list[str]
    clock: int
    modalities: Mapping[str, Mapping[str, Any]]
    seeds: list[int]
    groups: list[str]
    unit: str
    unused: list[str] = field(default_factory=list)
    missing: str = ""
    chosen: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    code: Mapping[str, str] = field(default_factory=dict)
    samples: int = 0
    data: str = ""
    protocol: int = 0
    temperature: float = 1.0
    note: str = ""
    folds: list[Mapping[str, Any]] = field(default_factory=list)
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def task(self) -> Task:
        return Task(cast(Kind, self.kind), self.out, tuple(self.metrics), self.per_frame)

    @property
    def expected(self) -> dict[str, Modality]:
        """What comes in."""
        return {m: Modality(tuple(p["step"]), p["steps"], p["rate"]) for m, p in self.modalities.items()}

    def blueprint(self, fuser: str | None = None) -> Blueprint:
        """What is trained, from the plugins that are here.

        Args:
            fuser: where the fuser is, if it was given by path.

        Raises:
            UsageError: a plugin is not here, or takes no longer what it took.
        """
        method = registry.load("fusers", fuser or self.fuser)
        if registry.fingerprint(method) != self.code.get("fuser"):
            warnings.warn(f"the code of {self.fuser} has changed since this model was trained", stacklevel=2)
        settings = hparams.fill(hparams.read(method), self.settings, self.fuser)
        backbones, shapes, rates = {}, {}, {}
        for m, part in self.modalities.items():
            name, given = ("identity", {}) if part["frozen"] else (part["backbone"], part["settings"])
            backbones[m] = _backbone(name, given)
            shapes[m] = tuple(part["shape"])
            if part["rate"] is not None and not part["frozen"]:
                rates[m] = part["rate"]
        return Blueprint(self.task, shapes, method, settings, backbones, rates)

    def encoded(self, streams: Mapping[str, Any], ids: list[str], device: torch.device) -> dict[str, Any]:
        """The streams as the trained part sees them: raw media through their frozen backbones.

        Raises:
            UsageError: an encoder's weights are not those of the training.
        """
        found = dict(streams)
        for m, part in self.modalities.items():
            if not part["frozen"]:
                continue
            maker, settings = _backbone(part["backbone"], part["settings"])
            encoder = Encoder(m, streams[m], ids, part["rate"], maker, settings, device)
            if encoder.parts["weights"] != part["weights"]:
                raise UsageError(
                    f"the weights of {part['backbone']} ({m}) are not those that this model was trained with"
                )
            parts = [encoder.encode(encoder.read(rows.tolist(), None)) for rows in torch.arange(len(ids)).split(32)]
            found[m] = Stream(torch.cat([p.x for p in parts]), torch.cat([p.mask for p in parts]))
        return found


def describe(setup: Setup, **known: Any) -> Description:
    """The description of a model of this setup; `known` are fields that the setup does not tell."""
    benchmark, data = setup.benchmark, setup.data
    modalities = {}
    for m, step in benchmark.shapes.items():
        encoder = setup.prepared.encoders.get(m)
        name = setup.names[f"backbone.{m}"]
        modalities[m] = {
            "step": list(step),
            "steps": int((encoder.source if encoder else data.streams[m]).shape[0]),
            "rate": benchmark.rates.get(m),
            "backbone": name,
            "settings": dict(setup.blueprint.backbones[m][1]),
            "frozen": encoder is not None,
            "shape": list(setup.trained.shapes[m]),
            **({"weights": encoder.parts["weights"]} if encoder else {}),
        }
    task = benchmark.task
    anonymous = list(data.groups) == list(data.ids)  # no groups were given: samples are not people
    return Description(
        fuser=setup.names["fuser"],
        benchmark=setup.benchmark_name,
        kind=task.kind,
        out=task.out,
        metrics=list(task.metrics),
        per_frame=task.per_frame,
        classes=list(benchmark.classes),
        clock=int(data.y.shape[1]),
        modalities=plain(modalities),
        groups=[] if anonymous else sorted({hashed(g) for g in data.groups}),
        unit=benchmark.unit,
        unused=list(benchmark.unused),
        missing=setup.recipe.missing,
        code=dict(setup.code),
        data=setup.digest,
        **{"settings": plain(setup.trained.settings), **known},
    )


def hashed(group: str) -> str:
    """A group's name, so that it is recognised and not told: 16 hexadecimal digits."""
    return hashlib.sha256(f"group {group}".encode()).hexdigest()[:16]


def known_groups(groups: Iterable[str], trained: Iterable[str]) -> list[str]:
    """Those of the groups whose hashes are among the trained ones."""
    seen = set(trained)
    return [g for g in dict.fromkeys(groups) if hashed(g) in seen]


def is_estimator(blueprint: Blueprint) -> bool:
    """Is it fitted in one call, instead of trained?"""
    return issubclass(blueprint.fuser, Estimator)


def _backbone(name: str, settings: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    maker = registry.load("backbones", name)
    return maker, hparams.fill(hparams.read(maker), settings, name)

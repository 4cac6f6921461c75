"""A run is a value, and its record one JSON text: everything needed to get the number again."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache, cached_property
from typing import Any

import numpy as np

from fusionbench.conditions import Condition
from fusionbench.errors import UsageError
from fusionbench.records import typed
from fusionbench.records.settings import Budget, Change, Training

FORMAT = 1  # of the JSON file
#: What stands in `Record.scores` beside the conditions: undamaged input, and what needs no input.
CLEAN, CHANCE = "clean", "chance"
#: The partition in which each seed deals the groups into folds again.
PER_SEED = "per-seed"
#: The condition that a record spells; parsed once.
condition_of = cache(Condition.parse)
#: What parsing a text that somebody has damaged may raise.
DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError)


@dataclass(frozen=True)
class Run:
    """One training to evaluate: plugins, fold, seed and every hyper-parameter, defaults filled in.

    `hparams` has the parts `benchmark`, `train`, `fuser` and `backbone.<modality>`; `tuned` says which search they come
    from, if any: its trials and the hash of what it found. An ensemble names the seeds whose answers it averages; its
    own seed, which draws the damage, is the first of them. `partition` is empty where all seeds share the benchmark's
    own, "per-seed" where each seed deals the groups into folds again.
    """

    benchmark: str
    fuser: str
    backbones: Mapping[str, str]
    fold: int
    seed: int
    hparams: Mapping[str, Mapping[str, Any]]
    tuned: str = ""
    ensemble: Sequence[int] = field(default_factory=list)
    partition: str = ""

    @property
    def content(self) -> dict[str, Any]:
        """Its fields, less those that say nothing and that published runs could not know of: ids are older."""
        whole = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in whole.items() if value or name not in ("ensemble", "partition")}

    @cached_property
    def id(self) -> str:
        """16 hexadecimal digits: the same for the same run, everywhere."""
        return digest(self.content)

    @cached_property
    def row(self) -> str:
        """The id of the table row: all but fold and seed; of a tuned one (settings vary by fold) the search counts."""
        whole = {**self.content, "fold": None, "seed": None}
        return digest({**whole, "hparams": None} if self.tuned else whole)

    @property
    def members(self) -> list[Run]:
        """The runs whose answers an ensemble averages."""
        return [replace(self, seed=seed, ensemble=[]) for seed in self.ensemble]

    @property
    def budget(self) -> Budget | None:
        """Of the search that its settings come from."""
        return Budget.parse(self.tuned) if self.tuned else None


@dataclass(frozen=True)
class Record:
    """What came of a run.

    Attributes:
        status: "done" or "failed" (then `error` says why and there are no scores).
        scores: condition ("clean", "noise:acc:3", ...) -> metric -> value; None where undefined.
        chosen: the learning rate that validation chose, its best step and validation score.
        history: learning rate -> list of {step, loss, score}.
        seconds: "train" and "evaluate" of this run.
        parameters: "allocated", and "trained" (they received a gradient).
        costs: "flops" of one sample's forward pass (None: not countable), "latency" and "latency_batch" in ms of one
            sample and of "batch" samples, "memory" in bytes of a training step.
        code: part -> fingerprint of the plugin's file; data: hash of the dataset; protocol: `api.PROTOCOL`.
        changes: hyper-parameters that differ from their defaults, as `fuser.width=256`.
        table: the damage of the benchmark's own table, as `noise:acc`: the damaged score averages it and nothing else.
        reading: what the benchmark declared, when it was run, of how its scores are read (`registry.READING`).
        marks: "quick", "transductive", "reconstruction", ...: shown in every table.
        best: condition -> the best reachable primary score, where the benchmark knows it.
        rates: condition -> modality -> realised share of real steps that the damage took.
        members: of an ensemble, run id -> `fingerprint` of the record that was averaged.
    """

    run: Run
    status: str
    code: Mapping[str, str]
    data: str
    protocol: int
    metrics: list[str]
    scores: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    chosen: Mapping[str, float | None] = field(default_factory=dict)
    history: Mapping[str, list[dict[str, float]]] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    parameters: Mapping[str, int] = field(default_factory=dict)
    costs: Mapping[str, float | None] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)
    marks: list[str] = field(default_factory=list)
    complete: Mapping[str, int] = field(default_factory=dict)
    table: list[str] = field(default_factory=list)
    reading: Mapping[str, str | float | None] = field(default_factory=dict)
    samples: Mapping[str, int] = field(default_factory=dict)
    best: Mapping[str, float] = field(default_factory=dict)
    rates: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    members: Mapping[str, str] = field(default_factory=dict)
    device: str = ""
    how: str = ""
    created: str = ""
    error: str | None = None

    def __repr__(self) -> str:
        score = self.scores.get(CLEAN, {}).get(self.metrics[0])
        shown = self.status if score is None else f"{self.metrics[0]} {score:.4g}"
        what = " ".join([self.run.fuser, *self.changes])
        where = f"{self.run.benchmark}, fold {self.run.fold}, seed {self.run.seed}"
        return f"Record({self.run.id}: {what} on {where}: {shown})"

    def same_identity(self, other: Record) -> bool:
        """Would `other` be the same number: run, code, data and protocol?"""
        mine, theirs = ((r.run.id, dict(r.code), r.data, r.protocol) for r in (self, other))
        return mine == theirs

    @property
    def fingerprint(self) -> str:
        """Hash of what was trained and how it does on undamaged input: another one where it was trained otherwise."""
        return digest([self.run.id, self.code, self.data, self.protocol, self.chosen, self.scores.get(CLEAN)])

    @property
    def changed(self) -> list[Change]:
        """Settings that are not the default; none of a tuned run, whose settings the search has chosen."""
        return [] if self.run.tuned else [Change.parse(text) for text in self.changes]

    @property
    def at_edge(self) -> bool | None:
        """Is the chosen learning rate the least or largest of three or more candidates? None where none was chosen."""
        rates, lr = self.run.hparams.get("train", {}).get("lr"), self.chosen.get("lr")
        if lr is None or not isinstance(rates, list | tuple) or len(rates) < 3:
            return None
        return math.isclose(lr, min(rates)) or math.isclose(lr, max(rates))

    @property
    def training(self) -> Training:
        return Training.parse(self.how)


@dataclass(frozen=True, eq=False)
class Predictions:
    """Per-sample answers of one run on its test samples.

    Attributes:
        ids, groups: (n,) names; y (n, S[, out]); y_mask (n, S).
        answers: condition -> (n, S, out) float32.
        attributes: name (sex, age, site) -> (n,) texts, where the benchmark has them.
    """

    ids: np.ndarray
    groups: np.ndarray
    y: np.ndarray
    y_mask: np.ndarray
    answers: Mapping[str, np.ndarray]
    attributes: Mapping[str, np.ndarray] = field(default_factory=dict)


def parse(text: str) -> Record:
    """The record in a JSON text; what is damaged raises one of `DAMAGE`, a newer format UsageError."""
    return parsed(values(text))


def values(text: str) -> Any:
    """What stands in a JSON text; NaN and infinity are no numbers."""
    return json.loads(text, parse_constant=_no_number)


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number")


def parsed(content: dict[str, Any]) -> Record:
    """The record of parsed JSON; raises as `parse` does."""
    written = content.pop("format")
    if isinstance(written, int) and written > FORMAT:
        raise UsageError(f"a record of format {written} is of a newer fusionbench, this one knows {FORMAT}: upgrade it")
    if written != FORMAT:
        raise ValueError("unknown format of record")
    found: Record = typed.build(Record, {**content, "run": typed.build(Run, content["run"])})
    for spelled in [*(c for c in found.scores if c not in (CLEAN, CHANCE)), *found.table]:
        condition_of(spelled)
    if not found.metrics:
        raise ValueError("it names no metric")
    return found


def content(record: Record) -> dict[str, Any]:
    """The record as plain values: no NaN, the order of modalities kept."""
    return dict(plain({**asdict(record), "run": record.run.content}))


def serialised(record: Record, indent: int | None = None) -> str:
    """The record as it stands in a file of its own."""
    return json.dumps({"format": FORMAT, **content(record)}, indent=indent, allow_nan=False)


def merge(old: Record, new: Record) -> Record:
    """`old` with the conditions that only `new` has."""
    return replace(
        old,
        scores={**old.scores, **new.scores},
        best={**old.best, **new.best},
        rates={**old.rates, **new.rates},
        seconds={**old.seconds, "evaluate": old.seconds.get("evaluate", 0.0) + new.seconds.get("evaluate", 0.0)},
    )


def plain(value: Any) -> Any:
    """For JSON: NaN and infinity become null, tuples lists, numpy numbers numbers."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def digest(value: Any) -> str:
    """16 hexadecimal digits of a plain value."""
    text = json.dumps(plain(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]

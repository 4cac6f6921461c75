"""What an MLflow run shows of a table row, of one fold and seed, of a search or a trial: names, values, files."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusionbench.records import Record, digest, plain, serialised, store
from fusionbench.records.rows import CLEAN

if TYPE_CHECKING:
    from fusionbench.leaderboard import Board, Row

#: Changes when names change: what was mirrored under the old ones is then replaced.
LAYOUT = 1
LONGEST_NAME, LONGEST_PARAM, LONGEST_TAG = 250, 6000, 5000  # what MLflow takes; it cuts values without a word

#: Column of a table -> the metric of a table row; {metric} is the primary one. MLflow shows some twelve letters.
SCORES = {
    "score": "{metric}",
    "low": "score low",
    "high": "score high",
    "damaged": "damaged",
    "damaged_low": "damaged low",
    "damaged_high": "damaged high",
    "drop": "drop",
    "ece": "ECE",
    "ece_damaged": "ECE damaged",
    "brier": "Brier",
    "brier_damaged": "Brier damaged",
}
#: Measured cost, of a run and (median) of a row -> its metric and what it is divided by.
COSTS = {
    "trained": ("cost/trained", 1),
    "allocated": ("cost/parameters", 1),
    "flops": ("cost/FLOPs", 1),
    "latency": ("cost/ms", 1),
    "latency_batch": ("cost/ms a batch", 1),
    "memory": ("cost/MB", 2**20),
    "seconds": ("cost/seconds", 1),
}


@dataclass(frozen=True)
class Content:
    """All that one MLflow run shows.

    Attributes:
        key: what it is of; the same for the same row, run or trial, whatever is known of it by now.
        row: the key of its parent, or its own if it is one.
        series: metric -> (step, value) pairs.
        data: name and hash of the dataset, if it is of one.
        files: name of an artifact -> what makes its bytes.
        copied: files that are artifacts too; once there they stay, even if nobody asks for them the next time.
        version: of the files, where nothing else says that they have changed.
        began, ended: milliseconds since 1970; None: when it is logged.
    """

    key: str
    row: str
    name: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str] = field(default_factory=dict)
    series: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    data: tuple[str, str] | None = None
    files: Mapping[str, Callable[[], bytes]] = field(default_factory=dict)
    copied: Sequence[Path] = ()
    version: str = ""
    status: str = "FINISHED"
    began: int | None = None
    ended: int | None = None

    @property
    def fixed(self) -> str:
        """The digest of what MLflow cannot change in a run that is there."""
        return digest([LAYOUT, self.params, self.series])

    @property
    def digest(self) -> str:
        """The digest of everything but `copied`: what is there under another one is logged again."""
        words = [self.fixed, self.name, self.metrics, self.tags, self.data, sorted(self.files), self.version]
        return digest([*words, self.status, self.ended])


def row_key(item: Record) -> str:
    """What a table row is: all but fold and seed, with the code, the data and the protocol of its numbers."""
    return digest([item.run.row, dict(item.code), item.data, item.protocol, list(item.metrics)])


def of_record(item: Record, results: Path, artifacts: bool = False) -> Content:
    """One fold and seed; with `artifacts` its weights and answers, if they have files of their own."""
    began, ended = _times(item)
    metrics = {
        name if condition == CLEAN else f"{name}/{_spell(condition)}": value
        for condition, scores in item.scores.items()
        for name, value in scores.items()
    }
    series: dict[str, list[tuple[int, float]]] = {}
    for lr, history in item.history.items():
        tried = lr if "=" in lr else f"lr {float(lr):g}"  # an estimator's settings, or a learning rate
        for entry in history:
            for name, shown in (("loss", "training loss"), ("score", "validation score")):
                value = entry.get(name)
                if value is not None and math.isfinite(value):
                    series.setdefault(legal(f"{shown}/{tried}"), []).append((int(entry["step"]), float(value)))
    tags = {"kind": "run", "run id": item.run.id, **_origin(item), **({"error": item.error} if item.error else {})}
    text = serialised(item, indent=1)
    own = store.path_of(results, item.run)
    big = [own.with_suffix(".npz"), own.with_suffix(".safetensors")] if artifacts else []
    return Content(
        key=digest([item.run.id, row_key(item)]),
        row=row_key(item),
        name=f"{item.run.fuser} fold {item.run.fold} seed {item.run.seed}",
        params=_params({**_settings(item), "fold": [item.run.fold], "seed": [item.run.seed]}),
        metrics=_finite(metrics | _costs({**item.parameters, **item.costs, "seconds": item.seconds.get("train")})),
        tags=_tags(tags),
        series=series,
        data=(item.run.benchmark, item.data),
        files={f"{item.run.id}.json": text.encode},
        copied=[path for path in big if path.is_file()],
        version=digest(text),
        status="FINISHED" if item.status == "done" else "FAILED",
        began=began,
        ended=ended,
    )


def of_row(key: str, items: Sequence[Record], board: Board | None, line: Row | None) -> Content:
    """A table row: what the table says of it. Without a line of a table every run of it has failed."""
    first, done = items[0], [r for r in items if r.status == "done"]
    settings: dict[str, list[Any]] = {}
    for item in items:
        for name, value in _settings(item).items():
            settings.setdefault(name, []).extend(value)
    spent = sum(sum(item.seconds.values()) for item in items)
    metrics: dict[str, Any] = {"runs": len(done), "failed": len(items) - len(done), "cost/seconds of all": spent}
    files: dict[str, Callable[[], bytes]] = {}
    label, lacks, conditions = " ".join([first.run.fuser, *first.changes]), "failed", {}
    if board is not None and line is not None:
        label, lacks, values, metric = line.label, line.lacks, values_of(board, line), board.metric
        conditions = {c: v for c, v in line.conditions.items() if v is not None}
        metrics |= {shown.format(metric=metric): values.get(column) for column, shown in SCORES.items()}
        metrics |= {f"{metric}/{_spell(str(c))}": v for c, v in conditions.items()} | _costs(values)
        if conditions:
            from fusionbench.tracking.figure import damage

            files["damage.png"] = lambda: damage(label, metric, board.percent, values, conditions)
    return Content(  # without times: MLflow lists the latest first, and rows should come before the runs they sum up
        key=key,
        row=key,
        name=label,
        params=_params(settings),
        metrics=_finite(metrics),
        tags=_tags({"kind": "row", **_origin(first), **({"lacks": lacks} if lacks else {})}),
        data=(first.run.benchmark, first.data),
        files=files,
        status="FINISHED" if done else "FAILED",
    )


def values_of(board: Board, line: Row) -> dict[str, float | None]:
    """What the table says of a row, by the names in `SCORES` and `COSTS`."""
    from fusionbench.leaderboard.values import damaged_metric

    (low, high), (damaged_low, damaged_high) = line.bounds("score"), line.bounds("damaged")
    found = {"score": line.clean, "low": low, "high": high, "drop": line.robustness.drop}
    found |= {"damaged": line.damaged, "damaged_low": damaged_low, "damaged_high": damaged_high}
    for name in ("ece", "brier"):
        found |= {name: line.records.mean(None, name), f"{name}_damaged": damaged_metric(name)(board, line)}
    return found | line.costs | {"seconds": line.costs.get("train")}


def search_key(tuned: Any, fold: str) -> str:
    """What a search of one outer fold is: its plugins, their code, the data and the sampler."""
    return digest([tuned.benchmark, tuned.fuser, fold, tuned.code, tuned.data, tuned.protocol, tuned.sampler])


def of_search(key: str, tuned: Any, fold: str, chosen: Any) -> Content:
    """The search of one outer fold: the settings that won."""
    tags = {"kind": "search", "benchmark": tuned.benchmark, "sampler": tuned.sampler, "found": chosen.created}
    return Content(
        key=key,
        row=key,
        name=f"{tuned.fuser} outer fold {fold}",
        params=_params({"fuser": [tuned.fuser], "fold": [fold], **_flat(chosen.settings)}),
        metrics=_finite({"validation score": chosen.score, "trials": sum(str(t.fold) == fold for t in tuned.table)}),
        tags=_tags(tags),
    )


def of_trial(search: str, trial: Any) -> Content:
    """One trial of a search."""
    return Content(
        key=digest([search, trial.number]),
        row=search,
        name=f"trial {trial.number}",
        params=_params(_flat(trial.settings)),
        metrics=_finite({"validation score": trial.score, "optimiser steps": trial.steps}),
        tags=_tags({"kind": "trial", "state": trial.state}),
        status="FINISHED" if trial.state in ("complete", "pruned") else "FAILED",
    )


def legal(name: str) -> str:
    """The nearest name that MLflow takes for a metric, a parameter or a tag."""
    name = re.sub(r"[^/\w.\- :]", "_", name.replace("+", " and "))
    parts = [part for part in name.split("/") if part.strip(".")]
    return "/".join(parts)[:LONGEST_NAME].rstrip("/") or "_"


def _spell(condition: str) -> str:
    """As it is typed, in one part: what stands before a slash is a section of MLflow's charts."""
    return condition.replace("/", "_")


def _times(item: Record) -> tuple[int, int]:
    ended = int(datetime.fromisoformat(item.created).timestamp() * 1000) if item.created else 0
    return ended - int(1000 * sum(item.seconds.values())), ended


def _origin(item: Record) -> dict[str, Any]:
    """What the numbers rest on beside the settings."""
    code = {f"code.{part}": mark for part, mark in item.code.items()}
    return {"benchmark": item.run.benchmark, "data": item.data, "protocol": item.protocol, **code}


def _settings(item: Record) -> dict[str, list[Any]]:
    """Parameter -> its value, in a list: over the folds of a tuned row there are several."""
    backbones = {f"backbone.{m}": [name] for m, name in item.run.backbones.items()}
    tuned = {"tuned": [item.run.tuned]} if item.run.tuned else {}
    dealt = {"partition": [item.run.partition]} if item.run.partition else {}
    return {"fuser": [item.run.fuser], **tuned, **dealt, **backbones, **_flat(item.run.hparams)}


def _flat(hparams: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {f"{part}.{name}": [value] for part, values in hparams.items() for name, value in values.items()}


def _params(settings: Mapping[str, Sequence[Any]]) -> dict[str, str]:
    found = {}
    for name, values in settings.items():
        different = dict.fromkeys(_value(value) for value in values)
        found[legal(name)] = _cut(" | ".join(sorted(different)), LONGEST_PARAM)
    return found


def _value(value: Any) -> str:
    value = plain(value)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _tags(tags: Mapping[str, Any]) -> dict[str, str]:
    return {legal(name): _cut(str(value), LONGEST_TAG) for name, value in tags.items()}


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _costs(values: Mapping[str, Any]) -> dict[str, float | None]:
    return {
        shown: None if (value := values.get(name)) is None else value / unit for name, (shown, unit) in COSTS.items()
    }


def _finite(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {legal(name): float(v) for name, v in metrics.items() if v is not None and math.isfinite(v)}

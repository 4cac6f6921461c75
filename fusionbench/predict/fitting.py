"""`fusionbench fit`: one model for use, trained on every group; and what the folds say of how sure it is.

The folds come first: the row is run on the benchmark's own folds (what is on disk is not run again). Their validation
groups choose the learning rate, the number of steps and the settings of an estimator, and fit the temperature; score,
sets and intervals rest on their test groups, which no choice has seen. Then the model is trained once more, on all
groups, for the mean of the folds' best steps: there is no validation left that could stop it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fusionbench import engine, harness, hparams, registry, stats
from fusionbench.api import PROTOCOL, Batch
from fusionbench.corruptions.missing import subsets
from fusionbench.engine import Member, Recipe, Trained
from fusionbench.engine.model import Blueprint
from fusionbench.errors import UsageError
from fusionbench.harness import CLEAN, Setup
from fusionbench.harness.evaluate import Answering, Network, build_model
from fusionbench.harness.execute import refit
from fusionbench.harness.fit import grid_of
from fusionbench.jobs import perform
from fusionbench.jobs.plan import plan_runs
from fusionbench.predict import folder as folders
from fusionbench.predict.calibration import Calibration, fit_temperature, mean_answer
from fusionbench.predict.description import describe
from fusionbench.predict.inputs import present
from fusionbench.predict.predictor import Predictor
from fusionbench.records import Predictions, Record, store
from fusionbench.records.rows import MISSING
from fusionbench.records.types import condition_of
from fusionbench.text import counted

MOST = 6  # modalities up to which every set of them is calibrated; of more, all and each one missing
Say = Callable[[str], None]


def _silent(text: str) -> None:
    pass


def fit(
    fuser: str,
    benchmark: str,
    out: Path | str,
    *,
    results: Path | str = "results",
    backbones: Mapping[str, str] | None = None,
    given: Mapping[str, Mapping[str, Any]] | None = None,
    folds: Sequence[int] | None = None,
    seeds: int = 1,
    quick: bool = False,
    device: str = "auto",
    jobs: int | None = None,
    track: bool = True,
    say: Say = _silent,
) -> Predictor:
    """Trains a model for use on all groups of a benchmark (or of your data) and writes its folder.

    Args:
        benchmark: a name or a path, as `run` takes it; out: the folder.
        folds: those that settings are chosen and answers calibrated on; all of the benchmark's by default.
        seeds: how many models, whose answers are averaged.
        quick: one fold and few steps, to see that it runs.

    Raises:
        UsageError: as `run`; the folder cannot be written; every fold failed.
    """
    out, results = Path(out), Path(results)
    folders.check_free(out)
    for m, name in (backbones or {}).items():
        if registry.is_path(name):
            raise UsageError(
                f"a model for use is built by name, and the backbone of {m} is the file {name}: install it"
            )
    setup = harness.setup(benchmark, fuser, backbones, given, quick)
    refuse(setup)
    if setup.recipe.groups != 1:
        raise UsageError("a model for use learns from all groups: leave --train.groups out")
    plan = plan_runs(
        setup,
        setup.runs([0] if quick and folds is None else folds, [0]),
        results,
        conditions_of(setup),
        published=False,
    )
    title = f"{setup.names['fuser']} on {setup.benchmark_name}"
    records = perform([plan], results, title, device=device, jobs=jobs, track=track, say=say).records
    done = [r for r in records if r.status == "done"]
    if not done:
        raise UsageError(f"{title}: every fold failed ({next((r.error for r in records), 'no record')})")
    folded = Folds.gather(setup, [done_by_fold(done)], results, device)
    choice, numbers, samples = choose(setup, done), list(range(seeds)), len(labelled(setup.data))
    description = describe(
        setup, seeds=numbers, chosen=choice.settings, scores=scores(done, results), protocol=PROTOCOL,
        temperature=folded.calibration.temperature, versions=dict(done[0].versions), samples=samples,
        folds=[{"fold": r.run.fold, "settings": settings_of(setup, r.chosen)} for r in done],
        note=f"{title}: {counted(seeds, 'model')} on all {counted(samples, 'sample')}, {choice.said}",
    )  # fmt: skip
    if setup.is_estimator:
        described = replace(description, settings=settings_of(setup, choice.settings))
        sides = [harness.splits_of(setup, setup.data, r.run) for r in done]
        blueprint = replace(setup.trained, settings=described.settings)
        size = folders.save_estimator(out, described, folded.calibration, blueprint, setup.data, sides)
        say(f"{out} holds the training samples: an estimator is fitted again from them when it is loaded")
    else:
        weights = train(setup.trained, setup.recipe, setup.data, choice, numbers, harness.pick(device))
        of_folds = [w for r in done if (w := store.weights(results, r.run)) is not None]
        size = folders.save_network(out, description, folded.calibration, weights, of_folds)
    say(f"written to {out} ({size / 1e6:.1f} MB)")
    return folders.load(out, device, fuser)


def refuse(setup: Setup) -> None:
    """Raises UsageError for what says nothing of new samples: a row that sees only where in a recording they stand."""
    if setup.sees_order:
        raise UsageError(
            f"{setup.names['fuser']} sees nothing but the place in a recording: it says nothing of new ones"
        )


def conditions_of(setup: Setup) -> list[str]:
    """The missing modalities that are calibrated."""
    names = list(setup.benchmark.shapes)
    return subsets(names) if len(names) <= MOST else [f"missing:{m}" for m in names]


def done_by_fold(records: Sequence[Record]) -> dict[int, Record]:
    """Fold -> its record."""
    return {r.run.fold: r for r in records}


def labelled(data: Batch) -> np.ndarray:
    """Positions of the samples with a label."""
    return np.flatnonzero(data.y_mask.any(1).cpu().numpy())


def scores(records: Sequence[Record], results: Path) -> dict[str, dict[str, float | None]]:
    """Each metric on the folds' test groups, with its interval over groups where one is known."""
    runs = [(r.run.seed, r.run.fold, e) for r in records if (e := store.evidence(results, r.run)) is not None]
    found: dict[str, dict[str, float | None]] = {}
    for metric in records[0].metrics:
        table = stats.tables(runs, metric).get(CLEAN) if runs else None
        if table is not None:
            interval = stats.interval(table, metric)
            found[metric] = {"score": interval.score, "low": interval.low, "high": interval.high}
    return found


# ---------------------------------------------------------------------------------------------------------- the choice


@dataclass(frozen=True)
class Choice:
    """What the folds' validation has chosen: `lr` and `steps` of a network, or the settings of an estimator's grid."""

    settings: Mapping[str, float]
    said: str


def settings_of(setup: Setup, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """An estimator's hyper-parameters with those of its grid that were chosen; a network's as they are."""
    declared = hparams.read(setup.blueprint.fuser)
    new = {n: declared[n].parse(v) for n, v in chosen.items() if setup.is_estimator and n in declared}
    return {**setup.trained.settings, **new}


def choose(setup: Setup, records: Sequence[Record]) -> Choice:
    """The learning rate (or the settings of the grid) with the best mean validation score, and its mean best step."""
    folds = counted(len(records), "fold")
    if setup.is_estimator:
        candidates = grid_of(setup)
        spelled = {", ".join(f"{n}={v:g}" for n, v in c.items()): c for c in candidates}
        means = {name: _mean([_scores(r, name) for r in records]) for name in spelled}
        best = max(spelled, key=lambda name: means[name])
        chosen = f"settings as validation chose over {folds}: {best}" if len(spelled) > 1 else "default settings"
        return Choice(spelled[best], chosen)
    rates = [float(rate) for rate in records[0].history]
    found = {rate: _mean([_scores(r, f"{rate:g}") for r in records]) for rate in rates}
    lr = max(rates, key=lambda rate: (found[rate], -rate))
    if found[lr] == -math.inf:
        raise UsageError("no learning rate has a validation score in every fold: give another, --train.lr")
    bests = [max(_known(r.history[f"{lr:g}"]), key=lambda e: e["score"])["step"] for r in records]
    steps = max(1, round(float(np.mean(bests))))
    return Choice(
        {"lr": lr, "steps": steps}, f"{steps} steps (the mean of the best over {folds}), learning rate {lr:g}"
    )


def _scores(record: Record, name: str) -> float:
    """The best validation score of a candidate in one fold; minus infinity where it broke."""
    entries = record.history.get(name, [])
    broken = any("loss" in entry and not _is_number(entry["loss"]) for entry in entries)
    known = [entry["score"] for entry in _known(entries)]
    return -math.inf if broken or not known else max(known)


def _known(entries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The validations at which the metric was defined."""
    return [entry for entry in entries if _is_number(entry.get("score"))]


def _is_number(value: float | None) -> bool:
    """A record in memory holds infinity and NaN where one from disk holds None."""
    return value is not None and math.isfinite(value)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else -math.inf


# --------------------------------------------------------------------------------------------------------- the training


def train(
    blueprint: Blueprint, recipe: Recipe, data: Batch, choice: Choice, seeds: Sequence[int], device: torch.device
) -> list[Mapping[str, torch.Tensor]]:
    """Weights of a network of each seed, trained on every labelled sample, stopped at the chosen step.

    The learning rate follows the schedule of the whole recipe, as it did in the folds. What the engine validates on are
    two training samples: the only validation is at the step where it stops, and decides nothing.

    Raises:
        UsageError: the loss became infinite or no number.
    """
    everyone, steps = labelled(data), int(choice.settings["steps"])
    scalars = recipe.weight_decay, recipe.label_smoothing, recipe.clip
    members = [Member(0, seed, everyone, everyone[:2], choice.settings["lr"], *scalars) for seed in seeds]
    data = data.to(device)
    events = engine.train(
        blueprint, members, data, replace(recipe, interval=steps), device=device, stacked=len(members)
    )
    found: dict[int, Trained] = {}
    event: Any = next(events)
    while True:
        if isinstance(event, Trained):
            found[event.member] = event
        try:
            event = events.send(None if isinstance(event, Trained) else set(range(len(members))))
        except StopIteration:
            break
    broken = next((t.error for t in found.values() if t.error), None)
    if broken:
        raise UsageError(f"training on all groups failed: {broken}")
    return [found[number].weights for number in range(len(members))]


# --------------------------------------------------------------------------------------------------------- the folds


@dataclass(frozen=True, eq=False)
class Folds:
    """The trained models of a row, those of each fold together, and the calibration that their answers give."""

    models: list[list[Answering]]
    calibration: Calibration

    @staticmethod
    def gather(setup: Setup, seeds: Sequence[Mapping[int, Record]], results: Path, device: str) -> Folds:
        """From records of the same folds, one mapping fold -> record a seed.

        Raises:
            UsageError: the answers or the weights of a run are not on disk.
        """
        where = torch.device("cpu") if setup.is_estimator else harness.pick(device)
        data = setup.data.to(where)
        models: list[list[Answering]] = []
        valid: list[tuple[np.ndarray, np.ndarray]] = []
        tested: list[tuple[Predictions, dict[str, np.ndarray]]] = []
        task = setup.benchmark.task
        for fold in seeds[0]:
            records = [by_fold[fold] for by_fold in seeds]
            members = [load_member(setup, r, results, data) for r in records]
            models.append(members)
            val = data[harness.splits_of(setup, data, records[0].run).val]
            mask = val.y_mask.cpu().numpy()
            found = mean_answer(task, [m.answer(val) for m in members])
            valid.append((found[mask], val.y.cpu().numpy()[mask]))
            answers = [_answers(r, results) for r in records]
            shared = set.intersection(*(set(a.answers) for a in answers))
            joined = {c: mean_answer(task, [a.answers[c] for a in answers]) for c in answers[0].answers if c in shared}
            tested.append((answers[0], joined))
        temperature = 1.0
        if task.kind == "classify":
            temperature = fit_temperature(*(np.concatenate(part) for part in zip(*valid, strict=True)))
        return Folds(models, _calibration(setup, tested, temperature))


def load_member(setup: Setup, record: Record, results: Path, data: Batch) -> Answering:
    """The trained model of a record: its weights, or an estimator fitted again.

    Raises:
        UsageError: its weights are not on disk.
    """
    if setup.is_estimator:
        return refit(setup, record, data)
    weights = store.weights(results, record.run)
    if weights is None:
        raise UsageError(
            f"the weights of run {record.run.id} are not in {results}: fusionbench run --fuser {record.run.fuser} "
            f"-b {record.run.benchmark} trains it here"
        )
    return Network(build_model(setup.trained, record.run.seed, weights, data.y.device))


def _answers(record: Record, results: Path) -> Predictions:
    found = store.predictions(results, record.run)
    if found is None:
        raise UsageError(f"the answers of run {record.run.id} are not in {results}: run it again here")
    return found


def _calibration(
    setup: Setup, tested: Sequence[tuple[Predictions, Mapping[str, np.ndarray]]], temperature: float
) -> Calibration:
    """Test answers of all folds, each sample once: the first fold that tests it."""
    data, modalities = setup.data, tuple(setup.benchmark.shapes)
    place = {name: row for row, name in enumerate(data.ids)}
    has = present(data.streams)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in ("y", "y_mask", "present", "fold")}
    groups: list[str] = []
    answers: dict[frozenset[str], list[np.ndarray]] = {}
    shared = set.intersection(*(set(joined) for _, joined in tested))
    seen: set[str] = set()
    for number, (found, joined) in enumerate(tested):
        new = np.array([str(name) not in seen for name in found.ids])
        seen |= set(map(str, found.ids))
        parts["y"].append(found.y[new])
        parts["y_mask"].append(found.y_mask[new])
        parts["present"].append(has[[place[str(name)] for name in found.ids[new]]])
        parts["fold"].append(np.full(new.sum(), number))
        groups += map(str, found.groups[new])
        for condition in shared:
            shown = _shown(condition, modalities)
            if shown is not None:
                answers.setdefault(shown, []).append(joined[condition][new])
    numbers = {name: number for number, name in enumerate(dict.fromkeys(groups))}
    return Calibration(
        setup.benchmark.task, modalities,
        **{name: np.concatenate(part) for name, part in parts.items()},
        group=np.array([numbers[g] for g in groups]),
        answers={shown: np.concatenate(part) for shown, part in answers.items()},
        temperature=temperature,
    )  # fmt: skip


def _shown(condition: str, modalities: Sequence[str]) -> frozenset[str] | None:
    """The modalities that a condition leaves: all when clean, less those of `missing:a+b`; None of another damage."""
    if condition == CLEAN:
        return frozenset(modalities)
    parsed = condition_of(condition)
    left = frozenset(modalities) - parsed.targets(modalities)
    return left if parsed.name == MISSING and left else None

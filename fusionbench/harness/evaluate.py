"""Scores of a trained model on its test samples, clean and under every damage, with the answers kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch

from fusionbench import corruptions, engine, metrics
from fusionbench.api import FLOOR, Batch, Context, Spec, Splits, Streams, UsageError, keyed, prior
from fusionbench.engine.model import Blueprint, Model, statistics
from fusionbench.harness.setup import Setup, splits_of
from fusionbench.records import Predictions, Run

CLEAN = "clean"
#: The condition under which the better of two answers without information stands: what "no better than chance" means.
CHANCE = "chance"
GUESSES = 20  # draws by the frequencies of the training labels, averaged

CALIBRATION = ("ece", "brier")  # measured beside the task's own metrics wherever answers are probabilities

Damage = tuple[str, Any, int]  # condition, corruption, severity


def parse(setup: Setup, conditions: Sequence[str]) -> list[Damage]:
    modalities = list(setup.benchmark.shapes)
    return [item for spelling in conditions for item in corruptions.parse(spelling, modalities)]


def check_conditions(setup: Setup, run: Run, data: Batch, conditions: Sequence[str]) -> None:
    """Every damage on two samples before anything is trained: one that does not fit the data must not cost a training.

    Raises:
        UsageError: as the corruption says it.
    """
    if setup.prepared.digests:  # raw media: two samples are an encoding of their own
        return
    splits = splits_of(setup, data, run)
    few = splits.test[:2]
    streams = dict(data[few].streams)
    sd = {m: s for m, (_, s) in statistics(data, torch.from_numpy(splits.train).to(data.y.device)).items()}
    context = Context(sd, setup.benchmark.rates, streams, setup.benchmark.indicators)
    for _, corruption, severity in parse(setup, conditions):
        setup.prepared.damage(streams, few, splits.train, corruption, severity, run.seed, context)


def load_model(setup: Setup, run: Run, weights: Mapping[str, torch.Tensor], device: torch.device) -> Model:
    """The trained model of a run."""
    return build_model(setup.trained, run.seed, weights, device)


def build_model(blueprint: Blueprint, seed: int, weights: Mapping[str, torch.Tensor], device: torch.device) -> Model:
    """A model with these weights, its normalisation among them."""
    stats = {
        m: (weights[f"normalise.{m}.mean"], weights[f"normalise.{m}.sd"])
        for m in blueprint.shapes
        if f"normalise.{m}.mean" in weights
    }
    model = blueprint.build(seed, stats, 1)
    model.load_state_dict(dict(weights))
    return model.to(device)


@dataclass(frozen=True)
class Evaluation:
    scores: dict[str, dict[str, float]]
    best: dict[str, float]
    rates: dict[str, dict[str, float]]
    predictions: Predictions

    @property
    def error(self) -> str | None:
        """Why these answers are none; None if they are."""
        for condition, answers in self.predictions.answers.items():
            bad = int((~np.isfinite(answers)).any((1, 2)).sum())
            if bad:
                return f"it answered NaN or infinity to {bad} of {len(answers)} test samples ({condition})"
        return None


def check_answers(setup: Setup, run: Run, data: Batch) -> None:
    """An untrained model's answers to two samples: of the shape that the task asks for?

    Raises:
        UsageError: they are of another shape. (What a method raises is reported when it is trained.)
    """
    splits = splits_of(setup, data, run)
    few = data[splits.train[:2]]
    try:
        model = setup.trained.begin(run.seed, data, torch.from_numpy(splits.train))
        with torch.no_grad():
            answers = model.to(data.y.device).eval()(few)
    except UsageError:
        raise
    except (
        Exception,
        SystemExit,
    ):  # a method may raise anything at all, and does so again in training, where it is recorded
        return
    task, fuser = setup.benchmark.task, setup.arguments["fuser"]
    wanted = (len(few), few.y.shape[1], task.out)
    if not isinstance(answers, torch.Tensor) or tuple(answers.shape) != wanted:
        got = tuple(answers.shape) if isinstance(answers, torch.Tensor) else type(answers).__name__
        raise UsageError(f"{fuser} answers {got} where {wanted} is asked for: fusionbench check {fuser}")


class Answering(Protocol):
    """Anything that answers: a network, or a fitted estimator."""

    def answer(self, batch: Batch) -> np.ndarray:
        """(n, S, out) float32."""
        ...


@dataclass(frozen=True, eq=False)
class Network:
    """A trained model that answers in evaluation mode."""

    model: Model

    def answer(self, batch: Batch) -> np.ndarray:
        return engine.predict(self.model, batch)


@dataclass(frozen=True, eq=False)
class Case:
    """What answers, and the split whose test samples it is evaluated on."""

    run: Run
    model: Answering
    splits: Splits


def evaluate(
    setup: Setup, cases: Sequence[Case], data: Batch, damage: Sequence[Damage], stacked: bool = False
) -> list[Evaluation]:
    """Scores of trained models on their test samples, clean and under every condition, with the answers kept.

    With `stacked`, all of them (networks of one blueprint) answer in one pass: on a GPU that is what makes a hundred
    conditions cheap.
    """
    trials = [_Trial(setup, case, data) for case in cases]
    for condition in [None, *damage]:
        batches = [trial.meet(condition) for trial in trials]
        if stacked and len(cases) > 1:
            networks = [case.model.model for case in cases if isinstance(case.model, Network)]
            answers = engine.predict_stacked(networks, batches)
        else:
            answers = [case.model.answer(batch) for case, batch in zip(cases, batches, strict=True)]
        for trial, batch, found in zip(trials, batches, answers, strict=True):
            trial.note(condition, batch, found)
    return [trial.evaluation for trial in trials]


class _Trial:
    """One case before its conditions."""

    def __init__(self, setup: Setup, case: Case, data: Batch) -> None:
        self.setup, self.case, self.test = setup, case, data[case.splits.test]
        task, test, train = setup.benchmark.task, self.test, torch.from_numpy(case.splits.train).to(data.y.device)
        self.y, self.y_mask = test.y.cpu().numpy(), test.y_mask.cpu().numpy()
        sd = {m: s for m, (_, s) in statistics(data, train).items()}
        self.context = Context(sd, setup.benchmark.rates, dict(test.streams), setup.benchmark.indicators)
        self.measured = [*task.metrics, *(CALIBRATION if task.kind == "classify" else ())]
        constant = prior(Batch({}, data.y[train].cpu(), data.y_mask[train].cpu()), Spec(task.kind, {}, task.out))
        self.answers: dict[str, np.ndarray] = {}
        self.evaluation = Evaluation(
            {CHANCE: chance(task.kind, constant, self.measured, self.y, self.y_mask, case.run.fold)}, {}, {},
            Predictions(
                np.array(test.ids), np.array(test.groups), self.y, self.y_mask, self.answers,
                {name: np.array(texts) for name, texts in test.attributes.items()},
            ),
        )  # fmt: skip

    def meet(self, condition: Damage | None) -> Batch:
        """The test samples under a condition, clean if None."""
        if condition is None:
            return self.test
        name, corruption, severity = condition
        streams, splits = dict(self.test.streams), self.case.splits
        damaged = self.setup.prepared.damage(
            streams, splits.test, splits.train, corruption, severity, self.case.run.seed, self.context
        )
        self.evaluation.rates[name] = _lost(streams, damaged)
        return replace(self.test, streams=damaged)

    def note(self, condition: Damage | None, batch: Batch, answers: np.ndarray) -> None:
        name = condition[0] if condition else CLEAN
        self.answers[name] = answers
        self.evaluation.scores[name] = metrics.evaluate(self.measured, answers, self.y, self.y_mask)
        how = None if condition is None else (*condition[1:], self.context)
        optimum = self.setup.benchmark.optimum(dict(batch.streams), self.test, how)
        if optimum is not None:
            self.evaluation.best[name] = optimum[self.setup.benchmark.task.metrics[0]]


def training_rates(setup: Setup, data: Batch, splits: Splits) -> dict[str, dict[str, float]]:
    """The realised rates of training under missingness, as condition "training"; nothing without it."""
    rates = engine.rates_of(setup.recipe.missing, list(setup.benchmark.shapes))
    if not rates:
        return {}
    train = data[splits.train]
    return {"training": _lost(dict(train.streams), engine.hide(dict(train.streams), rates, train.index))}


def chance(
    kind: str, constant: np.ndarray, measured: Sequence[str], y: np.ndarray, y_mask: np.ndarray, fold: int
) -> dict[str, float]:
    """What needs no input at all: of each metric the better of a constant answer and, of classes, of guesses.

    Args:
        constant: (out,) what the training labels alone say, as `api.prior` puts it.
        y, y_mask: (n, S[, out]) labels and which of them count. Guesses are drawn for them by the training labels'
            frequencies; their score is the mean over `GUESSES` draws.
    """
    best = metrics.evaluate(measured, np.broadcast_to(constant, (*y.shape[:2], len(constant))), y, y_mask)
    if kind != "classify":
        return best
    drawn = [metrics.evaluate(measured, guesses(constant, y.shape[:2], fold, n), y, y_mask) for n in range(GUESSES)]
    for name, value in best.items():
        guessed = float(np.mean([scores[name] for scores in drawn]))
        if math.isfinite(guessed) and metrics.oriented(name, guessed) > metrics.oriented(name, value):
            best[name] = guessed
    return best


def guesses(constant: np.ndarray, shape: tuple[int, ...], fold: int, number: int = 0) -> np.ndarray:
    """(*shape, out) log-probabilities of classes drawn by the frequencies whose logarithms are `constant` (out,)."""
    frequencies = np.exp(constant.astype(np.float64))
    rng = np.random.default_rng(keyed.number("chance", fold, number) & 0x7FFFFFFF)
    drawn = rng.choice(len(constant), size=shape, p=frequencies / frequencies.sum())
    return np.log(np.maximum(np.eye(len(constant)), FLOOR))[drawn]


def _lost(before: Streams, after: Streams) -> dict[str, float]:
    """Share of each modality's real steps that the damage announced as lost."""
    return {
        m: 1.0 - float(after[m].mask.sum()) / max(1.0, float(before[m].mask.sum()))
        for m in before
        if after[m].mask is not before[m].mask
    }

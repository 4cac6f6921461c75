"""The procedure evaluated on groups that no choice has seen: a race on the others, then the fold's test samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from fusionbench import harness, metrics
from fusionbench.advise.candidates import Entrant
from fusionbench.advise.ledger import Ledger
from fusionbench.advise.racing import Standing, race
from fusionbench.advise.schedule import Schedule
from fusionbench.advise.trial import refit
from fusionbench.api import Batch, Benchmark, Context, Spec, Splits, Task, group_folds
from fusionbench.api.estimator import prior
from fusionbench.engine.model import statistics
from fusionbench.harness import CHANCE, CLEAN, Setup
from fusionbench.harness.evaluate import guesses
from fusionbench.records import plain
from fusionbench.stats import Cell

#: Who answers the test samples: the procedure's choice, the best that fuses, and the best on one modality.
WINNER, FUSED, SINGLE = "winner", "fused", "single"


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What the models chosen in one outer fold answered to its test samples.

    Attributes:
        names: role -> the candidate chosen for it.
        groups, y, y_mask: of the n test samples.
        answers: (role, condition) -> (R, n, S, out), a model for each of R seeds; of the winner under all conditions.
    """

    fold: int
    names: Mapping[str, str]
    groups: np.ndarray
    y: np.ndarray
    y_mask: np.ndarray
    answers: Mapping[tuple[str, str], np.ndarray]

    def cells(self, role: str, condition: str = CLEAN) -> list[Cell]:
        """A cell for each seed."""
        found = self.answers[role, condition]
        return [Cell(seed, self.fold, self.groups, a, self.y, self.y_mask) for seed, a in enumerate(found)]


def outer_splits(benchmark: Benchmark, name: str, data: Batch, folds: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(other samples, test samples) of the folds to evaluate on: the benchmark's own, or `folds` if it has more."""
    from fusionbench import contract

    if benchmark.folds <= folds:
        cuts = [contract.splits(benchmark, name, data, fold) for fold in range(benchmark.folds)]
    else:
        cuts = [group_folds(data.groups, folds, fold) for fold in range(folds)]
    return [(np.sort(np.concatenate([cut.train, cut.val])), cut.test) for cut in cuts]


def conditions(setup: Setup) -> list[str]:
    """What the winner's test samples meet besides: each modality missing, and noise on it, of every severity."""
    modalities = list(setup.benchmark.shapes)
    if len(modalities) < 2:
        return []
    return [f"{name}:{m}" for name in ("missing", "noise") for m in modalities]


def evaluate(
    entrants: Sequence[Entrant],
    data: Batch,
    fold: int,
    split: tuple[np.ndarray, np.ndarray],
    schedule: Schedule,
    ledger: Ledger,
    left: Callable[[], float],
) -> Evaluation:
    """Races on the first samples of a split, trains the choices on all of them, and answers the others."""
    rows, test = split
    key = plain(["evaluated", entrants[0].setup.digest, repr(schedule), rows.tolist(), test.tolist()])
    kept = ledger.get(key)
    if kept is not None:
        return _unpacked(fold, kept)
    found = race(entrants, data, rows, schedule, ledger, left)
    chosen = {WINNER: found.winner, FUSED: found.best(single=False), SINGLE: found.best(single=True)}
    by_candidate = {entrant.candidate: entrant for entrant in entrants}
    setup = entrants[0].setup
    sample = data[torch.from_numpy(test)]
    answers: dict[tuple[str, str], np.ndarray] = {}
    for role, standing in chosen.items():
        if standing is None:
            continue
        met = conditions(setup) if role == WINNER else []
        said = [
            _answers(by_candidate[standing.candidate], standing, data, Splits(rows, rows, test), seed, met)
            for seed in range(schedule.seeds)
        ]
        answers |= {(role, condition): np.stack([one[condition] for one in said]) for condition in said[0]}
    task, few = setup.benchmark.task, data[torch.from_numpy(rows)]
    answers[WINNER, CHANCE] = _uninformed(task, few, tuple(sample.y_mask.shape), fold)[None]
    made = Evaluation(
        fold=fold,
        names={role: standing.candidate.name for role, standing in chosen.items() if standing is not None},
        groups=np.array(sample.groups),
        y=sample.y.cpu().numpy(),
        y_mask=sample.y_mask.cpu().numpy(),
        answers=answers,
    )
    ledger.put(key, _packed(made))
    return made


def _answers(
    entrant: Entrant, standing: Standing, data: Batch, splits: Splits, seed: int, spelled: Sequence[str]
) -> dict[str, np.ndarray]:
    """Condition -> (n, S, out) of one seed's model, trained on all of the training side."""
    setup = entrant.setup
    model = refit(entrant, data, splits.train, seed, standing.option, standing.steps)
    sample = data[torch.from_numpy(splits.test)]
    found = {CLEAN: model.answer(entrant.view(sample))}
    if spelled:
        train = torch.from_numpy(splits.train).to(data.y.device)
        sd = {m: deviation for m, (_, deviation) in statistics(data, train).items()}
        context = Context(sd, setup.benchmark.rates, dict(sample.streams), setup.benchmark.indicators)
        for name, corruption, severity in harness.parse(setup, spelled):
            streams = setup.prepared.damage(
                dict(sample.streams), splits.test, splits.train, corruption, severity, seed, context
            )
            found[name] = model.answer(entrant.view(replace(sample, streams=streams)))
    return found


def _uninformed(task: Task, known: Batch, shape: tuple[int, ...], fold: int) -> np.ndarray:
    """(*shape, out) the better of two answers that need no input, by the labels that are known: constant or guessed."""
    constant = prior(known, Spec(task.kind, {}, task.out))
    if task.kind == "classify":
        labels, mask, metric = known.y.cpu().numpy(), known.y_mask.cpu().numpy(), task.metrics[0]
        score = metrics.evaluate([metric], np.broadcast_to(constant, (*mask.shape, task.out)), labels, mask)[metric]
        guessed = metrics.evaluate([metric], guesses(constant, mask.shape, fold), labels, mask)[metric]
        if metrics.oriented(metric, guessed) > metrics.oriented(metric, score):
            return guesses(constant, shape, fold)
    return np.broadcast_to(constant, (*shape, task.out)).copy()


def _packed(evaluation: Evaluation) -> dict[str, np.ndarray]:
    arrays = {f"answers {role} {condition}": found for (role, condition), found in evaluation.answers.items()}
    names = {f"name {role}": np.array(name) for role, name in evaluation.names.items()}
    return {"groups": evaluation.groups, "y": evaluation.y, "y_mask": evaluation.y_mask, **names, **arrays}


def _unpacked(fold: int, arrays: Mapping[str, np.ndarray]) -> Evaluation:
    names, answers = {}, {}
    for key, value in arrays.items():
        kind, _, rest = key.partition(" ")
        role, _, condition = rest.partition(" ")
        if kind == "name":
            names[role] = str(value)
        elif kind == "answers":
            answers[role, condition] = value
    return Evaluation(fold, names, arrays["groups"], arrays["y"], arrays["y_mask"], answers)

"""What needs no input: chance, and the answer to a sample of which a method sees nothing."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sklearn.dummy import DummyClassifier
from sklearn.metrics import f1_score

from fusionbench import harness, registry
from fusionbench.api import Batch, Spec, Stream, Task, prior
from fusionbench.engine.model import Blueprint, Model
from fusionbench.harness.evaluate import chance
from fusionbench.harness.setup import splits_of
from fusionbench.records import Record, Run

WIDTHS = {"face": (3,), "voice": (2,)}


def labelled(frequencies: list[float], samples: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).choice(len(frequencies), size=samples, p=frequencies)


@pytest.mark.parametrize("frequencies", [[0.5, 0.3, 0.2], [1 / 11] * 11, [0.97, 0.03]])
def test_chance_is_the_better_of_scikit_learns_two_answers_without_input(frequencies: list[float]) -> None:
    train, test = labelled(frequencies, 600, 1), labelled(frequencies, 400, 2)
    known = prior(Batch({}, torch.from_numpy(train)[:, None], torch.ones(600, 1, dtype=torch.bool)),
                  Spec("classify", {}, len(frequencies)))  # fmt: skip
    y_mask = np.ones((400, 1), dtype=bool)
    found = chance("classify", known, ["macro_f1", "accuracy"], test[:, None], y_mask, fold=0)
    x = np.zeros((600, 1))

    def score(strategy: str, draws: int) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dummies = [DummyClassifier(strategy=strategy, random_state=n).fit(x, train) for n in range(draws)]
            return float(np.mean([f1_score(test, d.predict(x[:400]), average="macro") for d in dummies]))

    assert found["macro_f1"] == pytest.approx(max(score("prior", 1), score("stratified", 200)), abs=0.01)
    majority = float((test == np.bincount(train).argmax()).mean())
    assert found["accuracy"] >= majority - 1e-9
    assert found == chance("classify", known, ["macro_f1", "accuracy"], test[:, None], y_mask, fold=0)


def test_of_values_chance_is_the_mean_of_the_training_labels() -> None:
    y = np.random.default_rng(0).normal(size=(50, 4, 1))
    found = chance("regress", np.array([0.25]), ["mae", "ccc"], y, np.ones((50, 4), dtype=bool), fold=0)
    assert found["mae"] == pytest.approx(np.abs(y - 0.25).mean())
    assert found["ccc"] == pytest.approx(0.0, abs=1e-9)


def trained_on(task: Task, fuser: str, y: torch.Tensor) -> tuple[Model, Batch]:
    """A member before its first step, and its training samples."""
    generator = torch.Generator().manual_seed(3)
    size, steps = len(y), y.shape[1] if task.per_frame else 4
    streams = {
        m: Stream(torch.randn(size, steps, *shape, generator=generator), torch.ones(size, steps, dtype=torch.bool))
        for m, shape in WIDTHS.items()
    }
    data = Batch(streams, y, torch.ones(y.shape[:2], dtype=torch.bool))
    identity = registry.load("backbones", "identity")
    blueprint = Blueprint(task, WIDTHS, registry.load("fusers", fuser), {}, {m: (identity, {}) for m in WIDTHS})
    return blueprint.begin(0, data, torch.arange(size)).eval(), data


@pytest.mark.parametrize("fuser", ["unimodal", "concat", "transformer", "late_average"])
@pytest.mark.parametrize("kind", ["classify", "regress"])
def test_a_network_that_sees_nothing_of_a_sample_answers_the_prior(fuser: str, kind: str) -> None:
    if kind == "classify":
        task, y = Task("classify", 3, ("accuracy",)), torch.tensor([0, 0, 0, 1, 1, 2])[:, None]
        wanted = torch.tensor([1 / 2, 1 / 3, 1 / 6]).log()
    else:
        task, y = Task("regress", 1, ("ccc",), per_frame=True), torch.arange(24.0).reshape(6, 4, 1)
        wanted = y.mean().reshape(1)
    model, data = trained_on(task, fuser, y)
    seen = model.fuser.sees
    assert tuple(seen) == (("face",) if fuser == "unimodal" else ("face", "voice"))
    hidden = {m: Stream(s.x, s.mask & ((torch.arange(6) != 2)[:, None] | (m not in seen)))
              for m, s in data.streams.items()}  # fmt: skip
    with torch.no_grad():
        before, after = model(data), model(Batch(hidden, data.y, data.y_mask))
    assert torch.allclose(after[2], wanted.expand_as(after[2]), atol=1e-6)
    others = [0, 1, 3, 4, 5]
    assert torch.equal(after[others], before[others])
    assert not torch.allclose(before[2], after[2], atol=1e-3), "an untrained network answers something else"


def test_a_single_modality_that_is_missing_scores_as_the_prior_does() -> None:
    setup = harness.setup("toy_xor", "unimodal", given={"train": {"steps": "10"}, "fuser": {"modality": "left"}})
    blueprint, data = setup.trained, setup.data
    splits = splits_of(setup, data, setup.run(0, 0))
    model = blueprint.begin(0, data, torch.from_numpy(splits.train)).eval()
    test = data[splits.test]
    gone = {m: s.absent() if m == "left" else s for m, s in test.streams.items()}
    with torch.no_grad():
        answers = model(Batch(gone, test.y, test.y_mask))
    assert torch.equal(answers, model.prior.expand_as(answers))


@pytest.mark.parametrize(
    ("rates", "lr", "edge"),
    [((1e-3, 3e-3, 1e-2), 1e-2, True), ((1e-3, 3e-3, 1e-2), 3e-3, False), ((1e-3, 3e-3), 1e-3, None), ((), None, None)],
)
def test_a_learning_rate_at_the_edge_of_its_grid_is_said(
    rates: tuple[float, ...], lr: float | None, edge: bool | None
) -> None:
    run = Run("watch", "concat", {}, 0, 0, {"train": {"lr": rates}}, "", "")
    assert Record(run, "done", {}, "", 2, ["accuracy"], chosen={"lr": lr}).at_edge is edge

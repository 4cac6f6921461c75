"""What a recipe may ask for since runs were published, against a slow loop; and that it moves no other run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
import torch
from torch import nn

from fusionbench import engine, harness, hparams, jobs, registry
from fusionbench.api import Batch, Task, UsageError, keyed
from fusionbench.engine import Member, Recipe, Trained
from fusionbench.engine.graph import WARM_UP, Graph
from fusionbench.engine.model import Blueprint, class_weights, criterion, statistics
from fusionbench.engine.recipe import order, schedule
from fusionbench.records import store

RECIPE = Recipe(steps=12, batch=8, interval=4, patience=9, lr=(1e-3,))
RESULTS = Path(__file__).parents[1] / "results"
ASKED = [{"ema": 0.7}, {"class_balance": True}, {"ema": 0.9, "class_balance": True}]


@pytest.fixture(scope="module")
def data() -> Batch:
    """As many again of class 0, so that balance matters."""
    whole = registry.load("benchmarks", "toy_xor")(people=6).load()
    rare = (whole.y[:, 0] == 1) & (torch.arange(len(whole)) % 4 > 0) & (torch.arange(len(whole)) < 80)
    return replace(whole, y_mask=whole.y_mask & ~rare[:, None])


def blueprint(fuser: str = "gated", **settings: object) -> Blueprint:
    judge = registry.load("benchmarks", "toy_xor")()
    method, identity = registry.load("fusers", fuser), registry.load("backbones", "identity")
    full = {name: h.default for name, h in hparams.read(method).items()} | settings
    return Blueprint(judge.task, judge.shapes, method, full, {m: (identity, {}) for m in judge.shapes})


def member(seed: int = 0, lr: float = 3e-3) -> Member:
    return Member(0, seed, np.arange(10 * seed, 80), np.arange(80, 100), lr)


def run(members: list[Member], data: Batch, recipe: Recipe, stacked: int = 1) -> list[Trained]:
    events = engine.train(blueprint(), members, data, recipe, stacked=stacked)
    return sorted((e for e in events if isinstance(e, Trained)), key=lambda t: t.member)


@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_a_stacked_member_equals_the_member_alone(asked: dict[str, Any], data: Batch) -> None:
    members, recipe = [member(s, lr=1e-3 * (s + 1)) for s in range(3)], replace(RECIPE, **asked)
    for a, b in zip(run(members, data, recipe, 3), run(members, data, recipe), strict=True):
        assert (a.stacked, b.stacked) == (3, 1)
        assert a.step == b.step
        assert [h["loss"] for h in a.history] == pytest.approx([h["loss"] for h in b.history], rel=2e-4)
        for name, value in a.weights.items():
            torch.testing.assert_close(value, b.weights[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_a_member_is_what_a_slow_loop_makes_of_it(asked: dict[str, Any], data: Batch) -> None:
    who, recipe = member(), replace(RECIPE, **asked)
    (trained,) = run([who], data, recipe)
    plain = run([who], data, RECIPE)[0]
    assert any(not torch.equal(v, plain.weights[n]) for n, v in trained.weights.items()), "it does something"

    model = blueprint().build(0, statistics(data, torch.from_numpy(who.train)), len(who.train))
    optimiser = torch.optim.AdamW(model.parameters(), lr=who.lr, weight_decay=who.weight_decay)
    valid = data.y[who.train][data.y_mask[who.train]]
    weight = torch.tensor([1 / int((valid == c).sum()) for c in range(2)]) if recipe.class_balance else None
    states, drawn, scores = [], order(who, 12, 8), []
    for step in range(12):
        optimiser.param_groups[0]["lr"] = who.lr * schedule(step, recipe)
        batch = data[drawn[step]]
        keep = batch.y_mask[:, 0]
        with keyed.scope(key(who, step)):
            answers = model.train()(batch)[:, 0]
        loss = nn.functional.cross_entropy(answers[keep], batch.y[keep, 0], weight=weight)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), who.clip)
        optimiser.step()
        states.append({n: p.detach().clone() for n, p in model.named_parameters()})
        if step % 4 == 3:
            mean = states[-1] if not recipe.ema else averaged(states, recipe.ema)
            val = data[who.val]
            found = torch.func.functional_call(model.eval(), mean, (val,))[:, 0].argmax(-1)
            scores.append(float((found == val.y[:, 0]).float().mean()))
    assert [h["score"] for h in trained.history] == pytest.approx(scores)
    best = states[: trained.step]
    for name, value in (averaged(best, recipe.ema) if recipe.ema else best[-1]).items():
        torch.testing.assert_close(trained.weights[name], value, rtol=1e-4, atol=1e-5)


def key(who: Member, step: int) -> torch.Tensor:
    """As the engine makes it of member and step."""
    member = torch.tensor(keyed.number("train", who.seed, who.fold), dtype=torch.int32)
    return keyed.mix(member + keyed.number("step", step))


def averaged(states: list[dict[str, torch.Tensor]], decay: float) -> dict[str, torch.Tensor]:
    """The weighted mean of all states, a step ago worth `decay` of now."""
    shares = np.array([decay ** (len(states) - 1 - t) for t in range(len(states))])
    shares /= shares.sum()
    return {n: sum(float(s) * state[n] for s, state in zip(shares, states, strict=True)) for n in states[0]}  # type: ignore[misc]


def test_the_average_is_compacted_and_captured_with_the_rest(data: Batch) -> None:
    recipe = replace(RECIPE, ema=0.8, class_balance=True)
    plain, other = (
        engine.make_program(blueprint(), [member(s) for s in range(3)], data, recipe, torch.device("cpu"))
        for _ in range(2)
    )
    steps = Graph(other, lambda call: call)
    for step in range(8):
        torch.testing.assert_close(steps.step(step), plain.step(step), rtol=1e-4, atol=1e-4)
    assert steps.replay
    torch.testing.assert_close(other.chosen(), plain.chosen(), rtol=1e-4, atol=1e-5)
    (before,) = plain.chosen()
    plain.compact([2, 0])
    torch.testing.assert_close(plain.chosen()[0], before[[2, 0]])
    assert torch.isfinite(plain.step(8)).all()
    assert plain.validate() == pytest.approx(plain.validate())


def test_what_a_replay_leaves_out_of_the_average_is_seen(data: Batch) -> None:
    program = engine.make_program(
        blueprint(), [member(0), member(1)], data, replace(RECIPE, ema=0.8), torch.device("cpu")
    )

    def capture(call: Any) -> Any:
        def replay() -> None:
            kept = program.average[0].clone()
            call()
            program.average[0].copy_(kept)

        return replay

    steps = Graph(program, capture)
    for step in range(WARM_UP):
        steps.step(step)
    with pytest.warns(UserWarning, match="replayed step differs"):
        steps.step(WARM_UP)


def test_classes_are_weighed_by_the_training_labels_that_count(data: Batch) -> None:
    task = Task("classify", 4, ("accuracy",))
    y, mask = torch.tensor([[0], [0], [0], [0], [1], [1], [2], [3]]), torch.ones(8, 1, dtype=torch.bool)
    mask[7] = False
    batch = Batch({}, y, mask)
    assert class_weights(task, batch, torch.arange(8)).tolist() == [1, 2, 4, 4]
    assert class_weights(task, batch, torch.tensor([0, 4, 5])).tolist() == [2, 1, 2, 2]
    answers = torch.randn(8, 1, 4, generator=torch.Generator().manual_seed(0))
    weight = torch.tensor([1.0, 2.0, 4.0, 4.0])
    want = nn.functional.cross_entropy(answers[:7, 0], y[:7, 0], weight=weight)
    assert float(criterion(task, 0.0, balance=weight)(answers, batch)) == pytest.approx(float(want))
    with pytest.raises(UsageError, match="class_balance needs a task of classes"):
        class_weights(Task("regress", 1, ("mae",)), batch, torch.arange(8))
    with pytest.raises(UsageError, match=r"train\.ema cannot be 1"):
        Recipe(ema=1.0)


# Identity: what nobody has asked for is no part of a run, so that published runs keep their names.


def test_an_added_hyper_parameter_counts_where_it_is_asked_for_and_nowhere_else() -> None:
    def target(*, depth: Annotated[int, "layers"] = 2, late: Annotated[float, hparams.Added, "new"] = 0.0) -> None: ...

    assert {name: h.added for name, h in hparams.read(target).items()} == {"depth": False, "late": True}
    plain, same, other = (
        harness.setup("toy_xor", "concat", given={"train": dict(train)})
        for train in ({}, {"ema": "0", "class_balance": "false"}, {"ema": "0.99", "class_balance": "yes"})
    )
    assert plain.run(0, 0) == same.run(0, 0)
    assert not {"ema", "class_balance"} & set(plain.run(0, 0).hparams["train"])
    assert other.run(0, 0).id != plain.run(0, 0).id
    assert other.run(0, 0).hparams["train"]["ema"] == 0.99
    assert (other.recipe.ema, other.recipe.class_balance) == (0.99, True)
    assert {"train.ema=0.99", "train.class_balance=True"} <= set(other.changes)
    record = harness.blank(other, other.run(0, 0))
    assert harness.setup_of(record).run(0, 0).id == record.run.id, "a record leads back to its run"


FOLDERS = sorted(path.parent for path in RESULTS.glob("*/*/records.jsonl"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_published_runs_keep_their_ids(folder: Path) -> None:
    """A setup of a published record's settings asks for a run of the same id: of each row and fold the first seed."""
    found = {(r.run.row, r.run.fold if r.run.tuned else 0): r for r in store.load(RESULTS, *folder.parts[-2:])}
    assert found
    for record in found.values():
        run = replace(harness.setup_of(record), tuned=record.run.tuned).run(record.run.fold, record.run.seed)
        run = replace(run, ensemble=record.run.ensemble)  # its members are of the same setup
        assert run.id == record.run.id
        assert run.row == record.run.row


def test_a_record_of_before_is_found_and_nothing_is_planned(tmp_path: Path) -> None:
    setup = harness.setup("toy_xor", "concat")
    runs = setup.runs([0], [0, 1])
    for run in runs:
        assert set(run.hparams["train"]) == {n for n, h in hparams.read(Recipe).items() if not h.added}
        old = replace(harness.blank(setup, run), status="done", scores={"clean": {"accuracy": 0.5}})
        store.save(tmp_path, old, None, None)
    planned = jobs.plan_runs(setup, runs, tmp_path, [])
    assert ([r.run for r in planned.done], planned.todo) == (runs, 0)
    asked = harness.setup("toy_xor", "concat", given={"train": {"ema": 0.9}})
    assert jobs.plan_runs(asked, asked.runs([0], [0]), tmp_path, []).todo == 1

"""From a setup to records and back: what is done again, what is not, and what is never seen."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fusionbench import engine, harness, registry
from fusionbench.api import Batch, Stream, UsageError
from fusionbench.harness import evaluate as evaluation
from fusionbench.jobs import plan_runs
from fusionbench.records import Record, store

FAST = {"train": {"steps": "12", "interval": "6", "lr": "3e-3"}}
DAMAGE = ["missing:left", "noise:all:2"]


def prepare(fuser: str = "concat", **train: str) -> harness.Setup:
    return harness.setup("toy_xor", fuser, given={"train": {**FAST["train"], **train}})


def obtain(
    setup: harness.Setup, results: Path, conditions: Sequence[str] = DAMAGE, folds: Sequence[int] = (0,),
    seeds: Sequence[int] = (0,), stacked: int | None = None,
) -> list[Record]:  # fmt: skip
    plan = plan_runs(setup, setup.runs(folds, seeds), results, conditions)
    events = harness.execute(
        setup, plan.train, results, again=plan.evaluate, conditions=conditions, device="cpu", stacked=stacked
    )
    return [e for e in events if isinstance(e, Record)]


def test_a_record_says_everything(tmp_path: Path) -> None:
    (item,) = obtain(prepare(), tmp_path)
    assert item == store.find(tmp_path, item.run)
    assert item.status == "done"
    assert list(item.scores) == ["chance", "clean", "missing:left", "noise:all:2"]
    assert 0.3 < item.scores["chance"]["accuracy"] < 0.7  # type: ignore[operator]
    assert item.chosen["lr"] == 3e-3
    assert item.changes == ["train.lr=0.003", "train.steps=12", "train.interval=6"]
    assert item.rates["missing:left"] == {"left": 1.0}
    assert item.parameters["trained"] == item.parameters["allocated"] > 0
    assert item.samples == {"train": 120, "val": 40, "test": 80, "skipped": 0}
    assert set(item.code) == {"benchmark", "fuser", "backbone.left", "backbone.right"}
    assert item.run.hparams["fuser"] == {"width": 128}
    kept = store.predictions(tmp_path, item.run)
    assert kept is not None
    right = kept.answers["clean"][:, 0].argmax(-1) == kept.y[:, 0]
    assert right.mean() == pytest.approx(item.scores["clean"]["accuracy"])
    assert len(set(kept.groups)) == 4


def test_only_what_is_missing_is_done(tmp_path: Path) -> None:
    setup = prepare()
    first = obtain(setup, tmp_path, folds=(0, 1))
    assert len(first) == 2
    assert obtain(setup, tmp_path, folds=(0, 1)) == []
    store.path_of(tmp_path, first[0].run).unlink()
    (again,) = obtain(setup, tmp_path, folds=(0, 1))
    assert again.run == first[0].run
    for condition, scores in again.scores.items():  # it was stacked the first time: equal but for rounding
        assert scores == pytest.approx(first[0].scores[condition], abs=1e-4)


def test_the_same_seed_gives_identical_scores_and_answers(tmp_path: Path) -> None:
    a, b = (obtain(prepare("jmt"), tmp_path / name)[0] for name in ("a", "b"))
    assert a.scores == b.scores
    answers = [store.predictions(tmp_path / n, a.run).answers for n in ("a", "b")]  # type: ignore[union-attr]
    assert all(np.array_equal(answers[0][c], answers[1][c]) for c in answers[0])


def test_a_new_corruption_needs_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = prepare()
    (old,) = obtain(setup, tmp_path)
    monkeypatch.setattr(engine, "train", lambda *_, **__: pytest.fail("it trained again"))
    (new,) = obtain(setup, tmp_path, [*DAMAGE, "gap:left:5"])
    assert {k: v for k, v in new.scores.items() if k != "gap:left:5"} == old.scores
    assert set(new.scores["gap:left:5"]) == {"accuracy", "macro_f1", "ece", "brier"}
    kept = store.predictions(tmp_path, new.run)
    assert kept is not None
    assert set(kept.answers) == {"clean", "missing:left", "noise:all:2", "gap:left:5"}


def test_without_its_weights_a_run_is_trained_again(tmp_path: Path) -> None:
    (old,) = obtain(prepare(), tmp_path)
    store.path_of(tmp_path, old.run).with_suffix(".safetensors").unlink()
    (new,) = obtain(prepare(), tmp_path, [*DAMAGE, "gap:left:5"])
    assert new.scores["clean"] == old.scores["clean"]


def test_editing_a_fuser_runs_that_fuser_only(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    shutil.copy(Path(registry.names("fusers")["concat"].path or ""), mine)
    results = tmp_path / "results"
    obtain(prepare(str(mine)), results)
    obtain(prepare(), results)
    mine.write_text(mine.read_text() + "\nEDITED = True\n")
    registry._load_path.cache_clear()
    assert len(obtain(prepare(str(mine)), results)) == 1
    assert obtain(prepare(), results) == []


def test_nan_in_every_test_label_and_input_leaves_the_weights_bit_identical(tmp_path: Path) -> None:
    setup = prepare()
    splits = setup.benchmark.splits(setup.data, 0)
    (run,) = setup.runs([0], [0])
    (clean,) = [e for e in harness.execute(setup, [run], tmp_path / "clean", conditions=[]) if isinstance(e, Record)]
    whole, poisoned = setup.data, prepare()
    test = torch.from_numpy(splits.test)
    streams = {}
    for m, s in whole.streams.items():
        x = s.x.clone()
        x[test] = torch.nan
        streams[m] = Stream(x, s.mask)
    y = whole.y.clone()
    y[test] = 10**12
    whole = replace(whole, streams=streams, y=y)
    poisoned.dataset._prepared = replace(poisoned.prepared, data=whole)  # beneath the check of the data
    members = [harness.member_of(poisoned.recipe, run, splits, 3e-3)]
    (trained,) = [
        e
        for e in engine.train(poisoned.blueprint, members, poisoned.data, poisoned.recipe)
        if isinstance(e, engine.Trained)
    ]
    saved = store.weights(tmp_path / "clean", clean.run)
    assert saved is not None
    assert all(torch.equal(saved[name], value) for name, value in trained.weights.items())


def test_stacking_changes_scores_by_rounding_only(tmp_path: Path) -> None:
    setup = prepare(lr="1e-3,3e-3")
    a = obtain(setup, tmp_path / "a", folds=(0, 1), stacked=4)
    b = obtain(setup, tmp_path / "b", folds=(0, 1), stacked=1)
    for one, other in zip(a, b, strict=True):
        assert one.how == "stacked with 3 others"
        assert other.how == "alone"
        kept = [store.predictions(tmp_path / n, one.run).answers["clean"] for n in ("a", "b")]  # type: ignore[union-attr]
        # Rounding grows over the steps; answers are logits of order 1.
        np.testing.assert_allclose(*kept, atol=2e-3)


def test_the_first_seed_of_a_fold_chooses_the_learning_rate_for_the_others(tmp_path: Path) -> None:
    setup = prepare(lr="1e-4,1e-2")
    first, second = obtain(setup, tmp_path / "both", seeds=(0, 1))
    assert set(first.history) == {"0.0001", "0.01"}
    assert second.chosen["lr"] == first.chosen["lr"]
    assert list(second.history) == [f"{first.chosen['lr']:g}"]
    (later,) = obtain(setup, tmp_path / "both", seeds=(2,))  # by the record that is on disk
    assert later.chosen["lr"] == first.chosen["lr"]
    (alone,) = obtain(setup, tmp_path / "alone", seeds=(1,))  # the choice is made again, and nothing else is kept of it
    assert alone.chosen["lr"] == second.chosen["lr"]
    assert alone.scores["clean"]["accuracy"] == pytest.approx(second.scores["clean"]["accuracy"], abs=0.03)
    assert len(list((tmp_path / "alone").rglob("*.json"))) == 1


def test_where_the_first_seed_fails_at_every_rate_the_others_say_so(tmp_path: Path) -> None:
    setup = prepare(lr="1e20,1e30")
    first, second = obtain(setup, tmp_path, seeds=(0, 1))
    assert (first.status, second.status) == ("failed", "failed")
    assert "the loss became" in str(first.error)
    assert second.error == "the first seed failed at every learning rate"


@pytest.mark.parametrize("fuser", ["concat", "jmt", "bottleneck", "tensor_fusion"])
def test_runs_that_are_judged_together_get_the_answers_that_each_gets_alone(fuser: str) -> None:
    setup = prepare(fuser)
    cases = []
    for fold, seed in ((0, 0), (0, 1), (1, 0)):
        splits = harness.splits_of(setup, setup.data, setup.run(fold, seed))
        splits = replace(splits, test=splits.test[: len(splits.test) - 7 * fold])  # not all of one size
        model = setup.trained.build(seed, evaluation.statistics(setup.data, torch.from_numpy(splits.train)), 100)
        cases.append(evaluation.Case(setup.run(fold, seed), evaluation.Network(model), splits))
    damage = evaluation.parse(setup, ["noise:all:3", "missing:left"])
    alone, stacked = (evaluation.evaluate(setup, cases, setup.data, damage, stacked) for stacked in (False, True))
    for a, b in zip(alone, stacked, strict=True):
        assert a.rates == b.rates
        assert list(a.scores) == list(b.scores) == ["chance", "clean", "noise:all:3", "missing:left"]
        for name, answers in a.predictions.answers.items():
            np.testing.assert_allclose(answers, b.predictions.answers[name], rtol=1e-4, atol=1e-5)
    assert not np.array_equal(*(found.predictions.answers["clean"][:60] for found in alone[:2])), "two seeds"


def test_a_run_that_diverges_is_recorded_as_failed_and_the_others_go_on(tmp_path: Path) -> None:
    mine = tmp_path / "explodes.py"
    mine.write_text(
        "import torch\nfrom torch import nn\nfrom fusionbench.api import Fuser\n"
        "class Explodes(Fuser):\n"
        "    def __init__(self, spec):\n        super().__init__(spec)\n"
        "        self.w = nn.Parameter(torch.zeros(spec.out))\n"
        "    def forward(self, streams):\n"
        "        x = self.pool(streams['left']).x.mean(-1, keepdim=True)\n"
        "        return x * 0 + torch.log(0 * self.w)\n"
    )
    setup = prepare(str(mine))
    (failed,) = obtain(setup, tmp_path)
    assert failed.status == "failed"
    assert "the loss became" in (failed.error or "")
    assert "by step 6" in (failed.error or "")
    assert failed.scores == {}
    assert len(obtain(setup, tmp_path)) == 1  # a failure does not count as done


def test_nan_in_the_data_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = prepare()
    whole = setup.benchmark.load()
    x = whole.streams["left"].x.clone()
    x[7, 0, 1] = torch.nan
    spoilt: Batch = replace(whole, streams={**whole.streams, "left": Stream(x, whole.streams["left"].mask)})
    monkeypatch.setattr(setup.benchmark, "load", lambda: spoilt)
    with pytest.raises(UsageError, match="left of sample person00-07 has NaN"):
        _ = setup.data


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fuser": "concta"}, "no fuser is called 'concta'; did you mean concat"),
        ({"benchmark": "wach"}, "no benchmark is called 'wach'; did you mean watch"),
        ({"backbones": {"left": "tnc"}}, "no backbone is called 'tnc'; did you mean tcn"),
        ({"backbones": {"up": "tcn"}}, "no modality of toy_xor is called 'up'"),
        ({"given": {"fuser": {"widht": 3}}}, "no hyper-parameter of concat is called 'widht'; did you mean width"),
        ({"given": {"fuser": {"width": "wide"}}}, "width takes a whole number, not 'wide'"),
        ({"given": {"train": {"lr": "fast"}}}, "lr takes a number, or several with commas, not 'fast'"),
        ({"given": {"fusor": {}}}, "no part of a run is called 'fusor'; did you mean fuser"),
    ],
)
def test_wrong_usage_is_one_line_with_the_near_name(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("(", r"\(")):
        harness.setup(**{"benchmark": "toy_xor", "fuser": "concat", **arguments})  # type: ignore[arg-type]


@pytest.mark.parametrize("condition", ["nois:left", "noise:up:1", "noise:left:6", "missing:"])
def test_wrong_conditions_are_usage_errors_before_any_work(condition: str, tmp_path: Path) -> None:
    setup = prepare()
    if condition == "missing:":
        assert evaluation.parse(setup, [condition])[0][0] == "missing:all"
        return
    with pytest.raises(UsageError):
        plan_runs(setup, setup.runs([0], [0]), tmp_path, [condition])


def test_unknown_devices_and_folds_are_usage_errors() -> None:
    with pytest.raises(UsageError, match="device 'warp' cannot be used"):
        harness.pick("warp")
    with pytest.raises(UsageError, match="toy_xor has folds 0 to 2, not 3"):
        prepare().runs([3])


def test_the_estimate_is_of_the_right_size(tmp_path: Path) -> None:
    import time

    setup = prepare(steps="60", interval="20", lr="1e-3,3e-3")
    estimated = harness.estimate(setup, setup.runs([0], [0, 1]), DAMAGE, "cpu", 4)
    began = time.perf_counter()
    obtain(setup, tmp_path, seeds=(0, 1))
    assert 0.1 < estimated / (time.perf_counter() - began) < 10


def test_constants_of_the_benchmark_and_quick_runs() -> None:
    setup = harness.setup("toy_xor", "concat")
    assert (setup.recipe.steps, setup.recipe.batch, setup.recipe.interval) == (120, 32, 20)
    assert setup.changes == []
    quick = harness.setup("toy_xor", "concat", quick=True)
    assert quick.recipe.steps == 30
    assert quick.marks == ["quick"]


def test_damage_that_does_not_fit_is_told_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "train", lambda *_, **__: pytest.fail("it trained first"))
    with pytest.raises(UsageError):
        obtain(prepare(), tmp_path, ["power_line:left:1"])


def test_edited_damage_is_other_damage(tmp_path: Path) -> None:
    mine = tmp_path / "offset.py"
    text = (
        "from fusionbench.api import Corruption, Stream\n"
        "class Offset(Corruption):\n    '''Adds a constant.'''\n    name = 'offset'\n    announced = False\n"
        "    ladder = (1.0, 2.0)\n"
        "    def damage(self, stream, amount, keys, context, modality):\n"
        "        return Stream(stream.x + amount, stream.mask)\n"
    )
    mine.write_text(text)
    (first,) = obtain(prepare(), tmp_path / "r", [f"{mine}:left:1"])
    mine.write_text(text.replace("+ amount", "+ 9 * amount"))
    registry._load_path.cache_clear()
    (second,) = obtain(prepare(), tmp_path / "r", [f"{mine}:left:1"])
    new = set(second.scores) - set(first.scores)
    assert len(new) == 1
    assert new.pop().startswith("offset@")


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        ("train", {"lr": "-1"}, "train.lr cannot be"),
        ("train", {"lr": ","}, "train.lr cannot be"),
        ("train", {"steps": "-4"}, "train.steps cannot be -4"),
        ("train", {"modality_dropout": "1.0"}, "train.modality_dropout cannot be 1.0"),
        ("fuser", {"heads": "3"}, "fuser JMT cannot be built with"),
    ],
)
def test_values_that_make_no_sense_are_one_line(
    part: str, values: dict[str, str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        obtain(harness.setup("toy_xor", "jmt", given={part: values}), tmp_path)


def test_zero_steps_means_the_benchmarks_own() -> None:
    setup = harness.setup("toy_xor", "concat", given={"train": {"steps": "0", "batch": "0"}})
    assert (setup.recipe.steps, setup.recipe.batch) == (120, 32)
    assert setup.changes == []

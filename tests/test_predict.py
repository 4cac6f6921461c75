"""Models in use: fitted on every group, kept without a pickle, asked with whatever a user has, honest about doubt."""

from __future__ import annotations

import csv
import json
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import fusionbench
from fusionbench import cli, harness
from fusionbench.api import Batch, Stream, Task, UsageError
from fusionbench.engine import make_program
from fusionbench.engine.recipe import Member
from fusionbench.predict import calibration, fitting, inputs
from fusionbench.predict.calibration import Calibration
from fusionbench.records import Record, store

FAST = {"train": {"steps": 20, "interval": 10, "lr": (3e-3,)}}
PEOPLE, EACH = 24, 4
WIDTHS = {"face": (3, 4), "eda": (3,)}


def people(seed: int, number: int = PEOPLE) -> dict[str, Any]:
    """Two modalities that both tell the class; the eda of some samples is missing."""
    rng = np.random.default_rng(seed)
    n = number * EACH
    y = rng.integers(0, 2, n)
    signal = 1.5 * (y - 0.5)
    return {
        "face": signal[:, None, None] + rng.standard_normal((n, *WIDTHS["face"])),
        "eda": signal[:, None] + rng.standard_normal((n, *WIDTHS["eda"])),
        "eda_mask": rng.random(n) > 0.2,
        "y": y,
        "group": np.repeat([f"p{seed}-{k}" for k in range(number)], EACH),
    }


def asked(seed: int = 1) -> dict[str, Any]:
    return {name: value for name, value in people(seed).items() if name not in ("y", "group")}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """One network and one estimator, fitted by the command on data of 24 people."""
    folder = tmp_path_factory.mktemp("predict")
    with pytest.MonkeyPatch.context() as patch:
        (folder / "home").mkdir()
        (folder / "home" / "note.txt").write_text("a folder that is no model")
        patch.setenv("FUSIONBENCH_HOME", str(folder / "home"))
        patch.chdir(folder)
        data = folder / "mine.npz"
        np.savez(data, **people(0), fold=np.repeat(np.arange(PEOPLE) % 3, EACH))
        train = [f"--train.{n}={v[0] if isinstance(v, tuple) else v}" for n, v in FAST["train"].items()]
        for fuser, out in (("concat", "net"), ("linear", "est")):
            status, said, err = command("fit", fuser, "mine.npz", "--out", out, "--no-track", *train)
            assert status == 0, err
            assert "macro_f1" in said
        yield SimpleNamespace(folder=folder, data=data, net=folder / "net", est=folder / "est", said=said)


def command(*words: str | Path) -> tuple[int, str, str]:
    from contextlib import redirect_stderr, redirect_stdout
    from io import StringIO

    out, err = StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings():
        patch.setattr(sys, "argv", ["fusionbench", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    return int(ended.value.code or 0), out.getvalue(), err.getvalue()


# --------------------------------------------------------------------------------------------------------- calibration


def cases(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Misfits of 200 samples, their groups, and the fold of each group."""
    group = rng.integers(0, 30, 200)
    return rng.random(200).round(2), group, group % 3


def slow_weights(group: np.ndarray) -> np.ndarray:
    """Each group counts as much as a new one, and shares it among its samples."""
    groups = len(set(group.tolist()))
    return np.array([1 / ((groups + 1) * sum(1 for other in group if other == g)) for g in group])


def test_a_class_is_left_out_where_a_slow_count_says_so() -> None:
    rng = np.random.default_rng(0)
    scores, group, fold = cases(rng)
    weights = slow_weights(group)
    found = calibration.Misfits.of(scores[:, None], group, fold, 3)
    asked = rng.random((3, 50)).round(2)  # of a class, by each fold's model
    beyond = found.new + sum(column.at_least(asked[k]) for k, column in enumerate(found.by_fold(0)))
    slow = [
        1 / 31 + sum(w for s, w, f in zip(scores, weights, fold, strict=True) if s >= asked[f, i]) for i in range(50)
    ]
    np.testing.assert_allclose(beyond, slow)


def test_an_interval_ends_where_a_slow_search_says_so() -> None:
    rng = np.random.default_rng(1)
    scores, group, fold = cases(rng)
    weights = slow_weights(group)
    found = calibration.Misfits.of(scores[:, None], group, fold, 3)
    centres = rng.standard_normal((3, 20))
    for coverage in (0.5, 0.9):
        ends = found.upper(0, centres, coverage)
        for i in range(20):
            above = sorted((centres[f, i] + s, w) for s, w, f in zip(scores, weights, fold, strict=True))
            total, least = 0.0, np.inf
            for bound, weight in above:
                total += weight
                if total >= coverage - 1e-12:
                    least = bound
                    break
            assert ends[i] == pytest.approx(least, abs=1e-6)
    assert (found.upper(0, centres, 0.99) == np.inf).all(), "30 groups cannot promise 99 %"


def test_sets_by_group_cover_nine_in_ten_of_new_groups() -> None:
    """Groups differ in how hard they are and in size: samples as units would promise too much."""
    rng, shares = np.random.default_rng(1), []

    def draw(number: int) -> tuple[np.ndarray, np.ndarray]:
        sizes = rng.integers(1, 12, number)
        group = np.repeat(np.arange(number), sizes)
        hard = rng.gamma(2.0, 1.0, number)[group] * (1 + sizes[group] / 6)
        return hard * rng.random(len(group)), group

    for _ in range(60):
        scores, group = draw(240)
        found = calibration.Misfits.of(scores[:, None], group, np.zeros(len(group), dtype=int), 1)
        new, who = draw(2000)
        inside = found.new + found.by_fold(0)[0].at_least(new) > 0.1
        shares.append((np.bincount(who, inside) / np.bincount(who)).mean())
    assert 0.89 < np.mean(shares) < 0.915


def test_the_temperature_is_found_again() -> None:
    rng = np.random.default_rng(2)
    logits = rng.standard_normal((2000, 3)) * 2
    p = calibration.probabilities(logits)
    y = (p.cumsum(1) > rng.random((2000, 1))).argmax(1)
    assert calibration.fit_temperature(3 * logits, y) == pytest.approx(3.0, rel=0.1)
    assert calibration.fit_temperature(logits, y) == pytest.approx(1.0, rel=0.1)
    right = np.eye(3)[rng.integers(0, 3, 40)] * 5
    sure = calibration.probabilities(right, calibration.fit_temperature(right, right.argmax(1)))
    assert 0.97 < sure.max() < 0.99, "40 right answers of 40 prove no certainty"


def folds(groups: int, **change: Any) -> Calibration:
    rng = np.random.default_rng(3)
    n = groups * 5
    y = rng.integers(0, 2, (n, 1))
    answers = {frozenset(s): rng.standard_normal((n, 1, 2)) + 2 * np.eye(2)[y] for s in (("a", "b"), ("a",), ("b",))}
    known: dict[str, Any] = {
        "task": Task("classify", 2, ("accuracy",)), "modalities": ("a", "b"), "y": y,
        "y_mask": np.ones((n, 1), dtype=bool), "group": np.repeat(np.arange(groups), 5),
        "fold": np.zeros(n, dtype=int), "present": np.ones((n, 2), dtype=bool), "answers": answers,
    }  # fmt: skip
    return Calibration(**{**known, **change})


def test_each_set_of_modalities_is_calibrated_on_the_samples_that_have_it() -> None:
    found, logits = folds(40), np.random.default_rng(4).standard_normal((1, 200, 1, 2))
    alone = found.sets(["a"], logits, 0.9)
    assert alone is not None
    assert not np.array_equal(alone, found.sets(["b"], logits, 0.9))
    present = found.present.copy()
    present[::2, 1] = False
    half = replace(found, present=present)
    np.testing.assert_array_equal(half.sets(["a"], logits, 0.9), alone)
    kept = slice(1, None, 2)
    fewer: dict[str, Any] = {n: getattr(found, n)[kept] for n in ("y", "y_mask", "group", "fold", "present")}
    fewer["answers"] = {shown: a[kept] for shown, a in found.answers.items()}
    np.testing.assert_array_equal(half.sets(["b"], logits, 0.9), folds(40, **fewer).sets(["b"], logits, 0.9))
    assert found.sets([], logits, 0.9) is None


def test_no_sets_below_nineteen_groups() -> None:
    logits = np.zeros((1, 4, 1, 2))
    assert folds(19).refusal() == ""
    assert folds(19).sets(["a"], logits, 0.9) is not None
    assert folds(18).refusal() == "sets and intervals need 19 groups to calibrate on, there are 18"
    assert folds(18).sets(["a"], logits, 0.9) is None


def test_who_abstains_when_unsure_is_right_more_often() -> None:
    points = folds(200).abstention()
    assert [p.share for p in points] == sorted((p.share for p in points), reverse=True)
    assert points[0].share == 1.0
    assert points[-1].share == pytest.approx(0.5, abs=0.01)
    assert points[-1].score > points[0].score + 0.05
    assert points[-1].confidence > points[0].confidence


# ------------------------------------------------------------------------------------------------------------ training


def test_validation_chooses_rate_and_mean_best_step() -> None:
    def fold(*scores: tuple[float, ...], loss: float | None = 1.0) -> Record:
        history = {
            f"{lr:g}": [{"step": 10.0 * (k + 1), "loss": loss, "score": s} for k, s in enumerate(row)]
            for lr, row in zip((1e-3, 3e-3), scores, strict=True)
        }
        run: Any = None
        return Record(run, "done", {}, "", 1, ["accuracy"], history=history)  # type: ignore[arg-type]

    setup: Any = SimpleNamespace(is_estimator=False)
    records = [fold((0.5, 0.6, 0.6), (0.4, 0.4, 0.9)), fold((0.7, 0.7, 0.7), (0.9, 0.1, 0.1))]
    assert fitting.choose(setup, records).settings == {"lr": 3e-3, "steps": 20}  # steps 30 and 10
    with pytest.raises(UsageError, match="no learning rate has a validation score in every fold"):
        fitting.choose(setup, [fold((0.5,), (0.5,), loss=None)])


def test_the_last_training_is_so_many_steps_of_the_recipe_and_no_more(place: SimpleNamespace) -> None:
    setup = harness.setup(str(place.data), "concat", given=FAST)
    everyone = np.arange(len(setup.data))
    choice = fitting.Choice({"lr": 3e-3, "steps": 7}, "")
    (weights,) = fitting.train(setup.trained, setup.recipe, setup.data, choice, [5], torch.device("cpu"))
    member = Member(0, 5, everyone, everyone[:2], 3e-3, setup.recipe.weight_decay, 0.0, setup.recipe.clip)
    program = make_program(setup.trained, [member], setup.data, setup.recipe, torch.device("cpu"))
    for step in range(7):
        program.step(step)
    for name, value in program.weights(0).items():
        assert torch.equal(value, weights[name]), name


def test_the_folds_are_those_of_run_and_are_not_trained_again(place: SimpleNamespace) -> None:
    assert len(list(store.load(place.folder / "results", "mine", "concat"))) == 3
    status, _, err = command("fit", "concat", "mine.npz", "--out", "net", "--no-track", "--train.steps=20",
                             "--train.interval=10", "--train.lr=0.003")  # fmt: skip
    assert status == 0, err
    assert "all 3 runs are on disk" in err


# ---------------------------------------------------------------------------------------------------------- predicting


def test_a_folder_says_all_and_holds_no_pickle_and_no_name(place: SimpleNamespace) -> None:
    for folder in (place.net, place.est):
        assert {p.suffix for p in folder.iterdir()} == {".json", ".safetensors"}
        content = (folder / "model.json").read_text()
        assert "p0-3" not in content, "people are recognised by a hash"
        assert json.loads(content)["format"] == 1
    assert not (place.net / "training.safetensors").exists()
    assert (place.est / "training.safetensors").exists()


@pytest.mark.parametrize("which", ["net", "est"])
def test_a_file_is_answered_line_by_line(place: SimpleNamespace, which: str) -> None:
    np.savez(place.folder / "new.npz", **asked(), id=[f"clip{k}" for k in range(PEOPLE * EACH)])
    status, said, err = command("predict", which, "--input", "new.npz", "--out", "answers.csv")
    assert status == 0, err
    assert err == ""
    assert "sets and intervals hold the truth of 9 in 10 new samples of a new group" in " ".join(said.split())
    assert "not under damage that no mask announces" in " ".join(said.split())
    with open("answers.csv") as file:
        rows = list(csv.DictReader(file))
    assert [r["id"] for r in rows[:2]] == ["clip0", "clip1"]
    predictor = fusionbench.load_model(place.folder / which)
    found = predictor.predict_proba("new.npz")
    assert found.shape == (PEOPLE * EACH, 2)
    np.testing.assert_allclose(found.sum(1), 1)
    assert [r["answer"] for r in rows] == [str(v) for v in predictor.predict("new.npz")]
    assert [float(r["p_1"]) for r in rows] == pytest.approx(found[:, 1], abs=1e-4)
    assert (predictor.predict("new.npz") == people(1)["y"]).mean() > 0.8
    assert {r["missing"] for r in rows} == {"", "eda"}
    assert {r["set"] for r in rows} <= {"", "0", "1", "0|1"}
    truth = np.array([str(y) in r["set"].split("|") for y, r in zip(people(1)["y"], rows, strict=True)])
    assert truth.mean() > 0.8


def test_it_comes_back_as_it_was_fitted(place: SimpleNamespace) -> None:
    for fuser in ("concat", "linear"):
        fresh = fusionbench.fit(
            fuser, str(place.data), place.folder / "again", results=place.folder / "results", given=FAST, track=False
        )
        loaded = fusionbench.load_model(place.folder / "again")
        np.testing.assert_allclose(loaded.predict_proba(asked()), fresh.predict_proba(asked()), atol=1e-6)


def test_whatever_a_user_has_gives_the_same_answers(place: SimpleNamespace) -> None:
    pandas = pytest.importorskip("pandas")
    model = fusionbench.load_model(place.net)
    given = asked()
    wanted = model.predict_proba(given)
    np.savez(place.folder / "same.npz", **given)
    described = {"attribute_sex": np.array(["f", "m"] * len(given["face"]))[: len(given["face"])],
                 "order": np.arange(len(given["face"]))}  # fmt: skip
    np.savez(place.folder / "described.npz", **given, **described)  # whatever a file for training may say of samples
    np.testing.assert_array_equal(model.predict_proba(str(place.folder / "described.npz")), wanted)
    streams = {
        "face": Stream(torch.from_numpy(given["face"]).float(), torch.ones(len(given["face"]), 3, dtype=torch.bool)),
        "eda": Stream(torch.from_numpy(given["eda"]).float()[:, None], torch.from_numpy(given["eda_mask"])[:, None]),
    }
    n = len(given["face"])
    batch = Batch(streams, torch.zeros(n, 1, dtype=torch.long), torch.zeros(n, 1, dtype=torch.bool))
    for data in (str(place.folder / "same.npz"), batch):
        np.testing.assert_array_equal(model.predict_proba(data), wanted)
    holes = given["eda"].copy()
    holes[~given["eda_mask"]] = np.nan
    np.testing.assert_array_equal(model.predict_proba({"face": list(given["face"]), "eda": holes}), wanted)

    alone = model.answers({"eda": given["eda"]})
    assert alone.missing[0] == ("face",)
    frame = pandas.DataFrame(given["eda"], columns=["eda_0", "eda_1", "eda_2"])
    np.testing.assert_array_equal(model.predict_proba(frame), alone.probabilities[:, 0])
    frame = pandas.DataFrame(given["eda"], columns=["x", "y", "z"])
    np.testing.assert_array_equal(
        model.predict_proba(frame, columns={"eda": ["x", "y", "z"]}), alone.probabilities[:, 0]
    )
    frame.rename(columns={"x": "eda_a", "y": "eda_b", "z": "eda_c"}).to_csv(place.folder / "eda.csv", index=False)
    np.testing.assert_allclose(model.predict_proba(str(place.folder / "eda.csv")), alone.probabilities[:, 0], atol=1e-6)
    assert list(alone.to_frame()) == ["id", "answer", "confidence", "p_0", "p_1", "set", "missing"]


def test_people_who_were_in_training_are_named_so(place: SimpleNamespace) -> None:
    model = fusionbench.load_model(place.net)
    with pytest.warns(UserWarning, match=r"24 of 24 groups were in training"):
        model.predict(str(place.data))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict({**asked(), "group": people(1)["group"]})


def test_a_row_is_the_mean_of_its_models(place: SimpleNamespace) -> None:
    results = place.folder / "results"
    row = fusionbench.load_model("mine/concat", results=results, data=str(place.data))
    assert len(row.members) == 3
    setup = harness.setup(str(place.data), "concat", given=FAST)
    read = inputs.read(asked(), row.description.expected)
    batch = Batch(read.streams, torch.zeros(96, 1, dtype=torch.long), torch.zeros(96, 1, dtype=torch.bool))
    by_hand = []
    for record in store.load(results, "mine", "concat"):
        weights = store.weights(results, record.run)
        assert weights is not None
        model = harness.evaluate.load_model(setup, record.run, weights, torch.device("cpu"))
        by_hand.append(torch.from_numpy(harness.evaluate.Network(model).answer(batch)).softmax(-1))
    logits = torch.stack(by_hand).mean(0).log() / row.description.temperature
    np.testing.assert_allclose(row.predict_proba(asked()), logits.softmax(-1)[:, 0], atol=1e-6)
    with pytest.warns(UserWarning, match="were in training"):
        row.predict(str(place.data))
    assert "the mean of 3 models, 3 folds x 1 seed" in row.summary()[0]


def test_values_have_intervals(place: SimpleNamespace) -> None:
    def arrays(seed: int) -> dict[str, Any]:
        rng = np.random.default_rng(seed)
        y = rng.standard_normal((120, 2))
        return {"a": y + 0.3 * rng.standard_normal((120, 2)), "b": y[:, :1] + rng.standard_normal((120, 1)), "y": y}

    data = fusionbench.from_arrays({**arrays(0), "group": np.repeat(np.arange(30), 4)}, name="values")
    model = fusionbench.fit("linear", data, place.folder / "values", results=place.folder / "results", track=False)
    new = arrays(1)
    found = model.answers({"a": new["a"]})
    assert found.intervals is not None
    inside = (found.intervals[:, 0, :, 0] <= new["y"]) & (new["y"] <= found.intervals[:, 0, :, 1])
    assert 0.8 < inside.mean() < 0.99
    assert list(found.rows()[0]) == ["id", "answer_0", "low_0", "high_0", "answer_1", "low_1", "high_1", "missing"]
    assert model.abstention() == []
    with pytest.raises(UsageError, match="answers values here"):
        model.predict_proba({"a": new["a"]})


def test_raw_media_go_through_their_encoder(place: SimpleNamespace) -> None:
    pytest.importorskip("torchvision", reason="the encoder is torchvision's")
    rng = np.random.default_rng(4)
    raw = {"face": rng.random((24, 1, 3, 8, 8)), "eda": rng.standard_normal((24, 3))}
    data = fusionbench.from_arrays({**raw, "y": np.arange(24) % 2, "group": np.arange(24) // 2}, name="pictures")
    given = {**FAST, "backbone.face": {"weights": "random", "size": 8}}
    out = place.folder / "pictures"
    fusionbench.fit(
        "concat", data, out, results=place.folder / "results", backbones={"face": "resnet18"}, given=given, folds=[0],
        track=False,
    )  # fmt: skip
    model = fusionbench.load_model(out)
    setup = harness.setup(data, "concat", {"face": "resnet18"}, given)
    inner = model.members[0].answer(setup.data)  # features of the cache
    np.testing.assert_allclose(
        model.predict_proba(raw),
        calibration.probabilities(inner, model.description.temperature)[:, 0],
        atol=1e-5,
    )
    content = json.loads((out / "model.json").read_text())
    content["modalities"]["face"]["weights"] = "0" * 16
    (out / "model.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match="the weights of resnet18"):
        fusionbench.load_model(out).predict(raw)


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fase": np.zeros((96, 3, 4))}, "no modality of this model is called 'fase'; did you mean face?"),
        ({"face": np.zeros((96, 3, 5))}, "a step of face has 5 values, the model was trained with 4"),
        ({"face": np.zeros((95, 3, 4))}, "samples differ in number: face 95, eda 96"),
        ({"face": np.full((96, 3, 4), np.inf)}, "face of sample 0 (from 0) is infinite"),
        ({"face": np.zeros((0, 3, 4)), "eda": np.zeros((0, 3))}, "a modality is (N, D) or (N, T, D)"),
    ],
)
def test_bad_arrays_are_one_line(place: SimpleNamespace, change: dict[str, Any], message: str) -> None:
    given = {name: value for name, value in asked().items() if name != "eda_mask"}
    with pytest.raises(UsageError) as error:
        fusionbench.load_model(place.net).predict({**given, **change})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predict", "nothing", "-i", "mine.npz"], "fusionbench fit FUSER DATA --out nothing"),
        (["predict", "mine/jmt", "-i", "mine.npz"], "no fuser with records in results/mine is called 'jmt'"),
        (["predict", "home", "-i", "mine.npz"], "home is no model"),
        (["predict", "net", "-i", "none.npz"], "there is no none.npz"),
        (["predict", "net", "-i", "mine.npz", "--coverage", "2"], "a coverage lies from .5 to below 1"),
        (["predict", "broken", "-i", "mine.npz"], "broken is no model that can be read"),
        (["predict", "net", "-i", "watch"], "watch: no modality of this model is called 'acc'"),
        (["fit", "concat", "mine.npz", "--out", "home"], "home is there and is no model"),
        (["fit", "concta", "mine.npz"], "no fuser is called 'concta'; did you mean concat?"),
    ],
)
def test_wrong_usage_is_one_line(place: SimpleNamespace, words: list[str], message: str) -> None:
    broken = place.folder / "broken"
    broken.mkdir(exist_ok=True)
    (broken / "model.json").write_text((place.net / "model.json").read_text())
    (broken / "calibration.safetensors").write_bytes(b"nothing")
    status, _, err = command(*words)
    assert status == 2
    assert message in err
    assert err.strip().count("\n") == 0


def test_a_published_row_says_how_to_train_it(place: SimpleNamespace) -> None:
    results = place.folder / "published"
    for record in store.load(place.folder / "results", "mine", "concat"):
        store.save(results, record, None, None)
    with pytest.raises(UsageError, match=r"3 of 3 runs of mine/concat have left no trained model .* fusionbench run"):
        fusionbench.load_model("mine/concat", results=results, data=str(place.data))


@pytest.mark.parametrize("fuser", ["linear", "concat"])
def test_a_model_of_some_modalities_ignores_the_others(
    fuser: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its settings left out may be in the input, and changes nothing; what nobody knows is refused as ever."""
    monkeypatch.setenv("FUSIONBENCH_HOME", str(tmp_path / "home"))
    np.savez(tmp_path / "mine.npz", **people(0), fold=np.repeat(np.arange(PEOPLE) % 3, EACH))
    given = {**(FAST if fuser == "concat" else {}), "benchmark": {"modalities": "eda"}}
    how: dict[str, Any] = {"results": tmp_path / "results", "given": given, "track": False, "jobs": 1}
    fusionbench.fit(fuser, str(tmp_path / "mine.npz"), tmp_path / "model", **how)
    model = fusionbench.load_model(tmp_path / "model")
    assert model.modalities == ["eda"]
    assert "uses eda alone and ignores face, which an input may have" in model.summary()
    new = asked()
    alone = {name: value for name, value in new.items() if name != "face"}
    first = model.answers(alone)
    for source in (new, {**new, "face": new["face"][:, :, :2] * 1e30}):
        found = model.answers(source)
        assert np.array_equal(found.probabilities, first.probabilities)
        assert found.sets is not None
    lost = ~new["eda_mask"]
    assert {found.missing[i] for i in np.flatnonzero(lost)} == {("eda",)}
    assert found.sets[lost].all()  # nothing is known of them: every class may be
    np.savez(tmp_path / "new.npz", **new)
    assert np.array_equal(model.predict_proba(str(tmp_path / "new.npz")), first.probabilities[:, 0])
    with pytest.raises(UsageError, match="no modality of this model is called 'voice'"):
        model.predict({**new, "voice": new["face"]})
    with pytest.raises(UsageError, match="has no modality of this model: eda"):
        model.predict({"face": new["face"]})

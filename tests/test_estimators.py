"""Fitted in one call and judged like all others: choice on validation, records, later damage, missing modalities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from fusionbench import harness, jobs, registry, search
from fusionbench.api import Batch, Estimator, Spec, Stream, UsageError, summaries, summary_names
from fusionbench.harness.fit import Fitter
from fusionbench.records import Record, store

TOY = {"benchmark": {"people": 6}}


def run(results: Path, conditions: list[str], seeds: tuple[int, ...] = (0,), **given: Any) -> list[Record]:
    setup = harness.setup("toy_xor", "forest", given={**TOY, "fuser": {"trees": 20}, **given})
    plan = jobs.plan_runs(setup, setup.runs([0], list(seeds)), results, conditions)
    return jobs.perform([plan], results, "forest", jobs=1, track=False).records


# --------------------------------------------------------------------------------------------------------- summaries


def test_summaries_are_those_of_numpy_and_scipy_on_the_real_steps() -> None:
    generator = torch.Generator().manual_seed(0)
    x, mask = torch.randn(6, 13, 2, generator=generator), torch.rand(6, 13, generator=generator) > 0.3
    mask[5] = False
    found = summaries(Stream(x, mask), bands=True).numpy()
    names = summary_names(2, bands=True)
    assert found.shape == (6, len(names))
    assert (found[5] == 0).all()
    for row in range(5):
        t = np.flatnonzero(mask[row])
        place = 2 * (t - t[0]) / (t[-1] - t[0]) - 1
        for d in range(2):
            v = x[row, t, d].double().numpy()
            steps = np.diff(v)[np.diff(t) == 1]
            quartiles = np.quantile(v, [0, 0.25, 0.5, 0.75, 1])
            want = [v.mean(), v.std(), *quartiles, stats.linregress(place, v).slope, np.sqrt((steps**2).mean())]
            got = [found[row, names.index(f"{n}.{d}")] for n in
                   ("mean", "sd", "least", "lower", "median", "upper", "greatest", "slope", "change")]  # fmt: skip
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
            power = np.zeros(4)
            for line in range(32):
                turn = np.exp(1j * np.pi * (line + 0.5) / 32 * t)
                power[line // 8] += np.abs(((v - v.mean()) * turn).sum()) ** 2
            bands = [found[row, names.index(f"band{k}.{d}")] for k in range(4)]
            np.testing.assert_allclose(bands, power / power.sum(), atol=1e-4)


@pytest.mark.parametrize(("samples", "channels"), [(5, 3), (1, 4)])
def test_a_step_of_several_samples_is_unrolled(samples: int, channels: int) -> None:
    from fusionbench.fusers._classical import channels_of, unrolled

    wave = torch.randn(8, 40 * samples, channels, generator=torch.Generator().manual_seed(0)).cumsum(1) / 10
    steps = Stream(wave.reshape(8, 40, -1), torch.ones(8, 40, dtype=torch.bool))
    assert channels_of(steps) == channels
    assert torch.equal(unrolled(steps, channels).x, wave)


def test_features_that_have_no_order_are_not_unrolled() -> None:
    from fusionbench.fusers._classical import channels_of

    x = torch.randn(50, 10, 12, generator=torch.Generator().manual_seed(0))
    assert channels_of(Stream(x, torch.ones(50, 10, dtype=torch.bool))) == 12


# ------------------------------------------------------------------------------------------------------- the harness


def test_validation_chooses_from_the_grid_and_the_record_says_so(tmp_path: Path) -> None:
    first, second = run(tmp_path, [], (0, 1))
    assert first.status == "done"
    assert set(first.chosen) == {"leaf", "validation"}
    assert set(first.history) == {"leaf=1", "leaf=4"}
    best = max(entries[0]["score"] for entries in first.history.values())
    assert first.chosen["validation"] == best
    assert second.chosen["leaf"] == first.chosen["leaf"], "chosen once a fold, with its first seed"
    assert first.how == "fitted in one call"
    assert first.parameters["trained"] > 0
    assert first.costs["latency"] > 0  # type: ignore[operator]
    assert set(first.run.backbones.values()) == {"identity"}
    assert set(first.run.hparams["train"]) == {"missing", "quick"}
    assert not list(tmp_path.rglob("*.safetensors"))


def test_of_equal_settings_the_first_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = harness.setup("toy_xor", "forest", given={**TOY, "fuser": {"trees": 20}})
    monkeypatch.setattr(Fitter, "score", lambda self, model, run: 0.5)
    chosen, tried = Fitter(setup, setup.data).choose(setup.run(0, 0))
    assert tried == {"leaf=1": 0.5, "leaf=4": 0.5}
    assert chosen == {"leaf": 1}


def test_a_setting_that_is_not_the_default_is_held(tmp_path: Path) -> None:
    (record,) = run(tmp_path, [], fuser={"trees": 20, "leaf": 3})
    assert set(record.chosen) == {"validation"}
    assert record.run.hparams["fuser"]["leaf"] == 3


def test_a_seed_alone_is_what_it_is_among_others(tmp_path: Path) -> None:
    together = run(tmp_path / "a", [], (0, 1))
    (alone,) = run(tmp_path / "b", [], (1,))
    assert alone.scores == together[1].scores
    assert alone.chosen == together[1].chosen


def test_later_damage_is_met_by_the_same_model_fitted_again(tmp_path: Path) -> None:
    modality = next(iter(registry.load("benchmarks", "toy_xor")().shapes))
    (before,) = run(tmp_path / "a", [])
    (after,) = run(tmp_path / "a", [f"noise:{modality}:3"])
    (whole,) = run(tmp_path / "b", [f"noise:{modality}:3"])
    assert after.created == before.created, "the record has grown: it was not made again"
    assert after.scores == whole.scores
    answers = store.predictions(tmp_path / "a", after.run)
    assert answers is not None
    assert set(answers.answers) == {"clean", f"noise:{modality}:3"}


def test_a_model_that_does_not_come_back_is_fitted_and_judged_anew(tmp_path: Path) -> None:
    modality = next(iter(registry.load("benchmarks", "toy_xor")().shapes))
    (before,) = run(tmp_path, [f"noise:{modality}:1"])
    path = store.path_of(tmp_path, before.run)
    text = path.read_text()
    clean = before.scores["clean"]["accuracy"]
    assert f'"accuracy": {clean}' in text
    path.write_text(text.replace(f'"accuracy": {clean}', '"accuracy": 0.125'))  # another machine's number
    (after,) = run(tmp_path, [f"noise:{modality}:3"])
    assert after.scores["clean"] == before.scores["clean"]
    assert {f"noise:{modality}:1", f"noise:{modality}:3"} <= set(after.scores)


def test_it_is_reproduced(tmp_path: Path) -> None:
    (record,) = run(tmp_path, [])
    assert harness.reproduce(record).scores["clean"] == record.scores["clean"]


def test_test_samples_are_not_looked_at() -> None:
    setup = harness.setup("toy_xor", "forest", given={**TOY, "fuser": {"trees": 20}})
    data = setup.data
    splits = harness.splits_of(setup, data, setup.run(0, 0))
    spoilt = {}
    for m, s in data.streams.items():
        x = s.x.clone()
        x[torch.from_numpy(splits.test)] = torch.nan
        spoilt[m] = Stream(x, s.mask)
    y = data.y.clone()
    y[torch.from_numpy(splits.test)] = 0
    other = Batch(spoilt, y, data.y_mask, data.ids, data.groups)
    val = data[splits.val]
    fitted = [harness.fit(setup.trained, d, splits.train, splits.val, 0) for d in (data, other)]
    np.testing.assert_array_equal(fitted[0].answer(val), fitted[1].answer(val))


def test_a_search_fits_and_prunes(tmp_path: Path) -> None:
    setup = harness.setup("toy_xor", "linear", given=TOY)
    events = list(search.tune(setup, tmp_path, trials=3, folds=[0], inner=2, seeds=1))
    tuned = events[-1]
    assert isinstance(tuned, search.Tuned)
    assert tuned.folds["0"].trials == 3
    assert set(tuned.folds["0"].settings) == {"fuser"}


# --------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"train": {"precision": "bf16"}}, "leave --train.precision out"),
        ({"train": {"modality_dropout": 0.3}}, "--train.missing"),
    ],
)
def test_what_only_a_network_has_is_refused_in_one_line(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as told:
        harness.setup("toy_xor", "forest", given=given)
    assert "\n" not in str(told.value)


def test_pictures_without_an_encoder_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "pictures.py"
    path.write_text(
        '"""Pictures."""\n'
        "from fusionbench.api import Benchmark, Task\n"
        "class Pictures(Benchmark):\n"
        "    shapes = {'face': (3, 8, 8)}\n"
        "    task = Task('classify', 2, ('accuracy',))\n"
        "    def load(self): ...\n"
        "    def splits(self, data, fold): ...\n"
    )
    with pytest.raises(UsageError, match=r"a step of face is 3 x 8 x 8: .*--backbone\.face"):
        harness.setup(str(path), "forest")


def test_training_under_missing_modalities_is_followed() -> None:
    seen = []

    class Looks(Estimator):
        def __init__(self, spec: Spec) -> None:
            super().__init__(spec)

        def fit(self, train: Batch, val: Batch, seed: int) -> None:
            seen.append({m: float(s.present.float().mean()) for m, s in train.streams.items()})
            assert train.groups
            assert set(train.groups) == set(range(len(set(train.groups))))
            assert not train.ids
            assert not set(train.groups) & set(val.groups)

        def predict(self, streams: Any) -> np.ndarray:
            return np.zeros((len(next(iter(streams.values()))), 1, self.spec.out))

    setup = harness.setup("toy_xor", "forest", given=TOY)
    from dataclasses import replace

    plan = replace(setup.trained, fuser=Looks, settings={})
    splits = harness.splits_of(setup, setup.data, setup.run(0, 0))
    first, *_ = setup.benchmark.shapes
    harness.fit(plan, setup.data, splits.train, splits.val, 0, f"{first}=0.5")
    assert 0.3 < seen[0].pop(first) < 0.7
    assert set(seen[0].values()) == {1.0}

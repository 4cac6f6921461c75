"""Set A of the PhysioNet Challenge 2012 is read as published: on a miniature, and on the real files where they are."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fusionbench
from fusionbench import cli, corruptions, registry
from fusionbench.api import Context
from fusionbench.check import report
from fusionbench.errors import UsageError

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "icu2012_set-a.zip"
HEAD = "Time,Parameter,Value\n00:00,RecordID,{record}\n00:00,Age,{age}\n00:00,Gender,1\n00:00,Height,-1\n"
HEAD += "00:00,ICUType,3\n00:00,Weight,80\n"
ONE = """00:37,HR,100
01:52,HR,120
00:52,Temp,-17.8
03:10,HR,60
03:10,Temp,38
47:59,RespRate,21
05:00,Creatinine,2
05:00,Weight,81
"""


@pytest.fixture
def mini(tmp_path: Path) -> Path:
    """Twenty patients; of the first one every number is known, the second one has nothing but demographics."""
    rng = np.random.default_rng(0)
    (tmp_path / "set-a").mkdir()
    outcomes = ["RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death", "139060,0,0,0,0,1"]
    for k in range(20):
        record = 132000 + k
        outcomes.append(f"{record},6,1,5,-1,{k % 2}")
        rows = ONE if k == 0 else ""
        if k > 1:
            for hour in sorted(rng.choice(48, 12, replace=False)):
                for name, value in (("HR", 80), ("Na", 140), ("pH", 7.4), ("GCS", 12), ("MAP", 80)):
                    rows += f"{hour:02d}:15,{name},{value + rng.normal() / 10:.3f}\n"
        (tmp_path / "set-a" / f"{record}.txt").write_text(HEAD.format(record=record, age=50 + k) + rows)
    (tmp_path / "Outcomes-a.txt").write_text("\n".join(outcomes) + "\n")
    return tmp_path


def load(root: Path, **settings: Any) -> Any:
    benchmark = registry.load("benchmarks", "icu2012")(root=str(root), **settings)
    return benchmark, benchmark.load()


def test_patients_and_outcomes(mini: Path) -> None:
    _, batch = load(mini)
    assert batch.ids == batch.groups == [str(132000 + k) for k in range(20)]  # 139060 is left out
    assert batch.y[:, 0].tolist() == [0, 1] * 10


def test_a_step_is_two_hours_and_keeps_its_time(mini: Path) -> None:
    """Hours 0 and 1, 3 and 47: last value, carried forward; what was measured, when, how often; none impossible."""
    _, batch = load(mini)
    vitals = batch.streams["vitals"]
    assert vitals.mask[0].sum() == 3
    x = vitals.x[0, :3]
    assert x[:, 0].tolist() == pytest.approx([1 + 52 / 60, 3 + 10 / 60, 47 + 59 / 60])
    hr, temp, resp = 1, 1 + 7, 1 + 8
    assert x[:, hr].tolist() == [2.0, -1.0, -1.0]  # (120 - 80) / 20, (60 - 80) / 20
    assert x[:, temp].tolist() == [0.0, 1.0, 1.0]  # -17.8 degrees are none
    assert x[:, resp].tolist() == [0.0, 0.0, 1.0]
    flags, counts = x[:, 10:19], x[:, 19:28]
    assert flags[:, 0].tolist() == [1, 1, 0]
    assert flags[:, 7].tolist() == [0, 1, 0]
    assert flags[:, 8].tolist() == [0, 0, 1]
    assert counts[:, 0].tolist() == pytest.approx([math.log(3), math.log(4), math.log(4)])
    assert flags[:, 1:7].abs().sum() == 0
    labs = batch.streams["labs"].x[0, :2]
    assert batch.streams["labs"].mask[0].sum() == 2  # admission, and hours 4 and 5
    assert labs[:, 0].tolist() == [0, 5]
    assert labs[:, 1 + 7].tolist() == pytest.approx([0, math.log(2)])  # creatinine of 2, twice what is normal


def test_demographics_say_what_is_not_known(mini: Path) -> None:
    _, batch = load(mini)
    want = [(50 - 65) / 15, 0.5, 0, 0, 1, 0, 1]  # male, height unknown, 80 kg
    assert batch.streams["demographics"].x[0, 0].tolist() == pytest.approx(want)


def test_subgroups_are_said_and_no_input(mini: Path) -> None:
    """Sex, age band and ward; a copy without wards says none; nothing of it changes the samples."""
    path = mini / "set-a" / "132003.txt"
    before = load(mini)[1]
    said = {name: texts[3] for name, texts in before.attributes.items()}
    assert said == {"sex": "male", "age": "45 to 64", "ward": "medical"}
    path.write_text(path.read_text().replace("Gender,1", "Gender,-1").replace("Age,53", "Age,-1"))
    assert {name: texts[3] for name, texts in load(mini)[1].attributes.items()} == said | {"sex": "", "age": ""}
    for record in (mini / "set-a").iterdir():
        record.write_text(record.read_text().replace("00:00,ICUType,3\n", ""))
    after = load(mini)[1]
    assert list(after.attributes) == ["sex", "age"]
    for m, stream in after.streams.items():
        assert m == "demographics" or torch.equal(stream.x, before.streams[m].x)


def test_scores_by_subgroup(mini: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """From the loader to the table of `leaderboard --by`, AUROC of patients who are one sample each."""
    monkeypatch.setenv("FUSIONBENCH_HOME", str(mini / "home"))
    (mini / "home" / "data").mkdir(parents=True)
    (mini / "home" / "data" / "icu2012").symlink_to(mini)
    for k in range(20):
        path = mini / "set-a" / f"{132000 + k}.txt"
        path.write_text(path.read_text().replace("Gender,1", f"Gender,{k // 2 % 2}"))
    benchmark = registry.load("benchmarks", "icu2012")
    monkeypatch.setattr(benchmark, "seeds", 1)
    monkeypatch.setattr(benchmark, "corruptions", ("missing:labs",))
    results = mini / "results"
    fusionbench.run("linear", "icu2012", results=results, track=False, jobs=1)
    capsys.readouterr()
    monkeypatch.setattr("sys.argv", ["fusionbench", "leaderboard", "--results", str(results), "--by", "sex"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert "female (10)" in (out := capsys.readouterr().out)
    assert "male (10)" in out


def test_never_measured_and_hidden_carry_different_flags(mini: Path) -> None:
    """The second patient has no blood gas: a real step with flags of 0; a condition hides under the mask."""
    benchmark, batch = load(mini)
    gas = batch.streams["gas"]
    assert gas.mask[1].tolist() == [True] + [False] * 24
    assert gas.x[1].abs().sum() == 0
    keys = corruptions.keys("noise", 0, batch.ids, list(batch.streams))
    sd = {m: s.x[s.mask].std(0) + 1 for m, s in batch.streams.items()}
    context = Context(sd, benchmark.rates, {}, benchmark.indicators)
    (hidden,) = corruptions.parse("missing:gas", list(batch.streams))
    assert not hidden[1].apply(batch.streams, 1, keys, context)["gas"].mask.any()
    noisy = corruptions.parse("noise:all:3", list(batch.streams))[0][1].apply(batch.streams, 3, keys, context)
    for m, stream in batch.streams.items():
        values = [c for c in range(stream.x.shape[2]) if c not in benchmark.indicators[m]]
        assert torch.equal(noisy[m].x[..., benchmark.indicators[m]], stream.x[..., benchmark.indicators[m]])
        assert (noisy[m].x[..., values] != stream.x[..., values])[stream.mask].all()


def test_it_passes_the_kit(mini: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSIONBENCH_HOME", str(mini / "home"))
    (mini / "home" / "data").mkdir(parents=True)
    (mini / "home" / "data" / "icu2012").symlink_to(mini)
    (mini / "set-a" / "132001.txt").write_text(HEAD.format(record=132001, age=51) + "01:00,HR,70\n")
    assert (found := report("benchmarks", "icu2012")).ok, found


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("03:10,HR,60", "03:10,HR,sixty", r"132000\.txt, row 11: expected hh:mm,name,number, not '03:10,HR,sixty'"),
        ("03:10,HR,60", "03:10,HR", r"132000\.txt, row 11: expected hh:mm,name,number"),
        ("03:10,HR,60", "63:10,HR,60", r"132000\.txt, row 11: 63:10 is not within 48 hours"),
        ("RecordID,132000", "RecordID,132001", r"132000\.txt: it is not the record 132000"),
    ],
)
def test_bad_records_are_named_or_left_out(mini: Path, old: str, new: str, message: str) -> None:
    path = mini / "set-a" / "132000.txt"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(UsageError, match=message):
        load(mini)
    benchmark, batch = load(mini, skip_bad=True)
    assert len(batch) == 19
    assert len(benchmark.skipped) == 1


def test_bad_outcomes_and_missing_files_are_named(mini: Path) -> None:
    path = mini / "Outcomes-a.txt"
    text = path.read_text()
    path.write_text(text.replace("132003,6,1,5,-1,1", "132003,6,1,5,-1,"))
    with pytest.raises(UsageError, match=r"Outcomes-a\.txt, row 6: RecordID is a number and In-hospital_death 0 or 1"):
        load(mini)
    path.write_text(text)
    (mini / "set-a" / "132003.txt").unlink()
    with pytest.raises(UsageError, match=r"there is no .*132003\.txt"):
        load(mini)
    path.unlink()
    with pytest.raises(UsageError, match=r"there is no .*Outcomes-a\.txt: run `fusionbench data get icu2012`"):
        load(mini)


def test_scikit_learn_reaches_the_reference_points(tmp_path: Path) -> None:
    """Logistic regression on summaries, AUROC over our five folds, within .03 of the points measured beforehand."""
    if not REAL.is_file():
        pytest.skip("the real files are not beside this repository")
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    zipfile.ZipFile(REAL).extractall(tmp_path)
    benchmark, batch = load(tmp_path)
    y = batch.y[:, 0].numpy()
    assert (len(batch), y.mean().round(3)) == (3996, 0.139)
    features, counts = {}, []
    for m, stream in batch.streams.items():
        x, real = stream.x.double().numpy(), stream.mask.numpy()[..., None]
        n = real.sum(1)
        last = x[np.arange(len(x)), n[:, 0] - 1]
        greatest, least = np.where(real, x, -np.inf).max(1), np.where(real, x, np.inf).min(1)
        features[m] = np.concatenate([last, greatest, least, x.sum(1) / n], 1)
        if m != "demographics":
            counts.append(last[:, -((x.shape[2] - 1) // 3) :])
    tables = {**features, "together": np.concatenate(list(features.values()), 1), "counts": np.concatenate(counts, 1)}
    scores: dict[str, list[float]] = {name: [] for name in (*tables, "late")}
    for fold in range(benchmark.folds):
        splits = benchmark.splits(batch, fold)
        train, test = np.concatenate([splits.train, splits.val]), splits.test
        odds = {}
        for name, x in tables.items():
            model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300)).fit(x[train], y[train])
            odds[name] = model.decision_function(x[test])
        odds["late"] = sum(odds[m] for m in features)
        for name, found in odds.items():
            scores[name].append(float(roc_auc_score(y[test], found)))
    got = {name: float(np.mean(found)) for name, found in scores.items()}
    got["best single"] = max(got[m] for m in features)
    for name, point in (("best single", 0.785), ("late", 0.829), ("together", 0.844), ("counts", 0.727)):
        assert abs(got[name] - point) <= 0.03, got

"""Stress-Predict is read as published: on a miniature in the same layout, and on the real files where they are."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fusionbench import registry
from fusionbench.check import report
from fusionbench.errors import UsageError

ARCHIVE = Path(__file__).resolve().parents[2] / "shared" / "data" / "Stress-Predict-Dataset-main.zip"
LABELS = "Processed_data/Improved_All_Combined_hr_rsp_binary.csv"
SECONDS, BEGIN = 200, 1_644_226_000
RATES = {"EDA": (4, 1), "TEMP": (4, 1), "HR": (1, 1), "ACC": (32, 3)}


@pytest.fixture
def mini(tmp_path: Path) -> Path:
    """Six labelled people and one without labels; HR starts 10 s after the others, as the watch does it."""
    rng = np.random.default_rng(0)
    rows = ["Participant,HR,respr,Time(sec),Label"]
    for person in range(1, 8):
        folder = tmp_path / "Raw_data" / f"S{person:02d}"
        folder.mkdir(parents=True)
        for name, (rate, channels) in RATES.items():
            begin = BEGIN + 10 * (name == "HR")
            values = rng.normal(50, 5, ((SECONDS + 12) * rate, channels)).round(2)
            lines = [", ".join([f"{begin:.6f}"] * channels), ", ".join([f"{rate:.6f}"] * channels)]
            (folder / f"{name}.csv").write_text("\n".join([*lines, *(",".join(map(str, v)) for v in values)]) + "\n")
        if person > 1:
            rows += [f"{person},70,,{BEGIN + 9 + t},{int(t >= 95)}" for t in range(SECONDS)]
    (tmp_path / LABELS).parent.mkdir()
    (tmp_path / LABELS).write_text("\n".join(rows) + "\n")
    return tmp_path


def load(name: str, root: Path, **settings: Any) -> Any:
    benchmark = registry.load("benchmarks", name)(root=str(root), **settings)
    return benchmark, benchmark.load()


def test_windows_labels_and_people(mini: Path) -> None:
    benchmark, batch = load("stress_predict", mini)
    assert set(batch.groups) == {f"S{k:02d}" for k in range(2, 8)}  # S01 has no labels
    assert batch.ids[:5] == [f"S02-{k:03d}" for k in range(5)]
    # windows at 0, 30, 60, 90, 120 s; stress from 95 s on: 0, 0, 25, 55 and 60 of 60 seconds
    assert batch.y[:5, 0].tolist() == [0, 0, 0, 1, 1]
    for m, (width,) in benchmark.shapes.items():
        assert tuple(batch.streams[m].x.shape) == (30, 12, width)
        assert batch.streams[m].mask.all()


@pytest.mark.parametrize(("modality", "name", "unit"), [("eda", "EDA", 1.0), ("hr", "HR", 1.0), ("acc", "ACC", 64.0)])
def test_a_step_is_five_seconds_of_the_signal(mini: Path, modality: str, name: str, unit: float) -> None:
    _, batch = load("stress_predict", mini)
    lines = (mini / "Raw_data" / "S04" / f"{name}.csv").read_text().splitlines()
    begin, rate = float(lines[0].split(",")[0]), int(float(lines[1].split(",")[0]))
    signal = [[float(v) / unit for v in line.split(",")] for line in lines[2:]]
    if name == "ACC":
        signal = [[*v, sum(a * a for a in v) ** 0.5] for v in signal]
    window, step = 2, 7
    start = BEGIN + 9 + 30 * window + 5 * step
    inside = [v for i, v in enumerate(signal) if start <= begin + i / rate < start + 5]
    assert len(inside) == 5 * rate
    want: list[float] = []
    columns = list(zip(*inside, strict=True))
    want += [float(np.mean(c)) for c in columns] + [float(np.std(c)) for c in columns]
    want += [float(np.polyfit(np.linspace(-1, 1, len(c)), c, 1)[0]) for c in columns]
    want += [min(c) for c in columns] + [max(c) for c in columns]
    got = batch.streams[modality].x[batch.ids.index(f"S04-{window:03d}"), step]
    assert np.allclose(got.numpy(), want, rtol=1e-5, atol=1e-5)


def test_what_a_sensor_did_not_record_is_masked(mini: Path) -> None:
    path = mini / "Raw_data" / "S03" / "HR.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([f"{BEGIN + 9 + 13:.6f}", *lines[1:-62]]) + "\n")  # 13 s late, 150 s long
    _, batch = load("stress_predict", mini)
    first, last = batch.ids.index("S03-000"), batch.ids.index("S03-004")
    # seconds 0 to 12 are missing: steps 0 and 1, and three of the five seconds of step 2
    assert batch.streams["hr"].mask[first].tolist() == [False] * 3 + [True] * 9
    # the last window runs to second 180, the signal to 163: three of five seconds of step 8 are there
    assert batch.streams["hr"].mask[last].tolist() == [True] * 9 + [False] * 3
    assert torch.isfinite(batch.streams["hr"].x).all()
    assert batch.streams["eda"].mask.all()


def test_the_transductive_variant_scales_each_person_and_says_so(mini: Path) -> None:
    plain, batch = load("stress_predict", mini)
    variant, scaled = load("stress_predict_transductive", mini)
    assert variant.transductive
    assert not plain.transductive
    for m in plain.shapes:
        x = batch.streams[m].x[5:10].flatten(0, 1).double()
        want = (x - x.mean(0)) / x.std(0, correction=0)
        assert torch.allclose(scaled.streams[m].x[5:10].flatten(0, 1).double(), want, atol=1e-3)


def test_both_variants_pass_the_kit(mini: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSIONBENCH_HOME", str(mini / "home"))
    (mini / "home" / "data").mkdir(parents=True)
    (mini / "home" / "data" / "stress_predict").symlink_to(mini)
    for name in ("stress_predict", "stress_predict_transductive"):
        found = report("benchmarks", name)
        assert found.ok, found


def test_a_wrong_folder_names_the_file_and_the_way_out(mini: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"no .*nowhere.*hr_rsp_binary\.csv: run `fusionbench data get stress_predict`"
    ):
        load("stress_predict", tmp_path / "nowhere")
    (mini / "unpacked").mkdir()
    (mini / "Raw_data").rename(mini / "unpacked" / "Raw_data")
    (mini / "Processed_data").rename(mini / "unpacked" / "Processed_data")
    (mini / "unpacked").rename(mini / "Stress-Predict-Dataset-main")
    assert len(load("stress_predict", mini)[1]) == 30  # the folder that holds the unpacked one will do


BAD = [
    (LABELS, "5,70,,", "55,70,,", r"binary\.csv, row 602: unknown participant 55"),
    (LABELS, f"5,70,,{BEGIN + 12},0", f"5,70,,{BEGIN + 12},2", r"binary\.csv, row 605: the label is 2, not 0 or 1"),
    (LABELS, f"5,70,,{BEGIN + 12},0", f"5,70,,{BEGIN + 13},0", r"row 605: S05 is not labelled second after second"),
    (LABELS, f"5,70,,{BEGIN + 12},0", f"5,70,,{BEGIN + 12}", r"binary\.csv, row 605: not a row of numbers"),
    (LABELS, "Label", "Labels", r"row 1: there is no column 'Label'"),
    ("Raw_data/S05/EDA.csv", "4.000000", "8.000000", r"EDA\.csv, row 2: the sampling rate is 4 Hz, not 8"),
    ("Raw_data/S05/EDA.csv", str(BEGIN), str(BEGIN + 900), r"EDA\.csv, row 850: the signal runs from"),
]


@pytest.mark.parametrize(("file", "old", "new", "message"), BAD)
def test_bad_files_are_named_by_row_or_left_out(mini: Path, file: str, old: str, new: str, message: str) -> None:
    text = (mini / file).read_text()
    assert old in text
    (mini / file).write_text(text.replace(old, new, 1))
    with pytest.raises(UsageError, match=message):
        load("stress_predict", mini)


def test_skip_bad_leaves_people_out_and_lists_them(mini: Path) -> None:
    path = mini / "Raw_data" / "S05" / "TEMP.csv"
    lines = path.read_text().splitlines()
    lines[99] = "warm"
    path.write_text("\n".join(lines) + "\n")
    (mini / "Raw_data" / "S06" / "ACC.csv").unlink()
    with pytest.raises(UsageError, match=r"TEMP\.csv, row 100: not a row of numbers"):
        load("stress_predict", mini)
    benchmark, batch = load("stress_predict", mini, skip_bad=True)
    assert set(batch.groups) == {"S02", "S03", "S04", "S07"}
    assert [("TEMP" in text, "ACC" in text) for text in benchmark.skipped] == [(True, False), (False, True)]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not ARCHIVE.is_file():
        pytest.skip("the real archive is not beside this repository")
    folder = tmp_path_factory.mktemp("stress_predict")
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(folder, [n for n in archive.namelist() if not n.endswith(("BVP.csv", "IBI.csv"))])
    return folder


def test_scikit_learn_reaches_the_reference_points(real: Path) -> None:
    """Balanced logistic regression on mean and SD over the steps, within .04 of the points measured beforehand."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    benchmark, batch = load("stress_predict_transductive", real)
    assert (len(batch), len(set(batch.groups))) == (3697, 34)
    assert float(batch.y.float().mean()) == pytest.approx(0.331, abs=0.001)
    y = batch.y[:, 0].numpy()
    features = {m: torch.cat([s.x.mean(1), s.x.std(1, correction=0)], 1).numpy() for m, s in batch.streams.items()}
    features["early"] = np.concatenate(list(features.values()), 1)
    answers = {name: np.zeros(len(y)) for name in features}
    scores: dict[str, list[float]] = {name: [] for name in features}
    for fold in range(benchmark.folds):
        splits = benchmark.splits(batch, fold)
        train = np.concatenate([splits.train, splits.val])
        for name, x in features.items():
            model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=200))
            answers[name][splits.test] = model.fit(x[train], y[train]).predict_proba(x[splits.test])[:, 1]
            scores[name].append(f1_score(y[splits.test], answers[name][splits.test] > 0.5, average="macro"))
    got = {name: float(np.mean(values)) for name, values in scores.items()}
    got["late"] = f1_score(y, np.mean([answers[m] for m in batch.streams], 0) > 0.5, average="macro")
    for name, low, high in (
        ("eda", 0.65, 0.65),
        ("temp", 0.57, 0.57),
        ("hr", 0.62, 0.62),
        ("acc", 0.58, 0.58),
        ("early", 0.73, 0.75),
        ("late", 0.69, 0.72),
    ):
        assert low - 0.04 <= got[name] <= high + 0.04, (name, got)

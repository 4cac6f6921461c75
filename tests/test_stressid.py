"""StressID's feature tables are read as published: on a miniature in the same layout, and on the real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fusionbench import registry
from fusionbench.check import report
from fusionbench.errors import UsageError

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "stressid"
TASKS = ["Breathing", "Counting1", "Counting2", "Counting3", "Math", "Reading", "Relax", "Speaking", "Stroop"]
TASKS += ["Video1", "Video2"]
TALKING = {"Counting1", "Counting2", "Counting3", "Math", "Reading", "Speaking", "Stroop"}
TABLES = {
    "ecg": ("ecg_features.csv", 46),
    "eda": ("eda_features.csv", 24),
    "resp": ("resp_features.csv", 62),
    "face": ("video11tasks_aus_gaze_mean_std.csv", 84),
    "voice": ("HCfeatures.csv", 140),
}


@pytest.fixture
def mini(tmp_path: Path) -> Path:
    """Six people; p0 was never filmed, p1's EDA of Math is lost, the voice only when they talk."""
    rng = np.random.default_rng(0)
    people = [f"p{k}" for k in range(6)]
    for m, (file, width) in TABLES.items():
        rows = [] if m == "voice" else [",".join(["", *(f"f{k}" for k in range(width))])]
        for person in people:
            for task in (*TASKS, "Baseline"):
                gone = {
                    "face": person == "p0" or task == "Baseline",
                    "eda": (person, task) == ("p1", "Math"),
                    "voice": task not in TALKING,
                }
                if not gone.get(m):
                    name = f"{person}_{task}" + (".wav" if m == "voice" else "")
                    rows.append(",".join([name, *map(str, rng.normal(0, 1000, width))]))
        (tmp_path / file).write_text("\n".join(rows) + "\n")
    protocol = [f"{p}_{t}.wav,{2 * (t == 'Math')},{int(t == 'Math')}" for p in people for t in ("Relax", "Math")]
    (tmp_path / "protocol.txt").write_text("\n".join(protocol) + "\n")
    return tmp_path


def load(root: Path, **settings: Any) -> Any:
    benchmark = registry.load("benchmarks", "stressid")(root=str(root), **settings)
    return benchmark, benchmark.load()


def test_tasks_people_and_what_is_really_missing(mini: Path) -> None:
    benchmark, batch = load(mini)
    assert len(batch) == 66
    assert list(batch.streams) == ["ecg", "eda", "resp", "face"]
    assert benchmark.task.out == 11
    for name, label, group in zip(batch.ids, batch.y[:, 0].tolist(), batch.groups, strict=True):
        assert name == f"{group}_{TASKS[label]}"
    face = {name for name, there in zip(batch.ids, batch.streams["face"].present.tolist(), strict=True) if not there}
    eda = {name for name, there in zip(batch.ids, batch.streams["eda"].present.tolist(), strict=True) if not there}
    assert face == {f"p0_{task}" for task in TASKS}
    assert eda == {"p1_Math"}
    assert batch.streams["ecg"].mask.all()


def test_values_stand_where_their_row_says(mini: Path) -> None:
    _, batch = load(mini, voice=True)
    for m, (file, _) in TABLES.items():
        line = next(row for row in (mini / file).read_text().splitlines() if row.startswith("p3_Math"))
        raw = np.array([float(cell) for cell in line.split(",")[1:]])
        want = raw if m == "face" else np.sign(raw) * np.log(1 + np.abs(raw))
        got = batch.streams[m].x[batch.ids.index("p3_Math"), 0].numpy()
        assert np.allclose(got, want, rtol=1e-5)


def test_the_voice_is_off_unless_asked_for(mini: Path) -> None:
    """Its absence alone tells talking from silent tasks."""
    benchmark, batch = load(mini, voice=True)
    talks = [name.split("_")[1] in TALKING for name in batch.ids]
    assert batch.streams["voice"].present.tolist() == talks
    assert "voice" not in registry.load("benchmarks", "stressid")().shapes
    assert benchmark.shapes["voice"] == (140,)


def test_self_reported_stress(mini: Path) -> None:
    benchmark, batch = load(mini, labels="stress")
    assert (len(batch), benchmark.task.out) == (12, 2)
    assert {name.split("_")[1] for name, y in zip(batch.ids, batch.y[:, 0].tolist(), strict=True) if y} == {"Math"}


def test_it_passes_the_kit(mini: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSIONBENCH_HOME", str(mini / "home"))
    (mini / "home" / "data").mkdir(parents=True)
    (mini / "home" / "data" / "stressid").symlink_to(mini)
    found = report("benchmarks", "stressid")
    assert found.ok, found


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("ecg_features.csv", "p0_Math,", "p0_Maths,", r"ecg_features\.csv, row 6: 'p0_Maths' is not a person"),
        ("ecg_features.csv", "p0_Math,", "p0_Relax,", r"ecg_features\.csv, row 8: p0_Relax stands there twice"),
        ("eda_features.csv", "p0_Math,", "p0_Math,0,", r"eda_features\.csv, row 6: 25 features, expected 24"),
        ("resp_features.csv", "p0_Math,", "p0_Math,x", r"resp_features\.csv, row 6: not a row of numbers"),
        ("HCfeatures.csv", "p0_Math.wav,", "p0_Math.wav,nan\n,", r"HCfeatures\.csv, row 4: 1 features"),
        ("protocol.txt", "p1_Math.wav,2,1", "p1_Math.wav,2,3", r"protocol\.txt, row 4: .* 0 or 1, not p1_Math"),
    ],
)
def test_bad_rows_are_named(mini: Path, file: str, old: str, new: str, message: str) -> None:
    text = (mini / file).read_text()
    assert old in text
    (mini / file).write_text(text.replace(old, new))
    with pytest.raises(UsageError, match=message):
        load(mini, voice=True, labels="stress" if file == "protocol.txt" else "task")


def test_skip_bad_leaves_samples_out_and_lists_them(mini: Path) -> None:
    path = mini / "eda_features.csv"
    path.write_text(path.read_text().replace("p0_Math,", "p0_Math,x").replace("p3_Relax,", "p3_Relux,"))
    benchmark, batch = load(mini, skip_bad=True)
    assert len(batch) == 65, "p0_Math is left out; without its row, p3_Relax lacks its EDA"
    assert "p0_Math" not in batch.ids
    assert not batch.streams["eda"].present[batch.ids.index("p3_Relax")]
    assert [("p0" in text, "p3_Relux" in text, "row" in text) for text in benchmark.skipped] == [
        (False, False, True), (False, True, True),
    ]  # fmt: skip


def test_a_wrong_folder_names_the_file(mini: Path) -> None:
    (mini / "resp_features.csv").unlink()
    with pytest.raises(UsageError, match=r"there is no .*resp_features\.csv: `fusionbench data get stressid`"):
        load(mini)


def test_scikit_learn_reaches_the_reference_points() -> None:
    """Random forests on the filmed rows, within .04 of the points measured beforehand."""
    if not REAL.is_dir():
        pytest.skip("the real tables are not beside this repository")
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.metrics import f1_score

    benchmark, batch = load(REAL)
    assert (len(batch), len(set(batch.groups))) == (713, 65)
    assert int(batch.streams["face"].present.sum()) == 603
    batch = batch[torch.nonzero(batch.streams["face"].present).flatten()]
    y = batch.y[:, 0].numpy()
    x = {m: s.x[:, 0].numpy() for m, s in batch.streams.items()}
    sets = {"physiology": np.concatenate([x["ecg"], x["eda"], x["resp"]], 1), "face": x["face"]}
    sets["early"] = np.concatenate(list(sets.values()), 1)
    chances = {name: np.zeros((len(y), 11)) for name in sets}
    for fold in range(benchmark.folds):
        splits = benchmark.splits(batch, fold)
        train = np.concatenate([splits.train, splits.val])
        for name, features in sets.items():
            forest = RandomForestClassifier(150, random_state=0).fit(features[train], y[train])
            chances[name][splits.test] = forest.predict_proba(features[splits.test])
    chances["late"] = chances["physiology"] + chances["face"]
    got = {name: f1_score(y, p.argmax(1), average="macro") for name, p in chances.items()}
    for name, point in (("physiology", 0.47), ("face", 0.26), ("early", 0.53), ("late", 0.52)):
        assert abs(got[name] - point) <= 0.04, got

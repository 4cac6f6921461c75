"""Somebody's own files become a benchmark, or are told by file and row what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fusionbench import custom_data, harness, registry
from fusionbench import data as public
from fusionbench.check import report
from fusionbench.custom_data import files
from fusionbench.errors import UsageError

N, PEOPLE = 60, 10


def arrays(**changes: Any) -> dict[str, Any]:
    """Two modalities of 60 samples of 10 people, three classes; a change of None leaves an array out."""
    rng = np.random.default_rng(0)
    y = np.arange(N) % 3
    face = rng.standard_normal((N, 6, 4)) + y[:, None, None]
    eda = rng.standard_normal((N, 2)) - y[:, None]
    people = np.array([f"p{i // (N // PEOPLE)}" for i in range(N)])
    found = {"face": face, "eda": eda, "y": y, "group": people, **changes}
    return {name: value for name, value in found.items() if value is not None}


def npz(folder: Path, **changes: Any) -> Path:
    np.savez(folder / "mine.npz", **arrays(**changes))
    return folder / "mine.npz"


def write(path: Path, header: str, *rows: Any) -> None:
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")


def test_an_npz_becomes_a_benchmark(tmp_path: Path) -> None:
    given = arrays()
    maker = custom_data.load(npz(tmp_path))
    benchmark = maker()
    batch = benchmark.load()
    assert maker.origin == (tmp_path / "mine.npz").resolve()
    assert benchmark.shapes == {"face": (4,), "eda": (2,)}
    assert (benchmark.task.kind, benchmark.task.out, benchmark.folds) == ("classify", 3, 5)
    assert not benchmark.subject_dependent
    assert torch.equal(batch.streams["face"].x, torch.from_numpy(given["face"]).float())
    assert batch.streams["eda"].x.shape == (N, 1, 2)
    assert batch.y[:, 0].tolist() == given["y"].tolist()
    assert list(batch.groups) == given["group"].tolist()
    assert batch.y_mask.all()
    assert registry.is_own(str(tmp_path / "mine.npz"))
    assert not registry.is_own("watch")


def test_it_passes_the_conformance_kit(tmp_path: Path) -> None:
    found = report("benchmarks", custom_data.load(npz(tmp_path)))
    assert found.ok, found


def test_masks_and_nan_are_one_thing(tmp_path: Path) -> None:
    given = arrays()
    given["face"][3, 2, 1] = np.nan
    face_mask = np.ones((N, 6), dtype=bool)
    face_mask[5, 4:] = False
    given["face"][5, 4:] = np.inf  # under the mask: nobody minds
    eda_mask = np.arange(N) % 4 > 0
    maker = custom_data.load(npz(tmp_path, face=given["face"], face_mask=face_mask, eda_mask=eda_mask))
    streams = maker().load().streams
    want = face_mask.copy()
    want[3, 2] = False
    assert streams["face"].mask.numpy().tolist() == want.tolist()
    assert streams["eda"].mask[:, 0].numpy().tolist() == eda_mask.tolist()
    assert torch.isfinite(streams["face"].x).all()
    assert any("1 of 358 steps have NaN" in note for note in maker.notes)


@pytest.mark.parametrize(
    ("y", "kind", "out", "shape", "per_frame"),
    [
        (np.arange(N) % 3, "classify", 3, (N, 1), False),
        ((np.arange(N) % 2).astype(bool), "classify", 2, (N, 1), False),
        (np.array(["rest", "stress"] * 30), "classify", 2, (N, 1), False),
        (np.linspace(0, 1, N), "regress", 1, (N, 1, 1), False),
        (np.ones((N, 2)) * np.linspace(0, 1, N)[:, None], "regress", 2, (N, 1, 2), False),
        (np.arange(N * 6).reshape(N, 6) % 3, "classify", 3, (N, 6), True),
        (np.linspace(0, 1, N * 6).reshape(N, 6), "regress", 1, (N, 6, 1), True),
        (np.linspace(0, 1, N * 12).reshape(N, 6, 2), "regress", 2, (N, 6, 2), True),
    ],
)
def test_the_task_follows_from_the_labels(
    tmp_path: Path, y: Any, kind: str, out: int, shape: tuple[int, ...], per_frame: bool
) -> None:
    maker = custom_data.load(npz(tmp_path, y=y, eda=None))
    task, labels = maker().task, maker().load().y
    assert (task.kind, task.out, task.per_frame) == (kind, out, per_frame)
    assert tuple(labels.shape) == shape
    if y.dtype.kind == "U":
        assert labels[:, 0].tolist() == [0, 1] * 30
        assert maker.classes == ("rest", "stress")
    else:
        assert np.allclose(labels.numpy().reshape(y.shape), y)


def test_unlabelled_samples_are_masked(tmp_path: Path) -> None:
    y = np.linspace(0, 1, N)
    y[7] = np.nan
    batch = custom_data.load(npz(tmp_path, y=y, y_mask=np.arange(N) != 9))().load()
    assert np.flatnonzero(~batch.y_mask[:, 0].numpy()).tolist() == [7, 9]
    assert torch.isfinite(batch.y).all()


def test_folds_and_sides_are_taken_as_given(tmp_path: Path) -> None:
    person = np.arange(N) // 6
    benchmark = custom_data.load(npz(tmp_path, fold=person % 4))()
    assert benchmark.folds == 4
    splits = benchmark.splits(benchmark.load(), 3)
    assert set(person[splits.test] % 4) == {3}
    assert set(person[splits.val] % 4) == {0}
    assert set(person[splits.train] % 4) == {1, 2}

    side = np.where(person < 2, "test", np.where(person < 4, "dev", "train"))
    benchmark = custom_data.load(npz(tmp_path, split=side))()
    splits = benchmark.splits(benchmark.load(), 0)
    assert (benchmark.folds, set(person[splits.test]), set(person[splits.val])) == (1, {0, 1}, {2, 3})

    benchmark = custom_data.load(npz(tmp_path, split=np.where(person < 2, "test", "train")))()
    splits = benchmark.splits(benchmark.load(), 0)
    assert set(person[splits.test]) == {0, 1}
    assert len(splits.val) > 0
    assert not set(person[splits.val]) & (set(person[splits.train]) | {0, 1})


def test_what_leaks_says_so_itself(tmp_path: Path) -> None:
    assert "no groups" in custom_data.load(npz(tmp_path, group=None))().subject_dependent
    assert "'p0' stands in two" in custom_data.load(npz(tmp_path, fold=np.arange(N) % 4))().subject_dependent


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no label": ({"y": None}, r"no array 'y'"),
    "no modality": ({"face": None, "eda": None}, "no modality"),
    "rows": ({"eda": np.zeros((N - 1, 2))}, "eda has 59 rows, the labels"),
    "one axis": ({"eda": np.arange(N * 1.0)}, r"eda is \(60,\).*try eda\[:, None\]"),
    "text": ({"eda": np.array([["a", "b"]] * N)}, "eda holds <U1"),
    "pickle": ({"eda": np.array([[{}]] * N, dtype=object)}, "never unpickled"),
    "infinity": ({"eda": np.where(np.arange(N * 2).reshape(N, 2) == 9, np.inf, 1.0)}, "eda of sample 4.*infinity"),
    "dead": ({"eda": np.array([[0.5, np.nan]] * N)}, "column 1 .* of eda is NaN in every sample"),
    "absent": ({"eda_mask": np.zeros(N)}, "eda is missing in every sample"),
    "mask": ({"face_mask": np.ones((N, 5))}, r"face_mask is \(60, 5\), face has \(N, T\) = \(60, 6\)"),
    "odd mask": ({"eda_mask": np.arange(N)}, r"row 2 \(from 0\): eda_mask is true or false"),
    "negative": ({"y": np.where(np.arange(N) == 8, -1, np.arange(N) % 3)}, r"sample 8 .* has the label -1.*y_mask"),
    "one class": ({"y": np.zeros(N, dtype=int)}, "always 0"),
    "values": ({"y": np.arange(N)}, "60 different"),
    "infinite": ({"y": np.where(np.arange(N) == 4, np.inf, 0.1)}, "label of sample 4 .* is infinite"),
    "folds": ({"fold": np.arange(N) % 2}, "at least three"),
    "split": ({"split": np.array(["train", "tset"] * 30)}, "sample 1 .* 'tset'"),
    "no test": ({"split": np.array(["train"] * N)}, "no sample's split is test"),
    "ids": ({"id": np.array(["a"] * N)}, "60 samples have the id 'a'"),
    "people": ({"group": np.array(["a", "b"] * 30)}, "2 groups"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_npz_is_told_what_is_wrong(tmp_path: Path, name: str) -> None:
    changes, message = BAD[name]
    with pytest.raises(UsageError, match=message) as caught:
        custom_data.load(npz(tmp_path, **changes))
    assert "mine.npz" in str(caught.value)
    with pytest.raises(UsageError, match=message):
        public.check(str(tmp_path / "mine.npz"))


def test_a_damaged_npz_is_one_line(tmp_path: Path) -> None:
    path = npz(tmp_path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UsageError, match=r"mine\.npz is no valid \.npz file"):
        custom_data.load(path)
    with pytest.raises(UsageError, match="there is no"):
        custom_data.load(tmp_path / "nobody.npz")


def long_format(folder: Path) -> None:
    """Six people, two clips each; EDA in a table of steps, voice in one of clips, which lacks the last."""
    rng = np.random.default_rng(1)
    clips = [(f"c{i:02d}", f"p{i // 2}", ["rest", "stress"][i % 2]) for i in range(12)]
    write(folder / "clips.csv", "clip,person,state", *clips)
    steps = [(c, t, rng.normal(), rng.normal()) for k, (c, *_) in enumerate(clips) for t in reversed(range(2 + k % 3))]
    write(folder / "eda.csv", "clip,t,mean,slope", *steps)
    write(folder / "voice.csv", "clip,pitch,note", *[(c, rng.normal(), 1) for c, *_ in clips[:-1]])
    (folder / "benchmark.toml").write_text(
        'file = "clips.csv"\nid = "clip"\nlabel = "state"\ngroup = "person"\ntime = "t"\nfolds = 3\n'
        'metrics = ["accuracy"]\nsteps = 50\n'
        '[modalities.eda]\nfile = "eda.csv"\nrate = 4\nbackbone = "gru"\n'
        '[modalities.voice]\nfile = "voice.csv"\ncolumns = ["pit*"]\n'
    )


def test_a_folder_of_tables(tmp_path: Path) -> None:
    long_format(tmp_path)
    assert registry.is_own(str(tmp_path))
    benchmark = custom_data.load(tmp_path)()
    batch = benchmark.load()
    assert benchmark.shapes == {"eda": (2,), "voice": (1,)}
    assert (benchmark.folds, benchmark.steps, benchmark.task.metrics) == (3, 50, ("accuracy",))
    assert benchmark.rates == {"eda": 4.0}
    assert benchmark.backbones["eda"] == ("gru", {})
    assert list(batch.ids) == [f"c{i:02d}" for i in range(12)]
    assert batch.y[:, 0].tolist() == [0, 1] * 6
    assert batch.streams["eda"].mask.sum(1).tolist() == [2, 3, 4] * 4
    assert batch.streams["voice"].present.tolist() == [True] * 11 + [False]
    rows = [line.split(",") for line in (tmp_path / "eda.csv").read_text().splitlines()[1:]]
    first = sorted((row for row in rows if row[0] == "c01"), key=lambda row: int(row[1]))
    assert np.allclose(batch.streams["eda"].x[1, :3].numpy(), [[float(a), float(b)] for *_, a, b in first])
    assert report(
        "benchmarks", custom_data.load(tmp_path), only=["same_twice", "shapes", "finite", "disjoint_groups"]
    ).ok


def test_a_folder_of_arrays_and_parquet(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    import pyarrow

    given = arrays()
    table = {"y": given["y"], "group": given["group"], "a": given["eda"][:, 0], "b": given["eda"][:, 1]}
    parquet.write_table(pyarrow.table(table), tmp_path / "rows.parquet")
    np.save(tmp_path / "face.npy", given["face"])
    (tmp_path / "benchmark.toml").write_text(
        'file = "rows.parquet"\n[modalities.face]\nfile = "face.npy"\n[modalities.eda]\ncolumns = ["a", "b"]\n'
    )
    from_folder, from_npz = custom_data.load(tmp_path)().load(), custom_data.load(npz(tmp_path))().load()
    for m in ("face", "eda"):
        assert torch.equal(from_folder.streams[m].x, from_npz.streams[m].x)
    assert torch.equal(from_folder.y, from_npz.y)


def test_labels_every_frame_in_a_table(tmp_path: Path) -> None:
    frames = [(f"v{v}", f"p{v}", t, v + t / 10) for v in range(4) for t in range(3 + v)]
    write(tmp_path / "frames.csv", "id,group,time,valence", *[(i, g, t, "" if t == 1 else y) for i, g, t, y in frames])
    write(tmp_path / "face.csv", "id,time,au1", *[(i, t, y * 2) for i, _, t, y in frames])
    (tmp_path / "benchmark.toml").write_text(
        'file = "frames.csv"\nlabel = "valence"\nper_frame = true\ntask = "regress"\nfolds = 3\n'
        '[modalities.face]\nfile = "face.csv"\n'
    )
    benchmark = custom_data.load(tmp_path)()
    batch = benchmark.load()
    assert benchmark.task.per_frame
    assert tuple(batch.y.shape) == (4, 6, 1)
    assert batch.y_mask[0].tolist() == [True, False, True, False, False, False]
    assert batch.y[3, 5, 0].item() == pytest.approx(3.5)
    assert batch.streams["face"].mask.sum(1).tolist() == [3, 4, 5, 6]


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("benchmark.toml", "folds = 3", "fold_count = 3", r"no setting is called 'fold_count'"),
        ("benchmark.toml", "folds = 3", 'folds = "3"', "folds cannot be '3'"),
        ("benchmark.toml", "folds = 3", "folds = 30", "30 folds of 6 groups"),
        ("benchmark.toml", 'label = "state"', 'label = "stat"', r"column for label.*did you mean state"),
        ("benchmark.toml", 'label = "state"\n', "", r"clips\.csv has no column 'y'"),
        ("benchmark.toml", '"pit*"', '"pich"', r"voice\.csv: .*did you mean pitch"),
        ("benchmark.toml", '"voice.csv"', '"speech.csv"', r"there is no .*speech\.csv"),
        ("benchmark.toml", '["accuracy"]', '["ccc"]', "metric ccc is not for"),
        ("benchmark.toml", 'id = "clip"', 'id = "clip', r"benchmark\.toml: "),
        ("voice.csv", "c03,", "zzz,", r"voice\.csv, row 5: unknown clip 'zzz'"),
        ("voice.csv", "c03,", "c03,high", r"voice\.csv, row 5: pitch is 'high.*not a number"),
        ("clips.csv", "c03,p1,stress", "c03,p1", r"clips\.csv, row 5: 2 cells, the header has 3"),
        ("clips.csv", "c03,p1", "c03,", r"sample 3 .* empty group"),
    ],
)
def test_a_bad_folder_is_told_file_and_row(tmp_path: Path, file: str, old: str, new: str, message: str) -> None:
    long_format(tmp_path)
    path = tmp_path / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UsageError, match=message) as caught:
        custom_data.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_parquet_without_pyarrow_names_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(UsageError, match="pip install pyarrow"):
        files.read(tmp_path / "t.parquet")


def test_check_reports_what_it_found(tmp_path: Path) -> None:
    face = arrays()["face"]
    face[..., 3] = 7.0
    face[30], face[0] = face[1], np.nan  # of two people
    eda = arrays()["eda"]
    eda[30] = eda[1]
    lines = "\n".join(public.check(str(npz(tmp_path, face=face, eda=eda, eda_mask=np.arange(N) % 4 > 0))))
    assert "60 samples of 10 groups (6 to 6 each), 5 folds" in lines
    assert "task: classify, 3 classes a sample; ranked by macro_f1" in lines
    assert "eda: 1 steps of (2,); missing in 25.0% of the samples" in lines
    assert "labels: 0 33%, 1 33%, 2 33%; 0.0% without a label" in lines
    assert "note: face: 6 of 360 steps have NaN" in lines
    assert "note: face: 1 constant column (from 0): 3" in lines
    assert "note: 1 samples have the same values as another one" in lines
    assert "over again" in lines  # the duplicate stands on two sides of some split
    assert lines.endswith("1 thing is wrong")


def test_check_finds_a_person_in_two_splits(tmp_path: Path) -> None:
    split = np.where(np.arange(N) % 6 == 0, "test", np.where(np.arange(N) >= 54, "val", "train"))
    lines = public.check(str(npz(tmp_path, split=split)))
    assert [line for line in lines if line.startswith("wrong: ")] == [
        "wrong: leak: group 'p0' and 8 more in train and in test (fold 0)",
        "wrong: leak: group 'p9' in val and in test (fold 0)",
    ]


def test_check_of_sound_data_finds_nothing(tmp_path: Path) -> None:
    assert public.check(str(npz(tmp_path)))[-1] == "nothing is wrong"
    assert public.check("toy_xor")[-1] == "nothing is wrong"
    with pytest.raises(UsageError, match="no benchmark is called 'toy_xr'; did you mean toy_xor"):
        public.check("toy_xr")


def test_the_worked_example_prints_what_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "your-own-data.md").read_text()
    monkeypatch.chdir(tmp_path)
    exec(page.split("```python\n")[1].split("```")[0], {})
    assert "\n".join(public.check("my.npz")) in page


def test_a_fuser_learns_on_ones_own_npz(tmp_path: Path) -> None:
    """Straight through the engine: better than chance on people that it has not seen."""
    from fusionbench import engine, registry
    from fusionbench.engine import Member, Recipe
    from fusionbench.engine.model import Blueprint

    benchmark = custom_data.load(npz(tmp_path))()
    batch = benchmark.load()
    splits = benchmark.splits(batch, 0)
    identity = registry.load("backbones", "identity")
    blueprint = Blueprint(
        benchmark.task,
        benchmark.shapes,
        registry.load("fusers", "concat"),
        {},
        {m: (identity, {}) for m in batch.streams},
    )
    recipe = Recipe(steps=40, interval=40, batch=32)
    members = [Member(0, 0, splits.train, splits.val, 1e-3, 0.0, 0.0, 1.0)]
    trained = [e for e in engine.train(blueprint, members, batch, recipe) if hasattr(e, "weights")]
    assert len(trained) == 1
    assert trained[0].error is None
    assert trained[0].score > 0.6


def test_fewer_modalities_are_as_if_the_file_had_no_others(tmp_path: Path) -> None:
    """Shapes, encodings, damage and the hash of the data; groups stay, and samples with nothing of what is left."""
    (tmp_path / "eda").mkdir()
    face = arrays()["face"]
    mask = np.ones(len(face), dtype=bool)
    mask[:9] = False  # a whole person and half of another
    whole = npz(tmp_path, eda_mask=mask)
    alone = npz(tmp_path / "eda", face=None, eda_mask=mask)
    chosen = harness.setup(str(whole), "concat", given={"benchmark": {"modalities": "eda"}})
    lone = harness.setup(str(alone), "concat")
    assert chosen.digest == lone.digest != harness.setup(str(whole), "concat").digest
    assert chosen.data.streams.keys() == {"eda"}
    assert len(set(chosen.data.groups)) == PEOPLE
    assert len(chosen.data) == N
    for name in ("shapes", "rates", "backbones", "corruptions", "folds", "task"):
        assert getattr(chosen.benchmark, name) == getattr(lone.benchmark, name), name
    assert chosen.benchmark.unused == ("face",)
    assert chosen.run(0, 0).id != harness.setup(str(whole), "concat").run(0, 0).id
    assert "modalities" not in harness.setup(str(whole), "concat").hparams["benchmark"]  # runs of before keep their ids
    maker = custom_data.load(whole)
    assert maker(modalities=("eda", "face")).shapes == maker().shapes
    with pytest.raises(UsageError, match=r"no modality of mine\.npz is called 'fce'; did you mean face"):
        maker(modalities=("fce",))
    with pytest.raises(UsageError, match="eda is named twice"):
        maker(modalities=("eda", "eda"))


def test_fewer_modalities_keep_the_damage_that_was_asked_for_of_them(tmp_path: Path) -> None:
    np.savez(tmp_path / "arrays.npz", **arrays(voice=arrays()["eda"]))
    told = ["missing:face", "missing:face+eda", "noise:voice:3", "noise:all", "gap:eda"]
    (tmp_path / "benchmark.toml").write_text(f"corruptions = {told}\n")
    maker = custom_data.load(tmp_path)
    assert list(maker(modalities=("face", "eda")).corruptions) == ["missing:face", "noise:all", "gap:eda"]
    assert list(maker(modalities=("face",)).corruptions) == ["noise:all"]
    assert list(maker().corruptions) == told

"""The exhibits are read as published, on miniatures and on real files where they are, and show what they are for."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from fusionbench import registry
from fusionbench.check import report
from fusionbench.errors import UsageError

REAL = Path(__file__).resolve().parents[2] / "shared" / "data"


def load(name: str, root: Path, **settings: Any) -> Any:
    benchmark = registry.load("benchmarks", name)(root=str(root), **settings)
    return benchmark, benchmark.load()


def social_anxiety(root: Path) -> None:
    rng = np.random.default_rng(0)
    for person in range(1, 13):
        (root / str(person)).mkdir()
        rest = 95 + person  # rows: the class changes within a window
        rows = [",0,1,2,3"]
        for k in range(220):
            values = rng.normal([80 + person, 32, 0.4], [1, 0.1, 0.01]) + 0.1 * person
            rows.append(f"2020-03-04 00:02:00.{k:03d},{','.join(map(str, values))},{int(k >= rest)}")
        (root / str(person) / "experiment_1.csv").write_text("\n".join(rows) + "\n")


def handwritten(root: Path) -> None:
    rng = np.random.default_rng(0)
    content: dict[str, Any] = {}
    for side, size in (("train", 60), ("test", 20)):
        content[f"gt_{side}"] = (np.arange(size) % 10 + 1)[:, None].astype(np.uint8)
        for k, width in enumerate((240, 76, 216, 47, 64, 6), 1):
            content[f"x{k}_{side}"] = rng.integers(0, 7, (size, width)).astype(np.uint8 if k == 1 else float)
    savemat(root / "handwritten_6views.mat", content)


def write_ts(path: Path, cases: np.ndarray, labels: list[str]) -> None:
    """As the archive writes it: comments, a header, a case a line."""
    head = ["#Data: from somewhere", f"@problemName {path.stem}", "@timeStamps false", "@univariate false"]
    head += [f"@classLabel true {' '.join(sorted(set(labels)))}", "@data"]
    lines = [":".join([*(",".join(map(str, d)) for d in c), y]) for c, y in zip(cases, labels, strict=True)]
    path.write_text("\n".join([*head, *lines]) + "\n", encoding="latin-1")


def natops(root: Path) -> None:
    rng = np.random.default_rng(0)
    for side in ("TRAIN", "TEST"):
        write_ts(
            root / f"NATOPS_{side}.ts", rng.normal(0, 1, (36, 24, 51)).round(4), [f"{k % 6 + 1}.0" for k in range(36)]
        )


STROKES = ["Badminton_Clear", "Badminton_Smash", "Squash_BackhandBoast", "Squash_ForehandBoast"]


def racketsports(root: Path) -> None:
    rng = np.random.default_rng(0)
    for side in ("TRAIN", "TEST"):
        cases = rng.normal(0, 1, (24, 6, 30)).round(4)
        write_ts(root / f"RacketSports_{side}.ts", cases, [STROKES[k % 4] for k in range(24)])


MAKERS: dict[str, Callable[[Path], None]] = {
    "social_anxiety": social_anxiety, "handwritten": handwritten, "natops": natops, "racketsports": racketsports,
}  # fmt: skip
FILES = {
    "social_anxiety": "7/experiment_1.csv",
    "handwritten": "handwritten_6views.mat",
    "natops": "NATOPS_TEST.ts",
    "racketsports": "RacketSports_TRAIN.ts",
}


@pytest.mark.parametrize("name", [*MAKERS, "social_anxiety_subject_dependent"])
def test_it_passes_the_kit_and_is_no_headline(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = name.removesuffix("_subject_dependent")
    (tmp_path / "data" / data).mkdir(parents=True)
    MAKERS[data](tmp_path / "data" / data)
    monkeypatch.setenv("FUSIONBENCH_HOME", str(tmp_path))
    assert (found := report("benchmarks", name)).ok, found
    assert registry.load("benchmarks", name).role == "exhibit"


@pytest.mark.parametrize("name", MAKERS)
def test_a_missing_file_names_the_way_out(name: str, tmp_path: Path) -> None:
    MAKERS[name](tmp_path)
    (tmp_path / FILES[name]).unlink()
    with pytest.raises(UsageError, match=rf"{name}: there is no .*{FILES[name]}: run `fusionbench data get {name}`"):
        load(name, tmp_path)


def test_windows_of_a_person_have_one_class(tmp_path: Path) -> None:
    social_anxiety(tmp_path)
    _, batch = load("social_anxiety", tmp_path)
    mine = [i for i, group in enumerate(batch.groups) if group == "03"]  # 98 rows at rest: the fifth window has both
    assert [batch.ids[i] for i in mine] == [f"03-{k:03d}" for k in range(11) if k != 4]
    assert batch.y[mine, 0].tolist() == [0] * 4 + [1] * 6
    table = np.genfromtxt(tmp_path / "3" / "experiment_1.csv", delimiter=",", skip_header=1)
    for k, stream in enumerate(batch.streams.values(), 1):
        assert np.allclose(stream.x[mine[1]].numpy(), table[20:40, k].reshape(5, 4), rtol=1e-6)


def test_only_the_variant_that_says_so_shuffles(tmp_path: Path) -> None:
    social_anxiety(tmp_path)
    honest, batch = load("social_anxiety", tmp_path)
    shuffled, _ = load("social_anxiety_subject_dependent", tmp_path)
    assert not honest.subject_dependent
    assert shuffled.subject_dependent
    for benchmark, shared in ((honest, False), (shuffled, True)):
        tested = []
        for fold in range(benchmark.folds):
            splits = benchmark.splits(batch, fold)
            people = [{batch.groups[i] for i in side} for side in (splits.train, splits.test)]
            assert bool(people[0] & people[1]) == shared
            tested += splits.test.tolist()
        assert sorted(tested) == list(range(len(batch)))


def test_views_and_digits(tmp_path: Path) -> None:
    from scipy.io import loadmat

    handwritten(tmp_path)
    benchmark, batch = load("handwritten", tmp_path)
    content = loadmat(tmp_path / "handwritten_6views.mat")
    for k, stream in enumerate(batch.streams.values(), 1):
        assert np.allclose(stream.x[:, 0].numpy(), np.concatenate([content[f"x{k}_train"], content[f"x{k}_test"]]))
    assert batch.y[:, 0].tolist() == [*(k % 10 for k in range(60)), *(k % 10 for k in range(20))]
    assert benchmark.splits(batch, 0).test.tolist() == list(range(60, 80))
    for change, message in [
        ({"x2_test": np.zeros((20, 75))}, r"x2_test is \(20, 75\), not \(20, 76\)"),
        ({"gt_train": np.zeros((60, 1))}, r"the labels are .*, not ten digits"),
        ({"x3_train": np.array([[{}]], dtype=object)}, "x3_train is no table of finite numbers"),
    ]:
        savemat(tmp_path / "handwritten_6views.mat", {k: v for k, v in content.items() if k[0] != "_"} | change)
        with pytest.raises(UsageError, match=message):
            load("handwritten", tmp_path)


def test_arms_take_turns_in_the_file(tmp_path: Path) -> None:
    """Hand, elbow, wrist, thumb; left, right; x, y, z: three frames a step."""
    cases = np.arange(24)[None, :, None] + np.arange(51) / 100 + np.arange(36)[:, None, None] * 100
    for side in ("TRAIN", "TEST"):
        write_ts(tmp_path / f"NATOPS_{side}.ts", cases, [f"{k % 6 + 1}.0" for k in range(36)])
    benchmark, batch = load("natops", tmp_path)
    assert batch.y[:, 0].tolist() == [k % 6 for k in range(36)] * 2
    left, right = ([d for d in range(24) if d // 3 % 2 == arm] for arm in (0, 1))
    for m, chosen in (("left", left), ("right", right)):
        want = cases[5][chosen].T.reshape(17, 36)
        assert np.allclose(batch.streams[m].x[5].numpy(), want)
    assert "who is who" in benchmark.notes[0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("@data", "@date", r"NATOPS_TRAIN\.ts: nothing follows a line @data"),
        (":1.0\n", ",7:1.0\n", r"NATOPS_TRAIN\.ts, row 7: not a case of equally many finite numbers"),
        (":1.0\n", ",x:1.0\n", r"NATOPS_TRAIN\.ts, row 7: not a case"),
        (":6.0\n", ":5.0\n", r"NATOPS has the classes .*, 6 are expected"),
    ],
)
def test_bad_cases_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    natops(tmp_path)
    for path in tmp_path.glob("*.ts" if old == ":6.0\n" else "*TRAIN.ts"):
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
    with pytest.raises(UsageError, match=message):
        load("natops", tmp_path)


def test_a_set_of_another_shape_is_refused(tmp_path: Path) -> None:
    for side in ("TRAIN", "TEST"):
        write_ts(tmp_path / f"NATOPS_{side}.ts", np.zeros((6, 6, 30)), [f"{k}.0" for k in range(6)])
    with pytest.raises(UsageError, match=r"a case is \(6, 30\), not \(24, 51\)"):
        load("natops", tmp_path)


def test_bad_rows_of_a_recording_are_named(tmp_path: Path) -> None:
    social_anxiety(tmp_path)
    path = tmp_path / "7" / "experiment_1.csv"
    text = path.read_text()
    for old, new in ((",0\n", ",2\n"), (",0\n", ",x\n"), (",0\n", ",0,0\n")):
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(UsageError, match=r"experiment_1\.csv, row 2: expected a time, three numbers and 0 or 1"):
            load("social_anxiety", tmp_path)


# -------------------------------------------------------------------------------------------------- the real files


def forest_score(benchmark: Any, batch: Any, measure: Callable[..., float], folds: int) -> float:
    """A random forest on mean, SD, least, greatest, first and last of every raw channel, all folds pooled."""
    from sklearn.ensemble import RandomForestClassifier

    columns = []
    for m, stream in batch.streams.items():
        raw = {"left": 12, "right": 12, "acc": 3, "gyro": 3}.get(m, 1 if stream.x.shape[1] > 1 else stream.x.shape[2])
        x = stream.x.numpy().reshape(len(batch), -1, raw)
        columns += [x.mean(1), x.std(1), x.min(1), x.max(1), x[:, 0], x[:, -1], x[:, x.shape[1] // 2]]
    x, y = np.concatenate(columns, 1), batch.y[:, 0].numpy()
    truth, answers = [], []
    for fold in range(folds):
        splits = benchmark.splits(batch, fold)
        train = np.concatenate([splits.train, splits.val])
        answers.append(RandomForestClassifier(50, random_state=0).fit(x[train], y[train]).predict(x[splits.test]))
        truth.append(y[splits.test])
    return measure(np.concatenate(truth), np.concatenate(answers))


def macro_f1(y: np.ndarray, answers: np.ndarray) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(y, answers, average="macro"))


def accuracy(y: np.ndarray, answers: np.ndarray) -> float:
    return float((y == answers).mean())


def test_shuffled_folds_leak_what_folds_by_person_do_not(tmp_path: Path) -> None:
    if not (REAL / "social_anxiety.zip").is_file():
        pytest.skip("the real files are not beside this repository")
    zipfile.ZipFile(REAL / "social_anxiety.zip").extractall(tmp_path)
    honest, batch = load("social_anxiety", tmp_path)
    shuffled, _ = load("social_anxiety_subject_dependent", tmp_path)
    assert len(set(batch.groups)) == 12
    assert abs(forest_score(shuffled, batch, macro_f1, 3) - 0.984) <= 0.03
    assert abs(forest_score(honest, batch, macro_f1, 12) - 0.688) <= 0.08


def test_handwritten_is_a_ceiling() -> None:
    if not (REAL / "handwritten_6views.mat").is_file():
        pytest.skip("the real file is not beside this repository")
    benchmark, batch = load("handwritten", REAL)
    assert (len(batch), batch.y[:, 0].bincount().tolist()) == (2000, [200] * 10)
    assert forest_score(benchmark, batch, accuracy, 1) > 0.97


def test_natops_reads_its_360_cases(tmp_path: Path) -> None:
    if not (REAL / "natops.zip").is_file():
        pytest.skip("the real files are not beside this repository")
    zipfile.ZipFile(REAL / "natops.zip").extractall(tmp_path)
    benchmark, batch = load("natops", tmp_path)
    assert (len(batch), batch.y[:, 0].bincount().tolist()) == (360, [60] * 6)
    assert forest_score(benchmark, batch, accuracy, 1) > 0.75


def test_racketsports_reaches_its_reference(tmp_path: Path) -> None:
    """Its numbers, written in the official layout: the original files are not here."""
    if not (REAL / "racketsports").is_dir():
        pytest.skip("the real numbers are not beside this repository")
    with np.load(REAL / "racketsports" / "RacketSports.npz", allow_pickle=False) as content:
        x, y, train = content["X"].transpose(0, 2, 1), content["y"], int(content["n_train"])
    labels = [STROKES[k - y.min()] for k in y]
    write_ts(tmp_path / "RacketSports_TRAIN.ts", x[:train], labels[:train])
    write_ts(tmp_path / "RacketSports_TEST.ts", x[train:], labels[train:])
    benchmark, batch = load("racketsports", tmp_path)
    assert (len(batch), len(benchmark.splits(batch, 0).test)) == (303, 152)
    assert abs(forest_score(benchmark, batch, macro_f1, 1) - 0.84) <= 0.06

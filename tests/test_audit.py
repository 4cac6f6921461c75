"""Planted leaks are found, clean data raise no alarm, and known cases are named for what they are."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionbench import audit as room
from fusionbench import cli, custom_data
from fusionbench.api import Splits
from fusionbench.audit import copies, models, samples
from fusionbench.custom_data import sources

N, PEOPLE = 200, 10
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
Arrays = dict[str, Any]


@pytest.fixture(autouse=True)
def few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """`bench/audit_alarms.py` counts alarms with forests of full size."""
    monkeypatch.setattr(models, "TREES", 16)


def clean(seed: int = 0, people: float = 0.5, signal: float = 1.0) -> Arrays:
    """Two modalities of 200 samples of 10 people, two classes in random order; people differ, times do not."""
    rng = np.random.default_rng(seed)
    y, group = rng.integers(0, 2, N), np.arange(N) // (N // PEOPLE)
    face = rng.standard_normal((N, 8, 3)) + 0.5 * signal * y[:, None, None]
    face += people * rng.standard_normal((PEOPLE, 1, 3))[group]
    eda = rng.standard_normal((N, 4)) - signal * y[:, None] + people * rng.standard_normal((PEOPLE, 4))[group]
    return {"face": face, "eda": eda, "y": y, "group": np.array([f"p{g}" for g in group]),
            "id": np.array([f"p{g}-{i:03d}" for i, g in enumerate(group)])}  # fmt: skip


def audited(arrays: Arrays, *questions: str) -> dict[str, room.Finding]:
    """The findings on arrays, of some questions or of all."""
    benchmark = custom_data.build(sources.of_arrays(Path("mine.npz"), arrays, {}))()
    data = benchmark.load()
    splits = [benchmark.splits(data, fold) for fold in range(benchmark.folds)]
    found = samples.samples(benchmark, "mine", data, splits)
    return {name: room.QUESTIONS[name](found) for name in questions or room.QUESTIONS}


# -------------------------------------------------------------------------------------------------------- planted leaks


def copies_of_others() -> Arrays:
    """Every tenth sample is another person's over again, with a little noise."""
    given, rng = clean(), np.random.default_rng(1)
    for i in range(0, N, 10):
        j = (i + 57) % N
        for m in ("face", "eda"):
            given[m][i] = given[m][j] + 0.003 * rng.standard_normal(given[m][j].shape)
    return given


def windows(hop: int) -> Arrays:
    """Windows of 8 steps, every `hop` steps, of ten recordings; by window number, people are mixed."""
    rng = np.random.default_rng(0)
    long = rng.standard_normal((PEOPLE, 8 + hop * 20, 3)).cumsum(1)
    face = np.stack([long[i // 20, hop * (i % 20) :][:8] for i in range(N)])
    return {"face": face, "y": rng.integers(0, 2, N), "group": np.array([f"g{i % 10}" for i in range(N)])}


def label_in_a_column() -> Arrays:
    given = clean()
    given["eda"][:, 2] = given["y"] + 0.01 * np.random.default_rng(1).standard_normal(N)
    return given


def label_in_a_modality() -> Arrays:
    """The exclusive-or of two columns that look like flags."""
    given = clean()
    flag = np.random.default_rng(1).integers(0, 2, N)
    return {**given, "flags": np.stack([flag, flag ^ given["y"]], 1).astype(float)}


def label_in_what_is_missing() -> Arrays:
    given, rng = clean(), np.random.default_rng(1)
    mask = np.ones((N, 8), dtype=bool)
    mask[:, 5:] = np.where(given["y"] == 1, rng.random(N) < 0.2, rng.random(N) < 0.8)[:, None]
    return {**given, "face_mask": mask}


def label_in_the_order() -> Arrays:
    given = clean()
    order = np.lexsort([given["y"], np.arange(N) // (N // PEOPLE)])
    return {name: value[order] if name in ("face", "eda", "y") else value for name, value in given.items()}


def label_in_the_ids() -> Arrays:
    given = clean()
    words = np.array(["calm", "tense"])[given["y"]]
    return {**given, "id": np.array([f"clip{(i * 37) % N:03d}_{word}" for i, word in enumerate(words)])}


def people_in_the_ids_only() -> Arrays:
    """What is called a group is a session; the person, whom the folds cut, stands in the id."""
    given = clean(people=3.0)
    return {**given, "group": np.array([f"s{i // 5}" for i in range(N)])}


def people_in_a_modality() -> Arrays:
    given, rng = clean(), np.random.default_rng(1)
    code = rng.standard_normal((PEOPLE, 3))[np.arange(N) // (N // PEOPLE)]
    return {**given, "badge": code + 1e-4 * rng.standard_normal(code.shape)}


def scaled_by_each_person() -> Arrays:
    given = clean(people=2.0)
    for g in set(given["group"]):
        own = given["eda"][given["group"] == g]
        given["eda"][given["group"] == g] = (own - own.mean(0)) / own.std(0)
    return given


def scaled_by_everybody() -> Arrays:
    given = clean()
    given["eda"] = (given["eda"] - given["eda"].mean(0)) / given["eda"].std(0)
    return given


def fitted_to_training() -> Arrays:
    """A feature that answers the training labels, as a model's output that was fitted to them."""
    given, rng = clean(signal=0.2), np.random.default_rng(1)
    given["group"] = np.array([f"p{i // 10}" for i in range(N)])
    side = np.array(["train"] * 12 + ["val"] * 4 + ["test"] * 4)[np.arange(N) // 10]
    right = rng.random(N) < np.where(side == "train", 0.95, 0.55)
    answer = np.where(right, given["y"], 1 - given["y"]) + 0.3 * rng.standard_normal(N)
    return {**given, "stacked": answer[:, None], "split": side}


def shuffled_neighbours() -> Arrays:
    """A slow drift and a label that changes rarely: a sample's neighbours know both. Folds are shuffled."""
    rng = np.random.default_rng(0)
    y = np.concatenate([np.repeat(rng.permutation([0, 1, 0, 1]), 5) for _ in range(PEOPLE)])
    drift = rng.standard_normal((PEOPLE, 20, 4)).cumsum(1).reshape(N, 4) + 0.05 * rng.standard_normal((N, 4))
    return {"eda": drift, "y": y, "group": np.arange(N) // 20, "fold": rng.permutation(N) % 5}


PLANTED: list[tuple[Callable[[], Arrays], str]] = [
    (copies_of_others, "duplicates"),
    (lambda: windows(4), "overlap"),
    (label_in_a_column, "columns"),
    (label_in_a_modality, "columns"),
    (label_in_what_is_missing, "missing"),
    (label_in_the_order, "time"),
    (label_in_the_ids, "ids"),
    (people_in_the_ids_only, "ids"),
    (people_in_a_modality, "group"),
    (scaled_by_each_person, "scaling"),
    (scaled_by_everybody, "scaling"),
    (fitted_to_training, "fitted"),
    (shuffled_neighbours, "shuffled"),
    (shuffled_neighbours, "folds"),
]


@pytest.mark.parametrize(("make", "question"), PLANTED, ids=[f"{m.__name__}-{q}" for m, q in PLANTED])
def test_a_planted_leak_is_found(make: Callable[[], Arrays], question: str) -> None:
    found = audited(make(), question)[question]
    assert found.verdict == "suspicious", found.evidence


# ----------------------------------------------------------------------------------------------------------- clean data


def strong_people() -> Arrays:
    """Hard: people differ by six times what the label moves, and whoever has met them knows much more."""
    return clean(seed=3, people=3.0, signal=0.5)


def trials_of_a_session() -> Arrays:
    """Slow drifts of people's own and trials in an order of their own: time is in the features, not in the label."""
    given, rng = clean(seed=4), np.random.default_rng(5)
    given["eda"] += 0.3 * rng.standard_normal((PEOPLE, 20, 4)).cumsum(1).reshape(N, 4)
    return given


def really_missing() -> Arrays:
    """Sensors that fail at random and a person who never had one; ragged lengths."""
    given, rng = clean(seed=6), np.random.default_rng(7)
    mask = np.arange(8) < rng.integers(3, 9, N)[:, None]
    return {**given, "face_mask": mask, "eda_mask": (rng.random(N) > 0.2) & (given["group"] != "p3")}


def overlapping_windows_of_a_person() -> Arrays:
    given, rng = windows(4), np.random.default_rng(8)
    return {**given, "face": given["face"] + 2.0 * rng.standard_normal((PEOPLE, 1, 3))[np.arange(N) // 20],
            "group": np.array([f"p{i // 20}" for i in range(N)])}  # fmt: skip


def values() -> Arrays:
    given, rng = clean(seed=9, people=1.0), np.random.default_rng(10)
    return {**given, "y": given["eda"][:, 0] + rng.standard_normal(N)}


CLEAN = [clean, strong_people, trials_of_a_session, really_missing, overlapping_windows_of_a_person, values]


@pytest.mark.parametrize("make", CLEAN, ids=lambda make: make.__name__)
def test_no_alarm_on_clean_data(make: Callable[[], Arrays]) -> None:
    raised = {name: f.evidence for name, f in audited(make()).items() if f.verdict == "suspicious"}
    assert not raised


# -------------------------------------------------------------------------------------------------------- what is known


def social_anxiety(path: Path, folds: str) -> Path:
    """The public archive as an .npz: windows of 20 rows (5 s), rest or anxiety; folds by person, or none."""
    archive = SHARED / "social_anxiety.zip"
    if not archive.is_file():
        pytest.skip(f"{archive} is not there")
    x, y, people, ids = [], [], [], []
    with zipfile.ZipFile(archive) as zipped:
        for name in sorted(n for n in zipped.namelist() if n.endswith("experiment_1.csv")):
            rows = np.genfromtxt(io.TextIOWrapper(zipped.open(name)), delimiter=",", skip_header=1)[:, 1:]
            cut = rows[: len(rows) // 20 * 20].reshape(-1, 20, 4)
            x.append(cut[..., :3])
            y.append(cut[..., 3].mean(1) > 0.5)
            people += [f"person{name.split('/')[0]}"] * len(cut)
            ids += [f"{people[-1]}-{i:04d}" for i in range(len(cut))]
    whole = np.concatenate(x)
    arrays = {"heart": whole[..., :1], "temp": whole[..., 1:2], "eda": whole[..., 2:], "y": np.concatenate(y),
              "group": np.array(people), "id": np.array(ids)}  # fmt: skip
    if folds == "shuffled":
        arrays["fold"] = np.random.default_rng(0).permutation(len(people)) % 10
    np.savez(path / "anxiety.npz", **arrays)
    return path / "anxiety.npz"


def test_social_anxiety_is_a_leak_of_shuffled_folds(tmp_path: Path) -> None:
    """Published at .984 on shuffled folds; .688 for people who were not met."""
    found = samples.load(str(social_anxiety(tmp_path, "shuffled")))
    shuffled = room.QUESTIONS["shuffled"](found)
    assert shuffled.verdict == "suspicious"
    assert "a leak" in shuffled.evidence
    assert shuffled.numbers["shuffled"] == pytest.approx(0.984, abs=0.02)
    assert shuffled.numbers["group"] == pytest.approx(0.688, abs=0.06)
    assert room.QUESTIONS["folds"](found).verdict == "suspicious"
    assert room.QUESTIONS["time"](found).verdict == "suspicious"  # rest comes first, for everybody


def test_stress_predict_is_an_order_of_tasks(tmp_path: Path) -> None:
    archive = SHARED / "Stress-Predict-Dataset-main.zip"
    if not archive.is_file():
        pytest.skip(f"{archive} is not there")
    with zipfile.ZipFile(archive) as zipped:
        zipped.extractall(tmp_path)
    found = room.QUESTIONS["time"](samples.load("stress_predict", {"root": str(tmp_path)}))
    assert found.verdict == "suspicious"
    assert "elapsed time alone" in found.evidence
    assert found.numbers["label"] == pytest.approx(0.86, abs=0.03)


# ------------------------------------------------------------------------------------------------------------ the parts


def test_a_copy_on_no_side_of_a_split_is_none() -> None:
    """What an official split leaves out, because its copy is in the test, teaches nothing."""
    arrays = copies_of_others()
    benchmark = custom_data.build(sources.of_arrays(Path("mine.npz"), arrays, {}))()
    data = benchmark.load()
    copied, first = np.arange(0, N, 10), (np.arange(0, N, 10) + 57) % N
    rest = np.setdiff1d(np.arange(N), [*copied, *first])
    half = Splits(rest[:80], rest[80:100], np.concatenate([copied, rest[100:]]))
    left_out = room.QUESTIONS["duplicates"](samples.samples(benchmark, "mine", data, [half]))
    assert left_out.verdict == "clean"
    taken_in = Splits(np.concatenate([rest[:80], first]), half.val, half.test)
    found = room.QUESTIONS["duplicates"](samples.samples(benchmark, "mine", data, [taken_in]))
    assert found.verdict == "suspicious"


def test_windows_that_overlap_are_found_as_a_slow_loop_finds_them() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 9, (12, 10, 2)).astype(np.float32)
    for i, j, shift in ((0, 3, 4), (1, 5, -3), (2, 6, 7), (4, 7, 8)):  # the last one shares two steps: too few
        a, b = (x[i, shift:], x[j, :-shift]) if shift > 0 else (x[i, :shift], x[j, -shift:])
        b[:] = a
    want = set()
    for i in range(12):
        for j in range(12):
            for shift in range(1, 10 - 3 + 1):
                if i != j and (x[i, shift:] == x[j, :-shift]).all():
                    want.add(frozenset((i, j)))
    found = {frozenset(pair) for pair in copies.shared(x).tolist()}
    assert found == want == {frozenset((0, 3)), frozenset((1, 5)), frozenset((2, 6))}


def test_an_interval_is_over_groups_and_a_gap_is_paired() -> None:
    rng = np.random.default_rng(0)
    y, group = rng.integers(0, 2, 400), np.repeat(np.arange(20), 20)
    right = np.eye(2)[np.where(rng.random(400) < 0.8, y, 1 - y)]
    found = models.score(right, y, group, "classify")
    assert found.low < 0.8 < found.high
    assert models.gap(right, right, y, group, "classify") == models.Score(0.0, 0.0, 0.0)
    luck = (np.arange(20) < 16).astype(float)[group][:, None]  # whole groups are right or wrong
    wide = models.score(luck * np.eye(2)[y] + (1 - luck) * np.eye(2)[1 - y], y, group, "classify")
    assert wide.high - wide.low > 2 * (found.high - found.low)


# ---------------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """The command as it is typed, 80 columns wide: exit status, output, complaints."""
    monkeypatch.setenv("COLUMNS", "80")

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["fusionbench", "audit", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return call


def test_the_command_for_people_and_for_ci(
    command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("mine.npz")
    np.savez(path, **label_in_a_column())
    status, out, _ = command(path)
    assert status == 1
    assert all(len(line) <= 80 for line in out.splitlines())
    assert [line.split()[1] for line in out.splitlines() if line.startswith(("clean", "suspicious"))]
    assert "suspicious columns    column 2 (from 0) of eda alone tells the label" in out
    assert out.splitlines()[-1] == f"suspicious: columns ({len(room.QUESTIONS)} questions asked)"
    status, out, _ = command(path, "--accept", "columns", "--format", "json")
    content = json.loads(out)
    assert status == 0
    assert [f["question"] for f in content["findings"]] == list(room.QUESTIONS)
    assert content["suspicious"] == []
    assert content["findings"][6]["verdict"] == "suspicious"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere"),
        (["toy_xor", "--accept", "folsd"], "no question is called 'folsd'; did you mean folds?"),
        (["{few}"], "an audit needs 40 labelled samples of 5 groups"),
    ],
)
def test_what_cannot_be_audited_is_one_line(
    command: Callable[..., Any], tmp_path: Path, arguments: list[str], said: str
) -> None:
    few = {name: value[:30] for name, value in clean().items()}
    np.savez(tmp_path / "few.npz", **{**few, "group": np.array([f"p{i % 3}" for i in range(30)])})
    status, out, err = command(*(a.format(few=tmp_path / "few.npz") for a in arguments))
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err

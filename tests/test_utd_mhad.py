"""UTD-MHAD is read as published: on a miniature in the same layout, and on the real files where they are."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from fusionbench import registry
from fusionbench.check import report
from fusionbench.errors import UsageError

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "utd_mhad.zip"


@pytest.fixture
def mini(tmp_path: Path) -> Path:
    """Eight people do 27 actions once, the first one twice; clips of many lengths."""
    rng = np.random.default_rng(0)
    for place in ("Inertial", "Skeleton"):
        (tmp_path / place).mkdir()
    for action in range(1, 28):
        for person in range(1, 9):
            for trial in (1, 2) if action == 1 else (1,):
                name = f"a{action}_s{person}_t{trial}"
                inertial = rng.normal(0, 1, (21 + action, 6))
                skeleton = rng.normal(0, 1, (20, 3, 10 + person))
                savemat(tmp_path / "Inertial" / f"{name}_inertial.mat", {"d_iner": inertial})
                savemat(tmp_path / "Skeleton" / f"{name}_skeleton.mat", {"d_skel": skeleton})
    return tmp_path


def load(root: Path, **settings: Any) -> Any:
    benchmark = registry.load("benchmarks", "utd_mhad")(root=str(root), **settings)
    return benchmark, benchmark.load()


def test_names_say_action_person_and_trial(mini: Path) -> None:
    _, batch = load(mini)
    assert len(batch) == 28 * 8
    assert batch.ids[:3] == ["a1_s1_t1", "a1_s1_t2", "a1_s2_t1"]
    assert batch.ids[-1] == "a27_s8_t1"  # in the order of numbers: a2 before a10
    for name, label, group in zip(batch.ids, batch.y[:, 0].tolist(), batch.groups, strict=True):
        assert name.startswith(f"a{label + 1}_{group}_")


def test_a_step_is_ten_inertial_samples_or_the_mean_of_three_skeletons(mini: Path) -> None:
    from scipy.io import loadmat

    _, batch = load(mini)
    row = batch.ids.index("a13_s5_t1")
    signal = loadmat(mini / "Inertial" / "a13_s5_t1_inertial.mat")["d_iner"]  # 34 samples: three steps and 4 of ten
    inertial = batch.streams["inertial"]
    assert inertial.mask[row].tolist() == [True] * 4 + [False]  # the longest clip has 48 samples, so five steps
    want = np.concatenate([signal, np.repeat(signal[-1:], 6, 0)]).reshape(4, 60)
    assert np.allclose(inertial.x[row, :4].numpy(), want, atol=1e-6)
    joints = loadmat(mini / "Skeleton" / "a13_s5_t1_skeleton.mat")["d_skel"]  # 15 skeletons
    skeleton = batch.streams["skeleton"]
    assert skeleton.mask[row].tolist() == [True] * 5 + [False]
    for step in range(5):
        frames = [(joints[:, :, t] - joints[3, :, 0]).ravel() for t in range(3 * step, 3 * step + 3)]
        assert np.allclose(skeleton.x[row, step].numpy(), np.mean(frames, 0), atol=1e-6)


def test_one_person_is_left_out_or_even_people_test(mini: Path) -> None:
    benchmark, batch = load(mini)
    tested = []
    for fold in range(benchmark.folds):
        splits = benchmark.splits(batch, fold)
        sides = [{batch.groups[i] for i in side} for side in (splits.train, splits.val, splits.test)]
        assert [len(side) for side in sides] == [5, 2, 1]
        tested += sides[2]
    assert sorted(tested) == [f"s{k}" for k in range(1, 9)]
    official, batch = load(mini, protocol="odd_even")
    splits = official.splits(batch, 0)
    sides = [sorted({batch.groups[i] for i in side}) for side in (splits.train, splits.val, splits.test)]
    assert (official.folds, sides) == (1, [["s1", "s3", "s5"], ["s7"], ["s2", "s4", "s6", "s8"]])
    with pytest.raises(UsageError, match="loso or odd_even, not 'random'"):
        load(mini, protocol="random")


def test_it_passes_the_kit(mini: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSIONBENCH_HOME", str(mini / "home"))
    (mini / "home" / "data").mkdir(parents=True)
    (mini / "home" / "data" / "utd_mhad").symlink_to(mini)
    assert (found := report("benchmarks", "utd_mhad")).ok, found


def test_bad_files_are_named(mini: Path) -> None:
    path = mini / "Inertial" / "a3_s2_t1_inertial.mat"
    good = path.read_bytes()
    for content, message in [
        (good[:200], r"a3_s2_t1_inertial\.mat cannot be read as a MATLAB file"),
        (b"not a matlab file", r"a3_s2_t1_inertial\.mat cannot be read as a MATLAB file"),
        ({"other": np.zeros(3)}, r"a3_s2_t1_inertial\.mat has no variable d_iner"),
        ({"d_iner": np.zeros((9, 5))}, r"d_iner is \(9, 5\), not \(time, 6\)"),
        ({"d_iner": np.full((9, 6), np.nan)}, r"d_iner is no table of finite numbers"),
        ({"d_iner": np.array([[{}]], dtype=object)}, r"d_iner is no table of finite numbers"),
    ]:
        savemat(path, content) if isinstance(content, dict) else path.write_bytes(content)
        with pytest.raises(UsageError, match=message):
            load(mini)
    path.unlink()
    with pytest.raises(UsageError, match=r"utd_mhad: there is no .*a3_s2_t1_inertial\.mat"):
        load(mini)
    path.with_name("a28_s2_t1_inertial.mat").write_bytes(good)
    with pytest.raises(UsageError, match="a28_s2_t1 is not a<1 to 27>_s<1 to 8>_t<trial>"):
        load(mini)
    with pytest.raises(UsageError, match="run `fusionbench data get utd_mhad`"):
        load(mini / "nowhere")


def test_scikit_learn_reaches_the_reference_points(tmp_path: Path) -> None:
    """Random forests on statistics of eight segments, odd to even people, within .04 of the points measured before."""
    if not REAL.is_file():
        pytest.skip("the real files are not beside this repository")
    from sklearn.ensemble import RandomForestClassifier

    zipfile.ZipFile(REAL).extractall(tmp_path)
    benchmark, batch = load(tmp_path, protocol="odd_even")
    assert (len(batch), len(set(batch.groups))) == (861, 8)
    splits, y = benchmark.splits(batch, 0), batch.y[:, 0].numpy()
    train, test = np.concatenate([splits.train, splits.val]), splits.test
    features = {}
    for m, stream in batch.streams.items():
        rows = []
        for x, mask in zip(stream.x.numpy(), stream.mask.numpy(), strict=True):
            signal = x[mask].reshape(-1, 6 if m == "inertial" else 60)
            rows.append(np.concatenate([part for s in np.array_split(signal, 8) for part in (s.mean(0), s.std(0))]))
        features[m] = np.array(rows)
    features["both"] = np.concatenate(list(features.values()), 1)
    chances = {}
    for name, x in features.items():
        chances[name] = RandomForestClassifier(100, random_state=0).fit(x[train], y[train]).predict_proba(x[test])
    chances["late"] = chances["inertial"] + chances["skeleton"]
    got = {name: float((p.argmax(1) == y[test]).mean()) for name, p in chances.items()}
    for name, point in (("inertial", 0.830), ("skeleton", 0.849), ("both", 0.909), ("late", 0.933)):
        assert abs(got[name] - point) <= 0.04, got

"""ROSMAP's omics tables are read as published: on a miniature in the same layout, and on the real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fusionbench import registry
from fusionbench.check import report
from fusionbench.errors import UsageError

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "rosmap.zip"
PEOPLE = {"tr": 40, "te": 15}


@pytest.fixture
def mini(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    (tmp_path / "ROSMAP").mkdir()
    for side, people in PEOPLE.items():
        np.savetxt(tmp_path / "ROSMAP" / f"labels_{side}.csv", rng.integers(0, 2, people), delimiter=",")
        for omics in "123":
            table = rng.random((people, 200))
            np.savetxt(tmp_path / "ROSMAP" / f"{omics}_{side}.csv", table, delimiter=",")
    return tmp_path


def test_tables_labels_and_the_official_split(mini: Path) -> None:
    benchmark = registry.load("benchmarks", "rosmap")(root=str(mini))
    batch = benchmark.load()
    assert list(batch.streams) == ["mrna", "methylation", "mirna"]
    for number, stream in zip("123", batch.streams.values(), strict=True):
        table = np.concatenate([np.loadtxt(mini / "ROSMAP" / f"{number}_{s}.csv", delimiter=",") for s in PEOPLE])
        assert np.allclose(stream.x[:, 0].numpy(), table)
        assert stream.mask.all()
    labels = np.concatenate([np.loadtxt(mini / "ROSMAP" / f"labels_{side}.csv") for side in PEOPLE])
    assert batch.y[:, 0].tolist() == labels.tolist()
    splits = benchmark.splits(batch, 0)
    assert [batch.ids[i] for i in splits.test] == [f"te-{k:03d}" for k in range(15)]
    assert (len(splits.train), len(splits.val)) == (32, 8)
    assert all(batch.ids[i].startswith("tr") for i in (*splits.train, *splits.val))


def test_it_passes_the_kit(mini: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSIONBENCH_HOME", str(mini / "home"))
    (mini / "home" / "data").mkdir(parents=True)
    (mini / "home" / "data" / "rosmap").symlink_to(mini)
    assert (found := report("benchmarks", "rosmap")).ok, found


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("1_te.csv", lambda t: t.replace(",", ",x", 1), r"1_te\.csv, row 1: not a row of finite numbers"),
        ("2_tr.csv", lambda t: t.replace("\n", ",1\n", 1), r"2_tr\.csv, row 2: not a row of finite numbers"),
        ("3_tr.csv", lambda t: t.partition("\n")[2], r"3_tr\.csv is \(39, 200\), not \(40, 200\)"),
        ("labels_te.csv", lambda t: "2" + t[1:], r"a label is 2, not 0 or 1"),
    ],
)
def test_bad_tables_are_named(mini: Path, file: str, change: object, message: str) -> None:
    path = mini / "ROSMAP" / file
    path.write_text(change(path.read_text()))  # type: ignore[operator]
    with pytest.raises(UsageError, match=message):
        registry.load("benchmarks", "rosmap")(root=str(mini)).load()
    path.unlink()
    with pytest.raises(UsageError, match=rf"there is no .*{file}: run `fusionbench data get rosmap`"):
        registry.load("benchmarks", "rosmap")(root=str(mini)).load()


def test_scikit_learn_reaches_the_reference_points(tmp_path: Path) -> None:
    """Logistic regression, an omics alone and their late average, within .02 of the points measured beforehand."""
    if not REAL.is_file():
        pytest.skip("the real tables are not beside this repository")
    import zipfile

    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    zipfile.ZipFile(REAL).extractall(tmp_path)
    benchmark = registry.load("benchmarks", "rosmap")(root=str(tmp_path))
    batch = benchmark.load()
    splits = benchmark.splits(batch, 0)
    assert (len(splits.train), len(splits.val), len(splits.test)) == (196, 49, 106)
    train, test, y = np.concatenate([splits.train, splits.val]), splits.test, batch.y[:, 0].numpy()
    chances = {}
    for m, stream in batch.streams.items():
        x = stream.x[:, 0].numpy()
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000)).fit(x[train], y[train])
        chances[m] = model.predict_proba(x[test])[:, 1]
    alone = max(roc_auc_score(y[test], p) for p in chances.values())
    late = roc_auc_score(y[test], np.mean(list(chances.values()), 0))
    assert abs(alone - 0.894) <= 0.02
    assert abs(late - 0.922) <= 0.02

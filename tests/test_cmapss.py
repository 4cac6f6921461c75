"""C-MAPSS FD001 is read as published: on a miniature in the same layout, and on the real files where they are."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionbench import registry
from fusionbench.check import report
from fusionbench.errors import UsageError

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "cmapss_fd001.zip"
LIVES = [100, 3, 60, 20]  # cycles left of the test engines


@pytest.fixture
def mini(tmp_path: Path) -> Path:
    """Ten training engines of 40 to 220 cycles, four test engines; blanks at the end of a line, as NASA writes them."""
    rng = np.random.default_rng(0)
    for side, lengths in (("train", range(40, 221, 20)), ("test", (31, 40, 50, 60))):
        lines = []
        for engine, cycles in enumerate(lengths, 1):
            for cycle in range(1, cycles + 1):
                row = [*np.round(rng.normal(0, 1, 3), 4), *np.round(rng.normal(500, 5, 21), 2)]
                lines.append(f"{engine} {cycle} {' '.join(map(str, row))}  ")
        (tmp_path / f"{side}_FD001.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "RUL_FD001.txt").write_text("".join(f"{life} \n" for life in LIVES))
    return tmp_path


def load(root: Path) -> Any:
    benchmark = registry.load("benchmarks", "cmapss")(root=str(root))
    return benchmark, benchmark.load()


def test_windows_lives_and_the_cap(mini: Path) -> None:
    _, batch = load(mini)
    first = [name for name in batch.ids if name.startswith("train-001")]
    assert first == ["train-001-040", "train-001-035", "train-001-030"]
    life = dict(zip(batch.ids, (125 * batch.y[:, 0, 0]).tolist(), strict=True))
    assert [life[name] for name in first] == pytest.approx([0, 5, 10])
    assert life["train-010-220"] == 0
    assert life["train-010-030"] == pytest.approx(125)  # 190 cycles are left
    assert [name for name in batch.ids if name.startswith("test")] == [
        "test-001-031", "test-002-040", "test-003-050", "test-004-060",
    ]  # fmt: skip
    assert [life[name] for name in batch.ids[-4:]] == pytest.approx(LIVES)
    assert batch.groups[-1] == "test-004"


def test_a_step_is_three_cycles_of_a_subsystem(mini: Path) -> None:
    _, batch = load(mini)
    table = np.loadtxt(mini / "test_FD001.txt")
    engine = table[table[:, 0] == 2]
    row = batch.ids.index("test-002-040")
    sensor = {"fan": (2, 6, 15), "compressor": (3, 7, 11), "turbine": (4, 12, 17, 20, 21), "shafts": (8, 9, 13, 14)}
    for m, numbers in sensor.items():
        want = engine[10:40][:, [4 + n for n in numbers]].reshape(10, -1)
        assert np.allclose(batch.streams[m].x[row].numpy(), want, rtol=1e-6)


def test_official_engines_test_and_a_fifth_of_the_others_validates(mini: Path) -> None:
    benchmark, batch = load(mini)
    splits = benchmark.splits(batch, 0)
    sides = [{batch.groups[i] for i in side} for side in (splits.train, splits.val, splits.test)]
    assert [len(side) for side in sides] == [8, 2, 4]
    assert all(name.startswith("train") for name in sides[0] | sides[1])
    assert not sides[0] & sides[1]


def test_it_passes_the_kit(mini: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSIONBENCH_HOME", str(mini / "home"))
    (mini / "home" / "data").mkdir(parents=True)
    (mini / "home" / "data" / "cmapss").symlink_to(mini)
    assert (found := report("benchmarks", "cmapss")).ok, found


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("train_FD001.txt", "1 2 ", "1 two ", r"train_FD001\.txt, row 2: not a row of finite numbers"),
        ("train_FD001.txt", "1 2 ", "1 3 ", r"the cycles of engine 1 are not 1, 2, 3"),
        ("train_FD001.txt", "1 2 ", "1 2 7 ", r"train_FD001\.txt, row 2: not a row of finite numbers"),
        ("RUL_FD001.txt", "100 \n", "", r"RUL_FD001\.txt has 3 lives, test_FD001\.txt 4 engines"),
    ],
)
def test_bad_tables_are_named(mini: Path, file: str, old: str, new: str, message: str) -> None:
    text = (mini / file).read_text()
    assert old in text
    (mini / file).write_text(text.replace(old, new, 1))
    with pytest.raises(UsageError, match=message):
        load(mini)
    (mini / file).unlink()
    with pytest.raises(UsageError, match=rf"there is no .*{file}: run `fusionbench data get cmapss`"):
        load(mini)


def test_scikit_learn_reaches_the_reference_points(tmp_path: Path) -> None:
    """A random forest on statistics of the windows comes within 2 cycles of the published network."""
    if not REAL.is_file():
        pytest.skip("the real files are not beside this repository")
    from sklearn.ensemble import RandomForestRegressor

    zipfile.ZipFile(REAL).extractall(tmp_path)  # a copy with a header
    benchmark, batch = load(tmp_path)
    splits = benchmark.splits(batch, 0)
    assert [len({batch.groups[i] for i in side}) for side in (splits.train, splits.val, splits.test)] == [80, 20, 100]
    columns = []
    for stream in batch.streams.values():
        x = stream.x.unflatten(2, (3, -1)).flatten(1, 2).numpy()  # (N, 30, D)
        columns += [x.mean(1), x.std(1), x[:, -10:].mean(1), x[:, -10:].mean(1) - x[:, :10].mean(1)]
    x, y = np.concatenate(columns, 1), 125 * batch.y[:, 0, 0].numpy()
    train = np.concatenate([splits.train, splits.val])
    forest = RandomForestRegressor(60, min_samples_leaf=3, max_features=0.3, random_state=0).fit(x[train], y[train])
    error = float(np.sqrt(((forest.predict(x[splits.test]) - y[splits.test]) ** 2).mean()))
    assert abs(error - 12.61) <= 2

"""SisFall is read as its readme says: on a miniature with the traps of the layout. The real files are not here."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionbench import data, registry
from fusionbench.check import report
from fusionbench.errors import UsageError

PEOPLE = [f"SA{k:02d}" for k in range(1, 24)] + [f"SE{k:02d}" for k in range(1, 16)]
README = """
Examples: D17_SE04_R02.txt
+---------+-----+--------+--------+--------+
| Subject | Age | Height | Weight | Gender |
+---------+-----+--------+--------+--------+
| SA01    | 26  | 165    | 53     | F      |
| SA02    | 23  | 176    | 58.5   | M      |
| SE06    | 60  | 163    | 79     | M      |
"""


def write(path: Path, table: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f" {','.join(map(str, row))};\n" for row in table.tolist()) + "\n")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Young people walk and fall, old ones walk, one of them falls too; trials are missing, a readme stands about."""
    root, rng = tmp_path_factory.mktemp("sisfall"), np.random.default_rng(0)
    for k, person in enumerate(PEOPLE):
        names = [f"D01_{person}_R01", f"D19_{person}_R03"]
        if person.startswith("SA") or person == "SE06":
            names += [f"F01_{person}_R01", f"F15_{person}_R05"]
        for name in names[k % 2 == 0 and person == "SA03" :]:
            table = rng.integers(-40, 40, (1300 + k, 9))
            table[700 + k] *= 30
            write(root / person / f"{name}.txt", table)
    (root / "Readme.txt").write_bytes(README.encode() + "\n\xb0/s".encode("latin-1"))
    (root / "SA01" / "Readme.txt").write_text(README)
    return root


@pytest.fixture
def mini(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "sisfall"))


def load(root: Path, **settings: Any) -> Any:
    benchmark = registry.load("benchmarks", "sisfall")(root=str(root), **settings)
    return benchmark, benchmark.load()


def test_names_say_person_and_fall(whole: Path) -> None:
    benchmark, batch = load(whole)
    assert len(batch) == 23 * 4 - 1  # SA03 lacks a trial, old people are left out
    for name, label, group in zip(batch.ids, batch.y[:, 0].tolist(), batch.groups, strict=True):
        assert name[4:8] == group
        assert benchmark.classes[label] == ("fall" if name[0] == "F" else "activity")
    said = dict(zip(batch.groups, zip(*batch.attributes.values(), strict=True), strict=True))
    assert said["SA01"] == ("female", "young")
    assert said["SA03"] == ("", "young")
    _, batch = load(whole, protocol="young_to_old")
    assert len(batch) == 23 * 4 - 1 + 15 * 2 + 2
    assert dict(zip(batch.groups, zip(*batch.attributes.values(), strict=True), strict=True))["SE06"] == ("male", "old")


def test_units_and_the_window_around_the_blow(whole: Path) -> None:
    """A slow loop over the text: 2 * range / 2^bits a bit, 600 readings before the strongest one, means of four."""
    _, batch = load(whole)
    row = batch.ids.index("F01_SA10_R01")
    lines = (whole / "SA10" / "F01_SA10_R01.txt").read_text().split()
    bits = [[int(cell) for cell in line.rstrip(";").split(",")] for line in lines]
    unit = [32 / 2**13] * 3 + [4000 / 2**16] * 3 + [16 / 2**14] * 3
    start = min(max(0, max(range(len(bits)), key=lambda k: sum(v * v for v in bits[k][:3])) - 600), len(bits) - 1200)
    assert start > 0
    want = np.array([
        [sum(bits[start + 4 * k + j][c] for j in range(4)) / 4 * unit[c] for c in range(9)] for k in range(300)
    ])  # fmt: skip
    for place, m in enumerate(("acc16", "gyro", "acc8")):
        stream = batch.streams[m]
        assert stream.mask[row].all()
        own = want[:, 3 * place : 3 * place + 3].reshape(30, 30)
        np.testing.assert_allclose(stream.x[row].numpy(), own, atol=1e-5)


def test_people_stand_on_one_side_and_the_old_test(whole: Path) -> None:
    benchmark, batch = load(whole)
    for fold in range(benchmark.folds):
        splits = benchmark.splits(batch, fold)
        sides = [{batch.groups[i] for i in side} for side in (splits.train, splits.val, splits.test)]
        assert sum(map(len, sides)) == len(sides[0] | sides[1] | sides[2]) == 23
    benchmark, batch = load(whole, protocol="young_to_old")
    splits = benchmark.splits(batch, 0)
    sides = [{batch.groups[i] for i in side} for side in (splits.train, splits.val, splits.test)]
    assert (benchmark.folds, sides[2]) == (1, {f"SE{k:02d}" for k in range(1, 16)})
    assert sides[0] | sides[1] == {f"SA{k:02d}" for k in range(1, 24)}
    assert not sides[0] & sides[1]
    with pytest.raises(UsageError, match="young or young_to_old, not 'old'"):
        load(whole, protocol="old")


def test_it_passes_the_kit(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSIONBENCH_HOME", str(tmp_path))
    assert "not verified" in data.get("sisfall", whole)
    assert (found := report("benchmarks", "sisfall")).ok, found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.write_text(path.read_text() + "1,2,3"), r"row 130\d is not nine whole numbers"),
        (lambda path: path.write_text(path.read_text().replace(",", ",x", 1)), "row 1 is not nine whole numbers"),
        (lambda path: path.write_text("1,2,3,4,5,6,7,8,9;\n" * 900), "900 readings, a window needs 1200"),
        (lambda path: path.write_text(""), "0 readings, a window needs 1200"),
        (lambda path: path.rename(path.with_name("D20_SA02_R01.txt")), "its name is not <D01 to D19"),
        (lambda path: path.rename(path.with_name("D01_SA01_R01.txt")), r"its name is not .*_SA02_R"),
    ],
)
def test_bad_recordings_are_named_or_left_out(mini: Path, change: Any, message: str) -> None:
    change(mini / "SA02" / "D01_SA02_R01.txt")
    with pytest.raises(UsageError, match=rf"{message}.*skip_bad leaves it out"):
        load(mini)
    benchmark, batch = load(mini, skip_bad=True)
    assert (len(batch), len(benchmark.skipped)) == (23 * 4 - 2, 1)


def test_what_is_missing_is_named(mini: Path) -> None:
    shutil.rmtree(mini / "SA07")
    with pytest.raises(UsageError, match=r"there is no .*SA07: run `fusionbench data get sisfall`"):
        load(mini)

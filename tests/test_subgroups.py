"""Scores by subgroup: attributes travel from the data to the published sums, and the table is what a slow loop says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score

import fusionbench
from fusionbench import cli, custom_data
from fusionbench.errors import UsageError
from fusionbench.records import publish, store

N, PEOPLE = 120, 12


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run on own data whose sensors say nothing of the men."""
    folder = tmp_path_factory.mktemp("own")
    rng, group = np.random.default_rng(0), np.repeat(np.arange(PEOPLE), 10)
    y, man = rng.integers(0, 2, N), group % 2 == 0
    face = rng.standard_normal((N, 3)) + np.where(man, 0, 3 * y)[:, None]
    np.savez(folder / "data.npz", face=face, eda=rng.standard_normal((N, 2)), y=y, group=group,
             attribute_sex=np.where(man, "man", "woman"),
             attribute_hand=np.where(rng.random(N) < 0.5, "l", "r"))  # fmt: skip
    (folder / "benchmark.toml").write_text("folds = 3\nseeds = 2\ncorruptions = ['noise:all']\n")
    fusionbench.run("forest", str(folder), results=folder / "results", track=False, jobs=1)
    return folder / "results"


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.setenv("COLUMNS", "80")

    def call(*arguments: Any) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["fusionbench", "leaderboard", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return call


def test_the_table_is_what_a_slow_loop_says(command: Callable[..., Any], results: Path) -> None:
    status, out, _ = command("--results", results, "--by", "sex", "--format", "json")
    assert status == 0
    (board,) = json.loads(out)
    (row,) = board["rows"]
    for sex in ("man", "woman"):
        by_seed = []
        for seed in range(2):
            kept = [store.predictions(results, r.run) for r in store.load(results) if r.run.seed == seed]
            chosen = [p.attributes["sex"] == sex for p in kept if p]
            y = np.concatenate([p.y[c, 0] for p, c in zip(kept, chosen, strict=True) if p])
            told = np.concatenate([p.answers["clean"][c, 0].argmax(1) for p, c in zip(kept, chosen, strict=True) if p])
            by_seed.append(f1_score(y, told, average="macro"))
        assert row["scores"][sex]["score"] == pytest.approx(np.mean(by_seed))
    assert row["gap"]["score"] == pytest.approx(row["scores"]["woman"]["score"] - row["scores"]["man"]["score"])
    assert row["gap"]["low"] < row["gap"]["score"] < row["gap"]["high"]


def test_it_is_told_in_words_and_survives_publishing(command: Callable[..., Any], results: Path) -> None:
    before = command("--results", results, "--by", "sex")
    assert before[0] == 0
    assert "man (6)" in before[1]
    assert "gap: the highest less the lowest" in before[1]
    (benchmark,) = (path.name for path in results.iterdir() if path.is_dir() and not path.name.startswith("."))
    publish.publish(results, benchmark)
    for path in (results / benchmark / "forest").glob("*.npz"):
        if path.name != "evidence.npz":
            path.unlink()
            path.with_suffix(".json").unlink()
    assert command("--results", results, "--by", "sex") == before


def test_what_no_group_has_of_its_own_is_no_subgroup(command: Callable[..., Any], results: Path) -> None:
    for attribute in ("hand", "sx"):
        status, _, err = command("--results", results, "--by", attribute)
        assert status == 2
        assert err.startswith(f"error: no attribute of these records is called '{attribute}'")
        assert err.count("\n") == 1


def test_attributes_of_ones_own_data(tmp_path: Path) -> None:
    rows = "\n".join(f"{i % 2},p{i // 6},{'mf'[i // 6 % 2]},{i * 0.37 % 1}" for i in range(60))
    (tmp_path / "t.csv").write_text(f"y,who,sex,a\n{rows}\n")
    toml = 'group = "who"\nattributes = ["sex"]\n[modalities.all_of_it]\ncolumns = ["*"]\n'
    (tmp_path / "benchmark.toml").write_text(toml)
    data = custom_data.load(tmp_path)().load()
    assert list(data.attributes["sex"][4:8]) == ["m", "m", "f", "f"]
    assert data.streams["all_of_it"].shape == (1, 1)  # the pattern does not take the attribute in
    assert list(data[[0, 6]].attributes["sex"]) == ["m", "f"]
    (tmp_path / "benchmark.toml").write_text(toml.replace('"sex"', '"sax"'))
    with pytest.raises(UsageError, match="no column for attributes is called 'sax'; did you mean sex"):
        custom_data.load(tmp_path)

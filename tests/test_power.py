"""`fusionbench power`: what is said before anything is trained, from the variance of records."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fusionbench import cli, stats
from fusionbench.errors import UsageError
from fusionbench.leaderboard import outlook
from fusionbench.leaderboard.statistics import tables_of
from fusionbench.records import Predictions, Record, Run, store
from fusionbench.records.rows import boards

PEOPLE, EACH, FOLDS = 12, 20, 3


def obtained(results: Path, fuser: str, seeds: int, hurdle: float = 0.25, benchmark: str = "toy") -> None:
    """Records of a classifier that errs at a rate that varies over people and seeds."""
    method = np.random.default_rng([len(fuser), 1])
    own = 0.12 * method.random(PEOPLE)
    for seed in range(seeds):
        rng = np.random.default_rng([seed, len(fuser)])
        for fold in range(FOLDS):
            people = np.repeat(np.arange(fold, PEOPLE, FOLDS), EACH)
            groups = np.array([f"p{p:02d}" for p in people])
            y = np.random.default_rng(fold).integers(0, 2, (len(people), 1))
            wrong = rng.random(y.shape) < hurdle + own[people][:, None] + 0.02 * rng.standard_normal()
            answers = {"clean": np.eye(2, dtype=np.float32)[np.where(wrong, 1 - y, y)]}
            answers["noise:all:1"] = answers["clean"][::-1].copy()
            run = Run(benchmark, fuser, {"a": "linear"}, fold, seed, {"fuser": {}, "benchmark": {}, "train": {}})
            ids = np.array([f"{g}-{n}" for n, g in enumerate(groups)])
            scores = {c: {"accuracy": 0.5} for c in answers}
            record = Record(
                run, "done", {"benchmark": "b", "fuser": fuser}, "data", 2, ["accuracy"], scores=scores,
                complete={"folds": FOLDS, "seeds": 3}, samples={"test": len(ids)}, table=["noise:all"],
                created=f"2026-01-0{1 + seed}T00:00:00+00:00",
            )  # fmt: skip
            store.save(results, record, Predictions(ids, groups, y, np.ones(y.shape, bool), answers), None)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("power")
    obtained(folder, "concat", 3)
    obtained(folder, "gated", 3)
    obtained(folder, "attention", 2, hurdle=0.2)  # not all of its seeds: a pilot counts
    obtained(folder, "late", 1)
    obtained(folder, "concat", 1, benchmark="once")
    return folder


def power(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["fusionbench", "power", *words])
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as end:
        cli.main()
    said = capsys.readouterr()
    return int(end.value.code or 0), said.out, said.err


def test_the_table_is_what_the_statistics_say(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["-b", "toy", "--results", str(results), "--format", "json", "--difference", "4%"]
    status, shown, _ = power(monkeypatch, capsys, *words)
    assert status == 0
    found = json.loads(shown)
    (board,) = boards(list(store.load(results, "toy")))
    rows = {row.label: tables_of(row, results, "accuracy")[0] for row in board.rows}
    differences = [stats.difference(rows[name], rows["concat"]) for name in ("attention", "gated")]  # type: ignore[arg-type]
    sources = stats.pooled(differences)
    assert sources is not None
    assert found["sources"]["people"] == pytest.approx(sources.people)
    assert (found["rows"], found["reference"], found["size"]) == (["attention", "gated"], "concat", 2)
    assert (found["groups"], found["seeds"], found["unit"]) == (PEOPLE, 2, "group")
    cells = {(cell["groups"], cell["seeds"]): cell["difference"] for cell in found["detectable"]}
    assert sorted({g for g, _ in cells}) == [6, 12, 24, 48]
    for (groups, seeds), value in cells.items():
        if value is not None:
            assert value == pytest.approx(stats.detectable(sources, groups, seeds, 0.025))
    limits = {line["groups"]: line["difference"] for line in found["limits"]}
    assert limits[12] == pytest.approx(stats.detectable(sources, 12, math.inf, 0.025))
    assert found["difference"] == pytest.approx(0.04)
    assert found["needed_seeds"] == stats.needed_seeds(sources, 0.04, 12, 0.025)


def test_the_text_fits_and_answers_the_question(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    toy = ["-b", "toy", "--results", str(results)]
    status, text, _ = power(monkeypatch, capsys, *toy)
    assert status == 0
    assert max(map(len, text.splitlines())) <= 80
    assert "toy: accuracy in %, 2 rows against concat" in text
    assert "level 0.05 / 2 = 0.025" in text
    assert "12 *" in text
    assert "--difference 3%" in text
    assert "a rough guess" in text  # of two seeds
    _, far, _ = power(monkeypatch, capsys, *toy, "gated", "--difference", "0.2")
    assert "A difference of 20 points takes" in " ".join(far.split())
    assert "find it with power" in " ".join(far.split())
    _, near, _ = power(monkeypatch, capsys, *toy, "gated", "--difference", "0.0001", "--family", "11")
    assert "No number of seeds finds a difference of 0.01 points on these 12 groups: with any number" in " ".join(
        near.split()
    )
    assert "level 0.05 / 11 = 0.0045" in near
    even = outlook.outlook(list(store.load(results, "toy")), results)
    even = replace(even, sources=replace(even.sources, people=0.0), limits=dict.fromkeys(even.limits, 0.0))
    assert "No variance over groups is visible" in outlook.render(even)
    assert outlook.render(even).count("?\n") == 4
    _, damaged, _ = power(monkeypatch, capsys, *toy, "--damaged", "--groups", "20", "--seeds", "4")
    assert "toy: damaged accuracy in %" in damaged
    assert "4 seeds" in damaged
    _, other, _ = power(monkeypatch, capsys, *toy, "concat", "--against", "gated")
    assert "concat against gated" in other


def test_more_power_a_lower_level_and_fewer_groups_take_a_larger_difference(results: Path) -> None:
    records = list(store.load(results, "toy"))
    plain = outlook.outlook(records, results, size=1)
    assert plain.detectable[12, 5] < plain.detectable[12, 3] < plain.detectable[6, 3]
    for changed in (
        outlook.outlook(records, results, size=11),
        outlook.outlook(records, results, size=1, power=0.95),
        outlook.outlook(records, results, size=1, level=0.01),
    ):
        assert changed.detectable[12, 5] > plain.detectable[12, 5]
    assert stats.power_of(plain.sources, plain.detectable[12, 5], 12, 5) == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-b", "mine.csv"], "there are no records of mine.csv in {}: make a pilot of two seeds: fusionbench compare"),
        (["-b", "once"], "concat on once is 1 seed with every fold, and variance takes two seeds: fusionbench run"),
        (["gatd"], "no row of toy is called 'gatd'; did you mean gated?"),
        (["late"], "late on toy is 1 seed with every fold, and variance takes two seeds"),
        (["--against", "jmt"], "no row of toy is called 'jmt'"),
        (["concat"], "concat stands alone on toy: make a pilot"),
        (["--difference", "3"], "a difference of 3 in accuracy, which ends at 1: say 0.03, or 3%"),
        (
            ["--difference", "small"],
            "--difference takes a difference in the metric's units, as 0.03 or 3%, not 'small'",
        ),
        (["--difference", "-1%"], "a difference to be found is a number above 0, not -0.01"),
        (["--difference", "nan"], "a difference to be found is a number above 0, not nan"),
        (["--level", "5"], "a level lies between 0 and 1, not 5"),
        (["--power", "0"], "a power lies between 0 and 1, not 0"),
        (["--seeds", "1"], "a variance takes 2 to 1,000 seeds, not 1"),
        (["--groups", "many"], "--groups takes numbers, as 3,5,10, not 'many'"),
        (["--family", "0"], "0 is not in the range"),
        (["--format", "html"], "no format of a power table is called 'html'"),
        (["--partition", "per-seed"], "there are no records with a partition per-seed in {}"),
    ],
)
def test_what_cannot_be_answered_is_one_line(
    words: list[str], message: str, results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark = [] if "-b" in words else ["-b", "toy"]
    status, shown, said = power(monkeypatch, capsys, *words, *benchmark, "--results", str(results))
    assert (status, shown) == (2, "")
    assert said.count("\n") == 1
    assert message.format(results) in said


def test_without_the_answers_there_is_no_variance(results: Path, tmp_path: Path) -> None:
    for r in store.load(results, "toy"):
        store.save(tmp_path, r, None, None)
    with pytest.raises(UsageError, match="concat has no usable stored answers"):
        outlook.outlook(list(store.load(tmp_path, "toy")), tmp_path)
    quick = [replace(r, marks=["quick"]) for r in store.load(results, "toy")]
    with pytest.raises(UsageError, match="concat on toy is a quick try"):
        outlook.outlook(quick, results)

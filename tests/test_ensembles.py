"""The mean of a row's seeds as a row of its own: what it answers, what it costs, what it is compared with."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fusionbench import cli, harness, leaderboard
from fusionbench.errors import UsageError
from fusionbench.records import Record, publish, store

WORDS = ["-b", "toy_xor", "--train.steps", "20", "--train.interval", "10", "--train.lr", "3e-3", "--no-references"]


def compare(results: Path, *words: str) -> None:
    line = ["compare", *words, *WORDS, "--results", str(results), "--no-track", "-j", "1"]
    assert cli.cli.main(line, standalone_mode=False) == 0


@pytest.fixture(scope="module")
def obtained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two networks and an estimator with their ensembles: three folds, two seeds."""
    results = tmp_path_factory.mktemp("ensembles") / "results"
    compare(results, "concat", "late_average", "linear", "--ensemble")
    return results


@pytest.fixture
def own(obtained: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(obtained, tmp_path / "results"))


def records(results: Path, fuser: str = "concat") -> tuple[list[Record], list[Record]]:
    """Ensembles, and the runs that they average."""
    found = list(store.load(results, "toy_xor", fuser))
    return [r for r in found if r.run.ensemble], [r for r in found if not r.run.ensemble]


def probabilities(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64))
    return np.asarray(powers / powers.sum(-1, keepdims=True))


@pytest.mark.parametrize("fuser", ["concat", "linear"])
def test_it_answers_with_the_mean_probability(obtained: Path, fuser: str) -> None:
    ensembles, _ = records(obtained, fuser)
    assert [r.run.fold for r in sorted(ensembles, key=lambda r: r.run.fold)] == [0, 1, 2]
    for r in ensembles:
        assert list(r.members) == [run.id for run in r.run.members]
        mine, parts = store.predictions(obtained, r.run), [store.predictions(obtained, run) for run in r.run.members]
        assert mine is not None
        for condition in ("clean", "missing:left"):  # damage that every seed meets alike
            mean = sum(probabilities(p.answers[condition]) for p in parts if p) / len(parts)
            assert probabilities(mine.answers[condition]) == pytest.approx(mean, abs=1e-5)
            right = [row.argmax() == y for row, y in zip(mean[:, 0], mine.y[:, 0], strict=True)]
            assert r.scores[condition]["accuracy"] == pytest.approx(sum(right) / len(right))


def test_all_members_meet_the_same_noise(obtained: Path) -> None:
    """Else the noise would be averaged away: the mean of stored answers is another, and a better one than is due."""
    (r, *_), _ = records(obtained)
    first, second = r.run.members
    mine, of_first, of_second = (store.predictions(obtained, run) for run in (r.run, first, second))
    assert mine is not None
    assert of_first is not None
    assert of_second is not None
    noise = "noise:all:5"
    rest = 2 * probabilities(mine.answers[noise]) - probabilities(of_first.answers[noise])  # the second one's
    assert rest.min() > -1e-5
    assert np.abs(rest - probabilities(of_second.answers[noise])).max() > 1e-3


def test_its_cost_is_the_sum_of_its_members(obtained: Path) -> None:
    ensembles, members = records(obtained)
    known = {m.run.id: m for m in members}
    for r in ensembles:
        parts = [known[run] for run in r.members]
        for name in ("latency", "latency_batch", "flops"):
            assert r.costs[name] == pytest.approx(sum(p.costs[name] or 0 for p in parts))
        assert r.parameters["trained"] == sum(p.parameters["trained"] for p in parts)
        assert r.seconds["train"] == pytest.approx(sum(p.seconds["train"] for p in parts))


def test_ensembles_meet_ensembles_only(obtained: Path) -> None:
    (board,) = leaderboard.build(store.load(obtained), obtained)
    (plain,) = leaderboard.build([r for r in store.load(obtained) if not r.run.ensemble], obtained)
    rows = {(row.fuser, row.records.ensemble): row for row in board.rows}
    assert {size for _, size in rows} == {0, 2}
    base = rows["concat", 2]
    assert base.label == "concat (ensemble of 2, lr=0.003, steps=20, interval=10)"
    assert base.records.complete
    for fuser in ("late_average", "linear"):
        verdict = rows[fuser, 2].verdicts["score"]
        assert verdict.b == base.label
        assert (verdict.family, verdict.size) == ("ensembles of 2", 2)
    for row in plain.rows:  # ... and move nothing among the others
        assert {m: v.p for m, v in row.verdicts.items()} == {m: v.p for m, v in rows[row.fuser, 0].verdicts.items()}
        assert row.places.keys() == rows[row.fuser, 0].places.keys()
    assert not base.verdicts
    text = leaderboard.render(board, "table")
    assert "Ensemble of n: the mean answer" in text
    assert board.reference == rows["concat", 0].label


def test_it_is_made_once_and_grows_with_its_members(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = {r.run.id: store.path_of(own, r.run) for r in records(own)[0]}
    before = {name: path.stat().st_mtime_ns for name, path in paths.items()}
    compare(own, "concat", "--ensemble")
    assert "concat (ensemble of 2" in capsys.readouterr().out
    assert before == {name: path.stat().st_mtime_ns for name, path in paths.items()}
    compare(own, "concat", "--ensemble", "--corruption", "gap:left:2")
    old = {name: json.loads(path.read_text())["scores"] for name, path in paths.items()}
    assert all("gap:left:2" in scores for scores in old.values())
    kept = store.predictions(own, records(own)[0][0].run)
    assert kept is not None
    assert {"clean", "noise:all:1", "gap:left:2"} <= set(kept.answers)


def test_a_member_that_changed_makes_it_stale(own: Path) -> None:
    _, (member, *_) = records(own)
    changed = replace(member, chosen={**member.chosen, "validation": 0.123})
    store.save(own, changed, store.predictions(own, member.run), None)
    (board,) = leaderboard.build(store.load(own), own)
    stale = [row for row in board.rows if row.records.ensemble and row.fuser == "concat"]
    assert [row.lacks for row in stale] == ["of older members"]
    compare(own, "concat", "--ensemble")
    (board,) = leaderboard.build(store.load(own), own)
    assert all(row.ranked for row in board.rows)


def test_what_it_needs_and_does_not_find_is_named(own: Path, tmp_path: Path) -> None:
    _, (member, *_) = records(own)
    store.path_of(own, member.run).with_suffix(".safetensors").unlink()
    with pytest.raises(UsageError, match=rf"1 run of concat have no .*{member.run.id}.*fusionbench run -b toy_xor"):
        compare(own, "concat", "--ensemble")
    with pytest.raises(UsageError, match="two seeds or more of concat: --seeds"):
        compare(tmp_path / "none", "concat", "--ensemble", "--seeds", "1")
    assert not list((tmp_path / "none").rglob("*.json"))  # said before anything is trained


def test_it_is_published_with_its_members(own: Path) -> None:
    (before,) = leaderboard.build(store.load(own), own)
    publish.publish(own, "toy_xor")
    for path in [*own.rglob("*.json"), *own.rglob("*.safetensors")]:
        path.with_suffix(".npz").unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    (after,) = leaderboard.build(store.load(own), own)
    assert len(after.rows) == len(before.rows) == 6
    for old, new in zip(before.ranked, after.ranked, strict=True):
        assert (new.label, new.clean, new.damaged) == (old.label, pytest.approx(old.clean), pytest.approx(old.damaged))


def test_it_is_not_trained_again_by_reproduce(obtained: Path) -> None:
    (r, *_), _ = records(obtained)
    with pytest.raises(UsageError, match="averages others: reproduce a member"):
        harness.reproduce(r)

"""`--train.groups`: who is kept, that nobody else is learned from, and what the curves of a board say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fusionbench import cli, harness, leaderboard, metrics
from fusionbench.errors import UsageError
from fusionbench.jobs import plan_runs
from fusionbench.leaderboard import Board, curves
from fusionbench.records import Predictions, Record, Run, store
from fusionbench.report.figures import draw

FAST = {"steps": "4", "interval": "2", "lr": "3e-3"}
PEOPLE, EACH = 16, 12


def prepare(share: str = "1", fuser: str = "concat") -> harness.Setup:
    given = {"groups": share} if fuser == "linear" else {"groups": share, **FAST}
    return harness.setup("toy_xor", fuser, given={"train": given})


def learned(share: str, fold: int = 0, seed: int = 0) -> set[str]:
    setup = prepare(share)
    return {setup.data.groups[i] for i in harness.training_of(setup, setup.data, setup.run(fold, seed)).train}


def test_smaller_shares_are_parts_of_larger_ones_and_only_training_groups_go() -> None:
    third, half, whole = (learned(share) for share in ("0.34", "0.5", "1"))
    assert (len(third), len(half), len(whole)) == (2, 3, 6)
    assert third < half < whole
    assert len({frozenset(learned("0.5", seed=seed)) for seed in range(6)}) > 1  # each seed keeps others
    setup, plain = prepare("0.5"), prepare()
    few, all_of_them = (harness.training_of(s, s.data, s.run(1, 0)) for s in (setup, plain))
    assert np.array_equal(few.val, all_of_them.val)
    assert np.array_equal(few.test, all_of_them.test)


def test_the_whole_is_no_part_of_what_a_run_is() -> None:
    assert prepare("1").run(0, 0).id == harness.setup("toy_xor", "concat", given={"train": FAST}).run(0, 0).id
    assert "groups" not in prepare("1").run(0, 0).hparams["train"]
    assert prepare("0.5").run(0, 0).id != prepare("1").run(0, 0).id
    assert prepare("0.5", "linear").run(0, 0).hparams["train"]["groups"] == 0.5


@pytest.mark.parametrize("fuser", ["concat", "linear"])
def test_whoever_is_left_out_is_never_learned_from(fuser: str, tmp_path: Path) -> None:
    """Their labels turned round, every answer is the same to the bit; those of who is kept matter."""
    answers = {}
    for case in ("as it is", "others turned", "kept turned"):
        setup = prepare("0.5", fuser)
        whole = harness.splits_of(setup, setup.data, setup.run(0, 0)).train
        kept = harness.training_of(setup, setup.data, setup.run(0, 0)).train
        turned = {"as it is": [], "others turned": np.setdiff1d(whole, kept), "kept turned": kept}[case]
        y = setup.data.y.clone()
        y[turned] = 1 - y[turned]
        setup.dataset._prepared = replace(setup.prepared, data=replace(setup.data, y=y))
        (r,) = [e for e in harness.execute(setup, [setup.run(0, 0)], tmp_path / case, conditions=[], device="cpu")
                if isinstance(e, Record)]  # fmt: skip
        assert r.samples["train"] == 60
        found = store.predictions(tmp_path / case, r.run)
        assert found is not None
        answers[case] = torch.from_numpy(found.answers["clean"])
    assert torch.equal(answers["as it is"], answers["others turned"])
    assert not torch.equal(answers["as it is"], answers["kept turned"])


def test_too_small_a_share_is_one_line_before_anything_is_done(tmp_path: Path) -> None:
    setup = prepare("0.2")
    with pytest.raises(UsageError, match=r"train\.groups 0\.2 leaves 1 of the 6 training groups .* a share of 0\.33"):
        plan_runs(setup, setup.runs([0], [0]), tmp_path, [])
    with pytest.raises(UsageError, match=r"train\.groups cannot be 0"):
        prepare("0")


# ------------------------------------------------------------------------------------------------- curves of a board

#: name -> quality of the answers at shares .25, .5 and 1, and of its seeds' noise.
QUALITY = {"concat": (0.9, 0.9, 0.9), "slow": (0.3, 0.9, 2.2), "flat": (0.2, 0.2, 0.2), "twin": (0.9, 0.9, 0.9)}
SHARES = (0.25, 0.5, 1.0)


def write(results: Path, fuser: str, share: float, quality: float, seed: int) -> None:
    """One run of one fold: answers of this quality to two classes."""
    people = np.repeat([f"p{g:02d}" for g in range(PEOPLE)], EACH)
    y = np.random.default_rng(5).integers(0, 2, (len(people), 1))
    noise = np.random.default_rng([seed, *map(ord, fuser)]).standard_normal((*y.shape, 2))
    answers, mask = (quality * np.eye(2)[y] + noise).astype(np.float32), np.ones(y.shape, bool)
    train = {"lr": [1e-3], **({"groups": share} if share < 1 else {})}
    record = Record(
        Run("toy_xor", fuser, {"left": "linear"}, 0, seed, {"benchmark": {}, "train": train, "fuser": {}}),
        "done", {"benchmark": "b", "fuser": fuser}, "data", 1, ["accuracy"],
        {"clean": metrics.evaluate(["accuracy"], answers, y, mask), "chance": {"accuracy": 0.5}},
        complete={"folds": 1, "seeds": 3}, samples={"train": int(100 * share), "test": len(y)},
        changes=[f"train.groups={share:g}"] if share < 1 else [], created="2026-11-26T00:00:00+00:00",
    )  # fmt: skip
    ids = np.array([f"{p}-{i}" for i, p in enumerate(people)])
    store.save(results, record, Predictions(ids, people, y, mask, {"clean": answers}), None)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("curves")
    for fuser, qualities in QUALITY.items():
        for share, quality in zip(SHARES, qualities, strict=True):
            for seed in range(3):
                write(folder, fuser, share, quality, seed)
    return folder


@pytest.fixture(scope="module")
def board(results: Path) -> Board:
    (found,) = leaderboard.build(store.load(results), results, here=None)
    return found


def test_rows_of_a_share_meet_one_another_only(board: Board) -> None:
    assert board.curve is not None
    assert board.curve.shares == list(SHARES)
    assert set(board.curve.rows) == set(QUALITY)
    for name, by_share in board.curve.rows.items():
        assert set(by_share) == set(SHARES)
        for share, row in by_share.items():
            assert row.label == (name if share == 1 else f"{name} (groups={share:g})")
            if name != "concat":
                verdict = row.verdicts["score"]
                assert verdict.b == board.curve.rows["concat"][share].label
                assert verdict.family == ("default rows" if share == 1 else f"{share:g} of the groups")
                assert verdict.size == 3
    assert {row.label for row in board.rows if row.places} == set(QUALITY)


def test_a_gain_is_tested_as_a_difference_is(board: Board) -> None:
    curve = board.curve
    assert curve is not None
    for name, verdict in curve.gains.items():
        (few, many), (few0, many0) = (
            [curve.rows[n][share].clean or 0.0 for share in (0.25, 1.0)] for n in (name, "concat")
        )
        assert verdict.difference == pytest.approx((many - few) - (many0 - few0))
    assert {name: verdict.decision for name, verdict in curve.gains.items()} == {
        "slow": "better", "flat": "undecided", "twin": "undecided",
    }  # fmt: skip


def test_would_more_data_change_the_order(board: Board, results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = {line.split()[7]: line for line in curves.answers(board)}
    assert "Not by this trend: the difference is real" in said["slow"]
    assert "Not by this trend: the difference is real" in said["flat"]
    assert "Not known: neither the difference nor its trend" in said["twin"]
    assert cli.cli.main(["leaderboard", "--results", str(results)], standalone_mode=False) == 0
    shown = capsys.readouterr().out
    assert "toy_xor: accuracy by the share of the training groups" in shown
    for name, by_share in (board.curve.rows if board.curve else {}).items():
        (line,) = [line for line in shown.splitlines() if line.split()[:1] == [name] and line.count("[") == 3]
        assert line.split()[1::3] == [f"{100 * (by_share[share].clean or 0):.1f}" for share in SHARES]
    assert "training samples" in shown
    assert "Would more data change the order of slow and concat?" in " ".join(shown.split())


def test_a_lead_that_shrinks_is_told_apart(results: Path, tmp_path: Path) -> None:
    for seed in range(3):
        for fuser, qualities in {"concat": (0.2, 0.9, 1.4), "early": (2.6, 2.6, 2.6)}.items():
            for share, quality in zip(SHARES, qualities, strict=True):
                write(tmp_path, fuser, share, quality, seed)
    (found,) = leaderboard.build(store.load(tmp_path), tmp_path, here=None)
    (line,) = curves.answers(found)
    assert "Perhaps: the difference is real and shrinks with more data" in line


def test_the_report_draws_them(board: Board) -> None:
    (picture,) = [p for p in draw(board, "toy", {}) if p.name == "toy-learning"]
    assert set(picture.runs) == {run for rows in (board.curve.rows if board.curve else {}).values()
                                 for row in rows.values() for run in row.runs}  # fmt: skip
    assert "share of the training groups" in picture.svg()


def test_several_shares_are_crossed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", "linear", "-b", "toy_xor", "--train.groups", "0.5,1", "--no-references", "--folds", "1",
             "--seeds", "1", "--results", str(tmp_path), "--no-track", "-j", "1"]  # fmt: skip
    assert cli.cli.main(words, standalone_mode=False) == 0
    assert sorted(r.samples["train"] for r in store.load(tmp_path)) == [60, 120]
    assert "linear (groups=0.5)" in capsys.readouterr().out

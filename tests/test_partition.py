"""Folds that each seed deals again: who is tested where, the seal, the rows and what their verdicts say."""

from __future__ import annotations

import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import fusionbench
from fusionbench import cli, engine, harness, leaderboard, stats, study
from fusionbench.api import Stream, UsageError, group_folds
from fusionbench.harness.fit import Fitter
from fusionbench.jobs import plan_runs
from fusionbench.jobs.local import work
from fusionbench.jobs.plan import cut
from fusionbench.leaderboard.commands import command
from fusionbench.records import Record, compare, publish, store
from fusionbench.records.evidence import Evidence, gather
from fusionbench.records.rows import RowRecords, boards
from fusionbench.records.types import PER_SEED, Predictions

FAST = ["--train.steps", "12", "--train.interval", "6", "--train.lr", "3e-3", "--no-track"]
TRAIN = {"steps": 12, "interval": 6, "lr": (3e-3,)}


def fusionbench_(*words: str) -> int:
    sys.argv = ["fusionbench", *words]
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rows in the partition that all seeds share, and the same two with a partition for each seed."""
    folder = tmp_path_factory.mktemp("dealt") / "results"
    for words in ([], ["--partition", PER_SEED]):
        asked = ["compare", "concat", "gated", "-b", "toy_xor", "--no-references", "--results", str(folder)]
        assert fusionbench_(*asked, *FAST, *words) == 0
    return folder


def records(results: Path, fuser: str = "concat", partition: str = PER_SEED) -> list[Record]:
    return [r for r in store.load(results, "toy_xor", fuser) if r.run.partition == partition]


def test_each_seed_deals_the_groups_anew_and_tests_each_once(results: Path) -> None:
    tested = defaultdict(list)
    for r in records(results):
        kept = store.predictions(results, r.run)
        assert kept is not None
        groups = harness.setup("toy_xor", "concat").data.groups
        dealt = group_folds(groups, 3, r.run.fold, deal=r.run.seed)
        assert set(kept.groups) == {groups[i] for i in dealt.test}
        tested[r.run.seed].append(frozenset(kept.groups))
    assert sorted(tested) == [0, 1]
    for folds in tested.values():
        assert len(folds) == 3
        assert sum(map(len, folds)) == len(frozenset.union(*folds)) == 12
    own = {frozenset(store.evidence(results, r.run).groups) for r in records(results, partition="")}  # type: ignore[union-attr]
    assert len({*own, *tested[0], *tested[1]}) > 6  # no seed deals as the others do


def test_runs_are_others_and_those_of_one_partition_are_what_they_were(results: Path) -> None:
    shared, dealt = records(results, partition=""), records(results)
    assert len(shared) == len(dealt) == 6
    assert not {r.run.id for r in shared} & {r.run.id for r in dealt}
    assert {"partition=per-seed"} <= set(dealt[0].changes)
    assert not [c for r in shared for c in r.changes if "partition" in c]
    for kept in (shared, dealt):
        assert len({r.run.row for r in kept}) == 1


def test_the_same_command_again_does_nothing(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "-f", "concat", "-b", "toy_xor", "--results", str(results), *FAST, "--partition", PER_SEED]
    assert fusionbench_(*words) == 0
    said = capsys.readouterr()
    assert "all 6 runs are on disk" in said.err
    assert said.out.startswith("toy_xor (partition per-seed): accuracy in %")


def test_what_a_seed_tests_it_never_sees(tmp_path: Path) -> None:
    setup = harness.setup("toy_xor", "concat", given={"train": TRAIN}, partition=PER_SEED)
    run = setup.run(1, 1)
    splits = harness.splits_of(setup, setup.data, run)
    sides = [{setup.data.groups[i] for i in getattr(splits, side)} for side in ("train", "val", "test")]
    assert sum(map(len, sides)) == 12
    (whole,) = [e for e in harness.execute(setup, [run], tmp_path, conditions=[]) if isinstance(e, Record)]
    poisoned = harness.setup("toy_xor", "concat", given={"train": TRAIN}, partition=PER_SEED)
    test = torch.from_numpy(splits.test)
    streams = {}
    for m, stream in setup.data.streams.items():
        x = stream.x.clone()  # type: ignore[union-attr]
        x[test] = torch.nan
        streams[m] = Stream(x, stream.mask)  # type: ignore[union-attr]
    poisoned.dataset._prepared = replace(poisoned.prepared, data=replace(setup.data, streams=streams))
    members = [harness.member_of(setup.recipe, run, harness.splits_of(poisoned, poisoned.data, run), 3e-3)]
    events = engine.train(poisoned.blueprint, members, poisoned.data, poisoned.recipe)
    (trained,) = [e for e in events if isinstance(e, engine.Trained)]
    saved = store.weights(tmp_path, whole.run)
    assert saved is not None
    assert all(torch.equal(saved[name], value) for name, value in trained.weights.items())


def test_settings_of_an_estimator_are_chosen_by_each_seed_in_its_own_folds() -> None:
    setup = harness.setup("toy_xor", "linear", partition=PER_SEED)
    fitter = Fitter(setup, setup.data)
    for seed in (0, 1):
        fitter.choose(setup.run(0, seed))
    assert set(fitter.chosen) == {(0, 0), (0, 1)}  # by the validation people of each deal


def test_rows_of_different_partitions_stand_on_different_boards(results: Path) -> None:
    found = leaderboard.build(list(store.load(results)), results)
    assert sorted(board.title for board in found) == ["toy_xor", "toy_xor (partition per-seed)"]
    for board in found:
        assert {row.label.partition(" ")[0] for row in board.rows} == {"concat", "gated"}
        assert "toy_xor has 2 tables, which differ in partition" in board.notes[0]
        (verdict,) = [row.verdicts["score"] for row in board.rows if row.verdicts]
        said = stats.describe(verdict, 100)
        text = leaderboard.render(board)
        if board.title == "toy_xor":
            assert "; given these training sets (over folds: unadjusted p" in said
            assert "given these training sets" in text
        else:
            assert said.endswith("; over re-dealt training sets of these 12 people")
            assert "over re-dealt training sets of these 12 people" in text
            assert "given these" not in text
    row = next(row for board in found if "per-seed" in board.title for row in board.rows if row.fuser == "concat")
    assert "--partition per-seed" in command(row.records)
    assert row.records.family == "recipes"  # for its steps; the partition is the board's
    plain = [replace(r, changes=["partition=per-seed"]) for r in row.records.records]
    assert RowRecords(plain).family == "default rows"


def test_its_records_are_published_and_made_again(results: Path, tmp_path: Path) -> None:
    before = {r.run.id: r.scores for r in store.load(results)}
    publish.publish(results, "toy_xor")
    clone = tmp_path / "clone"
    for path in [*results.rglob("records.jsonl"), *results.rglob("evidence.npz")]:
        copy = clone / path.relative_to(results)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    assert {r.run.id: r.scores for r in store.load(clone)} == before
    tables = [
        [leaderboard.render(board) for board in leaderboard.build(list(store.load(folder)), folder)]
        for folder in (results, clone)
    ]
    assert tables[0] == tables[1]
    (old,) = [r for r in records(results) if (r.run.fold, r.run.seed) == (1, 1)]
    assert harness.reproduce(old).scores["clean"]["accuracy"] == old.scores["clean"]["accuracy"]
    (other,) = [r for r in records(results, partition="") if (r.run.fold, r.run.seed) == (1, 1)]
    said = compare.diff(other, old)
    assert said[0] == "partition: one for all seeds against per-seed."
    assert said[-1].startswith("The scores are not comparable")


def test_a_job_carries_it(tmp_path: Path) -> None:
    setup = harness.setup("toy_xor", "concat", given={"train": TRAIN}, partition=PER_SEED)
    plan = plan_runs(setup, setup.runs([0], [1]), tmp_path, [])
    (job,) = [job for job, _ in cut([plan], tmp_path, 1, torch.device("cpu"))]
    outcome = work(job)
    assert not outcome.failures, outcome.failures
    assert [r.run.id for r in outcome.records] == [setup.run(0, 1).id]
    assert plan_runs(setup, setup.runs([0], [1]), tmp_path, []).todo == 0


def test_where_folds_are_not_dealt_by_group_it_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    person = np.arange(48) // 4
    arrays = {"x_a": rng.standard_normal((48, 3)), "x_b": rng.standard_normal((48, 2)), "y": np.arange(48) % 2}
    for name, more in {
        "sides": {"split": np.where(person < 3, "test", np.where(person < 6, "val", "train"))},
        "numbered": {"fold": person % 4},
    }.items():
        np.savez(tmp_path / f"{name}.npz", group=person, **arrays, **more)
        words = ["run", "-f", "concat", "-b", str(tmp_path / f"{name}.npz"), "--results", str(tmp_path / "r"), *FAST]
        assert fusionbench_(*words, "--partition", PER_SEED) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "has a split of its own" in said
        assert "leave --partition per-seed out" in said
    assert not list((tmp_path / "r").rglob("*.json"))
    assert fusionbench_("run", "-f", "concat", "-b", "toy_xor", "--partition", "daily") == 2
    assert "'daily' is not 'per-seed'" in capsys.readouterr().err
    asked = ["run", "-f", "concat", "-b", "toy_xor", "--tuned", "--partition", PER_SEED]
    assert fusionbench_(*asked, "--results", str(tmp_path / "r")) == 2
    assert "leave --tuned or --partition out" in capsys.readouterr().err
    with pytest.raises(UsageError, match="no partition is called 'daily'"):
        harness.setup("toy_xor", "concat", partition="daily")


def test_from_python_and_from_a_study_file(results: Path, tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    file.write_text('fusers = ["concat"]\nbenchmarks = ["toy_xor"]\npartition = "per-seed"\n')
    assert [setup.partition for setup, _ in replace(study.read(file), references=False).setups()] == [PER_SEED]
    file.write_text('fusers = ["concat"]\nbenchmarks = ["toy_xor"]\npartition = "daily"\n')
    with pytest.raises(UsageError, match="partition is 'per-seed', or left out, not 'daily'"):
        study.read(file)
    found = fusionbench.run(
        "concat", "toy_xor", results=results, given={"train": TRAIN}, track=False, partition=PER_SEED
    )
    assert {r.run.id for r in found} == {r.run.id for r in records(results)}


# ---------------------------------------------------------------------------------------------------------- statistics


def dealt(rng: np.random.Generator, seeds: tuple[int, ...], edge: float = 0.0) -> list[tuple[int, int, Evidence]]:
    """The runs of a row whose seeds deal twelve groups into three folds; absolute errors of 6 samples a group."""
    names = [f"p{g:02d}" for g in range(12)]
    runs = []
    for seed in seeds:
        for fold in range(3):
            groups = np.repeat([names[i] for i in group_folds(names, 3, fold, deal=seed).test], 6)
            y = np.zeros((len(groups), 1, 1))
            answers = (0.5 + edge + 0.1 * rng.standard_normal(y.shape)).astype(np.float32)
            kept = Predictions(groups, groups, y, np.ones(y.shape[:2], bool), {"clean": answers})
            runs.append((seed, fold, gather(kept)))
    return runs


def table(runs: list[tuple[int, int, Evidence]]) -> stats.Table:
    return stats.tables(runs, "mae", repartitioned=True)["clean"]


def test_groups_that_are_tested_in_other_folds_by_other_seeds_are_one_table() -> None:
    rng = np.random.default_rng(5)
    a, b = table(dealt(rng, (0, 1, 4), edge=0.03)), table(dealt(rng, (0, 1, 4)))
    assert a.partitions == (0, 1, 4)
    assert (a.fold == -1).any()  # several folds test a group
    found = stats.difference(a, b)
    assert found.repartitioned
    assert found.p_folds is None  # a fold is no longer the same groups
    own = [t.values(np.eye(12)) for t in (a, b)]  # (G, R): with equal groups the metric is the mean of their own
    values = (own[0] - own[1]).T  # pairs of a seed: the same training groups
    runs, people = values.mean(1), values.mean(0)
    rest = values - runs[:, None] - people + values.mean()
    residual = (rest**2).sum() / (2 * 11) / (3 * 12)
    s, p = runs.var(ddof=1) / 3, people.var(ddof=1) / 12
    assert found.value == pytest.approx(values.mean())
    assert found.variance == pytest.approx(s + max(p - residual, 0))
    assert found.sources is not None
    assert len(found.sources.seeds) == 1  # of the difference of two runs, training sets included
    with pytest.raises(UsageError, match="does not cover the same folds and people"):
        stats.tables(dealt(rng, (0, 1)), "mae")  # as if all shared one partition


def test_rows_whose_seeds_dealt_otherwise_are_not_compared() -> None:
    rng = np.random.default_rng(6)
    a = table(dealt(rng, (0, 1)))
    for other in (table(dealt(rng, (0, 2))), table(dealt(rng, (0, 1, 2))), replace(a, partitions=())):
        assert "need the same two seeds or more" in stats.difference(a, other).reason
    (verdict,) = stats.family({"ref": a, "other": table(dealt(rng, (0, 2)))}, "ref").values()
    assert verdict.decision == "untested"


def test_a_row_of_another_partition_is_another_row(results: Path) -> None:
    rows = [row for board in boards(list(store.load(results))) for row in board.rows if row.first.run.fuser == "concat"]
    assert len(rows) == 2
    assert all(len({r.run.partition for r in row.records}) == 1 and row.complete for row in rows)

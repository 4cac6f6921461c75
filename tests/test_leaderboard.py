"""Ranked tables from records: what stands where, what is tested, what is said, and that it is quick."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionbench import leaderboard, metrics, registry, stats, text
from fusionbench.conditions import Condition
from fusionbench.errors import UsageError
from fusionbench.leaderboard import columns, statistics, values
from fusionbench.leaderboard.columns import known as columns_of
from fusionbench.leaderboard.columns import ordered
from fusionbench.records import Predictions, Record, Run, store
from fusionbench.records.rows import ranking_damage

MODALITIES = ("acc", "gyro")
PEOPLE, EACH, CLASSES, FOLDS = 12, 8, 3, 2
DAMAGE = ("missing:acc", "missing:gyro", *(f"noise:{t}:{s}" for t in ("acc", "all") for s in range(1, 4)))


def code_of(name: str, kind: str = "fusers") -> str:
    """The fingerprint of the plugin that is here, so that its rows are not of other code; any for one that is not."""
    return registry.fingerprint_here(kind, name) or f"{name}-1"


BENCHMARK = code_of("watch", "benchmarks")
ENCODERS = {f"backbone.{m}": code_of("linear", "backbones") for m in MODALITIES}


def write(
    results: Path,
    fuser: str,
    quality: float = 2.0,
    *,
    kind: str = "classify",
    seeds: Iterable[int] = (0, 1),
    folds: Iterable[int] = range(FOLDS),
    stream: str | None = None,
    conditions: Iterable[str] = DAMAGE,
    answers: bool = True,
    fuser_settings: Mapping[str, Any] | None = None,
    benchmark: str = "watch",
    **how: Any,
) -> list[Record]:
    """One row: answers of this quality (damage takes a share of it), by the noise of `stream` (its name by default)."""
    names = ("accuracy", "macro_f1") if kind == "classify" else ("ccc", "mae")
    data = np.random.default_rng(5)
    people = np.repeat([f"p{g:02d}" for g in range(PEOPLE)], EACH)
    ids = np.array([f"{p}-{i % EACH}" for i, p in enumerate(people)])
    y = data.integers(0, CLASSES, (len(ids), 1)) if kind == "classify" else data.standard_normal((len(ids), 2, 2))
    signal = np.eye(CLASSES)[y] if kind == "classify" else y
    mask = np.ones(y.shape[:2], bool)
    fold_of = np.repeat(np.arange(PEOPLE) % FOLDS, EACH)
    settings = {"benchmark": {}, "train": {"lr": [1e-3]}, "fuser": {"width": 8, **(fuser_settings or {})}}
    made = []
    for fold in folds:
        for seed in seeds:
            rng = np.random.default_rng([fold, seed, *map(ord, stream or fuser + str(fuser_settings))])
            run = Run(benchmark, fuser, dict.fromkeys(MODALITIES, "linear"), fold, seed, settings)
            mine, noise = fold_of == fold, rng.standard_normal(signal.shape)
            shares = {"clean": 1.0}
            for condition in map(Condition.parse, conditions):
                shares[str(condition)] = 0.5 if condition.name == "missing" else 1 - 0.2 * condition.level
            kept = {c: (quality * s * signal + noise)[mine].astype(np.float32) for c, s in shares.items()}
            scores = {c: metrics.evaluate(names, a, y[mine], mask[mine]) for c, a in kept.items()}
            constant = np.broadcast_to(np.eye(signal.shape[-1])[0], signal[mine].shape)
            scores["chance"] = metrics.evaluate(names, constant, y[mine], mask[mine])
            fields: dict[str, Any] = {
                "code": {"benchmark": BENCHMARK, "fuser": code_of(fuser), **ENCODERS},
                "data": "d1", "protocol": 1, "metrics": list(names), "scores": scores,
                "chosen": {"lr": 1e-3, "step": 10.0, "validation": scores["clean"][names[0]]},
                "seconds": {"train": 3.0 + fold, "evaluate": 0.5}, "parameters": {"allocated": 2000, "trained": 1500},
                "changes": [f"fuser.{k}={v}" for k, v in (fuser_settings or {}).items()],
                "complete": {"folds": FOLDS, "seeds": 2}, "device": "box", "created": "2026-01-01T00:00:00+00:00",
            }  # fmt: skip
            made.append(Record(run, "done", **{**fields, **how}))
            store.save(results, made[-1], Predictions(ids[mine], people[mine], y[mine], mask[mine], kept), None)
            if not answers:
                store.path_of(results, run).with_suffix(".npz").unlink()
    return made


def boards(results: Path, **how: Any) -> list[leaderboard.Board]:
    return leaderboard.build(store.load(results), results, **how)


def only(results: Path, **how: Any) -> leaderboard.Board:
    (board,) = boards(results, **how)
    return board


def value(board: leaderboard.Board, label: str, name: str) -> Any:
    """What a column says of a ranked row."""
    return columns_of(board)[name].value(board, board.row(label))


def labels(board: leaderboard.Board, sort: str | None = None) -> list[str]:
    """The fusers of the table from top to bottom, the line of chance included."""
    lines = leaderboard.render(board, "markdown", sort=sort, columns=["fuser"]).splitlines()
    first = [line.split("|")[1].strip().replace("\\", "") for line in lines if line.startswith("|")]
    return [name for name in first if name != "fuser" and set(name) - set(":-")]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The references and three fusers, one of which is much better and one a copy of concat."""
    results, seeds = tmp_path_factory.mktemp("study"), range(3)
    write(results, "concat", 1.5, seeds=seeds)
    write(results, "copy", 1.5, stream="concat" + "None", seeds=seeds)
    write(results, "jmt", 4.0, marks=["reconstruction"], seeds=seeds)
    write(results, "late_average", 1.4, seeds=seeds)
    for m, quality in zip(MODALITIES, (1.0, 0.5), strict=True):
        write(results, "unimodal", quality, fuser_settings={"modality": m}, seeds=seeds)
    return results


def test_scores_are_pooled_over_folds_and_averaged_over_seeds(study: Path) -> None:
    board = only(study)
    row = board.row("jmt")
    parts: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {0: [], 1: [], 2: []}
    damaged: dict[Condition, list[float]] = {}
    for r in store.load(study, fuser="jmt"):
        kept = store.predictions(study, r.run)
        assert kept is not None
        parts[r.run.seed].append((kept.answers["clean"][:, 0], kept.y[:, 0]))
        for c in DAMAGE:
            damaged.setdefault(Condition.parse(c).family, []).append(r.scores[c]["accuracy"] or 0)
    by_seed = [
        metrics.get("accuracy").of(*(np.concatenate(side) for side in zip(*p, strict=True))) for p in parts.values()
    ]
    assert row.clean == pytest.approx(np.mean(by_seed))
    # Folds are of equal size here, so that the mean of their accuracies is the pooled one.
    assert row.damaged == pytest.approx(np.mean([np.mean(v) for v in damaged.values()]))
    assert value(board, "jmt", "noise:acc") == pytest.approx(np.mean(damaged[Condition.parse("noise:acc")]))
    low, high = row.bounds("score")
    assert low is not None
    assert high is not None
    assert low < row.clean < high
    assert row.robustness.drop == pytest.approx(row.clean - row.damaged)


def test_every_corruption_has_a_damaged_score_of_its_own(study: Path) -> None:
    board = only(study)
    row = board.row("jmt")
    noise = [row.conditions[c] for c in board.damage if c.name == "noise"]
    assert value(board, "jmt", "noise").value == pytest.approx(np.mean(noise))  # the families are of equal size
    missing = [row.conditions[c] for c in board.damage if c.name == "missing"]
    assert value(board, "jmt", "missing").value == pytest.approx(np.mean(missing))
    assert value(board, "jmt", "noise").low < value(board, "jmt", "noise").value
    assert ordered(board, "missing")[0].label == "jmt"


def test_the_damaged_score_has_the_interval_and_the_test_of_a_mean_of_tables(study: Path) -> None:
    """A mean of accuracies over conditions is the accuracy over all conditions' answers, each worth its share."""
    row = only(study).row("jmt")

    def cells(condition: str) -> list[stats.Cell]:
        found = []
        for r in row.records.used:
            kept = store.predictions(study, r.run)
            assert kept is not None
            arrays = kept.groups, kept.answers[condition], kept.y, kept.y_mask
            found.append(stats.Cell(r.run.seed, r.run.fold, *arrays))
        return found

    levels = [[stats.tabulate(cells(f"noise:acc:{s}"), "accuracy") for s in range(1, 4)]]
    merged = [
        replace(a, groups=np.tile(a.groups, 3), pred=np.concatenate([a.pred, b.pred, c.pred]),
                y=np.tile(a.y, (3, 1)), y_mask=np.tile(a.y_mask, (3, 1)))
        for a, b, c in zip(*(cells(f"noise:acc:{s}") for s in range(1, 4)), strict=True)
    ]  # fmt: skip
    mine, theirs = statistics.mean_table(levels), stats.tabulate(merged, "accuracy")
    np.testing.assert_allclose(mine.scores, theirs.scores)
    np.testing.assert_allclose(mine.pseudo, theirs.pseudo)
    np.testing.assert_allclose(mine.by_fold, theirs.by_fold)
    assert stats.interval(mine, "accuracy")[:3] == pytest.approx(stats.interval(theirs, "accuracy")[:3])


def test_the_damaged_score_orders_and_places_come_from_all_pairs_of_default_rows(study: Path) -> None:
    board = only(study)
    assert board.measure == "damaged"
    assert labels(board)[0] == "jmt†"
    jmt, concat, copy = (board.row(label).places["damaged"] for label in ("jmt", "concat", "copy"))
    assert (jmt.low, jmt.high, jmt.tier) == (1, 1, 1)
    assert (concat.low, concat.high) == (copy.low, copy.high) == (2, 4)
    assert concat.tier == copy.tier == 2
    assert board.row("unimodal (gyro)").places == {}, "single modalities are a family of their own"
    assert sorted(labels(board, "seconds")) == sorted(labels(board))
    assert "best first by the score column" in leaderboard.render(board, sort="score")
    assert "default rows (3), single modalities (2)" in leaderboard.render(board)


def test_a_verdict_stands_with_its_numbers_and_both_its_tests(study: Path) -> None:
    board = only(study)
    found = board.row("jmt").verdicts["damaged"]
    assert found.decision == "better"
    assert found.difference == pytest.approx(board.row("jmt").damaged - board.row("concat").damaged)
    assert (value(board, "jmt", "p"), value(board, "jmt", "p-folds")) == (found.adjusted, found.p_folds)
    assert board.row("concat").verdicts == {}
    assert "typically a true difference of" in leaderboard.render(board)
    assert " better" in leaderboard.render(board, columns=["difference", "p", "p-folds"])


def test_a_row_of_another_family_moves_no_p_and_no_place(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study, tmp_path / "r")
    write(tmp_path / "r", "jmt", 2.0, fuser_settings={"width": 9}, seeds=range(3))
    before, after = only(study), only(tmp_path / "r")
    assert after.row("jmt (width=9)").verdicts["damaged"].family == "recipes"
    for row in before.ranked:
        again = after.row(row.label)
        assert (again.verdicts, again.places) == (row.verdicts, row.places)


def test_two_copies_of_one_fuser_are_not_called_different(study: Path) -> None:
    board = only(study)
    assert board.row("copy").verdicts["damaged"].decision == "undecided"
    assert "copy is" not in "".join(leaderboard.verdicts(board))


def test_a_sentence_says_what_its_verdict_says(study: Path) -> None:
    board = only(study)
    found = leaderboard.findings(board)
    assert {f.measure for f in found} == {"score", "damaged"}
    assert len(found) == 2 * 5
    lines = leaderboard.verdicts(board)
    for finding, line in zip(found, lines, strict=False):
        assert leaderboard.sentence(board, finding.verdict) in line
        significant = f" is {finding.verdict.decision} than concat" in line
        assert significant == finding.is_significant
    assert any("jmt is better than concat by" in line for line in lines)


def test_whether_fusion_helps_is_said_from_the_modalities_alone(study: Path, tmp_path: Path) -> None:
    line, forest = leaderboard.helps(only(study))
    assert "Fusion helps: jmt is better than unimodal (acc) by" in line
    assert "both chosen on validation in each fold" in line
    assert "fusionbench compare unimodal_forest -b watch" in forest
    write(tmp_path, "concat", 1.0)
    write(tmp_path, "unimodal", 1.0, fuser_settings={"modality": "acc"}, stream="concat" + "None")
    line, rest, _ = leaderboard.helps(only(tmp_path))
    assert "Whether fusion helps is undecided: concat against unimodal (acc) is undecided: +0" in line
    assert "no complete row of gyro alone" in rest
    shutil.rmtree(tmp_path / "watch" / "unimodal")
    assert "not known" in leaderboard.helps(only(tmp_path))[0]


def test_the_best_modality_is_chosen_on_validation(tmp_path: Path) -> None:
    write(tmp_path, "concat")
    write(tmp_path, "unimodal", 3.0, fuser_settings={"modality": "acc"}, chosen={"lr": 1e-3, "validation": 0.4})
    write(tmp_path, "unimodal", 1.0, fuser_settings={"modality": "gyro"}, chosen={"lr": 1e-3, "validation": 0.6})
    assert "unimodal (gyro)" in leaderboard.helps(only(tmp_path))[0]


def test_rows_that_lack_something_stand_last_and_are_not_ranked(tmp_path: Path) -> None:
    write(tmp_path, "concat")
    write(tmp_path, "few", 9.0, seeds=[0])
    write(tmp_path, "half", 9.0, folds=[0])
    write(tmp_path, "hasty", 9.0, marks=["quick"], seeds=[0], folds=[0])
    write(tmp_path, "broken", 9.0, seeds=[0, 1, 2])
    broken = [r for r in store.load(tmp_path, fuser="broken") if r.run.seed == 2]
    for r in broken:
        store.path_of(tmp_path, r.run).with_suffix(".npz").unlink()
        store.save(tmp_path, replace(r, status="failed", error="loss is NaN", scores={}), None, None)
    board = only(tmp_path)
    assert labels(board) == [
        "broken (2 failed)", "concat", "chance (no input)", "few (incomplete: 1 of 2 seeds)",
        "half (incomplete: 1 of 2 folds)", "hasty (quick)",
    ]  # fmt: skip
    assert [row.label for row in board.rows if row.verdicts] == ["broken"]
    shown = leaderboard.render(board)
    assert "not ranked" in shown
    assert shown.index("Quick tries") < shown.index("hasty (quick)"), "they never stand among ranked rows"
    assert value(board, "broken", "failed") == 2
    assert all("few" not in line for line in leaderboard.verdicts(board))


def test_a_row_of_failures_alone_is_shown_without_a_score(tmp_path: Path) -> None:
    write(tmp_path, "concat")
    for r in write(tmp_path, "wild", answers=False):
        store.save(tmp_path, replace(r, status="failed", error="loss is NaN", scores={}), None, None)
    assert labels(only(tmp_path))[-1] == "wild (failed)"


def test_older_code_is_marked_and_not_ranked(tmp_path: Path) -> None:
    code = {"benchmark": BENCHMARK, **ENCODERS}
    write(tmp_path, "concat")
    old = write(tmp_path, "jmt", code={**code, "fuser": "old"}, fuser_settings={"width": 8})
    changed = {"width": 9}
    write(tmp_path, "jmt", code={**code, "fuser": "new"}, fuser_settings=changed, created="2026-02-01T00:00:00+00:00")
    board = only(tmp_path)
    assert labels(board)[-1] == "jmt (width=8) (older code)"
    assert {row.label for row in board.rows if row.ranked} == {"concat", "jmt (width=9)"}
    # A backbone that was edited makes every row older that was trained with what it was before.
    newer = {**code, "fuser": "new", "backbone.acc": "l2", "backbone.gyro": "l2"}
    write(tmp_path, "jmt", code=newer, fuser_settings={"width": 10}, created="2026-03-01T00:00:00+00:00")
    assert [row.label for row in only(tmp_path).rows if row.ranked] == ["jmt (width=10)"]
    assert len(old) == 4


def test_labels_are_short_and_unique(tmp_path: Path) -> None:
    write(tmp_path, "jmt")
    write(tmp_path, "jmt", fuser_settings={"width": 9})
    write(tmp_path, "jmt", fuser_settings={"depth": 2}, changes=["fuser.depth=2", "backbone.acc=gru", "benchmark.n=3"])
    write(tmp_path, "unimodal", fuser_settings={"modality": "acc"})
    found = {row.label for row in only(tmp_path).rows}
    assert found == {"jmt", "jmt (width=9)", "jmt (depth=2, acc=gru)", "unimodal (acc)"}


def test_the_same_words_with_other_settings_are_told_apart(tmp_path: Path) -> None:
    """A default has changed: the older row is not what the command would make today."""
    write(tmp_path, "jmt", fuser_settings={"depth": 1}, changes=[])
    write(tmp_path, "jmt", fuser_settings={"depth": 2}, changes=[], created="2026-02-01T00:00:00+00:00")
    board = only(tmp_path)
    assert sorted((row.name, row.ranked) for row in board.rows) == [("jmt", True), ("jmt (older defaults)", False)]
    assert board.row("jmt").records.first.run.hparams["fuser"]["depth"] == 2


def test_labels_that_would_be_the_same_are_spelled_out(tmp_path: Path) -> None:
    for part in ("fuser", "train"):
        write(tmp_path, "jmt", fuser_settings={part: 1}, changes=[f"{part}.size=2"])
    assert {row.label for row in only(tmp_path).rows} == {"jmt (fuser.size=2)", "jmt (train.size=2)"}


def test_a_table_writes_nothing_and_follows_the_answers(tmp_path: Path) -> None:
    made = write(tmp_path, "concat") + write(tmp_path, "jmt", 1.0)
    before = sorted(tmp_path.rglob("*"))
    first = leaderboard.render(only(tmp_path), "json")
    assert sorted(tmp_path.rglob("*")) == before
    kept = store.predictions(tmp_path, made[-1].run)
    assert kept is not None
    store.save(tmp_path, made[-1], replace(kept, answers={c: -a for c, a in kept.answers.items()}), None)
    assert leaderboard.render(only(tmp_path), "json") != first


def test_answers_that_contradict_the_records_bear_no_test(tmp_path: Path) -> None:
    made = write(tmp_path, "concat")
    kept = store.predictions(tmp_path, made[0].run)
    assert kept is not None
    store.save(tmp_path, made[0], replace(kept, y_mask=np.zeros_like(kept.y_mask)), None)
    assert "No usable stored answers of concat" in leaderboard.render(only(tmp_path))


def test_a_tuned_row_is_one_row_though_its_settings_vary_by_fold(tmp_path: Path) -> None:
    write(tmp_path, "jmt")
    for r in write(tmp_path, "jmt", fuser_settings={"width": 9}):
        for end in (".json", ".npz"):
            store.path_of(tmp_path, r.run).with_suffix(end).unlink()
        run = replace(r.run, tuned="30 trials, 8f2e", hparams={**r.run.hparams, "fuser": {"width": 9 + r.run.fold}})
        store.save(tmp_path, replace(r, run=run, changes=["tuned=30 trials, 8f2e"]), None, None)
    board = only(tmp_path)
    assert {(row.label, row.ranked) for row in board.rows} == {("jmt", True), ("jmt (tuned)", True)}
    shown = leaderboard.render(board, columns=["settings"])
    assert {tuple(line.split()[-2:]) for line in shown.splitlines()[4:6]} == {("jmt", "default"), ("30", "trials")}
    assert "the difference is also the tuning's" in shown
    assert board.row("jmt (tuned)").records.family == "tuned rows"
    write(tmp_path / "plain", "jmt")
    assert "settings" not in columns_of(only(tmp_path / "plain"))


def test_what_must_not_be_mixed_has_tables_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, "concat")
    write(tmp_path, "jmt", protocol=2, created="2026-02-01T00:00:00+00:00")
    write(tmp_path, "film", data="d2", created="2025-02-01T00:00:00+00:00")
    write(tmp_path, "concat", benchmark="affect_sim", kind="regress")
    found = boards(tmp_path)
    assert [(b.benchmark, b.protocol, b.data) for b in found] == [
        ("affect_sim", 1, "d1"), ("watch", 2, "d1"), ("watch", 1, "d1"), ("watch", 1, "d2"),
    ]  # fmt: skip
    assert found[0].notes == []
    (note,) = found[1].notes
    assert note.startswith("watch has 3 tables, which differ in protocol and data; this one is the newest.")
    assert "never averaged or compared" in note
    assert all("never averaged" in leaderboard.render(b) for b in found[1:])
    assert [len(b.rows) for b in found] == [1, 1, 1, 1]


def test_settings_of_the_benchmark_make_another_table(tmp_path: Path) -> None:
    write(tmp_path, "concat")
    for r in write(tmp_path, "jmt"):
        shutil.rmtree(tmp_path / "watch" / "jmt", ignore_errors=True)
        run = replace(r.run, hparams={**r.run.hparams, "benchmark": {"people": 5}})
        store.save(tmp_path, replace(r, run=run, changes=["benchmark.people=5"]), None, None)
    assert sorted(b.title for b in boards(tmp_path)) == ["watch", "watch (people=5)"]


def test_without_stored_answers_there_is_a_mean_and_a_footnote(tmp_path: Path) -> None:
    write(tmp_path, "concat")
    made = write(tmp_path, "jmt", answers=False)
    board = only(tmp_path)
    row = board.row("jmt")
    assert row.clean == pytest.approx(np.mean([r.scores["clean"]["accuracy"] or 0 for r in made]))
    assert row.bounds("score") == (None, None)
    assert row.places == row.verdicts == {}
    assert "No usable stored answers of jmt" in leaderboard.render(board)


def test_seeds_that_are_unfinished_do_not_count(tmp_path: Path) -> None:
    whole = write(tmp_path, "concat", seeds=[0, 1])
    before = only(tmp_path).row("concat").clean
    write(tmp_path, "concat", quality=9.0, seeds=[2], folds=[0])
    row = only(tmp_path).row("concat")
    assert row.clean == before
    assert sorted(row.runs) == sorted(r.run.id for r in whole)


def test_robustness_needs_the_same_damage_for_all(tmp_path: Path) -> None:
    write(tmp_path, "concat")
    write(tmp_path, "film")
    write(tmp_path, "jmt", conditions=["noise:acc:1"])
    write(tmp_path, "moe", conditions=[*DAMAGE, "gap:all:1", "missing:acc+gyro"])
    board = only(tmp_path)
    assert set(map(str, board.damage)) == set(DAMAGE)
    assert board.row("jmt").damaged is None
    assert "damaged" not in board.row("jmt").places
    assert "without a damaged score: jmt." in leaderboard.render(board)
    assert board.row("moe").damaged is not None
    assert value(board, "concat", "rce") == pytest.approx(1.0)


def test_lattices_of_missing_modalities_do_not_rank(tmp_path: Path) -> None:
    write(tmp_path, "concat", conditions=["missing:acc", "missing:acc+gyro"])
    assert ranking_damage([row.records for row in only(tmp_path).rows]) == [Condition("missing", ("acc",))]


def test_regret_is_the_gap_to_what_is_reachable(tmp_path: Path) -> None:
    best = {"clean": 0.99, "noise:acc:1": 0.9, "noise:acc:2": 0.8, "noise:all:1": 0.7}
    made = write(tmp_path, "concat", kind="regress", best=best)
    board = only(tmp_path)
    gap = {c: np.mean([best[c] - (r.scores[c]["ccc"] or 0) for r in made]) for c in best}
    assert value(board, "concat", "regret") == pytest.approx(gap["clean"])
    expected = np.mean([np.mean([gap["noise:acc:1"], gap["noise:acc:2"]]), gap["noise:all:1"]])
    assert value(board, "concat", "regret-damaged") == pytest.approx(expected)


def test_errors_rank_with_the_lowest_on_top(tmp_path: Path) -> None:
    write(tmp_path, "concat", 0.2, kind="regress", metrics=["mae"])
    write(tmp_path, "jmt", 1.0, kind="regress", metrics=["mae"])
    write(tmp_path, "film", 0.2, kind="regress", metrics=["mae"], stream="jmt" + "None")
    board = only(tmp_path)
    values = [board.row(label).damaged or 0.0 for label in labels(board)[:3]]
    assert values == sorted(values)
    assert board.row(labels(board)[0]).places["damaged"].low == 1
    (line,) = [x for x in csv.DictReader(io.StringIO(leaderboard.render(board, "csv", columns=["worst"])))][:1]
    shown = leaderboard.render(board, columns=["worst", "score"]).partition("Protocol")[0]
    assert not re.search(r"-\d", shown), "an error is never negative"
    assert line["fuser"] == labels(board)[0]


def test_times_of_another_machine_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, "concat")
    write(tmp_path, "film")
    write(tmp_path, "jmt", device="other box")
    board = only(tmp_path)
    assert value(board, "jmt", "seconds") is None
    assert value(board, "concat", "seconds") == 3.5
    assert "Seconds and ms on box" in leaderboard.render(board)


def test_measured_costs_become_columns(tmp_path: Path) -> None:
    costs = {"flops": 3_000_000.0, "latency": 0.004, "latency_batch": 7.5, "batch": 96.0, "memory": 5 * 2**20}
    write(tmp_path, "concat", costs=costs)
    write(tmp_path, "film", costs={**costs, "flops": None})
    write(tmp_path, "jmt", costs={**costs, "latency": 0.003}, device="other box")
    board = only(tmp_path)
    shown = leaderboard.render(board, columns=["flops", "latency", "latency-batch", "memory"])
    lines = {
        line.split()[0]: line.split()[1:] for line in shown.splitlines()[3:] if line.startswith(("con", "fil", "jm"))
    }
    assert lines == {
        "concat": ["3M", "0.004", "7.5", "5", "MB"],
        "film": ["n/a", "0.004", "7.5", "5", "MB"],
        "jmt": ["3M", "-", "-", "-"],
    }
    assert board.batch == 96
    assert [row.fuser for row in ordered(board, "flops")][-1] == "film", "what is not known stands last"


def test_columns_without_values_are_absent(study: Path) -> None:
    assert "regret" not in columns_of(only(study))
    some = {"place", "fuser", "score", "damaged", "difference", "retained", "worst", "break-even", "parameters"}
    assert some <= set(columns_of(only(study)))


@pytest.mark.parametrize("fmt", list(leaderboard.FORMATS))
def test_every_format_names_every_row_and_is_the_same_twice(study: Path, fmt: str) -> None:
    text = leaderboard.render(only(study), fmt)
    assert text == leaderboard.render(leaderboard.build(list(store.load(study))[::-1], study)[0], fmt)
    assert text.endswith("\n")
    for label in ("concat", "jmt", "late_average", "unimodal (gyro)"):
        assert label in text.replace("\\", "")
    if fmt != "csv":
        assert "Holm" in text
        assert re.search(r"[Pp]rotocol\W+1", text)


def test_the_numbers_of_every_format_agree(study: Path) -> None:
    board = only(study)
    score = board.row("jmt").clean
    (line,) = [x for x in csv.DictReader(io.StringIO(leaderboard.render(board, "csv"))) if x["fuser"] == "jmt"]
    assert float(line["score"]) == score
    content = json.loads(leaderboard.render(board, "json"))
    assert next(row for row in content["rows"] if row["fuser"] == "jmt")["score"] == score
    for fmt in ("table", "markdown", "latex", "html"):
        assert f"{100 * score:.1f}" in leaderboard.render(board, fmt)


def test_markdown_is_a_table_of_equal_cells(study: Path) -> None:
    lines = [x for x in leaderboard.render(only(study), "markdown").splitlines() if x.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert set(lines[1]) <= set("|:- ")


def test_html_closes_what_it_opens_and_escapes(tmp_path: Path) -> None:
    write(tmp_path, "concat", fuser_settings={"mode": "<b>&"})
    text = leaderboard.render(only(tmp_path), "html")
    opened: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: Any) -> None:
            opened.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert opened.pop() == tag

    Reader().feed(text)
    assert not opened
    assert "<b>" not in text


def test_latex_escapes_what_is_special(tmp_path: Path) -> None:
    write(tmp_path, "concat", fuser_settings={"mode": "50%_$#{~^}\\&"}, marks=["transductive"])
    text = leaderboard.render(only(tmp_path), "latex")
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")]
    assert r"50\%\_\$\#\{\textasciitilde{}\textasciicircum{}\}\textbackslash{}\&" in body
    assert r"\textsuperscript{\ddag}" in body
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert len({len(re.findall(r"(?<!\\)&", row)) for row in rows}) == 1


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles(study: Path, tmp_path: Path) -> None:
    table = leaderboard.render(only(study), "latex", columns=["all"])
    preamble = "\\documentclass{article}\\usepackage{booktabs,graphicx}\\begin{document}\n"
    (tmp_path / "t.tex").write_text(f"{preamble}{table}\\end{{document}}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


def test_several_boards_are_one_text(tmp_path: Path) -> None:
    write(tmp_path, "concat")
    write(tmp_path, "concat", benchmark="affect_sim", kind="regress")
    found = boards(tmp_path)
    assert [b["benchmark"] for b in json.loads(leaderboard.render_all(found, "json"))] == ["affect_sim", "watch"]
    lines = list(csv.DictReader(io.StringIO(leaderboard.render_all(found, "csv"))))
    assert [line["metric"] for line in lines] == ["ccc", "accuracy"]
    assert leaderboard.render_all(found) == "\n".join(map(leaderboard.render, found))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"fmt": "latx"}, "did you mean latex"),
        ({"sort": "damagd"}, "did you mean damaged"),
        ({"sort": "lr"}, "no column to sort watch by"),
        ({"columns": ["scor"]}, "did you mean score"),
    ],
)
def test_an_unknown_word_is_answered_with_the_nearest(study: Path, how: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        leaderboard.render(only(study), **how)


def test_no_records_is_answered_with_the_command_that_makes_some(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fusionbench run --fuser concat"):
        boards(tmp_path)


@pytest.mark.parametrize("wrong", [{"scores": None}, {"metrics": []}, {"marks": "quick"}, {"run": 3}])
def test_a_record_of_the_wrong_shape_is_set_aside_and_the_others_stand(
    tmp_path: Path, wrong: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    made = write(tmp_path, "concat") + write(tmp_path, "jmt")
    path = store.path_of(tmp_path, made[-1].run)
    path.write_text(json.dumps({**json.loads(path.read_text()), **wrong}))
    board = only(tmp_path)
    assert [row.name for row in board.rows if not row.ranked] == ["jmt (incomplete: 1 of 2 seeds)"]
    assert "is damaged" in capsys.readouterr().err
    assert path.with_name(path.name + ".quarantined").is_file()


def test_an_unknown_reference_leaves_the_table_and_says_so(study: Path) -> None:
    board = only(study, reference="nothing")
    assert board.reference is None
    assert any("nothing is compared" in line for line in leaderboard.verdicts(board))
    assert only(study, reference="jmt").reference == "jmt"


def test_beyond_many_rows_there_are_verdicts_but_no_places(study: Path, tmp_path: Path, monkeypatch: Any) -> None:
    shutil.copytree(study, tmp_path / "r")
    monkeypatch.setattr(statistics, "MOST", 3)
    board = only(tmp_path / "r")
    assert all(row.places == {} for row in board.rows)
    assert {row.label for row in board.rows if row.verdicts} == {row.label for row in board.rows} - {"concat"}
    assert "place" not in columns_of(board)


def test_hundreds_of_records_make_a_table_in_seconds_without_heavy_libraries(tmp_path: Path) -> None:
    for number in range(40):
        write(tmp_path, f"fuser{number}", 1 + number / 40, conditions=["noise:acc:1"], seeds=[0, 1])
        # Two folds, two seeds: 160 records; histories as training leaves them.
    write(tmp_path, "concat", history={"0.001": [{"step": 1.0, "loss": 1.0, "score": 0.5}] * 30})
    script = f"""
import sys, time
from pathlib import Path
import numpy
began = time.process_time()
from fusionbench import leaderboard
from fusionbench.records import store
results = Path({str(tmp_path)!r})
print(len(leaderboard.render_all(leaderboard.build(store.load(results), results))))
heavy = [m for m in ("torch", "scipy.stats", "pandas", "matplotlib", "jinja2") if m in sys.modules]
print(time.process_time() - began, *heavy)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    seconds, *heavy = done.stdout.split()[1:]
    assert not heavy
    assert float(seconds) < 7.0  # of CPU, on a busy machine; 40 rows are 820 tests of pairs a measure, and 41 of chance


def test_damage_that_few_rows_were_judged_under_is_a_column_only_if_asked_for(tmp_path: Path) -> None:
    for fuser in ("concat", "gated", "jmt"):
        write(tmp_path, fuser, conditions=[*DAMAGE, *["absent:all"] * (fuser == "concat")])
    board = only(tmp_path)
    assert "fewer than half of the rows were evaluated under absent:all" in leaderboard.render(board).lower()
    assert "absent:all" in leaderboard.render(board, "csv").splitlines()[0]
    assert "absent:all" not in leaderboard.render(board, "markdown", wide=True).splitlines()[2]
    assert "absent:all" in leaderboard.render(board, "markdown", columns=["absent:all"]).splitlines()[2]
    write(tmp_path, "gated", conditions=[*DAMAGE, "absent:all"])
    assert "absent:all" in leaderboard.render(only(tmp_path), "markdown", wide=True).splitlines()[2]


def test_a_new_statistic_is_one_function_and_one_entry(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lead(board: leaderboard.Board, row: leaderboard.Row) -> float | None:
        return None if row.damaged is None or board.chance is None else row.damaged - board.chance

    mine = columns.Column("lead", lead, values.as_change, "metric", "robustness", "Damaged score above chance.")
    monkeypatch.setattr(columns, "COLUMNS", (*columns.COLUMNS, mine))
    board = only(study)
    for fmt in leaderboard.FORMATS:
        assert "lead" in leaderboard.render(board, fmt, columns=["lead"])
    assert labels(board, "lead") == labels(board)
    assert "Damaged score above chance." in leaderboard.explain()


def test_every_metric_and_rate_of_the_records_can_be_a_column(tmp_path: Path) -> None:
    rates = {"noise:acc:1": {"acc": 0.25}, "noise:acc:2": {"acc": 0.5}, "noise:acc:3": {"acc": 0.75}}
    made = write(tmp_path, "concat", rates=rates)
    board = only(tmp_path)
    expected = np.mean([r.scores["clean"]["macro_f1"] or 0 for r in made])
    assert value(board, "concat", "macro_f1") == pytest.approx(expected)
    assert value(board, "concat", "rate:noise:acc") == [0.25, 0.5, 0.75]
    shown = leaderboard.render(board, columns=["fuser", "macro_f1", "macro_f1-damaged", "rate:noise:acc"])
    assert f"{100 * expected:.1f}" in shown
    assert ".25 .50 .75" in shown


def test_headings_are_the_names_of_columns_and_explained(study: Path) -> None:
    board = only(study)
    heading = leaderboard.render(board, wide=True).splitlines()[2].split()
    assert heading == [c.name for c in columns.chosen(board, wide=True)]
    explained = leaderboard.explain(100)
    assert all(column.name in explained and column.explain.endswith(".") for column in columns.COLUMNS)
    assert max(map(len, explained.splitlines())) <= 100
    named = leaderboard.render(board, columns=["tests"]).splitlines()[2].split()
    assert named == ["fuser", *(c.name for c in columns_of(board).values() if c.group == "tests")]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200])
def test_a_table_is_never_wider_than_the_terminal(study: Path, tmp_path: Path, width: int) -> None:
    shutil.copytree(study, tmp_path / "r")
    write(tmp_path / "r", "dynamic_cross", fuser_settings={"modality_dropout": 0.3}, seeds=range(3))
    board = only(tmp_path / "r")
    shown = leaderboard.render(board, width=width)
    words = max(len(word) for word in shown.split())  # a word is not broken
    assert max(map(len, shown.splitlines())) <= max(width, words)
    heading = shown.split("\n\n")[1].splitlines()[0].split()
    assert {"fuser", "score"} <= set(heading)
    if width >= 80:
        assert heading[:5] == ["place", "fuser", "score", "damaged", "difference"]
        score = board.row("jmt").bounds("score")[0] or 0.0
        assert f"[{text.score(score, True)}" in shown, "the interval of the score stays"
    if width == 200:
        assert heading[5:] == ["parameters", "seconds"]
        assert "dynamic_cross (modality_dropout=0.3)" in shown
    for name in {"parameters", "seconds"} - set(heading):
        assert name in shown.partition("Not shown:")[2], "what is hidden is named"
    assert "--wide" in shown


def test_names_that_are_cut_still_tell_rows_apart(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path, "dynamic_cross", fuser_settings={"a_setting_with_a_long_name": number})
    shown = leaderboard.render(only(tmp_path), width=50).splitlines()[4:7]
    assert len({line.split("  ")[0] for line in shown}) == 3


def test_colour_is_for_terminals(study: Path) -> None:
    board = only(study)
    plain, styled = (leaderboard.render(board, width=80, styled=flag) for flag in (False, True))
    assert "\x1b" not in plain
    assert re.sub(r"\x1b\[[0-9;]*m", "", styled) == plain
    (line,) = [line for line in styled.splitlines() if "better" in line and "jmt" in line]
    assert "\x1b[32m" in line


def test_rows_of_other_code_than_what_is_here_are_marked(study: Path) -> None:
    def here(kind: str, name: str) -> str | None:
        return "mended" if name == "jmt" else None

    board = only(study, here=here)
    assert board.row("jmt").name == "jmt†°"
    assert board.row("concat").name == "concat"
    assert "° other code: made by other code" in leaderboard.render(board)
    assert only(study, here=None).row("jmt").name == "jmt†"


def test_terms_are_linked_from_every_format(study: Path) -> None:
    for fmt in set(leaderboard.FORMATS) - {"csv"}:
        assert "docs/glossary.md" in leaderboard.render(only(study), fmt)
    glossary = (Path(__file__).parents[1] / "docs" / "glossary.md").read_text()
    for term in ("damaged score", "missing", "absent", "undecided", "equivalent", "break-even severity", "group"):
        assert f"**{term}**" in glossary


def answered(results: Path, fuser: str, width: int = 80, **how: Any) -> str:
    board = only(results)
    runs = [r.run.id for row in board.rows if row.fuser == fuser for r in row.records.records]
    return leaderboard.answer([board], runs, width, **how)


@pytest.mark.parametrize("width", [80, 100, 120])
def test_a_run_ends_with_its_row_its_references_and_the_best(study: Path, width: int) -> None:
    said = answered(study, "copy", width)
    assert max(map(len, said.splitlines())) <= width
    rows = said.split("\n\n")[1].splitlines()[2:]
    marked = {line[2:].split()[1]: line[0] for line in rows}
    assert marked["copy"] == ">"
    assert marked["jmt†"] == "*"
    assert marked["concat"] == marked["late_average"] == marked["unimodal"] == " "
    assert "> your row; * the best row; the others are the references" in said
    verdict = "No significant difference. On the damaged score, copy against concat is undecided"
    assert verdict in said.replace("\n ", "")
    assert "fusionbench leaderboard -b watch" in said


def test_an_answer_says_what_a_row_is(study: Path, tmp_path: Path) -> None:
    assert "jmt is better than concat by" in answered(study, "jmt")
    assert "concat is the reference, named beforehand" in answered(study, "concat")
    write(tmp_path, "jmt", 3.0)
    assert "nothing to compare it with yet: fusionbench run -b watch -f concat" in answered(tmp_path, "jmt")
    write(tmp_path, "gated", 3.0, seeds=[0])
    few = answered(tmp_path, "gated").replace("\n ", "")
    assert "gated is not ranked: incomplete: 1 of 2 seeds" in few
    assert few.rstrip().splitlines()[-2].endswith("fusionbench run --benchmark watch --fuser gated")
    write(tmp_path, "film", 3.0, seeds=[0], folds=[0], marks=["quick"])
    quick = answered(tmp_path, "film")
    assert "jmt" not in quick, "a quick try is compared with nothing"
    assert "never ranked" in quick
    assert leaderboard.answer(boards(tmp_path), ["no such run"]) == ""


#: Patterns of text that is taken apart again, and the files that may: they read what a user typed or a file holds.
PARSING = re.compile(
    r"""endswith\(" is better|startswith\("missing|startswith\("stacked|partition\(":"\)|split\(":"\)"""
    r"""|partition\(" trials"\)|partition\("="\)|startswith\("noise"""
)
READERS = {
    "conditions.py", "records/settings.py", "corruptions/__init__.py", "engine/recipe.py", "jobs/cluster.py",
    *(f"cli/{name}.py" for name in ("catalogue", "compare", "flags", "plugins", "run")),
}  # fmt: skip


def test_nothing_that_is_printed_is_parsed_back() -> None:
    root = Path(leaderboard.__file__).parents[1]
    bad = [
        f"{path.relative_to(root)}:{number}: {line.strip()}"
        for path in sorted(root.rglob("*.py"))
        if str(path.relative_to(root)) not in READERS
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if PARSING.search(line)
    ]
    assert not bad, "\n".join(bad)


def test_what_a_record_holds_as_text_comes_back_as_it_was() -> None:
    from fusionbench.records.settings import Budget, Change, Training

    for spelled in ("fuser.width=256", "backbone.acc=gru", "backbone.acc.dim=64", "train.missing=acc=0.3"):
        assert str(Change.parse(spelled)) == spelled
    assert Change.parse("backbone.acc=gru") == Change("backbone.acc", "", "gru")
    assert Change.parse("train.missing=acc=0.3").value == "acc=0.3"
    assert Budget.parse("6 trials d3c378") == Budget(6, "d3c378")
    assert str(Budget(6, "d3c378")) == "6 trials d3c378"
    for training in (Training(), Training(29), Training(8, True)):
        assert Training.parse(str(training)) == training

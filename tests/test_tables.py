"""Tables of seeds by groups against pooling the answers themselves, for every metric and for one declared here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fusionbench import leaderboard, metrics, stats
from fusionbench.errors import UsageError
from fusionbench.metrics import METRICS, Metric, by_group, ratio
from fusionbench.records import Predictions, Record, Run, store
from fusionbench.records.evidence import condensed, gather
from fusionbench.stats import Cell, tables, tabulate

TESTED = [name for name, metric in METRICS.items() if not metric.filled]
SUMS = [name for name in TESTED if METRICS[name].evidence == "sums"]
RANKS = [name for name in TESTED if METRICS[name].evidence == "scores"]
PEOPLE = [f"p{g:02d}" for g in range(6)]


def cells_of(name: str, seed: int, folds: int = 1, seeds: int = 3) -> list[Cell]:
    """Predictions that know something, ragged masks, a fifth of the labels missing."""
    kind = METRICS[name].kind
    rng, data = np.random.default_rng(seed), np.random.default_rng(7)
    cells = []
    for fold in range(folds):
        names = np.repeat(PEOPLE[fold::folds], 4)
        mask = data.random((len(names), 3)) > 0.2
        y = data.integers(0, 3, mask.shape) if kind == "classify" else data.standard_normal((*mask.shape, 2))
        signal = np.eye(3)[y] if kind == "classify" else y
        for s in range(seeds):
            pred = np.where(mask[..., None], signal + rng.standard_normal(signal.shape), np.nan)
            cells.append(Cell(s, fold, names, pred, y, mask))
    return cells


def metric_of(cells: list[Cell], name: str, groups: list[str]) -> float:
    """The slow way: the steps of these groups (with repetitions), pooled."""
    pred, y = [], []
    for group in groups:
        for cell in cells:
            for i in np.flatnonzero(cell.groups == group):
                pred.append(cell.pred[i][cell.y_mask[i]])
                y.append(cell.y[i][cell.y_mask[i]])
    return METRICS[name].of(np.concatenate(pred), np.concatenate(y)) if pred else np.nan


def repeated(groups: np.ndarray, weight: np.ndarray) -> list[str]:
    return [str(g) for g, n in zip(groups, weight, strict=True) for _ in range(int(n))]


def draws() -> np.ndarray:
    return np.random.default_rng(3).multinomial(5, np.full(6, 1 / 6), 20).astype(float)


@pytest.mark.parametrize("name", SUMS)
@pytest.mark.parametrize("folds", [1, 3])
def test_a_metric_of_sums_is_pooled_over_folds_whatever_the_weights(name: str, folds: int) -> None:
    cells = cells_of(name, 1, folds)
    table = tabulate(cells, name)
    values = table.values(draws())
    assert values.shape == (20, 3)
    for seed in range(3):
        mine = [c for c in cells if c.seed == seed]
        assert table.scores[seed] == pytest.approx(metric_of(mine, name, PEOPLE), rel=1e-9)
        for draw, weight in enumerate(draws()):
            slow = metric_of(mine, name, repeated(table.groups, weight))
            assert values[draw, seed] == pytest.approx(slow, rel=1e-9, abs=1e-12)
        for cell in mine:
            assert table.by_fold[seed, cell.fold] == pytest.approx(metric_of([cell], name, PEOPLE), rel=1e-9)


@pytest.mark.parametrize("name", RANKS)
@pytest.mark.parametrize("folds", [1, 3])
def test_a_rank_metric_is_averaged_over_folds_by_the_weights_of_their_groups(name: str, folds: int) -> None:
    cells = cells_of(name, 1, folds)
    table = tabulate(cells, name)
    for seed in range(3):
        mine = [c for c in cells if c.seed == seed]
        assert table.scores[seed] == pytest.approx(np.mean([metric_of([c], name, PEOPLE) for c in mine]))
        for weight, value in zip(draws(), table.values(draws())[:, seed], strict=True):
            people = repeated(table.groups, weight)
            known = []
            for cell in mine:
                score, share = metric_of([cell], name, people), sum(p in cell.groups for p in people)
                known += [score] * share if share and not np.isnan(score) else []
            assert value == pytest.approx(np.mean(known) if known else np.nan, nan_ok=True)


def test_leaving_one_person_out_in_turn_resamples_people_though_each_fold_has_one() -> None:
    cells = cells_of("auroc", 2, folds=6, seeds=1)
    table = tabulate(cells, "auroc")
    own = table.by_fold[0]
    weights = np.array([[3, 1, 0, 1, 1, 1], [0.5, 0.25, 1, 0, 0, 2]])
    assert table.fold.tolist() == list(range(6))
    np.testing.assert_allclose(table.values(weights)[:, 0], weights @ own / weights.sum(1))


def test_an_answer_that_is_not_a_number_makes_its_score_none() -> None:
    for name in TESTED:
        cells = cells_of(name, 0)
        first = cells[0]
        broken = first.pred.copy()
        broken[np.flatnonzero(first.y_mask[:, 0])[0], 0] = np.nan
        cells[0] = Cell(first.seed, first.fold, first.groups, broken, first.y, first.y_mask)
        assert np.isnan(tabulate(cells, name).scores).tolist() == [True, False, False], name


def test_conditions_that_every_run_has_make_tables_and_metrics_that_collect_the_same_are_kept_once() -> None:
    cells = cells_of("accuracy", 0)
    ids = np.arange(len(cells[0].groups)).astype(str)
    runs = []
    for c in cells:
        answers = {"clean": c.pred, "noise:all:1": -c.pred} | ({"gap:all:1": c.pred} if c.seed else {})
        kept = condensed(gather(Predictions(ids, c.groups, c.y, c.y_mask, answers)), ["accuracy", "macro_f1", "ece"])
        assert list(kept.values) == ["accuracy", "ece"]
        runs.append((c.seed, c.fold, kept))
    found = tables(runs, "macro_f1")
    assert list(found) == ["clean", "noise:all:1"]
    np.testing.assert_array_equal(found["clean"].scores, tabulate(cells, "macro_f1").scores)
    assert list(tables(runs, "ece")) == ["clean"]
    assert tables(runs, "brier") == {}
    with pytest.raises(UsageError, match="name another metric"):
        tables(runs, "ccc_zero_filled")


def test_a_new_metric_is_one_declaration_and_has_a_leaderboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def collect(pred: np.ndarray, y: np.ndarray, group: np.ndarray, size: int) -> np.ndarray:
        near = np.abs(pred - y).max(1) < 0.5
        return by_group(group, size, near, np.ones(len(near)))

    near = Metric("near", "regress", collect, lambda s: ratio(s[..., 0], s[..., 1]), "higher", "absolute", percent=True)
    monkeypatch.setitem(metrics.METRICS, "near", near)

    for fuser, sd in (("concat", 0.6), ("better", 0.2)):
        for seed in range(3):
            rng = np.random.default_rng(seed)
            y, groups, mask = rng.standard_normal((60, 1, 2)), np.repeat(PEOPLE, 10), np.ones((60, 1), bool)
            pred = y + sd * np.random.default_rng([seed, len(fuser)]).standard_normal(y.shape)
            run = Run("toy", fuser, {"face": "identity"}, 0, seed, {"benchmark": {}, "train": {}, "fuser": {}})
            scores = {"clean": metrics.evaluate(["near"], pred, y, mask)}
            record = Record(run, "done", {"fuser": fuser}, "d", 1, ["near"], scores, complete={"folds": 1, "seeds": 3})
            store.save(tmp_path, record, Predictions(groups, groups, y, mask, {"clean": pred}), None)
    (board,) = leaderboard.build(store.load(tmp_path), tmp_path)
    row = board.row("better")
    assert row.clean == pytest.approx(stats.tabulate(_cells(tmp_path, "better"), "near").scores.mean())
    low, high = row.bounds("score")
    assert low is not None
    assert high is not None
    assert low < row.clean < high
    assert (row.verdicts["score"].difference or 0.0) > 0.3
    assert "near in %" in leaderboard.render(board, "table")


def _cells(results: Path, fuser: str) -> list[Cell]:
    cells = []
    for r in store.load(results, "toy", fuser):
        kept = store.predictions(results, r.run)
        assert kept is not None
        cells.append(Cell(r.run.seed, 0, kept.groups, kept.answers["clean"], kept.y, kept.y_mask))
    return cells

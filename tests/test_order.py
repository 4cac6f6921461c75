"""A row that sees nothing but the place in the recording: what it is handed, where it stands, who is below it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import fusionbench
from fusionbench import contract, custom_data, harness, leaderboard
from fusionbench.api import elapsed
from fusionbench.errors import UsageError
from fusionbench.harness.fit import Fitter
from fusionbench.records import store

N, PEOPLE = 120, 12


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise, and a label that comes late in everybody's recording; times in seconds of a day."""
    folder = tmp_path_factory.mktemp("timed")
    rng, place = np.random.default_rng(0), np.tile(np.arange(10), PEOPLE)
    group = np.repeat(np.arange(PEOPLE), 10)
    np.savez(folder / "data.npz", left=rng.standard_normal((N, 3)), right=rng.standard_normal((N, 2)),
             y=(place > 5).astype(int), group=group, order=60 * place + 1000 * group)  # fmt: skip
    (folder / "benchmark.toml").write_text(
        "folds = 3\nseeds = 1\nsteps = 2\ninterval = 1\ncorruptions = ['noise:all']\n"
    )
    return folder


def test_elapsed_time_begins_with_each_group_and_ends_with_the_longest() -> None:
    groups = ["b", "a", "b", "a", "b"]
    assert elapsed(groups).tolist() == [0, 0, 0.5, 0.5, 1]
    assert elapsed(groups, [7, 30, 9, 40, 8]).tolist() == pytest.approx([0, 0, 0.2, 1, 0.1])
    assert elapsed(["a", "b"]).tolist() == [0, 0]


def test_the_position_is_all_it_meets_whatever_is_done_to_the_streams(timed: Path) -> None:
    setup = harness.setup(str(timed), "position")
    assert list(setup.seen.streams) == ["position"]
    assert torch.allclose(setup.seen.streams["position"].x[:10, 0, 0], torch.arange(10) / 9)
    assert set(setup.data.streams) == {"left", "right"}
    model = Fitter(setup, setup.data).fit(setup.run(0, 0), {"leaf": 5})
    test = setup.data[setup.benchmark.splits(setup.data, 0).test]
    blind = {m: stream.absent() for m, stream in test.streams.items()}
    answers = model.answer(test)
    assert np.array_equal(model.answer(type(test)(blind, test.y, test.y_mask, index=test.index)), answers)
    assert (answers.argmax(-1) == test.y.numpy()).all()
    assert setup.digest == harness.setup(str(timed), "concat").digest  # it stands on the same board


def test_it_stands_on_the_board_and_who_is_below_is_marked(timed: Path, tmp_path: Path) -> None:
    for fuser in ("position", "concat"):
        fusionbench.run(fuser, str(timed), results=tmp_path, track=False, jobs=1)
    (board,) = leaderboard.build(list(store.load(tmp_path)), tmp_path)
    order, concat = (next(row for row in board.rows if row.fuser == name) for name in ("position", "concat"))
    assert order.clean == order.damaged == 1
    assert order.records.family == "single modalities"
    assert [mark.name for mark in order.marks] == []
    assert [mark.name for mark in concat.marks] == ["below the order"]
    shown = leaderboard.render_all([board], "table", leaderboard.View(None, None, False, 80, False))
    assert "concat¶" in shown
    assert "below a model that sees nothing but the place in the recording" in " ".join(shown.split())


def test_a_comparison_carries_it_where_samples_have_a_time(timed: Path) -> None:
    study = fusionbench.Study(["gated"], [str(timed)])
    assert "position" in [setup.names["fuser"] for setup, _ in study.setups()]
    assert "position" not in [setup.names["fuser"] for setup, _ in fusionbench.Study(["gated"], ["toy_xor"]).setups()]


def test_without_a_time_it_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="toy_xor does not say: it declares no order"):
        harness.setup("toy_xor", "position")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "odd.npz", x=rng.standard_normal((40, 2)), y=np.arange(40) % 2, order=np.full(40, np.nan))
    with pytest.raises(UsageError, match="order has a time that is no number"):
        custom_data.load(tmp_path / "odd.npz")


def test_an_order_is_one_number_from_0_to_1_a_sample(timed: Path) -> None:
    benchmark = custom_data.load(timed)()
    data = benchmark.load()
    assert contract.has_order(benchmark)
    wrong = type("Wrong", (type(benchmark),), {"order": lambda self, data: np.arange(len(data))})()
    with pytest.raises(UsageError, match="order is one number from 0 to 1 a sample"):
        contract.order(wrong, "mine", data)

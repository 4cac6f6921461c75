"""A short form of the controls: what must win wins by the published test, and a row does not differ from itself."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import fusionbench
from fusionbench.benchmarks.synergy_sim import SynergySim
from fusionbench.stats import Cell, Table, tabulate

SCRIPT = Path(fusionbench.__file__).parent.parent / "bench" / "controls.py"


@pytest.fixture(scope="module")
def controls() -> ModuleType:
    if not SCRIPT.is_file():
        pytest.skip(f"{SCRIPT.name} is not part of an installed package")
    spec = importlib.util.spec_from_file_location("controls", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["controls"] = module
    spec.loader.exec_module(module)
    return module


def trained(rng: np.random.Generator, seeds: int, lead: float = 0.0, groups: int = 40, each: int = 12) -> Table:
    """Answers to two classes of so many seeds, the second half better by `lead`; people differ, and seeds do."""
    people = np.repeat([f"p{g:02d}" for g in range(groups)], each)
    y = rng.integers(0, 2, (len(people), 1))
    shared = np.repeat(rng.normal(1.0, 0.5, groups), each) + rng.normal(0, 0.7, len(people))
    cells = []
    for seed in range(seeds):
        mine = np.repeat(rng.normal(0, 0.2, groups), each) + rng.normal(0, 0.1) + rng.normal(0, 0.7, len(people))
        right = shared + mine + (lead if seed >= seeds // 2 else 0.0)  # above 0: it answers right
        pred = np.eye(2)[np.where(right > 0, y[:, 0], 1 - y[:, 0])][:, None]
        cells.append(Cell(seed, 0, people, pred, y, np.ones(y.shape, bool)))
    return tabulate(cells, "accuracy")


def test_a_row_differs_from_itself_in_3_to_7_percent_of_relabellings(controls: ModuleType) -> None:
    rng = np.random.default_rng(0)
    shares = [controls.relabelled(trained(rng, 24), 12, 40, rng) for _ in range(12)]
    assert controls.LEAST <= np.mean(shares) <= controls.MOST


def test_a_real_difference_is_called_one(controls: ModuleType) -> None:
    whole = trained(np.random.default_rng(1), 24, lead=0.4)
    a, b = (controls.part(whole, seeds) for seeds in (range(12), range(12, 24)))
    p = controls.stats.t_test(controls.stats.difference(b, a))
    assert p is not None
    assert p < 1e-3


def test_products_beat_a_linear_model_where_the_label_is_a_product(
    controls: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SynergySim, "folds", 3)
    monkeypatch.setattr(SynergySim, "seeds", 2)
    given = {
        "train": {"steps": "60", "interval": "30", "lr": "3e-3"},
        "benchmark": {"people": "18", "clips": "10", "frames": "2", "noise": "0.3", "missing": "0",
                      "redundancy": "0", "uniqueness": "0", "synergy": "1"},
    }  # fmt: skip
    board = controls.positive(tmp_path, ["low_rank"], given=given, jobs=1)
    assert board.reference is not None
    assert board.reference.startswith("linear")
    (row,) = [row for row in board.ranked if row.fuser == "low_rank"]
    verdict = row.verdicts["score"]
    assert verdict.decision == "better"
    assert verdict.difference is not None
    assert verdict.difference > 0.15
    assert "low_rank" in controls.spelled(board)

"""A short form of the study of what `advise` promises: its populations, one whole set, its tables."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import fusionbench

SCRIPT = Path(fusionbench.__file__).parent.parent / "bench" / "advise_study.py"


@pytest.fixture(scope="module")
def study() -> ModuleType:
    if not SCRIPT.is_file():
        pytest.skip(f"{SCRIPT.name} is not part of an installed package")
    spec = importlib.util.spec_from_file_location("advise_study", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["advise_study"] = module
    spec.loader.exec_module(module)
    return module


def error(x: np.ndarray, y: np.ndarray) -> float:
    """Of a linear model on the second half of the samples, trained on the first."""
    half, x = len(y) // 2, np.column_stack([x, np.ones(len(x))])
    weights = np.linalg.lstsq(x[:half], 2.0 * y[:half] - 1, rcond=None)[0]
    return float(np.mean((x[half:] @ weights > 0) != y[half:]))


@pytest.mark.parametrize("kind", ["linear", "product", "useless", "random", "missing"])
def test_populations_are_what_they_are_called(study: ModuleType, kind: str) -> None:
    draw = study.population(kind, np.random.default_rng(0))
    found, other = draw(400), draw(400)
    assert not np.array_equal(found["a"], other["a"])
    y, both = found["y"], np.column_stack([found["a"], found["b"]])
    products = (found["a"][:, :, None] * found["b"][:, None]).reshape(len(y), -1)
    assert 0.4 < y.mean() < 0.6
    level = np.bincount(found["group"], found["a"][:, 0]) / study.EACH
    assert level.std() > 0.3  # groups differ, beyond the mean of twelve samples
    if kind == "random":
        assert min(error(both, y), error(products, y)) > 0.45
    elif kind == "product":
        assert error(products, y) < 0.43 < 0.47 < error(both, y)
    elif kind == "useless":
        assert error(found["a"], y) < 0.4 < 0.45 < error(found["b"], y)
    else:
        assert error(both, y) < min(error(found["a"], y), error(found["b"], y)) < 0.45
    lacking = np.bincount(found["group"], ~found.get("b_mask", np.ones(len(y), bool))) / study.EACH
    assert ((lacking == 1).mean() > 0.3) == (kind == "missing")


def made(number: int, **changes: object) -> dict:
    one = {
        "set": number, "kind": "linear", "metric": "macro_f1", "promise": 0.7, "low": 0.65, "high": 0.75, "truth": 0.72,
        "forest": 0.7, "chance": 0.5, "above_chance": "better", "winner": "linear", "chosen": {}, "seeds": 2,
        "outer": 3, "dropped": 0, "planned": 1.0, "minutes": 2.0, "groups": 24, "fusers": ["linear"], "seconds": 9.0,
    }  # fmt: skip
    return {**one, **changes}


def test_tables_say_how_far_the_truth_is_from_the_promise(study: ModuleType) -> None:
    found = [made(0), made(1, truth=0.74), made(2, truth=0.76, forest=0.8)]
    row = study.row("linear", found)
    assert row[:5] == ["linear", "3", "70.0", "74.0", "+4.0"]
    half = 4.303 * 2 / np.sqrt(3)  # Student's t with two degrees of freedom
    assert row[5] == f"{4 - half:+.1f} to {4 + half:+.1f}"
    assert row[6].startswith("2 of 3")
    assert row[7].startswith("2 of 3")
    assert "neither too high nor too low" in study.verdict(found)
    assert "too low" in study.verdict([made(n, truth=0.74 + n / 1000) for n in range(3)])
    assert "too high" in study.verdict([made(n, truth=0.64 + n / 1000) for n in range(3)])
    page = study.page([*found, made(3, kind="random", above_chance="undecided")])
    assert "| all with a pattern | 3 |" in page
    assert "4 sets with 2 seeds, 3 outer folds, 0 candidates left out" in page


def test_sets_that_are_done_are_not_done_again(
    study: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "it.md"
    words = ["--sets", "2", "--minutes", "2", "--fusers", "linear", "--out", str(out)]
    made_now: list[int] = []

    def fake(number: int, *rest: object) -> dict:
        made_now.append(number)
        return made(number)

    monkeypatch.setattr(study, "study", fake)
    (tmp_path / "it.jsonl").write_text(json.dumps(made(0)) + "\n" + json.dumps(made(1))[:30])  # the last was cut off
    study.main(words)
    study.main(words)
    assert made_now == [1]
    study.main([*words, "--groups", "12"])
    assert made_now == [1, 0, 1]
    assert out.is_file()


def test_a_whole_set(study: ModuleType) -> None:
    """From the population to the truth, with linear models alone; random labels promise chance."""
    found = study.study(list(study.KINDS).index("random"), minutes=5, groups=12, fusers=("linear",))
    assert found["kind"] == "random"
    assert found["above_chance"] != "better"
    assert abs(found["promise"] - 0.5) < 0.15
    assert abs(found["truth"] - 0.5) < 0.05
    assert found["forest"] is None
    assert found["outer"] >= 3

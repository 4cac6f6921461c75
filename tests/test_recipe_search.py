"""A short form of the recipe search: resumable, and blind to test samples."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import fusionbench
from fusionbench import engine, registry
from fusionbench.api import Batch, Stream
from fusionbench.harness import Dataset

SCRIPT = Path(fusionbench.__file__).parent.parent / "bench" / "recipe.py"


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    if not SCRIPT.is_file():
        pytest.skip(f"{SCRIPT.name} is not part of an installed package")
    spec = importlib.util.spec_from_file_location("recipe_search", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["recipe_search"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    small = {
        "ENCODINGS": {"toy_xor": {"before": ("identity", {}), "ple": ("ple", {"bins": 4})}},
        "FACTORS": {"dropout .3": {"dropout": 0.3}},
        "CHOOSE": ("concat",),
        "SHOWN": ("concat",),
        "CLASSICAL": ("linear",),
        "FOLDS": (0,),
        "GRID": "1e-2",
    }
    for name, value in small.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(registry.load("benchmarks", "toy_xor"), "steps", 20)
    arguments = ["recipe.py", "--stress-predict", "none", "--stressid", "none", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", arguments)
    return module


def test_what_is_done_is_not_done_again(search: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search.main()
    text, lines = ((tmp_path / f"recipe.{kind}").read_text() for kind in ("md", "jsonl"))
    assert "| toy_xor | ple | " in text
    assert "| dropout .3 | " in text
    assert "not done" not in text
    assert len(lines.splitlines()) == 6, "concat twice, clean and damaged, with dropout once, and the linear row"
    monkeypatch.setattr(engine, "train", None)
    search.main()
    assert (tmp_path / "recipe.jsonl").read_text() == lines
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--minutes", "0"])
    (tmp_path / "recipe.jsonl").unlink()
    search.main()
    assert "not done" in (tmp_path / "recipe.md").read_text()


def test_no_test_sample_is_read(search: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trials = [search.Trial("toy_xor", fuser, "ple") for fuser in ("concat", "linear")]
    clean = search.Study(tmp_path / "clean.jsonl", {}, 9)
    want = [clean.score(trial) for trial in trials]
    monkeypatch.setattr(Dataset, "_load", poisoned)
    spoilt = search.Study(tmp_path / "spoilt.jsonl", {}, 9)
    assert [spoilt.score(trial) for trial in trials] == want


def poisoned(dataset: Any) -> Batch:
    """NaN in all test samples of fold 0, and no label."""
    data = dataset.benchmark.load()
    test = torch.from_numpy(dataset.benchmark.splits(data, 0).test)
    streams = {}
    for m, stream in data.streams.items():
        x = stream.x.clone()
        x[test] = torch.nan
        streams[m] = Stream(x, stream.mask)
    assert isinstance(data, Batch)
    return replace(data, streams=streams, y=data.y.index_fill(0, test, -(2**40)))

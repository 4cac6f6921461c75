"""Channels that say whether something was measured: declared by a benchmark, spared by damage to values, end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fusionbench import contract, harness, registry
from fusionbench.errors import UsageError
from fusionbench.records import Record

PLUGIN = '''
"""The flag alone tells the class; the value beside it says nothing."""

import torch

from fusionbench.api import Batch, Benchmark, Stream, Task, group_folds


class Flagged(Benchmark):
    shapes = {"labs": (2,)}
    task = Task("classify", 2, ("accuracy",))
    corruptions = ("noise:labs:5", "mismatch:labs:5")
    indicators = INDICATORS

    def load(self):
        y = torch.arange(120).reshape(-1, 1) % 2
        value = torch.randn(120, generator=torch.Generator().manual_seed(0))
        x = torch.stack([y[:, 0].float(), value], 1).unsqueeze(1)
        groups = [f"p{i // 4}" for i in range(120)]
        mask = torch.ones(120, 1, dtype=torch.bool)
        return Batch({"labs": Stream(x, mask)}, y, mask, [str(i) for i in range(120)], groups)

    def splits(self, data, fold):
        return group_folds(data.groups, 3, 0)
'''


def plugin(folder: Path, indicators: Any) -> str:
    path = folder / "flagged.py"
    path.write_text(PLUGIN.replace("INDICATORS", repr(indicators)))
    return str(path)


def scores(name: str, results: Path) -> dict[str, float]:
    setup = harness.setup(name, "linear", quick=True)
    events = harness.execute(setup, [setup.run(0, 0)], results, conditions=setup.benchmark.corruptions)
    (record,) = [event for event in events if isinstance(event, Record)]
    return {condition: found["accuracy"] for condition, found in record.scores.items()}


@pytest.mark.parametrize(("indicators", "spared"), [({"labs": (0,)}, True), ({}, False)])
def test_noise_meets_values_and_mismatch_takes_flags_along(tmp_path: Path, indicators: Any, spared: bool) -> None:
    found = scores(plugin(tmp_path, indicators), tmp_path / "results")
    assert found["clean"] == 1
    assert (found["noise:labs:5"] == 1) == spared
    assert found["mismatch:labs:5"] < 1  # another sample's steps come with their flags


@pytest.mark.parametrize("indicators", [{"labs": (2,)}, {"labs": (-1,)}, {"labs": (0.5,)}, {"vitals": (0,)}])
def test_indicators_are_channels_of_a_modality(tmp_path: Path, indicators: Any) -> None:
    maker = registry.load("benchmarks", plugin(tmp_path, indicators))
    with pytest.raises(UsageError, match="indicators is modality -> channels of its vectors, from 0, not"):
        contract.make(maker, {}, "flagged")

"""Published numbers come back: random cells of the committed leaderboard are trained again and compared.

One cell a run of the suite; FUSIONBENCH_CELLS=20 tries twenty.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from fusionbench import harness
from fusionbench.api import PROTOCOL
from fusionbench.records import Record, store

RESULTS = Path(__file__).parents[1] / "results"
FREE = ("watch", "affect_sim")  # their data come with the package or are made


def published(benchmark: str) -> list[Record]:
    """The published runs of this protocol; boards of an older one show what was, and are named so."""
    found = [
        r
        for path in sorted((RESULTS / benchmark).glob("*/records.jsonl"))
        for r in store.published(path.parent).values()
    ]
    return [r for r in found if r.protocol == PROTOCOL and not r.run.ensemble]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(int(os.environ.get("FUSIONBENCH_CELLS", "1"))))
def test_a_random_published_cell_comes_back(number: int) -> None:
    runs = [run for name in FREE for run in published(name)]
    fuser = random.choice(sorted({run.run.fuser for run in runs}))
    old = random.choice([run for run in runs if run.run.fuser == fuser])
    new = harness.reproduce(old)
    is_reproduced, sentence = harness.is_reproduced(old, new, store.evidence(RESULTS, old.run))
    assert is_reproduced, f"{sentence} Try: fusionbench records reproduce {old.run.id}"


def test_published_rows_are_of_the_code_that_is_here() -> None:
    """Otherwise the cells above compare different methods."""
    seen = set()
    for name in FREE:
        for old in published(name):
            code = dict(sorted(old.code.items()))
            if (name, str(code)) in seen:
                continue
            seen.add((name, str(code)))
            here = harness.setup(old.run.benchmark, old.run.fuser, old.run.backbones).code
            named = f"{old.run.fuser} on {name}"
            assert code == dict(sorted(here.items())), f"{named} was made by other code: run and publish it again"
    assert len(seen) >= 16

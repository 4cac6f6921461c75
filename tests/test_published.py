"""Published numbers come back: random cells of the committed leaderboard are trained again and compared.

One cell a run of the suite; FUSIONBENCH_CELLS=20 tries twenty.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from fusionbench import harness
from fusionbench.records import store

RESULTS = Path(__file__).parents[1] / "results"
FREE = ("watch", "affect_sim")  # their data come with the package or are made
#: Mended since their rows were published (docs/fidelity.md): the boards of protocol 1 show what they were.
MENDED = {"attention_pool", "dynamic_cross", "evidential"}


def folders(benchmark: str) -> list[Path]:
    """The folders of the published fusers that are as they were."""
    there = (path.parent for path in (RESULTS / benchmark).glob("*/records.jsonl"))
    return sorted(path for path in there if path.name not in MENDED)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(int(os.environ.get("FUSIONBENCH_CELLS", "1"))))
def test_a_random_published_cell_comes_back(number: int) -> None:
    fusers = [folder for name in FREE for folder in folders(name)]
    old = random.choice(list(store.published(random.choice(fusers)).values()))
    new = harness.reproduce(old)
    is_reproduced, sentence = harness.is_reproduced(old, new, store.evidence(RESULTS, old.run))
    assert is_reproduced, f"{sentence} Try: fusionbench records reproduce {old.run.id}"


def test_published_rows_are_of_the_code_that_is_here() -> None:
    """Otherwise the cells above compare different methods."""
    seen = set()
    for name in FREE:
        for folder in folders(name):
            for old in store.published(folder).values():
                code = dict(sorted(old.code.items()))
                if (name, str(code)) in seen:
                    continue
                seen.add((name, str(code)))
                here = harness.setup(old.run.benchmark, old.run.fuser, old.run.backbones).code
                assert code == dict(sorted(here.items())), f"{folder} was made by other code: run and publish it again"
    assert len(seen) >= 2 * 9

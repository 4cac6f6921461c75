"""The mistakes of `bench/mutants.py` can still be made, and the tests that ought to notice still exist."""

from __future__ import annotations

from pathlib import Path

import pytest
from mutations import MUTATIONS, Mutation  # of bench/

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=[m.what for m in MUTATIONS])
def test_a_mistake_can_be_made_and_its_tests_exist(mutation: Mutation) -> None:
    assert (ROOT / mutation.file).read_text().count(mutation.old) == 1
    assert mutation.old != mutation.new
    for test in mutation.tests:
        file, _, function = test.partition("::")
        assert f"def {function.partition('[')[0]}(" in (ROOT / file).read_text(), test


def test_there_are_thirty_of_them() -> None:
    assert len({m.what for m in MUTATIONS}) == len(MUTATIONS) >= 30

"""What was frozen before the confirmatory round still holds, or a dated line says what was changed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import fusionbench
from fusionbench import api, registry
from fusionbench.engine import Recipe

FILE = Path(fusionbench.__file__).parent.parent / "results" / "PREREGISTRATION.md"


@pytest.fixture(scope="module")
def text() -> str:
    if not FILE.is_file():
        pytest.skip("the results are not part of an installed package")
    return FILE.read_text()


def changes(text: str) -> list[str]:
    """The dated lines at the end."""
    return re.findall(r"^- 20\d\d-\d\d-\d\d", text.partition("## Changes since")[2], re.MULTILINE)


def test_the_recipe_is_the_frozen_one(text: str) -> None:
    frozen = re.findall(r"`Recipe\(\).fingerprint` is\s+`([0-9a-f]{16})`", text)
    assert frozen == [Recipe().fingerprint] or changes(text), "the recipe was changed: say so with a date"
    assert f"Protocol {api.PROTOCOL};" in text or changes(text)


def test_what_it_names_is_there(text: str) -> None:
    rows = text.partition("- Rows, all at their defaults:")[2].partition("\n- ")[0]
    named = re.findall(r"`([a-z_]+)`", rows)
    assert len(named) == 16
    assert set(named) <= set(registry.names("fusers"))
    sets = [line.split("|")[1].strip() for line in text.splitlines() if re.match(r"\| [a-z_0-9]+ \| [\d,]+ \|", line)]
    assert set(sets) == {"rosmap", "utd_mhad", "cmapss", "icu2012"}
    assert set(sets) <= set(registry.names("benchmarks"))

"""What was frozen before the confirmatory round still holds, or a dated line says what was changed."""

from __future__ import annotations

import re
import types
from pathlib import Path

import confirm
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


def test_what_is_counted_is_what_was_foreseen(text: str) -> None:
    """`bench/confirm.py` reads its predictions from the file, and its families cover the rows that the file names."""
    foreseen = confirm.predictions(text)
    assert [(p.benchmark, p.family) for p in foreseen] == [
        ("rosmap", "trees"), ("utd_mhad", "trees"), ("cmapss", "joint networks"), ("icu2012", "joint networks"),
    ]  # fmt: skip
    rows = text.partition("- Rows, all at their defaults:")[2].partition("\n- ")[0]
    families = [name for names in confirm.FAMILIES.values() for name in names]
    assert sorted(families) == sorted(re.findall(r"`([a-z_]+)`", rows))
    rule = text.partition("**With fewer than five")[2].partition("**")[0]
    for family in ("trees", "joint networks"):
        assert all(f"`{name}`" in rule for name in confirm.FAMILIES[family])


def test_every_row_that_was_named_beforehand_is_published_for_every_set(text: str) -> None:
    if not (FILE.parent / "rosmap").is_dir():
        pytest.skip("the results are not part of an installed package")
    for foreseen in confirm.predictions(text):
        for row in (name for names in confirm.FAMILIES.values() for name in names):
            assert (FILE.parent / foreseen.benchmark / row / "records.jsonl").is_file(), (
                f"{row} on {foreseen.benchmark}"
            )


def test_a_row_that_is_not_there_is_said_to_be() -> None:
    rows = [types.SimpleNamespace(label=name, fuser=name) for names in confirm.FAMILIES.values() for name in names[1:]]
    assert confirm.absent(types.SimpleNamespace(ranked=rows)) == [names[0] for names in confirm.FAMILIES.values()]


def test_hits_and_regrets_are_counted_by_hand() -> None:
    def row(label: str, clean: float) -> types.SimpleNamespace:
        return types.SimpleNamespace(label=label, fuser=label, score=lambda measure: clean)

    ranked = [row("forest", 12.0), row("concat", 10.5), row("late_average", 14.0), row("film", 1.0)]
    errors = types.SimpleNamespace(title="engines", ranked=ranked, higher_is_better=False)
    assert confirm.leader(errors, "score").label == "concat", "film was not foreseen, and an error is better if lower"
    assert confirm.regret(errors, "forest") == pytest.approx(1.5)
    assert confirm.regret(errors, "concat") == 0
    with pytest.raises(SystemExit, match="no complete row jmt: fusionbench compare jmt -b engines"):
        confirm.regret(errors, "jmt")

"""A card says what the data are, and its Croissant JSON-LD is what a public validator accepts."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from fusionbench import cards, registry
from fusionbench.cli import cli

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "benchmarks"
COMMITTED = sorted(FOLDER.glob("*.croissant.json"))


def test_a_card_says_what_the_data_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", "toy_xor", "--card"], standalone_mode=False) == 0
    text = capsys.readouterr().out
    assert "240 samples of 12 people" in text
    assert "| left | 6 steps of 4 | - | 0.0% | 25.3% |" in text
    assert "`fusionbench audit toy_xor`" in text


def test_a_committed_audit_is_taken_in() -> None:
    finding = {"question": "time", "verdict": "suspicious", "evidence": "a | b"}
    audit = {"summary": "240 samples", "metric": "macro_f1", "findings": [finding], "suspicious": ["time"]}
    assert "| time | suspicious | a \\| b |" in cards.card("toy_xor", audit=audit)
    assert "raised by fusionbench audit: time" in json.loads(cards.croissant("toy_xor", audit=audit))["rai:dataBiases"]


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.name)
def test_what_is_committed_is_of_the_benchmark_that_is_here(path: Path) -> None:
    content, name = json.loads(path.read_text()), path.name.split(".")[0]
    plugin = registry.load("benchmarks", name)
    assert (content["license"], content["url"], content["citeAs"]) == (plugin.licence, plugin.source, plugin.citation)
    audit = json.loads((FOLDER / f"{name}.audit.json").read_text())
    page = (FOLDER / f"{name}.md").read_text()
    assert all(cards._cell(f["evidence"]) in page for f in audit["findings"])


@pytest.mark.skipif(not importlib.util.find_spec("mlcroissant"), reason="mlcroissant is not installed")
def test_a_public_validator_accepts_it(tmp_path: Path) -> None:
    import mlcroissant

    made = tmp_path / "toy_xor.json"
    made.write_text(cards.croissant("toy_xor"))
    for path in (made, *COMMITTED):
        assert mlcroissant.Dataset(jsonld=path).metadata.name == path.name.split(".")[0]
    broken = json.loads(made.read_text())
    field = {"@type": "cr:Field", "@id": "s/y", "name": "y", "dataType": "sc:Integer"}  # from nowhere
    broken["recordSet"] = [{"@type": "cr:RecordSet", "@id": "s", "name": "s", "field": [field]}]
    made.write_text(json.dumps(broken))
    with pytest.raises(mlcroissant.ValidationError):
        mlcroissant.Dataset(jsonld=made)

"""A card says what the data are, and its Croissant JSON-LD is what a public validator accepts."""

from __future__ import annotations

import importlib.util
import json
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fusionbench import cards, registry
from fusionbench.cards import committed
from fusionbench.cli import cli
from fusionbench.errors import UsageError

FOLDER = committed.FOLDER
NAMES = sorted(registry.names("benchmarks"))
SCRIPT = FOLDER.parent / "_benchmarks.py"
AUDIT = {
    "summary": "240 samples of 12 people, 3 folds; models look at 200 samples",
    "metric": "macro_f1",
    "findings": [{"question": "time", "verdict": "suspicious", "evidence": "a | b"}],
    "suspicious": ["time"],
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where committed figures and audits are looked for; data are looked for where there are none."""
    monkeypatch.setattr(committed, "FOLDER", tmp_path)
    monkeypatch.setenv("FUSIONBENCH_HOME", str(tmp_path / "home"))
    return tmp_path


def test_a_card_says_what_the_data_are(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", "toy_xor", "--card"], standalone_mode=False) == 0
    text = capsys.readouterr().out
    assert "240 samples of 12 people" in text
    assert "| left | 6 steps of 4 | - | 0.0% | 25.3% |" in text
    assert "`fusionbench audit toy_xor`" in text


def test_the_committed_audit_is_taken_in(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "toy_xor.audit.json").write_text(json.dumps(AUDIT))
    assert cli.main(["info", "toy_xor", "--card"], standalone_mode=False) == 0
    assert "| time | suspicious | a \\| b |" in capsys.readouterr().out
    assert "raised by fusionbench audit: time" in json.loads(cards.croissant("toy_xor"))["rai:dataBiases"]
    (folder / "toy_xor.audit.json").write_text("{")
    with pytest.raises(UsageError, match=r"toy_xor\.audit\.json is damaged"):
        cards.card("toy_xor")


def test_committed_figures_stand_in_for_data_that_are_not_here(folder: Path) -> None:
    without = cards.card("rosmap")
    assert "The figures need the data, which were not at hand: `fusionbench data get rosmap`." in without
    assert "| mrna | steps of 200 | - | - | - |" in without
    with pytest.raises(UsageError, match="there is no"):
        cards.card("rosmap", {"root": str(folder)})
    modality = cards.figures.Modality(1, 0.25, 0.0)
    made = cards.Figures("0", 351, 351, "person", (1, 196, 49, 106), (169, 182), {"sex": ("f", "m")},
                         dict.fromkeys(("mrna", "methylation", "mirna"), modality))  # fmt: skip
    (folder / "rosmap.figures.json").write_text(committed.as_json(made))
    text = cards.card("rosmap")
    assert "351 samples of 351 people" in text
    assert "| mrna | 1 step of 200 | - | 25.0% | 0.0% |" in text
    assert "normal control 48.1%, Alzheimer's disease 51.9%" in text
    assert "| attributes | sex (f, m) |" in text


def test_facts_of_a_benchmark_are_shown_and_stand_in_one_place(capsys: pytest.CaptureFixture[str]) -> None:
    from fusionbench import data

    for name in NAMES:
        plugin, about = registry.load("benchmarks", name), registry.about_here(name)
        assert {"licence", "source", "citation"} <= about.keys(), name
        assert all(about[fact] == getattr(plugin, fact) for fact in ("licence", "source", "citation"))
    for name in data.names():
        wanted = data.manifest(name)
        assert [wanted.licence, wanted.source, wanted.citation] == [
            registry.about_here(name)[fact] for fact in ("licence", "source", "citation")
        ]
        assert {"licence", "source", "citation"}.isdisjoint(json.loads((data.MANIFESTS / f"{name}.json").read_text()))
    assert cli.main(["info", "rosmap"], standalone_mode=False) == 0
    shown = capsys.readouterr().out
    assert "Licence: MIT (the repository)" in shown
    assert "Please cite: Wang et al., MOGONET" in shown


@pytest.fixture(scope="module")
def wrong() -> Any:
    return runpy.run_path(str(SCRIPT))["wrong"]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_committed_is_not_stale(name: str, wrong: Any) -> None:
    assert wrong(name) == []


def test_staleness_is_seen(folder: Path, wrong: Any) -> None:
    assert wrong("toy_xor") == ["toy_xor.md is stale", "toy_xor.croissant.json is stale"]
    figures = cards.measure("toy_xor")
    (folder / "toy_xor.figures.json").write_text(committed.as_json(figures))
    (folder / "toy_xor.audit.json").write_text(json.dumps(AUDIT))

    def draw() -> None:
        page, metadata = cards.drawn("toy_xor", cards.figures_of("toy_xor"), cards.audit_of("toy_xor"))
        (folder / "toy_xor.md").write_text(page)
        (folder / "toy_xor.croissant.json").write_text(metadata)

    wrong.__globals__["FOLDER"], before = folder, wrong.__globals__["FOLDER"]
    try:
        draw()
        assert wrong("toy_xor") == []
        (folder / "toy_xor.md").write_text("")
        assert wrong("toy_xor") == ["toy_xor.md is stale"]
        (folder / "toy_xor.figures.json").write_text(committed.as_json(replace(figures, code="0", samples=241)))
        draw()
        code, audit = wrong("toy_xor")
        assert code == "toy_xor.figures.json is of other code"
        assert audit == "toy_xor.audit.json is of other data: fusionbench audit toy_xor --format json"
    finally:
        wrong.__globals__["FOLDER"] = before


def test_figures_of_data_that_are_here_are_those_that_are_committed() -> None:
    for name in ("watch", "affect_sim"):
        found = committed.figures_of(name)
        assert found is not None
        assert committed.as_json(cards.measure(name)) == committed.as_json(found)


@pytest.mark.skipif(not importlib.util.find_spec("mlcroissant"), reason="mlcroissant is not installed")
def test_a_public_validator_accepts_it(tmp_path: Path) -> None:
    import mlcroissant

    for name in NAMES:
        dataset = mlcroissant.Dataset(jsonld=FOLDER / f"{name}.croissant.json")
        assert dataset.metadata.name == name
        (records,) = dataset.metadata.record_sets
        wanted = [*registry.load("benchmarks", name)().shapes, "label", "group"]
        assert [field.name for field in records.fields][: len(wanted)] == wanted
        assert any(files.id == "files" for files in dataset.metadata.distribution)
    broken = json.loads((FOLDER / "rosmap.croissant.json").read_text())
    made = tmp_path / "rosmap.json"
    for change in (
        lambda content: content["distribution"][-1].pop("includes"),
        lambda content: content["distribution"][0].pop("sha256"),
        lambda content: content["recordSet"][0]["field"][0]["source"]["fileSet"].update({"@id": "nowhere"}),
    ):
        content = json.loads(json.dumps(broken))
        change(content)
        made.write_text(json.dumps(content))
        with pytest.raises(mlcroissant.ValidationError):
            mlcroissant.Dataset(jsonld=made)

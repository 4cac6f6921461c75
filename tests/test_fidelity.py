"""Page, figures and docstrings agree on how far fusers are from their authors' code; presets can be built."""

from __future__ import annotations

import importlib.util
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from fusionbench import registry
from fusionbench.api import Spec

HERE = Path(__file__).resolve().parent.parent / "bench" / "fidelity"
NAMES = sorted(registry.names("fusers"))


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"fidelity_{name}", HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load("run")


def test_page_figures_and_docstrings_agree(script: ModuleType) -> None:
    assert script.problems(script.docstrings(), json.loads(script.FIGURES.read_text())) == []


def test_every_fuser_has_a_row(script: ModuleType) -> None:
    rows = re.findall(r"^\| (\w+) \|", script.PAGE.read_text(), re.MULTILINE)
    assert rows == ["fuser", *NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_only_what_was_compared_is_called_faithful(name: str) -> None:
    text = inspect.cleandoc(sys.modules[registry.load("fusers", name).__module__].__doc__ or "")
    assert "faithful" not in text.lower() or "Compared with " in text, "say what was compared with what, or why not"


@pytest.mark.parametrize("name", [name for name in NAMES if registry.load("fusers", name).presets])
def test_presets_can_be_built(name: str) -> None:
    plugin = registry.load("fusers", name)
    for settings in plugin.presets.values():
        with torch.device("meta"):  # shapes only: some are large
            plugin(Spec("classify", {"audio": 3, "video": 4}, 3), **settings)


def test_what_does_not_agree_is_named(script: ModuleType) -> None:
    figures = json.loads(script.FIGURES.read_text())
    texts = script.docstrings()
    worse = {**figures, "mult": {**figures["mult"], "difference": 0.5}, "nothing": figures["mult"]}
    silent = {**texts, "concat": ["Concatenation."]}
    found = "\n".join(script.problems(silent, worse))
    assert "mult: the docstring does not state" in found
    assert "nothing: figures.json has it" in found
    assert "concat: the docstring has neither" in found
    assert "concat: the docstring has no paragraph 'Ours: ...'" in found
    assert "fidelity.md is stale" in found


def test_without_checkouts_the_figures_stay(tmp_path: Path) -> None:
    before = (HERE / "figures.json").read_text()
    command = [sys.executable, str(HERE / "run.py"), "--checkouts"]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "no checkout of yaohungt/Multimodal-Transformer" in done.stdout
    assert (HERE / "figures.json").read_text() == before
    refused = subprocess.run([*command, str(tmp_path / "nowhere")], capture_output=True, text=True)
    assert refused.returncode != 0
    assert "is not a folder" in refused.stderr


def test_differences_are_relative_to_the_spread_of_the_samples() -> None:
    authors = load("authors")
    theirs = torch.tensor([[100.0], [101.0], [99.0]])
    assert authors.largest(theirs + 0.5, theirs) == pytest.approx(0.5)
    with pytest.raises(SystemExit, match="shapes differ"):
        authors.largest(theirs, theirs[:2])


def test_the_authors_modules_are_forgotten(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "model.py").write_text("import no_such_library\nanswer = 42\n")
    authors = load("authors")
    assert authors.module(tmp_path, "theirs.model", "no_such_library").answer == 42
    assert not {"theirs", "theirs.model", "no_such_library"} & set(sys.modules)
    assert str(tmp_path) not in sys.path

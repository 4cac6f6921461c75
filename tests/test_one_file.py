"""A metric, a corruption, a training scalar and a data format each take one file and fewer than twenty lines.

(A column: `test_leaderboard.py`; fusers, backbones and benchmarks: every plugin is that.) Each is really added here, in
a file of its own, and used through a command.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from fusionbench import cli, custom_data, metrics
from fusionbench.api import Task
from fusionbench.benchmarks.toy_xor import ToyXor
from fusionbench.custom_data import files
from fusionbench.errors import UsageError
from fusionbench.records import Record, store

SETUP = importlib.import_module("fusionbench.harness.setup")  # the function of that name hides it
FAST = ["--train.steps", "60", "--train.interval", "30", "--train.lr", "3e-3", "--no-track", "-j", "1"]

CORRUPTION = '''
"""Damage of a sensor that is mounted upside down."""
from fusionbench.api import Corruption, Stream

class Flip(Corruption):
    """Silent: every value is multiplied; the ladder is the factor."""
    name = "flip"
    announced = False
    ladder = (-1.0, -2.0)

    def damage(self, stream, amount, keys, context, modality):
        return Stream(amount * stream.x, stream.mask)
'''

SCALAR = '''
from dataclasses import dataclass
from fusionbench.engine.recipe import *

def against_doubt(answers, batch):
    """Minus the entropy of the answers."""
    logp = answers.log_softmax(-1)
    return (logp.exp() * logp).sum(-1).mean()

@dataclass(frozen=True, kw_only=True)
class Recipe(Recipe):
    certainty: Annotated[float, Penalty(against_doubt), Added, "weight of a penalty on certain answers"] = 0.0
'''

FORMAT = '''
import json
import numpy as np
from fusionbench.custom_data.files import FORMATS, Format

def read(path):
    """A list of tables in JSON, one a row."""
    rows = json.loads(path.read_text())
    return {name: np.array([str(row[name]) for row in rows], dtype=object) for name in rows[0]}

FORMATS[".json"] = Format(read, table=True)
'''

METRIC = '''
import numpy as np
from fusionbench.metrics import METRICS, Metric, _classes, _confusion, ratio

def kappa(sums):
    """Cohen's kappa (1960): agreement beyond chance."""
    hits, labels, answers = _classes(sums)
    total = labels.sum(-1)
    by_chance = ratio((labels * answers).sum(-1), total**2)
    return ratio(ratio(hits.sum(-1), total) - by_chance, 1 - by_chance)

METRICS["kappa"] = Metric("kappa", "classify", _confusion, kappa, better="higher", loss="cross_entropy")
'''


def added(folder: Path, name: str, text: str) -> Path:
    """The file, of fewer than twenty lines."""
    path = folder / f"{name}.py"
    path.write_text(text.lstrip("\n"))
    assert len(path.read_text().splitlines()) < 20
    return path


def imported(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"one_file_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def run(results: Path, *words: str, benchmark: str = "toy_xor") -> list[Record]:
    line = ["run", "--fuser", "concat", "-b", benchmark, "--results", str(results), *words, *FAST]
    assert cli.cli.main(line, standalone_mode=False) == 0
    return list(store.load(results))


def test_a_corruption_is_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = added(tmp_path, "flip", CORRUPTION)
    (r,) = run(tmp_path / "results", "--folds", "1", "--seeds", "1", "--corruption", f"{path}:left")
    flipped = [name for name in r.scores if name.startswith("flip@")]
    assert [name.rpartition(":")[2] for name in flipped] == ["1", "2"]
    kept = store.predictions(tmp_path / "results", r.run)
    assert kept is not None
    clean, turned = (kept.answers[name][:, 0].argmax(-1) for name in ("clean", flipped[0]))
    assert r.scores["clean"]["accuracy"] == 1.0
    assert (turned == 1 - clean).mean() > 0.9  # of an exclusive-or with one bit turned
    assert cli.cli.main(["info", str(path)], standalone_mode=False) == 0
    assert "Severities 1 to 2: -1.0, -2.0" in capsys.readouterr().out


def test_a_training_scalar_is_one_line_and_what_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--folds", "1", "--seeds", "1"]
    with pytest.raises(UsageError, match="no hyper-parameter of training is called 'certainty'"):
        run(tmp_path / "none", *few, "--train.certainty", "1")
    monkeypatch.setattr(SETUP, "Recipe", imported(added(tmp_path, "recipe", SCALAR)).Recipe)
    (plain,) = run(tmp_path / "plain", *few)
    assert "certainty" not in plain.run.hparams["train"]
    (r,) = run(tmp_path / "penalised", *few, "--train.certainty", "1")
    assert r.run.hparams["train"]["certainty"] == 1.0
    assert "concat (lr=0.003, steps=60, interval=30, certainty=1)" in capsys.readouterr().out
    sure = []
    for folder, record in (("plain", plain), ("penalised", r)):
        kept = store.predictions(tmp_path / folder, record.run)
        assert kept is not None
        sure.append(float(np.abs(kept.answers["clean"][..., 1] - kept.answers["clean"][..., 0]).mean()))
    assert sure[1] < 0.5 * sure[0]


def test_a_training_scalar_acts_alike_alone_and_stacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SETUP, "Recipe", imported(added(tmp_path, "recipe", SCALAR)).Recipe)
    answers = []
    for stack in ("1", "2"):
        found = run(tmp_path / stack, "--folds", "1", "--seeds", "2", "--train.certainty", "1", "--stack", stack)
        kept = store.predictions(tmp_path / stack, found[0].run)
        assert kept is not None
        answers.append(kept.answers["clean"])
    assert np.allclose(*answers, atol=1e-3)


def test_a_data_format_is_one_function_and_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, folder = np.random.default_rng(0), tmp_path / "mine"
    folder.mkdir()
    rows = [
        {"id": i, "person": f"p{i // 6}", "label": i % 2, "x": i % 2 + 0.1 * rng.normal(), "z": rng.normal()}
        for i in range(60)
    ]
    (folder / "samples.json").write_text(json.dumps(rows))
    (folder / "benchmark.toml").write_text(
        'file = "samples.json"\nlabel = "label"\ngroup = "person"\n'
        '[modalities.a]\ncolumns = ["x"]\n[modalities.b]\ncolumns = ["z"]\n'
    )
    with pytest.raises(UsageError, match=r"\.json is not read, only \.npz"):
        custom_data.load(str(folder))
    monkeypatch.setattr(files, "FORMATS", dict(files.FORMATS))
    imported(added(tmp_path, "format", FORMAT))
    (r,) = run(tmp_path / "results", "--folds", "1", "--seeds", "1", benchmark=str(folder))
    assert r.scores["clean"]["macro_f1"] == 1.0
    assert r.samples["train"] + r.samples["val"] + r.samples["test"] == 60


def test_a_metric_is_one_function_and_one_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(metrics, "METRICS", dict(metrics.METRICS))
    imported(added(tmp_path, "metric", METRIC))
    monkeypatch.setattr(ToyXor, "task", Task("classify", 2, ("kappa", "accuracy")))
    monkeypatch.setattr(ToyXor, "corruptions", ("missing:left",))
    found = run(tmp_path / "results", "--train.steps", "8")
    shown = capsys.readouterr().out
    assert "toy_xor: kappa, 12 people" in shown
    assert "[" in shown  # its interval, by the same statistics
    for r in found:
        kept = store.predictions(tmp_path / "results", r.run)
        assert kept is not None
        for condition, answers in kept.answers.items():
            oracle = cohen_kappa_score(kept.y[:, 0], answers[:, 0].argmax(-1))
            assert r.scores[condition]["kappa"] == pytest.approx(oracle, nan_ok=True)

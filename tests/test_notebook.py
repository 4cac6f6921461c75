"""The Python face: boards that show themselves, the page of examples, the notebooks, short reprs, completion."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import fusionbench
from fusionbench import harness, study
from fusionbench.api import UsageError
from fusionbench.notebook import FIGURES, Board

ROOT = Path(__file__).resolve().parent.parent
FAST = {"steps": 12, "interval": 6, "lr": (3e-3,)}
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def board(results: Path) -> Board:
    return fusionbench.compare(
        ["gated", "concat"], "toy_xor", results=results, train=FAST, references=False, track=False
    )


def test_a_board_is_a_value(board: Board) -> None:
    assert repr(board).startswith("Board of toy_xor: 2 rows by accuracy, best ")
    frame = board.to_frame()
    assert list(frame["fuser"]) == [row.label for row in board.ranked]
    assert frame["score"].tolist() == pytest.approx([row.clean for row in board.ranked])
    assert [v.b for _, v in board.verdicts] == [board.reference] * 2
    assert {v.decision for _, v in board.verdicts} <= {"better", "worse", "equivalent", "undecided"}
    assert board.sentences[0].startswith("Clean: gated")
    assert "<table>" in board._repr_html_()
    assert len(board._repr_html_()) < 3000
    assert str(board).startswith("toy_xor: accuracy in %")


def test_a_board_draws_its_figures(board: Board) -> None:
    assert board.plot("curves").get_axes()
    with pytest.raises(UsageError, match="no figure of a board is called 'curve'; did you mean curves"):
        board.plot("curve")
    with pytest.raises(UsageError, match="this board has no data for the figure shapley; it has: none"):
        replace(board, rows=[]).plot("shapley")
    assert "tuning" not in FIGURES


def test_a_comparison_takes_the_same_way_as_the_command(board: Board, results: Path, capsys: Any) -> None:
    fusionbench.compare(["gated", "concat"], "toy_xor", results=results, train=FAST, references=False, track=False)
    assert "all 12 runs are on disk" in capsys.readouterr().err
    two = fusionbench.compare(["concat"], ["toy_xor"], results=results, train=FAST, references=False, track=False)
    assert isinstance(two, list)
    with pytest.raises(UsageError, match="no word of a comparison is called 'seed'; did you mean seeds"):
        fusionbench.compare(["concat"], "toy_xor", seed=3)
    with pytest.raises(UsageError, match="leave seeds to it"):
        fusionbench.compare(fusionbench.Study(["concat"], ["toy_xor"]), seeds=[1])


def test_quick_is_one_fold_and_one_seed_everywhere(tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    file.write_text('fusers = ["concat"]\nbenchmarks = ["toy_xor"]\nquick = true\nreferences = false\n')
    for value in (study.read(file), fusionbench.Study(["concat"], ["toy_xor"], quick=True, references=False)):
        (plan,) = study.plan_study(value, tmp_path)
        assert [(r.fold, r.seed) for r in plan.train] == [(0, 0)]
    (plan,) = study.plan_study(
        study.Study(["concat"], ["toy_xor"], seeds=[1, 2], quick=True, references=False), tmp_path
    )
    assert [(r.fold, r.seed) for r in plan.train] == [(0, 1), (0, 2)]


def test_what_a_shell_shows_is_short(board: Board, results: Path) -> None:
    setup = harness.setup("toy_xor", "concat", given={"train": FAST})
    records = fusionbench.load_records(results)
    shown = [setup, setup.data, setup.data.streams["left"], records, records[0], board, board.rows, board.rows[0]]
    assert [len(repr(value)) < 200 for value in shown] == [True] * len(shown), list(map(repr, shown))
    assert repr(setup) == "Setup(concat train.lr=0.003 train.steps=12 train.interval=6 on toy_xor)"
    assert repr(records) == "12 records: concat on toy_xor, gated on toy_xor; .to_frame()"


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("run --fuser conc", {"concat"}),
        ("compare jm", {"jmt"}),
        ("run -b toy", {"toy_xor"}),
        ("fit linear wat", {"watch"}),
        ("check tensor_f", {"tensor_fusion"}),
    ],
)
def test_a_shell_completes_names(words: str, found: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from click.shell_completion import BashComplete

    from fusionbench.cli import cli

    complete = BashComplete(cli, {}, "fusionbench", "_FUSIONBENCH_COMPLETE")
    *before, typed = words.split()
    items = complete.get_completions(before, typed)
    assert {item.value for item in items} == found
    assert all(item.help for item in items)
    assert [i.type for i in complete.get_completions(["run", "--fuser"], "./mi")] == ["file"]


# --------------------------------------------------------------------------------------------- what the documents show


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of somebody who has just installed it."""
    monkeypatch.setenv("FUSIONBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_examples_of_the_page_run(stranger: Path) -> None:
    page = (ROOT / "docs" / "python.md").read_text()
    space: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) > 6
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), space)
    assert (stranger / "my-model" / "model.json").is_file()
    (content,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (stranger / "study.toml").write_text(content)
    told = study.read(stranger / "study.toml")
    assert list(told.seeds or []) == [0, 1, 2, 3, 4]
    words = set(re.findall(r"^\[?(\w+)", content, re.MULTILINE))
    assert words >= set(study.Study.__dataclass_fields__), "the page names every word of a study"


def test_the_notebooks_run(stranger: Path) -> None:
    """One after the other in one kernel, each with nothing but its own names: to start three would take longer."""
    reason = "notebooks are run by nbclient: pip install 'mm-fusionbench[test]'"
    nbformat = pytest.importorskip("nbformat", reason=reason)
    nbclient = pytest.importorskip("nbclient", reason=reason)
    assert [path.stem for path in NOTEBOOKS] == ["compare", "damage", "own_fuser"]
    together = nbformat.v4.new_notebook()
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, 4)
        assert not any(cell.get("outputs") for cell in notebook.cells), "kept without outputs: they would age"
        together.cells += [nbformat.v4.new_code_cell("%reset -f"), *notebook.cells]
    nbclient.NotebookClient(together, timeout=300, resources={"metadata": {"path": str(stranger)}}).execute()
    shown = [output for cell in together.cells for output in cell.get("outputs", [])]
    assert sum("text/html" in output.get("data", {}) for output in shown) >= 3, "a board shows itself as a table"
    assert any("image/png" in output.get("data", {}) for output in shown), "a curve is drawn"

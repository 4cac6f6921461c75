"""Comparisons as values: study files, references, tuned rows, the Python interface."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import fusionbench
from fusionbench import cli, study
from fusionbench.api import UsageError
from fusionbench.records import store

FAST = {"steps": 12, "interval": 6, "lr": (3e-3,)}


def rows(value: study.Study) -> list[tuple[str, dict[str, object]]]:
    return [(setup.names["fuser"], dict(setup.hparams["fuser"])) for setup, _ in value.setups()]


def test_every_comparison_carries_its_references() -> None:
    names = [name for name, _ in rows(study.Study(["gated"], ["toy_xor"]))]
    assert names == ["gated", "late_average", "concat", "unimodal", "unimodal"]
    assert [h["modality"] for n, h in rows(study.Study(["gated"], ["toy_xor"])) if n == "unimodal"] == ["left", "right"]
    assert [n for n, _ in rows(study.Study(["gated"], ["toy_xor"], references=False))] == ["gated"]


def test_all_is_every_fuser_once() -> None:
    names = [name for name, _ in rows(study.Study(["all"], ["toy_xor"]))]
    assert len(set(names)) == len(names) - 2 > 40  # what sees one modality stands once for each
    assert names.count("unimodal") == names.count("unimodal_forest") == 2
    assert "position" not in names  # toy samples have no time


def test_options_reach_one_fuser_and_crossing_all() -> None:
    value = study.Study(
        ["gated", "concat"], ["toy_xor"], options={"gated": {"width": "64"}},
        cross={"train.modality_dropout": ["0", "0.3"]}, references=False,
    )  # fmt: skip
    found = [(s.names["fuser"], s.hparams["fuser"]["width"], s.recipe.modality_dropout) for s, _ in value.setups()]
    assert found == [("gated", 64, 0.0), ("gated", 64, 0.3), ("concat", 128, 0.0), ("concat", 128, 0.3)]
    with pytest.raises(UsageError, match="no fuser of this comparison is called 'gatd'; did you mean gated"):
        rows(study.Study(["gated"], ["toy_xor"], options={"gatd": {}}))


def test_the_lattice_adds_every_subset_of_missing_modalities() -> None:
    _, conditions = next(study.Study(["concat"], ["affect_sim"], lattice=True).setups())
    assert {"missing:face+voice", "missing:face+bio", "missing:voice+bio"} <= set(conditions)
    assert "missing:face+voice+bio" not in conditions


def test_a_study_file_holds_the_same_words(tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    file.write_text(
        'fusers = ["gated"]\nbenchmarks = ["toy_xor"]\nseeds = 2\nlattice = true\n'
        "[options.gated]\nwidth = 64\n[train]\nsteps = 12\n"
    )
    value = study.read(file)
    assert list(value.seeds or []) == [0, 1]
    assert value.options == {"gated": {"width": 64}}
    file.write_text('fusers = ["gated"]\nbenchmrks = ["toy_xor"]\n')
    with pytest.raises(UsageError, match=r"no word of a study .* is called 'benchmrks'; did you mean benchmarks"):
        study.read(file)
    file.write_text('fusers = ["gated"]\n')
    with pytest.raises(UsageError, match="names no benchmarks"):
        study.read(file)
    with pytest.raises(UsageError, match="study file"):
        study.read(tmp_path / "none.toml")


def test_run_compare_and_records_from_python(tmp_path: Path) -> None:
    found = fusionbench.run(
        "concat", "toy_xor", results=tmp_path, seeds=[0], folds=[0], given={"train": FAST}, track=False
    )
    assert [r.status for r in found] == ["done"]
    value = fusionbench.Study(["concat"], ["toy_xor"], seeds=[0, 1], folds=[0], train=FAST, references=False)
    (board,) = fusionbench.compare(value, results=tmp_path, track=False)
    assert len(board.rows) == 1
    frame = fusionbench.load_records(tmp_path).to_frame()
    assert set(frame["seed"]) == {0, 1}
    assert {"clean", "chance", "missing:left"} <= set(frame["condition"])
    with pytest.raises(AttributeError):
        _ = fusionbench.nothing


def test_tune_then_run_with_what_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def fusionbench_(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fusionbench", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out, said.err

    toy = ["-b", "toy_xor", "--train.steps", "12", "--train.interval", "6"]
    status, _, said = fusionbench_("run", "-f", "concat", *toy, "--tuned", "--no-track")
    assert status == 2
    assert "concat is not tuned on toy_xor" in said
    status, found, said = fusionbench_("tune", "concat", *toy, "--trials", "3", "--inner", "2", "--seeds", "1")
    assert status == 0, said
    assert "outer fold 1" in found
    status, table, said = fusionbench_("run", "-f", "concat", *toy, "--tuned", "--no-track")
    assert status == 0, said
    assert "tuned" in table
    tuned = list(store.load(tmp_path / "results"))
    assert len({r.run.row for r in tuned}) == 1
    assert {r.run.fold for r in tuned} == {0, 1, 2}
    assert all(r.marks == ["tuned"] and r.changes[0].startswith("tuned=3 trials") for r in tuned)
    for journal in tmp_path.glob("results/*/*/*.journal"):
        journal.unlink()  # what is committed is enough for the figures
    assert fusionbench_("report", "--figures", "paper")[0] == 0
    for figure in ("tuning", "budget"):
        assert [path for path in tmp_path.glob(f"paper/**/*{figure}*") if path.stat().st_size > 1000]
    for words, message in (
        (["tune"], "tune what?"),
        (["tune", "concat", *toy, "--trials", "0"], "trials"),
    ):
        status, _, said = fusionbench_(*words)
        assert status == 2
        assert message in said

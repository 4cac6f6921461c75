"""Wrong words, half-said words and odd files: one line that names the thing, or the right thing done."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import pytest

from fusionbench import cli, harness, hparams, jobs, registry, study
from fusionbench.errors import UsageError

TOY = ["-b", "toy_xor", "--quick", "--no-track"]


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command line in a folder of its own: (exit status, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fusionbench", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return call


def wrong(said: Any, *words: str) -> str:
    status, _, err = said(*words)
    assert status == 2, err
    assert len(err.strip().splitlines()) == 1, err
    return err


def test_words_are_listed_and_numbers_are_not() -> None:
    def target(*, mode: Annotated[str, hparams.Choice("a", "b")] = "a",
               width: Annotated[int, hparams.Choice(1, 2)] = 1, free: str = "") -> None: ...  # fmt: skip

    declared = hparams.read(target)
    assert hparams.fill(declared, {"mode": "b", "width": "512", "free": "x"}, "t") == {
        "mode": "b", "width": 512, "free": "x",
    }  # fmt: skip
    with pytest.raises(UsageError, match="mode takes a or b, not 'c'"):
        hparams.fill(declared, {"mode": "c"}, "t")


def test_types_that_name_what_is_not_there() -> None:
    def target(*, width: Nowhere = 1) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(UsageError, match="target's arguments: name 'Nowhere' is not defined"):
        hparams.read(target)


def test_the_file_of_a_plugin_that_is_here_is_that_plugin(tmp_path: Path) -> None:
    path = registry.names("fusers")["concat"].path
    assert path is not None
    assert registry.load("fusers", str(path)) is registry.load("fusers", "concat")
    copy = tmp_path / "concat.py"
    copy.write_text(path.read_text())
    with pytest.raises(UsageError, match="would both be 'concat'"):
        registry.load("fusers", str(copy))


def test_a_syntax_error_is_named_once(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("x = 1\ny = (\n")
    with pytest.raises(UsageError, match=r"SyntaxError: '\(' was never closed \(broken.py, line 2\)$"):
        registry.load("fusers", str(tmp_path / "broken.py"))


def test_a_broken_corruption_file_does_not_stop_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torn.py").write_text("class (")
    monkeypatch.setattr(registry, "_folder", lambda kind: tmp_path)
    registry._files.cache_clear()
    try:
        assert "cannot be read" in registry.names("corruptions")["torn"].summary()
    finally:
        monkeypatch.undo()
        registry._files.cache_clear()


def test_an_entry_point_that_is_no_plugin_is_named() -> None:
    entry: Any = SimpleNamespace(value="json:loads", dist=None, load=lambda: len)
    with pytest.raises(UsageError, match=r"fuser 'mine' .* is no Fuser but"):
        registry._load_origin("fusers", registry.Origin("mine", entry=entry))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('fusers = "jmt"', "fusers is a list of names"),
        ('seeds = "x"', "seeds is a number"),
        ("seeds = true", "seeds is a number"),
        ("folds = [-1]", "folds is a number"),
        ('corruption = "noise:all"', "corruption is a list of names"),
        ("cross = 3", "cross is a table of lists"),
        ('cross = {"train.clip" = 3}', "cross is a table of lists"),
        ("options = {concat = 3}", "options is a table"),
        ("train = 3", "train is a table"),
        ("lattice = 1", "lattice is true or false"),
    ],
)
def test_a_study_file_of_the_wrong_kinds(tmp_path: Path, line: str, message: str) -> None:
    whole = {"fusers": 'fusers = ["concat"]', "benchmarks": 'benchmarks = ["toy_xor"]'}
    whole[line.partition(" ")[0]] = line
    file = tmp_path / "study.toml"
    file.write_text("\n".join(whole.values()))
    with pytest.raises(UsageError, match=message):
        study.read(file)


def test_a_study_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="study file"):
        study.read(tmp_path / "study.toml")


def test_references_have_options_and_backbones_cross() -> None:
    value = study.Study(["gated"], ["toy_xor"], options={"concat": {"width": 32}, "unimodal": {"width": 64}})
    widths = {(s.names["fuser"], s.hparams["fuser"].get("width")) for s, _ in value.setups()}
    assert {("concat", 32), ("unimodal", 64)} <= widths
    value = study.Study(["concat"], ["watch"], cross={"backbone.acc.dim": [8, 16]}, references=False)
    assert [s.hparams["backbone.acc"]["dim"] for s, _ in value.setups()] == [8, 16]


def test_a_study_file_is_not_overruled_in_silence(said: Any, tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text('fusers = ["concat"]\nbenchmarks = ["toy_xor"]\n')
    for words in (["--quick"], ["--lattice"], ["--train.steps", "5"], ["jmt"]):
        assert "s.toml says what is compared" in wrong(said, "compare", "--study", "s.toml", *words)


def test_the_grid_tells_modalities_and_rows_apart(said: Any) -> None:
    status, out, err = said("missing-grid", "unimodal", *TOY, "--rates", "0", "-m", "left")
    assert status == 0, err
    assert "unimodal fuser.modality=left on toy_xor" in out
    assert "unimodal fuser.modality=right on toy_xor" in out
    realised = [float(v) for line in out.splitlines() if line.startswith("realised rate") for v in line.split()[2:]]
    assert realised[5] > 0.75  # of `left`, which goes missing; nominally 0.9


def test_tables_of_what_is_not_there(said: Any, tmp_path: Path) -> None:
    assert "there are no records in results" in wrong(said, "leaderboard")
    (tmp_path / "results" / "toy_xor").mkdir(parents=True)
    for words in (["leaderboard"], ["records", "list"], ["report"]):
        assert "did you mean toy_xor?" in wrong(said, *words, "-b", "toy_xr")
        assert "no benchmark with records" in wrong(said, *words, "-b", "/absolute")
        assert "no benchmark with records" in wrong(said, *words, "-b", "")


def test_an_unknown_name_leaves_nothing_behind(said: Any, tmp_path: Path) -> None:
    assert "did you mean concat?" in wrong(said, "run", "--fuser", "concta", *TOY)
    assert not list(tmp_path.iterdir())


def test_list_and_new_say_what_they_cannot_do(said: Any, tmp_path: Path) -> None:
    assert "goes with corruptions" in wrong(said, "list", "fusers", "--benchmark", "watch")
    (tmp_path / "file").write_text("")
    assert "cannot write" in wrong(said, "new", "fuser", "my_mix", "--into", "file")


def test_an_estimate_that_breaks_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> float:
        raise error

    nothing: Any = None
    monkeypatch.setattr(harness, "estimate", broken)
    plan = SimpleNamespace(setup=nothing, train=[nothing], evaluate=[], conditions=(), stack=1)
    error: Exception = ZeroDivisionError("in a method")
    assert jobs._estimate(plan, "cpu") == 0.0
    error = UsageError("of the user")
    with pytest.raises(UsageError, match="of the user"):
        jobs._estimate(plan, "cpu")

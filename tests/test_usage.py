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


LONG = "x" * 300
RUN = ["run", "-f", "concat"]
COMPARE = ["compare", "concat", "--no-references"]
KNOWN = [
    ([*RUN, *TOY, "--seeds", "1e20"], "--seeds takes a number"),
    ([*RUN, *TOY, "--seeds", "9" * 20], "--seeds takes a number"),
    ([*RUN, *TOY, "--seeds", "9" * 5000], "--seeds takes a number"),
    ([*RUN, *TOY, "--seeds", "-1"], "--seeds takes a number"),
    ([*RUN, *TOY, "--folds", ","], "--folds takes a number"),
    ([*RUN, *TOY, "--benchmark.people", "-1"], "toy_xor: people cannot be -1: its range is 6 to 60"),
    ([*RUN, *TOY, "--train.steps", "-1"], "train.steps cannot be -1"),
    ([*RUN, *TOY, "--train.lr", "nan"], "lr takes a number"),
    ([*RUN, *TOY, "--cluster", "dask://:x"], "--cluster takes dask://host:port"),
    ([*RUN, *TOY, "--cluster", "dask://[::1"], "--cluster takes dask://host:port"),
    ([*RUN, *TOY, "--device", "warp"], "device 'warp' cannot be used"),
    ([*RUN, "-b", LONG], "File name too long"),
    ([*RUN, "-b", f"{LONG}.npz"], "File name too long"),
    ([*RUN, *TOY, "--results", LONG], "File name too long"),
    (["run", "-f", LONG, *TOY], "no fuser is called"),
    (["run", "-f", "./plug.pyx", *TOY], "plug.pyx is no .py file"),
    (["run", "-f", ".", *TOY], "no fuser is called '.'"),
    (["records", "publish", ""], "no benchmark with records in results is called ''"),
    (["tune", "concat", "-b", "toy_xor", "--trials", "-1"], "a search has at least one trial"),
    ([*COMPARE, *TOY, "--backbone.left", "grru"], "no backbone is called 'grru'; did you mean gru?"),
    ([*COMPARE, *TOY, "--backbone.lft", "gru"], "no modality of toy_xor is called 'lft'; did you mean left?"),
    ([*COMPARE, *TOY, "--backbone.left", "gru", "--backbone.left.dm", "3"], "of gru (left) is called 'dm'"),
    ([*COMPARE, *TOY, "--backbone.left", "gru", "--backbone.left.dim", "x"], "dim takes a whole number, not 'x'"),
    ([*COMPARE, *TOY, "--backbone", "gru"], "no flag is called '--backbone'"),
    ([*COMPARE, *TOY, "--backbone.a.b.c", "1"], "no part of a run is called 'backbone.a.b'"),
    ([*COMPARE, "-b", "toy_xor", "-b", "affect_sim", "--backbone.left", "gru"], "no modality of affect_sim"),
]


@pytest.mark.parametrize(("words", "message"), KNOWN, ids=[" ".join(words)[-40:] for words, _ in KNOWN])
def test_what_has_ended_in_a_traceback_before_is_one_line(
    said: Any, tmp_path: Path, words: list[str], message: str
) -> None:
    (tmp_path / "plug.pyx").write_text("x = 1\n")
    assert message in wrong(said, *words)
    assert not list(tmp_path.rglob("*.json"))
    assert not (tmp_path / "results").exists()


def test_compare_takes_backbones_as_run_does(said: Any, tmp_path: Path) -> None:
    """As flags, crossed, and in a study file; the same runs each time."""
    short = ["--train.steps", "2", "--train.interval", "1"]
    status, out, err = said(*RUN, *TOY, *short, "--backbone.left", "gru", "--backbone.left.dim", "8")
    assert status == 0, err
    assert "left=gru" in out
    for words in (
        ["--backbone.left.dim=8", "--backbone.left=gru"],
        ["--backbone.left.dim", "8", "--cross", "backbone.left=gru"],
    ):
        status, _, err = said(*COMPARE, *TOY, *short, *words)
        assert status == 0
        assert "its run is on disk" in err
    (tmp_path / "s.toml").write_text(
        'fusers = ["concat"]\nbenchmarks = ["toy_xor"]\nreferences = false\nquick = true\nseeds = 1\nfolds = [0]\n'
        'train = {steps = 2, interval = 1}\nbackbones = {left = "gru"}\nbackbone.left.dim = 8\n'
    )
    status, _, err = said("compare", "--study", "s.toml", "--no-track")
    assert status == 0
    assert "its run is on disk" in err
    (tmp_path / "s.toml").write_text('fusers = ["concat"]\nbenchmarks = ["toy_xor"]\nbackbones = ["gru"]\n')
    assert "backbones is a table of names" in wrong(said, "compare", "--study", "s.toml")
    (tmp_path / "s.toml").write_text('fusers = ["concat"]\nbenchmarks = ["toy_xor"]\nbackbone = {left = "gru"}\n')
    assert "backbone is a table of hyper-parameters for each modality" in wrong(said, "compare", "--study", "s.toml")


def test_a_disk_that_is_full_ends_a_search_in_one_line(said: Any, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="only POSIX limits the size of files")
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, usual[1]))
    try:
        words = ["--trials", "2", "--inner", "2", "--seeds", "1", "--folds", "1", "--no-track"]
        error = wrong(said, "tune", "concat", "-b", "toy_xor", "--train.steps", "2", "--train.interval", "1", *words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert "File too large" in error
    assert not list(tmp_path.rglob("tuned.json"))

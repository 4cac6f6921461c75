"""Own data cannot mislead: leaks are named, roles are guessed aloud, and what `run` refuses, `data check` refuses."""

from __future__ import annotations

import importlib.util
import io
import os
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fuzzing import DATA, tables  # of bench/
from fuzzing.plugins import BENCHMARK, PARTS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fusionbench
from fusionbench import cli, custom_data
from fusionbench import data as public
from fusionbench.api import Batch
from fusionbench.custom_data import leaks, sources, words
from fusionbench.errors import UsageError

N, PEOPLE = 120, 12
QUICK = ["--fuser", "concat", "--quick", "--no-track", "--jobs", "1", "--train.steps", "2", "--train.interval", "1"]
Command = Callable[..., tuple[int, str, str]]


def arrays(**changes: Any) -> dict[str, Any]:
    """Two modalities of 120 samples of 12 people, three classes; a change of None leaves an array out."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, N)
    face = rng.standard_normal((N, 6, 4)) + y[:, None, None]
    eda = rng.standard_normal((N, 2)) - y[:, None]
    found = {"face": face, "eda": eda, "y": y, "group": np.arange(N) // (N // PEOPLE), **changes}
    return {name: value for name, value in found.items() if value is not None}


def npz(folder: Path, **changes: Any) -> Path:
    np.savez(folder / "mine.npz", **arrays(**changes))
    return folder / "mine.npz"


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command as it is typed: its exit status, what it prints and what it complains of."""
    monkeypatch.setenv("FUSIONBENCH_HOME", str(tmp_path / "home"))

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["fusionbench", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return call


def refused(command: Command, target: Path | str, results: Path) -> str:
    """The one line with which `data check` and `run` refuse a benchmark, the same one; nothing is written."""
    status, _, checked = command("data", "check", target)
    assert status == 2, checked
    status, _, ran = command("run", "-b", target, *QUICK, "--results", results)
    assert status == 2, ran
    assert checked == ran
    assert checked.startswith("error: ")
    assert checked.count("\n") == 1
    assert not list(results.rglob("*.json"))
    return checked


# ------------------------------------------------------------------------------------------------- names that mislead


@pytest.mark.parametrize(
    ("name", "usual"),
    [("subject", "group"), ("Person_ID", "group"), ("participants", "group"), ("label", "y"), ("targets", "y")],
)
def test_a_role_under_another_name_is_asked_about(command: Command, tmp_path: Path, name: str, usual: str) -> None:
    given = {name: np.arange(N)[:, None] % 12, "group": None} if usual == "group" else {name: np.arange(N) % 3}
    said = refused(command, npz(tmp_path, **given), tmp_path / "results")
    assert f"did you mean {usual} by {name!r}?" in said


def test_a_video_may_be_a_modality_but_one_number_a_sample_is_whose_it_is() -> None:
    assert words.role("video", single=False) is None
    assert words.role("video", single=True) == "group"
    assert words.role("face", single=True) is None


def test_a_pattern_of_columns_does_not_take_in_the_person(tmp_path: Path) -> None:
    rows = "\n".join(f"{i % 2},{i // 6},{i * 0.37 % 1}" for i in range(60))
    (tmp_path / "t.csv").write_text(f"y,subject,a\n{rows}\n")
    (tmp_path / "benchmark.toml").write_text('[modalities.all_of_it]\ncolumns = ["*"]\n')
    with pytest.raises(UsageError, match="did you mean group = 'subject'"):
        custom_data.load(tmp_path)


# --------------------------------------------------------------------------------------------------------------- leaks


def suspected(**changes: Any) -> list[tuple[str, str, int | None]]:
    benchmark = custom_data.build(sources.of_arrays(Path("x"), arrays(**changes), {}))()
    return [(s.modality, s.what, s.column) for s in leaks.suspects(benchmark.task, benchmark.load())]


def with_column(modality: str, column: int, values: Any) -> Any:
    changed = arrays()[modality].copy()
    changed[..., column] = values if changed.ndim == 2 else values[:, None]
    return changed


def test_a_copy_of_the_label_is_found() -> None:
    given, rng = arrays(), np.random.default_rng(1)
    y, people = given["y"], given["group"]
    assert suspected(eda=with_column("eda", 1, y)) == [("eda", "label", 1)]
    assert suspected(face=with_column("face", 2, y)) == [("face", "label", 2)]
    assert suspected(eda=with_column("eda", 0, np.array([7.0, -1.0, 3.0])[y])) == [("eda", "label", 0)]  # coded
    assert suspected(eda=with_column("eda", 0, y + 0.02 * rng.standard_normal(N))) == [("eda", "label", 0)]  # blurred
    flipped = np.where(rng.random(N) < 0.01, 0, y)
    assert suspected(eda=with_column("eda", 0, flipped)) == [("eda", "label", 0)]
    assert suspected(extra=np.eye(3)[y]) == [("extra", "label", -1)]  # no column alone, but the modality
    assert suspected(eda_mask=y != 1) == [("eda", "label", None)]  # a sensor that is off for one class
    assert suspected(extra=people[:, None]) == [("extra", "group", 0)]
    assert suspected(extra=np.stack([rng.standard_normal(N), people + 0.01 * rng.random(N)], 1)) == [
        ("extra", "group", 1)
    ]


def test_a_copy_of_a_value_is_found() -> None:
    value = np.random.default_rng(1).standard_normal(N)
    assert suspected(y=value) == []
    assert suspected(y=value, extra=np.exp(value)[:, None]) == [("extra", "label", 0)]
    frames = np.random.default_rng(2).standard_normal((N, 6))
    assert suspected(y=frames, eda=None, face=np.random.default_rng(3).standard_normal((N, 6, 4))) == []
    face = arrays()["face"]
    face[..., 3] = -2 * frames
    assert suspected(y=frames, eda=None, face=face) == [("face", "label", 3)]


def test_no_alarm_on_clean_data() -> None:
    """A strong sensor is no leak: people with offsets of their own, classes up to seven deviations apart."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        people, clips, classes = int(rng.integers(5, 20)), int(rng.integers(3, 20)), int(rng.integers(2, 5))
        y = rng.integers(0, classes, people * clips)
        if np.bincount(y, minlength=classes).min() < 2:
            continue
        group = np.repeat(np.arange(people), clips)
        face = rng.standard_normal((len(y), 12, 30)) + rng.choice([0, 1, 2]) * y[:, None, None]
        eda = rng.standard_normal((len(y), 4)) + rng.choice([0, 2, 5]) * rng.standard_normal(people)[group][:, None]
        assert suspected(face=face, eda=eda, y=y, group=group) == [], seed


@pytest.mark.parametrize("name", ["watch", "toy_xor", "affect_sim", "synergy_sim"])
def test_no_alarm_on_a_benchmark_of_ours(name: str) -> None:
    assert public.check(name)[-1] == "nothing is wrong"


def test_the_command_names_a_suspected_leak(command: Command, tmp_path: Path) -> None:
    status, out, _ = command("data", "check", npz(tmp_path, eda=with_column("eda", 1, arrays()["y"])))
    assert status == 1
    said = " ".join(out.split())  # lines are as wide as the terminal
    assert "wrong: suspected leak: column 1 (from 0) of eda alone tells the label of 100.0% of the samples" in said
    assert out.endswith("1 thing is wrong\n")


# ------------------------------------------------------------------------------------------------- labels and metrics


def test_what_is_masked_is_nobodys_label(tmp_path: Path) -> None:
    hidden = np.arange(N) % 5 == 0
    y = arrays()["y"]
    batch = custom_data.load(npz(tmp_path, y=np.where(hidden, -1, y), y_mask=~hidden))().load()
    assert batch.y_mask[:, 0].tolist() == (~hidden).tolist()
    assert batch.y[:, 0].tolist() == np.where(hidden, 0, y).tolist()
    for odd in (np.inf, np.nan, 1e300):
        batch = custom_data.load(npz(tmp_path, y=np.where(hidden, odd, y + 0.5), y_mask=~hidden))().load()
        assert batch.y_mask[:, 0].tolist() == (~hidden).tolist()
    text = np.where(hidden, "?", np.array(["a", "b", "c"])[y])
    assert custom_data.load(npz(tmp_path, y=text, y_mask=~hidden)).classes == ("a", "b", "c")


def test_several_columns_of_labels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((N, 4))
    rows = "\n".join(",".join(map(str, [i // 10, *values[i]])) for i in range(N))
    (tmp_path / "t.csv").write_text(f"who,t_valence,t_arousal,a,b\n{rows}\n")
    (tmp_path / "benchmark.toml").write_text(
        'file = "t.csv"\nlabel = ["t_*"]\ngroup = "who"\n[modalities.eda]\ncolumns = ["a", "b"]\n'
    )
    benchmark = custom_data.load(tmp_path)()
    assert (benchmark.task.kind, benchmark.task.out, benchmark.shapes) == ("regress", 2, {"eda": (2,)})
    assert np.allclose(benchmark.load().y[:, 0].numpy(), values[:, :2])


def test_the_metric_of_an_npz_is_a_setting(command: Command, tmp_path: Path) -> None:
    path = npz(tmp_path, y=np.random.default_rng(0).standard_normal(N))
    assert "ranked by mae" in command("data", "check", path, "--benchmark.metrics", "mae,ccc")[1]
    status, _, err = command("data", "check", path, "--benchmark.metrics", "accuracy")
    assert (status, err) == (2, f"error: {path}: the metric accuracy is not for a task of kind regress\n")
    results = tmp_path / "results"
    assert command("run", "-b", path, *QUICK, "--benchmark.metrics", "mae", "--results", results)[0] == 0
    (record,) = fusionbench.load_records(results)
    assert record.metrics == ["mae"]


def test_empty_rows_are_described(tmp_path: Path) -> None:
    given = arrays()
    given["face"][7] = 0
    given["face"][9, :5, 1] = np.nan
    given["face"][11, :2, 1] = np.nan
    lines = public.check(str(npz(tmp_path, face=given["face"])))
    assert "note: face: 1 sample is zero throughout (as 007): if nothing was measured there, mask it" in lines
    assert any("face: in 1 sample most steps have NaN" in line and line.endswith(": 9 (from 0)") for line in lines)


# ------------------------------------------------------------------------------------------- what run refuses, and why


def crafted(folder: Path, shape: str, kind: str = "<f8") -> Path:
    """An .npz whose `eda` says that it has this shape."""
    path = npz(folder)
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays(eda=None).items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            archive.writestr(f"{name}.npy", buffer.getvalue())
        header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}\n".encode()
        archive.writestr("eda.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 80)
    return path


def broken_deflate(folder: Path) -> Path:
    np.savez_compressed(folder / "mine.npz", **arrays())
    content = bytearray((folder / "mine.npz").read_bytes())
    content[100:140] = b"\xff" * 40
    (folder / "mine.npz").write_bytes(content)
    return folder / "mine.npz"


def npy_as_npz(folder: Path) -> Path:
    with (folder / "mine.npz").open("wb") as file:
        np.save(file, np.zeros((N, 2)))
    return folder / "mine.npz"


def loop(folder: Path) -> Path:
    (folder / "mine.npz").symlink_to("mine.npz")
    return folder / "mine.npz"


FILES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "broken deflate": (broken_deflate, r"is no valid \.npz file"),
    "npy as npz": (npy_as_npz, r"is no valid \.npz file"),
    "huge": (lambda f: crafted(f, "(1000000000000, 8)"), "says that it is .* but 80 bytes follow"),
    "negative": (lambda f: crafted(f, "(-1, 2)"), "says that it is"),
    "pickle": (lambda f: crafted(f, "(10,)", "|O"), "never unpickled"),
    "loop": (loop, "cannot be opened"),
    "label of three axes too many": (
        lambda f: npz(f, y=np.zeros((N, 1, 1, 1))),
        r"the label is float64 \(120, 1, 1, 1\)",
    ),
    "one label": (lambda f: npz(f, y=np.array(1)), "the label is int64"),
    "no sample": (lambda f: npz(f, y=np.zeros(0)), "there is no sample"),
    "mask of three axes": (lambda f: npz(f, y_mask=np.ones((N, 1, 1))), "y_mask is"),
    "mask of none": (lambda f: npz(f, y_mask=np.array(1)), "y_mask is"),
    "group of two columns": (lambda f: npz(f, group=np.zeros((N, 2))), r"group is \(120, 2\)"),
    "long label": (lambda f: npz(f, y=np.array(["x" * 5000, "1"] * 60)), "has 5000 characters"),
    "label of 5,000 digits": (lambda f: npz(f, y=np.array(["9" * 5000, "1"] * 60)), "sample 0 .* is infinite"),
    "label of two lines": (lambda f: npz(f, y=np.array(["a\nb", "c"] * 60)), "cannot be printed"),
    "beyond float32": (lambda f: npz(f, eda=np.full((N, 2), 1e200)), r"a number beyond 1e\+18"),
    "all": (lambda f: npz(f, all=np.ones((N, 2)) * np.arange(N)[:, None]), "cannot be called 'all'"),
    "name": (lambda f: npz(f, **{"a b": np.ones((N, 2))}), "cannot be called 'a b'"),
    "fold and split": (
        lambda f: npz(f, fold=np.arange(N) % 3, split=np.array(["train", "test"] * 60)),
        "has both 'fold'",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_one_line(command: Command, tmp_path: Path, name: str) -> None:
    make, message = FILES[name]
    path = make(tmp_path)
    with pytest.raises(UsageError, match=message):
        public.check(str(path))
    refused(command, path, tmp_path / "results")


def test_memory_that_is_refused_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = npz(tmp_path)

    def refuse(*arguments: Any, **more: Any) -> Any:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(np, "frombuffer", refuse)
        with pytest.raises(UsageError, match=r"mine\.npz needs more memory than there is"):
            custom_data.load(path)
    monkeypatch.setattr("os.sysconf", lambda name: 32)  # a machine of a kilobyte
    with pytest.raises(UsageError, match=r"mine\.npz needs .* GB of memory; this machine has 0\.0"):
        custom_data.load(path)


TOML = [
    ("seeds = 0", "seeds is a whole number from 1 to 10000, not 0"),
    ("seeds = -1", "seeds is a whole number from 1"),
    ("steps = 0", "steps is a whole number from 1"),
    ("batch = 0", "batch is a whole number from 1"),
    ("interval = 0", "interval is a whole number from 1"),
    ("folds = -2", "folds is a whole number from 1"),
    (f"seeds = {10**20}", "seeds is a whole number from 1"),
    ("metrics = [1]", "metrics is a list of names, and 1 is none"),
    ("corruptions = [2.5]", "corruptions is a list of names"),
    ('corruptions = ["noise:nobody"]', "there is no modality 'nobody'"),
    ("classes = [[1]]", "classes is a list of names"),
    ('classes = ["a", "a"]', "names 'a' twice"),
    ("label = 3", "label cannot be 3"),
    ('label = ["nobody*"]', r"no column for label is called 'nobody\*'"),
    ('fold = "who"\nsplit = "y"', "has both 'who' and 'y'"),
    ('version = ""', "version is empty"),
    ("x = " + "[" * 5000, "benchmark.toml: "),
]
RATES = ["-1", "0", "nan", "inf", "-inf", "1" + "0" * 400]


def table(folder: Path, text: str = "", modality: str = 'columns = ["a"]') -> Path:
    rows = "\n".join(f"{'ab'[i % 2]},{i // 6},{i * 0.37 % 1}" for i in range(60))
    (folder / "t.csv").write_text(f"y,who,a\n{rows}\n")
    (folder / "benchmark.toml").write_text(f'file = "t.csv"\ngroup = "who"\n{text}\n[modalities.eda]\n{modality}\n')
    return folder


@pytest.mark.parametrize(("text", "message"), TOML, ids=[text[:30] for text, _ in TOML])
def test_absurd_settings_are_one_line(command: Command, tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        public.check(str(table(tmp_path, text)))
    refused(command, tmp_path, tmp_path / "results")


@pytest.mark.parametrize("rate", RATES, ids=[rate[:8] for rate in RATES])
def test_a_rate_is_above_zero(tmp_path: Path, rate: str) -> None:
    with pytest.raises(UsageError, match=r"rate of modalities\.eda is steps a second"):
        custom_data.load(table(tmp_path, modality=f'columns = ["a"]\nrate = {rate}'))


def test_a_modality_of_a_table_cannot_be_called_all(command: Command, tmp_path: Path) -> None:
    table(tmp_path)
    path = tmp_path / "benchmark.toml"
    path.write_text(path.read_text().replace("modalities.eda", "modalities.all"))
    assert "cannot be called 'all'" in refused(command, tmp_path, tmp_path / "results")


def test_a_parquet_without_rows(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    table(tmp_path, modality='file = "p.parquet"')
    parquet.write_table(pyarrow.table({"a": pyarrow.array([], pyarrow.float64())}), tmp_path / "p.parquet")
    with pytest.raises(UsageError, match=r"p\.parquet has no row"):
        custom_data.load(tmp_path)


# ------------------------------------------------------------------------------------------------- paths and plugins


@pytest.mark.parametrize("name", ["my.csv", "plug.pyx", "notes.txt", "noext", "a.npy"])
def test_a_file_that_is_there_is_no_unknown_name(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).write_text("a,b\n1,2\n")
    monkeypatch.chdir(tmp_path)
    for spelled in (name, f"./{name}"):
        said = refused(command, spelled, tmp_path / "results")
        assert "is neither an .npz file nor a folder with benchmark.toml nor a .py plugin" in said
        assert "fusionbench data init FOLDER" in said


def test_a_folder_without_benchmark_toml_is_offered_one(command: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    said = refused(command, tmp_path / "empty", tmp_path / "results")
    assert f"`fusionbench data init {tmp_path / 'empty'}` writes one" in said
    assert f"--benchmark {tmp_path}" in refused(command, table(tmp_path) / "t.csv", tmp_path / "results")


def test_data_do_not_take_the_name_of_a_benchmark_or_an_odd_one(command: Command, tmp_path: Path) -> None:
    for name, message in (("watch.npz", "would both be 'watch'"), ("[a].npz", "cannot name a folder of results")):
        os.rename(npz(tmp_path), tmp_path / name)
        assert message in refused(command, tmp_path / name, tmp_path / "results")


ODD = [(part, line) for part, odd in PARTS.items() for line in odd]


@pytest.mark.parametrize(("part", "line"), ODD, ids=[line for _, line in ODD])
def test_whatever_a_plugin_raises_or_returns_is_one_line(
    command: Command, tmp_path: Path, part: str, line: str
) -> None:
    """An exit inside of it too: never status 0."""
    (tmp_path / "mine.py").write_text(BENCHMARK % {"constant": "pass", "load": "pass", "splits": "pass", part: line})
    refused(command, tmp_path / "mine.py", tmp_path / "results")


def test_the_plugin_that_the_odd_ones_are_made_of_is_fine(command: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(BENCHMARK % {"constant": "pass", "load": "pass", "splits": "pass"})
    assert command("data", "check", tmp_path / "mine.py")[0] == 0


# ------------------------------------------------------------------------------------------------------------ data init


def folder_of_tables(folder: Path) -> None:
    rng = np.random.default_rng(0)
    clips = [f"c{i},P{i // 10},{['calm', 'angry'][i % 2]},{rng.normal()}" for i in range(N)]
    steps = [f"c{i},{t},{rng.normal()},{rng.normal()}" for i in range(N) for t in range(3)]
    (folder / "clips.csv").write_text("\n".join(["clip,Person,emotion,age", *clips]) + "\n")
    (folder / "Skin Conductance.csv").write_text("\n".join(["clip,time,mean,slope", *steps]) + "\n")
    np.save(folder / "face.npy", rng.standard_normal((N, 3, 2)))


def folder_of_arrays(folder: Path) -> None:
    given = arrays()
    names = {"face": "face", "eda": "eda", "y": "target", "group": "subject_id"}
    for name, array in given.items():
        np.save(folder / f"{names[name]}.npy", array)


def folder_of_an_npz(folder: Path) -> None:
    given = arrays(eda_mask=np.random.default_rng(0).random(N) > 0.2)
    np.savez(folder / "x.npz", **{{"y": "labels", "group": "participant"}.get(n, n): a for n, a in given.items()})


@pytest.mark.parametrize("make", [folder_of_tables, folder_of_arrays, folder_of_an_npz])
def test_init_check_run(command: Command, tmp_path: Path, make: Callable[[Path], None]) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    make(folder)
    status, out, _ = command("data", "init", folder)
    assert status == 0
    assert out == (folder / "benchmark.toml").read_text()
    status, out, _ = command("data", "check", folder)
    assert status == 0, out
    assert "120 samples of 12 groups" in " ".join(out.split())
    assert command("run", "-b", folder, *QUICK, "--results", tmp_path / "results")[0] == 0
    status, _, err = command("data", "init", folder)
    assert status == 2
    assert "has a benchmark.toml: delete it first" in err


def test_init_of_media_names_the_way(command: Command, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    status, _, err = command("data", "init", tmp_path)
    assert status == 2
    assert "raw media need a plugin that reads them" in err
    assert not (tmp_path / "benchmark.toml").exists()


# ---------------------------------------------------------------------------------------------------------- from Python


def test_arrays_from_python_are_a_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSIONBENCH_HOME", str(tmp_path))
    given, rng = arrays(), np.random.default_rng(0)
    ragged = [rng.standard_normal((length, 3)) for length in rng.integers(0, 5, N)]
    path = fusionbench.from_arrays({**given, "voice": ragged, "group": [f"p{g}" for g in given["group"]]}, name="mine")
    assert path == fusionbench.from_arrays(
        {**given, "voice": ragged, "group": [f"p{g}" for g in given["group"]]}, "mine"
    )
    assert path != fusionbench.from_arrays(given, "mine")
    batch = custom_data.load(path)().load()
    assert batch.streams["voice"].mask.sum(1).tolist() == [len(item) for item in ragged]
    assert np.allclose(batch.streams["voice"].x[3, : len(ragged[3])].numpy(), ragged[3])
    assert list(batch.groups)[:11] == ["p0"] * 10 + ["p1"]
    (record,) = fusionbench.run("concat", path, quick=True, results=tmp_path / "results")
    assert record.status == "done"
    before = sorted(tmp_path.rglob("*"))
    for bad in ({**given, "y": None}, {**given, "face": [{}] * N}, {"y": given["y"]}, {**given, "voice": [[1], [[2]]]}):
        with pytest.raises(UsageError):
            fusionbench.from_arrays(bad)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_frame_is_a_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    monkeypatch.setenv("FUSIONBENCH_HOME", str(tmp_path))
    given = arrays()
    frame = pandas.DataFrame(given["eda"], columns=["a_1", "a_2"])
    frame["state"] = pandas.Categorical(np.array(["x", "y", "z"])[given["y"]])
    frame["b"] = pandas.array([1, None] * 60, dtype="Int64")
    frame["who"] = given["group"]
    path = fusionbench.from_frame(frame, {"a": ["a_*"], "b": "b"}, label="state", group="who")
    benchmark = custom_data.load(path)
    batch = benchmark().load()
    assert benchmark.classes == ("x", "y", "z")
    assert np.allclose(batch.streams["a"].x[:, 0].numpy(), given["eda"])
    assert batch.streams["b"].present.tolist() == [True, False] * 60
    two = custom_data.load(fusionbench.from_frame(frame, {"b": "b"}, label=["a_*"], group="who"))()
    assert (two.task.kind, two.task.out) == ("regress", 2)
    with pytest.raises(UsageError, match="no column for a is called 'c_"):
        fusionbench.from_frame(frame, {"a": ["c_*"]}, label="state")


class Table:
    """What `from_dataset` asks of a `datasets.Dataset`."""

    def __init__(self, **columns: list[Any]) -> None:
        self.columns, self.column_names = columns, list(columns)
        self.features = {"label": SimpleNamespace(names=["calm", "tense", "angry"])}

    def __getitem__(self, rows: slice) -> dict[str, list[Any]]:
        return {name: values[rows] for name, values in self.columns.items()}


def test_a_dataset_is_a_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSIONBENCH_HOME", str(tmp_path))
    given = arrays()
    face = [rows[: 1 + i % 6].tolist() for i, rows in enumerate(given["face"])]
    eda: list[Any] = given["eda"].tolist()
    eda[4] = None
    columns = {"face": face, "eda": eda, "label": given["y"].tolist(), "who": given["group"].tolist()}
    benchmark = custom_data.load(fusionbench.from_dataset(Table(**columns), ["face", "eda"], "label", "who"))
    batch = benchmark().load()
    assert benchmark.classes == ("angry", "calm", "tense")
    assert batch.streams["face"].mask.sum(1).tolist() == [1 + i % 6 for i in range(N)]
    assert np.flatnonzero(~batch.streams["eda"].present.numpy()).tolist() == [4]
    parts = {"train": (0, 80), "validation": (80, 100), "test": (100, 120)}
    whole = {side: Table(**{c: v[a:b] for c, v in columns.items()}) for side, (a, b) in parts.items()}
    split = custom_data.load(fusionbench.from_dataset(whole, {"f": "face"}, "label", "who"))()
    splits = split.splits(split.load(), 0)
    assert [len(splits.train), len(splits.val), len(splits.test)] == [80, 20, 20]


@pytest.mark.skipif(not importlib.util.find_spec("datasets"), reason="datasets is not installed")
def test_a_dataset_of_hugging_face_is_a_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setenv("FUSIONBENCH_HOME", str(tmp_path))
    given = arrays()
    made = datasets.Dataset.from_dict({"eda": given["eda"].tolist(), "label": given["y"].tolist()})
    path = fusionbench.from_dataset(made, ["eda"], "label")
    assert np.allclose(custom_data.load(path)().load().streams["eda"].x[:, 0].numpy(), given["eda"])


# ----------------------------------------------------------------------------------------------------- any input at all


def loaded(path: Path) -> None:
    """It is a benchmark, or one line says why not."""
    reason = ""
    try:
        batch = custom_data.load(path)().load()
    except UsageError as error:
        reason = str(error)
    assert "\n" not in reason
    assert reason or isinstance(batch, Batch)


damage = st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=12), st.integers(0, 12)), min_size=1, max_size=4)
anything = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def damaged(content: bytes, edits: list[tuple[float, bytes, int]]) -> bytes:
    for place, put, cut in edits:
        at = int(place * len(content))
        content = content[:at] + put + content[at + cut :]
    return content


@anything
@given(edits=damage, compressed=st.booleans())
def test_any_bytes_are_an_npz_or_one_line(tmp_path: Path, edits: Any, compressed: bool) -> None:
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, **{n: a[:30] for n, a in arrays().items()})
    (tmp_path / "mine.npz").write_bytes(damaged(buffer.getvalue(), edits))
    loaded(tmp_path / "mine.npz")


@anything
@given(edits=damage, file=st.sampled_from(["benchmark.toml", "t.csv"]))
def test_any_bytes_are_a_folder_or_one_line(tmp_path: Path, edits: Any, file: str) -> None:
    table(tmp_path, "folds = 3\nseeds = 2")
    (tmp_path / file).write_bytes(damaged((tmp_path / file).read_bytes(), edits))
    loaded(tmp_path)


@anything
@given(st.dictionaries(st.text(max_size=6), st.one_of(st.integers(), st.floats(), st.text(max_size=6)), max_size=4))
def test_any_settings_are_a_folder_or_one_line(tmp_path: Path, given: dict[str, Any]) -> None:
    given = {name: value for name, value in given.items() if name.encode(errors="ignore")}
    table(tmp_path, "\n".join(f"{tables.spelled(n)} = {tables.spelled(v)}" for n, v in given.items()))
    loaded(tmp_path)


@pytest.mark.parametrize("name", DATA)
def test_damaged_data_meet_no_traceback(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for seed in range(4):
        folder = tmp_path / str(seed)
        folder.mkdir()
        monkeypatch.chdir(folder)
        status, out, err = command(*DATA[name](random.Random(f"{name}{seed}"), folder))
        said = [line for line in err.splitlines() if not line.startswith("warning: ")]
        assert status in (0, 1, 2)
        assert "Traceback" not in out + err
        assert status != 2 or (len(said) == 1 and said[0].startswith("error: ")), err

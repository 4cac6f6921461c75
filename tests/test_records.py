"""Records: written whole or not at all, read back as they were, damage named and quarantined."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fusionbench.errors import UsageError
from fusionbench.records import Predictions, Record, Run, merge, serialised, store
from fusionbench.records.types import parse

RUN = Run(
    "watch",
    "concat",
    {"acc": "identity", "ppg": "gru"},
    2,
    1,
    {"train": {"lr": (0.0003, 0.001), "clip": 1.0}, "fuser": {"width": 128, "bias": True, "depth": None}},
)
DONE = Record(
    RUN,
    "done",
    code={"fuser": "abc", "benchmark": "def"},
    data="0123",
    protocol=1,
    metrics=["accuracy", "nll"],
    scores={"clean": {"accuracy": 0.5, "nll": 0.25}, "noise:acc:1": {"accuracy": 0.25, "nll": 1.5}},
    chosen={"lr": 0.001, "step": 50.0, "validation": 0.75},
    history={"0.001": [{"step": 25, "loss": 0.5, "score": 0.25}]},
    seconds={"train": 2.5, "evaluate": 0.5},
    parameters={"allocated": 10, "trained": 9},
    changes=["fuser.width=128"],
    marks=["quick"],
    created="2025-01-01T00:00:00+00:00",
)
FOUND: list[tuple[str, Callable[[Path, Run], Any]]] = [
    (".json", store.find),
    (".npz", store.predictions),
    (".safetensors", store.weights),
]


def answers() -> Predictions:
    rng = np.random.default_rng(0)
    return Predictions(
        np.array(["a", "bé"]),
        np.array(["p", "q"]),
        np.array([[0], [1]]),
        np.array([[True], [False]]),
        {c: rng.standard_normal((2, 1, 3)).astype(np.float32) for c in ("clean", "noise:acc+ppg:1")},
    )


def save(results: Path, done: Record = DONE) -> Path:
    return store.save(results, done, answers(), {"fuser.weight": torch.arange(6.0).reshape(2, 3).T})


# ------------------------------------------------------------------------------------------------------------ identity


def test_the_id_is_a_hash_of_the_runs_canonical_content() -> None:
    content = {f.name: getattr(RUN, f.name) for f in fields(Run) if f.name != "partition"}  # ids are older than it

    def digest(value: dict[str, Any]) -> str:
        return sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]

    assert RUN.id == digest(content)
    assert RUN.row == digest({**content, "fold": None, "seed": None})


def test_the_row_of_a_tuned_run_is_its_search_whatever_settings_each_fold_got() -> None:
    tuned, other = (replace(RUN, tuned="search", hparams={"fuser": {"width": w}}) for w in (64, 128))
    assert tuned.id != other.id
    assert tuned.row == replace(other, fold=7).row != RUN.row
    assert tuned.row != replace(tuned, tuned="another").row


def test_the_id_is_the_same_in_another_process_and_order() -> None:
    turned = Run(
        "watch",
        "concat",
        {"ppg": "gru", "acc": "identity"},
        2,
        1,
        {"fuser": {"depth": None, "bias": True, "width": 128}, "train": {"clip": 1.0, "lr": [0.0003, 0.001]}},
    )
    assert turned.id == RUN.id
    script = f"from fusionbench.records import Run; print({turned!r}.id)"
    outcome = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert outcome.stdout.strip() == RUN.id


@pytest.mark.parametrize(
    "change",
    [
        {"benchmark": "other"},
        {"fuser": "jmt"},
        {"backbones": {"acc": "gru", "ppg": "gru"}},
        {"fold": 3},
        {"seed": 0},
        {"hparams": {**RUN.hparams, "fuser": {"width": 64}}},
        {"partition": "per-seed"},
    ],
)
def test_any_change_is_another_run(change: dict[str, Any]) -> None:
    other = replace(RUN, **change)
    assert other.id != RUN.id
    assert (other.row == RUN.row) == (set(change) <= {"fold", "seed"})


def test_identity_is_run_code_data_and_protocol_and_nothing_else() -> None:
    assert DONE.same_identity(replace(DONE, scores={}, seconds={}, created="", versions={"torch": "9"}, marks=[]))
    for change in (
        {"run": replace(RUN, seed=7)},
        {"code": {**DONE.code, "fuser": "edited"}},
        {"data": "other"},
        {"protocol": 2},
    ):
        assert not DONE.same_identity(replace(DONE, **change))


# ---------------------------------------------------------------------------------------------------------- round trip


def test_a_record_reads_back_as_it_was(tmp_path: Path) -> None:
    assert "partition" not in serialised(DONE)  # records of one partition stand as they always have
    dealt = replace(DONE, run=replace(DONE.run, partition="per-seed"))
    assert parse(serialised(dealt)).run.partition == "per-seed"
    path = save(tmp_path)
    assert path == tmp_path / "watch" / "concat" / f"{RUN.id}.json"
    found = store.find(tmp_path, RUN)
    assert found is not None
    assert found.run.id == RUN.id
    assert replace(found, run=RUN) == DONE
    assert found.same_identity(DONE)
    assert [r.run.id for r in store.load(tmp_path)] == [RUN.id]
    assert sorted(p.name for p in path.parent.iterdir()) == [f"{RUN.id}{s}" for s in (".json", ".npz", ".safetensors")]


def test_answers_and_weights_read_back_as_they_were(tmp_path: Path) -> None:
    save(tmp_path)
    found, written = store.predictions(tmp_path, RUN), answers()
    assert found is not None
    for name in ("ids", "groups", "y", "y_mask"):
        np.testing.assert_array_equal(getattr(found, name), getattr(written, name))
    assert list(found.answers) == list(written.answers)
    for condition, values in written.answers.items():
        assert found.answers[condition].dtype == np.float32
        np.testing.assert_array_equal(found.answers[condition], values)
    weights = store.weights(tmp_path, RUN)
    assert weights is not None
    assert torch.equal(weights["fuser.weight"], torch.arange(6.0).reshape(2, 3).T)


def test_what_is_not_there_is_none(tmp_path: Path) -> None:
    assert [find(tmp_path, RUN) for _, find in FOUND] == [None] * 3
    assert list(store.load(tmp_path)) == []
    store.save(tmp_path, DONE, None, None)
    assert store.find(tmp_path, RUN) is not None
    assert store.predictions(tmp_path, RUN) is None
    assert store.weights(tmp_path, RUN) is None


def test_numbers_that_json_has_not_become_null(tmp_path: Path) -> None:
    odd = {"accuracy": math.nan, "nll": math.inf, "ece": np.float32(0.5)}
    path = save(tmp_path, replace(DONE, scores={"clean": odd}))
    text = path.read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    assert json.loads(text)["scores"]["clean"] == {"accuracy": None, "nll": None, "ece": 0.5}


def test_weights_that_share_their_memory_are_kept(tmp_path: Path) -> None:
    """A fuser may tie two layers."""
    shared = torch.arange(4.0)
    store.save(tmp_path, DONE, None, {"first": shared, "second": shared})
    found = store.weights(tmp_path, RUN)
    assert found is not None
    assert torch.equal(found["first"], found["second"])


def test_a_field_of_a_newer_version_is_no_damage(tmp_path: Path) -> None:
    path = save(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "mood": "good"}))
    assert store.find(tmp_path, RUN) is not None


def test_load_walks_benchmarks_and_fusers_and_nothing_else(tmp_path: Path) -> None:
    runs = [replace(RUN, benchmark=b, fuser=f) for b in ("x", "y") for f in ("concat", "jmt")]
    for run in runs:
        save(tmp_path, replace(DONE, run=run))
    (tmp_path / "x" / "concat" / "notes.json").write_text("{}")
    (tmp_path / "README.json").write_text("{}")
    assert {r.run.id for r in store.load(tmp_path)} == {run.id for run in runs}
    assert [r.run.fuser for r in store.load(tmp_path, "x")] == ["concat", "jmt"]
    assert [r.run.id for r in store.load(tmp_path, "y", "jmt")] == [runs[3].id]


def test_merging_adds_conditions_and_keeps_the_old_ones() -> None:
    new = replace(
        DONE,
        scores={"lag:all:1": {"accuracy": 0.1}},
        best={"lag:all:1": 0.9},
        rates={"lag:all:1": {"acc": 0.1}},
        seconds={"evaluate": 1.0},
    )
    merged = merge(DONE, new)
    assert set(merged.scores) == {"clean", "noise:acc:1", "lag:all:1"}
    assert merged.scores["clean"] == DONE.scores["clean"]
    assert (merged.best, merged.rates) == (new.best, new.rates)
    assert merged.seconds == {"train": 2.5, "evaluate": 1.5}
    assert merged.same_identity(DONE)


# -------------------------------------------------------------------------------------------------------------- safety


class Crash(BaseException):
    """The machine stops here: not even an Exception."""


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_crash_while_writing_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    path = save(tmp_path)
    before = {p.name: p.read_bytes() for p in path.parent.iterdir()}

    def crash(*_: object) -> None:
        raise Crash

    monkeypatch.setattr(store.os, moment, crash)
    with pytest.raises(Crash):
        save(tmp_path, replace(DONE, data="new"))
    monkeypatch.undo()
    assert {p.name: p.read_bytes() for p in path.parent.iterdir()} == before
    found = store.find(tmp_path, RUN)
    assert found is not None
    assert found.data == "0123"


def test_a_half_written_file_is_never_seen(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")

    def fill(file: Any) -> None:
        file.write(b"new, half")
        file.flush()
        assert target.read_bytes() == b"old"
        raise Crash

    with pytest.raises(Crash):
        store.write(target, fill)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert target.read_bytes() == b"old"


def test_what_a_kill_left_over_is_gone_with_the_next_writing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / ".file.new").write_bytes(b"whole, but its writer was killed before it took the other's place")
    store.write(tmp_path / "file", lambda file: file.write(b"new"))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"file": b"new"}


def test_many_writers_of_one_file_leave_one_whole_file(tmp_path: Path) -> None:
    def write(number: int) -> None:
        store.write(tmp_path / "file", lambda file: file.write(str(number).encode() * 1000))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, [1, 2, 3, 4, 5, 6, 7, 8] * 20))
    ((name, content),) = ((p.name, p.read_text()) for p in tmp_path.iterdir())
    assert name == "file"
    assert len(content) == 1000
    assert len(set(content)) == 1


def test_the_record_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a record on disk has its answers and weights."""
    written = []
    whole = store.write
    monkeypatch.setattr(store, "write", lambda path, fill: (written.append(path.suffix), whole(path, fill)))
    save(tmp_path)
    assert written[-1] == ".json"
    assert len(written) == 3


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "watch").write_text("a file where a folder should be")
    with pytest.raises(UsageError, match=f"cannot write the results to {tmp_path}"):
        save(tmp_path)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "truncated": lambda good: good[: len(good) // 2],
    "garbage": lambda _: bytes(range(256)) * 4,
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize(("suffix", "find"), FOUND, ids=[suffix for suffix, _ in FOUND])
def test_a_damaged_file_is_named_and_quarantined_and_never_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str, find: Callable[[Path, Run], Any], damage: str
) -> None:
    kept = []
    for number in ("", "2", "3"):
        path = save(tmp_path).with_suffix(suffix)
        kept.append(DAMAGE[damage](path.read_bytes()) + (number.encode() if damage == "garbage" else b""))
        path.write_bytes(kept[-1])
        assert find(tmp_path, RUN) is None
        said = capsys.readouterr().err
        assert said.startswith(f"warning: {path} is damaged (")
        assert said.endswith(f"quarantined as {path.name}.quarantined{number}\n")
        assert not path.exists()
        assert find(tmp_path, RUN) is None  # and now it is simply not there
        assert capsys.readouterr().err == ""
    save(tmp_path)
    assert find(tmp_path, RUN) is not None
    assert sorted(p.read_bytes() for p in path.parent.glob("*.quarantined*")) == sorted(kept)


@pytest.mark.parametrize(("suffix", "find"), FOUND, ids=[suffix for suffix, _ in FOUND])
def test_no_flipped_byte_crashes_a_reader(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str, find: Callable[[Path, Run], Any]
) -> None:
    path = save(tmp_path).with_suffix(suffix)
    good = path.read_bytes()
    for place in range(0, len(good), 5):
        path.write_bytes(good[:place] + bytes([good[place] ^ 0xFF]) + good[place + 1 :])
        if find(tmp_path, RUN) is None:
            assert not path.exists()
    capsys.readouterr()


@pytest.mark.parametrize(
    "change",
    [
        {"run": {**json.loads(json.dumps(RUN.__dict__)), "seed": 7}},
        {"run": None},
        {"run": {"benchmark": "watch"}},
        {"format": 0},
    ],
)
def test_a_record_that_is_not_of_its_run_is_quarantined(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any]
) -> None:
    path = save(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert list(store.load(tmp_path)) == []
    assert "quarantined" in capsys.readouterr().err
    assert path.with_name(f"{path.name}.quarantined").is_file()


def test_a_record_of_a_newer_format_stays_where_it_is(tmp_path: Path) -> None:
    path = save(tmp_path)
    text = json.dumps({**json.loads(path.read_text()), "format": 99})
    path.write_text(text)
    with pytest.raises(UsageError, match="of a newer fusionbench"):
        list(store.load(tmp_path))
    assert path.read_text() == text


@pytest.mark.parametrize("text", ["[]", '"text"', "3", "null", "{}"])
def test_json_that_is_no_record_is_quarantined(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    path = save(tmp_path)
    path.write_text(text)
    assert store.find(tmp_path, RUN) is None
    assert "quarantined" in capsys.readouterr().err


def test_one_damaged_record_does_not_hide_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [save(tmp_path, replace(DONE, run=replace(RUN, seed=seed))) for seed in range(3)]
    paths[1].write_text("{")
    assert {r.run.seed for r in store.load(tmp_path)} == {0, 2}
    assert str(paths[1]) in capsys.readouterr().err


def test_a_file_that_cannot_be_opened_now_is_not_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many open files, a server that is away: the record is sound and must stay where it is."""
    path = save(tmp_path)

    def refuse(*_: object, **__: object) -> str:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UsageError, match="Too many open files"):
        store.find(tmp_path, RUN)
    assert path.is_file()

"""From raw media to a row of the leaderboard, by the command line alone: miniatures with real encoded files."""

from __future__ import annotations

import io
import json
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionbench import cli, features
from fusionbench.errors import UsageError
from fusionbench.records import Record, store

av = pytest.importorskip("av", reason="PyAV writes the videos: pip install 'mm-fusionbench[video]'")
soundfile = pytest.importorskip("soundfile", reason="soundfile writes the sound: pip install 'mm-fusionbench[audio]'")
Image = pytest.importorskip("PIL.Image", reason="pillow writes the crops: pip install 'mm-fusionbench[video]'")
pytest.importorskip("torchvision", reason="the encoders are torchvision's: pip install 'mm-fusionbench[video]'")
media: Any = import_module("fusionbench.benchmarks._media")

RATE, FRAMES = 8000, 34
TRAINING = [*"--train.steps 4 --train.interval 2 --train.batch 4 --train.lr 1e-3".split(), "--seeds", "1", "--no-track"]
AFFWILD2 = [
    *"-b affwild2 --benchmark.size 8 --benchmark.stride 16 --benchmark.audio_rate".split(), str(RATE),
    *"--backbone.face.weights random --backbone.face.size 8 --backbone.voice.weights random".split(),
]  # fmt: skip
BIOVID = [
    *"-b biovid --benchmark.size 8 --folds 1 --backbone.face.weights random --backbone.face.size 8".split(),
    *"--backbone.gsr.dim 16 --backbone.gsr.channels 4 --backbone.gsr.pool 4".split(),
]
PEOPLE = ("071309_w_21", "071313_m_41", "071614_m_20", "080209_w_26")


def fusionbench(*words: str | Path) -> tuple[int, str, str]:
    """What a user types: exit status, standard output, standard error."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings():
        patch.setattr(sys, "argv", ["fusionbench", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    return int(ended.value.code or 0), out.getvalue(), err.getvalue()


def succeed(*words: str | Path) -> str:
    status, out, err = fusionbench(*words)
    assert status == 0, err
    return out


def records(results: Path) -> dict[str, Record]:
    """Fuser -> its only record."""
    found = list(store.load(results))
    assert len({r.run.fuser for r in found}) == len(found)
    return {r.run.fuser: r for r in found}


def write_video(path: Path, frames: int, fps: int, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width = stream.height = 16
        for _ in range(frames):
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(rng.integers(0, 255, (16, 16, 3), np.uint8), "rgb24"))
            )
        container.mux(stream.encode())


def build_affwild2(root: Path) -> Path:
    """Five labelled clips of 34 frames, two of them of one video, and one of the official test list."""
    rng = np.random.default_rng(0)
    for number, clip in enumerate(("one", "two", "duo_left", "duo_right", "last", "hidden")):
        video = clip.partition("_")[0]
        if clip != "hidden":
            folder = root / "VA_Estimation_Challenge" / ("Validation_Set" if clip == "last" else "Train_Set")
            folder.mkdir(parents=True, exist_ok=True)
            rows = [f"{v:.3f},{a:.3f}" for v, a in rng.uniform(-0.9, 0.9, (FRAMES, 2))]
            (folder / f"{clip}.txt").write_text("\n".join(["valence,arousal", *rows[:-1], "-5,-5.0"]) + "\n")
        (root / "cropped_aligned" / clip).mkdir(parents=True)
        for frame in range(1, FRAMES + 1, 2):
            crop = Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8))
            crop.save(root / "cropped_aligned" / clip / f"{frame:05d}.jpg")
        write_video(root / "videos" / f"{video}.mp4", FRAMES, 30, number)
        (root / "audio").mkdir(exist_ok=True)
        soundfile.write(root / "audio" / f"{video}.wav", rng.uniform(-0.5, 0.5, FRAMES * RATE // 30), RATE)
    (root / "VA_test_set_release.txt").write_text("hidden\n")
    return root


def build_biovid(root: Path) -> Path:
    """Four people, BL1 and PA4, one clip each."""
    lines = ["subject_id\tsubject_name\tclass_id\tclass_name\tsample_id\tsample_name"]
    time = np.arange(2816)
    for person, subject in enumerate(PEOPLE):
        for label, name in ((0, "BL1"), (4, "PA4")):
            sample = f"{subject}-{name}-001"
            lines.append(f"{person + 1}\t{subject}\t{label}\t{name}\t{len(lines)}\t{sample}")
            write_video(root / "video" / subject / f"{sample}.mp4", 55, 10, 10 * person + label)
            table = root / "biosignals_filtered" / subject / f"{sample}_bio.csv"
            table.parent.mkdir(parents=True, exist_ok=True)
            gsr = person + label / 10 + np.sin(time / 200)
            columns = np.stack([time * 1e6 / 512, gsr, 2 * gsr, 3 * gsr], 1)
            np.savetxt(table, columns, "%.3f", "\t", header="time\tgsr\tecg\temg_trapezius", comments="")
    (root / "starting_point").mkdir()
    (root / "starting_point" / "samples.csv").write_text("\n".join(lines) + "\n")
    return root


class Place:
    """A built miniature, a home of its own, and what has been run on it."""

    def __init__(self, folder: Path, root: Path, flags: list[str]) -> None:
        self.folder, self.results = folder, folder / "results"
        self.flags = [*flags, "--benchmark.root", str(root)]
        self.root = root

    def run(self, fuser: str, *more: str | Path) -> str:
        return succeed("run", "--fuser", fuser, *self.flags, *TRAINING, "--results", self.results, *more)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home")
        patch.setenv("FUSIONBENCH_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def affwild2(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Encoded, and jmt has run on it."""
    folder = tmp_path_factory.mktemp("affwild2")
    place = Place(folder, build_affwild2(folder / "data"), AFFWILD2)
    assert "10 samples; encoded: face, voice" in succeed("data", "encode", *place.flags)
    place.run("jmt", "--fuser.width", "16")
    return place


@pytest.fixture
def sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever decodes media now is told off."""

    def refuse(path: Path, *rest: Any) -> None:
        raise UsageError(f"{path} was decoded")

    for reader in ("picture", "sound", "frames_at"):
        monkeypatch.setattr(media, reader, refuse)


def judged(done: Record, conditions: set[str]) -> None:
    assert (done.status, done.error) == ("done", None)
    assert conditions <= set(done.scores)
    assert all(np.isfinite(value) for scores in done.scores.values() for value in scores.values())


@pytest.mark.usefixtures("sealed")
def test_affwild2_is_encoded_once_and_reaches_the_leaderboard(affwild2: Place) -> None:
    table = affwild2.run("concat")  # decodes nothing: the damaged media, too, were encoded for jmt
    for done in records(affwild2.results).values():
        judged(done, {"clean", "missing:face", "occlusion:face:5", "white_noise:voice:1", "noise:all:3"})
        assert done.metrics == ["ccc", "ccc_zero_filled", "mae"]
        assert done.samples == {"train": 6, "val": 2, "test": 2, "skipped": 0}
    assert len(records(affwild2.results)) == 2
    board = succeed("leaderboard", "--results", affwild2.results, "--format", "markdown")
    for fuser in ("jmt", "concat"):
        assert f" {fuser} (" in board
    assert " concat (" in table


@pytest.mark.usefixtures("sealed")
def test_features_that_stay_on_disk_give_the_same_scores(
    affwild2: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "RESIDENT", 0)
    affwild2.run("jmt", "--fuser.width", "16", "--results", tmp_path)
    (mapped,), resident = store.load(tmp_path), records(affwild2.results)["jmt"]
    assert mapped.run.id == resident.run.id
    assert mapped.data == resident.data
    for condition, scores in resident.scores.items():
        for metric, score in scores.items():
            assert mapped.scores[condition][metric] == pytest.approx(score, abs=1e-4), (condition, metric)


def test_the_cache_is_listed_verified_mended_and_pruned(affwild2: Place, home: Path) -> None:
    listed = succeed("data", "cache", "list").splitlines()
    assert sum("occlusion:face:" in line for line in listed) == 5
    (line,) = (line for line in listed if "r2plus1d_18" in line and ":face" not in line)
    assert "10 of 10 samples" in line
    key = line.split()[0]
    assert succeed("data", "cache", "verify", key) == f"{key}  ok\n"
    checked = succeed("data", "check", "affwild2", *affwild2.flags[2:4], "--benchmark.root", affwild2.root)
    assert "face: (16, 8, 3, 8, 8), raw media, read when needed" in checked
    features_file = home / "cache" / "features" / key / "x.bin"
    features_file.write_bytes(b"\1" + features_file.read_bytes()[1:])
    status, out, _ = fusionbench("data", "cache", "verify")
    assert status == 1
    assert f"{key}  1 chunks damaged, made again at next use" in out
    succeed("data", "encode", *affwild2.flags)
    assert succeed("data", "cache", "verify", key) == f"{key}  ok\n"
    assert succeed("data", "cache", "prune") == "", "nothing has been unused for 30 days"
    assert succeed("data", "cache", "prune", key).startswith(f"{key}  removed, ")
    assert not features_file.exists()
    succeed("data", "encode", *affwild2.flags)


def test_bad_files_stop_a_run_or_are_listed_left_out_and_counted(affwild2: Place, tmp_path: Path) -> None:
    root = Path(shutil.copytree(affwild2.root, tmp_path / "data"))
    video = root / "videos" / "one.mp4"
    video.write_bytes(video.read_bytes()[:200])
    crop = root / "cropped_aligned" / "last" / "00001.jpg"
    crop.write_bytes(crop.read_bytes()[:100])
    command = ["run", "-f", "concat", *affwild2.flags, "--benchmark.root", root, *TRAINING, "--results", tmp_path / "r"]
    status, _, err = fusionbench(*command)
    assert status == 2
    assert err.startswith("error: ")
    assert f"{video} cannot be opened as a video" in err
    assert len(err.splitlines()) == 1
    assert not list(store.load(tmp_path / "r"))
    status, out, err = fusionbench(*command, "--skip-bad")
    assert status == 0, err
    assert f"warning: left out: {video} cannot be opened" in err
    assert f"warning: left out: {crop} cannot be read as a picture" in err
    assert "concat" in out
    (done,) = store.load(tmp_path / "r")
    judged(done, {"clean"})
    assert done.samples == {"train": 4, "val": 2, "test": 2, "skipped": 1}
    assert json.loads(store.path_of(tmp_path / "r", done.run).read_text())["samples"]["skipped"] == 1


def test_the_official_test_list_is_answered(affwild2: Place, tmp_path: Path) -> None:
    name = records(affwild2.results)["jmt"].run.id
    answers = tmp_path / "answers.txt"
    succeed("records", "submit", name, "--results", affwild2.results, "--root", affwild2.root, "--out", answers)
    lines = answers.read_text().splitlines()
    assert lines[0] == "image_location,valence,arousal"
    assert [line.split(",")[0] for line in lines[1:]] == [f"hidden/{frame:05d}.jpg" for frame in range(1, FRAMES + 1)]
    assert all(-1 <= float(value) <= 1 for line in lines[1:] for value in line.split(",")[1:])


def test_biovid_from_raw_media_to_the_leaderboard(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    place = Place(tmp_path, build_biovid(tmp_path / "data"), BIOVID)
    place.run("jmt", "--fuser.width", "16")
    request.getfixturevalue("sealed")
    place.run("concat")
    found = records(place.results)
    assert set(found) == {"jmt", "concat"}
    for done in found.values():
        judged(done, {"clean", "missing:gsr", "image_noise:face:5", "occlusion:face:1", "wander:gsr:3"})
        assert done.run.backbones == {"face": "r3d_18", "gsr": "gsr_cnn"}
        assert done.samples == {"train": 4, "val": 2, "test": 2, "skipped": 0}, "one of four people tests"
        assert done.complete["folds"] == len(PEOPLE)
    board = succeed("leaderboard", "-b", "biovid", "--results", place.results)
    assert "jmt" in board
    assert "concat" in board
    status, _, err = fusionbench("run", "-f", "concat", *BIOVID, "--benchmark.root", tmp_path, "--results", tmp_path)
    assert status == 2
    assert f"there is no starting_point/samples.csv in {tmp_path}" in err


def test_ones_own_three_modalities_run_with_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    np.savez(
        "my.npz",
        face=rng.standard_normal((60, 5, 3)) + y[:, None, None],
        eda=rng.standard_normal((60, 4)) + y[:, None],
        voice=rng.standard_normal((60, 2)),
        voice_mask=rng.random(60) > 0.2,
        y=y,
        group=np.arange(60) // 6,
    )
    assert "nothing is wrong" in succeed("data", "check", "my.npz")
    table = succeed("run", "--fuser", "concat", "-b", "my.npz", "--quick", "--no-track")
    assert "concat" in table
    (done,) = store.load(tmp_path / "results")
    judged(done, {"clean"})
    assert set(done.run.backbones) == {"face", "eda", "voice"}
    status, _, err = fusionbench("run", "--fuser", "concat", "-b", "your.npz")
    assert status == 2
    assert "there is no " in err

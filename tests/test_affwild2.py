"""Aff-Wild2 in miniature, from real encoded files: every trap of the layout, and what is said when a file is bad."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fusionbench import features, hparams, registry
from fusionbench.check import report
from fusionbench.engine import Member, Recipe, Trained, predict, train
from fusionbench.engine.model import Blueprint
from fusionbench.errors import UsageError
from fusionbench.metrics import evaluate

av = pytest.importorskip("av", reason="PyAV decodes the videos: pip install 'mm-fusionbench[video]'")
soundfile = pytest.importorskip("soundfile", reason="soundfile writes the sound: pip install 'mm-fusionbench[audio]'")
Image = pytest.importorskip("PIL.Image", reason="pillow writes the crops: pip install 'mm-fusionbench[video]'")
affwild2: Any = import_module("fusionbench.benchmarks.affwild2")
media: Any = import_module("fusionbench.benchmarks._media")

RATE = 8000


def write_video(path: Path, frames: int, fps: float = 30, *, sound: int = 0, gap: float = 0.0, **options: str) -> None:
    """A 16 x 16 mp4 whose brightness rises; `gap`: seconds without a new frame after the tenth one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options) as container:
        video = container.add_stream("mpeg4", rate=Fraction(fps).limit_denominator(1000))
        video.width = video.height = 16
        base = Fraction(1, 12000) if path.suffix == ".mp4" else 1 / Fraction(fps).limit_denominator(1000)
        video.codec_context.time_base = base
        audio = container.add_stream("aac", rate=sound) if sound else None
        for number in range(frames):
            picture = np.full((16, 16, 3), 10 + 230 * number // max(1, frames), np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = round((number / fps + gap * (number >= 10)) / base), base
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if audio is not None:
            wave = np.sin(np.arange(round(frames / fps * sound)) * 2 * np.pi * 440 / sound).astype(np.float32)
            for start in range(0, len(wave), 1024):
                piece = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], "fltp", "mono")
                piece.sample_rate, piece.pts, piece.time_base = sound, start, Fraction(1, sound)
                container.mux(audio.encode(piece))
            container.mux(audio.encode())


def write_crops(folder: Path, numbers: Any) -> None:
    """Crop i is grey of value i (JPEG keeps a flat grey to within a step)."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        Image.new("RGB", (16, 16), (number % 250,) * 3).save(folder / f"{number:05d}.jpg", quality=95)


def write_labels(root: Path, folder: str, clip: str, rows: list[str]) -> Path:
    path = root / "VA_Estimation_Challenge" / folder / f"{clip}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["valence,arousal", *rows]) + "\n")
    return path


def labels(frames: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [f"{v:.3f},{a:.3f}" for v, a in rng.uniform(-0.9, 0.9, (frames, 2))]


def build(root: Path) -> Path:
    """Six clips of five videos: two people in one, 25 and 24 and 30 fps, .wav or the video's sound or none."""
    rows = labels(70, 0)
    rows[3], rows[4], rows[5] = "-5,-5", "-5.0,0.2", "0.1,-5.0"
    write_labels(root, "Train_Set", "one", rows)
    write_labels(root, "Train_Set", "duo_left", labels(40, 1))
    write_labels(root, "Train_Set", "duo_right", labels(40, 2))
    write_labels(root, "Train_Set", "three", labels(36, 3))
    write_labels(root, "Train_Set", "four", labels(36, 5))
    write_labels(root, "Validation_Set", "last", labels(50, 4))
    write_crops(root / "cropped_aligned" / "one", [n for n in range(1, 71) if n not in (6, 7, 8) and not 30 <= n <= 66])
    for clip, frames in (
        ("duo_left", 40),
        ("duo_right", 40),
        ("three", 36),
        ("four", 36),
        ("last", 50),
        ("hidden", 34),
    ):
        write_crops(root / "cropped_aligned" / clip, range(1, frames + 1))
    write_video(root / "batch1" / "one.mp4", 70, 25)
    write_video(root / "batch1" / "duo.mp4", 40, 30, sound=RATE)
    write_video(root / "batch2" / "deep" / "three.mp4", 36, 24)  # no sound at all
    write_video(root / "batch2" / "four.avi", 36, 24, sound=RATE)
    write_video(root / "last.mp4", 50, 30)
    write_video(root / "hidden.mp4", 34, 30)
    for name, seconds in (("one", 70 / 25), ("last", 50 / 30), ("hidden", 34 / 30)):
        ramp = np.linspace(0, seconds, round(seconds * RATE), dtype=np.float32) / 10  # value = time / 10
        (root / "audio").mkdir(exist_ok=True)
        soundfile.write(root / "audio" / f"{name}.wav", ramp, RATE, subtype="FLOAT")
    (root / "VA_Estimation_Challenge_test_set_release.txt").write_text("hidden\n")
    return root


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("affwild2"))


@pytest.fixture
def copy(official: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(official, tmp_path / "copy"))


def open_(root: Path, **given: Any) -> Any:
    return affwild2.Affwild2(root=str(root), **{"size": 16, "audio_rate": RATE, **given})


def test_every_frame_ends_exactly_one_token() -> None:
    for frames in (1, 31, 32, 70, 511, 512, 513, 1100):
        ends = []
        for start in affwild2.window_starts(frames):
            ends += [e for e in (start + 32 * k for k in range(16)) if e <= frames]
        assert sorted(ends) == list(range(1, frames + 1)), f"{frames} frames"
    assert set(affwild2.window_starts(700, 8)) <= set(affwild2.window_starts(700))


def test_crops_of_a_token_against_a_plain_search() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        crops = np.flatnonzero(rng.random(90) < rng.uniform(0.02, 0.9)) + 1
        last = int(rng.integers(1, 92))
        want = []
        for frame in [last - 4 * k for k in range(7, -1, -1)]:
            near = [(abs(c - frame), c) for c in crops.tolist() if last - 31 <= c <= last]
            want += [min(near)[1]] if near else []
        assert affwild2.token_crops(crops, last) == want


def test_labels_splits_and_ids(official: Path) -> None:
    benchmark = open_(official)
    data = benchmark.load()
    assert not benchmark.skipped
    valid = {}
    for row, name in enumerate(data.ids):
        clip, _, start = name.rpartition("@")
        for token in np.flatnonzero(data.y_mask[row].numpy()):
            valid[clip, int(start) + 32 * int(token)] = data.y[row, token].tolist()
    assert {clip for clip, _ in valid} == {"one", "duo_left", "duo_right", "three", "four", "last"}
    frames = sorted(f for c, f in valid if c == "one")
    assert frames == [f for f in range(1, 71) if f not in (4, 5, 6)], "-5 and -5.0 in either column are no labels"
    assert valid["one", 3] == pytest.approx([float(v) for v in labels(70, 0)[2].split(",")], abs=1e-6)
    splits = benchmark.splits(data, 0)
    groups = [{data.groups[i] for i in side} for side in (splits.train, splits.val, splits.test)]
    assert groups[2] == {"last"}
    assert len(groups[1]) == 1
    assert groups[0] | groups[1] == {"one", "duo", "three", "four"}
    assert not groups[0] & groups[1]


def test_pictures_and_sound_join_on_frame_numbers_and_real_time(official: Path) -> None:
    benchmark = open_(official)
    data = benchmark.load()
    row = data.ids.index("one@000017")  # tokens end at frames 17 and 49
    face = data.streams["face"][[row]]
    assert face.mask[0].tolist() == [True, True] + [False] * 14
    shown = (face.x[0, :2].mean((-3, -2, -1)) * 255).round().int().tolist()
    # frames 1..17 by fours: 1 stands for the four before it; 49 sees 18..49, of which 18..29 have crops
    assert shown[0] == [1, 1, 1, 1, 5, 9, 13, 17]
    assert shown[1] == [21, 25, 29, 29, 29, 29, 29, 29]
    gone = data.streams["face"][[data.ids.index("one@000030")]]
    assert gone.mask[0].tolist() == [True, False] + [False] * 14, "a token without a crop is masked"
    voice = data.streams["voice"][[row]]
    wave = voice.x[0, 1]
    assert wave[-1].item() * 10 == pytest.approx(49 / 25, abs=2e-3), "frame 49 of 25 a second ends at 1.96 s"
    assert wave[0].item() * 10 == pytest.approx(49 / 25 - 32 / 30, abs=2e-3)
    assert voice.x[0, 0][0] == 0, "before the beginning there is silence"
    left = data.streams["voice"][[data.ids.index("duo_left@000008")]]
    assert left.mask[0, 0]
    assert left.x[0, 1].std() > 0.3, "the two-person clip found its video's sound"
    assert not data.streams["voice"][[data.ids.index("three@000001")]].mask.any(), "a video without sound is masked"


def test_variable_frame_rate_uses_timestamps(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", 30, 30, gap=2.0)
    times = media.timestamps(tmp_path / "v.mp4")
    assert len(times) == 30
    assert affwild2.frame_end(times, 30, 5) == pytest.approx(5 / 30, abs=1e-3)
    assert affwild2.frame_end(times, 30, 20) == pytest.approx(20 / 30 + 2.0, abs=1e-3)
    assert affwild2.frame_end(times, 30, 31) == pytest.approx(31 / 30 + 2.0, abs=1e-2)


def test_sound_is_resampled_the_same_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    time = np.arange(5 * 16000) / 16000
    soundfile.write(tmp_path / "a.wav", 0.5 * np.sin(2 * np.pi * 200 * time), 16000, subtype="FLOAT")
    monkeypatch.setattr(media, "BLOCK", 1)
    media._block.cache_clear()
    got = media.sound(tmp_path / "a.wav", 0.5, 3 * RATE, RATE)
    media._block.cache_clear()
    want = 0.5 * np.sin(2 * np.pi * 200 * (0.5 + np.arange(3 * RATE) / RATE))
    assert np.abs(got - want).max() < 5e-3
    assert (media.sound(tmp_path / "a.wav", 10.0, 100, RATE) == 0).all()


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda r: shutil.rmtree(r / "VA_Estimation_Challenge"), "there is no VA_Estimation_Challenge/Train_Set"),
        (lambda r: write_labels(r, "Train_Set", "one", ["0.1,0.2", "0.1,1.7"]), "one.txt, line 3: 0.1,1.7"),
        (
            lambda r: write_labels(r, "Train_Set", "one", ["0.1,0.2", "0.1"]),
            "one.txt, line 3: expected valence,arousal",
        ),
        (lambda r: write_labels(r, "Train_Set", "one", ["0.1,nan"]), "one.txt, line 2"),
        (lambda r: write_labels(r, "Train_Set", "one", labels(400, 0)), "has 400 rows, its video one.mp4 only 70"),
        (lambda r: (r / "batch1" / "one.mp4").unlink(), "there is no video one.mp4"),
        (lambda r: shutil.rmtree(r / "cropped_aligned" / "one"), "no folder of crops"),
        (lambda r: write_crops(r / "cropped_aligned" / "one", [0]), "00000.jpg: crops are numbered from 1"),
        (lambda r: write_crops(r / "cropped_aligned" / "one", [500]), "00500.jpg: crops are numbered from 1"),
        (lambda r: soundfile.write(r / "audio" / "one.wav", np.zeros(RATE), RATE), "ends at 1.00 s"),
        (lambda r: (r / "batch1" / "one.mp4").write_bytes(b"no video"), "cannot be opened as a video"),
    ],
)
def test_bad_input_is_named_or_left_out(copy: Path, harm: Any, says: str) -> None:
    harm(copy)
    with pytest.raises(UsageError, match=says.replace("(", r"\(")):
        open_(copy).load()
    if "VA_Estimation" in says:
        return
    lenient = open_(copy, skip_bad=True)
    data = lenient.load()
    assert len(lenient.skipped) == 1
    assert says in lenient.skipped[0]
    assert "one" not in data.groups


def test_truncated_video_is_found_at_its_header(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    write_video(path, 300, 30, movflags="faststart")
    media.probe(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(UsageError, match=r"v\.mp4 is truncated"):
        media.probe(path)
    with pytest.raises(UsageError, match=r"v\.mp4"):
        media.frames_at(path, [9.0], 16)


def test_broken_crop_is_named(copy: Path) -> None:
    broken = copy / "cropped_aligned" / "last" / "00001.jpg"
    broken.write_bytes(broken.read_bytes()[:100])
    data = open_(copy).load()
    with pytest.raises(UsageError, match=r"00001\.jpg"):
        data.streams["face"][[data.ids.index("last@000001")]]
    lenient = open_(copy, skip_bad=True).load()
    with pytest.warns(UserWarning, match=r"left out: .*00001\.jpg"):
        face = lenient.streams["face"][[lenient.ids.index("last@000001"), lenient.ids.index("last@000017")]]
    assert not face.mask[0, 0], "the token's only crop is no crop"
    assert face.mask[1, 0]
    assert round(face.x[1, 0, 0].mean().item() * 255) == 2, "the nearest crop of the token stands in"


def test_submission_has_a_row_a_frame(official: Path, tmp_path: Path) -> None:
    benchmark = open_(official, test_list=True, stride=8)
    data = benchmark.load()
    assert set(data.groups) == {"hidden"}, "the test list alone is read and encoded"
    rows = range(len(data))
    assert not data.y_mask.any()
    with pytest.raises(UsageError, match="no labels to train on"):
        benchmark.splits(data, 0)
    answers = np.zeros((len(rows), 16, 2))
    ids = [data.ids[i] for i in rows]
    for row, name in enumerate(ids):  # valence = frame / 100
        answers[row, :, 0] = (int(name.rpartition("@")[2]) + 32 * np.arange(16)) / 100
    benchmark.submission(ids, answers, tmp_path / "answer.txt", smooth=(3, 1))
    lines = (tmp_path / "answer.txt").read_text().splitlines()
    assert lines[0] == "image_location,valence,arousal"
    assert len(lines) == 1 + 34
    assert lines[5] == "hidden/00005.jpg,0.050000,0.000000"
    assert lines[1].startswith("hidden/00001.jpg,0.015000"), "at the end of a clip the filter averages what there is"
    with pytest.raises(UsageError, match="have no answer"):
        benchmark.submission(ids[1:], answers[1:], tmp_path / "answer.txt")


def test_the_contract(official: Path) -> None:
    class Affwild2Small(affwild2.Affwild2):
        def __init__(self) -> None:
            super().__init__(root=str(official), size=16, audio_rate=RATE, stride=8)

    found = report("benchmarks", Affwild2Small)
    assert found.ok, found


def test_a_long_video_is_never_held_whole(tmp_path: Path) -> None:
    if not Path("/proc/self/statm").exists():
        pytest.skip("the size of a process is read from /proc, which this system does not have")
    frames = 1800
    write_labels(tmp_path, "Train_Set", "long", labels(frames, 0))
    write_labels(tmp_path, "Validation_Set", "other", labels(8, 0))
    for clip, count in (("long", frames), ("other", 8)):
        write_video(tmp_path / f"{clip}.mp4", count, 30, sound=RATE)
        folder = tmp_path / "cropped_aligned" / clip
        folder.mkdir(parents=True)
        Image.new("RGB", (112, 112), (9, 9, 9)).save(folder / "00001.jpg")
        for number in range(2, count + 1):
            (folder / f"{number:05d}.jpg").hardlink_to(folder / "00001.jpg")
    # In a process of its own, whose allocator gives every large block back at once: what counts is what is still held.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**17), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL, str(tmp_path)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows, most = map(int, done.stdout.split())
    pictures = rows * 16 * 8 * 3 * 112**2 * 4
    assert pictures > 280 * 2**20
    assert most < 0.4 * pictures, f"{most >> 20} MB more while {pictures >> 20} MB of pictures were read"


#: Prints how many windows were read and how many bytes the process grew by after the first one.
READ_ALL = f"""
import resource, sys
from fusionbench.benchmarks.affwild2 import Affwild2
data = Affwild2(root=sys.argv[1], size=112, audio_rate={RATE}, stride=8).load()
pages = []
for row in range(len(data) - 1):
    for m in ("face", "voice"):
        data.streams[m][[row]]
    pages.append(int(open("/proc/self/statm").read().split()[1]))
print(len(pages), (max(pages) - pages[0]) * resource.getpagesize())
"""


def tiny() -> Any:
    """An encoder that is cheap enough for a test: eight means of what it sees, through a random projection."""
    base = import_module("fusionbench.backbones._frozen").Frozen

    class TinyEncoder(base):
        expects = "anything"
        dim = 6

        def __init__(self, shape: Any) -> None:
            super().__init__(shape)
            self.project = torch.nn.Linear(8, 6)
            self.freeze()

        def encode(self, steps: torch.Tensor) -> torch.Tensor:
            flat = steps.flatten(1)
            return self.project(torch.nn.functional.adaptive_avg_pool1d(flat[:, None], 8)[:, 0])

    return TinyEncoder


def test_from_raw_media_to_scores(official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSIONBENCH_HOME", str(tmp_path))
    benchmark = open_(official, stride=8)
    data = benchmark.load()
    prepared = features.finish(
        features.prepare(benchmark, data, dict.fromkeys(benchmark.shapes, (tiny(), {})), device="cpu")
    )
    assert prepared.shapes == {"face": (6,), "voice": (6,)}
    splits = benchmark.splits(data, 0)
    for name in ("jmt", "concat"):
        fuser = registry.load("fusers", name)
        settings = hparams.fill(hparams.read(fuser), {"width": 16}, name)
        blueprint = Blueprint(benchmark.task, prepared.shapes, fuser, settings, prepared.backbones)
        recipe = Recipe(steps=4, batch=8, interval=2, lr=(1e-3,))
        members = [Member(0, 0, splits.train, splits.val, 1e-3)]
        (end,) = [e for e in train(blueprint, members, prepared.data, recipe) if isinstance(e, Trained)]
        assert end.error is None
        stats = {m: (end.weights[f"normalise.{m}.mean"], end.weights[f"normalise.{m}.sd"]) for m in benchmark.shapes}
        model = blueprint.build(0, stats, 1)
        model.load_state_dict(end.weights)
        test = prepared.data[splits.test]
        answers = predict(model, test)
        scores = evaluate(benchmark.task.metrics, answers, test.y.numpy(), test.y_mask.numpy())
        assert all(np.isfinite(v) for v in scores.values()), scores
        assert set(scores) == {"ccc", "ccc_zero_filled", "mae"}

"""CREMA-D and RAVDESS in miniature, from real encoded files: traps of their layouts, and what is said of bad files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fusionbench import features, hparams, registry
from fusionbench.check import report
from fusionbench.errors import UsageError

av = pytest.importorskip("av", reason="PyAV decodes the videos: pip install 'mm-fusionbench[video]'")
pytest.importorskip("PIL.Image", reason="pillow scales the frames: pip install 'mm-fusionbench[video]'")
soundfile = pytest.importorskip("soundfile", reason="soundfile reads the sound: pip install 'mm-fusionbench[audio]'")
CremaD: Any = registry.load("benchmarks", "crema_d")
Ravdess: Any = registry.load("benchmarks", "ravdess")
RATE = 16000


def write_video(path: Path, seconds: float, codec: str, sound: bool = False, grey: int = 40) -> None:
    """24 x 16 pixels at 10 frames a second, as grey as grey x the second; with sound, a tone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=10)
        video.width, video.height, video.bit_rate, video.pix_fmt = 24, 16, 2_000_000, "yuv420p"
        audio = container.add_stream("aac", rate=RATE, layout="mono") if sound else None
        for number in range(round(seconds * 10)):
            picture = np.full((16, 24, 3), grey * (number // 10), np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(video.encode())
        if audio:
            frame = av.AudioFrame.from_ndarray(tone(seconds)[None], format="fltp", layout="mono")
            frame.rate = RATE
            container.mux(audio.encode(frame))
            container.mux(audio.encode())


def tone(seconds: float) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def write_sound(path: Path, seconds: float, loudness: float = 1.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(str(path), loudness * tone(seconds), RATE)


CREMA = [
    f"{actor}_{sentence}_{emotion}_{'XX' if emotion == 'NEU' else level}"
    for actor in (1001, 1002, 1003, 1004, 1005)
    for sentence, level in (("IEO", "HI"), ("DFA", "XX"))
    for emotion in ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
]


@pytest.fixture(scope="module")
def crema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five actors, two sentences, six emotions; one clip is misspelled, one has no video, one an empty sound."""
    root = tmp_path_factory.mktemp("crema_d")
    write_video(root / "one.flv", 2.5, "flv1")
    write_sound(root / "one.wav", 2.0)
    for folder in ("VideoFlash", "AudioWAV"):
        (root / folder).mkdir()
    for name in [*CREMA, "1003_ITH_SAD_X"]:
        shutil.copy(root / "one.flv", root / "VideoFlash" / f"{name}.flv")
        shutil.copy(root / "one.wav", root / "AudioWAV" / f"{name}.wav")
    (root / "VideoFlash" / "1001_DFA_FEA_XX.flv").unlink()
    write_sound(root / "AudioWAV" / "1002_DFA_SAD_XX.wav", 0.0)
    lines = ['"ActorID","Age","Sex","Race","Ethnicity"']
    rest = ('44,"Male","Caucasian","Not Hispanic"', '45,"Female","Unknown","Hispanic"', ',"Female","?","?"')
    lines += [f"{1001 + k},{said}" for k, said in enumerate((*rest, '34,"Female","?","?"', '60,"Male","?","?"'))]
    (root / "VideoDemographics.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="module")
def ravdess(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six actors: all takes with picture and sound, some also silent or without a picture; actor 18 does not sing."""
    root = tmp_path_factory.mktemp("ravdess")
    write_video(root / "both.mp4", 3.0, "mpeg4", sound=True)
    write_video(root / "silent.mp4", 3.0, "mpeg4")
    write_sound(root / "only.wav", 1.3)
    for actor in (1, 2, 12, 17, 18, 24):
        folder = root / f"Actor_{actor:02d}"
        folder.mkdir()
        for channel, emotions in (("01", range(1, 9)), ("02", range(1, 7) if actor != 18 else ())):
            for emotion in emotions:
                for intensity in (1,) if emotion == 1 else (1, 2):
                    take = f"{channel}-{emotion:02d}-{intensity:02d}-01-01-{actor:02d}"
                    shutil.copy(root / "both.mp4", folder / f"01-{take}.mp4")
                    shutil.copy(root / "silent.mp4", folder / f"02-{take}.mp4")
    shutil.copy(root / "only.wav", root / "Actor_12" / "03-01-05-02-01-01-12.wav")
    for gone in ("01-01-06-01-01-01-12", "01-01-07-01-01-01-12", "02-01-07-01-01-01-12"):
        (root / "Actor_12" / f"{gone}.mp4").unlink()
    shutil.copy(root / "only.wav", root / "Actor_12" / "03-01-07-01-01-01-12.wav")
    again = root / "videos" / "Actor_24"  # a copy that holds files twice
    again.mkdir(parents=True)
    shutil.copy(root / "both.mp4", again / "01-01-05-02-01-01-24.mp4")
    return root


def load(kind: Any, root: Path, **given: Any) -> Any:
    benchmark = kind(root=str(root), **{"size": 16, **given})
    return benchmark, benchmark.load()


def test_crema_names_say_actor_and_emotion(crema: Path) -> None:
    benchmark, data = load(CremaD, crema)
    assert data.ids == sorted([*CREMA, "1003_ITH_SAD_X"])
    emotions = ["ANG", "DIS", "FEA", "HAP", "NEU", "SAD"]
    sexes = {"1001": "male", "1005": "male"}
    for name, label, group in zip(data.ids, data.y[:, 0].tolist(), data.groups, strict=True):
        assert name.split("_")[2] == emotions[label]
        assert group == f"{name[:4]}_{sexes.get(name[:4], 'female')}"
    assert benchmark.classes[5] == "sadness"


def test_what_is_said_of_the_actors(crema: Path, ravdess: Path) -> None:
    """One text a clip, the same in every clip of an actor; what the table does not say is empty."""
    _, data = load(CremaD, crema)
    said = dict(zip(data.groups, zip(*data.attributes.values(), strict=True), strict=True))
    assert list(data.attributes) == ["sex", "age", "race", "ethnicity"]
    assert said["1001_male"] == ("male", "30 to 44", "Caucasian", "Not Hispanic")
    assert said["1002_female"] == ("female", "45 to 59", "", "Hispanic")
    assert said["1003_female"] == ("female", "", "", "")
    assert len(said) == len(set(zip(data.groups, *data.attributes.values(), strict=True)))
    _, data = load(Ravdess, ravdess)
    assert {*zip(data.groups, data.attributes["sex"], strict=True)} == {(g, g[3:]) for g in data.groups}


def test_tokens_of_crema_and_what_is_missing(crema: Path) -> None:
    _, data = load(CremaD, crema)
    row = data.ids.index("1004_IEO_ANG_HI")
    face, voice = data.streams["face"][[row]], data.streams["voice"][[row]]
    assert face.mask[0].tolist() == [True] * 4 + [False] * 4  # 2.5 s: 3.9 tokens of .64 s
    assert voice.mask[0].tolist() == [True] * 3 + [False] * 5  # 2.0 s
    moments = (np.arange(24) + 0.5) * 0.08  # three tokens of eight frames
    shown = face.x[0, :3].flatten(0, 1).mean((1, 2, 3)).numpy() * 255
    np.testing.assert_allclose(shown, 40 * np.floor(np.floor(moments * 10 + 1e-9) / 10 + 1e-9), atol=6)
    np.testing.assert_allclose(voice.x[0, :3].flatten().numpy(), tone(1.92), atol=1e-3)
    silent, blind = data.ids.index("1002_DFA_SAD_XX"), data.ids.index("1001_DFA_FEA_XX")
    assert not data.streams["voice"][[silent]].mask.any()
    assert data.streams["face"][[silent]].mask.any()
    assert not data.streams["face"][[blind]].mask.any()
    assert data.streams["voice"][[blind]].mask.any()


def test_takes_of_ravdess_and_their_files(ravdess: Path) -> None:
    """One clip a take, whatever files it has; male actors are odd; a copy of a file is no second clip."""
    benchmark, data = load(Ravdess, ravdess)
    assert len(data) == 6 * 15
    assert benchmark.task.out == 8
    assert {*data.groups} == {"01_male", "02_female", "12_female", "17_male", "18_female", "24_female"}
    for name, label, group in zip(data.ids, data.y[:, 0].tolist(), data.groups, strict=True):
        channel, emotion, *_, actor = name.split("-")
        assert (channel, int(emotion), actor) == ("01", label + 1, group[:2])

    def tokens(name: str) -> list[int]:
        return [int(data.streams[m][[data.ids.index(name)]].mask.sum()) for m in ("face", "voice")]

    assert tokens("01-05-01-01-01-12") == [5, 5]  # 3 s
    assert tokens("01-05-02-01-01-12") == [5, 2]  # the sound of 03 lasts 1.3 s
    assert tokens("01-06-01-01-01-12") == [5, 0]  # the picture of 02, no sound
    assert tokens("01-07-01-01-01-12") == [0, 2]  # only 03
    voice = data.streams["voice"][[data.ids.index("01-05-02-01-01-12")]]
    np.testing.assert_allclose(voice.x[0, :2].flatten().numpy(), tone(1.28), atol=1e-3)


def test_songs_are_asked_for(ravdess: Path) -> None:
    benchmark, data = load(Ravdess, ravdess, channel="song")
    assert (benchmark.task.out, len(benchmark.classes)) == (6, 6)
    assert len(data) == 5 * 11  # not actor 18
    assert "18_female" not in data.groups
    assert all(name.startswith("02-") for name in data.ids)
    benchmark, data = load(Ravdess, ravdess, channel="both")
    assert (benchmark.task.out, len(data)) == (8, 90 + 55)
    with pytest.raises(UsageError, match="speech, song or both, not 'sung'"):
        load(Ravdess, ravdess, channel="sung")


def test_actors_stand_on_one_side(crema: Path, ravdess: Path) -> None:
    for kind, root in ((CremaD, crema), (Ravdess, ravdess)):
        benchmark, data = load(kind, root)
        for fold in range(benchmark.folds):
            splits = benchmark.splits(data, fold)
            sides = [{data.groups[i] for i in side} for side in (splits.train, splits.val, splits.test)]
            assert sum(map(len, sides)) == len(set(data.groups)) == len(sides[0] | sides[1] | sides[2])


@pytest.mark.parametrize("name", ["crema_d", "ravdess"])
def test_it_passes_the_kit(
    name: str, crema: Path, ravdess: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One clip an actor and emotion, each with a sound of its own: the kit finds recordings that stand there twice."""
    root = tmp_path / "data" / name
    if name == "crema_d":
        names = [n for n in CREMA if "IEO" in n]
        files = {f"VideoFlash/{n}.flv": f"AudioWAV/{n}.wav" for n in names}
        root.mkdir(parents=True)
        shutil.copy(crema / "VideoDemographics.csv", root)
    else:
        takes = [(f"{emotion:02d}-01-01-01", actor) for emotion in range(1, 9) for actor in range(1, 7)]
        files = {f"Actor_{a:02d}/01-01-{t}-{a:02d}.mp4": f"Actor_{a:02d}/03-01-{t}-{a:02d}.wav" for t, a in takes}
    for k, (video, sound) in enumerate(files.items()):
        write_sound(root / sound, 1.3, loudness=(k + 1) / len(files))
        (root / video).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(crema / "one.flv" if name == "crema_d" else ravdess / "silent.mp4", root / video)
    monkeypatch.setenv("FUSIONBENCH_HOME", str(tmp_path))
    monkeypatch.setattr(import_module("fusionbench.check.benchmarks"), "SOURCE_ROWS", 10)  # decoded more than once
    found = report("benchmarks", name)
    assert found.ok, found


def test_the_frozen_encoders_read_them(crema: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchvision", reason="the encoders are torchvision's: pip install 'mm-fusionbench[video]'")
    monkeypatch.setenv("FUSIONBENCH_HOME", str(tmp_path))
    benchmark, data = load(CremaD, crema)
    chosen = {}
    for m, (encoder, settings) in benchmark.backbones.items():
        plugin = registry.load("backbones", encoder)
        given = {**settings, "weights": "random", **({"size": 16} if m == "face" else {})}
        chosen[m] = plugin, hparams.fill(hparams.read(plugin), given, encoder)
    few = data[torch.arange(3)]
    sources = {m: type(s)(s.files[:3], s.seconds[:3], *_rest(s)) for m, s in data.streams.items()}
    prepared = features.finish(
        features.prepare(benchmark, type(few)(sources, few.y, few.y_mask, few.ids, few.groups), chosen)
    )
    for m, stream in prepared.data.streams.items():
        assert tuple(stream.x.shape) == (3, 8, 512)
        assert torch.isfinite(stream.x).all()
        assert torch.equal(stream.mask, data.streams[m][[0, 1, 2]].mask)


def _rest(source: Any) -> tuple[Any, bool]:
    return (source.size if hasattr(source, "size") else source.rate), source.skip_bad


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: shutil.copy(r / "one.flv", r / "VideoFlash/1001_DFA_AND_XX.flv"), "its name is not"),
        (lambda r: shutil.copy(r / "one.wav", r / "AudioWAV/1001_ITS_NEU_HI.wav"), "neutral has no level, not HI"),
        (lambda r: shutil.copy(r / "one.wav", r / "AudioWAV/1009_ITS_SAD_HI.wav"), "has no actor 1009"),
        (lambda r: (r / "AudioWAV/1001_DFA_ANG_XX.wav").write_bytes(b"version https://git-lfs.github.com/spec/v1\n"),
         r"1001_DFA_ANG_XX\.wav is a Git LFS pointer, not the recording: git lfs pull"),
        (lambda r: (r / "VideoFlash/1001_DFA_ANG_XX.flv").write_bytes(b"no video"), "cannot be opened as a video"),
        (lambda r: (r / "AudioWAV/1001_DFA_ANG_XX.wav").write_bytes(b"no sound"), "cannot be read as sound"),
    ],
)  # fmt: skip
def test_bad_files_of_crema_are_named_or_left_out(
    crema: Path, tmp_path: Path, change: Callable[[Path], Any], message: str
) -> None:
    root = Path(shutil.copytree(crema, tmp_path / "copy"))
    change(root)
    with pytest.raises(UsageError, match=rf"{message}.*skip_bad leaves it out"):
        load(CremaD, root)
    benchmark, data = load(CremaD, root, skip_bad=True)
    assert len(benchmark.skipped) == 1
    assert len(data) >= len(CREMA)


def test_people_of_crema_are_needed(crema: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(crema, tmp_path / "copy"))
    (root / "VideoDemographics.csv").write_text("ActorID,Sex\n1001,man\n")
    with pytest.raises(UsageError, match=r"VideoDemographics\.csv, line 2: Sex is Male or Female, not 'man'"):
        load(CremaD, root)
    (root / "VideoDemographics.csv").unlink()
    with pytest.raises(UsageError, match=r"VideoDemographics\.csv has no actor 1001"):
        load(CremaD, root)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Actor_01/01-01-09-01-01-01-01.mp4", "the emotion of its name is 09, not 01 to 08"),
        ("Actor_01/01-01-05-01-01-01-02.mp4", "it is of actor 02 and stands in Actor_01"),
        ("Actor_01/03-01-05-01-01-01-01.mp4", r"modality 03 is no \.mp4 file"),
        ("Actor_01/01-01-01-02-01-01-01.mp4", "neutral has no strong intensity"),
        ("Actor_01/01-02-08-01-01-01-01.mp4", "surprised was not sung"),
        ("Actor_01/01-01-05-01-01-01.mp4", "its name is not seven fields of two digits"),
    ],
)
def test_bad_names_of_ravdess_are_told(ravdess: Path, tmp_path: Path, name: str, message: str) -> None:
    root = tmp_path / "copy"
    (root / "Actor_01").mkdir(parents=True)
    for emotion in ("03", "04"):
        shutil.copy(ravdess / "both.mp4", root / "Actor_01" / f"01-01-{emotion}-01-01-01-01.mp4")
    shutil.copy(ravdess / "both.mp4", root / name)
    with pytest.raises(UsageError, match=message):
        load(Ravdess, root)
    assert len(load(Ravdess, root, skip_bad=True)[1]) == 2
    with pytest.raises(UsageError, match=r"ravdess: no clip in .* could be read: run `fusionbench data get ravdess`"):
        load(Ravdess, tmp_path / "nowhere")

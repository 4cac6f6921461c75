"""BioVid in miniature, from real encoded files: the layout, its traps, the splits, and what is said of a bad file."""

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
from fusionbench.engine import Member, Recipe, Trained, predict, train
from fusionbench.engine.model import Blueprint
from fusionbench.errors import UsageError
from fusionbench.metrics import evaluate

av = pytest.importorskip("av", reason="PyAV decodes the videos: pip install 'mm-fusionbench[video]'")
pytest.importorskip("PIL.Image", reason="pillow scales the frames: pip install 'mm-fusionbench[video]'")
shared: Any = import_module("fusionbench.benchmarks._biovid")
Biovid: Any = registry.load("benchmarks", "biovid")
Dependent: Any = registry.load("benchmarks", "biovid_subject_dependent")

PEOPLE = ("071309_w_21", "071313_m_41", "071614_m_20", "080209_w_26", "080314_w_25")
HEADER = ("time", "gsr", "ecg", "emg_trapezius", "emg_corrugator", "emp_zygomaticus")
TAKES = 2  # clips a class and person


def write_video(path: Path, seconds: float = 5.5, fps: int = 10) -> None:
    """24 x 16 pixels whose grey is 20 x the second of the clip, a bright stripe at either side of the centre square."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=fps)
        video.width, video.height, video.bit_rate = 24, 16, 2_000_000
        for number in range(round(seconds * fps)):
            picture = np.full((16, 24, 3), 20 * (number // fps), np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(video.encode())


def write_signals(path: Path, offset: float, *, rows: int = 2816, header: tuple[str, ...] = HEADER) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(rows) * 1e6 / 512
    gsr = offset + np.sin(np.arange(rows) / 200 + offset)  # a different one for every clip
    columns = [time, gsr, *(gsr * k for k in range(2, len(header)))]
    lines = ["\t".join(header)]
    lines += ["\t".join(f"{c[row]:.4f}" for c in columns) for row in range(rows)]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five people, five classes, two clips each; every video is one file under many names."""
    root = tmp_path_factory.mktemp("biovid")
    lines = ["subject_id\tsubject_name\tclass_id\tclass_name\tsample_id\tsample_name"]
    write_video(root / "video.mp4")
    number = 0
    for person, subject in enumerate(PEOPLE):
        (root / "video" / subject).mkdir(parents=True)
        for label, name in enumerate(shared.CLASSES):
            for take in range(TAKES):
                sample, number = f"{subject}-{name}-{take + 1:03d}", number + 1
                lines.append(f"{person + 1}\t{subject}\t{label}\t{name}\t{number}\t{sample}")
                if name in ("BL1", "PA4"):
                    write_signals(
                        root / "biosignals_filtered" / subject / f"{sample}_bio.csv", person + label / 10 + take / 3
                    )
                    shutil.copy(root / "video.mp4", root / "video" / subject / f"{sample}.mp4")
    (root / "starting_point").mkdir()
    (root / "starting_point" / "samples.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def copy(official: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(official, tmp_path / "copy"))


def open_(root: Path, kind: Any = Biovid, **given: Any) -> Any:
    return kind(root=str(root), **{"size": 16, **given})


def test_clips_labels_and_signals(official: Path) -> None:
    benchmark = open_(official, modalities="face,gsr,emg_zygomaticus")
    data = benchmark.load()
    assert len(data) == len(PEOPLE) * 2 * TAKES
    assert set(data.groups) == set(PEOPLE)
    for name, label in zip(data.ids, data.y[:, 0].tolist(), strict=True):
        assert label == (1 if "-PA4-" in name else 0)
    gsr, zygomaticus = data.streams["gsr"], data.streams["emg_zygomaticus"]
    assert gsr.x.shape == (len(data), 2816, 1)
    row = data.ids.index(f"{PEOPLE[2]}-PA4-002")
    offset = 2 + 0.4 + 1 / 3
    want = offset + np.sin(np.arange(2816) / 200 + offset)
    np.testing.assert_allclose(gsr.x[row, :, 0], want, atol=1e-3)
    np.testing.assert_allclose(zygomaticus.x[row, :, 0], 5 * want, atol=1e-2, err_msg="spelled emp_zygomaticus there")


def test_face_frames_are_those_shown_at_their_time(official: Path) -> None:
    data = open_(official).load()
    face = data.streams["face"][[3]]
    assert face.x.shape == (1, 4, 16, 3, 16, 16)
    moments = (np.arange(64) + 0.5) * 5.5 / 64
    shown = face.x[0].flatten(0, 1).mean((1, 2, 3)).numpy() * 255
    np.testing.assert_allclose(shown, 20 * np.floor(np.floor(moments * 10) / 10 + 1e-9), atol=4)


def test_people_never_stand_on_two_sides(official: Path) -> None:
    benchmark = open_(official, modalities="gsr")
    assert benchmark.folds == 5, "one fold a person of the table"
    data = benchmark.load()
    tested = []
    for fold in range(benchmark.folds):
        splits = benchmark.splits(data, fold)
        sides = [{data.groups[i] for i in side} for side in (splits.train, splits.val, splits.test)]
        assert len(sides[2]) == 1
        assert not sides[0] & sides[1]
        assert not (sides[0] | sides[1]) & sides[2]
        tested += sides[2]
    assert sorted(tested) == sorted(PEOPLE)
    assert open_(official, protocol="5fold").folds == 5
    assert open_(Path("nowhere")).folds == 87


def test_the_clip_level_variant_says_what_it_is(official: Path) -> None:
    assert Dependent.subject_dependent
    benchmark = open_(official, Dependent, modalities="gsr")
    data = benchmark.load()
    tested = np.concatenate([benchmark.splits(data, fold).test for fold in range(5)])
    assert sorted(tested) == list(range(len(data)))
    splits = benchmark.splits(data, 0)
    assert {data.groups[i] for i in splits.train} & {data.groups[i] for i in splits.test}


def test_classes(copy: Path) -> None:
    assert open_(copy, classes="all").task.out == 5
    source = copy / "biosignals_filtered"
    for file in [*source.rglob("*-PA4-*")]:
        shutil.copy(file, file.with_name(file.name.replace("PA4", "PA2")))
    data = open_(copy, classes="pa2", modalities="gsr").load()
    assert {name.split("-")[1] for name in data.ids} == {"BL1", "PA2"}
    assert set(data.y.flatten().tolist()) == {0, 1}
    for wrong, says in (({"classes": "pa5"}, "classes is"), ({"modalities": "gsr,eeg"}, "not 'eeg'"),
                        ({"protocol": "kfold"}, "protocol is"), ({"modalities": ""}, "at least one")):  # fmt: skip
        with pytest.raises(UsageError, match=says):
            open_(copy, **wrong)


FIRST = f"{PEOPLE[0]}-BL1-001"


def change(root: Path, old: str, new: str, count: int = 1) -> None:
    path = root / "starting_point" / "samples.csv"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


def signal_file(root: Path) -> Path:
    return root / "biosignals_filtered" / PEOPLE[0] / f"{FIRST}_bio.csv"


def rewrite(root: Path, edit: Callable[[list[str]], list[str]]) -> None:
    path = signal_file(root)
    path.write_text("\n".join(edit(path.read_text().splitlines())) + "\n")


BAD: list[tuple[Callable[[Path], Any], str]] = [
    (lambda r: change(r, f"\t{FIRST}", f"\t{PEOPLE[0]}-PA1-009"), "samples.csv, line 2: the sample"),
    (lambda r: change(r, "1\t071309_w_21\t0\tBL1\t1\t", "1\t071309_w_21\t7\tBL1\t1\t"), "line 2: class_id is '7'"),
    (lambda r: change(r, "\t0\tBL1\t1\t", "\t0\tBL9\t1\t"), "line 2: class_name is 'BL9'"),
    (lambda r: change(r, f"\tBL1\t1\t{FIRST}", f"\tBL1\t{FIRST}"), "line 2: 5 columns"),
    (lambda r: change(r, f"\t{FIRST[:-3]}002", f"\t{FIRST}"), "line 3: the sample .* a second time"),
    (lambda r: signal_file(r).unlink(), "cannot read .*BL1-001_bio.csv"),
    (lambda r: rewrite(r, lambda lines: lines[:-20]), "BL1-001_bio.csv has 2796 rows"),
    (lambda r: rewrite(r, lambda x: [x[0].replace("gsr", "eda"), *x[1:]]), "_bio.csv: there is no column 'gsr'"),
    (lambda r: rewrite(r, lambda lines: [*lines[:9], "1\t2", *lines[10:]]), "BL1-001_bio.csv, line 10"),
    (lambda r: rewrite(r, lambda x: [*x[:9], "1\tnan\t2\t3\t4\t5", *x[10:]]), "line 10: a value is not finite"),
    (lambda r: rewrite(r, lambda lines: [lines[0], *("1" + x for x in lines[1:])]), "microseconds apart"),
    (lambda r: (r / "video" / PEOPLE[0] / f"{FIRST}.mp4").unlink(), "there is no video .*BL1-001.mp4"),
    (lambda r: write_video(r / "video" / PEOPLE[0] / f"{FIRST}.mp4", 3), "BL1-001.mp4 lasts 3.00 s"),
    (lambda r: (r / "video" / PEOPLE[0] / f"{FIRST}.mp4").write_bytes(b"x" * 99), "cannot be opened as a video"),
]  # fmt: skip


@pytest.mark.parametrize(("harm", "says"), BAD)
def test_bad_input_is_named_or_left_out(copy: Path, harm: Callable[[Path], Any], says: str) -> None:
    harm(copy)
    with pytest.raises(UsageError, match=says):
        open_(copy).load()
    lenient = open_(copy, skip_bad=True)
    data = lenient.load()
    assert len(lenient.skipped) == 1
    assert len(data) == len(PEOPLE) * 2 * TAKES - 1


def test_wrong_folders_and_unknown_people(copy: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no starting_point/samples\.csv in nowhere"):
        open_(Path("nowhere")).load()
    shutil.move(copy / "biosignals_filtered" / PEOPLE[1], copy / "elsewhere")
    with pytest.raises(UsageError, match=f"unknown subject '{PEOPLE[1]}'"):
        open_(copy).load()
    lenient = open_(copy, skip_bad=True, protocol="5fold", modalities="gsr")
    assert len(lenient.load()) == (len(PEOPLE) - 1) * 2 * TAKES
    assert len(lenient.skipped) == 2 * TAKES
    change(copy, "\tclass_id\t", "\tclass\t")
    with pytest.raises(UsageError, match="no column 'class_id'"):
        open_(copy).load()


def test_the_contract(official: Path) -> None:
    class Small(Biovid):
        def __init__(self) -> None:
            super().__init__(root=str(official), size=16)

    found = report("benchmarks", Small)
    assert found.ok, found


def test_the_contract_of_the_clip_level_variant(
    official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUSIONBENCH_HOME", str(tmp_path))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "biovid").symlink_to(official)
    found = report("benchmarks", Dependent, ["declared", "labels", "disjoint_samples", "disjoint_groups", "folds"])
    assert found.ok, found
    assert {r.name: r.status for r in found.results}["disjoint_groups"] == "not applicable", "it says why"


def test_from_raw_media_to_scores(official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchvision", reason="the face encoder is torchvision's: pip install 'mm-fusionbench[video]'")
    monkeypatch.setenv("FUSIONBENCH_HOME", str(tmp_path))
    benchmark = open_(official, protocol="5fold")
    data = benchmark.load()
    face = registry.load("backbones", "resnet18")
    gsr = registry.load("backbones", "gsr_cnn")
    chosen = {
        "face": (face, {"weights": "random", "size": 16}),
        "gsr": (gsr, {"dim": 16, "channels": 4, "segment": 704, "pool": 4, "weights": "random"}),
    }
    prepared = features.finish(features.prepare(benchmark, data, chosen, device="cpu"))
    assert prepared.shapes == {"face": (512,), "gsr": (1,)}
    splits = benchmark.splits(data, 0)
    recipe = Recipe(steps=4, batch=8, interval=2, lr=(1e-3,))
    for name in ("jmt", "concat"):
        fuser = registry.load("fusers", name)
        settings = hparams.fill(hparams.read(fuser), {"width": 16}, name)
        blueprint = Blueprint(benchmark.task, prepared.shapes, fuser, settings, prepared.backbones)
        members = [Member(0, 0, splits.train, splits.val, 1e-3)]
        (end,) = [e for e in train(blueprint, members, prepared.data, recipe) if isinstance(e, Trained)]
        assert end.error is None
        stats = {m: (end.weights[f"normalise.{m}.mean"], end.weights[f"normalise.{m}.sd"]) for m in benchmark.shapes}
        model = blueprint.build(0, stats, 1)
        model.load_state_dict(end.weights)
        test = prepared.data[splits.test]
        scores = evaluate(benchmark.task.metrics, predict(model, test), test.y.numpy(), test.y_mask.numpy())
        assert all(np.isfinite(v) for v in scores.values()), scores
    assert not torch.equal(prepared.data.streams["face"].x[0], torch.zeros(4, 512))

"""The feature store: encoded once, resumed, shared, mended, never corrupted; raw damage before the frozen backbone."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fusionbench import corruptions, features
from fusionbench.api import Backbone, Batch, Benchmark, Context, Splits, Stream, Task
from fusionbench.errors import UsageError
from fusionbench.features import store

STEPS = 3


class Media:
    """A Source of numbers that counts what is read of it."""

    digest = "numbers"

    def __init__(self, samples: int, step: tuple[int, ...] = (4,)) -> None:
        self.samples, self.shape, self.reads = samples, (STEPS, *step), list[int]()

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: Any) -> Stream:
        rows = torch.arange(self.samples)[index]
        self.reads += rows.tolist()
        x = torch.stack([self.value(int(r)) for r in rows])
        mask = torch.ones(len(rows), STEPS, dtype=torch.bool)
        mask[rows % 5 == 1, 1] = False
        return Stream(x, mask)

    def value(self, row: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(row)
        return torch.rand(self.shape, generator=generator)


class Doubler(Backbone):
    """(n, ...) -> two sums of the step, weighted by what it was given."""

    frozen = True
    stepwise = True

    def __init__(self, shape: Sequence[int], *, factor: float = 1.0, weights: str = "") -> None:
        super().__init__(shape)
        self.dim = 2
        self.factor = factor
        self.register_buffer("weight", torch.tensor([1.0, 2.0]))

    def forward(self, stream: Stream) -> Stream:
        total = stream.x.flatten(2).sum(2, keepdim=True) * self.factor
        return Stream(total * self.weight, stream.mask)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FUSIONBENCH_HOME", str(tmp_path))
    return tmp_path


def encoder(media: Media, **settings: Any) -> features.Encoder:
    ids = [f"s{n}" for n in range(len(media))]
    return features.Encoder("numbers", media, ids, 10.0, Doubler, settings, "cpu")


def encoded(media: Media, **settings: Any) -> features.Features:
    return features.finish(features.encode(encoder(media, **settings)))


def same(found: features.Features, media: Media, factor: float = 1.0) -> None:
    whole, raw = found.resident(), media[torch.arange(len(media))]
    assert torch.equal(whole.mask, raw.mask)
    want = raw.x.flatten(2).sum(2, keepdim=True) * factor * torch.tensor([1.0, 2.0])
    torch.testing.assert_close(whole.x, want * raw.mask[..., None])


def test_encoded_once_and_indexed_like_a_stream() -> None:
    media = Media(70)
    first = encoded(media)
    assert sorted(media.reads) == list(range(70))
    assert len(first) == 70
    assert first.shape == (STEPS, 2)
    media.reads.clear()
    again = encoded(media)
    assert media.reads == [], "second use reads no media"
    assert isinstance(again.x, np.memmap)
    same(again, media)
    for index in ([3, 69, 3], torch.tensor([5]), slice(60, 66), np.array([1, 2])):
        assert torch.equal(again[index].x, again.resident().x[index])


@pytest.mark.parametrize("readers", [1, 4, 64])
def test_readers_side_by_side_read_each_sample_once_and_keep_the_order(
    readers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Uneven(Media):
        def __getitem__(self, index: Any) -> Stream:
            time.sleep(0.02 if torch.arange(self.samples)[index][0] % 4 == 0 else 0)  # the first come last
            return super().__getitem__(index)

    monkeypatch.setattr(features, "_readers", lambda device: readers)
    media = Uneven(37)
    found = encoded(media)
    assert sorted(media.reads) == list(range(37))
    same(found, media)


def test_a_gpu_has_several_readers_and_a_cpu_that_encodes_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    assert features._readers(torch.device("cpu")) == 1
    assert features._readers(torch.device("cuda")) == features.READERS > 1


def test_progress_counts_every_sample() -> None:
    media = Media(70)
    seen = list(features.encode(encoder(media)))
    assert [s.done for s in seen][-1] == 70
    assert all(a.done < b.done for a, b in itertools.pairwise(seen))
    assert {s.total for s in seen} == {70}
    assert seen[-1].left == 0


def test_every_part_of_the_key_counts() -> None:
    media = Media(10)
    base = encoder(media)
    other = Media(10)
    other.digest = "others"
    longer = features.Encoder("numbers", media, base.ids, 20.0, Doubler, {}, "cpu")
    changed = encoder(media)
    changed_weights = type("Doubler", (Doubler,), {"__init__": _heavier, "__module__": Doubler.__module__})
    heavier = features.Encoder("numbers", media, base.ids, 10.0, changed_weights, {}, "cpu")
    noise = _damage("noise", "numbers", 2)
    keys = [
        base.key(), encoder(other).key(), longer.key(), encoder(media, factor=2.0).key(), heavier.key(),
        base.key(noise), base.key(_damage("noise", "numbers", 3)), base.key(_damage("noise", "numbers", 2, seed=1)),
    ]  # fmt: skip
    assert len(set(keys)) == len(keys)
    assert changed.key() == base.key()
    assert encoder(media, weights="elsewhere.pth").key() == base.key(), "where the weights lie is no part of the key"


def _heavier(self: Any, shape: Sequence[int]) -> None:
    Doubler.__init__(self, shape)
    self.weight += 1


def _damage(name: str, modality: str, severity: int, seed: int = 0) -> features.Damage:
    ((_, corruption, _),) = corruptions.parse(f"{name}:{modality}:{severity}", [modality])
    return features.Damage(corruption, severity, seed, Context({modality: torch.ones(4)}, {modality: 10.0}))


def test_interrupted_encoding_goes_on_where_it_stopped() -> None:
    media = Media(150)
    work = features.encode(encoder(media))
    for progress in work:
        if progress.done > 70:  # two chunks of 32 are written
            break
    work.close()
    with pytest.raises(UsageError, match="not encoded yet"):
        store.Store(encoder(media).key()).open().resident()
    media.reads.clear()
    found = encoded(media)
    assert sorted(media.reads) == list(range(64, 150))
    same(found, media)


PROGRAM = """
import sys, time
sys.path.insert(0, sys.argv[1])
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("feature_tests", sys.argv[2]); tests = module_from_spec(spec)
sys.modules["feature_tests"] = tests; spec.loader.exec_module(tests)
class Slow(tests.Media):
    def value(self, row):
        time.sleep(float(sys.argv[4]))
        with open(sys.argv[3], "a") as log: log.write(f"{row}\\n")
        return super().value(row)
media = Slow(100)
for progress in tests.features.encode(tests.encoder(media)):
    print(progress.done, progress.waiting, flush=True)
"""


def start(home: Path, pause: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, str(home), __file__, str(home / "reads.txt"), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_killed_and_resumed_by_two_processes_at_once(home: Path) -> None:
    first = start(home, 0.02)
    assert first.stdout is not None
    for line in first.stdout:
        if int(line.split()[0]) >= 36:
            break
    first.send_signal(signal.SIGKILL)
    first.wait()
    first.stdout.close()
    (home / "reads.txt").write_text("")
    pair = [start(home, 0.01), start(home, 0.01)]
    outputs = [process.communicate(timeout=60)[0] for process in pair]
    assert [process.returncode for process in pair] == [0, 0]
    rows = [int(row) for row in (home / "reads.txt").read_text().split()]
    assert sorted(rows) == list(range(32, 100)), "after the first chunk, each sample was read once, by one of the two"
    assert sum("False" in output for output in outputs) >= 1
    media = Media(100)
    found = encoded(media)
    assert media.reads == [], "here too: the key depends on the backbone's file, not on how it was imported"
    same(found, media)
    (entry,) = features.entries()
    assert (entry.done, entry.total) == (100, 100)


@pytest.mark.parametrize("target", ["x.bin", "mask.bin", "chunks/0000001.json", "entry.json", "short"])
def test_damage_on_disk_is_found_and_mended(target: str) -> None:
    media = Media(100)
    found = encoded(media)
    place = store.folder() / found.digest
    if target == "short":
        os.truncate(place / "x.bin", 100)
    else:
        path = place / target
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0x01 if target.endswith(".bin") else 0xFF
        path.write_bytes(content)
    media.reads.clear()
    mended = encoded(media)
    whole = target in ("entry.json", "short")
    assert sorted(media.reads) == (list(range(100)) if whole else list(range(32, 64)))
    same(mended, media)


def test_full_disk_is_a_clear_error_that_leaves_a_valid_store(monkeypatch: pytest.MonkeyPatch) -> None:
    media, real, room = Media(100), os.pwrite, [32 * STEPS * 2 * 4 + 32 * STEPS + 50]

    def pwrite(descriptor: int, content: Any, offset: int) -> int:
        if room[0] <= 0:
            raise OSError(28, "No space left on device")
        count = real(descriptor, bytes(content)[: room[0]], offset)
        room[0] -= count
        return count

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        with pytest.raises(UsageError, match=r"No space left on device.*the 32 samples there stay valid"):
            encoded(media)
    assert [damaged for _, damaged in features.verify()] == [0]
    media.reads.clear()
    found = encoded(media)
    assert sorted(media.reads) == list(range(32, 100))
    same(found, media)


def test_unwritable_cache_is_named(home: Path) -> None:
    (home / "cache").write_text("a file where a folder should be")
    with pytest.raises(UsageError, match="cannot write to the cache"):
        encoded(Media(5))


def test_what_lies_in_the_store_is_listed_verified_and_pruned() -> None:
    one, two = encoded(Media(40)), encoded(Media(10), factor=2.0)
    listed = {entry.key: entry for entry in features.entries()}
    assert set(listed) == {one.digest, two.digest}
    entry = listed[one.digest]
    assert (entry.modality, entry.done, entry.total, entry.damage) == ("numbers", 40, 40, "")
    assert entry.bytes > 40 * STEPS * 2 * 4
    path = store.folder() / one.digest / "x.bin"
    path.write_bytes(b"\1" + path.read_bytes()[1:])
    assert {e.key: damaged for e, damaged in features.verify()} == {one.digest: 1, two.digest: 0}
    assert {e.key: e.done for e in features.entries()}[one.digest] == 8, "a damaged chunk is forgotten"
    with pytest.raises(UsageError, match="no feature entry is called 'nonsense'"):
        list(features.verify(["nonsense"]))
    old = time.time() - 10 * 86400
    os.utime(store.folder() / two.digest / "entry.json", (old, old))
    assert [e.key for e in features.prune(unused_days=5)] == [two.digest]
    with store.Store(one.digest).lock() as attempts:
        assert next(attempts, "held") == "held"
        assert list(features.prune()) == [], "an entry in use is left alone"
    assert [e.key for e in features.prune([one.digest])] == [one.digest]
    assert features.entries() == []


class Numbers(Benchmark):
    shapes = {"numbers": (4,), "clip": (2, 3, 8, 8), "plain": (5,)}  # noqa: RUF012
    rates = {"numbers": 10.0}  # noqa: RUF012
    task = Task("classify", 2, ("accuracy",))

    def load(self) -> Batch:
        streams = {"numbers": Media(40), "clip": Media(40, (2, 3, 8, 8)), "plain": Stream(torch.rand(40, 2, 5), ALL)}
        ids = [f"s{n}" for n in range(40)]
        return Batch(streams, torch.arange(40).remainder(2)[:, None], torch.ones(40, 1, dtype=torch.bool), ids, ids)

    def splits(self, data: Batch, fold: int) -> Splits:
        raise NotImplementedError


ALL = torch.ones(40, 2, dtype=torch.bool)


class Plain(Backbone):
    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(shape)
        self.dim = 5


def prepared() -> features.Prepared:
    benchmark = Numbers()
    chosen = {"numbers": (Doubler, {}), "clip": (Doubler, {"factor": 0.5}), "plain": (Plain, {})}
    return features.finish(features.prepare(benchmark, benchmark.load(), chosen, "cpu"))


def test_frozen_modalities_become_features_and_the_rest_stays() -> None:
    done = prepared()
    assert {m: maker.__name__ for m, (maker, _) in done.backbones.items()} == {
        "numbers": "Identity", "clip": "Identity", "plain": "Plain",
    }  # fmt: skip
    assert done.shapes == {"numbers": (2,), "clip": (2,), "plain": (5,)}
    assert isinstance(done.data.streams["numbers"], Stream)
    assert set(done.digests) == {"numbers", "clip"}


def test_large_features_stay_a_memory_map(monkeypatch: pytest.MonkeyPatch) -> None:
    small = prepared().data.streams["numbers"]
    monkeypatch.setattr(features, "RESIDENT", 10)
    large = prepared().data[[3, 5]].streams["numbers"]
    assert torch.equal(large.x, small.x[[3, 5]])
    assert isinstance(prepared().data.streams["numbers"], features.Features)


def hurt(done: features.Prepared, spelling: str, rows: Sequence[int]) -> dict[str, Stream]:
    ((_, corruption, severity),) = corruptions.parse(spelling, list(done.shapes))
    streams = dict(done.data[list(rows)].streams)
    context = Context({"numbers": torch.ones(2), "clip": torch.ones(2), "plain": torch.ones(5)}, Numbers.rates)
    return done.damage(streams, np.array(rows), np.arange(20), corruption, severity, 0, context)


def test_raw_damage_comes_before_the_backbone_and_is_kept() -> None:
    done = prepared()
    rows = [1, 38]
    ((_, corruption, severity),) = corruptions.parse("bio_noise:numbers:3", ["numbers"])
    got = hurt(done, "bio_noise:numbers:3", rows)
    media = Media(40)
    raw = media[rows]
    train = media[list(range(20))]
    real = train.x[train.mask]
    keys = corruptions.keys("bio_noise", 0, ["s1", "s38"], ["numbers"])
    context = Context({"numbers": real.std(0, correction=0)}, {"numbers": 10.0})
    want = Doubler((4,))(corruption.apply({"numbers": raw}, severity, keys, context)["numbers"])
    torch.testing.assert_close(got["numbers"].x, want.x)
    assert got["clip"] is not None
    assert torch.equal(got["plain"].x, done.data.streams["plain"].x[rows])
    source = done.encoders["numbers"].source
    source.reads.clear()
    hurt(done, "bio_noise:numbers:3", rows)
    assert set(source.reads) <= set(range(20)), "kept: only the training samples' deviation is looked up"
    source.reads.clear()
    hurt(done, "bio_noise:numbers:3", [2])
    assert source.reads == [], "and its chunk serves its neighbours"


def test_pictures_in_clips_are_damaged_frame_by_frame() -> None:
    done = prepared()
    got = hurt(done, "contrast:clip:5", [0, 1])["clip"]
    raw = Media(40, (2, 3, 8, 8))[[0, 1]]
    mean = raw.x.mean((-2, -1), keepdim=True)
    flat = Stream(mean + 0.05 * (raw.x - mean), raw.mask)
    torch.testing.assert_close(got.x, Doubler((2, 3, 8, 8), factor=0.5)(flat).x)
    assert torch.equal(got.mask, raw.mask)


def test_feature_damage_and_missing_modalities_read_no_media() -> None:
    done = prepared()
    for m in ("numbers", "clip"):
        done.encoders[m].source.reads.clear()
    noisy = hurt(done, "noise:all:2", [0, 3])
    gone = hurt(done, "missing:clip", [0, 3])
    assert not gone["clip"].mask.any()
    assert not torch.equal(noisy["numbers"].x, done.data.streams["numbers"].x[[0, 3]])
    assert all(done.encoders[m].source.reads == [] for m in ("numbers", "clip"))


def test_what_a_backbone_does_not_expect_is_refused() -> None:
    class Picky(Doubler):
        def admit(self, stream: Stream, rate: float | None) -> None:
            if rate != 16000:
                raise UsageError(f"wants 16000, not {rate}")

    with pytest.raises(UsageError, match=r"wants 16000, not 10\.0"):
        features.finish(features.encode(features.Encoder("a", Media(5), "abcde", 10.0, Picky, {}, "cpu")))

    class Bounded(Doubler):
        def admit(self, stream: Stream, rate: float | None) -> None:
            if stream.x.max() > 1:
                raise UsageError("beyond 1")

    loud = features.Encoder("numbers", Media(5), "abcde", 10.0, Bounded, {}, "cpu")
    noise = _damage("bio_noise", "numbers", 5)
    assert noise.apply(Media(5)[[0, 1]], "ab", "numbers").x.max() > 1
    assert len(features.finish(features.encode(loud, damage=noise))) == 5, "damage may leave the range"
    broken = Media(5)
    broken.value = lambda row: torch.full(broken.shape, float("nan"))  # type: ignore[method-assign]
    with pytest.raises(UsageError, match="NaN or infinity"):
        encoded(broken)


def test_memory_does_not_grow_with_the_length_of_the_media(home: Path) -> None:
    class Long(Media):
        """Half a gigabyte of pictures that exist one sample at a time."""

        def value(self, row: int) -> torch.Tensor:
            return torch.full(self.shape, float(row % 3))

    media = Long(240, (3, 256, 256))  # 2.4 MB a sample, 566 MB in all

    def resident() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    if not Path("/proc/self/statm").exists():
        pytest.skip("the size of a process is read from /proc, which this system does not have")
    work = features.encode(encoder(media))
    next(work)
    before, most = resident(), 0.0
    for _ in work:
        most = max(most, resident() - before)
    assert most < 150, f"{most:.0f} MB more while 566 MB were encoded"
    meta = json.loads((store.folder() / encoder(media).key() / "entry.json").read_text())
    assert meta["n"] == 240

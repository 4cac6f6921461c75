"""The contract of a benchmark: data that are what they claim, splits that leak nothing, damage that fits.

Every check loads the data first: a benchmark whose files are not there has no check that ran, and no passing report.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fusionbench import corruptions as damage
from fusionbench import hparams, registry
from fusionbench.api import Batch, Benchmark, Context, Splits, Stream
from fusionbench.check import _tools as tools
from fusionbench.check._tools import Check, NotApplicable
from fusionbench.errors import UsageError
from fusionbench.metrics import get

SOURCE_ROWS = 48  # of lazily read media only so many samples a modality are looked at
SIDES = ("train", "val", "test")


@lru_cache(maxsize=1)
def _loaded(plugin: Any) -> tuple[Benchmark, Batch]:
    return _load(plugin)


def _load(plugin: Any) -> tuple[Benchmark, Batch]:
    instance = plugin()
    try:
        return instance, instance.load()
    except UsageError as error:
        raise NotApplicable(f"its data cannot be loaded: {error}") from None


@lru_cache(maxsize=1)
def _folds(plugin: Any) -> list[Splits]:
    instance, data = _loaded(plugin)
    return [instance.splits(data, fold) for fold in range(instance.folds)]


def _chunks(data: Batch, m: str) -> Iterator[tuple[int, Stream]]:
    """A modality's stream in pieces, with the position of each one's first sample; a lazy source's beginning."""
    stream = data.streams[m]
    lazy = not isinstance(stream, Stream)
    size = 8 if lazy else 4096
    end = min(len(data), SOURCE_ROWS) if lazy else len(data)
    for start in range(0, end, size):
        yield start, stream[torch.arange(start, min(end, start + size))]


def _digests(data: Batch) -> list[bytes]:
    """A hash of each sample's valid values over all modalities; empty for a sample that has none (or was not read)."""
    found = [hashlib.sha256() for _ in range(len(data))]
    filled = [False] * len(data)
    for m in data.streams:
        for start, stream in _chunks(data, m):
            for row in range(len(stream)):
                valid = stream.x[row][stream.mask[row]].contiguous().numpy()
                found[start + row].update(m.encode() + str(valid.shape).encode() + valid.tobytes())
                filled[start + row] |= valid.size > 0
    return [digest.digest() if full else b"" for digest, full in zip(found, filled, strict=True)]


def hyperparameters(plugin: Any) -> None:
    """Every hyper-parameter has a type, a default, a help text and, if it is a number, a range or choice."""
    _loaded(plugin)
    tools.declarations(plugin)


def declared(plugin: Any) -> None:
    """Version, shapes, task, folds, seeds and steps are set, and the metrics and backbones that it names exist."""
    benchmark, _ = _loaded(plugin)
    assert isinstance(benchmark.version, str), "its version is no string"
    assert benchmark.version, "its version is empty"
    assert benchmark.shapes, "it declares no shapes"
    for count in ("folds", "seeds", "steps", "batch", "interval"):
        value = getattr(benchmark, count)
        assert isinstance(value, int) and value >= 1, f"{count} is {value!r}, not a whole number from 1"  # noqa: PT018
    task = benchmark.task
    assert task.kind in ("classify", "regress"), f"the task's kind is {task.kind!r}"
    assert task.out >= (2 if task.kind == "classify" else 1), f"the task has {task.out} outputs"
    assert task.metrics, "the task has no metric"
    for name in task.metrics:
        assert get(name).kind == task.kind, f"the metric {name} is not for tasks of kind {task.kind}"
    for table in ("rates", "backbones"):
        for m in getattr(benchmark, table):
            assert m in benchmark.shapes, f"{table} names the modality {m!r}, which it does not have"
    for m, (name, settings) in benchmark.backbones.items():
        hparams.fill(hparams.read(registry.load("backbones", name)), settings, f"{name} of {m}")


def same_twice(plugin: Any) -> None:
    """Loaded twice, data and splits are the same to the bit, and splitting writes nothing."""
    _, data = _loaded(plugin)
    folds = _folds(plugin)
    again, other = _load(plugin)
    assert list(data.ids) == list(other.ids), "the ids differ"
    assert list(data.groups) == list(other.groups), "the groups differ"
    assert torch.equal(data.y, other.y) and torch.equal(data.y_mask, other.y_mask), "the labels differ"  # noqa: PT018
    for m in data.streams:
        for (_, one), (_, two) in zip(_chunks(data, m), _chunks(other, m), strict=True):
            equal = torch.equal(one.x.nan_to_num(), two.x.nan_to_num()) and torch.equal(one.mask, two.mask)
            assert equal, f"the stream of {m} differs"
    for fold, want in enumerate(folds):
        got = again.splits(other, fold)
        for side in SIDES:
            equal = np.array_equal(getattr(got, side), getattr(want, side))
            assert equal, f"fold {fold}: the {side} indices differ"


def shapes(plugin: Any) -> None:
    """Streams and labels have the declared modalities, steps and outputs, and one length."""
    benchmark, data = _loaded(plugin)
    assert set(data.streams) == set(benchmark.shapes), f"it loads {set(data.streams)}, declares {set(benchmark.shapes)}"
    assert len(data) > 0, "it loads no sample"
    for m, step in benchmark.shapes.items():
        stream = data.streams[m]
        assert len(stream) == len(data), f"{m} has {len(stream)} samples, the labels {len(data)}"
        assert tuple(stream.shape[1:]) == tuple(step), f"a step of {m} is {tuple(stream.shape[1:])}, declared {step}"
    task, y = benchmark.task, data.y
    assert task.per_frame or y.shape[1] == 1, f"a clip has one label, not {y.shape[1]}"
    if task.kind == "classify":
        assert y.dim() == 2, f"classes are (B, S), not {tuple(y.shape)}"
        assert not y.is_floating_point(), f"classes are whole numbers, not {y.dtype}"
    else:
        assert tuple(y.shape[2:]) == (task.out,), f"values are (B, S, {task.out}), not {tuple(y.shape)}"
        assert y.is_floating_point(), f"values are floating-point numbers, not {y.dtype}"


def labels(plugin: Any) -> None:
    """Valid classes lie within 0 and out - 1 and all occur; valid values are finite and vary; somebody is labelled."""
    benchmark, data = _loaded(plugin)
    valid = data.y[data.y_mask]
    assert len(valid), "nothing is labelled"
    if benchmark.task.kind == "classify":
        low, high = int(valid.min()), int(valid.max())
        assert low >= 0 and high < benchmark.task.out, f"classes run from {low} to {high}, of {benchmark.task.out}"  # noqa: PT018
        missing = set(range(benchmark.task.out)) - set(valid.unique().tolist())
        assert not missing, f"the classes {sorted(missing)} never occur"
    else:
        tools.finite(valid, "valid labels")
        assert (valid.std(0) > 0).all(), "an output's label never varies"


def finite(plugin: Any) -> None:
    """No NaN or infinity stands in a valid position, and every modality is there in some sample."""
    _, data = _loaded(plugin)
    for m in data.streams:
        seen = False
        for start, stream in _chunks(data, m):
            bad = ~torch.isfinite(stream.x).flatten(1).all(1)
            row = start + int(bad.float().argmax())
            assert not bad.any(), f"{m} of sample {row} has NaN or infinity under a True mask"
            seen = seen or bool(stream.mask.any())
        assert seen, f"{m} is absent from every sample"


def ids(plugin: Any) -> None:
    """Every sample has a name of its own and belongs to a group."""
    _, data = _loaded(plugin)
    for what, names in (("ids", data.ids), ("groups", data.groups)):
        assert len(names) == len(data), f"{len(names)} {what} for {len(data)} samples"
        assert all(isinstance(name, str) and name for name in names), f"{what} are strings that are not empty"
    name, times = Counter(data.ids).most_common(1)[0]
    assert times == 1, f"{times} samples are called {name!r}"


def _pairs(folds: list[Splits]) -> Iterator[tuple[str, NDArray[Any], NDArray[Any]]]:
    for fold, splits in enumerate(folds):
        for a, b in (("train", "val"), ("train", "test"), ("val", "test")):
            yield f"fold {fold}: {a} and {b}", getattr(splits, a), getattr(splits, b)


def disjoint_samples(plugin: Any) -> None:
    """No sample is in two of training, validation and test, or twice in one."""
    _, data = _loaded(plugin)
    for fold, splits in enumerate(_folds(plugin)):
        for side in SIDES:
            index = np.asarray(getattr(splits, side))
            assert np.issubdtype(index.dtype, np.integer), f"fold {fold}: {side} indices are {index.dtype}"
            assert len(np.unique(index)) == len(index), f"fold {fold}: a sample is twice in {side}"
            inside = len(index) == 0 or (index.min() >= 0 and index.max() < len(data))
            assert inside, f"fold {fold}: {side} indices leave the dataset"
    for where, a, b in _pairs(_folds(plugin)):
        shared = np.intersect1d(a, b)
        assert not len(shared), f"{where} share {len(shared)} samples, such as {data.ids[int(shared[0])]!r}"


def disjoint_groups(plugin: Any) -> None:
    """No group (person, video) is in two of training, validation and test, unless the name says subject_dependent."""
    benchmark, data = _loaded(plugin)
    says = "subject_dependent" in plugin.__module__ or "subject_dependent" in plugin.__name__.lower()
    if benchmark.subject_dependent:
        assert says, "it sets subject_dependent, but its name does not say so"
        raise NotApplicable(f"subject_dependent: {benchmark.subject_dependent}")
    groups = np.asarray(data.groups)
    for where, a, b in _pairs(_folds(plugin)):
        shared = np.intersect1d(groups[a], groups[b])
        assert not len(shared), f"{where} share {len(shared)} groups, such as {str(shared[0])!r}"


def folds(plugin: Any) -> None:
    """In every fold no side is empty or without labels, and training meets every class."""
    benchmark, data = _loaded(plugin)
    for fold, splits in enumerate(_folds(plugin)):
        for side in SIDES:
            index = torch.as_tensor(np.asarray(getattr(splits, side)))
            assert len(index), f"fold {fold}: {side} is empty"
            assert data.y_mask[index].any(), f"fold {fold}: nothing in {side} is labelled"
        if benchmark.task.kind == "classify":
            rows = torch.as_tensor(np.asarray(splits.train))
            met = set(data.y[rows][data.y_mask[rows]].tolist())
            missing = set(range(benchmark.task.out)) - met
            assert not missing, f"fold {fold}: training never meets the classes {sorted(missing)}"


def corruptions(plugin: Any) -> None:
    """The damage of its default table exists and names modalities that it has."""
    benchmark, _ = _loaded(plugin)
    if not benchmark.corruptions:
        raise NotApplicable("it names no corruptions")
    for spelling in benchmark.corruptions:
        damage.parse(spelling, list(benchmark.shapes))


def indicators(plugin: Any) -> None:
    """Noise moves values and leaves the channels alone that say when and whether something was measured."""
    benchmark, data = _loaded(plugin)
    if not benchmark.indicators:
        raise NotApplicable("it declares no indicators")
    rows = torch.arange(min(len(data), 200))
    streams = {m: data.streams[m][rows] for m in benchmark.indicators}
    keys = damage.keys("noise", 0, [data.ids[int(i)] for i in rows], list(streams))
    sd = {m: s.x[s.mask].std(0) for m, s in streams.items()}
    (noise,) = damage.parse("noise:all:5", list(streams))
    noisy = noise[1].apply(streams, 5, keys, Context(sd, benchmark.rates, {}, benchmark.indicators))
    for m, channels in benchmark.indicators.items():
        moved = (noisy[m].x != streams[m].x).flatten(0, 1).any(0)  # (D,)
        flags = torch.zeros(len(moved), dtype=torch.bool)
        flags[list(channels)] = True
        assert not moved[flags].any(), f"noise changes the indicators of {m}"
        assert moved[~flags].any(), f"noise moves no value of {m}: is every channel an indicator?"


def duplicates(plugin: Any) -> None:
    """No two samples on different sides of a split have the same valid values in all modalities."""
    _, data = _loaded(plugin)
    digests = _digests(data)
    for where, a, b in _pairs(_folds(plugin)):
        known = {digests[i]: i for i in a if digests[i]}
        twin = next((i for i in b if digests[i] in known and digests[i]), None)
        assert twin is None, f"{where}: {data.ids[int(twin)]!r} is {data.ids[int(known[digests[twin]])]!r} over again"


def permuted_labels(plugin: Any) -> None:
    """With labels shuffled among groups, even who recognises people across the split scores at chance.

    Every group gets a coin's side for a label, on whichever side of the split it stands, and copies of a sample (equal
    to three digits in the pooled features) get their first owner's: what a memoriser can know of a test sample is then
    only whether training has met the same group or the same recording. The memoriser is the nearest training sample.
    """
    benchmark, data = _loaded(plugin)
    if benchmark.subject_dependent:
        raise NotApplicable(f"subject_dependent: {benchmark.subject_dependent}")
    features = _pooled(data)
    owner: dict[bytes, str] = {}
    rough = np.round(features / (np.abs(features).mean(0) + 1e-12), 3)
    names = [owner.setdefault(row.tobytes(), group) for row, group in zip(rough, data.groups, strict=True)]
    number = np.unique(names, return_inverse=True)[1]
    coins = np.random.default_rng(0).integers(0, 2, (200, number.max() + 1))  # 200 shuffles
    for fold, splits in enumerate(_folds(plugin)[:5]):
        nearest = _nearest(features[splits.train], features[splits.test])
        known, asked = number[splits.train][nearest], number[splits.test]
        score = float((coins[:, known] == coins[:, asked]).mean())
        people = min(len(np.unique(known)), len(np.unique(asked)))
        slack = 0.05 + 2.0 / np.sqrt(len(coins) * people)
        assert score <= 0.5 + slack, f"fold {fold}: shuffled labels are answered at {score:.0%}, chance is 50%"


def _pooled(data: Batch) -> NDArray[Any]:
    """(B, D) mean and SD over the real steps of every modality that stands in memory, standardised."""
    columns = []
    for stream in data.streams.values():
        if not isinstance(stream, Stream):
            continue
        x, mask = stream.x.flatten(2).double().nan_to_num(), stream.mask.double()[..., None]
        n = mask.sum(1).clamp(min=1)
        mean = (x * mask).sum(1) / n
        spread = (((x - mean[:, None]) * mask).pow(2).sum(1) / n).sqrt()
        columns += [mean.numpy(), spread.numpy()]
    if not columns:
        raise NotApplicable("all its modalities are raw media, read lazily")
    features = np.concatenate(columns, 1)
    return (features - features.mean(0)) / (features.std(0) + 1e-9)


def _nearest(train: NDArray[Any], test: NDArray[Any]) -> NDArray[Any]:
    from sklearn.neighbors import NearestNeighbors

    found: NDArray[Any] = (
        NearestNeighbors(n_neighbors=1, algorithm="brute").fit(train).kneighbors(test, return_distance=False)[:, 0]
    )
    return found


CHECKS: list[Check] = [
    hyperparameters,
    declared,
    same_twice,
    shapes,
    labels,
    finite,
    ids,
    disjoint_samples,
    disjoint_groups,
    folds,
    corruptions,
    indicators,
    duplicates,
    permuted_labels,
]

"""A frozen backbone encodes each sample once, into a content-addressed, memory-mapped store under the cache folder.

An entry is named by a hash of all that its numbers depend on: the data, the backbone's file, weights and settings, and
the damage done to the raw media. It holds `x.bin` (N, T, D) float32 and `mask.bin` (N, T), written chunk by chunk; a
chunk counts once its checksums stand in `chunks/`, so an interrupted encoding goes on where it stopped, a damaged chunk
is found and made again, and a full disk leaves a valid entry. Reading maps the files; no media are touched.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import time
from collections import deque
from collections.abc import Collection, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from fusionbench import corruptions, registry
from fusionbench.api import PROTOCOL, Backbone, Batch, Benchmark, Context, Corruption, Source, Stream, Streams, keyed
from fusionbench.errors import UsageError
from fusionbench.features.store import CHUNK, Entry, Features, Store, entries, fingerprint, prune, verify

__all__ = ["Damage", "Encoder", "Encoding", "Entry", "Features", "Prepared", "encode", "entries", "finish", "prepare",
           "prune", "verify"]  # fmt: skip

FORMAT = 1
READ = 2  # samples of raw media that are encoded at a time; as many wait in memory for each reader
READERS = 8  # threads that read ahead of a GPU, at most one a core
RESIDENT = 2 << 30  # bytes: features up to this size are held in memory, larger ones stay a memory map
RAW_LEVELS = ("audio", "image", "biosignal")
T = TypeVar("T")


@dataclass(frozen=True)
class Encoding:
    """Progress: `done` of `total` samples of a modality; `left` seconds estimated; `waiting` for another process."""

    modality: str
    done: int
    total: int
    left: float | None = None
    waiting: bool = False


def finish(work: Generator[Any, None, T]) -> T:
    """Runs a generator to its end, and what it returns."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


# ---------------------------------------------------------------------------------------------------------- preparing


@dataclass(frozen=True, eq=False)
class Prepared:
    """A dataset whose raw modalities are features.

    Attributes:
        data: the batch as the trainer meets it; backbones, shapes: what then holds of every modality.
        encoders: modality -> what encoded it; digests: modality -> name of its entry, for the record's data hash.
    """

    data: Batch
    backbones: dict[str, tuple[type[Backbone], Mapping[str, Any]]]
    shapes: dict[str, tuple[int, ...]]
    encoders: dict[str, Encoder]
    digests: dict[str, str]

    def damage(
        self, streams: Streams, rows: np.ndarray, train: np.ndarray, corruption: Corruption, severity: int, seed: int,
        context: Context,
    ) -> Streams:  # fmt: skip
        """Damaged streams of the samples at `rows`, given their clean ones.

        Damage of a raw level (audio, image, biosignal) to an encoded modality happens to its media, before the
        backbone, and is kept by key; all else happens to `streams`. `train`: the samples whose deviations scale raw
        damage.
        """
        named = list(streams) if corruption.modality == "all" else corruption.modality.split("+")
        raw = [m for m in named if m in self.encoders] if corruption.level in RAW_LEVELS else []
        rest = [m for m in named if m not in raw]
        device = self.data.y.device
        if rest or severity == 0:
            keys = corruptions.keys(corruption.name, seed, [self.data.ids[i] for i in rows], list(streams))
            streams = (corruption if not raw else type(corruption)("+".join(rest))).apply(
                streams, severity, keys, context
            )
        for m in raw if severity else []:
            encoder = self.encoders[m]
            sd = {m: encoder.deviation(train)} if corruption.level == "biosignal" else {}
            damage = Damage(type(corruption)(m), severity, seed, Context(sd, context.rates))
            streams = {**streams, m: finish(encode(encoder, rows, damage))[rows].to(device)}
        return streams


def prepare(
    benchmark: Benchmark,
    data: Batch,
    chosen: Mapping[str, tuple[type[Backbone], Mapping[str, Any]]],
    device: torch.device | str = "auto",
) -> Generator[Encoding, None, Prepared]:
    """Replaces every modality with a frozen backbone by its features, and the backbone by `identity`.

    Args:
        chosen: modality -> (backbone class, its settings).

    Raises:
        UsageError: media are missing or broken, or not what the backbone expects; the disk is full.
    """
    streams, backbones = dict(data.streams), dict(chosen)
    encoders, digests = dict[str, Encoder](), dict[str, str]()
    for m, (maker, settings) in chosen.items():
        if not maker.frozen:
            continue
        encoders[m] = Encoder(m, data.streams[m], data.ids, benchmark.rates.get(m), maker, settings, device)
        features = yield from encode(encoders[m])
        streams[m] = features.resident() if features.nbytes <= RESIDENT else features
        digests[m] = features.digest
        backbones[m] = registry.load("backbones", "identity"), {}
    shapes = {m: tuple(s.shape[1:]) for m, s in streams.items()}
    return Prepared(replace(data, streams=streams), backbones, shapes, encoders, digests)


@dataclass(frozen=True, eq=False)
class Damage:
    """What is done to raw media before they are encoded; `context` has the raw deviations and rates."""

    corruption: Corruption
    severity: int
    seed: int
    context: Context

    def parts(self, modality: str) -> dict[str, Any]:
        sd = self.context.sd.get(modality)
        return {
            "corruption": f"{self.corruption.name}:{modality}:{self.severity}",
            "seed": self.seed,
            "code": registry.fingerprint(type(self.corruption)),
            "protocol": PROTOCOL,
            "sd": None if sd is None else fingerprint(sd.numpy().tobytes()),
        }

    def apply(self, stream: Stream, ids: Sequence[str], modality: str) -> Stream:
        keys = corruptions.keys(self.corruption.name, self.seed, ids, [modality])
        clips = self.corruption.level == "image" and stream.x.dim() == 6  # (B, T, F, C, H, W): a step is a clip
        frames = stream.shape[1] if clips else 1
        if clips:
            stream = Stream(stream.x.flatten(1, 2), stream.mask.repeat_interleave(frames, 1))
        stream = self.corruption.apply({modality: stream}, self.severity, keys, self.context)[modality]
        if clips:
            stream = Stream(stream.x.unflatten(1, (-1, frames)), stream.mask[:, ::frames])
        return stream


class Encoder:
    """One modality's raw media and the frozen backbone that encodes them, built here; random weights have one seed."""

    def __init__(
        self, modality: str, source: Source | Stream, ids: Sequence[str], rate: float | None, maker: type[Backbone],
        settings: Mapping[str, Any], device: torch.device | str = "auto",
    ) -> None:  # fmt: skip
        self.modality, self.source, self.ids, self.rate = modality, source, ids, rate
        auto = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(auto if device == "auto" else device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(keyed.number("frozen", maker.__name__) & 0x7FFFFFFF)
            self.model = maker(tuple(source.shape[1:]), **settings).to(self.device).eval()
        weights = hashlib.sha256()
        for name, value in sorted(self.model.state_dict().items()):
            weights.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
        self.parts = {
            "format": FORMAT,
            "modality": modality,
            "data": _digest(source),
            "samples": len(source),
            "shape": list(source.shape),
            "rate": rate,
            "backbone": Path(inspect.getfile(maker)).stem,
            "code": registry.fingerprint(maker),
            "settings": {name: value for name, value in settings.items() if name != "weights"},
            "weights": weights.hexdigest()[:16],
        }
        self._deviations: dict[str, Tensor] = {}

    def key(self, damage: Damage | None = None) -> str:
        """The name of the entry: a hash of everything that its numbers depend on."""
        done = None
        if damage is not None:
            done = {**damage.parts(self.modality), "ids": fingerprint("\n".join(self.ids).encode())}
        return fingerprint(json.dumps({**self.parts, "damage": done}, sort_keys=True).encode())

    def read(self, rows: Sequence[int], damage: Damage | None) -> Stream:
        """The raw media of the samples at `rows`, checked as they are, then damaged (damage may leave their range)."""
        stream: Stream = self.source[torch.as_tensor(rows)]
        if not torch.isfinite(stream.x).all():
            raise UsageError(f"the media of {self.modality} give NaN or infinity at a step that is called real")
        self.model.admit(stream, self.rate)
        if damage is not None:
            stream = damage.apply(stream, [self.ids[i] for i in rows], self.modality)
        return stream

    def encode(self, stream: Stream) -> Stream:
        """(B, T, *step) -> (B, T', dim) on the CPU; masked steps are skipped where each stands for itself."""
        with torch.no_grad():
            if not self.model.stepwise:
                return self.model(stream.to(self.device)).to("cpu")
            real = stream.mask.flatten().nonzero().squeeze(1)
            x = torch.zeros(stream.mask.numel(), self.model.dim)
            if len(real):
                steps = stream.x.flatten(0, 1)[real].unsqueeze(1).to(self.device)  # (n, 1, *step)
                every = torch.ones(len(real), 1, dtype=torch.bool, device=self.device)
                x[real] = self.model(Stream(steps, every)).x[:, 0].cpu()
        return Stream(x.unflatten(0, stream.mask.shape), stream.mask)

    def deviation(self, rows: np.ndarray) -> Tensor:
        """(*step) standard deviation of the raw values over the real steps of the samples at `rows`."""
        name = fingerprint(np.ascontiguousarray(rows).tobytes())
        if name not in self._deviations:
            count, total, squares = 0.0, torch.zeros(()), torch.zeros(())
            for start in range(0, len(rows), CHUNK):
                stream = self.read(rows[start : start + CHUNK].tolist(), None)
                x = stream.x.double().flatten(0, 1)  # zero under the mask
                count, total, squares = count + float(stream.mask.sum()), total + x.sum(0), squares + x.square().sum(0)
            variance = squares / max(count, 1.0) - (total / max(count, 1.0)) ** 2
            self._deviations[name] = variance.clamp(min=0).sqrt().float()
        return self._deviations[name]


def encode(
    encoder: Encoder, rows: Collection[int] | np.ndarray | None = None, damage: Damage | None = None
) -> Generator[Encoding, None, Features]:
    """The features of the samples at `rows` (all of them if None), encoded where they do not stand in the store yet.

    Raises:
        UsageError: the media or the disk refuse; what was encoded before stays valid.
    """
    store = Store(encoder.key(damage))
    samples = len(encoder.source)
    wanted = sorted({int(i) // CHUNK for i in (range(samples) if rows is None else rows)})
    total = _count(wanted, samples)
    if store.missing(wanted):
        with store.lock() as attempts:
            for _ in attempts:  # another process is encoding: look on
                done = total - _count(store.missing(wanted), samples)
                yield Encoding(encoder.modality, done, total, waiting=True)
            missing = store.missing(wanted)
            for new in _fill(store, encoder, damage, missing):
                yield replace(new, done=total - new.total + new.done, total=total)
    return store.open()


def _fill(
    store: Store, encoder: Encoder, damage: Damage | None, chunks: Sequence[int]
) -> Generator[Encoding, None, None]:
    """Encodes the chunks; media of the next samples are read while these are encoded."""
    samples = len(encoder.source)
    total = _count(chunks, samples)
    said = {**encoder.parts, "damage": damage and damage.parts(encoder.modality)}
    jobs = [
        range(start, min(start + READ, (c + 1) * CHUNK, samples))
        for c in chunks
        for start in range(c * CHUNK, min((c + 1) * CHUNK, samples), READ)
    ]
    began, done, parts = time.monotonic(), 0, list[Stream]()
    readers = _readers(encoder.device)
    with ThreadPoolExecutor(readers) as pool:
        ahead = deque(pool.submit(encoder.read, rows, damage) for rows in jobs[:readers])
        for number, rows in enumerate(jobs):
            stream = ahead.popleft().result()
            if number + readers < len(jobs):
                ahead.append(pool.submit(encoder.read, jobs[number + readers], damage))
            parts.append(encoder.encode(stream))
            done += len(rows)
            if rows.stop == samples or rows.stop % CHUNK == 0:
                x, mask = (torch.cat([getattr(p, name) for p in parts]).numpy() for name in ("x", "mask"))
                store.save(rows.start // CHUNK, x, mask, samples, said)
                parts = []
            yield Encoding(encoder.modality, done, total, (time.monotonic() - began) / done * (total - done))


def _readers(device: torch.device) -> int:
    """How many threads read ahead: a GPU encodes faster than one of them decodes."""
    return 1 if device.type == "cpu" else min(READERS, os.cpu_count() or 1)


def _count(chunks: Collection[int], samples: int) -> int:
    """How many samples the chunks have."""
    return sum(min(CHUNK, samples - c * CHUNK) for c in chunks)


def _digest(source: Any) -> str:
    """The hash of raw data: what a Source says, or of a stream's values."""
    if isinstance(source, Stream):
        return fingerprint(source.x.cpu().numpy().tobytes(), source.mask.cpu().numpy().tobytes())
    return str(source.digest)

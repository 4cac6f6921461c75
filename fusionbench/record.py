"""A run is a value, and its record one JSON file: everything needed to get the number again. No torch.

`results/<benchmark>/<fuser>/<run id>.json`; beside it `.npz` (per-sample answers) and `.safetensors` (weights).
Published runs (`fusionbench.publish`) stand together in `records.jsonl` and `predictions.npz` of that folder and are
read in the same way; a file of its own comes before what is published of the same run.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from fusionbench.errors import UsageError

FORMAT = 1  # of the JSON file
PUBLISHED, ANSWERS = "records.jsonl", "predictions.npz"


@dataclass(frozen=True)
class Run:
    """One training to judge: plugins, fold, seed and every hyper-parameter, defaults filled in.

    `hparams` has the parts `benchmark`, `train`, `fuser` and `backbone.<modality>`; `tuned` says which search they come
    from, if any: its trials and the hash of what it found.
    """

    benchmark: str
    fuser: str
    backbones: Mapping[str, str]
    fold: int
    seed: int
    hparams: Mapping[str, Mapping[str, Any]]
    tuned: str = ""

    @property
    def id(self) -> str:
        """16 hexadecimal digits: the same for the same run, everywhere."""
        return digest(asdict(self))

    @property
    def row(self) -> str:
        """The id of the table row: all but fold and seed; of a tuned one (settings vary by fold) the search counts."""
        whole = {**asdict(self), "fold": None, "seed": None}
        return digest({**whole, "hparams": None} if self.tuned else whole)


@dataclass(frozen=True)
class Record:
    """What came of a run.

    Attributes:
        status: "done" or "failed" (then `error` says why and there are no scores).
        scores: condition ("clean", "noise:acc:3", ...) -> metric -> value; None where undefined.
        chosen: the learning rate that validation chose, its best step and validation score.
        history: learning rate -> list of {step, loss, score}.
        seconds: "train" and "evaluate" of this run.
        parameters: "allocated", and "trained" (they received a gradient).
        costs: "flops" of one sample's forward pass (None: not countable), "latency" and "latency_batch" in ms of one
            sample and of "batch" samples, "memory" in bytes of a training step.
        code: part -> fingerprint of the plugin's file; data: hash of the dataset; protocol: `api.PROTOCOL`.
        changes: hyper-parameters that differ from their defaults, as `fuser.width=256`.
        table: the damage of the benchmark's own table, as `noise:acc`: the damaged score averages it and nothing else.
        marks: "quick", "transductive", "reconstruction", ...: shown in every table.
        best: condition -> the best reachable primary score, where the benchmark knows it.
        rates: condition -> modality -> realised share of real steps that the damage took.
    """

    run: Run
    status: str
    code: Mapping[str, str]
    data: str
    protocol: int
    metrics: list[str]
    scores: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    chosen: Mapping[str, float | None] = field(default_factory=dict)
    history: Mapping[str, list[dict[str, float]]] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    parameters: Mapping[str, int] = field(default_factory=dict)
    costs: Mapping[str, float | None] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)
    marks: list[str] = field(default_factory=list)
    complete: Mapping[str, int] = field(default_factory=dict)
    table: list[str] = field(default_factory=list)
    samples: Mapping[str, int] = field(default_factory=dict)
    best: Mapping[str, float] = field(default_factory=dict)
    rates: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    device: str = ""
    how: str = ""
    created: str = ""
    error: str | None = None

    def same_identity(self, other: Record) -> bool:
        """Would `other` be the same number: run, code, data and protocol?"""
        mine, theirs = ((r.run.id, dict(r.code), r.data, r.protocol) for r in (self, other))
        return mine == theirs


@dataclass(frozen=True, eq=False)
class Predictions:
    """Per-sample answers of one run on its test samples.

    Attributes:
        ids, groups: (n,) names; y (n, S[, out]); y_mask (n, S).
        answers: condition -> (n, S, out) float32.
    """

    ids: np.ndarray
    groups: np.ndarray
    y: np.ndarray
    y_mask: np.ndarray
    answers: Mapping[str, np.ndarray]


def path_of(results: Path, run: Run) -> Path:
    return results / run.benchmark / run.fuser / f"{run.id}.json"


def save(results: Path, record: Record, predictions: Predictions | None, weights: Mapping[str, Any] | None) -> Path:
    """Writes the weights, the answers and, last, the record; each appears whole or not at all.

    Raises:
        UsageError: the folder cannot be written.
    """
    path = path_of(results, record.run)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if weights is not None:
            from safetensors.torch import save as serialise

            # Copies: weights may share their memory, which the format does not allow.
            payload = serialise({name: value.detach().clone().contiguous() for name, value in weights.items()})
            write(path.with_suffix(".safetensors"), lambda f: f.write(payload))
        if predictions is not None:
            arrays = {f"answers/{c}": a for c, a in predictions.answers.items()}
            named = {n: getattr(predictions, n) for n in ("ids", "groups", "y", "y_mask")}
            write(path.with_suffix(".npz"), lambda f: np.savez_compressed(f, allow_pickle=False, **named, **arrays))
        text = serialised(record, indent=1)
        write(path, lambda f: f.write(text.encode() + b"\n"))
    except OSError as error:
        raise UsageError(f"cannot write the results to {path.parent}: {error.strerror or error}") from None
    return path


def find(results: Path, run: Run, own: bool = False) -> Record | None:
    """The record of this run, if there is a readable one; with `own`, published ones do not count."""
    path = path_of(results, run)
    return _read(path) if path.is_file() else None if own else published(path.parent).get(run.id)


def load(results: Path, benchmark: str = "*", fuser: str = "*") -> Iterator[Record]:
    """Every readable record by benchmark, fuser and run id; damaged ones are named and set aside."""
    for folder in sorted(path for path in results.glob(f"{benchmark}/{fuser}") if path.is_dir()):
        own = {path.stem: path for path in folder.glob("*.json") if len(path.stem) == 16}
        others = published(folder)
        for name in sorted({*own, *others}):
            if (record := _read(own[name]) if name in own else others[name]) is not None:
                yield record


def published(folder: Path) -> dict[str, Record]:
    """Run id -> record of a folder's `records.jsonl`; a damaged line is named on standard error and left out."""
    found: dict[str, Record] = {}
    try:
        lines = (folder / PUBLISHED).read_text().splitlines()
    except FileNotFoundError:
        return found
    except (OSError, ValueError) as error:
        print(f"warning: {folder / PUBLISHED} cannot be read ({error})", file=sys.stderr)
        return found
    for number, line in enumerate(lines, 1):
        try:
            record = _parse(line)
            found[record.run.id] = record
        except _DAMAGE as error:
            print(f"warning: line {number} of {folder / PUBLISHED} is damaged ({error})", file=sys.stderr)
    return found


def predictions(results: Path, run: Run) -> Predictions | None:
    """The answers of a run, or None if they are not there (a damaged file is named and set aside)."""
    path = path_of(results, run).with_suffix(".npz")
    if not path.is_file():
        return None if path.with_suffix(".json").is_file() else _published_answers(path.parent / ANSWERS, run)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            answers = {n.removeprefix("answers/"): arrays[n] for n in arrays.files if n.startswith("answers/")}
            return Predictions(arrays["ids"], arrays["groups"], arrays["y"], arrays["y_mask"], answers)
    except OSError as error:
        raise _unreadable(path, error) from None
    except (ValueError, LookupError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        set_aside(path, error)
        return None


def _published_answers(path: Path, run: Run) -> Predictions | None:
    if not path.is_file():
        return None
    from fusionbench import packing

    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = packing.unpack(arrays, run.id)
    except (OSError, ValueError, LookupError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        print(f"warning: {path} is damaged ({error}); publish again or restore it", file=sys.stderr)
        return None
    return None if found is None else Predictions(*found)


def weights(results: Path, run: Run) -> dict[str, Any] | None:
    """The best weights of a run, or None if they are not there (a damaged file is named and set aside)."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = path_of(results, run).with_suffix(".safetensors")
    if not path.is_file():
        return None
    try:
        return dict(load_file(path))
    except OSError as error:
        raise _unreadable(path, error) from None
    except SafetensorError as error:
        set_aside(path, error)
        return None


def write(path: Path, fill: Callable[[IO[bytes]], Any]) -> None:
    """Writes a file that appears whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def set_aside(path: Path, error: BaseException) -> None:
    """Renames a damaged file to `.damaged` and says so on standard error; nothing is overwritten or lost."""
    aside = path.with_name(path.name + ".damaged")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.damaged{number}")
    try:
        path.rename(aside)
        done = f"set aside as {aside.name}"
    except OSError as problem:
        done = f"could not be set aside ({problem.strerror})"
    print(f"warning: {path} is damaged ({error}); {done}", file=sys.stderr)


#: What reading a file that somebody has damaged may raise.
_DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError)


def _unreadable(path: Path, error: OSError) -> UsageError:
    """Too many open files, a server that is away: the file may be sound, so it stays where it is."""
    return UsageError(f"cannot read {path}: {error.strerror or error}")


def _read(path: Path) -> Record | None:
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise _unreadable(path, error) from None
    except UnicodeDecodeError as error:
        set_aside(path, error)
        return None
    try:
        record = _parse(text)
        if record.run.id != path.stem:
            raise ValueError("its content is not of the run that its name says")
        return record
    except _DAMAGE as error:
        set_aside(path, error)
        return None


def _parse(text: str) -> Record:
    content = json.loads(text)
    written = content.pop("format")
    if isinstance(written, int) and written > FORMAT:
        raise UsageError(f"a record of format {written} is of a newer fusionbench, this one knows {FORMAT}: upgrade it")
    if written != FORMAT:
        raise ValueError("unknown format of record")
    run = Run(**content.pop("run"))
    known = {f.name: f.default_factory for f in fields(Record)}
    for name, kind in known.items():
        if kind in (dict, list) and not isinstance(content.get(name, kind()), kind):
            raise ValueError(f"{name} is of the wrong type")
    for scores in content.get("scores", {}).values():
        if not isinstance(scores, dict) or any(not isinstance(v, int | float | None) for v in scores.values()):
            raise ValueError("a score is not a number")
    if not content["metrics"]:
        raise ValueError("it names no metric")
    return Record(run=run, **{name: value for name, value in content.items() if name in known})


def serialised(record: Record, indent: int | None = None) -> str:
    """The record as it stands in a file: JSON without NaN, the order of modalities kept."""
    return json.dumps({"format": FORMAT, **plain(asdict(record))}, indent=indent, allow_nan=False)


def merge(old: Record, new: Record) -> Record:
    """`old` with the conditions that only `new` has."""
    return replace(
        old,
        scores={**old.scores, **new.scores},
        best={**old.best, **new.best},
        rates={**old.rates, **new.rates},
        seconds={**old.seconds, "evaluate": old.seconds.get("evaluate", 0.0) + new.seconds.get("evaluate", 0.0)},
    )


def plain(value: Any) -> Any:
    """For JSON: NaN and infinity become null, tuples lists, numpy numbers numbers."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def digest(value: Any) -> str:
    """16 hexadecimal digits of a plain value."""
    text = json.dumps(plain(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]

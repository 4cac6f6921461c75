"""Your own data as a benchmark: an .npz file, or a folder with `benchmark.toml` and .npz, .npy, .csv, .parquet files.

Whatever the files look like, they end as the same few things: streams with masks, labels, ids, groups and, where
given, folds. What is inferred is said in `notes`; `docs/your-own-data.md` is the description for people.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import torch

from fusionbench.api import Batch, Benchmark, Splits, Stream, elapsed, group_folds
from fusionbench.conditions import ALL, Condition
from fusionbench.custom_data import files, labels
from fusionbench.custom_data.raw import LARGEST, Raw
from fusionbench.custom_data.settings import CONSTANTS
from fusionbench.errors import UsageError, unknown
from fusionbench.hparams import Added
from fusionbench.paths import path_of
from fusionbench.records.rows import MISSING

SIDES = {"train": 0, "val": 1, "valid": 1, "validation": 1, "dev": 1, "test": 2}


class OwnData(Benchmark):
    """A benchmark made of somebody's files by `load`.

    With fewer `modalities` it is what files that hold no others would make: shapes, encodings, damage and hash follow.
    Labels, groups and samples stay, those among them that have nothing of these modalities too.

    Attributes:
        origin: the .npz file or the folder.
        notes: what was inferred or left out, a line each.
        classes: the name of each class id.
    """

    origin: ClassVar[Path]
    _data: ClassVar[Batch]
    _corruptions: ClassVar[Sequence[str] | None]
    _fold: ClassVar[Sequence[int] | None]
    _side: ClassVar[Sequence[int] | None]

    def __init__(
        self,
        *,
        metrics: Annotated[tuple[str, ...], "names; the first one ranks"] = (),
        modalities: Annotated[tuple[str, ...], Added, "names of those that are used; empty: all"] = (),
    ) -> None:
        if metrics:
            chosen = labels.known(metrics, self.task.kind, self.origin)
            self.task = replace(self.task, metrics=chosen)
        if modalities:
            self._keep(modalities)

    def _keep(self, modalities: Sequence[str]) -> None:
        everything = tuple(self.shapes)
        for name in modalities:
            if name not in everything:
                raise unknown(f"modality of {self.origin.name}", name, everything)
            if modalities.count(name) > 1:
                raise UsageError(f"{self.origin.name}: the modality {name} is named twice")
        kept = tuple(m for m in everything if m in modalities)
        if kept == everything:
            return
        self.shapes = {m: self.shapes[m] for m in kept}
        self.rates = {m: rate for m, rate in self.rates.items() if m in kept}
        self.backbones = {m: self.backbones[m] for m in kept}
        given = self._corruptions
        streams = {m: self._data.streams[m] for m in kept}
        self.corruptions = tuple(_corruptions(streams) if given is None else (c for c in given if _hits(c, kept)))
        self.unused = tuple(m for m in everything if m not in kept)
        self.notes = (*self.notes, f"used: {', '.join(kept)}; left out: {', '.join(self.unused)}")

    def load(self) -> Batch:
        """The samples as they stood in the files when the class was made."""
        if not self.unused:
            return self._data
        return replace(self._data, streams={m: self._data.streams[m] for m in self.shapes})

    def splits(self, data: Batch, fold: int) -> Splits:
        """By the fold numbers (the next fold validates), by the given sides, or by whole groups."""
        if self._fold is not None:
            place = np.asarray(self._fold)
            after = (fold + 1) % self.folds
            return Splits(*map(np.flatnonzero, ((place != fold) & (place != after), place == after, place == fold)))
        if self._side is None:
            return group_folds(data.groups, self.folds, fold)
        side = np.asarray(self._side)
        train, val, test = (np.flatnonzero(side == s) for s in range(3))
        if not len(val):  # a fifth of the training groups
            groups = [data.groups[int(i)] for i in train]
            held = group_folds(groups, max(3, min(5, len(set(groups)))), 0)
            train, val = train[np.concatenate([held.train, held.val])], train[held.test]
        return Splits(np.sort(train), val, test)


def load(path: str | Path) -> type[OwnData]:
    """The benchmark in a file or folder, as a class; its settings: `metrics` and `modalities`. Everything is read once.

    Raises:
        UsageError: the files are not what `docs/your-own-data.md` describes; file and row are named.
    """
    from fusionbench.custom_data import sources

    path = path_of(str(path))
    try:
        return build(sources.folder(path) if path.is_dir() else sources.npz(path))
    except MemoryError:
        raise UsageError(f"{path} needs more memory than there is") from None


def build(raw: Raw) -> type[OwnData]:
    """The benchmark that the content of somebody's files makes.

    Raises:
        UsageError: as `load`.
    """
    path, settings, n = raw.origin, raw.settings, len(raw.y)
    streams = {m: _stream(raw, m) for m in raw.x}
    task, y, y_mask, classes = labels.task_of(raw, streams)
    ids = raw.ids or [f"{row:0{len(str(n - 1))}d}" for row in range(n)]
    name, times = Counter(ids).most_common(1)[0]
    if times > 1:
        raise UsageError(f"{path}: {times} samples have the id {name!r}: an id names one sample")
    for row, name in enumerate([*ids, *(raw.groups or [])]):
        if not name:
            raise UsageError(f"{path}: sample {row % n} (from 0) has an empty {'id' if row < n else 'group'}")
    groups = raw.groups or ids
    attributes: dict[str, Any] = {
        "__doc__": f"Data of {path.name}.",
        "__module__": __name__,
        "origin": path,
        "notes": tuple(raw.notes),
        "classes": tuple(classes),
        "shapes": {m: tuple(s.shape[1:]) for m, s in streams.items()},
        "rates": raw.rates,
        "task": task,
        "backbones": {m: raw.backbones.get(m) or backbone_for(s, task.per_frame) for m, s in streams.items()},
        "corruptions": tuple(settings.get("corruptions", _corruptions(streams))),
        "_corruptions": settings.get("corruptions"),
        "_data": Batch(streams, y, y_mask, ids, groups, attributes=raw.attributes),
        **({} if raw.order is None else {"order": lambda self, data: elapsed(data.groups, raw.order)}),
        **_protocol(raw, groups),
        **{name: settings[name] for name in CONSTANTS if name in settings},
    }
    return type("".join(c if c.isalnum() else "_" for c in path.stem), (OwnData,), attributes)


def _stream(raw: Raw, m: str) -> Stream:
    """NaN anywhere in a step makes the step a missing one; infinity is an error."""
    mask = raw.mask[m]
    with np.errstate(over="ignore"):  # becomes infinite, and is refused
        x = np.ascontiguousarray(raw.x[m], dtype=np.float32)
    flat = x.reshape(*x.shape[:2], -1)
    large = ((np.abs(flat) > LARGEST).any(2) & mask).any(1)
    if large.any():
        row = int(large.argmax())
        what = "infinity" if np.isinf(raw.x[m][row]).any() else f"a number beyond {LARGEST:g}"
        raise UsageError(f"{raw.origin}: {m} of sample {row} (from 0) has {what}: mend or mask it")
    hole = np.isnan(flat)
    broken = hole.any(2) & mask
    never = np.flatnonzero(hole[mask].all(0)) if mask.any() else np.empty(0, dtype=int)
    if len(never) and not hole[mask].all():
        raise UsageError(f"{raw.origin}: column {never[0]} (from 0) of {m} is NaN in every sample: leave it out")
    if broken.any():
        worst = int(hole[mask].sum(0).argmax())
        raw.notes.append(
            f"{m}: {int(broken.sum())} of {int(mask.sum())} steps have NaN and count as missing; most of them in "
            f"column {worst} (from 0)"
        )
        most = np.flatnonzero(broken.sum(1) > 0.5 * mask.sum(1))
        if len(most):
            raw.notes.append(
                f"{m}: in {len(most)} sample{'s' * (len(most) > 1)} most steps have NaN, so little or nothing of them "
                f"is left: {_rows(most)} (from 0)"
            )
    mask = mask & ~broken
    if not mask.any():
        raise UsageError(f"{raw.origin}: {m} is missing in every sample")
    return Stream(torch.from_numpy(x), torch.from_numpy(mask))


def _rows(rows: np.ndarray) -> str:
    return ", ".join(map(str, rows[:5])) + (" ..." if len(rows) > 5 else "")


def _protocol(raw: Raw, groups: Sequence[str]) -> dict[str, Any]:
    """Folds, fold numbers or sides, and whether a person stands on two sides of a split."""
    reason = str(raw.settings.get("subject_dependent", ""))
    found: dict[str, Any] = {"_fold": None, "_side": None}
    if raw.groups is None and not reason:
        reason = "no groups were given, so that one person may stand on two sides of a split"
        raw.notes.append("no groups: every sample counts as a person of its own, and scores may be too good")
    if raw.fold is not None:
        numbers = {f: files.whole(f) for f in set(raw.fold)}
        names = sorted(numbers, key=lambda f: (1, 0, f) if (k := numbers[f]) is None else (0, k, f))
        if len(names) < 3:
            raise UsageError(
                f"{raw.origin}: {len(names)} folds; one tests, one validates, so at least three are needed"
            )
        found |= {"folds": len(names), "_fold": [names.index(f) for f in raw.fold]}
        parts = raw.fold
    elif raw.split is not None:
        for row, side in enumerate(raw.split):
            if side.lower() not in SIDES:
                raise UsageError(
                    f"{raw.origin}: sample {row} (from 0) has the split {side!r}; there are {', '.join(SIDES)}"
                )
        found |= {"folds": 1, "_side": [SIDES[side.lower()] for side in raw.split]}
        for name in ("train", "test"):
            if SIDES[name] not in found["_side"]:
                raise UsageError(f"{raw.origin}: no sample's split is {name}")
        parts = [str(side) for side in found["_side"]]
    else:
        folds = int(raw.settings.get("folds", 5))
        if len(set(groups)) < 3:
            raise UsageError(f"{raw.origin}: {len(set(groups))} groups; train, validation and test need one each")
        if folds > len(set(groups)) and "folds" in raw.settings:
            raise UsageError(f"{raw.origin}: {folds} folds of {len(set(groups))} groups: a fold needs a group")
        return {**found, "folds": max(1, min(folds, len(set(groups)))), "subject_dependent": reason}
    home: dict[str, str] = {}
    for group, part in zip(groups, parts, strict=True):
        if home.setdefault(group, part) != part and not reason:
            reason = f"group {group!r} stands in two folds or sides of the given split"
    return {**found, "subject_dependent": reason}


def backbone_for(stream: Stream, per_frame: bool) -> tuple[str, Mapping[str, object]]:
    """The default encoding, by the rule that `bench/recipe.md` found on validation.

    Numbers of one step are encoded piecewise-linearly; a convolution over time looks around each frame that is
    answered, and shortens any other series. A single step that is no vector (an image) stays as it is.
    """
    steps = stream.shape[0]
    if per_frame:
        return ("identity", {}) if steps == 1 else ("tcn", {"depth": 2})
    if steps == 1:
        return ("ple" if len(stream.shape) == 2 else "identity"), {}
    return "tcn", {"kernel": 3, "depth": 2, "shorten": 1 if steps < 8 else 2 if steps < 32 else 4}


def _corruptions(streams: Mapping[str, Stream]) -> list[str]:
    found = [f"missing:{m}" for m in streams if len(streams) > 1] + [f"noise:{m}" for m in streams]
    longer = [m for m, s in streams.items() if s.shape[0] > 1]
    return [*found, "noise:all", *(["gap:all"] if len(longer) == len(streams) else [])]


def _hits(spelling: str, kept: Sequence[str]) -> bool:
    """Is the damage of these modalities alone, and does it leave one of them?"""
    try:
        asked = Condition.parse(spelling)
    except ValueError:
        return True  # whoever takes it says what is wrong with it
    if asked.modalities == (ALL,):
        return True
    named = set(asked.modalities)
    return named <= set(kept) and not (asked.name == MISSING and named == set(kept))

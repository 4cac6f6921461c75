"""Many runs' evidence in few bytes: what is published of them, as plain arrays, and the way back. Numpy only.

Runs with the same groups and conditions stand in one block `<b>/`: `runs` (R,), `conditions` (C,), `groups` and
`counts` (G,), with scores also `group` and `y` (k,), and under the name of a metric its sums (width, R, C, G) or ranks
(columns, R, C, k); `attribute:<name>` (G,) says of what sex, age or site a group is. Whole numbers are in the smallest
type, others in single precision where no score moves by more than `EXACT`, what is longer than a byte as planes of
bytes (bytes, width, R, C, G): equal bytes apart compress better. Where a group is one step the answers of each run
stand under its id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from fusionbench import metrics
from fusionbench.records.evidence import TOLERANCE, Array, Evidence

#: What no score may differ by because its sums are in single precision.
EXACT = 1e-6
#: What begins the name of an array that is an attribute of the groups.
ATTRIBUTE = "attribute:"


def pack(
    runs: Mapping[str, Evidence], names: Sequence[str], before: Mapping[str, Array] | None = None
) -> dict[str, Array]:
    """Run id -> what is published of it, as named arrays for one `.npz`.

    Args:
        names: the metrics of the records, the primary one first: under damage answers preserve it alone.
        before: arrays of an earlier packing: answers in it are taken over, so that packing twice does not round twice.
    """
    blocks: dict[tuple[object, ...], list[str]] = {}
    arrays: dict[str, Array] = {}
    for run in sorted(runs):
        kept = runs[run]
        shapes = tuple((name, found.shape) for name, found in kept.values.items())
        parts = (kept.groups, *map(_slim, (kept.counts, kept.group, kept.y)), *kept.attributes.values())
        key = (kept.conditions, kept.rounded, shapes, kept.answers is None, *(part.tobytes() for part in parts))
        blocks.setdefault(key, []).append(run)
        if kept.answers is not None:
            own = {n: a for n, a in (before or {}).items() if n.startswith(f"{run}/")}
            arrays |= own or {f"{run}/{n}": a for n, a in _answers(kept, names).items()}
    for number, members in enumerate(blocks.values()):
        arrays |= {f"{number}/{name}": a for name, a in _block([runs[r] for r in members], members).items()}
    return arrays


def _block(kept: Sequence[Evidence], members: Sequence[str]) -> dict[str, Array]:
    first = kept[0]
    arrays = {"runs": np.array(members), "conditions": np.array(first.conditions), "groups": first.groups,
              "counts": _slim(first.counts)}  # fmt: skip
    if len(first.group):
        arrays |= {"group": _slim(first.group), "y": _slim(first.y)}
    arrays |= {f"{ATTRIBUTE}{name}": texts for name, texts in first.attributes.items()}
    if first.rounded:
        arrays["rounded"] = np.array(True)
    for name in first.values:
        whole = np.stack([e.values[name] for e in kept])  # (R, C, G, width)
        slim = _slim(np.moveaxis(whole, -1, 0))
        if slim.dtype.kind != "u":
            slim = _single(slim, name, kept)
        whole_numbers = slim.dtype.kind == "u" and slim.dtype != np.uint16
        arrays[name] = slim if whole_numbers else _planes(slim)
    return arrays


def _slim(a: Array) -> Array:
    """Whole numbers from 0 on in the smallest type, others as they are."""
    if a.dtype.kind not in "iuf" or not np.isfinite(a).all() or a.min(initial=0) < 0 or (a != np.rint(a)).any():
        return a
    return a.astype(np.min_scalar_type(int(a.max(initial=0))))


def _single(a: Array, name: str, kept: Sequence[Evidence]) -> Array:
    """Numbers (width, R, C, G) in single precision where no score moves by it, else in double."""
    single = a.astype(np.float32)
    for number, e in enumerate(kept):
        rounded = Evidence(
            e.groups, e.counts, e.conditions, {name: np.moveaxis(single[:, number], 0, -1)}, e.group, e.y
        )
        if not np.allclose(rounded.pooled(name), e.pooled(name), rtol=0, atol=EXACT, equal_nan=True):
            return a.astype(np.float64)
    return single


def _planes(a: Array) -> Array:
    """(bytes, width, R, C, G) of numbers (width, R, C, G): two bytes are whole numbers, four or eight are not."""
    little = np.ascontiguousarray(a).astype(a.dtype.newbyteorder("<"))
    return np.ascontiguousarray(np.moveaxis(little[..., None].view(np.uint8), -1, 0))


class Packed(Mapping[str, Evidence]):
    """The way back, run id -> evidence: the arrays of a file, each block decoded when it is first asked for."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self.arrays = arrays
        self.place: dict[str, tuple[str, int]] = {}
        self.blocks: dict[str, dict[str, Array]] = {}
        for name in arrays:
            block, _, part = name.partition("/")
            if part == "runs":
                self.place |= {str(run): (block, number) for number, run in enumerate(arrays[name])}

    def __iter__(self) -> Iterator[str]:
        return iter(self.place)

    def __len__(self) -> int:
        return len(self.place)

    def __getitem__(self, run: str) -> Evidence:
        name, number = self.place[run]
        if name not in self.blocks:
            self.blocks[name] = self._decode(name)
        block = dict(self.blocks[name])
        conditions = tuple(map(str, block.pop("conditions")))
        groups, counts = block.pop("groups"), block.pop("counts")
        group, y = block.pop("group", np.zeros(0, np.int64)), block.pop("y", np.zeros(0))
        rounded = bool(block.pop("rounded", False))
        attributes = {n.removeprefix(ATTRIBUTE): block.pop(n) for n in list(block) if n.startswith(ATTRIBUTE)}
        values = {metric: found[number] for metric, found in block.items()}
        answers = self._answers(run)
        return Evidence(groups, counts, conditions, values, group, y, answers, rounded, attributes)

    def arrays_of(self, runs: Sequence[str]) -> dict[str, Array]:
        """The arrays of these runs' answers, as they are stored."""
        return {name: a for name, a in self.arrays.items() if name.partition("/")[0] in runs}

    def _decode(self, name: str) -> dict[str, Array]:
        found = {}
        for key in self.arrays:
            block, _, part = key.partition("/")
            if block != name or part == "runs":
                continue
            a = self.arrays[key]
            if part in metrics.METRICS:
                if a.ndim == 5:  # planes of bytes
                    kind = "u" if len(a) == 2 else "f"
                    a = np.ascontiguousarray(np.moveaxis(a, 0, -1)).view(f"<{kind}{len(a)}")[..., 0]
                a = np.moveaxis(a, 0, -1)  # (R, C, G, width)
            elif part in ("group", "counts"):
                a = a.astype(np.int64)
            found[part] = a
        return found

    def _answers(self, run: str) -> Array | None:
        if f"{run}/clean" not in self.arrays:
            return None
        clean = self.arrays[f"{run}/clean"].astype(np.float32)
        if f"{run}/damaged" not in self.arrays:
            return clean[None]
        scale = self.arrays[f"{run}/scale"] if f"{run}/scale" in self.arrays else None
        return np.concatenate([clean[None], _widened(self.arrays[f"{run}/damaged"], scale, clean.shape[-1])])


def _answers(kept: Evidence, names: Sequence[str]) -> dict[str, Array]:
    """`clean` (k, out) and `damaged`: the narrowest encoding by which no metric moves by more than `TOLERANCE`."""
    assert kept.answers is not None
    clean, damaged = kept.answers[0].astype(np.float32), kept.answers[1:].astype(np.float32)
    arrays = {"clean": _narrow(clean, kept, names)}
    if len(damaged):
        arrays |= _damaged(damaged, kept, names[0])
    return arrays


def _same(before: Array, after: Array, kept: Evidence, names: Sequence[str]) -> bool:
    """Answers (C, k, out) before and after give the same metrics."""
    one, two = (Evidence(kept.groups, kept.counts, kept.conditions, {}, kept.group, kept.y, a) for a in (before, after))
    pairs = ((one.pooled(name), two.pooled(name)) for name in names)
    return all(np.allclose(a, b, rtol=0, atol=TOLERANCE, equal_nan=True) for a, b in pairs)


def _narrow(answers: Array, kept: Evidence, names: Sequence[str]) -> Array:
    """Half precision where it changes no metric; the top class of a classifier is kept on top."""
    with np.errstate(over="ignore"):
        half = answers.astype(np.float16)
    if not np.isfinite(half).all():
        return answers
    if metrics.get(names[0]).kind == "classify":
        top = answers.argmax(-1)[..., None]
        lead = np.nextafter(half.max(-1, keepdims=True), np.float16(np.inf))
        lost = half.argmax(-1)[..., None] != top
        np.put_along_axis(half, top, np.where(lost, lead, np.take_along_axis(half, top, -1)), -1)
    return half if _same(answers[None], half[None].astype(np.float32), kept, names) else answers


def _damaged(answers: Array, kept: Evidence, metric: str) -> dict[str, Array]:
    """The narrowest of: class (C, k), 256 or 65,536 levels (C, k, out) with `scale` (C, 2, out), single precision."""
    declared = metrics.get(metric)
    candidates: list[Callable[[], dict[str, Array]]] = []
    if declared.kind == "classify" and not declared.probabilities:
        candidates.append(lambda: {"damaged": answers.argmax(-1).astype(np.min_scalar_type(answers.shape[-1]))})
    candidates += [lambda: _levels(answers, np.uint8), lambda: _levels(answers, np.uint16)]
    for candidate in candidates if np.isfinite(answers).all() else []:
        found = candidate()
        back = _widened(found["damaged"], found.get("scale"), answers.shape[-1])
        if _same(answers, back, kept, [metric]):
            return found
    return {"damaged": answers}


def _levels(answers: Array, kind: type[np.unsignedinteger]) -> dict[str, Array]:
    low, high = answers.min(1), answers.max(1)  # (C, out)
    step = np.where(high > low, (high - low) / np.iinfo(kind).max, 1.0)
    whole = np.rint((answers - low[:, None]) / step[:, None])
    return {"damaged": whole.astype(kind), "scale": np.stack([low, step], 1).astype(np.float32)}


def _widened(damaged: Array, scale: Array | None, out: int) -> Array:
    """(C, k, out) single precision from any of the encodings."""
    if damaged.ndim == 2:
        return np.eye(out, dtype=np.float32)[damaged]
    return damaged if scale is None else damaged * scale[:, None, 1] + scale[:, None, 0]

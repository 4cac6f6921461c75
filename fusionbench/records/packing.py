"""Many runs' answers in few bytes: what is published of them, as plain arrays, and the way back. Numpy only.

The clean answers keep every output; under damage a classifier keeps its class, a regressor 256 or 1,024 levels an
output. Each encoding is taken only where no metric that it serves moves by more than `TOLERANCE`, else a wider one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fusionbench.metrics import evaluate

if TYPE_CHECKING:
    from fusionbench.records import Predictions

Array = np.ndarray
#: What no published metric may differ by.
TOLERANCE = 1e-4
#: Metrics of a classifier that look at its class only.
OF_CLASSES = {"accuracy", "macro_f1", "weighted_f1", "balanced_accuracy"}
CLEAN = "clean"
TRUTH = ("ids", "groups", "y", "y_mask")


def pack(
    runs: Mapping[str, Predictions], metrics: Sequence[str], before: Mapping[str, Array] | None = None
) -> dict[str, Array]:
    """Run id -> answers as named arrays for one `.npz`; what runs share (names, labels) is stored once.

    Args:
        metrics: those of the records, the primary one first: under damage it alone is preserved, clean all are.
        before: arrays of an earlier packing, taken over as they are: packing twice does not round twice.
    """
    arrays: dict[str, Array] = {}
    truths: list[tuple[Array, ...]] = []
    for name in sorted(runs):
        kept = runs[name]
        truth = tuple(np.asarray(getattr(kept, part)) for part in TRUTH)
        place = next((i for i, t in enumerate(truths) if all(map(np.array_equal, t, truth))), None)
        if place is None:
            place = len(truths)
            truths.append(truth)
            arrays |= {f"truth/{place}/{part}": _slim(a) for part, a in zip(TRUTH, truth, strict=True)}
        arrays[f"{name}/truth"] = np.array(place)
        if before and f"{name}/clean" in before:
            parts = [f"{name}/{part}" for part in ("conditions", "clean", "damaged", "scale")]
            arrays |= {part: before[part] for part in parts if part in before}
            continue
        conditions = [CLEAN, *(c for c in kept.answers if c != CLEAN)]
        arrays[f"{name}/conditions"] = np.array(conditions)
        y, mask = truth[2], np.asarray(truth[3], bool)
        arrays[f"{name}/clean"] = _narrow(_masked(kept.answers[CLEAN], mask), y, mask, metrics)
        if len(conditions) > 1:
            damaged = np.stack([_masked(kept.answers[c], mask) for c in conditions[1:]])  # (C, n, S, out)
            arrays |= {f"{name}/{part}": a for part, a in _damaged(damaged, y, mask, metrics[0]).items()}
    return arrays


def unpack(arrays: Any, name: str) -> tuple[Array, Array, Array, Array, dict[str, Array]] | None:
    """The ids, groups, labels, label mask and answers (condition -> (n, S, out) float32) of a run; None if not there.

    Under damage a classifier's answers are one-hot: right for metrics of its class, not for probabilities.
    """
    if f"{name}/truth" not in arrays:
        return None
    ids, groups, y, y_mask = (arrays[f"truth/{int(arrays[f'{name}/truth'])}/{part}"] for part in TRUTH)
    clean = arrays[f"{name}/clean"].astype(np.float32)
    conditions = [str(c) for c in arrays[f"{name}/conditions"]]
    answers = {CLEAN: clean}
    if len(conditions) > 1:
        scale = arrays[f"{name}/scale"] if f"{name}/scale" in arrays else None
        damaged = _widened(arrays[f"{name}/damaged"], scale, clean.shape[-1])
        answers |= dict(zip(conditions[1:], damaged, strict=True))
    return ids, groups, y, y_mask, answers


def _masked(answers: Array, mask: Array) -> Array:
    """Zeros where there is no label: no metric looks there, and zeros take no room."""
    return np.where(mask[..., None], answers, 0).astype(np.float32)


def _slim(a: Array) -> Array:
    """Whole numbers in the smallest type, others as they are."""
    return a.astype(np.min_scalar_type(int(a.max(initial=0)))) if a.dtype.kind in "iu" and a.min(initial=0) >= 0 else a


def _same(before: Array, after: Array, y: Array, mask: Array, metrics: Sequence[str]) -> bool:
    old, new = evaluate(metrics, before, y, mask), evaluate(metrics, after, y, mask)
    return all(abs(old[m] - new[m]) <= TOLERANCE or (np.isnan(old[m]) and np.isnan(new[m])) for m in metrics)


def _narrow(answers: Array, y: Array, mask: Array, metrics: Sequence[str]) -> Array:
    """Half precision where it changes no metric; the top class of a classifier is kept on top."""
    with np.errstate(over="ignore"):
        half = answers.astype(np.float16)
    if not np.isfinite(half).all():
        return answers
    if y.ndim == 2:
        top = answers.argmax(-1)[..., None]
        lead = np.nextafter(half.max(-1, keepdims=True), np.float16(np.inf))
        lost = half.argmax(-1)[..., None] != top
        np.put_along_axis(half, top, np.where(lost, lead, np.take_along_axis(half, top, -1)), -1)
    return half if _same(answers, half.astype(np.float32), y, mask, metrics) else answers


def _damaged(answers: Array, y: Array, mask: Array, metric: str) -> dict[str, Array]:
    """The narrowest of: class (C, n, S), 256 or 1,024 levels with `scale` (C, 2, out), half and full precision."""
    out = answers.shape[-1]
    candidates: list[Callable[[], dict[str, Array]]] = []
    if metric in OF_CLASSES and out <= 256:
        candidates.append(lambda: {"damaged": answers.argmax(-1).astype(np.uint8)})
    candidates.append(lambda: _levels(answers, mask, 256))
    candidates.append(lambda: _levels(answers, mask, 1024))
    candidates.append(lambda: {"damaged": np.stack([_narrow(a, y, mask, [metric]) for a in answers])})
    for candidate in candidates:
        found = candidate()
        back = _widened(found["damaged"], found.get("scale"), out)
        if all(_same(a, b, y, mask, [metric]) for a, b in zip(answers, back, strict=True)):
            return found
    return {"damaged": answers}


def _levels(answers: Array, mask: Array, count: int) -> dict[str, Array]:
    """Up to 256 levels in a byte (C, n, S, out), more in two bytes (2, C, n, S, out): apart they compress better."""
    low = np.where(mask[..., None], answers, np.inf).min((1, 2))  # (C, out)
    high = np.where(mask[..., None], answers, -np.inf).max((1, 2))
    sound = np.isfinite(low) & np.isfinite(high)
    low, step = np.where(sound, low, 0.0), np.where(sound & (high > low), (high - low) / (count - 1), 1.0)
    whole = np.rint((answers - low[:, None, None]) / step[:, None, None]).clip(0, count - 1)
    coded = np.where(mask[..., None], whole, 0).astype(np.uint16)
    low_byte, high_byte = (coded & 255).astype(np.uint8), (coded >> 8).astype(np.uint8)
    stored = low_byte if count <= 256 else np.stack([low_byte, high_byte])
    return {"damaged": stored, "scale": np.stack([low, step], 1).astype(np.float32)}


def _widened(damaged: Array, scale: Array | None, out: int) -> Array:
    """(C, n, S, out) float32 from any of the encodings."""
    if damaged.ndim == 3:
        return np.eye(out, dtype=np.float32)[damaged]
    if scale is None:
        return damaged.astype(np.float32)
    if damaged.ndim == 5:
        damaged = damaged[0] + 256 * damaged[1].astype(np.uint16)
    return damaged * scale[:, None, None, 1] + scale[:, None, None, 0]

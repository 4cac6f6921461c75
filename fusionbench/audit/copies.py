"""Questions of copies: groups, samples and stretches of signal that stand on two sides of a split."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fusionbench.api import Stream
from fusionbench.audit.findings import NOT_ASKED, Finding, verdict
from fusionbench.audit.samples import Array, Samples, Whole
from fusionbench.custom_data import leaks

RUN = 4  # windows overlap if they share one in so many of their steps, or more
FEW = 0.005  # of the samples: signals of few levels agree over a short stretch by chance
BASE = np.uint64(0x9E3779B97F4A7C15)  # of the rolling hash; odd, so that it has an inverse
#: Columns of no more values than these are of few levels.
LEVELS = 20
EXPECTED = 1e-3  # near-duplicates in so many samples that chance may be thought to make


def folds(s: Samples) -> Finding:
    """Does a group stand on two sides of the data's own folds?"""
    if len(set(s.data.groups)) == len(s.data):
        return Finding("folds", NOT_ASKED, f"every sample is a {s.benchmark.unit} of its own")
    found = list(leaks.crossing(s.benchmark, s.data))
    if not found:
        return Finding("folds", "clean", f"no {s.benchmark.unit} stands on two sides of a split")
    worst = max(found, key=lambda c: len(c.groups))
    return Finding("folds", verdict(True), str(worst), {"groups": len(worst.groups)})


def duplicates(s: Samples) -> Finding:
    """Are there copies of a sample, or nearly so, on another side of a split?

    Nearly: closer than chance makes one of `EXPECTED` such pairs, by the distances of neighbours and their dimension.
    """
    from sklearn.neighbors import NearestNeighbors

    whole = ~np.any([np.isnan(x).any(1) for x in s.x.values()], axis=0)  # where a modality is absent, less is compared
    scaled = s.features - s.features[whole].mean(0) if whole.any() else s.features
    levels = max((len(np.unique(column)) for column in scaled[whole].round(6).T), default=0)
    if whole.sum() < 40 or levels <= LEVELS:  # of few levels samples agree by chance
        return Finding("duplicates", NOT_ASKED, "few samples have every modality, or few different values")
    spread = scaled[whole].std(0)
    scaled = scaled / np.where(spread > 1e-12, spread, np.inf)
    eigen = np.linalg.svd(scaled[whole], compute_uv=False) ** 2
    dimension = max(1.0, float(eigen.sum() ** 2 / (eigen**2).sum()))
    nearest = np.full(len(s.rows), np.inf)
    for fold in range(len(s.splits)):
        used = s.own("train", fold) | s.own("val", fold)  # a sample on no side of a split teaches nothing
        known, asked = np.flatnonzero(used & whole), np.flatnonzero(s.own("test", fold) & whole)
        if len(known) and len(asked):
            found = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(scaled[known]).kneighbors(scaled[asked])[0]
            nearest[asked] = found[:, 0]
    apart = nearest[np.isfinite(nearest) & (nearest > 1e-6 * np.sqrt(scaled.shape[1]))]  # those that are no copies
    usual = float(np.median(apart)) if len(apart) else 1.0
    close = np.flatnonzero(nearest <= usual * min(0.1, (EXPECTED / len(s.rows)) ** (1 / dimension)))
    exact = int((nearest[close] <= 1e-5 * usual).sum())
    if not len(close):
        return Finding("duplicates", "clean", "no sample is a copy, or nearly one, of one on another side of a split")
    first = s.data.ids[int(s.rows[close[0]])]
    said = f"{len(close)} samples ({exact} exactly) are copies of one on another side of a split, as {first}"
    return Finding("duplicates", verdict(True), said, {"copies": len(close), "exact": exact})


def overlap(s: Samples) -> Finding:
    """Do windows on two sides of a split share a stretch of signal?"""
    inside, across, worst = 0, set[int](), ""
    for joined in _signals(s):
        pairs = shared(joined)
        if not len(pairs):
            continue
        apart = np.zeros(len(pairs), dtype=bool)
        for fold in range(len(s.splits)):
            test = s.own("test", fold)
            used = test | s.own("train", fold) | s.own("val", fold)
            apart |= (test[pairs[:, 0]] != test[pairs[:, 1]]) & used[pairs].all(1)
        inside = max(inside, int((~apart).sum()))
        if apart.any():
            across |= set(pairs[apart].ravel().tolist())
            worst = worst or " and ".join(s.data.ids[int(s.rows[i])] for i in pairs[apart][0])
    suspected = len(across) >= max(3, FEW * len(s.rows))
    said = f"{inside} pairs of windows overlap, none across a split" if inside else "no windows overlap"
    if suspected:
        said = f"{len(across)} samples share a stretch of signal with one on another side of a split, as {worst}"
    return Finding("overlap", verdict(suspected), said, {"across": len(across), "inside": inside})


def _signals(s: Samples) -> Iterator[Array]:
    """(n, T, D) the modalities of one number of steps side by side; a single step counts as steps of one number."""
    found: dict[tuple[int, str], list[Array]] = {}
    for m, stream in s.data.streams.items():
        if not isinstance(stream, Stream):
            continue
        x = stream.x[s.rows].flatten(2).numpy()
        if x.shape[1] == 1:
            found[x.shape[2], m] = [x[:, 0, :, None]]
        else:
            found.setdefault((x.shape[1], ""), []).append(x)
    yield from (np.concatenate(parts, 2) for parts in found.values())


def shared(x: Array) -> Whole:
    """(k, 2) samples of x (n, T, D) that agree, shifted by some steps, wherever they overlap: a quarter at least.

    Runs of steps are found by a rolling hash; the rest of the overlap is compared in full.
    """
    n, steps = x.shape[:2]
    length = max(3, -(-steps // RUN))
    if steps <= length:
        return np.zeros((0, 2), dtype=np.int64)
    rows = np.ascontiguousarray(x.reshape(n * steps, -1)).view(np.dtype((np.void, x.itemsize * x.shape[2]))).ravel()
    code = np.unique(rows, return_inverse=True)[1].reshape(n, steps)
    moves = np.diff(code, axis=1, prepend=code[:, :1]) != 0
    with np.errstate(over="ignore"):
        powers = np.cumprod(np.full(steps + 1, BASE, dtype=np.uint64))
        inverse = np.cumprod(np.full(steps + 1, pow(int(BASE), -1, 1 << 64), dtype=np.uint64))
        prefix = np.pad((code.astype(np.uint64) + np.uint64(1)) * powers[:steps], ((0, 0), (1, 0))).cumsum(1)
        runs = (prefix[:, length:] - prefix[:, :-length]) * inverse[: steps - length + 1]
    moved = np.pad(moves, ((0, 0), (1, 0))).cumsum(1)
    lively = moved[:, length:] - moved[:, :-length] >= min(3, length - 1)  # flat stretches are alike everywhere
    sample, start = np.nonzero(lively)
    order = np.argsort(runs[lively], kind="stable")
    same = np.flatnonzero(np.diff(runs[lively][order].astype(np.int64)) == 0)
    a, b = order[same], order[same + 1]
    apart = (sample[a] != sample[b]) & (start[a] != start[b])
    found = np.unique(np.stack([sample[a], sample[b], start[a] - start[b]], 1)[apart], axis=0)
    kept = [(i, j) for i, j, shift in found.tolist() if _agree(code[i], code[j], shift)]
    return np.array(kept, dtype=np.int64).reshape(-1, 2)


def _agree(one: Whole, two: Whole, shift: int) -> bool:
    """Is step t + shift of one step t of two, wherever both are?"""
    one, two = (one[shift:], two[: len(two) - shift]) if shift > 0 else (one[: len(one) + shift], two[-shift:])
    return bool((one == two).all())

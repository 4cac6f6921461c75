"""Questions of what is written down: the label in a column or an id, recordings in an id, statistics of everybody."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from fusionbench.audit import models
from fusionbench.audit.findings import NOT_ASKED, Finding, short, verdict
from fusionbench.audit.samples import Samples, Whole
from fusionbench.custom_data import leaks

CODED = 0.98  # score from which a modality of few different values is a code of the label
UNLIKELY, AGREED = 1e-6, 0.02  # means of groups agree better than draws do: p, and the ratio of variances


def columns(s: Samples) -> Finding:
    """Is the label, or whose sample it is, written in a column or in a modality?"""
    found = [str(suspect).removeprefix("suspected leak: ") for suspect in leaks.suspects(s.benchmark.task, s.data)]
    for m, x in s.x.items():
        kinds = len(np.unique(np.nan_to_num(x), axis=0))
        if s.kind != "classify" or found or not 2 <= kinds <= max(8, 4 * (int(s.y.max()) + 1)):
            continue
        told = models.score(models.told(np.nan_to_num(x), s.y, s.by_group, s.kind, 5), s.y, s.group, s.kind)
        if told.value >= CODED:
            found.append(f"{m} has {kinds} different values, which tell the label at {short(told.value)}: a code")
    if found:
        return Finding("columns", verdict(True), "; ".join(found), {"columns": len(found)})
    return Finding("columns", "clean", "no column or modality holds the label or the number of a group")


def ids(s: Samples) -> Finding:
    """Does a part of the ids tell the label, or name recordings that the data's own folds cut?"""
    names = [s.data.ids[int(row)] for row in s.rows]
    if _are_numbers(names):
        return Finding("ids", NOT_ASKED, "the ids are numbers of samples")
    least, best, said, suspected = models.chance(s.y, s.kind), 0.0, "", False
    for part, values in _parts(names):
        kinds, code = np.unique(values, return_inverse=True)
        if len(kinds) < 2 or _names_groups(code, s.group) or _counts(values, s.group):
            continue
        if len(kinds) <= len(names) / 4:
            one = np.eye(len(kinds))[code]
            told = models.score(models.told(one, s.y, s.by_group, s.kind, 1), s.y, s.group, s.kind)
            if told.value > best:
                best = told.value
                if told.exceeds(least):
                    suspected = True
                    said = f"{part} of the ids ({_some(kinds)}) tells the label at {told} (chance {short(least)})"
        if not suspected and (share := _recordings(s, code)) is not None:
            suspected = True
            said = f"{part} of the ids ({_some(kinds)}) names recordings that the folds cut: {share}"
    said = said or "no part of the ids tells the label, or names recordings that the folds cut"
    return Finding("ids", verdict(suspected), said, {"label": best, "chance": least})


def scaling(s: Samples) -> Finding:
    """Were numbers scaled by statistics of all groups, or of each group's every sample, test ones included?"""
    said = (_scaled_by_group(s) if s.grouped else "") or _scaled_by_all(s)
    if s.benchmark.transductive:
        said += ("; " if said else "") + f"declared: {s.benchmark.transductive}"
    if said:
        return Finding("scaling", verdict(True), said)
    return Finding("scaling", "clean", "no sign of scaling by statistics of all groups or of whole groups")


# ------------------------------------------------------------------------------------------------------------ details


def _are_numbers(names: list[str]) -> bool:
    return all(name.isdigit() for name in names)


def _parts(names: list[str]) -> Iterator[tuple[str, NDArray[Any]]]:
    """The parts of the ids, by separators and where letters meet digits, if all ids have equally many."""
    for words in ([re.split(r"[^A-Za-z0-9]+", n) for n in names], [re.findall(r"[A-Za-z]+|\d+", n) for n in names]):
        if len({len(w) for w in words}) == 1:
            for place, values in enumerate(zip(*words, strict=True)):
                if len(words[0]) > 1 or len(set(values)) < len(names):
                    yield f"part {place + 1}", np.array(values)


def _some(kinds: NDArray[Any]) -> str:
    return ", ".join(map(str, kinds[:3])) + (", ..." if len(kinds) > 3 else "")


def _names_groups(code: Whole, group: Whole) -> bool:
    """Is a part another name of the groups, or of finer ones?"""
    pairs = np.unique(np.stack([code, group]), axis=1).shape[1]
    return pairs == code.max() + 1


def _counts(values: NDArray[Any], group: Whole) -> bool:
    """Does it count the samples of a group? The question of time looks at that."""
    if not all(v.isdecimal() and len(v) < 19 for v in values):  # more digits do not fit into 64 bits
        return False
    numbers = values.astype(np.int64)
    order = np.argsort(group, kind="stable")
    same = group[order][1:] == group[order][:-1]
    return bool((np.diff(numbers[order])[same] >= 0).all()) and len(np.unique(numbers)) > 8


def _recordings(s: Samples, code: Whole) -> str | None:
    """Samples of one part that stand on two sides of a split are alike: how often, against what its sizes say."""
    sizes = np.bincount(code)
    if len(sizes) < 5 or (sizes >= 3).mean() < 0.5:
        return None
    test = np.stack([s.own("test", fold) for fold in range(len(s.splits))])
    cut = np.mean([len(np.unique(t[code == c])) > 1 for t in test for c in np.flatnonzero(sizes >= 3)])
    if cut < 0.2:
        return None
    scaled = (s.features - s.features.mean(0)) / (s.features.std(0) + 1e-9)
    share = float((models.told(scaled, code, np.arange(len(code)) % 3, "classify").argmax(1) == code).mean())
    guess = float(sizes.max() / sizes.sum())
    if share < max(0.5, 3 * guess):
        return None
    return f"features tell it of {share:.0%} of the samples (chance {guess:.0%})"


def _scaled_by_all(s: Samples) -> str:
    """A modality whose every column has mean 0 and SD 1, or least 0 and greatest 1, over everybody's real steps."""
    for m, stream in s.data.streams.items():
        if m not in s.x:
            continue
        real = stream.x[stream.mask].flatten(1).double().numpy()  # steps, or samples of one step
        moving = np.ptp(real, axis=0) > 0
        if len(real) < 40 or not moving.any():
            continue
        mean, sd = real[:, moving].mean(0), real[:, moving].std(0)
        low, high = real[:, moving].min(0), real[:, moving].max(0)
        off = np.maximum(np.abs(mean), np.abs(sd - 1))
        # An SD over n - 1 differs from one over n by 1 / 2n.
        if (off <= 1e-4 + 1 / len(real)).all() and 0.1 / np.sqrt(len(real)) > 1e-4 + 1 / len(real):
            return f"{m} has mean 0 and SD 1 over everybody, test groups included: scaled before it was split"
        if (np.abs(low) <= 1e-6).all() and (np.abs(high - 1) <= 1e-6).all() and _is_measured(real[:, moving]):
            return f"{m} runs from 0 to 1 exactly over everybody, test groups included: scaled before it was split"
    return ""


def _is_measured(real: NDArray[np.float64]) -> bool:
    """Columns of many values that reach each end a few times at most: not shares, flags or levels."""
    ends = (real == real.min(0)).sum(0) + (real == real.max(0)).sum(0)
    several = np.array([len(np.unique(column)) > 20 for column in real.T])
    return bool((several & (ends <= 4)).all())


def _scaled_by_group(s: Samples) -> str:
    """A modality in which the groups' means agree better than means of random draws from it would.

    The classes' own means are taken off first: where everybody goes through the same tasks, people are alike by design.
    """
    for m in s.x:
        stream = s.data.streams[m][s.rows]
        there = stream.present.numpy()
        steps = stream.mask.sum(1).double().clamp(min=1)[:, None]
        x = ((stream.x.flatten(2).double() * stream.mask[..., None]).sum(1) / steps).numpy()[there]
        owner = np.unique(s.group[there], return_inverse=True)[1]
        counts = np.bincount(owner)
        if len(counts) < 5 or (counts < 3).any():
            continue
        if s.kind == "classify":
            x = x - _means(x, s.y[there])[s.y[there]]
        means = _means(x, owner)
        within = ((x - means[owner]) ** 2).sum(0) / (len(x) - len(counts))
        across = (counts[:, None] * (means - x.mean(0)) ** 2).sum(0) / (len(counts) - 1)
        ratio = np.divide(across, within, out=np.ones_like(within), where=within > 0)
        p = scipy.special.fdtr(len(counts) - 1, len(x) - len(counts), ratio)
        told = (p * x.shape[1] < UNLIKELY) & (ratio < AGREED)
        if told.any():
            part = "" if told.all() else f"{int(told.sum())} of {len(told)} columns of "
            return f"in {part}{m} every {s.benchmark.unit} has the same mean: scaled by that {s.benchmark.unit}'s own"
    return ""


def _means(x: NDArray[np.float64], of: Whole) -> NDArray[np.float64]:
    """(k, d) the mean of each number; 0 of one that does not occur."""
    counts = np.maximum(np.bincount(of), 1)[:, None]
    return np.stack([np.bincount(of, column) for column in x.T], 1) / counts

"""Questions that a model answers: shuffled folds, the group, the time, what is missing, features that were fitted."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionbench.api import Stream
from fusionbench.audit import models
from fusionbench.audit.findings import NOT_ASKED, Finding, short, verdict
from fusionbench.audit.models import Score
from fusionbench.audit.samples import FOLDS, Array, Samples, Whole
from fusionbench.text import plural

LEAF = 5  # samples of one leaf where a model looks at a handful of numbers
SIDES = 3  # of the data's own folds are asked whether training was special
TOLD = 0.95  # of the samples whose group is recognised


def shuffled(s: Samples) -> Finding:
    """Do shuffled folds score what no unseen group does, because a sample's neighbours answer for it?

    That people differ is no leak: a third set of folds, whole stretches of every group, knows the people and not the
    neighbours. What shuffled folds gain over those as well as over folds by group, they gain from neighbours.
    """
    if not s.grouped:
        return Finding("shuffled", NOT_ASKED, f"a {_unit(s)} has hardly more than one sample")
    mixed = np.random.default_rng(0).permutation(len(s.y)) % FOLDS
    answers = {
        name: models.told(s.features, s.y, folds, s.kind)
        for name, folds in {"shuffled": mixed, "group": s.by_group, "stretch": _stretches(s)}.items()
    }
    scores = {name: models.score(found, s.y, s.group, s.kind) for name, found in answers.items()}
    over = {n: models.gap(answers["shuffled"], answers[n], s.y, s.group, s.kind) for n in ("group", "stretch")}
    neighbours = over["group"].exceeds(0) and over["stretch"].exceeds(0)
    suspected = neighbours or (s.mixed and over["group"].exceeds(0))
    said = f"shuffled folds score {short(scores['shuffled'].value)}, folds by {_unit(s)} {scores['group']}"
    if neighbours:
        said += f", stretches {short(scores['stretch'].value)}: shuffled, a sample's neighbours answer for it: a leak"
    elif suspected:
        said += ": a leak, for the data's own folds mix groups"
    elif over["group"].exceeds(0):
        said += f": to have met the {plural(_unit(s))} is worth {short(over['group'].value)}"
    if neighbours and not s.mixed:
        said += f" of shuffled folds; the data's own keep {plural(_unit(s))} apart"
    numbers = {name: found.value for name, found in scores.items()} | {"gap": over["group"].value}
    return Finding("shuffled", verdict(suspected), said, numbers | _bounds("gap", over["group"]))


def group(s: Samples) -> Finding:
    """How well the group can be told from the features, the label from the group, and is a group written down?"""
    if not s.grouped:
        return Finding("group", NOT_ASKED, f"a {_unit(s)} has hardly more than one sample")
    folds = _ranks(s.group)[0] % 3
    known = models.told(s.features, s.group, folds, "classify")
    share = float((known.argmax(1) == s.group).mean())
    guess = float(np.bincount(s.group).max() / len(s.group))
    label = models.score(_label_of_group(s), s.y, s.group, s.kind)
    codes = [m for m, x in s.x.items() if _codes(x, s.group)]
    patterns = {m: p for m, x in s.data.streams.items() if isinstance(x, Stream) and (p := _pattern(x, s.rows)).size}
    written = [m for m, p in patterns.items() if _recognised(p, s.group, folds) >= TOLD]
    said = f"features tell the {_unit(s)} of {share:.0%} of the samples (chance {guess:.0%}); "
    least = models.chance(s.y, s.kind)
    at = f"at {short(label.value)}" if label.value > least else "no better than chance"
    said += f"the {_unit(s)} tells the label {at} (chance {short(least)})"
    if codes:
        said += f"; {codes[0]} holds numbers that are one and the same in a {_unit(s)} and another in each: a code"
    if written:
        said += f"; which steps of {written[0]} are missing tells the {_unit(s)}"
    numbers = {"group": share, "chance": guess, "label": label.value}
    return Finding("group", verdict(bool(codes or written)), said, numbers)


def time(s: Samples) -> Finding:
    """How well the label can be told from the place in the recording alone, and the place from the features?"""
    counts = np.bincount(s.group)
    if not s.timed and (counts < LEAF).mean() > 0.5:
        return Finding("time", NOT_ASKED, f"no time is declared, and a {_unit(s)} has fewer than {LEAF} samples")
    alone = models.told(s.place[:, None], s.y, s.by_group, s.kind, LEAF)
    label, least = models.score(alone, s.y, s.group, s.kind), models.chance(s.y, s.kind)
    place = models.told(s.features, s.place[:, None], s.by_group, "regress", LEAF)
    inside = models.score(_centred(place, s.group), _centred(s.place[:, None], s.group), s.group, "regress")
    what = "elapsed time" if s.timed else "the order of the samples in a group"
    said = f"{what} alone tells the label at {label} (chance {short(least)}); "
    said += f"features tell that time with correlation {short(inside.value)}"
    if clocks := [m for m, x in s.x.items() if _is_clock(x, s.place, s.group)]:
        said += f"; a column of {clocks[0]} counts it"
    suspected = label.exceeds(least)
    if suspected:
        said += ": the labels come in an order, so a model may answer by the clock"
    numbers = {"label": label.value, **_bounds("label", label), "chance": least, "place": inside.value}
    return Finding("time", verdict(suspected), said, numbers)


def missing(s: Samples) -> Finding:
    """Does what is missing tell the label, in groups that were not met?"""
    patterns = {m: p for m, x in s.data.streams.items() if isinstance(x, Stream) and (p := _pattern(x, s.rows)).size}
    if not patterns:
        return Finding("missing", "clean", "every sample has the same steps of every modality")
    least = models.chance(s.y, s.kind)
    scores = {m: models.score(models.told(p, s.y, s.by_group, s.kind, LEAF), s.y, s.group, s.kind)
              for m, p in patterns.items()}  # fmt: skip
    best = max(scores, key=lambda m: scores[m].value)
    together = np.concatenate(list(patterns.values()), 1)
    whole = models.score(models.told(together, s.y, s.by_group, s.kind, LEAF), s.y, s.group, s.kind)
    said = f"what is missing alone tells the label at {whole} (chance {short(least)}), most of it {best}"
    suspected = whole.exceeds(least) or any(found.exceeds(least) for found in scores.values())
    return Finding("missing", verdict(suspected), said, {"label": whole.value, "chance": least})


def fitted(s: Samples) -> Finding:
    """Were features fitted on the training labels? Then training groups do better among themselves than new ones do."""
    worst: tuple[Score, int, Score, Score] | None = None
    asked = len(s.splits[:SIDES])
    for fold in range(asked):
        train, new = s.own("train", fold), s.own("val", fold) | s.own("test", fold)
        inner = np.unique(s.by_group[train], return_inverse=True)[1]
        if len(np.unique(s.group[train])) < 3 or len(np.unique(s.group[new])) < 3 or len(np.unique(inner)) < 2:
            continue
        out = int(s.y.max()) + 1 if s.kind == "classify" else s.y.shape[1]
        answers = models.told(s.features[train], s.y[train], inner, s.kind)
        inside = _score(np.pad(answers, ((0, 0), (0, out - answers.shape[1]))), s, train)
        outside = _score(models.fitted(s.features[train], s.y[train], s.features[new], s.kind, out), s, new)
        drop = models.between(inside, outside)
        if worst is None or drop.low > worst[0].low:
            worst = drop, fold, inside, outside
    if worst is None:
        return Finding("fitted", NOT_ASKED, "a side of the data's own folds has fewer than three groups")
    drop, fold, inside, outside = worst
    wider = (drop.value - drop.low) * (1.0 if asked == 1 else 1.6)  # the worst of several comparisons
    suspected = models.Score(drop.value, drop.value - wider, drop.high).exceeds(0)
    said = f"training groups among themselves {inside}, new groups {outside} (fold {fold}, the widest gap)"
    if suspected:
        said += ": features that were fitted to the training labels"
    return Finding("fitted", verdict(suspected), said, {"inside": inside.value, "outside": outside.value})


# ------------------------------------------------------------------------------------------------------------ details


def _unit(s: Samples) -> str:
    return s.benchmark.unit


def _bounds(name: str, found: Score) -> dict[str, float]:
    return {f"{name}-low": found.low, f"{name}-high": found.high}


def _score(answers: Array, s: Samples, chosen: NDArray[np.bool_]) -> Score:
    group = np.unique(s.group[chosen], return_inverse=True)[1]
    return models.score(answers, s.y[chosen], group, s.kind)


def _ranks(group: Whole) -> tuple[Whole, Whole]:
    """(n,) the place of each sample among those of its group, in order, and how many there are."""
    order = np.argsort(group, kind="stable")
    counts = np.bincount(group)
    first = np.cumsum(counts) - counts
    ranks = np.empty(len(group), dtype=np.int64)
    ranks[order] = np.arange(len(group)) - first[group[order]]
    return ranks, counts[group]


def _stretches(s: Samples) -> Whole:
    """(n,) folds of stretches: each group's samples, in their order, cut into `FOLDS` pieces."""
    ranks, counts = _ranks(s.group)
    return ranks * FOLDS // counts


def _label_of_group(s: Samples) -> Array:
    """(n, out) what the other samples of its group say of a sample's label."""
    one = np.eye(int(s.y.max()) + 1)[s.y] if s.kind == "classify" else s.y
    sums = np.stack([np.bincount(s.group, column) for column in one.T], 1)
    others = np.maximum(np.bincount(s.group)[s.group] - 1, 1)[:, None]
    return np.asarray((sums[s.group] - one) / others)


def _centred(values: Array, group: Whole) -> Array:
    """(n, 1) without the mean of each group."""
    return np.asarray(values - (np.bincount(group, values[:, 0]) / np.bincount(group))[group][:, None])


def _pattern(stream: Stream, rows: Whole, most: int = 32) -> Array:
    """(n, d) which steps are there: share, first, last, and each of up to `most`; nothing if samples are alike."""
    mask = stream.mask.numpy()[rows].astype(float)
    steps = mask[:, np.linspace(0, mask.shape[1] - 1, min(most, mask.shape[1])).astype(int)]
    found = np.column_stack([mask.mean(1), mask.argmax(1), mask.shape[1] - mask[:, ::-1].argmax(1), steps])
    return found if np.ptp(found, axis=0).any() else found[:, :0]


def _recognised(x: Array, group: Whole, folds: Whole) -> float:
    return float((models.told(x, group, folds, "classify").argmax(1) == group).mean())


def _spreads(x: Array, group: Whole) -> tuple[Array, Array]:
    """(G, d) means and (d,) the SD within groups."""
    counts = np.bincount(group)[:, None]
    means = np.stack([np.bincount(group, column) for column in x.T], 1) / counts
    return means, np.sqrt(((x - means[group]) ** 2).mean(0))


def _codes(x: Array, group: Whole) -> bool:
    """Are there columns that hardly move within any group and that together tell every group from all others?"""
    if np.isnan(x).any():
        return False
    means, within = _spreads(x, group)
    across = means.std(0)
    still = (across > 0) & (within <= 0.01 * across)
    if not still.any():
        return False
    z = means[:, still] / across[still]
    distance = np.abs(z[:, None] - z[None]).max(2) + np.where(np.eye(len(z)), np.inf, 0.0)
    return bool(distance.min() > max(1e-6, 6 * float((within[still] / across[still]).max())))


def _is_clock(x: Array, place: Array, group: Whole) -> bool:
    """Does a column grow with the place in every group?"""
    if np.isnan(x).any():
        return False
    ranks = _ranks(group)[0]
    order = np.lexsort([ranks, group])
    same = group[order][1:] == group[order][:-1]
    forward = np.diff(place[order])[same] > 0
    steps = np.diff(x[order], axis=0)[same][forward]
    return bool(len(steps) and ((steps > 0).all(0) | (steps < 0).all(0)).any())


QUESTIONS: tuple[Any, ...] = (shuffled, group, time, missing, fitted)

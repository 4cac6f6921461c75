"""Robustness from stored scores by severity: what is left, what is lost, and when to switch a sensor off.

A curve is the scores at severities 0, 1, ..., oriented so that higher is better; level 0 is clean. `chance` is the
score of a constant predictor and `noise` the SD over seeds. Measures of loss are None where the clean score is not
above chance by more than that noise: a predictor that has learnt nothing has nothing to lose and would look robust.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any

from fusionbench.conditions import Condition

Curve = Sequence[float | None]


def targets(condition: str, modalities: Collection[str]) -> frozenset[str]:
    """The modalities that a condition damages: `noise:audio`, `noise:audio+video:3`, `gap:all`."""
    return Condition.parse(condition).targets(modalities)


def damaged(curves: Mapping[str, Curve]) -> float | None:
    """The mean score over the levels from 1 on, then over corruptions: this ranks. None if any score is undefined."""
    means = [_mean(curve[1:]) for curve in curves.values()]
    return _mean(means)


def retained(curves: Mapping[str, Curve], *, chance: float, noise: float) -> float | None:
    """The share of the gain over chance that is left under damage, (damaged - chance) / (clean - chance)."""
    left, clean = damaged(curves), _clean(curves)
    if left is None or clean is None or not clean - chance > noise:
        return None
    return (left - chance) / (clean - chance)


def drop(curves: Mapping[str, Curve], *, chance: float, noise: float) -> float | None:
    """Clean minus damaged score."""
    left, clean = damaged(curves), _clean(curves)
    return None if left is None or clean is None or not clean - chance > noise else clean - left


def worst(curves: Mapping[str, Curve]) -> tuple[float, str, int] | None:
    """The lowest score over corruptions and levels, with the corruption and the level where it is reached."""
    cells = [(score, name, level) for name, curve in curves.items() for level, score in enumerate(curve) if level > 0]
    known = [(score, name, level) for score, name, level in cells if score is not None]
    return min(known) if known and len(known) == len(cells) else None


def relative_error(curve: Curve, reference: Curve, *, chance: float, noise: float) -> float | None:
    """rCE: the loss summed over levels, as a share of the reference's loss under the same damage; below 1 is better.

    None where the reference loses no more than `noise` (Hendrycks & Dietterich 2019 call it relative mCE; they leave
    the case open). Severities are not comparable across modalities: with the unimodal model of the damaged modality as
    the reference, the measure says what the others save of what that modality alone loses.
    """
    lost, base = _losses(curve), _losses(reference)
    if lost is None or base is None or not _knows(curve, chance, noise) or not sum(base) > noise:
        return None
    return sum(lost) / sum(base)


def effective_robustness(curve: Curve, reference: Curve, *, chance: float, noise: float) -> float | None:
    """Mean over levels of s(l) - (r(l) + s(0) - r(0)): robustness beyond what a better clean score explains."""
    lost, base = _losses(curve), _losses(reference)
    if lost is None or base is None or not _knows(curve, chance, noise):
        return None
    return _mean([b - a for a, b in zip(lost, base, strict=True)])


def break_even(curve: Curve, unimodal: Mapping[str, float | None], hit: Collection[str]) -> float | None:
    """The smallest level at which the best unimodal model of an undamaged modality is better: switch the sensor off.

    Args:
        unimodal: modality -> clean score of its own model.
        hit: the damaged modalities.

    Returns:
        The level (0: already when clean), infinity if it stays above on the whole ladder, None if every modality is
        damaged or a score is undefined.
    """
    others = [score for modality, score in unimodal.items() if modality not in hit]
    if not others or any(score is None for score in [*others, *curve]):
        return None
    bar = max(score for score in others if score is not None)
    return next((float(level) for level, score in enumerate(curve) if score is not None and score < bar), math.inf)


def missingness_area(scores: Mapping[float, float | None]) -> float | None:
    """The area under score over missing rate (trapezoids), divided by the range of rates: in units of the score."""
    rates = sorted(scores)
    if len(rates) < 2 or any(scores[r] is None for r in rates):
        return None
    pieces = [(b - a) * ((scores[a] or 0.0) + (scores[b] or 0.0)) / 2 for a, b in pairwise(rates)]
    return sum(pieces) / (rates[-1] - rates[0])


def worst_subset(lattice: Mapping[frozenset[str], float | None]) -> tuple[frozenset[str], float] | None:
    """The non-empty set of present modalities with the lowest score; the smaller, then the first by name, of equals."""
    known = [(score, len(s), sorted(s), s) for s, score in lattice.items() if s and score is not None]
    if not known or len(known) < sum(bool(s) for s in lattice):
        return None
    score, _, _, subset = min(known, key=lambda row: row[:3])
    return subset, score


def spread(lattice: Mapping[frozenset[str], float | None]) -> float | None:
    """How unequally the model leans on its modalities: the range of its score over which single one is missing."""
    everything = frozenset().union(*lattice)
    scores = [lattice.get(everything - {m}) for m in everything]
    known = [s for s in scores if s is not None]
    return max(known) - min(known) if len(everything) > 1 and len(known) == len(scores) else None


def summary(
    curves: Mapping[str, Curve],
    *,
    chance: float,
    noise: float,
    reference: Mapping[str, Curve] | None = None,
    alone: Mapping[str, Mapping[str, Curve]] | None = None,
    modalities: Sequence[str] = (),
) -> dict[str, Any]:
    """All measures of one fuser on one benchmark; a measure over several corruptions is the mean of the defined ones.

    Args:
        curves, reference: corruption (`noise:audio`) -> curve of this fuser, of the reference fuser.
        alone: modality -> corruption -> curve of the model of that modality alone.
    """
    knows = {"chance": chance, "noise": noise}
    base, single = reference or {}, alone or {}
    clean_alone = {m: _clean(rows) for m, rows in single.items()}
    hit = {name: targets(name, modalities or list(single)) for name in curves}
    only = {name: next(iter(hit[name])) for name in curves if len(hit[name]) == 1}
    shared = [name for name in curves if name in base]
    return {
        "clean": _clean(curves),
        "damaged": damaged(curves),
        "retained": retained(curves, **knows),
        "drop": drop(curves, **knows),
        "worst": worst(curves),
        "relative_error": _known_mean([relative_error(curves[n], base[n], **knows) for n in shared]),
        "relative_error_alone": _known_mean(
            [relative_error(curves[n], single[m][n], **knows) for n, m in only.items() if n in single.get(m, {})]
        ),
        "effective_robustness": _known_mean([effective_robustness(curves[n], base[n], **knows) for n in shared]),
        "break_even": {name: break_even(curve, clean_alone, hit[name]) for name, curve in curves.items()},
    }


def _clean(curves: Mapping[str, Curve]) -> float | None:
    return next((curve[0] for curve in curves.values() if curve), None)


def _knows(curve: Curve, chance: float, noise: float) -> bool:
    return bool(curve) and curve[0] is not None and curve[0] - chance > noise


def _losses(curve: Curve) -> list[float] | None:
    """s(0) - s(l) for l = 1, 2, ...; None if a score is undefined or there is no damage."""
    known = [score for score in curve if score is not None]
    return [known[0] - score for score in known[1:]] if len(known) == len(curve) > 1 else None


def _mean(values: Curve) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _known_mean(values: Curve) -> float | None:
    return _mean([value for value in values if value is not None])

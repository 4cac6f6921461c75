"""What a search met on its way, and which hyper-parameters mattered, of every tuned row of a board."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from statistics import fmean
from typing import Any

import numpy as np

from fusionbench.leaderboard import Board
from fusionbench.report.drawing import COLOURS, Drawn, new

SHOWN = 6  # hyper-parameters a panel


def tuning(board: Board, searches: Mapping[str, Mapping[int, Any]]) -> Drawn | None:
    """Two panels a tuned fuser: the best trial so far in each outer fold, and the importances, mean over folds.

    Args:
        searches: fuser -> outer fold -> Optuna study.
    """
    rows = {row.fuser: row for row in board.ranked if row.records.first.run.budget and searches.get(row.fuser)}
    found = {fuser: searches[fuser] for fuser in rows}
    if not found:
        return None
    figure, axes = new(8.0, 0.6 + 1.75 * len(found), len(found), 2, width_ratios=[1, 1])
    for (left, right), (fuser, studies) in zip(axes, found.items(), strict=True):
        for number, (fold, study) in enumerate(sorted(studies.items())):
            curve = so_far(study)
            left.step(range(len(curve)), curve, where="post", lw=1.2, color=COLOURS[number % len(COLOURS)],
                      label=f"fold {fold}")  # fmt: skip
        left.set_title(rows[fuser].label, loc="left")
        left.set_ylabel("best validation")
        mean = importances(list(studies.values()))
        names = sorted(mean, key=lambda n: mean[n])[-SHOWN:]
        right.barh(names, [mean[n] for n in names], color=COLOURS[0], height=0.62)
        right.grid(axis="y", visible=False)
        right.set_xlim(0, 1)
    axes[-1][0].set_xlabel("trial")
    axes[-1][1].set_xlabel("importance")
    axes[0][0].legend(fontsize=7)
    return (
        "What tuning met",
        "Left: the best validation score so far in every outer fold; trial 0 is the defaults. Right: how much of the "
        "variance of the trials' scores each hyper-parameter explains (fANOVA of Optuna), mean over the folds.",
        figure,
        list(rows.values()),
    )


def budgets(board: Board, searches: Mapping[str, Mapping[int, Any]]) -> Drawn | None:
    """Every tuned fuser's best validation score so far, against the seconds that its search had taken by then.

    Args:
        searches: fuser -> outer fold -> Optuna study.
    """
    rows = {row.fuser: row for row in board.ranked if row.records.first.run.budget and searches.get(row.fuser)}
    found = {fuser: curve for fuser in rows if len(curve := spent(list(searches[fuser].values()))) > 1}
    if not found:
        return None
    figure, axes = new(6.4, 3.6)
    ax = axes[0, 0]
    for (style, colour), (fuser, curve) in zip(product(("-", "--", ":"), COLOURS), found.items(), strict=False):
        ax.step(*zip(*curve, strict=True), where="post", lw=1.4, ls=style, color=colour, label=rows[fuser].label)
        ax.plot(*curve[0], "o", ms=4, color=colour)
    ax.set_xscale("log")
    ax.set_xlabel("seconds of search, an outer fold")
    ax.set_ylabel("best validation")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return (
        "Score against budget",
        "The best validation score so far, mean over the outer folds, against the seconds of search by then. The point "
        "is trial 0, the defaults; every line ends after the same number of trials. On whom the choice was made: what "
        "it is worth on other people is in the table.",
        figure,
        list(rows.values()),
    )


def spent(studies: Sequence[Any]) -> list[tuple[float, float]]:
    """(seconds, best score) after each trial, means over the studies; from the first trial on that all completed."""
    curves = [so_far(study) for study in studies]
    seconds = [np.cumsum([trial.user_attrs["seconds"] for trial in study.trials]) for study in studies]
    points = []
    for number in range(min(map(len, curves))):
        best = [score for curve in curves if (score := curve[number]) is not None]
        if len(best) == len(curves):
            points.append((fmean(float(spent[number]) for spent in seconds), fmean(best)))
    return points


def so_far(study: Any) -> list[float | None]:
    """The best score after each trial; None before the first that is complete."""
    curve: list[float | None] = []
    for trial in study.trials:
        known = [value for value in (trial.value, *curve[-1:]) if value is not None]
        curve.append(max(known, default=None))
    return curve


def importances(studies: Sequence[Any]) -> Mapping[str, float]:
    """Hyper-parameter -> importance, mean over the studies that have enough finished trials to tell."""
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    known = []
    for study in studies:
        values = {trial.value for trial in study.trials if trial.value is not None}
        if len(values) > 1:
            known.append(get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0)))
    return {name: fmean(found.get(name, 0.0) for found in known) for name in sorted({n for f in known for n in f})}

"""What a search met on its way, and which hyper-parameters mattered, of every tuned row of a board."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

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
            best, curve = None, []
            for trial in study.trials:
                if trial.value is not None and (best is None or trial.value > best):
                    best = trial.value
                curve.append(best)
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


def importances(studies: Sequence[Any]) -> Mapping[str, float]:
    """Hyper-parameter -> importance, mean over the studies that have enough finished trials to tell."""
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    known = []
    for study in studies:
        values = {trial.value for trial in study.trials if trial.value is not None}
        if len(values) > 1:
            known.append(get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0)))
    return {name: fmean(found.get(name, 0.0) for found in known) for name in sorted({n for f in known for n in f})}

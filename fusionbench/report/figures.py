"""The figures of a report, drawn from boards; each knows the runs behind it. No global state of matplotlib."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fusionbench import stats, text
from fusionbench.leaderboard import Board, Row
from fusionbench.leaderboard.curves import answers as learned
from fusionbench.leaderboard.robustness import curves, lattice
from fusionbench.leaderboard.statistics import DAMAGED, SCORE, oriented
from fusionbench.report.drawing import COLOURED, COLOURS, FAINT, INK, STYLE, Drawn, Picture, new
from fusionbench.report.tuning import budgets, tuning


def draw(board: Board, name: str, searches: Mapping[str, Mapping[int, Any]]) -> list[Picture]:
    """Every figure that the board has data for; `name` begins their file names.

    Args:
        searches: fuser -> outer fold -> Optuna study of its search.
    """
    import matplotlib

    makers: dict[str, Callable[[Board], Drawn | None]] = {
        "scores": _scores, "missing": _missing, "curves": _curves, "pareto": _pareto, "shapley": _shapley,
        "learning": _learning, "tuning": lambda board: tuning(board, searches),
        "budget": lambda board: budgets(board, searches),
    }  # fmt: skip
    pictures = []
    with matplotlib.rc_context(STYLE):
        for kind, maker in makers.items():
            made = maker(board)
            if made is not None:
                title, caption, figure, rows = made
                runs = sorted({run for row in rows for run in row.runs})
                pictures.append(Picture(f"{name}-{kind}", title, caption, figure, runs))
    return pictures


def _percent(board: Board) -> float:
    return 100.0 if board.percent else 1.0


def _axis(board: Board) -> str:
    return f"{board.metric.replace('_', ' ')}{' (%)' if board.percent else ''}"


def _colours(board: Board, rows: Sequence[Row]) -> dict[str, str]:
    """The best fused rows have colours of their own; the reference is in ink."""
    fused = [r.label for r in rows if r.records.fuses and r.label != board.reference]
    found = dict(zip(fused[:COLOURED], COLOURS, strict=False))
    return found | ({board.reference: INK} if board.reference else {})


def _scores(board: Board) -> Drawn | None:
    rows = [r for r in board.ranked if r.clean is not None]
    if not rows:
        return None
    scale, colours = _percent(board), _colours(board, rows)
    figure, axes = new(6.4, 0.9 + 0.26 * len(rows))
    ax, high = axes[0, 0], len(rows)
    for place, row in enumerate(rows):
        colour = colours.get(row.label, "#7b8794")
        for measure, marker, shift in ((SCORE, "o", 0.13), (DAMAGED, "s", -0.13)):
            value = row.score(measure)
            if value is None:
                continue
            at = high - place + shift
            low, up = row.bounds(measure)
            if low is not None and up is not None:
                ax.plot([low * scale, up * scale], [at, at], color=colour, lw=1.4, alpha=0.6, solid_capstyle="round")
            face = colour if measure == SCORE else "white"
            ax.plot([value * scale], [at], marker, color=colour, markerfacecolor=face, ms=5, mew=1.3)
    if board.chance is not None:
        ax.axvline(board.chance * scale, color=FAINT, lw=1, ls=":")
        ax.text(board.chance * scale, 0.35, " chance", color="#7b8794", fontsize=8, va="bottom")
    ax.set_yticks(range(high, 0, -1), [row.name for row in rows])
    ax.set_ylim(0.3, high + 0.7)
    ax.set_xlabel(_axis(board))
    ax.grid(axis="y", visible=False)
    ax.plot([], [], "o", color=INK, ms=5, label="clean")
    ax.plot([], [], "s", color=INK, markerfacecolor="white", ms=5, label="damaged")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return (
        "Scores with their 95 % intervals",
        "Clean (filled) and damaged (open) score of every ranked row. Bars that overlap may still differ: groups are "
        "paired, so read the verdicts.",
        figure,
        rows,
    )


def _curves(board: Board) -> Drawn | None:
    rows = board.ranked
    found = {row.label: {n: c for n, c in curves(board, row).items() if len(c) > 2} for row in rows}
    names = list(dict.fromkeys(n for c in found.values() for n in c))
    if not names:
        return None
    scale = _percent(board) * (1.0 if board.higher_is_better else -1.0)
    colours = _colours(board, rows)
    wide = min(3, len(names))
    tall = math.ceil(len(names) / wide)
    figure, axes = new(3.1 * wide + 0.4, 2.3 * tall + 0.7, tall, wide, sharey=True)
    drawn: dict[str, Any] = {}
    for place, ax in enumerate(axes.flat):
        if place >= len(names):
            ax.set_visible(False)
            continue
        name = names[place]
        for row in reversed(rows):  # the best on top
            curve = found[row.label].get(name)
            if curve is None or None in curve:
                continue
            style: dict[str, Any] = {"color": FAINT, "lw": 0.8}
            if not row.records.fuses:
                style = {"color": "#7b8794", "lw": 1.2, "ls": (0, (1, 1.5))}
            elif row.label in colours:
                style = {"color": colours[row.label], "lw": 1.8, "marker": "o", "ms": 3}
            if row.label == board.reference:
                style |= {"ls": "--"}
            line = ax.plot(range(len(curve)), [scale * float(v) for v in curve if v is not None], **style)[0]
            if row.label in colours or not row.records.fuses:
                drawn[row.label] = line
        ax.set_title(str(name), loc="left")
        ax.set_xticks(range(max(len(c.get(name, ())) for c in found.values())))
        if place % wide == 0:
            ax.set_ylabel(_axis(board))
        if place >= len(names) - wide:
            ax.set_xlabel("severity")
    order = [row.label for row in rows if row.label in drawn]
    figure.legend([drawn[n] for n in order], order, loc="outside upper center", ncols=min(5, len(order)))
    return (
        "Robustness curves",
        "Score by severity, 0 is clean. Dashed: the reference; dotted: one modality alone; grey: the other rows.",
        figure,
        rows,
    )


def _missing(board: Board) -> Drawn | None:
    rows = board.ranked
    found = {row.label: lattice(board, row) for row in rows}
    whole = frozenset(board.modalities)
    subsets = sorted({s for c in found.values() for s in c}, key=lambda s: (-len(s), sorted(whole - s)))
    if len(subsets) < 2:
        return None
    import numpy as np
    import seaborn as sns

    sign = 1.0 if board.higher_is_better else -1.0
    grid = np.array(
        [
            [np.nan if (v := found[r.label].get(s)) is None else sign * v * _percent(board) for s in subsets]
            for r in rows
        ]
    )
    texts = [["-" if np.isnan(v) else text.score(v / _percent(board), board.percent) for v in line] for line in grid]
    figure, axes = new(1.6 + 0.95 * len(subsets), 0.9 + 0.26 * len(rows))
    ax = axes[0, 0]
    palette = sns.light_palette(COLOURS[0], as_cmap=True, reverse=not board.higher_is_better)
    sns.heatmap(grid, ax=ax, annot=np.array(texts), fmt="", cmap=palette, linewidths=1.5, linecolor="white", cbar=False,
                annot_kws={"fontsize": 8})  # fmt: skip
    ax.set_xticklabels(["nothing" if s == whole else "\n+ ".join(sorted(whole - s)) for s in subsets], rotation=0)
    ax.set_yticklabels([row.name for row in rows], rotation=0)
    ax.set_xlabel("missing")
    ax.xaxis.set_label_position("top")
    ax.xaxis.tick_top()
    return (
        "Missing modalities",
        "Score when whole modalities are absent at test time; the model is told which.",
        figure,
        rows,
    )


def _learning(board: Board) -> Drawn | None:
    curve = board.curve
    if curve is None:
        return None
    scale, ends = _percent(board), [rows[curve.shares[-1]] for rows in curve.rows.values()]
    colours = _colours(board, ends)
    figure, axes = new(6.4, 3.6)
    ax = axes[0, 0]
    for end, (name, by_share) in zip(ends, curve.rows.items(), strict=True):
        points = [(share, row) for share, row in sorted(by_share.items()) if row.clean is not None]
        style: dict[str, Any] = {"color": colours.get(end.label, FAINT), "lw": 1.6, "marker": "o", "ms": 4}
        if name == curve.reference:
            style |= {"ls": "--"}
        ax.plot([s for s, _ in points], [scale * (row.clean or 0.0) for _, row in points], label=name, **style)
        for share, row in points:
            low, high = row.bounds(SCORE)
            if end.label in colours and low is not None and high is not None:
                ax.plot([share, share], [low * scale, high * scale], color=style["color"], lw=1, alpha=0.5)
    ax.set_xscale("log")
    ax.set_xticks(curve.shares, [f"{share:g}" for share in curve.shares])
    ax.minorticks_off()
    ax.set_xlabel(f"share of the training {text.plural(board.unit)}")
    ax.set_ylabel(_axis(board))
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return (
        "Learning curves",
        " ".join(["Score on undamaged input by the share of training groups kept, with 95 % intervals.",
                  *learned(board)]),
        figure,
        [row for rows in curve.rows.values() for row in rows.values()],
    )  # fmt: skip


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which (cost, score) points no other one beats on both, by rising cost."""
    best, kept = -math.inf, []
    for number in sorted(range(len(points)), key=lambda n: (points[n][0], -points[n][1])):
        if points[number][1] > best:
            best = points[number][1]
            kept.append(number)
    return kept


def costs_shown(board: Board) -> dict[str, str]:
    """What a row costs -> what it is called on an axis; seconds of training where no latency is known."""
    if not any(row.costs.get("latency") for row in board.rows):
        return {"trained": "trained parameters", "train": "seconds of training a run"}
    return {
        "trained": "trained parameters",
        "latency": "ms of a forward pass, one sample",
        "latency_batch": f"ms of a forward pass, {board.batch} samples",
    }


def _pareto(board: Board) -> Drawn | None:
    costs = costs_shown(board)
    ranked, measure, scale = board.ranked, board.measure, _percent(board)
    scored = [r for r in ranked if r.score(measure) is not None]
    known = {c: [r for r in scored if r.costs.get(c)] for c in costs}
    panels = [c for c in costs if known[c]][:3]
    if not panels:
        return None
    colours = _colours(board, ranked)
    figure, axes = new(4.4 * len(panels), 3.5, 1, len(panels), sharey=True)
    sign = 1.0 if board.higher_is_better else -1.0
    for ax, cost in zip(axes.flat, panels, strict=True):
        rows = known[cost]
        points = [(r.costs[cost] or 0.0, r.score(measure) or 0.0) for r in rows]
        best = front([(c, sign * s) for c, s in points])
        ax.step([points[n][0] for n in best], [points[n][1] * scale for n in best], where="post", color=FAINT, lw=1)
        for n, (row, (x, y)) in enumerate(zip(rows, points, strict=True)):
            colour = colours.get(row.label, "#7b8794")
            ax.plot([x], [y * scale], "o", ms=6, color=colour, markerfacecolor=colour if n in best else "white")
            if n in best or row.label == board.reference:
                ax.annotate(row.label, (x, y * scale), (4, 5), textcoords="offset points", fontsize=8, color=colour)
        if max(x for x, _ in points) > 3 * min(x for x, _ in points):
            ax.set_xscale("log")
        ax.xaxis.set_major_formatter(lambda v, _: text.count(v))
        ax.xaxis.set_minor_formatter(lambda v, _: "")
        ax.margins(x=0.15, y=0.12)
        ax.set_xlabel(costs[cost])
    axes[0, 0].set_ylabel(f"{'damaged ' if measure == DAMAGED else ''}{_axis(board)}")
    return (
        "Score and cost",
        "Filled points are on the Pareto front: nothing cheaper scores higher. Differences are not tested here.",
        figure,
        ranked,
    )


def shapley(board: Board, row: Row) -> dict[str, float] | None:
    """Modality -> Shapley value of its presence; None unless every subset has been evaluated and chance is known."""
    chance, found = oriented(board.metric, board.chance), lattice(board, row)
    if chance is None or len(board.modalities) < 2 or len(found) < 2 ** len(board.modalities) - 1:
        return None
    return stats.shapley(found, chance)


def _shapley(board: Board) -> Drawn | None:
    found = {row.label: (row, v) for row in board.ranked if row.records.fuses and (v := shapley(board, row))}
    if not found:
        return None
    scale = _percent(board)
    figure, axes = new(6.8, 0.9 + 0.26 * len(found))
    ax, high = axes[0, 0], len(found)
    for place, (_, values) in enumerate(found.values()):
        left, below = 0.0, 0.0
        for number, modality in enumerate(board.modalities):
            width = values[modality] * scale
            start = left if width >= 0 else below
            ax.barh(high - place, width, left=start, height=0.62, color=COLOURS[number % len(COLOURS)])
            if abs(width) > 0.08 * scale * max(sum(map(abs, v.values())) for _, v in found.values()):
                text = f"{width:.{1 if board.percent else 2}f}"
                ax.text(start + width / 2, high - place, text, ha="center", va="center", color="white", fontsize=7.5)
            left, below = (left + width, below) if width >= 0 else (left, below + width)
    ax.set_yticks(range(high, 0, -1), [row.name for row, _ in found.values()])
    ax.grid(axis="y", visible=False)
    ax.set_xlabel(f"gain over chance, {_axis(board)}")
    for number, modality in enumerate(board.modalities):
        ax.barh([0], [0], color=COLOURS[number % len(COLOURS)], label=modality)
    ax.set_ylim(0.4, high + 0.6)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(board.modalities))
    return (
        "What each modality brings",
        "Exact Shapley values over all subsets of present modalities; the parts of a bar sum to the gain over chance.",
        figure,
        [row for row, _ in found.values()],
    )

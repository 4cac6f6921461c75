"""The figures of the page as SVG, drawn from a board; each says its finding in numbers for those who do not see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from fusionbench import text
from fusionbench.leaderboard import Board, Row
from fusionbench.leaderboard.curves import answers as learned
from fusionbench.leaderboard.robustness import curves
from fusionbench.leaderboard.statistics import DAMAGED, SCORE
from fusionbench.report import svg
from fusionbench.report.figures import costs_shown, front, shapley

#: So many rows have a colour of their own; the others are thin and grey.
COLOURED = 6


@dataclass(frozen=True)
class Figure:
    """Panels side by side, with their words.

    Attributes:
        name: what it is, for an anchor; legend: (class of its colour, words).
        about: whole sentences that stand below it: how it is read.
        wide: are its panels a grid of their own, over the whole page?
    """

    name: str
    title: str
    about: str
    panels: list[str]
    legend: list[tuple[str, str]]
    wide: bool = False


def draw(board: Board) -> dict[str, Figure]:
    """Every figure that the board has data for, by name."""
    made = (scores(board), damage(board), cost(board), worth(board), learning(board))
    return {figure.name: figure for figure in made if figure is not None}


def _metric(board: Board) -> str:
    return f"{board.metric.replace('_', ' ')}{' in %' if board.percent else ''}"


def _said(board: Board, value: float) -> str:
    return text.score(value, board.percent)


def _tick(board: Board, value: float) -> str:
    return f"{100 * value:.3g}" if board.percent else f"{value:.3g}"


def _measure(board: Board) -> str:
    return "damaged" if board.measure == DAMAGED else "clean"


def colours(board: Board) -> dict[str, str]:
    """Label -> class: the best fused rows have colours of their own, the reference is in ink, the others are faint."""
    fused = [r.label for r in board.ranked if r.records.fuses and r.label != board.reference]
    found = {label: f"c{number}" for number, label in enumerate(fused[:COLOURED])}
    return found | ({board.reference: "ref"} if board.reference else {})


def _class(row: Row, known: dict[str, str]) -> str:
    return known.get(row.label, "other" if row.records.fuses else "single")


def _tip(words: str) -> str:
    return f' data-tip="{escape(words, quote=True)}"'


def _grid(board: Board, scale: svg.Scale, top: float, bottom: float) -> list[str]:
    """Upright lines with their values below."""
    parts = []
    for value in svg.ticks(scale):
        parts += [svg.line(scale(value), top, scale(value), bottom),
                  svg.text(scale(value), bottom + 14, _tick(board, value), anchor="middle")]  # fmt: skip
    return parts


def scores(board: Board) -> Figure | None:
    """Clean and damaged score of every ranked row, with their intervals."""
    rows = [r for r in board.ranked if r.clean is not None]
    if not rows:
        return None
    known, step, top = colours(board), 20.0, 6.0
    number_of = {row.label: number for number, row in enumerate(board.ranked)}
    bottom = top + step * len(rows)
    values = [v for r in rows for m in (SCORE, DAMAGED) for v in (r.score(m), *r.bounds(m)) if v is not None]
    scale = svg.spanning([*values, *([] if board.chance is None else [board.chance])], 132, svg.WIDTH - 8)
    parts = _grid(board, scale, top, bottom)
    if board.chance is not None:
        parts += [svg.line(scale(board.chance), top, scale(board.chance), bottom, "chance-line")]
    for number, row in enumerate(rows):
        middle = top + step * (number + 0.5)
        parts.append(svg.text(126, middle + 4, text.elided(row.name, 19), "name", "end"))
        for measure, shift, radius in ((SCORE, -4, 3.2), (DAMAGED, 4, 3.2)):
            value, (low, high) = row.score(measure), row.bounds(measure)
            if value is None:
                continue
            if low is not None and high is not None:
                parts.append(
                    svg.line(scale(low), middle + shift, scale(high), middle + shift, f"bar {_class(row, known)}")
                )
            hollow = " hollow" if measure == DAMAGED else ""
            parts.append(
                f'<circle class="dot {_class(row, known)}{hollow}" cx="{svg.at(scale(value))}" '
                f'cy="{svg.at(middle + shift)}" r="{radius}" data-row="{number_of[row.label]}" data-of="{measure}"/>'
            )
    parts.append(svg.text(svg.WIDTH - 8, bottom + 28, _metric(board), anchor="end"))
    words = f"{len(rows)} ranked rows of {board.title}. "
    for measure, name in ((DAMAGED, "Damaged"), (SCORE, "Clean")):
        some = sorted(
            (r for r in rows if r.score(measure) is not None), key=lambda r: -board.sign * (r.score(measure) or 0)
        )
        if some:
            ends = f"best {some[0].name} {_said(board, some[0].score(measure) or 0)}"
            words += (
                f"{name} {_metric(board)}: {ends}, last {some[-1].name} {_said(board, some[-1].score(measure) or 0)}. "
            )
    if board.chance is not None:
        words += f"Chance is {_said(board, board.chance)}."
    legend = [("dot ref", "clean"), ("dot ref hollow", "damaged")]
    legend += [("chance-line", f"chance, {_said(board, board.chance)}")] if board.chance is not None else []
    return Figure(
        "scores", "Scores with their 95 % intervals",
        "Bars that overlap may still differ: groups are paired, so read the verdicts.",
        [svg.drawing(parts, bottom + 34, words.strip())], legend,
    )  # fmt: skip


def damage(board: Board) -> Figure | None:
    """Score by severity, a panel for each corruption of each modality; the script tells the value under the pointer."""
    rows, known = board.ranked, colours(board)
    found = {row.label: {f: c for f, c in curves(board, row).items() if len(c) > 2} for row in rows}
    families = list(dict.fromkeys(f for c in found.values() for f in c))
    values = [board.sign * v for c in found.values() for curve in c.values() for v in curve if v is not None]
    if not families or not values:
        return None
    y = svg.spanning(values, 170, 8)
    panels, number_of = [], {row.label: number for number, row in enumerate(rows)}
    for family in families:
        mine = [(row, found[row.label][family]) for row in rows if family in found[row.label]]
        whole = [(row, [board.sign * v for v in curve if v is not None]) for row, curve in mine if None not in curve]
        if not whole:
            continue
        x = svg.Scale(0, len(whole[0][1]) - 1, 40, svg.WIDTH - 10)
        parts = [svg.text(40, 204, "clean"), svg.text(svg.WIDTH - 10, 204, "severity", anchor="end")]
        for value in svg.ticks(y):
            parts += [
                svg.line(40, y(value), svg.WIDTH - 10, y(value)),
                svg.text(34, y(value) + 4, _tick(board, value), anchor="end"),
            ]
        parts += [svg.text(x(n), 188, str(n), anchor="middle") for n in range(len(whole[0][1]))]
        for row, curve in reversed(whole):  # the best on top
            points = " ".join(f"{svg.at(x(n))},{svg.at(y(v))}" for n, v in enumerate(curve))
            parts.append(
                f'<polyline class="line {_class(row, known)}" data-row="{number_of[row.label]}" points="{points}"/>'
            )
        more = f' class="curves" tabindex="0" data-family="{escape(str(family), quote=True)}"'
        title = f"<h4>{escape(str(family))}</h4>"
        panels.append(title + svg.drawing(parts, 208, _fall(board, str(family), whole), more))
    legend = [(f"line {known[row.label]}", row.name) for row in rows if row.label in known]
    legend += [("line single", "one modality alone"), ("line other", "the other rows")]
    used = {"line single": any(not r.records.fuses for r in rows),
            "line other": any(r.records.fuses and r.label not in known for r in rows)}  # fmt: skip
    return Figure(
        "curves", "Damage curves",
        f"Score ({_metric(board)}) by severity, 0 is clean. Point at a line, or press the arrow keys, for its value.",
        panels, [entry for entry in legend if used.get(entry[0], True)], wide=True,
    )  # fmt: skip


def _fall(board: Board, family: str, rows: Sequence[tuple[Row, list[float]]]) -> str:
    """What a panel of curves shows, in numbers."""
    last = len(rows[0][1]) - 1
    order = sorted(rows, key=lambda r: -board.sign * r[1][-1])
    (best, top), (worst, end) = order[0], order[-1]
    said = f"{family}: {_metric(board)} from clean to severity {last}. At severity {last} the best is {best.name}, "
    said += f"{_said(board, top[0])} to {_said(board, top[-1])}; the last is {worst.name}, "
    said += f"{_said(board, end[0])} to {_said(board, end[-1])}"
    base = next((curve for row, curve in rows if row.label == board.reference), None)
    if base is not None:
        said += f"; the reference {board.reference} goes from {_said(board, base[0])} to {_said(board, base[-1])}"
    return f"{said}."


def cost(board: Board) -> Figure | None:
    """Score against what a row costs; on the front nothing cheaper scores higher."""
    columns = {"trained": "parameters", "latency": "latency", "latency_batch": "latency-batch", "train": "seconds"}
    costs = costs_shown(board)
    known = colours(board)
    scored = [(r, v) for r in board.ranked if (v := r.score(board.measure)) is not None]
    panels = []
    for name, words in costs.items():
        rows = [(row, float(c), value) for row, value in scored if (c := row.costs.get(name))]
        if rows:
            panels.append(f"<h4>by {escape(words)}</h4>" + _against(board, rows, words, known, columns[name]))
    if not panels:
        return None
    return Figure(
        "pareto", "Score and cost",
        f"The {_measure(board)} score by cost; filled points are on the Pareto front: nothing cheaper scores higher. "
        "Differences are not tested here. Names stand where there is room; point at the others.",
        panels, [], wide=True,
    )  # fmt: skip


def _against(
    board: Board, rows: Sequence[tuple[Row, float, float]], words: str, known: dict[str, str], column: str
) -> str:
    left, right, top, bottom = 40.0, svg.WIDTH - 10.0, 10.0, 210.0
    x = svg.spanning(
        [c for _, c, _ in rows], left, right, max(c for _, c, _ in rows) > 3 * min(c for _, c, _ in rows), 0.08
    )
    y = svg.spanning([v for _, _, v in rows], bottom, top, margin=0.1)
    best = front([(c, board.sign * v) for _, c, v in rows])
    parts = []
    for value in svg.ticks(x, 4):
        parts += [
            svg.line(x(value), top, x(value), bottom),
            svg.text(x(value), bottom + 15, text.count(value), anchor="middle"),
        ]
    for value in svg.ticks(y):
        parts += [
            svg.line(left, y(value), right, y(value)),
            svg.text(left - 5, y(value) + 4, _tick(board, value), anchor="end"),
        ]
    steps = "".join(
        f"{'H' if n else 'M'}{svg.at(x(rows[i][1]))}{f'V{svg.at(y(rows[i][2]))}' if n else f' {svg.at(y(rows[i][2]))}'}"
        for n, i in enumerate(best)
    )
    parts.append(f'<path class="front" d="{steps}H{svg.at(right)}"/>')
    number_of = {row.label: number for number, row in enumerate(board.ranked)}
    first = [*best, *(i for i in range(len(rows)) if i not in best)]
    first.sort(key=lambda i: i not in best and rows[i][0].label != board.reference)
    points = [(x(rows[i][1]), y(rows[i][2])) for i in first]
    labels = [text.elided(rows[i][0].label, 24) for i in first]
    for i, label, where in zip(first, labels, svg.placed(points, labels, (left, 0, svg.WIDTH, bottom)), strict=True):
        row, c, value = rows[i]
        hollow = "" if i in best else " hollow"
        parts.append(
            f'<circle class="dot {_class(row, known)}{hollow}" cx="{svg.at(x(c))}" cy="{svg.at(y(value))}" r="4" '
            f'data-row="{number_of[row.label]}"/>'
        )
        if where is not None:
            parts.append(svg.text(*where, label, "label"))
    ends = "; ".join(f"{rows[i][0].name} {_said(board, rows[i][2])} at {text.cost(rows[i][1])}" for i in best)
    return svg.drawing(
        parts,
        232,
        f"{_measure(board)} {_metric(board)} by {words}, {len(rows)} rows. On the Pareto front: {ends}.",
        f' data-of="{board.measure} {column}"',
    )


def worth(board: Board) -> Figure | None:
    """What each modality brings: Shapley values over the lattice."""
    found = [(row, v) for row in board.ranked if row.records.fuses and (v := shapley(board, row))]
    if not found:
        return None
    step, top = 20.0, 6.0
    bottom = top + step * len(found)
    sides = [sum(v for v in values.values() if (v < 0) == below) for _, values in found for below in (True, False)]
    scale = svg.spanning([0.0, *sides], 132, svg.WIDTH - 8, margin=0.02)
    parts = _grid(board, scale, top, bottom)
    for number, (row, values) in enumerate(found):
        middle, below, above = top + step * (number + 0.5), 0.0, 0.0
        parts.append(svg.text(126, middle + 4, text.elided(row.name, 19), "name", "end"))
        for place, modality in enumerate(board.modalities):
            value = values[modality]
            start = below if value < 0 else above
            x1, x2 = sorted((scale(start), scale(start + value)))
            said = f"{modality} {text.gap(value, board.percent, signed=True)}"
            parts.append(
                f'<rect class="fill c{place % COLOURED}" x="{svg.at(x1)}" y="{svg.at(middle - 6)}" '
                f'width="{svg.at(x2 - x1)}" height="12"{_tip(said)}/>'
            )
            below, above = (below + value, above) if value < 0 else (below, above + value)
    parts.append(svg.text(svg.WIDTH - 8, bottom + 28, f"gain over chance, {_metric(board)}", anchor="end"))
    row, values = found[0]
    each = ", ".join(f"{m} {text.gap(v, board.percent, signed=True)}" for m, v in values.items())
    return Figure(
        "shapley", "What each modality brings",
        "Exact Shapley values over all subsets of present modalities; the parts of a bar sum to the gain over chance.",
        [svg.drawing(parts, bottom + 34, f"Shapley values of {len(found)} rows; of {row.name}: {each}.")],
        [(f"fill c{n % COLOURED}", m) for n, m in enumerate(board.modalities)],
    )  # fmt: skip


def learning(board: Board) -> Figure | None:
    """Score by the share of the training groups."""
    curve = board.curve
    if curve is None:
        return None
    known = colours(board)
    ends = {name: by_share[curve.shares[-1]] for name, by_share in curve.rows.items()}
    lines = {n: [(s, r) for s, r in sorted(rows.items()) if r.clean is not None] for n, rows in curve.rows.items()}
    values = [r.clean or 0.0 for points in lines.values() for _, r in points]
    if not values:
        return None
    x, y = svg.Scale(curve.shares[0], curve.shares[-1], 46, svg.WIDTH - 14, True), svg.spanning(values, 170, 10)
    parts = [svg.text(x(s), 188, f"{s:g}", anchor="middle") for s in curve.shares]
    for value in svg.ticks(y):
        parts += [
            svg.line(40, y(value), svg.WIDTH - 8, y(value)),
            svg.text(34, y(value) + 4, _tick(board, value), anchor="end"),
        ]
    for name, points in lines.items():
        kind = known.get(ends[name].label, "other")
        joined = " ".join(f"{svg.at(x(s))},{svg.at(y(r.clean or 0.0))}" for s, r in points)
        parts.append(f'<polyline class="line {kind}" points="{joined}"/>')
        parts += [
            f'<circle class="dot {kind}" cx="{svg.at(x(s))}" cy="{svg.at(y(r.clean or 0.0))}" r="3.5"'
            f"{_tip(f'{name}, share {s:g}: {_said(board, r.clean or 0.0)}')}/>"
            for s, r in points
        ]
    parts.append(svg.text(svg.WIDTH - 8, 204, f"share of the training {text.plural(board.unit)}", anchor="end"))
    said = "; ".join(
        f"{name} {' to '.join(_said(board, r.clean or 0.0) for _, r in (points[0], points[-1]))}"
        for name, points in lines.items() if points
    )  # fmt: skip
    return Figure(
        "learning", "Learning curves",
        " ".join(["Score on undamaged input by the share of training groups kept.", *learned(board)]),
        [svg.drawing(parts, 208, f"From share {curve.shares[0]:g} to {curve.shares[-1]:g}: {said}.")],
        [(f"line {known.get(row.label, 'other')}", name) for name, row in ends.items()],
    )  # fmt: skip

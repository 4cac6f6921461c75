"""What a search buys, by its budget: score against trials and seconds, and what it was worth on test people.

    python bench/searched.py                  # to searched.md and searched.svg, from the published searches
    python bench/searched.py --results other

Trial 0 is the defaults, so the column "defaults" is what no search costs. Scores are means over the outer folds that
were searched, on validation people; the last two columns are the same folds' test people, seed by seed the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib
from matplotlib.lines import Line2D
from tabulate import tabulate

from fusionbench import metrics, registry, search, text
from fusionbench.harness import CLEAN
from fusionbench.records import Record, store
from fusionbench.report import drawing, tuning

HERE = Path(__file__).parent
SHOWN = (5, 10, 20, 30)  # trials
STYLES = [(style, colour) for style in ("-", "--") for colour in drawing.COLOURS]


def searches(results: Path, benchmark: str) -> dict[str, dict[int, Any]]:
    """Fuser -> outer fold -> study, of the searches that this protocol made."""
    found = {}
    for path in sorted((results / benchmark).glob("*/tuned.json")):
        tuned = search.outcome.read(path)
        if tuned is not None and tuned.protocol == search.outcome.PROTOCOL:
            found[path.parent.name] = search.restored(results, benchmark, path.parent.name)
    return found


def budgets(results: Path, sets: Mapping[str, Mapping[str, Any]]) -> str:
    """The flags of `fusionbench tune` that all searches were made with; several where they differ."""
    found = set()
    for benchmark, fusers in sets.items():
        for fuser in fusers:
            tuned = search.outcome.read(results / benchmark / fuser / "tuned.json")
            assert tuned is not None
            budget = tuned.budget
            found.add(f"--trials {budget['trials']} --inner {budget['inner_folds']} --seeds {budget['seeds']}")
    return " or ".join(sorted(found))


def on_test(records: list[Record], fuser: str, folds: Mapping[int, Any]) -> tuple[float | None, float | None]:
    """The mean test score of the runs with defaults, and of the tuned ones, over the same folds and seeds."""
    scores: dict[bool, dict[tuple[int, int], float]] = {False: {}, True: {}}
    for r in records:
        score = r.scores.get(CLEAN, {}).get(r.metrics[0])
        if r.run.fuser == fuser and r.run.fold in folds and not r.changed and not r.run.ensemble and score is not None:
            scores[bool(r.run.tuned)][r.run.fold, r.run.seed] = score
    both = scores[False].keys() & scores[True].keys()
    if not both:
        return None, None
    return fmean(scores[False][run] for run in both), fmean(scores[True][run] for run in both)


def table(results: Path, benchmark: str, found: Mapping[str, Mapping[int, Any]]) -> str:
    """Markdown: a line a fuser, the best score after each budget, seconds, folds, and test scores."""
    records = [r for r in store.load(results, benchmark) if r.status == "done"]
    percent = bool(records) and metrics.get(records[0].metrics[0]).percent
    curves = {fuser: tuning.spent(list(studies.values())) for fuser, studies in found.items()}
    lines, gains = [], list[tuple[float, float]]()
    for fuser in sorted(found, key=lambda name: -curves[name][-1][1]):
        studies, curve = found[fuser], curves[fuser]
        after = [curve[n - 1][1] if n <= len(curve) else None for n in SHOWN]
        default, tuned = on_test(records, fuser, studies)
        if default is not None and tuned is not None:
            gains.append((curve[-1][1] - curve[0][1], tuned - default))
        cells = [curve[0][1], *after]
        lines.append(
            [fuser, *(shown(value, percent) for value in cells), f"{curve[-1][0]:.0f}", ",".join(map(str, studies)),
             shown(default, percent), shown(tuned, percent)]
        )  # fmt: skip
    after = [f"{n} trials" for n in SHOWN]
    heads = ["row", "defaults", *after, "seconds a fold", "folds", "test, defaults", "test, tuned"]
    drawn = str(tabulate(lines, heads, tablefmt="github", disable_numparse=True))
    if not gains:
        return drawn
    validation, test = (text.gap(fmean(gain), percent, signed=True) for gain in zip(*gains, strict=True))
    told = f"Gain of the search, mean over {len(gains)} rows: {validation} on validation, {test} on test people."
    return f"{drawn}\n\n{told}"


def shown(value: float | None, percent: bool) -> str:
    return "-" if value is None else text.score(value, percent)


def figure(sets: Mapping[str, Mapping[str, Mapping[int, Any]]]) -> Any:
    """A panel a set, two side by side: the best validation score so far against the seconds of search."""
    names = sorted({fuser for found in sets.values() for fuser in found})
    styles = dict(zip(names, STYLES, strict=False))
    rows = -(-len(sets) // 2)
    made, axes = drawing.new(9.6, 0.4 + 2.9 * rows, rows, 2)
    for ax, (benchmark, found) in zip(axes.flat, sets.items(), strict=False):
        for fuser, studies in found.items():
            seconds, best = zip(*tuning.spent(list(studies.values())), strict=True)
            style, colour = styles[fuser]
            ax.step(seconds, best, where="post", ls=style, color=colour, lw=1.4)
            ax.plot(seconds[0], best[0], "o", ms=4, color=colour)
        ax.set_xscale("log")
        ax.set_title(benchmark, loc="left")
        ax.set_xlabel("seconds of search, an outer fold")
        ax.set_ylabel("best validation so far")
    for ax in list(axes.flat)[len(sets) :]:
        ax.remove()
    handles = [Line2D([], [], ls=style, color=colour, label=name) for name, (style, colour) in styles.items()]
    made.legend(handles=handles, loc="outside right upper")
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=HERE.parent / "results")
    parser.add_argument("--out", type=Path, default=HERE / "searched.md")
    given = parser.parse_args()
    names = [path.name for path in sorted(given.results.iterdir()) if path.name in registry.names("benchmarks")]
    sets = {name: found for name in names if (found := searches(given.results, name))}
    made = budgets(given.results, sets)
    parts = [
        "# What a search buys", "",
        f"`python bench/searched.py`; made by `fusionbench tune ROW -b SET {made}`, the trials lie beside the records.",
        "Means over the outer folds: the best score so far on validation people, who were searched on, then test",
        "people of the same folds: defaults, and `fusionbench run --fuser ROW -b SET --tuned`, not published.",
        "", "![The best validation score so far against the seconds of search](searched.svg)",
    ]  # fmt: skip
    for name, found in sets.items():
        parts += ["", f"## {name}", "", table(given.results, name, found)]
    given.out.write_text("\n".join(parts) + "\n")
    with matplotlib.rc_context(drawing.STYLE):
        picture = drawing.Picture("searched", "What a search buys", "", figure(sets), [])
    given.out.with_suffix(".svg").write_text(picture.svg())
    print("\n".join(parts))


if __name__ == "__main__":
    main()

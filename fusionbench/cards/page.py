"""The page of a benchmark in Markdown."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from typing import Any

from fusionbench import contract, registry
from fusionbench.api import Benchmark
from fusionbench.cards.committed import published
from fusionbench.cards.figures import Figures
from fusionbench.text import counted

MANY = 12  # classes, whose shares are not named one by one


def about(benchmark: Benchmark) -> str:
    """What its file says of itself."""
    return inspect.cleandoc(sys.modules[type(benchmark).__module__].__doc__ or "No description.")


def page(name: str, benchmark: Benchmark, figures: Figures | None, audit: Mapping[str, Any] | None) -> str:
    """The page; without figures it says how to get the data that they need."""
    summary, _, rest = about(benchmark).partition("\n")
    lines = [f"# {registry.plugin_name(name)}", "", summary, ""]
    lines += [rest.strip(), ""] if rest.strip() else []
    if figures is None:
        known = published(name)
        how = f"`fusionbench data get {known}`" if known else f"see {benchmark.source}"
        lines += [f"The figures need the data, which were not at hand: {how}.", ""]
    lines += ["| | |", "|---|---|", *(f"| {fact} | {_cell(said)} |" for fact, said in _facts(benchmark, figures))]
    lines += ["", "## Modalities", "", "| modality | a sample | steps a second | missing samples | missing steps |",
              "|---|---|---|---|---|"]  # fmt: skip
    for m, shape in benchmark.shapes.items():
        found = figures.modalities[m] if figures else None
        step = " x ".join(map(str, shape)) or "1"
        rate = f"{benchmark.rates[m]:g}" if m in benchmark.rates else "-"
        sample = f"{counted(found.steps, 'step')} of {step}" if found else f"steps of {step}"
        shares = [_share(found.absent), _share(found.missing)] if found else ["-", "-"]
        lines.append(f"| {' | '.join([m, sample, rate, *shares])} |")
    if benchmark.reference_scores:
        lines += ["", "## Scores of others", ""]
        lines += [f"- {who}: {score}" for who, score in benchmark.reference_scores.items()]
    if benchmark.caveats:
        lines += ["", "## What would inflate a score", "", *(f"- {caveat}" for caveat in benchmark.caveats)]
    return "\n".join([*lines, "", "## Audit", "", *_audited(name, audit)]) + "\n"


def _facts(benchmark: Benchmark, figures: Figures | None) -> list[tuple[str, str]]:
    task = benchmark.task
    found = [
        ("task", f"{task.kind}, {task.out} {'classes' if task.kind == 'classify' else 'values'} "
         f"{'a frame' if task.per_frame else 'a sample'}, ranked by {task.metrics[0]}"),
        ("splits", counted(benchmark.folds, "fold")),
    ]  # fmt: skip
    if figures:
        folds, *sides = figures.splits
        said = ", ".join(f"{n} {side}" for n, side in zip(sides, contract.SIDES, strict=True))
        found[1] = ("splits", f"{counted(folds, 'fold')}: {said} samples on average")
        found.insert(0, ("samples", figures.counted))
        if figures.labels:
            found.append(("labels", _labels(benchmark, figures)))
        said = "; ".join(f"{a} ({', '.join(values)})" for a, values in figures.attributes.items())
        found.append(("attributes", said or "none"))
    return [
        *found,
        ("samples have a time", "yes" if contract.has_order(benchmark) else "no"),
        ("transductive", benchmark.transductive or "no"),
        *([("subject dependent", benchmark.subject_dependent)] if benchmark.subject_dependent else []),
        ("role", benchmark.role),
        ("licence", benchmark.licence or "not declared"),
        ("source", benchmark.source or "not declared"),
        ("citation", benchmark.citation or "not declared"),
    ]


def _labels(benchmark: Benchmark, figures: Figures) -> str:
    """The share of each class, or the least and the greatest of many."""
    shares = [n / sum(figures.labels) for n in figures.labels]
    if len(shares) > MANY:
        return f"{min(shares):.1%} to {max(shares):.1%} a class"
    names = benchmark.classes or tuple(map(str, range(len(shares))))
    return ", ".join(f"{label} {share:.1%}" for label, share in zip(names, shares, strict=True))


def _cell(said: str) -> str:
    return said.replace("|", "\\|")


def _share(share: float | None) -> str:
    return "raw media" if share is None else f"{share:.1%}"


def _audited(name: str, audit: Mapping[str, Any] | None) -> list[str]:
    if audit is None:
        return [f"None is committed: `fusionbench audit {name}`."]
    rows = [f"| {f['question']} | {f['verdict']} | {_cell(f['evidence'])} |" for f in audit["findings"]]
    return [f"`fusionbench audit {name}`: {audit['summary']}; scores are {audit['metric']}.", "",
            "| question | verdict | evidence |", "|---|---|---|", *rows]  # fmt: skip

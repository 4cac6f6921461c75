"""How far every fuser is from its authors' code: `python bench/fidelity/run.py [--checkouts DIR] [--write | --check]`.

With a folder of checkouts (DIR/owner/name, or DIR/name) the methods whose repository lies there are measured again;
the others keep the figure in `figures.json`. `--write` writes the figures, the sentences of the docstrings that state
them and `docs/fidelity.md`; `--check` fails if these do not agree. The authors' code is imported and run: look at it
first. What a row says besides the figure stands in the fuser's docstring.
"""

from __future__ import annotations

import argparse
import datetime
import inspect
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
FIGURES = HERE / "figures.json"
PAGE = HERE.parents[1] / "docs" / "fidelity.md"
HEAD = """# Fidelity

Written by `python bench/fidelity/run.py --write`; do not edit. Every fuser has a row: either it was compared with its
authors' code, the same weights on the same numbers, or the row says why not. A difference is the largest one, relative
to how far the authors' outputs for several samples lie from their mean, in double precision: 1e-10 and less is
rounding, 1e-8 to 1e-6 that one of the two computes a part in single precision. The last column lists every departure,
of the parts that were not compared too; it is the "Ours" paragraph of the fuser's docstring.

To repeat it, check the authors' repositories out as `DIR/owner/name` and run `python bench/fidelity/run.py --checkouts
DIR`. Their code is not part of this repository.

| fuser | paper | authors' code | compared | largest difference | departures |
|---|---|---|---|---|---|
"""


def docstrings() -> dict[str, list[str]]:
    """fuser -> the paragraphs of its docstring, each on one line."""
    from fusionbench import registry

    found = {}
    for name in registry.names("fusers"):
        text = inspect.cleandoc(sys.modules[registry.load("fusers", name).__module__].__doc__ or "")
        found[name] = [" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text)]
    return found


def sentence(figure: Mapping[str, Any]) -> str:
    """As a docstring states a figure."""
    at = f"{figure['code']}@{figure['commit']}"
    return f"Compared with {at}: largest difference {figure['difference']:.0g} ({figure['compared']})."


def page(texts: Mapping[str, list[str]], figures: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for name, paragraphs in texts.items():
        link = re.search(r"https://\S*[^\s.,:;)]", " ".join(paragraphs))
        paper = f"[link]({link[0]})" if link else "none"
        ours = next((p.removeprefix("Ours: ") for p in paragraphs if p.startswith("Ours: ")), "")
        if name in figures:
            figure = figures[name]
            at = f"[{figure['code']}](https://github.com/{figure['code']}) `{figure['commit']}`"
            cells = [paper, at, figure["compared"], f"{figure['difference']:.0g} ({figure['date']})", ours]
        elif compared := compared_by_hand(paragraphs):
            cells = [paper, *compared, ours]
        else:
            cells = [paper, "", reason(paragraphs), "", ours]
        rows.append(f"| {name} | {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return HEAD + "\n".join(rows) + "\n"


def compared_by_hand(paragraphs: list[str]) -> tuple[str, str, str] | None:
    """Code, what, difference of a comparison that a docstring states and this folder does not repeat yet."""
    found = re.search(r"Compared with (\S+)@(\w+)\b.*?\b(?:difference|differ by) (\d\S*).*", "\n".join(paragraphs))
    if not found:
        return None
    what = re.sub(r"^Compared with \S+?@\w+,? *", "", found[0])
    return (
        f"[{found[1]}](https://github.com/{found[1]}) `{found[2]}`",
        what,
        f"{found[3].rstrip('.,:')} (not repeated here)",
    )


def reason(paragraphs: list[str]) -> str:
    """Why a fuser was not compared; empty if its docstring does not say."""
    return next((p for p in paragraphs if p.startswith("Not compared: ")), "")


def problems(texts: Mapping[str, list[str]], figures: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What docstrings, figures and page do not agree on, a line each."""
    found = [f"{name}: figures.json has it, and there is no such fuser" for name in figures if name not in texts]
    for name, paragraphs in texts.items():
        if name in figures and sentence(figures[name]) not in paragraphs:
            found.append(f"{name}: the docstring does not state {sentence(figures[name])!r}")
        if name in figures and reason(paragraphs):
            found.append(f"{name}: the docstring says 'Not compared', and figures.json has a figure")
        if name not in figures and not compared_by_hand(paragraphs) and not reason(paragraphs):
            found.append(f"{name}: the docstring has neither 'Compared with ...' nor 'Not compared: ...'")
        if not any(p.startswith("Ours: ") for p in paragraphs):
            found.append(f"{name}: the docstring has no paragraph 'Ours: ...'")
    if not PAGE.is_file() or PAGE.read_text() != page(texts, figures):
        found.append(f"{PAGE.name} is stale: python bench/fidelity/run.py --write")
    return found


def measure(checkouts: Path, figures: dict[str, dict[str, Any]]) -> None:
    """Measures again what the checkouts allow, into `figures`, and prints it."""
    import authors
    import compare
    import torch

    torch.set_default_dtype(torch.float64)
    for comparison in compare.COMPARISONS:
        folder = authors.find(checkouts, comparison.code)
        if folder is None:
            print(f"{comparison.fuser:16} no checkout of {comparison.code}")
            continue
        try:
            with authors.on_cpu():
                difference = float(f"{comparison.measure(folder):.0e}")
        except ModuleNotFoundError as error:
            print(f"{comparison.fuser:16} its authors' code needs {error.name}, which is not installed")
            continue
        new = {
            "code": comparison.code,
            "commit": authors.commit(folder),
            "compared": comparison.what,
            "difference": difference,
        }
        print(f"{comparison.fuser:16} {difference:<6.0g} {comparison.what}")
        if {**figures.get(comparison.fuser, {}), **new} != figures.get(comparison.fuser):  # else the date stays
            figures[comparison.fuser] = {**new, "date": datetime.date.today().isoformat()}


def restate(texts: Mapping[str, list[str]], figures: Mapping[str, Mapping[str, Any]]) -> None:
    """Rewrites the docstring sentences that state a figure which has changed."""
    import textwrap

    for name, figure in figures.items():
        path = HERE.parents[1] / "fusers" / f"{name}.py"
        if sentence(figure) in texts[name]:
            continue
        wrapped = "\n".join(textwrap.wrap(sentence(figure), 119, break_long_words=False, break_on_hyphens=False))
        text, count = re.subn(
            r"(?ms)^Compared with .*?(?=\n\n|\"\"\")", lambda _, new=wrapped: new, path.read_text(), count=1
        )
        if not count:
            text = text.replace("\nOurs: ", f"\n{wrapped}\n\nOurs: ", 1)
        path.write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkouts", type=Path, metavar="DIR", help="a folder of the authors' repositories")
    parser.add_argument("--write", action="store_true", help="write the figures, the docstrings and docs/fidelity.md")
    parser.add_argument("--check", action="store_true", help="fail if figures, docstrings and page disagree")
    given = parser.parse_args()
    figures = json.loads(FIGURES.read_text()) if FIGURES.is_file() else {}
    if given.checkouts:
        if not given.checkouts.is_dir():
            sys.exit(f"{given.checkouts} is not a folder")
        measure(given.checkouts, figures)
    texts = docstrings()
    if given.write:
        FIGURES.write_text(json.dumps(dict(sorted(figures.items())), indent=2) + "\n")
        restate(texts, figures)
        stated = {name: [sentence(figures[name])] if name in figures else [] for name in texts}
        texts = {
            name: [p for p in paragraphs if not (stated[name] and p.startswith("Compared with "))] + stated[name]
            for name, paragraphs in texts.items()
        }
        PAGE.write_text(page(texts, figures))
    if given.check and (found := problems(texts, figures)):
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()

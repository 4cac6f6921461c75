"""Writes docs/benchmarks/<name>.md and .croissant.json of every benchmark: `python docs/_benchmarks.py [NAME ...]`.

Figures are measured where the data are here and kept in <name>.figures.json; where they are not, those that are
committed stand. An audit that is committed as <name>.audit.json (`fusionbench audit NAME --format json`) is taken in.
`--check` fails if a page is not what benchmark, figures and audit give, or figures are of other code or another audit:
it needs no data.
"""

from __future__ import annotations

import re
import sys

from fusionbench import cards, registry
from fusionbench.cards.committed import FOLDER, as_json
from fusionbench.errors import UsageError


def write(name: str) -> str:
    """Figures, page and metadata of one benchmark; what became of the figures, in a line."""
    try:
        figures: cards.Figures | None = cards.measure(name)
        said = "measured"
    except UsageError as error:
        figures = cards.figures_of(name)
        said = f"{'kept' if figures else 'none'} ({error})"
    if figures:
        (FOLDER / f"{name}.figures.json").write_text(as_json(figures))
    for kind, text in zip(("md", "croissant.json"), cards.drawn(name, figures, cards.audit_of(name)), strict=True):
        (FOLDER / f"{name}.{kind}").write_text(text)
    return f"{name}: figures {said}"


def wrong(name: str) -> list[str]:
    """What is stale of one benchmark, a line each."""
    figures, audit = cards.figures_of(name), cards.audit_of(name)
    found = []
    if figures and figures.code != registry.fingerprint(registry.load("benchmarks", name)):
        found.append(f"{name}.figures.json is of other code")
    if figures and audit:
        looked_at = [int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*", audit["summary"])[:3]]
        if looked_at != [figures.samples, figures.groups, figures.splits[0]]:
            found.append(f"{name}.audit.json is of other data: fusionbench audit {name} --format json")
    for kind, text in zip(("md", "croissant.json"), cards.drawn(name, figures, audit), strict=True):
        path = FOLDER / f"{name}.{kind}"
        if not path.is_file() or path.read_text() != text:
            found.append(f"{path.name} is stale")
    return found


if __name__ == "__main__":
    names = sorted(registry.names("benchmarks"))
    if sys.argv[1:] == ["--check"]:
        if problems := [line for name in names for line in wrong(name)]:
            sys.exit("\n".join([*problems, "python docs/_benchmarks.py writes them again"]))
    else:
        for chosen in sys.argv[1:] or names:
            print(write(chosen), flush=True)

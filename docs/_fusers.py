"""Writes docs/fusers.md from the fusers themselves: `python docs/_fusers.py`; `--check` fails if the page is stale."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

from fusionbench import harness, hparams, registry

PAGE = Path(__file__).with_name("fusers.md")


def page() -> str:
    lines = ["# The fusers", "", "Written by `python docs/_fusers.py` from the files in `fusers/`; do not edit.", ""]
    names = registry.names("fusers")
    lines += ["| fuser | parameters on `watch` | what it computes |", "|---|---|---|"]
    sections = []
    for name in names:
        plugin = registry.load("fusers", name)
        text = inspect.cleandoc(sys.modules[plugin.__module__].__doc__ or "")
        summary, _, rest = text.partition("\n")
        setup = harness.setup("watch", name)
        count = "fitted in one call"
        if not setup.is_estimator:
            count = f"{sum(p.numel() for p in setup.blueprint.build(0, {}, 1000).fuser.parameters()):,}"
        lines.append(f"| [{name}](#{name}) | {count} | {summary} |")
        sections += ["", f"## {name}", "", summary]
        if rest.strip():
            sections += ["", rest.strip()]
        declared = hparams.read(plugin)
        if declared:
            sections += ["", "| hyper-parameter | default | search range | |", "|---|---|---|---|"]
        for h in declared.values():
            domain = str(h.domain or "not searched").replace("|", ", ")
            sections.append(f"| `{h.name}` | `{h.default!r}` | {domain} | {h.help} |")
        sections += [f"\nKnown failure of `{check}`: {reason}" for check, reason in plugin.known_failures.items()]
    return "\n".join([*lines, *sections]) + "\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        if not PAGE.is_file() or PAGE.read_text() != page():
            sys.exit(f"{PAGE.name} is stale: python docs/_fusers.py")
    else:
        PAGE.write_text(page())

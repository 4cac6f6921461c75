"""Writes docs/fusers.md from the fusers themselves: `python docs/_fusers.py`; `--check` fails if the page is stale."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

from fusionbench import harness, hparams, registry
from fusionbench.api import Fuser
from fusionbench.errors import UsageError

PAGE = Path(__file__).with_name("fusers.md")


def page() -> str:
    lines = ["# The fusers", "", "Written by `python docs/_fusers.py` from the files in `fusers/`; do not edit.", ""]
    lines += ["How far each is from its authors' code: [fidelity.md](fidelity.md). A dash: it has to be told more.", ""]
    names = registry.names("fusers")
    lines += ["| fuser | parameters on `watch` | what it computes |", "|---|---|---|"]
    sections = []
    for name in names:
        plugin = registry.load("fusers", name)
        text = inspect.cleandoc(sys.modules[plugin.__module__].__doc__ or "")
        summary, _, rest = text.partition("\n")
        lines.append(f"| [{name}](#{name}) | {parameters(name)} | {summary} |")
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


def parameters(name: str) -> str:
    """How many parameters a fuser has on `watch`; a dash where it cannot be built without being told more."""
    try:
        model = harness.setup("watch", name).blueprint.build(0, {}, 1000)
    except UsageError:
        return "-"
    if not isinstance(model.fuser, Fuser):
        return "fitted"
    return f"{sum(p.numel() for p in model.fuser.parameters()):,}"


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        if not PAGE.is_file() or PAGE.read_text() != page():
            sys.exit(f"{PAGE.name} is stale: python docs/_fusers.py")
    else:
        PAGE.write_text(page())

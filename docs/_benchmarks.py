"""Writes docs/benchmarks/<name>.md and .croissant.json from the benchmarks: `python docs/_benchmarks.py [NAME ...]`.

An audit that is committed as <name>.audit.json (`fusionbench audit NAME --format json`) is taken in. Without names:
those that have an audit.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from fusionbench import cards

FOLDER = Path(__file__).with_name("benchmarks")


def write(name: str) -> None:
    """The page and the metadata of one benchmark."""
    path = FOLDER / f"{name}.audit.json"
    audit = json.loads(path.read_text()) if path.is_file() else None
    (FOLDER / f"{name}.md").write_text(cards.card(name, audit=audit))
    (FOLDER / f"{name}.croissant.json").write_text(cards.croissant(name, audit=audit))


if __name__ == "__main__":
    for chosen in sys.argv[1:] or sorted(path.name.split(".")[0] for path in FOLDER.glob("*.audit.json")):
        write(chosen)

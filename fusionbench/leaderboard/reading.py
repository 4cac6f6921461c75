"""How a board's scores are to be read: what its benchmark declares beside the numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fusionbench import registry
from fusionbench.records.rows import BoardRecords


@dataclass(frozen=True)
class Reading:
    """What a benchmark declares of how its scores are read (`api.Benchmark`).

    Attributes:
        unit: what a group is.
        margin: the smallest difference that matters; None: nothing is called equivalent.
        frozen: every run that counts was made under this margin; else it was named with scores in sight.
        domain, role: what the set is averaged with over many data sets.
    """

    unit: str = "group"
    margin: float | None = None
    frozen: bool = True
    domain: str = ""
    role: str = "headline"


def reading(found: BoardRecords) -> Reading:
    """What the first record that says so was made under; of older records what the plugin that is here declares."""
    records = [r for row in found.rows for r in row.records]
    said = sorted((r for r in records if r.reading), key=lambda r: r.created)
    name = found.first.run.benchmark
    declared: Mapping[str, Any] = said[0].reading if said else registry.reading_here(name)
    margin = declared.get("margin")
    if not isinstance(margin, int | float) or isinstance(margin, bool) or not margin > 0:
        margin = None
    ranked = [r for row in found.rows if row.ranked for r in row.used]
    return Reading(
        unit=str(declared.get("unit") or "group"),
        margin=margin,
        frozen=all(r.reading.get("margin") == margin for r in ranked),
        domain=str(declared.get("domain") or name),
        role=str(declared.get("role") or "headline"),
    )

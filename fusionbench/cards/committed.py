"""What is committed of a benchmark in `docs/benchmarks/`: figures of its data and an audit, as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import fusionbench
from fusionbench import data, registry
from fusionbench.cards.figures import Figures, Modality
from fusionbench.errors import UsageError

FOLDER = Path(fusionbench.__file__).resolve().parent.parent / "docs" / "benchmarks"
Audit = Mapping[str, Any]


def figures_of(name: str) -> Figures | None:
    """The committed figures of a benchmark; None where there are none.

    Raises:
        UsageError: the file is damaged.
    """
    found = _read(name, "figures")
    if found is None:
        return None
    try:
        modalities = {m: Modality(**said) for m, said in found.pop("modalities").items()}
        return Figures(**found, modalities=modalities)
    except (KeyError, TypeError, AttributeError):
        raise _damaged(_path(name, "figures")) from None


def audit_of(name: str) -> Audit | None:
    """The committed audit of a benchmark (`fusionbench audit NAME --format json`); None where there is none.

    Raises:
        UsageError: the file is damaged.
    """
    found = _read(name, "audit")
    keys = {"summary", "metric", "findings", "suspicious"}
    if found is not None and not keys <= found.keys():
        raise _damaged(_path(name, "audit"))
    return found


def published(name: str) -> str | None:
    """The data set of `fusionbench data get` that a benchmark is made of; None where there is none.

    A variant is made of the set that its name begins with, as social_anxiety_subject_dependent.
    """
    parts = registry.plugin_name(name).split("_")
    return next((known for k in range(len(parts), 0, -1) if (known := "_".join(parts[:k])) in data.names()), None)


def as_json(figures: Figures) -> str:
    """How figures are committed."""
    return json.dumps(asdict(figures), indent=1, ensure_ascii=False) + "\n"


def _path(name: str, kind: str) -> Path:
    return FOLDER / f"{name}.{kind}.json"


def _read(name: str, kind: str) -> dict[str, Any] | None:
    if name not in registry.names("benchmarks") or not _path(name, kind).is_file():
        return None
    try:
        found = json.loads(_path(name, kind).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise _damaged(_path(name, kind)) from None
    if not isinstance(found, dict):
        raise _damaged(_path(name, kind))
    return found


def _damaged(path: Path) -> UsageError:
    return UsageError(f"{path} is damaged: restore it, or delete it and run python docs/_benchmarks.py")

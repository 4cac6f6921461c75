"""`benchmark.toml`: every name known, every value of its type and within its limits."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fusionbench.api.plugins import LIMITS
from fusionbench.custom_data import files
from fusionbench.errors import UsageError, unknown

#: Which column or array plays which part, unless benchmark.toml says otherwise.
ROLES = {
    "label": "y",
    "label_mask": "y_mask",
    "id": "id",
    "group": "group",
    "fold": "fold",
    "split": "split",
    "order": "order",
}
#: Taken over as they are: name -> type.
CONSTANTS = {
    "version": str, "seeds": int, "steps": int, "batch": int, "interval": int, "transductive": str, "unit": str,
    "margin": (int, float),
}  # fmt: skip
#: Lists of names, and what may stand for a list of one.
NAMES = {"label", "metrics", "columns", "corruptions", "attributes"}
SETTINGS = {
    **CONSTANTS,
    **dict.fromkeys(ROLES, str),
    "label": (list, str),
    "file": str,
    "time": str,
    "task": str,
    "metrics": (list, str),
    "per_frame": bool,
    "classes": list,
    "folds": int,
    "corruptions": list,
    "attributes": list,
    "subject_dependent": str,
    "modalities": dict,
}
MODALITY = {
    "file": str,
    "columns": (list, str),
    "array": str,
    "mask": str,
    "rate": (int, float),
    "backbone": str,
    "settings": dict,
}


def read(path: Path) -> dict[str, Any]:
    """The settings in a benchmark.toml, checked.

    Raises:
        UsageError: there is no such file, it is no TOML, or a name or value is not what the documentation lists.
    """
    if not path.is_file():
        raise UsageError(f"there is no {path}: `fusionbench data init {path.parent}` looks at the files and writes one")
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: {files.line(error)}") from None
    _typed(path, "setting", settings, SETTINGS)
    for m, part in settings.get("modalities", {}).items():
        if not isinstance(part, dict):
            raise UsageError(f"{path}: modalities.{m} is a table: [modalities.{m}]")
        _typed(path, f"setting of modalities.{m}", part, MODALITY)
        if not 0 < (rate := part.get("rate", 1)) < 1e9:  # NaN is not
            raise UsageError(
                f"{path}: rate of modalities.{m} is steps a second, a number above 0, not {files.clip(rate)}"
            )
    for name, largest in LIMITS.items():
        if name in settings and not 1 <= settings[name] <= largest:
            raise UsageError(f"{path}: {name} is a whole number from 1 to {largest}, not {files.clip(settings[name])}")
    return settings


def _typed(path: Path, what: str, given: Mapping[str, Any], allowed: Mapping[str, Any]) -> None:
    for name, value in given.items():
        if name not in allowed:
            raise UsageError(f"{path}: {unknown(what, name, allowed)}")
        if not isinstance(value, allowed[name]) or (isinstance(value, bool) and allowed[name] is not bool):
            raise UsageError(f"{path}: {name} cannot be {files.clip(value)}")
        kinds = str if name in NAMES else (str, int) if name == "classes" else object
        for item in value if isinstance(value, list) else []:
            if not isinstance(item, kinds) or isinstance(item, bool) or item == "":
                raise UsageError(f"{path}: {name} is a list of names, and {files.clip(item)} is none")
        if value == "" and name not in ("transductive", "subject_dependent"):
            raise UsageError(f"{path}: {name} is empty")

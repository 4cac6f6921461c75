"""Where data and caches live: FUSIONBENCH_HOME, else the XDG data folder. Imports no torch."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """FUSIONBENCH_HOME; else XDG_DATA_HOME/fusionbench; else ~/.local/share/fusionbench. It need not exist yet."""
    if chosen := os.environ.get("FUSIONBENCH_HOME"):
        return Path(chosen).expanduser()
    if shared := os.environ.get("XDG_DATA_HOME"):
        return Path(shared).expanduser() / "fusionbench"
    return Path.home() / ".local" / "share" / "fusionbench"


def data_dir(name: str) -> Path:
    """The folder of one benchmark's files."""
    return home() / "data" / name


def cache_dir() -> Path:
    """The folder of what can be made again: encoded features, downloads under way."""
    return home() / "cache"

"""What a name means as a path, and where data and caches live: FUSIONBENCH_HOME, else the XDG data folder. No torch."""

from __future__ import annotations

import os
from pathlib import Path

from fusionbench.errors import UsageError


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


def path_of(name: str) -> Path:
    """The file or folder that a name means, absolute and without links; it need not exist.

    Raises:
        UsageError: no file can be called so.
    """
    try:
        path = Path(os.path.realpath(os.path.expanduser(name)))
        path.stat()
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:  # a loop of links, a name of 5,000 characters, a zero byte
        raise UsageError(f"{name[:100]!r} cannot be opened: {getattr(error, 'strerror', None) or error}") from None
    return path

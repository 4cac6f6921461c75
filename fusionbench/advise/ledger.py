"""What has been obtained, on disk and by content: an interrupted command goes on where it stopped."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fusionbench.records import digest, store


class Ledger:
    """A folder of small archives, each named by the hash of what it is the outcome of."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: Any) -> dict[str, np.ndarray] | None:
        """The arrays kept under a key (any plain value), None if there are none; a damaged file is quarantined."""
        path = self._path(key)
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            store.quarantine(path, error)
            return None

    def put(self, key: Any, arrays: Mapping[str, np.ndarray]) -> None:
        """Keeps arrays under a key; the file appears whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        store.write(self._path(key), lambda file: np.savez_compressed(file, **dict[str, Any](arrays)))

    def _path(self, key: Any) -> Path:
        return self.folder / f"{digest(key)}.npz"

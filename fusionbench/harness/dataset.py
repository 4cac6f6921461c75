"""A benchmark's samples as the trainer meets them, shared by many setups."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Generator, Mapping
from functools import cached_property
from typing import Any

from fusionbench import contract, features
from fusionbench.api import Batch, Benchmark, Stream


class Dataset:
    """A benchmark's samples as the trainer meets them: loaded, checked, encoded and hashed once, for many setups."""

    def __init__(
        self, name: str, benchmark: Benchmark, encoders: Mapping[str, Any], prepared: features.Prepared | None = None
    ) -> None:
        self.name, self.benchmark, self.encoders, self._prepared = name, benchmark, encoders, prepared

    def encode(self) -> Generator[features.Encoding, None, None]:
        """Loads and checks the samples, raw media through their frozen backbones; yields progress."""
        if self._prepared is None:
            self._prepared = yield from features.prepare(self.benchmark, self._load(), self.encoders)

    @property
    def prepared(self) -> features.Prepared:
        """The samples, and how their raw media were encoded."""
        features.finish(self.encode())
        assert self._prepared is not None
        return self._prepared

    def _load(self) -> Batch:
        data = contract.load(self.benchmark, self.name)
        for reason in self.benchmark.skipped:
            warnings.warn(f"left out: {reason}", stacklevel=2)
        return data

    @cached_property
    def digest(self) -> str:
        """Hash of the samples, masks, labels and names."""
        digest, data = hashlib.sha256(), self.prepared.data
        for m, stream in sorted(data.streams.items()):
            encoded = self.prepared.digests.get(m)
            parts = (
                (encoded,) if encoded else (stream.x, stream.mask) if isinstance(stream, Stream) else (stream.digest,)
            )
            for part in (m, *parts):
                digest.update(part.encode() if isinstance(part, str) else part.numpy().tobytes())
        for tensor in (data.y, data.y_mask):
            digest.update(tensor.numpy().tobytes())
        digest.update("\n".join([*data.ids, *data.groups]).encode())
        return digest.hexdigest()[:16]

"""The modality that leads the others, in methods that have such a one."""

from __future__ import annotations

from fusionbench.api import Spec, UsageError

#: What the field calls spoken or written words: the dominant modality of the papers, where a benchmark has it.
LANGUAGE = ("text", "language")


def dominant(spec: Spec, given: str, owner: str) -> str:
    """The modality `given`; if empty `text` or `language` where there is one, else the first in the benchmark's order.

    Raises:
        UsageError: `given` is no modality of this benchmark.
    """
    if given and given not in spec.dims:
        raise UsageError(f"{owner}: there is no modality {given!r} to be dominant, only {', '.join(spec.dims)}")
    return given or next((m for m in LANGUAGE if m in spec.dims), spec.modalities[0])

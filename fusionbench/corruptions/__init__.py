"""Damage: one family a file. A corruption is spelled `name:modality[:severity]`, as in `noise:audio:3`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from fusionbench import registry
from fusionbench.errors import UsageError

if TYPE_CHECKING:
    import torch

    from fusionbench.api import Corruption


def parse(spelling: str, modalities: Sequence[str]) -> list[tuple[str, Corruption, int]]:
    """`noise:audio:3` -> [(condition, corruption, severity)]; without a severity, one entry for each of the ladder.

    `modality` is a modality, several joined by `+`, or `all`.

    Raises:
        UsageError: no such corruption, modality or severity.
    """
    name, _, rest = spelling.partition(":")
    target, _, level = rest.partition(":")
    corruption = registry.load("corruptions", name)
    target = target or "all"
    for modality in [] if target == "all" else target.split("+"):
        if modality not in modalities:
            raise UsageError(
                f"{spelling}: there is no modality {modality!r}; there are {', '.join(modalities)} and all"
            )
    if registry.is_path(name):  # edited damage is other damage: its records must not be taken for these
        name = f"{registry.plugin_name(name)}@{registry.fingerprint(corruption)[:6]}"
    top = len(corruption.ladder)
    if not level:
        chosen = list(range(1, top + 1))
    elif level.isdecimal() and int(level) <= top:
        chosen = [int(level)]
    else:
        raise UsageError(f"{spelling}: severities of {name} are 0 to {top}, not {level}")
    return [(f"{name}:{target}" if s == top == 1 else f"{name}:{target}:{s}", corruption(target), s) for s in chosen]


def keys(name: str, seed: int, ids: Sequence[str], modalities: Sequence[str]) -> Mapping[str, torch.Tensor]:
    """The draws' keys by (corruption, seed, sample id, modality): modality -> (B,) int32. Severity is not in them."""
    return {m: _keys(name, seed, tuple(ids), m) for m in modalities}


@lru_cache(maxsize=1024)  # five severities, several seeds of a method and all methods of a board ask for the same
def _keys(name: str, seed: int, ids: tuple[str, ...], modality: str) -> torch.Tensor:
    from fusionbench.api import keyed

    return keyed.sample_keys(ids, name, seed, modality)

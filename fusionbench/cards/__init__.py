"""One page a benchmark, and the same as Croissant JSON-LD: people, modalities, licence, scores of others, audit.

A page is drawn from three things and nothing else: what the benchmark declares, `Figures` of its data, and an audit.
The last two are committed in `docs/benchmarks/`, so that a page can be drawn, and checked, where the data are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fusionbench import contract, hparams, registry
from fusionbench.cards.committed import Audit, audit_of, figures_of
from fusionbench.cards.croissant import metadata
from fusionbench.cards.figures import Figures, measure
from fusionbench.cards.page import page
from fusionbench.errors import UsageError

__all__ = ["Audit", "Figures", "audit_of", "card", "croissant", "drawn", "figures_of", "measure"]


def card(name: str, given: Mapping[str, Any] | None = None) -> str:
    """The page of a benchmark in Markdown, with the committed audit where there is one.

    Args:
        given: its settings, as `root`; without any, the committed figures stand in for data that are not here.

    Raises:
        UsageError: there is no such benchmark, or its data cannot be read where `root` says they are.
    """
    return drawn(name, _figures(name, given), audit_of(name), given)[0]


def croissant(name: str, given: Mapping[str, Any] | None = None) -> str:
    """The metadata of a benchmark as Croissant JSON-LD, core and responsible-AI vocabularies."""
    return drawn(name, _figures(name, given), audit_of(name), given)[1]


def drawn(
    name: str, figures: Figures | None, audit: Audit | None, given: Mapping[str, Any] | None = None
) -> tuple[str, str]:
    """The page and the metadata that go with these figures and this audit."""
    plugin = registry.load("benchmarks", name)
    benchmark = contract.make(plugin, hparams.fill(hparams.read(plugin), given or {}, name), name)
    return page(name, benchmark, figures, audit), metadata(name, benchmark, figures, audit)


def _figures(name: str, given: Mapping[str, Any] | None) -> Figures | None:
    """Of the data; of what is committed where they are not here."""
    try:
        return measure(name, given)
    except UsageError:
        if given or name not in registry.names("benchmarks"):
            raise
        return figures_of(name)

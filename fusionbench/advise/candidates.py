"""What is raced: fusers with and without modality dropout, and the same pipelines on each modality alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from fusionbench import harness, registry
from fusionbench.api import Batch
from fusionbench.engine.model import Blueprint
from fusionbench.errors import UsageError
from fusionbench.harness import Dataset, Setup
from fusionbench.harness.fit import grid_of

#: Raced unless others are named: the strongest classical rows, and networks from the plainest to the elaborate.
RACED = (
    "forest", "late_forest", "boosting", "linear", "stacking",
    "concat", "late_average", "gated", "low_rank", "transformer", "jmt",
)  # fmt: skip
#: Of these, the pipelines that each modality alone is given to.
PLAIN = ("forest", "boosting", "linear", "concat")
#: The recipe that every network is raced with besides its own.
DROPOUT = 0.3

#: Networks that are cut short race one another only; each kind keeps its best.
Kind = Literal["network", "classical", "single"]


@dataclass(frozen=True)
class Candidate:
    """A fuser, the modalities that it is given, and the share of them that is hidden from it in training.

    Attributes:
        is_network: it is trained in steps; an estimator is fitted in one call.
        is_single: it is given one modality of several.
    """

    fuser: str
    modalities: tuple[str, ...]
    is_network: bool
    is_single: bool = False
    dropout: float = 0.0

    @property
    def kind(self) -> Kind:
        return "single" if self.is_single else "network" if self.is_network else "classical"

    @property
    def name(self) -> str:
        """As tables say it: `jmt with modality dropout`, `forest on acc alone`."""
        alone = f" on {self.modalities[0]} alone" if self.is_single else ""
        return f"{registry.plugin_name(self.fuser)}{alone}{' with modality dropout' if self.dropout else ''}"


@dataclass(frozen=True, eq=False)
class Entrant:
    """A candidate that can be trained: its setup, and the choices that validation makes for it.

    Attributes:
        options: learning rates of a network, the grid of an estimator; each a mapping of settings.
    """

    candidate: Candidate
    setup: Setup
    options: tuple[Mapping[str, Any], ...]

    @property
    def name(self) -> str:
        return self.candidate.name

    def blueprint(self, option: Mapping[str, Any]) -> Blueprint:
        """What is built for it: the setup's, on its own modalities, with the settings of an option."""
        whole, own = self.setup.trained, self.candidate.modalities
        settings = {**whole.settings, **option} if self.setup.is_estimator else whole.settings
        return replace(
            whole,
            settings=settings,
            shapes={m: whole.shapes[m] for m in own},
            backbones={m: whole.backbones[m] for m in own},
            rates={m: rate for m, rate in whole.rates.items() if m in own},
        )

    def view(self, data: Batch) -> Batch:
        """The data with its own modalities alone."""
        return replace(data, streams={m: data.streams[m] for m in self.candidate.modalities})


def entrants(
    benchmark: str, fusers: Sequence[str] = RACED, given: Mapping[str, Mapping[str, Any]] | None = None
) -> list[Entrant]:
    """Every candidate of a benchmark, on one copy of its data.

    Args:
        fusers: names or paths.
        given: part (benchmark, train) -> hyper-parameter -> value, for all of them.

    Raises:
        UsageError: a plugin or setting is unknown, or the data are not what `run` takes.
    """
    datasets: dict[str, Dataset] = {}
    found = []
    for fuser in fusers:
        plain = harness.setup(benchmark, fuser, given=given, datasets=datasets)
        if plain.sees_order:
            raise UsageError(f"{fuser} sees nothing but the place in a recording: it cannot be advised")
        modalities = tuple(plain.benchmark.shapes)
        for candidate in _candidates(plain, fuser, modalities, fuser in PLAIN or not set(fusers) & set(PLAIN)):
            setup = plain
            if candidate.dropout:
                train = {**(given or {}).get("train", {}), "modality_dropout": candidate.dropout}
                setup = harness.setup(benchmark, fuser, given={**(given or {}), "train": train}, datasets=datasets)
            found.append(Entrant(candidate, setup, _options(setup)))
    return found


def _candidates(setup: Setup, fuser: str, modalities: tuple[str, ...], plain: bool) -> Iterator[Candidate]:
    is_network = not setup.is_estimator
    yield Candidate(fuser, modalities, is_network)
    if len(modalities) > 1:
        if is_network:
            yield Candidate(fuser, modalities, is_network, dropout=DROPOUT)
        for m in modalities if plain else ():
            yield Candidate(fuser, (m,), is_network, is_single=True)


def _options(setup: Setup) -> tuple[Mapping[str, Any], ...]:
    if setup.is_estimator:
        return tuple(grid_of(setup))
    return tuple({"lr": rate} for rate in setup.recipe.lr)

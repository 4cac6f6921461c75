"""The advice as a value: what to use, what it promises, what fusion and each sensor bring."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fusionbench import metrics, stats
from fusionbench.advise.candidates import Entrant
from fusionbench.advise.evaluation import FUSED, SINGLE, WINNER, Evaluation
from fusionbench.advise.fitting import Command, command
from fusionbench.advise.racing import FINAL, Race
from fusionbench.advise.schedule import Schedule
from fusionbench.conditions import Condition
from fusionbench.harness import CHANCE, Setup
from fusionbench.stats import Interval, Table, Verdict


@dataclass(frozen=True)
class Rival:
    """A finalist beside the winner, on the validation groups: its verdict against it, and what a training costs."""

    name: str
    verdict: Verdict
    seconds: float


@dataclass(frozen=True)
class Sensor:
    """What one modality is worth to the procedure's choice, on the groups that it was evaluated on.

    Attributes:
        without: the score where it is missing; verdict: of that against the score with it.
        noise: the score at each severity of noise on it, from 1 on.
        break_even: the first severity at which its absence scores higher; None if there is none.
    """

    modality: str
    without: float
    verdict: Verdict
    noise: tuple[float, ...]
    break_even: int | None


@dataclass(frozen=True)
class Advice:
    """What `fusionbench advise` answers. Scores are in the metric's own units.

    Attributes:
        target: the benchmark as the user named it.
        winner: the name of what to use, chosen on everything; fuser, modalities, dropout, option and steps build it.
        is_single: it takes one modality of several.
        promise: of the procedure on groups that no choice has seen, with its interval.
        chosen: name -> in how many outer folds the procedure chose it.
        chance: the score of the training labels' own answer; above_chance: the verdict of the promise against it.
        fusion: the best that fuses against the best single modality, both chosen on validation in each fold; None
            where there is one modality, or no single one was raced.
        rivals: the other finalists that fuse, the best first.
        given: part -> hyper-parameter -> value, what the user has set for all candidates.
        command: what trains the winner on everything for use; None where no command can.
        suspicions: the questions of the audit whose answer makes every score too high.
        seconds: what it took; is_cut: the time had gone before the finalists had all their seeds.
    """

    benchmark: str
    target: str
    metric: str
    unit: str
    groups: int
    samples: int
    modalities: tuple[str, ...]
    winner: str
    fuser: str
    uses: tuple[str, ...]
    dropout: float
    option: Mapping[str, Any]
    steps: int
    is_single: bool
    train_seconds: float
    promise: Interval
    chance: float | None
    above_chance: Verdict
    chosen: Mapping[str, int]
    fusion: Verdict | None
    rivals: tuple[Rival, ...]
    sensors: tuple[Sensor, ...]
    given: Mapping[str, Mapping[str, Any]]
    command: Command | None
    schedule: Schedule
    suspicions: tuple[str, ...]
    seconds: float
    is_cut: bool

    @property
    def is_percent(self) -> bool:
        return metrics.get(self.metric).percent

    @property
    def scale(self) -> float:
        return 100.0 if self.is_percent else 1.0


def conclude(
    entrants: Sequence[Entrant],
    race: Race,
    evaluations: Sequence[Evaluation],
    schedule: Schedule,
    suspicions: tuple[str, ...],
    seconds: float,
) -> Advice:
    """The advice from the race on everything and from the outer folds."""
    setup = entrants[0].setup
    benchmark, metric = setup.benchmark, setup.benchmark.task.metrics[0]
    how: dict[str, Any] = {"higher_is_better": metrics.get(metric).higher_is_better, "unit": benchmark.unit}
    promised = _table(evaluations, WINNER, metric)
    promise = stats.interval(promised, metric)
    constant = _table(evaluations, WINNER, metric, CHANCE)
    above = stats.family({"it": promised, CHANCE: constant}, CHANCE, "above chance", **how)["it"]
    chosen = Counter(one.names[WINNER] for one in evaluations)
    best = race.winner
    winner = next(entrant for entrant in entrants if entrant.candidate == best.candidate)
    return Advice(
        benchmark=setup.benchmark_name,
        target=setup.arguments["benchmark"],
        metric=metric,
        unit=benchmark.unit,
        groups=len(set(setup.data.groups)),
        samples=len(setup.data),
        modalities=tuple(benchmark.shapes),
        winner=best.candidate.name,
        fuser=best.candidate.fuser,
        uses=best.candidate.modalities,
        dropout=best.candidate.dropout,
        option=dict(best.option),
        steps=best.steps,
        is_single=best.candidate.is_single,
        train_seconds=best.seconds,
        promise=promise,
        chance=stats.score(constant, metric),
        above_chance=above,
        chosen=dict(chosen.most_common()),
        fusion=_fusion(evaluations, metric, how),
        rivals=_rivals(race, metric, how),
        sensors=_sensors(setup, evaluations, promised, metric, how),
        given=setup.arguments["given"] or {},
        command=command(winner, best.seconds),
        schedule=schedule,
        suspicions=suspicions,
        seconds=seconds,
        is_cut=race.cut,
    )


def _table(evaluations: Sequence[Evaluation], role: str, metric: str, condition: str = "clean") -> Table:
    return stats.tabulate([cell for one in evaluations for cell in one.cells(role, condition)], metric)


def _fusion(evaluations: Sequence[Evaluation], metric: str, how: Mapping[str, Any]) -> Verdict | None:
    if any(SINGLE not in one.names or FUSED not in one.names for one in evaluations):
        return None
    single = " or ".join(dict.fromkeys(one.names[SINGLE] for one in evaluations))
    rows = {"fusion": _table(evaluations, FUSED, metric), single: _table(evaluations, SINGLE, metric)}
    return stats.family(rows, single, "does fusion help", **how)["fusion"]


def _rivals(race: Race, metric: str, how: Mapping[str, Any]) -> tuple[Rival, ...]:
    """The other finalists against the winner, over the validation groups of the race on everything."""
    finalists = [s for s in race.standings if s.rung == FINAL and s.cells]
    rows = {s.candidate.name: stats.tabulate(s.cells, metric) for s in finalists}
    verdicts = stats.family(rows, race.winner.candidate.name, "finalists", **how) if len(rows) > 1 else {}
    seconds = {s.candidate.name: s.seconds for s in finalists}
    return tuple(Rival(name, verdict, seconds[name]) for name, verdict in verdicts.items())


def _sensors(
    setup: Setup, evaluations: Sequence[Evaluation], whole: Table, metric: str, how: Mapping[str, Any]
) -> tuple[Sensor, ...]:
    sign = 1 if metrics.get(metric).higher_is_better else -1
    found = []
    for m in setup.benchmark.shapes if len(setup.benchmark.shapes) > 1 else ():
        table = _table(evaluations, WINNER, metric, f"missing:{m}")
        without = stats.score(table, metric)
        spelled = {
            Condition.parse(c): c
            for role, c in evaluations[0].answers
            if role == WINNER and c.startswith(f"noise:{m}:")
        }
        levels = sorted(spelled, key=lambda condition: condition.level)
        scores = [stats.score(_table(evaluations, WINNER, metric, spelled[c]), metric) for c in levels]
        noise = [score for score in scores if score is not None]
        if without is None or len(noise) < len(levels):
            continue
        verdict = stats.family({f"without {m}": table, "with it": whole}, "with it", "sensors", **how)[f"without {m}"]
        worse = [c.level for c, score in zip(levels, noise, strict=True) if sign * score < sign * without]
        found.append(Sensor(m, without, verdict, tuple(noise), min(worse, default=None)))
    return tuple(found)

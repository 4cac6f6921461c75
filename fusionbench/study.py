"""A comparison as a value: which fusers, on which benchmarks, under which damage; and the references that it needs."""

from __future__ import annotations

import itertools
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusionbench import hparams, registry
from fusionbench.errors import UsageError, unknown
from fusionbench.records.rows import ALONE, LATE, MODALITY, ORDER, REFERENCE
from fusionbench.records.types import PER_SEED
from fusionbench.text import counted

if TYPE_CHECKING:
    from fusionbench.harness import Dataset, Setup
    from fusionbench.jobs import Plan
    from fusionbench.records import Record

#: The rows that every comparison carries, with the same budget: decision fusion, plain fusion. (Chance
#: stands in every record as "chance"; each modality alone comes with them.)
REFERENCES = (LATE, REFERENCE)


@dataclass(frozen=True)
class Study:
    """What `fusionbench compare` and a study file say, in the same words.

    Attributes:
        fusers, benchmarks: names or paths; the fuser `all` stands for every registered one.
        seeds, folds: None for the benchmark's own.
        corruption: conditions besides those of each benchmark's table.
        lattice: also every subset of missing modalities.
        options: fuser -> its hyper-parameters.
        backbones: modality -> backbone, where not the benchmark's own; for every fuser.
        backbone: modality -> hyper-parameters of its backbone.
        train, benchmark: hyper-parameters of the training and of the benchmarks.
        cross: "train.modality_dropout" -> values, every fuser with each of them; "backbone.acc" -> backbones.
        references: also each modality alone, late average, concat and, where samples have a time, the position alone.
        quick: few steps; one fold and one seed unless they are given.
        tuned: with the settings that `fusionbench tune` found for each fold, instead of the defaults.
        ensemble: also the mean of each row's seeds, as a row of its own.
        partition: "per-seed": each seed deals the groups into folds again; empty: one partition for all seeds.
    """

    fusers: Sequence[str]
    benchmarks: Sequence[str]
    seeds: Sequence[int] | None = None
    folds: Sequence[int] | None = None
    corruption: Sequence[str] = ()
    lattice: bool = False
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    backbones: Mapping[str, str] = field(default_factory=dict)
    backbone: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    benchmark: Mapping[str, Any] = field(default_factory=dict)
    cross: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    references: bool = True
    quick: bool = False
    tuned: bool = False
    ensemble: bool = False
    partition: str = ""

    def __post_init__(self) -> None:
        for word in ("folds", "seeds"):
            value: Any = getattr(self, word)
            if isinstance(value, int):  # the first so many
                object.__setattr__(self, word, list(range(value)))
            if self.quick and value is None:
                object.__setattr__(self, word, [0])

    def setups(self, datasets: dict[str, Dataset] | None = None) -> Iterator[tuple[Setup, list[str]]]:
        """Every table row with its conditions, checked before anything runs; `datasets` as of `harness.setup`."""
        from fusionbench import contract, harness
        from fusionbench.corruptions.missing import subsets

        for benchmark in self.benchmarks:
            maker, typed = registry.load("benchmarks", benchmark), _typed(benchmark, self.benchmark)
            protocol = contract.make(maker, typed, registry.plugin_name(benchmark))
            shapes = protocol.shapes
            for fuser, settings in self._rows(list(shapes), contract.has_order(protocol)):
                for values in itertools.product(*self.cross.values()):
                    given: dict[str, dict[str, Any]] = {
                        "fuser": dict(settings), "train": dict(self.train), "benchmark": dict(self.benchmark),
                        "backbone": dict(self.backbones),
                        **{f"backbone.{m}": dict(told) for m, told in self.backbone.items()},
                    }  # fmt: skip
                    for name, value in zip(self.cross, values, strict=True):
                        part, _, key = name.rpartition(".")  # backbone.face.dim: dim of backbone.face
                        given.setdefault(part, {})[key] = value
                    backbones = given.pop("backbone")
                    setup = harness.setup(
                        benchmark,
                        fuser,
                        backbones,
                        given,
                        self.quick,
                        datasets=datasets,
                        partition=self.partition,
                    )
                    conditions = [*setup.benchmark.corruptions, *self.corruption]
                    conditions += subsets(list(shapes)) if self.lattice else []
                    yield setup, list(dict.fromkeys(conditions))

    def _rows(self, modalities: list[str], ordered: bool) -> list[tuple[str, Mapping[str, Any]]]:
        chosen = list(registry.names("fusers")) if "all" in self.fusers else list(self.fusers)
        if "all" in self.fusers and not ordered:
            chosen.remove(ORDER)
        if self.references:
            chosen += [name for name in (*REFERENCES, *[ORDER] * ordered, ALONE) if name not in chosen]
        for name in self.options:
            if name not in map(registry.plugin_name, chosen):
                raise unknown("fuser of this comparison", name, map(registry.plugin_name, chosen))
        rows: list[tuple[str, Mapping[str, Any]]] = []
        for name in chosen:
            given = self.options.get(registry.plugin_name(name), {})
            alone = MODALITY in hparams.read(registry.load("fusers", name))  # it stands once a modality
            rows += [(name, {**given, MODALITY: m}) for m in modalities] if alone else [(name, given)]
        return rows


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) for v in value)


def _numbers(value: Any) -> bool:
    listed = value if isinstance(value, list) else [value]
    return bool(listed) and all(isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in listed)


def _table(value: Any) -> bool:
    return isinstance(value, dict)


def _tables(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_table, value.values()))


def _texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(v, str) for v in value.values())


def _lists(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(v, list) and v for v in value.values())


#: word of a study file -> what it may be, and how that is called.
_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("fusers", "benchmarks", "corruption"), (_names, 'a list of names, as ["concat"]')),
    **dict.fromkeys(("seeds", "folds"), (_numbers, "a number (the first so many) or a list of numbers")),
    **dict.fromkeys(("lattice", "references", "quick", "tuned", "ensemble"), (_flag, "true or false")),
    **dict.fromkeys(("train", "benchmark"), (_table, "a table of hyper-parameters")),
    "partition": (lambda value: value in ("", PER_SEED), f"{PER_SEED!r}, or left out"),
    "options": (_tables, "a table of hyper-parameters for each fuser"),
    "backbones": (_texts, 'a table of names, as {acc = "gru"}'),
    "backbone": (_tables, "a table of hyper-parameters for each modality"),
    "cross": (_lists, 'a table of lists, as "train.modality_dropout" = [0, 0.3]'),
}


def read(path: Path) -> Study:
    """The study in a TOML file.

    Raises:
        UsageError: it cannot be read, or has an unknown word.
    """
    try:
        content = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"study file {path}: {error}") from None
    known = {f.name for f in fields(Study)}
    for word in content:
        if word not in known:
            raise unknown(f"word of a study ({path})", word, known)
        valid, spelled = _KINDS[word]
        if not valid(content[word]):
            raise UsageError(f"study file {path}: {word} is {spelled}, not {content[word]!r}")
    for word in ("fusers", "benchmarks"):
        if not content.get(word):
            raise UsageError(f"study file {path} names no {word}")
    for word in ("seeds", "folds"):
        if isinstance(content.get(word), int):
            content[word] = list(range(content[word]))
    return Study(**content)


def plan_study(study: Study, results: Path) -> list[Plan]:
    """What is to do, row by row (a tuned row: fold by fold)."""
    datasets: dict[str, Dataset] = {}
    plans: list[Plan] = []
    for setup, conditions in study.setups(datasets):
        plans += plan_row(setup, conditions, results, study.folds, study.seeds, tuned=study.tuned)
    if study.ensemble:
        _check_ensembles(plans, results)
    return plans


def _check_ensembles(plans: Sequence[Plan], results: Path) -> None:
    """What keeps ensembles from being made is said before anything is trained."""
    from fusionbench import harness

    for plan in plans:
        harness.refuse_partition(plan.runs)
        if len({run.seed for run in plan.runs}) < 2:
            raise UsageError(f"an ensemble averages two seeds or more of {plan.setup.names['fuser']}: --seeds 3")
    setups = {run.id: plan.setup for plan in plans for run in plan.runs}
    harness.check_members([r for plan in plans for r in plan.done], setups, results)


def plan_row(
    setup: Setup,
    conditions: Sequence[str],
    results: Path,
    folds: Sequence[int] | None,
    seeds: Sequence[int] | None,
    *,
    tuned: bool = False,
    published: bool = True,
) -> list[Plan]:
    """The plan of one setup; with `tuned`, one for each fold, with the settings that were found for it.

    Raises:
        UsageError: it is not tuned, or was tuned for other code, settings or folds.
    """
    from fusionbench import harness, search
    from fusionbench.jobs import plan_runs
    from fusionbench.records import digest

    if not tuned:
        return [plan_runs(setup, setup.runs(folds, seeds), results, conditions, published)]
    if setup.partition:
        raise UsageError("settings are tuned for the folds that all seeds share: leave --tuned or --partition out")
    found = search.load_tuned(results, setup, folds)
    trials = search.budget(results, setup)["trials"]
    name = f"{trials} trials {digest(found)[:6]}"
    datasets = {"": setup.dataset}
    plans: list[Plan] = []
    for fold, parts in found.items():
        given = dict(setup.arguments["given"] or {})
        for part, values in parts.items():
            given[part] = {**given.get(part, {}), **values}
        best = harness.setup(**{**setup.arguments, "given": given, "tuned": name}, datasets=datasets)
        plans.append(plan_runs(best, best.runs([fold], seeds), results, conditions, published))
    return plans


def plan_run(
    fuser: str,
    benchmark: str,
    *,
    results: Path,
    backbones: Mapping[str, str] | None = None,
    given: Mapping[str, Mapping[str, Any]] | None = None,
    preset: str | None = None,
    folds: Sequence[int] | None = None,
    seeds: Sequence[int] | None = None,
    corruption: Sequence[str] = (),
    quick: bool = False,
    tuned: bool = False,
    partition: str = "",
    begin: Callable[[Setup], None] | None = None,
) -> list[Plan]:
    """What `run` is to do: all that is asked for and that this user has not obtained; published records do not count.

    Args:
        preset: settings that the fuser names; `given` comes before them.
        quick: one fold and one seed unless they are given, few steps.
        partition: as in `Study`.
        begin: is handed the setup once all names are known to be right, before its data are first read.
    """
    from fusionbench import harness

    parts = {part: dict(values) for part, values in (given or {}).items()}
    if preset is not None:
        presets = registry.load("fusers", fuser).presets
        if preset not in presets:
            raise unknown(f"preset of {registry.plugin_name(fuser)}", preset, presets)
        parts["fuser"] = {**presets[preset], **parts.get("fuser", {})}
    setup = harness.setup(benchmark, fuser, backbones, parts, quick, partition=partition)
    if begin is not None:
        begin(setup)
    folds, seeds = (list(range(chosen)) if isinstance(chosen, int) else chosen for chosen in (folds, seeds))
    if quick:
        folds, seeds = (chosen if chosen is not None else [0] for chosen in (folds, seeds))
    conditions = [*setup.benchmark.corruptions, *corruption]
    return plan_row(setup, conditions, results, folds, seeds, tuned=tuned, published=False)


def run(
    fuser: str,
    benchmark: str = "watch",
    *,
    results: Path | str = "results",
    device: str = "auto",
    jobs: int | None = None,
    cluster: str | None = None,
    stack: int | None = None,
    track: bool = True,
    **asked: Any,
) -> Records:
    """What `fusionbench run` does, from Python: does what is missing and returns the records asked for.

    Args:
        asked: backbones, given, preset, folds, seeds, corruption, quick, tuned, partition: see `plan_run`.
    """
    from fusionbench.jobs import perform

    plans = plan_run(fuser, benchmark, results=Path(results), **asked)
    how: dict[str, Any] = {"device": device, "jobs": jobs, "cluster": cluster, "stack": stack, "track": track}
    return Records(perform(plans, Path(results), f"{fuser} on {benchmark}", say=_say, **how).records)


def compare(
    study: Study,
    *,
    results: Path | str = "results",
    device: str = "auto",
    jobs: int | None = None,
    cluster: str | None = None,
    stack: int | None = None,
    track: bool = True,
) -> list[Any]:
    """What `fusionbench compare` does, from Python: runs what is missing and returns one board a benchmark."""
    from fusionbench import leaderboard
    from fusionbench.jobs import perform

    plans = plan_study(study, Path(results))
    how: dict[str, Any] = {"device": device, "jobs": jobs, "cluster": cluster, "stack": stack, "track": track}
    found = perform(plans, Path(results), counted(len(plans), "row"), say=_say, **how)
    records = [*found.records, *(ensembles(plans, found.records, Path(results), device) if study.ensemble else [])]
    return leaderboard.build(records, Path(results))


def ensembles(plans: Sequence[Plan], records: Sequence[Record], results: Path, device: str = "auto") -> list[Record]:
    """The ensembles of every row of these plans, made from its trained seeds.

    Raises:
        UsageError: a row has fewer than two seeds, or its trained models are not on disk.
    """
    from fusionbench import harness, progress

    setups = {run.id: plan.setup for plan in plans for run in plan.runs}
    with progress.bar("ensembles") as advance:
        made = harness.ensembles(setups, records, results, harness.pick(device))
        return list(progress.counted(made, advance))


def _say(text: str) -> None:
    print(text, file=sys.stderr)


class Records(list["Record"]):
    """Records that know how to become a pandas table."""

    def __repr__(self) -> str:
        rows = sorted({f"{r.run.fuser} on {r.run.benchmark}" for r in self})
        shown = ", ".join(rows[:5]) + (f" and {len(rows) - 5} more" if len(rows) > 5 else "")
        return f"{len(self)} records: {shown or 'none'}; .to_frame()"

    def to_frame(self) -> Any:
        """One row a record, condition and metric."""
        import pandas

        rows = [
            {
                "run": r.run.id, "benchmark": r.run.benchmark, "fuser": r.run.fuser, "changes": " ".join(r.changes),
                "fold": r.run.fold, "seed": r.run.seed, "status": r.status, "condition": condition, "metric": metric,
                "value": value,
            }
            for r in self for condition, scores in r.scores.items() for metric, value in scores.items()
        ]  # fmt: skip
        return pandas.DataFrame(rows)


def load_records(results: Path | str = "results", benchmark: str = "*") -> Records:
    """Every record on disk."""
    from fusionbench.records import store

    return Records(store.load(Path(results), benchmark))


def _typed(benchmark: str, given: Mapping[str, Any]) -> dict[str, Any]:
    from fusionbench import hparams

    declared = hparams.read(registry.load("benchmarks", benchmark))
    return hparams.fill(declared, given, registry.plugin_name(benchmark))

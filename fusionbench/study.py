"""A comparison as a value: which fusers, on which benchmarks, under which damage; and the references that it needs."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusionbench import registry
from fusionbench.errors import UsageError, unknown
from fusionbench.records.rows import ALONE, LATE, REFERENCE

if TYPE_CHECKING:
    from fusionbench.harness import Plan, Setup
    from fusionbench.records import Record

    Row = tuple[Setup, list[str], Plan]

#: The rows that every comparison carries, with the same budget: decision fusion, plain fusion. (The constant answer
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
        train, benchmark: hyper-parameters of the training and of the benchmarks.
        cross: "train.modality_dropout" -> values, every fuser with each of them.
        references: also each modality alone, late average and concat.
        tuned: with the settings that `fusionbench tune` found for each fold, instead of the defaults.
    """

    fusers: Sequence[str]
    benchmarks: Sequence[str]
    seeds: Sequence[int] | None = None
    folds: Sequence[int] | None = None
    corruption: Sequence[str] = ()
    lattice: bool = False
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    benchmark: Mapping[str, Any] = field(default_factory=dict)
    cross: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    references: bool = True
    quick: bool = False
    tuned: bool = False

    def setups(self) -> Iterator[tuple[Setup, list[str]]]:
        """Every table row with its conditions, checked before anything runs."""
        from fusionbench import harness
        from fusionbench.corruptions.missing import subsets

        for benchmark in self.benchmarks:
            shapes = registry.load("benchmarks", benchmark)(**_typed(benchmark, self.benchmark)).shapes
            for fuser, settings in self._rows(list(shapes)):
                for values in itertools.product(*self.cross.values()):
                    given: dict[str, dict[str, Any]] = {
                        "fuser": dict(settings), "train": dict(self.train), "benchmark": dict(self.benchmark),
                    }  # fmt: skip
                    for name, value in zip(self.cross, values, strict=True):
                        part, _, key = name.rpartition(".")  # backbone.face.dim: dim of backbone.face
                        given.setdefault(part, {})[key] = value
                    setup = harness.setup(benchmark, fuser, given=given, quick=self.quick)
                    conditions = [*setup.benchmark.corruptions, *self.corruption]
                    conditions += subsets(list(shapes)) if self.lattice else []
                    yield setup, list(dict.fromkeys(conditions))

    def _rows(self, modalities: list[str]) -> list[tuple[str, Mapping[str, Any]]]:
        chosen = list(registry.names("fusers")) if "all" in self.fusers else list(self.fusers)
        if self.references:
            chosen += [name for name in (*REFERENCES, ALONE) if name not in chosen]
        for name in self.options:
            if name not in map(registry.plugin_name, chosen):
                raise unknown("fuser of this comparison", name, map(registry.plugin_name, chosen))
        rows = [(name, self.options.get(registry.plugin_name(name), {})) for name in chosen if name != ALONE]
        if ALONE in chosen:
            rows += [(ALONE, {**self.options.get(ALONE, {}), "modality": m}) for m in modalities]
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


def _lists(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(v, list) and v for v in value.values())


#: word of a study file -> what it may be, and how that is called.
_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("fusers", "benchmarks", "corruption"), (_names, 'a list of names, as ["concat"]')),
    **dict.fromkeys(("seeds", "folds"), (_numbers, "a number (the first so many) or a list of numbers")),
    **dict.fromkeys(("lattice", "references", "quick", "tuned"), (_flag, "true or false")),
    **dict.fromkeys(("train", "benchmark"), (_table, "a table of hyper-parameters")),
    "options": (_tables, "a table of hyper-parameters for each fuser"),
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
        sound, spelled = _KINDS[word]
        if not sound(content[word]):
            raise UsageError(f"study file {path}: {word} is {spelled}, not {content[word]!r}")
    for word in ("fusers", "benchmarks"):
        if not content.get(word):
            raise UsageError(f"study file {path} names no {word}")
    for word in ("seeds", "folds"):
        if isinstance(content.get(word), int):
            content[word] = list(range(content[word]))
    return Study(**content)


def plans(study: Study, results: Path) -> list[Row]:
    """What is to do, row by row (a tuned row: fold by fold)."""
    from fusionbench.records import digest

    rows: list[Row] = []
    data: dict[str, dict[str, Any]] = {}
    for setup, conditions in study.setups():
        # Rows of one benchmark and the same backbones share one copy of its data.
        parts = [p for p in setup.hparams if p == "benchmark" or p.startswith("backbone.")]
        key = digest([[setup.benchmark_name, p, setup.names.get(p), setup.hparams[p]] for p in parts])
        if key in data:
            setup.__dict__.update(data[key])
        else:
            data[key] = {"prepared": setup.prepared, "digest": setup.digest}
        rows += rows_of(setup, conditions, results, study.folds, study.seeds, study.tuned)
    return rows


def rows_of(
    setup: Setup, conditions: list[str], results: Path, folds: Sequence[int] | None, seeds: Sequence[int] | None,
    tuned: bool = False, own: bool = False,
) -> list[Row]:  # fmt: skip
    """The plan of one setup; with `tuned`, one for each fold, with the settings that were found for it.

    With `own`, what others have published does not count.

    Raises:
        UsageError: it is not tuned, or was tuned for other code or settings.
    """
    from fusionbench import harness, search
    from fusionbench.records import digest

    if not tuned:
        return [(setup, conditions, harness.plan(setup, setup.runs(folds, seeds), results, conditions, own))]
    found = search.load_tuned(results, setup, folds)
    trials = search.budget(results, setup)["trials"]
    name = f"{trials} trials {digest(found)[:6]}"
    rows: list[Row] = []
    for fold, parts in found.items():
        given = dict(setup.arguments["given"] or {})
        for part, values in parts.items():
            given[part] = {**given.get(part, {}), **values}
        best = harness.setup(**{**setup.arguments, "given": given, "tuned": name})
        if all(setup.hparams[p] == best.hparams[p] for p in setup.hparams if p.startswith("backbone.")):
            best.__dict__.update(prepared=setup.prepared, digest=setup.digest)
        rows.append((best, conditions, harness.plan(best, best.runs([fold], seeds), results, conditions, own)))
    return rows


def run(
    fuser: str, benchmark: str = "watch", *, results: Path | str = "results", seeds: Sequence[int] | None = None,
    folds: Sequence[int] | None = None, corruption: Sequence[str] = (), device: str = "auto", quick: bool = False,
    given: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Record]:  # fmt: skip
    """What `fusionbench run` does, from Python: does what is missing and returns the records asked for."""
    from fusionbench import harness
    from fusionbench.records import Record

    setup = harness.setup(benchmark, fuser, given=given, quick=quick)
    conditions = [*setup.benchmark.corruptions, *corruption]
    runs = setup.runs([0] if quick and folds is None else folds, [0] if quick and seeds is None else seeds)
    plan = harness.plan(setup, runs, Path(results), conditions)
    events = harness.execute(setup, plan, Path(results), conditions=conditions, device=device)
    return [*plan.done, *(event for event in events if isinstance(event, Record))]


def compare(study: Study, *, results: Path | str = "results", device: str = "auto") -> list[Any]:
    """What `fusionbench compare` does, from Python: runs what is missing and returns one board a benchmark."""
    from fusionbench import harness, leaderboard
    from fusionbench.records import Record

    records = []
    for setup, conditions, plan in plans(study, Path(results)):
        records += plan.done
        for event in harness.execute(setup, plan, Path(results), conditions=conditions, device=device):
            if isinstance(event, Record):
                records.append(event)
    return leaderboard.build(records, Path(results))


class Records(list["Record"]):
    """Records that know how to become a pandas table."""

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

"""What there is to do: planned once, cut into jobs that carry their runs, as plain data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from math import ceil
from pathlib import Path
from typing import Any

import torch

from fusionbench import engine, harness, registry
from fusionbench.errors import UsageError
from fusionbench.harness import CLEAN, Setup
from fusionbench.records import Record, Run, store

#: In a folder of results of a plugin that was given by path: which file that is.
ORIGIN = ".origin"


@dataclass(frozen=True, eq=False)
class Plan:
    """What is asked of one setup: what is done, what lacks conditions only, what is to be trained.

    Attributes:
        published: do records count that others have published?
        stack: members a program; None until `sized`, or where only a worker's own GPU can say.
    """

    setup: Setup
    conditions: tuple[str, ...]
    published: bool = True
    done: list[Record] = field(default_factory=list)
    evaluate: list[Record] = field(default_factory=list)
    train: list[Run] = field(default_factory=list)
    stack: int | None = None

    @property
    def runs(self) -> list[Run]:
        """Everything that is asked for."""
        return [*(r.run for r in [*self.done, *self.evaluate]), *self.train]

    @property
    def todo(self) -> int:
        """How many runs are not done."""
        return len(self.evaluate) + len(self.train)


def plan_runs(
    setup: Setup, runs: Iterable[Run], results: Path, conditions: Sequence[str], published: bool = True
) -> Plan:
    """Compares what is asked for with what is on disk. A record counts only if all of its identity matches."""
    _refuse_namesake(setup, results)
    runs = list(runs)
    if setup.recipe.groups < 1:
        for run in {(run.fold, run.seed if setup.partition else 0): run for run in runs}.values():
            harness.training_of(setup, setup.data, run)  # refuses a share that leaves too few
    wanted = {name for name, *_ in harness.parse(setup, conditions)} | {CLEAN}
    found = Plan(setup, tuple(conditions), published)
    for run in runs:
        old = store.find(results, run, own=not published)
        if old is None or old.status != "done" or not old.same_identity(harness.blank(setup, run)):
            found.train.append(run)
        elif wanted <= set(old.scores):
            found.done.append(old)
        elif store.path_of(results, run).with_suffix(setup.kept).is_file():
            found.evaluate.append(old)
        else:
            found.train.append(run)
    return found


def _refuse_namesake(setup: Setup, results: Path) -> None:
    """A folder of results belongs to one plugin file: another file of the same name has a folder of its own, or none.

    Raises:
        UsageError: the folder belongs to another file that is still there.
    """
    folder = results / setup.benchmark_name / setup.names["fuser"]
    for kind, place in (("benchmark", folder.parent), ("fuser", folder)):
        name = setup.arguments[kind]
        if not registry.is_path(name):
            continue
        path, note = Path(name).expanduser().resolve(), place / ORIGIN
        owner = Path(note.read_text()) if note.is_file() else path
        if owner != path and owner.exists() and registry.plugin_name(str(owner)) == registry.plugin_name(name):
            raise UsageError(f"{place} holds the results of {owner}: rename {path}, or give --results DIR")
        if place.is_dir() and owner == path and not note.is_file():
            store.write(note, partial(_spell_path, path))


def _spell_path(path: Path, file: Any) -> None:
    file.write(str(path).encode())


@dataclass(frozen=True)
class Job:
    """Some runs of one plan, to be trained or to be evaluated again, as plain data: any process can take it.

    Attributes:
        arguments: of `harness.setup`; plugins given by file as absolute paths.
        published: as in `Plan`.
        code, data: what the results are to be of; a worker that has anything else refuses.
        package: likewise, of workers on a cluster: `package()`; empty in a process of this machine.
        stack: members a program; None: the worker measures.
        threads: of torch in a worker process; None: as the worker was started.
        folder: where the workers of a cluster note what they begin.
    """

    arguments: Mapping[str, Any]
    runs: tuple[Run, ...]
    conditions: tuple[str, ...]
    published: bool
    results: str
    code: Mapping[str, str]
    data: str
    package: str
    device: str = "auto"
    stack: int | None = None
    threads: int | None = None
    folder: str = ""

    @property
    def key(self) -> str:
        """16 hexadecimal digits: the same for the same work."""
        content = [[run.id for run in self.runs], self.conditions, sorted(self.code.items()), self.data, self.package]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    def left(self, setup: Setup) -> Plan:
        """The job, less what another process has finished since it was planned, by the rule of its plan."""
        return plan_runs(setup, self.runs, Path(self.results), self.conditions, self.published)


@dataclass(frozen=True)
class Failure:
    """A run that ended with an exception, or whose worker died; `file` holds the traceback."""

    run: Run
    traceback: str
    file: str

    @property
    def error(self) -> str:
        """The exception in one line."""
        return self.traceback.strip().splitlines()[-1]


@dataclass(frozen=True)
class Running:
    """So many jobs are under way now; `part` is what of their runs is done, where that is known."""

    jobs: int
    part: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """What came of a job: a record or a failure for each of its runs."""

    key: str
    records: list[Record] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    @property
    def events(self) -> Iterator[Record | Failure]:
        yield from self.records
        yield from self.failures


def sized(plan: Plan, where: torch.device, stack: int | None = None) -> Plan:
    """The plan with its number of members a program, as asked for or as measured on `where`."""
    if stack or not plan.train or plan.setup.is_estimator:
        return replace(plan, stack=stack)
    if where.type == "cuda" and not torch.cuda.is_available():  # the GPUs are those of the cluster
        return plan
    setup, run = plan.setup, plan.train[0]
    data = setup.data.to(where)
    member = harness.member_of(setup.recipe, run, harness.training_of(setup, data, run), setup.recipe.lr[0])
    return replace(plan, stack=engine.stack_size(setup.trained, [member], data, setup.recipe, where))


def cut(
    plans: Iterable[Plan],
    results: Path,
    workers: int,
    where: torch.device,
    *,
    device: str = "auto",
    folder: str = "",
    threads: int | None = None,
    package: str = "",
) -> Iterator[tuple[Job, Setup]]:
    """Jobs for so many workers that compute on `where`, with the setups that they are of; never the same work twice.

    Runs that form one program of the engine stay in one job, whatever the number of workers: on the CPU a run is
    stacked with the same others under any `jobs`. The seeds of a fold stay together, too: the first one chooses their
    learning rate.
    """
    plans = list(plans)
    # Two jobs a worker at least, where programs may be cut: the last to finish is not waited for long.
    share = ceil(sum(plan.todo for plan in plans) / (1 if workers == 1 else 2 * workers))
    known: set[str] = set()
    for plan in plans:
        stack = _share_of_gpu(plan.stack, where, workers)
        again = _groups([old.run for old in plan.evaluate], share)
        fresh = _by_folds(plan, _folds(plan.setup, stack, where, share))
        for runs in [*again, *fresh]:
            job = Job(
                arguments=_absolute(plan.setup.arguments),
                runs=tuple(runs),
                conditions=plan.conditions,
                published=plan.published,
                results=str(results.resolve()),
                code=dict(plan.setup.code),
                data=plan.setup.digest,
                package=package,
                device=device,
                stack=stack,
                threads=threads,
                folder=folder,
            )
            if job.key not in known:
                known.add(job.key)
                yield job, plan.setup


def _share_of_gpu(stack: int | None, where: torch.device, workers: int) -> int | None:
    """Workers on one GPU divide its memory."""
    if stack is None or where.type != "cuda" or not torch.cuda.is_available():
        return stack
    gpus = torch.cuda.device_count() if where.index is None else 1
    return max(1, stack // ceil(workers / gpus))


def _folds(setup: Setup, stack: int | None, where: torch.device, share: int) -> int:
    """Folds a job: those whose learning rates are tried in one program. The seeds of a fold share a choice."""
    if setup.is_estimator:
        return 1
    fitting = (stack or share) // len(setup.recipe.lr)
    if where.type == "cuda":  # a program takes all that memory holds: every worker is to have work
        fitting = min(fitting, share // setup.benchmark.seeds)
    return max(1, fitting)


def _by_folds(plan: Plan, folds: int) -> list[Sequence[Run]]:
    """The runs to train, those of so many folds together; where every seed deals its own folds, as many runs."""
    if plan.setup.partition:
        return _groups(plan.train, folds)
    by_fold: dict[int, list[Run]] = {}
    for run in plan.train:
        by_fold.setdefault(run.fold, []).append(run)
    return [[run for fold in some for run in by_fold[fold]] for some in _groups(list(by_fold), folds)]


def _groups(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[i : i + size] for i in range(0, len(items), size)]


def _absolute(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Another process may have another working directory."""

    def spell(name: str) -> str:
        given = registry.is_path(name) or registry.is_own(name)
        return str(Path(name).expanduser().resolve()) if given else name

    backbones = {m: spell(name) for m, name in (arguments["backbones"] or {}).items()}
    given = {part: dict(values) for part, values in (arguments["given"] or {}).items()}
    plugins = {kind: spell(arguments[kind]) for kind in ("benchmark", "fuser")}
    return {**arguments, **plugins, "backbones": backbones, "given": given}


@cache
def package() -> str:
    """SHA-256 of the Python files of this package and its plugin folders, as they were when first asked for."""
    digest = hashlib.sha256()
    folders = {"": Path(__file__).parent.parent, **{kind: registry._folder(kind) for kind in registry.KINDS}}
    files = {
        f"{kind}/{path.relative_to(folder)}": path
        for kind, folder in folders.items()
        for path in (folder.glob("*.py") if kind else folder.rglob("*.py"))
        if kind or path.relative_to(folder).parts[0] not in registry.KINDS  # in a wheel the plugins lie inside
    }
    for name, path in sorted(files.items()):
        digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]

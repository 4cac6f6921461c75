"""What there is to do, as plain data: cells, and what comes of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import ceil, lcm
from pathlib import Path
from typing import Any

import torch

from fusionbench import engine, harness, registry
from fusionbench.harness import Plan, Setup
from fusionbench.records import Record, Run

Row = tuple[Setup, Sequence[str], Plan]


@dataclass(frozen=True)
class Cell:
    """Some runs of one row, as plain data.

    Attributes:
        arguments: of `harness.setup`; plugins given by file as absolute paths.
        code, data: what the results are to be of; a worker that has anything else refuses.
        package: likewise, of workers on a cluster: `package()`; empty in a process of this machine.
        stacked: members a program; None: the worker measures.
        threads: of torch in a worker process; None: as the worker was started.
        folder: where processes of this machine take their turns on its GPUs, and cluster workers note what they begin.
    """

    arguments: Mapping[str, Any]
    runs: tuple[Run, ...]
    conditions: tuple[str, ...]
    results: str
    code: Mapping[str, str]
    data: str
    package: str
    device: str = "auto"
    stacked: int | None = None
    threads: int | None = None
    folder: str = ""

    @property
    def key(self) -> str:
        """16 hexadecimal digits: the same for the same work."""
        content = [[run.id for run in self.runs], self.conditions, sorted(self.code.items()), self.data, self.package]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


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
    """What came of a cell: a record or a failure for each of its runs."""

    key: str
    records: list[Record] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def told(self) -> Iterator[Record | Failure]:
        yield from self.records
        yield from self.failures


def cells(
    rows: Iterable[Row], results: Path, jobs: int = 1, *, device: str = "auto", stacked: int | None = None
) -> list[Cell]:
    """What the plans ask for, cut for `jobs` workers of this machine."""
    return [cell for cell, _ in cut(rows, results, jobs, harness.pick(device), device, stacked)]


def cut(
    rows: Iterable[Row], results: Path, jobs: int, where: torch.device, device: str, stacked: int | None,
    folder: str = "", threads: int | None = None, state: str = "",
) -> Iterator[tuple[Cell, Setup]]:  # fmt: skip
    """Cells for `jobs` workers that compute on `where`, with the setups that they are of; never the same work twice."""
    rows = list(rows)
    # Two cells a worker at least, where programs may be cut: the last to finish is not waited for long.
    share = ceil(sum(len(plan.train) + len(plan.evaluate) for *_, plan in rows) / (1 if jobs == 1 else 2 * jobs))
    known: set[str] = set()
    for setup, conditions, plan in rows:
        together = stacked or (_together(setup, plan, where, jobs) if plan.train else None)
        groups = _groups([old.run for old in plan.evaluate], share)
        groups += _groups(plan.train, _block(setup, together, where, share), even=where.type == "cuda")
        for runs in groups:
            cell = Cell(
                _absolute(setup.arguments), tuple(runs), tuple(conditions), str(results.resolve()), dict(setup.code),
                setup.digest, state, device, together, threads, folder,
            )  # fmt: skip
            if cell.key not in known:
                known.add(cell.key)
                yield cell, setup


def _together(setup: Setup, plan: Plan, where: torch.device, jobs: int) -> int | None:
    """Members a program; None where only the worker's own GPU can say."""
    if where.type == "cuda" and not torch.cuda.is_available():  # the GPUs are those of the cluster
        return None
    run = plan.train[0]
    data = setup.data.to(where)
    splits = harness.splits_of(setup, data, run.fold)
    member = harness.member_of(setup.recipe, run, splits, setup.recipe.lr[0])
    gpus = torch.cuda.device_count() if where.type == "cuda" and where.index is None else 1
    sharing = ceil(jobs / gpus) if where.type == "cuda" else 1  # workers on one GPU divide its memory
    return max(1, engine.company(setup.trained, [member], data, setup.recipe, where) // sharing)


def _block(setup: Setup, together: int | None, where: torch.device, share: int) -> int:
    """Runs a cell: whole programs."""
    rates = len(setup.recipe.lr)
    if where.type == "cuda":
        return share if together is None else min(share, max(1, together // rates))
    return lcm(together or 1, rates) // rates


def _groups(runs: Sequence[Run], block: int, even: bool = False) -> list[Sequence[Run]]:
    if even and runs:
        block = ceil(len(runs) / ceil(len(runs) / block))
    return [runs[i : i + block] for i in range(0, len(runs), block)] if runs else []


def _absolute(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Another process may have another working directory."""

    def spell(name: str) -> str:
        return str(Path(name).expanduser().resolve()) if registry.is_path(name) else name

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

"""A recorded run again: trained and compared, or its weights used for a challenge's test list."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fusionbench import registry, stats
from fusionbench.errors import UsageError
from fusionbench.harness.evaluate import CLEAN, Answering, Network, load_model
from fusionbench.harness.execute import execute, refit
from fusionbench.harness.setup import Setup, setup
from fusionbench.records import Record, store
from fusionbench.records.compare import spell
from fusionbench.records.evidence import Evidence
from fusionbench.stats import Interval


def setup_of(
    old: Record,
    *,
    benchmark: str | None = None,
    fuser: str | None = None,
    root: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Setup:
    """The setup that a record is of; a file that the record names runs only if the user names it too.

    Raises:
        UsageError: the record names a file, or a plugin that is not here.
    """
    for what, named, given in (
        ("--benchmark", old.run.benchmark, benchmark),
        ("--fuser", old.run.fuser, fuser),
        *(("another record", name, None) for name in old.run.backbones.values()),
    ):
        if given is None and registry.is_path(named):
            raise UsageError(f"record {old.run.id} names the file {named}: if you trust it, say {what} {named}")
    parts = {part: dict(values) for part, values in old.run.hparams.items()}
    parts["benchmark"] = {**parts.get("benchmark", {}), **(settings or {}), **({"root": root} if root else {})}
    return setup(
        benchmark or old.run.benchmark, fuser or old.run.fuser, old.run.backbones, parts, partition=old.run.partition
    )


def reproduce(
    old: Record, *, benchmark: str | None = None, fuser: str | None = None, root: str | None = None,
    device: str = "auto",
) -> Record:  # fmt: skip
    """The run of a record, trained and evaluated again, clean only; nothing is kept on disk.

    Args:
        benchmark, fuser: where they are now, if they were given by path; root: where the data are.
    """
    if old.run.ensemble:
        one = old.run.members[0].id
        raise UsageError(f"run {old.run.id} averages others: reproduce a member of it, as {one}")
    fresh = setup_of(old, benchmark=benchmark, fuser=fuser, root=root)
    with tempfile.TemporaryDirectory() as folder:
        run = fresh.run(old.run.fold, old.run.seed)
        events = execute(fresh, [run], Path(folder), conditions=[], device=device)
        (new,) = [event for event in events if isinstance(event, Record)]
    return new


def submit(setup: Setup, old: Record, results: Path, out: Path) -> None:
    """Writes a run's answers to the samples that no split holds and that have no label: a challenge's test list.

    Raises:
        UsageError: the benchmark has no submission format, or the run's weights are not on disk.
    """
    if old.run.ensemble:
        raise UsageError(f"run {old.run.id} averages others: hand in a member of it, as {old.run.members[0].id}")
    data = setup.data
    model: Answering
    if setup.is_estimator:
        model = refit(setup, old, data)
    else:
        weights = store.weights(results, old.run)
        if weights is None:
            raise UsageError(f"the weights of run {old.run.id} are not on disk: run it again first")
        model = Network(load_model(setup, old.run, weights, data.y.device))
    index = np.flatnonzero(~data.y_mask.any(1).numpy())
    answers = model.answer(data[index])
    setup.benchmark.submission([data.ids[int(i)] for i in index], answers, out)


def is_reproduced(old: Record, new: Record, evidence: Evidence | None) -> tuple[bool, str]:
    """Did the primary clean score come back, and a sentence that says so.

    It did if it is the same, or within the old run's 95 % interval over people, from its stored `evidence`.
    """
    metric = old.metrics[0]
    then, now = (r.scores.get(CLEAN, {}).get(metric) for r in (old, new))
    what = f"run {old.run.id}, {metric}: {spell(then)} then, {spell(now)} now"
    if old.protocol != new.protocol or old.data != new.data or dict(old.code) != dict(new.code):
        changed = [n for n in ("protocol", "data", "code") if getattr(old, n) != getattr(new, n)]
        what += f" ({' and '.join(changed)} changed since)"
    if then is None or now is None:
        return then == now and old.status == new.status, f"{what}: there is no number to compare."
    if then == now:
        return True, f"{what}: the same."
    found = Interval(then, None, None)
    table = None if evidence is None else stats.tables([(0, 0, evidence)], metric).get(CLEAN)
    if table is not None:
        found = stats.interval(table, metric)
    if found.low is None or found.high is None:
        close = math.isclose(then, now, rel_tol=1e-3)
        return close, f"{what}: {'close' if close else 'not the same'}, and no interval is known."
    inside = found.low <= now <= found.high
    return inside, f"{what}: {'within' if inside else 'outside'} its interval [{found.low:.4g}, {found.high:.4g}]."

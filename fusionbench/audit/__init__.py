"""A leak microscope: what in somebody's data, or in a benchmark, makes scores that no new person would see.

One function a question, one value an answer (`Finding`), rendered once. Small forests and plain statistics on summaries
of at most `samples.LIMIT` samples: seconds to a minute. `docs/audit.md` says what each question asks, how often it is
raised on clean data, and what it cannot see.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from fusionbench.audit import copies, encoded, learned
from fusionbench.audit.findings import Audit, Finding
from fusionbench.audit.models import METRIC
from fusionbench.audit.rendering import FORMATS, render
from fusionbench.audit.samples import LIMIT, Samples, load
from fusionbench.errors import unknown
from fusionbench.text import counted

QUESTIONS = {
    question.__name__: question
    for question in (
        copies.folds, learned.shuffled, learned.group, learned.time, copies.duplicates, copies.overlap,
        encoded.columns, learned.missing, encoded.ids, encoded.scaling, learned.fitted,
    )
}  # fmt: skip

__all__ = ["FORMATS", "QUESTIONS", "Audit", "Finding", "audit", "audit_samples", "render"]


def audit(target: str, given: Mapping[str, Any] | None = None, accepted: Collection[str] = ()) -> Audit:
    """Every question on an .npz file, a folder with benchmark.toml, a .py plugin or a benchmark's name.

    Args:
        given: the benchmark's settings, as `root` of one whose data lie elsewhere.
        accepted: questions whose suspicion is known.

    Raises:
        UsageError: there is no such data, they cannot be read, there are too few, or there is no such question.
    """
    for name in accepted:
        if name not in QUESTIONS:
            raise unknown("question", name, QUESTIONS)
    return audit_samples(target, load(target, given), accepted)


def audit_samples(target: str, samples: Samples, accepted: Collection[str] = ()) -> Audit:
    """The same of samples that are loaded."""
    whole, unit = len(samples.data), samples.benchmark.unit
    folds = samples.benchmark.folds
    summary = f"{counted(whole, 'sample')} of {counted(len(set(samples.data.groups)), unit)}, {counted(folds, 'fold')}"
    if len(samples.rows) == LIMIT:
        summary += f"; models look at {LIMIT:,} samples, evenly taken"
    findings = tuple(question(samples) for question in QUESTIONS.values())
    return Audit(target, summary, METRIC[samples.kind], findings, frozenset(accepted))

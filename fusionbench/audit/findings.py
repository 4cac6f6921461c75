"""What the audit says: one question, one verdict, its evidence and the numbers behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Answer = Literal["clean", "suspicious", "not asked"]
SUSPICIOUS: Answer = "suspicious"
NOT_ASKED: Answer = "not asked"


@dataclass(frozen=True)
class Finding:
    """The answer to one question.

    Attributes:
        question: its name, which `--accept` takes.
        verdict: "clean", "suspicious", or "not asked" where the data do not allow the question.
        evidence: a sentence with the numbers that the verdict rests on.
        numbers: the same numbers by name, unrounded.
    """

    question: str
    verdict: Answer
    evidence: str
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Audit:
    """All findings on one set of data.

    Attributes:
        target: as it was named; summary: samples, groups, folds in a line.
        metric: what scores are.
        accepted: questions whose suspicion is known and does not count.
    """

    target: str
    summary: str
    metric: str
    findings: tuple[Finding, ...]
    accepted: frozenset[str] = frozenset()

    @property
    def suspicious(self) -> list[Finding]:
        """Those that count."""
        return [f for f in self.findings if f.verdict == SUSPICIOUS and f.question not in self.accepted]

    def __getitem__(self, question: str) -> Finding:
        return next(f for f in self.findings if f.question == question)


def verdict(suspected: bool) -> Answer:
    return "suspicious" if suspected else "clean"


def short(value: float) -> str:
    """`.984`, `1.000`, `-.020`."""
    return f"{value:.3f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.3f}"

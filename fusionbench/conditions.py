"""What is done to the input, as a value: spelled `noise:acc:3`, parsed only where it is typed or stored."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

ALL = "all"


@dataclass(frozen=True)
class Condition:
    """One corruption of some modalities at one severity.

    Attributes:
        name: of the corruption, `noise`.
        modalities: those it was asked for, or `("all",)`.
        severity: 1, 2, ...; None for all severities of the corruption, or where it has only one.
    """

    name: str
    modalities: tuple[str, ...]
    severity: int | None = None

    @classmethod
    def parse(cls, spelling: str) -> Condition:
        """The condition that `noise:acc`, `noise:acc+gyro:3` or `gap` (of all modalities) spells.

        Raises:
            ValueError: it is not of this form.
        """
        name, *rest = spelling.split(":")
        modalities, *levels = rest or [ALL]
        if not name or len(levels) > 1:
            raise ValueError(f"{spelling!r} is not of the form name:modality:severity")
        severity = int(levels[0]) if levels else None
        return cls(name, tuple((modalities or ALL).split("+")), severity)

    def __str__(self) -> str:
        level = "" if self.severity is None else f":{self.severity}"
        return f"{self.name}:{'+'.join(self.modalities)}{level}"

    @property
    def family(self) -> Condition:
        """The same corruption of the same modalities, at whatever severity."""
        return replace(self, severity=None)

    @property
    def level(self) -> int:
        """The severity; 1 where there is only one."""
        return 1 if self.severity is None else self.severity

    def targets(self, modalities: Collection[str]) -> frozenset[str]:
        """Which of these modalities it changes."""
        return frozenset(modalities if self.modalities == (ALL,) else self.modalities)


def families(conditions: Iterable[Condition]) -> dict[Condition, list[Condition]]:
    """Family -> its conditions by rising severity, in order of appearance."""
    found: dict[Condition, list[Condition]] = {}
    for condition in conditions:
        found.setdefault(condition.family, []).append(condition)
    return {family: sorted(levels, key=lambda c: c.level) for family, levels in found.items()}

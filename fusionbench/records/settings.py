"""Facts that a record holds as text, as values: settings that were changed, a search's budget, how a run was trained.

The only place where this text is taken apart, and the one that spells it.
"""

from __future__ import annotations

from dataclasses import dataclass

ENCODER = "backbone"


@dataclass(frozen=True)
class Change:
    """A setting that is not the default.

    Attributes:
        part: "fuser", "train", "benchmark", "partition", or "backbone.<modality>".
        name: of the setting; empty where the backbone itself is another one, and of the partition.
        value: as it was typed.
    """

    part: str
    name: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Change:
        """The change that `fuser.width=256`, `backbone.acc=gru` or `backbone.acc.dim=64` spells."""
        left, _, value = text.partition("=")
        words = left.split(".")
        size = 2 if words[0] == ENCODER else 1
        return cls(".".join(words[:size]), ".".join(words[size:]), value)

    @property
    def flag(self) -> str:
        """`fuser.width`, `backbone.acc`: how the command line calls it."""
        return f"{self.part}.{self.name}" if self.name else self.part

    @property
    def short(self) -> str:
        """`width=256`, `acc=gru`, `acc.dim=64`; `partition per-seed` of what belongs to no plugin."""
        return str(self).partition(".")[2] or f"{self.part} {self.value}"

    def __str__(self) -> str:
        return f"{self.flag}={self.value}"


@dataclass(frozen=True)
class Budget:
    """The search that a tuned run's settings come from: trials an outer fold, and the hash of what it found."""

    trials: int | None
    digest: str

    @classmethod
    def parse(cls, text: str) -> Budget:
        """The budget that `6 trials d3c378` spells; a text of another form is all digest."""
        number, _, rest = text.partition(" trials")
        return cls(int(number), rest.strip(" ,")) if number.isdecimal() else cls(None, text)

    def __str__(self) -> str:
        return self.digest if self.trials is None else f"{self.trials} trials {self.digest}"


@dataclass(frozen=True)
class Training:
    """How a run was trained: with how many others in one program, and whether as a CUDA graph."""

    others: int = 0
    graph: bool = False

    @classmethod
    def parse(cls, text: str) -> Training:
        """The value that `stacked with 29 others, as a CUDA graph` spells; anything else was trained alone."""
        numbers = [int(word) for word in text.split() if word.isdecimal()]
        return cls(numbers[0] if numbers else 0, "CUDA graph" in text)

    def __str__(self) -> str:
        how = f"stacked with {self.others} others" if self.others else "alone"
        return f"{how}, as a CUDA graph" if self.graph else how

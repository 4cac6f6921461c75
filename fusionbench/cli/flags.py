"""Flags that come from signatures: `--fuser.width 128`, `--train.lr 1e-3`, `--backbone.acc tcn`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import click
from click.shell_completion import CompletionItem

from fusionbench.errors import UsageError, unknown

MOST = 10_000  # seeds or folds


@dataclass
class Given:
    """What dotted flags said: part -> hyper-parameter -> text, and modality -> backbone."""

    hparams: dict[str, dict[str, Any]] = field(default_factory=dict)
    backbones: dict[str, str] = field(default_factory=dict)


def dotted(ctx: click.Context) -> Given:
    """Reads the flags that click left over.

    Raises:
        UsageError: a word that is no flag, or a flag without a dot (with the nearest one).
    """
    given = Given()
    words = list(ctx.args)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise UsageError(f"unexpected argument {word!r}; flags are written --seeds 3 or --fuser.width 128")
        name, equals, value = word.removeprefix("--").partition("=")
        parts = name.split(".")
        if parts[0] not in ("fuser", "train", "backbone", "benchmark") or not 2 <= len(parts) <= 3:
            options = [o for p in ctx.command.params for o in p.opts if o.startswith("--")]
            raise unknown("flag", f"--{name}", [*options, "--fuser.", "--train.", "--backbone.", "--benchmark."])
        if not equals:
            value = words.pop(0) if words and not words[0].startswith("--") else "true"
        if parts[0] == "backbone" and len(parts) == 2:
            given.backbones[parts[1]] = value
        else:
            given.hparams.setdefault(".".join(parts[:-1]), {})[parts[-1]] = value
    return given


def completed(*kinds: str) -> Any:
    """What a shell completes: names of plugins of these kinds, and files once it looks like a path."""

    def complete(ctx: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
        from fusionbench import registry

        if registry.is_path(typed) or typed.startswith("."):
            return [CompletionItem(typed, type="file")]
        known = {name: origin for kind in kinds for name, origin in registry.names(kind).items()}
        return [CompletionItem(n, help=o.summary()) for n, o in known.items() if n.startswith(typed)]

    return complete


def numbers(text: str | None, what: str) -> list[int] | None:
    """`5` -> 0 to 4; `0,3` or `3,` -> exactly these; None stays None."""
    if text is None:
        return None
    try:
        listed = [int(part) for part in text.split(",") if part.strip()]
        if "," not in text:
            listed = list(range(min(listed[0], MOST + 1)))
        if not 0 < len(listed) <= MOST or not 0 <= min(listed) <= max(listed) < 2**31:
            raise ValueError
    except (ValueError, IndexError):
        raise UsageError(
            f"--{what} takes a number (5: the first five) or a list (0,3; 0, is 0 alone), not {text!r}"
        ) from None
    return sorted(set(listed))


def amount(text: str | None, flag: str) -> float | None:
    """`0.03`, or `3%` -> 0.03; None stays None."""
    if text is None:
        return None
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise UsageError(f"{flag} takes a difference in the metric's units, as 0.03 or 3%, not {text!r}") from None


def counts(text: str | None, what: str) -> list[int]:
    """`3,5,10` -> these numbers; none from None."""
    try:
        return [int(part) for part in (text or "").split(",") if part.strip()]
    except ValueError:
        raise UsageError(f"--{what} takes numbers, as 3,5,10, not {text!r}") from None

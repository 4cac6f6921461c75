"""One progress bar for whatever takes longer than a moment: on standard error, on a terminal only."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

#: (done, total): how far a piece of work is; total None where nobody knows.
Advance = Callable[[int, int | None], None]
#: What is done within this time needs no bar.
PATIENCE = 0.7  # seconds
T = TypeVar("T")


@contextmanager
def bar(title: str, patience: float = PATIENCE) -> Iterator[Advance]:
    """A function that says how far the work is; silence without a terminal, and for work that is soon done.

    It appears with the first call after `patience` seconds and is gone at the end.
    """
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    began, shown = time.monotonic(), dict[str, Any]()
    with ExitStack() as stack:

        def advance(done: int, total: int | None) -> None:
            if not shown and time.monotonic() - began >= patience:
                from rich.console import Console
                from rich.progress import Progress

                shown["bar"] = stack.enter_context(Progress(console=Console(stderr=True), transient=True))
                shown["task"] = shown["bar"].add_task(title, total=total)
            if shown:
                shown["bar"].update(shown["task"], completed=done, total=total)

        advance(0, None)
        yield advance


def counted(items: Iterable[T], advance: Advance, total: int | None = None) -> Iterator[T]:
    """The items as they are, counted."""
    for number, item in enumerate(items, 1):
        yield item
        advance(number, total)

"""One progress bar for whatever takes longer than a moment: on standard error, on a terminal only."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

#: (done, total): how far a piece of work is; total None where nobody knows.
Advance = Callable[[int, int | None], None]
#: What is done within this time needs no bar.
PATIENCE = 0.7  # seconds
T = TypeVar("T")


@contextmanager
def bar(title: str, patience: float = PATIENCE) -> Iterator[Advance]:
    """A function that says how far the work is; silence without a terminal, and for work that is soon done.

    The bar appears after `patience` seconds, said or not, and is gone at the end. One bar at a time.
    """
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    said: dict[str, Any] = {"completed": 0, "total": None}
    shown, lock = dict[str, Any](), threading.Lock()

    def appear() -> None:
        with lock, suppress(Exception):  # a bar that cannot be drawn stops nothing
            if not timer.finished.is_set():
                shown["bar"] = Progress(console=Console(stderr=True), transient=True)
                shown["task"] = shown["bar"].add_task(title, **said)
                shown["bar"].start()

    def advance(done: int, total: int | None) -> None:
        said.update(completed=done, total=total)
        if "task" in shown:
            shown["bar"].update(shown["task"], **said)

    timer = threading.Timer(patience, appear)
    timer.daemon = True
    timer.start()
    try:
        yield advance
    finally:
        timer.cancel()
        with lock:
            if "task" in shown:
                shown["bar"].stop()


def counted(items: Iterable[T], advance: Advance, total: int | None = None) -> Iterator[T]:
    """The items as they are, counted."""
    for number, item in enumerate(items, 1):
        yield item
        advance(number, total)

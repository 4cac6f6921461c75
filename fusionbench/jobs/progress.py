"""How many runs are done, under way and failed, and how long the rest will take: live on a terminal, else in lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

from fusionbench.jobs.plan import Failure, Running
from fusionbench.records import Record
from fusionbench.text import counted

BESIDE = 62  # signs of the bar and the counts: in a narrow terminal the title gives way


@dataclass
class _State:
    """Counts of runs; `part` is what is done of those under way."""

    total: int
    done: int = 0
    failed: int = 0
    jobs: int = 0
    part: float = 0.0
    began: float = field(default_factory=time.monotonic)

    @property
    def progress(self) -> float:
        return self.done + self.failed + self.part

    @property
    def left(self) -> str:
        """The time left, if what is to come takes as long as what is done."""
        if not self.progress:
            return ""
        seconds = (time.monotonic() - self.began) * max(0.0, self.total - self.progress) / self.progress
        return f"{seconds:.0f} s left" if seconds < 120 else f"{seconds / 60:.0f} min left"

    @property
    def brief(self) -> str:
        """What stands beside a bar."""
        counts = f"{self.done} of {counted(self.total, 'run')}, {self.jobs} running, {self.failed} failed"
        return f"{counts}, {self.left}" if self.left else counts

    def __str__(self) -> str:
        running = f"{counted(self.jobs, 'job')} running, {self.failed} failed"
        counts = f"{self.done} of {counted(self.total, 'run')} done, {running}"
        return f"{counts}, {self.left}" if self.left else counts


def watch(
    events: Iterable[Record | Failure | Running], total: int, title: str, every: float = 30.0
) -> Iterator[Record | Failure]:
    """Passes records and failures on, and says on standard error how far they are of `total` runs.

    Without a terminal there is a line every `every` seconds at most, and one at the end; a failure is reported at once.
    """
    state = _State(total)
    with ExitStack() as stack:
        say, show = _screen(state, title, stack) if sys.stderr.isatty() else _lines(state, title, every)
        try:
            for event in events:
                if isinstance(event, Running):
                    state.jobs, state.part = event.jobs, event.part
                else:
                    error = event.error if isinstance(event, Failure) else None
                    bad = isinstance(event, Failure) or event.status != "done"
                    state.failed, state.done, state.part = state.failed + bad, state.done + (not bad), 0.0
                    if isinstance(event, Failure):
                        run = event.run
                        say(f"failed: {run.fuser} fold {run.fold} seed {run.seed}: {error} (all of it: {event.file})")
                    yield event
                show(False)
        finally:
            state.jobs = 0
            if state.progress:
                show(True)


def _lines(state: _State, title: str, every: float) -> tuple[Callable[[str], None], Callable[[bool], None]]:
    latest = time.monotonic()

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def show(last: bool) -> None:
        nonlocal latest
        if last or time.monotonic() - latest >= every:
            latest = time.monotonic()
            say(f"{title}: {state}")

    return say, show


def _screen(state: _State, title: str, stack: ExitStack) -> tuple[Callable[[str], None], Callable[[bool], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Column

    console = Console(stderr=True)
    title_column = Column(no_wrap=True, overflow="ellipsis", max_width=max(12, console.width - BESIDE))
    name = TextColumn("{task.description}", markup=False, table_column=title_column)
    text = TextColumn("{task.fields[state]}", markup=False, table_column=Column(no_wrap=True))
    bar = stack.enter_context(Progress(name, BarColumn(10), text, console=console, transient=True))
    task = bar.add_task(title, total=state.total, state="")

    def show(last: bool) -> None:
        bar.update(task, completed=state.progress, state=state.brief)

    return lambda line: bar.console.print(line, markup=False, highlight=False), show

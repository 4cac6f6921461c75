"""The conformance kit: the contract of every kind of plugin as plain functions, and a report on one plugin.

In a plugin author's own tests it is two lines:

    from fusionbench.check import report
    def test_mine(): assert (r := report("fusers", "./mine.py")).ok, r
"""

from __future__ import annotations

import inspect
import time
import traceback
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from fusionbench import registry
from fusionbench.api import Estimator
from fusionbench.check import backbones, benchmarks, corruptions, estimators, fusers
from fusionbench.check._tools import Check, NotApplicable
from fusionbench.errors import UsageError, unknown
from fusionbench.text import counted

__all__ = [
    "BACKBONE",
    "BENCHMARK",
    "CHECKS",
    "CORRUPTION",
    "ESTIMATOR",
    "FUSER",
    "NotApplicable",
    "Report",
    "Result",
    "report",
]

FUSER: list[Check] = fusers.CHECKS
ESTIMATOR: list[Check] = estimators.CHECKS
BACKBONE: list[Check] = backbones.CHECKS
BENCHMARK: list[Check] = benchmarks.CHECKS
CORRUPTION: list[Check] = corruptions.CHECKS

#: kind -> its checks, in the order in which they run; of a fuser that is an `Estimator`: `ESTIMATOR`
CHECKS = {"fusers": FUSER, "backbones": BACKBONE, "benchmarks": BENCHMARK, "corruptions": CORRUPTION}

Status = Literal["passed", "failed", "excused", "not applicable"]


@dataclass(frozen=True)
class Result:
    """What one check found: `sentence` is what the contract says, `message` what was seen or the reason given."""

    name: str
    status: Status
    message: str
    sentence: str
    seconds: float = 0.0

    def __str__(self) -> str:
        status = self.status.upper() if self.status == "failed" else self.status
        return f"  {status:<14}  {self.name:<24}  {self.message or self.sentence}"


@dataclass(frozen=True, repr=False)
class Report:
    """All results of one plugin. `str` of it is a line per check and how many ran."""

    kind: str
    plugin: str
    results: tuple[Result, ...]

    @property
    def ok(self) -> bool:
        """Something passed and nothing failed: a plugin for which nothing ran is not ok."""
        return self.count("passed") > 0 and self.count("failed") == 0

    @property
    def ran(self) -> int:
        """How many checks were executed to an end, good or bad."""
        return len(self.results) - self.count("not applicable")

    def count(self, status: Status) -> int:
        return sum(result.status == status for result in self.results)

    @property
    def failed(self) -> dict[str, str]:
        """Name of each failed check -> why."""
        return {r.name: r.message for r in self.results if r.status == "failed"}

    def lines(self) -> list[str]:
        total = sum(result.seconds for result in self.results)
        counts = f"{self.count('passed')} passed, {self.count('failed')} failed, {self.count('excused')} excused"
        counts += f"; {self.count('not applicable')} not applicable"
        verdict = f"{counted(self.ran, 'check')} ran in {total:.1f} s: {counts}"
        if not self.count("passed"):
            verdict += "; nothing passed, so this plugin fails" if self.ran else "; nothing ran, so this plugin fails"
        head = f"{registry.KINDS[self.kind][0]} {self.plugin}"
        return [head, *map(str, self.results), verdict]

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def __repr__(self) -> str:
        """The failures alone: this is what pytest prints, shortened, after `assert report(...).ok`."""
        broken = [f"{name}: {message}" for name, message in self.failed.items()]
        return "; ".join([f"{self.lines()[0]}, {self.lines()[-1]}", *broken])


def report(kind: str, plugin: str | type, only: Collection[str] = ()) -> Report:
    """Every check of the kind on one plugin, its `known_failures` honoured.

    An excused check must fail: an excuse that is no longer true fails, and so does one that names no check.

    Args:
        kind: "fusers", "backbones", "benchmarks" or "corruptions".
        plugin: a name, a path (`./mine.py`) or the class.
        only: names of checks to run; all of them if empty.

    Raises:
        UsageError: no such kind, plugin or check.
    """
    if kind not in CHECKS:
        raise unknown("kind of plugin", kind, CHECKS)
    target = registry.load(kind, plugin) if isinstance(plugin, str) else plugin
    title = registry.plugin_name(plugin) if isinstance(plugin, str) else plugin.__name__
    _expect_kind(kind, target, title)
    checks = {check.__name__: check for check in (ESTIMATOR if issubclass(target, Estimator) else CHECKS[kind])}
    for name in only:
        if name not in checks:
            raise unknown(f"check of {kind}", name, checks)
    declared: Any = target
    excuses: Mapping[str, str] = declared.known_failures
    results = [_stray_excuse(name, checks) for name in excuses if name not in checks]
    for name, check in checks.items():
        if not only or name in only:
            results.append(_judge(check, target, excuses.get(name)))
    return Report(kind, title, tuple(results))


def _expect_kind(kind: str, target: Any, title: str) -> None:
    if not registry.is_plugin(kind, target):
        word, base = registry.KINDS[kind]
        raise UsageError(f"{title} is not a {word}: it does not inherit from api.{base}")


def _stray_excuse(name: str, checks: Mapping[str, Check]) -> Result:
    message = f"it excuses {name!r}, which is no check: {unknown('check', name, checks)}"
    return Result("known_failures", "failed", message, "An excuse names a check.")


def _judge(check: Check, target: Any, excuse: str | None) -> Result:
    """One check, with the excuse that the plugin has for it, if any."""
    began = time.perf_counter()
    status, message = _attempt(check, target)
    if excuse is not None and status == "failed":
        status, message = "excused", f"{excuse} [{message}]"
    elif excuse is not None and status == "passed":
        status, message = "failed", f"the excuse is no longer true, the check passes; remove {excuse!r}"
    sentence = inspect.getdoc(check) or ""
    return Result(check.__name__, status, message, sentence, time.perf_counter() - began)


def _attempt(check: Check, target: Any) -> tuple[Status, str]:
    with torch.random.fork_rng(devices=[]):
        try:
            check(target)
        except NotApplicable as reason:
            return "not applicable", str(reason)
        except Exception as error:  # a plugin may raise anything at all
            return "failed", _one_line(error, target)
    return "passed", ""


def _one_line(error: Exception, target: Any) -> str:
    """What a check says; or an exception's type, text and the innermost line of the plugin's file."""
    frames = traceback.extract_tb(error.__traceback__)
    text = str(error).strip().splitlines()[0] if str(error).strip() else ""
    if isinstance(error, AssertionError) and Path(frames[-1].filename).parent == Path(__file__).parent:
        return text or f"the check at line {frames[-1].lineno} of {Path(frames[-1].filename).name}"
    try:
        own = inspect.getfile(target)
    except (OSError, TypeError):  # a class made in an interactive session
        own = ""
    frame = next((f for f in reversed(frames) if f.filename == own), frames[-1])
    return f"{type(error).__name__}: {text} ({Path(frame.filename).name}, line {frame.lineno})"

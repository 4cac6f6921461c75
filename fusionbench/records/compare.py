"""Two records beside each other: what differs, and whether their scores do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fusionbench.errors import UsageError, unknown
from fusionbench.records import store
from fusionbench.records.rows import CLEAN
from fusionbench.records.types import Record


def find(results: Path, name: str) -> Record:
    """The record whose run id begins with `name`.

    Raises:
        UsageError: there is none, or more than one.
    """
    known = [r for r in store.load(results) if r.run.id.startswith(name)]
    if len(known) > 1:
        raise UsageError(f"{len(known)} records begin with {name!r}: give more digits")
    if not known:
        raise unknown(f"run in {results}", name, [r.run.id for r in store.load(results)])
    return known[0]


def diff(a: Record, b: Record) -> list[str]:
    """What differs between two records, one sentence each, and last whether the scores do."""
    lines = []
    for name in ("benchmark", "fuser", "fold", "seed"):
        lines += _changed(name, getattr(a.run, name), getattr(b.run, name))
    lines += _changed("partition", *(r.run.partition or "one for all seeds" for r in (a, b)))
    lines += _mapped("backbone of ", a.run.backbones, b.run.backbones)
    for part in dict.fromkeys([*a.run.hparams, *b.run.hparams]):
        lines += _mapped(f"{part}.", a.run.hparams.get(part, {}), b.run.hparams.get(part, {}))
    lines += _mapped("code of ", a.code, b.code)
    for name in ("data", "protocol", "status", "device", "how", "error"):
        lines += _changed(name, getattr(a, name), getattr(b, name))
    lines += _mapped("version of ", a.versions, b.versions)
    lines += _mapped("parameters, ", a.parameters, b.parameters)
    lines += _mapped("chosen ", a.chosen, b.chosen)
    return [*(lines or ["Run, code, data, protocol and versions are the same."]), *_scores(a, b)]


def _changed(name: str, a: Any, b: Any) -> list[str]:
    return [] if a == b else [f"{name}: {spell(a)} against {spell(b)}."]


def _mapped(prefix: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    return [line for name in dict.fromkeys([*a, *b]) for line in _changed(prefix + name, a.get(name), b.get(name))]


def spell(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(spell, value))
    return "nothing" if value is None else repr(value) if isinstance(value, float) else str(value)


def _scores(a: Record, b: Record) -> list[str]:
    identities = [(r.run.benchmark, r.run.partition, r.protocol, r.data) for r in (a, b)]
    if identities[0] != identities[1]:
        return ["The scores are not comparable: benchmark, partition, data or protocol differ."]
    shared = [c for c in a.scores if c in b.scores]
    pairs = [(c, m, v, b.scores[c][m]) for c in shared for m, v in a.scores[c].items() if m in b.scores[c]]
    moved = [p for p in pairs if p[2] != p[3]]
    only = sorted(set(a.scores) ^ set(b.scores))
    lines = [f"Only one of them has {', '.join(only)}."] if only else []
    if not pairs:
        return [*lines, "They share no score."]
    if not moved:
        return [*lines, f"All {len(pairs)} shared scores are the same to the last digit."]
    measured = [(abs(v - w), c, m, v, w) for c, m, v, w in moved if v is not None and w is not None]
    lines.append(f"{len(moved)} of {len(pairs)} shared scores differ.")
    clean = [p for p in pairs if p[0] == CLEAN and p[1] == a.metrics[0]]
    lines += [f"Clean {m}: {spell(v)} against {spell(w)}." for _, m, v, w in clean]
    if measured:
        _, c, m, v, w = max(measured)
        lines.append(f"The largest difference: {m} under {c}, {v:.6g} against {w:.6g}.")
    return lines

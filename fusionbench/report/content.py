"""One board as the values that its page shows: table, verdicts, lattice, subgroups, audit, rows with their commands."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from fusionbench import text
from fusionbench.conditions import families
from fusionbench.leaderboard import Board, Row, chance, findings, footnotes, helps, sentence
from fusionbench.leaderboard import columns as cols
from fusionbench.leaderboard.commands import command
from fusionbench.leaderboard.layout import CHANCE_ROW
from fusionbench.leaderboard.rendering import flat, raw
from fusionbench.leaderboard.robustness import lattice
from fusionbench.leaderboard.sentences import WHERE
from fusionbench.leaderboard.statistics import DAMAGED, SCORE
from fusionbench.leaderboard.subgroups import attributes_of, served, spelled
from fusionbench.leaderboard.values import as_measured, as_place, as_rates, measured, realised
from fusionbench.report import advice, opening, plots

#: Columns of the CSV that stand before those of the table.
ALWAYS = ("benchmark", "protocol", "metric", "ranked", "status")


def board(found: Board, name: str, results: Path, audit: Mapping[str, Any] | None) -> dict[str, Any]:
    """Everything that the template asks of a board; `name` is its anchor and the name of its page."""
    columns = [
        replace(c, value=cache(c.value)) for c in cols.known(found).values() if not c.asked
    ]  # shown several times
    rows, ranked = cols.ordered(found), found.ranked
    shared = _shared([row for row in rows if row.records.used])
    return {
        "name": name,
        "title": found.title,
        "metric": found.metric.replace("_", " "),
        "facts": {
            "metric": found.metric.replace("_", " "), "modalities": ", ".join(found.modalities),
            "ranked rows": len(ranked), text.plural(found.unit): found.groups or "-",
            "seeds": max((row.seeds for row in ranked), default="-"),
            "folds": max((row.folds for row in ranked), default="-"),
            "reference": found.reference or "none", "protocol": found.protocol, "data": found.data,
        },
        "answer": opening.answer(found),
        "summary": [c for c in columns if c.group == "summary"],
        "groups": {group: about for group, about in cols.GROUPS.items() if any(c.group == group for c in columns)},
        "rows": _lines(found, rows, [c for c in columns if c.group == "summary"]),
        "helped": {c.name: c.explain for c in columns},
        "data": packed({
            "table": _table(found, rows, columns), "scores": advice.data(found),
            "details": {anchor(row): _details(row, shared) for row in rows if row.records.used},
        }),
        "notes": footnotes(found),
        "helps": [*helps(found), *chance(found)],
        "verdicts": _verdicts(found),
        "figures": plots.draw(found),
        "lattice": _lattice(found),
        "corruptions": {name: _weights(found, name) for name in _kinds(found)},
        "advice": advice.sentences(found),
        "families": list(map(str, families(found.damage))),
        "levels": max((c.level for c in found.damage), default=1),
        "subgroups": _subgroups(found, results),
        "audit": audit,
        "shared": shared,
        "fusers": [_fuser(found, row) for row in rows if row.records.used],
    }  # fmt: skip


def script(value: Any) -> str:
    """A value as JSON that may stand in a script element."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")


def packed(value: Any) -> str:
    """The same as gzip in base64: a third of its size, and numbers are most of a page. The same bytes each time."""
    return base64.b64encode(gzip.compress(script(value).encode(), mtime=0)).decode()


def anchor(row: Row) -> str:
    return f"row-{row.runs[0]}" if row.runs else ""


def _kind(row: Row) -> str:
    return "ranked" if row.ranked else "unranked"


def _is_top(found: Board, row: Row) -> bool:
    return bool((place := row.places.get(found.measure)) and place.tier == 1)


def _lines(found: Board, rows: Sequence[Row], columns: Sequence[cols.Column]) -> list[dict[str, Any]]:
    """The rows as a reader without scripts sees them."""
    lines = [
        {"cells": [c.cell(found, c.value(found, row)) for c in columns], "anchor": anchor(row), "kind": _kind(row),
         "top": _is_top(found, row)}
        for row in rows
    ]  # fmt: skip
    if values := cols.constant(found):
        cells = [CHANCE_ROW if c.name == "fuser" else c.cell(found, values.get(c.name)) for c in columns]
        lines.insert(len(found.ranked), {"cells": cells, "anchor": "", "kind": "chance", "top": False})
    return lines


def _table(found: Board, rows: Sequence[Row], columns: Sequence[cols.Column]) -> dict[str, Any]:
    """What sorting, choosing and downloading need: of each cell its text and its numbers, as `--format csv` has them.

    A cell whose text is its value has no numbers of its own. Ranked rows come first, in the order of `Board.ranked`.
    """
    whole = [{key: flat(value) for key, value in raw(found, row, columns).items()} for row in rows]
    keys = {c.name: [c.name, *(k for end in ENDS if (k := f"{c.name}-{end}") in whole[0])] for c in columns}
    lines = []
    for row, values in zip(rows, whole, strict=True):
        texts = [c.cell(found, c.value(found, row)) for c in columns]
        numbers = [_numbers(said, [values[k] for k in keys[c.name]]) for said, c in zip(texts, columns, strict=True)]
        lines.append({"kind": _kind(row), "top": _is_top(found, row), "anchor": anchor(row),
                      "head": [values[key] for key in ALWAYS], "text": texts, "raw": numbers})  # fmt: skip
    if constant := cols.constant(found):
        texts = [CHANCE_ROW if c.name == "fuser" else c.cell(found, constant.get(c.name)) for c in columns]
        single = [None if c.name == "fuser" else getattr(v := constant.get(c.name), "value", v) for c in columns]
        numbers = [
            _numbers(said, [value, *[None] * (len(keys[c.name]) - 1)])
            for said, value, c in zip(texts, single, columns, strict=True)
        ]
        lines.insert(len(found.ranked), {"kind": "chance", "top": False, "anchor": "", "text": texts, "raw": numbers,
                                         "head": [found.title, found.protocol, found.metric, False, ""]})  # fmt: skip
    about = [{"name": c.name, "group": c.group, "up": bool(c.is_up(found)), "keys": keys[c.name]} for c in columns]
    return {"head": ALWAYS, "columns": about, "rows": lines}


def _numbers(said: str, values: Sequence[Any]) -> Any:
    """What a cell is beside its text: 0 for nothing, else its values."""
    short = [_rounded(v) if isinstance(v, float | int) and not isinstance(v, bool) else v or "" for v in values]
    if len(short) > 1:
        return short if any(value != "" for value in short) else 0
    return 0 if str(short[0]) == said or not isinstance(short[0], float | int) else short


#: What `leaderboard --format csv` adds to the name of a column.
ENDS = ("low", "high", "decision")


def _rounded(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _kinds(found: Board) -> list[str]:
    """Each corruption, which has its own order, and the mean over all of them."""
    kinds = list(dict.fromkeys(family.name for family in families(found.damage)))
    return [*kinds, DAMAGED] if kinds else []


def _weights(found: Board, name: str) -> str:
    """What a corruption's score averages, with weights, and the realised rates where they are known."""
    named = families(found.damage)
    own = {f: levels for f, levels in named.items() if name in (f.name, DAMAGED)}
    said = f"Mean over the severities of {next(iter(own))}."
    if len(own) > 1:
        said = f"Mean over {', '.join(map(str, own))}, each of weight 1/{len(own)} and averaged over its severities."
    row = next((row for row in found.ranked if row.label == found.reference), None)
    rates = {f: realised(row, levels) for f, levels in own.items()} if row and name != DAMAGED else {}
    taken = [f"{family} {as_rates(found, shares)}" for family, shares in rates.items() if shares]
    return said + (f" Realised rates by severity: {'; '.join(taken)}." if taken else "")


def _verdicts(found: Board) -> list[dict[str, Any]]:
    """The sentences by measure: significant differences, and the others."""
    shown = []
    for measure in (DAMAGED, SCORE):
        said = [finding for finding in findings(found) if finding.measure == measure]
        if said:
            significant = [sentence(found, f.verdict) for f in said if f.is_significant]
            others = [sentence(found, f.verdict) for f in said if not f.is_significant]
            shown.append({"title": WHERE[measure], "significant": significant, "others": others})
    return shown


def _lattice(found: Board) -> dict[str, Any] | None:
    """Scores over the subsets of modalities that are missing; shades go from the lowest to the highest score."""
    rows = {row.name: (row, lattice(found, row)) for row in found.ranked}
    whole = frozenset(found.modalities)
    subsets = sorted({s for _, c in rows.values() for s in c}, key=lambda s: (-len(s), sorted(whole - s)))
    known = [found.sign * v for _, c in rows.values() for v in c.values() if v is not None]
    if len(subsets) < 2 or not known:
        return None
    low, high = min(found.sign * v for v in known), max(found.sign * v for v in known)
    heads = ["nothing" if s == whole else ", ".join(m for m in found.modalities if m not in s) for s in subsets]
    lines = []
    for name, (row, scores) in rows.items():
        cells = []
        for s in subsets:
            value = scores.get(s)
            shade = 0.0 if value is None or high == low else (value - low) / (high - low)
            said = "-" if value is None else text.score(found.sign * value, found.percent)
            cells.append({"text": said, "shade": round(9 * shade)})
        if any(cell["text"] != "-" for cell in cells[1:]):
            lines.append({"name": name, "cells": cells, "anchor": anchor(row)})
    return {"heads": heads, "rows": lines, "said": _worst(found, rows, whole)}


def _worst(found: Board, rows: Mapping[str, Any], whole: frozenset[str]) -> str:
    """The absence that costs the reference, or else the best row, most."""
    row, scores = next((v for v in rows.values() if v[0].label == found.reference), next(iter(rows.values())))
    known = {s: v for s, v in scores.items() if v is not None and s != whole}
    if not known or scores.get(whole) is None:
        return ""
    least = min(known, key=lambda s: (known[s], sorted(s)))
    gone = text.listed(m for m in found.modalities if m not in least)
    before, after = (text.score(found.sign * v, found.percent) for v in (scores[whole] or 0.0, known[least]))
    return f"Missing {gone} costs {row.name} most: {before} to {after}."


def _subgroups(found: Board, results: Path) -> list[dict[str, Any]]:
    """A table an attribute of the groups: scores of the ranked rows by subgroup, and the gap."""
    ranked = found.ranked
    if not ranked or not attributes_of(ranked[0].records, results):  # one row tells whether the records have any
        return []
    known = {row.label: attributes_of(row.records, results) for row in ranked}
    tables = []
    for attribute in sorted({name for of in known.values() for name in of}):
        rows = [s for row in ranked if (s := served(row, known[row.label].get(attribute, {}), results, found))]
        if rows:
            heads, lines, notes = spelled(found, attribute, rows, known[rows[0].row.label][attribute])
            tables.append({"attribute": attribute, "heads": heads, "rows": lines, "notes": notes})
    return tables


def _settings(row: Row) -> dict[str, str]:
    """Setting -> value; a tuned row has settings of its own in every fold."""
    found: dict[str, list[str]] = {}
    for r in row.records.used:
        for part, given in r.run.hparams.items():
            for name, value in given.items():
                found.setdefault(f"{part}.{name}", []).append(_spell(value))
    return {name: " | ".join(dict.fromkeys(values)) for name, values in found.items()}


def _made(row: Row) -> dict[str, str]:
    first = row.records.first
    return {
        **{f"backbone of {m}": name for m, name in first.run.backbones.items()},
        **{f"code of {part}": value for part, value in first.code.items() if part != "fuser"},
        **dict(first.versions),
        "device": ", ".join(sorted({r.device for r in row.records.used})),
    }


def _shared(rows: Sequence[Row]) -> dict[str, str]:
    """Settings, code and versions that all rows of a board have alike: said once."""
    if len(rows) < 2:
        return {}
    each = [{**_settings(row), **_made(row)} for row in rows]
    return {name: value for name, value in each[0].items() if all(other.get(name) == value for other in each)}


def _fuser(found: Board, row: Row) -> dict[str, Any]:
    """A row with what was said of it and the command that makes it again."""
    place, value = row.places.get(found.measure), measured(found.measure)(found, row)
    said = [f"place {as_place(found, place)}"] if place else []
    said += [f"{opening.word(found)} {as_measured(found, value)}"] if value is not None else []
    return {
        "anchor": anchor(row),
        "name": row.name,
        "fuser": row.fuser,
        "said": ", ".join(said),
        "verdicts": [f"{WHERE[m]}: {sentence(found, row.verdicts[m])}" for m in (DAMAGED, SCORE) if m in row.verdicts],
        "command": command(row.records, found.damage),
    }


def _details(row: Row, shared: Mapping[str, str]) -> dict[str, Any]:
    """What made a row beside what all rows of its board share: settings (and are they changed?), code, runs."""
    changed = {change.flag for r in row.records.used for change in r.changed}
    return {
        "settings": [(n, v, n in changed) for n, v in _settings(row).items() if n not in shared or n in changed],
        "made": {"code": row.records.first.code.get("fuser", "-")}
        | {n: v for n, v in _made(row).items() if n not in shared},
        "runs": row.runs,
    }


def _spell(value: Any) -> str:
    return ", ".join(map(_spell, value)) if isinstance(value, list | tuple) else str(value)

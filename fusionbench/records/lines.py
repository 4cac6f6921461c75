"""`records.jsonl`: what the runs of a row share stands in one line, what is a run's own in a line each.

A row's line is `{"format": 2, "row": name, "record": {...}}`: a record with null wherever its runs differ. A run's line
is `{"id": id, "row": name, field: [...], ...}`: field by field what stands at those nulls, in order; many numbers (the
scores) as base64 of little-endian doubles, NaN for null, which halves them and keeps every digit. A damaged line costs
its run; of a row, its runs. A line that is a whole record by itself (format 1) is read as well.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fusionbench.records.types import FORMAT, Record, content, parsed, values

LINES = 2  # the format of these lines
MANY = 8  # from so many numbers on they are packed


def written(records: Sequence[Record]) -> str:
    """The text of records: each row's line and then its runs, in the order of their ids."""
    rows: dict[str, list[Record]] = {}
    for r in sorted(records, key=lambda r: r.run.id):
        rows.setdefault(r.run.row, []).append(r)
    lines: list[dict[str, Any]] = []
    for name, members in rows.items():
        runs = [content(r) for r in members]
        shared = _shared(runs)
        lines.append({"format": LINES, "row": name, "record": shared})
        for r, item in zip(members, runs, strict=True):
            own = {key: list(_own(item[key], shared[key])) for key in shared}
            packed = {key: _packed(given) for key, given in own.items() if given}
            lines.append({"id": r.run.id, "row": name, **packed})
    return "".join(json.dumps(line, separators=(",", ":"), allow_nan=False) + "\n" for line in lines)


def read(line: str, rows: dict[str, Any]) -> Record | None:
    """The record in a line, or None: a row's line, which joins `rows`. What is damaged raises one of `DAMAGE`."""
    found = values(line)
    if "id" not in found:
        if found["format"] != LINES:
            return parsed(found)
        rows[found["row"]] = found["record"]
        return None
    identity, row = found.pop("id"), found.pop("row")
    if row not in rows:
        raise ValueError("the line of its row is damaged or gone")
    whole = {}
    for key, shared in rows[row].items():
        own = iter(_unpacked(found.pop(key, [])))
        whole[key] = _filled(shared, own)
        if next(own, rows) is not rows:
            raise ValueError(f"{key} has more values than its row has places")
    if found:
        raise ValueError(f"its row knows nothing of {', '.join(found)}")
    record = parsed({"format": FORMAT, **whole})
    if record.run.id != identity:
        raise ValueError("its content is not of the run that it names")
    return record


def _shared(items: Sequence[Any]) -> Any:
    """What all have in common, None where they differ; the keys of nested values stay in their order."""
    first = items[0]
    if all(isinstance(item, Mapping) and list(item) == list(first) for item in items):
        return {key: _shared([item[key] for item in items]) for key in first}
    same = {json.dumps(item) for item in items}  # 1, 1.0 and true are equal but not the same
    return first if len(same) == 1 and not isinstance(first, Mapping) else None


def _own(item: Any, shared: Any) -> Iterator[Any]:
    """What stands in `item` where `shared` is None, in order."""
    if isinstance(shared, dict):
        for key, value in shared.items():
            yield from _own(item[key], value)
    elif shared is None:
        yield item


def _filled(shared: Any, own: Iterator[Any]) -> Any:
    if isinstance(shared, dict):
        return {key: _filled(value, own) for key, value in shared.items()}
    if shared is not None:
        return shared
    try:
        return next(own)
    except StopIteration:
        raise ValueError("it has fewer values than its row has places") from None


def _packed(given: list[Any]) -> list[Any] | str:
    if len(given) < MANY or not all(v is None or type(v) is float for v in given):
        return given
    return base64.b64encode(np.array(given, dtype="<f8").tobytes()).decode()


def _unpacked(given: list[Any] | str) -> list[Any]:
    if not isinstance(given, str):
        return given
    numbers = np.frombuffer(base64.b64decode(given, validate=True), dtype="<f8")
    if np.isinf(numbers).any():
        raise ValueError("infinity is no number")
    return [None if v != v else v for v in numbers.tolist()]

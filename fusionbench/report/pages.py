"""The pages as text: one with everything; or an index, a page a benchmark and a page a method, linked."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import fusionbench
from fusionbench import text
from fusionbench.errors import UsageError
from fusionbench.leaderboard import Board, Row
from fusionbench.leaderboard.footnotes import GLOSSARY
from fusionbench.progress import Advance
from fusionbench.report import content, opening

TEMPLATES = Path(__file__).parent / "templates"
QUESTION = "Which fusion method, when modalities are noisy or missing?"
#: From so many boards on, each is folded on the one page, under a line that says its answer.
FOLDED = 3
AUDIT = "audit.json"


@dataclass(frozen=True)
class Links:
    """How the pages lead to each other; all links are relative. Everything on one page: to its own anchors.

    Attributes:
        names: a board's number in memory -> its anchor and the name of its page; methods: fuser -> name of its page.
        up: what leads from this page to the index's folder; None: there is one page only.
    """

    names: Mapping[int, str]
    methods: Mapping[str, str]
    up: str | None
    several_protocols: bool
    terms: str = GLOSSARY

    @property
    def home(self) -> str:
        return "" if self.up is None else f"{self.up}index.html"

    def board(self, board: Board) -> str:
        name = self.names[id(board)]
        return f"#{name}" if self.up is None else f"{self.up}benchmark/{name}.html"

    def row(self, board: Board, row: Row) -> str:
        return self.row_of(board, content.anchor(row))

    def row_of(self, board: Board, anchor: str) -> str:
        page = "" if self.up is None else self.board(board)
        return f"{page}#{self.names[id(board)]}-{anchor}"

    def method(self, fuser: str) -> str:
        return f"{self.up}method/{self.methods[fuser]}.html" if self.up is not None and fuser in self.methods else ""


def anchors(boards: Sequence[Board]) -> list[str]:
    """A name for each board that serves as an anchor and as a file name."""
    return _distinct([board.title for board in boards])


def _distinct(titles: Sequence[str]) -> list[str]:
    """Names of letters, digits and hyphens, no two alike, also where a file system ignores case."""
    names: list[str] = []
    for title in titles:
        plain = re.sub(r"[^\w-]+", "-", title).strip("-").lower() or "unnamed"
        name, number = plain, 1
        while name in names:
            number += 1
            name = f"{plain}-{number}"
        names.append(name)
    return names


@cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("page.html.jinja")


def _page(**values: Any) -> str:
    empty: dict[str, Any] = {"opening": None, "boards": [], "method": [], "methods": [], "folded": False}
    helped = {name: about for board in values.get("boards", ()) for name, about in board["helped"].items()}
    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("style.css", "page.js"))
    return str(
        _template().render(
            empty
            | {"style": style, "script": script, "helped": helped and content.script(helped), "signs": opening.SIGNS}
            | values
        )
    )


def _labels(boards: Sequence[Board]) -> list[str]:
    """The titles; with the protocol where two boards have the same."""
    many = Counter(board.title for board in boards)
    return [f"{b.title} (protocol {b.protocol})" if many[b.title] > 1 else b.title for b in boards]


def _contents(
    boards: Sequence[Board], results: Path | None, audits: Mapping[str, Any], advance: Advance
) -> list[dict[str, Any]]:
    found = []
    for board, name, label in zip(boards, anchors(boards), _labels(boards), strict=True):
        audit = audits.get(board.benchmark)
        path = (results or Path("results")) / board.benchmark / AUDIT
        one = content.board(board, name, results or Path("results"), audit)
        found.append(one | {"label": label, "benchmark": board.benchmark, "audit_path": path})
        advance(len(found), len(boards))
    return found


def _opening(boards: Sequence[Board], results: Path | None, audits: Mapping[str, Any]) -> dict[str, Any]:
    over = opening.over(boards)
    return {
        "over": over,
        "matrix": opening.cells(over) if over is not None else [],
        "single": opening.answer(boards[0]) if over is None and len(boards) == 1 else None,
        "lines": opening.overview(boards, audits),
        "claims": opening.claims(boards, results) if results is not None and over is not None else [],
    }


def _lead(boards: Sequence[Board]) -> str:
    rows = sum(len(board.ranked) for board in boards)
    protocols = text.listed(sorted({str(board.protocol) for board in boards}))
    return (
        f"{text.counted(len(boards), 'board')}, {text.counted(rows, 'ranked row')}, protocol {protocols}. Verdicts "
        "are of corrected tests over groups and seeds; undecided means that no difference was shown, not that there is "
        "none."
    )


def single(boards: Sequence[Board], results: Path | None, advance: Advance) -> str:
    """Everything on one page."""
    audits = read_audits({b.benchmark for b in boards}, results)
    names = dict(zip(map(id, boards), anchors(boards), strict=True))
    to = Links(names, {}, None, len({b.protocol for b in boards}) > 1)
    found = _contents(boards, results, audits, advance)
    return _page(
        kind="page", title="fusionbench report", heading=QUESTION, lead=_lead(boards), to=to,
        nav=[("answer", "#answer"), *((b["label"], f"#{b['name']}") for b in found)],
        opening=_opening(boards, results, audits) if len(boards) > 1 else None, boards=found,
        folded=len(boards) >= FOLDED,
    )  # fmt: skip


def several(boards: Sequence[Board], results: Path | None, advance: Advance) -> dict[str, str]:
    """Relative path -> page: index.html, benchmark/NAME.html, method/NAME.html."""
    audits = read_audits({b.benchmark for b in boards}, results)
    names = dict(zip(map(id, boards), anchors(boards), strict=True))
    fusers = sorted({row.fuser for board in boards for row in board.rows if row.records.used})
    methods = dict(zip(fusers, _distinct(fusers), strict=True))
    protocols = len({b.protocol for b in boards}) > 1
    home, below = Links(names, methods, "", protocols), Links(names, methods, "../", protocols)
    found = _contents(boards, results, audits, advance)
    nav = [(b["label"], below.board(board)) for board, b in zip(boards, found, strict=True)]
    pages = {
        "index.html": _page(
            kind="index",
            title="fusionbench",
            heading=QUESTION,
            lead=_lead(boards),
            to=home,
            nav=[(b["label"], home.board(board)) for board, b in zip(boards, found, strict=True)],
            opening=_opening(boards, results, audits),
            methods=[(name, home.method(name)) for name in fusers],
        )
    }
    for one in found:
        pages[f"benchmark/{one['name']}.html"] = _page(
            kind="benchmark", title=f"{one['label']} - fusionbench", heading=one["label"], lead=QUESTION, to=below,
            nav=nav, boards=[one],
        )  # fmt: skip
    for fuser, name in methods.items():
        lines = [
            {"board": board, "title": b["label"], "rows": [f for f in b["fusers"] if f["fuser"] == fuser]}
            for board, b in zip(boards, found, strict=True)
        ]
        lines = [line for line in lines if line["rows"]]
        pages[f"method/{name}.html"] = _page(
            kind="method", title=f"{fuser} - fusionbench", heading=fuser, to=below, nav=nav, method=lines,
            lead=f"On {text.counted(len(lines), 'board')}; what it computes and its options: fusionbench info {fuser}",
        )  # fmt: skip
    return pages


def read_audits(benchmarks: set[str], results: Path | None) -> dict[str, Any]:
    """Benchmark -> what `fusionbench audit NAME --format json` printed: results/NAME/audit.json, else docs/benchmarks.

    Raises:
        UsageError: such a file holds anything else.
    """
    shipped = Path(fusionbench.__file__).parent.parent / "docs" / "benchmarks"
    found = {}
    for name in sorted(benchmarks):
        own = [results / name / AUDIT] if results is not None else []
        path = next((path for path in (*own, shipped / f"{name}.audit.json") if path.is_file()), None)
        if path is not None:
            found[name] = _audit(path)
    return found


def _audit(path: Path) -> dict[str, Any]:
    try:
        audit = json.loads(path.read_text(encoding="utf-8"))
        known = {key: audit[key] for key in ("summary", "metric", "accepted", "suspicious", "findings")}
        for finding in known["findings"]:
            _ = finding["question"], finding["verdict"], finding["evidence"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        said = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise UsageError(f"{path} is not what fusionbench audit --format json prints: {said}") from None
    return known

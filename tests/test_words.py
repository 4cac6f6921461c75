"""One word for one thing, and nothing that we print is parsed back."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import fusionbench

ROOT = Path(fusionbench.__file__).parent.parent
#: Words that another has replaced: "stack" for company, "evaluate" for rehearse, "custom data" for owndata, ...
REPLACED = re.compile(
    r"\b(not told from chance|set aside|owndata|company|rehearse|revive|came_back|critical switch|switch off from)\b"
)
#: Modules to which records come as values and that make text of them.
SPEAKING = ("leaderboard", "report", "stats", "tracking")
TAKES_APART = {"startswith", "endswith", "partition", "rpartition", "split", "rsplit", "removeprefix", "removesuffix"}
EXPRESSIONS = {"match", "search", "fullmatch", "findall", "finditer"}
#: Calls that take text apart which is not of a record's making, and why.
ALLOWED = {
    "about.removeprefix(board.title)": "the title is set in bold: it was put there in the line above",
    "f'{rate:.2f}'.removeprefix('0')": "a number on its way out",
    "text.startswith('0')": "the same",
    "uri.startswith('http')": "an address that the user gave",
    "uri.startswith('sqlite:///')": "the same",
    "uri.removeprefix('sqlite:///')": "the same",
    "uri.removeprefix('sqlite:///').partition('?')": "the same",
    "name.split('/')": "a name on its way into MLflow",
    "there.data.tags.get(COPIED, '').split(', ')": "a list that MLflow keeps as text",
}


def texts() -> list[Path]:
    found = [path for name in ("fusionbench", "fusers", "backbones", "benchmarks", "bench", "tests", "docs")
             for path in (ROOT / name).rglob("*") if path.suffix in (".py", ".md", ".jinja", ".toml")]  # fmt: skip
    return [*found, *(path for name in ("README.md", "CONTRIBUTING.md") if (path := ROOT / name).is_file())]


def test_no_word_that_another_has_replaced() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {word}"
        for path in texts()
        if path != Path(__file__)
        for word in set(REPLACED.findall(path.read_text()))
    ]
    assert not found
    assert REPLACED.search("members in company")


def calls(part: str) -> list[tuple[str, str]]:
    """(place, call) of everything that takes text apart."""
    found = []
    for path in sorted((ROOT / "fusionbench" / part).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            name, owner = node.func.attr, ast.unparse(node.func.value)
            if (name in TAKES_APART and owner != "np") or (name in EXPRESSIONS and owner == "re"):
                found.append((f"{path.relative_to(ROOT)}:{node.lineno}", ast.unparse(node)))
    return found


@pytest.mark.parametrize("part", SPEAKING)
def test_nothing_that_is_printed_is_parsed_back(part: str) -> None:
    """A sentence, a label or a spelled setting is made once, at the edge; who needs the fact takes the value."""
    strange = [f"{place} {call}" for place, call in calls(part) if call not in ALLOWED]
    assert not strange, "carry it as a value, or say in ALLOWED why this text is not ours"


def test_every_exception_is_still_needed() -> None:
    known = {call for part in SPEAKING for _, call in calls(part)}
    assert set(ALLOWED) <= known

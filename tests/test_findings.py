"""Every sentence of the findings names the command that says so, and every number in it is what the command prints."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILE = ROOT / "results" / "FINDINGS.md"
NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d[\d,]*)?\.?\d+(?![\w])")
COMMANDS = ("fusionbench ", "python bench/")


def sentences() -> list[str]:
    """The bullets, each as one line."""
    if not FILE.is_file():
        return []
    parts = re.split(r"^- ", FILE.read_text(), flags=re.MULTILINE)[1:]
    return [" ".join(part.split("\n\n")[0].split()) for part in parts]


def commands(bullet: str) -> list[str]:
    return [code for code in re.findall(r"`([^`]+)`", bullet) if code.startswith(COMMANDS)]


def numbers(bullet: str) -> list[str]:
    """As they stand in the sentence, code and links left out."""
    plain = re.sub(r"`[^`]+`|\]\([^)]*\)", "", bullet)
    return [found.rstrip(",") for found in NUMBER.findall(plain)]


@pytest.fixture(scope="module")
def output(command: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[[str], str]:
    @cache
    def of(line: str) -> str:
        words = shlex.split(line)
        if words[0] == "fusionbench":
            done = command(*words[1:], cwd=ROOT)
        else:
            done = subprocess.run([sys.executable, *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}: {done.stderr}"
        return " ".join(done.stdout.split())

    return of


@pytest.mark.parametrize("bullet", sentences(), ids=lambda bullet: bullet[:40])
def test_a_finding_is_what_its_command_prints(bullet: str, output: Callable[[str], str]) -> None:
    lines = commands(bullet)
    assert lines, "no command is named"
    printed = " ".join(output(line) for line in lines)
    there = set(NUMBER.findall(printed))
    lacking = [number for number in numbers(bullet) if number not in there]
    assert not lacking, f"{lacking} are not in what {' and '.join(lines)} print"


def test_the_page_is_two_pages_and_the_check_can_fail() -> None:
    if not FILE.is_file():
        pytest.skip("the results are not part of an installed package")
    assert len(FILE.read_text().split()) <= 1200, "two pages"
    assert len(sentences()) >= 8
    assert numbers("a +5.2 [0.1, 10.4], p = .047 in 1,377 of `x 3`") == ["+5.2", "0.1", "10.4", ".047", "1,377"]

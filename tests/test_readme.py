"""What the README shows is what happens: its template conforms, its commands run."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fusionbench.check import report

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    lines = [line.split("#")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line.startswith("fusionbench ")]


def test_the_template_is_short_and_conforms(tmp_path: Path) -> None:
    (template,) = blocks("python")
    assert len([line for line in template.splitlines() if line.strip()]) <= 15
    mine = tmp_path / "gated_sum.py"
    mine.write_text(template)
    assert (r := report("fusers", str(mine))).ok, r


@pytest.mark.parametrize("line", commands())
def test_every_command_runs(line: str, command: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "gated_sum.py").write_text(blocks("python")[0])
    words = shlex.split(line)[1:]
    if words[0] in ("run", "compare", "missing-grid"):
        words += ["--quick", "--no-track", "--seeds", "1", "--folds", "1"]
    if words[0] == "tune":
        words += ["--trials", "1", "--inner", "2", "--seeds", "1", "--train.steps", "6", "--train.interval", "6"]
        words += ["--no-track"]
    if words[0] in ("leaderboard", "report"):
        assert not command("run", "-f", "concat", "-b", "toy_xor", "--quick", "--no-track", cwd=tmp_path).returncode
    done = command(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_first_command_ends_in_a_run_and_the_second_is_the_test_suite() -> None:
    first = blocks("bash")[0].strip()
    assert first.endswith("fusionbench run --fuser jmt")
    assert "pip install -e ." in first
    (second,) = blocks("bash test")
    assert "pytest" in second
    assert "bash test" in (ROOT / ".ci" / "run").read_text()


def test_the_answer_below_the_first_command_is_the_one_that_was_captured() -> None:
    """`docs/_first_run.py` puts it there, a newer one in place of an older one."""
    spec = importlib.util.spec_from_file_location("first_run", ROOT / "docs" / "_first_run.py")
    assert spec is not None
    assert spec.loader is not None
    first_run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(first_run)
    page = (ROOT / "docs" / "first-run.txt").read_text()
    shown = first_run.with_answer(README, page)
    command, answer = shown.split("```bash\n")[1].split("\n```\n\n```text\n")
    assert command == blocks("bash")[0].strip()
    assert answer.startswith("watch: accuracy in %")
    assert first_run.with_answer(first_run.with_answer(README, page.replace("%", "per cent")), page) == shown
    if blocks("text"):
        assert README == shown

"""Captures the README's first command as a stranger meets it: `python docs/_first_run.py`.

A clone of this repository's HEAD, a fresh environment, 80 columns. Writes docs/first-run.txt, and its answer into the
README, right after the command. `--readme` only puts the answer of docs/first-run.txt into the README.
"""

from __future__ import annotations

import datetime
import os
import re
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

from fusionbench import text

ROOT = Path(__file__).resolve().parent.parent
PAGE, README = ROOT / "docs" / "first-run.txt", ROOT / "README.md"
#: The README's first block of commands, and the answer that follows it.
FIRST = re.compile(r"(```bash\n(.*?)\n```\n)(\n```text\n.*?```\n)?", re.DOTALL)
ANSWER = "\n\n"  # what stands above the answer on the page, below the lines about the progress


def capture() -> str:
    """What the command prints, under what the machine was and how long it took."""
    *install, command = (README.read_text().split("```bash\n")[1].split("\n```")[0]).split(" && ")
    with tempfile.TemporaryDirectory() as name:
        clone = Path(name) / "fusionbench"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        own = {"PYTHONPATH", "VIRTUAL_ENV", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "FUSIONBENCH_HOME"}
        how = {
            "cwd": clone,
            "env": {**{k: v for k, v in os.environ.items() if k not in own}, "COLUMNS": "80"},
            "text": True,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
        }
        done = subprocess.run(["bash", "-c", " && ".join(install)], **how)
        if done.returncode:
            raise SystemExit(f"{' && '.join(install)} failed: {done.stderr}")
        began = time.monotonic()
        done = subprocess.run(["bash", "-c", command], **how)
        took = text.duration(time.monotonic() - began)
    if done.returncode:
        raise SystemExit(f"{command} failed: {done.stderr}")
    progress = [line for line in done.stderr.splitlines() if " running, " not in line]
    head = textwrap.fill(
        f"The README's first command in a fresh clone with its published results and a fresh environment, 80 columns, "
        f"{datetime.date.today()}: {took} on {os.cpu_count()} cores under a load of {os.getloadavg()[2]:.1f}.", 80
    )  # fmt: skip
    said = [textwrap.fill(line, 80, subsequent_indent="  ") for line in progress]
    return "\n".join([head, "", f"$ {command.removeprefix('.venv/bin/')}", *said]) + ANSWER + done.stdout


def with_answer(readme: str, page: str) -> str:
    """The README with the page's answer below its first command."""
    answer = page.split(ANSWER, 2)[2].strip("\n")
    return FIRST.sub(lambda found: f"{found[1]}\n```text\n{answer}\n```\n", readme, count=1)


if __name__ == "__main__":
    if "--readme" not in sys.argv:
        PAGE.write_text(capture())
    README.write_text(with_answer(README.read_text(), PAGE.read_text()))

"""Screenshots of the report of the committed results, for the documents: `python bench/screenshots.py`.

Writes docs/report-<width>-<light or dark>.png: the answer in light, the inside of a board in dark.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from browser import CHROMIUM, Browser

from fusionbench import leaderboard, report
from fusionbench.records import store

ROOT = Path(__file__).resolve().parent.parent
BOARD = "watch"
#: (width, height, dark, what is at the top of the picture)
VIEWS = (
    (1280, 1250, False, "body"),
    (1280, 1250, True, f"#{BOARD}-curves"),
    (400, 1000, False, "body"),
    (400, 1000, True, f"#{BOARD} table.board"),
)


def main() -> int:
    if CHROMIUM is None:
        print("no chromium is installed: apt-get install chromium", file=sys.stderr)
        return 2
    results = ROOT / "results"
    with tempfile.TemporaryDirectory() as work, Browser() as browser:
        page = Path(work) / "report.html"
        report.write(leaderboard.build(store.load(results), results), page, results=results)
        for width, height, dark, top in VIEWS:
            browser.view(width, height, dark)
            browser.open(page)
            browser.run("new Promise(done => setTimeout(done, 1000))")
            browser.run(f"document.getElementById({BOARD!r}).open = {str(top != 'body').lower()}")
            browser.run(f"scrollTo(0, document.querySelector({top!r}).getBoundingClientRect().top + scrollY - 110)")
            browser.run("new Promise(done => setTimeout(done, 300))")
            path = ROOT / "docs" / f"report-{width}-{'dark' if dark else 'light'}.png"
            browser.picture(path)
            print(f"{path.relative_to(ROOT)} {path.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())

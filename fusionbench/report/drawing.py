"""What the figures share: style, colours, an empty figure, and a drawn one with its words."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusionbench.leaderboard import Row

#: Title, caption, figure of matplotlib, the rows that it shows.
Drawn = tuple[str, str, Any, Sequence[Row]]
#: So many rows have a colour of their own in a figure of curves; the others are thin and grey.
COLOURED = 6
INK, FAINT, GRID = "#1f2933", "#b8c1cc", "#e4e8ed"
COLOURS = ("#0b6e99", "#d1495b", "#2e8b57", "#8e5ea2", "#d98324", "#3d5a80")
STYLE: Any = {
    "svg.fonttype": "none", "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 9,
    "axes.edgecolor": FAINT, "axes.labelcolor": INK, "axes.titlesize": 10, "axes.titlecolor": INK, "text.color": INK,
    "xtick.color": INK, "ytick.color": INK, "xtick.labelcolor": INK, "ytick.labelcolor": INK, "grid.color": GRID,
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "axes.grid": True,
    "figure.facecolor": "white", "legend.frameon": False, "xtick.major.size": 0, "ytick.major.size": 0,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Picture:
    """A drawn figure with its words and the ids of the runs that it shows."""

    name: str
    title: str
    caption: str
    figure: Any
    runs: list[str]

    @property
    def half(self) -> bool:
        """Is it narrow enough that two stand side by side?"""
        return bool(self.figure.get_figwidth() < 7)

    def svg(self) -> str:
        """For inlining: no prologue, no metadata, ids of its own, the same bytes for the same records."""
        import matplotlib

        out = io.StringIO()
        bare: dict[str, Any] = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        with matplotlib.rc_context(STYLE | {"svg.hashsalt": self.name}):
            self.figure.savefig(out, format="svg", metadata=bare, bbox_inches="tight")
        text = out.getvalue()
        return text[text.index("<svg") :]

    def save(self, folder: Path) -> list[Path]:
        """As PNG, SVG and PDF, the run ids in each file's metadata."""
        import matplotlib

        folder.mkdir(parents=True, exist_ok=True)
        runs = "runs " + " ".join(self.runs)
        about: dict[str, dict[str, Any]] = {
            "png": {"Title": self.title, "Description": runs, "Software": None},
            "svg": {"Title": self.title, "Description": runs, "Date": None, "Creator": None},
            "pdf": {"Title": self.title, "Keywords": runs, "CreationDate": None, "Producer": None, "Creator": None},
        }
        paths = []
        with matplotlib.rc_context(STYLE | {"svg.hashsalt": self.name}):
            for ending, metadata in about.items():
                paths.append(folder / f"{self.name}.{ending}")
                self.figure.savefig(paths[-1], dpi=200, metadata=metadata, bbox_inches="tight")
        return paths


def new(width: float, height: float, rows: int = 1, columns: int = 1, **how: Any) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **how)

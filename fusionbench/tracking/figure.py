"""The figure of a table row: its score by severity of each corruption, and without each set of modalities."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from fusionbench.conditions import Condition, families

INK, FAINT = "#1f2933", "#b8c1cc"
MOST_BARS = 40  # conditions without severities; a lattice of six modalities has 62


def damage(
    label: str, metric: str, percent: bool, values: Mapping[str, Any], conditions: Mapping[Condition, float]
) -> bytes:
    """A PNG: curves over severity where there are several, bars where there is one; the clean interval in grey."""
    from matplotlib.figure import Figure

    scale = 100.0 if percent else 1.0
    kinds = families(conditions)
    curves = {name: levels for name, levels in kinds.items() if len(levels) > 1}
    bars = [levels[0] for levels in kinds.values() if len(levels) == 1][:MOST_BARS]
    panels = [bool(curves), bool(bars)]
    figure = Figure(figsize=(4.6 * sum(panels) + 0.4, max(3.2, 0.19 * len(bars) + 1.0)), layout="constrained")
    axes = list(figure.subplots(1, sum(panels), squeeze=False).flat)
    clean, low, high = (values.get(name) for name in ("score", "low", "high"))
    shown = f"{metric}{' (%)' if percent else ''}"
    if curves:
        ax = axes.pop(0)
        for place, (name, levels) in enumerate(curves.items()):
            heights = [v for v in (clean, *(conditions[c] for c in levels)) if v is not None]
            steps = range(1 + len(levels) - len(heights), 1 + len(levels))
            dashes = ("-", "--", ":", "-.")[place // 10 % 4]
            ax.plot(steps, [v * scale for v in heights], dashes, marker="o", ms=3, label=str(name))
        if low is not None and high is not None:
            ax.axhspan(low * scale, high * scale, color=FAINT, alpha=0.35, lw=0)
        ax.set_xlabel("severity (0 is clean)")
        ax.set_ylabel(shown)
        ax.legend(fontsize=7, frameon=False)
    if bars:
        ax = axes.pop(0)
        ax.barh(range(len(bars)), [conditions[c] * scale for c in bars], color="#0b6e99", height=0.7)
        ax.set_yticks(range(len(bars)), list(map(str, bars)), fontsize=7)
        ax.invert_yaxis()
        if clean is not None:
            ax.axvline(clean * scale, color=INK, lw=1)
        if low is not None and high is not None:
            ax.axvspan(low * scale, high * scale, color=FAINT, alpha=0.35, lw=0)
        ax.set_xlabel(shown)
    for ax in figure.axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8)
    figure.suptitle(f"{label}: clean (line, with its 95 % interval) and under each condition", fontsize=9, color=INK)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110, metadata={"Software": None})
    return out.getvalue()

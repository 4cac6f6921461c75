"""What is said of the people of a data set, for scores by subgroup."""

from __future__ import annotations

from collections.abc import Sequence


def age_band(age: float, edges: Sequence[int]) -> str:
    """`under 30`, `30 to 44`, `45 and over` for the edges (30, 45); empty for an age below 0, which is not known."""
    if age < 0:
        return ""
    if age < edges[0]:
        return f"under {edges[0]}"
    if age >= edges[-1]:
        return f"{edges[-1]} and over"
    above = next(k for k, edge in enumerate(edges) if age < edge)
    return f"{edges[above - 1]} to {edges[above] - 1}"

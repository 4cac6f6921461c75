"""Bands of age, as they stand in tables by subgroup."""

from __future__ import annotations

from importlib import import_module

age_band = import_module("fusionbench.benchmarks._people").age_band


def test_edges_belong_to_the_older_band() -> None:
    ages = (0, 29.9, 30, 44.5, 45, 90, -1)
    said = ["under 30", "under 30", "30 to 44", "30 to 44", "45 and over", "45 and over", ""]
    assert [age_band(age, (30, 45)) for age in ages] == said

"""Everything registered passes the kit, by being registered."""

from __future__ import annotations

import pytest

from fusionbench import registry
from fusionbench.check import CHECKS, report

EVERY = [pytest.param(kind, name, id=f"{kind}-{name}") for kind in CHECKS for name in registry.names(kind)]

#: Benchmarks whose data everybody has. The others read licensed data, and cannot be judged where there are none.
OPEN = {"affect_sim", "synergy_sim", "toy_xor", "watch"}


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_a_registered_plugin_passes_the_kit(kind: str, name: str) -> None:
    found = report(kind, name)
    if kind == "benchmarks" and name not in OPEN and found.ran == 0:
        pytest.skip(found.results[0].message)
    assert found.ok, f"\n{found}"


def test_the_zoo_is_complete() -> None:
    assert len(registry.names("fusers")) >= 24
    assert set(registry.names("benchmarks")) >= OPEN

"""Costs against what can be counted by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fusionbench import engine, harness, registry
from fusionbench.api import Fuser
from fusionbench.harness.costs import Ledger, latency, measure, uncounted


def costs_of(fuser: str) -> dict[str, float | None]:
    settings = {"query": "left"} if fuser == "audio_query" else {}  # toy_xor has no audio that could be the query
    setup = harness.setup("toy_xor", fuser, given={"fuser": settings})
    data = setup.data
    splits = harness.splits_of(setup, data, setup.run(0, 0))
    run = setup.runs([0], [0])[0]
    return measure(setup, harness.member_of(setup.recipe, run, splits, 1e-3), data)


def test_operations_of_a_known_model() -> None:
    layers = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 3))
    with FlopCounterMode(display=False) as counter, Ledger() as ledger:
        layers(torch.ones(7, 10))
    assert counter.get_total_flops() == 2 * 7 * (10 * 20 + 20 * 3)
    assert not uncounted(ledger.operations)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: nn.LSTM(4, 4)(x)[0] if torch.backends.mkldnn.is_available() else torch.fft.rfft(x),
        lambda x: torch.fft.rfft(x),
        lambda x: torch.mv(x[0], x[0, 0]),
        lambda x: torch.cdist(x, x),
        nn.Bilinear(4, 4, 2),
    ],
)
def test_operations_that_the_counter_passes_over_are_said(call: object) -> None:
    x = torch.randn(4, 4, 4)
    with torch.no_grad(), Ledger() as ledger:
        call(*[x] * (2 if isinstance(call, nn.Bilinear) else 1))  # type: ignore[operator]
    assert uncounted(ledger.operations)


def test_square_roots_and_norms_are_no_products() -> None:
    with Ledger() as ledger:
        x = nn.LayerNorm(4)(nn.Linear(4, 4)(torch.rand(2, 4))).abs().sqrt().softmax(-1)
        nn.functional.normalize(x).rsqrt().sum().backward()
    assert not uncounted(ledger.operations)


def test_the_ledger_counts_what_is_alive_at_one_time() -> None:
    one = 1000 * 4
    x = torch.ones(1000)
    with Ledger() as ledger:
        y = x + 1
        z = y.view(10, 100) * 2  # the view holds nothing of its own
        del y
        z.add_(1)
        w = z + 1
    assert ledger.peak == 2 * one
    assert ledger.live == 2 * one
    del z, w
    assert ledger.live == 0
    with Ledger() as ledger:
        x.add_(1)
    assert ledger.peak == 0, "what was there before is not counted"


def test_the_ledger_counts_what_the_backward_pass_needs() -> None:
    x = torch.ones(1000, requires_grad=True)
    with Ledger() as ledger:
        y = x
        for _ in range(10):
            y = y.sin()
        y.sum().backward()
    assert 11 * 4000 <= ledger.peak <= 14 * 4000, "ten intermediate values are kept for the backward pass"


def test_latency_is_a_median_after_a_warm_up() -> None:
    waits = iter([0.2, 0.1, 0.1] + [0.001] * 100)

    def call() -> None:
        torch.randn(10)
        import time

        time.sleep(next(waits))

    assert 1 <= latency(call, torch.device("cpu")) < 20


def test_a_run_knows_its_costs_and_the_table_shows_them(tmp_path: Path) -> None:
    from fusionbench import leaderboard, run
    from fusionbench.records import store

    given = {"train": {"lr": (1e-3,), "steps": 4}}
    records = run("concat", "toy_xor", results=tmp_path, seeds=[0], given=given)
    assert {tuple(sorted(r.costs)) for r in records} == {("batch", "flops", "latency", "latency_batch", "memory")}
    assert len({tuple(r.costs.values()) for r in records}) == 1, "measured once"
    (board,) = leaderboard.build(list(store.load(tmp_path)), tmp_path)
    text = leaderboard.render(board, "json", columns=["flops", "latency", "latency-batch", "memory"])
    assert str(records[0].costs["latency"]) in text


NETWORKS = [name for name in registry.names("fusers") if issubclass(registry.load("fusers", name), Fuser)]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_fuser_can_be_measured(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "chunk", lambda data: 8)
    costs = costs_of(name)
    assert costs["batch"] == 8
    assert all(costs[part] > 0 for part in ("latency", "latency_batch", "memory", "flops"))  # type: ignore[operator]

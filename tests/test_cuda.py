"""What only a GPU can show: networks are what they are on the CPU, stacked, captured, in bf16, short of memory."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fusionbench import engine, registry
from fusionbench.api import Batch, Benchmark, Context, Estimator
from fusionbench.corruptions import keys, parse
from fusionbench.engine import Member, Recipe, Trained, loop
from fusionbench.engine.model import Blueprint, statistics
from fusionbench.hparams import read

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: no CUDA device is here")
NETWORKS = [name for name in registry.names("fusers") if not issubclass(registry.load("fusers", name), Estimator)]
RECIPE = Recipe(steps=12, batch=8, interval=6, patience=9, lr=(1e-3,))


@pytest.fixture(scope="module")
def data() -> Batch:
    return registry.load("benchmarks", "toy_xor")(people=6).load()


def blueprint(fuser: str) -> Blueprint:
    judge, method = registry.load("benchmarks", "toy_xor")(), registry.load("fusers", fuser)
    settings = {name: h.default for name, h in read(method).items()}
    if fuser == "audio_query":
        settings["query"] = "left"  # toy_xor has no audio that could be the query
    identity = registry.load("backbones", "identity")
    return Blueprint(judge.task, judge.shapes, method, settings, {m: (identity, {}) for m in judge.shapes})


def members(count: int = 4) -> list[Member]:
    return [Member(0, seed, np.arange(0, 80), np.arange(80, 100), 1e-3) for seed in range(count)]


def run(fuser: str, data: Batch, device: str, stacked: int = 4, recipe: Recipe = RECIPE) -> list[Trained]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a method cannot be stacked or captured is judged by what is handed out
        events = engine.train(blueprint(fuser), members(), data.to(device), recipe, device=device, stacked=stacked)
        return sorted((e for e in events if isinstance(e, Trained)), key=lambda t: t.member)


def losses(trained: list[Trained]) -> list[float]:
    assert all(t.error is None for t in trained)
    return [point["loss"] for t in trained for point in t.history]


@pytest.fixture(scope="module")
def trained(data: Batch) -> Callable[[str], list[Trained]]:
    known: dict[str, list[Trained]] = {}

    def of(fuser: str) -> list[Trained]:
        if fuser not in known:
            known[fuser] = run(fuser, data, "cuda")
        return known[fuser]

    return of


@pytest.mark.parametrize("fuser", NETWORKS)
def test_a_network_learns_on_a_gpu_what_it_learns_on_the_cpu(
    fuser: str, data: Batch, trained: Callable[[str], list[Trained]]
) -> None:
    assert losses(trained(fuser)) == pytest.approx(losses(run(fuser, data, "cpu")), rel=1e-2)


@pytest.mark.parametrize("fuser", NETWORKS)
def test_a_stacked_member_equals_the_member_alone(
    fuser: str, data: Batch, trained: Callable[[str], list[Trained]]
) -> None:
    assert losses(trained(fuser)) == pytest.approx(losses(run(fuser, data, "cuda", stacked=1)), rel=1e-2)


@pytest.mark.parametrize("fuser", NETWORKS)
def test_a_captured_step_is_the_plain_one(
    fuser: str, data: Batch, trained: Callable[[str], list[Trained]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert all(t.captured for t in trained(fuser))
    monkeypatch.setattr(loop, "capturable", lambda program: False)
    plain = run(fuser, data, "cuda")
    assert not any(t.captured for t in plain)
    assert losses(trained(fuser)) == pytest.approx(losses(plain), rel=1e-2)


@pytest.mark.parametrize("fuser", NETWORKS)
def test_half_precision_begins_where_single_precision_does(
    fuser: str, data: Batch, trained: Callable[[str], list[Trained]]
) -> None:
    half = run(fuser, data, "cuda", recipe=replace(RECIPE, precision="bf16"))
    assert losses(half) == pytest.approx(losses(trained(fuser)), rel=0.1)


@pytest.mark.parametrize("fuser", NETWORKS)
def test_models_answer_in_one_pass_what_each_answers(fuser: str, data: Batch) -> None:
    plan, index = blueprint(fuser), torch.arange(80)
    models = [plan.build(seed, statistics(data, index), 80) for seed in range(3)]
    test = data[torch.arange(80, 120)]
    right = [engine.predict(model, test) for model in models]
    here = [model.to("cuda") for model in models]
    alone = [engine.predict(model, test.to("cuda")) for model in here]
    together = engine.predict_stacked(here, [test.to("cuda")] * 3)
    for a, b, c in zip(right, alone, together, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(a, c, rtol=1e-3, atol=1e-4)


def test_too_little_memory_halves_the_stack_and_all_are_trained(data: Batch) -> None:
    """Real memory, really too little: a program of 64 members in what holds a few."""
    plan, many = blueprint("jmt"), members(64)
    resident = data.to("cuda")
    list(engine.train(plan, many[:2], resident, RECIPE, device="cuda", stacked=2))
    needed = torch.cuda.max_memory_allocated()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(4 * needed / torch.cuda.mem_get_info()[1])
    try:
        with pytest.warns(UserWarning, match="out of memory with 64 members stacked: going on with 32"):
            events = list(engine.train(plan, many, resident, RECIPE, device="cuda", stacked=64))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    done = [e for e in events if isinstance(e, Trained)]
    assert len(done) == 64
    assert all(t.error is None and math.isfinite(t.score) for t in done)


def context(data: Batch, judge: Benchmark) -> Context:
    """With a spread of one everywhere: it scales the damage and is not what is compared."""
    sd = {m: torch.ones(stream.shape[2:], device=data.y.device) for m, stream in data.streams.items()}
    return Context(sd, judge.rates, data.streams, judge.indicators)


@pytest.mark.parametrize("name", ["watch", "affect_sim"])
def test_damage_is_the_same_on_both(name: str) -> None:
    judge = registry.load("benchmarks", name)()
    whole = judge.load()[torch.arange(40)]
    far = whole.to("cuda")
    for spelling in judge.corruptions:
        for condition, corruption, severity in parse(spelling, list(judge.shapes)):
            draws = keys(corruption.name, 0, whole.ids, list(judge.shapes))
            here = corruption.apply(whole.streams, severity, draws, context(whole, judge))
            there = corruption.apply(
                far.streams, severity, {m: k.to("cuda") for m, k in draws.items()}, context(far, judge)
            )
            for m in here:
                assert torch.equal(here[m].mask, there[m].mask.cpu()), condition
                torch.testing.assert_close(here[m].x, there[m].x.cpu(), rtol=1e-6, atol=1e-6)


def fusionbench(*words: str, cwd: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fusionbench", *words, "--no-track"], cwd=cwd, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]


def scores(results: Path) -> dict[str, dict[str, float]]:
    found = {}
    for path in sorted(results.rglob("*.json")):
        record = json.loads(path.read_text())
        found[record["id"]] = {c: next(iter(s.values())) for c, s in record["scores"].items()}
    return found


def test_a_run_scores_the_same_on_both_and_in_several_processes(tmp_path: Path) -> None:
    words = ("run", "-f", "concat", "-b", "toy_xor", "--seeds", "2", "--train.steps", "100", "--train.lr", "3e-3")
    fusionbench(*words, "--results", "cpu", "--device", "cpu", cwd=tmp_path)
    fusionbench(*words, "--results", "one", "--device", "cuda", "--jobs", "1", cwd=tmp_path)
    fusionbench(*words, "--results", "two", "--device", "cuda", "--jobs", "2", cwd=tmp_path)
    cpu, one, two = (scores(tmp_path / name) for name in ("cpu", "one", "two"))
    assert cpu.keys() == one.keys() == two.keys()
    for run_id, there in cpu.items():
        for condition, score in there.items():
            assert one[run_id][condition] == pytest.approx(score, abs=0.1), (run_id, condition)
            assert one[run_id][condition] == pytest.approx(two[run_id][condition], abs=0.1), (run_id, condition)

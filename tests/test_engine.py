"""The engine against a bare PyTorch loop, stacked against alone, and the seal."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fusionbench import engine, registry
from fusionbench.api import Batch, Fuser, Head, Spec, Stream, Streams, UsageError, masked_mean
from fusionbench.engine import Member, Progress, Recipe, Trained, graph, loop, size
from fusionbench.engine.graph import WARM_UP, Graph, capturable, on_cuda
from fusionbench.engine.model import Blueprint, criterion, statistics
from fusionbench.engine.recipe import order
from fusionbench.engine.stacked import shorten
from fusionbench.harness.costs import Ledger
from fusionbench.hparams import read

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: no CUDA device is here")
STACKABLE = ["concat", "jmt", "transformer", "cross_attention", "low_rank", "tensor_fusion", "bottleneck", "gated"]
RECIPE = Recipe(steps=12, batch=8, interval=6, patience=9, lr=(1e-3,))


def blueprint(fuser: str | type[Fuser], **settings: object) -> Blueprint:
    judge = registry.load("benchmarks", "toy_xor")()
    method = registry.load("fusers", fuser) if isinstance(fuser, str) else fuser
    full = {name: h.default for name, h in read(method).items()} | settings
    identity = registry.load("backbones", "identity")
    return Blueprint(judge.task, judge.shapes, method, full, {m: (identity, {}) for m in judge.shapes})


@pytest.fixture(scope="module")
def data() -> Batch:
    return registry.load("benchmarks", "toy_xor")(people=6).load()


def member(seed: int = 0, lr: float = 1e-3, **scalars: float) -> Member:
    return Member(0, seed, np.arange(0, 80), np.arange(80, 100), lr, **scalars)


def run(
    plan: Blueprint, members: list[Member], data: Batch, recipe: Recipe = RECIPE, stacked: int = 1, device: str = "cpu"
) -> list[Trained]:
    events = engine.train(plan, members, data, recipe, device=device, stacked=stacked)
    found = [e for e in events if isinstance(e, Trained)]
    return sorted(found, key=lambda t: t.member)


class NoDropout(Fuser):
    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.head = Head(sum(spec.dims.values()), spec.out, dropout=0.0)

    def forward(self, streams: Streams) -> Tensor:
        return self.head(torch.cat([self.pool(streams[m]).x for m in self.spec.dims], -1))


def test_a_member_is_what_a_bare_loop_makes_of_it(data: Batch) -> None:
    plan, who = blueprint(NoDropout), member(weight_decay=0.1, label_smoothing=0.1, clip=0.5)
    (trained,) = run(plan, [who], data)

    model = plan.begin(0, data, torch.from_numpy(who.train))
    optimiser = torch.optim.AdamW(model.parameters(), lr=who.lr, weight_decay=who.weight_decay)
    drawn = order(who, 12, 8)
    best, best_score = {}, -1.0
    for step in range(12):
        for group in optimiser.param_groups:
            group["lr"] = who.lr * (1.0 if step < 1 else 0.5 * (1 + math.cos(math.pi * (step - 1) / 11)))
        batch = data[drawn[step]]
        loss = nn.functional.cross_entropy(model(batch)[:, 0], batch.y[:, 0], label_smoothing=0.1)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), who.clip)
        optimiser.step()
        if step % 6 == 5:
            val = data[who.val]
            score = float((model(val)[:, 0].argmax(-1) == val.y[:, 0]).float().mean())
            if score > best_score:
                best, best_score = {n: v.clone() for n, v in model.state_dict().items()}, score
    assert trained.score == pytest.approx(best_score)
    for name, value in best.items():
        torch.testing.assert_close(trained.weights[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fuser", STACKABLE)
def test_a_stacked_member_equals_the_member_alone(fuser: str, data: Batch) -> None:
    members = [member(0), member(1, lr=3e-3), replace(member(2), train=np.arange(20, 100), val=np.arange(20))]
    stacked, apart = run(blueprint(fuser), members, data, stacked=3), run(blueprint(fuser), members, data)
    for a, b in zip(stacked, apart, strict=True):
        assert [h["loss"] for h in a.history] == pytest.approx([h["loss"] for h in b.history], rel=2e-4)
        assert a.parameters == b.parameters
        assert (a.stacked, b.stacked) == (3, 1)


def test_losses_agree_over_fifty_steps_without_dropout(data: Batch) -> None:
    recipe = replace(RECIPE, steps=50, interval=1, patience=99)
    members = [member(0), member(1)]
    stacked, apart = (run(blueprint(NoDropout), members, data, recipe, stacked=k) for k in (2, 1))
    for a, b in zip(stacked, apart, strict=True):
        assert [h["loss"] for h in a.history] == pytest.approx([h["loss"] for h in b.history], rel=1e-5)


@pytest.mark.parametrize("stacked", [1, 3])
def test_nan_in_all_test_samples_changes_no_weight(stacked: int, data: Batch) -> None:
    test = torch.arange(100, len(data))
    spoilt = {}
    for m, s in data.streams.items():
        x = s.x.clone()
        x[test] = torch.nan
        spoilt[m] = Stream(x, s.mask)
    labels = data.y.clone()
    labels[test] = -(2**40)
    poisoned = replace(data, streams=spoilt, y=labels)
    members = [member(s) for s in range(3)]
    for a, b in zip(*(run(blueprint("concat"), members, d, stacked=stacked) for d in (data, poisoned)), strict=True):
        assert a.score == b.score
        for name, value in a.weights.items():
            assert torch.equal(value, b.weights[name])


def test_the_same_member_twice_is_identical_and_another_seed_is_not(data: Batch) -> None:
    first, second, other = run(blueprint("concat"), [member(0), member(0), member(1)], data)
    assert all(torch.equal(v, second.weights[n]) for n, v in first.weights.items())
    assert not all(torch.equal(v, other.weights[n]) for n, v in first.weights.items())


class Exploding(Fuser):
    """Its loss becomes infinite where the learning rate is large enough to push the weight beyond 1."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.w = nn.Parameter(torch.zeros(spec.out))

    def forward(self, streams: Streams) -> Tensor:
        x = self.pool(streams["left"]).x.mean(-1, keepdim=True)
        return x * 0 + torch.log(1 - self.w) * 3


@pytest.mark.parametrize("stacked", [1, 2])
def test_a_loss_that_becomes_nan_fails_that_member_only(stacked: int, data: Batch) -> None:
    bad, good = run(blueprint(Exploding), [member(lr=5.0), member(lr=1e-4)], data, stacked=stacked)
    assert "loss became nan by step" in (bad.error or "")
    assert good.error is None
    assert math.isfinite(good.history[-1]["loss"])


def stopping(
    events: Generator[Progress | Trained, set[int] | None, None], number: int, among: int = 0
) -> Iterator[Progress | Trained]:
    """All events; the member is stopped at the first validation (of so many members) in which it is met."""
    reply = None
    while True:
        try:
            event = events.send(reply)
        except StopIteration:
            return
        yield event
        met = (
            isinstance(event, Progress) and number in event.scores and len(event.scores) == (among or len(event.scores))
        )
        reply = {number} if met else None


@pytest.mark.parametrize("stacked", [1, 3])
def test_sent_members_stop_and_the_others_are_not_disturbed(stacked: int, data: Batch) -> None:
    members = [member(s) for s in range(3)]
    whole = run(blueprint("gated"), members, data, stacked=stacked)
    events = stopping(engine.train(blueprint("gated"), members, data, RECIPE, stacked=stacked), 1)
    found = [event for event in events if isinstance(event, Trained)]
    found.sort(key=lambda t: t.member)
    assert [len(t.history) for t in found] == [2, 1, 2]
    for a, b in ((0, 0), (2, 2)):
        assert [h["loss"] for h in found[a].history] == pytest.approx([h["loss"] for h in whole[b].history], rel=1e-5)


def test_members_that_have_left_may_be_carried_along(data: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on CUDA, until half of them have left."""
    members, recipe, left = [member(s) for s in range(4)], replace(RECIPE, interval=3), [4, 4, 3, 2]
    monkeypatch.setattr(loop, "_worth_compacting", lambda device: 0.5)
    compacted, compact = [], engine.Stacked.compact
    monkeypatch.setattr(engine.Stacked, "compact", lambda p, rows: compacted.append(rows) or compact(p, rows))
    found, reply = [], None
    events = engine.train(blueprint("gated"), members, data, recipe, stacked=4)
    while len(found) < 4:
        event = events.send(reply)
        reply = None
        if isinstance(event, Trained):
            found.append(event)
        else:
            assert len(event.scores) == left.pop(0)
            reply = {3: None, 2: {3}, 1: {1}, 0: None}[len(left)]
    assert compacted == [[0, 2]], "at the second that left"
    assert [(t.member, len(t.history)) for t in found] == [(3, 2), (1, 3), (0, 4), (2, 4)]
    for t in found:
        (alone,) = run(blueprint("gated"), [members[t.member]], data, recipe)
        shared = [h["loss"] for h in alone.history][: len(t.history)]
        assert [h["loss"] for h in t.history] == pytest.approx(shared, rel=1e-4)


def test_shortened_linear_layers_compute_what_they_did(data: Batch) -> None:
    """Only CUDA has them; with fewer operations under `vmap`, and the same losses and gradients."""
    members, counts, programs = [member(s) for s in range(3)], [], []
    for short in (False, True):
        program = engine.Stacked(blueprint("jmt"), members, data, RECIPE, torch.device("cpu"))
        if short:
            shorten(program.model)
        with Counter() as counter:
            losses = program._losses(program.order[0], program.keys(7), 0.0)
            losses.sum().backward()
        counts.append(counter.operations)
        programs.append((losses, program.flat.grad))
    assert counts[1] < counts[0] - 80
    for a, b in zip(*programs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


class Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        return operation(*args, **(kwargs or {}))


def test_early_stopping_waits_for_its_patience(data: Batch) -> None:
    recipe = replace(RECIPE, steps=60, interval=2, patience=3, lr=(1e-9,))
    (trained,) = run(blueprint("concat"), [member(lr=1e-9)], data, recipe)
    assert len(trained.history) == 4  # the first is the best, three more do not better it
    assert trained.step == 2


def test_every_batch_is_full_and_an_epoch_sees_each_sample_once() -> None:
    who = Member(0, 0, np.arange(5, 25), np.arange(3), 1e-3)
    drawn = order(who, 10, 8).flatten()[:80]
    assert drawn.shape == (80,)
    for epoch in drawn.reshape(4, 20):
        assert sorted(epoch.tolist()) == list(range(5, 25))


def test_the_loss_is_masked_and_a_batch_without_labels_is_harmless(data: Batch) -> None:
    task = registry.load("benchmarks", "toy_xor").task
    answers = torch.randn(4, 1, 2, requires_grad=True)
    batch = replace(data[torch.arange(4)], y_mask=torch.tensor([[True], [False], [True], [False]]))
    loss = criterion(task)(answers, batch)
    expected = nn.functional.cross_entropy(answers[::2, 0], data.y[:4:2, 0])
    assert float(loss.detach()) == pytest.approx(float(expected.detach()))
    nothing = criterion(task)(answers, replace(batch, y_mask=torch.zeros(4, 1, dtype=torch.bool)))
    assert float(nothing.detach()) == 0.0


def test_training_under_missingness_hides_the_same_modalities_from_a_sample_always(data: Batch) -> None:
    seen = []

    class Watching(NoDropout):
        def forward(self, streams: Streams) -> Tensor:
            if self.training:
                seen.append({m: s.present for m, s in streams.items()})
            return super().forward(streams)

    who = Member(0, 0, np.arange(8), np.arange(80, 100), 1e-3)
    run(blueprint(Watching), [who], data, replace(RECIPE, missing="left=0.5"))
    drawn = order(who, 12, 8)
    hidden: dict[int, set[bool]] = {}
    for rows, present in zip(drawn.tolist(), seen, strict=True):
        assert bool(present["right"].all())
        for row, there in zip(rows, present["left"].tolist(), strict=True):
            hidden.setdefault(row, set()).add(there)
    assert all(len(kinds) == 1 for kinds in hidden.values())
    assert {True, False} == set().union(*hidden.values())
    seen.clear()
    run(blueprint(Watching), [who], data, replace(RECIPE, modality_dropout=0.5))
    present = torch.stack([torch.stack(list(p.values())) for p in seen])  # (steps, modalities, B)
    assert bool(present.any(1).all())
    assert 0.4 < float(present.float().mean()) < 0.9


@pytest.mark.parametrize("text", ["left", "left=2", "up=0.1", "left=-0.1"])
def test_a_wrong_rate_of_missingness_is_one_line(text: str, data: Batch) -> None:
    with pytest.raises(UsageError, match=r"--train\.missing takes"):
        run(blueprint("concat"), [member()], data, replace(RECIPE, missing=text))


def test_nan_in_valid_training_inputs_is_named(data: Batch) -> None:
    x = data.streams["right"].x.clone()
    x[3, 0] = torch.nan
    spoilt = replace(data, streams={**data.streams, "right": Stream(x, data.streams["right"].mask)})
    with pytest.raises(UsageError, match="training samples of fold 0 have NaN or infinity in 'right'"):
        run(blueprint("concat"), [member()], spoilt)


def test_masked_mean_of_the_statistics_is_numpys(data: Batch) -> None:
    index = torch.arange(30)
    mean, sd = statistics(data, index)["left"]
    real = data.streams["left"].x[index][data.streams["left"].mask[index]].numpy()
    np.testing.assert_allclose(mean, real.mean(0), atol=1e-5)
    np.testing.assert_allclose(sd, real.std(0), atol=1e-5)
    assert float(masked_mean(torch.ones(2, 3), torch.zeros(2, 3, dtype=torch.bool)).sum()) == 0.0


def test_members_that_cannot_be_stacked_are_trained_in_turn(data: Batch) -> None:
    class Tied(NoDropout):
        def __init__(self, spec: Spec) -> None:
            super().__init__(spec)
            self.again = self.head

    class Branching(NoDropout):
        def forward(self, streams: Streams) -> Tensor:
            answers = super().forward(streams)
            return answers if float(answers.sum()) > 0 else answers * 2

    for fuser, reason in ((Tied, "ValueError: weights with two names"), (Branching, "RuntimeError: .*vmap")):
        with pytest.warns(UserWarning, match=f"trained in turn, they cannot be stacked: {reason}"):
            trained = run(blueprint(fuser), [member(0), member(1)], data, stacked=2)
        assert [t.stacked for t in trained] == [1, 1]


def test_an_error_of_the_device_in_the_trial_step_is_said(data: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: engine.Stacked, step: int) -> Tensor:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nand more lines")

    monkeypatch.setattr(engine.Stacked, "step", broken)
    with pytest.warns(UserWarning, match="RuntimeError: CUDA error: an illegal memory access was encountered$"):
        assert [t.stacked for t in run(blueprint("concat"), [member(0), member(1)], data, stacked=2)] == [1, 1]


def test_members_of_equal_rate_and_decay_share_a_call_and_move_as_with_one_each(data: Batch) -> None:
    members = [member(seed, lr=lr, weight_decay=decay) for seed, (lr, decay) in enumerate(
        [(1e-3, 0.01), (3e-3, 0.01), (1e-3, 0.01), (1e-3, 0.1), (3e-3, 0.01)])]  # fmt: skip

    class OneEach(engine.Stacked):
        def _optimiser(self, rows: list[list[Tensor]]) -> torch.optim.Optimizer:
            self.peaks = [m.lr for m in self.members]
            groups = [{"params": r, "lr": m.lr, "weight_decay": m.weight_decay}
                      for r, m in zip(rows, self.members, strict=True)]  # fmt: skip
            return torch.optim.AdamW(groups, fused=True)

    shared, each = (
        program(blueprint("jmt"), members, data, RECIPE, torch.device("cpu")) for program in (engine.Stacked, OneEach)
    )
    for step in range(6):
        assert torch.equal(shared.step(step), each.step(step))
        if step == 2:
            shared.compact([0, 1, 3, 4])
            each.compact([0, 1, 3, 4])
    assert [len(program.optimiser.param_groups) for program in (shared, each)] == [3, 4]
    assert all(torch.equal(a, b) for a, b in zip(shared.weights_now(), each.weights_now(), strict=True))


@pytest.mark.parametrize("stacked", [1, 3])
def test_losses_under_bf16_are_float32_and_near_those_of_float32(stacked: int, data: Batch) -> None:
    members = [member(seed) for seed in range(stacked)]
    found = []
    for precision in ("float32", "bf16"):
        recipe = replace(RECIPE, precision=precision)
        program = engine.make_program(blueprint("jmt"), members, data, recipe, torch.device("cpu"))
        found.append(program.step(0))
    assert found[1].dtype == torch.float32
    assert not torch.equal(*found), "autocast does nothing"
    torch.testing.assert_close(found[1], found[0], rtol=0.02, atol=0.0)


# Memory: how many are stacked, how much is answered at once, and what happens when it is not enough.


def test_what_is_answered_at_once_is_shared_by_the_members(data: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [engine.chunk(data, k) for k in (1, 8, 16, 256, 10**6)] == [1024, 1024, 512, 32, 1]
    large = Batch({"v": Stream(torch.zeros(1, 64, 2**15), torch.ones(1, 64).bool())}, torch.zeros(1, 1).long(),
                  torch.ones(1, 1).bool())  # fmt: skip
    assert [engine.chunk(large, k) for k in (1, 4, 100)] == [64, 16, 1]
    program = engine.Stacked(blueprint("concat"), [member(s) for s in range(3)], data, RECIPE, torch.device("cpu"))
    whole, widths, answer = program.validate(), [], program._answers
    monkeypatch.setattr(program, "_answers", lambda data, rows: widths.append(rows.shape) or answer(data, rows))
    monkeypatch.setattr("fusionbench.engine.answers.AT_ONCE", 24)
    assert program.validate() == whole
    assert widths == [(3, 8), (3, 8), (3, 4)]


def ledger_as_cuda(monkeypatch: pytest.MonkeyPatch, ledger: Ledger) -> None:
    """What the GPU's allocator would say, from tensors on the CPU."""
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda d: setattr(ledger, "peak", ledger.live))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda d: ledger.live)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda d: ledger.peak)


@pytest.mark.parametrize("fuser", ["concat", "jmt"])
def test_what_two_members_take_says_what_many_take(fuser: str, data: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, who, where = blueprint(fuser), replace(member(), val=np.arange(data.y.shape[0])), torch.device("cpu")
    with Ledger() as ledger:
        ledger_as_cuda(monkeypatch, ledger)
        needed, answer = size.needs(plan, who, data, RECIPE, where)
    count, samples = 9, len(who.val)
    with Ledger() as ledger:
        program = engine.Stacked(plan, [replace(who, seed=s) for s in range(count)], data, RECIPE, where)
        for step in range(2):
            program.step(step)
        program.keep([True] * count)
        program.validate()
    estimate = count * (needed + min(engine.chunk(data, count), samples) * answer)
    assert ledger.peak <= estimate <= 3 * ledger.peak
    assert size.fitting(data, needed, answer, samples, int(estimate / size.SHARE) + 1) == count
    assert size.fitting(data, needed, answer, samples, 10**15) == size.MOST == 64
    assert size.fitting(data, needed, answer, samples, 0) == 1


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])
def test_a_program_without_enough_memory_is_halved_and_gives_the_same(
    device: str, data: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    members, resident = [member(seed) for seed in range(4)], data.to(device)
    whole = run(blueprint("gated"), members, resident, stacked=4, device=device)
    step = engine.Stacked.step

    def short(self: engine.Stacked, number: int) -> torch.Tensor:
        if len(self.members) > 2:
            raise torch.OutOfMemoryError("as if")
        return step(self, number)

    emptied = []
    monkeypatch.setattr(engine.Stacked, "step", short)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(sys.exc_info()[0]))
    with pytest.warns(UserWarning, match="out of memory with 4 members stacked: going on with 2"):
        halves = run(blueprint("gated"), members, resident, stacked=4, device=device)
    assert emptied == [None], "while the error is held, so is what it could not be added to"
    assert [t.stacked for t in halves] == [2] * 4
    assert [t.score for t in whole] == pytest.approx([t.score for t in halves], abs=1e-6)


def test_memory_that_ends_after_a_member_was_handed_out_costs_none_of_the_others(
    data: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = [member(seed) for seed in range(4)]
    alone, step = run(blueprint("gated"), members, data), engine.Stacked.step

    def short(self: engine.Stacked, number: int) -> torch.Tensor:
        if len(self.members) == 3:
            raise torch.OutOfMemoryError("as if another process had come")
        return step(self, number)

    monkeypatch.setattr(engine.Stacked, "step", short)
    with pytest.warns(UserWarning, match="out of memory with 4 members stacked: going on with 2"):
        seen = list(stopping(engine.train(blueprint("gated"), members, data, RECIPE, stacked=4), 1, among=4))
    found = [event for event in seen if isinstance(event, Trained)]
    assert [t.member for t in found] == [1, 0, 2, 3], "each once"
    assert [t.stacked for t in found] == [4, 2, 2, 1]
    assert [event.done for event in seen if isinstance(event, Progress)][-1] == len(members) * RECIPE.steps
    for t in found[1:]:
        assert [h["loss"] for h in t.history] == pytest.approx([h["loss"] for h in alone[t.member].history], rel=1e-4)


def test_a_member_alone_that_does_not_fit_fails(data: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(self: engine.Alone, number: int) -> torch.Tensor:
        raise torch.OutOfMemoryError("as if")

    monkeypatch.setattr(engine.Alone, "step", short)
    with pytest.raises(torch.OutOfMemoryError):
        run(blueprint("gated"), [member(0)], data)


# CUDA graphs: steps by counter and tables against plain steps, and graphs that must not be trusted.

Capture = Callable[[Callable[[], Any]], Callable[[], Any]]


@pytest.fixture(autouse=True)
def captures_may_be_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever another test has broken."""
    monkeypatch.setattr(graph, "_broken", False)


def both(
    data: Batch, capture: Capture, fuser: str = "gated", count: int = 3
) -> tuple[Graph, list[torch.Tensor], list[torch.Tensor]]:
    """Twelve plain steps and twelve by a graph that `capture` makes: the graph, losses and states of both."""
    plan, members = blueprint(fuser), [member(seed, lr=1e-3 * (seed + 1), clip=0.5) for seed in range(count)]
    plain, other = (engine.make_program(plan, members, data, RECIPE, torch.device("cpu")) for _ in range(2))
    graph = Graph(other, capture)
    losses = [(plain.step(step), graph.step(step)) for step in range(RECIPE.steps)]
    right = [*(pair[0] for pair in losses), *plain.state()]
    found = [*(pair[1] for pair in losses), *other.state()]
    return graph, right, found


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("fuser", STACKABLE)
def test_steps_by_counter_and_tables_are_the_plain_steps(fuser: str, count: int, data: Batch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        steps, right, found = both(data, lambda call: call, fuser, count)
    assert steps.replay
    assert steps.at.item() == RECIPE.steps
    for a, b in zip(right, found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def nothing(call: Callable[[], Any]) -> Callable[[], Any]:
    return lambda: None


def early(call: Callable[[], Any]) -> Callable[[], Any]:
    """What a capture on the wrong device does."""
    call()
    return lambda: None


def refused(call: Callable[[], Any]) -> Callable[[], Any]:
    raise RuntimeError("operation not permitted when stream is capturing")


def careless(call: Callable[[], Any]) -> Callable[[], Any]:
    raise TypeError("must be real number, not Tensor")


@pytest.mark.parametrize("fuser", ["gated", "jmt"])
@pytest.mark.parametrize(
    ("capture", "words"),
    [
        (nothing, "replayed step differs"),
        (early, "replayed step differs"),
        (refused, "when stream"),
        (careless, "real"),
    ],
)
def test_a_graph_that_does_something_else_is_given_up(capture: Capture, words: str, fuser: str, data: Batch) -> None:
    with pytest.warns(UserWarning, match=words) as told:
        graph, right, found = both(data, capture, fuser)
    assert len(told) == 1
    assert graph.replay is None
    assert all(torch.equal(a, b) for a, b in zip(right, found, strict=True))


def test_one_refusal_is_enough_for_all_stacks(data: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def graph(program: Any) -> Graph:
        made.append(Graph(program, refused))
        return made[-1]

    monkeypatch.setattr(loop, "capturable", lambda program: True)
    monkeypatch.setattr(loop, "Graph", graph)
    with pytest.warns(UserWarning, match="when stream") as told:
        trained = run(blueprint("gated"), [member(seed) for seed in range(6)], data, stacked=2)
    assert len(trained) == 6
    assert len(made) == len(told) == 1


def test_what_was_captured_says_so_though_its_last_program_was_not(
    data: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "capturable", lambda program: True)
    monkeypatch.setattr(loop, "Graph", lambda program: Graph(program, lambda call: call))
    recipe = replace(RECIPE, interval=10)  # two steps remain, too few to warm up
    members = [member(seed) for seed in range(3)]
    events = stopping(engine.train(blueprint("gated"), members, data, recipe, stacked=3), 1, among=3)
    found = {e.member: (e.history[-1]["step"], e.captured) for e in events if isinstance(e, Trained)}
    assert found == {1: (10, True), 0: (12, True), 2: (12, True)}
    assert not any(t.captured for t in run(blueprint("gated"), members, data, replace(recipe, steps=3), stacked=3))


@pytest.mark.parametrize("frozen", ["at", "one rate"])
def test_a_graph_that_stands_still_in_its_data_or_a_learning_rate_is_given_up(frozen: str, data: Batch) -> None:
    plan, members = blueprint("gated"), [member(0, lr=1e-2), member(1, lr=1e-4)]
    program = engine.make_program(plan, members, data, RECIPE, torch.device("cpu"))

    def capture(call: Callable[[], Any]) -> Callable[[], Any]:
        def replay() -> None:
            if frozen == "at":
                graph.at.fill_(0)
            else:
                graph.table[:, 1] = 5e-5  # the slow member's: it hardly counts in a sum over both
            call()

        return replay

    graph = Graph(program, capture)
    for step in range(WARM_UP):
        graph.step(step)
    with pytest.warns(UserWarning, match="differs"):
        graph.step(WARM_UP)


@pytest.mark.parametrize(("share", "trusted"), [(4e-3, True), (0.25, False)])
def test_noise_is_forgiven_but_not_half_a_learning_rate(share: float, trusted: bool, data: Batch) -> None:
    """A replay that lies off by this share of the squared step."""
    program = engine.make_program(blueprint("gated"), [member(0), member(1)], data, RECIPE, torch.device("cpu"))

    def capture(call: Callable[[], Any]) -> Callable[[], Any]:
        def replay() -> None:
            before = program.flat.detach().clone()
            call()
            if trusted:
                length = (program.flat.detach() - before).norm(dim=1, keepdim=True)
                signs = torch.randn(before.shape, generator=torch.Generator().manual_seed(0)).sign()
                program.flat.detach().add_(signs * length * (share / before.shape[1]) ** 0.5)

        return replay

    assert isinstance(program, engine.Stacked)
    steps = Graph(program, capture)
    if not trusted:
        captured = steps.capture
        steps.capture = lambda call: (steps.table.mul_(0.5), captured(call))[1]
    for step in range(WARM_UP):
        steps.step(step)
    with nullcontext() if trusted else pytest.warns(UserWarning, match="replayed step differs"):
        steps.step(WARM_UP)
    assert (steps.replay is not None) == trusted


def test_a_capture_that_failed_is_the_last_one_of_the_process(data: Batch) -> None:
    program = engine.make_program(blueprint("gated"), [member(0), member(1)], data, RECIPE, torch.device("cpu"))
    program.device = torch.device("cuda")
    assert capturable(program)
    with pytest.warns(UserWarning, match="replayed step differs"):
        both(data, nothing)
    assert capturable(program), "this one could be captured"
    with pytest.warns(UserWarning, match="when stream"):
        both(data, refused)
    assert not capturable(program)


def test_plain_steps_before_a_capture_are_taken_where_it_will_be(data: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    program = engine.make_program(blueprint("gated"), [member(0), member(1)], data, RECIPE, torch.device("cpu"))
    inside, seen, advance = [False], [], program.advance

    @contextmanager
    def aside(device: torch.device) -> Iterator[None]:
        inside[0] = True
        yield
        inside[0] = False

    monkeypatch.setattr(graph, "_aside", aside)
    monkeypatch.setattr(program, "advance", lambda *given: seen.append(inside[0]) or advance(*given))
    steps = Graph(program, lambda call: call)
    for step in range(WARM_UP + 1):
        steps.step(step)
    assert seen == [True] * (WARM_UP + 2) + [False], "all but the replay"


class Cuda:
    """As much of `torch.cuda` as streams and captures need, where there is none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.current: Any = "main"
        self.mode, self.waited = "warn", []
        test = self

        class Side:
            def wait_stream(self, other: Any) -> None:
                test.waited.append(("side", other))

        class Main(str):
            def wait_stream(self, other: Any) -> None:
                test.waited.append(("main", other))

        self.side, self.current = Side(), Main("main")
        monkeypatch.setattr(graph, "_side", lambda device: self.side)
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: None)
        monkeypatch.setattr(torch.cuda, "graph", self.capturing)
        monkeypatch.setattr(torch.cuda, "stream", self.capturing_nothing)
        for name in ("current_device", "current_stream", "set_stream", "get_sync_debug_mode", "set_sync_debug_mode"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))

    def current_device(self) -> int:
        return 0

    def current_stream(self) -> Any:
        return self.current

    def set_stream(self, stream: Any) -> None:
        self.current = stream

    @contextmanager
    def capturing(self, made: Any, stream: Any) -> Iterator[None]:
        self.current = stream  # torch ends the capture before it leaves the stream: what raises there, stays
        yield
        raise RuntimeError("capture invalidated")

    @contextmanager
    def capturing_nothing(self, stream: Any) -> Iterator[None]:
        yield

    def get_sync_debug_mode(self) -> Any:
        return self.mode

    def set_sync_debug_mode(self, mode: Any) -> None:
        warnings.warn("synchronization debug mode is a prototype", stacklevel=2)
        self.mode = mode


def test_a_capture_that_fails_leaves_the_main_stream_current(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Cuda(monkeypatch)
    with pytest.raises(RuntimeError, match="capture invalidated"):
        on_cuda(lambda: None)
    assert cuda.current == "main"


def test_the_main_stream_waits_for_the_other_whatever_happened_there(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Cuda(monkeypatch)
    with pytest.raises(ZeroDivisionError), graph._aside(torch.device("cuda")):
        1 / 0  # noqa: B018
    assert cuda.waited == [("side", "main"), ("main", cuda.side)]


@pytest.mark.filterwarnings("error")
def test_waiting_is_forbidden_without_a_warning_and_only_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Cuda(monkeypatch)

    def waits() -> None:
        assert cuda.mode == "error"
        warnings.warn("called a synchronizing operation", stacklevel=2)
        raise RuntimeError("it waits")

    with pytest.raises(RuntimeError, match="waits"), graph._without_waiting(torch.device("cuda")):
        waits()
    assert cuda.mode == "warn", "as it was"


@pytest.mark.parametrize("count", [1, 3])
def test_a_step_writes_where_it_wrote_before(count: int, data: Batch) -> None:
    """A replay knows places, not names: a tensor that a step replaces is one that the graph no longer sees."""
    program = engine.make_program(
        blueprint("gated"), [member(s) for s in range(count)], data, RECIPE, torch.device("cpu")
    )
    graph = Graph(program, lambda call: call)

    def places() -> list[int]:
        touched = [program.touched] if isinstance(program, engine.Stacked) else []
        return [t.data_ptr() for t in (*program.state(), *touched, graph.at, graph.rates, graph.losses)]

    for step in range(WARM_UP + 1):
        graph.step(step)
    before = places()
    graph.step(WARM_UP + 1)
    assert places() == before


class NoWaiting(TorchDispatchMode):
    """Fails on what makes a host wait for its device: copies between them, and values that Python asks for."""

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = operation(*args, **(kwargs or {}))
        name = str(operation)
        tensors = [t for t in tree_leaves((args, kwargs, made)) if isinstance(t, Tensor)]
        places = {t.device.type for t in tensors if t.dim() or "copy" in name}
        assert len(places) < 2, f"{name} goes between devices"
        waits = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero")
        assert not any(word in name for word in waits), f"{name} waits"
        return made


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("fuser", STACKABLE)
def test_nothing_in_a_step_waits_for_the_device(fuser: str, count: int, data: Batch) -> None:
    recipe = replace(RECIPE, modality_dropout=0.3, missing="left=0.2")
    program = engine.make_program(
        blueprint(fuser), [member(s) for s in range(count)], data, recipe, torch.device("cpu")
    )
    far = torch.device("meta")  # a device that computes nothing, and from which nothing can be read
    rows, keys, progress = program.order[0].to(far), program.keys(7).to(far), torch.zeros((), device=far)
    program.data, program.device = data.to(far), far
    if isinstance(program, engine.Stacked):
        program.flat = program.flat.detach().to(far).requires_grad_()
        program.buffers = {name: b.to(far) for name, b in program.buffers.items()}
        program.smoothing = program.smoothing.to(far)
    assert isinstance(program, engine.Stacked | engine.Alone)
    program.model.to(far)
    with NoWaiting():
        program._losses(rows, keys, progress).sum().backward()


@needs_gpu
@pytest.mark.parametrize("fuser", STACKABLE)
def test_a_captured_program_trains_what_the_cpu_trains(fuser: str, data: Batch) -> None:
    members = [member(seed) for seed in range(4)]
    on_cpu = run(blueprint(fuser), members, data, stacked=4)
    on_gpu = run(blueprint(fuser), members, data.to("cuda"), stacked=4, device="cuda")
    for a, b in zip(on_cpu, on_gpu, strict=True):
        assert b.captured
        assert a.score == pytest.approx(b.score, abs=0.11), "two of twenty validation samples"
        assert a.history[0]["loss"] == pytest.approx(b.history[0]["loss"], rel=1e-2)

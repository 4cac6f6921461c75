"""What encoders learn from training samples alone, and their numbers against slow, obvious loops."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fusionbench import engine, harness, registry
from fusionbench.api import Batch, Stream, UsageError, summaries, unrolled
from fusionbench.engine import Member, Recipe, Trained
from fusionbench.engine.model import Blueprint, Model
from fusionbench.harness.evaluate import load_model
from fusionbench.hparams import read
from fusionbench.records import Record, store

NAMES = ["ple", "summary", "latest", "rocket"]
RECIPE = Recipe(steps=8, batch=8, interval=4, lr=(1e-3,))


def clips(size: int = 6, steps: int = 24, width: int = 3, seed: int = 0) -> Stream:
    """Ragged: the second is shorter, the third has a gap, the last is absent."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(size, steps, dtype=torch.bool)
    mask[1, steps // 2 :] = mask[2, 5:7] = mask[-1] = False
    return Stream(torch.randn(size, steps, width, generator=generator).cumsum(1), mask)


def make(name: str, width: int = 3, **settings: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return registry.load("backbones", name)((width,), **settings)


def test_latest_is_last_mean_least_and_greatest_of_the_real_steps() -> None:
    train, asked = clips(), clips(seed=1)
    asked.mask[3, -1] = False  # the last real step is not the last step
    asked = Stream(asked.x, asked.mask)
    backbone = make("latest")

    def described(stream: Stream) -> np.ndarray:
        real = [x[m].numpy() for x, m in zip(stream.x, stream.mask, strict=True) if m.any()]
        return np.stack([np.concatenate([x[-1], x.mean(0), x.min(0), x.max(0)]) for x in real])

    backbone.prepare(train)
    found, known = backbone(asked), described(train)
    assert found.mask[:, 0].tolist() == [True] * 5 + [False]
    want = ((described(asked) - known.mean(0)) / known.std(0)).clip(-10, 10)
    np.testing.assert_allclose(found.x[:5, 0].numpy(), want, atol=1e-4)


@pytest.mark.parametrize("bins", [4, 8])
def test_ple_is_the_papers_formula_between_numpys_quantiles(bins: int) -> None:
    train, asked = clips(), clips(seed=1)
    backbone = make("ple", bins=bins)
    backbone.prepare(train)
    found = backbone(asked).x.unflatten(2, (3, bins))[asked.mask].numpy()
    real = train.x[train.mask].numpy()
    for d in range(3):
        edges = np.quantile(real[:, d], np.linspace(0, 1, bins + 1))
        for x, encoded in zip(asked.x[asked.mask][:, d].tolist(), found[:, d], strict=True):
            want = [min(1, max(0, (x - low) / (high - low))) for low, high in pairwise(edges)]
            np.testing.assert_allclose(encoded, want, atol=1e-5)


def test_a_bin_of_no_width_is_a_step() -> None:
    backbone = make("ple", width=1, bins=4)
    x = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0])
    backbone.prepare(Stream(x[:, None, None], torch.ones(7, 1, dtype=torch.bool)))
    assert backbone.edges.flatten().tolist() == [0, 0, 0, 0.5, 2]
    assert [backbone.edges.shape[0], backbone.dim] == [5, 4]
    got = backbone(Stream(torch.tensor([-1.0, 0.0, 0.25, 9.0])[:, None, None], torch.ones(4, 1, dtype=torch.bool)))
    assert got.x[:, 0].tolist() == [[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0.5, 0], [1, 1, 1, 1]]


def test_summaries_are_standardised_by_the_training_samples() -> None:
    train = clips(steps=8, width=6)
    backbone = make("summary", width=6, channels=2)
    backbone.prepare(train)
    assert backbone.dim == 13 * 2
    there = summaries(unrolled(train, 2), bands=True)[train.present]
    want = (there - there.mean(0)) / there.std(0, correction=0)
    torch.testing.assert_close(backbone(train).x[train.present, 0], want, rtol=1e-4, atol=1e-4)
    assert backbone(train).mask.flatten().tolist() == train.present.tolist()
    with pytest.raises(UsageError, match="rocket needs at least 84 features and a length of 9, not 84, 8"):
        make("rocket", features=84, length=8)
    with pytest.raises(UsageError, match="6 numbers, which are no whole number of samples of 4 channels"):
        make("summary", width=6, channels=4)


def test_unrolled_steps_are_samples_one_after_another() -> None:
    stream = clips(steps=4, width=6)
    got = unrolled(stream, 2)
    for t in range(12):
        assert torch.equal(got.x[:, t], stream.x[:, t // 3, 2 * (t % 3) : 2 * (t % 3) + 2])
        assert torch.equal(got.mask[:, t], stream.mask[:, t // 3])


def test_rocket_is_its_slow_loop() -> None:
    train, asked = clips(steps=24), clips(steps=24, seed=1)
    backbone = make("rocket", features=252, length=24)
    backbone.prepare(train)
    assert backbone.dilations == [1, 2]
    assert backbone.counts == [2, 1]
    found = ((backbone(asked).x[:, 0] * backbone.sd) + backbone.mean)[asked.present].numpy()
    x, mask = asked.x[asked.present].numpy(), asked.mask[asked.present].numpy()
    kernels = [[2.0 if j in twos else -1.0 for j in range(9)] for twos in combinations(range(9), 3)]
    column = 0
    for d, dilation in enumerate(backbone.dilations):
        rows = [0, 1] if d == 0 else [2]
        for row in rows:
            for k in range(0, 84, 11):
                bias, used = float(backbone.bias[row, k]), channels(backbone.weight[d, :, k])
                for n in range(len(x)):
                    hits = places = 0
                    for t in np.flatnonzero(mask[n]):
                        taps = [t + (j - 4) * dilation for j in range(9)]
                        ends = all(0 <= taps[e] < 24 and mask[n, taps[e]] for e in (0, 8))
                        if (k + d) % 2 and not ends:
                            continue
                        inner = [(w, s) for w, s in zip(kernels[k], taps, strict=True) if 0 <= s < 24]
                        value = sum(w * x[n, s, used].sum() for w, s in inner)
                        hits, places = hits + (value > bias), places + 1
                    assert found[n, column + k] == pytest.approx(hits / max(1, places), abs=1e-5), (d, row, k, n)
            column += 84


def channels(weights: Tensor) -> list[int]:
    """Which of three channels a kernel adds, from its (9 x 3) weights."""
    return weights.reshape(9, 3)[0].nonzero().flatten().tolist()


@pytest.mark.parametrize(
    ("length", "each", "found", "counts"),
    [(100, 6, [1, 2, 4, 7, 12], [2, 1, 1, 1, 1]), (30, 6, [1, 2, 3], [3, 2, 1]), (9, 2, [1], [2])],
)
def test_dilations_reach_over_the_clip(length: int, each: int, found: list[int], counts: list[int]) -> None:
    """The first two as aeon's MiniRocket has them."""
    from fusionbench.backbones.rocket import dilations

    assert dilations(length, each) == (found, counts)


# What the engine makes of it: learned from a fold's training samples alone, one set of buffers a member.


@pytest.fixture(scope="module")
def data() -> Batch:
    return registry.load("benchmarks", "toy_xor")(people=6).load()


def blueprint(name: str) -> Blueprint:
    judge = registry.load("benchmarks", "toy_xor")()
    method, encoder = registry.load("fusers", "concat"), registry.load("backbones", name)
    settings = {n: h.default for n, h in read(encoder).items()} | ({"features": 84} if name == "rocket" else {})
    full = {n: h.default for n, h in read(method).items()}
    return Blueprint(judge.task, judge.shapes, method, full, {m: (encoder, settings) for m in judge.shapes})


def members() -> list[Member]:
    """Two folds; the samples from 100 on are nobody's."""
    return [
        Member(0, 0, np.arange(80), np.arange(80, 100), 1e-3),
        Member(1, 0, np.arange(20, 100), np.arange(20), 1e-3),
    ]


def learned(model: Model) -> dict[str, Tensor]:
    return {n: b for n, b in model.named_buffers() if n.startswith("backbones")}


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_learned_from_other_samples(name: str, data: Batch) -> None:
    train = torch.arange(80)
    poisoned = replace(data, streams={m: spoilt(s, 80) for m, s in data.streams.items()})
    want, got = (learned(blueprint(name).begin(0, d, train)) for d in (data, poisoned))
    assert want
    assert all(torch.equal(got[n], value) for n, value in want.items())
    other = learned(blueprint(name).begin(0, data, torch.arange(20, 100)))
    assert not all(torch.equal(other[n], value) for n, value in want.items()), "another fold is another"


def spoilt(stream: Stream, first: int) -> Stream:
    x = stream.x.clone()
    x[first:] = torch.nan
    return Stream(x, stream.mask)


@pytest.mark.parametrize("name", NAMES)
def test_folds_in_one_stack_keep_what_each_has_learned(name: str, data: Batch) -> None:
    def run(stacked: int) -> list[Trained]:
        events = engine.train(blueprint(name), members(), data, RECIPE, stacked=stacked)
        return sorted((e for e in events if isinstance(e, Trained)), key=lambda t: t.member)

    for a, b, who in zip(run(2), run(1), members(), strict=True):
        assert (a.stacked, b.stacked) == (2, 1)
        assert [h["loss"] for h in a.history] == pytest.approx([h["loss"] for h in b.history], rel=2e-4)
        for n, value in learned(blueprint(name).begin(0, data, torch.from_numpy(who.train))).items():
            assert torch.equal(a.weights[n], value)
            assert torch.equal(b.weights[n], value)


def test_saved_weights_answer_as_the_trained_model_did(tmp_path: Path) -> None:
    setup = harness.setup(
        "toy_xor", "concat", {"left": "ple", "right": "summary"}, {"train": {"steps": 20, "interval": 10, "lr": "1e-3"}}
    )
    events = harness.execute(setup, setup.runs([0], [0]), tmp_path, conditions=["noise:left:3"])
    (record,) = (e for e in events if isinstance(e, Record))
    again = next(e for e in harness.execute(setup, [], tmp_path, again=[record], conditions=["noise:left:1"])
                 if isinstance(e, Record))  # fmt: skip
    weights = store.weights(tmp_path, record.run)
    assert weights is not None
    assert weights["backbones.left.edges"].shape[0] == 9
    model = load_model(setup, record.run, weights, torch.device("cpu"))
    answers = engine.predict(model, setup.data[harness.splits_of(setup, setup.data, setup.run(0, 0)).test])
    kept = store.predictions(tmp_path, record.run)
    assert kept is not None
    np.testing.assert_allclose(answers, kept.answers["clean"], rtol=1e-3, atol=1e-3)
    assert {"noise:left:1", "noise:left:3"} <= set(again.scores)


@pytest.mark.parametrize("name", ["summary", "latest", "rocket"])
def test_what_describes_a_clip_is_refused_where_every_frame_is_asked(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} makes one step of a clip, affect_sim asks for an answer a frame"):
        harness.setup("affect_sim", "concat", {"face": name})
    assert harness.setup("affect_sim", "forest", {"face": name}).names["backbone.face"] == "identity"


def test_a_backbone_that_cannot_learn_is_named(data: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any, stream: Stream) -> None:
        raise ZeroDivisionError("no bins")

    monkeypatch.setattr(registry.load("backbones", "ple"), "prepare", refuse)
    with pytest.raises(UsageError, match=r"Ple cannot learn from the training samples of left: ZeroDivisionError"):
        blueprint("ple").begin(0, data, torch.arange(80))

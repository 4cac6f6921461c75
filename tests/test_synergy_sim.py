"""The known answer of `synergy_sim`: posterior probabilities against sampling, the Bayes accuracy against rivals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import PolynomialFeatures

from fusionbench import corruptions, registry
from fusionbench.api import Batch, Context, Stream, Streams, UsageError
from fusionbench.benchmarks._smoother import Damage
from fusionbench.benchmarks.synergy_sim import SynergySim


def damaged(data: Batch, spelling: str) -> tuple[Streams, Damage]:
    ((_, corruption, severity),) = corruptions.parse(spelling, list(data.streams))
    keys = corruptions.keys(corruption.name, 0, data.ids, list(data.streams))
    context = Context({m: s.x[s.mask].std(0) for m, s in data.streams.items()})
    return corruption.apply(data.streams, severity, keys, context), (corruption, severity, context)


def best(bench: SynergySim, data: Batch, spelling: str = "") -> dict[str, float]:
    streams, damage = damaged(data, spelling) if spelling else (data.streams, None)
    found = bench.optimum(streams, data, damage)
    assert found is not None
    return dict(found)


@pytest.mark.parametrize("spelling", ["", "missing:voice", "noise:all:4"])
@pytest.mark.parametrize("dials", [{}, {"redundancy": 0, "uniqueness": 0, "synergy": 1}, {"synergy": 0}])
def test_posterior_matches_sampling(dials: dict[str, float], spelling: str) -> None:
    """Importance sampling from the prior, weighted by the likelihood: no Gaussian formula is shared."""
    bench = SynergySim(people=6, clips=1, frames=2, noise=2.0, **dials)
    data = bench.load()
    streams, damage = damaged(data, spelling) if spelling else (data.streams, None)
    posterior = bench.posterior(streams, data, damage)
    assert posterior is not None
    z = np.random.default_rng(1).standard_normal((200_000, 5))
    score = z @ bench.weights.numpy() + bench.gain * z[:, 3] * z[:, 4]
    for b in range(len(data)):
        log = np.zeros(len(z))
        for m, stream in streams.items():
            for t in torch.nonzero(stream.mask[b])[:, 0].tolist():
                variance = math.exp(2 * float(data.streams[m].x[b, t, -1])) * np.ones(bench.shapes[m][0] - 1)
                if damage is not None and damage[0].name == "noise":
                    variance = variance + (1.5 * damage[2].sd[m][:-1].double().numpy()) ** 2
                error = stream.x[b, t, :-1].double().numpy() - z @ bench.maps[m].numpy().T
                log -= (error**2 / variance).sum(1) / 2
        weight = np.exp(log - log.max())
        weight /= weight.sum()
        expected = weight @ (score > 0)
        error = math.sqrt((weight**2) @ ((score > 0) - expected) ** 2)
        assert float(posterior[b]) == pytest.approx(expected, abs=5 * error + 1e-4)


def test_synergy_alone_is_exclusive_or() -> None:
    """Without redundancy a clip's factors differ in sign, as classes do; either modality alone is worth nothing."""
    bench = SynergySim(redundancy=0, uniqueness=0, synergy=1, missing=0, noise=0.1)
    data = bench.load()
    assert best(bench, data)["accuracy"] > 0.9
    for m in ("face", "voice"):
        assert best(bench, data, f"missing:{m}")["accuracy_expected"] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("spelling", ["", "noise:all:3", "missing:face", "gap:all:4"])
def test_expected_accuracy_is_achieved(spelling: str) -> None:
    bench = SynergySim(people=100, clips=40)
    data = bench.load()
    found = best(bench, data, spelling)
    error = math.sqrt(found["accuracy"] * (1 - found["accuracy"]) / len(data))
    assert found["accuracy"] == pytest.approx(found["accuracy_expected"], abs=3.5 * error)


def test_posterior_is_calibrated() -> None:
    bench = SynergySim(people=100, clips=40)
    data = bench.load()
    p, y = bench.posterior(data.streams, data), data.y[:, 0].double()
    assert p is not None
    for low in (0.0, 0.2, 0.4, 0.6, 0.8):
        inside = (p >= low) & (p <= low + 0.2)
        spread = float((p[inside] * (1 - p[inside])).sum().sqrt())
        assert abs(float((y[inside] - p[inside]).sum())) < 3.5 * spread


def test_optimum_falls_with_damage_and_noise() -> None:
    bench = SynergySim()
    data = bench.load()
    clean = best(bench, data)["accuracy_expected"]
    for kind in ("noise:all", "noise:face", "gap:all"):
        levels = [clean, *(best(bench, data, f"{kind}:{s}")["accuracy_expected"] for s in (1, 3, 5))]
        assert levels == sorted(levels, reverse=True)
        assert levels[0] > levels[-1]
    assert clean > best(bench, data, "missing:face")["accuracy_expected"] > 0.55
    assert best(bench, data, "missing:all")["accuracy_expected"] == pytest.approx(0.5, abs=1e-9)
    noisy = SynergySim(noise=3.0)
    assert best(noisy, noisy.load())["accuracy_expected"] < clean


def test_oracle_answers_and_unknown_laws() -> None:
    bench = SynergySim(people=5)
    data = bench.load()
    answers = bench.oracle(data.streams, data)
    assert answers is not None
    assert answers.shape == (len(data), 1, 2)
    assert float((answers[:, 0].argmax(1) == data.y[:, 0]).double().mean()) == best(bench, data)["accuracy"]
    assert bench.optimum({m: Stream(-s.x, s.mask) for m, s in data.streams.items()}, data) is None


def test_data_are_the_same_every_time_and_split_by_person() -> None:
    bench = SynergySim(people=10, clips=4)
    one, two = bench.load(), SynergySim(people=10, clips=4).load()
    other = SynergySim(people=10, clips=4, synergy=0).load()
    for m, shape in bench.shapes.items():
        assert one.streams[m].shape[1:] == shape
        assert torch.equal(one.streams[m].x, two.streams[m].x)
        assert torch.equal(one.streams[m].x, other.streams[m].x)
    assert torch.equal(one.y, two.y)
    assert not torch.equal(one.y, other.y)
    seen = []
    for fold in range(bench.folds):
        splits = bench.splits(one, fold)
        people = [{one.groups[i] for i in side} for side in (splits.train, splits.val, splits.test)]
        assert not people[0] & people[1] | people[0] & people[2] | people[1] & people[2]
        seen += list(splits.test)
    assert sorted(seen) == list(range(len(one)))
    assert registry.load("benchmarks", "synergy_sim") is SynergySim


@pytest.mark.parametrize("dials", [{"noise": -1.0}, {"missing": 1.0}, {"synergy": -1.0}, {"clips": 0}])
def test_wrong_dials_are_named(dials: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(dials))):
        SynergySim(**dials)


@pytest.mark.parametrize(("noise", "missing"), [(0.3, 0.0), (1.0, 0.1)])
def test_quadratic_model_never_beats_the_optimum_and_comes_close(noise: float, missing: float) -> None:
    bench = SynergySim(people=100, clips=40, noise=noise, missing=missing)
    data = bench.load()
    parts = []
    for stream in data.streams.values():
        weight = stream.mask[..., None] / (0.3 + (2 * stream.x[..., -1:]).exp())
        parts.append((stream.x[..., :-1] * weight).sum(1) / weight.sum(1).clamp(min=1e-6))
    x, y = PolynomialFeatures(2).fit_transform(torch.cat(parts, -1).numpy()), data.y[:, 0].numpy()
    splits = bench.splits(data, 0)
    model = LogisticRegression(C=1.0, max_iter=300).fit(x[splits.train], y[splits.train])
    test = data[splits.test]
    answers = bench.oracle(test.streams, test)
    assert answers is not None
    truth = y[splits.test]
    gain = (answers[:, 0].argmax(1).numpy() == truth) * 1.0 - (model.predict(x[splits.test]) == truth)
    per_person = np.array([gain[np.array(test.groups) == g].mean() for g in sorted(set(test.groups))])
    draws = np.random.default_rng(0).choice(per_person, (1000, len(per_person))).mean(1)
    assert np.quantile(draws, 0.975) > 0
    assert per_person.mean() < 0.05

"""The known answer of `affect_sim`: the smoother against dense Gaussian conditioning, the bound against its rivals."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from fusionbench import corruptions, metrics, registry
from fusionbench.api import Batch, Context, Stream, Streams, UsageError
from fusionbench.benchmarks import _smoother
from fusionbench.benchmarks.affect_sim import SEES, AffectSim


def context_of(data: Batch) -> Context:
    return Context({m: s.x[s.mask].std(0) for m, s in data.streams.items()})


def damaged(data: Batch, spelling: str) -> tuple[Streams, _smoother.Damage]:
    ((_, corruption, severity),) = corruptions.parse(spelling, list(data.streams))
    keys = corruptions.keys(corruption.name, 0, data.ids, list(data.streams))
    context = context_of(data)
    return corruption.apply(data.streams, severity, keys, context), (corruption, severity, context)


def best(bench: AffectSim, data: Batch, spelling: str = "") -> dict[str, float]:
    streams, damage = damaged(data, spelling) if spelling else (data.streams, None)
    found = bench.optimum(streams, data, damage)
    assert found is not None
    return dict(found)


def conditioned(bench: AffectSim, streams: Streams, truth: Batch, extra: dict[str, np.ndarray], b: int):
    """Mean (T, 12) and covariance (T, 12, 12) of sample b's latents by one dense solve over its seen channels.

    The kernel is written down as a function of the lag (Matern-3/2), not through the smoother's state space.
    """
    rows, values, variances = [], [], []  # rows: (state time, coefficients on the 12 latents)
    steps = truth.y_mask.shape[1]
    for m, stream in streams.items():
        for t in range(steps):
            if stream.mask[b, t]:
                sd = math.exp(float(truth.streams[m].x[b, t, -1]))
                for c in range(stream.x.shape[-1] - 1):
                    rows.append((t - bench.lags[m], bench.maps[m][c].numpy()))
                    values.append(float(stream.x[b, t, c]))
                    variances.append(sd**2 + extra[m][c])
    rate = math.sqrt(3) / bench.scale
    time = np.array([t for t, _ in rows], dtype=float)
    weights = np.array([w for _, w in rows])

    def kernel(s: np.ndarray, t: np.ndarray) -> np.ndarray:
        gap = rate * np.abs(s[:, None] - t[None])
        return (1 + gap) * np.exp(-gap)

    inverse = np.linalg.inv(kernel(time, time) * (weights @ weights.T) + np.diag(variances))
    means, covs = [], []
    for t in range(steps):
        cross = kernel(np.array([float(t)]), time) * weights.T  # (12, observations)
        means.append(cross @ inverse @ np.array(values))
        covs.append(np.eye(12) - cross @ inverse @ cross.T)
    return np.array(means), np.array(covs)


@pytest.mark.parametrize(("lag", "spelling"), [(0, ""), (3, ""), (2, "noise:face:3"), (1, "gap:all:4")])
def test_smoother_is_dense_conditioning(lag: int, spelling: str) -> None:
    bench = AffectSim(lag=lag, missing=0.3, people=4, sequences=1, frames=8, synergy=0)
    data = bench.load()
    streams, damage = damaged(data, spelling) if spelling else (data.streams, None)
    assert not all(bool(s.mask.all()) for s in streams.values())
    extra = {m: np.zeros(s.x.shape[-1]) for m, s in streams.items()}
    if spelling.startswith("noise"):
        extra["face"] = context_of(data).sd["face"].double().numpy() ** 2  # severity 3: once the SD
    found = bench.posterior(streams, data, damage)
    assert found is not None
    share = bench.share
    for b in range(len(data)):
        mean, cov = conditioned(bench, streams, data, extra, b)
        np.testing.assert_allclose(found[2][b], mean, atol=1e-8)
        for d in range(2):
            weights = np.zeros(12)
            weights[d] = math.sqrt(share["redundancy"])
            weights[[2 + d, 4 + d, 6 + d]] = math.sqrt(share["uniqueness"] / 3)
            np.testing.assert_allclose(found[0][b, :, d], mean @ weights, atol=1e-8)
            np.testing.assert_allclose(found[1][b, :, d], weights @ cov @ weights, atol=1e-8)


def test_smoothed_covariances_are_dense_ones() -> None:
    torch.manual_seed(0)
    dynamics = _smoother.matern(3.0, 2)
    observation = torch.randn(3, 2, dtype=torch.float64)
    precision = torch.rand(1, 5, 3, dtype=torch.float64) * torch.tensor([1, 1, 0, 1, 0])[None, :, None]
    _, cov = _smoother.smooth(dynamics, *_smoother.information(torch.zeros(1, 5, 3).double(), precision, observation))
    gap = math.sqrt(3) / 3 * (torch.arange(5.0).double()[:, None] - torch.arange(5.0).double()).abs()
    prior = torch.kron((1 + gap) * torch.exp(-gap), torch.eye(2).double())  # times x latents
    J = torch.block_diag(*[observation.T @ torch.diag(precision[0, t]) @ observation for t in range(5)])
    dense = torch.linalg.inv(torch.linalg.inv(prior) + J)
    for t in range(5):
        torch.testing.assert_close(cov[0, t], dense[2 * t : 2 * t + 2, 2 * t : 2 * t + 2], atol=1e-10, rtol=0)


def test_simulated_latents_have_the_kernel() -> None:
    keys = torch.arange(20_000, dtype=torch.int32) * 7919
    z = _smoother.simulate(4.0, 2, 6, keys)
    gap = math.sqrt(3) / 4 * (torch.arange(6.0)[:, None] - torch.arange(6.0)).abs()
    kernel = ((1 + gap) * torch.exp(-gap)).double()
    for p in range(2):
        torch.testing.assert_close(z[:, :, p].T @ z[:, :, p] / len(z), kernel, atol=0.05, rtol=0)
    assert (z[:, :, 0].T @ z[:, :, 1] / len(z)).abs().max() < 0.05


def test_product_moments_match_monte_carlo() -> None:
    rng = np.random.default_rng(0)
    root = rng.standard_normal((4, 4)) * 0.7
    mean, cov = rng.standard_normal(4), root @ root.T
    weights, gain = np.array([0.5, 0, -0.3, 0.8]), 0.9
    z = rng.multivariate_normal(mean, cov, 400_000)
    y = z @ weights + gain * z[:, 1] * z[:, 2]
    m, v = _smoother.product_moments(*map(torch.from_numpy, (mean, cov, weights)), (1, 2), gain)
    assert abs(float(m) - y.mean()) < 4 * y.std() / math.sqrt(len(y))
    assert float(v) == pytest.approx(y.var(), rel=0.02)


@pytest.mark.parametrize("dials", [{}, {"synergy": 1.0, "uniqueness": 0.0}, {"noise": 2.0, "missing": 0.5}])
def test_bound_is_reached_and_calibrated(dials: dict[str, float]) -> None:
    bench = AffectSim(people=80, sequences=6, frames=24, **dials)
    data = bench.load()
    found = bench.posterior(data.streams, data)
    assert found is not None
    mean, variance, _ = (f[data.y_mask] for f in found)
    y = data.y[data.y_mask].double()
    assert ((y - mean) ** 2).mean() == pytest.approx(float(variance.mean()), rel=0.06)
    scores = best(bench, data)
    assert scores["ccc"] == pytest.approx(scores["ccc_expected"], abs=0.03)
    assert 0.3 < scores["ccc"] < 0.95
    oracle = bench.oracle(data.streams, data)
    assert oracle is not None
    evaluated = metrics.evaluate(("ccc",), oracle.numpy(), data.y.numpy(), data.y_mask.numpy())
    assert evaluated["ccc"] == pytest.approx(scores["ccc"], abs=1e-5)
    for scale, shift in [(0.7, 0), (1.4, 0), (1, 0.3), (1, -0.3), (float(scores["ccc_expected"]), 0)]:
        rival = scale * oracle[data.y_mask] + shift
        assert _smoother.concordance(rival, y).mean() < scores["ccc"]


def test_optimum_falls_with_damage_noise_and_missing_modalities() -> None:
    bench = AffectSim()
    data = bench.load()[torch.arange(0, 120, 2)]
    clean = best(bench, data)["ccc_expected"]
    for kind in ("noise:all", "noise:voice", "gap:all"):
        levels = [clean, *(best(bench, data, f"{kind}:{s}")["ccc_expected"] for s in (1, 3, 5))]
        assert levels == sorted(levels, reverse=True)
        assert levels[0] > levels[-1] + 0.02
    for m in bench.shapes:
        rest = [other for other in bench.shapes if other != m]
        one, two = best(bench, data, f"missing:{m}"), best(bench, data, f"missing:{'+'.join(rest)}")
        assert clean > one["ccc_expected"] > 0
        assert clean > two["ccc_expected"] > 0
    assert best(bench, data, "missing:all") == {"ccc": 0.0, "ccc_expected": 0.0}
    noisy = AffectSim(noise=2.0)
    assert best(noisy, noisy.load()[torch.arange(0, 120, 2)])["ccc_expected"] < clean


def test_optimum_is_none_where_the_law_is_unknown() -> None:
    bench = AffectSim(people=4, sequences=1)
    data = bench.load()

    def optimum_under(spelling: str) -> Mapping[str, float] | None:
        streams, damage = damaged(data, spelling)
        return bench.optimum(streams, data, damage)

    louder = {m: Stream(1.5 * s.x, s.mask) for m, s in data.streams.items()}
    assert bench.optimum(louder, data) is None
    assert bench.oracle(louder, data, damaged(data, "gap:all:1")[1]) is None
    for spelling in ("dims:voice:3", "drift:all:5", "stuck:face:4"):
        assert optimum_under(spelling) is None
    for spelling in ("frames:all:4", "absent:all:3", "gap:bio:5", "missing:voice+bio", "noise:face+bio:2"):
        found = optimum_under(spelling)
        assert found is not None
        assert found["ccc_expected"] < best(bench, data)["ccc_expected"]
    hidden, damage = damaged(data, "gap:all:3")
    assert bench.optimum(hidden, data, None) == bench.optimum(hidden, data, damage)


def test_data_are_the_same_every_time_and_split_by_person() -> None:
    bench = AffectSim(people=12, sequences=2)
    one, two = bench.load(), AffectSim(people=12, sequences=2).load()
    more, other = AffectSim(people=20, sequences=2).load(), AffectSim(people=12, sequences=2, redundancy=0).load()
    for m, shape in bench.shapes.items():
        assert one.streams[m].shape[1:] == shape
        assert torch.equal(one.streams[m].x, two.streams[m].x)
        assert torch.equal(one.streams[m].x, more.streams[m].x[: len(one)])
        assert torch.equal(one.streams[m].x, other.streams[m].x)  # a dial of the label leaves the inputs alone
    assert torch.equal(one.y, two.y)
    assert not torch.equal(one.y, other.y)
    seen = []
    for fold in range(bench.folds):
        splits = bench.splits(one, fold)
        people = [{one.groups[i] for i in side} for side in (splits.train, splits.val, splits.test)]
        assert not people[0] & people[1] | people[0] & people[2] | people[1] & people[2]
        seen += list(splits.test)
    assert sorted(seen) == list(range(len(one)))


def test_labels_have_unit_variance_and_modalities_their_rate() -> None:
    data = AffectSim(people=100, sequences=10, missing=0.3, synergy=1.0, frames=32).load()
    assert data.y[data.y_mask].std(0).numpy() == pytest.approx([1, 1], abs=0.06)
    present = torch.stack([s.present for s in data.streams.values()], 1)
    assert present.any(1).all()  # at least one is kept
    assert 1 - present.float().mean() == pytest.approx(0.3 - 0.3**3 / 3, abs=0.02)
    for stream in data.streams.values():
        inside = stream.mask[stream.present].sum() / data.y_mask[stream.present].sum()
        assert inside == pytest.approx(0.7, abs=0.01)
        assert not (stream.mask & ~data.y_mask).any()


@pytest.mark.parametrize(
    ("dials", "said"),
    [
        ({"noise": 0.0}, "noise"),
        ({"missing": 1.2}, "missing"),
        ({"lag": -1}, "lag"),
        ({"synergy": -0.1}, "shares"),
        ({"redundancy": 0, "uniqueness": 0, "synergy": 0}, "shares"),
        ({"people": 0}, "people"),
    ],
)
def test_wrong_dials_are_named(dials: dict[str, float], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        AffectSim(**dials)


def test_is_found_by_name_and_reads_what_it_says() -> None:
    assert registry.load("benchmarks", "affect_sim") is AffectSim
    bench = AffectSim()
    for m, seen in SEES.items():
        assert bench.maps[m].norm(dim=1).numpy() == pytest.approx(np.ones(len(bench.maps[m])))
        unseen = [k for k in range(12) if k not in seen]
        assert not bench.maps[m][:, unseen].any()


def windows(data: Batch, radius: int) -> np.ndarray:
    """(B, T, features): precision-weighted channels of the frames within `radius`, and what is there at all."""
    parts = []
    for stream in data.streams.values():
        weight = stream.mask[..., None] / (0.3 + (2 * stream.x[..., -1:]).exp())
        parts += [stream.x[..., :-1] * weight, weight]
    frame = torch.nn.functional.pad(torch.cat(parts, -1), (0, 0, radius, radius))
    steps = data.y.shape[1]
    return torch.cat([frame[:, o : o + steps] for o in range(2 * radius + 1)], -1).numpy()


@pytest.mark.parametrize(
    ("dials", "close"), [({"synergy": 0.0, "noise": 0.3, "missing": 0.0}, 0.05), ({}, None), ({"synergy": 1.0}, None)]
)
def test_ridge_never_beats_the_optimum_and_comes_close_where_it_can(dials: dict[str, float], close: float) -> None:
    bench = AffectSim(people=100, sequences=6, frames=24, **dials)
    data = bench.load()
    splits = bench.splits(data, 0)
    x, real = windows(data, 4), data.y_mask.numpy()
    train, test = splits.train, data[splits.test]
    model = Ridge(alpha=10.0).fit(x[train][real[train]], data.y.numpy()[train][real[train]])
    answer = model.predict(x[splits.test].reshape(-1, x.shape[-1])).reshape(test.y.shape)
    spread = model.predict(x[train][real[train]]).std(0)  # rescaled to the label's SD, as the oracle is
    answer = torch.from_numpy(answer / spread)
    oracle = bench.oracle(test.streams, test)
    assert oracle is not None

    def regret(index: torch.Tensor) -> float:
        mask, y = test.y_mask[index], test.y[index].double()
        ours, theirs = (_smoother.concordance(a[index][mask], y[mask]).mean() for a in (oracle, answer))
        return float(ours - theirs)

    rng = np.random.default_rng(0)
    of = {g: [i for i, other in enumerate(test.groups) if other == g] for g in set(test.groups)}
    people = sorted(of)
    draws = [[i for g in rng.choice(people, len(people)) for i in of[g]] for _ in range(200)]
    low, high = np.quantile([regret(torch.tensor(d)) for d in draws], [0.025, 0.975])
    assert high > 0  # does not beat it beyond the interval
    point = regret(torch.arange(len(test)))
    assert low <= point <= high
    if close is not None:
        assert point < close

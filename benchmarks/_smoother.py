"""Exact Gaussian inference for the simulated benchmarks: smoothing, the moments of a product, the laws of damage.

Everything is float64 on the CPU. An observation of the latents z is x = C z + noise with independent noise of known
variance a channel; it enters as its information J = C' R^-1 C and h = C' R^-1 x, which is zero where a step is masked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from fusionbench.api import Batch, Context, Corruption, Stream, Streams, UsageError, keyed

#: A corruption, its severity and what it knew: how streams came to be damaged.
Damage = tuple[Corruption, int, Context]


def shares(**dials: float) -> dict[str, float]:
    """The dials as shares of the label's variance: they sum to 1.

    Raises:
        UsageError: one is negative, or all are zero.
    """
    total = sum(dials.values())
    if min(dials.values()) < 0 or total == 0:
        raise UsageError(f"{', '.join(dials)} are shares: none is negative, one is positive; not {dials}")
    return {name: dial / total for name, dial in dials.items()}


def check_dials(noise: float, missing: float, **counts: int) -> None:
    """Raises UsageError unless `noise` is positive, `missing` a rate below 1 and every count at least 1."""
    if noise <= 0:
        raise UsageError(f"noise is a standard deviation above 0, not {noise:g}")
    if not 0 <= missing < 1:
        raise UsageError(f"missing is a rate of at least 0 and below 1, not {missing:g}")
    for name, count in counts.items():
        if count < 1:
            raise UsageError(f"{name} is at least 1, not {count}")


def maps(name: str, sees: Mapping[str, list[int]], channels: Mapping[str, int], latents: int) -> dict[str, Tensor]:
    """modality -> C (channels, latents): random rows of unit length over the latents that the modality sees.

    Latents have variance 1, so every channel's signal has.
    """
    found = {}
    for m, seen in sees.items():
        rows = keyed.normal(torch.tensor(keyed.number(name, "map", m)), (channels[m], len(seen))).double()
        found[m] = torch.zeros(channels[m], latents, dtype=torch.float64)
        found[m][:, seen] = rows / rows.norm(dim=1, keepdim=True)
    return found


def availability(keys: Tensor, steps: int, modalities: int, rate: float) -> Tensor:
    """(B, steps, modalities) bool: a whole modality is absent at `rate`, and a step of a present one too.

    Completely at random, except that the modality with the largest draw of a sample is never absent.
    """
    draw = keyed.uniform(keys, (modalities,), site=1)  # (B, M)
    kept = (draw >= rate) | (draw == draw.amax(1, keepdim=True))
    return kept[:, None] & (keyed.uniform(keys, (steps, modalities), site=2) >= rate)


def observe(signal: Tensor, level: Tensor, keys: Tensor, mask: Tensor) -> Stream:
    """A modality's stream: signal (B, T, C) + noise of SD exp(level), and level (B, T) itself as the last channel."""
    noise = keyed.normal(keys, signal.shape[1:]).double()
    return Stream(torch.cat([signal + level.exp()[..., None] * noise, level[..., None]], -1).float(), mask)


def matern(scale: float, processes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Independent Matern-3/2 processes of variance 1 in steps of one frame: transition A, its noise Q, stationary P.

    The state holds the values of all `processes`, then their slopes; matrices are (2 processes, 2 processes). Exact
    discretisation of the stochastic differential equation (Hartikainen & Sarkka 2010, "Kalman filtering and
    smoothing solutions to temporal Gaussian process regression models").
    """
    rate = math.sqrt(3) / scale
    step = math.exp(-rate) * torch.tensor([[1 + rate, 1], [-(rate**2), 1 - rate]], dtype=torch.float64)
    stationary = torch.diag(torch.tensor([1.0, rate**2], dtype=torch.float64))
    noise = stationary - step @ stationary @ step.T
    eye = torch.eye(processes, dtype=torch.float64)
    return torch.kron(step, eye), torch.kron(noise, eye), torch.kron(stationary, eye)


def simulate(scale: float, processes: int, steps: int, keys: Tensor) -> Tensor:
    """(B, steps, processes) draws of Matern-3/2 processes, stationary from the first step."""
    transition, noise, stationary = matern(scale, processes)
    draws = keyed.normal(keys, (steps, 2 * processes)).double()  # (B, steps, 2 processes)
    root = torch.linalg.cholesky(noise)
    state = draws[:, 0] @ torch.linalg.cholesky(stationary).T
    states = [state]
    for t in range(1, steps):
        state = state @ transition.T + draws[:, t] @ root.T
        states.append(state)
    return torch.stack(states, 1)[..., :processes]


def information(x: Tensor, precision: Tensor, observation: Tensor) -> tuple[Tensor, Tensor]:
    """J (B, T, k, k) and h (B, T, k) of x (B, T, D) with noise precision (B, T, D), seen through C (D, k)."""
    dims, k = observation.shape
    squares = (observation[:, :, None] * observation[:, None, :]).reshape(dims, k * k)
    return (precision @ squares).unflatten(-1, (k, k)), (precision * x) @ observation


def smooth(dynamics: tuple[Tensor, Tensor, Tensor], J: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Posterior mean (B, T, k) and covariance (B, T, k, k) of the first k state variables, given all steps.

    A Kalman filter and a Rauch-Tung-Striebel smoother with measurement updates in information form, so a step
    without observations (J = 0) is a prediction.

    Args:
        dynamics: transition A, process noise Q, stationary covariance P, each (n, n).
        J, h: information on the first k <= n state variables, (B, T, k, k) and (B, T, k).
    """
    transition, noise, stationary = dynamics
    batch, steps, k = h.shape
    eye = torch.eye(k, dtype=h.dtype)
    mean, cov = h.new_zeros(batch, len(transition)), stationary.expand(batch, -1, -1)
    predicted, filtered = [], []
    for t in range(steps):
        if t:
            mean, cov = mean @ transition.T, transition @ cov @ transition.T + noise
        predicted.append((mean, cov))
        # (P^-1 + H'JH)^-1 without inverting P; H picks the first k.
        seen = cov[:, :, :k]  # (B, n, k)
        cov = cov - seen @ torch.linalg.solve(eye + J[:, t] @ cov[:, :k, :k], J[:, t] @ seen.mT)
        cov = (cov + cov.mT) / 2
        innovation = h[:, t] - (J[:, t] @ mean[:, :k, None])[..., 0]
        mean = mean + (cov[:, :, :k] @ innovation[..., None])[..., 0]
        filtered.append((mean, cov))
    means, covs = [mean], [cov]
    for t in range(steps - 2, -1, -1):
        (mean_f, cov_f), (mean_p, cov_p) = filtered[t], predicted[t + 1]
        gain = torch.linalg.solve(cov_p, transition @ cov_f).mT  # (B, n, n)
        mean = mean_f + (gain @ (mean - mean_p)[..., None])[..., 0]
        cov = cov_f + gain @ (cov - cov_p) @ gain.mT
        means.append(mean)
        covs.append(cov)
    return torch.stack(means[::-1], 1)[..., :k], torch.stack(covs[::-1], 1)[..., :k, :k]


def product_moments(
    mean: Tensor, cov: Tensor, weights: Tensor, pair: tuple[int, int], gain: float
) -> tuple[Tensor, Tensor]:
    """Mean and variance (...) of weights . z + gain z_i z_j, z Gaussian with mean (..., k), cov (..., k, k); exact.

    E[z_i z_j] = m_i m_j + S_ij, and the variances follow from the Gaussian's fourth moments (Isserlis 1918).
    """
    i, j = pair
    mi, mj, sii, sjj, sij = mean[..., i], mean[..., j], cov[..., i, i], cov[..., j, j], cov[..., i, j]
    line = cov @ weights  # (..., k): covariance of the linear part with each variable
    variance = mi**2 * sjj + mj**2 * sii + 2 * mi * mj * sij + sii * sjj + sij**2
    cross = mi * line[..., j] + mj * line[..., i]
    return mean @ weights + gain * (mi * mj + sij), line @ weights + gain**2 * variance + 2 * gain * cross


def readings(streams: Streams, truth: Batch, damage: Damage | None) -> dict[str, tuple[Tensor, Tensor]] | None:
    """modality -> values (B, T, C) and their noise precision (B, T, C), zero where masked; None if no Gaussian law.

    The last channel of a stream of `observe` is the log SD of the noise. Streams that differ from the clean ones
    of `truth` only by more masked steps are damage of the law "missing" (completely at random, as all of ours is).
    `noise` adds its own variance to each channel. Because it blurs the log SD as well, the *clean* one is taken: what
    follows is then a bound, with knowledge of the noise levels and of the severity that a model has to infer.
    """
    streams, truth = {m: s.to("cpu") for m, s in streams.items()}, truth.to("cpu")
    extra = {m: torch.zeros(s.x.shape[-1], dtype=torch.float64) for m, s in streams.items()}
    if not all(torch.equal(s.x, Stream(truth.streams[m].x, s.mask).x) for m, s in streams.items()):
        if damage is None or damage[0].name != "noise":
            return None
        corruption, severity, context = damage
        for m in list(streams) if corruption.modality == "all" else corruption.modality.split("+"):
            extra[m] = (corruption.ladder[severity - 1] * context.sd[m].cpu().double()) ** 2
    found = {}
    for m, stream in streams.items():
        level = truth.streams[m].x[..., -1:].double()  # (B, T, 1)
        precision = stream.mask[..., None] / ((2 * level).exp() + extra[m][:-1])
        found[m] = (stream.x[..., :-1].double(), precision)
    return found


def concordance(prediction: Tensor, truth: Tensor) -> Tensor:
    """CCC (out,) of (N, out) with population moments (Lin 1989); 0 where both are constant."""
    p, t = prediction - prediction.mean(0), truth - truth.mean(0)
    below = (p**2).mean(0) + (t**2).mean(0) + (prediction.mean(0) - truth.mean(0)) ** 2
    return 2 * (p * t).mean(0) / below.clamp(min=1e-300)

"""Simulated exclusive-or of two modalities with a known best accuracy: one of two classes a clip, face and voice.

A clip has five standard normal latents, seen at each of a few steps through random linear maps under noise whose
level varies and is given as each modality's last channel (log SD). The class is the sign of a score made of, in shares
of its variance that the dials set,

- redundancy: a latent that both modalities see,
- uniqueness: one private latent of each,
- synergy: the product of another private latent of each; alone, it is the exclusive-or of two signs.

The dials of these shares change the labels only, never the inputs. People differ in how noisy they are. Given the
noise levels and masks the posterior is exact, and so is the best reachable accuracy (`optimum`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from fusionbench.api import Batch, Benchmark, Range, Splits, Streams, Task, group_folds, keyed

from ._smoother import Damage, availability, check_dials, information, maps, observe, readings, shares

MODALITIES = ("face", "voice")
CHANNELS = {"face": 8, "voice": 6}
SHAPES = {m: (c + 1,) for m, c in CHANNELS.items()}
# Latents: shared; private to face and to voice; the product's factor of the face and of the voice.
LATENTS = 5
SEES = {"face": [0, 1, 3], "voice": [0, 2, 4]}
# Spread of the log noise SD between people, and between the steps of a clip.
PERSON_SPREAD, STEP_SPREAD = 0.3, 0.5
NODES = 96  # of the quadrature, on each side of zero


class SynergySim(Benchmark):
    version = "1"
    shapes = SHAPES
    task = Task("classify", out=2, metrics=("accuracy", "macro_f1"))
    folds, seeds, steps, batch = 5, 3, 200, 32
    licence = "Apache-2.0"
    source = "simulated by this file"
    citation = "this benchmark"
    corruptions = ("missing:face", "missing:voice", "noise:face", "noise:voice", "noise:all", "gap:all")
    unit = "person"
    margin = 0.02  # two clips of a hundred; its optimum is known to less
    domain = "affect"
    role = "synthetic"

    def __init__(
        self,
        *,
        redundancy: Annotated[float, Range(0, 1), "weight of what both modalities see"] = 0.2,
        uniqueness: Annotated[float, Range(0, 1), "weight of what one modality alone sees"] = 0.2,
        synergy: Annotated[float, Range(0, 1), "weight of the product of two private latents"] = 0.6,
        noise: Annotated[float, Range(0.1, 8, log=True), "median noise SD; a channel's signal has SD 1"] = 1.0,
        missing: Annotated[float, Range(0, 0.9), "rate of absent modalities, and of lost steps in present ones"] = 0.1,
        people: Annotated[int, Range(10, 400), "people"] = 40,
        clips: Annotated[int, Range(1, 100), "clips a person"] = 20,
        frames: Annotated[int, Range(1, 32), "steps a clip"] = 6,
    ) -> None:
        check_dials(noise, missing, people=people, clips=clips, frames=frames)
        share = shares(redundancy=redundancy, uniqueness=uniqueness, synergy=synergy)
        private = math.sqrt(share["uniqueness"] / len(MODALITIES))
        self.weights = torch.tensor([math.sqrt(share["redundancy"]), private, private, 0, 0], dtype=torch.float64)
        self.gain = math.sqrt(share["synergy"])
        self.noise, self.missing = noise, missing
        self.people, self.clips, self.frames = people, clips, frames
        self.maps = maps("synergy_sim", SEES, CHANNELS, LATENTS)

    def load(self) -> Batch:
        groups = [f"person{p:03d}" for p in range(self.people) for _ in range(self.clips)]
        ids = [f"{group}-{i % self.clips:02d}" for i, group in enumerate(groups)]

        def draws(what: str, names: list[str] = ids) -> Tensor:
            return keyed.sample_keys(names, "synergy_sim", self.version, what)

        latents = keyed.normal(draws("latents"), (LATENTS,)).double()  # (B, 5)
        person = keyed.normal(draws("person", groups), (len(MODALITIES),)).double()
        level = math.log(self.noise) + PERSON_SPREAD * person[:, None]
        level = level + STEP_SPREAD * keyed.normal(draws("level"), (self.frames, len(MODALITIES))).double()
        kept = availability(draws("missing"), self.frames, len(MODALITIES), self.missing)  # (B, T, M)
        streams = {}
        for i, m in enumerate(MODALITIES):
            signal = (latents @ self.maps[m].T)[:, None].expand(-1, self.frames, -1)  # (B, T, channels)
            streams[m] = observe(signal, level[..., i], draws(m), kept[..., i])
        score = latents @ self.weights + self.gain * latents[:, 3] * latents[:, 4]
        y = (score > 0).long()[:, None]
        return Batch(streams, y, torch.ones_like(y, dtype=torch.bool), ids, groups)

    def splits(self, data: Batch, fold: int) -> Splits:
        return group_folds(data.groups, self.folds, fold)

    def posterior(self, streams: Streams, truth: Batch, damage: Damage | None = None) -> Tensor | None:
        """(B,) probability of class 1 given everything that was seen; None as `optimum`.

        Given the data the latents are Gaussian; given one factor of the product as well, so is the score, and its
        sign has a normal probability. That is integrated over the factor by Gauss-Legendre quadrature, cut at zero
        where the integrand may jump.
        """
        seen = readings(streams, truth, damage)
        if seen is None:
            return None
        J = torch.eye(LATENTS, dtype=torch.float64).expand(len(truth), -1, -1)
        h = torch.zeros(len(truth), LATENTS, dtype=torch.float64)
        for m, (x, precision) in seen.items():
            J_m, h_m = information(x, precision, self.maps[m])
            J, h = J + J_m.sum(1), h + h_m.sum(1)
        cov = torch.linalg.inv(J)
        return _probability_positive((cov @ h[..., None])[..., 0], cov, self.weights, self.gain)

    def oracle(self, streams: Streams, truth: Batch, damage: Damage | None = None) -> Tensor | None:
        """(B, 1, 2) log-probabilities of the Bayes classifier, shaped as a fuser's answers; None as `optimum`."""
        positive = self.posterior(streams, truth, damage)
        if positive is None:
            return None
        return torch.stack([1 - positive, positive], -1).clamp(min=1e-300).log()[:, None]

    def optimum(self, streams: Streams, truth: Batch, damage: Damage | None = None) -> Mapping[str, float] | None:
        """The best reachable accuracy on these samples, clean or damaged.

        `accuracy` is what the Bayes classifier scores on these very samples: paired with a model's score, regret =
        accuracy - score, and a model can exceed it by chance only. `accuracy_expected` is the mean of the larger
        posterior probability, the expectation of the same given these inputs.

        Exact for clean data and wherever steps or modalities are hidden at random. For `noise` it is an upper bound:
        the oracle is told the severity and the true noise levels, whose channel is damaged too.

        Args:
            streams: modality -> (B, T, ...) as the model met them.
            truth: the same samples, undamaged, with labels.
            damage: how the streams were damaged.

        Returns:
            None where the damage is neither Gaussian nor missing steps.
        """
        positive = self.posterior(streams, truth, damage)
        if positive is None:
            return None
        right = (positive > 0.5) == (truth.y[:, 0].cpu() == 1)
        expected = torch.maximum(positive, 1 - positive)
        return {"accuracy": float(right.double().mean()), "accuracy_expected": float(expected.mean())}


def _probability_positive(mean: Tensor, cov: Tensor, weights: Tensor, gain: float) -> Tensor:
    """(B,) P(weights . z + gain z_3 z_4 > 0) for Gaussian z with mean (B, 5), cov (B, 5, 5)."""
    a, rest = 3, [0, 1, 2, 4]
    sd = cov[:, a, a].sqrt()
    low, high = mean[:, a] - 8 * sd, mean[:, a] + 8 * sd
    middle = torch.minimum(torch.maximum(torch.zeros_like(low), low), high)
    nodes, heights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(NODES))
    total = torch.zeros_like(low)
    slope = cov[:, rest, a] / cov[:, a, a, None]  # (B, 4)
    inner = cov[:, rest][:, :, rest] - slope[:, :, None] * cov[:, None, a, rest]  # (B, 4, 4)
    for start, end in ((low, middle), (middle, high)):
        half = (end - start)[:, None] / 2
        value = (start + end)[:, None] / 2 + half * nodes  # (B, nodes): z_a
        z = (value - mean[:, a, None]) / sd[:, None]
        density = torch.exp(-(z**2) / 2) / (math.sqrt(2 * math.pi) * sd[:, None])
        others = mean[:, None, rest] + slope[:, None] * (value - mean[:, a, None])[..., None]  # (B, nodes, 4)
        line = weights[rest].expand_as(others).clone()
        line[..., -1] += gain * value
        centre = (line * others).sum(-1) + weights[a] * value
        spread = torch.einsum("bni,bij,bnj->bn", line, inner, line).clamp(min=1e-300).sqrt()
        total = total + (half * heights * density * torch.special.ndtr(centre / spread)).sum(1)
    return total.clamp(0, 1)

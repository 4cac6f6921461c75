"""Simulated affect with a known best score: valence and arousal per frame from face, voice and biosignals.

Smooth Gaussian latents (Matern-3/2) are seen through random linear maps under noise whose level varies over time and
is given as each modality's last channel (log SD). A label is, in shares of its variance that the dials set,

- redundancy: a latent that every modality sees,
- uniqueness: one private latent of each modality,
- synergy: the product of a private latent of the face and one of the voice.

The dials of these shares change the labels only, never the inputs. People differ in how noisy they are. Given the
noise levels and masks the posterior is exact (`_smoother.py`), and so is the best reachable CCC (`optimum`).

What is lost by who does not use all of it is known too (`affect_sim.ceilings.json`, by `bench/ceilings.py`): the best
CCC from one frame, from three frames, without the product of two modalities, and, as a lower bound, of a smoother that
takes one noise level for all. A row below the ceiling of one frame has not even used that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

import torch
from torch import Tensor

from fusionbench.api import Batch, Benchmark, Range, Splits, Streams, Task, UsageError, group_folds, keyed

from ._smoother import (
    Damage,
    availability,
    check_dials,
    concordance,
    information,
    maps,
    matern,
    observe,
    product_moments,
    readings,
    shares,
    simulate,
    smooth,
)

MODALITIES = ("face", "voice", "bio")
CHANNELS = {"face": 11, "voice": 7, "bio": 5}
SHAPES = {m: (c + 1,) for m, c in CHANNELS.items()}
OUTPUTS = 2  # valence, arousal
# Latents: shared (2), then unique (2 a modality), then the factors of the product (2 of the face, 2 of the voice).
LATENTS = 12
SEES = {"face": [0, 1, 2, 3, 8, 9], "voice": [0, 1, 4, 5, 10, 11], "bio": [0, 1, 6, 7]}
# Spread of the log noise SD: between people, and over time within a sequence with its own time scale in frames.
PERSON_SPREAD, TIME_SPREAD, LEVEL_SCALE = 0.3, 0.6, 6.0


class AffectSim(Benchmark):
    version = "1"
    shapes = SHAPES
    task = Task("regress", out=OUTPUTS, metrics=("ccc", "pearson", "mae", "mse"), per_frame=True)
    folds, seeds, steps, batch = 5, 3, 200, 16
    backbones = {m: ("tcn", {"depth": 2}) for m in shapes}  # nine frames, as far as the linear row looks
    licence = "Apache-2.0"
    source = "simulated by this file"
    citation = "this benchmark"
    corruptions = (
        "missing:face",
        "missing:voice",
        "missing:bio",
        "noise:face",
        "noise:voice",
        "noise:bio",
        "noise:all",
        "gap:all",
    )
    unit = "person"
    # An ideal observer reaches some .84: a fortieth of what there is to be had.
    margin = 0.02
    domain = "affect"
    role = "synthetic"  # recipes were chosen on it as well

    def __init__(
        self,
        *,
        redundancy: Annotated[float, Range(0, 1), "weight of what every modality sees"] = 0.5,
        uniqueness: Annotated[float, Range(0, 1), "weight of what one modality alone sees"] = 0.3,
        synergy: Annotated[float, Range(0, 1), "weight of the product of two modalities' private latents"] = 0.2,
        noise: Annotated[float, Range(0.1, 4, log=True), "median noise SD; a channel's signal has SD 1"] = 0.7,
        scale: Annotated[float, Range(2, 16), "time scale of affect, frames"] = 6.0,
        lag: Annotated[int, Range(0, 8), "frames by which bio trails"] = 2,
        missing: Annotated[float, Range(0, 0.9), "rate of absent modalities, and of lost steps in present ones"] = 0.1,
        people: Annotated[int, Range(10, 400), "people"] = 40,
        sequences: Annotated[int, Range(1, 20), "sequences a person"] = 6,
        frames: Annotated[int, Range(8, 64), "longest sequence; the shortest has three quarters"] = 16,
    ) -> None:
        check_dials(noise, missing, people=people, sequences=sequences, frames=frames)
        if lag < 0 or scale <= 0:
            raise UsageError(f"lag is at least 0 and scale above 0, not {lag} and {scale:g}")
        self.share = shares(redundancy=redundancy, uniqueness=uniqueness, synergy=synergy)
        self.noise, self.scale, self.missing = noise, scale, missing
        self.people, self.sequences, self.frames = people, sequences, frames
        self.lags = {"face": 0, "voice": 0, "bio": lag}
        self.maps = maps("affect_sim", SEES, CHANNELS, LATENTS)

    def load(self) -> Batch:
        groups = [f"person{p:03d}" for p in range(self.people) for _ in range(self.sequences)]
        ids = [f"{group}-{i % self.sequences:02d}" for i, group in enumerate(groups)]

        def draws(what: str, names: list[str] = ids) -> Tensor:
            return keyed.sample_keys(names, "affect_sim", self.version, what)

        longest, ahead = self.frames, max(self.lags.values())
        shortest = math.ceil(0.75 * longest)
        length = shortest + (keyed.uniform(draws("length"), (1,)) * (longest - shortest + 1)).long()  # (B, 1)
        real = torch.arange(longest) < length  # (B, T)
        latents = simulate(self.scale, LATENTS, longest + ahead, draws("latents"))  # frame t is state t + ahead
        person = keyed.normal(draws("person", groups), (len(MODALITIES),)).double()
        level = math.log(self.noise) + PERSON_SPREAD * person[:, None]
        level = level + TIME_SPREAD * simulate(LEVEL_SCALE, len(MODALITIES), longest, draws("level"))  # (B, T, M)
        kept = availability(draws("missing"), longest, len(MODALITIES), self.missing) & real[..., None]
        streams = {}
        for i, m in enumerate(MODALITIES):
            start = ahead - self.lags[m]
            signal = latents[:, start : start + longest] @ self.maps[m].T
            streams[m] = observe(signal, level[..., i], draws(m), kept[..., i])
        y = torch.stack([self._label(latents[:, ahead:], d) for d in range(OUTPUTS)], -1)
        return Batch(streams, y.float(), real, ids, groups)

    def splits(self, data: Batch, fold: int) -> Splits:
        return group_folds(data.groups, self.folds, fold)

    def posterior(
        self, streams: Streams, truth: Batch, damage: Damage | None = None
    ) -> tuple[Tensor, Tensor, Tensor] | None:
        """The labels' posterior mean and variance (B, T, 2), and the smoothed latents (B, T, 12); None as `optimum`.

        Exact also with synergy: given the data the latents are jointly Gaussian, so the product's moments are known.
        """
        seen = readings(streams, truth, damage)
        if seen is None:
            return None
        ahead = max(self.lags.values())
        size, longest = truth.y_mask.shape
        J = torch.zeros(size, longest + ahead, LATENTS, LATENTS, dtype=torch.float64)
        h = torch.zeros(size, longest + ahead, LATENTS, dtype=torch.float64)
        for m, (x, precision) in seen.items():
            start = ahead - self.lags[m]  # a modality that trails tells of earlier states
            J_m, h_m = information(x, precision, self.maps[m])
            J[:, start : start + longest] += J_m
            h[:, start : start + longest] += h_m
        mean, cov = smooth(matern(self.scale, LATENTS), J, h)
        mean, cov = mean[:, ahead:], cov[:, ahead:]
        moments = [
            product_moments(mean, cov, self._weights(d), self._pair(d), math.sqrt(self.share["synergy"]))
            for d in range(OUTPUTS)
        ]
        return torch.stack([m for m, _ in moments], -1), torch.stack([v for _, v in moments], -1), mean

    def oracle(self, streams: Streams, truth: Batch, damage: Damage | None = None) -> Tensor | None:
        """(B, T, 2) the answers of the best predictor, shaped as a fuser's; None as `optimum`, which explains them."""
        found = self.posterior(streams, truth, damage)
        return None if found is None else found[0] / self._spread(found[1], truth).clamp(min=1e-6)

    def optimum(self, streams: Streams, truth: Batch, damage: Damage | None = None) -> Mapping[str, float] | None:
        """The best reachable CCC (mean of valence and arousal, frames pooled) on these samples, clean or damaged.

        With m the posterior mean no predictor's CCC exceeds sd(m) / sd(y): cov(f, y) = cov(f, m) <= sd(f) sd(m),
        and 2 sd(f) sd(m) / (sd(f)^2 + sd(y)^2) is largest at sd(f) = sd(y). The oracle predicts m rescaled to the
        label's SD with moments that use no label: sd(y) = 1 by construction, sd(m)^2 = 1 - mean posterior variance
        of the samples given.

        `ccc` is what the oracle scores on these very samples: paired with a model's score, regret = ccc - score, and
        a model can exceed it by chance only. `ccc_expected` is sd(m) / sd(y), the expectation of the same over many
        such samples.

        Exact for clean data and wherever steps or modalities are hidden at random. For `noise` it is an upper bound:
        the oracle is told the severity and the true noise levels, whose channel is damaged too.

        Args:
            streams: modality -> (B, T, ...) as the model met them.
            truth: the same samples, undamaged, with labels.
            damage: how the streams were damaged.

        Returns:
            None where the damage is neither Gaussian nor missing steps.
        """
        found = self.posterior(streams, truth, damage)
        if found is None:
            return None
        mean, variance, _ = found
        real, spread = truth.y_mask.cpu(), self._spread(variance, truth)
        scored = concordance(mean[real] / spread.clamp(min=1e-6), truth.y.cpu().double()[real])
        return {"ccc": float(scored.mean()), "ccc_expected": float(spread.mean())}

    def _spread(self, variance: Tensor, truth: Batch) -> Tensor:
        """(2,) the population's sd(m) under these masks and noise levels, from posterior variances (B, T, 2)."""
        return (1 - variance[truth.y_mask.cpu()].mean(0)).clamp(min=0).sqrt()

    def _weights(self, output: int) -> Tensor:
        """(12,) coefficients of the label's linear part."""
        weights = torch.zeros(LATENTS, dtype=torch.float64)
        weights[output] = math.sqrt(self.share["redundancy"])
        weights[[2 + output, 4 + output, 6 + output]] = math.sqrt(self.share["uniqueness"] / len(MODALITIES))
        return weights

    def _pair(self, output: int) -> tuple[int, int]:
        """The latents whose product is the label's synergy."""
        return 8 + output, 10 + output

    def _label(self, latents: Tensor, output: int) -> Tensor:
        """(B, T) from (B, T, 12); variance 1."""
        i, j = self._pair(output)
        product = math.sqrt(self.share["synergy"]) * latents[..., i] * latents[..., j]
        return latents @ self._weights(output) + product

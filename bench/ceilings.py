"""What `affect_sim` allows to who does not use all of it: ceilings between chance and the optimum.

    python bench/ceilings.py      # to benchmarks/affect_sim.ceilings.json, which `info` and the board show
    python bench/ceilings.py --people 400 --dry

Each is the score of the exact posterior mean given less, rescaled to the labels' SD, as the optimum is. Without the
noise level that would need an integral over all levels: there stands the best smoother that takes one level for all,
so a lower bound of that ceiling.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from fusionbench.api import Batch, Stream
from fusionbench.benchmarks._smoother import concordance
from fusionbench.benchmarks.affect_sim import AffectSim

OUT = Path(__file__).parent.parent / "benchmarks" / "affect_sim.ceilings.json"
LEVELS = tuple(math.log(sd) for sd in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.4))


def scored(answers: Tensor, data: Batch) -> float:
    """The CCC of answers (B, T, 2) brought to SD 1, as labels have by construction; mean of valence and arousal."""
    f, y = answers[data.y_mask], data.y[data.y_mask].double()
    return float(concordance(f / f.std(0), y).mean())


def posterior_mean(bench: AffectSim, data: Batch) -> Tensor:
    found = bench.posterior(dict(data.streams), data)
    assert found is not None
    return found[0]


def window(bench: AffectSim, data: Batch, reach: int) -> Tensor:
    """(B, T, 2) the posterior mean of each frame given that frame and `reach` on each side of it."""
    answers = torch.zeros(*data.y.shape, dtype=torch.float64)
    steps = torch.arange(data.y.shape[1])
    for t in steps.tolist():
        near = (steps - t).abs() <= reach
        few = {m: Stream(s.x, s.mask & near) for m, s in data.streams.items()}
        found = bench.posterior(few, data)
        assert found is not None
        answers[:, t] = found[0][:, t]
    return answers


def levelled(data: Batch, level: float) -> Batch:
    """The data with one noise level written where the true ones stand."""
    streams = {}
    for m, s in data.streams.items():
        x = s.x.clone()
        x[..., -1] = torch.where(s.mask, level, x[..., -1])
        streams[m] = Stream(x, s.mask)
    return replace(data, streams=streams)


def ceilings(people: int = 40) -> dict[str, float]:
    """Name -> CCC on all samples of the default settings."""
    bench = AffectSim(people=people)
    data = bench.load()
    line = AffectSim(people=people, synergy=0.0)  # the same inputs; its label is the linear part of theirs
    blind = max(scored(posterior_mean(bench, levelled(data, level)), data) for level in LEVELS)
    return {
        "one frame": scored(window(bench, data, 0), data),
        "three frames": scored(window(bench, data, 1), data),
        "no product of modalities": scored(posterior_mean(line, data), data),
        "noise level unknown": blind,
        "everything": scored(posterior_mean(bench, data), data),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=40)
    parser.add_argument("--dry", action="store_true", help="print only")
    options = parser.parse_args(arguments)
    found = {name: round(value, 3) for name, value in ceilings(options.people).items()}
    print(json.dumps(found, indent=1))
    if not options.dry:
        OUT.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

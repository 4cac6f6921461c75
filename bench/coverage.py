"""Do sets and intervals hold the truth as often as they say? Simulated people, every set of sensors.

    python bench/coverage.py                        # 10 repetitions of 240 people; writes bench/coverage.md
    python bench/coverage.py --repetitions 2 --people 60 --show

Each repetition draws people to train on and 300 new ones, from one population: three sensors, people who differ in
level, 2 to 8 samples each, labels of three classes or of two values. `fusionbench.fit` trains and calibrates; the new
people are asked about with every set of sensors, and by samples that have lost sensors at random. Coverage is the mean
over new people of the share of their samples whose set (or interval, value by value) holds the truth.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import warnings
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

SENSORS = {"face": 6, "voice": 4, "pulse": 2}
NEW = 300  # people who are asked about
METHODS: dict[str, dict[str, Any]] = {
    "linear": {},
    "concat": {"train": {"steps": 120, "interval": 20, "lr": (3e-3,)}, "fuser": {"width": 64}},
}


def people(number: int, kind: str, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Arrays as `fusionbench.from_arrays` takes them."""
    each = rng.integers(2, 9, number)
    group = np.repeat(np.arange(number), each)
    n = len(group)
    state = rng.standard_normal((n, 2)) + 0.5 * rng.standard_normal((number, 2))[group]
    found: dict[str, np.ndarray] = {"group": group}
    for m, width in SENSORS.items():
        mixing = np.random.default_rng(width).standard_normal((2, width)) / np.sqrt(width)
        own = 0.4 * rng.standard_normal((number, width))[group]
        found[m] = state @ mixing + own + 0.5 * rng.standard_normal((n, width))
    if kind == "classify":
        found["y"] = np.digitize(state[:, 0] + 0.3 * rng.standard_normal(n), [-0.5, 0.5])
    else:
        found["y"] = state + 0.3 * rng.standard_normal((n, 2))
    return found


def covered(predictor: Any, new: dict[str, np.ndarray]) -> tuple[float, float]:
    """Mean over people of the share of samples that are covered; mean size of a set, or width of an interval."""
    asked = {name: value for name, value in new.items() if name not in ("y", "group")}
    found = predictor.answers(asked)
    if found.sets is not None:
        inside, size = found.sets[np.arange(len(new["y"])), 0, new["y"]].astype(float), float(found.sets.sum(-1).mean())
    else:
        low, high = np.moveaxis(found.intervals[:, 0], -1, 0)
        inside, size = ((low <= new["y"]) & (new["y"] <= high)).mean(1), float((high - low).mean())
    shares = np.bincount(new["group"], inside) / np.bincount(new["group"])
    return float(shares.mean()), size


def repetition(kind: str, method: str, number: int, seed: int) -> dict[str, tuple[float, float]]:
    """Sensors that are there -> coverage and size."""
    import fusionbench

    rng = np.random.default_rng([seed, number, len(kind)])
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FUSIONBENCH_HOME"] = folder
        data = fusionbench.from_arrays(people(number, kind, rng), name="simulated")
        predictor = fusionbench.fit(
            method, data, Path(folder) / "model", results=Path(folder) / "results", given=METHODS[method], track=False,
            jobs=1,
        )  # fmt: skip
    new = people(NEW, kind, rng)
    found = {}
    for size in range(1, len(SENSORS) + 1):
        for kept in combinations(SENSORS, size):
            lost = [m for m in SENSORS if m not in kept]
            found["+".join(kept)] = covered(predictor, {n: v for n, v in new.items() if n not in lost})
    mixed = dict(new)
    there = rng.random((len(new["y"]), len(SENSORS))) < 0.6
    there[np.arange(len(there)), rng.integers(0, len(SENSORS), len(there))] = True
    mixed |= {f"{m}_mask": there[:, k] for k, m in enumerate(SENSORS)}
    found["each sample its own"] = covered(predictor, mixed)
    return found


def study(repetitions: int, number: int) -> list[str]:
    """The lines of a Markdown table."""
    lines = [
        "| labels | method | sensors | coverage, % | SD over repetitions | size of a set, or width |",
        "|---|---|---|---|---|---|",
    ]
    for kind in ("classify", "regress"):
        for method in METHODS:
            runs = [repetition(kind, method, number, seed) for seed in range(repetitions)]
            for sensors in runs[0]:
                shares, sizes = np.array([run[sensors] for run in runs]).T
                deviation = f"{100 * shares.std(ddof=1):.1f}" if repetitions > 1 else "-"
                lines.append(
                    f"| {kind} | {method} | {sensors} | {100 * shares.mean():.1f} | {deviation} | {sizes.mean():.2f} |"
                )
                print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--people", type=int, default=240)
    parser.add_argument("--show", action="store_true", help="write nothing")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    lines = study(asked.repetitions, asked.people)
    if asked.show:
        return
    head = [
        "# Coverage of sets and intervals",
        "",
        f"`python bench/coverage.py --repetitions {asked.repetitions} --people {asked.people}`: what is promised is "
        f"90 %, on average over the people that one happens to train on. See the script for what is simulated.",
        "",
    ]
    Path(__file__).with_name("coverage.md").write_text("\n".join([*head, *lines, ""]))


if __name__ == "__main__":
    main()

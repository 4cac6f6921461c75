"""How often does `fusionbench audit` raise an alarm on clean data? `python bench/audit_alarms.py [SETS]`.

Each set is drawn at random: 8 to 30 groups of 8 to 30 samples, two modalities, offsets of people up to three times the
noise, drifts over a recording, labels in random order (2 to 4 classes, or a value) of any strength, sensors that fail
at random. Nothing in them leaks: every alarm is a false one. Prints a line a set with an alarm, then the count by
question.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from fusionbench import audit, custom_data
from fusionbench.audit import samples
from fusionbench.custom_data import sources


def drawn(seed: int) -> dict[str, Any]:
    """One clean set, as arrays of an .npz."""
    rng = np.random.default_rng([seed, 17])
    sizes = rng.integers(8, 31, rng.integers(8, 31)) if rng.random() < 0.5 else np.full(rng.integers(8, 31), 20)
    group = np.repeat(np.arange(len(sizes)), sizes)
    n, steps, classes = len(group), int(rng.choice([1, 4, 12])), int(rng.integers(1, 5))
    y: Any = rng.integers(0, classes, n) if classes > 1 else rng.standard_normal(n)
    signal, people, drift = rng.uniform(0, 1.5), rng.choice([0.0, 0.5, 3.0]), rng.choice([0.0, 0.3])
    found: dict[str, Any] = {"y": y, "group": np.array([f"p{g}" for g in group])}
    found["id"] = np.array([f"p{g}-{i:04d}" for i, g in enumerate(group)])
    for m, width in (("first", 6), ("second", 3)):
        x = rng.standard_normal((n, steps, width)) + signal * np.outer(y, rng.standard_normal(width))[:, None]
        x += people * rng.standard_normal((len(sizes), 1, width))[group]
        walk = np.concatenate([rng.standard_normal((k, 1, width)).cumsum(0) for k in sizes])
        found[m] = x + drift * walk
        if rng.random() < 0.5:
            found[f"{m}_mask"] = (rng.random((n, steps)) > 0.1) & (rng.random((n, 1)) > 0.1)
    return found


def main(sets: int) -> None:
    raised: Counter[str] = Counter()
    for seed in range(sets):
        benchmark = custom_data.build(sources.of_arrays(Path("drawn.npz"), drawn(seed), {}))()
        data = benchmark.load()
        splits = [benchmark.splits(data, fold) for fold in range(benchmark.folds)]
        found = audit.audit_samples("drawn", samples.samples(benchmark, "drawn", data, splits))
        raised.update(f.question for f in found.suspicious)
        for f in found.suspicious:
            print(f"set {seed}: {f.question}: {f.evidence}", flush=True)
    print(f"{sets} clean sets; alarms: {dict(raised) or 'none'}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)

"""Does the score that `fusionbench advise` promises hold on people it has not seen? Simulated populations.

    nice python bench/advise_study.py --sets 20     # goes on where it was interrupted; writes bench/advise_study.md
    python bench/advise_study.py --sets 1 --groups 12 --fusers linear --show

Each set is a population of its own: 24 groups of 12 samples are given to `advise` as an .npz, with nothing else. What
the procedure chooses is then trained on all of them, a model a seed of its schedule, and asked about 200 new groups of
the same population: the truth that its promise is compared with. "Always forest" is trained on the same samples, its
leaf size chosen as in the race. Networks are trained for few steps, and the minutes are of processor time, so that a
busy machine has the same schedule. Sets that are done stand in a .jsonl beside `--out`, with how they were made.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import scipy.stats

from fusionbench import metrics
from fusionbench.advise import Advice, advise
from fusionbench.advise.candidates import Candidate, Entrant, entrants
from fusionbench.advise.ledger import Ledger
from fusionbench.advise.racing import race
from fusionbench.advise.trial import refit
from fusionbench.api import Batch
from fusionbench.custom_data import build, sources
from fusionbench.text import counted

Array = np.ndarray
Arrays = dict[str, Array]
FUSERS = ("linear", "forest", "concat", "late_average")
#: What every network is trained by: short, for there are many sets.
GIVEN = {"train": {"steps": 30, "interval": 30, "lr": "3e-3"}}
SENSORS = {"a": 6, "b": 4}
GROUPS, EACH, NEW = 24, 12, 200
LEVEL = 0.95
KINDS = {
    "linear": "both modalities carry the label, added up",
    "product": "the label is the sign of a product of what the two modalities see",
    "useless": "`a` carries the label, `b` is noise",
    "random": "labels are drawn at random",
    "missing": "as linear; half of the groups lack `b` in every sample, the others in some",
}
READING = """
Ranges and brackets are 95 % intervals: of means by Student's t over populations, of shares by Wilson. The promised
interval is nominally 95 %. The truth has noise of its own, that of 200 groups. An outer fold trains on fewer groups
than the model for use does, which by itself makes a promise too low; the winner's own score on validation would be too
high, and is not what is promised. The promised interval is over groups, given the outer folds' training sets: it does
not know how another sample of groups would have changed the choice. A minute leaves the dearest candidates out, and an
estimator's price is four times that of a quarter of the samples, which is too high for so few: the forests are mostly
left out, so that "at least always forest" compares the race among the others with a forest. The last column counts
advice that says that nothing beats chance.
"""


def population(kind: str, rng: np.random.Generator) -> Callable[[int], Arrays]:
    """A population of groups: what returns so many new groups of it, as arrays of an .npz.

    A group shifts its sensors, and how ready it is to show the label, by offsets that all of its samples share.
    """
    mixing = {m: rng.standard_normal((2, width)) / math.sqrt(width) for m, width in SENSORS.items()}
    strength = rng.uniform(0.8, 1.6)

    def draw(groups: int) -> Arrays:
        group = np.repeat(np.arange(groups), EACH)
        n = len(group)
        latent = rng.standard_normal((n, 2))  # the first is what `a` sees, the second `b`
        scores = {"product": 2 * latent[:, 0] * latent[:, 1], "useless": 1.5 * latent[:, 0], "random": np.zeros(n)}
        score = strength * scores.get(kind, latent.sum(1)) + 0.4 * rng.standard_normal(groups)[group]
        found: Arrays = {"group": group, "y": (score + rng.logistic(size=n) * 0.5 > 0).astype(int)}
        for number, (m, width) in enumerate(SENSORS.items()):
            seen = np.stack([latent[:, number], rng.standard_normal(n)], 1)  # beside something of no interest
            if kind == "useless" and m == "b":
                seen = rng.standard_normal((n, 2))
            offset = 0.5 * rng.standard_normal((groups, width))[group]
            found[m] = seen @ mixing[m] + offset + 0.3 * rng.standard_normal((n, width))
        if kind == "missing":
            rate = np.where(rng.random(groups) < 0.5, 1.0, 0.2)[group]
            found["b_mask"] = rng.random(n) >= rate
        return found

    return draw


def study(number: int, minutes: float, groups: int = GROUPS, fusers: Sequence[str] = FUSERS) -> dict[str, Any]:
    """One population, its advice, and the truth about it."""
    kind = list(KINDS)[number % len(KINDS)]
    rng = np.random.default_rng([2026, number])
    draw = population(kind, rng)
    known, new = draw(groups), draw(NEW)
    spent = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / f"set{number}.npz"
        np.savez(target, **known)
        with mock.patch("time.monotonic", time.process_time), mock.patch("time.perf_counter", time.process_time):
            advice = advise(str(target), minutes=minutes, fusers=fusers, given=GIVEN, results=folder, jobs=1)
        advised = time.process_time() - spent
        field = {entrant.candidate: entrant for entrant in entrants(str(target), fusers, GIVEN)}
        asked: Batch = build(sources.of_arrays(Path("new.npz"), new, {}))().load()
        winner = next(e for e in field.values() if e.name == advice.winner)
        truth = score(advice, winner, advice.option, advice.steps, asked)
        forest = always(advice, field, Ledger(Path(folder) / target.stem / "advice" / "trials"), asked)
    return {
        "set": number, "kind": kind, "metric": advice.metric, "promise": advice.promise.score,
        "low": advice.promise.low, "high": advice.promise.high, "truth": truth, "forest": forest,
        "chance": advice.chance, "above_chance": advice.above_chance.decision, "winner": advice.winner,
        "chosen": dict(advice.chosen), "seeds": advice.schedule.seeds, "outer": advice.schedule.outer,
        "dropped": len(advice.schedule.dropped), "planned": advice.schedule.total, "minutes": minutes,
        "groups": groups, "fusers": list(fusers), "seconds": advised,
    }  # fmt: skip


def score(advice: Advice, entrant: Entrant, option: Mapping[str, Any], steps: int, asked: Batch) -> float:
    """The mean score on the new groups of models trained on everything, one a seed of the schedule."""
    data = entrant.setup.data
    rows = np.flatnonzero(data.y_mask.any(1).numpy())
    y, mask, found = asked.y.numpy(), asked.y_mask.numpy(), []
    for seed in range(advice.schedule.seeds):
        answers = refit(entrant, data, rows, seed, option, steps).answer(entrant.view(asked))
        found.append(metrics.evaluate([advice.metric], answers, y, mask)[advice.metric])
    return float(np.mean(found))


def always(advice: Advice, field: Mapping[Candidate, Entrant], ledger: Ledger, asked: Batch) -> float | None:
    """The same of the forest on all modalities, whatever has won; None where it was not among the fusers."""
    forest = next((entrant for entrant in field.values() if entrant.name == "forest"), None)
    if forest is None:
        return None
    data = forest.setup.data
    alone = replace(advice.schedule, raced=(forest.candidate,), seeds=1)
    standing = race([forest], data, np.flatnonzero(data.y_mask.any(1).numpy()), alone, ledger).winner
    return score(advice, forest, standing.option, standing.steps, asked)


# ---------------------------------------------------------------------------------------------------------- the tables


def mean(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean with its interval by Student's t; the interval is the whole line where there is one value."""
    x = np.asarray(values, dtype=float)
    if len(x) < 2:
        return float(x.mean()), -math.inf, math.inf
    half = scipy.stats.t.ppf((1 + LEVEL) / 2, len(x) - 1) * x.std(ddof=1) / math.sqrt(len(x))
    return float(x.mean()), float(x.mean() - half), float(x.mean() + half)


def share(hits: Sequence[bool]) -> str:
    """`15 of 20 (.53 to .89)`, the interval Wilson's."""
    low, high = scipy.stats.binomtest(sum(hits), len(hits)).proportion_ci(LEVEL, "wilson")
    return f"{sum(hits)} of {len(hits)} ({_short(low)} to {_short(high)})"


def row(name: str, found: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line of the table: these sets together."""
    error, low, high = mean([one["truth"] - one["promise"] for one in found])
    bounds = f"{100 * low:+.1f} to {100 * high:+.1f}" if math.isfinite(low) else "-"
    inside = [one["low"] <= one["truth"] <= one["high"] for one in found if one["low"] is not None]
    forest = [one for one in found if one["forest"] is not None]
    ahead = mean([one["truth"] - one["forest"] for one in forest])[0] if forest else math.nan
    return [
        name, str(len(found)), f"{100 * mean([one['promise'] for one in found])[0]:.1f}",
        f"{100 * mean([one['truth'] for one in found])[0]:.1f}", f"{100 * error:+.1f}", bounds,
        share(inside) if inside else "-",
        share([one["truth"] >= one["forest"] for one in forest]) if forest else "-",
        f"{100 * ahead:+.1f}" if forest else "-",
        str(sum(one["above_chance"] != "better" for one in found)),
    ]  # fmt: skip


def verdict(found: Sequence[Mapping[str, Any]]) -> str:
    """In a sentence: is the promise too high, too low, or neither as far as these sets can tell?"""
    error, low, high = mean([one["truth"] - one["promise"] for one in found])
    word = "too low" if low > 0 else "too high" if high < 0 else "neither too high nor too low"
    spread = float(np.std([one["truth"] - one["promise"] for one in found], ddof=1)) if len(found) > 1 else math.nan
    inside = [one["low"] <= one["truth"] <= one["high"] for one in found if one["low"] is not None]
    return (
        f"Over {len(found)} populations the truth is {100 * error:+.1f} points from the promise on the mean, interval "
        f"{100 * low:+.1f} to {100 * high:+.1f}; the standard deviation over populations is {100 * spread:.1f} points. "
        f"As far as these sets can tell, the promise is {word}. The promised interval, nominally of 95 %, holds the "
        f"truth in {share(inside)}."
    )


def table(found: Sequence[Mapping[str, Any]]) -> str:
    heads = [
        "population", "sets", "promise", "truth", "truth - promise", "its 95 % interval",
        "truth in the promised interval", "at least always forest", "truth - forest", "nothing beats chance",
    ]  # fmt: skip
    kinds = [kind for kind in KINDS if any(one["kind"] == kind for one in found)]
    rows = [heads, ["---"] * len(heads), *(row(k, [o for o in found if o["kind"] == k]) for k in kinds)]
    signal = [one for one in found if one["kind"] != "random"]
    if signal and len(signal) < len(found):
        rows.append(row("all with a pattern", signal))
    rows.append(row("all", found))
    return "\n".join(f"| {' | '.join(line)} |" for line in rows) + "\n"


def page(found: Sequence[Mapping[str, Any]]) -> str:
    first = found[0]
    schedules = sorted({(one["seeds"], one["outer"], one["dropped"]) for one in found})
    counts = {s: sum((one["seeds"], one["outer"], one["dropped"]) == s for one in found) for s in schedules}
    picks = Counter[str]()
    for one in found:
        picks.update(one["chosen"])
    chosen = ", ".join(f"{name} {number}" for name, number in picks.most_common())
    said = "; ".join(
        f"{counted(number, 'set')} with {seeds} seeds, {outer} outer folds, {dropped} candidates left out"
        for (seeds, outer, dropped), number in counts.items()
    )
    kinds = "\n".join(f"- *{kind}*: {text}" for kind, text in KINDS.items())
    return "\n".join([
        f"# Does the promise of `advise` hold?\n\n{verdict(found)}\n",
        f"`python bench/advise_study.py --sets {len(found)} --minutes {first['minutes']:g}`: macro-F1 in points, "
        f"{first['groups']} groups of {EACH} samples to learn from, {NEW} new groups for the truth, "
        f"`fusers={tuple(first['fusers'])}`, one process.\n",
        table(found),
        f"{kinds}\n",
        READING,
        f"Chosen in the outer folds of all sets: {chosen}.\n",
        f"The schedule, by the minutes and by what a training was measured to cost: {said}. Networks had "
        f"{GIVEN['train']['steps']} steps at one learning rate. Advice took "
        f"{np.median([one['seconds'] for one in found]):.0f} s of processor time a set (median).\n",
    ])  # fmt: skip


def done(path: Path, how: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """Number -> the set of that number that was made in this way."""
    found = {}
    for line in path.read_text().splitlines() if path.is_file() else ():
        with contextlib.suppress(ValueError):  # a line that was cut off
            one = json.loads(line)
            found |= {one["set"]: one} if all(one[name] == value for name, value in how.items()) else {}
    return found


def _short(value: float) -> str:
    return f"{value:.2f}".removeprefix("0")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=1.0, help="of processor time, for each set's race")
    parser.add_argument("--groups", type=int, default=GROUPS, help="to learn from")
    parser.add_argument("--fusers", default=",".join(FUSERS))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    parser.add_argument("--show", action="store_true", help="write nothing")
    asked = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    fusers = tuple(asked.fusers.split(","))
    kept = asked.out.with_suffix(".jsonl")
    how = {"minutes": asked.minutes, "groups": asked.groups, "fusers": list(fusers)}
    known = {} if asked.show else done(kept, how)
    broken = kept.is_file() and not kept.read_text().endswith("\n")
    for number in range(asked.sets):
        if number in known:
            continue
        known[number] = study(number, asked.minutes, asked.groups, fusers)
        print(json.dumps(known[number]), flush=True)
        if not asked.show:
            with kept.open("a") as file:
                file.write("\n" * broken + json.dumps(known[number]) + "\n")
                broken = False
    text = page([known[number] for number in range(asked.sets)])
    print(text)
    if not asked.show:
        asked.out.write_text(text)


if __name__ == "__main__":
    main()

"""The advice in half a screen."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from fusionbench import stats, text
from fusionbench.advise import fitting
from fusionbench.advise.outcome import Advice, Rival, Sensor


def tell(advice: Advice, width: int | None = 80, out: Path | None = None) -> str:
    """The answer in lines of at most this width; `out` is where its model for use is, if it has been trained."""
    title = (
        f"{advice.benchmark}: {text.counted(advice.samples, 'sample')} of "
        f"{text.counted(advice.groups, advice.unit)}, {text.listed(advice.modalities)}; "
        f"{advice.metric.replace('_', ' ')}{' in %' if advice.is_percent else ''}"
    )
    lines = [*use(advice), *doubt(advice), *fusion(advice), *sensors(advice), *more(advice), *after(advice, out)]
    return "\n".join([text.wrap(title, width), "", *(text.wrap(line, width, "  ") for line in lines)]) + "\n"


def use(advice: Advice) -> Iterator[str]:
    """What to use, what to expect of it, and what is as good."""
    value, low, high = advice.promise.score, advice.promise.low, advice.promise.high
    if advice.above_chance.decision != "better":
        yield (
            f"Nothing beats chance here: {stats.describe(advice.above_chance, advice.scale)}. "
            f"The race would choose {advice.winner}; do not rely on it."
        )
        return
    assert value is not None
    bounds = "" if low is None or high is None else f" [{_score(advice, low)}, {_score(advice, high)}]"
    chosen = text.listed(f"{name} in {number}" for name, number in advice.chosen.items())
    folds = sum(advice.chosen.values())
    people = text.plural(advice.unit)
    yield (
        f"Use {advice.winner}. Expect {_score(advice, value)}{bounds} on {people} that it has not met (chance "
        f"{_score(advice, advice.chance or 0.0)}): so the same race scored when it was evaluated on "
        f"{text.counted(folds, 'fold')} of {people} left out, choosing {chosen}."
    )
    equal = [rival for rival in advice.rivals if rival.verdict.decision != "worse" and not _is_single(advice, rival)]
    if equal:
        names = text.listed(rival.name for rival in equal)
        cheapest = min([(advice.train_seconds, advice.winner), *((r.seconds, r.name) for r in equal)])
        word = "equivalent to" if all(r.verdict.decision == "equivalent" for r in equal) else "not significantly below"
        yield f"{names}: {word} it on validation. The cheapest to train is {cheapest[1]}."


def doubt(advice: Advice) -> Iterator[str]:
    """What the audit suspects: a leak makes every score too high, this promise as well."""
    if advice.suspicions:
        yield (
            f"Careful: the audit suspects {text.listed(advice.suspicions)}; a leak makes this promise too high: "
            f"fusionbench audit {advice.target}"
        )


def fusion(advice: Advice) -> Iterator[str]:
    """Does fusion beat the best single modality here?"""
    if advice.fusion is not None:
        word = {"better": "Fusion helps", "worse": "Fusion hurts", "equivalent": "Fusion makes no difference"}
        start = word.get(advice.fusion.decision, "Whether fusion helps is undecided")
        yield f"{start}: {stats.describe(advice.fusion, advice.scale)}."


def sensors(advice: Advice) -> Iterator[str]:
    """What each modality is worth, and what happens when it fails or gets noisy."""
    for sensor in advice.sensors:
        if not sensor.verdict.difference and set(sensor.noise) == {sensor.without}:
            yield f"{sensor.modality} is never looked at by what was chosen: it can go."
            continue
        change = text.gap(sensor.verdict.difference or 0.0, advice.is_percent, signed=True)
        worth = {"worse": "keep it", "better": "better without it", "equivalent": "it can go"}
        said = worth.get(sensor.verdict.decision, "undecided whether it is needed")
        start = f"Without {sensor.modality}: {_score(advice, sensor.without)} ({change}, {said})."
        yield f"{start} {_noise(advice, sensor)}"


def more(advice: Advice) -> Iterator[str]:
    """Would more people, seeds or minutes change the answer?"""
    undecided = [r for r in advice.rivals if r.verdict.decision == "undecided" and not _is_single(advice, r)]
    half = None
    if advice.promise.low is not None and advice.promise.high is not None:
        half = (advice.promise.high - advice.promise.low) / 2
    parts = []
    if half:
        four = text.gap(half / 2, advice.is_percent)
        parts.append(f"four times as many {text.plural(advice.unit)} would halve the interval to about +- {four}")
    if undecided:
        parts.append(f"against {undecided[0].name}, {stats.settles(undecided[0].verdict, advice.scale)}")
    if advice.schedule.dropped:
        names = text.listed(c.name for c in advice.schedule.dropped)
        parts.append(f"more minutes would let {names} race too")
    elif advice.is_cut or advice.schedule.seeds < 3:
        parts.append("more minutes would train the finalists with more seeds")
    else:
        parts.append("more minutes would change nothing: everything was raced")
    yield f"To know more: {'; '.join(parts)}."


def after(advice: Advice, out: Path | None = None) -> Iterator[str]:
    """Where the model for use is, or how to get one, or why there is none."""
    reason = fitting.refusal(advice)
    if out is not None:
        yield f"{out} is {advice.winner}, trained on everything. Use it: {fitting.use(advice, str(out))}"
    elif advice.command is not None and reason is None:
        yield f"A model for use: {advice.command.spelled()}"
    elif advice.above_chance.decision == "better":
        yield f"A model for use: {reason}."


def _noise(advice: Advice, sensor: Sensor) -> str:
    if sensor.break_even is not None:
        return f"With noise on it, from severity {sensor.break_even} on it is better left out."
    return f"With the strongest noise on it {_score(advice, sensor.noise[-1])}: keep it all the same."


def _is_single(advice: Advice, rival: Rival) -> bool:
    return rival.name.endswith(" alone") and len(advice.modalities) > 1


def _score(advice: Advice, value: float) -> str:
    return text.score(value, advice.is_percent) if math.isfinite(value) else "undefined"

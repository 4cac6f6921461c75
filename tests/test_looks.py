"""`compare --resolve`: seeds are trained until a difference is settled, or cannot be."""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from pathlib import Path

import pytest

import fusionbench
from fusionbench import cli, stats
from fusionbench.api import UsageError
from fusionbench.looks import LOOKS, Resolved
from fusionbench.records import store
from fusionbench.stats import Difference, Resolution, Sources, at_look, describe

#: Twelve people; one modality says the label, the other who it is.
TOLD = '''
"""The label stands in the input."""

import numpy as np
import torch

from fusionbench.api import Batch, Benchmark, Splits, Stream, Task, group_folds


class Told(Benchmark):
    shapes = {"label": (1,), "person": (1,)}
    task = Task("classify", 2, ("accuracy",))
    folds, seeds, unit = 2, 3, "person"

    def load(self) -> Batch:
        y = torch.from_numpy(np.random.default_rng(0).integers(0, 2, (240, 1)))
        person = torch.arange(240)[:, None] // 20
        mask = torch.ones(240, 1, dtype=torch.bool)
        streams = {m: Stream(x[:, :, None].float(), mask) for m, x in (("label", y), ("person", person))}
        return Batch(streams, y, mask, [f"{i}" for i in range(240)], [f"p{int(p):02d}" for p in person])

    def splits(self, data: Batch, fold: int) -> Splits:
        return group_folds(data.groups, self.folds, fold)
'''
#: A method that reads the label and errs at a rate, each seed elsewhere, and on every other person more.
KNOWING = '''
"""It knows the answer and errs at a rate."""

from typing import Annotated

import numpy as np

from fusionbench.api import Estimator, Range, Spec


class {name}(Estimator):
    grid = {{}}

    def __init__(self, spec: Spec, *, rate: Annotated[float, Range(0.0, 1.0), "errors"] = {rate}) -> None:
        super().__init__(spec)
        self.rate = rate
        self.moods = {moods}

    def fit(self, train, val, seed):
        self.rng = np.random.default_rng([seed, {number}])

    def predict(self, streams):
        label, person = (np.asarray(streams[m].x)[:, 0, 0] for m in ("label", "person"))  # normalised
        truth = (label > 0).astype(int)
        wrong = self.rng.random(len(truth)) < self.rate + self.moods * np.sign(person)
        return np.log(np.eye(2)[np.where(wrong, 1 - truth, truth)] * 0.8 + 0.1)[:, None]
'''
#: Method -> its rate of errors, and how much this varies over people.
ROWS = {"plain": (0.1, 0.0), "awful": (0.9, 0.0), "alike": (0.1, 0.0), "moody": (0.3, 0.25)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of methods whose true accuracies are known, and the results of one question about them."""
    folder = tmp_path_factory.mktemp("looks")
    (folder / "told.py").write_text(TOLD)
    for number, (name, (rate, moods)) in enumerate(ROWS.items()):
        words = {"name": name.capitalize(), "rate": rate, "moods": moods, "number": number}
        (folder / f"{name}.py").write_text(KNOWING.format(**words))
    return folder


def compare(folder: Path, capsys: pytest.CaptureFixture[str], *words: str, results: str = "r") -> tuple[int, str, str]:
    names = [str(folder / f"{word}.py") if word in ROWS else word for word in words]
    sys.argv = ["fusionbench", "compare", "-b", str(folder / "told.py"), "--no-references", "--no-track", *names]
    sys.argv += ["--reference", "plain", "--results", str(folder / results)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "80")
        with pytest.raises(SystemExit) as end:
            cli.main()
    said = capsys.readouterr()
    return int(end.value.code or 0), said.out, said.err


def trained(results: Path) -> dict[str, set[int]]:
    seeds = defaultdict(set)
    for r in store.load(results):
        seeds[r.run.fuser].add(r.run.seed)
    return dict(seeds)


def test_a_large_difference_stops_at_the_first_look_and_equality_goes_to_the_last(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, shown, said = compare(folder, capsys, "plain", "awful", "alike", "--resolve", "0.1")
    assert status == 0, said
    assert max(map(len, shown.splitlines())) <= 80
    lines = " ".join(shown.split())
    first, second, third = stats.spending(0.05 / 2)
    assert lines.startswith("told: is there a difference of 10 points to plain in clean accuracy?")
    assert "infinitely many could settle" in lines
    assert lines.index("infinitely many could settle") < lines.index("open after look 1 of 3")
    assert f"tested at {first:.2g} within 2 default rows, look 1 of 3 (3 seeds)" in lines
    assert "awful is worse than plain by" in lines
    assert f"tested at {second:.2g}" in lines
    assert (
        "alike and plain are equivalent within 10: " in lines
        or f"tested at {third:.2g} within 2 default rows, look 3" in lines
    )
    assert "given these training sets" in lines
    assert trained(folder / "r") == {"awful": set(range(3)), "alike": set(range(10)), "plain": set(range(10))}

    status, again, said = compare(folder, capsys, "plain", "awful", "alike", "--resolve", "0.1")
    assert (status, again) == (0, shown)
    assert "to train" not in said
    assert said.count("runs are on disk") == 3


def test_what_is_hopeless_trains_the_pilot_and_no_more(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, shown, _ = compare(folder, capsys, "plain", "moody", "--resolve", "1%", results="vain")
    assert status == 0
    lines = " ".join(shown.split())
    assert "moody against plain is hopeless: whatever the seeds, these 12 people find a difference of" in lines
    assert "not 1 points" in lines
    assert "look 2" not in lines
    assert trained(folder / "vain") == {"moody": {0, 1, 2}, "plain": {0, 1, 2}}


def test_where_a_pilot_is_there_what_is_hopeless_trains_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(folder, capsys, "plain", "moody", "--seeds", "2", results="pilot")[0] == 0
    status, shown, said = compare(folder, capsys, "plain", "moody", "--resolve", "1%", results="pilot")
    assert status == 0
    assert "Default rows, by the first 2 seeds: infinitely many could settle" in " ".join(shown.split())
    assert "is hopeless" in shown
    assert "to train" not in said
    assert trained(folder / "pilot") == {"moody": {0, 1}, "plain": {0, 1}}


def test_from_python_with_looks_of_ones_own_and_a_partition_for_each_seed(folder: Path) -> None:
    study = fusionbench.Study(
        [str(folder / "plain.py"), str(folder / "awful.py")],
        [str(folder / "told.py")],
        references=False,
        partition="per-seed",
    )
    told: list[str] = []
    (found,) = fusionbench.resolve(
        study,
        0.1,
        reference="plain",
        results=folder / "python",
        looks=(4, 6),
        track=False,
        tell=told.append,
        say=told.append,
    )
    assert isinstance(found, Resolved)
    assert found.outcome == "settled"
    assert found.verdict is not None
    assert found.verdict.decision == "worse"
    assert found.sentence.endswith("; over re-dealt training sets of these 12 people.")
    assert "look 1 of 2 (4 seeds)" in found.sentence
    assert found.plan is not None
    assert found.verdict.level == found.plan.looks[4] == stats.spending(0.05, (4, 6))[0]
    assert trained(folder / "python") == {"awful": {0, 1, 2, 3}, "plain": {0, 1, 2, 3}}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["plain", "awful", "--resolve", "much"], "--resolve takes a difference in the metric's units, as 0.03 or 3%"),
        (["plain", "awful", "--resolve", "5"], "a difference of 5 in accuracy, which ends at 1: say 0.05, or 5%"),
        (["plain", "awful", "--resolve", "-0.1"], "a difference to resolve is a number above 0, not -0.1"),
        (["plain", "awful", "--resolve", "0.1", "--seeds", "4"], "leave seeds, folds and quick out"),
        (["plain", "awful", "--resolve", "0.1", "--folds", "1"], "leave seeds, folds and quick out"),
        (["plain", "awful", "--resolve", "0.1", "--quick"], "leave seeds, folds and quick out"),
        (["awful", "alike", "--resolve", "0.1"], "rows are compared with plain, which this study lacks: name it"),
        (["plain", "--resolve", "0.1"], "plain alone is compared with nothing: name another fuser"),
    ],
)
def test_what_cannot_be_asked_is_one_line(
    words: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, shown, said = compare(folder, capsys, *words, results="none")
    assert (status, shown) == (2, "")
    assert said.count("\n") == 1
    assert message in said
    assert not trained(folder / "none")


def test_looks_rise(folder: Path) -> None:
    study = fusionbench.Study(["concat", "gated"], ["toy_xor"])
    for looks in ((5, 3), (1, 3), (), (3, 3)):
        with pytest.raises(UsageError, match="looks are rising numbers of seeds from 2 on"):
            fusionbench.resolve(study, 0.1, results=folder / "none", looks=looks)


def test_a_run_that_fails_is_no_verdict(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = (folder / "alike.py").read_text().replace("def fit(self, train, val, seed):", _FAILS)
    (folder / "broken.py").write_text(broken.replace("class Alike", "class Broken"))
    status, shown, _ = compare(folder, capsys, "plain", str(folder / "broken.py"), "--resolve", "0.1", results="r")
    assert status == 1
    assert "broken and plain are not tested: runs of broken failed." in shown


_FAILS = """def fit(self, train, val, seed):
        if seed == 2:
            raise ValueError("no")"""


# ---------------------------------------------------------------------------------------------------------- statistics


def seen(value: float, spread: float = 0.01, seeds: int = 3) -> Difference:
    return Difference(value, 12, (seeds, seeds), spread**2, 11.0, Sources(1e-3, (1e-4,) * 2, (1e-3,) * 2))


PLAN = Resolution(0.02, 0.01, False, 5, dict(zip(LOOKS, stats.spending(0.05 / 4), strict=True)), {})


@pytest.mark.parametrize("seeds", LOOKS)
@pytest.mark.parametrize("value", [-0.2, -0.05, -0.02, 0.0, 0.005, 0.03, 0.04, 0.05, 0.2])
def test_a_verdict_says_the_level_that_is_really_tested(seeds: int, value: float) -> None:
    found = seen(value, seeds=seeds)
    v = at_look("a", "b", found, PLAN, seeds, family="default rows", size=4)
    assert v.level == PLAN.looks[seeds]
    p = stats.t_test(found)
    assert p is not None
    assert v.adjusted is not None
    assert v.adjusted_low is not None
    assert v.adjusted_high is not None
    assert (v.decision in ("better", "worse")) == (p < v.level) == (v.adjusted < 0.05)
    assert (v.decision in ("better", "worse")) == (not v.adjusted_low <= 0 <= v.adjusted_high)
    assert (
        f"tested at {v.level:.2g} within 4 default rows, look {LOOKS.index(seeds) + 1} of 3 ({seeds} seeds)"
        in describe(v)
    )


def test_equality_is_found_at_the_last_look_only() -> None:
    for seeds in LOOKS:
        v = at_look("a", "b", seen(0.0, 0.002, seeds), PLAN, seeds, size=4)
        assert v.decision == ("equivalent" if seeds == 10 else "undecided")
    assert "look 3 of 3 (10 seeds)" in describe(v)
    nothing = Difference(0.1, 12, (3, 3), reason="there is one group")
    assert at_look("a", "b", nothing, PLAN, 3).decision == "untested"


def test_without_any_spread_everything_is_found() -> None:
    nothing = Sources(0.0, (0.0, 0.0), (0.0, 0.0))
    assert stats.detectable(nothing, 12, 3) == 0.0
    assert not stats.resolve(nothing, 0.01, 12).hopeless
    assert not math.isnan(stats.power_of(nothing, 0.1, 12, 3))

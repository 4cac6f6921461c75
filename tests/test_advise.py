"""`fusionbench advise`: the schedule keeps to its time, the race reads validation only, the promise is honest."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionbench import advise
from fusionbench.advise import evaluation, racing, schedule, trial
from fusionbench.advise.candidates import Candidate, entrants
from fusionbench.advise.ledger import Ledger
from fusionbench.advise.schedule import Price, plan
from fusionbench.api import Stream
from fusionbench.errors import UsageError

SHORT = {"train": {"steps": "60", "interval": "20"}}


def own(folder: Path, *, signal: float, people: int = 15) -> str:
    """Two classes, two modalities: `a` carries the label, `b` nothing; 8 samples a person."""
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 8 * people)
    a = signal * (2.0 * y - 1)[:, None] + rng.standard_normal((len(y), 3))
    np.savez(folder / "own.npz", a=a, b=rng.standard_normal((len(y), 2)), y=y, group=np.repeat(np.arange(people), 8))
    return str(folder / "own.npz")


# The schedule


def candidates(number: int) -> list[Candidate]:
    fused = [Candidate(f"f{i}", ("a", "b"), is_network=i % 2 == 0) for i in range(number)]
    return [*fused, *(Candidate(f"f{i}", (m,), is_network=i % 2 == 0, is_single=True) for i in (0, 1) for m in "ab")]


@given(
    costs=st.lists(st.floats(0.01, 30), min_size=8, max_size=8),
    minutes=st.floats(0.1, 60),
    folds=st.integers(1, 5),
    jobs=st.integers(1, 4),
)
@settings(max_examples=60, deadline=None)
def test_a_schedule_never_costs_more_than_its_time(costs: list[float], minutes: float, folds: int, jobs: int) -> None:
    prices = {c: Price(seconds, 3 if c.is_network else 2) for c, seconds in zip(candidates(4), costs, strict=True)}
    try:
        found = plan(prices, 60 * minutes, folds, jobs)
    except UsageError as error:
        needed = float(str(error).split("--minutes ")[1].split(" ")[0])
        assert needed > minutes
        plan(prices, 60 * needed, folds, jobs)  # what it says is enough
        return
    raced = {c: prices[c] for c in found.raced}
    assert found.total <= schedule.PLANNED * 60 * minutes
    assert found.total == pytest.approx(-(-(found.outer + 1) // jobs) * schedule.race_seconds(raced, found.seeds))
    assert {*found.raced, *found.dropped} == {*prices}
    assert sum(not c.is_single for c in found.raced) >= 2
    assert any(c.is_single for c in found.raced)


def test_the_dearest_goes_first() -> None:
    prices = {c: Price(1.0, 1) for c in candidates(4)}
    dear = next(iter(prices))
    prices[dear] = Price(100.0, 1)
    generous = plan(prices, 1e6, 5, 1)
    assert (generous.seeds, generous.outer, generous.dropped) == (3, 5, ())
    assert plan(prices, schedule.race_seconds(prices, 2) * 3, 5, 1).dropped == (dear,)


# The race


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> list:
    return entrants(own(tmp_path_factory.mktemp("data"), signal=1.0), ("linear", "concat"), SHORT)


def small(field: list) -> schedule.Schedule:
    return plan({e.candidate: Price(0.1, len(e.options)) for e in field}, 1e6, 3, 1)


def test_candidates_are_every_recipe_and_each_modality_alone(field: list) -> None:
    assert [entrant.name for entrant in field] == [
        "linear",
        "linear on a alone",
        "linear on b alone",
        "concat",
        "concat with modality dropout",
        "concat on a alone",
        "concat on b alone",
    ]


def test_a_race_reads_no_other_rows(field: list, tmp_path: Path) -> None:
    """NaN in every input and label of the others leaves all scores as they are."""
    data = field[0].setup.data
    rows, test = evaluation.outer_splits(field[0].setup.benchmark, "own", data, 3)[0]
    streams = {}
    for m, stream in data.streams.items():
        x = stream.x.clone()
        x[torch.from_numpy(test)] = float("nan")
        streams[m] = Stream(x, stream.mask)
    y = data.y.clone()
    y[torch.from_numpy(test)] = 1 - y[torch.from_numpy(test)]
    spoiled = replace(data, streams=streams, y=y)
    scores = [
        {s.candidate.name: s.score for s in racing.race(field, d, rows, small(field), Ledger(tmp_path / n)).standings}
        for d, n in ((data, "a"), (spoiled, "b"))
    ]
    assert scores[0] == scores[1]
    assert scores[0]["linear on b alone"] < 0.65 < scores[0]["linear"]


def test_what_is_on_disk_is_not_trained_again(field: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, ledger = field[0].setup.data, Ledger(tmp_path)
    rows = np.arange(len(data))
    first = racing.race(field, data, rows, small(field), ledger)
    real = trial.train
    monkeypatch.setattr(racing, "train", lambda *a: pytest.fail("it was on disk"))
    second = racing.race(field, data, rows, small(field), ledger)
    assert [(s.candidate, s.rung, s.score, s.steps) for s in first.standings] == [
        (s.candidate, s.rung, s.score, s.steps) for s in second.standings
    ]
    broken = sorted(tmp_path.glob("*.npz"))[0]
    broken.write_bytes(broken.read_bytes()[:40])
    monkeypatch.setattr(racing, "train", real)
    third = racing.race(field, data, rows, small(field), ledger)
    assert [s.score for s in third.standings] == [s.score for s in first.standings]
    assert list(tmp_path.glob("*.quarantined"))


def test_a_method_that_breaks_leaves_with_its_reason(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text(
        "from torch import nn\nfrom fusionbench.api import Fuser\nclass Bad(Fuser):\n"
        "    def __init__(self, spec):\n        super().__init__(spec)\n        self.w = nn.Linear(1, 1)\n"
        "    def forward(self, streams):\n        raise SystemExit(0)\n"
    )
    field = entrants(own(tmp_path, signal=1.0), ("linear", str(bad)), SHORT)
    data = field[0].setup.data
    found = racing.race(field, data, np.arange(len(data)), small(field), Ledger(tmp_path / "ledger"))
    assert found.winner.candidate.fuser == "linear"
    assert all(s.error for s in found.standings if s.candidate.fuser == str(bad))


# As a user types it


def command(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fusionbench", *words],
        capture_output=True, text=True, check=False, cwd=cwd, env={**__import__("os").environ, "COLUMNS": "80"},
    )  # fmt: skip


PRODUCTS = """
import numpy as np
from sklearn.linear_model import LogisticRegression
from fusionbench.api import Estimator
from fusionbench.api.estimator import log_probabilities
class Products(Estimator):
    def features(self, streams):
        first, *others = [s.x.mean(1).numpy() for s in streams.values()]
        return np.concatenate([first * other for other in others] or [first], 1)
    def fit(self, train, val, seed):
        self.model = LogisticRegression().fit(self.features(train.streams), train.y[:, 0].numpy())
    def predict(self, streams):
        shares = self.model.predict_proba(self.features(streams))
        return log_probabilities(shares, self.model.classes_, self.spec.out)[:, None]
"""


def test_a_planted_best_method_is_found_and_told_in_half_a_screen(tmp_path: Path) -> None:
    """Exclusive-or of two signs: neither modality says anything alone, nor their sum, their product does."""
    rng = np.random.default_rng(0)
    a, b = rng.choice([-1.0, 1.0], (2, 160))
    y = (a * b > 0).astype(int)
    noisy = {m: x[:, None] + 0.3 * rng.standard_normal((160, 1)) for m, x in (("a", a), ("b", b))}
    np.savez(tmp_path / "own.npz", **noisy, y=y, group=np.repeat(np.arange(20), 8))
    (tmp_path / "products.py").write_text(PRODUCTS)
    began = time.monotonic()
    words = ["advise", "own.npz", "--fusers", "linear,./products.py", "--minutes", "60", "--jobs", "2"]
    done = command(*words, "--report", "page.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Use products" in done.stdout
    assert "Fusion helps" in done.stdout
    assert "keep it" in done.stdout
    lines = done.stdout.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    page = (tmp_path / "page.html").read_text()
    assert "Use products" in page
    assert "http" not in page.replace("http-equiv", "")
    kept = json.loads((tmp_path / "results" / "own" / "advice" / "advice.json").read_text())
    assert kept["fuser"] == "./products.py"
    assert kept["seconds"] <= time.monotonic() - began


def test_labels_without_a_pattern_promise_nothing(tmp_path: Path) -> None:
    target = own(tmp_path, signal=0.0)
    found = advise.advise(target, minutes=60, fusers=("linear",), results=tmp_path / "r", jobs=1)
    assert found.above_chance.decision != "better"
    assert found.promise.low is not None
    assert found.promise.high is not None
    assert found.promise.low < 0.55
    assert "Nothing beats chance here" in advise.tell(found)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--minutes", "0.0001"], "too short for one round of the cheapest candidates: --minutes "),
        (["--minutes", "0"], "a race takes more than 0 minutes: --minutes 30"),
        (["--fusers", "conact"], "no fuser is called 'conact'; did you mean concat?"),
        (["--fuser.width", "64"], "--fuser. is of one method; a race takes --train. and --benchmark."),
    ],
)
def test_what_cannot_be_raced_is_one_line(tmp_path: Path, words: list[str], said: str) -> None:
    from click.testing import CliRunner

    from fusionbench.cli import cli

    result = CliRunner().invoke(
        cli, ["advise", own(tmp_path, signal=1.0), "--fusers", "linear", "--results", str(tmp_path / "r"), *words],
        standalone_mode=False,
    )  # fmt: skip
    assert isinstance(result.exception, UsageError)
    assert said in str(result.exception)


def test_what_the_audit_suspects_stands_beside_the_promise(tmp_path: Path) -> None:
    """Which samples lack `b` tells the label: every score is too high, and the advice says so."""
    rng = np.random.default_rng(0)
    y = np.tile([0, 1], 64)
    b = rng.standard_normal((128, 2))
    b[(y == 1) & (rng.random(128) < 0.9)] = np.nan
    np.savez(tmp_path / "own.npz", a=rng.standard_normal((128, 2)), b=b, y=y, group=np.repeat(np.arange(16), 8))
    found = advise.advise(str(tmp_path / "own.npz"), minutes=60, fusers=("linear",), results=tmp_path / "r", jobs=1)
    assert "missing" in found.suspicions
    assert "Careful: the audit suspects" in advise.tell(found)


def test_too_few_groups_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="group"):
        advise.advise(own(tmp_path, signal=1.0, people=2), fusers=("linear",), results=tmp_path / "r", jobs=1)

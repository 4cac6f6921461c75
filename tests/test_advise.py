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

import fusionbench
from fusionbench import advise
from fusionbench.advise import evaluation, fitting, racing, schedule, trial
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


def test_a_learning_rate_that_diverges_loses_and_the_race_goes_on(tmp_path: Path) -> None:
    """With a rate that ends in NaN the advice is what it is without it; a method that has no other rate leaves."""
    target = own(tmp_path, signal=1.0)

    def found(rates: str, name: str) -> racing.Race:
        field = entrants(target, ("linear", "concat"), {"train": {"steps": "20", "interval": "10", "lr": rates}})
        data, two = field[0].setup.data, [e for e in field if e.name in ("linear", "concat")]
        return racing.race(two, data, np.arange(len(data)), replace(small(two), seeds=1), Ledger(tmp_path / name))

    def networks(race: racing.Race) -> dict[str, racing.Standing]:
        return {s.candidate.name: s for s in race.standings if s.candidate.is_network}

    plain, mixed, broken = found("3e-3", "a"), found("3e-3,1e30", "b"), found("1e30", "c")
    for name, standing in networks(mixed).items():
        assert standing.option == {"lr": 3e-3}
        assert standing.score == pytest.approx(networks(plain)[name].score)
    assert [s.candidate for s in mixed.standings] == [s.candidate for s in plain.standings]
    assert all(s.error.endswith("could be trained in every inner fold") for s in networks(broken).values())
    assert broken.winner.candidate.name == "linear"


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


# A model for use


def test_the_command_of_a_winner(tmp_path: Path) -> None:
    """Own data take a modality as a setting; elsewhere two fusers look at one, and of the others there is none."""
    target = own(tmp_path, signal=1.0)
    given = {"train": {"steps": "60"}, "benchmark": {"metrics": ("accuracy", "macro_f1")}}

    def spelled(target: str, *fusers: str, given: dict | None = None) -> dict[str, str | None]:
        made = {e.name: fitting.command(e, 1.0) for e in entrants(target, fusers, given)}
        return {name: command and command.spelled() for name, command in made.items()}

    found = spelled(target, "concat", given=given)
    flags = "--train.steps 60 --benchmark.metrics accuracy,macro_f1"
    assert found["concat"] == f"fusionbench fit concat {target} {flags} --out model"
    assert found["concat with modality dropout"] == (
        f"fusionbench fit concat {target} --train.steps 60 --train.modality_dropout 0.3 "
        "--benchmark.metrics accuracy,macro_f1 --out model"
    )
    assert found["concat on a alone"] == (
        f"fusionbench fit concat {target} {flags} --benchmark.modalities a --out model"
    )
    found = spelled("toy_xor", "forest", "concat", "boosting")
    assert found["forest on left alone"] == "fusionbench fit unimodal_forest toy_xor --fuser.modality left --out model"
    assert found["concat on right alone"] == "fusionbench fit unimodal toy_xor --fuser.modality right --out model"
    assert found["boosting on left alone"] is None


@pytest.mark.parametrize(("plain", "alone"), [("forest", "unimodal_forest"), ("concat", "unimodal")])
def test_one_modality_by_a_fuser_of_its_own_is_the_same_pipeline(plain: str, alone: str, tmp_path: Path) -> None:
    """What the race trains as `forest on a alone` answers what `unimodal_forest --fuser.modality a` answers."""
    target = own(tmp_path, signal=1.0)
    entrant = next(e for e in entrants(target, (plain,), SHORT) if e.name == f"{plain} on a alone")
    other = entrants(target, (alone,), {**SHORT, "fuser": {"modality": "a"}})[0]
    rows = np.arange(len(entrant.setup.data))
    option = entrant.options[0]
    first, second = (
        trial.refit(e, e.setup.data, rows, 0, option, 40).answer(e.view(e.setup.data)) for e in (entrant, other)
    )
    assert np.allclose(first, second, atol=1e-5)


def one_sided(folder: Path) -> str:
    """`a` carries the label, and `b` is so wide and noisy that a linear model of both is worse than of `a` alone."""
    rng = np.random.default_rng(3)
    y = rng.integers(0, 2, 160)
    a = 1.5 * (2.0 * y - 1)[:, None] + rng.standard_normal((160, 1))
    np.savez(folder / "own.npz", a=a, b=rng.standard_normal((160, 60)), y=y, group=np.repeat(np.arange(20), 8))
    return "own.npz"


def test_out_writes_the_winner_as_a_model_that_predict_takes(tmp_path: Path) -> None:
    one_sided(tmp_path)
    words = ["advise", "own.npz", "--fusers", "linear", "--minutes", "60", "--jobs", "1", "--out", "model"]
    done = command(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Use linear on a alone" in done.stdout
    assert "is trained for use, beyond the minutes of the race: 5 folds with 3 choices of settings" in done.stderr
    said = " ".join(done.stdout.split())
    assert "b is never looked at by what was chosen: it can go." in said
    assert "model is linear on a alone, trained on everything." in said
    assert "Use it: fusionbench predict model --input new.npz --out answers.csv" in said
    lines = done.stdout.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    asked = command("predict", "model", "--input", "own.npz", "--out", "answers.csv", cwd=tmp_path)
    assert asked.returncode == 0, asked.stderr
    assert len((tmp_path / "answers.csv").read_text().splitlines()) == 161
    model = fusionbench.load_model(tmp_path / "model")
    assert model.modalities == ["a"]
    assert model.description.samples == 160
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    refused = command(*words[:-1], "other", cwd=tmp_path)  # before anything is raced
    assert refused.returncode == 2
    assert refused.stderr.strip().endswith("other is there and is no model: name another folder, --out DIR")


def test_nothing_is_fitted_where_nothing_beats_chance(tmp_path: Path) -> None:
    own(tmp_path, signal=0.0)
    words = ["advise", "own.npz", "--fusers", "linear", "--minutes", "60", "--jobs", "1", "--out", "model"]
    done = command(*words, cwd=tmp_path)
    assert done.returncode == 1
    assert "Nothing beats chance here" in done.stdout
    assert "model is not written: nothing beats chance here, so no model is trained" in done.stderr
    assert not (tmp_path / "model").exists()


def test_an_advice_is_fitted_from_python_with_the_dropout_of_its_winner(tmp_path: Path) -> None:
    target = own(tmp_path, signal=1.0)
    found = advise.advise(target, minutes=60, fusers=("linear",), given=SHORT, results=tmp_path / "r", jobs=1)
    dropped = next(e for e in entrants(target, ("concat",), SHORT) if e.candidate.dropout)
    found = replace(found, winner=dropped.name, command=fitting.command(dropped, 0.1))
    said: list[str] = []
    model = advise.fit(found, tmp_path / "model", results=tmp_path / "r", jobs=1, say=said.append)
    assert "beyond the minutes of the race" in said[0]
    assert model.modalities == ["a", "b"]
    run = json.loads(next((tmp_path / "r" / "own" / "concat").glob("*.json")).read_text())["run"]
    assert run["hparams"]["train"]["modality_dropout"] == 0.3
    assert run["hparams"]["train"]["steps"] == 60
    with pytest.raises(UsageError, match="no command trains"):
        advise.fit(replace(found, command=None), tmp_path / "none", results=tmp_path / "r")
    assert "A model for use: no command trains" in " ".join(advise.tell(replace(found, command=None)).split())

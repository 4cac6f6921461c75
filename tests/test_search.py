"""The search: nested, blind to the test people, reproducible, resumable, and clear about wrong input."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import searched as buys
import torch

from fusionbench import engine, harness, search
from fusionbench.api import Choice, Range, Stream
from fusionbench.engine import Member, Trained
from fusionbench.errors import UsageError
from fusionbench.hparams import HParam
from fusionbench.report import tuning
from fusionbench.search import Searching, Trial, Tuned, outcome, space, study

GIVEN: dict[str, dict[str, Any]] = {"train": {"steps": 30, "interval": 10}}
SMALL: dict[str, Any] = {"given": GIVEN, "folds": [0], "inner": 3, "device": "cpu"}


def setup(method: str = "concat", **more: Any) -> harness.Setup:
    given = {**GIVEN, **more}
    return harness.setup("toy_xor", method, given=given)


def run(results: Path, of: harness.Setup | None = None, **options: Any) -> Tuned:
    *_, last = search.tune(of or setup(), results, **{**SMALL, **options})
    assert isinstance(last, Tuned)
    return last


def facts(tuned: Tuned) -> list[tuple[Any, ...]]:
    """Everything about the trials but time."""
    return [(t.number, t.state, t.score, t.settings, t.scores, t.steps, t.default) for t in tuned.table]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tuned]:
    results = tmp_path_factory.mktemp("searched")
    return results, run(results, trials=8)


# --- whose data ---


def test_inner_folds_are_by_person_and_leave_the_test_people_out() -> None:
    s = setup()
    for fold in range(3):
        tested = {s.data.groups[i] for i in s.benchmark.splits(s.data, fold).test}
        rows, inside = search.nested(s, fold, 4)
        people = [s.data.groups[i] for i in rows]
        assert not tested & set(people)
        assert len(set(people)) == 12 - len(tested)
        validated = [i for _, val in inside for i in val]
        assert sorted(validated) == list(range(len(rows)))
        for train, val in inside:
            assert not {people[i] for i in train} & {people[i] for i in val}
            assert len(train) + len(val) == len(rows)


def test_nan_in_every_test_label_and_input_changes_no_trial(searched: tuple[Path, Tuned], tmp_path: Path) -> None:
    s = setup()
    test = torch.from_numpy(s.benchmark.splits(s.data, 0).test)
    y = s.data.y.double().index_fill(0, test, torch.nan)
    streams = {
        m: Stream(v.x.index_fill(0, test, torch.nan), v.mask.index_fill(0, test, True))
        for m, v in s.data.streams.items()
    }
    s.dataset._prepared = replace(s.prepared, data=replace(s.data, y=y, streams=streams))
    assert y.isnan().any()
    assert facts(run(tmp_path, s, trials=8)) == facts(searched[1])


def test_a_training_label_does_matter(searched: tuple[Path, Tuned], tmp_path: Path) -> None:
    s = setup()
    s.dataset._prepared = replace(s.prepared, data=replace(s.data, y=s.data.y.roll(1, 0)))
    assert facts(run(tmp_path, s, trials=1)) != facts(searched[1])[:1]


def test_a_person_on_both_sides_is_refused() -> None:
    s = setup()
    mixed = replace(s.data, groups=["one", *s.data.groups[1:-1], "one"])
    s.dataset._prepared = replace(s.prepared, data=mixed)
    splits = s.benchmark.splits(s.data, 0)
    both = replace(splits, test=np.array([0]), train=np.array([len(s.data) - 1]))
    s.benchmark.splits = lambda data, fold: both  # type: ignore[method-assign]
    with pytest.raises(UsageError, match="one trains and is tested in fold 0"):
        search.nested(s, 0, 3)


def test_a_restricted_dataset_reads_lazy_sources_at_the_right_places() -> None:
    data = setup().data
    raw = {m: _Lazy(stream) for m, stream in data.streams.items()}
    rows = np.array([3, 50, 7])
    seen = search.restrict(replace(data, streams=raw), rows)
    index = torch.tensor([2, 0])
    for m, stream in data.streams.items():
        assert torch.equal(seen.streams[m][index].x, stream.x[[7, 3]])
        assert seen.streams[m].shape == stream.shape
    assert (seen.ids, seen.groups) == ([data.ids[i] for i in rows], [data.groups[i] for i in rows])


class _Lazy:
    def __init__(self, stream: Stream) -> None:
        self.stream, self.shape = stream, stream.shape

    def __len__(self) -> int:
        return len(self.stream)

    def __getitem__(self, index: Any) -> Stream:
        return self.stream[index]


# --- what is searched ---


def test_the_space_is_what_is_declared_and_not_set() -> None:
    axes = search.declared(setup(), {"train": {"clip": 1.0}})
    assert set(axes) == {"fuser.width", "train.lr", "train.weight_decay", "train.label_smoothing", "train.optimiser",
                         "train.warmup"}  # fmt: skip
    assert (axes["train.lr"].start, axes["train.lr"].grid) == (3e-3, (3e-4, 1e-3, 1e-2))
    assert set(search.HELD) <= {f"train.{name}" for name in setup().hparams["train"]}


def test_backbones_are_searched_and_label_smoothing_only_where_there_is_a_cross_entropy() -> None:
    s = harness.setup("toy_xor", "concat", {"left": "gru"})
    assert "backbone.left.dim" in search.declared(s, {})
    task = replace(s.benchmark.task, kind="regress", metrics=("mae",))
    s.benchmark.task = task
    assert "train.label_smoothing" not in search.declared(s, {})


def test_a_range_is_widened_to_its_default_and_its_type_decides() -> None:
    wide = space.axis_of(HParam("n", int, 9), Range(1, 4), 9)
    assert wide is not None
    assert (wide.distribution().low, wide.distribution().high) == (1, 9)
    assert type(wide.distribution()).__name__ == "IntDistribution"
    real = space.axis_of(HParam("x", float, 0), Range(0.1, 4, log=True), 0)
    assert real is not None
    assert (real.distribution().low, real.distribution().log) == (0, False)
    optional = space.axis_of(HParam("w", int | None, None), Choice(8, 16), None)
    assert optional is not None
    assert optional.distribution().choices == (8, 16, None)
    pair = space.axis_of(HParam("k", tuple[int, ...], (1, 2)), Choice((1, 2), (3,)), (1, 2))
    assert pair is not None
    assert [pair.hparam.parse(text) for text in pair.distribution().choices] == [(1, 2), (3,)]
    assert space.axis_of(HParam("n", int, 2), Choice(2), 2) is None
    assert space.axis_of(HParam("n", int | None, None), Range(1, 4), None) is None


# --- trials ---


def test_the_defaults_are_trial_0_and_the_other_learning_rates_follow(searched: tuple[Path, Tuned]) -> None:
    _, tuned = searched
    first = tuned.table[0]
    usual = {name: getattr(engine.Recipe(), name) for name in first.settings["train"]}
    assert (first.number, first.default, first.state) == (0, True, "complete")
    assert first.settings == {"fuser": {"width": 128}, "train": {**usual, "lr": (3e-3,)}}
    assert [t.settings["train"]["lr"] for t in tuned.table[1:4]] == [(3e-4,), (1e-3,), (1e-2,)]
    assert sum(t.default for t in tuned.table) == 1
    assert tuned.folds["0"].default_score == first.score


def test_the_score_is_the_mean_over_inner_folds_and_seeds_of_the_best_validation(
    searched: tuple[Path, Tuned],
) -> None:
    s = setup()
    rows, inside = search.nested(s, 0, 3)
    found = []
    for seed in range(2):
        for number, (train, val) in enumerate(inside):
            member = Member(number, seed, rows[train], rows[val], 3e-3)
            (best,) = [e for e in engine.train(s.blueprint, [member], s.data, s.recipe) if isinstance(e, Trained)]
            found.append(best.score)
    assert searched[1].table[0].scores == pytest.approx(found)
    assert searched[1].table[0].score == pytest.approx(np.mean(found))


def test_pruned_trials_cost_less_and_budgets_are_counted(searched: tuple[Path, Tuned]) -> None:
    _, tuned = searched
    assert tuned.budget == {"trials": 8, "inner_folds": 3, "seeds": 2, "steps": 30, "optimiser_steps": 8 * 6 * 30}
    chosen = tuned.folds["0"]
    assert chosen.trials == 8
    assert chosen.optimiser_steps == sum(t.steps for t in tuned.table)
    pruned = [t for t in tuned.table if t.state == "pruned"]
    assert len(pruned) == chosen.pruned > 0
    assert all(t.steps < 6 * 30 for t in pruned)
    assert all(t.steps == 6 * 30 for t in tuned.table if t.state == "complete")
    assert chosen.score == max(t.score for t in tuned.table if t.score is not None)


def test_progress_rises_to_the_budget(tmp_path: Path) -> None:
    events = list(search.tune(setup(), tmp_path, **{**SMALL, "folds": [0, 2]}, trials=1))
    progress = [e for e in events if isinstance(e, Searching)]
    assert [e.done for e in progress] == sorted(e.done for e in progress)
    assert progress[-1].done == progress[-1].total == 2 * 6 * 30
    assert [e.fold for e in events if isinstance(e, Trial)] == [0, 2]
    assert list(events[-1].folds) == ["0", "2"]


def test_the_signed_rank_test_ends_a_trial_that_is_worse_everywhere() -> None:
    best = SimpleNamespace(best_trial=SimpleNamespace(user_attrs={"scores": [0.9, 0.8, 0.85, 0.7, 0.9, 0.9]}))
    assert search._worse([0.8, 0.6, 0.8, 0.5], best)  # 1 of 16 signs: p = .0625
    assert not search._worse([0.8, 0.6, 0.8], best)  # 1 of 8: no proof
    assert not search._worse([0.8, 0.6, 0.95, 0.9], best)
    assert not search._worse([0.9, 0.8, 0.85, 0.7], best)
    assert not search._worse([0.1, 0.1, 0.1, -np.inf], best)


def test_trials_of_one_architecture_train_in_one_program_with_the_same_result(
    searched: tuple[Path, Tuned], tmp_path: Path
) -> None:
    tuned = run(tmp_path, trials=8, at_once=4)
    assert tuned.folds["0"].trials == 8
    for mine, other in zip(tuned.table[:1], searched[1].table[:1], strict=True):
        assert mine.scores == pytest.approx(other.scores)
        assert mine.settings == other.settings
    assert tuned.table[1].scores[:3] == pytest.approx(searched[1].table[1].scores[:3])
    shared = [{**t.settings["fuser"], "o": t.settings["train"]["optimiser"], "w": t.settings["train"]["warmup"]}
              for t in tuned.table]  # fmt: skip
    assert all(one == shared[0] for one in shared[:4])
    assert all(one == shared[4] for one in shared[4:])
    assert shared[4] != shared[0]
    assert len({t.settings["train"]["lr"] for t in tuned.table[4:]}) == 4


def test_one_program_or_one_member_at_a_time(searched: tuple[Path, Tuned], tmp_path: Path) -> None:
    alone = run(tmp_path, trials=4, stacked=1)
    for mine, other in zip(alone.table, searched[1].table, strict=False):
        assert (mine.settings, mine.state) == (other.settings, other.state)
        if mine.state == "complete":  # a pruned one is ended later
            assert mine.scores == pytest.approx(other.scores)


@pytest.mark.parametrize(("sampler", "asked"), [("tpe", 16), ("random", 5), ("gp", 12)])
def test_a_resumed_sampler_draws_what_it_would_have_drawn(sampler: str, asked: int) -> None:
    optuna = study.quiet_optuna()
    axes = {name: axis.distribution() for name, axis in search.declared(setup(), {}).items()}

    def ask(begun: Any, number: int) -> None:
        for _ in range(number):
            (trial,) = study.ask(begun, 1, axes, sampler, 0)
            begun.tell(trial, -abs(np.log(trial.params["train.lr"] / 2e-3)))

    whole, half = (optuna.create_study(direction="maximize") for _ in range(2))
    ask(whole, asked)
    ask(half, asked - 2)
    half.sampler = None
    ask(half, 2)
    assert [t.params for t in whole.trials] == [t.params for t in half.trials]
    assert len({json.dumps(t.params) for t in whole.trials}) == asked


def test_what_cannot_be_trained_counts_and_is_named_unless_it_is_the_default(tmp_path: Path) -> None:
    plugin = tmp_path / "picky.py"
    plugin.write_text(
        '"""Refuses some widths."""\n'
        "from typing import Annotated\n"
        "from torch import nn\n"
        "from fusionbench.api import Choice, Fuser, Head\n"
        "class Picky(Fuser):\n"
        "    def __init__(self, spec, *, width: Annotated[int, Choice(8, 12, 16), 'w'] = 8):\n"
        "        super().__init__(spec)\n"
        "        if width != 8:\n"
        "            raise ValueError('only eight')\n"
        "        self.head = Head(spec.dims['left'], spec.out)\n"
        "    def forward(self, streams):\n"
        "        return self.head(self.pool(streams['left']).x)\n"
    )
    tuned = run(tmp_path, setup(str(plugin)), trials=7)
    failed = [t for t in tuned.table if t.state == "failed"]
    assert tuned.folds["0"].trials == 7
    assert tuned.folds["0"].failed == len(failed) > 0
    assert all("ValueError: only eight" in (t.error or "") for t in failed)
    with pytest.raises(UsageError, match="Picky cannot be built with width=12: ValueError: only eight"):
        run(tmp_path / "again", setup(str(plugin), fuser={"width": 12}), trials=7)


# --- going on ---


def test_a_search_that_is_broken_off_goes_on(searched: tuple[Path, Tuned], tmp_path: Path) -> None:
    for stop in (0, 4):  # in the middle of trial 0, then of a later one
        going = search.tune(setup(), tmp_path, **SMALL, trials=8)
        while True:
            event = next(going)
            if isinstance(event, Searching) and event.finished >= stop:
                break
        going.close()
    tuned = run(tmp_path, trials=8)
    killed = [t for t in tuned.table if t.state == "killed"]
    counted = [t for t in tuned.table if t.state != "killed"]
    assert (len(killed), len(counted), tuned.folds["0"].trials) == (2, 8, 8)
    assert sum(t.default for t in counted) == 1
    whole = [t.settings for t in searched[1].table]
    assert all(t.settings in whole for t in counted)
    assert run(tmp_path, trials=8).table == tuned.table  # complete: nothing is asked again
    assert run(tmp_path, trials=9).folds["0"].trials == 9
    assert run(tmp_path, trials=8).folds["0"].trials == 8  # no more than the budget, whatever is there


def test_equal_trials_are_told_apart_by_their_settings() -> None:
    """A search that was killed tries the same settings under other numbers, and ends with the same ones."""

    def trial(number: int, value: float, start: int, **params: float) -> Any:
        return SimpleNamespace(number=number, value=value, params=params, user_attrs={"start": start})

    default, one, other = trial(0, 0.8, 0, lr=1e-3), trial(1, 0.8, 1, lr=2e-3), trial(2, 0.8, 2, lr=3e-3)
    assert outcome.best_of([other, default, one]) is default
    worse = trial(0, 0.7, 0, lr=1e-3)
    renumbered = [trial(2, 0.8, 1, lr=2e-3), trial(1, 0.8, 2, lr=3e-3)]
    assert outcome.best_of([worse, one, other]).params == outcome.best_of([worse, *renumbered]).params


def test_a_shared_storage_retries_a_worker_that_went_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "HEARTBEAT", 1)
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    going = search.tune(setup(), tmp_path, **SMALL, storage=url, trials=2)
    next(going)
    going.close()
    time.sleep(3.5)
    tuned = run(tmp_path, storage=url, trials=2)
    states = [(t.state, t.default) for t in tuned.table]
    assert states == [("killed", True), *[("complete", False)] * 3, ("complete", True)]
    assert tuned.folds["0"].trials == 2  # the defaults, whenever they were finished, and the first other
    assert not list(tmp_path.glob("**/*.journal"))
    assert run(tmp_path, storage=url, trials=2).table == tuned.table


def test_a_living_worker_of_a_shared_storage_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "HEARTBEAT", 1)
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    going = search.tune(setup(), tmp_path, **SMALL, storage=url, trials=1)
    next(going)
    time.sleep(3.5)  # it has not moved, but its heart beats
    other = study.quiet_optuna().load_study(study_name="toy_xor/concat/study-fold0", storage=url)
    study.requeue(other, alone=False, distributions={})
    assert other.trials[0].state.name == "RUNNING"
    *_, tuned = going
    assert tuned.folds["0"].trials == 1


def test_two_searches_in_one_file_are_refused(tmp_path: Path) -> None:
    going = search.tune(setup(), tmp_path, **SMALL, trials=2)
    next(going)
    with pytest.raises(UsageError, match="in use by another"):
        run(tmp_path, trials=2)
    going.close()


def test_a_half_written_line_is_cut_off_and_a_damaged_study_is_named(tmp_path: Path) -> None:
    run(tmp_path, trials=1)
    path = tmp_path / "toy_xor" / "concat" / "study-fold0.journal"
    with path.open("ab") as file:
        file.write(b'{"op_code": 4, "work')
    assert run(tmp_path, trials=2).folds["0"].trials == 2
    path.write_bytes(b"nonsense\n" + path.read_bytes())
    with pytest.raises(UsageError, match="damaged"):
        run(tmp_path, trials=2)


# --- what comes out ---


def test_the_settings_are_read_back_for_this_code_only(searched: tuple[Path, Tuned]) -> None:
    results, tuned = searched
    given = search.load_tuned(results, setup(), [0])[0]
    assert harness.setup("toy_xor", "concat", given={**GIVEN, **given, "train": {**GIVEN["train"], **given["train"]}})
    assert given["fuser"] == tuned.folds["0"].settings["fuser"]
    content = json.loads((results / "toy_xor" / "concat" / "tuned.json").read_text())
    assert content["space"]["fuser.width"] == "64 | 128 | 256"
    assert set(content["folds"]["0"]) >= {"settings", "score", "trials", "optimiser_steps", "seconds", "versions"}
    s = setup()
    with pytest.raises(UsageError, match=r"code of fuser was \w+, is other.*fusionbench tune concat -b toy_xor"):
        search.load_tuned(results, replace(s, code={**s.code, "fuser": "other"}), [0])
    with pytest.raises(UsageError, match=r"train\.steps was 30, is 120"):
        search.load_tuned(results, harness.setup("toy_xor", "concat"), [0])
    with pytest.raises(UsageError, match=r"backbone\.left was identity, is gru"):
        search.load_tuned(results, harness.setup("toy_xor", "concat", {"left": "gru"}, GIVEN), [0])
    with pytest.raises(UsageError, match=r"no settings for fold 1, 2: `.* --trials 8 --inner .* --folds 1,2,` finds"):
        search.load_tuned(results, setup())
    with pytest.raises(UsageError, match="transformer is not tuned on toy_xor"):
        search.load_tuned(results, setup("transformer"))


def test_folds_searched_one_by_one_stand_in_one_file(tmp_path: Path) -> None:
    run(tmp_path, trials=2, folds=[1])
    run(tmp_path, trials=2, folds=[0])
    assert set(search.load_tuned(tmp_path, setup(), [0, 1])) == {0, 1}
    rows = search.load_trials(tmp_path, "toy_xor", "concat")
    assert [(r["fold"], r["number"]) for r in rows] == [("0", "0"), ("0", "1"), ("1", "0"), ("1", "1")]
    assert rows[0]["fuser.width"] == "128"
    run(tmp_path, trials=1, folds=[0])  # another budget: the folds would not be comparable
    with pytest.raises(UsageError, match="no settings for fold 1"):
        search.load_tuned(tmp_path, setup(), [0, 1])


def test_a_damaged_tuned_file_is_set_aside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "toy_xor" / "concat" / "tuned.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(UsageError, match="not tuned"):
        search.load_tuned(tmp_path, setup())
    assert "is damaged" in capsys.readouterr().err


def test_a_study_is_made_again_from_the_files_that_are_committed(searched: tuple[Path, Tuned]) -> None:
    results, tuned = searched
    studies = search.restored(results, "toy_xor", "concat")
    assert set(studies) == {0}
    finished = [t for t in tuned.table if t.state in ("complete", "pruned")]
    assert len(studies[0].trials) == len(finished)
    assert studies[0].best_value == pytest.approx(max(t.score for t in finished if t.score is not None))
    best = studies[0].best_params
    chosen = tuned.folds["0"].settings
    for name, value in best.items():
        part, _, last = name.rpartition(".")
        there = chosen[part][last]
        assert str(value) == str(there) or float(value) == pytest.approx(there[0] if last == "lr" else there)
    assert search.restored(results, "toy_xor", "jmt") == {}


def test_what_a_budget_buys_is_counted_by_hand() -> None:
    def searched_as(*trials: tuple[float, float | None]) -> Any:
        return SimpleNamespace(trials=[SimpleNamespace(user_attrs={"seconds": s}, value=v) for s, v in trials])

    fast, slow = searched_as((1, 0.5), (2, None), (1, 0.7)), searched_as((10, None), (5, 0.2), (5, 0.1), (9, 0.9))
    assert tuning.so_far(slow) == [None, 0.2, 0.2, 0.9]
    assert tuning.spent([fast]) == [(1, 0.5), (3, 0.5), (4, 0.7)]
    assert tuning.spent([fast, slow]) == [(9, pytest.approx(0.35)), (12, pytest.approx(0.45))]


def test_the_table_of_budgets_is_made_from_what_lies_beside_the_records(
    searched: tuple[Path, Tuned], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results, tuned = searched
    out = tmp_path / "searched.md"
    monkeypatch.setattr("sys.argv", ["searched.py", "--results", str(results), "--out", str(out)])
    buys.main()
    (line,) = [line for line in out.read_text().splitlines() if line.startswith("| concat")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    chosen = tuned.folds["0"]
    assert chosen.default_score is not None
    assert cells[1:3] == [f"{chosen.default_score:.3f}", f"{max(t.score or 0 for t in tuned.table[:5]):.3f}"]
    assert cells[-3:] == ["0", "-", "-"], "nobody has run them on test people"
    assert "<svg" in out.with_suffix(".svg").read_text()
    assert line in capsys.readouterr().out


# --- wrong input ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trials": 0}, "at least one trial"),
        ({}, "a number of trials or a budget"),
        ({"trials": 3, "budget": 10}, "a number of trials or a budget"),
        ({"budget": 179}, "179 optimiser steps is too small for one trial: 3 inner folds x 2 seeds x 30 steps are 180"),
        ({"trials": 1, "sampler": "tpee"}, "did you mean tpe"),
        ({"trials": 1, "inner": 9}, "fold 0 has 8 people to choose settings by: not 9 inner folds"),
        ({"trials": 1, "seeds": 0}, "at least one seed"),
        ({"trials": 1, "folds": [3]}, "folds 0 to 2, not 3"),
        ({"trials": 1, "storage": "sqlite:////nowhere/at/all.db"}, "storage .* cannot be used"),
        ({"trials": 1, "storage": "postgresql://me:secret@localhost:1/none"}, "storage localhost:1/none cannot"),
        ({"trials": 1, "storage": "nonsense"}, "storage nonsense cannot be used"),
    ],
)
def test_wrong_usage_is_one_clear_line(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        run(tmp_path, **options)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_nothing_to_search_and_several_rates_are_refused() -> None:
    s = setup()
    with pytest.raises(UsageError, match="concat has no declared range to search"):
        search.declared(s, {part: dict(values) for part, values in s.hparams.items()})
    with pytest.raises(UsageError, match="one learning rate"):
        search.declared(s, {"train": {"lr": (1e-3, 1e-2)}})


def test_a_storage_made_with_another_space_says_what_changed(searched: tuple[Path, Tuned]) -> None:
    results, _ = searched
    held = {**GIVEN, "fuser": {"width": 64}}
    with pytest.raises(UsageError, match=r"fuser.width was 64 \| 128 \| 256, is 64.*study-fold0.journal"):
        run(results, setup(fuser={"width": 64}), given=held, trials=8)
    with pytest.raises(UsageError, match="seeds was 2, is 3"):
        run(results, trials=8, seeds=3)


def test_what_was_killed_is_tried_again_before_what_follows() -> None:
    """So the pruner and the sampler have met the same trials as if nothing had happened."""
    import optuna

    study.quiet_optuna()
    ranges = {"lr": optuna.distributions.FloatDistribution(1e-5, 1e-1, log=True)}
    starts: list[dict[str, Any]] = [{"lr": 1e-3}, {"lr": 1e-4}]

    def searched(killed: set[int]) -> list[float]:
        """The rates that were tried to the end, the trials of these places having been killed once."""
        made = optuna.create_study(direction="maximize")
        tried: list[float] = []
        while len(tried) < 5:
            study.requeue(made, alone=True, distributions=ranges)
            study.begin(made, starts, 1)
            (trial,) = study.ask(made, 1, ranges, "random", 0)
            if len(tried) in killed:
                killed = killed - {len(tried)}
                continue
            made.tell(trial, 0.5)
            tried.append(trial.params["lr"])
        return tried

    whole = searched(set())
    assert whole[:2] == [1e-3, 1e-4]
    assert len(set(whole)) == 5
    for place in range(5):
        assert searched({place}) == whole
    assert searched({0, 2, 4}) == whole


def test_a_trial_that_is_killed_while_it_is_drawn_is_drawn_as_undisturbed() -> None:
    """Its first parameter alone is on disk: kept, it would move the draws of the others."""
    import optuna

    distributions = {name: optuna.distributions.FloatDistribution(0, 1) for name in ("a", "b", "c")}
    undisturbed = optuna.create_study()
    (wanted,) = study.ask(undisturbed, 1, distributions, "random", 0)
    killed = optuna.create_study()
    killed.sampler = undisturbed.sampler
    killed.add_trial(
        optuna.trial.create_trial(
            state=optuna.trial.TrialState.RUNNING, params={"a": wanted.params["a"]},
            distributions={"a": distributions["a"]},
        )
    )  # fmt: skip
    study.requeue(killed, True, distributions)
    (again,) = study.ask(killed, 1, distributions, "random", 0)
    assert again.params == wanted.params

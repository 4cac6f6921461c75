"""What boards say beyond scores: margins, fusion, chance, damage without mixing, many data sets, headline claims."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionbench import leaderboard, metrics, registry, report, stats, text
from fusionbench.errors import UsageError
from fusionbench.leaderboard import across, claims
from fusionbench.leaderboard.columns import known as columns_of
from fusionbench.records import Predictions, Record, Run, store

MODALITIES = ("acc", "gyro")
PEOPLE, EACH, FOLDS, SEEDS = 10, 30, 2, 3
READING = {"unit": "person", "margin": 0.02, "domain": "motion", "role": "headline"}


def write(
    results: Path,
    fuser: str,
    right: float | Mapping[str, float],
    *,
    benchmark: str = "sensors",
    modality: str | None = None,
    classical: bool = False,
    validation: float | None = None,
    reading: Mapping[str, Any] = READING,
    spread: float = 0.02,
    rates: Mapping[str, Mapping[str, float]] | None = None,
    **how: Any,
) -> None:
    """A row of two classes: the share of right answers by condition, give or take `spread` for every person."""
    shares = dict(right) if isinstance(right, Mapping) else {"clean": right}
    people = np.repeat([f"p{g:02d}" for g in range(PEOPLE)], EACH)
    y, mask = (np.arange(len(people)) % 2)[:, None], np.ones((len(people), 1), bool)
    fold_of = np.repeat(np.arange(PEOPLE) % FOLDS, EACH)
    own = spread * np.random.default_rng([*map(ord, fuser + benchmark)]).standard_normal(PEOPLE)
    settings = {"modality": modality} if modality else {"width": 8}
    for fold in range(FOLDS):
        for seed in range(SEEDS):
            rng = np.random.default_rng([fold, seed, *map(ord, fuser + (modality or "") + benchmark)])
            mine, draws = fold_of == fold, rng.random((len(people), 1))
            kept = {}
            for condition, share in shares.items():
                hit = draws < share + np.repeat(own, EACH)[:, None]
                kept[condition] = np.eye(2, dtype=np.float32)[np.where(hit, y, 1 - y)][mine]
            scores = {c: metrics.evaluate(["accuracy"], a, y[mine], mask[mine]) for c, a in kept.items()}
            at = validation if validation is not None else scores["clean"]["accuracy"]
            fields: dict[str, Any] = {
                "code": {"benchmark": "b", "fuser": fuser}, "data": "d", "protocol": 2, "metrics": ["accuracy"],
                "scores": {**scores, "chance": {"accuracy": 0.5}}, "reading": dict(reading),
                "chosen": {"validation": at} | ({} if classical else {"lr": 1e-3}), "rates": rates or {},
                "changes": [f"fuser.modality={modality}"] if modality else [], "seconds": {"train": 1.0},
                "complete": {"folds": FOLDS, "seeds": SEEDS}, "device": "box", "created": "2026-01-01T00:00:00+00:00",
            }  # fmt: skip
            run = Run(benchmark, fuser, dict.fromkeys(MODALITIES, "linear"), fold, seed,
                      {"benchmark": {}, "train": {"lr": [1e-3]}, "fuser": settings})  # fmt: skip
            ids = np.arange(len(people)).astype(str)[mine]
            answers = Predictions(ids, people[mine], y[mine], mask[mine], kept)
            store.save(results, Record(run, "done", **{**fields, **how}), answers, None)


def boards(results: Path) -> list[leaderboard.Board]:
    return leaderboard.build(store.load(results), results, here=None)


def only(results: Path) -> leaderboard.Board:
    (board,) = boards(results)
    return board


def flat(text: str) -> str:
    return " ".join(text.split())


# Margins and units


def test_a_margin_is_the_one_under_which_runs_were_made(tmp_path: Path) -> None:
    write(tmp_path, "concat", 0.8)
    write(tmp_path, "gated", 0.8, reading={**READING, "margin": 0.2})
    board = only(tmp_path)
    assert (board.reads.margin, board.reads.frozen, board.unit) == (0.02, False, "person")
    shown = flat(leaderboard.render(board))
    assert "within 2 points, the margin that the benchmark declares (named after these runs" in shown
    assert "10 people" in shown
    assert "group" not in shown.replace("groups of", "")


def test_a_wide_margin_shows_equivalence_and_a_tight_one_is_unattainable(tmp_path: Path) -> None:
    for place, margin in (("wide", 0.2), ("tight", 0.001)):
        for fuser in ("concat", "gated"):
            write(tmp_path / place, fuser, 0.8, reading={**READING, "margin": margin})
    wide, tight = only(tmp_path / "wide"), only(tmp_path / "tight")
    assert wide.row("gated").verdicts["score"].decision == "equivalent"
    assert wide.reads.frozen
    assert "gated and concat are equivalent within 20" in flat("\n".join(leaderboard.verdicts(wide)))
    assert columns_of(wide)["within-margin"].value(wide, wide.row("gated")) == "yes"
    said = flat("\n".join(leaderboard.verdicts(tight)))
    assert "is undecided" in said
    assert "equivalence within 0.1 is unattainable with these people" in said
    assert columns_of(tight)["within-margin"].value(tight, tight.row("gated")) == "unattainable"
    assert "unattainable with these people in all comparison" in flat(leaderboard.render(tight))
    assert "post hoc" not in leaderboard.render(tight)


def test_records_that_say_nothing_are_read_as_the_plugin_that_is_here_declares(tmp_path: Path) -> None:
    for fuser in ("concat", "gated"):
        write(tmp_path, fuser, 0.8, benchmark="watch", reading={})
    board = only(tmp_path)
    here = registry.reading_here("watch")
    assert (board.unit, board.reads.margin, board.reads.role) == (here["unit"], here["margin"], here["role"])
    assert not board.reads.frozen
    assert registry.reading_here("no such benchmark") == {}


def test_how_scores_are_read_is_no_part_of_the_code_of_a_benchmark_but_of_a_fuser(tmp_path: Path) -> None:
    body = "from fusionbench.api import {0}\n\n\nclass Mine({0}):\n    margin = {1}\n    seeds = {2}\n"
    seen = {}
    for kind, base in (("benchmarks", "Benchmark"), ("fusers", "Fuser")):
        for number, (margin, seeds) in enumerate([(0.01, 3), (0.02, 3), (0.01, 4)]):
            path = tmp_path / kind / str(number) / "mine.py"
            path.parent.mkdir(parents=True)
            path.write_text(body.format(base, margin, seeds))
            seen[kind, number] = registry.fingerprint(registry.load(kind, str(path)))
    assert seen["benchmarks", 0] == seen["benchmarks", 1] != seen["benchmarks", 2]
    assert len({seen["fusers", n] for n in range(3)}) == 3, "a fuser's margin may be that of its loss"


@pytest.mark.parametrize("wrong", [{"margin": 0.0}, {"margin": -1}, {"margin": "two"}, {"role": "main"}, {"unit": 3}])
def test_an_absurd_declaration_is_refused_by_name(wrong: dict[str, Any]) -> None:
    from fusionbench import contract

    maker = type("Mine", (registry.load("benchmarks", "toy_xor"),), wrong)
    with pytest.raises(UsageError, match=next(iter(wrong))):
        contract.make(maker, {}, "mine")


# Does fusion help?


@pytest.mark.parametrize(
    ("fused", "word"),
    [(0.9, "helps"), (0.75, "makes no difference"), (0.6, "hurts")],
    ids=["helps", "nothing", "hurts"],
)
def test_fusion_helps_does_nothing_or_hurts_as_simulated(tmp_path: Path, fused: float, word: str) -> None:
    reading = {**READING, "margin": 0.1}
    for modality, right in zip(MODALITIES, (0.75, 0.6), strict=True):
        write(tmp_path, "unimodal", right, modality=modality, reading=reading)
    for fuser in ("concat", "gated"):
        write(tmp_path, fuser, fused, reading=reading)
    board = only(tmp_path)
    assert board.fusion is not None
    assert board.fusion.word == word
    assert board.fusion.single.name == "unimodal (acc)"
    said = f"Does fusion help here? Fusion {word}: "
    assert said in flat("\n".join(leaderboard.verdicts(board)))
    page = report.write([board], tmp_path / "page.html")[0].read_text()
    assert said in page


def test_only_pipelines_that_stand_with_one_modality_alone_take_part(tmp_path: Path) -> None:
    """A forest of all modalities against a network of one would compare forests with networks."""
    write(tmp_path, "unimodal", 0.7, modality="acc")
    write(tmp_path, "concat", 0.72)
    write(tmp_path, "forest", 0.95, classical=True)
    board = only(tmp_path)
    assert board.fusion is not None
    assert set(board.fusion.fused.by_fold) == {"concat"}
    write(tmp_path, "unimodal_forest", 0.94, modality="acc", classical=True)
    board = only(tmp_path)
    assert board.row("unimodal_forest (acc)").records.family == "single modalities"
    assert board.fusion is not None
    assert set(board.fusion.fused.by_fold) == {"forest"}
    assert set(board.fusion.single.by_fold) == {"unimodal_forest (acc)"}
    assert "no forest of one modality" not in "\n".join(leaderboard.helps(board))


def test_a_choice_that_differs_by_fold_is_the_answers_of_the_chosen_rows(tmp_path: Path) -> None:
    write(tmp_path, "unimodal", 0.7, modality="acc")
    write(tmp_path, "concat", 0.8)
    write(tmp_path, "gated", 0.6)
    for r in list(store.load(tmp_path, fuser="gated")):  # validation prefers the worse row in fold 1
        at = 0.9 if r.run.fold else 0.1
        store.save(
            tmp_path, replace(r, chosen={"lr": 1e-3, "validation": at}), store.predictions(tmp_path, r.run), None
        )
    board = only(tmp_path)
    assert board.fusion is not None
    assert board.fusion.fused.by_fold == ("concat", "gated")
    by_fold = {r.run.fuser: [] for r in store.load(tmp_path)}
    for r in store.load(tmp_path):
        if (r.run.fuser, r.run.fold) in (("concat", 0), ("gated", 1)):
            by_fold[r.run.fuser].append(r.scores["clean"]["accuracy"])
    expected = (np.mean(by_fold["concat"]) + np.mean(by_fold["gated"])) / 2  # folds of equal size
    assert board.fusion.fused.table.scores.mean() == pytest.approx(expected)


# Chance


def test_nothing_beats_chance_is_said_everywhere(tmp_path: Path) -> None:
    for fuser in ("concat", "gated", "jmt"):
        write(tmp_path, fuser, 0.5, spread=0.01)
    board = only(tmp_path)
    words = "othing beats chance here: none of 3 rows is significantly better"
    assert words in flat(leaderboard.render(board, width=80))
    assert words in flat("\n".join(leaderboard.verdicts(board)))
    runs = board.row("jmt").runs
    assert words in flat(leaderboard.answer([board], runs))
    assert words in report.write([board], tmp_path / "page.html")[0].read_text()
    write(tmp_path, "film", 0.8)
    board = only(tmp_path)
    assert "1 of 4 rows beat chance; not better: " in flat(leaderboard.render(board))
    assert columns_of(board)["over-chance"].value(board, board.row("film")).decision == "better"
    assert "chance" not in flat(leaderboard.answer([board], board.row("film").runs)).partition("Everything")[2]


# Damage without mixing


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> leaderboard.Board:
    """Under noise `sturdy` is best, with gyro missing `whole` is; one severity costs nothing, one helps."""
    results = tmp_path_factory.mktemp("damaged")
    table = ["missing:acc", "missing:gyro", "noise:acc"]
    noise = {f"noise:acc:{level}": share for level, share in ((1, 0.8), (2, 0.65), (3, 0.5))}
    rows = {
        "concat": {"clean": 0.8, "missing:acc": 0.6, "missing:gyro": 0.6, **noise},
        "sturdy": {"clean": 0.8, "missing:acc": 0.55, "missing:gyro": 0.55, **dict.fromkeys(noise, 0.78)},
        "whole": {"clean": 0.8, "missing:acc": 0.7, "missing:gyro": 0.95, **noise},
    }
    rates = {"missing:acc": {"acc": 1.0}, "missing:gyro": {"gyro": 1.0}}
    for fuser, shares in rows.items():
        write(results, fuser, shares, table=table, rates=rates)
    return only(results)


def test_each_corruption_has_its_own_order_interval_and_places(damaged: leaderboard.Board, tmp_path: Path) -> None:
    board = damaged
    first = {
        kind: min(board.ranked, key=lambda row: columns_of(board)[f"place:{kind}"].value(board, row).low).label
        for kind in ("missing", "noise")
    }
    assert first == {"missing": "whole", "noise": "sturdy"}
    shown = leaderboard.render(board, wide=True)
    assert {"missing", "place:missing", "noise", "place:noise", "rate:missing:acc"} <= set(
        shown.splitlines()[2].split()
    )
    assert "1.00" in shown
    assert "each of weight 1/3 (missing 2/3, noise 1/3)" in flat(shown)
    page = report.write([board], tmp_path / "page.html")[0].read_text()
    assert "Realised rates by severity: missing:acc 1.00" in page


def test_severities_that_cost_nothing_or_help_are_marked(damaged: leaderboard.Board) -> None:
    board = damaged
    shown = leaderboard.render(board, columns=["no-loss", "helped"])
    cells = {line.split()[0]: line.split()[1:] for line in shown.splitlines()[4:7]}
    assert cells["concat"] == ["noise:acc:1", "-"]
    assert cells["sturdy"] == ["noise:acc:1-3", "-"]
    assert cells["whole"] == ["noise:acc:1", "missing:gyro"]
    said = flat(leaderboard.render(board))
    assert "These cost no fused row significantly: noise:acc:1;" in said
    assert "These help some fused row significantly: missing:gyro;" in said
    assert json.loads(leaderboard.render(board, "json"))["rows"][0]["helped"]


def test_missing_and_absent_are_defined_where_columns_are_explained() -> None:
    said = flat(leaderboard.explain(80))
    assert "Missing: whole modalities taken from every sample." in said
    assert "Absent: modalities taken sample by sample at a rate, at least one kept" in said


# Many data sets


def many(results: Path, names: Mapping[str, tuple[str, str]], forest: bool = True, **more: float) -> None:
    """Benchmarks by name, each with its domain and role; jmt is worse than concat, everywhere a little more."""
    for number, (name, (domain, role)) in enumerate(names.items()):
        reading = {**READING, "domain": domain, "role": role}
        scores = {"concat": 0.8, "jmt": 0.68 + 0.002 * number, "late_average": 0.78 + 0.04 * (number % 2), **more}
        for fuser, right in {**scores, **({"forest": 0.75} if forest else {})}.items():
            shares = {"clean": right, "missing:acc": right - 0.1, "missing:gyro": right - 0.1}
            write(results, fuser, shares, benchmark=name, reading=reading, classical=fuser == "forest")


SETS = {
    "watch2": ("motion", "headline"), "phone": ("motion", "headline"), "engines": ("machines", "headline"),
    "sim": ("affect", "synthetic"), "leak": ("stress", "exhibit"),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("sets")
    many(results, SETS)
    return results


@pytest.fixture(scope="module")
def sets(folder: Path) -> list[leaderboard.Board]:
    return boards(folder)


def test_methods_over_data_sets_apart_by_role(sets: list[leaderboard.Board]) -> None:
    found, notes = leaderboard.overviews(sets)
    assert [(o.role, o.condition) for o in found] == [("headline", "score"), ("headline", "one modality missing")]
    assert found[0].sets == {"motion": ["phone", "watch2"], "machines": ["engines"]}
    assert [line.method for line in found[0].lines][-1] == "jmt"
    said = flat("\n".join(notes))
    assert "sim alone, which says nothing of a second one" in said
    assert "Exhibits count nowhere: leak" in said
    by_name = {line.method: line for line in found[0].lines}
    assert by_name["forest"].standing.position == pytest.approx(1)
    assert by_name["jmt"].beats is not None
    assert by_name["jmt"].beats.probability < 0.5
    assert by_name["concat"].beats is None
    assert "3 data sets cannot separate 3 rivals" in flat("\n".join(found[0].notes))


def test_a_new_row_moves_no_position(sets: list[leaderboard.Board], folder: Path, tmp_path: Path) -> None:
    for name in ("phone", "engines"):
        shutil.copytree(folder / name, tmp_path / name)
        reading = {**READING, "domain": SETS[name][0]}
        write(
            tmp_path, "best", {"clean": 0.99, "missing:acc": 0.9, "missing:gyro": 0.9}, benchmark=name, reading=reading
        )
    two = [board for board in sets if board.benchmark in ("phone", "engines")]
    before, after = (
        {line.method: line.standing.position for line in leaderboard.overviews(some)[0][0].lines}
        for some in (two, boards(tmp_path))
    )
    assert (after.pop("best") or 0) > 1.5
    assert after == before


def test_without_a_forest_there_is_no_position_and_it_is_said(tmp_path: Path) -> None:
    many(tmp_path, dict(list(SETS.items())[:2]), forest=False)
    found, _ = leaderboard.overviews(boards(tmp_path))
    assert all(line.standing.position is None for line in found[0].lines)
    assert all(line.standing.improvability is not None for line in found[0].lines)
    assert "there is none on phone, watch2" in flat("\n".join(found[0].notes))


def test_from_ten_sets_on_there_is_a_critical_difference_and_a_test(sets: list[leaderboard.Board]) -> None:
    ten = [
        replace(board, benchmark=name, title=name, reads=replace(board.reads, domain=f"d{n % 3}", role="headline"))
        for n, board in enumerate([*sets, *sets])
        if (name := f"s{n}")
    ]
    found, _ = leaderboard.overviews(ten, "concat", ["jmt", "late_average"])
    said = flat("\n".join(found[0].notes))
    assert "Critical difference (Nemenyi): ranks that are 1.5 apart differ" in said  # 2.569 sqrt(4 x 5 / 60)
    by_name = {line.method: line.against for line in found[0].lines}
    assert by_name["jmt"] is not None
    assert (by_name["jmt"].decision, by_name["jmt"].sets) == ("worse", 10)
    assert by_name["late_average"] is not None
    assert by_name["late_average"].decision == "undecided"
    assert by_name["forest"] is None, "it is no rival that was named"


def test_protocols_are_never_averaged(sets: list[leaderboard.Board]) -> None:
    older = [replace(board, protocol=1) if board.benchmark == "phone" else board for board in sets]
    found, notes = leaderboard.overviews(older)
    assert found[0].sets == {"machines": ["engines"], "motion": ["watch2"]}
    assert "Of an older protocol than 2, and so left out: phone." in notes


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_the_overview_fits_the_terminal(sets: list[leaderboard.Board], width: int) -> None:
    shown = leaderboard.render_overviews(*leaderboard.overviews(sets), "table", width)
    assert max(map(len, shown.splitlines())) <= width
    assert "late_average" in shown
    assert "mean rank" in shown


def test_the_overview_in_every_format(sets: list[leaderboard.Board]) -> None:
    found = leaderboard.overviews(sets)
    lines = list(csv.DictReader(io.StringIO(leaderboard.render_overviews(*found, "csv"))))
    content = json.loads(leaderboard.render_overviews(*found, "json"))
    assert len(lines) == sum(len(o["rows"]) for o in content["overviews"]) == 2 * 4
    assert float(lines[0]["rank"]) == content["overviews"][0]["rows"][0]["rank"]
    for fmt in ("markdown", "latex", "html"):
        assert "mean rank" in leaderboard.render_overviews(*found, fmt)
    with pytest.raises(UsageError, match="did you mean csv"):
        leaderboard.render_overviews(*found, "cvs")
    with pytest.raises(UsageError, match="film is a complete row of no benchmark"):
        leaderboard.overviews(sets, "film")


def command(results: Path, *words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "fusionbench", "leaderboard", "--results", str(results), *words]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def test_the_overview_and_the_headlines_as_a_user_types_them(folder: Path) -> None:
    done = command(folder, "--across")
    assert done.returncode == 0, done.stderr
    assert "Headline sets (no choice has seen them), clean" in done.stdout
    refused = command(folder, "--headlines")
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1
    assert "headlines.toml" in refused.stderr
    other = folder / "development.toml"
    other.write_text("[[claim]]\nbenchmark = 'phone'\nrow = 'jmt'\nagainst = 'concat'\n")
    said = command(folder, "--headlines", str(other))
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith("phone, clean: jmt")
    assert "headlines" not in said.stdout, "what any other file names is no headline"


# Headlines


def test_headline_claims_are_one_family_over_benchmarks(sets: list[leaderboard.Board]) -> None:
    named = [claims.Claim(name, "jmt", "concat") for name in ("phone", "watch2", "engines")]
    named += [claims.Claim("phone", "late_average", "concat", "one modality missing")]
    found = leaderboard.headlines(sets, named)
    ps = {str(n): h.verdict.p for n, h in enumerate(found)}
    by_hand = stats.holm_steps(ps)
    for number, headline in enumerate(found):
        own = next(b for b in sets if b.benchmark == headline.claim.benchmark).row(headline.claim.row)
        table = own.verdicts.get(headline.claim.measure)
        expected = max(by_hand[str(number)][0], table.adjusted if table and table.adjusted else 0)
        assert headline.verdict.adjusted == pytest.approx(expected), "the weaker of the two families stands"
    assert found[0].sentence.startswith("phone, clean: jmt is worse than concat by")
    assert "All 4 are one family" in leaderboard.headline_sentences(found)[-1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "one .*claim"),
        ("[[claim]]\nbenchmark = 'phone'\nrow = 'jmt'\n", "lacks against"),
        ("[[claim]]\nbenchmark = 'phone'\nrow = 'jmt'\nagainst = 'concat'\nmesure = 'score'\n", "did you mean measure"),
        ("[[claim]]\nbenchmark = 'phone'\nrow = 'jmt'\nagainst = 'concat'\nmeasure = 'noise'\n", "no measure"),
        ("[[claim]]\nbenchmark = 'phone'\nrow = 'fused'\nagainst = 'concat'\n", "neither against anything else"),
        ("[[claim]]\nbenchmark = 'phon'\nrow = 'jmt'\nagainst = 'concat'\n", "did you mean phone"),
        ("[[claim]]\nbenchmark = 'phone'\nrow = 'jm'\nagainst = 'concat'\n", "did you mean jmt"),
        ("[[claim]]\nbenchmark = 'phone'\nrow = 'fused'\nagainst = 'single'\n", "has no fused and single rows"),
        ("claim = 3\n", "one .*claim"),
        ("[[claim]\n", "headlines.toml: "),
    ],
)
def test_a_wrong_claim_is_one_line(sets: list[leaderboard.Board], tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "headlines.toml").write_text(content)
    with pytest.raises(UsageError, match=said) as caught:
        leaderboard.headlines(sets, leaderboard.read_claims(tmp_path / "headlines.toml"))
    assert "\n" not in str(caught.value)


# Nothing contradicts anything


@pytest.mark.parametrize("number", range(4))
def test_no_printed_sentence_contradicts_another(tmp_path: Path, number: int) -> None:
    """Interval, p, what would be found, margin and decision of random boards, as values and as they are printed."""
    rng = np.random.default_rng(number)
    reading = {**READING, "margin": float(rng.choice([0.005, 0.03, 0.15]))}
    rows = {"concat": 0.75, "jmt": 0.75 + 0.1 * rng.standard_normal(), "gated": 0.75 + 0.03 * rng.standard_normal()}
    rows["film"] = 0.75
    for fuser, right in rows.items():
        right = min(0.97, right)
        write(tmp_path, fuser, {"clean": right, "missing:acc": right - 0.15}, reading=reading, table=["missing:acc"])
    board = only(tmp_path)
    level, margin = 0.05, board.reads.margin
    assert margin is not None
    shown = "\n".join(leaderboard.render(board, columns=["all"]).splitlines())
    for measure, v in leaderboard.findings(board):
        significant = v.decision in ("better", "worse")
        assert v.adjusted is not None
        assert v.adjusted_low is not None
        assert v.adjusted_high is not None
        assert v.difference is not None
        assert v.detectable is not None
        assert significant == (v.adjusted < level)
        assert significant == (not v.adjusted_low < 0 < v.adjusted_high)
        assert v.equivalent == (-margin < v.adjusted_low and v.adjusted_high < margin)
        assert v.adjusted_low <= v.difference <= v.adjusted_high
        if v.decision == "better":
            assert v.difference > 0
        if v.decision == "undecided":
            assert not v.equivalent
            assert abs(v.difference) < v.detectable, "what exceeds what can be shown is shown"
            if v.attainable:
                assert "unattainable" not in leaderboard.sentence(board, v)
        said = leaderboard.sentence(board, v)
        assert ("within" in said and "equivalent within" in said) == v.equivalent
        row = board.row(v.a)
        if measure == board.measure:
            cell = columns_of(board)["difference"].cell(board, columns_of(board)["difference"].value(board, row))
            assert cell.endswith(v.decision)
            assert cell in shown
            assert (columns_of(board)["within-margin"].value(board, row) == "yes") == v.equivalent
        if (numbers := re.search(r"([-+]?[\d.]+) \[([-\d.]+), ([-\d.]+)\]", said)) is not None:
            low, high = float(numbers[2]), float(numbers[3])
            assert low <= abs(float(numbers[1])) or low <= float(numbers[1]) <= high
            assert not (significant and low < 0 < high), said
        if (p := re.search(r"p = (\.\d+)", said)) is not None:
            assert (float(p[1]) < level) == significant
    places = {row.label: row.places[board.measure] for row in board.ranked if board.measure in row.places}
    for row in board.ranked:
        v = row.verdicts.get(board.measure)
        if v is not None and v.decision == "better":
            assert places[row.label].low <= places["concat"].low
    unattainable = re.search(r"unattainable with these people in (all|\d+) ?(?:of (\d+) )?comparison", flat(shown))
    count = sum(not v.attainable and not v.equivalent for m, v in leaderboard.findings(board) if m == board.measure)
    total = sum(m == board.measure for m, _ in leaderboard.findings(board))
    printed = 0 if unattainable is None else total if unattainable[1] == "all" else int(unattainable[1])
    assert printed == count


def test_a_number_of_one_is_spelled_so() -> None:
    assert text.counted(1, "set") == "1 set"
    assert set(across.ROLES) | {"exhibit"} == {"headline", "development", "synthetic", "exhibit"}

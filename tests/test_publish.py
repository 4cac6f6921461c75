"""Published records: small, the same bytes again, read as if they were the originals; differences and commands."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionbench import harness, leaderboard, metrics
from fusionbench.cli.flags import numbers
from fusionbench.conditions import Condition
from fusionbench.errors import UsageError
from fusionbench.jobs import plan_runs
from fusionbench.leaderboard.commands import command
from fusionbench.leaderboard.readme import readme
from fusionbench.records import Predictions, Record, Run, compare, lines, publish, serialised, store
from fusionbench.records.evidence import TOLERANCE, condensed, gather
from fusionbench.records.packing import EXACT, Packed, pack
from fusionbench.records.rows import boards
from fusionbench.records.types import parse

#: Metrics of a set whose groups have several steps, and of one where each has a single step.
NAMES = {
    "classify": ("accuracy", "nll"), "regress": ("ccc", "mae"), "rank": ("auroc", "accuracy"),
    "single classify": ("accuracy", "nll"), "single regress": ("ccc", "mae"), "single rank": ("auroc", "accuracy"),
}  # fmt: skip
KINDS = list(NAMES)
CONDITIONS = ("clean", "missing:face", *(f"noise:all:{s}" for s in range(1, 6)))


def answers(kind: str, fold: int, seed: int, quality: float = 2.0, people: int = 8, each: int = 12) -> Predictions:
    """Test answers of one fold of two, damaged by severity; some steps have no label."""
    data = np.random.default_rng(fold)
    groups = np.repeat([f"p{2 * g + fold:02d}" for g in range(people // 2)], each)
    ids = np.array([f"{g}-{i:03d}" for i, g in enumerate(groups)])
    single = kind.startswith("single")
    mask = data.random((len(ids), 1 if single else 3)) > 0.2
    y = data.standard_normal((*mask.shape, 2)) if kind.endswith("regress") else data.integers(0, 5, mask.shape)
    signal = y if kind.endswith("regress") else np.eye(5)[y]
    noise = np.random.default_rng([fold, seed]).standard_normal(signal.shape)
    kept = {c: quality * signal * (1 - 0.1 * n) + noise for n, c in enumerate(CONDITIONS)}
    return Predictions(ids, ids if single else groups, y, mask, {c: a.astype(np.float32) for c, a in kept.items()})


def write(
    results: Path, fuser: str, kind: str = "classify", seeds: Iterable[int] = (0, 1), quality: float = 2.0, **how: Any
) -> list[Record]:
    made = []
    for fold in (0, 1):
        for seed in seeds:
            given = {"benchmark": {}, "train": {"lr": [1e-3], "steps": 9}, "fuser": {"width": 8, "name": "a b"}}
            run = Run("toy", fuser, {"face": "linear", "acc": "linear"}, fold, seed, given)
            kept = answers(kind, fold, seed, quality)
            scores = {c: metrics.evaluate(NAMES[kind], a, kept.y, kept.y_mask) for c, a in kept.answers.items()}
            fields: dict[str, Any] = {
                "code": {"benchmark": "b", "fuser": fuser, "backbone.face": "l", "backbone.acc": "l"}, "data": "d",
                "protocol": 1, "metrics": list(NAMES[kind]), "scores": scores, "complete": {"folds": 2, "seeds": 2},
                "history": {"0.001": [{"step": 1.0, "loss": 2.0, "score": 0.1}] * 50}, "versions": {"numpy": "2"},
                "created": "2026-01-01T00:00:00+00:00", "chosen": {"lr": 1e-3},
            }  # fmt: skip
            made.append(Record(run, "done", **{**fields, **how}))
            store.save(results, made[-1], kept, None)
    return made


def bytes_of(results: Path) -> dict[str, bytes]:
    names = {store.PUBLISHED, store.EVIDENCE}
    return {str(p.relative_to(results)): p.read_bytes() for p in sorted(results.rglob("*")) if p.name in names}


def clone(results: Path, to: Path) -> Path:
    """What a fresh clone of the repository has."""
    for name, content in bytes_of(results).items():
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        (to / name).write_bytes(content)
    return to


@pytest.mark.parametrize("kind", KINDS)
def test_a_clone_makes_the_same_table(tmp_path: Path, kind: str) -> None:
    results = tmp_path / "a"
    write(results, "concat", kind)
    write(results, "jmt", kind, quality=3.0)
    paths = publish.publish(results, "toy")
    assert [str(p.relative_to(results)) for p in paths] == [
        f"toy/{f}/{name}" for f in ("concat", "jmt") for name in (store.PUBLISHED, store.EVIDENCE)
    ]
    copy = clone(results, tmp_path / "b")
    (mine,), (theirs,) = (leaderboard.build(store.load(r), r) for r in (results, copy))
    for row in mine.rows:
        other = theirs.row(row.label)
        places = [{m: (p.low, p.high) for m, p in one.places.items()} for one in (row, other)]
        assert places[0] == places[1]
        close = 2e-4 if "single" in kind or "rank" in kind else 1e-6  # few levels, or sums
        for measure in ("score", "damaged"):
            assert row.score(measure) == pytest.approx(other.score(measure), abs=close)
            assert row.bounds(measure) == pytest.approx(other.bounds(measure), abs=close)
        assert row.conditions == pytest.approx(other.conditions, abs=close)
        assert row.runs == other.runs


def test_published_runs_are_found_and_read_one_by_one(tmp_path: Path) -> None:
    made = write(tmp_path / "a", "concat")
    publish.publish(tmp_path / "a", "toy")
    results = clone(tmp_path / "a", tmp_path / "b")
    for old in made:
        new = store.find(results, old.run)
        assert new is not None
        assert new.same_identity(old)
        assert (dict(new.scores), new.history) == (dict(old.scores), {})
        assert list(new.run.backbones) == ["face", "acc"], "the order of modalities says which is the first"
        assert store.predictions(results, old.run) is None
        kept, whole = store.evidence(results, old.run), store.evidence(tmp_path / "a", old.run)
        assert kept is not None
        assert whole is not None
        assert kept.conditions == whole.conditions
        for part in ("groups", "counts"):
            np.testing.assert_array_equal(getattr(kept, part), getattr(whole, part))
        np.testing.assert_array_equal(kept.of("macro_f1"), whole.of("accuracy"))
        np.testing.assert_allclose(kept.of("nll"), whole.of("nll")[:1], rtol=1e-6)
        assert kept.of("brier") is None
    assert store.find(results, replace(made[0].run, seed=77)) is None
    assert store.evidence(results, replace(made[0].run, seed=77)) is None


def test_a_file_of_its_own_comes_before_what_is_published(tmp_path: Path) -> None:
    made = write(tmp_path, "concat")
    publish.publish(tmp_path, "toy")
    changed = replace(made[0], device="mine")
    store.save(tmp_path, changed, None, None)
    found = {r.run.id: r.device for r in store.load(tmp_path)}
    assert len(found) == 4
    assert found[made[0].run.id] == "mine"
    assert getattr(store.find(tmp_path, made[0].run), "device", None) == "mine"
    own = store.path_of(tmp_path, made[0].run)
    own.with_suffix(".npz").unlink()
    assert store.evidence(tmp_path, made[0].run) is None, "published evidence may be of other code than this record"
    own.unlink()
    assert store.evidence(tmp_path, made[0].run) is not None


def test_the_same_records_give_the_same_bytes_even_from_what_is_published(tmp_path: Path) -> None:
    for kind in KINDS:
        results = tmp_path / kind
        write(results, "concat", kind)
        publish.publish(results, "toy")
        before = bytes_of(results)
        publish.publish(results, "toy")
        assert bytes_of(results) == before
        copy = clone(results, tmp_path / f"{kind}-copy")
        publish.publish(copy, "toy")
        assert bytes_of(copy) == before


def test_new_seeds_join_what_is_published(tmp_path: Path) -> None:
    write(tmp_path / "a", "concat")
    publish.publish(tmp_path / "a", "toy")
    results = clone(tmp_path / "a", tmp_path / "b")
    write(results, "concat", seeds=[2])
    publish.publish(results, "toy")
    copy = clone(results, tmp_path / "c")
    assert sorted({r.run.seed for r in store.load(copy)}) == [0, 1, 2]
    assert all(store.evidence(copy, r.run) is not None for r in store.load(copy))


def test_only_finished_rows_of_the_newest_code_are_published(tmp_path: Path) -> None:
    write(tmp_path, "concat")
    write(tmp_path, "short", seeds=[0])
    write(tmp_path, "hasty", marks=["quick"])
    for r in write(tmp_path, "old"):
        store.path_of(tmp_path, r.run).unlink()
        run = replace(r.run, hparams={**r.run.hparams, "fuser": {"width": 9}})
        kept = store.predictions(tmp_path, r.run)
        store.save(tmp_path, replace(r, run=run, code={**r.code, "fuser": "before"}), kept, None)
    write(tmp_path, "old", created="2026-05-01T00:00:00+00:00")
    publish.publish(tmp_path, "toy")
    found = list(store.load(clone(tmp_path, tmp_path / "copy")))
    assert {r.run.fuser for r in found} == {"concat", "old"}
    assert {r.code["fuser"] for r in found} == {"concat", "old"}


def test_other_settings_of_a_benchmark_are_published_beside_the_default_and_older_data_are_not(tmp_path: Path) -> None:
    def made(people: int, data: str, day: int) -> None:
        for r in write(tmp_path, "concat", created=f"2026-06-{day:02}T00:00:00+00:00"):
            kept = store.predictions(tmp_path, r.run)
            store.path_of(tmp_path, r.run).unlink()
            run = replace(r.run, hparams={**r.run.hparams, "benchmark": {"people": people}, "train": {"day": day}})
            store.save(tmp_path, replace(r, run=run, data=data), kept, None)

    made(40, "before", 1)
    made(40, "now", 2)
    made(240, "other", 3)  # the newest, and no reason to drop the default one
    publish.publish(tmp_path, "toy")
    found = list(store.load(clone(tmp_path, tmp_path / "copy")))
    assert {(r.run.hparams["benchmark"]["people"], r.data) for r in found} == {(40, "now"), (240, "other")}


def test_publishing_is_small(tmp_path: Path) -> None:
    for kind, share in (("classify", 0.1), ("regress", 0.25), ("single classify", 0.45), ("single regress", 0.6)):
        results = tmp_path / kind
        write(results, "concat", kind)
        size = sum(p.stat().st_size for p in results.rglob("*.npz"))
        publish.publish(results, "toy")
        published = (results / "toy/concat" / store.EVIDENCE).stat().st_size
        assert published < share * size, f"{kind}: {published} of {size} bytes"


def test_what_the_runs_of_a_row_share_stands_once(tmp_path: Path) -> None:
    made = write(tmp_path, "concat", seeds=range(5))
    text = lines.written(made)
    assert len(text.splitlines()) == 1 + len(made)
    for shared in ('"benchmark":"toy"', '"versions"', '"created"', "noise:all:3"):
        assert text.count(shared) == 1, shared
    rows: dict[str, Any] = {}
    back = [r for line in text.splitlines() if (r := lines.read(line, rows)) is not None]
    assert list(map(serialised, back)) == list(map(serialised, sorted(made, key=lambda r: r.run.id)))


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_lines_keep_every_record_to_the_last_digit(data: st.DataObject) -> None:
    """Whatever differs: numbers that look alike (1, 1.0, true), undefined ones, other keys, another order of keys."""
    value = st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([1, 1.0, 0.1])
    scores = st.dictionaries(st.sampled_from(["a", "b"]), value, min_size=1)
    names = st.sampled_from(["clean", "noise:all:1", "gap:all:1", "gap:all:2", "gap:all:3"])
    records = []
    for seed in range(data.draw(st.integers(1, 4))):
        run = Run("toy", "concat", {"face": "linear"}, 0, seed, {"fuser": {"width": data.draw(value)}}, "search")
        found = data.draw(st.dictionaries(names, scores))
        records.append(Record(run, "done", {}, "d", 1, ["a"], scores=found, how=data.draw(st.sampled_from(["", "x"]))))
    rows: dict[str, Any] = {}
    back = [r for line in lines.written(records).splitlines() if (r := lines.read(line, rows)) is not None]
    assert sorted(map(serialised, back)) == sorted(map(serialised, records))


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 1000),
    scale=st.sampled_from([1e-3, 1.0, 50.0, 1e6]),
    shift=st.sampled_from([0.0, 1.0, 1e4]),
)
def test_packing_moves_no_score(kind: str, seed: int, scale: float, shift: float) -> None:
    """Sums are exact or nearly so; ranks and answers in few levels move their metric by less than is printed."""
    kept = answers(kind, 0, seed)
    moved = {c: a * np.float32(scale) + np.float32(shift) for c, a in kept.answers.items()}
    kept = replace(kept, y=kept.y + shift if kind.endswith("regress") else kept.y, answers=moved)
    whole = gather(kept)
    part = condensed(whole, NAMES[kind])
    back = Packed(pack({"a": part, "b": part}, NAMES[kind]))["b"]
    close = TOLERANCE if "single" in kind or "rank" in kind else EXACT
    for name in NAMES[kind]:
        old, new = whole.pooled(name), back.pooled(name)
        assert len(new) in (1, len(CONDITIONS))
        checked = len(new) if name == NAMES[kind][0] else 1  # under damage the first metric alone is kept
        np.testing.assert_allclose(new[:checked], old[:checked], rtol=0, atol=close)
    assert len(back.pooled(NAMES[kind][0])) == len(CONDITIONS)


def test_ranks_are_stored_in_a_byte_under_damage() -> None:
    kept = answers("rank", 0, 0, people=20, each=40)
    arrays = pack({"a": condensed(gather(kept), ["auroc"])}, ["auroc"])
    assert arrays["0/auroc"].shape == (2, 5, 1, len(CONDITIONS), kept.y_mask.sum())
    assert arrays["0/auroc"].dtype == np.uint8
    low, high = arrays["0/auroc"]
    assert high[:, 0, 0].max() > 0, "clean ranks are whole"
    assert high[:, 0, 1:].max() == 0
    assert low[:, 0, 1:].max() == 255


def test_numbers_that_single_precision_would_move_are_stored_whole() -> None:
    kept = answers("regress", 0, 0)
    far = {c: a.astype(float) * 1e-4 + 100 for c, a in kept.answers.items()}
    whole = gather(replace(kept, y=kept.y * 1e-4 + 100, answers=far))
    arrays = pack({"a": condensed(whole, ["ccc"])}, ["ccc"])
    assert arrays["0/ccc"].shape[0] == 8
    np.testing.assert_array_equal(Packed(arrays)["a"].of("ccc"), whole.of("ccc"))


def test_near_ties_keep_their_class() -> None:
    """In half precision the two highest outputs are equal; the class must not change."""
    y = np.zeros((64, 1), int)
    pred = np.full((64, 1, 3), 1.0, np.float32)
    pred[..., 2] += np.linspace(1e-5, 3e-4, 64, dtype=np.float32)[:, None]
    names = np.array([f"{i}" for i in range(64)])
    arrays = pack({"a": gather(Predictions(names, names, y, y == 0, {"clean": pred}))}, ["accuracy"])
    assert arrays["a/clean"].dtype == np.float16
    assert (arrays["a/clean"].argmax(-1) == 2).all()


def test_records_of_the_first_format_are_still_read(tmp_path: Path) -> None:
    made = write(tmp_path, "concat")
    for r in made:
        store.path_of(tmp_path, r.run).unlink()
    text = "".join(serialised(replace(r, history={})) + "\n" for r in made)
    (tmp_path / "toy/concat" / store.PUBLISHED).write_text(text)
    assert [serialised(r) for r in store.load(tmp_path)] == sorted(text.splitlines(), key=lambda t: parse(t).run.id)


def test_the_readme_is_computed_from_what_is_published_alone(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing is published"):
        readme(tmp_path)
    write(tmp_path / "a", "concat")
    write(tmp_path / "a", "jmt", quality=4.0, changes=["fuser.width=8"])
    publish.publish(tmp_path / "a", "toy")
    text = readme(tmp_path / "a")
    assert "## toy" in text
    assert "fusionbench run --benchmark toy --fuser jmt --fuser.width 8\n" in text
    write(tmp_path / "a", "unpublished")
    assert readme(tmp_path / "a") == text
    assert readme(clone(tmp_path / "a", tmp_path / "b")) == text


def test_what_cannot_be_published_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no benchmark with records"):
        publish.publish(tmp_path, "toy")
    made = write(tmp_path, "concat", seeds=[0])
    with pytest.raises(UsageError, match="no row of toy is finished"):
        publish.publish(tmp_path, "toy")
    with pytest.raises(UsageError, match="did you mean toy"):
        publish.publish(tmp_path, "toyy")
    write(tmp_path, "concat", seeds=[1])
    store.path_of(tmp_path, made[0].run).with_suffix(".npz").unlink()
    with pytest.raises(UsageError, match=f"run {made[0].run.id}.*has no stored answers"):
        publish.publish(tmp_path, "toy")
    assert not bytes_of(tmp_path)


def test_damaged_published_files_are_named_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = write(tmp_path / "a", "concat")
    publish.publish(tmp_path / "a", "toy")
    results = clone(tmp_path / "a", tmp_path / "b")
    path = results / "toy/concat" / store.PUBLISHED
    whole = path.read_text().splitlines()
    path.write_text("\n".join([*whole[:2], whole[2][:40], *whole[3:]]) + "\n")
    assert len(list(store.load(results))) == 3
    assert f"line 3 of {path} is damaged" in capsys.readouterr().err
    with pytest.raises(UsageError, match="damaged or repeated line"):
        publish.publish(results, "toy")
    assert len(path.read_text().splitlines()) == 5
    path.write_text("\n".join([whole[0][:40], *whole[1:]]) + "\n")
    assert list(store.load(results)) == []
    assert "line 2 of" in (said := capsys.readouterr().err)
    assert "the line of its row is damaged or gone" in said
    (results / "toy/concat" / store.EVIDENCE).write_bytes(b"PK\x03\x04 not an archive")
    assert store.evidence(results, made[0].run) is None
    assert "is damaged" in capsys.readouterr().err


def test_differences_between_records_are_named(tmp_path: Path) -> None:
    a, b, *_ = write(tmp_path, "concat")
    assert compare.diff(a, a) == [
        "Run, code, data, protocol and versions are the same.",
        f"All {2 * len(CONDITIONS)} shared scores are the same to the last digit.",
    ]
    lines = compare.diff(a, b)
    assert lines[0] == "seed: 0 against 1."
    assert any(line.startswith("Clean accuracy: ") for line in lines)
    other = replace(
        b, run=replace(b.run, hparams={**b.run.hparams, "fuser": {"width": 16}}), versions={"numpy": "3"},
        code={**b.code, "fuser": "edited"}, scores={"clean": dict(b.scores["clean"])},
    )  # fmt: skip
    lines = compare.diff(b, other)
    assert "fuser.width: 8 against 16." in lines
    assert "fuser.name: a b against nothing." in lines
    assert "code of fuser: concat against edited." in lines
    assert "version of numpy: 2 against 3." in lines
    assert lines[-2].startswith("Only one of them has missing:face, noise:all:1")
    assert lines[-1] == "All 2 shared scores are the same to the last digit."
    assert compare.diff(a, replace(a, protocol=2))[-1].startswith("The scores are not comparable")


def test_a_run_is_found_by_the_beginning_of_its_id(tmp_path: Path) -> None:
    made = write(tmp_path, "concat")
    assert compare.find(tmp_path, made[2].run.id[:10]).run == made[2].run
    with pytest.raises(UsageError, match="4 records begin with ''"):
        compare.find(tmp_path, "")
    with pytest.raises(UsageError, match="did you mean"):
        compare.find(tmp_path, made[0].run.id[:-1] + "z")


def test_a_number_came_back_if_it_is_within_its_interval(tmp_path: Path) -> None:
    old, *_ = write(tmp_path, "concat")
    kept = store.evidence(tmp_path, old.run)
    then = old.scores["clean"]["accuracy"]
    assert then is not None

    def again(score: float | None, **how: Any) -> tuple[bool, str]:
        return harness.is_reproduced(old, replace(old, scores={"clean": {"accuracy": score}}, **how), kept)

    assert again(then)[0]
    close, text = again(then - 0.005)
    assert close
    assert "within its interval [" in text
    far, text = again(then - 0.5)
    assert not far
    assert "outside" in text
    assert "code changed since" in again(then, code={})[1]
    assert not again(None, status="failed")[0]
    assert not harness.is_reproduced(old, replace(old, scores={"clean": {"accuracy": then - 0.005}}), None)[0]


def test_the_command_of_a_row_is_what_makes_it(tmp_path: Path) -> None:
    def said(**how: Any) -> list[str]:
        shutil.rmtree(tmp_path / "toy", ignore_errors=True)
        write(tmp_path, "jmt", **how)
        (entry,) = boards(list(store.load(tmp_path)))[0].rows
        return shlex.split(command(entry, list(map(Condition.parse, CONDITIONS))))

    plain = ["fusionbench", "run", "--benchmark", "toy", "--fuser", "jmt"]
    assert said() == plain
    changes = ["fuser.width=8", "fuser.name=a b", "train.lr=0.001", "backbone.acc=gru"]
    assert said(changes=changes)[6:] == [
        "--fuser.width", "8", "--fuser.name", "a b", "--train.lr", "0.001", "--backbone.acc", "gru",
    ]  # fmt: skip
    assert said(marks=["quick"], changes=["train.steps=9", "train.quick=True"])[6:] == ["--quick"]
    for seeds in ([0], [0, 1, 2], [0, 3]):
        words = said(seeds=seeds)
        assert numbers(words[words.index("--seeds") + 1], "seeds") == seeds
    more = {c: {"accuracy": 0.5} for c in ("clean", "chance", "lag:all:2")}
    assert said(scores=more)[6:] == ["--corruption", "lag:all:2"]


def test_what_others_published_is_shown_but_does_not_spare_a_run_of_ones_own(tmp_path: Path) -> None:
    from fusionbench import harness

    given = {"train": {"steps": 6, "interval": 6, "lr": (1e-3,)}}
    setup = harness.setup("toy_xor", "concat", given=given)
    runs = setup.runs()
    for _ in harness.execute(setup, runs, tmp_path, conditions=[], device="cpu"):
        pass
    publish.publish(tmp_path, "toy_xor")
    for path in tmp_path.glob("toy_xor/concat/*.json"):
        path.unlink()
    assert len(plan_runs(setup, runs, tmp_path, []).done) == len(runs)
    assert len(plan_runs(setup, runs, tmp_path, [], published=False).train) == len(runs)

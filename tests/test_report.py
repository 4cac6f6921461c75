"""The page: everything inside it, every number from the records, and alive in a real browser."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import CHROMIUM, Browser

from fusionbench import cli, leaderboard, metrics, report
from fusionbench.conditions import Condition
from fusionbench.errors import UsageError
from fusionbench.leaderboard.columns import known as columns_of
from fusionbench.records import Predictions, Record, Run, store
from fusionbench.report import advice, figures, opening, pages, svg

CONDITIONS = ("clean", "missing:acc", "missing:gyro", *(f"noise:{t}:{s}" for t in ("acc", "gyro") for s in range(1, 6)))


def write(
    results: Path, fuser: str, quality: float, modality: str | None = None, benchmark: str = "watch", **how: Any
) -> None:
    """A row of one fold and three seeds; what a modality alone is worth goes with the damage to it."""
    people = np.repeat([f"p{g:02d}" for g in range(10)], 8)
    ids, y = np.arange(len(people)).astype(str), np.random.default_rng(3).integers(0, 4, (len(people), 1))
    mask = np.ones(y.shape, bool)
    for seed in range(3):
        given = {"modality": modality} if modality else {"width": 64}
        run = Run(benchmark, fuser, {"acc": "tcn", "gyro": "gru"}, 0, seed,
                  {"benchmark": {}, "train": {"lr": [0.001]}, "fuser": given})  # fmt: skip
        noise = np.random.default_rng([seed, *map(ord, fuser)]).standard_normal((len(people), 1, 4))
        kept = {}
        for condition in CONDITIONS:
            kept[condition] = (quality * share(condition, modality) * np.eye(4)[y] + noise).astype("f4")
        scores: dict[str, Mapping[str, float | None]] = {
            c: metrics.evaluate(["accuracy"], a, y, mask) for c, a in kept.items()
        }
        fields: dict[str, Any] = {
            "code": {"benchmark": "b", "fuser": fuser, "backbone.acc": "t", "backbone.gyro": "g"}, "data": "d",
            "protocol": 1, "metrics": ["accuracy"], "scores": {**scores, "chance": {"accuracy": 0.25}},
            "chosen": {"lr": 1e-3, "validation": scores["clean"]["accuracy"]}, "complete": {"folds": 1, "seeds": 3},
            "parameters": {"trained": 1000 * len(fuser), "allocated": 9000}, "seconds": {"train": 2.0}, "device": "box",
            "changes": [f"fuser.modality={modality}"] if modality else [], "created": "2026-01-01T00:00:00+00:00",
        }  # fmt: skip
        sex = {"sex": np.where(np.char.endswith(people.astype(str), "1"), "f", "m")} if benchmark == "watch" else {}
        store.save(
            results, Record(run, "done", **{**fields, **how}), Predictions(ids, people, y, mask, kept, sex), None
        )


def share(condition: str, modality: str | None) -> float:
    """What a condition leaves of the signal; a model of one modality loses nothing where another is damaged."""
    if condition == "clean":
        return 1.0
    found = Condition.parse(condition)
    if modality and modality not in found.modalities:
        return 1.0
    return 0.3 if found.name == "missing" else 1 - 0.15 * found.level


def boards(results: Path, benchmark: str = "*") -> list[leaderboard.Board]:
    return leaderboard.build(store.load(results, benchmark), results, here=None)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    for fuser, quality in (("concat", 2.0), ("jmt", 5.0), ("late_average", 1.8)):
        write(folder, fuser, quality)
    write(folder, "unimodal", 1.9, "acc")
    write(folder, "unimodal", 0.8, "gyro")
    write(folder, "hasty<b>", 9.0, marks=["quick"])
    write(folder, "concat", 2.0, benchmark="other")
    write(folder, "gated", 2.0, benchmark="other", protocol=2, created="2026-02-01T00:00:00+00:00")
    return folder


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three data sets: `jmt` is better on all, `bad` worse, `film` as good as the reference."""
    folder = tmp_path_factory.mktemp("many")
    for benchmark in ("alpha", "beta", "gamma"):
        for fuser, quality in (("concat", 2.0), ("jmt", 5.0), ("bad", 0.9), ("film", 2.0)):
            write(folder, fuser, quality, benchmark=benchmark)
    return folder


@pytest.fixture(scope="module")
def page(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "deep" / "report.html"
    assert report.write(boards(results), out, results=results) == [out]
    return out


class Reader(HTMLParser):
    """Checks that tags are balanced; collects what an element could fetch, and ids."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag not in ("meta", "input", "br", "link", "img", "wbr"):
            self.open.append(tag)
        if tag in ("link", "img", "iframe", "object", "embed") or "src" in found:
            self.fetched.append(tag)
        for name in ("href", "xlink:href"):
            self.links += [str(found[name])] if found.get(name) else []
        self.ids += [str(found["id"])] if found.get("id") else []

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag) if self.open and self.open[-1] == tag else None


def unpacked(page: str, name: str) -> dict[str, Any]:
    """The numbers of a board, as the page's script reads them."""
    part = page[re.search(f'<(article|details) class="benchmark" id="{name}"', page).start() :]  # type: ignore[union-attr]
    found = re.search(r'<script type="application/gzip" class="data">([^<]*)<', part)
    assert found
    return dict(json.loads(gzip.decompress(base64.b64decode(found[1]))))


def test_the_page_stands_alone_and_its_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    reader = Reader()
    reader.feed(text)
    assert not reader.open
    assert not reader.fetched
    assert all(link.startswith("#") for link in reader.links)
    assert {link[1:] for link in reader.links} <= set(reader.ids)
    assert not re.search(r"@import|url\(", text)
    assert "hasty&lt;b&gt;" in text
    assert "hasty<b>" not in text
    assert len(reader.ids) == len(set(reader.ids))


def test_the_page_is_the_same_twice(results: Path, page: Path, tmp_path: Path) -> None:
    report.write(leaderboard.build(list(store.load(results))[::-1], results, here=None), tmp_path / "again.html",
                 results=results)  # fmt: skip
    assert (tmp_path / "again.html").read_bytes() == page.read_bytes()


def test_every_row_has_its_settings_its_runs_and_its_command(results: Path, page: Path) -> None:
    text = page.read_text()
    known = [unpacked(text, name)["details"] for name in ("watch", "other", "other-2")]
    runs = {run for details in known for row in details.values() for run in row["runs"]}
    assert runs == {r.run.id for r in store.load(results)}
    assert "fusionbench run --benchmark watch --fuser unimodal --fuser.modality gyro" in text
    assert "fusionbench run --benchmark watch --fuser jmt<" in text
    gyro = known[0][f"row-{boards(results, 'watch')[0].row('unimodal (gyro)').runs[0]}"]
    assert ["fuser.modality", "gyro", True] in gyro["settings"]
    for board in boards(results):
        for note in leaderboard.footnotes(board):
            assert note in text.replace("&#39;", "'")


def test_figures_are_written_for_papers_with_the_runs_that_they_show(results: Path, tmp_path: Path) -> None:
    chosen = list(store.load(results, "watch"))
    found = leaderboard.build(chosen, results, here=None)
    paths = report.write_figures(found, tmp_path / "figures")
    names = sorted(p.name for p in paths)
    kinds = ("curves", "missing", "pareto", "scores", "shapley")
    assert names == sorted(f"watch-{kind}.{end}" for kind in kinds for end in ("pdf", "png", "svg"))
    shown = {r.run.id for r in chosen if r.run.fuser == "jmt"}
    for path in paths:
        assert path.stat().st_size > 2000
        if path.suffix != ".pdf":  # there the text is compressed
            content = path.read_bytes().decode("latin-1")
            assert all(run in content for run in shown), path.name
    again = report.write_figures(found, tmp_path / "again")
    assert [p.read_bytes() for p in paths] == [p.read_bytes() for p in again]


def test_the_front_holds_what_nothing_cheaper_beats() -> None:
    rng = np.random.default_rng(0)
    points = [(float(c), float(s)) for c, s in rng.integers(0, 12, (40, 2))]
    kept = {points[n] for n in figures.front(points)}
    slow = {p for p in points if not any(q != p and q[0] <= p[0] and q[1] >= p[1] for q in points)}
    assert kept == slow


def test_shapley_needs_every_subset_and_sums_to_the_gain(results: Path) -> None:
    board = boards(results, "watch")[0]
    row = board.row("jmt")
    values = figures.shapley(board, row)
    assert values is not None
    assert sum(values.values()) == pytest.approx((row.clean or 0.0) - 0.25)
    del row.conditions[Condition("missing", ("acc",))]
    assert figures.shapley(board, row) is None


def test_advice_names_a_fuser_and_when_to_switch_a_sensor_off(results: Path) -> None:
    board = boards(results, "watch")[0]
    choice = advice.recommended(board)
    assert choice is not None
    assert choice.places["damaged"].tier == 1
    lines = advice.sentences(board)
    assert lines[0].startswith(f"Take {choice.label}: ")
    for family, at in choice.robustness.break_even.items():
        if family.name == "noise" and at is not None:
            (line,) = [x for x in lines if x.startswith(f"noise on {family.modalities[0]}")]
            assert (f"break-even severity {at:.0f}: from there on" in line) == (0 < at < 9)
            assert ("keep" in line) == (at > 9)


def test_significant_differences_stand_apart_from_the_others(results: Path, page: Path) -> None:
    board, text = boards(results, "watch")[0], page.read_text().replace("&#39;", "'")
    text = text[text.index('class="benchmark" id="watch"') :]
    section = text[text.index("What the tests say") : text.index("Damage curves")]
    folded = re.findall(r"<details>.*?</details>", section, re.DOTALL)
    for finding in leaderboard.findings(board):
        said = leaderboard.sentence(board, finding.verdict)
        assert said in section
        assert any(said in part for part in folded) != finding.is_significant


# The answer


def test_the_answer_of_a_board_names_the_leader_its_evidence_and_what_to_avoid(results: Path) -> None:
    board = boards(results, "watch")[0]
    found = opening.answer(board)
    top = board.ranked[0]
    assert found.take[0] == advice.sentences(board)[0]
    assert f"score: {top.name}, " in found.take[1]
    assert leaderboard.sentence(board, top.verdicts["damaged"]) in found.take[2]
    for row in board.ranked:
        said = leaderboard.sentence(board, row.verdicts["damaged"]) if "damaged" in row.verdicts else ""
        is_worse = row.records.fuses and bool(said) and row.verdicts["damaged"].decision == "worse"
        assert (said in found.avoid) == is_worse
        place = row.places.get("damaged")
        assert (row in opening.below(board)) == (place is not None and place.tier > 1)


def test_a_reference_that_a_row_is_better_than_is_not_recommended(many: Path) -> None:
    """All pairs are a stricter family: the reference may be in the first tier and yet be beaten by its own test."""
    board = boards(many, "alpha")[0]
    base, top = board.row("concat"), board.row("jmt")
    assert top.verdicts["damaged"].decision == "better"
    base.places["damaged"] = replace(base.places["damaged"], tier=1)
    base.costs["trained"] = 1.0
    assert base not in advice.tied(board)
    assert advice.recommended(board) is top
    top.verdicts["damaged"] = replace(top.verdicts["damaged"], decision="undecided")
    assert base in advice.tied(board)


def test_the_answer_over_data_sets_counts_each_sets_own_verdicts(many: Path, tmp_path: Path) -> None:
    found = opening.over(boards(many))
    assert found is not None
    assert next(iter(found.rows)) == "jmt"
    assert "on any of the 3 data sets (3 headline): jmt." in found.answer.take[0]
    assert "Better than concat: jmt on alpha, beta and gamma" in found.answer.take[1]
    assert "bad on alpha, beta and gamma" in found.answer.avoid[0]
    assert "film on" not in found.answer.avoid[0]
    for line in opening.cells(found):
        for cell in line["cells"]:
            verdict = cell["row"].verdicts.get("damaged")
            assert (opening.SIGNS[verdict.decision] in cell["text"]) if verdict else cell["text"] == "reference"
    (tmp_path / "alpha").symlink_to(many / "alpha")
    alone = boards(tmp_path)
    assert opening.over(alone) is None
    report.write(alone, tmp_path / "r.html")
    assert advice.sentences(alone[0])[0] in (tmp_path / "r.html").read_text()


def test_an_older_protocol_stands_beside_and_is_never_counted(results: Path, page: Path, tmp_path: Path) -> None:
    known = boards(results)
    assert sorted(b.protocol for b in known if b.benchmark == "other") == [1, 2]
    text = page.read_text()
    assert "other (protocol 1)" in text
    assert "other (protocol 2)" in text
    assert opening.over(known) is None, "one board of the newest protocol is no overview"
    assert {line["board"].protocol for line in opening.overview(known, {})} == {1, 2}
    write(tmp_path, "concat", 2.0, benchmark="third", protocol=2)
    both = [*known, *boards(tmp_path)]
    found = opening.over(both)
    assert found is not None
    assert {b.benchmark for b in found.boards} == {"other", "third"}
    assert "Of an older protocol than 2, and so left out: watch." in found.notes


def test_quick_tries_alone_recommend_nothing(tmp_path: Path) -> None:
    write(tmp_path, "concat", 2.0, marks=["quick"])
    (board,) = boards(tmp_path)
    found = opening.answer(board)
    assert found.take[0] == "There is no complete row of a fuser yet."
    assert found.avoid == ["Nothing has been tested here, so nothing can be advised against."]
    report.write([board], tmp_path / "r.html", results=tmp_path)
    assert "concat (quick)" in (tmp_path / "r.html").read_text()


def test_subgroups_and_an_audit_are_shown_where_they_are_known(results: Path, tmp_path: Path) -> None:
    board = boards(results, "watch")
    report.write(board, tmp_path / "r.html", results=results)
    text = (tmp_path / "r.html").read_text()
    assert "<h4>by sex</h4>" in text
    assert "f (1)" in text
    own = tmp_path / "watch" / "audit.json"
    own.parent.mkdir()
    finding = {"question": "shuffled", "verdict": "suspicious", "evidence": "shuffled folds score .931"}
    audit = {
        "summary": "80 samples",
        "metric": "accuracy",
        "accepted": [],
        "suspicious": ["shuffled"],
        "findings": [finding],
    }
    own.write_text(json.dumps(audit))
    report.write(board, tmp_path / "r.html", results=tmp_path)
    text = (tmp_path / "r.html").read_text()
    assert "Suspicious: shuffled." in text
    assert "shuffled folds score .931" in text
    assert "have no attribute of the groups" in text, "the evidence is not there"
    own.write_text('{"summary": 1}')
    with pytest.raises(UsageError, match=r"audit.json is not what fusionbench audit --format json prints: it lacks"):
        report.write(board, tmp_path / "r.html", results=tmp_path)


def test_records_without_damage_or_answers_still_make_a_page(tmp_path: Path) -> None:
    write(tmp_path, "concat", 2.0, scores={"clean": {"accuracy": 0.5}})
    for r in store.load(tmp_path):
        store.path_of(tmp_path, r.run).with_suffix(".npz").unlink()
    report.write(boards(tmp_path), tmp_path / "r.html")
    report.write_figures(boards(tmp_path), tmp_path / "f")
    assert "no test has been made" in (tmp_path / "r.html").read_text()
    for r in store.load(tmp_path):
        store.save(tmp_path, Record(r.run, "failed", r.code, r.data, 1, r.metrics, error="NaN"), None, None)
    report.write(boards(tmp_path), tmp_path / "r.html")
    assert "There is no complete row" in (tmp_path / "r.html").read_text()


def test_wrong_input_is_one_line(results: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        report.write(boards(results, "other"), tmp_path / "file" / "r.html")


def test_the_command_writes_a_page_or_a_site_or_says_why_not(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["report", "-b", "other", "--results", str(results)]
    assert cli.cli.main(given, standalone_mode=False) == 0
    assert (tmp_path / "report.html").is_file()
    assert cli.cli.main([*given, "--site", "pages"], standalone_mode=False) == 0
    assert capsys.readouterr().out.splitlines() == ["report.html", "pages/index.html and 4 more pages"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="there are no records in empty; make some: fusionbench run --fuser concat"):
        cli.cli.main(["report", "--results", "empty"], standalone_mode=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "pages", "report.html"]


# Size and time


def test_what_a_page_grows_by_leaves_room_for_13_boards_of_18_rows() -> None:
    """Below 1.5 MB and 12 s: from a published board with four modalities, of which copies stand side by side."""
    published = Path(__file__).parent.parent / "results"
    found = boards(published, "stressid")[:1] if (published / "stressid").is_dir() else []
    if not found:
        pytest.skip("results/stressid is not published here")
    copies = [replace(found[0], benchmark=f"set_{n}", title=f"set_{n}") for n in range(3)]
    pages.single(copies[:1], None, lambda done, total: None)  # the templates are read
    start = time.process_time()
    one, three = (len(pages.single(copies[:n], None, lambda done, total: None)) for n in (1, 3))
    seconds = (time.process_time() - start) / 4
    each, rows = (three - one) / 2, len(found[0].rows)
    assert one + 12 * each * 18 / rows < 1.5e6, f"{each / 1e3:.0f} kB a board of {rows} rows"
    assert 13 * seconds * 18 / rows < 12, f"{seconds:.2f} s a board of {rows} rows"


# Labels


def test_labels_touch_their_points_and_nothing_else() -> None:
    rng = np.random.default_rng(1)
    for number in (1, 5, 30):
        points = [(float(x), float(y)) for x, y in rng.uniform((40, 10), (340, 210), (number, 2))]
        labels = [f"{'n' * int(n)}" for n in rng.integers(3, 24, number)]
        found = svg.placed(points, labels, (0, 0, 350, 220))
        boxes = {
            n: (left, base - svg.FONT, left + svg.width_of(label), base + 2)
            for n, (where, label) in enumerate(zip(found, labels, strict=True))
            if where is not None
            for left, base in [where]
        }
        assert boxes
        for n, a in boxes.items():
            assert a[0] >= 0
            assert a[2] <= 350
            near = min(abs(a[0] - points[n][0]), abs(a[2] - points[n][0]), abs((a[0] + a[2]) / 2 - points[n][0]))
            assert near < 8
            for m, b in boxes.items():
                assert m == n or a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] + 2 or b[3] <= a[1] + 2
            assert not any(a[0] < x < a[2] and a[1] + 2 < y < a[3] - 2 for x, y in points)


# The site


def links_of(folder: Path) -> Iterator[tuple[Path, str]]:
    for path in folder.rglob("*.html"):
        reader = Reader()
        reader.feed(path.read_text())
        assert not reader.open
        assert not reader.fetched
        yield from ((path, link) for link in reader.links)


@pytest.fixture(scope="module")
def site_folder(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "new" / "site"
    paths = report.write_site(boards(results), folder, results=results)
    assert all(path.is_file() for path in paths)
    return folder


def test_a_site_has_a_page_a_benchmark_and_a_page_a_method(site_folder: Path) -> None:
    names = {path.relative_to(site_folder).as_posix() for path in site_folder.rglob("*.html")}
    methods = ("concat", "gated", "hasty-b", "jmt", "late_average", "unimodal")
    benchmarks = ("watch", "other", "other-2")
    assert names == {"index.html", *(f"benchmark/{n}.html" for n in benchmarks), *(f"method/{n}.html" for n in methods)}
    assert not [path for path in site_folder.parent.iterdir() if path != site_folder], "nothing is left beside it"
    unimodal = (site_folder / "method" / "unimodal.html").read_text()
    assert "--fuser.modality gyro" in unimodal
    assert "--fuser jmt" not in unimodal


def test_every_link_of_a_site_is_relative_and_leads_somewhere(site_folder: Path) -> None:
    anchors: dict[Path, set[str]] = {}
    checked = 0
    for page, link in links_of(site_folder):
        assert not re.match(r"[a-z]+:|/", link), link
        where, _, anchor = link.partition("#")
        target = (page.parent / where).resolve() if where else page
        if target not in anchors:
            reader = Reader()
            reader.feed(target.read_text())
            anchors[target] = set(reader.ids)
        assert not anchor or anchor in anchors[target], f"{page.name}: {link}"
        checked += 1
    assert checked > 50


def test_a_site_replaces_a_site_and_nothing_else(results: Path, tmp_path: Path) -> None:
    found = boards(results, "other")[:1]
    folder = tmp_path / "site"
    folder.mkdir()  # an empty one may be taken
    report.write_site(found, folder)
    (folder / "index.html").write_text("older")
    report.write_site(found, folder)
    assert "older" not in (folder / "index.html").read_text()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"notes.txt is not of a site of ours"):
        report.write_site(found, folder)
    assert (folder / "notes.txt").read_text() == "mine"
    other = tmp_path / "thesis"
    (other / "deep").mkdir(parents=True)
    (other / "deep" / "chapter.tex").write_text("mine")
    with pytest.raises(UsageError, match="holds something else, and no site of ours"):
        report.write_site(found, other)
    (tmp_path / "file").write_text("")
    for name in ("file", "file/below"):
        with pytest.raises(UsageError, match=r"is not a folder|cannot write"):
            report.write_site(found, tmp_path / name)


@pytest.mark.parametrize("moment", ["writing", "renaming"])
def test_a_build_that_is_cut_short_leaves_the_old_site(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    found, folder = boards(results, "other")[:1], tmp_path / "site"
    report.write_site(found, folder)
    (folder / "index.html").write_text("old")
    real = {"writing": Path.write_text, "renaming": Path.rename}[moment]

    def cut(self: Path, *given: Any, **how: Any) -> Any:
        if "new" in self.parts and self.name != "index.html":  # in the middle
            raise OSError("cut short")
        return real(self, *given, **how)

    monkeypatch.setattr(Path, real.__name__, cut)
    with pytest.raises(UsageError, match="cut short"):
        report.write_site(found, folder)
    monkeypatch.undo()
    assert (folder / "index.html").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


# In a real browser

WATCH = "document.getElementById('watch')"
SHOWN = f"[...{WATCH}.querySelectorAll('table.board tbody tr')].map(row => row.querySelector('.stick').textContent)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium is installed: apt-get install chromium")
    with Browser() as found:
        yield found


@pytest.fixture
def watch(browser: Browser, page: Path) -> Browser:
    """The page with the board of `watch` open, 1280 pixels wide."""
    browser.view(1280)
    visit(browser, page)
    browser.run(f"{WATCH}.open = true")
    return browser


def visit(browser: Browser, page: Path) -> None:
    browser.problems.clear()
    browser.loaded.clear()
    browser.open(page)
    ready = "document.querySelector('.benchmark') === null || document.body.dataset.ready === 'yes'"
    browser.run(f"new Promise(done => {{ const look = () => {ready} ? done() : setTimeout(look, 10); look(); }})")


#: The lowest contrast of visible text against the nearest background that is painted behind it.
CONTRAST = """(() => {
  const light = colour => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map(v => v / 255)
      .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  let worst = [99, ""];
  for (const part of document.querySelectorAll("p, li, td, th, a, h1, h2, h3, h4, summary, b, button, code, span")) {
    if (!part.checkVisibility() || !part.textContent.trim()) continue;
    let behind = part;
    const painted = () => getComputedStyle(behind).backgroundColor;
    while (behind.parentElement && !/rgb\\(/.test(painted())) behind = behind.parentElement;
    const back = painted();
    if (!/rgb\\(/.test(back)) continue;
    const [a, b] = [light(getComputedStyle(part).color), light(back)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < worst[0]) worst = [ratio, `${part.tagName} ${part.className} ${part.textContent.slice(0, 30)}`];
  }
  return worst;
})()"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_in_a_browser_it_fits_is_silent_and_loads_nothing(
    browser: Browser, page: Path, site_folder: Path, width: int, dark: bool
) -> None:
    browser.view(width, dark=dark)
    for path in (page, *(site_folder / name for name in ("index.html", "benchmark/watch.html", "method/jmt.html"))):
        visit(browser, path)
        browser.run("document.querySelectorAll('details').forEach(part => { part.open = true; })")
        browser.run("new Promise(done => setTimeout(done, 50))")  # what is made on opening
        browser.run("document.querySelectorAll('button[data-view=all]').forEach(button => button.click())")
        assert browser.run("document.documentElement.scrollWidth") <= width, path.name
        ratio, where = browser.run(CONTRAST)
        assert ratio >= 4.5, where
        assert browser.problems == []
        assert browser.loaded == [path.resolve().as_uri()]
    back = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (back == "rgb(255, 255, 255)") != dark


def test_in_a_browser_the_table_sorts(results: Path, watch: Browser) -> None:
    board = boards(results, "watch")[0]
    names = [row.name for row in sorted((r for r in board.rows if r.ranked), key=lambda r: -(r.clean or 0.0))]

    def press(column: str) -> tuple[list[str], str]:
        head = f"[...{WATCH}.querySelectorAll('table.board th button')].find(b => b.textContent === {column!r})"
        watch.run(f"{head}.click()")
        return watch.run(SHOWN), watch.run(f"{head}.parentElement.getAttribute('aria-sort')")

    before = watch.run(SHOWN)
    assert before[-1] == "hasty<b> (quick)"
    assert len(before) == 7
    down, said = press("score")
    assert [n for n in down if n in names] == names
    assert said == "descending"
    assert down[-1] == "hasty<b> (quick)", "what is not ranked stays last"
    up, said = press("score")
    assert [n for n in up if n in names] == names[::-1]
    assert up[-1] == "hasty<b> (quick)"
    assert said == "ascending"
    assert [n for n in press("fuser")[0] if n in names] == sorted(names)


def test_in_a_browser_the_table_filters(watch: Browser) -> None:
    def type_in(words: str) -> list[str]:
        field = f"{WATCH}.querySelector('input[type=search]')"
        watch.run(f"{field}.value = {words!r}; {field}.dispatchEvent(new Event('input'))")
        return list(watch.run(SHOWN))

    assert type_in("UNIMODAL (gyro") == ["unimodal (gyro)"]
    assert type_in("no such thing") == []
    assert len(type_in("")) == 7
    watch.run(f"{WATCH}.querySelector('.only').click()")
    assert len(watch.run(SHOWN)) == 5
    assert watch.run(f"{WATCH}.querySelector('.count').textContent") == "5 of 7 rows"


HEADS = f"[...{WATCH}.querySelectorAll('table.board thead th')].map(head => head.textContent.replaceAll('\u200b', ''))"


def test_in_a_browser_columns_come_and_go(watch: Browser) -> None:
    summary = ["place", "fuser", "score", "damaged", "difference", "parameters", "seconds", "command"]
    assert watch.run(HEADS) == summary
    watch.run(f"{WATCH}.querySelector('button[data-view=robustness]').click()")
    assert "noise:acc" in watch.run(HEADS)
    assert "allocated" not in watch.run(HEADS)
    watch.run(f"{WATCH}.querySelector('button[data-view=summary]').click()")
    watch.run(f"{WATCH}.querySelector('.choose input[value=allocated]').click()")
    watch.run(f"{WATCH}.querySelector('.choose input[value=seconds]').click()")
    assert watch.run(HEADS) == [*summary[:-2], "allocated", "command"]


def test_in_a_browser_a_csv_is_what_is_shown_with_its_numbers(results: Path, watch: Browser) -> None:
    """The columns are those of `leaderboard --format csv`, which is the same table."""
    board = boards(results, "watch")[0]
    watch.run("""URL.createObjectURL = blob => { window.kept = blob.text(); return '#'; };
        HTMLAnchorElement.prototype.click = function() { window.called = this.download; }""")

    def download() -> list[dict[str, str]]:
        watch.run(f"{WATCH}.querySelector('.csv').click()")
        return list(csv.DictReader(io.StringIO(watch.run("kept"))))

    shown = download()
    assert watch.run("called") == "watch.csv"
    whole = {line["fuser"]: line for line in csv.DictReader(io.StringIO(leaderboard.render(board, "csv")))}
    assert list(shown[0])[:8] == [
        "benchmark",
        "protocol",
        "metric",
        "ranked",
        "status",
        "place",
        "place-low",
        "place-high",
    ]
    for line in shown:
        label = "hasty<b>" if line["fuser"].startswith("hasty") else line["fuser"]
        for name, value in line.items():
            if label in whole and name in whole[label] and name not in ("fuser", "ranked"):
                known = whole[label][name]
                assert value == known or float(value) == pytest.approx(float(known), rel=1e-4), name
    assert {line["fuser"] for line in shown} >= {"jmt", "concat", "chance (no input)", "hasty<b> (quick)"}
    watch.run(f"{WATCH}.querySelector('button[data-view=all]').click(); {WATCH}.querySelector('.only').click()")
    assert len(download()) == 5
    assert len(download()[0]) > 2 * len(shown[0])


def test_in_a_browser_the_command_of_a_row_is_copied_and_its_name_opens_its_settings(
    results: Path, watch: Browser
) -> None:
    watch.run(
        "Object.defineProperty(navigator, 'clipboard', {value: {writeText: async text => { window.taken = text; }}})"
    )
    watch.run(f"{WATCH}.querySelector('table.board tbody tr .copy').click()")
    first = boards(results, "watch")[0].ranked[0]
    assert watch.run("taken") == f"fusionbench run --benchmark watch --fuser {first.fuser}"
    watch.run(
        f"location.hash = {WATCH}.querySelector('table.board tbody a').hash; new Promise(done => setTimeout(done, 200))"
    )
    assert watch.run("document.querySelector('.row-page[open] b').textContent") == first.name
    assert "fuser.width=64" in watch.run("document.querySelector('.row-page[open] .settings').textContent")
    assert first.runs[0] in watch.run("document.querySelector('.row-page[open] .runs').textContent")


def test_in_a_browser_curves_tell_the_value_under_the_pointer_and_by_keys(results: Path, watch: Browser) -> None:
    board = boards(results, "watch")[0]
    number = next(n for n, row in enumerate(board.ranked) if row.label == "concat")
    panel = f"{WATCH}.querySelector('svg.curves[data-family=\"noise:gyro\"]')"
    watch.run(f"{panel}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
    x, y = watch.run(f"""(() => {{
      const panel = {panel}, line = panel.querySelector('[data-row="{number}"]'), box = panel.getBoundingClientRect();
      const scale = box.width / panel.viewBox.baseVal.width, point = line.points[2];
      return [box.left + point.x * scale, box.top + point.y * scale];
    }})()""")
    watch.move(x, y)
    value = board.row("concat").conditions[Condition.parse("noise:gyro:2")]
    assert watch.run("document.getElementById('tip').textContent") == f"concat, severity 2: {100 * (value or 0.0):.1f}"
    watch.move(2, 2)
    assert watch.run("document.getElementById('tip').hidden")  # keys go on from where the pointer was
    watch.run(f"{panel}.focus()")
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft"):
        watch.press(key)
    assert ", severity 3: " in watch.run("document.getElementById('tip').textContent")
    watch.run(f"{WATCH}.querySelector('.numbers').open = true; new Promise(done => setTimeout(done, 50))")
    text = watch.run(f"{WATCH}.querySelector('.numbers table').textContent")
    assert f"{100 * (value or 0.0):.1f}" in text


def test_in_a_browser_each_corruption_has_its_own_order(results: Path, watch: Browser) -> None:
    board = boards(results, "watch")[0]
    noise = columns_of(board)["noise"]
    expected = [r.name for r in sorted(board.ranked, key=lambda r: -noise.value(board, r).value)]
    watch.run(f"{WATCH}.querySelector('.corruptions').open = true; new Promise(done => setTimeout(done, 50))")
    rows = f"[...{WATCH}.querySelectorAll('[data-kind=noise] tbody tr')].map(row => row.cells[2].textContent)"
    assert watch.run(rows) == expected


def test_in_a_browser_the_sensors_are_answered(results: Path, watch: Browser) -> None:
    board = boards(results, "watch")[0]
    found = columns_of(board)
    rows = f"[...{WATCH}.querySelectorAll('.mixture tbody tr')]"
    answer = f"Object.fromEntries({rows}.map(r => [...r.cells].map(c => c.textContent)))"
    before = watch.run(answer)
    watch.run(
        f"{WATCH}.querySelectorAll('input[name=damage]').forEach(box => box.value !== 'noise:acc' && box.click())"
    )
    after = watch.run(answer)
    for label, shown in (("jmt", "jmt"), ("unimodal (gyro)", "only gyro")):
        row = board.row(label)
        assert before[shown] == f"{100 * (row.damaged or 0.0):.1f}"
        assert after[shown] == f"{100 * found['noise:acc'].value(board, row):.1f}"


def test_in_a_browser_every_figure_says_its_finding_in_numbers(results: Path, watch: Browser) -> None:
    said = watch.run("[...document.querySelectorAll('figure svg')].filter(s => !s.hasAttribute('aria-hidden'))"
                     ".map(s => [s.getAttribute('role'), s.getAttribute('aria-label') ?? ''])")  # fmt: skip
    assert len(said) > 6
    for role, words in said:
        assert role == "img"
        assert re.search(r"\d", words)
        assert words.endswith(".")
    board = boards(results, "watch")[0]
    top = board.ranked[0]
    assert any(f"best {top.name} {100 * (top.damaged or 0.0):.1f}" in words for _, words in said)
    headless = watch.run("[...document.querySelectorAll('table')].filter(t => !t.querySelector('th')).length")
    assert headless == 0


def test_in_a_browser_no_label_of_a_pareto_figure_overlaps(browser: Browser, tmp_path: Path) -> None:
    """A crowd of rows at nearly the same cost and score, with names of every length."""
    rng = np.random.default_rng(0)
    for n in range(14):
        size = int(20000 * 10 ** rng.uniform(0, 0.4 if n % 2 else 2))
        write(tmp_path, "m" + "ethod" * (n % 4) + str(n), 2 + n / 8, parameters={"trained": size, "allocated": size})
    write(tmp_path, "concat", 2.0)
    report.write(boards(tmp_path), tmp_path / "r.html")
    for width in (400, 1280):
        browser.view(width)
        visit(browser, tmp_path / "r.html")
        panels = browser.run("""[...document.querySelectorAll('[id$=-pareto] svg')].map(panel => {
          const box = part => { const b = part.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]; };
          const boxes = kind => [...panel.querySelectorAll(kind)].map(box);
          return [box(panel), boxes('.label'), boxes('.dot')];
        })""")
        assert panels
        for (left, top, right, bottom), labels, dots in panels:
            assert len(labels) > 3
            for n, a in enumerate(labels):
                assert (left <= a[0], a[2] <= right + 1, top - 1 <= a[1], a[3] <= bottom) == (True,) * 4
                for b in [*labels[n + 1 :], *dots]:
                    assert a[2] <= b[0] + 1 or b[2] <= a[0] + 1 or a[3] <= b[1] + 1.5 or b[3] <= a[1] + 1.5

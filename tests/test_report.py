"""The page: everything inside it, every number from the records, and alive in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionbench import leaderboard, metrics, report
from fusionbench.conditions import Condition
from fusionbench.errors import UsageError
from fusionbench.leaderboard.columns import known as columns_of
from fusionbench.records import Predictions, Record, Run, store
from fusionbench.report import advice, figures

CONDITIONS = ("clean", "missing:acc", "missing:gyro", *(f"noise:{t}:{s}" for t in ("acc", "gyro") for s in range(1, 6)))
CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)


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
        store.save(results, Record(run, "done", **{**fields, **how}), Predictions(ids, people, y, mask, kept), None)


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
    return folder


@pytest.fixture(scope="module")
def page(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "deep" / "report.html"
    assert report.write(boards(results), out) == [out]
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


def test_the_page_stands_alone_and_its_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    reader = Reader()
    reader.feed(text)
    assert not reader.open
    assert not reader.fetched
    assert all(link.startswith("#") for link in reader.links)
    assert {link[1:] for link in reader.links} <= set(reader.ids)
    assert not re.search(r"@import|url\((?!#)", text)
    assert "hasty&lt;b&gt;" in text
    assert "hasty<b>" not in text
    own = [i for i in reader.ids if not i.startswith(("figure_", "axes_", "patch_", "line2d_", "text_", "matplotlib",
                                                      "xtick_", "ytick_", "legend_", "QuadMesh_"))]  # fmt: skip
    assert len(own) == len(set(own))


def test_the_page_is_the_same_twice(results: Path, page: Path, tmp_path: Path) -> None:
    report.write(leaderboard.build(list(store.load(results))[::-1], results, here=None), tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == page.read_bytes()


def test_every_row_has_its_settings_its_runs_and_its_command(results: Path, page: Path) -> None:
    text = page.read_text()
    for r in store.load(results):
        assert r.run.id in text
    assert "fusionbench run --benchmark watch --fuser unimodal --fuser.modality gyro" in text
    assert "fusionbench run --benchmark watch --fuser jmt<" in text
    assert "fuser.width" in text
    for board in boards(results):
        for note in leaderboard.footnotes(board):
            assert note in text.replace("&#39;", "'")


def test_figures_are_written_for_papers_with_the_runs_that_they_show(results: Path, tmp_path: Path) -> None:
    chosen = list(store.load(results, "watch"))
    found = leaderboard.build(chosen, results, here=None)
    paths = report.write(found, tmp_path / "r.html", tmp_path / "figures")
    names = sorted(p.name for p in paths[1:])
    kinds = ("curves", "missing", "pareto", "scores", "shapley")
    assert names == sorted(f"watch-{kind}.{end}" for kind in kinds for end in ("pdf", "png", "svg"))
    shown = {r.run.id for r in chosen if r.run.fuser == "jmt"}
    for path in paths[1:]:
        assert path.stat().st_size > 2000
        if path.suffix != ".pdf":  # there the text is compressed
            content = path.read_bytes().decode("latin-1")
            assert all(run in content for run in shown), path.name
    again = report.write(found, tmp_path / "r.html", tmp_path / "again")
    assert [p.read_bytes() for p in paths[1:]] == [p.read_bytes() for p in again[1:]]


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
    text = text[text.index('<article id="watch"') :]
    section = text[text.index("What the tests say") : text.index("My sensors")]
    folded = re.findall(r"<details>.*?</details>", section, re.DOTALL)
    for finding in leaderboard.findings(board):
        said = leaderboard.sentence(board, finding.verdict)
        assert said in section
        assert any(said in part for part in folded) != finding.is_significant


def test_records_without_damage_or_answers_still_make_a_page(tmp_path: Path) -> None:
    write(tmp_path, "concat", 2.0, scores={"clean": {"accuracy": 0.5}})
    for r in store.load(tmp_path):
        store.path_of(tmp_path, r.run).with_suffix(".npz").unlink()
    report.write(boards(tmp_path), tmp_path / "r.html", tmp_path / "f")
    assert "no test has been made" in (tmp_path / "r.html").read_text()
    for r in store.load(tmp_path):
        store.save(tmp_path, Record(r.run, "failed", r.code, r.data, 1, r.metrics, error="NaN"), None, None)
    report.write(boards(tmp_path), tmp_path / "r.html")
    assert "There is no complete row" in (tmp_path / "r.html").read_text()


def test_wrong_input_is_one_line(results: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        report.write(boards(results, "other"), tmp_path / "file" / "r.html")


#: Clicks, types and reads back what a reader would see; the browser prints the document when it is done.
PROBE = """
<script>
const problems = [], seen = {};
addEventListener("error", event => problems.push(event.message));
addEventListener("securitypolicyviolation", event => problems.push(event.violatedDirective + " " + event.blockedURI));
addEventListener("load", () => {
  const article = document.getElementById("watch"), table = article.querySelector("table.board");
  const shown = () => [...table.tBodies[0].rows].filter(row => !row.hidden);
  const fusers = () => shown().map(row => row.querySelector(".fuser").textContent);
  const head = name => [...table.tHead.rows[0].cells].find(cell => cell.textContent.replace("\\u200b", "") === name);
  const click = name => {
    head(name).firstElementChild.click();
    return [fusers(), head(name).getAttribute("aria-sort")];
  };
  seen.before = fusers();
  seen.score = click("score");
  seen.reversed = click("score");
  seen.name = click("fuser");
  const filter = article.querySelector("input[type=search]");
  const type = text => { filter.value = text; filter.dispatchEvent(new Event("input")); return fusers(); };
  seen.typed = type("UNIMODAL (gyro");
  seen.nothing = type("no such thing");
  seen.all = type("").length;
  article.querySelector(".only").click();
  seen.ranked = fusers();
  const visible = () => [...table.tHead.rows[0].cells].filter(cell => cell.offsetWidth).map(cell => cell.textContent);
  const view = name => { article.querySelector(`button[data-view=${name}]`).click(); return visible(); };
  seen.damage = view("robustness"); seen.cost = view("cost"); seen.summary = view("summary");
  const texts = row => [...row.cells].slice(0, 2).map(cell => cell.textContent);
  const answer = () => [...article.querySelectorAll(".answer tbody tr")].map(texts);
  seen.answer = answer();
  for (const box of article.querySelectorAll("input[name=damage]")) if (box.value !== "noise:acc") box.click();
  seen.noise = answer();
  location.hash = table.querySelector("tbody a").hash;
  setTimeout(() => {
    seen.opened = document.querySelector("details.fuser-page[open] b")?.textContent ?? "";
    seen.clicked = table.querySelector("tbody a").textContent;
    seen.resources = performance.getEntriesByType("resource").map(entry => entry.name);
    seen.wide = document.documentElement.scrollWidth <= innerWidth;
    seen.problems = problems;
    document.body.dataset.seen = JSON.stringify(seen);
  }, 200);
});
</script>
"""


@pytest.fixture(scope="module")
def seen(page: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the probe saw in a real browser, and what the browser wrote to its console."""
    if CHROMIUM is None:
        pytest.skip("no chromium is installed: apt-get install chromium")
    folder = tmp_path_factory.mktemp("browser")
    probed = folder / "probed.html"
    probed.write_text(page.read_text().replace("<head>", "<head>" + PROBE, 1))
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,900",
         "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr",
         "--virtual-time-budget=5000", "--dump-dom", probed.as_uri()],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    found = re.search(r'data-seen="([^"]*)"', done.stdout)
    assert found, f"the page's script did not finish: {done.stderr[-2000:]}"
    from html import unescape

    return {**json.loads(unescape(found[1])), "console": re.findall(r"CONSOLE.*", done.stderr)}


def test_in_a_browser_it_is_silent_and_loads_nothing(seen: dict[str, Any]) -> None:
    assert seen["problems"] == []
    assert seen["console"] == []
    assert seen["resources"] == []
    assert seen["wide"], "the page itself must not scroll sideways"


def test_in_a_browser_the_table_sorts(results: Path, seen: dict[str, Any]) -> None:
    board = boards(results, "watch")[0]
    by_score = sorted((r for r in board.rows if r.ranked), key=lambda r: -(r.clean or 0.0))
    names = [r.name for r in by_score]
    assert seen["before"][-1] == "hasty<b> (quick)"
    assert [n for n in seen["score"][0] if n in names] == names
    assert seen["score"][0][-1] == "hasty<b> (quick)", "what is not ranked stays last"
    assert seen["score"][1] == "descending"
    assert [n for n in seen["reversed"][0] if n in names] == names[::-1]
    assert seen["reversed"][0][-1] == "hasty<b> (quick)"
    assert seen["reversed"][1] == "ascending"
    assert [n for n in seen["name"][0] if n in names] == sorted(names)


def test_in_a_browser_the_table_filters(seen: dict[str, Any]) -> None:
    assert seen["typed"] == ["unimodal (gyro)"]
    assert seen["nothing"] == []
    assert seen["all"] == len(seen["before"]) == 7
    assert len(seen["ranked"]) == 5
    assert set(seen["before"]) - set(seen["ranked"]) == {"hasty<b> (quick)", "chance (no input)"}


def test_in_a_browser_columns_come_and_go(seen: dict[str, Any]) -> None:
    summary = ["place", "fuser", "score", "damaged", "difference", "parameters", "seconds"]
    assert seen["summary"] == summary
    assert "noise:\u200bacc" in seen["damage"]
    assert "allocated" not in seen["damage"]
    assert "allocated" in seen["cost"]


def test_in_a_browser_the_sensors_are_answered(results: Path, seen: dict[str, Any]) -> None:
    board = boards(results, "watch")[0]
    found = columns_of(board)
    for label, shown in (("jmt", "jmt"), ("unimodal (gyro)", "only gyro")):
        row = board.row(label)
        assert dict(seen["answer"])[shown] == f"{100 * (row.damaged or 0.0):.1f}"
        assert dict(seen["noise"])[shown] == f"{100 * found['noise:acc'].value(board, row):.1f}"
    assert seen["opened"] == seen["clicked"], "a click on a name opens its page"

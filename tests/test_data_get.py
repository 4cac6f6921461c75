"""Downloads resume, nothing leaves its folder, every file is verified: against a server on this machine."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionbench import data, paths, registry
from fusionbench.data import fetch
from fusionbench.errors import UsageError

FILES = {"Processed/labels.csv": b"a,b\n1,2\n", "Raw/S01/EDA.csv": np.random.default_rng(0).bytes(300_000)}


def archive(extra: dict[str, bytes] | None = None, link: str = "") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as z:
        for name, content in {**{f"Repo-main/{k}": v for k, v in FILES.items()}, **(extra or {})}.items():
            z.writestr(name, content)
        if link:
            info = zipfile.ZipInfo(link)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            z.writestr(info, "/etc/passwd")
    return buffer.getvalue()


def write_manifest(path: Path, **more: Any) -> None:
    content = {"title": "A miniature", "by_hand": "by rocket", "urls": []}
    path.write_text(json.dumps(content | more))


class Server(ThreadingHTTPServer):
    """Serves `body`; `faults` are taken one a request: a status, or ("cut", bytes sent before the line goes dead)."""

    daemon_threads = True

    def __init__(self, body: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.ranges, self.starts = body, True, list[int]()
        self.faults: list[Any] = []
        self.pages, self.asked = dict[str, bytes](), list[str]()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/archive.zip"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        fault = self.server.faults.pop(0) if self.server.faults else None
        if isinstance(fault, int):
            self.server.asked.append(self.path)
            self.send_error(fault)
            return
        self.server.asked.append(self.path)
        body = self.server.pages.get(self.path.partition("?")[0], self.server.body)
        wanted = self.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.server.ranges else 0
        self.server.starts.append(start)
        if start >= len(body):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        end = start + fault[1] if fault else len(body)
        self.wfile.write(body[start:end])
        self.close_connection = True


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(archive()) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def home(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own and a manifest that points at the server."""
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    files = {name: [len(content), hashlib.sha256(content).hexdigest()] for name, content in FILES.items()}
    for name, urls in (("mini", [server.url]), ("by_hand", []), ("out_of_reach", ["http://127.0.0.1:1/a.zip"])):
        write_manifest(manifests / f"{name}.json", urls=urls, files=files)
    monkeypatch.setattr(data, "MANIFESTS", manifests)
    about = {"licence": "MIT", "source": "the moon", "citation": "Nobody, 2026"}
    monkeypatch.setattr(registry, "about_here", lambda name: about)
    monkeypatch.setattr(fetch, "PAUSE", 0.001)
    monkeypatch.setattr(fetch, "TRIES", 3)
    monkeypatch.setenv("FUSIONBENCH_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def left_over(home: Path) -> list[str]:
    return sorted(p.relative_to(home).as_posix() for p in home.rglob("*") if p.is_file() and "data/mini/" not in str(p))


def test_one_setting_for_where_data_live(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FUSIONBENCH_HOME", str(tmp_path / "mine"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    assert paths.data_dir("x") == tmp_path / "mine" / "data" / "x"
    assert paths.cache_dir() == tmp_path / "mine" / "cache"
    monkeypatch.delenv("FUSIONBENCH_HOME")
    assert paths.home() == tmp_path / "xdg" / "fusionbench"
    monkeypatch.delenv("XDG_DATA_HOME")
    assert paths.home() == Path.home() / ".local" / "share" / "fusionbench"


def test_a_download_is_unpacked_and_verified(home: Path, server: Server) -> None:
    seen: list[tuple[int, int]] = []
    line = data.get("mini", progress=lambda done, total: seen.append((done, total)))
    for name, content in FILES.items():
        assert (home / "data" / "mini" / name).read_bytes() == content
    assert "2 files verified" in line
    assert seen[-1] == (len(server.body), len(server.body))
    assert left_over(home) == []
    assert "already there" in data.get("mini")
    assert server.starts == [0]  # not fetched again


def test_a_broken_download_resumes_where_it_broke(home: Path, server: Server) -> None:
    server.faults = [503, ("cut", 100_000), ("cut", 50_000), 500]
    data.get("mini")
    assert server.starts == [0, 100_000, 150_000]
    assert (home / "data" / "mini" / "Raw/S01/EDA.csv").read_bytes() == FILES["Raw/S01/EDA.csv"]


def test_what_an_interrupted_process_left_is_resumed(home: Path, server: Server) -> None:
    server.faults = [("cut", 70_000), 503, 503, 503]
    with pytest.raises(UsageError, match=r"cannot be downloaded \(503.*run again to resume.*--from"):
        data.get("mini")
    assert not (home / "data" / "mini").exists()
    data.get("mini")
    assert server.starts == [0, 70_000]


def test_a_server_without_ranges_starts_again(home: Path, server: Server) -> None:
    server.ranges, server.faults = False, [("cut", 70_000)]
    data.get("mini")
    assert server.starts == [0, 0]
    assert (home / "data" / "mini").is_dir()


def test_a_part_longer_than_the_file_is_dropped(home: Path, server: Server) -> None:
    server.faults = [("cut", 70_000), 503, 503, 503]
    with pytest.raises(UsageError):
        data.get("mini")
    (part,) = (home / "cache" / "downloads").rglob("*.part")
    part.write_bytes(b"x" * (len(server.body) + 5))
    data.get("mini")
    assert (home / "data" / "mini").is_dir()


def test_a_refusal_is_not_tried_again(home: Path, server: Server) -> None:
    server.faults = [404, 503]
    with pytest.raises(UsageError, match="answers 404"):
        data.get("mini")
    assert server.faults == [503]


def test_no_network_names_the_way_out(home: Path) -> None:
    with pytest.raises(UsageError, match=r"--from FILE"):
        data.get("out_of_reach")


def test_a_wrong_archive_leaves_nothing_and_is_fetched_anew(home: Path, server: Server) -> None:
    right, server.body = server.body, archive({"Repo-main/Raw/S01/EDA.csv": b"something else"})
    with pytest.raises(UsageError, match=r"EDA\.csv is not the file that was published"):
        data.get("mini")
    assert left_over(home) == []
    assert not (home / "data" / "mini").exists()
    server.body = right
    data.get("mini")
    assert (home / "data" / "mini").is_dir()


def test_a_truncated_zip_is_named(home: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.zip"
    broken.write_bytes(archive()[:1000])
    with pytest.raises(UsageError, match=r"broken\.zip is broken or truncated"):
        data.get("mini", broken)


@pytest.mark.parametrize("name", ["../evil.csv", "/tmp/evil.csv", "Repo-main/../../evil.csv", "C:/evil.csv"])
def test_names_that_leave_the_folder_are_refused(home: Path, tmp_path: Path, name: str) -> None:
    bad = tmp_path / "bad.zip"
    bad.write_bytes(archive({name: b"evil"}))
    with pytest.raises(UsageError, match="would leave the folder"):
        data.get("mini", bad)
    assert not list(tmp_path.rglob("evil.csv"))
    assert left_over(home) == []


def test_links_are_refused(home: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.zip"
    bad.write_bytes(archive(link="Repo-main/link"))
    with pytest.raises(UsageError, match="is a link"):
        data.get("mini", bad)


def test_only_the_manifests_files_are_written(home: Path, tmp_path: Path) -> None:
    rich = tmp_path / "rich.zip"
    rich.write_bytes(archive({"Repo-main/more.py": b"print()"}))
    data.get("mini", rich)
    written = {p.relative_to(home / "data" / "mini").as_posix() for p in home.rglob("*") if p.is_file()}
    assert written == set(FILES)


def test_from_a_folder_wherever_the_files_stand_in_it(home: Path, tmp_path: Path) -> None:
    for name, content in FILES.items():
        (tmp_path / "clone" / "deep" / name).parent.mkdir(parents=True)
        (tmp_path / "clone" / "deep" / name).write_bytes(content)
    with pytest.raises(UsageError, match=r"fetched by hand from the moon.*--from"):
        data.get("by_hand")
    data.get("by_hand", tmp_path / "clone")
    assert (home / "data" / "by_hand" / "Processed/labels.csv").read_bytes() == FILES["Processed/labels.csv"]
    (tmp_path / "clone" / "deep" / "Processed/labels.csv").unlink()
    with pytest.raises(UsageError, match=r"clone holds no Processed/labels\.csv"):
        data.get("mini", tmp_path / "clone")


def test_damage_on_disk_is_found(home: Path) -> None:
    data.get("mini")
    (home / "data" / "mini" / "Processed/labels.csv").write_bytes(b"a,b\n1,3\n")
    with pytest.raises(UsageError, match=r"labels\.csv is not the file that was published: delete the folder"):
        data.get("mini")


def test_a_folder_that_cannot_be_made_is_one_line(home: Path, tmp_path: Path) -> None:
    home.mkdir()
    (home / "data").write_text("a file where the folder should be")
    with pytest.raises(UsageError, match="mini: "):
        data.get("mini")


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean stress_predict"):
        data.get("stres_predict")


def packed(files: dict[str, bytes], kind: str) -> bytes:
    """The files as a zip, a tar or a tar.gz."""
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as z:
            for name, content in files.items():
                z.writestr(name, content)
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz" if kind == "tar.gz" else "w") as t:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                t.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


MANY = {f"set/{k}.txt": f"record {k}".encode() for k in range(3)}


def joint(files: dict[str, bytes]) -> list[Any]:
    lines = sorted(f"{name.split('/')[1]} {hashlib.sha256(content).hexdigest()}\n" for name, content in files.items())
    return [len(files), sum(map(len, files.values())), hashlib.sha256("".join(lines).encode()).hexdigest()]


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_an_archive_in_an_archive_and_a_folder_of_many_files(home: Path, tmp_path: Path, kind: str) -> None:
    """Files that hide like macOS's, and published ones that the manifest leaves out, are not taken."""
    more = {"set/._1.txt": b"", "set/9.txt": b"left out", "other/set.txt": b""}
    inner = packed(MANY | more, kind)
    write_manifest(
        data.MANIFESTS / "many.json", inside=[f"inner.{kind}"], folders={"set/*.txt": joint(MANY)}, without=["9.txt"]
    )
    outer = tmp_path / "outer.zip"
    outer.write_bytes(packed({f"6. Data/inner.{kind}": inner}, "zip"))
    assert "3 files verified" in data.get("many", outer)
    found = home / "data" / "many"
    assert {p.relative_to(found).as_posix(): p.read_bytes() for p in found.rglob("*") if p.is_file()} == MANY
    assert "already there" in data.get("many")
    (found / "set" / "1.txt").write_bytes(b"record x")
    with pytest.raises(UsageError, match=r"set/\*\.txt are not the files that were published: delete the folder"):
        data.get("many")
    (found / "set" / "1.txt").unlink()
    with pytest.raises(UsageError, match=r"has 2 files set/\*\.txt, 3 were published"):
        data.get("many")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"set/1.txt": b"record x"}, r"are not the files that were published \(their joint SHA-256 differs\)"),
        ({"set/7.txt": b"one more"}, r"holds 4 files set/\*\.txt, 3 were published"),
    ],
)
def test_a_changed_folder_leaves_nothing(home: Path, tmp_path: Path, change: dict[str, bytes], message: str) -> None:
    write_manifest(data.MANIFESTS / "many.json", folders={"set/*.txt": joint(MANY)})
    (tmp_path / "changed.zip").write_bytes(packed(MANY | change, "zip"))
    with pytest.raises(UsageError, match=message):
        data.get("many", tmp_path / "changed.zip")
    assert list((home / "data").iterdir()) == []


def test_a_folder_that_is_another_data_set(home: Path, tmp_path: Path) -> None:
    write_manifest(data.MANIFESTS / "many.json", folders={"set/*.txt": joint(MANY)})
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "README.md").write_text("photographs")
    for name, wanted in (("mini", r"Processed/labels\.csv"), ("many", r"set/\*\.txt")):
        with pytest.raises(UsageError, match=f"else holds no {wanted}"):
            data.get(name, tmp_path / "else")
    assert list((home / "data").iterdir()) == []


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize("share", [0.4, 0.98])
def test_a_truncated_archive_is_one_line_and_leaves_nothing(
    home: Path, tmp_path: Path, kind: str, share: float
) -> None:
    whole = packed(FILES, kind)
    broken = tmp_path / f"broken.{kind}"
    broken.write_bytes(whole[: int(share * (len(whole) - (10_240 if kind == "tar" else 0)))])
    with pytest.raises(UsageError, match=r"broken.*is broken or truncated"):
        data.get("mini", broken)
    assert list((home / "data").iterdir()) == []


def test_several_addresses_are_fetched_one_by_one(home: Path, server: Server) -> None:
    """The first one is not fetched again when the second one fails."""
    server.pages = {"/one.zip": packed({"a.txt": b"a"}, "zip"), "/b.txt": b"bb"}
    files = {name: [len(c), hashlib.sha256(c).hexdigest()] for name, c in (("a.txt", b"a"), ("b.txt", b"bb"))}
    base = server.url.rpartition("/")[0]
    write_manifest(data.MANIFESTS / "two.json", urls=[f"{base}/one.zip", f"{base}/b.txt?download=1"], files=files)
    server.faults = [None, 404]
    with pytest.raises(UsageError, match=r"b\.txt\?download=1 answers 404"):
        data.get("two")
    assert "2 files verified" in data.get("two")
    assert server.asked == ["/one.zip", "/b.txt?download=1", "/b.txt?download=1"]
    assert not list((home / "cache" / "downloads").iterdir())


def test_where_no_checksum_is_known_it_says_so(home: Path, tmp_path: Path) -> None:
    write_manifest(data.MANIFESTS / "unknown.json", files={"a.txt": [0, ""]}, folders={"b/*.bin": [0, 0, ""]})
    (tmp_path / "clone" / "b").mkdir(parents=True)
    (tmp_path / "clone" / "a.txt").write_text("whatever")
    with pytest.raises(UsageError, match=r"clone holds no b/\*\.bin"):
        data.get("unknown", tmp_path / "clone")
    (tmp_path / "clone" / "b" / "1.bin").write_text("anything")
    assert "not verified: no checksum of what was published is known" in data.get("unknown", tmp_path / "clone")
    assert "not verified" in data.get("unknown")


FULL_DISK = """
import resource, sys
from fusionbench import data, registry
from fusionbench.errors import UsageError
registry.about_here = lambda name: {"licence": "MIT", "source": "the moon", "citation": "Nobody, 2026"}
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
from pathlib import Path
data.MANIFESTS = Path(sys.argv[1])
try:
    data.get(*sys.argv[2:])
except UsageError as error:
    print(error)
"""


def test_a_disk_that_takes_no_more_is_one_line(home: Path, server: Server, tmp_path: Path) -> None:
    """A limit on the size of a file stands for the full disk: both end a write in the middle."""
    (tmp_path / "whole.zip").write_bytes(archive())
    for arguments in (["mini", str(tmp_path / "whole.zip")], ["mini"]):
        done = subprocess.run(
            [sys.executable, "-c", FULL_DISK, str(data.MANIFESTS), *arguments],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""
        assert re.fullmatch(r"mini: File too large: \S+\n", done.stdout), done.stdout
        assert not (home / "data" / "mini").exists()
        assert [p for p in (home / "data").rglob("*") if p.is_file()] == []


def test_a_disk_without_room_is_refused_before_it_is_full(home: Path, server: Server) -> None:
    write_manifest(data.MANIFESTS / "huge.json", urls=[server.url], files={"a.bin": [10**18, "0" * 64]})
    with pytest.raises(UsageError, match=r"huge needs 1000000000000 MB in .*, \d+ MB are free"):
        data.get("huge")
    assert server.starts == []


def run_cli(*words: str, answer: str = "") -> tuple[int, str]:
    from click.testing import CliRunner

    from fusionbench.cli import cli

    done = CliRunner().invoke(cli, list(words), input=answer, standalone_mode=False)
    if done.exception:
        return 2, str(done.exception)
    return int(done.return_value or 0), done.output


def test_licence_and_citation_are_shown_and_accepted_once(
    home: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for answer in ("", "n\n"):
        code, text = run_cli("data", "get", "mini", answer=answer)
        assert (code, text) == (
            2, "mini was not fetched: its licence was not accepted (--accept does so without asking)"
        )  # fmt: skip
    assert server.starts == []
    code, text = run_cli("data", "get", "mini", answer="y\n")
    assert code == 0
    assert all(
        words in text for words in ("licence: MIT", "please cite: Nobody, 2026", "Do you accept", "2 files verified")
    )
    shutil.rmtree(home / "data" / "mini")
    code, text = run_cli("data", "get", "mini")  # nobody is asked again
    assert (code, "Do you accept" in text) == (0, False)
    shutil.rmtree(home / "data" / "mini")
    write_manifest(data.MANIFESTS / "mini.json", urls=[server.url], files={})
    other = registry.about_here("mini") | {"licence": "other terms"}
    monkeypatch.setattr(registry, "about_here", lambda name: other)
    assert run_cli("data", "get", "mini")[0] == 2  # unless the terms have changed
    assert run_cli("data", "get", "mini", "--accept")[0] == 0


def test_a_newcomer_gets_rosmap_and_compares(
    home: Path, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`fusionbench data get rosmap && fusionbench compare concat forest -b rosmap`, from a server on this machine."""
    rng = np.random.default_rng(0)
    files = {}
    for side, people in (("tr", 40), ("te", 20)):
        y = rng.integers(0, 2, people)
        files[f"ROSMAP/labels_{side}.csv"] = "\n".join(f"{v:.18e}" for v in y).encode()
        for omics in "123":
            rows = 0.05 * y[:, None] + rng.random((people, 200))
            files[f"ROSMAP/{omics}_{side}.csv"] = "\n".join(",".join(map(str, row)) for row in rows).encode()
    server.body = packed({f"MOGONET-main/{name}": content for name, content in files.items()}, "zip")
    known = {name: [len(content), hashlib.sha256(content).hexdigest()] for name, content in files.items()}
    write_manifest(data.MANIFESTS / "rosmap.json", urls=[server.url], files=known)
    monkeypatch.chdir(tmp_path)
    assert run_cli("data", "get", "rosmap", answer="y\n")[0] == 0
    code, text = run_cli("compare", "concat", "forest", "-b", "rosmap", "--quick", "--seeds", "1", "--no-track")
    assert code == 0, text
    for row in ("concat", "forest", "late_average"):
        assert re.search(rf"^{row} \(quick\) +\d\.\d\d\d \[", text, re.MULTILINE), text


def test_the_committed_manifests_fit_the_real_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not real.is_dir():
        pytest.skip("the real archives are not beside this repository")
    monkeypatch.setenv("FUSIONBENCH_HOME", str(tmp_path))
    for name, source, files in (
        ("stress_predict", "Stress-Predict-Dataset-main.zip", 284),
        ("stressid", "stressid", 6),
        ("rosmap", "rosmap.zip", 8),
        ("utd_mhad", "utd_mhad.zip", 1722),
        ("social_anxiety", "social_anxiety.zip", 24),
        ("handwritten", "handwritten_6views.mat", 1),
        ("natops", "natops.zip", 2),
    ):
        assert f"{files} files verified" in data.get(name, real / source), name
    assert "no checksum" in data.get("icu2012", real / "icu2012_set-a.zip")
    with pytest.raises(UsageError, match=r"train_FD001\.txt is not the file that was published"):
        data.get("cmapss", real / "cmapss_fd001.zip")  # a copy with a header


def test_the_bare_command_shows_usage_and_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    from fusionbench.cli import cli

    assert not cli.main(["data", "get"], standalone_mode=False)
    shown = " ".join(capsys.readouterr().out.split())  # lines are as wide as the terminal
    assert "data get [OPTIONS] [NAME]" in shown
    for name in data.names():
        assert f"{data.manifest(name).title}, licence {data.manifest(name).licence}" in shown

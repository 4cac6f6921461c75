"""Downloads resume, nothing leaves its folder, every file is verified: against a server on this machine."""

from __future__ import annotations

import hashlib
import io
import json
import stat
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionbench import data, paths
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


class Server(ThreadingHTTPServer):
    """Serves `body`; `faults` are taken one a request: a status, or ("cut", bytes sent before the line goes dead)."""

    daemon_threads = True

    def __init__(self, body: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.ranges, self.starts = body, True, list[int]()
        self.faults: list[Any] = []

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
            self.send_error(fault)
            return
        body, wanted = self.server.body, self.headers.get("Range")
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
    for name, url in (("mini", server.url), ("by_hand", ""), ("out_of_reach", "http://127.0.0.1:1/a.zip")):
        content = {"title": "A miniature", "licence": "MIT", "source": "the moon", "url": url, "files": files}
        (manifests / f"{name}.json").write_text(json.dumps(content))
    monkeypatch.setattr(data, "MANIFESTS", manifests)
    monkeypatch.setattr(data, "PAUSE", 0.001)
    monkeypatch.setattr(data, "TRIES", 3)
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
    lines = data.get("mini", progress=lambda done, total: seen.append((done, total)))
    for name, content in FILES.items():
        assert (home / "data" / "mini" / name).read_bytes() == content
    assert "2 files verified" in lines[-1]
    assert seen[-1] == (len(server.body), len(server.body))
    assert left_over(home) == []
    assert "already there" in data.get("mini")[-1]
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
    (part,) = (home / "cache" / "downloads").iterdir()
    part.write_bytes(b"x" * (len(server.body) + 5))
    data.get("mini")
    assert (home / "data" / "mini").is_dir()


def test_a_refusal_is_not_tried_again(home: Path, server: Server) -> None:
    server.faults = [404, 503]
    with pytest.raises(UsageError, match="answers 404"):
        data.get("mini")
    assert server.faults == [503]


def test_no_network_names_the_way_out(home: Path) -> None:
    with pytest.raises(UsageError, match=r"--from FILE\.zip"):
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
    with pytest.raises(UsageError, match=r"broken\.zip is no valid zip archive"):
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


def test_the_committed_manifests_fit_the_real_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not real.is_dir():
        pytest.skip("the real archives are not beside this repository")
    monkeypatch.setenv("FUSIONBENCH_HOME", str(tmp_path))
    assert "284 files verified" in data.get("stress_predict", real / "Stress-Predict-Dataset-main.zip")[-1]
    assert "6 files verified" in data.get("stressid", real / "stressid")[-1]


def test_the_bare_command_shows_usage_and_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    from fusionbench.cli import cli

    assert not cli.main(["data", "get"], standalone_mode=False)
    shown = capsys.readouterr().out
    assert "data get [OPTIONS] [NAME]" in shown
    for name in data.names():
        assert f"{data.manifest(name).title}, licence {data.manifest(name).licence}" in shown

"""Plugins of other packages: `fusionbench new` writes one, pip installs it, entry points find it, faults are named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder that pip has installed a generated fuser into, and the package's own folder."""
    work, target = tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("site")
    assert command("new", "fuser", "my_mix", site=target, cwd=work).returncode == 0
    package = work / "fusionbench-my-mix"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", str(target),
         str(package)], check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    return target, package


def command(*words: str, site: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fusionbench", *words], cwd=cwd, capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(site)}, check=False,
    )  # fmt: skip


def entry_point(site: Path, package: str, name: str, target: str) -> None:
    """What an installed package leaves behind."""
    info = site / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[fusionbench.fusers]\n{name} = {target}\n")


def test_a_generated_package_is_found_runs_and_passes_its_own_test(site: tuple[Path, Path], tmp_path: Path) -> None:
    target, package = site
    assert "my_mix" in command("list", "fusers", site=target, cwd=tmp_path).stdout
    done = command("run", "-f", "my_mix", "-b", "toy_xor", "--quick", "--no-track", site=target, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "results" / "toy_xor" / "my_mix").glob("*.json"))
    own = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(package / "tests")], cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(target)}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "1 passed" in own.stdout, own.stdout


def test_one_name_twice_stops_with_both_origins(tmp_path: Path) -> None:
    entry_point(tmp_path, "rival", "concat", "rival")
    done = command("list", "fusers", site=tmp_path, cwd=tmp_path)
    assert done.returncode == 2
    assert "two fusers are called 'concat'" in done.stderr
    assert "concat.py" in done.stderr
    assert "rival of rival" in done.stderr


def test_a_broken_package_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "shaky.py").write_text("1 / 0\n")
    entry_point(tmp_path, "shaky", "shaky_fuser", "shaky")
    done = command("list", "fusers", "--verify", site=tmp_path, cwd=tmp_path)
    assert done.returncode == 1
    assert "BROKEN" in done.stdout
    assert "'shaky_fuser' (shaky of shaky) does not import: ZeroDivisionError" in done.stdout
    assert done.stdout.count("ok      ") > 20

"""Ceilings between chance and the optimum of `affect_sim`: computed, on file, and said below the board."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import fusionbench
from fusionbench import cli, leaderboard, registry
from fusionbench.benchmarks.affect_sim import AffectSim
from fusionbench.errors import UsageError
from fusionbench.records import Record, Run, store

SCRIPT = Path(fusionbench.__file__).parent.parent / "bench" / "ceilings.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    if not SCRIPT.is_file():
        pytest.skip(f"{SCRIPT.name} is not part of an installed package")
    spec = importlib.util.spec_from_file_location("ceilings", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_file_is_what_the_script_computes(script: ModuleType) -> None:
    """The two that are quick; all five take a quarter of a minute."""
    bench = AffectSim()
    data = bench.load()
    known = registry.ceilings("affect_sim")
    assert known["everything"] == round(script.scored(script.posterior_mean(bench, data), data), 3)
    line = script.posterior_mean(AffectSim(synergy=0.0), data)
    assert known["no product of modalities"] == round(script.scored(line, data), 3)
    found = bench.optimum(dict(data.streams), data)
    assert found is not None
    assert known["everything"] == pytest.approx(found["ccc"], abs=0.002)


def test_a_window_is_what_conditioning_on_its_frames_gives(script: ModuleType) -> None:
    """One sample's one frame by a dense solve over the channels seen in it, with the kernel written down."""
    bench = AffectSim(people=10, sequences=1, frames=8, synergy=0.0)
    data = bench.load()
    t, b = 4, 0
    rate = math.sqrt(3) / bench.scale
    for reach in (0, 1):
        rows = []  # (state time, coefficients, value, variance)
        for m, stream in data.streams.items():
            for s in range(t - reach, t + reach + 1):
                if not stream.mask[b, s]:
                    continue
                variance = math.exp(2 * float(stream.x[b, s, -1]))
                for c, weights in enumerate(bench.maps[m].numpy()):
                    rows.append((s - bench.lags[m], weights, float(stream.x[b, s, c]), variance))
        time = np.array([row[0] for row in rows], dtype=float)
        weights, values = np.array([row[1] for row in rows]), np.array([row[2] for row in rows])

        def kernel(left: np.ndarray, right: np.ndarray) -> np.ndarray:
            gap = rate * np.abs(left[:, None] - right[None])
            return np.asarray((1 + gap) * np.exp(-gap))

        gram = kernel(time, time) * (weights @ weights.T) + np.diag([row[3] for row in rows])
        for output in range(2):
            cross = kernel(np.array([float(t)]), time)[0] * (weights @ bench._weights(output).numpy())
            answer = script.window(bench, data, reach)[b, t, output]
            assert float(answer) == pytest.approx(float(cross @ np.linalg.solve(gram, values)), abs=1e-6)


def test_more_is_never_worse() -> None:
    known = registry.ceilings("affect_sim")
    assert known["one frame"] < known["three frames"] < known["everything"]
    assert max(known["no product of modalities"], known["noise level unknown"]) < known["everything"]
    assert list(known.values()) == sorted(known.values())
    assert registry.ceilings("toy_xor") == {}


def test_one_noise_level_for_all_is_what_the_smoother_is_told(script: ModuleType) -> None:
    data = AffectSim(people=10, sequences=1).load()
    flat = script.levelled(data, 0.5)
    for m, stream in flat.streams.items():
        assert set(stream.x[..., -1][stream.mask].tolist()) == {0.5}
        assert torch.equal(stream.x[..., :-1], data.streams[m].x[..., :-1])


@pytest.mark.parametrize(
    ("score", "place"),
    [(0.7, "is below one frame."), (0.82, "is above no product of modalities and below noise level unknown."),
     (0.9, "is above everything.")],
)  # fmt: skip
def test_the_board_says_between_which_its_best_row_stands(tmp_path: Path, score: float, place: str) -> None:
    code = {"benchmark": registry.fingerprint_here("benchmarks", "affect_sim") or "", "fuser": "x"}
    for seed in range(3):
        run = Run("affect_sim", "concat", {"face": "linear"}, 0, seed, {"benchmark": {}, "train": {}, "fuser": {}})
        r = Record(run, "done", code, "data", 1, ["ccc"], {"clean": {"ccc": score}}, complete={"folds": 1, "seeds": 3})
        store.save(tmp_path, r, None, None)
    (board,) = leaderboard.build(store.load(tmp_path), tmp_path)
    (note,) = [note for note in leaderboard.footnotes(board) if note.startswith("Ceilings")]
    assert "one frame 0.743" in note
    assert note.endswith(f"The best row, concat ({score:.3f}), {place}")
    board.title = "affect_sim (noise=2)"  # figures of other settings say nothing here
    assert not any("Ceilings" in note for note in leaderboard.footnotes(board))


def test_info_shows_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.cli.main(["info", "affect_sim"], standalone_mode=False) == 0
    assert "Best reachable ccc at the default settings with: one frame 0.743, " in capsys.readouterr().out


def test_a_damaged_file_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    origin = registry.Origin("mine", tmp_path / "mine.py")
    monkeypatch.setattr(registry, "names", lambda kind: {"mine": origin})
    for number, content in enumerate(("{", '{"one frame": "high"}', "[1]")):
        (tmp_path / "mine.ceilings.json").write_text(content)
        registry.ceilings.cache_clear()
        with pytest.raises(UsageError, match=r"mine\.ceilings\.json is damaged"):
            registry.ceilings("mine")
        assert number < 3
    (tmp_path / "mine.ceilings.json").write_text(json.dumps({"b": 0.5, "a": 0.25}))
    registry.ceilings.cache_clear()
    assert registry.ceilings("mine") == {"a": 0.25, "b": 0.5}
    registry.ceilings.cache_clear()

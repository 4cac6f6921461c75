"""Encoders of raw media: the contract, what each says of its input, and where its weights come from."""

from __future__ import annotations

import math
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fusionbench import hparams, registry
from fusionbench.api import Stream
from fusionbench.check import report
from fusionbench.errors import UsageError

torchvision = pytest.importorskip(
    "torchvision", reason="the encoders are torchvision's: pip install 'mm-fusionbench[video]'"
)

RAW = ("resnet18", "r2plus1d_18", "r3d_18", "spectrogram_resnet18", "hf_audio", "hf_text")
TRAINED = ("gsr_cnn", "biosignal_tcn")
SHAPES = {
    "resnet18": (3, 16, 16), "r2plus1d_18": (2, 3, 16, 16), "r3d_18": (2, 3, 16, 16), "spectrogram_resnet18": (800,),
    "hf_audio": (800,), "hf_text": (16,),
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "resnet18": {"size": 16}, "r2plus1d_18": {"size": 16}, "r3d_18": {"size": 16},
    "spectrogram_resnet18": {"sample_rate": 8000}, "hf_audio": {"model": "wavlm"}, "hf_text": {"model": "bert"},
}  # fmt: skip


def make(name: str, shape: tuple[int, ...] | None = None, **given: Any) -> Any:
    plugin = registry.load("backbones", name)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        settings = {"weights": "random", **SETTINGS.get(name, {}), **given}
        return plugin(shape or SHAPES[name], **hparams.fill(hparams.read(plugin), settings, name))


@pytest.mark.parametrize("name", TRAINED)
def test_trained_encoders_keep_the_contract(name: str) -> None:
    found = report("backbones", name)
    assert found.ok, found


@pytest.mark.parametrize("name", ["resnet18", "spectrogram_resnet18", "hf_audio", "hf_text"])
def test_frozen_encoders_keep_the_contract(name: str) -> None:
    if name.startswith("hf"):
        pytest.importorskip(
            "transformers", reason="it is the transformers library's: pip install 'mm-fusionbench[audio]'"
        )
    only = ["dim", "lengths", "mask_follows_time", "mask_values", "padding", "absent", "samples_independent",
            "batch_order", "inputs_untouched", "deterministic", "seeded", "state_dict", "no_global_random"]  # fmt: skip
    found = report("backbones", name, only)
    assert found.ok, found


@pytest.mark.parametrize("name", ["r2plus1d_18", "r3d_18"])
def test_clip_encoders_keep_the_contract(name: str) -> None:
    found = report("backbones", name, ["dim", "mask_values", "samples_independent", "absent"])
    assert found.ok, found


@pytest.mark.parametrize("name", RAW)
def test_frozen_encoders_have_nothing_to_train(name: str) -> None:
    if name.startswith("hf"):
        pytest.importorskip(
            "transformers", reason="it is the transformers library's: pip install 'mm-fusionbench[audio]'"
        )
    model = make(name)
    assert registry.load("backbones", name).frozen
    assert not any(p.requires_grad for p in model.parameters())
    assert not any(module.training for module in model.train().modules())
    assert model.expects
    assert model(Stream(torch.rand(2, 3, *SHAPES[name]), torch.ones(2, 3, dtype=torch.bool))).x.shape == (
        2,
        3,
        model.dim,
    )


@pytest.mark.parametrize(
    ("name", "shape"),
    [("resnet18", (3,)), ("resnet18", (4, 16, 16)), ("r3d_18", (3, 16, 16)), ("r2plus1d_18", (2, 1, 16, 16)),
     ("spectrogram_resnet18", (20,)), ("spectrogram_resnet18", (2, 800)), ("hf_audio", (3,)), ("hf_text", (2,))],
)  # fmt: skip
def test_a_step_of_the_wrong_shape_is_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=rf"{name} expects .*a step here is"):
        make(name, shape)


def test_values_and_sampling_rates_are_checked() -> None:
    frames, ones = make("resnet18"), torch.ones(1, 2, dtype=torch.bool)
    frames.admit(Stream(torch.rand(1, 2, 3, 16, 16), ones), None)
    with pytest.raises(UsageError, match=r"pixel values from 0 to 1; here they run from .* to 255"):
        frames.admit(Stream(torch.full((1, 2, 3, 16, 16), 255.0), ones), None)
    voice = make("spectrogram_resnet18")
    voice.admit(Stream(torch.rand(1, 2, 800), ones), 10.0)
    with pytest.raises(UsageError, match="works at 8000 Hz, the benchmark gives sound at 16000 Hz"):
        voice.admit(Stream(torch.rand(1, 2, 800), ones), 20.0)
    with pytest.raises(UsageError, match="sound from -1 to 1"):
        voice.admit(Stream(torch.full((1, 2, 800), -3.0), ones), 10.0)
    with pytest.raises(UsageError, match="works at 1000 to 51200 Hz"):
        make("spectrogram_resnet18", sample_rate=96000)


def test_log_mel_against_plain_sums() -> None:
    model = make("spectrogram_resnet18")
    rate, wave = 8000, torch.rand(1, 800, generator=torch.Generator().manual_seed(1)) - 0.5
    got = model.decibels(wave)[0].double().numpy()
    padded = np.pad(wave[0].double().numpy(), 512)
    hop, window = 80, 160
    hann = [0.5 - 0.5 * math.cos(2 * math.pi * n / window) for n in range(window)]
    points = [2595 * math.log10(1 + rate / 2 / 700) * k / 65 for k in range(66)]
    edges = [700 * (10 ** (p / 2595) - 1) for p in points]
    assert got.shape == (64, 1 + 800 // hop)
    for frame in (0, 4, 10):
        middle = padded[frame * hop + 432 : frame * hop + 592] * hann  # the 20 ms in the centre of 1024 samples
        bins = np.arange(513)[:, None] * np.arange(432, 592) / 1024
        power = np.abs((middle * np.exp(-2j * math.pi * bins)).sum(1)) ** 2
        for band in (0, 20, 63):
            low, peak, high = edges[band : band + 3]
            total = 0.0
            for k in range(513):
                f = k * rate / 1024
                total += power[k] * max(0.0, min((f - low) / (peak - low), (high - f) / (high - peak)))
            assert got[band, frame] == pytest.approx(10 * math.log10(max(total, 1e-10)), abs=1e-2)


def test_a_frame_is_scaled_and_normalised_and_clips_are_averaged() -> None:
    model = make("resnet18")
    x = torch.rand(1, 2, 3, 16, 16)
    mean, sd = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    want = model.network((x[0] - mean[:, None, None]) / sd[:, None, None])
    torch.testing.assert_close(model(Stream(x, torch.ones(1, 2, dtype=torch.bool))).x[0], want)
    clips = make("resnet18", (2, 3, 16, 16))
    torch.testing.assert_close(clips(Stream(x[:, None], torch.ones(1, 1, dtype=torch.bool))).x[0, 0], want.mean(0))


def test_weights_come_from_a_file_or_the_library_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import save_file
    from torchvision.models import resnet18

    with torch.random.fork_rng():
        torch.manual_seed(7)
        published = resnet18()
    state = published.state_dict()
    save_file(state, str(tmp_path / "w.safetensors"))
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "w.pth")
    # The library's own cache, as its download would have left it.
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    name = torchvision.models.ResNet18_Weights.DEFAULT.url.rpartition("/")[2]
    torch.save(state, tmp_path / "hub" / "checkpoints" / name)
    for weights in ("", str(tmp_path / "w.safetensors"), str(tmp_path / "w.pth")):
        assert torch.equal(make("resnet18", weights=weights).network.conv1.weight, published.conv1.weight)
    assert not torch.equal(make("resnet18").network.conv1.weight, published.conv1.weight)


def test_what_is_wrong_with_weights_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"no weights file .*w\.pth"):
        make("resnet18", weights=str(tmp_path / "w.pth"))
    (tmp_path / "w.pth").write_bytes(b"nothing of the kind")
    with pytest.raises(UsageError, match=r"w\.pth is no file of weights"):
        make("resnet18", weights=str(tmp_path / "w.pth"))
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "w.pth")
    with pytest.raises(UsageError, match=r"resnet18 needs 'bn1\.weight'"):
        make("resnet18", weights=str(tmp_path / "w.pth"))
    torch.save(Evil(), tmp_path / "w.pth")
    with pytest.raises(UsageError, match="is no file of weights"):
        make("resnet18", weights=str(tmp_path / "w.pth"))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", _offline)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", _offline)
    with pytest.raises(
        UsageError, match=r"pretrained weights of resnet18 cannot be fetched \(no network\).*weights=FILE"
    ):
        make("resnet18", weights="")
    for name in TRAINED:
        with pytest.raises(UsageError, match="has no published weights"):
            make(name, (1,), weights="")


class Evil:
    """An object that a weights file may not hold."""


def _offline(*args: Any, **kwargs: Any) -> Any:
    raise OSError("no network")


def test_trained_encoders_load_a_file(tmp_path: Path) -> None:
    model = make("gsr_cnn", (1,), dim=8, channels=4)
    torch.save(model.state_dict(), tmp_path / "gsr.pth")
    with torch.random.fork_rng():
        torch.manual_seed(5)
        plugin = registry.load("backbones", "gsr_cnn")
        other = plugin((1,), dim=8, channels=4, weights=str(tmp_path / "gsr.pth"))
    assert torch.equal(other.out.weight, model.out.weight)


@pytest.mark.parametrize(("name", "module", "group"), [
    ("resnet18", "torchvision", "video"), ("spectrogram_resnet18", "torchvision", "video"),
    ("hf_audio", "transformers", "audio"), ("hf_text", "transformers", "text"),
])  # fmt: skip
def test_a_missing_extra_is_named_on_construction_only(
    name: str, module: str, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for loaded in [m for m in sys.modules if m.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    plugin = registry.load("backbones", name)
    assert hparams.read(plugin)["weights"].default == ""
    with pytest.raises(UsageError, match=rf"{module} is not installed: pip install 'mm-fusionbench\[{group}\]'"):
        make(name)


@pytest.mark.parametrize("family", ["wav2vec2", "hubert", "audio-spectrogram-transformer"])
def test_families_of_sound_encoders(family: str) -> None:
    pytest.importorskip("transformers", reason="it is the transformers library's: pip install 'mm-fusionbench[audio]'")
    model = make("hf_audio", (1600,), model=family)
    stream = Stream(torch.rand(1, 2, 1600) - 0.5, torch.ones(1, 2, dtype=torch.bool))
    model.admit(stream, 10.0)
    assert model(stream).x.isfinite().all()
    with pytest.raises(UsageError, match="16000 Hz"):
        model.admit(stream, 20.0)
    with pytest.raises(UsageError, match="weights=random is for the families"):
        make("hf_audio", model="gpt2")


def test_hub_models_load_from_a_folder(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="it is the transformers library's: pip install 'mm-fusionbench[audio]'")
    saved = make("hf_audio")
    saved.network.save_pretrained(tmp_path)
    saved.extractor.save_pretrained(tmp_path)
    again = make("hf_audio", weights=str(tmp_path))
    stream = Stream(torch.rand(1, 2, 800) - 0.5, torch.ones(1, 2, dtype=torch.bool))
    torch.testing.assert_close(again(stream).x, saved(stream).x)


def test_text_is_packed_as_bytes_and_padding_means_nothing() -> None:
    pytest.importorskip("transformers", reason="it is the transformers library's: pip install 'mm-fusionbench[text]'")
    plugin = import_module("fusionbench.backbones.hf_text").HfText
    packed = plugin.pack(["größer", "a"], 16)
    assert bytes(packed[0].to(torch.uint8).tolist()).rstrip(b"\0").decode() == "größer"
    with pytest.raises(UsageError, match="more than 3"):
        plugin.pack(["four"], 3)
    model = make("hf_text")
    both = model.encode(packed)
    torch.testing.assert_close(model.encode(packed[1:]), both[1:], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(both[0], both[1])


def test_tokens_of_a_biosignal() -> None:
    gsr = make("gsr_cnn", (1,), dim=8, channels=4)
    x = torch.rand(1, 2816, 1)
    mask = torch.arange(2816)[None] < 1500
    out = gsr(Stream(x, mask))
    assert out.x.shape == (1, 4, 8)
    assert out.mask.tolist() == [[True, True, True, False]]
    alone = gsr(Stream(x[:, 704:1408], torch.ones(1, 704, dtype=torch.bool)))
    torch.testing.assert_close(alone.x[:, 0], out.x[:, 1])

"""Damage: identity, growth, keyed draws, realised amounts, and formulas against slow or foreign implementations."""

from __future__ import annotations

import colorsys
import io
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, signal

from fusionbench import corruptions, registry
from fusionbench.api import Context, Stream, Streams, UsageError, keyed
from fusionbench.corruptions.missing import drop_modalities, subsets

NAMES = list(registry.names("corruptions"))
LEVELS = {
    "feature": {"noise", "gap", "dims", "frames", "drift", "stuck", "quantise", "missing", "absent"},
    "crossmodal": {"lag", "mismatch"},
    "audio": {"white_noise", "environment_noise", "low_pass", "mute", "clip"},
    "image": {"image_noise", "blur", "contrast", "brightness", "pixelate", "jpeg", "occlusion"},
    "biosignal": {"bio_noise", "wander", "power_line", "electrodes", "bursts"},
}
# Not a share of something that can be read off the streams: checked against other implementations below.
NO_MEASURE = {"bursts", "blur", "pixelate", "jpeg"}
# At every element the distance from clean grows, whatever the data.
POINTWISE = sorted(
    set(NAMES) - {"lag", "mismatch", "low_pass", "blur", "pixelate", "jpeg", "white_noise", "environment_noise"}
)


@cache
def load(name: str) -> Any:
    return registry.load("corruptions", name)


def ids(rows: int) -> list[str]:
    return [f"sample {row}" for row in range(rows)]


@cache
def example(name: str) -> tuple[Streams, Context, dict[str, torch.Tensor]]:
    streams, context = (load("noise") if name == "missing" else load(name)).example()
    return streams, context, dict(corruptions.keys(name, 7, ids(len(next(iter(streams.values())))), list(streams)))


@cache
def damaged(name: str, severity: int) -> Streams:
    streams, context, keys = example(name)
    return load(name)("all").apply(streams, severity, keys, context)


def apply(name: str, stream: Stream, severity: int, context: Context, seed: int = 7) -> Stream:
    keys = corruptions.keys(name, seed, ids(len(stream)), ["m"])
    return load(name)("m").apply({"m": stream}, severity, keys, context)["m"]


def distance(before: Stream, after: Stream) -> torch.Tensor:
    """(B,) squared distance of the values (zero where masked) and the number of lost steps."""
    return (before.x - after.x).double().square().flatten(1).sum(1) + (before.mask != after.mask).sum(1)


def stream_of(values: np.ndarray, mask: np.ndarray | None = None) -> Stream:
    x = torch.from_numpy(np.asarray(values, dtype=np.float32))
    return Stream(x, torch.ones(x.shape[:2], dtype=torch.bool) if mask is None else torch.from_numpy(mask))


def test_all_families_are_there_and_say_their_level() -> None:
    assert {level: {n for n in NAMES if load(n).level == level} for level in LEVELS} == LEVELS


@pytest.mark.parametrize("name", NAMES)
def test_class_is_labelled(name: str) -> None:
    plugin = load(name)
    assert plugin.__dict__["name"] == name
    assert isinstance(plugin.announced, bool)
    assert len(plugin.ladder) == (1 if name == "missing" else 5)
    first = plugin.__doc__.splitlines()[0].lower()
    assert ("announced" if plugin.announced else "silent") in first
    assert name == "missing" or "the ladder is" in first


@pytest.mark.parametrize("name", NAMES)
def test_severity_zero_is_the_identity_and_inputs_are_not_written(name: str) -> None:
    streams, _, _ = example(name)
    clean = {m: (s.x.clone(), s.mask.clone()) for m, s in streams.items()}
    for severity in range(len(load(name).ladder) + 1):
        result = damaged(name, severity)
        assert list(result) == list(streams)
    for m, (x, mask) in clean.items():
        assert torch.equal(streams[m].x, x)
        assert torch.equal(streams[m].mask, mask)
        assert torch.equal(damaged(name, 0)[m].x, x)
        assert torch.equal(damaged(name, 0)[m].mask, mask)


@pytest.mark.parametrize("name", NAMES)
def test_distance_grows_on_the_example(name: str) -> None:
    streams, _, _ = example(name)
    for m, clean in streams.items():
        total = [float(distance(clean, damaged(name, s)[m]).sum()) for s in range(len(load(name).ladder) + 1)]
        assert total == sorted(set(total)), m


@pytest.mark.parametrize("name", NAMES)
def test_announced_damage_masks_and_silent_damage_does_not(name: str) -> None:
    streams, _, _ = example(name)
    for m, clean in streams.items():
        for severity in range(1, len(load(name).ladder) + 1):
            after = damaged(name, severity)[m]
            assert after.x.shape == clean.x.shape
            assert after.x.dtype == clean.x.dtype
            assert torch.isfinite(after.x).all()
            if load(name).announced:
                assert not (after.mask & ~clean.mask).any()
                assert (after.mask != clean.mask).any()
                assert torch.equal(after.x[after.mask], clean.x[after.mask])
            else:
                assert torch.equal(after.mask, clean.mask)
            if load(name).level == "image":
                assert after.x.min() >= 0
                assert after.x.max() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_draws_depend_on_the_sample_alone(name: str) -> None:
    """Another order, fewer neighbours and more padding (with NaN under it) change nothing at real steps."""
    streams, context, keys = example(name)
    rows = torch.tensor([2, 0] if len(next(iter(streams.values()))) > 2 else [1, 0])
    few = {
        m: Stream(
            torch.cat([s.x[rows], torch.full_like(s.x[rows][:, :1], torch.nan)], 1),
            torch.cat([s.mask[rows], torch.zeros_like(s.mask[rows][:, :1])], 1),
        )
        for m, s in streams.items()
    }
    for severity in (1, len(load(name).ladder)):
        again = load(name)("all").apply(few, severity, {m: k[rows] for m, k in keys.items()}, context)
        for m, s in damaged(name, severity).items():
            assert torch.equal(again[m].mask[:, :-1], s.mask[rows])
            assert torch.allclose(again[m].x[:, :-1], s.x[rows], rtol=1e-6, atol=1e-6)
            assert not again[m].mask[:, -1].any()


@pytest.mark.parametrize("name", sorted(set(NAMES) - NO_MEASURE))
def test_realised_amount_is_the_nominal_one(name: str) -> None:
    streams, _, _ = example(name)
    m, clean = next(iter(streams.items()))
    for severity, nominal in enumerate(load(name).ladder, 1):
        assert load(name).realised(clean, damaged(name, severity)[m]) == pytest.approx(nominal, rel=0.05, abs=1e-3)


def test_draws_differ_between_seeds_samples_and_modalities() -> None:
    x = torch.zeros(2, 3, 2)
    stream, context = Stream(x, torch.ones(2, 3, dtype=torch.bool)), Context({"m": torch.ones(2), "n": torch.ones(2)})
    one, other = (apply("noise", stream, 1, context, seed).x for seed in (1, 2))
    both = load("noise")().apply(
        {"m": stream, "n": stream}, 1, corruptions.keys("noise", 1, ids(2), ["m", "n"]), context
    )
    assert torch.equal(one, both["m"].x)
    for a, b in ((one, other), (one[0], one[1]), (one, both["n"].x)):
        assert not torch.isclose(a, b, atol=1e-4).any()


@st.composite
def cases(draw: st.DrawFn) -> Stream:
    b, t, d = draw(st.integers(1, 3)), draw(st.integers(1, 12)), draw(st.integers(1, 4))
    mask = np.array(draw(st.lists(st.booleans(), min_size=b * t, max_size=b * t))).reshape(b, t)
    x = keyed.normal(torch.tensor(draw(st.integers(0, 99))), (b, t, d))
    return Stream(x, torch.from_numpy(mask))


@given(cases(), st.sampled_from(POINTWISE), st.integers(0, 9))
@settings(max_examples=150, deadline=None)
def test_every_step_of_the_ladder_is_at_least_as_far_from_clean(stream: Stream, name: str, seed: int) -> None:
    if load(name).level == "image":
        stream = Stream(torch.sigmoid(stream.x)[:, :, None, :, None].expand(-1, -1, 3, -1, 5).clone(), stream.mask)
    context = Context({"m": torch.ones(stream.x.shape[2:])}, {"m": 128.0})
    results = [apply(name, stream, s, context, seed) for s in range(len(load(name).ladder) + 1)]
    far = torch.stack([distance(stream, r) for r in results])  # (levels, B)
    assert (far.diff(dim=0) >= -1e-6 * far[1:]).all()
    for less, more in pairwise(results):
        assert not (more.mask & ~less.mask).any()  # what is lost stays lost


def test_gap_frames_and_mute_equal_slow_loops() -> None:
    mask = np.arange(23)[None] % np.array([[30], [5], [2]]) != 1  # ragged
    mask[2, 15:] = False
    stream = stream_of(np.arange(3 * 23 * 2).reshape(3, 23, 2) + 1.0, mask)
    for severity in range(1, 6):
        for name in ("gap", "frames", "mute"):
            share = load(name).ladder[severity - 1]
            key = corruptions.keys(name, 7, ids(3), ["m"])["m"]
            after = apply(name, stream, severity, Context({}))
            for b in range(3):
                real = [t for t in range(23) if mask[b, t]]
                per_step = 2 if name == "mute" else 1
                spots = [(t, i) for t in real for i in range(per_step)]
                n = int(np.floor(share * len(spots) + 0.5))
                if name == "frames":
                    bits = keyed.bits(key[b], (23,)).tolist()
                    lost = sorted(spots, key=lambda spot, bits=bits: bits[spot[0]])[:n]
                else:
                    start = int(float(keyed.uniform(key[b : b + 1], ())) * (len(spots) - n + 1))
                    lost = spots[start : start + n]
                for t, i in spots:
                    expected = 0.0 if (t, i) in lost else float(stream.x[b, t, i])
                    assert float(after.x[b, t, i]) == expected
                    assert bool(after.mask[b, t]) is ((t, i) not in lost or name == "mute")


def test_lag_and_drift_equal_slow_loops() -> None:
    mask = np.ones((2, 30), dtype=bool)
    mask[0, 7:11] = False
    mask[1, 25:] = False
    stream = stream_of(np.arange(60).reshape(2, 30, 1) + 1.0, mask)
    for severity in range(1, 6):
        late, drifted = (apply(name, stream, severity, Context({})) for name in ("lag", "drift"))
        for b in range(2):
            real = [t for t in range(30) if mask[b, t]]
            steps = int(np.floor(load("lag").ladder[severity - 1] * len(real) + 0.5))
            for i, t in enumerate(real):
                assert late.x[b, t] == stream.x[b, real[max(0, i - steps)]]
                gain = 1 + (load("drift").ladder[severity - 1] - 1) * (t - real[0]) / (real[-1] - real[0])
                assert float(drifted.x[b, t, 0]) == pytest.approx(gain * float(stream.x[b, t, 0]), rel=1e-6)


def test_stuck_holds_one_value_over_one_stretch() -> None:
    stream = stream_of(np.arange(200).reshape(2, 100, 1) + 1.0)
    onsets = set()
    for severity, share in enumerate(load("stuck").ladder, 1):
        x = apply("stuck", stream, severity, Context({})).x[0, :, 0]
        held = [t for t in range(1, 100) if x[t] == x[t - 1]]
        assert held == list(range(held[0], held[0] + round(100 * share)))
        assert torch.equal(x[: held[0]], stream.x[0, : held[0], 0])
        onsets.add(held[0])
    assert len(onsets) == 1


def test_quantise_has_the_levels_of_its_bits_and_leaves_constants() -> None:
    stream = stream_of(np.stack([np.linspace(-4, 3.999, 5000), np.full(5000, 0.3)], 1)[None])
    for severity, bits in enumerate(load("quantise").ladder, 1):
        x = apply("quantise", stream, severity, Context({"m": torch.tensor([1.0, 0.0])})).x[0]
        assert len(x[:, 0].unique()) == 2**bits + 1
        assert (x[:, 0] - stream.x[0, :, 0]).abs().max() <= 4 / 2**bits + 1e-6
        assert torch.equal(x[:, 1], stream.x[0, :, 1])


def test_mismatch_takes_whole_streams_of_others_in_order() -> None:
    rows = 60
    mask = np.arange(5)[None] < 1 + np.arange(rows)[:, None] % 5
    stream = stream_of((np.arange(rows)[:, None] * 10 + np.arange(5))[..., None] + 1.0, mask)
    others = Stream(stream.x, stream.mask & (torch.arange(rows)[:, None] % 3 > 0))
    after = apply("mismatch", stream, 5, Context({}, others={"m": others}))
    swapped = 0
    for b in range(rows):
        told = (after.x[b, mask[b], 0] - 1).int().tolist()
        donors = {value // 10 for value in told}
        assert len(donors) == 1
        donor = donors.pop()
        swapped += donor != b
        assert donor == b or donor % 3 > 0  # a donor has the modality
        last = int(mask[donor].sum()) - 1
        assert [value % 10 for value in told] == [min(i, last) for i in range(len(told))]
    assert 15 < swapped < 45
    two = stream_of(np.array([[[1.0]], [[2.0]]]))
    for seed in range(20):  # never itself where there is another
        after = apply("mismatch", two, 5, Context({}, others={"m": two}), seed).x
        chosen = keyed.uniform(corruptions.keys("mismatch", seed, ids(2), ["m"])["m"], ()) < 0.5
        assert torch.equal(after[:, 0, 0], torch.where(chosen, torch.tensor([2.0, 1.0]), torch.tensor([1.0, 2.0])))
    alone = stream_of(np.array([[[1.0]]]))
    assert torch.equal(apply("mismatch", alone, 5, Context({}, others={"m": alone}), 3).x, alone.x)


@pytest.mark.parametrize("name", ["white_noise", "environment_noise"])
def test_every_sample_is_mixed_at_its_own_ratio(name: str) -> None:
    rng = np.random.default_rng(0)
    mask = np.ones((3, 40), dtype=bool)
    mask[1, 9:] = False
    mask[2, ::2] = False
    clean = stream_of(rng.normal(size=(3, 40, 50)) * np.array([0.001, 1, 30])[:, None, None], mask)
    for severity, decibels in enumerate(load(name).ladder, 1):
        noisy = apply(name, clean, severity, Context({}, {"m": 50.0}))
        for b in range(3):
            x, y = (s.x[b].numpy()[mask[b]].astype(np.float64) for s in (clean, noisy))
            assert 10 * np.log10((x**2).sum() / ((y - x) ** 2).sum()) == pytest.approx(decibels, abs=0.01)
    silence = stream_of(np.zeros((1, 4, 5)))
    assert torch.equal(apply(name, silence, 5, Context({}, {"m": 1.0})).x, silence.x)


def test_environment_noise_is_close_to_pink_and_swells() -> None:
    tone = stream_of(np.sin(np.arange(200 * 160) * 1.0).reshape(1, 200, 160))
    noise = (apply("environment_noise", tone, 5, Context({}, {"m": 50.0})).x - tone.x).flatten().double().numpy()
    frequency, power = signal.welch(noise, fs=8000, nperseg=2048)
    band = (frequency > 20) & (frequency < 2500)
    slope = np.polyfit(np.log(frequency[band]), np.log(power[band]), 1)[0]
    assert -1.3 < slope < -0.7
    loudness = np.sqrt((noise.reshape(-1, 400) ** 2).mean(1))  # 50 ms
    assert np.quantile(loudness, 0.9) > 2.5 * np.quantile(loudness, 0.1)


def test_low_pass_is_scipys_windowed_sinc() -> None:
    impulse = np.zeros((1, 10, 50))
    impulse[0, 5, 0] = 1
    for severity, cut in enumerate(load("low_pass").ladder, 1):
        response = apply("low_pass", stream_of(impulse), severity, Context({})).x.flatten().numpy()
        taps = signal.firwin(129, cut, window="hamming")
        assert response[250 - 64 : 250 + 65] == pytest.approx(taps, abs=1e-7)
        assert np.abs(np.delete(response, np.arange(186, 315))).max() < 1e-7
        frequency, gain = signal.freqz(response[186:315], worN=2048)
        assert np.abs(gain)[frequency / np.pi < cut - 0.04] == pytest.approx(1, abs=0.01)
        assert np.abs(gain)[frequency / np.pi > cut + 0.04].max(initial=0) < 0.01
    rough = np.random.default_rng(1).normal(size=500)
    ours = apply("low_pass", stream_of(rough.reshape(1, 10, 50)), 4, Context({})).x.flatten().numpy()
    assert ours == pytest.approx(np.convolve(rough, signal.firwin(129, 0.25), "same"), abs=1e-5)


def test_clip_is_numpys_percentile() -> None:
    x = np.random.default_rng(2).normal(size=(2, 20, 30)).astype(np.float32)
    mask = np.ones((2, 20), dtype=bool)
    mask[1, 7:] = False
    for severity, percentile in enumerate(load("clip").ladder, 1):
        after = apply("clip", stream_of(x, mask), severity, Context({})).x.numpy()
        for b in range(2):
            limit = np.percentile(np.abs(x[b][mask[b]]), percentile, method="inverted_cdf")
            assert after[b][mask[b]] == pytest.approx(np.clip(x[b][mask[b]], -limit, limit), abs=1e-7)


def spectrum(name: str, seconds: int, rate: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    flat = stream_of(np.zeros((2, int(seconds * rate), 3)))
    wave = apply(name, flat, 5, Context({"m": torch.tensor([1.0, 2.0, 4.0])}, {"m": rate})).x.numpy()
    for b in range(2):
        assert wave[b].std(0) == pytest.approx(load(name).ladder[-1] * np.array([1, 2, 4]), rel=0.02)
        for c in range(3):
            yield signal.periodogram(wave[b, :, c], fs=rate, window="hann")


def test_wander_is_slow_and_the_power_line_hums_at_50_hz() -> None:
    for frequency, power in spectrum("wander", 200, 64.0):
        assert power[(frequency > 0.03) & (frequency < 0.52)].sum() > 0.99 * power.sum()
    for frequency, power in spectrum("power_line", 4, 256.0):
        assert power[np.abs(frequency - 50) < 1].sum() > 0.999 * power.sum()


def test_bursts_are_as_many_as_the_ladder_says() -> None:
    flat = stream_of(np.zeros((3, 6000, 2)))
    for severity, (number, peak) in enumerate(load("bursts").ladder, 1):
        wave = apply("bursts", flat, severity, Context({"m": torch.tensor([1.0, 3.0])}, {"m": 100.0})).x
        assert torch.allclose(wave[..., 1], 3 * wave[..., 0], atol=1e-6)
        assert 0.5 * peak < float(wave[..., 0].abs().max()) <= peak
        for b in range(3):  # stretches of at most half a second, one in a slot of six seconds
            loud = wave[b, :, 0].reshape(10, 600).abs() > 1e-4 * peak
            assert int(loud.any(1).sum()) == number
            for slot in loud[loud.any(1)]:
                places = slot.nonzero()
                assert 20 < int(places[-1] - places[0]) < 50


def test_electrodes_and_dimensions_are_dead_for_the_whole_sample() -> None:
    stream = stream_of(np.random.default_rng(3).normal(size=(5, 8, 7)))
    for name in ("electrodes", "dims"):
        for severity, share in enumerate(load(name).ladder, 1):
            dead = apply(name, stream, severity, Context({})).x == 0  # (B, T, D)
            assert torch.equal(dead.all(1), dead.any(1))
            assert dead.all(1).sum(1).tolist() == [int(np.floor(share * 7 + 0.5))] * 5
        assert len({tuple(row) for row in dead.all(1).tolist()}) > 1


def picture(seed: int = 0, channels: int = 3, size: int = 48) -> np.ndarray:
    """(1, 2, C, H, W) with detail of all sizes, on a grid of 1 / 255."""
    rng = np.random.default_rng(seed)
    x = ndimage.gaussian_filter(rng.normal(size=(1, 2, channels, size, size + 10)), (0, 0, 0.5, 3, 3))
    x = 0.5 + 0.2 * x / x.std() + 0.02 * rng.normal(size=x.shape)
    return (np.round(255 * np.clip(x, 0, 1)) / 255).astype(np.float32)


def test_blur_is_scipys_gaussian_filter() -> None:
    pytest.importorskip("kornia", reason="the extra `image` is not installed")
    x = picture()
    for severity, sigma in enumerate(load("blur").ladder, 1):
        expected = ndimage.gaussian_filter(x.astype(np.float64), (0, 0, 0, sigma, sigma), mode="nearest", truncate=4)
        assert apply("blur", stream_of(x), severity, Context({})).x.numpy() == pytest.approx(expected, abs=1e-6)


def test_brightness_adds_to_the_value_of_hsv() -> None:
    x = picture(size=12)
    x[0, 0, :, 0, 0] = 0
    for severity, amount in enumerate(load("brightness").ladder, 1):
        after = apply("brightness", stream_of(x), severity, Context({})).x.numpy()
        for t, i, j in np.ndindex(2, 12, 22):
            hue, saturation, value = colorsys.rgb_to_hsv(*x[0, t, :, i, j].tolist())
            expected = colorsys.hsv_to_rgb(hue, saturation, min(1, value + amount))
            assert after[0, t, :, i, j] == pytest.approx(expected, abs=1e-6)


def test_contrast_pixelate_and_jpeg_are_pillows() -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    from PIL import ImageEnhance

    x = picture(channels=1)
    grey = image.fromarray((x[0, 1, 0] * 255).round().astype(np.uint8))
    real = image.fromarray(x[0, 1, 0])  # of floats
    for severity in range(1, 6):
        amount = {name: load(name).ladder[severity - 1] for name in ("contrast", "pixelate", "jpeg")}
        ours = {name: apply(name, stream_of(x), severity, Context({})).x[0, 1, 0].numpy() for name in amount}
        theirs = np.asarray(ImageEnhance.Contrast(grey).enhance(amount["contrast"])) / 255
        assert np.abs(ours["contrast"] - theirs).max() < 2 / 255  # Pillow rounds the mean and the result
        small = real.resize((int(58 * amount["pixelate"]), int(48 * amount["pixelate"])), image.Resampling.BOX)
        assert ours["pixelate"] == pytest.approx(np.asarray(small.resize((58, 48), image.Resampling.BOX)), abs=1e-6)
        file = io.BytesIO()
        grey.save(file, "JPEG", quality=amount["jpeg"])
        assert ours["jpeg"] == pytest.approx(np.asarray(image.open(file)) / 255, abs=1e-6)


def test_jpeg_is_close_to_kornias_codec() -> None:
    enhance = pytest.importorskip("kornia.enhance", reason="the extra `image` is not installed")
    x = picture(size=48)[..., :48]
    for severity, quality in enumerate(load("jpeg").ladder, 1):
        ours = apply("jpeg", stream_of(x), severity, Context({})).x[0]
        theirs = enhance.jpeg_codec_differentiable(torch.from_numpy(x[0]), torch.tensor([float(quality)]))
        clean = torch.from_numpy(x[0])
        assert (ours - theirs).square().mean() < 0.3 * (ours - clean).square().mean()


def test_occlusion_is_one_rectangle_at_all_frames() -> None:
    x = stream_of(picture())
    before = torch.zeros(48, 58, dtype=torch.bool)
    for severity, share in enumerate(load("occlusion").ladder, 1):
        after = apply("occlusion", x, severity, Context({})).x[0]
        hidden = (after != x.x[0]).any(1)  # (T, H, W)
        spots = hidden.any(0).nonzero()
        (top, left), (bottom, right) = spots.amin(0).tolist(), spots.amax(0).tolist()
        box = torch.zeros(48, 58, dtype=torch.bool)
        box[top : bottom + 1, left : right + 1] = True
        assert float(box.double().mean()) == pytest.approx(share, rel=0.05)
        assert len(after[:, :, box].flatten(2).permute(0, 2, 1).flatten(0, 1).unique(dim=0)) == 1
        assert not (before & ~box).any()
        before = box


def test_a_larger_occluder_covers_a_smaller_one_in_pictures_of_any_size() -> None:
    for height, width in np.ndindex(9, 9):
        x = stream_of(np.full((8, 1, 1, height + 1, width + 1), 0.5))
        hidden = [apply("occlusion", x, severity, Context({})).x != 0.5 for severity in range(1, 6)]
        assert all(not (less & ~more).any() for less, more in pairwise(hidden))


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(module: str) -> None:
        raise ModuleNotFoundError(module)

    for name, library in (("blur", "kornia"), ("jpeg", "PIL")):
        module = __import__(load(name).__module__, fromlist=["_"])
        monkeypatch.setattr(module, "import_module", absent)
        with pytest.raises(UsageError, match=rf"needs {library}: pip install 'mm-fusionbench\[image\]'"):
            apply(name, stream_of(picture(size=8)), 1, Context({}))


@given(
    present=st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=4),
    rates=st.lists(st.sampled_from([0.0, 0.3, 0.7, 1.0]), min_size=3, max_size=3),
    keep_one=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_drop_modalities_equals_a_slow_loop(
    present: list[list[bool]], rates: list[float], keep_one: bool, seed: int
) -> None:
    rows = len(present)
    streams = {
        m: Stream(torch.ones(rows, 2, 1), torch.tensor([[row[i], False] for row in present]))
        for i, m in enumerate("abc")
    }
    draws = keyed.uniform(torch.tensor(seed), (rows, 3))
    after = drop_modalities(streams, dict(zip("abc", rates, strict=True)), draws, keep_one)
    for b in range(rows):
        there = [i for i in range(3) if present[b][i]]
        left = [i for i in there if not draws[b, i] < rates[i]]
        if keep_one and there and not left:
            left = [max(there, key=lambda i: float(draws[b, i]) / rates[i])]
        assert [i for i, m in enumerate("abc") if after[m].present[b]] == left
    if keep_one:
        assert torch.equal(
            torch.stack([s.present for s in after.values()]).any(0),
            torch.stack([s.present for s in streams.values()]).any(0),
        )


def test_drop_modalities_can_be_stacked() -> None:
    streams = {m: Stream(torch.ones(6, 2, 1), torch.ones(6, 2, dtype=torch.bool)) for m in "ab"}
    draws, rates = keyed.uniform(torch.tensor(1), (4, 6, 2)), torch.tensor([0.0, 0.4, 0.8, 1.0])

    def member(uniforms: torch.Tensor, rate: torch.Tensor) -> torch.Tensor:
        dropped = drop_modalities(streams, {"a": rate, "b": 0.5}, uniforms, keep_one=True)
        return torch.stack([s.mask for s in dropped.values()])

    stacked = torch.func.vmap(member)(draws, rates)
    for k in range(4):
        assert torch.equal(stacked[k], member(draws[k], rates[k]))


def test_absent_keeps_one_of_all_and_loses_more_with_severity() -> None:
    rows = 4000
    streams = {m: Stream(torch.ones(rows, 1, 1), torch.ones(rows, 1, dtype=torch.bool)) for m in "ab"}
    keys = corruptions.keys("absent", 0, ids(rows), ["a", "b"])
    for rate, severity in ((0.1, 1), (0.9, 5)):
        for target in ("all", "a+b"):
            after = load("absent")(target).apply(streams, severity, keys, Context({}))
            assert (after["a"].present | after["b"].present).all()
            lost = 1 - float(after["a"].present.double().mean())
            assert lost == pytest.approx(rate - rate**2 / 2, abs=0.025)
        one = load("absent")("a").apply(streams, severity, keys, Context({}))
        assert one["b"].present.all()
        assert 1 - float(one["a"].present.double().mean()) == pytest.approx(rate, abs=0.02)
    only = {"a": streams["a"], "b": streams["b"].absent()}  # the last one is never taken
    assert load("absent")("a").apply(only, 5, keys, Context({}))["a"].present.all()


def test_the_lattice_leaves_every_non_empty_subset_once() -> None:
    assert subsets(["a"]) == []
    assert subsets(["a", "b"]) == ["missing:a", "missing:b"]
    names = ["face", "voice", "bio", "text"]
    streams = {m: Stream(torch.ones(1, 1, 1), torch.ones(1, 1, dtype=torch.bool)) for m in names}
    kept = []
    for spelling in subsets(names):
        ((condition, corruption, severity),) = corruptions.parse(spelling, names)
        assert condition == spelling
        after = corruption.apply(streams, severity, corruptions.keys("missing", 0, ["x"], names), Context({}))
        kept.append(tuple(m for m in names if after[m].present.all()))
    assert len(kept) == len(set(kept)) == 2**4 - 2
    assert () not in kept


def test_spellings() -> None:
    assert [c for c, _, _ in corruptions.parse("noise:a", ["a"])] == [f"noise:a:{s}" for s in range(1, 6)]
    assert [(c, s) for c, _, s in corruptions.parse("gap:all:3", ["a"])] == [("gap:all:3", 3)]
    assert [(c, s) for c, _, s in corruptions.parse("missing:a", ["a"])] == [("missing:a", 1)]
    assert [(c, s) for c, _, s in corruptions.parse("missing:a:0", ["a"])] == [("missing:a:0", 0)]
    for spelling in ("noise:b:1", "noise:a:6", "noise:a:³", "noise:a:-1", "noise:a+:1", "noise:a:1:2", "nois:a"):
        with pytest.raises(UsageError, match=r"^[^\n]+$"):
            corruptions.parse(spelling, ["a"])


@pytest.mark.parametrize("name", NAMES)
def test_bad_input_is_one_line(name: str) -> None:
    good = stream_of(np.ones((1, 2, 3)))
    broken = stream_of(np.array([[[1.0, np.nan, 0]]]))
    keys = corruptions.keys(name, 0, ["x"], ["m"])
    for target, stream, severity in (
        ("other", good, 1),
        ("m", good, len(load(name).ladder) + 1),
        ("m", good, -1),
        ("m", broken, 0),
        ("m", Stream(torch.zeros(1, 0, 3), torch.zeros(1, 0, dtype=torch.bool)), 1),
        ("m", Stream(torch.zeros(0, 2, 3), torch.zeros(0, 2, dtype=torch.bool)), 1),
    ):
        with pytest.raises(UsageError, match=r"^[^\n]+$"):
            load(name)(target).apply({"m": stream}, severity, keys, Context({}))


@pytest.mark.parametrize(
    ("name", "context", "words"),
    [
        ("noise", Context({}), "Context.sd has none for 'm'"),
        ("wander", Context({"m": torch.ones(3)}), "steps a second of 'm'"),
        ("power_line", Context({"m": torch.ones(3)}, {"m": 32.0}), "more than 100 steps a second, not 32"),
        ("bursts", Context({"m": torch.ones(3)}, {"m": 4.0}), "reaches 8 Hz: 'm' needs more than 16"),
        ("mismatch", Context({}), "Context.others has none for 'm'"),
        ("blur", Context({}), r"\(B, T, C, H, W\)"),
    ],
)
def test_what_the_context_lacks_is_named(name: str, context: Context, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        apply(name, stream_of(np.ones((1, 2, 3))), 1, context)


def test_pictures_beyond_their_range_are_refused() -> None:
    with pytest.raises(UsageError, match="goes beyond"):
        apply("contrast", stream_of(255 * picture()), 1, Context({}))


def test_rates_beyond_their_range_are_refused() -> None:
    streams = {"a": stream_of(np.ones((1, 1, 1)))}
    for rates in ({"a": 1.2}, {"a": -0.1}, {"b": 0.5}):
        with pytest.raises(UsageError, match=r"^[^\n]+$"):
            drop_modalities(streams, rates, torch.zeros(1, 1))


@pytest.mark.parametrize("name", sorted(LEVELS["feature"] | LEVELS["crossmodal"] | LEVELS["biosignal"]))
def test_indicators_are_left_alone_by_what_changes_values(name: str) -> None:
    """Whether and when something was measured is no value; only damage that moves whole steps takes it along."""
    corruption = registry.load("corruptions", name)
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((6, 40, 10))).float()
    streams = {"labs": Stream(x, torch.ones(6, 40, dtype=torch.bool))}
    context = Context({"labs": torch.ones(10)}, {"labs": 256.0}, streams, {"labs": (0, 7)})
    keys, top = corruptions.keys(name, 0, [f"p{i}" for i in range(6)], ["labs"]), len(corruption.ladder)
    damaged = corruption("labs").apply(streams, top, keys, context)["labs"]
    there = damaged.mask
    equal = (damaged.x == x)[there][:, [0, 7]].all()
    assert bool(equal) != corruption.moves
    free = Context({"labs": torch.ones(10)}, {"labs": 256.0}, streams)
    plain = corruption("labs").apply(streams, top, keys, free)["labs"]
    values = [c for c in range(10) if c not in (0, 7)]
    assert torch.equal(damaged.mask, plain.mask)
    assert torch.equal(damaged.x[..., values], plain.x[..., values])

"""The defining equations of SimBaMM, ShaSpec and PDF against slow, obvious loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fusionbench.api import Batch, Spec, Stream, Streams, Task, UsageError
from fusionbench.fusers import pdf, shaspec
from fusionbench.fusers.simbamm import SimBaMM
from fusionbench.model import criterion

SPEC = Spec("classify", {"audio": 3, "video": 4, "text": 2}, 3, samples=16)
TASK = Task("classify", 3, ("accuracy",))

patterns = st.lists(st.booleans(), min_size=1, max_size=4)


def streams(size: int = 4, steps: int = 5, absent: str = "") -> Streams:
    generator = torch.Generator().manual_seed(1)
    return {
        m: Stream(torch.randn(size, steps, dim, generator=generator), torch.full((size, steps), m != absent))
        for m, dim in SPEC.dims.items()
    }


def labels(given: Streams, size: int = 4) -> Batch:
    return Batch(given, torch.arange(size)[:, None] % 3, torch.ones(size, 1, dtype=torch.bool))


# ------------------------------------------------------------------------------------------------------------- simbamm


@torch.no_grad()
def test_simbamm_without_a_modality_is_simbamm_of_the_others() -> None:
    """The class token sees only the present tokens: with the last modality gone, the two others answer alone."""
    torch.manual_seed(0)
    fuser = SimBaMM(SPEC, width=64).eval()
    tokens, mask = torch.randn(2, 1, 3, 64), torch.tensor([True, True, False]).expand(2, 1, 3)
    torch.testing.assert_close(fuser.fuse(tokens, mask), fuser.fuse(tokens[:, :, :2], mask[..., :2]))
    moved = fuser.fuse(tokens.flip(2), mask.flip(2))
    assert (moved - fuser.fuse(tokens, mask)).abs().max() > 1e-3, "positions tell the modalities apart"


@torch.no_grad()
def test_a_clip_token_of_simbamm_is_what_the_encoder_makes_of_the_class_token() -> None:
    torch.manual_seed(0)
    fuser = SimBaMM(SPEC, width=64).eval()
    stream = fuser.project(streams())["audio"]
    token = fuser._token("audio", stream)
    assert token.x.shape == (4, 1, 64)
    again = fuser._token("audio", Stream(stream.x[:, :3], stream.mask[:, :3]))
    longer = Stream(stream.x, stream.mask & (torch.arange(5) < 3))
    torch.testing.assert_close(fuser._token("audio", longer).x, again.x)


# ------------------------------------------------------------------------------------------------------------- shaspec


@settings(max_examples=20, deadline=None)
@given(there=patterns, seed=st.integers(0, 100))
def test_shaspec_fills_the_gaps_with_the_mean_shared_features(there: list[bool], seed: int) -> None:
    torch.manual_seed(seed)
    fuser = shaspec.ShaSpec(Spec("classify", dict.fromkeys("abcd"[: len(there)], 2), 3), width=64)
    shared, specific = torch.randn(1, 1, len(there), 64), torch.randn(1, 1, len(there), 64)
    got = fuser.fuse(shared, specific, torch.tensor(there)[None, None])[0, 0]
    weight = fuser.compose.weight
    present = [m for m in range(len(there)) if there[m]]
    for m, x in enumerate(got):
        if there[m]:
            want = shared[0, 0, m] + weight @ torch.cat([shared[0, 0, m], specific[0, 0, m]])
        elif present:
            want = sum((shared[0, 0, j] for j in present), torch.zeros(64)) / len(present)
        else:
            want = torch.zeros(64)
        torch.testing.assert_close(x, want, atol=1e-5, rtol=1e-5)


@settings(max_examples=20, deadline=None)
@given(size=st.integers(1, 5), count=st.integers(1, 4), seed=st.integers(0, 100))
def test_shaspec_losses_are_sums_over_the_ring_and_over_what_is_there(size: int, count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(size, count, 3, generator=generator)
    mask = torch.rand(size, count, generator=generator) < 0.7
    want = 0.0
    for i, j in {1: [], 2: [(0, 1)]}.get(count, [(i, (i + 1) % count) for i in range(count)]):
        rows = [n for n in range(size) if mask[n, i] and mask[n, j]]
        distances = [sum(abs(float(d)) for d in shared[n, i] - shared[n, j]) / 3 for n in rows]
        want += sum(distances) / max(1, len(rows))
    assert float(shaspec.alignment(shared, mask)) == pytest.approx(want, abs=1e-5)

    logits = torch.randn(size, count, count, generator=generator)
    errors = [
        math.log(sum(math.exp(v) for v in logits[n, m].tolist())) - float(logits[n, m, m])
        for n in range(size)
        for m in range(count)
        if mask[n, m]
    ]
    got = float(shaspec.domain_loss(logits, mask))
    assert got == pytest.approx(sum(errors) / max(1, len(errors)), abs=1e-5)


def test_shaspec_weighs_its_two_terms() -> None:
    torch.manual_seed(0)
    values = []
    for align, domain in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)):
        torch.manual_seed(0)
        fuser = shaspec.ShaSpec(SPEC, width=64, align=align, domain=domain).eval()
        values.append(float(fuser.loss(labels(streams()), criterion(TASK)).detach()))
    assert values[0] < min(values[1:3])
    assert values[3] - values[0] == pytest.approx(values[1] + values[2] - 2 * values[0], abs=1e-4)


# ----------------------------------------------------------------------------------------------------------------- pdf


def _slow_beliefs(p: list[float], there: list[bool]) -> list[float]:
    beliefs = []
    for m, mono in enumerate(p):
        others = math.prod(p[j] for j in range(len(p)) if there[j] and j != m)
        everything = math.prod(p[j] for j in range(len(p)) if there[j])
        beliefs.append(mono + math.log(others) / math.log(everything))
    return beliefs


@settings(max_examples=40, deadline=None)
@given(values=st.lists(st.floats(0.01, 0.99), min_size=1, max_size=4), there=patterns)
def test_pdf_co_belief_is_confidence_plus_the_others_share_of_the_logarithm(
    values: list[float], there: list[bool]
) -> None:
    there = (there * 4)[: len(values)]
    got = pdf.co_belief(torch.tensor(values).log(), torch.tensor(there))
    if not any(there):
        assert torch.isfinite(got).all()
        return
    for m, want in enumerate(_slow_beliefs(values, there)):
        if there[m]:
            assert float(got[m]) == pytest.approx(want, abs=1e-4)


def test_pdf_holo_confidences_of_two_sum_to_one_and_the_surer_of_two_gets_more() -> None:
    p = torch.tensor([0.9, 0.3])
    holo = pdf.co_belief(p.log(), torch.tensor([True, True])) - p
    assert float(holo.sum()) == pytest.approx(1.0)
    assert holo[0] > holo[1]
    assert torch.isfinite(pdf.co_belief(torch.tensor([0.0, -200.0]), torch.ones(2, dtype=torch.bool))).all()


def _slow_calibration(logits: Tensor, there: list[bool]) -> list[float]:
    uniformity = []
    for row in logits.tolist():
        e = [math.exp(v) for v in row]
        uniformity.append(sum(abs(v / sum(e) - 1 / len(e)) for v in e) / len(e))
    factors = []
    for m in range(len(uniformity)):
        others = [uniformity[j] for j in range(len(uniformity)) if there[j] and j != m]
        factors.append(min(1.0, uniformity[m] / (sum(others) / len(others))) if others else 1.0)
    return factors


@settings(max_examples=40, deadline=None)
@given(there=patterns, seed=st.integers(0, 1000))
def test_pdf_calibration_shrinks_what_is_flatter_than_the_others(there: list[bool], seed: int) -> None:
    logits = torch.randn(len(there), 3, generator=torch.Generator().manual_seed(seed))
    got = pdf.calibration(logits, torch.tensor(there))
    for m, want in enumerate(_slow_calibration(logits, there)):
        if there[m]:
            assert float(got[m]) == pytest.approx(want, abs=1e-4)


@torch.no_grad()
def test_pdf_answers_with_the_weighted_logits_and_calibrates_only_outside_training() -> None:
    torch.manual_seed(0)
    fuser = pdf.PDF(SPEC, width=64)
    logits, log_p = torch.randn(1, 1, 3, 3), torch.rand(3).mul(0.8).add(0.1).log()[None, None]
    there = [True, False, True]
    mask = torch.tensor(there)[None, None]
    beliefs = _slow_beliefs(log_p[0, 0].exp().tolist(), there)
    factors = _slow_calibration(logits[0, 0], there)
    for training in (True, False):
        e = [math.exp(b * (1.0 if training else f)) for b, f in zip(beliefs, factors, strict=True)]
        want = (e[0] * logits[0, 0, 0] + e[2] * logits[0, 0, 2]) / (e[0] + e[2])
        torch.testing.assert_close(fuser.train(training).fuse(logits, log_p, mask)[0, 0], want, atol=1e-4, rtol=1e-4)


def test_pdf_confidences_learn_without_moving_the_features() -> None:
    torch.manual_seed(0)
    fuser = pdf.PDF(SPEC, width=64)
    fuser._alone(streams())[1].sum().backward()
    assert all(p.grad is None for p in fuser.project.parameters())
    assert all(p.grad is not None for p in fuser.predict.parameters())


def test_pdf_of_values_names_the_way_out() -> None:
    with pytest.raises(UsageError, match="choose another fuser"):
        pdf.PDF(Spec("regress", {"a": 2}, 1))

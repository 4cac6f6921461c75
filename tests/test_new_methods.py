"""The defining equations of the methods for missing and noisy modalities against slow, obvious loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fusionbench.api import Batch, Spec, Stream, Streams, Task, UsageError, keyed
from fusionbench.engine.model import criterion
from fusionbench.fusers import _combinations, flex_moe, lnln, missing_prompts, predictive_dynamic, shaspec
from fusionbench.fusers.simbamm import SimBaMM

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


# ------------------------------------------------------------------------------------------------- predictive dynamic


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
    got = predictive_dynamic.co_belief(torch.tensor(values).log(), torch.tensor(there))
    if not any(there):
        assert torch.isfinite(got).all()
        return
    for m, want in enumerate(_slow_beliefs(values, there)):
        if there[m]:
            assert float(got[m]) == pytest.approx(want, abs=1e-4)


def test_pdf_holo_confidences_of_two_sum_to_one_and_the_surer_of_two_gets_more() -> None:
    p = torch.tensor([0.9, 0.3])
    holo = predictive_dynamic.co_belief(p.log(), torch.tensor([True, True])) - p
    assert float(holo.sum()) == pytest.approx(1.0)
    assert holo[0] > holo[1]
    assert torch.isfinite(
        predictive_dynamic.co_belief(torch.tensor([0.0, -200.0]), torch.ones(2, dtype=torch.bool))
    ).all()


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
    got = predictive_dynamic.calibration(logits, torch.tensor(there))
    for m, want in enumerate(_slow_calibration(logits, there)):
        if there[m]:
            assert float(got[m]) == pytest.approx(want, abs=1e-4)


@torch.no_grad()
def test_pdf_answers_with_the_weighted_logits_and_calibrates_only_outside_training() -> None:
    torch.manual_seed(0)
    fuser = predictive_dynamic.PredictiveDynamic(SPEC, width=64)
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
    fuser = predictive_dynamic.PredictiveDynamic(SPEC, width=64)
    fuser._alone(streams())[1].sum().backward()
    assert all(p.grad is None for p in fuser.project.parameters())
    assert all(p.grad is not None for p in fuser.predict.parameters())


def test_pdf_of_values_names_the_way_out() -> None:
    with pytest.raises(UsageError, match="choose another fuser"):
        predictive_dynamic.PredictiveDynamic(Spec("regress", {"a": 2}, 1))


# -------------------------------------------------------------------------------------------------------- combinations


@settings(max_examples=20, deadline=None)
@given(there=patterns)
def test_every_combination_has_a_row_of_its_own(there: list[bool]) -> None:
    absent = [m for m, present in enumerate(there) if not present]
    got = _combinations.rank(torch.tensor(there)[None, None])
    assert got.tolist() == [[sum(2**m for m in absent)]]
    table = torch.randn(2 ** len(there), 2, 3)
    torch.testing.assert_close(_combinations.look_up(table, got)[0, 0], table[int(got)])


def test_too_many_modalities_for_a_table_of_combinations_are_named() -> None:
    problem = Spec("classify", {f"m{i}": 2 for i in range(11)}, 3)
    for name, fuser in (("flex_moe", flex_moe.FlexMoE), ("missing_prompts", missing_prompts.MissingPrompts)):
        with pytest.raises(UsageError, match=f"{name} learns .* at most 10, not 11; choose another fuser"):
            fuser(problem)


# ----------------------------------------------------------------------------------------------------- missing prompts


def _slow_block(block: missing_prompts._Block, x: Tensor, keys: Tensor, values: Tensor, seen: list[bool]) -> Tensor:
    """A pre-norm layer with one head, query by query; keys and values stand before the sequence's own."""
    normal = block.norm1(x)
    every_key, every_value = torch.cat([keys, block.key(normal)]), torch.cat([values, block.value(normal)])
    rows = []
    for query in block.query(normal):
        scores = [float(query @ key) / math.sqrt(len(query)) for key in every_key]
        e = [math.exp(score) if real else 0.0 for score, real in zip(scores, seen, strict=True)]
        rows.append(sum((w / sum(e) * v for w, v in zip(e, every_value, strict=True)), torch.zeros(len(query))))
    x = x + block.out(torch.stack(rows))
    return x + block.feed(block.norm2(x))


@torch.no_grad()
@pytest.mark.parametrize("prompt", ["input", "attention"])
def test_prompts_stand_before_the_sequence_or_before_keys_and_values(prompt: str) -> None:
    torch.manual_seed(0)
    block = missing_prompts._Block(8, 1, prompt)
    x, prompts, mask = torch.randn(1, 3, 8), torch.randn(1, 4, 8), [True, False, True]
    got, seen = block(x, torch.tensor(mask)[None], prompts)
    if prompt == "input":
        want = _slow_block(block, torch.cat([prompts, x], 1)[0], x[0, :0], x[0, :0], [True] * 4 + mask)
        assert seen.tolist() == [[True] * 4 + mask]
    else:
        want = _slow_block(block, x[0], prompts[0, :2], prompts[0, 2:], [True] * 2 + mask)
        assert seen.tolist() == [mask]
    torch.testing.assert_close(got[0], want, atol=1e-5, rtol=1e-5)


def test_only_the_prompts_of_the_combinations_at_hand_learn() -> None:
    torch.manual_seed(0)
    fuser = missing_prompts.MissingPrompts(SPEC, width=64, layers=1)
    assert fuser.prompts.shape == (8, 1, 4, 64)
    fuser(streams(absent="video")).square().sum().backward()
    assert fuser.prompts.grad is not None
    assert fuser.prompts.grad.abs().sum((1, 2, 3)).nonzero().flatten().tolist() == [2]
    starts = fuser.prompts.detach()[:, 0].sum(-1)
    assert starts.argmax(-1).tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert starts.sum(-1).tolist() == [64.0] * 8


def test_an_odd_number_of_prompts_is_refused() -> None:
    with pytest.raises(UsageError, match="even number"):
        missing_prompts.MissingPrompts(SPEC, prompts=3)


# ------------------------------------------------------------------------------------------------------------ flex-moe


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), experts=st.integers(2, 5), active=st.integers(1, 3))
def test_flex_moe_gates_are_a_softmax_over_the_best_and_load_is_the_chance_to_be_one_of_them(
    seed: int, experts: int, active: int
) -> None:
    active = min(active, experts)
    generator = torch.Generator().manual_seed(seed)
    clean, noise = (torch.randn(experts, generator=generator) for _ in range(2))
    spread = torch.rand(experts, generator=generator) + 0.1
    got = flex_moe.gate(clean, spread, noise, active)
    scores = [float(c + s * n) for c, s, n in zip(clean, spread, noise, strict=True)]
    best = sorted(range(experts), key=lambda i: -scores[i])[:active]
    total = sum(math.exp(scores[i]) for i in best)
    for i in range(experts):
        want = math.exp(scores[i]) / total if i in best else 0.0
        assert float(got.gates[i]) == pytest.approx(want, abs=1e-5)
        others = sorted((scores[j] for j in range(experts) if j != i), reverse=True)
        if active < experts:  # it is one of the best if it beats the k-th of the others
            z = (float(clean[i]) - others[active - 1]) / float(spread[i])
            assert float(got.load[i]) == pytest.approx(0.5 * (1 + math.erf(z / math.sqrt(2))), abs=1e-5)
        else:
            assert float(got.load[i]) == 1.0


@settings(max_examples=30, deadline=None)
@given(kinds=st.lists(st.sampled_from([0, 1, 2, 3]), min_size=1, max_size=6), seed=st.integers(0, 100))
def test_flex_moe_balances_complete_tokens_and_leads_the_others(kinds: list[int], seed: int) -> None:
    """Kind 0 is a complete sample, 3 one without any modality, 1 and 2 the incomplete combinations."""
    generator = torch.Generator().manual_seed(seed)
    clean, noise = (torch.randn(len(kinds), 4, generator=generator) for _ in range(2))
    routing = flex_moe.gate(clean, torch.ones_like(clean), noise, 2)
    kind = torch.tensor(kinds)
    got = flex_moe.router_loss(routing, kind, kind == 0, (kind == 1) | (kind == 2))

    def variation(values: list[float]) -> float:
        mean = sum(values) / len(values)
        return sum((v - mean) ** 2 for v in values) / (len(values) - 1) / (mean**2 + 1e-10)

    partial = [n for n, k in enumerate(kinds) if k in (1, 2)]
    want = 0.0
    for n in partial:
        e = [math.exp(v) for v in routing.scores[n].tolist()]
        want -= math.log(e[kinds[n]] / sum(e)) / len(partial)
    for table in (routing.gates, routing.load):
        want += variation([sum(float(table[n, i]) for n, k in enumerate(kinds) if k == 0) for i in range(4)])
        want += variation([sum(float(table[n, i]) for n in partial) for i in range(1, 4)])
    assert float(got) == pytest.approx(want, rel=1e-3, abs=1e-4)


def test_no_incomplete_combination_shares_the_first_expert() -> None:
    fuser = flex_moe.FlexMoE(SPEC, width=64, experts=4)
    assert fuser.expert(torch.arange(8)).tolist() == [0, 1, 2, 3, 1, 2, 3, 1]


@torch.no_grad()
def test_the_bank_stands_in_for_what_is_missing() -> None:
    torch.manual_seed(0)
    fuser = flex_moe.FlexMoE(SPEC, width=64, tokens=2).eval()
    whole, _ = fuser.tokens(streams())
    tokens, mask = fuser.tokens(streams(absent="video"))
    assert mask[0, 0].tolist() == [True, False, True]
    torch.testing.assert_close(tokens[0, 0, 2:4], fuser.bank[2, 1] + fuser.place[2:4])
    torch.testing.assert_close(tokens[:, :, [0, 1, 4, 5]], whole[:, :, [0, 1, 4, 5]])


# ---------------------------------------------------------------------------------------------------------------- lnln


def _lnln(problem: Spec = SPEC, **given: str | int) -> lnln.LNLN:
    torch.manual_seed(0)
    return lnln.LNLN(problem, **given).eval()  # type: ignore[arg-type]


def test_the_dominant_modality_is_declared() -> None:
    assert _lnln().dominant == "text"
    assert _lnln(Spec("classify", {"audio": 2, "language": 2}, 3)).dominant == "language"
    assert _lnln(Spec("classify", {"gsr": 2, "ecg": 2}, 3)).dominant == "gsr"
    assert _lnln(dominant="video").others == ["audio", "text"]
    with pytest.raises(UsageError, match="no modality 'words' to be dominant, only audio, video, text"):
        _lnln(dominant="words")


@torch.no_grad()
def test_lnln_mends_the_dominant_tokens_as_far_as_they_are_incomplete() -> None:
    fuser = _lnln()
    mended = fuser.mend(fuser.tokens(streams()))
    for b in range(4):
        w = float(mended.complete[b, 0])
        assert 0 < w < 1
        for n in range(2):
            want = w * mended.own[b, 0, n] + (1 - w) * mended.proxy[b, 0, n]
            torch.testing.assert_close(mended.tokens[b, 0, n], want, atol=1e-5, rtol=1e-5)
    lost = fuser.mend(fuser.tokens(streams(absent="text")))
    assert lost.complete.tolist() == [[0.0]] * 4
    torch.testing.assert_close(lost.tokens, mended.proxy)


@torch.no_grad()
def test_an_absent_companion_is_no_key_of_the_proxy() -> None:
    """Whatever stands in the tokens of an absent modality, neither proxy nor answer changes."""
    fuser = _lnln()
    tokens = fuser.tokens(streams(absent="audio"))
    other = {**tokens, "audio": (torch.randn_like(tokens["audio"][0]), tokens["audio"][1])}
    torch.testing.assert_close(fuser.mend(other).proxy, fuser.mend(tokens).proxy)
    got, want = (fuser.respond(fuser.mend(t), t) for t in (other, tokens))
    torch.testing.assert_close(got, want)


@torch.no_grad()
def test_the_hyper_modality_adds_one_attention_for_each_companion() -> None:
    torch.manual_seed(0)
    layer = lnln._Hyper(["a", "b"], 8, 1)
    hyper, lead = torch.randn(1, 1, 2, 8), torch.randn(1, 1, 2, 8)
    tokens = {m: (torch.randn(1, 1, 3, 8), torch.ones(1, 1, dtype=torch.bool)) for m in "ab"}
    got = layer(hyper, lead, tokens)[0, 0]
    for n in range(2):
        gathered = torch.zeros(8)
        query = layer.query(layer.norm_query(lead[0, 0, n]))
        for m in "ab":
            normal = layer.norms[m](tokens[m][0][0, 0])
            e = [math.exp(float(query @ key) / math.sqrt(8)) for key in layer.keys[m](normal)]
            for weight, value in zip(e, layer.values[m](normal), strict=True):
                gathered = gathered + weight / sum(e) * value
        want = layer.norm_hyper(hyper[0, 0, n]) + layer.out(gathered)
        torch.testing.assert_close(got[n], want, atol=1e-5, rtol=1e-5)


def test_lnln_damages_about_half_the_samples_and_tells_the_rate() -> None:
    mask = torch.ones(400, 50, dtype=torch.bool)
    data = {m: Stream(torch.ones(400, 50, dim), mask) for m, dim in SPEC.dims.items()}
    with keyed.scope(torch.tensor(3, dtype=torch.int32)):
        damaged, rate = _lnln()._damage(data)
    zeroed = (damaged["text"].x[..., 0] == 0).float().mean(1)
    assert 0.4 < float((rate == 0).float().mean()) < 0.6
    assert torch.equal(zeroed == 0, (rate == 0) | (zeroed == 0))
    assert float((zeroed - rate).abs().max()) < 0.3
    assert float((zeroed - rate).mean().abs()) < 0.02
    assert not torch.equal(damaged["text"].x[..., 0], damaged["audio"].x[..., 0]), "each modality has draws of its own"
    assert all(damaged[m].mask.all() for m in SPEC.dims), "zeroed steps stay visible, as in the released code"


def test_the_discriminators_gradient_is_reversed_on_the_way_to_the_proxy_only() -> None:
    fuser = _lnln()
    own, proxy = torch.randn(2, 1, 2, 64), torch.randn(2, 1, 2, 64, requires_grad=True)
    there, whole = torch.ones(2, 1, dtype=torch.bool), torch.randn(2, 1, 2, 64)
    w = torch.full((2, 1), 0.25)
    mended = lnln.Mended(0.25 * own + 0.75 * proxy, own, proxy, w)
    got = fuser._adversary_error(mended, whole, there)

    def plainly(where: Tensor) -> Tensor:
        told = fuser.discriminator(torch.cat([whole, 0.25 * own + 0.75 * where])).log_softmax(-1)
        return -(told[:2, ..., 0].mean() + told[2:, ..., 1].mean()) / 2

    same = proxy.detach().requires_grad_()
    torch.testing.assert_close(got, plainly(same))
    got.backward()
    plainly(same).backward()
    assert proxy.grad is not None
    assert same.grad is not None
    torch.testing.assert_close(proxy.grad, -same.grad)

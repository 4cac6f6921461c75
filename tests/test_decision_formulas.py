"""The formulas of the fusers that weigh modalities or decisions, against slow and obvious loops."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fusionbench import registry
from fusionbench.api import Batch, Spec, Stream, Task, UsageError, keep_some
from fusionbench.engine.model import criterion
from fusionbench.fusers import energy, evidential, mmin, self_mm

SPEC = Spec("classify", {"audio": 3, "video": 4, "text": 2}, 3, samples=16)


def _fuser(name: str, spec: Spec = SPEC, **given: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return registry.load("fusers", name)(spec, width=64, **given).eval()


def _streams(size: int = 4, steps: int = 5, *, absent: str = "") -> dict[str, Stream]:
    generator = torch.Generator().manual_seed(1)
    streams = {}
    for m, dim in SPEC.dims.items():
        x = torch.randn(size, steps, dim, generator=generator)
        streams[m] = Stream(x, torch.full((size, steps), m != absent))
    return streams


# ---------------------------------------------------------------------------------------------------------- evidential


def _opinion(evidence: list[float]) -> dict[frozenset[int], float]:
    """Masses of the focal elements: every class alone, and all classes together (the uncertainty)."""
    classes = len(evidence)
    strength = sum(evidence) + classes
    masses = {frozenset([k]): e / strength for k, e in enumerate(evidence)}
    masses[frozenset(range(classes))] = classes / strength
    return masses


def _dempster(first: dict[frozenset[int], float], second: dict[frozenset[int], float]) -> dict[frozenset[int], float]:
    """Dempster's rule over all pairs of focal elements; pairs that contradict each other are the conflict."""
    combined: dict[frozenset[int], float] = {}
    conflict = 0.0
    for (a, p), (b, q) in itertools.product(first.items(), second.items()):
        if a & b:
            combined[a & b] = combined.get(a & b, 0.0) + p * q
        else:
            conflict += p * q
    return {subset: mass / (1 - conflict) for subset, mass in combined.items()}


@settings(max_examples=25, deadline=None)
@given(
    st.integers(2, 4).flatmap(
        lambda c: st.lists(st.lists(st.floats(0, 50), min_size=c, max_size=c), min_size=1, max_size=4)
    )
)
def test_evidence_is_combined_as_dempster_does(evidence: list[list[float]]) -> None:
    classes = len(evidence[0])
    masses = _opinion(evidence[0])
    for other in evidence[1:]:
        masses = _dempster(masses, _opinion(other))
    strength = classes / masses[frozenset(range(classes))]  # u = C / S
    want = [masses.get(frozenset([k]), 0.0) * strength for k in range(classes)]
    got = evidential.combine(torch.tensor(evidence, dtype=torch.float64))
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-8, atol=1e-8)


def test_evidential_answers_with_the_mean_of_the_combined_dirichlet() -> None:
    fuser, streams = _fuser("evidential"), _streams()
    evidence, _ = fuser._evidence(streams)
    alpha = evidential.combine(evidence) + 1
    torch.testing.assert_close(fuser(streams).softmax(-1), alpha / alpha.sum(-1, keepdim=True))


def test_evidential_risk_is_the_expected_cross_entropy_plus_the_divergence() -> None:
    alpha = torch.tensor([3.0, 1.5, 6.0], dtype=torch.float64)
    label = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    draws = torch.distributions.Dirichlet(alpha)
    wrong = torch.distributions.Dirichlet(torch.tensor([3.0, 1.0, 6.0], dtype=torch.float64))
    flat = torch.distributions.Dirichlet(torch.ones(3, dtype=torch.float64))
    torch.manual_seed(0)
    sampled = -draws.sample((200_000,))[:, 1].log().mean()
    divergence = torch.distributions.kl_divergence(wrong, flat)
    assert float(evidential.risk(alpha, label, torch.tensor(0.0))) == pytest.approx(float(sampled), rel=0.01)
    both = float(evidential.risk(alpha, label, torch.tensor(0.7)) - evidential.risk(alpha, label, torch.tensor(0.0)))
    assert both == pytest.approx(0.7 * float(divergence))


# -------------------------------------------------------------------------------------------------------------- energy


@torch.no_grad()
def test_energy_weights_are_a_tenth_of_the_negative_energy() -> None:
    fuser, streams = _fuser("energy"), _streams()
    logits, _ = fuser._logits(streams)
    answers = fuser(streams)
    for b in range(4):
        for k in range(3):
            want = 0.0
            for m in range(3):
                free = -math.log(sum(math.exp(v) for v in logits[b, 0, m].tolist()))
                want += -free / 10 * float(logits[b, 0, m, k])
            assert float(answers[b, 0, k]) == pytest.approx(want, abs=1e-5)


def test_ranking_wants_the_harder_of_two_neighbours_less_confident() -> None:
    generator = torch.Generator().manual_seed(2)
    confident, hard = (torch.rand(5, 1, 2, generator=generator) for _ in range(2))
    valid = torch.ones(5, 1, 2, dtype=torch.bool)
    valid[3, 0, 1] = False
    want = 0.0
    for m in range(2):
        terms = []
        for i in range(5):
            j = (i + 1) % 5
            if valid[i, 0, m] and valid[j, 0, m]:
                gap = float(hard[i, 0, m] - hard[j, 0, m])
                excess = math.copysign(1, gap) * float(confident[i, 0, m] - confident[j, 0, m])
                terms.append(max(0.0, excess + abs(gap)))
        want += sum(terms) / len(terms)
    assert float(energy.ranking(confident, hard, valid)) == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("name", ["energy", "evidential"])
def test_class_decisions_refuse_regression_in_one_line(name: str) -> None:
    with pytest.raises(UsageError, match=f"^{name}.*choose another fuser$"):
        _fuser(name, Spec("regress", SPEC.dims, 1))


# --------------------------------------------------------------------------------------------------------------- gates


def _softmax(scores: list[float]) -> list[float]:
    powers = [math.exp(s - max(scores)) for s in scores]
    return [p / sum(powers) for p in powers]


@torch.no_grad()
def test_dynamic_gate_is_a_softmax_of_temperature_one_tenth() -> None:
    fuser = _fuser("dynamic_cross")
    attended = torch.randn(2, 3, 64, generator=torch.Generator().manual_seed(3))
    gate = fuser.gate("audio", attended, torch.tensor([True, False]))
    layer = fuser.choose["audio"]
    for t in range(3):
        scores = [
            (float(layer.weight[k] @ attended[0, t]) + float(layer.bias[k])) / 0.1 for k in range(2)
        ]  # own, attended
        assert gate[0, t].tolist() == pytest.approx(_softmax(scores), abs=1e-4)
    torch.testing.assert_close(gate[1], torch.tensor([1.0, 0.0]).expand(3, 2))  # nothing there to attend to


def test_laplace_gate_is_a_softmax_of_negative_distances_to_the_nearest_centres() -> None:
    fuser = _fuser("moe", experts=5, active=2)
    x = torch.randn(2, 1, 3, 64, generator=torch.Generator().manual_seed(4))
    mask = torch.tensor([[[True, True, True]], [[True, False, True]]])
    gates = fuser.gates(fuser.scores(x), mask)
    for b, m in itertools.product(range(2), range(3)):
        far = [math.dist(x[b, 0, m].tolist(), centre) for centre in fuser.centres[m].tolist()]
        nearest = sorted(range(5), key=far.__getitem__)[:2]
        shares = dict(zip(nearest, _softmax([-far[e] for e in nearest]), strict=True)) if mask[b, 0, m] else {}
        assert gates[b, 0, m].tolist() == pytest.approx([shares.get(e, 0.0) for e in range(5)], abs=1e-5)


def test_attention_pool_is_the_sum_weighted_by_plain_scores() -> None:
    fuser, streams = _fuser("attention_pool"), _streams(absent="video")
    hidden = {m: fuser.embed[m](s.x.sum(1) / s.mask.sum(1, keepdim=True).clamp(min=1)) for m, s in streams.items()}
    hidden = {m: x * streams[m].present[:, None] for m, x in hidden.items()}
    scores = fuser.score(torch.cat(list(hidden.values()), -1))  # (B, M)
    total = sum(scores[:, i, None] * x for i, x in enumerate(hidden.values()))
    torch.testing.assert_close(fuser(streams)[:, 0], fuser.answer(total))


@pytest.mark.parametrize("name", ["attention_pool", "dynamic_cross", "energy", "evidential", "mmin", "moe", "self_mm"])
def test_an_absent_modality_is_as_if_it_had_no_parameters(name: str) -> None:
    fuser, streams = _fuser(name), _streams(absent="video")
    want = fuser(streams)
    with torch.no_grad():
        for parameter_name, parameter in fuser.named_parameters():
            if ".video." in parameter_name:
                parameter.add_(1.0)
    torch.testing.assert_close(fuser(streams), want)


# ---------------------------------------------------------------------------------------------- dropping and imagining


def test_action_mae_keeps_one_to_all_of_what_is_there() -> None:
    generator = torch.Generator().manual_seed(6)
    mask = torch.rand(400, 3, 4, generator=generator) > 0.3
    kept = keep_some(mask)
    there, left = mask.sum(-1), kept.sum(-1)
    assert not (kept & ~mask).any()
    assert ((left >= 1) | (there == 0)).all()
    for count in range(1, 5):
        share = torch.bincount(left[there == count], minlength=count + 1)[1:] / (there == count).sum()
        assert share.tolist() == pytest.approx([1 / count] * count, abs=0.12)


def test_mmin_drops_every_combination_but_none_and_all() -> None:
    generator = torch.Generator().manual_seed(6)
    mask = torch.rand(2000, 3, 4, generator=generator) > 0.3
    kept = mmin.drop_some(mask)
    assert not (kept & ~mask).any()
    assert torch.equal(kept[mask.sum(-1) < 2], mask[mask.sum(-1) < 2])  # one alone is never dropped
    seen: dict[tuple[bool, ...], Counter[tuple[bool, ...]]] = defaultdict(Counter)
    for there, left in zip(mask.flatten(0, 1).tolist(), kept.flatten(0, 1).tolist(), strict=True):
        seen[tuple(there)][tuple(left)] += 1
    for there, counts in seen.items():
        if (count := sum(there)) > 1:
            assert len(counts) == 2**count - 2
            assert there not in counts
            fair = sum(counts.values()) / len(counts)
            assert all(abs(number - fair) < 6 * math.sqrt(fair) for number in counts.values())


def test_action_mae_drops_and_reconstructs_only_what_was_really_there() -> None:
    *_, dropped = _fuser("action_mae").train()._fuse(_streams(16, absent="video"))
    assert dropped[..., 0].any()
    assert not dropped[..., 1].any()
    assert dropped[..., 2].any()


def test_mmin_is_not_asked_to_imagine_what_was_never_there() -> None:
    fuser = _fuser("mmin", blocks=1)
    fuser.cycle = 0.0
    nothing = torch.zeros(16, 1, dtype=torch.bool)  # without labels only the method's own terms are left

    def loss(absent: str) -> float:
        batch = Batch(_streams(16, absent=absent), nothing.long(), nothing)
        return float(fuser.loss(batch, criterion(Task("classify", 3, ("accuracy",)))).detach())

    before = {absent: loss(absent) for absent in ("", "video")}
    with torch.no_grad():
        fuser.forth.transition[-1].bias[64:128] += 10.0  # what is imagined in the place of video
    assert loss("video") == pytest.approx(before["video"])
    assert loss("") > before[""] + 1.0


# ----------------------------------------------------------------------------------------------------- generated labels


def test_generated_values_follow_the_paper() -> None:
    generator = torch.Generator().manual_seed(7)
    own, fused = (torch.randn(6, 1, 4, generator=generator) for _ in range(2))
    y = torch.randn(6, 1, 1, generator=generator)
    everyone = torch.ones(6, 1, dtype=torch.bool)
    label, scale = self_mm.value_labels(own, fused, y, everyone, everyone)
    values = y.flatten().tolist()
    mean = sum(values) / 6
    reach = max(abs(v - mean) for v in values)
    high = [i for i in range(6) if values[i] >= mean]
    low = [i for i in range(6) if values[i] < mean]

    def alpha(features: Tensor, i: int) -> float:
        x = features[:, 0]
        to_high = float((x[i] - x[high].mean(0)).norm()) / 2  # sqrt of 4 features
        to_low = float((x[i] - x[low].mean(0)).norm()) / 2
        return (to_low - to_high) / to_high

    for i in range(6):
        at = (values[i] - mean) / reach
        new = at * alpha(own, i) / (2 * alpha(fused, i)) + (at + alpha(own, i) - alpha(fused, i)) / 2
        assert float(label[i, 0, 0]) == pytest.approx(mean + reach * min(1.0, max(-1.0, new)), abs=1e-4)
    assert float(scale) == pytest.approx(reach, rel=1e-5)


def test_generated_labels_are_the_true_ones_where_features_agree() -> None:
    features = torch.randn(6, 1, 4, generator=torch.Generator().manual_seed(8))
    everyone = torch.ones(6, 1, dtype=torch.bool)
    classes = torch.tensor([0, 1, 2, 0, 1, 2])[:, None]
    true, label = self_mm.class_labels(features, features, classes, everyone, everyone, 3)
    torch.testing.assert_close(label, true)
    assert true.argmax(-1).flatten().tolist() == classes.flatten().tolist()
    values = classes.float()[..., None]
    label, _ = self_mm.value_labels(features, features, values, everyone, everyone)
    torch.testing.assert_close(label, values)


def test_generated_class_labels_move_by_the_difference_of_affinities() -> None:
    generator = torch.Generator().manual_seed(9)
    own, fused = (torch.randn(6, 1, 4, generator=generator) for _ in range(2))
    classes = [0, 1, 2, 0, 1, 2]
    everyone = torch.ones(6, 1, dtype=torch.bool)
    _, label = self_mm.class_labels(own, fused, torch.tensor(classes)[:, None], everyone, everyone, 4)

    def affinity(features: Tensor, i: int) -> list[float]:
        x = features[:, 0]
        centres = [x[[j for j in range(6) if classes[j] == k]].mean(0) for k in range(3)]
        return [*_softmax([-float((x[i] - c).norm()) / 2 for c in centres]), 0.0]  # nobody has the fourth class

    for i in range(6):
        moved = [max(0.0, float(classes[i] == k) + affinity(own, i)[k] - affinity(fused, i)[k]) for k in range(4)]
        assert label[i, 0].tolist() == pytest.approx([v / sum(moved) for v in moved], abs=1e-5)

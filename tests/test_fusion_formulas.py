"""The formulas of the published fusers against slow, obvious loops."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fusionbench.api import Fuser, Spec, Stream, Streams, UsageError
from fusionbench.fusers import _joint_attention, joint_attention, misa, recursive_joint, tensor_fusion
from fusionbench.fusers.audio_query import AudioQuery
from fusionbench.fusers.bottleneck import Bottleneck
from fusionbench.fusers.film import FiLM
from fusionbench.fusers.gated import Gated
from fusionbench.fusers.low_rank import LowRank
from fusionbench.fusers.mult import MulT

DIMS = {"video": 5, "audio": 3, "gsr": 2}


def spec(count: int = 2, *, per_frame: bool = False) -> Spec:
    return Spec("classify", dict(list(DIMS.items())[:count]), 3, per_frame, 16)


def ragged(problem: Spec, size: int = 4, steps: int = 5) -> Streams:
    """Sample i has i masked steps at its end, and sample 1 lacks the first modality."""
    mask = torch.arange(steps) < steps - torch.arange(size)[:, None]
    gone = (torch.arange(size) == 1)[:, None]
    return {
        m: Stream(torch.randn(size, steps, dim), mask & ~gone if place == 0 else mask)
        for place, (m, dim) in enumerate(problem.dims.items())
    }


@torch.no_grad()
def answers(fuser: Fuser, streams: Streams) -> Tensor:
    result: Tensor = fuser.eval()(streams)
    return result


# ------------------------------------------------------------------------------------------------------------- tensors


@settings(max_examples=10, deadline=None)
@given(widths=st.lists(st.integers(1, 4), min_size=1, max_size=4), seed=st.integers(0, 100))
def test_tensor_fusion_is_every_product_with_ones_appended(widths: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    vectors = [torch.randn(2, 3, width, generator=generator) for width in widths]
    got = tensor_fusion.products(vectors)
    assert got.shape == (2, 3, math.prod(width + 1 for width in widths))
    for b, s in itertools.product(range(2), range(3)):
        longer = [[1.0, *vector[b, s].tolist()] for vector in vectors]
        want = [math.prod(factors) for factors in itertools.product(*longer)]
        torch.testing.assert_close(got[b, s], torch.tensor(want))


def test_tensor_fusion_guards_its_size() -> None:
    problem = Spec("classify", dict.fromkeys("abcde", 2), 3)
    with pytest.raises(UsageError, match="39,135,393 features"):
        tensor_fusion.TensorFusion(problem, width=32)
    widths = []
    for count in range(1, 6):
        fuser = tensor_fusion.TensorFusion(Spec("classify", dict.fromkeys("abcde"[:count], 2), 3))
        size = fuser.head[0].in_features
        widths.append(round(size ** (1 / count)) - 1)
        assert size == (widths[-1] + 1) ** count <= 10_000
    assert widths == [32, 32, 20, 9, 5]


def test_tensor_fusion_without_a_modality_keeps_the_products_of_the_others() -> None:
    vectors = [torch.zeros(1, 1, 2), torch.randn(1, 1, 3)]
    lone = tensor_fusion.products(vectors[1:])[0, 0]
    both = tensor_fusion.products(vectors)[0, 0].reshape(3, 4)
    torch.testing.assert_close(both, torch.stack([lone, torch.zeros(4), torch.zeros(4)]))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_low_rank_is_the_full_tensor_contracted(count: int) -> None:
    fuser = LowRank(spec(count), width=4, rank=3)
    embeddings = fuser.embeddings(ragged(fuser.spec))
    weight = torch.zeros(*[5] * count, 4)  # the weight tensor that the factors stand for
    for rank in range(3):
        for place in itertools.product(range(5), repeat=count):
            rows = [fuser.factors[m][rank, i] for m, i in zip(embeddings, place, strict=True)]
            weight[place] += (fuser.weights[rank] * torch.stack(rows).prod(0)).detach()
    got = fuser.fuse(embeddings)
    for b in range(4):
        want = fuser.bias.clone()
        vectors = [[1.0, *z[b, 0].tolist()] for z in embeddings.values()]
        for place in itertools.product(range(5), repeat=count):
            want = want + math.prod(v[i] for v, i in zip(vectors, place, strict=True)) * weight[place]
        torch.testing.assert_close(got[b, 0], want)


def test_low_rank_trains_its_rank_weights() -> None:
    fuser = LowRank(spec(), width=8, rank=3)
    before = fuser.weights.detach().clone()
    fuser(ragged(fuser.spec)).square().sum().backward()
    torch.optim.SGD(fuser.parameters(), lr=0.1).step()
    assert (fuser.weights != before).all()


# --------------------------------------------------------------------------------------------------------------- gates


def test_gated_is_the_published_unit_for_two_modalities() -> None:
    fuser = Gated(spec(), width=4)
    streams = ragged(fuser.spec)
    got = fuser.fuse(streams)
    for b in range(4):
        x = [s.x[b, s.mask[b]].mean(0) if s.mask[b].any() else torch.zeros(s.x.shape[-1]) for s in streams.values()]
        tanh = [torch.tanh(layer.weight @ v + layer.bias) for layer, v in zip(fuser.features.values(), x, strict=True)]
        first, second = fuser.gates(torch.cat(x)).chunk(2)
        z = torch.sigmoid(first - second)
        want = tanh[1] if b == 1 else z * tanh[0] + (1 - z) * tanh[1]  # sample 1 lacks the first modality
        torch.testing.assert_close(got[b, 0], want)


def test_film_modulates_each_modality_by_the_other() -> None:
    fuser = FiLM(spec(per_frame=True), width=4)
    streams = ragged(fuser.spec)
    got = answers(fuser, streams)
    video, audio = fuser.project(streams).values()
    for b, t in itertools.product(range(4), range(5)):
        total = torch.zeros(4)
        for (x, other), film in zip([(video, audio), (audio, video)], fuser.film, strict=True):
            if not x.mask[b, t]:
                continue
            gamma, beta = film(other.x[b, t]).chunk(2) if other.mask[b, t] else (torch.zeros(4), torch.zeros(4))
            total = total + torch.relu((1 + gamma) * x.x[b, t] + beta)
        torch.testing.assert_close(got[b, t], fuser.head(total).detach())


# ---------------------------------------------------------------------------------------------------------------- MISA


def moments(x: Tensor, mask: Tensor) -> list[list[float]]:
    """Mean and central moments two to five of each column over the real rows."""
    columns = [[row[d] for row, real in zip(x.tolist(), mask.tolist(), strict=True) if real] for d in range(x.shape[1])]
    means = [sum(c) / len(c) for c in columns]
    central = [
        [sum((v - m) ** k for v in c) / len(c) for c, m in zip(columns, means, strict=True)] for k in range(2, 6)
    ]
    return [means, *central]


@settings(max_examples=10, deadline=None)
@given(rows=st.integers(1, 6), other=st.integers(1, 6), seed=st.integers(0, 100))
def test_central_moment_discrepancy_is_the_sum_of_moment_distances(rows: int, other: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.rand(8, 3, generator=generator), torch.rand(8, 3, generator=generator)
    x_mask, y_mask = torch.arange(8) < rows, torch.arange(8) >= 8 - other
    want = sum(math.dist(a, b) for a, b in zip(moments(x, x_mask), moments(y, y_mask), strict=True))
    assert misa.discrepancy(x, x_mask, y, y_mask).item() == pytest.approx(want, abs=1e-4)
    assert misa.discrepancy(x, x_mask, x, x_mask).item() == pytest.approx(0.0, abs=1e-4)


def test_central_moment_discrepancy_says_nothing_of_the_absent() -> None:
    x = torch.rand(4, 3, requires_grad=True)
    value = misa.discrepancy(x, torch.zeros(4).bool(), torch.rand(4, 3), torch.ones(4).bool())
    value.backward()
    assert value.item() == 0.0
    assert x.grad is not None
    assert (x.grad == 0).all()


def test_difference_is_the_overlap_of_centred_unit_rows() -> None:
    x, y, mask = torch.randn(6, 3), torch.randn(6, 3), torch.tensor([1, 1, 0, 1, 0, 1]).bool()
    rows = [i for i in range(6) if mask[i]]
    units = []
    for values in (x, y):
        mean = sum(values[i] for i in rows) / len(rows)
        units.append([(values[i] - mean) / math.dist(values[i], mean) for i in rows])
    products = [sum(a[i] * b[j] for a, b in zip(*units, strict=True)) for i in range(3) for j in range(3)]
    want = sum(float(p) ** 2 for p in products) / 9
    assert misa.overlap(x, y, mask).item() == pytest.approx(want, rel=1e-4)


# ----------------------------------------------------------------------------------------------------- joint attention


def test_joint_correlation_is_contracted_over_real_steps() -> None:
    x, joint, mask = torch.randn(2, 5, 3), torch.randn(2, 5, 4), torch.rand(2, 5) > 0.4
    mask[1] = False
    got = _joint_attention.correlation(x, joint, mask)
    for b, i, k in itertools.product(range(2), range(3), range(4)):
        real = [float(x[b, t, i] * joint[b, t, k]) for t in range(5) if mask[b, t]]
        want = math.tanh(16 * sum(real) / max(1, len(real)) / math.sqrt(4))
        assert got[b, i, k].item() == pytest.approx(want, abs=1e-5)


def test_joint_attention_multiplies_own_values_by_their_correlation() -> None:
    streams = {m: Stream(torch.randn(2, 5, 3), torch.arange(5) < torch.tensor([[5], [3]])) for m in "av"}
    attend = _joint_attention.JointCross("av", 3, 0.0)
    got = attend(streams)
    joint = attend.query(torch.cat([s.x for s in streams.values()], -1))
    for m, s in streams.items():
        weights = _joint_attention.correlation(s.x, joint, s.mask)
        for b, t in itertools.product(range(2), range(5)):
            value = attend.value[m](s.x[b, t])
            cross = torch.stack([torch.tanh((value * weights[b, :, k]).sum()).relu() for k in range(6)])
            want = s.x[b, t] + attend.mix[m](cross)
            torch.testing.assert_close(got[m].x[b, t], want if s.mask[b, t] else torch.zeros(3))


def test_joint_attention_does_not_depend_on_the_number_of_steps() -> None:
    fuser = joint_attention.JointAttention(spec(3))
    streams = ragged(fuser.spec)
    twice = {m: Stream(torch.cat([s.x, s.x], 1), torch.cat([s.mask, s.mask], 1)) for m, s in streams.items()}
    torch.testing.assert_close(answers(fuser, twice), answers(fuser, streams), atol=1e-5, rtol=1e-4)


def test_recursive_joint_repeats_its_attention_with_the_same_weights() -> None:
    problem = spec()
    one, two = (recursive_joint.RecursiveJoint(problem, passes=p) for p in (1, 2))
    two.load_state_dict(one.state_dict())
    inputs = ragged(problem)
    assert not torch.allclose(answers(one, inputs), answers(two, inputs), atol=1e-4)


@torch.no_grad()
def test_recurrent_layers_are_the_librarys_of_each_stream_without_its_gaps() -> None:
    torch.manual_seed(0)
    ours, depth = recursive_joint._Recurrent(2, 3, 4, depth=2), 2
    x, mask = torch.randn(2, 3, 6, 3), torch.rand(2, 3, 6) > 0.3
    got = ours(x, mask)
    for g in range(2):
        library = torch.nn.LSTM(3, 2, depth, bidirectional=True, batch_first=True)
        for layer, direction in itertools.product(range(depth), range(2)):
            end, place = f"l{layer}" + "_reverse" * direction, g + 2 * direction
            weights = ours.layers[layer]
            getattr(library, f"weight_ih_{end}").copy_(weights.input[place].T)
            getattr(library, f"weight_hh_{end}").copy_(weights.state[place].T)
            getattr(library, f"bias_ih_{end}").copy_(weights.bias[place, 0])
            getattr(library, f"bias_hh_{end}").zero_()
        start = [
            torch.stack([ours.layers[n].start[cell, g + 2 * d, 0] for n in range(depth) for d in range(2)])
            for cell in range(2)
        ]
        for b in range(3):
            real = x[g, b, mask[g, b]]
            states = library(real, (start[0], start[1]))[0]
            want = torch.nn.functional.normalize(ours.join[g](torch.cat([real, states], -1)), dim=-1)
            torch.testing.assert_close(got[g, b, mask[g, b]], want, atol=1e-5, rtol=1e-4)


# -------------------------------------------------------------------------------------------------------- transformers


def test_bottleneck_modalities_meet_from_the_second_fusion_layer_on() -> None:
    problem = spec()
    streams = {m: Stream(s.x, torch.ones_like(s.mask)) for m, s in ragged(problem).items()}
    alone = [{m: s if m == kept else s.absent() for m, s in streams.items()} for kept in problem.dims]
    for depth, meet in ((1, False), (2, True)):
        fuser = Bottleneck(problem, width=64, depth=depth)
        mean = sum(answers(fuser, each) for each in alone) / 2
        assert torch.allclose(answers(fuser, streams), mean, atol=1e-5) != meet


def test_mult_reads_the_last_real_step() -> None:
    fuser = MulT(spec())
    x, mask = torch.randn(3, 5, 4), torch.tensor([[1, 1, 0, 1, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]]).bool()
    want = torch.stack([x[0, 3], x[1, 4], torch.zeros(4)])[:, None]
    assert torch.equal(fuser._read(Stream(x, mask)), want)


# --------------------------------------------------------------------------------------------------------------- query


def test_the_query_is_the_audio_or_has_to_be_named() -> None:
    def query(*modalities: str, **settings: str) -> str:
        return AudioQuery(Spec("classify", dict.fromkeys(modalities, 2), 3), **settings).query

    assert query("video", "audio") == "audio"
    assert query("voice", "ecg") == "voice"
    assert query("acc") == "acc"
    assert query("acc", "gyro", query="gyro") == "gyro"
    with pytest.raises(
        UsageError, match=r"^audio_query: neither audio nor voice is there: name the query, one of acc, gyro$"
    ):
        query("acc", "gyro")
    with pytest.raises(
        UsageError, match=r"^audio_query: there is no modality 'ecg': name the query, one of acc, audio$"
    ):
        query("acc", "audio", query="ecg")

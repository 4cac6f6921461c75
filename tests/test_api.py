"""The contract's types, layers and keyed numbers, against slow obvious loops and against torch's own layers."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from fusionbench.api import (
    GRU,
    Batch,
    Dropout,
    Encoder,
    Head,
    MultiHead,
    Projections,
    Spec,
    Stream,
    UsageError,
    align,
    attention,
    group_folds,
    keyed,
    masked_mean,
    resample,
    reverse_gradient,
    sinusoids,
    softmax_over,
)

NAN = float("nan")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def stream(size: int = 3, steps: int = 5, width: int = 4, share: float = 0.6) -> Stream:
    return Stream(torch.randn(size, steps, width), torch.rand(size, steps) < share)


def full(*shape: int) -> Tensor:
    return torch.ones(shape, dtype=torch.bool)


def key(number: int) -> Tensor:
    return torch.tensor(number, dtype=torch.int32)


# ------------------------------------------------------------------------------------------------------------- types


def test_what_lies_under_a_false_mask_is_gone() -> None:
    mask = torch.tensor([[True, False, True]])
    x = torch.tensor([[[1.0, 2.0], [NAN, math.inf], [3.0, 4.0]]])
    made = Stream(x, mask)
    assert made.x.tolist() == [[[1, 2], [0, 0], [3, 4]]]
    assert x[0, 1, 0].isnan()  # the given tensor is not written to
    assert made.absent().x.abs().sum() == 0
    assert made.absent().mask.any().item() is False
    assert made.shape == (3, 2)
    assert len(made) == 1


def test_a_stream_of_images_is_zero_filled_too() -> None:
    made = Stream(torch.ones(2, 3, 1, 4, 4), torch.tensor([[True, False, False], [False, False, False]]))
    assert made.x.sum((2, 3, 4)).tolist() == [[16, 0, 0], [0, 0, 0]]
    assert made.present.tolist() == [True, False]
    assert made.shape == (3, 1, 4, 4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_stream_keeps_its_precision(dtype: torch.dtype) -> None:
    assert Stream(torch.ones(1, 2, 3, dtype=dtype), full(1, 2)).x.dtype == dtype


@pytest.mark.parametrize(
    ("x", "mask", "said"),
    [
        (torch.zeros(2, 3, 4), torch.ones(2, 3), "mask is boolean"),
        (torch.zeros(2, 3), full(2, 3), r"x \(B, T, \*step\)"),
        (torch.zeros(2, 3, 4), full(2, 4), r"x \(B, T, \*step\)"),
        (torch.zeros(2, 3, 4), full(2, 3, 4), r"x \(B, T, \*step\)"),
    ],
)
def test_a_stream_of_wrong_shape_is_refused(x: Tensor, mask: Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Stream(x, mask)


def dataset() -> Batch:
    y = torch.tensor([[0.0], [1], [2], [3]]).unsqueeze(-1).repeat(1, 1, 2)
    return Batch({"a": stream(4)}, y, full(4, 1), list("abcd"), ["p", "p", "q", "r"])


def test_labels_under_a_false_mask_are_zeros() -> None:
    batch = Batch({}, torch.tensor([[[NAN], [2.0]]]), torch.tensor([[False, True]]))
    assert batch.y.tolist() == [[[0.0], [2.0]]]
    classes = Batch({}, torch.tensor([[-5, 3]]), torch.tensor([[False, True]]))
    assert classes.y.tolist() == [[0, 3]]
    assert classes.y.dtype == torch.int64


@pytest.mark.parametrize("mask", [full(4, 2), full(3, 1), torch.ones(4, 1)])
def test_labels_of_wrong_shape_are_refused(mask: Tensor) -> None:
    with pytest.raises(ValueError, match=r"labels are y \(B, S"):
        Batch({}, torch.zeros(4, 1), mask)


def test_some_of_a_batch_is_a_batch() -> None:
    whole = dataset()
    for index in ([3, 0], torch.tensor([3, 0]), np.array([3, 0])):
        part = whole[index]
        assert len(part) == 2
        assert (part.ids, part.groups) == (["d", "a"], ["r", "p"])
        assert part.y[:, 0, 0].tolist() == [3, 0]
        assert part.index.tolist() == [3, 0]
        assert torch.equal(part.streams["a"].x, whole.streams["a"].x[[3, 0]])
    assert whole[1:3].ids == ["b", "c"]
    assert whole[[3, 2]][[1]].index.tolist() == [2]  # positions in the dataset, not in the part
    assert whole[np.array([], dtype=int)].ids == []


def test_a_boolean_index_never_mixes_up_the_names() -> None:
    """It picks the same samples of everything, or is refused."""
    try:
        part = dataset()[np.array([False, True, False, True])]
    except (TypeError, ValueError, IndexError, UsageError):
        return
    assert (part.ids, part.groups) == (["b", "d"], ["p", "r"])


def test_a_batch_moves_whole() -> None:
    moved = dataset().to("meta")
    assert {t.device.type for t in (moved.y, moved.y_mask, moved.index, moved.streams["a"].x)} == {"meta"}
    assert moved.ids == list("abcd")


@pytest.mark.parametrize("name", ["keys", "type", "a b", "1st", "a.b", "a:b", "", "training", "_modules"])
def test_a_modality_needs_a_name_that_a_module_may_have(name: str) -> None:
    with pytest.raises(UsageError, match="a modality cannot be called"):
        Spec("classify", {"audio": 2, name: 3}, 2)


@pytest.mark.parametrize("name", ["audio", "acc_x", "a1", "class", "données"])
def test_ordinary_names_of_modalities_work(name: str) -> None:
    spec = Spec("classify", {name: 3, "other": 2}, 2)
    assert spec.modalities == (name, "other")
    streams = {m: stream(width=d) for m, d in spec.dims.items()}
    projected = Projections(spec, 6)(streams)
    assert {m: tuple(s.x.shape) for m, s in projected.items()} == {name: (3, 5, 6), "other": (3, 5, 6)}
    assert all(torch.equal(s.mask, streams[m].mask) for m, s in projected.items())
    assert not projected[name].x[~streams[name].mask].any()


# ------------------------------------------------------------------------------------------------- means and softmaxes


def test_masked_mean_is_the_mean_of_what_is_real() -> None:
    s = stream(6, 5, 3, 0.4)
    s = Stream(s.x, s.mask & (torch.arange(6) > 0)[:, None])  # the first has nothing
    for row in range(6):
        real = s.x[row][s.mask[row]]
        expected = real.mean(0) if len(real) else torch.zeros(3)
        assert torch.allclose(masked_mean(s.x, s.mask)[row], expected, atol=1e-6)
    assert torch.allclose(masked_mean(s.x, s.mask, (0, 1)), s.x[s.mask].mean(0), atol=1e-6)
    assert masked_mean(s.x[..., 0], s.mask, (0, 1)).shape == ()


def test_softmax_over_the_real_entries() -> None:
    scores, mask = 5 * torch.randn(40, 6), torch.rand(40, 6) < 0.4
    got = softmax_over(scores, mask)
    for row in range(40):
        real = mask[row]
        expected = torch.zeros(6)
        if real.any():
            expected[real] = scores[row][real].softmax(0)
        assert torch.allclose(got[row], expected, atol=1e-6)
    assert torch.allclose(softmax_over(scores.T, mask.T, 0), got.T)
    hidden = torch.where(mask, scores, NAN)
    assert torch.equal(softmax_over(hidden, mask), got)


def test_softmax_over_nothing_has_a_finite_gradient() -> None:
    scores = torch.randn(3, 4, requires_grad=True)
    softmax_over(scores, torch.zeros(3, 4, dtype=torch.bool)).sum().backward()
    assert scores.grad is not None
    assert not scores.grad.any()


def test_attention_is_a_weighted_mean_of_values() -> None:
    q, k, v = torch.randn(2, 3, 4), torch.randn(2, 5, 4), torch.randn(2, 5, 6)
    mask = torch.rand(2, 3, 5) < 0.5
    mask[0, 0] = False
    got, free = attention(q, k, v, mask), attention(q, k, v)
    for b in range(2):
        for i in range(3):
            for result, allowed in ((got, mask[b, i]), (free, full(5))):
                weights = [math.exp(float(q[b, i] @ k[b, j]) / 2.0) if allowed[j] else 0.0 for j in range(5)]
                expected = sum(w * v[b, j] for j, w in enumerate(weights)) / max(sum(weights), 1e-12)
                assert torch.allclose(result[b, i], torch.as_tensor(expected), atol=1e-5)
    assert not got[0, 0].any()


# -------------------------------------------------------------------------------------------------------------- clocks


def overlap(x: Tensor, mask: Tensor, edges: list[Fraction]) -> tuple[list[Tensor], list[bool]]:
    """One sample on new steps with these edges, in exact fractions: (T, D), (T,)."""
    values, real = [], []
    for start, end in pairwise(edges):
        weights = [
            max(Fraction(0), min(end, t + 1) - max(start, Fraction(t))) if mask[t] else Fraction(0)
            for t in range(len(mask))
        ]
        total = sum(weights, Fraction(0))
        shares = [float(w / total) if total else 0.0 for w in weights]
        values.append(sum((s * x[t] for t, s in enumerate(shares)), torch.zeros(x.shape[1])))
        real.append(total > 0)
    return values, real


@given(old=st.integers(1, 12), new=st.integers(1, 12), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_resample_averages_what_a_new_step_overlaps(old: int, new: int, seed: int) -> None:
    torch.manual_seed(seed)
    s = stream(2, old, 3, 0.7)
    got = resample(s, new)
    for row in range(2):
        values, real = overlap(s.x[row], s.mask[row], [Fraction(old * i, new) for i in range(new + 1)])
        assert got.mask[row].tolist() == real
        assert torch.allclose(got.x[row], torch.stack(values), atol=1e-4)


def test_resample_to_its_own_length_is_the_identity() -> None:
    s = stream()
    assert resample(s, 5) is s


def test_resample_keeps_the_shape_of_a_step() -> None:
    s = Stream(torch.randn(2, 6, 3, 4), full(2, 6))
    assert torch.allclose(resample(s, 3).x, s.x.reshape(2, 3, 2, 3, 4).mean(2), atol=1e-6)


@pytest.mark.parametrize(("old", "new"), [(4410, 1000), (5000, 300)])
def test_resample_makes_no_real_step_out_of_rounding(old: int, new: int) -> None:
    """A stretch that ends where a new step ends gives exactly that many real steps, in long streams too."""
    parts = math.gcd(old, new)
    for k in range(1, parts, max(1, parts // 11)):
        s = Stream(torch.ones(1, old, 1), (torch.arange(old) < old // parts * k)[None])
        assert int(resample(s, new).mask.sum()) == new // parts * k


def test_streams_of_one_length_share_a_clock_already() -> None:
    streams = {"a": stream(), "b": stream()}
    assert all(align(streams)[m] is s for m, s in streams.items())


@given(seed=st.integers(0, 99), first=st.integers(1, 8), second=st.integers(1, 8))
@settings(max_examples=25, deadline=None)
def test_align_stretches_every_sample_to_its_longest_span(seed: int, first: int, second: int) -> None:
    torch.manual_seed(seed)
    streams = {"a": stream(3, first, 2), "b": stream(3, second, 2)}
    if first == second:
        return
    got = align(streams)
    for row in range(3):
        spans = {m: max((t + 1 for t in range(s.x.shape[1]) if s.mask[row, t]), default=0) for m, s in streams.items()}
        common = max(1, *spans.values())
        for m, s in streams.items():
            values, real = overlap(s.x[row], s.mask[row], [Fraction(spans[m] * i, common) for i in range(common + 1)])
            assert got[m].mask[row].tolist() == real + [False] * (max(first, second) - common)
            assert torch.allclose(got[m].x[row, :common], torch.stack(values), atol=1e-4)


def test_padding_changes_nothing_in_align() -> None:
    streams = {"a": stream(4, 3), "b": stream(4, 7)}
    padded = {
        m: Stream(
            torch.cat([s.x, torch.full((4, 5, 4), NAN)], 1), torch.cat([s.mask, torch.zeros(4, 5, dtype=torch.bool)], 1)
        )
        for m, s in streams.items()
    }
    plain, wide = align(streams), align(padded)
    for m in streams:
        assert torch.equal(wide[m].mask[:, :7], plain[m].mask)
        assert not wide[m].mask[:, 7:].any()
        assert torch.allclose(wide[m].x[:, :7], plain[m].x, atol=1e-6)


# -------------------------------------------------------------------------------------------------------------- layers


def test_multi_head_is_torchs_multi_head_attention() -> None:
    ours, theirs = MultiHead(12, 3), nn.MultiheadAttention(12, 3, batch_first=True).eval()
    with torch.no_grad():
        for part in (ours.query, ours.key, ours.value, ours.out):
            part.bias.uniform_(-1, 1)
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key.bias, ours.value.bias]))
        theirs.out_proj.load_state_dict(ours.out.state_dict())
    query, memory = torch.randn(4, 5, 12), torch.randn(4, 7, 12)
    mask = torch.rand(4, 7) < 0.6
    mask[:, 0] = True
    expected, _ = theirs(query, memory, memory, key_padding_mask=~mask)
    assert torch.allclose(ours(query, memory, mask), expected, atol=1e-5)
    free, _ = theirs(query, memory, memory)
    assert torch.allclose(ours(query, memory), free, atol=1e-5)
    nothing = ours(query, memory, torch.zeros(4, 7, dtype=torch.bool))
    assert torch.allclose(nothing, ours.out.bias.expand_as(nothing))


def test_multi_head_starts_as_torchs_does() -> None:
    ours, theirs = MultiHead(64), nn.MultiheadAttention(64, 1)
    bound = float(theirs.in_proj_weight.detach().abs().max())
    for part in (ours.query, ours.key, ours.value):
        assert float(part.weight.detach().abs().max()) == pytest.approx(bound, rel=0.01)
        assert not part.bias.any()
    assert not ours.out.bias.any()
    with pytest.raises(ValueError, match="width 10 is not a multiple of 3 heads"):
        MultiHead(10, 3)


def test_encoder_is_torchs_post_norm_layer() -> None:
    ours = Encoder(8, depth=1, heads=2, hidden=20)
    theirs = nn.TransformerEncoderLayer(8, 2, 20, dropout=0.0, batch_first=True)
    attend, feed = ours.attention[0], ours.feedforward[0]
    with torch.no_grad():
        theirs.self_attn.in_proj_weight.copy_(torch.cat([attend.query.weight, attend.key.weight, attend.value.weight]))
        theirs.self_attn.in_proj_bias.zero_()
        theirs.self_attn.out_proj.load_state_dict(attend.out.state_dict())
        theirs.linear1.load_state_dict(feed[0].state_dict())
        theirs.linear2.load_state_dict(feed[3].state_dict())
    x, mask = torch.randn(3, 6, 8), full(3, 6)
    mask[1, 4:] = mask[2, 2:] = False
    got, expected = ours(x, mask), theirs(x, src_key_padding_mask=~mask)
    assert torch.allclose(got[mask], expected[mask], atol=1e-5)
    dirty = torch.where(mask[..., None], x, torch.randn_like(x))
    assert torch.allclose(ours(dirty, mask)[mask], got[mask], atol=1e-5)


def test_positions_are_the_published_sinusoids() -> None:
    for width in (6, 7):
        got = sinusoids(9, width, torch.device("cpu"))
        for t in range(9):
            for i in range(width):
                angle = t / 10000 ** ((i - i % 2) / width)
                assert got[t, i] == pytest.approx(math.cos(angle) if i % 2 else math.sin(angle), abs=1e-5)
    x = torch.randn(2, 5, 8)
    plain, placed = Encoder(8), Encoder(8, positions=True)
    placed.load_state_dict(plain.state_dict())
    assert torch.allclose(placed(x), plain(x + sinusoids(5, 8, x.device)), atol=1e-6)
    back = torch.arange(4, -1, -1)
    assert torch.allclose(plain(x[:, back]), plain(x)[:, back], atol=1e-5)
    assert not torch.allclose(placed(x[:, back]), placed(x)[:, back], atol=1e-2)


@pytest.mark.parametrize("backward", [False, True])
def test_gru_is_torchs_gru_where_everything_is_real(backward: bool) -> None:
    ours, theirs = GRU(3, 5, backward=backward), nn.GRU(3, 5, batch_first=True)
    state = {
        "weight_ih_l0": ours.input.weight,
        "weight_hh_l0": ours.state.weight,
        "bias_ih_l0": ours.input.bias,
        "bias_hh_l0": ours.state.bias,
    }
    theirs.load_state_dict(state)
    x = torch.randn(4, 6, 3)
    expected = theirs(x.flip(1))[0].flip(1) if backward else theirs(x)[0]
    assert torch.allclose(ours(x, full(4, 6)), expected, atol=1e-5)


@pytest.mark.parametrize("backward", [False, True])
def test_gru_stands_still_over_masked_steps(backward: bool) -> None:
    gru, x = GRU(3, 4, backward=backward), torch.randn(1, 7, 3)
    mask = torch.tensor([[True, True, False, True, False, False, True]])
    got = gru(x, mask)
    assert torch.allclose(got[mask], gru(x[mask][None], full(1, 4))[0], atol=1e-6)  # as if the gaps were cut out
    steps = range(6, -1, -1) if backward else range(7)
    before = torch.zeros(4)
    for t in steps:
        if not mask[0, t]:
            assert torch.equal(got[0, t], before)
        before = got[0, t]
    assert not gru(x, torch.zeros(1, 7, dtype=torch.bool)).any()


def test_dropout_keeps_its_share_and_its_mean() -> None:
    drop, x = Dropout(0.3), torch.ones(200, 100)
    with keyed.scope(key(3)):
        kept = drop(x)
    assert kept.unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    assert float((kept == 0).float().mean()) == pytest.approx(0.3, abs=0.02)
    assert float(kept.mean()) == pytest.approx(1.0, abs=0.02)
    assert drop.eval()(x) is x
    assert Dropout(0.0)(x) is x
    for p in (1.0, -0.1):
        with pytest.raises(ValueError, match=r"a dropout rate lies in \[0, 1\)"):
            Dropout(p)


def test_dropout_is_keyed_by_member_and_site_and_not_by_global_state() -> None:
    drop, x = Dropout(0.5), torch.ones(8, 32)

    def twice(number: int) -> tuple[Tensor, Tensor]:
        with keyed.scope(key(number)):
            return drop(x), drop(x)

    before = torch.random.get_rng_state()
    first, second = twice(1)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(99)
    assert torch.equal(twice(1)[0], first)
    assert not torch.equal(second, first)
    assert not torch.equal(twice(2)[0], first)


def test_dropout_under_vmap_gives_every_member_its_own_numbers() -> None:
    drop, x = Dropout(0.5), torch.ones(3, 4, 16)

    def one(k: Tensor, x: Tensor) -> Tensor:
        with keyed.scope(k):
            return drop(x)

    keys = torch.tensor([5, 6, 7], dtype=torch.int32)
    together = vmap(one)(keys, x)
    for member in range(3):
        assert torch.equal(together[member], one(keys[member], x[member]))
    assert not torch.equal(together[0], together[1])


def test_a_reversed_gradient_comes_back_negative() -> None:
    x = torch.randn(5, 3)
    assert torch.allclose(reverse_gradient(x, 0.7), x, atol=1e-6)

    def score(x: Tensor, a: Tensor | float) -> Tensor:
        return (reverse_gradient(x, a) ** 2).sum()

    assert torch.allclose(grad(score)(x, 0.7), -0.7 * 2 * x, atol=1e-5)
    strengths = torch.tensor([0.0, 0.3, 0.5, 1.0, 2.0])
    assert torch.allclose(vmap(grad(score))(x, strengths), -strengths[:, None] * 2 * x, atol=1e-5)


@pytest.mark.parametrize("name", ["encoder", "gru", "head", "align"])
def test_layers_stack(name: str) -> None:
    """Members under vmap answer as they do alone."""
    mask = torch.rand(3, 4, 6) < 0.7
    x = torch.where(mask[..., None], torch.randn(3, 4, 6, 8), 0.0)
    makers = {"encoder": lambda: Encoder(8, heads=2), "gru": lambda: GRU(8, 5), "head": lambda: Head(8, 2)}
    if name == "align":
        y, y_mask = torch.randn(3, 4, 3, 2), torch.rand(3, 4, 3) < 0.7

        def call(x: Tensor, mask: Tensor, y: Tensor, y_mask: Tensor) -> list[Tensor]:
            got = align({"x": Stream(x, mask), "y": Stream(y, y_mask)})
            return [got["x"].x, got["y"].x, got["y"].mask, resample(Stream(x, mask), 4).x]

        stacked = vmap(call)(x, mask, y, y_mask)
        for member in range(3):
            for got, expected in zip(stacked, call(x[member], mask[member], y[member], y_mask[member]), strict=True):
                assert torch.allclose(got[member], expected, atol=1e-6)
        return
    members = [makers[name]().eval() for _ in range(3)]
    weights = {n: torch.stack([m.state_dict()[n] for m in members]) for n in members[0].state_dict()}
    given = (x,) if name == "head" else (x, mask)
    together = vmap(lambda w, *args: functional_call(members[0], w, args))(weights, *given)
    for number, member in enumerate(members):
        assert torch.allclose(together[number], member(*(part[number] for part in given)), atol=1e-5)


# -------------------------------------------------------------------------------------------------------------- splits


@given(
    people=st.integers(3, 30),
    folds=st.integers(2, 8),
    share=st.sampled_from([0.1, 0.2, 0.4]),
    seed=st.integers(0, 99),
    deal=st.sampled_from([None, 0, 7]),
)
@example(people=4, folds=2, share=0.4, seed=0, deal=None)
@settings(max_examples=60, deadline=None)
def test_group_folds_are_disjoint_complete_and_fixed(
    people: int, folds: int, share: float, seed: int, deal: int | None
) -> None:
    groups = [f"p{g}" for g in np.random.default_rng(seed).integers(0, people, 5 * people)]
    try:
        splits = [group_folds(groups, folds, fold, share, deal=deal) for fold in range(folds)]
    except UsageError:
        assert len(set(groups)) < max(3, folds) or (len(set(groups)), folds) == (3, 2)
        return
    for found in splits:
        sides = [{groups[i] for i in side} for side in (found.train, found.val, found.test)]
        assert all(sides)  # nobody is left without people
        assert sum(map(len, sides)) == len(set(groups))  # a person stands on one side
        everyone = np.concatenate([found.train, found.val, found.test])
        assert sorted(everyone) == list(range(len(groups)))
    tested = np.concatenate([found.test for found in splits])
    assert sorted(tested) == list(range(len(groups)))  # everybody is tested once
    sizes = [len({groups[i] for i in found.test}) for found in splits]
    assert max(sizes) - min(sizes) <= 1
    order = np.random.default_rng(seed).permutation(len(groups))
    shuffled = group_folds([groups[i] for i in order], folds, 0, share, deal=deal)
    for side in ("train", "val", "test"):
        assert {groups[order[i]] for i in getattr(shuffled, side)} == {groups[i] for i in getattr(splits[0], side)}


def test_group_folds_that_leave_nobody_are_refused() -> None:
    with pytest.raises(UsageError, match="5 folds by group need at least 5 groups; there are 4"):
        group_folds(list("abcd"), 5, 0)
    with pytest.raises(UsageError, match="need at least 3 groups; there are 2"):
        group_folds(list("ab"), 2, 0)


def test_one_fold_by_group_still_trains_on_somebody() -> None:
    """A benchmark has one fold by default."""
    try:
        found = group_folds(list("abcdefghij"), 1, 0)
    except UsageError:
        return
    assert all(len(side) for side in (found.train, found.val, found.test))


# ------------------------------------------------------------------------------------------------------ keyed numbers


def test_keyed_words_never_change() -> None:
    """Keys go into every corruption and every split: these integers are for ever."""
    assert (
        keyed.number("fold", "p1")
        == keyed.number("fold", "p1")
        == int.from_bytes(hashlib.blake2b(b"fold|p1", digest_size=4).digest(), "little", signed=True)
    )
    assert keyed.sample_keys(["a", "b"], "noise", 0).tolist() == [
        keyed.number("noise", 0, "a"),
        keyed.number("noise", 0, "b"),
    ]


def test_mixing_is_lowbias32() -> None:
    def slow(x: int) -> int:
        x ^= x >> 16
        x = x * 0x7FEB352D % 2**32
        x ^= x >> 15
        x = x * 0x846CA68B % 2**32
        return x ^ (x >> 16)

    values = [0, 1, 2, -1, 2**31 - 1, -(2**31), 123456789, -987654321]
    got = keyed.mix(torch.tensor(values, dtype=torch.int32)).tolist()
    assert [g % 2**32 for g in got] == [slow(v % 2**32) for v in values]


def test_uniform_numbers_are_uniform() -> None:
    u = keyed.uniform(keyed.sample_keys([str(i) for i in range(100)], "test"), (40, 25)).double()
    assert u.shape == (100, 40, 25)
    assert 0.0 <= float(u.min())
    assert float(u.max()) < 1.0
    counts = torch.histc(u.flatten(), 50, 0, 1)
    chi2 = float(((counts - 2000) ** 2 / 2000).sum())
    assert 20 < chi2 < 95  # 49 degrees of freedom: beyond these bounds once in ten thousand times
    lags = [(u[:, :, 1:], u[:, :, :-1]), (u[:, 1:], u[:, :-1]), (u[1:], u[:-1]), (u[:, 1:, 1:], u[:, :-1, :-1])]
    for a, b in lags:
        assert abs(float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])) < 0.015


def test_normal_numbers_are_normal() -> None:
    z = keyed.normal(keyed.sample_keys([str(i) for i in range(50)], "test"), (40, 25)).double().flatten().numpy()
    assert stats.kstest(z, "norm").pvalue > 1e-3
    assert abs(z.mean()) < 0.02
    assert z.std() == pytest.approx(1.0, abs=0.02)
    assert stats.kurtosis(z) == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize("draw", [keyed.uniform, keyed.normal])
def test_a_draw_does_not_depend_on_who_else_draws(draw: Callable[..., Tensor]) -> None:
    keys = keyed.sample_keys(["a", "b", "c"], "noise", 0, "audio")
    whole = draw(keys, (6, 4))
    assert torch.equal(draw(keys[[2]], (6, 4))[0], whole[2])
    assert torch.equal(draw(keys.flip(0), (6, 4)).flip(0), whole)
    assert torch.equal(draw(keys, (9, 7))[:, :6, :4], whole)  # padding
    assert torch.equal(draw(keys, (2, 6, 4))[:, 0], whole)
    assert torch.equal(vmap(lambda k: draw(k, (6, 4)))(keys), whole)


def test_sites_keys_and_words_are_independent() -> None:
    k = key(7)
    draws = [keyed.uniform(k, (4000,), site) for site in range(6)] + [keyed.uniform(key(8), (4000,))]
    draws += [keyed.uniform(keyed.sample_keys(["x"], "noise", seed)[0], (4000,)) for seed in range(3)]
    draws += [keyed.normal(k, (4000,), site) for site in range(2)]
    correlation = torch.corrcoef(torch.stack(draws).double()) - torch.eye(len(draws))
    assert correlation.abs().max() < 0.08


def test_a_normal_draw_is_of_other_stuff_than_any_uniform_draw() -> None:
    """A deep model draws its hundredth dropout mask in the step in which another layer drew its first noise."""
    z = keyed.normal(key(7), (4000,), 0)
    radius = torch.stack([z.abs(), *(keyed.uniform(key(7), (4000,), site) for site in range(95, 110))])
    assert torch.corrcoef(radius.double())[0, 1:].abs().max() < 0.08


def test_no_two_places_of_a_tensor_share_a_number() -> None:
    for shape in ((300, 300), (16, 48, 64), (4, 3, 48, 48)):
        found = keyed.bits(key(0), shape).flatten()
        repeated = len(found) - len(found.unique())
        expected = len(found) ** 2 / 2**33  # by chance, were the hash a random function
        assert repeated <= max(3, 4 * expected)


def test_draws_within_a_scope_are_numbered_and_scopes_nest() -> None:
    cpu = torch.device("cpu")

    def draw() -> Tensor:
        return keyed.draw((8,), cpu)

    with keyed.scope(key(1)):
        first = draw()
        with keyed.scope(key(2)):
            inner = draw()
        second = draw()
    with keyed.scope(key(2)):
        assert torch.equal(draw(), inner)
    with keyed.scope(key(1)):
        assert torch.equal(draw(), first)
        assert torch.equal(draw(), second)
        assert keyed.draw((8,), cpu, "normal").shape == (8,)
    assert not torch.equal(first, second)
    assert torch.equal(draw(), draw())  # outside the engine there is no member


def test_a_scope_ends_even_if_its_body_fails() -> None:
    outside = keyed.draw((4,), torch.device("cpu"))
    with pytest.raises(KeyError), keyed.scope(key(5)):
        raise KeyError
    assert torch.equal(keyed.draw((4,), torch.device("cpu")), outside)

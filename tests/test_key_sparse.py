"""Key-sparse attention against a loop over heads, queries and keys."""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fusionbench.api import Spec, Stream, sinusoids
from fusionbench.fusers.key_sparse import KeySparse, _Group, key_sparse_weights


def _slow(q: Tensor, k: Tensor, q_mask: list[bool], k_mask: list[bool], keep: str) -> list[list[float]]:
    """One sample, one head: weights by query and key."""
    real = [j for j, there in enumerate(k_mask) if there]
    weights = []
    for query in q.tolist():
        e = {
            j: math.exp(sum(a * b for a, b in zip(query, k[j].tolist(), strict=True)) / math.sqrt(len(query)))
            for j in real
        }
        weights.append([e[j] / sum(e.values()) if j in e else 0.0 for j in range(len(k_mask))])
    importance = {j: sum(row[j] for row, there in zip(weights, q_mask, strict=True) if there) for j in real}
    count = max(1, math.floor(Fraction(keep) * len(real)))
    kept = sorted(real, key=lambda j: -importance[j])[:count]
    return [[w if j in kept else 0.0 for j, w in enumerate(row)] for row in weights]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    queries=st.integers(1, 6),
    keys=st.integers(1, 12),
    keep=st.sampled_from(["0.1", "0.29", "0.5", "0.7", "1.0"]),
    share=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
)
def test_weights_are_those_of_the_loop(seed: int, queries: int, keys: int, keep: str, share: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    q, k = (torch.randn(2, 3, n, 4, generator=generator) for n in (queries, keys))  # (B, H, T, d)
    q_mask, k_mask = (torch.rand(2, n, generator=generator) < max(s, 0.1) for n, s in ((queries, 0.7), (keys, share)))
    q_mask[:, 0] = True
    got = key_sparse_weights(q, k, q_mask, k_mask, float(keep))
    for b in range(2):
        for h in range(3):
            want = torch.tensor(_slow(q[b, h], k[b, h], q_mask[b].tolist(), k_mask[b].tolist(), keep))
            torch.testing.assert_close(got[b, h], want, atol=1e-6, rtol=1e-5)


def test_every_share_of_every_length_is_counted_exactly() -> None:
    q, k = torch.randn(1, 1, 2, 4), torch.randn(1, 1, 100, 4)
    for hundredths in range(1, 101):
        for real in (1, 3, 10, 50, 100):
            mask = (torch.arange(100) < real)[None]
            weights = key_sparse_weights(q, k, torch.ones(1, 2, dtype=torch.bool), mask, hundredths / 100)
            assert int((weights.sum((0, 1, 2)) > 0).sum()) == max(1, hundredths * real // 100)


def test_rows_are_not_renormalised() -> None:
    q, k = torch.zeros(1, 1, 2, 4), torch.randn(1, 1, 8, 4)
    weights = key_sparse_weights(q, k, torch.ones(1, 2, dtype=torch.bool), torch.ones(1, 8, dtype=torch.bool), 0.5)
    torch.testing.assert_close(weights[0, 0], torch.tensor([0.125] * 4 + [0.0] * 4).expand(2, 8))  # ties: the earlier


def test_a_padded_query_has_no_say() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(1, 1, 5, 4), torch.randn(1, 1, 8, 4)
    k_mask, q_mask = torch.ones(1, 8, dtype=torch.bool), torch.arange(5)[None] < 2
    want = key_sparse_weights(q[:, :, :2], k, q_mask[:, :2], k_mask, 0.5)
    loud = torch.where(q_mask[:, None, :, None], q, 50 * q)
    torch.testing.assert_close(key_sparse_weights(loud, k, q_mask, k_mask, 0.5)[:, :, :2], want)


def test_share_one_keeps_every_key_and_changes_the_answer() -> None:
    torch.manual_seed(0)
    spec = Spec("classify", {"audio": 3, "text": 4}, 2)
    streams = {m: Stream(torch.randn(2, 6, d), torch.ones(2, 6, dtype=torch.bool)) for m, d in spec.dims.items()}
    half, whole = (KeySparse(spec, width=16, keep=keep).eval() for keep in (0.5, 1.0))
    whole.load_state_dict(half.state_dict())
    assert (half(streams) - whole(streams)).abs().max() > 1e-4


def _plain(group: _Group, x: Tensor, memory: Tensor | None = None) -> Tensor:
    """One sample, (T, width), one head, every key kept: the layers written out."""
    x = group.norm(x)
    memory = None if memory is None or group.norm_memory is None else group.norm_memory(memory)
    places = sinusoids(12, x.shape[-1], x.device)
    for layer in group.layers:
        placed = x + places[: len(x)]
        keys, values = (placed, placed) if memory is None else (memory + places[: len(memory)], memory)
        scores = layer.query(placed) @ layer.key(keys).T / math.sqrt(x.shape[-1])
        x = layer.norm1(x + layer.out(scores.softmax(-1) @ layer.value(values)))
        x = layer.norm2(x + layer.feed_out(layer.feed_in(x).relu()))
    return x


@torch.no_grad()
def test_layers_stand_in_the_released_order_with_two_skips() -> None:
    torch.manual_seed(0)
    spec = Spec("classify", {"audio": 8, "text": 8}, 2)
    fuser = KeySparse(spec, width=8, heads=1, keep=1.0).eval()
    audio, text = torch.randn(5, 8), torch.randn(7, 8)
    streams = {m: Stream(x[None], torch.ones(1, len(x)).bool()) for m, x in (("audio", audio), ("text", text))}
    own = {m: _plain(fuser.own[m], fuser.project[m](x)) for m, x in (("audio", audio), ("text", text))}
    read = []
    for (query, key), cascade in zip(fuser.pairs, fuser.cascades, strict=True):
        x = own[query]
        for cross, after in zip(cascade[::2], cascade[1::2], strict=True):
            x = _plain(after, _plain(cross, x, own[key]))
        read.append(_plain(fuser.last[query], own[query] + (own[query] + x)).mean(0))
    torch.testing.assert_close(fuser(streams)[0, 0], fuser.answer(torch.cat(read)), atol=1e-5, rtol=1e-4)

"""JMT against a plain module of the authors' structure and names, and against loops where steps are missing."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fusionbench.api import Spec, Stream, Streams, UsageError
from fusionbench.fusers.jmt import JMT

# query <- key among the streams visual 0, second 1, joint 2, as the paper's code lists them
PAIRS = [(0, 1), (1, 0), (2, 0), (0, 2), (2, 1), (1, 2)]


class ReleasedLayer(nn.Module):
    def __init__(self, width: int, heads: int, ffn: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.feed_forward = nn.Sequential(nn.Linear(width, ffn), nn.ReLU(), nn.Linear(ffn, width))
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer_norm1(x + self.attention(x, x, x)[0])
        return self.layer_norm2(x + self.feed_forward(x))


class ReleasedEncoder(nn.Module):
    def __init__(self, depth: int, *sizes: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ReleasedLayer(*sizes) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class Released(nn.Module):
    def __init__(self, width: int = 16, depth: int = 1, heads: int = 1, ffn: int = 16) -> None:
        super().__init__()
        sizes = (depth, width, heads, ffn)
        self.visual_encoder = ReleasedEncoder(*sizes)
        self.physiological_encoder = ReleasedEncoder(*sizes)
        self.joint_representation_encoder = ReleasedEncoder(*sizes)
        self.final_visual_encoder = ReleasedEncoder(*sizes)
        self.final_encoder = ReleasedEncoder(*sizes)  # unused
        self.cross_attention_v = nn.MultiheadAttention(width, heads, batch_first=True)
        self.cross_attention_p = nn.MultiheadAttention(width, heads, batch_first=True)
        self.cross_attention_pv = nn.MultiheadAttention(width, heads, batch_first=True)
        self.final_self_attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.out_layer_pv = nn.Linear(2 * width, width)
        self.out_layer1 = nn.Linear(6 * width, width)  # unused
        for parameter in self.parameters():  # biases and norms too: their defaults would hide a mix-up
            nn.init.normal_(parameter, 0.3 if parameter.dim() == 1 else 0.0, 0.4)

    def forward(self, v: Tensor, a: Tensor) -> Tensor:
        v, a = functional.normalize(v, dim=-1), functional.normalize(a, dim=-1)
        j = self.joint_representation_encoder(self.out_layer_pv(torch.cat([v, a], -1)))
        v, a = self.visual_encoder(v), self.physiological_encoder(a)
        pairings = [
            self.cross_attention_v(v, a, a)[0],
            self.cross_attention_p(a, v, v)[0],
            self.cross_attention_pv(j, v, v)[0],
            self.cross_attention_v(v, j, j)[0],
            self.cross_attention_pv(j, a, a)[0],
            self.cross_attention_p(a, j, j)[0],
        ]
        tokens = self.final_visual_encoder(torch.stack(pairings, 2).flatten(0, 1))  # (B * T, 6, width)
        return self.final_self_attention(tokens, tokens, tokens)[0][:, -1].reshape(v.shape)

    def with_gaps(self, v: Tensor, a: Tensor, real: list[Tensor]) -> Tensor:
        """One sample, (T, width) each and two (T,) masks: steps that are not there are cut out, then put back."""
        v = functional.normalize(v, dim=-1) * real[0][:, None]
        a = functional.normalize(a, dim=-1) * real[1][:, None]
        masks = [*real, real[0] | real[1]]
        encoders = (self.visual_encoder, self.physiological_encoder, self.joint_representation_encoder)
        crosses = (self.cross_attention_v, self.cross_attention_p, self.cross_attention_pv)
        encoded = []
        for x, mask, encode in zip((v, a, self.out_layer_pv(torch.cat([v, a], -1))), masks, encoders, strict=True):
            encoded.append(encode(x[mask][None])[0] if mask.any() else x[mask])
        answer = torch.zeros_like(v)
        for t in masks[2].nonzero().flatten().tolist():
            kept = []
            for q, k in PAIRS:
                if masks[q][t]:
                    query, keys = encoded[q][int(masks[q][:t].sum())][None], encoded[k]
                    kept.append(crosses[q](query, keys, keys)[0] if len(keys) else crosses[q].out_proj.bias[None])
            tokens = self.final_visual_encoder(torch.cat(kept)[None])
            answer[t] = self.final_self_attention(tokens, tokens, tokens)[0][0, -1]
        return answer


def _streams(size: int = 3, steps: int = 5, width: int = 16, seed: int = 0) -> Streams:
    generator = torch.Generator().manual_seed(seed)
    full = torch.ones(size, steps, dtype=torch.bool)
    return {m: Stream(torch.randn(size, steps, width, generator=generator), full) for m in ("v", "a")}


@pytest.mark.parametrize(("depth", "heads", "ffn"), [(1, 1, 16), (2, 2, 24)])
def test_released_weights_give_the_released_representation(depth: int, heads: int, ffn: int) -> None:
    torch.manual_seed(depth)
    theirs = Released(depth=depth, heads=heads, ffn=ffn)
    ours = JMT.from_released(theirs.state_dict(), heads=heads).eval()
    streams = _streams()
    torch.testing.assert_close(ours.represent(streams), theirs(streams["v"].x, streams["a"].x), atol=1e-5, rtol=1e-5)
    assert ours(streams).shape == (3, 5, 2)


@pytest.mark.parametrize("case", ["ragged", "v absent", "a absent", "gaps"])
def test_missing_steps_are_as_if_cut_out(case: str) -> None:
    torch.manual_seed(1)
    theirs, streams = Released(), _streams(size=2, steps=6)
    drawn = torch.rand(2, 2, 6, generator=torch.Generator().manual_seed(3)) < 0.6
    masks = {"v": drawn[0], "a": drawn[1]}
    if case == "ragged":
        masks = dict.fromkeys(masks, torch.arange(6) < torch.tensor([[6], [3]]))
    elif case != "gaps":
        masks[case[0]] = torch.zeros(2, 6, dtype=torch.bool)
    got = JMT.from_released(theirs.state_dict()).represent({m: Stream(s.x, masks[m]) for m, s in streams.items()})
    for row in range(2):
        v, a = streams["v"].x[row], streams["a"].x[row]
        want = theirs.with_gaps(v, a, [masks["v"][row], masks["a"][row]])
        torch.testing.assert_close(got[row], want, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_attention_is_the_ordinary_one() -> None:
    """softmax(Q K^T / sqrt(d)) V, a softmax over keys, not the K Q^T of the paper's equation."""
    torch.manual_seed(0)
    cross = JMT(Spec("regress", {"v": 4, "a": 4}, 1), width=8).cross[0]
    queries, memory = torch.randn(3, 8), torch.randn(5, 8)
    for query, got in zip(queries, cross(queries[None], memory[None])[0], strict=True):
        weights = [math.exp((cross.query(query) @ cross.key(key)).item() / math.sqrt(8)) for key in memory]
        values = sum(w / sum(weights) * cross.value(key) for w, key in zip(weights, memory, strict=True))
        torch.testing.assert_close(got, cross.out(values), atol=1e-5, rtol=1e-5)


def test_pairs_of_any_number_of_modalities() -> None:
    def pairs(count: int) -> list[tuple[int, int]]:
        return JMT(Spec("regress", {f"m{m}": 2 for m in range(count)}, 1), width=4).pairs

    assert pairs(1) == [(1, 0), (0, 1)]
    assert pairs(2) == PAIRS
    among = [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]
    assert pairs(3) == [*among, (3, 0), (0, 3), (3, 1), (1, 3), (3, 2), (2, 3)]


def test_order_decides_which_token_is_kept() -> None:
    streams = _streams()
    model = JMT(Spec("classify", dict.fromkeys("va", 16), 3), width=16, order="a,v").eval()
    same = JMT(Spec("classify", dict.fromkeys("av", 16), 3), width=16).eval()
    other = JMT(Spec("classify", dict.fromkeys("va", 16), 3), width=16).eval()
    same.load_state_dict(model.state_dict())
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(model(streams), same(streams))
    assert (model(streams) - other(streams)).abs().max() > 1e-4


@pytest.mark.parametrize("readout", ["mean", "last"])
def test_only_the_mean_does_not_depend_on_the_order(readout: str) -> None:
    """The two orders, each modality keeping its own weights."""
    torch.manual_seed(0)
    spec, streams = Spec("classify", dict.fromkeys("va", 16), 3), _streams()
    one = JMT(spec, width=16, readout=readout).eval()
    two = JMT(spec, width=16, readout=readout, order="a,v").eval()
    swap = {"encoders.0.": "encoders.1.", "encoders.1.": "encoders.0.", "cross.0.": "cross.1.", "cross.1.": "cross.0."}
    state = {}
    for name, weight in one.state_dict().items():
        old = next((prefix for prefix in swap if name.startswith(prefix)), "")
        state[swap.get(old, "") + name.removeprefix(old)] = weight
    state["joint.weight"] = one.joint.weight.roll(16, 1)
    two.load_state_dict(state)
    gap = (one(streams) - two(streams)).detach().abs().max().item()
    assert gap < 1e-5 if readout == "mean" else gap > 1e-4


def test_tokens_are_scaled_to_length_one() -> None:
    spec, streams = Spec("classify", {"v": 16, "a": 16}, 3), _streams()
    longer = {m: Stream(7 * s.x, s.mask) for m, s in streams.items()}
    for normalize in (True, False):
        model = JMT(spec, width=16, normalize=normalize).eval()
        for layer in model.project.values():
            nn.init.zeros_(layer.bias)
        gap = (model(longer) - model(streams)).detach().abs().max().item()
        assert gap < 1e-5 if normalize else gap > 1e-4


def test_values_have_heads_of_their_own() -> None:
    model = JMT(Spec("regress", {"v": 16, "a": 16}, 2), width=16).eval()
    model(_streams())[..., 0].sum().backward()
    assert [
        float(head[0].weight.grad.abs().max()) > 0 if head[0].weight.grad is not None else False for head in model.head
    ] == [True, False]


def test_other_names_are_refused() -> None:
    state = Released().state_dict()
    with pytest.raises(UsageError, match="mystery"):
        JMT.from_released({**state, "mystery.weight": torch.zeros(2)})
    with pytest.raises(UsageError, match=r"cross\.1\.out\.bias"):
        JMT.from_released({n: w for n, w in state.items() if n != "cross_attention_p.out_proj.bias"})
    with pytest.raises(UsageError, match="missing"):
        JMT.from_released({})


@pytest.mark.parametrize("settings", [{"order": "v"}, {"order": "v,x"}, {"order": "v,v"}, {"readout": "first"}])
def test_wrong_options_are_refused(settings: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=next(iter(settings))):
        JMT(Spec("classify", {"v": 3, "a": 3}, 2), **settings)

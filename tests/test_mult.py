"""MulT's positions, mask and loading, against loops and a plain transformer of the released names."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fusionbench.api import Spec, Stream, Streams, UsageError
from fusionbench.fusers.mult import MulT, positions, visible

WIDTH, HEADS, DEPTH = 8, 2, 2
DIMS = {"l": 8, "a": 3, "v": 5}  # language has the tokens' width: the released code does not project it


def layer_names(stack: str, width: int, depth: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {f"{stack}.layer_norm.weight": (width,), f"{stack}.layer_norm.bias": (width,)}
    for i in range(depth):
        layer = f"{stack}.layers.{i}"
        shapes |= {
            f"{layer}.self_attn.in_proj_weight": (3 * width, width),
            f"{layer}.self_attn.in_proj_bias": (3 * width,),
        }
        for name, out, into in (
            ("self_attn.out_proj", width, width),
            ("fc1", 4 * width, width),
            ("fc2", width, 4 * width),
        ):
            shapes |= {f"{layer}.{name}.weight": (out, into), f"{layer}.{name}.bias": (out,)}
        for norm in (0, 1):
            shapes |= {f"{layer}.layer_norms.{norm}.{part}": (width,) for part in ("weight", "bias")}
    return shapes


def released() -> dict[str, Tensor]:
    """Random weights under the released names."""
    shapes: dict[str, tuple[int, ...]] = {f"proj_{m}.weight": (WIDTH, dim, 1) for m, dim in DIMS.items()}
    for target, source in permutations("lav", 2):
        shapes |= layer_names(f"trans_{target}_with_{source}", WIDTH, DEPTH)
    for m in "lav":
        shapes |= layer_names(f"trans_{m}_mem", 2 * WIDTH, 3)
    for name, out in (("proj1", 6 * WIDTH), ("proj2", 6 * WIDTH), ("out_layer", 3)):
        shapes |= {f"{name}.weight": (out, 6 * WIDTH), f"{name}.bias": (out,)}
    generator = torch.Generator().manual_seed(0)
    state = {name: 0.4 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return state | {"trans_l_mem.version": torch.ones(1), "trans_l_mem.embed_positions._float_tensor": torch.ones(1)}


def plain_stack(state: dict[str, Tensor], stack: str, x: Tensor, source: Tensor | None = None) -> Tensor:
    """One sample, (T, width): pre-norm layers written out with torch's own attention."""
    width = x.shape[-1]
    x = x * math.sqrt(width) + positions(len(x), width, x.device)
    memory = None if source is None else source * math.sqrt(width) + positions(len(source), width, x.device)
    keys = len(x) if source is None else len(source)
    ahead = torch.ones(len(x), keys).triu(1 + abs(len(x) - keys)).bool()
    depth = sum(name.startswith(f"{stack}.layers.") and name.endswith("fc1.bias") for name in state)
    for i in range(depth):
        part = {
            n.removeprefix(f"{stack}.layers.{i}."): w for n, w in state.items() if n.startswith(f"{stack}.layers.{i}.")
        }

        def norm(value: Tensor, number: int, part: dict[str, Tensor] = part) -> Tensor:
            weights = part[f"layer_norms.{number}.weight"], part[f"layer_norms.{number}.bias"]
            return functional.layer_norm(value, (value.shape[-1],), *weights)

        q = norm(x, 0)[:, None]
        k = q if memory is None else norm(memory, 0)[:, None]
        attended, _ = functional.multi_head_attention_forward(
            q, k, k, width, HEADS, part["self_attn.in_proj_weight"], part["self_attn.in_proj_bias"], None, None, False,
            0.0, part["self_attn.out_proj.weight"], part["self_attn.out_proj.bias"], training=False, attn_mask=ahead,
        )  # fmt: skip
        x = x + attended[:, 0]
        hidden = functional.linear(norm(x, 1), part["fc1.weight"], part["fc1.bias"]).relu()
        x = x + functional.linear(hidden, part["fc2.weight"], part["fc2.bias"])
    return functional.layer_norm(x, (width,), state[f"{stack}.layer_norm.weight"], state[f"{stack}.layer_norm.bias"])


def plain(state: dict[str, Tensor], given: dict[str, Tensor]) -> Tensor:
    """One sample, modality -> (T, dim), answered as the released code does."""
    tokens = {m: x if x.shape[1] == WIDTH else x @ state[f"proj_{m}.weight"][..., 0].T for m, x in given.items()}
    last = []
    for m in "lav":
        crossed = [plain_stack(state, f"trans_{m}_with_{o}", tokens[m], tokens[o]) for o in "lav" if o != m]
        last.append(plain_stack(state, f"trans_{m}_mem", torch.cat(crossed, -1))[-1])
    fused = torch.cat(last)
    hidden = functional.linear(fused, state["proj1.weight"], state["proj1.bias"]).relu()
    fused = fused + functional.linear(hidden, state["proj2.weight"], state["proj2.bias"])
    return functional.linear(fused, state["out_layer.weight"], state["out_layer.bias"])


def streams() -> Streams:
    """Two samples, the second with padding everywhere."""
    generator = torch.Generator().manual_seed(1)
    made = {}
    for m, (whole, short) in {"l": (4, 3), "a": (9, 4), "v": (6, 6)}.items():
        mask = torch.arange(whole) < torch.tensor([[whole], [short]])
        made[m] = Stream(torch.randn(2, whole, DIMS[m], generator=generator), mask)
    return made


def test_a_released_checkpoint_answers_as_a_plain_transformer_of_those_weights() -> None:
    state, given = released(), streams()
    got = MulT.from_released(state, heads=HEADS).eval()(given)
    for b in range(2):
        want = plain(state, {m: s.x[b, s.mask[b]] for m, s in given.items()})
        torch.testing.assert_close(got[b, 0], want, atol=1e-4, rtol=1e-4)


def test_other_names_are_refused() -> None:
    state = released()
    with pytest.raises(UsageError, match="mystery"):
        MulT.from_released({**state, "mystery.weight": torch.zeros(2)}, heads=HEADS)
    with pytest.raises(UsageError, match=r"memory\.a\.last\.bias is missing"):
        MulT.from_released({n: w for n, w in state.items() if n != "trans_a_mem.layer_norm.bias"}, heads=HEADS)
    with pytest.raises(UsageError, match="missing"):
        MulT.from_released({})


@pytest.mark.parametrize("width", [2, 3, 8, 9])
def test_positions_begin_at_one_with_sines_before_cosines(width: int) -> None:
    got, half = positions(5, width, torch.device("cpu")), width // 2
    for t in range(5):
        angles = [(t + 1) / 10000 ** (i / max(1, half - 1)) for i in range(half)]
        want = [*map(math.sin, angles), *map(math.cos, angles), *[0.0] * (width % 2)]
        assert got[t].tolist() == pytest.approx(want, abs=1e-5)


def test_a_query_sees_no_further_than_the_difference_of_the_lengths() -> None:
    query, key = torch.tensor([[1, 1, 1, 0]]).bool(), torch.tensor([[1, 0, 1, 1, 1, 0]]).bool()
    got = visible(query, key, causal=True)
    for q in range(4):
        assert got[0, q].tolist() == [bool(key[0, k]) and k <= q + abs(3 - 5) for k in range(6)]
    assert torch.equal(visible(query, key, causal=False), key[:, None])


def test_memory_transformers_have_at_least_three_layers() -> None:
    for depth, layers in ((1, 3), (5, 5)):
        fuser = MulT(Spec("classify", DIMS, 3), width=WIDTH, heads=HEADS, depth=depth)
        assert {len(stack.attention) for stack in fuser.memory.values()} == {layers}

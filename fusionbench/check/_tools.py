"""What the checks of every kind share: building a plugin, comparing numbers, watching random states."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from fusionbench import hparams
from fusionbench.api import Stream, Streams, keyed

#: A check takes the plugin's class and raises AssertionError (or anything else) where the contract is broken.
Check = Callable[[Any], None]


class NotApplicable(Exception):
    """Raised by a check that says nothing about this plugin; its text is the reason."""


# ------------------------------------------------------------------------------------------------------- construction


def smallest(plugin: type) -> dict[str, Any]:
    """The cheapest `width` (`size` of a picture, `trees`, `rounds`) that it declares; all else keeps its default."""
    return {
        name: declared.parse(min(declared.domain.corners()))
        for name, declared in hparams.read(plugin).items()
        if name in ("width", "size", *REPEATED) and declared.domain
    }


#: Numbers of things that are all alike: what holds of an estimator with a few of them holds of it with many.
REPEATED = ("trees", "rounds")


def few(plugin: type) -> dict[str, Any]:
    """As `smallest`, with a tenth of the fewest trees or rounds: ranges guide searches, any number constructs."""
    found = smallest(plugin)
    return {name: max(2, value // 10) if name in REPEATED else value for name, value in found.items()}


def build(plugin: Any, argument: Any, seed: int = 0, **given: Any) -> Any:
    """The plugin, its parameters drawn with `seed`, the caller's random state left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return plugin(argument, **{**smallest(plugin), **given})


def declarations(plugin: type) -> None:
    """Every hyper-parameter has a type, a default of that type, a help text and, if a number, a range."""
    for name, declared in hparams.read(plugin).items():
        assert declared.help, f"{name} has no help text: Annotated[{name}'s type, Range(...), 'what it is']"
        default = declared.parse(declared.default)
        same = default == declared.default and (default is None or type(default) is type(declared.default))
        assert same, f"the default of {name} is {declared.default!r}, which is not of its declared type"
        plain_number = declared.type in (int, float)
        assert declared.domain or not plain_number, f"{name} is a number without a Range or Choice to search"
        for corner in declared.domain.corners() if declared.domain else ():
            declared.parse(corner)
        if isinstance(declared.domain, hparams.Range):
            low, high = declared.domain.corners()
            assert low < high, f"the range of {name} is empty: {declared.domain}"
            assert low > 0 or not declared.domain.log, f"the logarithmic range of {name} starts at {low:g}"


def corners(plugin: type) -> list[dict[str, Any]]:
    """One setting for each end of each declared range, the others at their defaults."""
    found = [
        {name: declared.parse(corner)}
        for name, declared in hparams.read(plugin).items()
        for corner in (declared.domain.corners() if declared.domain else ())
    ]
    if not found:
        raise NotApplicable("it declares no hyper-parameter with a range")
    return found


@contextmanager
def setting(settings: Mapping[str, Any]) -> Iterator[None]:
    """Whatever goes wrong inside is told together with the hyper-parameters that it went wrong with."""
    try:
        yield
    except Exception as error:
        text = str(error).strip().splitlines()[0] if str(error).strip() else ""
        kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
        spelled = ", ".join(f"{name}={value}" for name, value in settings.items())
        raise AssertionError(f"with {spelled}: {kind}{text}") from error


# --------------------------------------------------------------------------------------------------------- comparison


def same(got: Tensor, want: Tensor, what: str, tolerance: float = 1e-4) -> None:
    """The two agree to `tolerance` of the largest value (rounding differs with the shapes of the products)."""
    assert got.shape == want.shape, f"{what}: shape {tuple(got.shape)}, was {tuple(want.shape)}"
    if want.numel() == 0:
        return
    got, want = got.detach().double(), want.detach().double()
    assert torch.isfinite(got).all(), f"{what}: not finite"
    distance, scale = float((got - want).abs().max()), float(want.abs().max())
    assert distance <= tolerance * (scale + 0.1), f"{what}: differs by {distance:.2g} where values reach {scale:.2g}"


def holds(claim: Callable[[], None]) -> bool:
    """Does a check pass, whatever it says?"""
    try:
        claim()
    except Exception:  # a plugin may raise anything at all
        return False
    return True


def finite(value: Tensor, what: str) -> None:
    assert torch.isfinite(value).all(), f"{what}: not finite"


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter's gradient by name, zeros where there is none."""
    return {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters()}


def same_gradients(got: Mapping[str, Tensor], want: Mapping[str, Tensor], what: str) -> None:
    scale = max((float(g.abs().max()) for g in want.values()), default=0.0)
    for name, gradient in want.items():
        distance = float((got[name] - gradient).abs().max())
        assert distance <= 1e-3 * scale + 1e-6, f"{what}: the gradient of {name} differs by {distance:.2g}"


#: A constant added to every key moves all scores of a query alike, and softmax does not see it.
_KEY_BIASES = ("key.bias", "keys.bias", "k_proj.bias", "to_k.bias", "key_proj.bias")


def is_key_bias(name: str) -> bool:
    return name.endswith(_KEY_BIASES)


def all_train(total: Mapping[str, Tensor]) -> None:
    """Every parameter's summed |gradient| is above 1e-5 of the largest one."""
    if not total:
        raise NotApplicable("it has no parameters")
    largest = max(float(g.max()) for g in total.values())
    assert largest > 0, "no parameter gets a gradient"
    for name, gradient in total.items():
        reached = float(gradient.max()) > 1e-5 * largest
        assert reached or is_key_bias(name), f"{name} {tuple(gradient.shape)} gets no gradient"


# -------------------------------------------------------------------------------------------------------- randomness


@contextmanager
def quiet() -> Iterator[None]:
    """Training noise off: every keyed draw is a constant, so that two training passes can be compared."""

    def constant(shape: Sequence[int], device: torch.device, kind: str = "uniform") -> Tensor:
        return torch.full(tuple(shape), 0.999 if kind == "uniform" else 0.0, device=device)

    with mock.patch.object(keyed, "draw", constant):
        yield


@contextmanager
def untouched_random(what: str) -> Iterator[None]:
    """Fails if torch's, numpy's or Python's global generator moved meanwhile."""

    def states() -> tuple[bytes, bytes, Any]:
        numpy_state: Any = np.random.get_state()
        return (
            bytes(torch.get_rng_state().numpy()),
            numpy_state[1].tobytes() + bytes([numpy_state[2] % 256]),
            (random.getstate()),
        )

    before = states()
    yield
    for name, old, new in zip(("torch", "numpy", "Python"), before, states(), strict=True):
        assert old == new, f"{what} drew from {name}'s global random state: use api.keyed.draw or api.Dropout"


# -------------------------------------------------------------------------------------------------------------- state


def _looks_drawn(values: Tensor) -> bool:
    """Zeros, ones and identities are nobody's draw; a thousand numbers of a large tensor tell."""
    return values[:: max(1, len(values) // 1000)].unique().numel() > 3


def same_weights_other_seed(first: nn.Module, second: nn.Module) -> None:
    """No parameter that looks random is the same under both seeds."""
    if not list(first.parameters()):
        raise NotApplicable("it has no parameters")
    varied = [
        (name, torch.equal(a, b))
        for (name, a), b in zip(first.named_parameters(), second.parameters(), strict=True)
        if _looks_drawn(a.detach().flatten())
    ]
    if not varied:
        raise NotApplicable("no parameter is drawn at random")
    for name, equal in varied:
        assert not equal, f"{name} is the same under two seeds: do not seed inside __init__"


def stray_tensors(model: nn.Module) -> list[str]:
    """Names of tensors that hang on modules without being parameters or buffers."""
    return [
        f"{name + '.' if name else ''}{attribute}"
        for name, module in model.named_modules()
        for attribute, value in vars(module).items()
        if attribute not in ("_parameters", "_buffers", "_modules") and _holds_tensor(value)
    ]


def _holds_tensor(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_tensor, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_holds_tensor, value))
    return isinstance(value, Tensor)


def reload(trained: nn.Module, fresh: nn.Module) -> None:
    """Into `fresh` go the weights of `trained`, through a file that holds nothing but tensors."""
    file = io.BytesIO()
    torch.save(trained.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))


# ------------------------------------------------------------------------------------------------------------ streams


def pad(stream: Stream, steps: int) -> Stream:
    """The stream with `steps` more masked steps at its end, full of a number that must not matter."""
    shape = (stream.x.shape[0], steps, *stream.x.shape[2:])
    x = torch.cat([stream.x, torch.full(shape, 7.0, dtype=stream.x.dtype)], 1)
    return Stream(x, torch.cat([stream.mask, torch.zeros(shape[:2], dtype=torch.bool)], 1))


def refill(stream: Stream, value: float) -> Stream:
    """The stream built again with `value` under the False mask."""
    wide = stream.mask.reshape(*stream.mask.shape, *[1] * (stream.x.dim() - 2))
    return Stream(torch.where(wide, stream.x, value), stream.mask)


def copied(streams: Streams) -> Streams:
    return {m: Stream(s.x.clone(), s.mask.clone()) for m, s in streams.items()}


def same_streams(got: Mapping[str, Stream], want: Mapping[str, Stream], what: str) -> None:
    """Equal to the bit, in the same order of keys."""
    assert list(got) == list(want), f"{what}: the modalities are {list(got)}, were {list(want)}"
    for m in want:
        equal = torch.equal(got[m].x, want[m].x) and torch.equal(got[m].mask, want[m].mask)
        assert equal, f"{what}: the stream of {m} changed"


def key(number: int) -> Tensor:
    """A scalar key for `keyed.scope`."""
    return torch.tensor(number, dtype=torch.int32)

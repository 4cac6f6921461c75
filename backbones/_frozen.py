"""What the frozen encoders of raw media share: one vector a step, weights that never train, extras imported late."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fusionbench.api import Backbone, Stream, UsageError

# One forward pass takes so many steps, and values of input on the CPU: bounds the memory, whatever the batch.
MICRO, VALUES = 32, 1 << 20


class Frozen(Backbone):
    """Encodes every step by itself; never trains. Its output is computed once and kept (`fusionbench.features`).

    Attributes:
        frozen: the harness replaces the raw stream by this encoder's output before training.
        stepwise: a step's output depends on that step alone, so masked steps need not be encoded.
        example, example_settings: (T, *step) of a small stream for the conformance kit, and settings that suit it.
        expects: the input in words.
    """

    frozen = True
    stepwise = True
    known_failures = {  # noqa: RUF012
        "every_parameter_trains": "frozen: its parameters are not meant to train",
    }
    example: tuple[int, ...]
    example_settings: Mapping[str, Any]
    expects: str

    def freeze(self) -> None:
        """To be called at the end of `__init__`."""
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Frozen:
        """Stays in evaluation mode: statistics of batch normalisation are frozen too."""
        super().train(False)
        return self

    def admit(self, stream: Stream, rate: float | None) -> None:
        """Checks values and sampling rate of real input (`rate`: steps a second, None where unknown).

        Raises:
            UsageError: it is not what this encoder expects.
        """

    def forward(self, stream: Stream) -> Stream:
        """(B, T, *step) -> (B, T, dim), without gradient."""
        with torch.no_grad():
            steps = stream.x.flatten(0, 1)  # (B * T, *step)
            micro = MICRO if steps.is_cuda else min(MICRO, max(1, VALUES // max(1, steps[0].numel())))
            x = torch.cat([self.encode(part) for part in steps.split(micro)])
        return Stream(x.unflatten(0, stream.mask.shape), stream.mask)

    def encode(self, steps: Tensor) -> Tensor:
        """(n, *step) -> (n, dim)."""
        raise NotImplementedError


def extra(module: str, group: str) -> Any:
    """The module, imported now.

    Raises:
        UsageError: it is not installed; the text names the extra that brings it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        why = "is not installed" if (error.name or "").split(".")[0] == package else f"does not import ({error})"
        raise UsageError(f"{package} {why}: pip install 'mm-fusionbench[{group}]'") from None


def expect(owner: str, shape: Sequence[int], right: bool, expects: str) -> None:
    """Refuses a step of the wrong shape.

    Raises:
        UsageError: always, unless `right`.
    """
    if not right:
        raise UsageError(f"{owner} expects {expects}; a step here is {tuple(shape)}")


def within(owner: str, stream: Stream, low: float, high: float, what: str) -> None:
    """Refuses values outside low..high, NaN included.

    Raises:
        UsageError: there is one.
    """
    least, most = (float(v) for v in torch.aminmax(stream.x))
    if not (least >= low and most <= high):
        raise UsageError(f"{owner} expects {what} from {low:g} to {high:g}; here they run from {least:g} to {most:g}")


def same_rate(owner: str, stream: Stream, rate: float | None, wanted: int) -> None:
    """Refuses sound at another sampling rate; a step of n samples at `rate` steps a second has n * rate Hz.

    Raises:
        UsageError: the two differ by more than one in a thousand.
    """
    if rate is None:
        return
    found = stream.shape[1] * rate
    if abs(found - wanted) > 1e-3 * wanted:
        raise UsageError(
            f"{owner} works at {wanted} Hz, the benchmark gives sound at {found:.0f} Hz: set the sampling rate of one "
            f"of them (such as --benchmark.audio_rate {wanted})"
        )


def load_weights(owner: str, model: nn.Module, weights: str, pretrained: Callable[[], Mapping[str, Tensor]]) -> None:
    """Fills the model: "" = the library's own weights, "random" = as initialised, else a local file.

    A classifier that the encoder does not have (`fc.`, `classifier.`, `head.`) is left out; all else must fit.

    Raises:
        UsageError: the weights cannot be fetched or read, or do not fit.
    """
    if weights == "random":
        return
    state = pretrained_state(owner, pretrained) if not weights else weights_file(weights)
    wanted = model.state_dict()
    heads = ("fc.", "classifier.", "head.")
    state = {k: v for k, v in state.items() if k in wanted or not k.startswith(heads)}
    source = weights or "the library's weights"
    for name, value in wanted.items():
        if name not in state:
            raise UsageError(f"{source}: {owner} needs {name!r}, which is not in it")
        if state[name].shape != value.shape:
            raise UsageError(
                f"{source}: {name!r} is {tuple(state[name].shape)}, {owner} needs it to be {tuple(value.shape)}"
            )
    strangers = sorted(set(state) - set(wanted))
    if strangers:
        raise UsageError(f"{source}: {owner} has no {strangers[0]!r} ({len(strangers)} such tensors)")
    model.load_state_dict(state)


def pretrained_state(owner: str, fetch: Callable[[], Any]) -> Any:
    """What `fetch` gets from a library's cache or its server.

    Raises:
        UsageError: it cannot.
    """
    try:
        return fetch()
    except UsageError:
        raise
    except Exception as error:  # libraries raise anything from URLError to OSError here
        text = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UsageError(
            f"the pretrained weights of {owner} cannot be fetched ({text}): connect once, or give weights=FILE "
            f"(.safetensors or .pth), or ask for weights=random"
        ) from None


def weights_file(path: str) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a .pth / .pt file that holds nothing but tensors.

    Raises:
        UsageError: no such file, or it is something else.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise UsageError(f"there is no weights file {path} (or write weights=random)")
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(str(file))
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and safetensors errors have no common class
        text = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{path} is no file of weights: {text}") from None
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(state.get(key), dict):
            state = state[key]
    state = {k.removeprefix("module."): v for k, v in state.items() if isinstance(v, Tensor)}
    if not state:
        raise UsageError(f"{path} holds no tensors")
    return state

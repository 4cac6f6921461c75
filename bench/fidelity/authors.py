"""The authors' code, imported from a checkout that whoever measures has made, and forgotten afterwards."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

import torch
from torch import Tensor, nn


def find(checkouts: Path, code: str) -> Path | None:
    """The checkout of the repository `owner/name`: a folder of that path, or of its last part, if there is one."""
    folders = (checkouts / code, checkouts / code.split("/")[1])
    return next((folder for folder in folders if folder.is_dir()), None)


def commit(folder: Path) -> str:
    """The first seven digits of the commit that is checked out."""
    command = ["git", "-C", str(folder), "rev-parse", "--short=7", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def importing(folder: Path, *absent: str) -> Iterator[None]:
    """Within it, modules of `folder` are imported by their own names.

    Args:
        absent: libraries that the code imports and the compared part does not use; a stand-in takes their places.
    """
    stand_ins = {name: MagicMock() for name in absent if name not in sys.modules}
    sys.modules.update(stand_ins)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in [name for name, module in sys.modules.items() if name in stand_ins or _below(folder, module)]:
            del sys.modules[name]


def _below(folder: Path, module: ModuleType) -> bool:
    spec = getattr(module, "__spec__", None)
    places = [spec.origin, *(spec.submodule_search_locations or [])] if isinstance(spec, ModuleSpec) else []
    return any(str(folder) in str(place) for place in places)


def module(folder: Path, name: str, *absent: str) -> ModuleType:
    """One module of the authors' code, by its dotted name below `folder`."""
    with importing(folder, *absent):
        return importlib.import_module(name)


@contextmanager
def on_cpu() -> Iterator[None]:
    """Within it, what is sent to a GPU stays where it is."""
    moves = torch.Tensor.cuda, nn.Module.cuda
    torch.Tensor.cuda = nn.Module.cuda = lambda self, *_, **__: self
    try:
        yield
    finally:
        torch.Tensor.cuda, nn.Module.cuda = moves


@torch.no_grad()
def stir(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model, in evaluation mode, with random parameters: zero biases and unit norms would hide a mix-up."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() < 2:
                parameter.copy_(2 * noise + name.endswith("weight"))  # a norm's weights stay about one
            else:
                parameter.copy_(2 * noise * parameter.shape[-1] ** -0.5)
    return model.eval()


def load(ours: nn.Module, weights: Mapping[str, Tensor], *, spare: tuple[str, ...] = ()) -> nn.Module:
    """Ours, in evaluation mode, with the given weights; every parameter of ours is given, but those below `spare`.

    Raises:
        SystemExit: a name is missing or unknown: the two do not compute the same.
    """
    missing, unknown = ours.load_state_dict(dict(weights), strict=False)
    if (missing := [name for name in missing if not name.startswith(spare or ("\n",))]) or unknown:
        sys.exit(f"{type(ours).__name__}: {missing or 'nothing'} missing, {unknown or 'nothing'} unknown")
    return ours.eval()


def linear(theirs: Mapping[str, Tensor], name: str, ours: str) -> dict[str, Tensor]:
    """The weights of the layer `name` under our name."""
    parts = ("weight", "bias")
    return {f"{ours}.{part}": theirs[f"{name}.{part}"] for part in parts if f"{name}.{part}" in theirs}


def attention(theirs: Mapping[str, Tensor], name: str, ours: str, out: str = "out_proj") -> dict[str, Tensor]:
    """An attention layer whose query, key and value are one matrix, as our four layers."""
    found = linear(theirs, f"{name}.{out}", f"{ours}.out")
    for part in ("weight", "bias"):
        chunks = theirs[f"{name}.in_proj_{part}"].chunk(3)
        found |= {f"{ours}.{layer}.{part}": x for layer, x in zip(("query", "key", "value"), chunks, strict=True)}
    return found


def largest(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, relative to how far the samples (the first dimension) of theirs lie from their mean."""
    if ours.shape != theirs.shape:
        sys.exit(f"shapes differ: {tuple(ours.shape)} and {tuple(theirs.shape)}")
    ours, theirs = ours.detach(), theirs.detach()
    spread = (theirs - theirs.mean(0)).abs().max() if theirs.dim() else theirs.abs()
    return float((ours - theirs).abs().max() / spread)

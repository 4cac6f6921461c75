"""Models of the transformers library by name: the hub's cache, a local folder, or random weights in a small shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from fusionbench.api import UsageError

from ._frozen import extra, load_weights, pretrained_state

#: The sizes of a randomly initialised model: it stands in for a pretrained one in tests and as a reference.
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}


def pretrained(owner: str, group: str, model: str, weights: str) -> tuple[nn.Module, str]:
    """The named model with weights, and where its preprocessor is to be found (a hub name or a folder).

    `weights`: "" = the hub's; a folder as `save_pretrained` writes it; or a file of weights for the named model.
    """
    transformers = extra("transformers", group)
    place = str(Path(weights).expanduser()) if weights and Path(weights).expanduser().is_dir() else model
    if weights and place == model:
        config = pretrained_state(owner, lambda: transformers.AutoConfig.from_pretrained(model))
        network = transformers.AutoModel.from_config(config)
        load_weights(owner, network, weights, dict)
        return network, place
    name = f"{owner} ({place})"
    network = pretrained_state(name, lambda: transformers.AutoModel.from_pretrained(place, trust_remote_code=False))
    return network, place


def random(group: str, family: str, known: dict[str, dict[str, Any]]) -> nn.Module:
    """A small randomly initialised model of a family (`wav2vec2`, `bert`, ...), whose settings are `known`.

    Raises:
        UsageError: the family is unknown.
    """
    transformers = extra("transformers", group)
    if family not in known:
        raise UsageError(f"weights=random is for the families {', '.join(sorted(known))}, not {family!r}")
    config = transformers.AutoConfig.for_model(family, **{**SMALL, **known[family]})
    return transformers.AutoModel.from_config(config)

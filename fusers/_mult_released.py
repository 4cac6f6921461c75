"""The names of the MulT authors' checkpoint, in ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import permutations

from torch import Tensor

#: The authors' names -> ours. Language, audio and vision are l, a and v in both.
_RENAMES = {
    **{f"^trans_{a}_with_{b}\\.": f"cross.{i}." for i, (a, b) in enumerate(permutations("lav", 2))},
    r"^trans_([lav])_mem\.": r"memory.\1.",
    r"layers\.(\d+)\.self_attn\.": r"attention.\1.",
    r"layers\.(\d+)\.fc1\.": r"feedforward.\1.0.",
    r"layers\.(\d+)\.fc2\.": r"feedforward.\1.3.",
    r"layers\.(\d+)\.layer_norms\.0\.": r"norm1.\1.",
    r"layers\.(\d+)\.layer_norms\.1\.": r"norm2.\1.",
    r"\.layer_norm\.": ".last.",
    r"out_proj\.": "out.",
    r"^proj1\.": "residual.0.",
    r"^proj2\.": "residual.2.",
    r"^out_layer\.": "answer.",
}


def translate(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their weights under our names; buffers that hold no weights are left out."""
    given: dict[str, Tensor] = {}
    for name, weight in state_dict.items():
        if name.endswith((".version", "._float_tensor")):
            continue
        ours = name
        for theirs, replacement in _RENAMES.items():
            ours = re.sub(theirs, replacement, ours)
        if projection := re.fullmatch(r"proj_([lav])\.weight", name):  # a convolution of size one, without a bias
            given[f"project.{projection[1]}.weight"] = weight.squeeze(-1)
            given[f"project.{projection[1]}.bias"] = weight.new_zeros(len(weight))
        elif "in_proj_" in ours:  # query, key and value are one matrix there, three layers here
            parts = zip(("query.", "key.", "value."), weight.chunk(3), strict=True)
            given |= {ours.replace("in_proj_", layer): part for layer, part in parts}
        else:
            given[ours] = weight
    return given

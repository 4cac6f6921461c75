"""The names of the JMT authors' checkpoint, in ours."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

#: The authors' names -> ours.
_RENAMES = {
    r"^visual_encoder\.": "encoders.0.",
    r"^physiological_encoder\.": "encoders.1.",
    r"^joint_representation_encoder\.": "encoders.2.",
    r"^final_visual_encoder\.": "mix.",
    r"^cross_attention_v\.": "cross.0.",
    r"^cross_attention_p\.": "cross.1.",
    r"^cross_attention_pv\.": "cross.2.",
    r"^final_self_attention\.": "read.",
    r"^out_layer_pv\.": "joint.",
    r"layers\.(\d+)\.attention\.": r"attention.\1.",
    r"layers\.(\d+)\.feed_forward\.0\.": r"feedforward.\1.0.",
    r"layers\.(\d+)\.feed_forward\.2\.": r"feedforward.\1.3.",
    r"layers\.(\d+)\.layer_norm([12])\.": r"norm\2.\1.",
    r"out_proj\.": "out.",
}


def translate(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their weights under our names. `final_encoder` and `out_layer1`, unused by this read-out, are left out."""
    given: dict[str, Tensor] = {}
    for name, weight in state_dict.items():
        if name.startswith(("final_encoder.", "out_layer1.")):
            continue
        ours = name
        for theirs, replacement in _RENAMES.items():
            ours = re.sub(theirs, replacement, ours)
        if "in_proj_" in ours:  # query, key and value are one matrix there, three layers here
            parts = zip(("query.", "key.", "value."), weight.chunk(3), strict=True)
            given |= {ours.replace("in_proj_", layer): part for layer, part in parts}
        else:
            given[ours] = weight
    return given

"""What people call labels, groups, ids, folds and times in their own files."""

from __future__ import annotations

import re
from collections.abc import Collection

#: Role -> names that mean it, whatever the shape; numbers and `_id`, `_no` and the like at the end do not matter.
_ALWAYS = {
    "label": "label labels target targets groundtruth ytrue ylabel classlabel".split(),
    "group": "subject person people participant patient personid subjectid participantid".split(),
}
#: Names that mean it only where there is one value a sample: a video may be a modality.
_SINGLE = {
    "label": "class category state condition emotion annotation truth gt stress".split(),
    "group": "groups user speaker video recording session pid uid subj individual driver rater".split(),
    "id": "ids sample sampleid clip clipid segment segmentid window key name filename file trial trialid".split(),
    "label_mask": "labelmask labelsmask targetmask ymask".split(),
    "fold": "folds cv cvfold kfold".split(),
    "split": "splits subset partition side dataset".split(),
}
TIMES = ("time", "t", "timestamp", "timestamps", "frame", "step", "seconds", "sec", "ms")


def plain(name: str) -> str:
    """`Subject_ID` -> `subjectid`."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def role(name: str, single: bool) -> str | None:
    """Which role a column or array has by its name, if it is not to be a modality.

    Args:
        single: has it one value a sample?
    """
    short = plain(name)
    stem = re.sub(r"(id|ids|no|nr|num|number|index|code|name|s)$", "", short)
    for known in (_ALWAYS, _SINGLE) if single else (_ALWAYS,):
        for found, names in known.items():
            if short in names or stem in names:
                return found
    return None


def hint(wanted: str, names: Collection[str]) -> str:
    """The first of the names that sounds like the role; `...` if none does."""
    return next((name for name in names if role(name, single=True) == wanted), "...")

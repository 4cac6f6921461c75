"""BioVid Heat Pain, five folds over shuffled clips: the same people train and test. Only to compare with such numbers.

Data and layout as in `biovid`. The 89.1 % of the Joint Multimodal Transformer's paper appears to come from such a split
(its public code shuffles clips into folds); it says little about people whom the model has never seen.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np

from fusionbench.api import Batch, Choice, Location, Splits, keyed

from ._biovid import HeatPain


class BiovidSubjectDependent(HeatPain):
    folds = 5
    role = "exhibit"  # people stand on two sides of a split
    subject_dependent = "clips of one person stand in training, validation and test"

    def __init__(
        self,
        *,
        root: Annotated[str, Location, "the folder that holds starting_point, biosignals_filtered and video"] = "",
        classes: Annotated[str, Choice("pa4", "pa3", "pa2", "pa1", "all"), "BL1 against one, or all five"] = "pa4",
        modalities: Annotated[str, "of face, gsr, ecg, emg_trapezius, emg_corrugator, emg_zygomaticus"] = "face,gsr",
        signals: Annotated[str, Choice("biosignals_filtered", "biosignals_raw"), "folder of the signals"] = (
            "biosignals_filtered"
        ),
        video: Annotated[str, "folder of the videos; of face crops, if you made some"] = "video",
        size: Annotated[int, Choice(112), "side of a frame, pixels: its centre square, scaled"] = 112,
        skip_bad: Annotated[bool, "leave clips with broken files out instead of stopping"] = False,
    ) -> None:
        super().__init__(root, classes, modalities, signals, video, size, skip_bad)

    def splits(self, data: Batch, fold: int) -> Splits:
        """Clips, ordered by a hash of their names, cut into five blocks; the one after the test block validates."""
        order = sorted(range(len(data)), key=lambda i: (keyed.number("clip", data.ids[i]), data.ids[i]))
        blocks = np.array_split(np.array(order), self.folds)
        test, val = blocks[fold], blocks[(fold + 1) % self.folds]
        train = np.concatenate([b for k, b in enumerate(blocks) if k not in (fold, (fold + 1) % self.folds)])
        return Splits(np.sort(train), np.sort(val), np.sort(test))

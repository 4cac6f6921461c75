"""No pain or strong pain? BioVid Heat Pain Part A: face video and biosignals of 87 people, 8,700 clips of 5.5 s.

Data: Walter et al., "The BioVid Heat Pain Database" (2013), handed out under licence by its makers; read in the layout
in which it comes: `starting_point/samples.csv`, `biosignals_filtered/<subject>/<sample>_bio.csv`, and
`video/<subject>/<sample>.mp4`.
Splits are by person, always: leave one person out (87 folds, the norm) or five folds; validation people of their own.
Faces are the centre square of the video: point `video` at a folder of face crops in the same layout if you made some.
"""

from __future__ import annotations

from typing import Annotated

from fusionbench.api import Batch, Choice, Location, Splits, UsageError, group_folds

from ._biovid import INDEX, PEOPLE, HeatPain


class Biovid(HeatPain):
    def __init__(
        self,
        *,
        root: Annotated[str, Location, "the folder that holds starting_point, biosignals_filtered and video"] = "",
        protocol: Annotated[str, Choice("loso", "5fold"), "leave one person out, or five folds by person"] = "loso",
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
        if protocol not in ("loso", "5fold"):
            raise UsageError(f"protocol is loso or 5fold, not {protocol!r}")
        # Folds are planned before the data are read: people are counted in the table of clips, where it is there.
        people = len(self.subjects) if (self.root / INDEX).is_file() else PEOPLE
        self.folds = 5 if protocol == "5fold" else people

    def splits(self, data: Batch, fold: int) -> Splits:
        return group_folds(data.groups, self.folds, fold)

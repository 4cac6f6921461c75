"""Which of eight emotions? Face and voice of 24 actors who speak or sing two sentences, 1,440 spoken clips of 4 s.

Data: RAVDESS (Livingstone and Russo, PLoS ONE 13(5):e0196391, 2018; CC BY-NC-SA 4.0), Zenodo record 1188976, as its
archives unpack: `Actor_12/01-01-06-01-02-01-12.mp4`. The seven fields of a name are modality (01 picture and sound, 02
picture only, 03 sound only), channel (01 speech, 02 song), emotion, intensity (neutral has no strong one), statement,
repetition, actor (odd: male, even: female). The files of one take are one clip: the picture of 01, else of 02, and the
sound of 03, else of 01; what is missing is masked. Speech is the default; songs have six of the emotions, and actor 18
did not sing. Six folds by actor, validation actors of their own.

Why fusion could matter: some emotions are in the face (happiness), others in the voice (calm against sad). What would
inflate it: folds over clips, since an actor repeats each sentence in each emotion; the files of one take counted as
three clips; speech to train and song to test of the same actor. References: raters, on all takes, are right in 80 %
with picture and sound, 75 % with the picture, 60 % with the sound.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from fusionbench.api import Choice, Location, Task, UsageError

from ._acted import ActedEmotions, Clip

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
SUNG = EMOTIONS[:6]
CHANNELS = {"speech": ("01",), "song": ("02",), "both": ("01", "02")}
#: field -> its greatest number; all begin at 1
FIELDS = {"modality": 3, "channel": 2, "emotion": 8, "intensity": 2, "statement": 2, "repetition": 2, "actor": 24}
NAME = re.compile(r"\d\d(-\d\d){6}")


class Ravdess(ActedEmotions):
    home = "ravdess"
    licence = "CC BY-NC-SA 4.0"
    source = "https://zenodo.org/record/1188976"
    citation = (
        "Livingstone and Russo, The Ryerson Audio-Visual Database of Emotional Speech and Song (RAVDESS), PLoS "
        "ONE 13(5):e0196391, 2018"
    )
    caveats = (
        "folds over clips: an actor repeats each sentence in each emotion",
        "the files of one take counted as three clips",
    )
    folds = 6

    def __init__(
        self,
        *,
        root: Annotated[str, Location, "the folder that holds Actor_01 to Actor_24"] = "",
        channel: Annotated[str, Choice("speech", "song", "both"), "what the actors do"] = "speech",
        size: Annotated[int, Choice(112), "side of a frame, pixels: its centre square, scaled"] = 112,
        audio_rate: Annotated[int, Choice(16000, 44100), "sampling rate of the voice, Hz"] = 16000,
        skip_bad: Annotated[bool, "leave clips with broken files out instead of stopping"] = False,
    ) -> None:
        super().__init__(root, size, audio_rate, skip_bad)
        if channel not in CHANNELS:
            raise UsageError(f"ravdess: channel is speech, song or both, not {channel!r}")
        self.channel = channel
        self.classes = SUNG if channel == "song" else EMOTIONS
        self.task = Task("classify", len(self.classes), ("accuracy", "macro_f1"))

    def clips(self) -> Iterator[Clip | str]:
        takes: dict[str, dict[str, Path]] = defaultdict(dict)  # name without its first field -> modality -> file
        files = [path for kind in ("mp4", "wav") for path in self.root.rglob(f"Actor_*/*.{kind}")]
        for path in sorted(files, key=lambda path: (path.stem, len(path.parts), str(path))):
            wrong = _wrong(path)
            if wrong:
                yield f"{path}: {wrong}"
            elif path.stem[3:5] in CHANNELS[self.channel]:
                takes[path.stem[3:]].setdefault(path.stem[:2], path)  # some copies hold every file twice
        for take, found in sorted(takes.items()):
            _, emotion, _, _, _, actor = map(int, take.split("-"))
            sex = "male" if actor % 2 else "female"
            video, sound = found.get("01", found.get("02")), found.get("03", found.get("01"))
            yield Clip(take, f"{actor:02d}_{sex}", {"sex": sex}, emotion - 1, video, sound)


def _wrong(path: Path) -> str:
    """What is wrong with a file's name; empty if nothing."""
    if not NAME.fullmatch(path.stem):
        return "its name is not seven fields of two digits, as in 01-01-06-01-02-01-12"
    fields = dict(zip(FIELDS, map(int, path.stem.split("-")), strict=True))
    for field, greatest in FIELDS.items():
        if not 1 <= fields[field] <= greatest:
            return f"the {field} of its name is {fields[field]:02d}, not 01 to {greatest:02d}"
    if path.parent.name != f"Actor_{fields['actor']:02d}":
        return f"it is of actor {fields['actor']:02d} and stands in {path.parent.name}"
    if (fields["modality"] == 3) != (path.suffix == ".wav"):
        return f"modality {fields['modality']:02d} is no {path.suffix} file"
    if fields["emotion"] == 1 and fields["intensity"] == 2:
        return "neutral has no strong intensity"
    if fields["channel"] == 2 and fields["emotion"] > len(SUNG):
        return f"{EMOTIONS[fields['emotion'] - 1]} was not sung"
    return ""

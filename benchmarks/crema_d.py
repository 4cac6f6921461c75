"""Which of six emotions? Face and voice of 91 actors who say twelve sentences, 7,442 clips of about 2.5 s.

Data: CREMA-D (Cao et al., IEEE Transactions on Affective Computing 5(4), 2014; Open Database License), the repository
CheyneyComputerScience/CREMA-D with its Git LFS files: `VideoFlash/1001_DFA_ANG_XX.flv`,
`AudioWAV/1001_DFA_ANG_XX.wav` and `VideoDemographics.csv`. A name says actor, sentence, the emotion that was meant and
its level (LO, MD, HI, or XX where none was asked for; neutral has no other; one clip is misspelled X). Five folds by
actor, validation actors of their own. A few clips lack a video or sound: that modality is masked.

Why fusion could matter: raters recognise 58 % from the face, 41 % from the voice, 64 % from both. What would inflate
it: folds over clips, since an actor says each sentence in several emotions; the level in the name, since all neutral
clips are XX; and that actors pose in one studio. References, accuracy: raters as above; published networks on random
splits of clips are not comparable with folds by actor.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated

from fusionbench.api import Choice, Location, Task, UsageError

from . import _media as media
from ._acted import ActedEmotions, Clip
from ._people import age_band

EMOTIONS = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
SENTENCES = ("IEO", "TIE", "IOM", "IWW", "TAI", "MTI", "IWL", "ITH", "DFA", "ITS", "TSI", "WSI")
LEVELS = ("LO", "MD", "HI", "XX", "X")
NAME = re.compile(r"(\d{4})_([A-Z]{3})_([A-Z]{3})_([A-Z]{1,2})")
PEOPLE = "VideoDemographics.csv"
BANDS = (30, 45, 60)


class CremaD(ActedEmotions):
    home = "crema_d"
    licence = "Open Database License 1.0 (contents: Database Contents License 1.0)"
    source = "https://github.com/CheyneyComputerScience/CREMA-D"
    citation = (
        "Cao, Cooper, Keutmann, Gur, Nenkova and Verma, CREMA-D: Crowd-sourced Emotional Multimodal Actors "
        "Dataset, IEEE Transactions on Affective Computing 5(4):377-390, 2014"
    )
    caveats = (
        "folds over clips: an actor says each sentence in several emotions",
        "the names of the clips hold emotion and level; all neutral clips have one level",
    )
    folds = 5
    task = Task("classify", len(EMOTIONS), ("accuracy", "macro_f1"))
    classes = ("anger", "disgust", "fear", "happiness", "neutral", "sadness")

    def __init__(
        self,
        *,
        root: Annotated[str, Location, "the folder that holds VideoFlash, AudioWAV and VideoDemographics.csv"] = "",
        size: Annotated[int, Choice(112), "side of a frame, pixels: its centre square, scaled"] = 112,
        audio_rate: Annotated[int, Choice(16000, 44100), "sampling rate of the voice, Hz"] = 16000,
        skip_bad: Annotated[bool, "leave clips with broken files out instead of stopping"] = False,
    ) -> None:
        super().__init__(root, size, audio_rate, skip_bad)

    def clips(self) -> Iterator[Clip | str]:
        people = _people(self.root / PEOPLE) if (self.root / PEOPLE).is_file() else {}
        videos = {path.stem: path for path in (self.root / "VideoFlash").glob("*.flv")}
        sounds = {path.stem: path for path in (self.root / "AudioWAV").glob("*.wav")}
        for name in sorted(videos.keys() | sounds.keys()):
            video, sound = videos.get(name), sounds.get(name)
            wrong = _wrong(name, people)
            if wrong:
                yield f"{video or sound}: {wrong}"
                continue
            actor, _, emotion, _ = name.split("_")
            about = people[actor]
            yield Clip(name, f"{actor}_{about['sex']}", about, EMOTIONS.index(emotion), video, sound)


def _wrong(name: str, people: Collection[str]) -> str:
    """What is wrong with a file's name; empty if nothing."""
    found = NAME.fullmatch(name)
    actor, sentence, emotion, level = found.groups() if found else ("", "", "", "")
    if sentence not in SENTENCES or emotion not in EMOTIONS or level not in LEVELS:
        return "its name is not <actor>_<sentence>_<emotion>_<level>, as in 1001_DFA_ANG_XX"
    if emotion == "NEU" and level in ("LO", "MD", "HI"):
        return f"neutral has no level, not {level}"
    return "" if actor in people else f"{PEOPLE} has no actor {actor}"


def _people(path: Path) -> dict[str, dict[str, str]]:
    """Actor -> sex, age band, race and ethnicity; the last three are empty where the table does not say."""
    header, lines = media.table(path, ",")
    if "ActorID" not in header or "Sex" not in header:
        raise UsageError(f"{path}: there is no column ActorID or Sex; the columns are {', '.join(header)}")
    people = {}
    for line, cells in lines:
        row = dict(zip(header, cells, strict=False))
        if row.get("Sex") not in ("Male", "Female"):
            raise UsageError(f"{path}, line {line}: Sex is Male or Female, not {row.get('Sex')!r}")
        age = row.get("Age", "")
        people[row["ActorID"]] = {
            "sex": row["Sex"].lower(),
            "age": age_band(float(age), BANDS) if age.isdecimal() else "",
            "race": _known(row.get("Race", "")),
            "ethnicity": _known(row.get("Ethnicity", "")),
        }
    return people


def _known(text: str) -> str:
    return "" if text.lower() in ("?", "unknown") else text

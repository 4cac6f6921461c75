"""Which of six aircraft handling signals? Left and right arm, tracked by a camera: an exhibit, in no headline.

Data: NATOPS (Song, Demirdjian and Davis, FG 2011) as the UEA archive holds it (Bagnall et al., arXiv 1811.00075, 2018),
`NATOPS_TRAIN.ts` and `NATOPS_TEST.ts`: 180 and 180 cases of 51 frames of hand tip, elbow, wrist and thumb of each arm.

Why fusion could matter: most signals are made with both arms, some with one. What inflates it: **no person ids**. The
archive does not say who is who, so the same people may train and test, and no interval here is over people: it shows
that a board can look like any other without saying anything about new people.
"""

from __future__ import annotations

from fusionbench.api import Task

from ._uea import Uea

#: hand tip, elbow, wrist and thumb: left and right take turns, three coordinates each
LEFT = tuple(3 * part + axis for part in (0, 2, 4, 6) for axis in range(3))


class Natops(Uea):
    name, file, length, step = "natops", "NATOPS", 51, 3
    dimensions = {"left": LEFT, "right": tuple(d + 3 for d in LEFT)}
    shapes = {"left": (36,), "right": (36,)}
    task = Task("classify", 6, ("accuracy", "macro_f1"))
    classes = ("I have command", "all clear", "not clear", "spread wings", "fold wings", "lock wings")
    seeds = 3
    steps = 150
    batch = 32
    interval = 15
    backbones = {m: ("tcn", {"kernel": 3, "depth": 2, "shorten": 2}) for m in shapes}  # 17 steps -> 9
    licence = "free for research (UEA archive)"
    source = "https://www.timeseriesclassification.com"
    citation = (
        "Song, Demirdjian and Davis, Tracking Body and Hands for Gesture Recognition: NATOPS Aircraft Handling "
        "Signals Database, FG 2011; Bagnall et al., The UEA multivariate time series classification archive, "
        "2018, arXiv 1811.00075"
    )
    caveats = ("nobody says who is who: the same people may train and test",)
    corruptions = ("missing:left", "missing:right", "noise:left", "noise:right", "noise:all", "gap:all")

"""Which stroke of badminton or squash? A smart-watch's accelerometer and gyroscope: an exhibit, in no headline.

Data: RacketSports of the UEA archive (Bagnall et al., arXiv 1811.00075, 2018), `RacketSports_TRAIN.ts` and
`RacketSports_TEST.ts`: 151 and 152 cases of 3 s at 10 Hz. No checksum of these files was at hand: `data get` says so.

Why fusion could matter: a stroke is a blow and a turn of the wrist. What inflates it: **no person ids**. The archive
does not say who is who, so the same players may train and test, and no interval here is over people. References,
logistic regression on statistics and spectra, macro-F1: .80 accelerometer, .79 gyroscope, .84 together.
"""

from __future__ import annotations

from fusionbench.api import Task

from ._uea import Uea


class Racketsports(Uea):
    name, file, length, step = "racketsports", "RacketSports", 30, 3
    dimensions = {"acc": (0, 1, 2), "gyro": (3, 4, 5)}
    shapes = {"acc": (9,), "gyro": (9,)}
    rates = {"acc": 10 / 3, "gyro": 10 / 3}
    task = Task("classify", 4, ("macro_f1", "accuracy"))
    classes = ("badminton clear", "badminton smash", "squash backhand boast", "squash forehand boast")
    seeds = 3
    steps = 150
    batch = 32
    interval = 15
    backbones = {m: ("tcn", {"kernel": 3, "depth": 2, "shorten": 2}) for m in shapes}  # 10 steps -> 5
    licence = "free for research (UEA archive)"
    source = "https://www.timeseriesclassification.com"
    citation = "Bagnall et al., The UEA multivariate time series classification archive, 2018, arXiv 1811.00075"
    caveats = ("nobody says who is who: the same players may train and test",)
    corruptions = ("missing:acc", "missing:gyro", "noise:acc", "noise:gyro", "noise:all", "gap:all")

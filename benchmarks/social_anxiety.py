"""Anxious before a speech, or at rest? Wrist signals of 12 people, by person: an exhibit of a leak, in no headline.

Data: Shaukat-Jali, van Zalk and Boyle, JMIR Formative Research 5(10):e32656, 2021, the repository
rs2416/Detecting_Social_Anxiety (MIT), experiment 1: heart rate, skin temperature and skin conductance at 4 Hz of a
baseline and then of a speech. Windows of 20 rows (5 s). Leave one person out, two others validate.

Why fusion could matter: three signals of one arousal, each with faults of its own. What inflates it: the authors' folds
are shuffled (`social_anxiety_subject_dependent`), so a window's neighbours of the same person and minute are in
training; and the baseline always comes first, so that anything that drifts tells the class. References, random forest,
macro-F1: shuffled ten folds .984, leave one person out .688, .847 where people are scaled by their own test recordings.
"""

from __future__ import annotations

from fusionbench.api import Batch, Splits, group_folds

from ._social_anxiety import PEOPLE, SocialAnxietyWindows


class SocialAnxiety(SocialAnxietyWindows):
    folds = PEOPLE

    def splits(self, data: Batch, fold: int) -> Splits:
        return group_folds(data.groups, self.folds, fold)

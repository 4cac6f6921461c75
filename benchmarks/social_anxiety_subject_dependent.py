"""The social-anxiety data on shuffled folds, as their authors report: every person stands on both sides of the split.

Ten folds over shuffled windows; a tenth of the others validates. A score here says how well windows of five seconds
recognise their neighbours, not how well anxiety is found in a new person: see `social_anxiety`. Reference, random
forest, macro-F1: .984.
"""

from __future__ import annotations

import numpy as np

from fusionbench.api import Batch, Splits, keyed

from ._social_anxiety import SocialAnxietyWindows


class SocialAnxietySubjectDependent(SocialAnxietyWindows):
    folds = 10
    subject_dependent = "windows are shuffled: a person's windows are in training and in test"

    def splits(self, data: Batch, fold: int) -> Splits:
        order = np.array(sorted(range(len(data)), key=lambda i: keyed.number("shuffled", data.ids[i])))
        blocks = np.array_split(order, self.folds)
        test, val = blocks[fold], blocks[(fold + 1) % self.folds]
        return Splits(np.setdiff1d(order, np.concatenate([test, val])), np.sort(val), np.sort(test))

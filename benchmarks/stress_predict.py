"""Stress or rest? Wrist EDA, skin temperature, heart rate and acceleration of 34 people; training statistics only.

Data: Stress-Predict (Iqbal et al., Sensors 22(21):8135, 2022, MIT licence): 35 people wear an Empatica E4 through a
Stroop test, an interview and hyperventilation, with rest between; a binary label a second, 34 people labelled. Windows
of 60 s every 30 s, one label each (stress where more than half of the seconds are), in 12 steps of 5 s of mean, SD,
slope, least and greatest value. Five folds by person, validation people of their own. A third of the windows is stress.
"""

from __future__ import annotations

from ._stress_predict import WristStress


class StressPredict(WristStress):
    pass

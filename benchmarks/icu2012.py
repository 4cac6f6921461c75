"""Who dies in hospital? 48 hours in intensive care of 3,996 patients: irregular, and missing for a reason.

Data: set A of the PhysioNet/Computing in Cardiology Challenge 2012 (Silva et al., Computing in Cardiology 2012; Open
Data Commons Attribution), as published: `set-a/<RecordID>.txt` (Time,Parameter,Value) and `Outcomes-a.txt`. Of its
4,000 records four are left out, which the copy that the reference scores are of lacks (139060, 140501, 140936, 141264);
the kind of ward, which it lacks too, is no input. No checksum of the published records was at hand: `data get` says so.
Five folds of patients, validation patients of their own; a patient is one sample and so a group. 13.9 % die.

A modality (vitals, labs, blood gas and ventilation, neuro-renal) has a step for every two hours in which any of its
variables was measured, and one for those of admission. Channels: the time of the last measurement in hours; each
variable's last value, carried forward, as a distance from what is normal (0 before its first measurement; skewed ones
as logarithms; 5 at most); whether it was measured in this step; and the logarithm of 1 + how often so far. All but the
values are declared indicators. So what was never measured has real steps with flags of 0, and what a condition hides is
masked. Values that no patient can have (a temperature below 25 degrees) count as not measured.

Why fusion could matter: failing organs show in different modalities, and physicians weigh them together. What would
inflate it: how often somebody measured is a judgement of the staff, not of the body, and says much by itself; and the
scores and lengths of stay that stand beside the outcome. References, five random folds of patients, AUROC, logistic
regression on summaries: best single modality .785, late average .829, together .844; counts of measurements alone .727.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray

from fusionbench.api import Batch, Benchmark, Location, Splits, Stream, Task, UsageError, group_folds

from ._files import located
from ._people import age_band

OUTCOMES = "Outcomes-a.txt"
DEATH = "In-hospital_death"
LEFT_OUT = {139060, 140501, 140936, 141264}
HOURS, STEP, FARTHEST = 48, 120, 5.0  # of a record; minutes of a step; from what is normal
#: modality -> variable -> (normal, scale, least, greatest possible); scale 0: the logarithm of value over normal
VARIABLES = {
    "vitals": {
        "HR": (80, 20, 1, 300), "SysABP": (120, 20, 1, 300), "DiasABP": (70, 15, 1, 250), "MAP": (85, 15, 1, 300),
        "NISysABP": (120, 20, 1, 300), "NIDiasABP": (70, 15, 1, 250), "NIMAP": (85, 15, 1, 300),
        "Temp": (37, 1, 25, 45), "RespRate": (16, 5, 1, 100),
    },
    "labs": {
        "ALP": (80, 0, 1, 1e4), "ALT": (25, 0, 1, 5e4), "AST": (25, 0, 1, 5e4), "Albumin": (4, 1, 0.5, 8),
        "BUN": (15, 0, 1, 500), "Bilirubin": (0.7, 0, 0.05, 100), "Cholesterol": (170, 50, 10, 1000),
        "Creatinine": (1, 0, 0.05, 50), "Glucose": (110, 0, 5, 3000), "HCO3": (25, 5, 1, 80), "HCT": (40, 6, 5, 75),
        "K": (4.1, 0.6, 1, 15), "Lactate": (1.2, 0, 0.1, 50), "Mg": (2, 0.4, 0.2, 15), "Na": (140, 5, 80, 200),
        "Platelets": (250, 0, 1, 3000), "TroponinI": (0.1, 0, 0.01, 1000), "TroponinT": (0.02, 0, 0.005, 100),
        "WBC": (8, 0, 0.05, 500),
    },
    "gas": {
        "FiO2": (0.21, 0.3, 0.2, 1), "MechVent": (0, 1, 0, 1), "PaCO2": (40, 10, 5, 200), "PaO2": (95, 0, 10, 800),
        "SaO2": (97, 3, 10, 100), "pH": (7.4, 0.1, 6.5, 8),
    },
    "neuro": {"GCS": (15, 4, 3, 15), "Urine": (60, 0, 0.5, 5000)},
}  # fmt: skip
MODALITY = {variable: m for m, variables in VARIABLES.items() for variable in variables}
DEMOGRAPHICS = ("Age", "Gender", "Height", "Weight")
BANDS = (45, 65, 75)
SEXES = {0: "female", 1: "male"}
WARDS = {1: "coronary care", 2: "cardiac surgery recovery", 3: "medical", 4: "surgical"}

Rows = list[tuple[int, str, float]]  # (minute, variable, value)


class Icu2012(Benchmark):
    version = "1"
    domain = "intensive care"
    unit = "patient"
    margin = 0.01
    shapes = {**{m: (1 + 3 * len(v),) for m, v in VARIABLES.items()}, "demographics": (7,)}
    indicators = {
        **{m: (0, *range(1 + len(v), 1 + 3 * len(v))) for m, v in VARIABLES.items()},
        "demographics": (4, 5, 6),
    }
    task = Task("classify", 2, ("auroc", "auprc", "balanced_accuracy"))
    classes = ("survives", "dies")
    folds = 5
    seeds = 3
    steps = 200
    batch = 64
    interval = 20
    # The last step says all that is known by then; a mean over a network's steps dilutes it. AUROC of concat on the
    # validation patients of five folds, seed 0 (`chosen.validation` in the records): .838, with tcn .823.
    backbones = {m: ("latest", {}) for m in VARIABLES}
    licence = "Open Data Commons Attribution License 1.0"
    source = "https://physionet.org/content/challenge-2012/1.0.0/"
    citation = (
        "Silva, Moody, Scott, Celi and Mark, Predicting In-Hospital Mortality of ICU Patients: The "
        "PhysioNet/Computing in Cardiology Challenge 2012, Computing in Cardiology 39:245-248, 2012; Goldberger "
        "et al., PhysioBank, PhysioToolkit, and PhysioNet, Circulation 101(23):e215-e220, 2000"
    )
    caveats = (
        "how often somebody measured is a judgement of the staff: counts alone reach an AUROC of .727",
        "scores and lengths of stay that stand beside the outcome",
    )
    corruptions = (
        "missing:vitals",
        "missing:labs",
        "missing:gas",
        "missing:neuro",
        "missing:demographics",
        "noise:vitals",
        "noise:labs",
        "noise:all",
        "gap:all",
    )

    def __init__(
        self,
        *,
        root: Annotated[str, Location, "folder of set-a and Outcomes-a.txt; empty: where `data get` puts them"] = "",
        skip_bad: Annotated[bool, "leave out patients whose records are wrong, instead of stopping"] = False,
    ) -> None:
        self.root, self.skip_bad = root, skip_bad
        self.skipped: list[str] = []  # why each patient was left out, after load()

    def load(self) -> Batch:
        """3,996 patients: (N, 25, D) a modality, steps without a measurement left out; demographics (N, 1, 7)."""
        folder = located("icu2012", self.root, [OUTCOMES, "set-a"])
        self.skipped = []
        kept, labels, series, people = [], [], list[dict[str, NDArray[np.float64]]](), []
        attributes = list[dict[str, str]]()
        for record, death in _outcomes(folder / OUTCOMES):
            if record in LEFT_OUT:
                continue
            try:
                rows = _rows(folder / "set-a" / f"{record}.txt", record)
            except UsageError as error:
                if not self.skip_bad:
                    raise UsageError(f"{error} (--benchmark.skip_bad leaves it out)") from None
                self.skipped.append(str(error))
                continue
            kept.append(str(record))
            labels.append(death)
            series.append({m: _steps(rows[m], m) for m in VARIABLES})
            people.append(_demographics(rows[""]))
            attributes.append(_attributes(rows[""]))
        if not kept:
            raise UsageError(f"{folder}: no record can be read" + (f": {self.skipped[0]}" if self.skipped else ""))
        streams = {m: _padded([one[m] for one in series]) for m in VARIABLES}
        x = torch.from_numpy(np.stack(people)).float().unsqueeze(1)
        streams["demographics"] = Stream(x, torch.ones(x.shape[:2], dtype=torch.bool))
        y = torch.tensor(labels).unsqueeze(1)
        said = {name: [one[name] for one in attributes] for name in attributes[0]}
        return Batch(
            streams,
            y,
            torch.ones_like(y, dtype=torch.bool),
            kept,
            kept,
            attributes={name: texts for name, texts in said.items() if any(texts)},
        )

    def splits(self, data: Batch, fold: int) -> Splits:
        return group_folds(data.groups, self.folds, fold)


def _outcomes(path: Path) -> list[tuple[int, int]]:
    """(record, died in hospital) of every line."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = list(csv.DictReader(file))
    found = []
    for row, line in enumerate(lines, 2):
        record, death = line.get("RecordID") or "", line.get(DEATH) or ""
        if not record.isdecimal() or death not in ("0", "1"):
            raise UsageError(
                f"{path}, row {row}: RecordID is a number and {DEATH} 0 or 1, not {record!r} and {death!r}"
            )
        found.append((int(record), int(death)))
    return found


def _rows(path: Path, record: int) -> dict[str, Rows]:
    """Modality -> its measurements by time; what belongs to none, the record's number among it, under ""."""
    if not path.is_file():
        raise UsageError(f"there is no {path}")
    found: dict[str, Rows] = {m: [] for m in ("", *VARIABLES)}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if number == 1 or not line:
            continue
        try:
            time, variable, value = line.split(",")
            hour, _, minute = time.partition(":")
            row = 60 * int(hour) + int(minute), variable, float(value)
        except ValueError:
            raise UsageError(f"{path}, row {number}: expected hh:mm,name,number, not {line!r}") from None
        if not 0 <= row[0] <= 60 * HOURS:
            raise UsageError(f"{path}, row {number}: {time} is not within {HOURS} hours")
        found[MODALITY.get(variable, "")].append(row)
    if not any(variable == "RecordID" and value == record for _, variable, value in found[""]):
        raise UsageError(f"{path}: it is not the record {record}")
    return {m: sorted(rows, key=lambda row: row[0]) for m, rows in found.items()}


def _steps(rows: Rows, m: str) -> NDArray[np.float64]:
    """(steps with a measurement, 1 + 3 V): time, values, measured in this step, log(1 + how often so far)."""
    place = {variable: k for k, variable in enumerate(VARIABLES[m])}
    values, seen, counts = [0.0] * len(place), [0] * len(place), [0] * len(place)
    time, steps = 0, []
    for minute, variable, value in rows:
        normal, scale, least, greatest = VARIABLES[m][variable]
        if not least <= value <= greatest:
            continue
        if minute // STEP > time // STEP:
            steps.append([time / 60, *values, *seen, *counts])
            seen = [0] * len(place)
        k, time = place[variable], minute
        distance = (value - normal) / scale if scale else math.log(value / normal)
        values[k] = min(FARTHEST, max(-FARTHEST, distance))
        seen[k] = 1
        counts[k] += 1
    table = np.array([*steps, [time / 60, *values, *seen, *counts]])
    table[:, -len(place) :] = np.log1p(table[:, -len(place) :])
    return table


def _demographics(rows: Rows) -> NDArray[np.float64]:
    """(7,): age (90 at most: those above are hidden), sex, height, weight at admission; are the last three known?"""
    found = _admission(rows)
    age, sex, height, weight = (found.get(name, -1.0) for name in DEMOGRAPHICS)
    known = [sex >= 0, 50 <= height <= 250, 20 <= weight <= 400]
    measured = [sex - 0.5, (height - 170) / 10, (weight - 80) / 20]
    return np.array([(min(age, 90) - 65) / 15, *np.where(known, measured, 0), *known])


def _attributes(rows: Rows) -> dict[str, str]:
    """Sex, age band and kind of ward, empty where they are not known: for scores by subgroup, never an input."""
    found = _admission(rows)
    return {
        "sex": SEXES.get(int(found.get("Gender", -1)), ""),
        "age": age_band(found.get("Age", -1), BANDS),
        "ward": WARDS.get(int(found.get("ICUType", -1)), ""),
    }


def _admission(rows: Rows) -> dict[str, float]:
    """What was said at admission, the first value of each."""
    return {variable: value for minute, variable, value in reversed(rows) if minute == 0}


def _padded(series: list[NDArray[np.float64]]) -> Stream:
    longest = 60 * HOURS // STEP + 1
    x = np.zeros((len(series), longest, series[0].shape[1]))
    for row, steps in enumerate(series):
        x[row, : len(steps)] = steps
    mask = np.arange(longest) < np.array([len(steps) for steps in series])[:, None]
    return Stream(torch.from_numpy(x).float(), torch.from_numpy(mask))

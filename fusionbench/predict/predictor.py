"""A trained model that is asked about new samples, and its answers with how sure they are."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fusionbench.api import Batch, Source, Stream
from fusionbench.custom_data import files
from fusionbench.errors import UsageError
from fusionbench.harness.evaluate import Answering
from fusionbench.predict.calibration import Abstention, Calibration, mean_answer, probabilities
from fusionbench.predict.description import Description, known_groups
from fusionbench.predict.inputs import Inputs, present, read
from fusionbench.records import store
from fusionbench.text import counted

COVERAGE = 0.9
Columns = Mapping[str, Sequence[str] | str]


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers to n samples, S of each (1 for a clip).

    Attributes:
        ids: n names; labels: (n, S) classes, or (n, S, out) values.
        probabilities: (n, S, out), calibrated; None for values.
        sets: (n, S, out) bool, the classes that the set holds; intervals: (n, S, out, 2). None where not offered; every
            class, or from minus to plus infinity, where nothing is known of a sample's modalities.
        coverage: how often they hold the truth.
        missing: of each sample the modalities that it lacks.
    """

    ids: list[str]
    labels: np.ndarray
    classes: list[Any]
    probabilities: np.ndarray | None
    sets: np.ndarray | None
    intervals: np.ndarray | None
    coverage: float
    missing: list[tuple[str, ...]]

    def rows(self) -> list[dict[str, Any]]:
        """One row a sample, or one a frame."""
        found = []
        steps = self.labels.shape[1]
        for i, name in enumerate(self.ids):
            for s in range(steps):
                row: dict[str, Any] = {"id": name}
                if steps > 1:
                    row["frame"] = s
                row |= self._classified(i, s) if self.probabilities is not None else self._values(i, s)
                found.append({**row, "missing": "+".join(self.missing[i])})
        return found

    def _classified(self, i: int, s: int) -> dict[str, Any]:
        assert self.probabilities is not None
        p = self.probabilities[i, s]
        row = {"answer": self.labels[i, s], "confidence": round(float(p.max()), 4)}
        row |= {f"p_{c}": round(float(v), 4) for c, v in zip(self.classes, p, strict=True)}
        if self.sets is not None:
            row["set"] = "|".join(str(c) for c, inside in zip(self.classes, self.sets[i, s], strict=True) if inside)
        return row

    def _values(self, i: int, s: int) -> dict[str, Any]:
        row = {}
        for k, value in enumerate(self.labels[i, s]):
            end = f"_{k}" if self.labels.shape[2] > 1 else ""
            row[f"answer{end}"] = float(f"{value:.6g}")
            if self.intervals is not None:
                low, high = self.intervals[i, s, k]
                row |= {f"low{end}": float(f"{low:.6g}"), f"high{end}": float(f"{high:.6g}")}
        return row

    def to_frame(self) -> Any:
        """The rows as a pandas table."""
        import pandas

        return pandas.DataFrame(self.rows())

    def write(self, path: Path | str) -> None:
        """The rows as a .csv file, whole or not at all.

        Raises:
            UsageError: it cannot be written.
        """
        rows, text = self.rows(), io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        try:
            store.write(Path(path), lambda file: file.write(text.getvalue().encode()))
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror or error}") from None

    def __repr__(self) -> str:
        return f"Answers to {counted(len(self.ids), 'sample')}: .labels, .probabilities, .to_frame(), .write(path)"


class Predictor:
    """One trained model, or several whose answers are averaged; `fusionbench.load_model` makes one.

    Attributes:
        description: what it is; members: what answers; calibration: how sure that is.
        folds: the models of each fold, which sets and intervals rest on; made when they are first asked.
    """

    def __init__(
        self, description: Description, members: Sequence[Answering], calibration: Calibration,
        folds: Callable[[], Sequence[Sequence[Answering]]], device: torch.device,
    ) -> None:  # fmt: skip
        self.description, self.members, self.calibration, self.device = description, members, calibration, device
        self._folds = folds
        numbers = [files.whole(c) for c in description.classes]
        named = description.classes if None in numbers else numbers
        self.classes: list[Any] = list(named) or list(range(description.out))

    @cached_property
    def folds(self) -> Sequence[Sequence[Answering]]:
        return self._folds()

    @property
    def modalities(self) -> list[str]:
        return list(self.description.modalities)

    def predict(self, data: Any, columns: Columns | None = None) -> np.ndarray:
        """Classes (N,), or values (N,) or (N, out); per frame with an axis more after the first.

        Args:
            data: whatever `fusionbench.predict.inputs.read` takes; a modality that is left out counts as missing.
            columns: of a data frame, modality -> names or patterns of its columns.

        Raises:
            UsageError: the data are not of this model's modalities and widths.
        """
        found = self._labels(self._mean(self._asked(data, columns)[1]))
        found = found if self.description.per_frame else found[:, 0]
        single = self.description.kind == "regress" and self.description.out == 1
        return found[..., 0] if single else found

    def predict_proba(self, data: Any, columns: Columns | None = None) -> np.ndarray:
        """(N, classes) calibrated probabilities; per frame (N, S, classes).

        Raises:
            UsageError: as `predict`; it answers values, not classes.
        """
        if self.description.kind != "classify":
            raise UsageError(f"{self.description.fuser} answers values here: probabilities are of classes")
        found = self._probabilities(self._mean(self._asked(data, columns)[1]))
        return found if self.description.per_frame else found[:, 0]

    def answers(self, data: Any, columns: Columns | None = None, coverage: float = COVERAGE) -> Answers:
        """Answers with probabilities and, where there are groups enough, sets or intervals of that coverage.

        Raises:
            UsageError: as `predict`; the coverage is no share.
        """
        if not 0.5 <= coverage < 1:
            raise UsageError(f"a coverage lies from .5 to below 1, not {coverage}")
        inputs, batch = self._asked(data, columns)
        there, logits = present(inputs.streams), self._mean(batch)
        missing = [tuple(m for m, has in zip(self.modalities, row, strict=True) if not has) for row in there]
        bounded = None if self.calibration.refusal() else self._bounded(there, batch, coverage)
        labels = self._labels(logits)
        if self.description.kind == "classify":
            return Answers(
                inputs.ids, labels, self.classes, self._probabilities(logits), bounded, None, coverage, missing
            )
        return Answers(inputs.ids, labels, [], None, None, bounded, coverage, missing)

    def _labels(self, logits: np.ndarray) -> np.ndarray:
        return np.array(self.classes)[logits.argmax(-1)] if self.description.kind == "classify" else logits

    def _probabilities(self, logits: np.ndarray) -> np.ndarray:
        return probabilities(logits, self.calibration.temperature)

    def _bounded(self, there: np.ndarray, batch: Batch, coverage: float) -> np.ndarray:
        """(n, S, out) sets, or (n, S, out, 2) intervals; every class, or all values, where nothing is known."""
        task = self.description.task
        answers = np.stack([mean_answer(task, [m.answer(batch) for m in fold]) for fold in self.folds])
        classes = task.kind == "classify"
        if classes:
            bounded = np.ones(answers.shape[1:], dtype=bool)
        else:
            bounded = np.broadcast_to(np.array([-np.inf, np.inf]), (*answers.shape[1:], 2)).copy()
        for pattern in np.unique(there, axis=0):
            names = [m for m, has in zip(self.modalities, pattern, strict=True) if has]
            rows = np.flatnonzero((there == pattern).all(1))
            bound = self.calibration.sets if classes else self.calibration.intervals
            found = bound(names, answers[:, rows], coverage)
            if found is not None:
                bounded[rows] = found
        return bounded

    def abstention(self) -> list[Abstention]:
        """The score if only the surest answers are given, on groups that had not been seen; empty for values."""
        return self.calibration.abstention()

    def _asked(self, data: Any, columns: Columns | None) -> tuple[Inputs, Batch]:
        """The samples as they came and as the trained part sees them; groups that were in training are named so."""
        known = self.description
        inputs = read(data, known.expected, columns, known.unused)
        if met := known_groups(inputs.groups, known.groups):
            everyone = counted(len(set(inputs.groups)), known.unit)
            warnings.warn(
                f"{len(met)} of {everyone} were in training: answers about them are better than about new ones",
                stacklevel=4,
            )
        n, steps = len(inputs), self._clock(inputs.streams)
        y = torch.zeros(n, steps, dtype=torch.long) if known.kind == "classify" else torch.zeros(n, steps, known.out)
        streams = known.encoded(inputs.streams, inputs.ids, self.device)
        return inputs, Batch(streams, y, torch.zeros(n, steps, dtype=torch.bool)).to(self.device)

    def _mean(self, batch: Batch) -> np.ndarray:
        """(n, S, out) log-probabilities or values, averaged over the members."""
        return mean_answer(self.description.task, [member.answer(batch) for member in self.members])

    def _clock(self, streams: Mapping[str, Stream | Source]) -> int:
        """Answers a sample: 1, or per frame as many as the steps that came in stand for."""
        if not self.description.per_frame:
            return 1
        expected = self.description.expected
        longest = max(streams, key=lambda m: streams[m].shape[0] / expected[m].steps)
        return max(1, round(streams[longest].shape[0] * self.description.clock / expected[longest].steps))

    def summary(self) -> list[str]:
        """What it is, what it has been shown to score, what its sets cover and what they do not: a line each."""
        from fusionbench import metrics, text

        known = self.description
        lines = [known.note] if known.note else []
        if known.unused:
            used, unused = text.listed(self.modalities), text.listed(known.unused)
            lines.append(f"uses {used} alone and ignores {unused}, which an input may have")
        for name, found in list(known.scores.items())[:1]:
            percent, score = metrics.get(name).percent, found["score"]
            low, high = found.get("low"), found.get("high")
            if score is not None:
                spelled = text.score(score, percent) + (" %" if percent else "")
                bounds = (
                    "" if low is None or high is None else f" [{text.score(low, percent)}, {text.score(high, percent)}]"
                )
                unseen = text.plural(known.unit)
                lines.append(f"{name} {spelled}{bounds} on {unseen} that the folds' models had not seen")
        lines.append(self.calibration.refusal() or _PROMISE.format(unit=known.unit))
        return lines

    def __repr__(self) -> str:
        known = self.description
        models = counted(len(self.members), "model")
        return f"Predictor of {known.fuser} trained on {known.benchmark} ({', '.join(self.modalities)}; {models})"


_PROMISE = (
    "sets and intervals hold the truth of 9 in 10 new samples of a new {unit}, whichever modalities are there; not "
    "under damage that no mask announces"
)

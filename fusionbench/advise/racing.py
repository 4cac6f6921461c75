"""Successive halving over steps, inner folds and seeds, on validation groups only."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fusionbench.advise.candidates import Candidate, Entrant
from fusionbench.advise.ledger import Ledger
from fusionbench.advise.schedule import (
    FINAL_FUSED,
    FINAL_SINGLE,
    INNER,
    LOOK_FOLDS,
    LOOK_SHARE,
    Schedule,
    survivors,
)
from fusionbench.advise.trial import Case, Trial, train
from fusionbench.api import PROTOCOL, Batch, group_folds
from fusionbench.errors import UsageError
from fusionbench.records import plain
from fusionbench.stats import Cell

#: The rungs by name, as tables say how far a candidate has come.
LOOK, SCORED, FINAL = "first look", "all inner folds", "all seeds"


@dataclass(eq=False)
class Standing:
    """How far a candidate has come.

    Attributes:
        rung: the last that it was trained on; score: its mean validation score there, higher better.
        option: what validation chose for it; steps: after how many, on the mean over inner folds and seeds.
        seconds: of one training, on the mean; error: why it left, if it could not be trained.
        cells: its answers to the validation samples of the last rung.
    """

    candidate: Candidate
    rung: str = LOOK
    score: float = -np.inf
    option: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 0
    seconds: float = 0.0
    error: str = ""
    cells: list[Cell] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Race:
    """What came of one race: every candidate, the best first of those that came furthest.

    Attributes:
        cut: the time had gone before the finalists had all their seeds.
    """

    standings: list[Standing]
    cut: bool = False

    def best(self, single: bool) -> Standing | None:
        """The best finalist of those that fuse, or of the single ones; None if there is none."""
        same = [s for s in self.standings if s.candidate.is_single == single and s.rung == FINAL]
        return max(same, key=lambda s: s.score, default=None)

    @property
    def winner(self) -> Standing:
        return self.standings[0]


def race(
    entrants: Sequence[Entrant],
    data: Batch,
    rows: np.ndarray,
    schedule: Schedule,
    ledger: Ledger,
    left: Callable[[], float] = lambda: np.inf,
) -> Race:
    """Races the candidates on these rows, and reads no others.

    Args:
        left: seconds that the race may still take; finalists get no further seed where it would not be enough.

    Raises:
        UsageError: there are too few groups for inner folds, or nothing can be trained.
    """
    inside = inner_splits(data, rows)
    by_candidate = {entrant.candidate: entrant for entrant in entrants}
    track = _Track(by_candidate, data, inside, ledger)
    standings = {c: Standing(c) for c in schedule.raced}
    for standing in standings.values():
        track.run(standing, LOOK, by_candidate[standing.candidate].options, range(min(LOOK_FOLDS, len(inside))), [0])
    alive = [s for kind in ("network", "classical", "single") for s in _better_half(standings.values(), kind)]
    for standing in alive:
        track.run(standing, SCORED, [standing.option], range(len(inside)), [0])
    finalists = _finalists(alive)
    if not finalists:
        reasons = "; ".join(sorted({s.error for s in standings.values() if s.error}))
        raise UsageError(f"no candidate could be trained: {reasons or 'the metric is undefined on validation'}")
    cut = False
    for seeds in range(1, schedule.seeds + 1):
        began = time.monotonic()
        for standing in finalists:
            track.run(standing, FINAL, [standing.option], range(len(inside)), range(seeds))
        if seeds < schedule.seeds and 1.2 * (time.monotonic() - began) > left() and seeds > 1:
            cut = True
            break
    rungs = (FINAL, SCORED, LOOK)
    return Race(sorted(standings.values(), key=lambda s: (rungs.index(s.rung), -s.score)), cut)


def inner_splits(data: Batch, rows: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """(training, validation) of each inner fold, positions in the data; each group validates once.

    Raises:
        UsageError: there are too few groups.
    """
    groups = [data.groups[i] for i in rows]
    folds = min(INNER, len(set(groups)))
    if folds < 3:
        raise UsageError(f"a race needs 3 groups to train and validate on; there are {len(set(groups))}")
    cuts = [group_folds(groups, folds, number) for number in range(folds)]
    return [(rows[np.sort(np.concatenate([cut.train, cut.val]))], rows[cut.test]) for cut in cuts]


@dataclass(eq=False)
class _Track:
    """Trains what a rung asks for, unless the ledger has it."""

    entrants: Mapping[Candidate, Entrant]
    data: Batch
    inside: Sequence[tuple[np.ndarray, np.ndarray]]
    ledger: Ledger

    def run(
        self, standing: Standing, rung: str, options: Sequence[Mapping[str, Any]], folds: range, seeds: Sequence[int]
    ) -> None:
        """Brings a standing to a rung, the best of the options chosen; one that fails leaves with its reason."""
        entrant = self.entrants[standing.candidate]
        share = LOOK_SHARE if rung == LOOK and standing.candidate.is_network else 1.0
        cases = [Case(*self.inside[fold], seed, option) for option in options for seed in seeds for fold in folds]
        try:
            trials = self._obtain(entrant, cases, share)
        except (Exception, SystemExit) as error:  # a method may raise anything at all; the others go on
            standing.error = f"{standing.candidate.name}: {str(error).splitlines()[0] if str(error) else error!r}"
            standing.score = -np.inf
            return
        best = -np.inf
        for number, option in enumerate(options):
            each = len(cases) // len(options)
            own = slice(number * each, (number + 1) * each)
            if any(not np.isfinite(trial.scores).any() for trial in trials[own]):
                continue
            curves = np.mean([trial.scores for trial in trials[own]], axis=0)  # over folds and seeds, step by step
            if np.isfinite(curves).any() and np.nanmax(curves) > best:
                step = int(np.nanargmax(curves))
                best = float(curves[step])
                standing.option, standing.steps = option, int(trials[own][0].steps[step])
                standing.cells = [self._cell(case, trial) for case, trial in zip(cases[own], trials[own], strict=True)]
        if best == -np.inf:
            standing.error = f"{standing.candidate.name}: no choice of settings could be trained in every inner fold"
        standing.rung, standing.score = rung, best
        standing.seconds = float(np.mean([trial.seconds for trial in trials]))

    def _obtain(self, entrant: Entrant, cases: Sequence[Case], share: float) -> list[Trial]:
        keys = [self._key(entrant, case, share) for case in cases]
        kept = {n: _unpacked(found) for n, key in enumerate(keys) if (found := self.ledger.get(key)) is not None}
        absent = [n for n in range(len(cases)) if n not in kept]
        if absent:
            for n, trial in zip(absent, train(entrant, self.data, [cases[n] for n in absent], share), strict=True):
                self.ledger.put(keys[n], _packed(trial))
                kept[n] = trial
        return [kept[n] for n in range(len(cases))]

    def _key(self, entrant: Entrant, case: Case, share: float) -> Any:
        setup = entrant.setup
        what = [
            PROTOCOL,
            setup.digest,
            dict(setup.code),
            setup.hparams,
            entrant.candidate.modalities,
            dict(case.option),
        ]
        return plain([*what, _rows(case.train), _rows(case.val), case.seed, round(share, 6)])

    def _cell(self, case: Case, trial: Trial) -> Cell:
        number = next(n for n, (_, val) in enumerate(self.inside) if val is case.val)
        y, y_mask = self.data.y[case.val].cpu().numpy(), self.data.y_mask[case.val].cpu().numpy()
        groups = np.array([self.data.groups[i] for i in case.val])
        return Cell(case.seed, number, groups, trial.answers, y, y_mask)


def _rows(index: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(index, dtype=np.int64).tobytes()).hexdigest()[:16]


def _packed(trial: Trial) -> dict[str, np.ndarray]:
    return {"steps": trial.steps, "scores": trial.scores, "answers": trial.answers, "seconds": np.array(trial.seconds)}


def _unpacked(arrays: Mapping[str, np.ndarray]) -> Trial:
    return Trial(arrays["steps"], arrays["scores"], arrays["answers"], float(arrays["seconds"]))


def _better_half(standings: Any, kind: str) -> list[Standing]:
    same = [s for s in standings if s.candidate.kind == kind]
    valid = sorted((s for s in same if np.isfinite(s.score)), key=lambda s: -s.score)
    return valid[: survivors(len(same))]


def _finalists(alive: Sequence[Standing]) -> list[Standing]:
    """The best that fuse, and the best single one."""
    valid = sorted((s for s in alive if np.isfinite(s.score)), key=lambda s: -s.score)
    fused = [s for s in valid if not s.candidate.is_single]
    return fused[:FINAL_FUSED] + [s for s in valid if s.candidate.is_single][:FINAL_SINGLE]

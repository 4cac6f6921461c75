"""From an advice to a model for use: the command that trains its winner on everything, and that training itself."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusionbench import hparams, predict, registry
from fusionbench.advise.candidates import Entrant
from fusionbench.errors import UsageError
from fusionbench.records.rows import ALONE, ALONE_FOREST, ANCHOR, MODALITY, REFERENCE
from fusionbench.text import counted, duration

if TYPE_CHECKING:
    from fusionbench.advise.outcome import Advice

#: Fusers that, given one modality, are the same pipeline as another fuser that looks at one of several.
_ALONE = {REFERENCE: ALONE, ANCHOR: ALONE_FOREST}
#: The setting of a benchmark that says which of its modalities are used.
_USED = "modalities"


@dataclass(frozen=True)
class Command:
    """`fusionbench fit` of one candidate, as values.

    Attributes:
        target: the benchmark as the user named it; given: part -> hyper-parameter -> value.
        folds: on which settings are chosen and answers calibrated; options: that are tried in each.
        seconds: of one training, as the race measured it.
    """

    fuser: str
    target: str
    given: Mapping[str, Mapping[str, Any]]
    folds: int
    options: int
    seconds: float

    def spelled(self, out: str = "model") -> str:
        """As it is typed."""
        flags = [
            w for part, values in self.given.items() for n, v in values.items() for w in (f"--{part}.{n}", _text(v))
        ]
        return shlex.join(["fusionbench", "fit", self.fuser, self.target, *flags, "--out", out])

    def lasts(self, jobs: int) -> float:
        """About how many seconds it takes: every option in every fold, by so many processes, then everything."""
        return (math.ceil(self.folds / jobs) * self.options + 1) * self.seconds


def command(entrant: Entrant, seconds: float) -> Command | None:
    """The command that trains a candidate for use; None where its pipeline cannot be asked for by a command.

    A single modality is a setting of own data (and of the benchmarks that have it); elsewhere two fusers look at one.
    """
    setup, candidate = entrant.setup, entrant.candidate
    fuser, given = candidate.fuser, {part: dict(v) for part, v in (setup.arguments["given"] or {}).items()}
    if candidate.is_single:
        (modality,) = candidate.modalities
        if _USED in hparams.read(type(setup.benchmark)):
            given["benchmark"] = {**given.get("benchmark", {}), _USED: modality}
        elif fuser in _ALONE:
            fuser, given["fuser"] = _ALONE[fuser], {MODALITY: modality}
        else:
            return None
    return Command(fuser, setup.arguments["benchmark"], given, setup.benchmark.folds, len(entrant.options), seconds)


def refusal(advice: Advice) -> str | None:
    """Why there is no model for use of this advice; None where there is one."""
    if advice.above_chance.decision != "better":
        return "nothing beats chance here, so no model is trained"
    if advice.command is None:
        return (
            f"no command trains {advice.winner}, since {advice.benchmark} is always read with all its modalities: save "
            f"{advice.uses[0]} as an .npz file of your own"
        )
    return None


def fit(
    advice: Advice,
    out: Path | str,
    *,
    results: Path | str = "results",
    jobs: int | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> predict.Predictor:
    """The winner trained on everything, as a folder that `predict` takes; as `fusionbench fit` does it.

    Learning rate and steps (or the settings of an estimator) are chosen once more, on the folds of the data, which also
    calibrate the answers. None of it is part of the minutes of the race.

    Args:
        out: the folder; results: where the folds' runs are kept.

    Raises:
        UsageError: nothing beats chance, no command trains the winner, or as `fusionbench.predict.fit`.
    """
    import joblib

    reason = refusal(advice)
    if reason is not None or advice.command is None:
        raise UsageError(f"{advice.benchmark}: {reason}")
    chosen = advice.command
    lasts = chosen.lasts(min(jobs or joblib.cpu_count(), chosen.folds))
    say(
        f"{advice.winner} is trained for use, beyond the minutes of the race: {counted(chosen.folds, 'fold')} with "
        f"{counted(chosen.options, 'choice')} of settings, then everything, about {duration(lasts)}"
    )
    return predict.fit(
        chosen.fuser, chosen.target, out, results=results, given=chosen.given, jobs=jobs, track=False, say=say
    )


def use(advice: Advice, out: str) -> str:
    """How the model in a folder is asked."""
    words = ["fusionbench", "predict", out, "--input", "new.npz", "--out", "answers.csv"]
    return shlex.join([*words, *(["--fuser", advice.fuser] if registry.is_path(advice.fuser) else [])])


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

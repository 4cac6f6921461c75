"""An Optuna study that survives its process: opened, continued, the trials of killed workers waiting again."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from fusionbench.api import keyed
from fusionbench.errors import UsageError
from fusionbench.search.space import SCALARS

SAMPLERS = ("tpe", "random", "gp")
HEARTBEAT = 60  # seconds; a trial of a shared storage is taken for dead after twice that


@contextmanager
def opened(
    folder: Path, storage: str | None, name: str, made: Mapping[str, str], validations: int
) -> Iterator[tuple[Any, bool]]:
    """The study of that name, new or continued, and whether it is this process's alone.

    Args:
        folder: where its file is unless `storage` is the URL of a database.
        made: what its trials belong to; those of a study made otherwise cannot be continued.
        validations: of one training; with two or fewer nothing is pruned.
    """
    optuna = quiet_optuna()
    path = path_of(folder, name)
    with _owned(path) if storage is None else nullcontext():
        kept = _database(storage) if storage else _journal(path)
        # It looks at complete trials alone: one that was killed and tried again is pruned as if nothing had happened.
        median = optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=1)
        pruner = median if validations > 2 else optuna.pruners.NopPruner()
        study = optuna.create_study(
            study_name=name, storage=kept, direction="maximize", pruner=pruner, load_if_exists=True
        )
        then = study.user_attrs.get("made")
        if then is None:
            study.set_user_attr("made", made)
        elif changed := changes(then, made):
            out = "another storage, or delete the study from it" if storage else f"remove {path}"
            raise UsageError(f"the study {name!r} was made otherwise ({changed}): tune as then, or {out}")
        yield study, storage is None


def ask(study: Any, number: int, distributions: Mapping[str, Any], sampler: str, seed: int) -> list[Any]:
    """New trials; after the first, where none waits, others of its architecture.

    The sampler is seeded by the count of trials before this one, retries not counted: a resumed study draws what it
    would have drawn.
    """
    asked: list[Any] = []
    for _ in range(number):
        if asked and not waiting(study):
            study.enqueue_trial({n: v for n, v in asked[0].params.items() if n not in SCALARS})
        ordinal = _ordinal(study.get_trials(deepcopy=False))
        study.sampler = _sampler(sampler, keyed.number("tune", seed, ordinal) & 0x7FFFFFFF)
        asked.append(study.ask(dict(distributions)))
    return asked


def _ordinal(known: list[Any]) -> int:
    """How many trials come before the one that is asked next; a retry stands where the first attempt stood."""
    from optuna.trial import TrialState

    place = next((t.number for t in known if t.state == TrialState.WAITING), len(known))
    while place < len(known) and "retry_of" in known[place].user_attrs:
        place = known[place].user_attrs["retry_of"]
    return sum("retry_of" not in t.user_attrs for t in known[:place])


def requeue(study: Any, alone: bool, distributions: Mapping[str, Any]) -> None:
    """Trials of killed workers are marked failed, and their parameters wait again (once for each).

    One that was killed while its parameters were drawn has some of them: all are drawn again, or the others would be
    other ones than an undisturbed search draws.
    """
    optuna = quiet_optuna()
    state = optuna.trial.TrialState
    if alone:  # nobody else may hold this study: whatever runs is a leftover
        for trial in study.get_trials(deepcopy=False, states=(state.RUNNING,)):
            study.tell(trial.number, state=state.FAIL)
    else:
        optuna.storages.fail_stale_trials(study)
    known = study.get_trials(deepcopy=False)
    retried = {t.user_attrs.get("retry_of") for t in known}
    for trial in known:
        if trial.state == state.FAIL and trial.number not in retried:
            drawn = trial.params if trial.params.keys() >= distributions.keys() else {}
            params = {**trial.system_attrs.get("fixed_params", {}), **drawn}
            kept = {name: trial.user_attrs[name] for name in ("start",) if name in trial.user_attrs}
            study.enqueue_trial(params, user_attrs={**kept, "retry_of": trial.number})


def begin(study: Any, starts: list[dict[str, Any]], most: int) -> None:
    """Makes so many wait of the parameters that every search begins with, if they are not in the study; the first are
    the defaults.
    """
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    known = {t.user_attrs.get("start") for t in trials}
    fresh = [number for number in range(len(starts)) if number not in known]
    for number in fresh[: max(0, most - sum(t.state == TrialState.WAITING for t in trials))]:
        study.enqueue_trial(starts[number], user_attrs={"start": number})


def is_default(trial: Any) -> bool:
    """Are these the defaults? They are trial 0, or its retry."""
    return trial.user_attrs.get("start") == 0


def waiting(study: Any) -> bool:
    """Do any parameters wait to be tried?"""
    from optuna.trial import TrialState

    return any(t.state == TrialState.WAITING for t in study.get_trials(deepcopy=False))


def finished(study: Any) -> list[Any]:
    """The trials that count: complete, or pruned (with those that could not be trained)."""
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


@contextmanager
def heartbeat(study: Any, trials: list[Any]) -> Iterator[None]:
    """While a shared storage's trials train, it is told so; a file has one owner and needs no sign of life."""
    storage = study._storage
    if not hasattr(storage, "record_heartbeat"):
        yield
        return
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(HEARTBEAT):
            for trial in trials:
                storage.record_heartbeat(trial._trial_id)

    for trial in trials:
        storage.record_heartbeat(trial._trial_id)
    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def _owned(path: Path) -> Iterator[None]:
    """The study's file, made if need be, held by this process alone; a half-written last line is cut off."""
    from filelock import FileLock, Timeout

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab+")
    except OSError as error:
        raise UsageError(f"cannot write the study to {path}: {error.strerror or error}") from None
    lock = FileLock(path.with_name(f".{path.stem}.lock"), blocking=False)
    with file:
        try:
            lock.acquire()
        except Timeout:
            raise UsageError(f"{path} is in use by another `fusionbench tune`: wait for it") from None
        with lock:
            file.seek(0)
            content = file.read()
            if not content.endswith(b"\n"):
                file.truncate(content.rfind(b"\n") + 1)
            yield


def _journal(path: Path) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    class Owned:
        """The file is held as a whole; Optuna's own lock would outlive a killed process by half a minute."""

        def acquire(self) -> bool:
            return True

        def release(self) -> None:
            pass

    try:
        backend = JournalFileBackend(str(path), Owned())  # type: ignore[arg-type]
        return JournalStorage(backend)
    except Exception as error:  # whatever Optuna trips over in a line that somebody has edited
        why = f"{type(error).__name__}: {error}"
        raise UsageError(f"{path} is damaged ({why}): move it away to begin again") from None


def _database(url: str) -> Any:
    optuna = quiet_optuna()
    place = url.rpartition("@")[2] if "@" in url else url  # no password on the screen
    try:
        return optuna.storages.RDBStorage(url, heartbeat_interval=HEARTBEAT, grace_period=2 * HEARTBEAT)
    except Exception as error:  # whatever the database's driver raises
        why = str(error).replace(url, place).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(
            f"the storage {place} cannot be used ({why}): check the URL and that its server runs"
        ) from None


def _sampler(kind: str, seed: int) -> Any:
    optuna = quiet_optuna()
    if kind == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if kind == "gp":
        return optuna.samplers.GPSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)


def quiet_optuna() -> Any:
    """Optuna, quiet: imported where it is used, for it takes half a second."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    warnings.filterwarnings("ignore", message="Heartbeat of storage")  # ours beats beside ask and tell
    return optuna


def path_of(folder: Path, name: str) -> Path:
    """The file of a study."""
    return folder / f"{name.rpartition('/')[2]}.journal"


def changes(then: Mapping[str, str], now: Mapping[str, str], most: int = 3) -> str:
    """What differs, in words; empty if nothing does."""
    names = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    words = [f"{name} was {then.get(name, 'not there')}, is {now.get(name, 'not there')}" for name in names[:most]]
    return "; ".join([*words, *([f"and {len(names) - most} more"] if len(names) > most else [])])

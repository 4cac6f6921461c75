"""The queue on the workers of a Dask cluster, through joblib's own backend; asked first whether they can do it."""

from __future__ import annotations

import glob
import ipaddress
import os
import platform
import shutil
import socket
import uuid
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch

import fusionbench
from fusionbench.errors import UsageError
from fusionbench.jobs.local import work_there
from fusionbench.jobs.plan import Failure, Outcome, Plan, Running, cut, package, sized
from fusionbench.records import Record

SCHEMES = {"dask": "tcp", "dask+tls": "tls"}
PATIENCE = 10.0  # seconds for a scheduler to answer and for a first worker to be there


def on_cluster(
    plans: Sequence[Plan], results: Path, cluster: str, device: str, stack: int | None
) -> Iterator[Record | Failure | Running]:
    """Every record or failure when its cell is finished; a lost worker's cells are done by the others.

    Raises:
        UsageError: no scheduler answers, there is no worker, one cannot do the work, or the scheduler is lost.
    """
    import joblib
    from joblib._dask import DaskDistributedBackend

    class Backend(DaskDistributedBackend):
        def effective_n_jobs(self, n_jobs: int) -> int:
            return max(2, super().effective_n_jobs(n_jobs))  # for one worker, joblib would stay in this process

    def patient(dask_scheduler: Any) -> None:
        # Dask gives up a task that was with dying workers four times, if only in their queues, and joblib waits for it
        # for ever. `work_there` counts what was begun. (A nested function: the scheduler need not import this module.)
        dask_scheduler.allowed_failures = 1_000_000

    results = results.resolve()
    with connected(cluster) as client:
        folder = _notes(results)
        try:
            gpus = _asked(client, cluster, folder)
            where = torch.device("cuda" if gpus and not device.startswith("cpu") else "cpu")
            client.run_on_scheduler(patient)
            workers = len(client.nthreads())
            plans = [sized(plan, where, stack) for plan in plans]
            pairs = cut(plans, results, workers, where, device=device, folder=str(folder), package=package())
            queue = [job for job, _ in pairs]
            left = len(queue)
            pool = joblib.Parallel(
                -1, backend=Backend(client=client), return_as="generator_unordered", batch_size=1, pre_dispatch="all"
            )
            outcomes: Iterator[Outcome] = pool(joblib.delayed(work_there)(job) for job in queue)
            yield Running(min(left, len(client.nthreads())))
            for outcome in outcomes:
                left -= 1
                yield from outcome.events
                yield Running(min(left, len(client.nthreads())))
        except (CancelledError, OSError) as error:
            raise UsageError(
                f"the scheduler at {cluster} was lost ({_line(error)}): finished runs are on disk, start it again and "
                f"the same command goes on from there"
            ) from None
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _notes(results: Path) -> Path:
    """A new folder where workers note what they begin; those of commands of this machine that were killed go."""
    mine = f".jobs-{platform.node()}-"
    for folder in results.glob(f"{glob.escape(mine)}*"):
        process = folder.name.removeprefix(mine).partition("-")[0]
        if process.isdecimal() and not _lives(int(process)):
            shutil.rmtree(folder, ignore_errors=True)
    made = results / f"{mine}{os.getpid()}-{uuid.uuid4().hex[:8]}"
    made.mkdir(parents=True)
    return made


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


@contextmanager
def connected(cluster: str) -> Iterator[Any]:
    """A Dask client with at least one worker.

    Raises:
        UsageError: the address is of another form, Dask is not installed, no scheduler answers, or there is no worker.
    """
    address, port = address_of(cluster)
    try:
        from distributed import Client
    except ImportError:
        raise UsageError("--cluster needs Dask: python -m pip install 'mm-fusionbench[dask]'") from None

    class Connection(Client):
        def __init__(self) -> None:
            try:
                super().__init__(address, timeout=PATIENCE, set_as_default=False)
            except BaseException:
                self.status = "closed"  # otherwise its deletion tries for long to say good-bye
                raise

    try:
        # At once, where Dask itself would try again and again.
        socket.create_connection((str(urlsplit(address).hostname), port), PATIENCE).close()
        client = Connection()
    except (OSError, TypeError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"no Dask scheduler answers at {cluster} ({_line(error)}); start one: dask scheduler --host 127.0.0.1"
        ) from None
    with client:
        try:
            client.wait_for_workers(1, timeout=PATIENCE)
        except TimeoutError:
            raise UsageError(
                f"the scheduler at {cluster} has no workers; start one: dask worker {address} --nthreads 1"
            ) from None
        yield client


def address_of(cluster: str) -> tuple[str, int]:
    """Dask's own spelling of the address, and its port.

    Raises:
        UsageError: it is of another form.
    """
    try:
        parts = urlsplit(cluster)
        port = parts.port or 8786
        if parts.scheme not in SCHEMES or parts.path.strip("/"):
            raise ValueError
    except ValueError:
        raise UsageError(f"--cluster takes dask://host:port or dask+tls://host:port, not {cluster!r}") from None
    host = parts.hostname or "127.0.0.1"
    if parts.scheme == "dask" and not _loopback(host):
        warnings.warn(
            f"{cluster} has neither password nor encryption: whoever reaches it can run code as you; see dask+tls:// "
            f"in docs/cluster.md",
            stacklevel=2,
        )
    return f"{SCHEMES[parts.scheme]}://{f'[{host}]' if ':' in host else host}:{port}", port


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def ping(folder: str) -> dict[str, Any]:
    """What a worker says of itself: version, code, GPUs that it sees, and whether it can write the shared results."""
    return {
        "version": fusionbench.__version__,
        "code": package(),
        "gpus": torch.cuda.device_count(),
        "results": os.path.isdir(folder) and os.access(folder, os.W_OK),
    }


def _asked(client: Any, cluster: str, folder: Path) -> int:
    """Asks every worker (a task that one cannot import would hang for ever); the GPUs that each of them sees.

    Raises:
        UsageError: one has more than one thread, cannot import this package, has another state of it, or other results.
    """
    for worker, threads in client.nthreads().items():
        if threads != 1:
            raise UsageError(f"worker {worker} has {threads} threads: start workers with --nthreads 1, several a host")
    mine = {"version": fusionbench.__version__, "code": package()}
    answers = client.run(ping, str(folder), on_error="return")
    for worker, answer in answers.items():
        if isinstance(answer, BaseException):
            raise UsageError(f"worker {worker} cannot import fusionbench ({_line(answer)}): install it there")
        for what, wanted in mine.items():
            if answer[what] != wanted:
                raise UsageError(
                    f"worker {worker} has fusionbench of {what} {answer[what]}, this is {wanted}: install the same "
                    f"there and restart it"
                )
        if not answer["results"]:
            raise UsageError(
                f"worker {worker} cannot write to {folder.parent}: results must be a folder that every host sees under "
                f"the same path (--results)"
            )
    return min((answer["gpus"] for answer in answers.values()), default=0)


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].strip()

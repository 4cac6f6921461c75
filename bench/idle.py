"""How long does the GPU stand idle while a command runs?

    python bench/idle.py fusionbench compare concat jmt -b watch --seeds 5 --no-track

The driver says, for each short stretch of time, in which share of it a kernel ran (`utilization.gpu` of nvidia-smi);
idle is the rest, averaged from the first kernel to the last, since a start without a kernel is not the loop's fault;
it is printed beside.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence

QUERY = ("nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--id=0")
EVERY = 0.2  # seconds


def utilisation() -> float:
    """The share of the last stretch in which a kernel ran, 0 to 1."""
    return float(subprocess.run(QUERY, capture_output=True, text=True, check=True).stdout) / 100


def watched(command: Sequence[str], ask: Callable[[], float] = utilisation) -> tuple[int, float, list[float]]:
    """Exit status, seconds, and what `ask` said every so often while the command ran."""
    said: list[float] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(EVERY):
            said.append(ask())

    ask()  # what it says of the time before does not count
    thread = threading.Thread(target=look, daemon=True)
    began = time.monotonic()
    thread.start()
    try:
        status = subprocess.run(command, check=False).returncode
    finally:
        over.set()
        thread.join()
    return status, time.monotonic() - began, said


def idle(said: Sequence[float]) -> float | None:
    """The mean idle share from the first stretch with a kernel to the last; None if there was none."""
    busy = [number for number, share in enumerate(said) if share > 0]
    if not busy:
        return None
    within = said[busy[0] : busy[-1] + 1]
    return 1 - sum(within) / len(within)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", nargs=argparse.REMAINDER)
    command = parser.parse_args().command
    if not command:
        parser.error("which command?")
    try:
        utilisation()
    except (OSError, subprocess.CalledProcessError):
        sys.exit("nvidia-smi names no GPU here")
    try:
        status, seconds, said = watched(command)
    except OSError as error:
        sys.exit(f"{command[0]} cannot be run: {error.strerror}")
    share = idle(said)
    told = "no kernel ran" if share is None else f"idle {100 * share:.0f} % from the first kernel to the last"
    whole = "" if share is None else f", {100 * (1 - sum(said) / len(said)):.0f} % of the whole"
    print(f"{seconds:.0f} s, {len(said)} looks: {told}{whole}")
    sys.exit(status)


if __name__ == "__main__":
    main()

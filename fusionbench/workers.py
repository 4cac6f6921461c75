"""A worker process does not outlive its parent. Imports nothing heavy: it is the first thing that a worker does."""

import contextlib
import ctypes
import os
import signal
import threading
import time

PR_SET_PDEATHSIG = 1  # of Linux' prctl(2): the signal that a process gets when the thread that started it ends


def follow(parent: int) -> None:
    """Once a process: interrupts are the parent's to hear, and when the parent is gone this one ends too.

    On Linux the kernel sees to it, whatever this process is at; elsewhere a thread does as soon as it has its turn.
    """

    def wait() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(AttributeError, OSError):  # no Linux
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # A parent that was gone before is seen by the thread.
    threading.Thread(target=wait, daemon=True).start()

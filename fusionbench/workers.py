"""A worker process does not outlive its parent. Imports nothing: it is the first thing that a worker does."""

import os
import signal
import threading
import time


def follow(parent: int) -> None:
    """Once a process: interrupts are the parent's to hear, and when the parent is gone this one ends too."""

    def wait() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=wait, daemon=True).start()

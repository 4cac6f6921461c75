"""Downloads that resume: a broken one leaves a part, which the next attempt goes on with."""

from __future__ import annotations

import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from fusionbench.data.archives import CHUNK
from fusionbench.errors import UsageError

TRIES, PAUSE, TIMEOUT = 6, 1.0, 30.0  # attempts without a new byte; seconds before the second one; seconds of silence

#: Called with (bytes so far, bytes in all or 0).
Progress = Callable[[int, int], None]


def download(url: str, target: Path, progress: Progress) -> None:
    """Fetches `url` into `target`; a broken download leaves `target.part`, which the next attempt resumes.

    Raises:
        UsageError: the address is refused, or several attempts in a row bring nothing.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    failures = 0
    while not target.exists():
        before = part.stat().st_size if part.exists() else 0
        try:
            _fetch(url, part, progress)
            os.replace(part, target)
        except urllib.error.HTTPError as error:
            if error.code == 416:  # what is there is longer than the file: not a part of it
                part.unlink(missing_ok=True)
            elif error.code < 500 and error.code not in (408, 429):
                raise UsageError(f"{url} answers {error.code} {error.reason}; {_by_hand(url)}") from None
            reason = f"{error.code} {error.reason}"
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        else:
            return
        gained = part.exists() and part.stat().st_size > before
        failures = 0 if gained else failures + 1
        if failures == TRIES:
            raise UsageError(f"{url} cannot be downloaded ({reason}); run again to resume, or {_by_hand(url)}")
        time.sleep(min(30.0, PAUSE * 2**failures))


def _fetch(url: str, part: Path, progress: Progress) -> None:
    """One attempt: appends to `part` if the server grants the rest, else begins again."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "fusionbench", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as answer:
        granted = answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        resumed = have > 0 and answer.status == 206 and granted
        done = have if resumed else 0
        length = int(answer.headers.get("Content-Length") or 0)
        total = done + length if length else 0
        with part.open("ab" if resumed else "wb") as file:
            while block := answer.read(CHUNK):
                file.write(block)
                done += len(block)
                progress(done, total)
        if total and done < total:
            raise http.client.IncompleteRead(b"", total - done)


def _by_hand(url: str) -> str:
    return f"fetch {url} elsewhere and pass it with --from FILE"

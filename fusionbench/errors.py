"""The one error that a user is meant to read, and the nearest name to the one that was mistyped."""

from __future__ import annotations

from collections.abc import Iterable


class UsageError(Exception):
    """Wrong usage or input: one line that names the thing and the way out. The command line exits with status 2."""


def unknown(what: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a `name` that is not among `known`, with the nearest one suggested."""
    from difflib import get_close_matches

    known = sorted(known)
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else f"; there are: {', '.join(known)}" if known else "; there are none"
    return UsageError(f"no {what} is called {name!r}{hint}")

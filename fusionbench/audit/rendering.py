"""An audit as text, a verdict a line with its evidence, or as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable

from fusionbench import text
from fusionbench.audit.findings import NOT_ASKED, SUSPICIOUS, Audit

#: Signs of the two columns in front of the evidence.
VERDICT, QUESTION = 11, 11
INDENT = " " * (VERDICT + QUESTION)


def render(audit: Audit, fmt: str, width: int = 80, styled: bool = False) -> str:
    """The audit in one of `FORMATS`."""
    return FORMATS[fmt](audit, width, styled)


def _text(audit: Audit, width: int, styled: bool) -> str:
    lines = [text.wrap(f"{audit.target}: {audit.summary}; scores are {audit.metric}", width, "  "), ""]
    for found in audit.findings:
        accepted = found.verdict == SUSPICIOUS and found.question in audit.accepted
        word = "accepted" if accepted else found.verdict
        code = {str(SUSPICIOUS): text.RED, str(NOT_ASKED): text.FAINT}.get(word)
        line = text.wrap(f"{word:{VERDICT}}{found.question:{QUESTION}}{found.evidence}", width, INDENT)
        lines.append(text.styled(word, code) + line[len(word) :] if styled and code else line)
    return "\n".join([*lines, "", conclusion(audit)])


def conclusion(audit: Audit) -> str:
    """What it comes to, in a line."""
    raised = [f.question for f in audit.suspicious]
    asked = sum(f.verdict != NOT_ASKED for f in audit.findings)
    if raised:
        return f"suspicious: {text.listed(raised)} ({asked} questions asked)"
    known = f"; {text.listed(sorted(audit.accepted))} accepted" if audit.accepted else ""
    return f"nothing suspicious ({asked} questions asked{known})"


def _json(audit: Audit, width: int, styled: bool) -> str:
    content = {
        "target": audit.target, "summary": audit.summary, "metric": audit.metric,
        "accepted": sorted(audit.accepted), "suspicious": [f.question for f in audit.suspicious],
        "findings": [
            {"question": f.question, "verdict": f.verdict, "evidence": f.evidence,
             "numbers": {name: round(float(value), 6) for name, value in f.numbers.items()}}
            for f in audit.findings
        ],
    }  # fmt: skip
    return json.dumps(content, indent=1, ensure_ascii=False)


FORMATS: dict[str, Callable[[Audit, int, bool], str]] = {"text": _text, "json": _json}

"""The advice as one self-contained page."""

from __future__ import annotations

from pathlib import Path

from fusionbench import text
from fusionbench.advise.outcome import Advice
from fusionbench.advise.telling import doubt, fusion, more, sensors, use
from fusionbench.errors import UsageError
from fusionbench.records import store


def write_page(advice: Advice, path: Path) -> None:
    """Writes the page; it appears whole or not at all.

    Raises:
        UsageError: the file cannot be written.
    """
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    template = jinja2.Environment(loader=loader, autoescape=True).get_template("page.html.jinja")
    low, high = advice.promise.low, advice.promise.high
    page = template.render(
        advice=advice,
        score=lambda value: text.score(value, advice.is_percent),
        gap=lambda value: text.gap(value, advice.is_percent, signed=True),
        duration=text.duration,
        groups=text.counted(advice.groups, advice.unit),
        bounds=None if low is None or high is None else (low, high),
        answer=[*use(advice), *doubt(advice), *fusion(advice)],
        sensors=list(sensors(advice)),
        more=list(more(advice)),
    )
    try:
        store.write(path, lambda file: file.write(page.encode()))
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None

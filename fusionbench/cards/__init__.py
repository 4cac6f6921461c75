"""One page a benchmark, and the same as Croissant JSON-LD: people, modalities, licence, scores of others, audit.

Everything is read from the benchmark's declarations, from its data where they are here, and from a committed audit.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Mapping
from typing import Any

from fusionbench import contract, hparams, registry
from fusionbench.api import Batch, Benchmark, Stream
from fusionbench.errors import UsageError
from fusionbench.text import counted

CORE, RAI = "http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"
Audit = Mapping[str, Any]


def card(name: str, given: Mapping[str, Any] | None = None, audit: Audit | None = None) -> str:
    """The page of a benchmark in Markdown.

    Args:
        given: its settings, as `root`.
        audit: what `fusionbench audit NAME --format json` has printed, if it is committed.

    Raises:
        UsageError: there is no such benchmark, or its data are not here.
    """
    benchmark, data = _loaded(name, given)
    folds = [contract.splits(benchmark, name, data, fold) for fold in range(benchmark.folds)]
    summary, _, rest = _about(benchmark).partition("\n")
    task = benchmark.task
    lines = [f"# {registry.plugin_name(name)}", "", summary, "", rest.strip(), "", "| | |", "|---|---|"]
    facts = {
        "samples": f"{counted(len(data), 'sample')} of {counted(len(set(data.groups)), benchmark.unit)}",
        "task": f"{task.kind}, {task.out} {'classes' if task.kind == 'classify' else 'values'} "
        f"{'a frame' if task.per_frame else 'a sample'}, ranked by {task.metrics[0]}",
        "splits": f"{counted(benchmark.folds, 'fold')}: "
        + ", ".join(f"{sum(len(getattr(f, side)) for f in folds) / len(folds):.0f} {side}"
                    for side in ("train", "val", "test")) + " samples on average",
        "samples have a time": "yes" if contract.has_order(benchmark) else "no",
        "attributes": ", ".join(data.attributes) or "none",
        "transductive": benchmark.transductive or "no",
        "licence": benchmark.licence or "not declared",
        "source": benchmark.source or "not declared",
        "citation": benchmark.citation or "not declared",
    }  # fmt: skip
    lines += [f"| {fact} | {_cell(said)} |" for fact, said in facts.items()]
    lines += ["", "## Modalities", "", "| modality | a sample | steps a second | missing samples | missing steps |",
              "|---|---|---|---|---|"]  # fmt: skip
    for m, stream in data.streams.items():
        rate = f"{benchmark.rates[m]:g}" if m in benchmark.rates else "-"
        shape = f"{stream.shape[0]} steps of {' x '.join(map(str, stream.shape[1:]))}"
        absent, steps = _missing(stream)
        lines.append(f"| {m} | {shape} | {rate} | {absent} | {steps} |")
    lines += ["", "## Scores of others", ""]
    lines += [f"- {who}: {score}" for who, score in benchmark.reference_scores.items()] or ["None is declared."]
    lines += ["", "## What would inflate a score", ""]
    lines += [f"- {text}" for text in benchmark.caveats] or ["Nothing is declared."]
    lines += ["", "## Audit", "", *_audited(name, audit)]
    return "\n".join(lines) + "\n"


def croissant(name: str, given: Mapping[str, Any] | None = None, audit: Audit | None = None) -> str:
    """The metadata of a benchmark as Croissant JSON-LD, core and responsible-AI vocabularies.

    The files are not described: they are fetched and verified by `fusionbench data get`, not redistributed.
    """
    benchmark, data = _loaded(name, given)
    raised = ", ".join(audit["suspicious"]) if audit else ""
    biases = [*benchmark.caveats, *([f"raised by fusionbench audit: {raised}"] if raised else [])]
    content: dict[str, Any] = {
        "@context": _context(),
        "@type": "sc:Dataset",
        "conformsTo": [CORE, RAI],
        "name": registry.plugin_name(name),
        "description": _about(benchmark),
        "version": f"{benchmark.version}.0.0",
        "license": benchmark.licence or "not declared",
        "url": benchmark.source or "not declared",
        "citeAs": benchmark.citation or "not declared",
        "keywords": ["multimodal fusion", *data.streams],
        "rai:dataCollection": f"{counted(len(data), 'sample')} of {counted(len(set(data.groups)), benchmark.unit)}",
        "rai:dataMissingData": "; ".join(f"{m}: {_missing(s)[0]} of the samples" for m, s in data.streams.items()),
        "rai:dataBiases": "; ".join(biases) or "none declared",
        "rai:dataUseCases": "comparison of fusion methods with complete, noisy and missing modalities",
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


# ------------------------------------------------------------------------------------------------------------ details


def _loaded(name: str, given: Mapping[str, Any] | None) -> tuple[Benchmark, Batch]:
    plugin = registry.load("benchmarks", name)
    benchmark = contract.make(plugin, hparams.fill(hparams.read(plugin), given or {}, name), name)
    return benchmark, contract.load(benchmark, name)


def _about(benchmark: Benchmark) -> str:
    return inspect.cleandoc(sys.modules[type(benchmark).__module__].__doc__ or "No description.")


def _cell(said: str) -> str:
    return said.replace("|", "\\|")


def _missing(stream: Any) -> tuple[str, str]:
    """The share of samples without a modality, and of missing steps in the others (padding included)."""
    if not isinstance(stream, Stream):
        return "raw media", "raw media"
    steps = 1 - float(stream.mask[stream.present].float().mean())
    return f"{1 - float(stream.present.float().mean()):.1%}", f"{steps:.1%}"


def _audited(name: str, audit: Audit | None) -> list[str]:
    if audit is None:
        return [f"None is given here: `fusionbench audit {name}`."]
    try:
        rows = [f"| {f['question']} | {f['verdict']} | {_cell(f['evidence'])} |" for f in audit["findings"]]
    except (KeyError, TypeError):
        raise UsageError(f"the audit of {name} is not what `fusionbench audit {name} --format json` prints") from None
    return [f"`fusionbench audit {name}`: {audit['summary']}; scores are {audit['metric']}.", "",
            "| question | verdict | evidence |", "|---|---|---|", *rows]  # fmt: skip


def _context() -> dict[str, Any]:
    """The standard context of Croissant 1.0, with the vocabulary of responsible AI."""
    own = (
        "citeAs column extract field fileProperty fileObject fileSet format includes jsonPath key md5 parentField path"
    )
    own += " recordSet references regex repeated replace separator source subField transform"
    named: dict[str, Any] = {name: f"cr:{name}" for name in own.split()}
    return {
        "@language": "en",
        "@vocab": "https://schema.org/",
        "cr": "http://mlcommons.org/croissant/",
        "rai": "http://mlcommons.org/croissant/RAI/",
        "dct": "http://purl.org/dc/terms/",
        "sc": "https://schema.org/",
        "conformsTo": "dct:conformsTo",
        "isLiveDataset": "cr:isLiveDataset",
        "data": {"@id": "cr:data", "@type": "@json"},
        "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
        "examples": {"@id": "cr:examples", "@type": "@json"},
        **named,
    }

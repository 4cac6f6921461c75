"""The metadata of a benchmark as Croissant 1.0 JSON-LD, core and responsible-AI vocabularies."""

from __future__ import annotations

import hashlib
import inspect
import json
import mimetypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fusionbench import data, registry
from fusionbench.api import Benchmark
from fusionbench.cards.committed import published
from fusionbench.cards.figures import Figures
from fusionbench.cards.page import about

CORE, RAI = "http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"
FEW = 12  # files that are named one by one, with their checksums
FILES = "files"  # all of them, of which records are made


def metadata(name: str, benchmark: Benchmark, figures: Figures | None, audit: Mapping[str, Any] | None) -> str:
    """The JSON-LD; a record is a sample as the benchmark's loader makes it of the published files."""
    raised = ", ".join(audit["suspicious"]) if audit else ""
    biases = [*benchmark.caveats, *([f"raised by fusionbench audit: {raised}"] if raised else [])]
    absent = {m: f.absent for m, f in figures.modalities.items() if f.absent is not None} if figures else {}
    content: dict[str, Any] = {
        "@context": _context(),
        "@type": "sc:Dataset",
        "conformsTo": [CORE, RAI],
        "name": registry.plugin_name(name),
        "description": about(benchmark),
        "version": f"{benchmark.version}.0.0",
        "license": benchmark.licence or "not declared",
        "url": benchmark.source or "not declared",
        "citeAs": benchmark.citation or "not declared",
        "keywords": ["multimodal fusion", *benchmark.shapes],
        "rai:dataCollection": figures.counted if figures else "the figures need the data",
        "rai:dataMissingData": "; ".join(f"{m}: {share:.1%} of the samples" for m, share in absent.items())
        or "not known",
        "rai:dataBiases": "; ".join(biases) or "none declared",
        "rai:dataUseCases": "comparison of fusion methods with complete, noisy and missing modalities",
        "distribution": _distribution(name, benchmark),
        "recordSet": [_records(benchmark, figures)],
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


# ---------------------------------------------------------------------------------------------------------- the files


def _distribution(name: str, benchmark: Benchmark) -> list[dict[str, Any]]:
    """The published files, those of the manifest; of a benchmark that has none, the program that makes the samples."""
    known = published(name)
    if known is None:
        program = Path(inspect.getfile(type(benchmark)))
        digest = hashlib.sha256(program.read_bytes()).hexdigest()
        found = [_file(program.name, f"benchmarks/{program.name}", "text/x-python", None, digest)]
        return [*found, _set([program.name], [program.name], "the program that makes the samples, or finds them")]
    manifest = data.manifest(known)
    one_by_one = {p: known for p, known in manifest.files.items() if known[1]} if len(manifest.files) <= FEW else {}
    found = [
        _file(path, _address(manifest, path), _kind(path), size, digest) for path, (size, digest) in one_by_one.items()
    ]
    said = f"fetched and verified by `fusionbench data get {known}`; nothing is redistributed"
    return [*found, _set(_patterns(manifest), list(one_by_one), said)]


def _file(path: str, address: str, kind: str, size: int | None, digest: str) -> dict[str, Any]:
    sized = {} if size is None else {"contentSize": f"{size} B"}
    return {"@type": "cr:FileObject", "@id": path, "name": path, "contentUrl": address, "encodingFormat": kind, **sized,
            "sha256": digest}  # fmt: skip


def _set(patterns: list[str], inside: list[str], said: str) -> dict[str, Any]:
    contained = {"containedIn": [{"@id": path} for path in inside]} if inside else {}
    kinds = sorted({_kind(pattern) for pattern in patterns})
    return {"@type": "cr:FileSet", "@id": FILES, "name": FILES, "description": said, **contained,
            "encodingFormat": kinds if len(kinds) > 1 else kinds[0], "includes": patterns}  # fmt: skip


def _patterns(manifest: data.Manifest) -> list[str]:
    """The files, or where there are many, a pattern a folder and kind: `Raw_data/*/*.csv`."""
    if len(manifest.files) <= FEW:
        return [*manifest.files, *manifest.folders]
    found = []
    for path in map(Path, manifest.files):
        top, depth = path.parts[0], len(path.parts)
        found.append("/".join([top if depth > 2 else "*", *["*"] * (depth - 2), f"*{path.suffix}"][-depth:]))
    return [*dict.fromkeys(found), *manifest.folders]


def _address(manifest: data.Manifest, path: str) -> str:
    """Where a file is published: by itself, or in an archive, named after #; the page of a set fetched by hand."""
    direct = [url for url in manifest.urls if urlsplit(url).path.endswith(f"/{path}")]
    if direct:
        return direct[0]
    return f"{(manifest.urls or (manifest.source,))[0]}#{path}"


def _kind(path: str) -> str:
    return mimetypes.guess_type(path)[0] or "application/octet-stream"


# -------------------------------------------------------------------------------------------------------- the records


def _records(benchmark: Benchmark, figures: Figures | None) -> dict[str, Any]:
    """One field a modality, the label, the group, and what is said of groups."""
    task = benchmark.task
    label = "the class" if task.kind == "classify" else f"{task.out} values"
    if benchmark.classes:
        label += f": {', '.join(f'{k} {name}' for k, name in enumerate(benchmark.classes))}"
    fields = [
        *(_field(m, "sc:Float", _said(benchmark, figures, m), repeated=True) for m in benchmark.shapes),
        _field("label", "sc:Integer" if task.kind == "classify" else "sc:Float", label,
               repeated=task.per_frame or (task.out > 1 and task.kind == "regress")),
        _field("group", "sc:Text", f"the {benchmark.unit}, whom splits keep on one side"),
        *(_field(a, "sc:Text", f"of the {benchmark.unit}: {', '.join(values)}")
          for a, values in (figures.attributes if figures else {}).items()),
    ]  # fmt: skip
    said = "a sample, as the benchmark's loader makes it of the files"
    return {"@type": "cr:RecordSet", "@id": "samples", "name": "samples", "description": said, "field": fields}


def _said(benchmark: Benchmark, figures: Figures | None, m: str) -> str:
    step = " x ".join(map(str, benchmark.shapes[m])) or "1"
    steps = f"{figures.modalities[m].steps} steps" if figures else "steps"
    rate = f", {benchmark.rates[m]:g} a second" if m in benchmark.rates else ""
    return f"{steps} of {step}{rate}"


def _field(name: str, kind: str, said: str, repeated: bool = False) -> dict[str, Any]:
    source = {"fileSet": {"@id": FILES}, "extract": {"fileProperty": "content"}}
    many = {"repeated": True} if repeated else {}
    return {"@type": "cr:Field", "@id": f"samples/{name}", "name": name, "description": said, "dataType": kind, **many,
            "source": source}  # fmt: skip


def _context() -> dict[str, Any]:
    """The standard context of Croissant 1.0, with the vocabulary of responsible AI."""
    own = "citeAs column equivalentProperty extract field fileProperty fileObject fileSet format includes jsonPath key"
    own += " md5 parentField path recordSet references regex repeated replace samplingRate separator source subField"
    own += " transform"
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

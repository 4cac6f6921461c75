"""Finding plugins: files of the package, then entry points, then a path that the user names. Imports no torch."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from fusionbench.errors import UsageError, unknown
from fusionbench.paths import path_of

#: kind -> (what one is called, its base class in `fusionbench.api`); a fuser may be an `Estimator` instead
KINDS = {
    "fusers": ("fuser", "Fuser"),
    "backbones": ("backbone", "Backbone"),
    "benchmarks": ("benchmark", "Benchmark"),
    "corruptions": ("corruption", "Corruption"),
}
#: What a benchmark says of how its scores are read, and nothing else depends on.
READING = ("unit", "margin", "domain", "role")
#: What a benchmark says about its data, for its card; it moves no number.
ABOUT = ("licence", "source", "citation", "reference_scores", "caveats")


@dataclass(frozen=True)
class Origin:
    """Where a plugin comes from: a file, or the entry point of an installed package."""

    name: str
    path: Path | None = None
    entry: EntryPoint | None = None

    def __str__(self) -> str:
        if self.entry is not None:
            owner = self.entry.dist.name if self.entry.dist else "unknown package"
            return f"{self.entry.value} of {owner}"
        return str(self.path)

    def summary(self) -> str:
        """The first line of its docstring, parsed without importing; empty for an entry point."""
        if self.path is None:
            return ""
        try:
            tree = ast.parse(self.path.read_text())
        except (OSError, SyntaxError, ValueError) as error:
            return f"(cannot be read: {error})"
        lines = (ast.get_docstring(tree) or "").splitlines()
        for node in tree.body:  # a file of several corruptions: each class speaks for itself
            if isinstance(node, ast.ClassDef) and _class_name(node) == self.name:
                lines = (ast.get_docstring(node) or "").splitlines()
        return lines[0] if lines else ""


def names(kind: str) -> dict[str, Origin]:
    """Every plugin of a kind by name, sorted, nothing imported.

    Raises:
        UsageError: two plugins have one name (both origins are given).
    """
    found: dict[str, Origin] = {}
    for origin in [*_files(kind), *_entries(kind)]:
        if origin.name in found:
            raise UsageError(
                f"two {kind} are called {origin.name!r}: {found[origin.name]} and {origin}; rename or uninstall one"
            )
        found[origin.name] = origin
    return dict(sorted(found.items()))


def load(kind: str, name: str) -> Any:
    """The class of a plugin, by name or by path (`./mine.py`).

    Raises:
        UsageError: there is none, its file does not import, or it does not define exactly one class.
    """
    if kind == "benchmarks" and is_own(name):
        called = plugin_name(name)
        if not called or not called.isprintable() or set(called) & set("*?[]"):
            raise UsageError(f"{called!r} cannot name a folder of results: rename the file or folder {name!r}")
        if called in names(kind):
            raise UsageError(f"{name} and {names(kind)[called]} would both be {called!r}: rename the file or folder")
        return importlib.import_module("fusionbench.custom_data").load(name)
    if kind == "benchmarks" and name not in names(kind):
        _refuse_data(name)
    if is_path(name):
        path = path_of(name)
        if not path.is_file():
            raise UsageError(f"there is no plugin file {name}")
        if path.suffix != ".py":
            raise UsageError(f"{name} is no .py file, and a {KINDS[kind][0]} is written in Python")
        taken = names(kind).get(path.stem)
        if taken is not None and taken.path is not None and taken.path.resolve() == path:
            return _load_origin(kind, taken)  # the file of a plugin that is here: `check fusers/jmt.py`
        if taken is not None:
            raise UsageError(f"{name} and {taken} would both be {path.stem!r}: rename the file")
        return _load_path(kind, path)
    known = names(kind)
    if name not in known:
        raise unknown(KINDS[kind][0], name, known)
    return _load_origin(kind, known[name])


def is_own(name: str) -> bool:
    """Does this name of a benchmark mean somebody's data: an .npz file, or a folder with benchmark.toml?"""
    return name.endswith(".npz") or os.path.isfile(os.path.join(os.path.expanduser(name), "benchmark.toml"))


def is_path(name: str) -> bool:
    """Did the user name a file rather than a plugin?"""
    return name.endswith(".py") or "/" in name or "\\" in name


def _refuse_data(name: str) -> None:
    """A path that is there is never an unknown name: says what it lacks to be a benchmark."""
    path = path_of(name)
    if not path.exists() or path.suffix == ".py":
        return
    if path.is_dir():
        raise UsageError(
            f"{name} has no benchmark.toml, which says what its files mean: `fusionbench data init {name}` writes one"
        )
    folder = path.parent if os.path.dirname(name) else "."
    if (path.parent / "benchmark.toml").is_file():
        raise UsageError(f"{name} is a part of a benchmark: name its folder, --benchmark {folder}")
    raise UsageError(
        f"{name} is neither an .npz file nor a folder with benchmark.toml nor a .py plugin; a folder of tables or "
        f"arrays becomes one by `fusionbench data init FOLDER`"
    )


def plugin_name(name: str) -> str:
    """What a plugin is called in records and tables: its own name, or the stem of its path."""
    if is_own(name):
        return path_of(name).name.removesuffix(".npz")
    return Path(name).stem if is_path(name) else name


def fingerprint(plugin: type) -> str:
    """SHA-256 of what the plugin's file and the files that it imports relatively do, first 16 hexadecimal digits.

    Docstrings, comments on lines of their own and empty lines do not count: to describe a method better is not to make
    another one. Nor does what a benchmark declares of how its scores are read (`READING`), or about its data (`ABOUT`).
    """
    digest = hashlib.sha256()
    origin = getattr(plugin, "origin", None)  # somebody's data: what describes it, beside the data's own hash
    if origin is not None and (Path(origin) / "benchmark.toml").is_file():
        digest.update((Path(origin) / "benchmark.toml").read_bytes())
    is_benchmark = any(base.__name__ == KINDS["benchmarks"][1] for base in plugin.__mro__)
    return _digest(Path(inspect.getfile(plugin)), digest, (*READING, *ABOUT) if is_benchmark else ())


@cache
def fingerprint_here(kind: str, name: str) -> str | None:
    """The fingerprint of the plugin file of that name, without importing it; None where there is no such file."""
    origin = names(kind).get(name)
    if origin is None or origin.path is None:
        return None
    return _digest(origin.path, hashlib.sha256(), (*READING, *ABOUT) if kind == "benchmarks" else ())


def reading_here(name: str) -> dict[str, Any]:
    """What the benchmark of that name declares of how its scores are read, without importing it; may be empty."""
    return _declared_here(name, READING)


def about_here(name: str) -> dict[str, Any]:
    """What the benchmark of that name declares about its data (`ABOUT`), without importing it; may be empty."""
    return _declared_here(name, ABOUT)


@cache
def _declared_here(name: str, attributes: Sequence[str]) -> dict[str, Any]:
    """Only constants that stand in a class body count; of a helper's class and the benchmark's own the latter's."""
    origin = names("benchmarks").get(name)
    found: dict[str, Any] = {}
    for source in _sources(origin.path.resolve()) if origin and origin.path else []:
        for node in ast.parse(source.read_text()).body:
            for line, attribute in _assigned(node, attributes):
                if isinstance(line.value, ast.Constant):  # of an expression only running it would tell
                    found.setdefault(attribute, line.value.value)
    return found


def _assigned(node: ast.AST, names: Sequence[str]) -> Iterator[tuple[ast.Assign | ast.AnnAssign, str]]:
    """The lines of a class body that set one of these names, with the name."""
    for line in node.body if isinstance(node, ast.ClassDef) else []:
        if isinstance(line, ast.Assign | ast.AnnAssign):
            target = line.target if isinstance(line, ast.AnnAssign) else line.targets[0]
            if isinstance(target, ast.Name) and target.id in names:
                yield line, target.id


@cache
def ceilings(benchmark: str) -> dict[str, float]:
    """What lies between chance and the optimum of a benchmark: name -> the best score without something, rising.

    They stand in `NAME.ceilings.json` beside its file; without that file there are none.

    Raises:
        UsageError: the file is damaged.
    """
    origin = names("benchmarks").get(benchmark)
    path = None if origin is None or origin.path is None else origin.path.with_suffix(".ceilings.json")
    if path is None or not path.is_file():
        return {}
    try:
        found = {str(name): float(score) for name, score in json.loads(path.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} is damaged ({error}): restore it, or delete it") from None
    return dict(sorted(found.items(), key=lambda item: item[1]))


def _digest(path: Path, digest: Any, leave_out: Sequence[str]) -> str:
    for source in _sources(path.resolve()):
        digest.update(source.name.encode() + b"\0" + _code_of(source.read_text(), leave_out).encode() + b"\0")
    return str(digest.hexdigest()[:16])


def _code_of(source: str, leave_out: Sequence[str] = ()) -> str:
    """A file's lines without docstrings, comments of their own line, empty lines and these constants of a class."""
    lines: list[bytes | None] = [line.encode().rstrip() for line in source.split("\n")]
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = list(ast.walk(ast.parse(source)))
    inside = {  # of texts over several lines: there a line that looks like a comment is none
        number
        for node in nodes
        if isinstance(node, ast.Constant | ast.JoinedStr)
        for number in range(node.lineno, node.end_lineno or 0)
    }
    for number, line in enumerate(lines):
        if number not in inside and line is not None and (not line or line.lstrip().startswith(b"#")):
            lines[number] = None
    for node in nodes:
        for said, _ in _assigned(node, leave_out):
            first, last = said.lineno - 1, said.end_lineno or said.lineno
            lines[first:last] = [None] * (last - first)
    for node in nodes:
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            text = node.body[0]
            first, last = text.lineno - 1, (text.end_lineno or text.lineno) - 1
            rest = (lines[first] or b"")[: text.col_offset] + (lines[last] or b"")[text.end_col_offset :]
            lines[first : last + 1] = [rest.rstrip() or None, *[None] * (last - first)]
    return b"\n".join(line for line in lines if line is not None).decode()


def _folder(kind: str) -> Path:
    return Path(importlib.import_module(f"fusionbench.{kind}").__path__[0])


@cache
def _files(kind: str) -> list[Origin]:
    paths = sorted(p for p in _folder(kind).glob("*.py") if not p.name.startswith("_"))
    if kind != "corruptions":
        return [Origin(path.stem, path) for path in paths]
    found = []
    for path in paths:
        try:
            nodes = ast.parse(path.read_text()).body
        except (SyntaxError, ValueError):  # a broken file is listed as such, under its own name
            found.append(Origin(path.stem, path))
            continue
        found += [Origin(name, path) for n in nodes if isinstance(n, ast.ClassDef) and (name := _class_name(n))]
    return found


def _class_name(node: ast.ClassDef) -> str:
    """The literal `name = "..."` in a class body, else the empty string."""
    for line in node.body:
        if isinstance(line, ast.Assign) and isinstance(line.value, ast.Constant):
            target = line.targets[0]
            if isinstance(target, ast.Name) and target.id == "name":
                return str(line.value.value)
    return ""


@cache
def _entries(kind: str) -> tuple[Origin, ...]:
    return tuple(Origin(entry.name, entry=entry) for entry in entry_points(group=f"fusionbench.{kind}"))


def _load_origin(kind: str, origin: Origin) -> Any:
    what = KINDS[kind][0]
    try:
        if origin.entry is not None:
            target = origin.entry.load()
            if isinstance(target, ModuleType):
                return _only_class(kind, target, origin.name)
            if not is_plugin(kind, target):
                raise UsageError(f"{what} {origin.name!r} ({origin}) is no {KINDS[kind][1]} but {target!r}")
            return target
        assert origin.path is not None
        module = importlib.import_module(f"fusionbench.{kind}.{origin.path.stem}")
    except UsageError:
        raise
    except (Exception, SystemExit) as error:  # a plugin may raise anything at all on import
        raise UsageError(f"{what} {origin.name!r} ({origin}) does not import: {_where(error)}") from error
    return _only_class(kind, module, origin.name)


@cache
def _load_path(kind: str, path: Path) -> Any:
    unique = hashlib.sha256(str(path).encode()).hexdigest()[:8]
    spec = importlib.util.spec_from_file_location(f"fusionbench_plugin_{path.stem}_{unique}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a plugin may raise anything at all on import
        del sys.modules[spec.name]
        raise UsageError(f"plugin file {path.name} does not import: {_where(error)}") from error
    return _only_class(kind, module, path.stem)


def _only_class(kind: str, module: ModuleType, name: str) -> Any:
    """The one class of the kind that the module defines; of several corruptions, the one of that name."""
    classes = [
        value
        for value in vars(module).values()
        if is_plugin(kind, value) and value.__module__ == module.__name__ and not value.__name__.startswith("_")
    ]
    if kind == "corruptions":
        classes = [c for c in classes if getattr(c, "name", "") == name] or classes
    if len(classes) != 1:
        spelled = ", ".join(c.__name__ for c in classes) or "none"
        raise UsageError(f"{name}: a {KINDS[kind][0]} file defines exactly one {KINDS[kind][1]}, this one {spelled}")
    return classes[0]


def is_plugin(kind: str, target: Any) -> bool:
    """Is this a class of the kind? A fuser is a `Fuser`, or an `Estimator`."""
    api = importlib.import_module("fusionbench.api")
    bases = (api.Fuser, api.Estimator) if kind == "fusers" else (getattr(api, KINDS[kind][1]),)
    return isinstance(target, type) and issubclass(target, bases)


def _where(error: BaseException) -> str:
    """The error in one line, with the line of the innermost frame."""
    import traceback

    if isinstance(error, SyntaxError):  # it says where itself; the frames are those of the import machinery
        return f"SyntaxError: {error.msg} ({Path(error.filename or '').name}, line {error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    text = str(error).splitlines()[0] if str(error) else ""
    return f"{type(error).__name__}: {text} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})"


def _sources(path: Path) -> list[Path]:
    """The file and, recursively, what it imports from its own folder with a leading dot."""
    found: list[Path] = []
    todo = [path]
    while todo:
        path = todo.pop()
        if path in found or not path.is_file():
            continue
        found.append(path)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 1:
                modules = [node.module] if node.module else [alias.name for alias in node.names]
                todo += [path.parent / f"{module.split('.')[0]}.py" for module in modules]
    return [found[0], *sorted(found[1:])]

"""Code flows one way: who may import whom, and what a light command may bring along."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import fusionbench
from fusionbench import registry

ROOT = Path(fusionbench.__file__).parent
FOLDERS = {kind: Path(importlib.import_module(f"fusionbench.{kind}").__path__[0]) for kind in registry.KINDS}
PLUGINS = ("fusers", "backbones", "benchmarks")  # corruptions are plugins too, but live inside the core

#: A module may import those to its left (what only a type checker sees does not count).
ORDER = (
    "errors paths text progress workers hparams conditions api registry metrics corruptions contract "
    "records stats leaderboard tracking features custom_data engine harness check datacheck audit data cards jobs "
    "predict sklearn search study looks report notebook advise cli __main__"
).split()

#: No torch when they are imported, directly or through another module.
LIGHT = (
    "errors paths text progress workers hparams conditions registry metrics records stats leaderboard data cli".split()
)
HEAVY = ["torch", "pandas", "scipy.stats", "mlflow", "optuna", "sklearn", "matplotlib"]

#: Plugins that a module of the core may name: the references of every study, and defaults.
NAMED = {
    "advise": {"boosting", "concat", "forest", "gated", "jmt", "late_average", "late_forest", "linear", "low_rank"}
    | {"stacking", "transformer"},  # the field of a race where the user names none
    "cli": {"affect_sim", "concat", "identity", "jmt", "watch"},
    "data": {"identity"},
    "features": {"identity"},
    "harness": {"identity", "position"},  # the stream of the row that sees nothing else
    "jobs": {"watch"},  # a function of its own
    "notebook": {"watch"},
    "predict": {"identity"},
    "sklearn": {"concat", "identity"},
    "records": {"concat", "late_average", "position", "unimodal", "unimodal_forest", "forest"},  # the references
    "report": {"summary"},  # a group of columns, and a key of the audit's JSON
    "custom_data": {"identity", "ple", "tcn"},  # the default encodings
    "study": {"watch"},
    "audit": {"summary"},  # a key of its JSON
    "cards": {"summary"},  # the same
    "leaderboard": {"position", "summary"},  # a column, and a group of columns
    "stats": {"summary"},  # a function of its own
}


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def sources(part: str) -> list[Path]:
    """The files of a module of the core."""
    folder = ROOT / part
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [ROOT / f"{part}.py"]


def modules() -> list[str]:
    found = {p.stem for p in ROOT.glob("*.py")} | {p.parent.name for p in ROOT.glob("*/*.py")}
    return sorted(found - {"__init__"} - set(PLUGINS))


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Everything that is ever executed."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield node
            yield from nodes(node)


def imported(path: Path, chosen: Iterable[ast.AST] | None = None) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import, wherever it stands; relative ones keep their dots in front."""
    for node in nodes(parse(path)) if chosen is None else chosen:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (f"{node.module}." if node.module else "")
            yield from ((node.lineno, f"{origin}{alias.name}") for alias in node.names)


def run(script: str, *args: str) -> str:
    outcome = subprocess.run([sys.executable, "-c", script, *args], capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout


def test_every_module_has_its_place_in_the_order() -> None:
    strangers = [m for m in modules() if m not in ORDER]
    assert not strangers, f"put {strangers} in their place in ORDER of {Path(__file__).name}, and in the design"


@pytest.mark.parametrize("part", [part for part in ORDER if part in modules()])
def test_a_module_of_the_core_imports_only_those_before_it(part: str) -> None:
    before = {*ORDER[: ORDER.index(part)], part, "__version__"}
    for path in sources(part):
        for line, name in imported(path):
            words = name.split(".")
            if words[0] == "fusionbench" and len(words) > 1:
                assert words[1] in before, f"{path.relative_to(ROOT)}:{line} imports {name}, which comes after {part}"
            if name.startswith("."):
                assert not name.startswith(".."), f"{path.relative_to(ROOT)}:{line} imports {name} from above"


def files_by_name() -> dict[str, Path]:
    """Dotted name -> file of everything in the core but the package's own face, which leads to all of it."""
    found = {}
    for path in ROOT.rglob("*.py"):
        words = ["fusionbench", *path.relative_to(ROOT).with_suffix("").parts]
        found[".".join(words).removesuffix(".__init__")] = path
    return {name: path for name, path in found.items() if name != "fusionbench"}


def by_name(path: Path) -> Iterator[str]:
    """What a file imports by `import_module("...")`."""
    for node in nodes(parse(path)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module") and node.args:
            if isinstance(node.args[0], ast.Constant):
                yield str(node.args[0].value)


def test_the_imports_of_the_core_form_no_circle() -> None:
    """File by file; lazy imports and those by a name count, what only a type checker sees does not."""
    files = files_by_name()
    graph: dict[str, set[str]] = {}
    for module, path in files.items():
        names = [*(name for _, name in imported(path)), *by_name(path)]
        origins = {name if name in files else name.rpartition(".")[0] for name in names}
        graph[module] = {origin for origin in origins if origin in files} - {module}
    assert sum(map(len, graph.values())) > 200, "imports are seen"
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" imports ".join(reversed(error.args[1]))) from None


@pytest.mark.parametrize("part", modules())
def test_the_core_names_no_plugin(part: str) -> None:
    """Neither in an import nor as a word: an `if fuser == ...` in the core is a bug."""
    plugins = {name for kind in PLUGINS for name in registry.names(kind)} - NAMED.get(part, set())
    for path in sources(part):
        where = path.relative_to(ROOT)
        for line, name in imported(path):
            words = name.split(".")
            assert words[0] not in PLUGINS, f"{where}:{line} imports {name} under its bare name"
            assert words[:2] not in [["fusionbench", kind] for kind in PLUGINS], f"{where}:{line} imports {name}"
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.Constant) and node.value in plugins:
                raise AssertionError(f"{where}:{node.lineno} names the plugin {node.value!r}")


@pytest.mark.parametrize("kind", registry.KINDS)
def test_a_plugin_imports_the_contract_and_libraries_and_its_own_helpers(kind: str) -> None:
    for path in sorted(FOLDERS[kind].glob("*.py")):
        if path.name == "__init__.py":
            continue
        for line, name in imported(path):
            where, words = f"{kind}/{path.name}:{line} imports {name}", name.split(".")
            assert words[0] not in PLUGINS, f"{where}: a bare name of another project"
            if words[0] == "fusionbench":
                assert words[1:2] == ["api"], f"{where}: a plugin imports fusionbench.api"
            if name.startswith("."):
                helper = name.lstrip(".")
                assert name[1] != ".", f"{where}: not from its own folder"
                assert helper.startswith("_"), f"{where}: not a helper, its name has no underscore in front"


@pytest.mark.parametrize("part", [part for part in LIGHT if part in modules()])
def test_a_light_module_has_no_torch_at_its_top(part: str) -> None:
    for path in sources(part):
        for line, name in imported(path, parse(path).body):
            top = name.split(".")[0]
            assert top not in {h.split(".")[0] for h in HEAVY} - {"scipy"}, f"{path.relative_to(ROOT)}:{line}: {name}"


def test_light_modules_and_commands_bring_nothing_heavy() -> None:
    """Seen in `sys.modules`, not on the clock: what they import and what that imports."""
    script = f"""
import importlib, io, json, sys
from contextlib import redirect_stdout
seen = {{}}
def note(what):
    seen[what] = [name for name in {HEAVY} if name in sys.modules]
for module in {[m for m in LIGHT if m in modules()]}:
    importlib.import_module("fusionbench." + module)
    note("import fusionbench." + module)
from fusionbench.cli import cli
for arguments in (["--help"], ["--version"], ["list"], ["list", "fusers"]):
    text = io.StringIO()
    with redirect_stdout(text):
        assert not cli.main(arguments, standalone_mode=False)
    assert text.getvalue()
    note("fusionbench " + " ".join(arguments))
print(json.dumps(seen))
"""
    seen = json.loads(run(script))
    assert len(seen) > 8
    assert not any(seen.values()), seen


def test_listing_plugins_imports_none_of_them() -> None:
    script = """
import sys
from fusionbench import registry
for kind in registry.KINDS:
    for origin in registry.names(kind).values():
        origin.summary()
kinds = tuple(f"fusionbench.{kind}." for kind in registry.KINDS)
print([name for name in sys.modules if name.startswith(kinds)])
"""
    assert run(script).strip() == "[]"


@pytest.mark.parametrize("kind", PLUGINS)
def test_a_plugin_folder_refuses_its_bare_name(kind: str) -> None:
    spec = importlib.util.spec_from_file_location(kind, FOLDERS[kind] / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(ImportError, match=f"import fusionbench.{kind} instead"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_the_bare_name_is_refused_in_a_checkout_too(tmp_path: Path) -> None:
    """The current folder is on Python's path: `import fusers` there must not half work."""
    folder = FOLDERS["fusers"].parent
    script = "import sys; sys.path.insert(0, sys.argv[1]); import fusers"
    outcome = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True, cwd=tmp_path)
    assert outcome.returncode == 1
    assert "import fusionbench.fusers instead" in outcome.stderr or "No module named 'fusers'" in outcome.stderr

"""Finding plugins: files, entry points and paths; one class a file; fingerprints of sources."""

from __future__ import annotations

import importlib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from fusionbench import api, registry
from fusionbench.errors import UsageError

FUSER = '''"""Adds nothing."""

from fusionbench.api import Estimator, Fuser


class Mine(Fuser):
    pass
'''


def write(folder: Path, name: str, text: str = FUSER) -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("kind", registry.KINDS)
def test_names_are_sorted_files_without_an_underscore_and_with_a_summary(kind: str) -> None:
    found = registry.names(kind)
    assert found
    assert list(found) == sorted(found)
    for name, origin in found.items():
        assert not name.startswith("_")
        assert origin.path is not None
        assert origin.path.is_file()
        assert origin.summary().endswith((".", "?")) or ":" in origin.summary() or ";" in origin.summary()
        assert str(origin) == str(origin.path)


@pytest.mark.parametrize("kind", registry.KINDS)
def test_every_name_loads_one_class_of_its_kind(kind: str) -> None:
    base = getattr(api, registry.KINDS[kind][1])
    for name in registry.names(kind):
        plugin = registry.load(kind, name)
        assert issubclass(plugin, (base, api.Estimator) if kind == "fusers" else base)
        assert plugin is not base
        assert plugin is registry.load(kind, name)


def test_several_corruptions_of_one_file_speak_for_themselves() -> None:
    found = registry.names("corruptions")
    together = [name for name, origin in found.items() if origin.path == found["noise"].path]
    assert len(together) > 1
    assert len({found[name].summary() for name in together}) == len(together)
    assert all(registry.load("corruptions", name).name == name for name in together)


def test_a_mistyped_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="no fuser is called 'concta'; did you mean concat"):
        registry.load("fusers", "concta")


def test_a_path_is_a_plugin_too(tmp_path: Path) -> None:
    path = write(tmp_path, "mine.py")
    plugin = registry.load("fusers", path)
    assert plugin.__name__ == "Mine"
    assert plugin is registry.load("fusers", path)
    assert registry.plugin_name(path) == "mine"
    assert registry.fingerprint(plugin)


@pytest.mark.parametrize(
    ("name", "path"), [("concat", False), ("./mine.py", True), ("mine.py", True), ("a/b", True), ("a\\b", True)]
)
def test_a_path_is_told_from_a_name(name: str, path: bool) -> None:
    assert registry.is_path(name) is path


def test_a_path_may_not_take_the_name_of_a_plugin(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="would both be 'concat': rename the file"):
        registry.load("fusers", write(tmp_path, "concat.py"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no plugin file .*nothing\.py"):
        registry.load("fusers", str(tmp_path / "nothing.py"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\n\nraise KeyError('a stone')", r"KeyError: 'a stone' \(broken.py, line 3\)"),
        ("def f(:", "SyntaxError: .*line 1"),
        ("import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
    ],
)
def test_a_file_that_does_not_import_is_shouted_with_the_line(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path, "broken.py", text)
    for _ in range(2):  # a failure is not remembered as a success
        with pytest.raises(UsageError, match=f"plugin file broken.py does not import: {said}"):
            registry.load("fusers", path)


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("from fusionbench.api import Fuser\n", "none"),
        (FUSER + "\n\nclass Other(Fuser):\n    pass\n", "Mine, Other"),
        ("from fusionbench.api import Fuser\n\n\nclass _Part(Fuser):\n    pass\n", "none"),
    ],
)
def test_a_file_defines_exactly_one_class(tmp_path: Path, text: str, spelled: str) -> None:
    with pytest.raises(UsageError, match=f"a fuser file defines exactly one Fuser, this one {spelled}"):
        registry.load("fusers", write(tmp_path, "odd.py", text))


def test_what_begins_with_an_underscore_is_a_part_and_no_plugin(tmp_path: Path) -> None:
    text = FUSER + "\n\nclass _Part(Fuser):\n    pass\n"
    assert registry.load("fusers", write(tmp_path, "with_a_part.py", text)).__name__ == "Mine"


def entry(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    origin = registry.Origin(name, entry=EntryPoint(name, value, "fusionbench.fusers"))
    monkeypatch.setattr(registry, "_entries", lambda kind: (origin,) if kind == "fusers" else ())


@pytest.mark.parametrize("value", ["thirdparty", "thirdparty:Mine"])
def test_an_entry_point_names_a_module_or_a_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    write(tmp_path, "thirdparty.py")
    monkeypatch.syspath_prepend(tmp_path)
    entry(monkeypatch, "theirs", value)
    assert "theirs" in registry.names("fusers")
    assert registry.names("fusers")["theirs"].summary() == ""
    assert registry.load("fusers", "theirs").__name__ == "Mine"


def test_an_entry_point_that_does_not_import_is_shouted(monkeypatch: pytest.MonkeyPatch) -> None:
    entry(monkeypatch, "theirs", "no_such_module_at_all")
    with pytest.raises(UsageError, match=r"fuser 'theirs' .*does not import: ModuleNotFoundError"):
        registry.load("fusers", "theirs")


def test_two_plugins_of_one_name_are_both_named(monkeypatch: pytest.MonkeyPatch) -> None:
    entry(monkeypatch, "concat", "elsewhere:Concat")
    with pytest.raises(UsageError, match=r"two fusers are called 'concat': .*concat\.py and elsewhere:Concat"):
        registry.names("fusers")


def test_a_fingerprint_sees_the_file_and_what_it_imports_relatively(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "zoo_of_the_test"
    folder.mkdir()
    write(folder, "__init__.py", "")
    write(folder, "_far.py", "FAR = 1\n")
    write(folder, "_near.py", "from . import _far\n")
    write(folder, "_other.py", "")
    write(folder, "_stranger.py", "")
    write(folder, "mine.py", FUSER + "\n\ndef later():\n    from . import _other\n    from ._near import _far\n")
    monkeypatch.syspath_prepend(tmp_path)
    plugin = importlib.import_module("zoo_of_the_test.mine").Mine
    seen = [registry.fingerprint(plugin)]
    assert len(seen[0]) == 16
    write(folder, "_stranger.py", "STRANGER = 2\n")
    assert registry.fingerprint(plugin) == seen[0]
    for name in ("_far.py", "_near.py", "_other.py", "mine.py"):
        (folder / name).write_text((folder / name).read_text() + "EDITED = 1\n")
        seen.append(registry.fingerprint(plugin))
    assert len(set(seen)) == 5


def test_a_fingerprint_does_not_depend_on_where_the_file_lies(tmp_path: Path) -> None:
    digests = set()
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        digests.add(registry.fingerprint(registry.load("fusers", write(tmp_path / place, "mine.py"))))
    assert len(digests) == 1


def test_a_fingerprint_is_of_the_code_and_not_of_what_is_said_about_it(tmp_path: Path) -> None:
    plain = (
        "from fusionbench.api import Fuser\n\n\nclass Mine(Fuser):\n    text = '''\n# 1\n'''\n\n"
        "    def forward(self, streams):\n        return streams\n"
    )
    said = plain.replace("from", '"""What it is."""\n\n# of note\nfrom', 1)
    said = said.replace("class Mine(Fuser):", 'class Mine(Fuser):\n    """Mine,\n\n    at length."""\n')
    said = said.replace("streams):", 'streams):\n        """(B, S, out)."""\n        # nothing yet')
    others = [
        plain.replace("# 1", "# 2"),
        plain.replace("return streams", "return None"),
        plain.replace("text", "words"),
    ]
    seen = []
    for number, source in enumerate([plain, said, *others]):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "mine.py").write_text(source)
        seen.append(registry.fingerprint(registry.load("fusers", str(tmp_path / str(number) / "mine.py"))))
    assert seen[0] == seen[1]
    assert len(set(seen)) == 1 + len(others)

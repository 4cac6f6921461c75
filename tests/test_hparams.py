"""Hyper-parameters: read from a signature, parsed from text, filled in by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionbench import registry
from fusionbench.errors import UsageError, unknown
from fusionbench.hparams import Choice, HParam, Range, fill, read

DECLARED = [
    pytest.param(h, id=f"{name}.{h.name}")
    for kind in ("fusers", "backbones", "benchmarks")
    for name in registry.names(kind)
    for h in read(registry.load(kind, name)).values()
]


class Method:
    def __init__(
        self,
        spec: Any,
        *,
        width: Annotated[int, Choice(64, 128), "shared width"] = 128,
        rate: Annotated[float, Range(1e-4, 1e-1, log=True)] = 0.01,
        plain: bool = False,
    ) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Recipe:
    steps: Annotated[int, Range(1, 10), "steps"] = 3


def test_keyword_only_arguments_are_the_hyper_parameters() -> None:
    found = read(Method)
    assert list(found) == ["width", "rate", "plain"]
    assert found["width"] == HParam("width", int, 128, Choice(64, 128), "shared width")
    assert found["rate"] == HParam("rate", float, 0.01, Range(1e-4, 1e-1, log=True), "")
    assert found["plain"] == HParam("plain", bool, False)


def test_functions_and_dataclasses_are_read_too() -> None:
    def function(x: int, *, depth: int = 2) -> None: ...

    assert list(read(function)) == ["depth"]
    assert read(Recipe)["steps"] == HParam("steps", int, 3, Range(1, 10), "steps")
    assert read(object) == {}


def test_a_hyper_parameter_needs_a_type_and_a_default() -> None:
    def untyped(*, width=3) -> None: ...  # type: ignore[no-untyped-def]

    def required(*, width: int) -> None: ...

    with pytest.raises(UsageError, match=r"'width' of untyped has no type: write `width: Annotated"):
        read(untyped)
    with pytest.raises(UsageError, match="'width' of required has no default"):
        read(required)


def test_domains_spell_themselves_and_know_their_corners() -> None:
    assert str(Range(1, 4)) == "1 to 4"
    assert str(Range(1e-4, 0.1, log=True)) == "0.0001 to 0.1, log"
    assert str(Choice("relu", "gelu")) == "relu | gelu"
    assert Range(1, 4).corners() == (1, 4)
    assert Choice("a", "b").corners() == ("a", "b")
    assert Choice(1, 2) == Choice(1, 2) != Choice(2, 1)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (int, "128", 128),
        (int, 3.0, 3),
        (float, "1e-3", 0.001),
        (float, 2, 2.0),
        (bool, "true", True),
        (bool, "No", False),
        (bool, 1, True),
        (bool, False, False),
        (str, "adamw", "adamw"),
        (int | None, "none", None),
        (int | None, None, None),
        (int | None, "7", 7),
        (tuple[float, ...], "1e-3,3e-3", (0.001, 0.003)),
        (tuple[float, ...], "1", (1.0,)),
        (tuple[int, ...], [1, 2], (1, 2)),
        (tuple[int, ...], 5, (5,)),
        (tuple[int, ...], "", ()),
    ],
)
def test_text_and_values_become_the_declared_type(kind: Any, value: Any, expected: Any) -> None:
    parsed = HParam("name", kind, None).parse(value)
    assert parsed == expected
    assert type(parsed) is type(expected)


@pytest.mark.parametrize(
    ("kind", "value", "spelled"),
    [
        (int, "1.5", "a whole number"),
        (int, 1.5, "a whole number"),
        (int, True, "a whole number"),
        (int, "many", "a whole number"),
        (int, float("nan"), "a whole number"),
        (int, float("inf"), "a whole number"),
        (float, "nan", "a number"),
        (float, "inf", "a number"),
        (float, False, "a number"),
        pytest.param(float, 10**400, "a number", id="too large for a float"),
        (bool, "maybe", "true or false"),
        (str, 3, "text"),
        (int | None, "x", "a whole number or none"),
        (tuple[float, ...], "1,x", "a number, or several with commas"),
        (tuple[int, ...], None, "a whole number, or several with commas"),
    ],
)
def test_a_value_of_another_type_is_refused_in_words(kind: Any, value: Any, spelled: str) -> None:
    with pytest.raises(UsageError) as caught:
        HParam("width", kind, None).parse(value)
    assert str(caught.value) == f"width takes {spelled}, not {value!r}"


def test_a_type_that_no_command_line_can_spell_is_refused() -> None:
    with pytest.raises(UsageError, match="hyper-parameters are int, float, bool, str"):
        HParam("name", dict, None).parse("{}")


def test_fill_takes_given_values_and_defaults_and_no_strangers() -> None:
    declared = read(Method)
    assert fill(declared, {"width": "64"}, "method") == {"width": 64, "rate": 0.01, "plain": False}
    assert fill(declared, {}, "method") == {"width": 128, "rate": 0.01, "plain": False}
    with pytest.raises(UsageError, match="no hyper-parameter of method is called 'widht'; did you mean width"):
        fill(declared, {"widht": 3}, "method")


def test_an_unknown_name_is_answered_with_the_nearest_or_all() -> None:
    assert str(unknown("fuser", "concta", ["concat", "jmt"])) == "no fuser is called 'concta'; did you mean concat?"
    assert str(unknown("fuser", "zzzz", ["jmt", "concat"])).endswith("; there are: concat, jmt")
    assert str(unknown("fuser", "zzzz", [])).endswith("; there are none")


@given(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans())
@settings(max_examples=30, deadline=None)
def test_what_a_record_spells_parses_back(whole: int, number: float, flag: bool) -> None:
    for kind, value in ((int, whole), (float, number), (bool, flag)):
        assert HParam("name", kind, None).parse(str(value)) == value
        assert HParam("name", kind | None, None).parse(str(value)) == value


@pytest.mark.parametrize("declared", DECLARED)
def test_spelling_out_a_default_is_the_same_run(declared: HParam) -> None:
    """The id of a run hashes the values: the default and the same number given as a flag may not differ in type."""
    default = declared.default
    spelled = ",".join(map(str, default)) if isinstance(default, tuple) else "none" if default is None else str(default)
    parsed = declared.parse(spelled)
    assert repr(parsed) == repr(default)

"""Dataclasses from JSON, each value of its declared type: what a damaged or foreign file holds is refused by name."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from math import isfinite
from typing import Any

Check = Callable[[Any], bool]


def build(cls: Any, content: Any) -> Any:
    """An instance of a dataclass from a JSON object; fields that it does not know are left out.

    Raises:
        ValueError: it is no object, lacks a field, or a value is not of the declared type.
    """
    if not isinstance(content, dict):
        raise ValueError(f"a {cls.__name__} is a table, not {_short(content)}")
    checks = _checks(cls)
    for name, value in content.items():
        if name in checks and not checks[name](value):
            raise ValueError(f"{name} of a {cls.__name__} cannot be {_short(value)}")
    try:
        return cls(**{name: value for name, value in content.items() if name in checks})
    except TypeError as error:  # a field without a default is not there
        raise ValueError(str(error).partition(") ")[2] or str(error)) from None


@cache
def _checks(cls: Any) -> dict[str, Check]:
    hints = typing.get_type_hints(cls)
    return {field.name: _check(hints[field.name]) for field in fields(cls)}


def _check(hint: Any) -> Check:
    """A test for values that JSON can hold, of a type made of scalars, mappings, sequences, unions and dataclasses."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if set(arguments) == {float, type(None)}:  # most of a record are these
            return lambda value: value is None or (type(value) in (float, int) and isfinite(value))
        options = [_check(argument) for argument in arguments]
        return lambda value: any(option(value) for option in options)
    if origin in (dict, Mapping):
        inner = _check(arguments[1])
        return lambda value: isinstance(value, dict) and all(map(inner, value.values()))
    if origin in (list, tuple, Sequence):
        inner = _check(arguments[0])
        return lambda value: isinstance(value, list | tuple) and all(map(inner, value))
    if hint is float:
        return lambda value: type(value) in (float, int) and isfinite(value)
    if hint is int:
        return lambda value: type(value) is int
    if hint is type(None):
        return lambda value: value is None
    if hint is Any:
        return lambda value: True
    return lambda value: isinstance(value, hint)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."

"""A hyper-parameter is one keyword-only argument: its default, flag, help text and search range are that one line."""

from __future__ import annotations

import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fusionbench.errors import UsageError, unknown


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included, searched on a logarithmic scale if `log`."""

    low: float
    high: float
    log: bool = False

    def corners(self) -> tuple[float, ...]:
        return (self.low, self.high)

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}{', log' if self.log else ''}"


@dataclass(frozen=True, init=False)
class Choice:
    """One of the given values."""

    values: tuple[Any, ...]

    def __init__(self, *values: Any) -> None:
        object.__setattr__(self, "values", values)

    def corners(self) -> tuple[Any, ...]:
        return self.values

    def __str__(self) -> str:
        return " | ".join(str(value) for value in self.values)


class Location:
    """Marks a hyper-parameter that says where the data lie on this machine: no part of what a run is."""


class Added:
    """Marks a hyper-parameter that came after runs were published: at its default it is no part of what a run is."""


@dataclass(frozen=True)
class HParam:
    """One declared hyper-parameter. `domain` guides search only: any value of `type` constructs; words are listed."""

    name: str
    type: Any
    default: Any
    domain: Range | Choice | None = None
    help: str = ""
    location: bool = False
    added: bool = False

    def parse(self, value: Any) -> Any:
        """`value` (text from a command line, or a Python value) as this hyper-parameter's type.

        Raises:
            UsageError: the value is not of the declared type, or a word that its `Choice` does not list.
        """
        try:
            parsed = _convert(self.type, value)
        except (TypeError, ValueError, OverflowError):
            raise UsageError(f"{self.name} takes {_spell(self.type)}, not {value!r}") from None
        if isinstance(parsed, str) and isinstance(self.domain, Choice) and parsed not in self.domain.values:
            raise UsageError(f"{self.name} takes {' or '.join(map(str, self.domain.values))}, not {value!r}")
        return parsed


_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def read(target: Callable[..., Any]) -> dict[str, HParam]:
    """The hyper-parameters of a class or function: its keyword-only arguments, in order.

    Raises:
        UsageError: an argument has no type or no default, or its type names what is not there.
    """
    init = target.__init__ if inspect.isclass(target) else target
    try:
        hints = typing.get_type_hints(init, include_extras=True)
    except (NameError, AttributeError, TypeError, SyntaxError) as error:
        raise UsageError(f"the types of {getattr(target, '__name__', target)}'s arguments: {error}") from None
    found = {}
    for name, parameter in inspect.signature(init).parameters.items():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        where = f"hyper-parameter {name!r} of {getattr(target, '__name__', target)}"
        if name not in hints:
            raise UsageError(f"{where} has no type: write `{name}: Annotated[int, Range(1, 4), 'what it is'] = 2`")
        if parameter.default is inspect.Parameter.empty:
            raise UsageError(f"{where} has no default")
        hint: Any = hints[name]
        extras: list[Any] = []
        if typing.get_origin(hint) is typing.Annotated:
            hint, *extras = typing.get_args(hint)
        domain = next((e for e in extras if isinstance(e, Range | Choice)), None)
        text = next((e for e in extras if isinstance(e, str)), "")
        location = any(e is Location or isinstance(e, Location) for e in extras)
        added = any(e is Added for e in extras)
        found[name] = HParam(name, hint, parameter.default, domain, text, location, added)
    return found


def fill(declared: Mapping[str, HParam], given: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """Every declared hyper-parameter with the given value or its default; `owner` names the plugin in errors.

    Raises:
        UsageError: a given name is not declared, or a value has the wrong type, or is negative where none in its range
            is (a value beyond the range is allowed: ranges guide a search).
    """
    for name in given:
        if name not in declared:
            raise unknown(f"hyper-parameter of {owner}", name, declared)
    filled = {name: h.parse(given[name]) if name in given else h.default for name, h in declared.items()}
    for name in given:
        domain, value = declared[name].domain, filled[name]
        if isinstance(domain, Range) and domain.low >= 0 and isinstance(value, int | float) and value < 0:
            raise UsageError(f"{owner}: {name} cannot be {value}: its range is {domain}")
    return filled


def _convert(kind: Any, value: Any) -> Any:
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):  # `int | None`
        if value is None or value == "none":
            return None
        return _convert(next(a for a in typing.get_args(kind) if a is not type(None)), value)
    if origin is tuple:  # `tuple[float, ...]`, written 1e-3,3e-3
        items = [v for v in value.split(",") if v] if isinstance(value, str) else value
        if not isinstance(items, list | tuple):
            items = [items]
        return tuple(_convert(typing.get_args(kind)[0], item) for item in items)
    if kind is bool:
        if isinstance(value, bool):
            return value
        if str(value).lower() not in _BOOLEANS:
            raise ValueError
        return _BOOLEANS[str(value).lower()]
    if kind is int:
        whole = int(value)
        if isinstance(value, bool) or (isinstance(value, float) and value != whole):
            raise ValueError
        return whole
    if kind is float:
        if isinstance(value, bool) or not math.isfinite(number := float(value)):
            raise ValueError
        return number
    if kind is str:
        if not isinstance(value, str):
            raise ValueError
        return value
    raise UsageError(f"hyper-parameters are int, float, bool, str, tuples of these, or one of these | None, not {kind}")


def _spell(kind: Any) -> str:
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join("none" if a is type(None) else _spell(a) for a in typing.get_args(kind))
    if origin is tuple:
        return f"{_spell(typing.get_args(kind)[0])}, or several with commas"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(kind, str(kind))

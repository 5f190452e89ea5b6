"""Recipes as values: frozen, nested dataclasses to and from JSON, with typed overrides.

Everything is strict. An unknown name is refused with the nearest valid one, a wrong type with the expected
one; nothing is converted in silence, except that a whole number is accepted where a float is wanted.
"""

import ast
import contextlib
import dataclasses
import difflib
import inspect
import itertools
import json
import math
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from karui.errors import UserError
from karui.files import atomic_write

Recipe = TypeVar("Recipe")

_WORDS = {bool: "true or false", int: "whole number", float: "number", str: "text", type(None): "none"}


class FieldLine(NamedTuple):
    """One line of a listing: dotted name, type in words, default as JSON, docstring."""

    name: str
    type: str
    default: str
    doc: str


def to_dict(recipe: Any) -> dict[str, Any]:
    """Return a recipe as plain dicts, lists, strings, numbers and None."""
    return json.loads(json.dumps(dataclasses.asdict(recipe)))


def from_dict(cls: type[Recipe], values: Mapping[str, Any], *, where: str = "") -> Recipe:
    """Return a recipe from what `to_dict` returned; missing fields keep their defaults.

    Raises:
        UserError: an unknown name or a wrong type, naming the dotted field (after `where`).
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{where or cls.__name__} must be a group of named values, got {values!r}")
    hints = typing.get_type_hints(cls)
    known = [field.name for field in dataclasses.fields(typing.cast("Any", cls))]
    built = {}
    for name, value in values.items():
        dotted = f"{where}.{name}" if where else name
        if name not in known:
            choices = [f"{where}.{choice}" if where else choice for choice in known]
            raise UserError(_unknown(dotted, choices))
        built[name] = _checked(hints[name], value, dotted)
    return _construct(cls, built, where)


def with_overrides(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """Return a recipe with `["model.hidden_size=650", "train.lr=1e-3"]` applied in order.

    Values are read by the field's type: numbers, true/false, none for an optional field, tuples as `a,b,c`,
    and everything else as the text itself.

    Raises:
        UserError: not of the form name=value, an unknown name, or a value of the wrong type.
    """
    values = to_dict(recipe)
    for override in overrides:
        dotted, equals, text = (part.strip() for part in override.partition("="))
        if not equals:
            raise UserError(f"cannot read {override!r}; write a name, =, and a value, such as train.lr=1e-3")
        group, hint = _find(type(recipe), values, dotted)
        group[dotted.rpartition(".")[2]] = _parsed(hint, text, dotted)
    return from_dict(type(recipe), values)


def save(recipe: Any, path: Path | str) -> None:
    """Write a recipe as JSON, in one atomic step."""
    atomic_write(path, json.dumps(to_dict(recipe), indent=2) + "\n")


def load(cls: type[Recipe], path: Path | str) -> Recipe:
    """Read a recipe from JSON.

    Raises:
        UserError: the file is missing, is not JSON, or holds an unknown name or a wrong type.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"there is no {path}; name a run folder that `karui train` wrote") from error
    except ValueError as error:  # covers wrong JSON and wrong UTF-8
        raise UserError(f"cannot read {path}: {error}; it must be JSON as `karui train` writes it") from error
    try:
        return from_dict(cls, values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def fields_of(cls: Any, prefix: str = "") -> Iterator[FieldLine]:
    """Yield all fields of a recipe class, nested ones under dotted names, for help pages and docs."""
    hints, docs = typing.get_type_hints(cls), _docstrings(cls)
    for field in dataclasses.fields(cls):
        name, hint = f"{prefix}{field.name}", hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from fields_of(hint, f"{name}.")
            continue
        factory = field.default_factory
        default = factory() if factory is not dataclasses.MISSING else field.default
        shown = "" if default is dataclasses.MISSING else json.dumps(default)
        yield FieldLine(name, type_in_words(hint), shown, docs.get(field.name, ""))


def type_in_words(hint: Any) -> str:
    """Return a type as a person would say it: "int", "one of adam, adamw", "list of int", "text or none"."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(str, args))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_in_words(arg) for arg in args)
    if origin is tuple:
        if args[-1] is ...:
            return f"list of {type_in_words(args[0])}"
        return f"{len(args)} values: {', '.join(map(type_in_words, args))}"
    if origin is dict:
        return f"{type_in_words(args[1])} by name"
    return _WORDS.get(hint) or getattr(hint, "__name__", str(hint))


def _find(root: Any, values: dict[str, Any], dotted: str) -> tuple[dict[str, Any], Any]:
    """Return the group that holds the field `dotted`, and the field's type."""
    group: Any = root
    names = dotted.split(".")
    for depth, name in enumerate(names):
        hints = typing.get_type_hints(group)
        if name not in hints:
            raise UserError(_unknown(dotted, [line.name for line in fields_of(root)]))
        hint, is_last = hints[name], depth + 1 == len(names)
        if dataclasses.is_dataclass(hint) and is_last:
            first = dataclasses.fields(hint)[0].name
            raise UserError(f"{dotted} is a group; set one of its fields, such as {dotted}.{first}")
        if is_last:
            return values, hint
        if not dataclasses.is_dataclass(hint):
            raise UserError(f"{'.'.join(names[: depth + 1])} has no fields, so {dotted} cannot be set")
        group, values = hint, values[name]
    raise AssertionError(dotted)  # split always gives a name


def _checked(hint: Any, value: Any, dotted: str) -> Any:
    """Return `value` (from JSON) as the type `hint`, or refuse it."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast("Any", hint), value, where=dotted)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        *others, last = (arg for arg in args if arg is not type(None))
        for arg in others:
            with contextlib.suppress(UserError):
                return _checked(arg, value, dotted)
        if not others:
            return _checked(last, value, dotted)
        with contextlib.suppress(UserError):
            return _checked(last, value, dotted)
    if origin is tuple and isinstance(value, list | tuple):
        inner = [args[0]] * len(value) if args[-1] is ... else list(args)
        if len(inner) == len(value):
            return tuple(_checked(one, part, dotted) for one, part in zip(inner, value, strict=True))
    elif origin is dict and isinstance(value, Mapping):
        return {str(key): _checked(args[1], part, f"{dotted}.{key}") for key, part in value.items()}
    elif origin is Literal:
        if value in args:
            return value
        near = difflib.get_close_matches(str(value), map(str, args), n=1)
        hint_text = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(f"{dotted} must be {type_in_words(hint)}, got {value!r}{hint_text}")
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isnan(value):
            return float(value)
    elif isinstance(hint, type) and type(value) is hint:
        return value
    raise UserError(f"{dotted} must be {type_in_words(hint)}, got {value!r}")


def _parsed(hint: Any, text: str, dotted: str) -> Any:
    """Return the text of an override as JSON would hold it, guided by the type."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if text.lower() in ("none", "null") and type(None) in args:
            return None
        return _parsed(next(arg for arg in args if arg is not type(None)), text, dotted)
    if origin is tuple:
        parts = [part.strip() for part in text.strip("[]()").split(",")]
        inner = args[0] if args[-1] is ... else None
        return [
            _parsed(inner or args[min(i, len(args) - 1)], part, dotted)
            for i, part in enumerate(parts)
            if part
        ]
    if origin is dict or hint in (int, float, bool):
        try:
            return _number(hint, text)
        except ValueError as error:
            raise UserError(f"{dotted} must be {type_in_words(hint)}, got {text!r}") from error
    return text


def _number(hint: Any, text: str) -> Any:
    if hint is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    if hint in (int, float):
        return hint(text)
    return json.loads(text)


def _construct(cls: Any, values: dict[str, Any], where: str) -> Any:
    try:
        return cls(**values)
    except ValueError as error:  # a value out of range, worded by __post_init__ as "lr must be > 0, got -1"
        raise UserError(f"{where}.{error}" if where else str(error)) from error


def _unknown(dotted: str, choices: Sequence[str]) -> str:
    """Word the refusal of an unknown name: the same last name elsewhere, else the nearest spelling."""
    last = dotted.rpartition(".")[2]
    near = [choice for choice in choices if choice.rpartition(".")[2] == last]
    near = near or difflib.get_close_matches(dotted, choices, n=1)
    return f"no setting {dotted!r}; " + (
        f"did you mean {near[0]!r}?" if near else f"the settings are {', '.join(choices)}"
    )


def _docstrings(cls: Any) -> dict[str, str]:
    """Return the string that follows each field in the source of a dataclass."""
    body = typing.cast("Any", ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]).body
    found = {}
    for field, doc in itertools.pairwise(body):
        match field, doc:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = " ".join(text.split())
    return found

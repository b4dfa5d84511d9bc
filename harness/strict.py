"""TOML that people write, read strictly: an unknown key is an error that names the nearest known one.

Messages repeat names and kinds, never a value: somebody may have put a secret where none belongs. This module
does not know what the files mean.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from harness.errors import UsageError, did_you_mean
from harness.secrets import redact

_Kind = TypeVar("_Kind")
_Step = str | int
"""From a table or list to what is in it: a key, or a position from 0."""

_WORDS = {
    "NoneType": "nothing",
    "array": "list",
    "bool": "true or false",
    "dict": "table",
    "float": "number",
    "int": "integer",
    "list": "list",
    "object": "table",
    "str": "text",
}
"""What kinds of values are called in TOML, by their names in msgspec and Python."""
_MISTYPED = re.compile(r"Expected `(?P<expected>[^`]+)`, got `(?P<found>[^`]+)`")
_PLACED = re.compile(r"(?P<problem>.*?)(?: - at `\$\.?(?P<path>.*)`)?", re.DOTALL)


def read_toml(path: Path, place: str) -> dict[str, Any]:
    """The table of a TOML file.

    Args:
        path: the file.
        place: what messages begin with: "--tasks file:questions.jsonl: questions.toml".

    Raises:
        UsageError: it cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"{place}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{place}: not TOML: {_line(str(error))}") from error


def strict(found: object, kind: type[_Kind], place: str) -> _Kind:
    """A table as the record it must be, and the tables in it as those that they must be.

    Args:
        found: the table.
        kind: the record, a msgspec struct or a dataclass; its fields are the keys, a key without a default
            must be there. For a `Path` the table has its text.
        place: what messages begin with.

    Raises:
        UsageError: it is no table, has an unknown key, lacks one, or a value is of another type.
    """
    if not isinstance(found, Mapping):
        raise UsageError(f"{place}: expected a table, found {_word(type(found).__name__)}")
    for path, key, known in _unknown(found, inspect.type_info(kind), ()):
        hint = did_you_mean(key, known)
        raise UsageError(_line(f"{_at(place, found, path)}: no key {key!r}. {hint}"))
    try:
        return msgspec.convert(found, kind, dec_hook=_as_path)
    except msgspec.ValidationError as error:
        parsed = _PLACED.fullmatch(str(error))
        assert parsed is not None
        path = _steps(parsed["path"] or "")
        said = _plainly(parsed["problem"], inspect.type_info(kind), path)
        raise UsageError(_line(f"{_at(place, found, path)}: {said}")) from error


def _as_path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str | Path):
        return Path(value)
    raise TypeError(f"Expected `str`, got `{type(value).__name__}`")


def _unknown(
    found: object, kind: inspect.Type, path: tuple[_Step, ...]
) -> Iterator[tuple[tuple[_Step, ...], str, list[str]]]:
    """Every key that no record has a field for: where it stands, its name, and the names known there."""
    steps: list[tuple[_Step, object]] = []
    if isinstance(found, Mapping):
        known = [field.encode_name for each in _records(kind) for field in each.fields]
        anything = any(isinstance(each, inspect.DictType | inspect.AnyType) for each in _options(kind))
        steps = list(found.items())
        if known and not anything:
            yield from ((path, str(key), known) for key in found if key not in known)
    elif isinstance(found, list):
        steps = list(enumerate(found))
    for step, value in steps:
        for inner in _inside(kind, step):
            yield from _unknown(value, inner, (*path, step))


def _plainly(problem: str, kind: inspect.Type, path: Sequence[_Step]) -> str:
    """What msgspec finds wrong at a place, in the words of TOML."""
    if mistyped := _MISTYPED.fullmatch(problem):
        expected = [_word(each) for each in mistyped["expected"].split(" | ") if each != "null"]
        return f"expected {' or '.join(expected)}, found {_word(mistyped['found'])}"
    if missing := re.fullmatch(r"Object missing required field `(.+)`", problem):
        return f"{missing[1]} is missing"
    if problem.startswith("Invalid enum value"):
        kinds = [kind]
        for step in path:
            kinds = [inner for each in kinds for inner in _inside(each, step)]
        options = [each for one in kinds for each in _options(one)]
        literals = [each for each in options if isinstance(each, inspect.LiteralType)]
        words = [str(value) for each in literals for value in each.values]
        if any(isinstance(each, inspect.IntType) for each in options):
            return f"expected {' or '.join([*words, _word('int')])}"
        return f"expected one of {', '.join(words)}"
    return problem


def _inside(kind: inspect.Type, step: _Step) -> list[inspect.Type]:
    """What may stand one step deeper."""
    found: list[inspect.Type] = []
    for each in _options(kind):
        if isinstance(each, inspect.ListType | inspect.VarTupleType) and isinstance(step, int):
            found.append(each.item_type)
        elif isinstance(each, inspect.DictType) and isinstance(step, str):
            found.append(each.value_type)
    fields = (field for each in _records(kind) for field in each.fields)
    return found + [field.type for field in fields if field.encode_name == step]


def _records(kind: inspect.Type) -> list[inspect.StructType | inspect.DataclassType]:
    return [each for each in _options(kind) if isinstance(each, inspect.StructType | inspect.DataclassType)]


def _options(kind: inspect.Type) -> Sequence[inspect.Type]:
    """The kinds that a value may have."""
    return kind.types if isinstance(kind, inspect.UnionType) else (kind,)


def _steps(path: str) -> tuple[_Step, ...]:
    """The steps of a path as msgspec writes it: `endpoints[1].rpm`; it leaves out the keys of mappings."""
    steps = re.findall(r"\[(\d+|\.\.\.)\]|([^.\[\]]+)", path)
    return tuple(name or (int(at) if at.isdigit() else "...") for at, name in steps)


def _at(place: str, found: object, path: Sequence[_Step]) -> str:
    """A place inside a file: `suite.toml: [[endpoints]] 2, rpm`; positions count from 1."""
    shown: list[str] = []
    for step in path:
        try:
            found = found[step]  # type: ignore[index]
        except (LookupError, TypeError):
            found = None
        if isinstance(step, str):
            shown.append(step)
        elif isinstance(found, Mapping) and shown:
            shown[-1] = f"[[{shown[-1]}]] {step + 1}"
        else:
            shown[-1:] = [f"{shown[-1] if shown else ''} {step + 1}".strip()]
    return f"{place}: {', '.join(shown)}" if shown else place


def _word(kind: str) -> str:
    return _WORDS.get(kind, kind)


def _line(text: str) -> str:
    """One line, without what looks like a token."""
    return " ".join(redact(text).split())

"""Lists of tasks as people write them: `NAME@N`, `[[tasks]]` tables, and the named suites that ship.

A named suite is `tasks/suites/NAME.toml`. This module does not know which names there are of tasks.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

import msgspec

from harness.choosing.registry import suites_folder
from harness.errors import UsageError
from harness.strict import read_toml, strict


@dataclass(frozen=True, slots=True)
class Named:
    """A task as somebody names it."""

    name: str
    shots: int | None = None
    """Shots of this task only; they win over `--shots`."""

    def text(self) -> str:
        """As `--tasks` takes it."""
        return self.name if self.shots is None else f"{self.name}@{self.shots}"


@dataclass(frozen=True, slots=True)
class NamedSuite:
    """A list of tasks that ships under a name."""

    name: str
    description: str
    tasks: tuple[Named, ...]


class _Table(msgspec.Struct):
    name: str
    shots: int | None = None


class _File(msgspec.Struct):
    description: str
    tasks: list[Any]


def named(text: str) -> Named:
    """What `NAME` or `NAME@N` asks for; an `@` that no number follows belongs to the name."""
    name, at, number = text.rpartition("@")
    if at and number.isascii() and number.isdigit():
        return Named(name, int(number))
    return Named(text)


def cut_at_comma(path: Path) -> str:
    """A hint where a path is not there because it was cut at a comma of its own; empty elsewhere."""
    with suppress(OSError, ValueError):
        for found in sorted(path.parent.glob(f"{escape(path.name)},*")):
            return f"; {found.name!r} is: a comma separates two tasks, and may stand in no path: rename it"
    return ""


def read_tables(found: object, place: str) -> tuple[Named, ...]:
    """The tasks of `[[tasks]]` tables: `name`, and `shots` where the task's own number is not meant.

    Args:
        found: what the file has under `tasks`.
        place: what messages begin with, such as the file's name.

    Raises:
        UsageError: it is no list of such tables; the text names the table by its number, from 1.
    """
    if not isinstance(found, list) or not found:
        raise UsageError(f"{place}: expected [[tasks]] tables")
    return tuple(_read_table(each, f"{place}: [[tasks]] {at}") for at, each in enumerate(found, start=1))


def suite_names() -> list[str]:
    """The names of the suites that ship, sorted."""
    return sorted(file.stem for file in suites_folder().glob("*.toml"))


def load_suite(name: str) -> NamedSuite:
    """The suite of that name, one of `suite_names()`.

    Raises:
        UsageError: its file says something else than a suite does.
    """
    return read_suite(suites_folder() / f"{name}.toml")


def read_suite(file: Path) -> NamedSuite:
    """The named suite that a file holds: `description` and `[[tasks]]`. Raises as `load_suite` does."""
    place = f"suites/{file.name}"
    read = strict(read_toml(file, place), _File, place)
    return NamedSuite(file.stem, read.description.strip(), read_tables(read.tasks, place))


def _read_table(found: object, place: str) -> Named:
    table = strict(found, _Table, place)
    if table.shots is not None and table.shots < 0:
        raise UsageError(f"{place}: shots {table.shots}: must be 0 or more")
    if not table.name.strip() or "," in table.name:
        raise UsageError(
            f"{place}: name {table.name!r}: expected the name of one task; a comma separates two, and may"
            " stand in no path"
        )
    if table.shots is not None and named(table.name).shots is not None:
        raise UsageError(f"{place}: shots stand in the name {table.name!r} and beside it; choose one")
    return Named(table.name.strip(), table.shots) if table.shots is not None else named(table.name.strip())

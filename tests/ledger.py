"""What the tests tried and what was lost by it, added up row by row: the table in `README.md`.

A test calls `note` when it is done, and so does a command of `bench/`. A session prints its rows, fails where
one has lost something, and with `--ledger` writes them into the table; rows that it did not come to stay as
they were.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
README = FOLDER / "README.md"
BEGIN, END = "<!-- ledger: written by `make ledger` -->", "<!-- end of ledger -->"

_HEAD = "| what | tried | lost | by |\n| --- | ---: | ---: | --- |\n"
_LINE = re.compile(r"\| (?P<row>[^|]+) \| (?P<tried>[0-9,]+) (?P<unit>[^|]+) \| (?P<lost>[0-9,]+) \|")


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table."""

    tried: int
    lost: int
    unit: str
    """What was counted, in the plural."""


_noted: dict[str, Row] = {}


def note(row: str, *, tried: int, lost: int, unit: str) -> None:
    """Add to a row.

    Args:
        row: its name, written out where this is called: the table's test finds it there.
        tried: how much was tried.
        lost: of it, with anything lost, leaked or wrongly believed.
        unit: what is counted, in the plural.
    """
    before = _noted.get(row, Row(0, 0, unit))
    assert before.unit == unit, f"ledger: {row!r} counts {before.unit} elsewhere, and {unit} here"
    _noted[row] = Row(before.tried + tried, before.lost + lost, unit)


def noted() -> Mapping[str, Row]:
    """The rows of this session."""
    return dict(_noted)


def lines(rows: Mapping[str, Row]) -> list[str]:
    """The rows as people read them."""
    return [f"| {name} | {row.tried:,} {row.unit} | {row.lost:,} |" for name, row in rows.items()]


def written(readme: str) -> dict[str, Row]:
    """The rows of the table in a text that has one."""
    _, _, rest = readme.partition(BEGIN)
    table, _, _ = rest.partition(END)
    return {
        found["row"]: Row(_count(found["tried"]), _count(found["lost"]), found["unit"])
        for found in _LINE.finditer(table)
    }


def renewed(readme: str, rows: Mapping[str, Row], known: Mapping[str, Sequence[str]]) -> str:
    """The text with these rows in its table, in the order of `known`; what is not known is dropped."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin and end, "the table's place is not marked"
    all_rows = {**written(readme), **rows}
    kept = {name: all_rows[name] for name in known if name in all_rows}
    files = (", ".join(f"`{file}`" for file in known[name]) for name in kept)
    table = "".join(f"{line} {by} |\n" for line, by in zip(lines(kept), files, strict=True))
    return before + begin + "\n" + _HEAD + table + end + after


def write() -> None:
    """Put the rows of this session into the table."""
    README.write_text(renewed(README.read_text(), _noted, known()))


def known(folder: Path = FOLDER) -> dict[str, list[str]]:
    """The rows that there are: the files that note each, by the names as calls write them."""
    found: dict[str, list[str]] = {}
    for file in sorted(folder.rglob("*.py")):
        text = file.read_text()
        if "tests.ledger import" not in text:
            continue
        for call in ast.walk(ast.parse(text)):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "note":
                name = call.args[0]
                assert isinstance(name, ast.Constant), f"{file.name}:{call.lineno}: write the row's name out"
                files = found.setdefault(str(name.value), [])
                files += {file.relative_to(folder).as_posix()} - {*files}
    return found


def _count(text: str) -> int:
    return int(text.replace(",", ""))

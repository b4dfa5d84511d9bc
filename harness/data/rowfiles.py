"""Rows out of one file: Parquet, JSON Lines or CSV, streamed, every failure with its place.

A reader looks at the columns at once and returns a function that reads the file from its start each time
it is called. This module does not know what a task is, nor which columns it needs.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import UsageError

BUFFER_BYTES = 1 << 20
"""Of each column of a Parquet file, read ahead."""
BATCH_ROWS = 1024
"""Rows of a Parquet file that are in memory at a time."""

Record = tuple[str, dict[str, Any]]
"""Where in the file ("line 3"), and the columns found there."""
Records = Callable[[], Iterator[Record]]


class RowFile(NamedTuple):
    """A file that has been opened once and can be read as often as needed."""

    columns: Sequence[str] | None
    """None where each row has its own."""
    records: Records


def read_parquet(path: Path, name: str) -> RowFile:
    """The rows of a Parquet file, read in record batches; places count rows from 0.

    Args:
        path: the file.
        name: what messages call it.

    Raises:
        UsageError: the file is no Parquet file; while it is read: it is damaged.
    """
    import pyarrow as pa
    from pyarrow import parquet

    # UnicodeDecodeError, of a text column that is not UTF-8, is a ValueError.
    failures = (pa.ArrowException, OSError, ValueError, OverflowError)
    try:
        schema = parquet.read_schema(path)
    except failures as error:
        raise UsageError(f"{name}: not a readable Parquet file: {first_line(error)}") from error

    def records() -> Iterator[Record]:
        number = 0
        try:
            with parquet.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER_BYTES) as file:
                for batch in file.iter_batches(batch_size=BATCH_ROWS):
                    for values in batch.to_pylist():
                        yield row_place(number), values
                        number += 1
        except failures as error:
            raise UsageError(f"{name}: unreadable after {number} rows: {first_line(error)}") from error

    return RowFile(schema.names, records)


def read_jsonl(path: Path, name: str) -> RowFile:
    """The objects of a JSON Lines file, one a line; empty lines are no rows.

    Raises:
        UsageError: while it is read, at the first line that is not UTF-8, not JSON, or no object.
    """

    def records() -> Iterator[Record]:
        for number, line in enumerate(_lines(path, name), start=1):
            if line.strip():
                yield f"line {number}", _object(line, f"{name} line {number}")

    return RowFile(None, records)


def read_csv(path: Path, name: str) -> RowFile:
    """The rows of a CSV file with a header; cells stay text, so that "None" or "nan" survive as answers.

    A row's place is the line it begins on; rows may span lines. Empty lines are no rows.

    Raises:
        UsageError: not UTF-8, or not CSV; while it is read, also a wrong number of cells.
    """

    def records() -> Iterator[Record]:
        found = _cells(path, name)
        _, header = next(found, (1, []))
        for line, cells in found:
            if len(cells) != len(header):
                raise UsageError(f"{name} line {line}: {len(cells)} cells where the header has {len(header)}")
            yield f"line {line}", dict(zip(header, cells, strict=True))

    _, columns = next(_cells(path, name), (1, []))
    return RowFile(columns, records)


READERS = {".parquet": read_parquet, ".jsonl": read_jsonl, ".csv": read_csv}
"""By the end of the file's name, in order of preference."""


def row_place(number: int) -> str:
    """The place of a row in what has no lines."""
    return f"row {number} (from 0)"


def first_line(error: BaseException) -> str:
    """What a foreign error says, cut to one line."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def _lines(path: Path, name: str) -> Iterator[str]:
    number = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{name} line {number}: not UTF-8 text: {error.reason}") from error
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror}") from error


def _object(line: str, place: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{place}: not JSON: {first_line(error)}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{place}: expected a JSON object, found {type(found).__name__}")
    return found


def _cells(path: Path, name: str) -> Iterator[tuple[int, list[str]]]:
    """The records of a CSV file that are not empty, each with the line it begins on."""
    reader = csv.reader(_lines(path, name), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise UsageError(f"{name} line {line}: not CSV: {error}") from error
        if cells is None:
            return
        if cells:
            yield line, cells

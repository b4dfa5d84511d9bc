"""Rows out of one file: Parquet, JSON Lines or CSV, streamed, every failure with its place.

A reader looks at the columns at once and returns a function that reads the file from its start each time
it is called. A line that is broken is a record without values that says why, and does not end the file. This
module does not know what a task is, nor which columns it needs.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import UsageError

BUFFER_BYTES = 1 << 20
"""Of each column of a Parquet file, read ahead."""
BATCH_ROWS = 1024
"""Rows of a Parquet file that are in memory at a time."""

LONGEST_LINE = 64 << 20
"""Bytes of a line: what has no line breaks would be read into memory whole."""
CELL_CHARACTERS = 16 << 20
"""Of one cell of a CSV file: a quotation mark too many would else make one of the rest of the file."""


class Record(NamedTuple):
    """One row of a file, as found."""

    place: str
    """Where in the file: "line 3"."""
    values: dict[str, Any]
    """The columns found there."""
    broken: str = ""
    """Why there are none, if so."""


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
                # In one thread: of every other one some megabytes of pyarrow's memory would stay.
                for batch in file.iter_batches(batch_size=BATCH_ROWS, use_threads=False):
                    for values in batch.to_pylist():
                        yield Record(row_place(number), values)
                        number += 1
        except failures as error:
            raise UsageError(f"{name}: unreadable after {number} rows: {first_line(error)}") from error

    return RowFile(schema.names, records)


def read_jsonl(path: Path, name: str) -> RowFile:
    """The objects of a JSON Lines file, one a line; empty lines are no rows.

    A line that is not JSON, or no object, is a broken record.

    Raises:
        UsageError: while it is read, at the first line that is not UTF-8.
    """

    def records() -> Iterator[Record]:
        for number, line in enumerate(_lines(path, name), start=1):
            if line.strip():
                yield _object(line, f"line {number}")

    return RowFile(None, records)


def read_csv(path: Path, name: str) -> RowFile:
    """The rows of a CSV file with a header; cells stay text, so that "None" or "nan" survive as answers.

    A row's place is the line it begins on; rows may span lines. Empty lines are no rows. What is not CSV, or
    has another number of cells than the header, is a broken record.

    Raises:
        UsageError: not UTF-8, or its header is not CSV.
    """

    def records() -> Iterator[Record]:
        found = _cells(path, name)
        header = next(found, _NO_HEADER).cells
        for line, cells, broken in found:
            if not broken and len(cells) != len(header):
                broken = f"{len(cells)} cells where the header has {len(header)}"
            values = {} if broken else dict(zip(header, cells, strict=True))
            yield Record(f"line {line}", values, broken)

    header = next(_cells(path, name), _NO_HEADER)
    if header.broken:
        raise UsageError(f"{name} line {header.line}: {header.broken}")
    return RowFile(header.cells, records)


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
            for number, line in enumerate(iter(partial(file.readline, LONGEST_LINE + 1), b""), start=1):
                if len(line) > LONGEST_LINE:
                    raise UsageError(
                        f"{name} line {number}: is longer than {LONGEST_LINE >> 20} MiB; a row is one line"
                    )
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{name} line {number}: not UTF-8 text: {error.reason}") from error
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror}") from error


def _object(line: str, place: str) -> Record:
    try:
        found = json.loads(line.rstrip("\r\n"))
    except json.JSONDecodeError as error:
        return Record(place, {}, f"not JSON: {error.msg}, column {error.colno}")
    except (ValueError, RecursionError) as error:
        return Record(place, {}, f"not JSON: {first_line(error)}")
    if not isinstance(found, dict):
        return Record(place, {}, f"expected a JSON object, found {type(found).__name__}")
    return Record(place, found)


class _Cells(NamedTuple):
    """A record of a CSV file."""

    line: int
    """The one it begins on."""
    cells: list[str]
    broken: str = ""


_NO_HEADER = _Cells(1, [])


def _cells(path: Path, name: str) -> Iterator[_Cells]:
    """The records of a CSV file that are not empty; after a broken one the next line begins another."""
    csv.field_size_limit(max(CELL_CHARACTERS, csv.field_size_limit()))  # of the process; by default 131,072
    reader = csv.reader(_lines(path, name), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield _Cells(line, [], _not_csv(error, line, reader.line_num))
            continue
        if cells is None:
            return
        if cells:
            yield _Cells(line, cells)


def _not_csv(error: csv.Error, first: int, last: int) -> str:
    """What is wrong with a record of a CSV file, and how far it went."""
    said = str(error)
    if said.startswith("field larger"):
        said = f"a cell of more than {csv.field_size_limit():,} characters; is a quotation mark missing?"
    upto = f" up to line {last}" if last > first else ""
    return f"not CSV{upto}: {said}"

"""Files that are whole or not there: written under another name, renamed at the end; and cells of CSV files.

A spreadsheet runs a text that looks like a formula, whoever wrote it. In CSV files such texts have an
apostrophe in front, which spreadsheets take for "this is text"; Parquet files have every text as it is. This
module does not know what the files of a run hold.
"""

from __future__ import annotations

import csv
import errno
import json
import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from itertools import accumulate, chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TextIO

from harness.errors import StoreError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_FULL = (errno.ENOSPC, errno.EDQUOT)

_NUMBERS = {"int8": "b", "int32": "i", "uint32": "I", "int64": "q", "double": "d"}
"""Types of numbers, as `array` calls them."""

_TRIGGER = "=+@\uff1d\uff0b\uff0d\uff20\\-"
"""What a formula may begin with, in either width."""
_AHEAD = r"(?:[^\S\t\r\n]|[\"'])*"
"""What spreadsheets may pass over before it."""
_BREAKS = r"(?<=[;\t\r\n])"
"""A reader that takes another sign than the comma for the end of a cell begins a new one after these."""
_RUNS = re.compile(rf"\A(?={_AHEAD}[{_TRIGGER}\t\r\n])|{_BREAKS}(?={_AHEAD}[{_TRIGGER}])")
_DONE = re.compile(rf"\A'(?={_AHEAD}[{_TRIGGER}\t\r\n])|{_BREAKS}'(?={_AHEAD}[{_TRIGGER}])")
_RUNS_IN_JSON = re.compile(rf"(;(?:[^\S\t\r\n]|\\*[\"'])*)([{_TRIGGER}])")


def safe_cell(text: str) -> str:
    """A text as it stands in a CSV file: with an apostrophe wherever a spreadsheet would see a formula."""
    return text if text.isalnum() else _RUNS.sub("'", text)  # as hashes are, and most names


def text_of_cell(cell: str) -> str:
    """The text that `safe_cell` was given."""
    return _DONE.sub("", cell)


def json_cell(values: Sequence[str]) -> str:
    """A list of texts as JSON in a CSV file: what would begin a formula is escaped.

    Any reader of JSON gets the texts as they are.
    """
    if "".join(values).isalnum():  # as hashes are: nothing in them is ever escaped
        return '["' + '", "'.join(values) + '"]'
    return _RUNS_IN_JSON.sub(_escaped, json.dumps(values, ensure_ascii=False))


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV with safe texts; numbers stay as they are, with ten significant digits."""
    texts = frame.select_dtypes(exclude=["number", "bool"]).columns
    safe = frame.assign(**{name: frame[name].map(_safe, na_action="ignore") for name in texts})
    with path.open("w", newline="", encoding="utf-8", errors="replace") as text:
        lines: Any = _Lines(text)  # pandas asks for no more than `write`, its stubs do
        safe.to_csv(lines, index=False, float_format="%.10g", lineterminator=_Lines.WRITTEN)


def csv_lines(text: TextIO) -> Callable[[Iterable[Any]], object]:
    """What writes rows of cells as CSV into a file; cells are written as they are."""
    return csv.writer(_Lines(text), lineterminator=_Lines.WRITTEN).writerow


class _Lines:
    """Ends lines with a line feed alone, where a writer of CSV was told to put a carriage return before it.

    That is so told, because else Python 3.11 quotes no cell for a carriage return in it: to most readers such
    a cell would end the row.
    """

    WRITTEN = "\r\n"

    def __init__(self, text: TextIO) -> None:
        self._text = text

    def write(self, line: str) -> int:
        """Write one line, as the writer gives them."""
        return self._text.write(line.removesuffix(self.WRITTEN) + "\n")


def _escaped(found: re.Match[str]) -> str:
    return f"{found[1]}\\u{ord(found[2]):04x}"


def _safe(value: Any) -> Any:
    return safe_cell(value) if isinstance(value, str) else value


def temporary(path: Path) -> Path:
    """The name under which a file is written until it is whole."""
    return path.with_name(f".{path.name}.new")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Where to write a file that takes the place of `path` once it is whole."""
    unfinished = temporary(path)
    try:
        yield unfinished
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    unfinished.replace(path)


@contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Turn what the file system raises into one `StoreError` that names the place."""
    try:
        yield
    except OSError as error:
        said = error.strerror or str(error)  # pyarrow raises its own, with a text alone
        full = error.errno in _FULL or "No space left" in said
        raise StoreError(f"{path}: {'the disk is full; make room' if full else said}") from error


class ParquetFile:
    """A Parquet file written in row groups of one size, or weight: the same rows give the same bytes."""

    def __init__(
        self,
        path: Path | IO[bytes],
        types: Mapping[str, str],
        group: int,
        *,
        recurring: Sequence[str] | None = None,
    ) -> None:
        """Create the file.

        Args:
            path: where it stands, or a file that is open for writing.
            types: of its columns.
            group: how much goes into a row group: rows, or what they weigh. Each group costs some kilobytes
                of memory until the file is closed.
            recurring: columns of few different values, which are stored once in a row group; None: all are
                tried so.
        """
        import pyarrow as pa
        from pyarrow import parquet

        self._types = types
        self._schema = pa.schema([(name, _arrow_type(text)) for name, text in types.items()])
        self._writer = parquet.ParquetWriter(
            path, self._schema, compression="zstd", use_dictionary=True if recurring is None else recurring
        )
        self._group = group
        self._rows: defaultdict[str, list[Sequence[Any]]] = defaultdict(list)
        self._weights: Counter[str] = Counter()

    def add(self, row: Sequence[Any], *, part: str = "", weight: int = 1) -> None:
        """Take one row; rows of different parts never share a row group."""
        self._rows[part].append(row)
        self._weights[part] += weight
        if self._weights[part] >= self._group:
            self._write(part)

    def close(self) -> None:
        """Write what is left, and the footer without which the file cannot be read."""
        try:
            for part in self._rows:
                self._write(part)
        finally:
            self._writer.close()

    def _write(self, part: str) -> None:
        import pyarrow as pa

        rows = self._rows[part]
        if rows:
            columns = zip(zip(*rows, strict=True), self._types.values(), strict=True)
            arrays = [_column(values, kind) for values, kind in columns]
            self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        self._rows[part] = []
        self._weights[part] = 0


def _column(values: Sequence[Any], kind: str) -> pa.Array:
    """A column of a type such as "list<int32>".

    Where it has no nulls it is made of its buffers: pyarrow's own way looks at one number after the other,
    and imports pandas, which nobody should have to wait for while requests are sent.
    """
    import pyarrow as pa

    try:
        return _from_buffers(values, kind)
    except (TypeError, OverflowError):  # a null, or more than one array holds
        return pa.array(values, _arrow_type(kind))


def _from_buffers(values: Sequence[Any], kind: str) -> pa.Array:
    """Raises TypeError where a value, or one in a list, is null."""
    import pyarrow as pa

    if kind.startswith("list<"):
        within = _from_buffers(list(chain.from_iterable(values)), _within(kind))
        buffers, children = [None, _offsets(values)], [within]
    elif kind == "string":
        texts = [*map(str.encode, values)]
        buffers, children = [None, _offsets(texts), pa.py_buffer(b"".join(texts))], []
    else:
        buffers, children = [None, pa.py_buffer(array(_NUMBERS[kind], values))], []
    return pa.Array.from_buffers(_arrow_type(kind), len(values), buffers, children=children)


def _offsets(values: Iterable[Sized]) -> pa.Buffer:
    """Where each begins and ends when all stand one after the other."""
    import pyarrow as pa

    return pa.py_buffer(array("i", accumulate(map(len, values), initial=0)))


def _arrow_type(text: str) -> pa.DataType:
    """The type that a name such as "list<int32>" spells."""
    import pyarrow as pa

    return pa.list_(_arrow_type(_within(text))) if text.startswith("list<") else pa.type_for_alias(text)


def _within(text: str) -> str:
    """The type of what is in a list: "int32" for "list<int32>"."""
    return text.removeprefix("list<").removesuffix(">")

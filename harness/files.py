"""Files that are whole or not there: written under another name, renamed at the end.

This module does not know what the files of a run hold.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import StoreError

if TYPE_CHECKING:
    import pyarrow as pa


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
        raise StoreError(f"{path}: {error.strerror or error}") from error


class ParquetFile:
    """A Parquet file written in row groups of one size, so that the same rows give the same bytes."""

    def __init__(self, path: Path, types: Mapping[str, str], group: int) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        self._schema = pa.schema([(name, _arrow_type(text)) for name, text in types.items()])
        self._writer = parquet.ParquetWriter(path, self._schema, compression="zstd")
        self._group = group
        self._rows: defaultdict[str, list[Sequence[Any]]] = defaultdict(list)

    def add(self, row: Sequence[Any], *, part: str = "") -> None:
        """Take one row; rows of different parts never share a row group."""
        self._rows[part].append(row)
        if len(self._rows[part]) == self._group:
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
            columns = zip(zip(*rows, strict=True), self._schema.types, strict=True)
            arrays = [pa.array(values, kind) for values, kind in columns]
            self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        self._rows[part] = []


def _arrow_type(text: str) -> pa.DataType:
    """The type that a name such as "list<int32>" spells."""
    import pyarrow as pa

    if text.startswith("list<"):
        return pa.list_(_arrow_type(text.removeprefix("list<").removesuffix(">")))
    return pa.type_for_alias(text)

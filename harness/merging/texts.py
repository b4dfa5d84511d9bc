"""`texts.parquet` of a run out of those of its shards: each item once, in the order of the run.

Rows are copied as they are, a row group at a time, so that memory does not grow with the files.
"""

from __future__ import annotations

import heapq
import sqlite3
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import StoreError
from harness.files import file_errors, replacing
from harness.journalfile import store_errors
from harness.texts import RECURRING, TEXT_TYPES

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import parquet

_ROWS, _BYTES = 1024, 4_000_000
"""Of a row group, at least, unless it is the last."""
_OPEN = 8
"""Row groups that are kept, as the next rows come from them too, and files that are kept open."""


@dataclass(frozen=True, slots=True)
class _Run:
    """Neighbouring rows of a row group, in the order of the run, all of one task."""

    file: Path
    group: int
    start: int
    """Row of the group."""
    ordinals: array[int]
    """Of the items; ascending."""


def join_texts(
    target: Path, files: Sequence[Path], journal: Path, stop: Callable[[], bool] = lambda: False
) -> None:
    """Write the texts of all items of a run that any of these files has.

    Args:
        target: where they are written; what stands there may be one of the files.
        files: as `harness.texts.TextWriter` makes them; where two have the same item, the first one's stays.
        journal: one that has all items of the run.
        stop: asked now and then whether to break off.

    Raises:
        StoreError: a file cannot be read, or written; or it was broken off.
    """
    there = [file for file in files if file.exists()]
    if not there or there == [target]:
        return
    with _reading(target), ExitStack() as opened:
        reader = _Reader()
        opened.callback(reader.close)
        places = opened.enter_context(_places(journal))
        runs: dict[str, list[_Run]] = {}
        for file in there:
            with _reading(file):
                for tokenizer, run in _runs(file, places):
                    runs.setdefault(tokenizer, []).append(run)
        path = opened.enter_context(replacing(target))
        writer = opened.enter_context(_Writer(path, reader.file(there[0]).schema_arrow))
        for each in runs.values():
            for run, start, end in _in_order(each):
                if stop():
                    raise StoreError(f"{target}: was broken off")
                with _reading(run.file):
                    writer.add(reader.group(run).slice(run.start + start, end - start))
            writer.flush()


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """What a file raises becomes one `StoreError`."""
    from pyarrow import ArrowException

    try:
        with file_errors(file):
            yield
    except (ArrowException, KeyError, ValueError) as error:
        said = " ".join(str(error).split())
        raise StoreError(f"{file}: cannot be read ({said[:200]}); move it away") from error


@contextmanager
def _places(journal: Path) -> Iterator[sqlite3.Connection]:
    """Ordinals by place, in a temporary file of SQLite's own."""
    with store_errors(journal), closing(sqlite3.connect("", uri=True, isolation_level=None)) as connection:
        connection.execute("ATTACH ? AS whole", (f"{journal.resolve().as_uri()}?mode=ro",))
        connection.execute(
            "CREATE TABLE places (task TEXT, subject TEXT, at INTEGER, ordinal INTEGER,"
            " PRIMARY KEY (task, subject, at)) WITHOUT ROWID"
        )
        connection.execute(
            'INSERT INTO places SELECT task, subject, "index", ordinal FROM whole.items ORDER BY 1, 2, 3'
        )
        yield connection


def _runs(file: Path, places: sqlite3.Connection) -> Iterator[tuple[str, _Run]]:
    """The runs of a file, each with its tokenizer; items that are not the run's are left out."""
    from pyarrow import parquet

    find = "SELECT ordinal FROM places WHERE task = ? AND subject = ? AND at = ?"
    with parquet.ParquetFile(file) as opened:
        for group in range(opened.num_row_groups):
            rows = opened.read_row_group(group, columns=["task", "subject", "index", "tokenizer"])
            columns = (rows[name].to_pylist() for name in ("task", "subject", "index", "tokenizer"))
            run: _Run | None = None
            last = ("", "")
            for at, (task, subject, index, tokenizer) in enumerate(zip(*columns, strict=True)):
                found = places.execute(find, (task, subject, index)).fetchone()
                if run and (found is None or (task, tokenizer) != last or found[0] <= run.ordinals[-1]):
                    yield last[1], run
                    run = None
                if found is not None:
                    run = run or _Run(file, group, at, array("q"))
                    run.ordinals.append(found[0])
                    last = (task, tokenizer)
            if run:
                yield last[1], run


def _in_order(runs: Sequence[_Run]) -> Iterator[tuple[_Run, int, int]]:
    """Parts of runs (from row, to row) one after another, so that ordinals ascend and none comes twice."""
    heap = [(run.ordinals[0], number, 0) for number, run in enumerate(runs)]
    heapq.heapify(heap)
    last = -1
    while heap:
        _, number, start = heapq.heappop(heap)
        ordinals = runs[number].ordinals
        end = heap[0][0] if heap else ordinals[-1] + 1
        start = bisect_right(ordinals, last, lo=start)
        stop = start
        # Nothing fits between neighbours: what others have there is the same items.
        while stop < len(ordinals) and (
            ordinals[stop] < end or ordinals[stop] == (ordinals[stop - 1] + 1 if stop > start else end)
        ):
            stop += 1
        if stop > start:
            yield runs[number], start, stop
            last = ordinals[stop - 1]
        if stop < len(ordinals):
            heapq.heappush(heap, (ordinals[stop], number, stop))


class _Reader:
    """Row groups of many files, some of which are kept."""

    def __init__(self) -> None:
        self._files: OrderedDict[Path, parquet.ParquetFile] = OrderedDict()
        self._groups: OrderedDict[tuple[Path, int], pa.Table] = OrderedDict()

    def file(self, path: Path) -> parquet.ParquetFile:
        """A file, opened."""
        from pyarrow import parquet

        if path not in self._files:
            self._files[path] = parquet.ParquetFile(path)
            while len(self._files) > _OPEN:
                self._files.popitem(last=False)[1].close()
        self._files.move_to_end(path)
        return self._files[path]

    def group(self, run: _Run) -> pa.Table:
        """The row group of a run."""
        key = run.file, run.group
        if key not in self._groups:
            self._groups[key] = self.file(run.file).read_row_group(run.group, columns=list(TEXT_TYPES))
            while len(self._groups) > _OPEN:
                self._groups.popitem(last=False)
        self._groups.move_to_end(key)
        return self._groups[key]

    def close(self) -> None:
        """Close all files."""
        for each in self._files.values():
            each.close()


class _Writer:
    """Writes tables as row groups of about one size."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        from pyarrow import parquet

        self._schema = schema
        self._file = parquet.ParquetWriter(path, schema, compression="zstd", use_dictionary=RECURRING)
        self._tables: list[pa.Table] = []

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *exc: Any) -> None:
        self._file.close()

    def add(self, table: pa.Table) -> None:
        """Take rows; those of different parts are parted by `flush`."""
        self._tables.append(table.cast(self._schema))
        rows, size = (sum(map(count, self._tables)) for count in (_rows, _bytes))
        if rows >= _ROWS or size >= _BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        import pyarrow as pa

        if self._tables:
            self._file.write_table(pa.concat_tables(self._tables))
            self._tables = []


def _rows(table: pa.Table) -> int:
    return int(table.num_rows)


def _bytes(table: pa.Table) -> int:
    return int(table.nbytes)

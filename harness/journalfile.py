"""A journal as a file: opened for reading, asked for any number of keys, and what its errors mean."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import astuple
from pathlib import Path
from typing import Any

from harness.caps import Volume
from harness.errors import StoreError
from harness.layout import ADOPTED, NO_ITEM, NOTES, SCHEMA, SHORTCUT

LOOKUP = 900
"""Keys a query: below the number of parameters that any SQLite allows."""

AWAY = "move it away (replies that it alone has will be asked for again)"

_WAY_OUT = {
    sqlite3.SQLITE_NOTADB: f"is no journal of this program; {AWAY}",
    sqlite3.SQLITE_CORRUPT: f"is damaged; {AWAY}",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened; its folder must exist and be writable",
    sqlite3.SQLITE_READONLY: "cannot be written; its folder must be writable",
    sqlite3.SQLITE_IOERR: "cannot be read or written (disk I/O error); see that it is a file, and that there"
    " is room (df, ulimit -f); then give the command again",
    sqlite3.SQLITE_FULL: "the disk is full; make room and give the same command again",
    sqlite3.SQLITE_BUSY: "is in use by another process; wait for it to end",
}

_NO_ITEM_WAY_OUT = "an item in it is damaged; give the command of the run again, which writes it anew"


def begun(path: Path) -> bool:
    """Whether there is anything in a journal file: nothing is where it was broken off while it was made.

    Raises:
        StoreError: it is no journal, or cannot be read.
    """
    with store_errors(path), closing(open_to_read(path)) as connection:
        tables: int = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    return tables > 0


@contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """Turn what SQLite raises into one `StoreError` that names the file and the way out."""
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError) as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the upper bytes refine the lowest
        if NO_ITEM in str(error):
            raise StoreError(f"{path}: {_NO_ITEM_WAY_OUT}") from error
        if "decode" in str(error):  # a text, or the name of a column, is none any more
            code = sqlite3.SQLITE_CORRUPT
        raise StoreError(f"{path}: {_WAY_OUT.get(code) or error}") from error


def read_meta(connection: sqlite3.Connection, path: Path) -> dict[str, str]:
    """The table `meta`, without notes that cannot be read any more.

    Raises:
        StoreError: there is none, or it states another schema.
    """
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if not {"meta", "replies", "items"} <= tables:
        raise StoreError(f"{path}: {_WAY_OUT[sqlite3.SQLITE_NOTADB]}")
    rows = connection.execute("SELECT name, CAST(value AS BLOB) FROM meta")
    meta = {name: value.decode() for name, value in rows if name not in NOTES or _readable(name, value)}
    if meta.get("schema") != SCHEMA:
        raise StoreError(f"{path}: has schema {meta.get('schema')}, this version reads {SCHEMA}; {AWAY}")
    return meta


def _readable(name: str, value: bytes) -> bool:
    """Whether a note is one. What changes in a journal can be learnt anew; without what was taken over from
    other journals, more counts as sent than was."""
    try:
        said = json.loads(value.decode())
        if name == ADOPTED:
            return all(type(each) is int for each in astuple(Volume(**said)))
        if name == SHORTCUT:
            counted = [
                said["largest_difference"],
                *([] if "why" in said else [said["checked"], said["logprobs"]]),
            ]
            return all(type(each) in (int, float) for each in counted)
    except (ValueError, TypeError, KeyError):  # no text, no JSON, or not what was written
        return False
    return True


def any_text(cell: bytes) -> str:
    """A text that need not be one: for `text_factory`, where a blob's changed type must not stop a reader."""
    return cell.decode(errors="surrogateescape")


@contextmanager
def any_texts(connection: sqlite3.Connection) -> Iterator[None]:
    """While rows of `replies` are read: texts of items must be what they were, or their names are others."""
    connection.text_factory = any_text
    try:
        yield
    finally:
        connection.text_factory = str


def select(connection: sqlite3.Connection, query: str, keys: Sequence[bytes]) -> Iterator[Sequence[Any]]:
    """The rows of a query that ends in `IN`, for any number of keys."""
    for start in range(0, len(keys), LOOKUP):
        part = keys[start : start + LOOKUP]
        # As `layout` has it: what is `bytes` takes longer to bind.
        yield from connection.execute(f"{query} ({','.join('?' * len(part))})", [*map(bytearray, part)])


def open_to_read(path: Path) -> sqlite3.Connection:
    """A connection that cannot write; for any thread, one at a time."""
    return sqlite3.connect(
        f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
    )

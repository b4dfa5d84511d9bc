"""Rows of a journal that were changed on disk: found by their checksums, and made failures.

What a disk changes SQLite does not see, unless it breaks a page. As failures they are tried again; nothing is
lost but the reply itself: how often the request was sent still counts.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from harness.journalfile import any_text, store_errors
from harness.layout import CHECKED, KEY_BYTES, REPLY_COLUMNS, checksum, sound
from harness.replies import DAMAGED

_ALL = f"SELECT {', '.join(CHECKED)}, checksum, reason, rowid, attempts FROM replies"
_SUM = CHECKED.index("sum")
_PUT = f"INSERT OR IGNORE INTO replies VALUES ({', '.join('?' * len(REPLY_COLUMNS))})"
_MOST = 1_000_000
"""Attempts that may be; what is beyond was changed too."""


def mend(path: Path) -> int:
    """Make failures of what is damaged in a journal that nobody writes now; how many rows.

    Raises:
        StoreError: the file cannot be read or written.
    """
    with store_errors(path), closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.text_factory = any_text  # what is text now need not have been
        damaged = list(_damaged(connection))
        if damaged:
            connection.execute("BEGIN IMMEDIATE")
            with connection:
                connection.execute("REINDEX replies")  # a key may have been changed, but not in its index
                connection.executemany("DELETE FROM replies WHERE rowid = ?", ((row,) for row, *_ in damaged))
                connection.executemany(_PUT, (failed_row(key, attempts) for _, key, attempts in damaged))
    return len(damaged)


def _damaged(connection: sqlite3.Connection) -> Iterator[tuple[int, object, object]]:
    """Number, key and attempts of each row whose checksum is wrong, or that is neither reply nor failure."""
    for row in connection.execute(_ALL):
        *_, reason, number, attempts = row
        if not sound(row) or (row[_SUM] is None) != (reason is not None):
            yield number, row[0], attempts


def failed_row(key: object, attempts: object) -> tuple[object, ...]:
    """A row that says so, under the key that is there now."""
    key = key.encode(errors="surrogateescape") if isinstance(key, str) else key
    known = key if isinstance(key, bytes) and len(key) == KEY_BYTES else bytes(KEY_BYTES)
    sent = attempts if isinstance(attempts, int) and 0 <= attempts <= _MOST else 1
    why = (DAMAGED.reason, DAMAGED.detail, None)
    checked = checksum(known, b"", None, None, None, None, None)
    return (known, b"", 0, *(None,) * 8, 0.0, sent, *why, checked)

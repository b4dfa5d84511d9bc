"""What a run asks for, listed while its rows are checked, so that nothing is read again before it begins.

The list is a temporary SQLite file with the journal's table of items: a journal copies it as a whole, which
takes a tenth of the time of inserting rows, and memory does not grow with the suite. The file is gone when
the list is; one whose process was killed is removed by the next list that is made.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
import threading
import time
import weakref
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import count
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory, gettempdir

from harness.errors import UsageError
from harness.layout import ITEMS, integers, item_record, item_row
from harness.scoring.scores import ItemRecord

CHUNK = 512
"""Records that are read and written together."""

PREFIX = "forced-choice-"
_LOCK = "owner.lock"
"""In the folder of a list: locked as long as its process lives, however that ends."""
_FRESH = 60.0
"""Seconds within which a folder may not be locked yet: it is being made."""
_UNLOCKED = 86_400.0
"""Seconds after which nobody comes to a folder any more that was never locked."""


@contextmanager
def _room() -> Iterator[None]:
    """Turn what a temporary file raises into one line with the way out."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        where = os.environ.get("TMPDIR") or "the folder for temporary files"
        why = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"{where}: the items of the run cannot be listed there ({why}); make room in it, or set TMPDIR to"
            " a folder that can be written"
        ) from error


class Listing:
    """Records of items, in the order of their ordinals. Methods may be called from any thread.

    Attributes:
        path: the file, which `flush` brings up to date.
    """

    def __init__(self) -> None:
        """Start with none; raises `UsageError`, as all do that write, where there is no room for that."""
        with _room():
            sweep(Path(gettempdir()), time.time())
            folder = TemporaryDirectory(prefix=PREFIX)
            owned = os.open(Path(folder.name) / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(owned, fcntl.LOCK_EX)
        self.path = Path(folder.name) / "items.sqlite"
        self._lock = threading.Lock()
        self._file = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        weakref.finalize(self, _discard, self._file, folder, owned)
        with _room():
            self._file.execute("PRAGMA journal_mode=OFF")
            self._file.execute("PRAGMA synchronous=OFF")
            self._file.execute(ITEMS)
        self._waiting: list[ItemRecord] = []

    def add(self, record: ItemRecord) -> None:
        """Add one, whose ordinal is beyond all others."""
        self._waiting.append(record)
        if len(self._waiting) == CHUNK:
            self.flush()

    def flush(self) -> None:
        """Return when all records are in the file."""
        with self._lock, _room():
            rows = [item_row(record) for record in self._waiting]
            self._waiting = []
            if rows:
                self._file.execute("BEGIN")
                self._file.executemany(f"INSERT INTO items VALUES ({', '.join('?' * len(rows[0]))})", rows)
                self._file.execute("COMMIT")

    def keep(self, task: str, chosen: Mapping[str, Collection[int]], first: int) -> None:
        """Of a task, which is the last so far, keep only some items.

        Args:
            task: its name.
            chosen: indices by subject.
            first: the ordinal that the first of them gets; the others follow.
        """
        self.flush()
        numbers = count(first)
        last = -1
        query = """SELECT ordinal, subject, "index" FROM items WHERE task = ? AND ordinal > ?
            ORDER BY ordinal LIMIT ?"""
        with self._lock, _room():
            self._file.execute("BEGIN")
            while rows := self._file.execute(query, (task, last, CHUNK)).fetchall():
                kept = [ordinal for ordinal, subject, index in rows if index in chosen[subject]]
                dropped = {ordinal for ordinal, _, _ in rows}.difference(kept)
                self._file.executemany("DELETE FROM items WHERE ordinal = ?", ((each,) for each in dropped))
                # Ordinals only become smaller, in order: none meets another, nor is read again.
                moved = ((next(numbers), ordinal) for ordinal in kept)
                self._file.executemany("UPDATE items SET ordinal = ? WHERE ordinal = ?", moved)
                last = rows[-1][0]
            self._file.execute("COMMIT")

    def within(self, ordinals: Sequence[range]) -> Listing:
        """A list of its own of the records with these ordinals."""
        self.flush()
        part = Listing()
        with _room():
            part._file.execute("ATTACH ? AS whole", (str(self.path),))
            for each in ordinals:
                query = "INSERT INTO main.items SELECT * FROM whole.items WHERE ordinal >= ? AND ordinal < ?"
                part._file.execute(query, (each.start, each.stop))
            part._file.execute("DETACH whole")
        return part

    def ordinals(self) -> list[range]:
        """The ordinals of all records, as ranges."""
        self.flush()
        with closing(sqlite3.connect(f"{self.path.as_uri()}?mode=ro", uri=True)) as reader:
            # Of neighbours the ordinal less the position is the same.
            query = """SELECT min(ordinal), max(ordinal) + 1 FROM (SELECT ordinal,
                ordinal - row_number() OVER (ORDER BY ordinal) AS run FROM items) GROUP BY run ORDER BY 1"""
            return [range(first, end) for first, end in reader.execute(query)]

    def short(self, longest: int) -> Iterator[int]:
        """The ordinals of records whose choices, two at least, all have so few characters, in order."""
        self.flush()
        with closing(sqlite3.connect(f"{self.path.as_uri()}?mode=ro", uri=True)) as reader:
            for ordinal, packed in reader.execute("SELECT ordinal, n_chars FROM items ORDER BY ordinal"):
                lengths = integers(packed)
                if len(lengths) > 1 and max(lengths) <= longest:
                    yield ordinal

    def count(self) -> int:
        """How many there are."""
        self.flush()
        with self._lock:
            found: int = self._file.execute("SELECT count(*) FROM items").fetchone()[0]
        return found

    def places(self) -> Iterator[tuple[str, str, str]]:
        """Task, subject and cluster of all records, in order."""
        self.flush()
        with closing(sqlite3.connect(f"{self.path.as_uri()}?mode=ro", uri=True)) as reader:
            yield from reader.execute("SELECT task, subject, cluster FROM items ORDER BY ordinal")

    def __iter__(self) -> Iterator[ItemRecord]:
        """All records so far."""
        self.flush()
        last = -1
        query = "SELECT * FROM items WHERE ordinal > ? ORDER BY ordinal LIMIT ?"
        while True:
            with self._lock:
                rows = self._file.execute(query, (last, CHUNK)).fetchall()
            if not rows:
                return
            yield from map(item_record, rows)
            last = rows[-1][0]


def _discard(file: sqlite3.Connection, folder: TemporaryDirectory[str], owned: int) -> None:
    file.close()
    folder.cleanup()
    os.close(owned)


def sweep(place: Path, now: float) -> None:
    """Remove the folders of lists whose processes are gone; those of other people are left alone.

    Args:
        place: where temporary folders stand.
        now: seconds since the epoch.
    """
    for folder in place.glob(f"{PREFIX}*"):
        with suppress(OSError):  # somebody else's, or somebody else was faster
            found = folder.lstat()
            ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
            if ours and _left(folder, now - found.st_mtime):
                rmtree(folder)


def _left(folder: Path, age: float) -> bool:
    """Whether the process that made a folder is gone."""
    if age < _FRESH:
        return False
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        return age > _UNLOCKED
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True

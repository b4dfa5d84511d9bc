"""Token ids that endpoints gave for texts, kept on this machine: one SQLite file for all runs.

A cache is a convenience: nothing here raises. A file that is broken is set aside, one that cannot be used is
done without, and either is said in one line. Keys say all that the ids depend on; this module does not know
what that is. The rollback journal is used, not a write-ahead log, as home folders may lie on a network.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import struct
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

FILE = "forced-choice/tokens-1.sqlite"
"""Below the user's cache folder; the number is that of the table's layout."""
WAIT_S = 10.0
"""How long another process may hold the file."""
_TABLE = "CREATE TABLE IF NOT EXISTS texts (key BLOB PRIMARY KEY NOT NULL, ids BLOB NOT NULL) WITHOUT ROWID"
_LOOKUP = 900
"""Keys a query: below the number of parameters that any SQLite allows."""
_BROKEN = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)

_T = TypeVar("_T")


def cache_file(environ: Mapping[str, str]) -> Path | None:
    """Where the user's cache is; None where the environment names neither a cache folder nor a home."""
    folder = environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(folder):
        return Path(folder) / FILE
    home = environ.get("HOME", "")
    return Path(home) / ".cache" / FILE if home else None


class TokenCache:
    """Ids by key. Methods may be called from any thread, and by several processes at once.

    Attributes:
        remarks: what a person must know of the file, one sentence each.
    """

    def __init__(self, path: Path | None) -> None:
        """Nothing is opened before the first use; without a path nothing is kept."""
        self.remarks: list[str] = []
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        if path is None:
            self.remarks.append("token ids are not kept: neither XDG_CACHE_HOME nor HOME names a folder")

    def get(self, keys: Sequence[bytes]) -> dict[bytes, list[int]]:
        """The ids that are known."""
        return self._do(lambda file: dict(_select(file, keys)), {}) if keys else {}

    def put(self, found: Mapping[bytes, Sequence[int]]) -> None:
        """Keep ids, all of them or none."""
        rows = [(key, _packed(ids)) for key, ids in found.items()]
        if rows:
            self._do(lambda file: _insert(file, rows), None)

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._drop()

    def _do(self, act: Callable[[sqlite3.Connection], _T], without: _T) -> _T:
        """Act on the file; on a fresh one if it is broken, and not at all if it cannot be used."""
        with self._lock:
            for _ in range(2):
                if self._path is None:
                    break
                try:
                    return act(self._opened(self._path))
                except (sqlite3.Error, OSError) as error:
                    self._failed(self._path, error)
        return without

    def _opened(self, path: Path) -> sqlite3.Connection:
        if self._connection is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._inode = _inode(path)
            self._connection = sqlite3.connect(
                path, timeout=WAIT_S, isolation_level=None, check_same_thread=False
            )
            self._connection.execute(_TABLE)
            self._inode = self._inode or _inode(path)
        return self._connection

    def _failed(self, path: Path, error: sqlite3.Error | OSError) -> None:
        """Set a broken file aside; do without one that cannot be used."""
        inode, code = self._inode, getattr(error, "sqlite_errorcode", 0) & 0xFF
        self._drop()
        if code in _BROKEN:
            with suppress(OSError):
                _set_aside(path, inode)
                self.remarks.append(f"the token cache {path} was broken; it was set aside as *.broken")
                return
        self._path = None
        self.remarks.append(f"the token cache {path} cannot be used ({error}); token ids are not kept")

    def _drop(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection, self._inode = None, 0


def _select(file: sqlite3.Connection, keys: Sequence[bytes]) -> Iterator[tuple[bytes, list[int]]]:
    for start in range(0, len(keys), _LOOKUP):
        part = keys[start : start + _LOOKUP]
        marks = ",".join("?" * len(part))
        for key, packed in file.execute(f"SELECT key, ids FROM texts WHERE key IN ({marks})", part):
            with suppress(zlib.error, struct.error, TypeError):  # damaged: asked for anew, and replaced
                yield key, _unpacked(packed)


def _insert(file: sqlite3.Connection, rows: Sequence[tuple[bytes, bytes]]) -> None:
    file.execute("BEGIN IMMEDIATE")
    try:
        file.executemany("INSERT OR REPLACE INTO texts VALUES (?, ?)", rows)
        file.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            file.execute("ROLLBACK")
        raise


def _packed(ids: Sequence[int]) -> bytes:
    """Little-endian uint32, compressed, with zlib's checksum."""
    return zlib.compress(struct.pack(f"<{len(ids)}I", *ids), 1)


def _unpacked(packed: bytes) -> list[int]:
    ids = zlib.decompress(packed)
    return list(struct.unpack(f"<{len(ids) // 4}I", ids))


def _set_aside(path: Path, inode: int) -> None:
    """Rename a broken file, unless another process has done so and the name is a good one's now.

    Args:
        path: of the file.
        inode: of the file that is broken.
    """
    with _alone(path):
        if inode == _inode(path):
            path.with_name(f"{path.name}-journal").unlink(missing_ok=True)
            path.replace(path.with_name(f"{path.name}.broken"))


def _inode(path: Path) -> int:
    """Which file has that name; 0: none."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep other processes out of renaming."""
    lock = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)

"""What a run asks for, listed while its rows are checked, so that nothing is read again before it begins.

Each journal begins with a list of all items. The list is kept in memory while it is small, else in a
temporary file that is gone when the run is, so that memory does not grow with the suite.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from tempfile import SpooledTemporaryFile

import msgspec

from harness.scoring.scores import ItemRecord

IN_MEMORY = 1 << 22
"""Bytes that are kept in memory: about 25,000 items."""
CHUNK = 512
"""Records that are read and written together."""

_DECODER = msgspec.msgpack.Decoder(list[ItemRecord])


class Listing:
    """Records of items, in the order in which they were added. Reading may be done from any thread."""

    def __init__(self) -> None:
        """Start with none."""
        self._lock = threading.Lock()
        self._file = SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._chunks: list[tuple[int, int]] = []
        self._waiting: list[ItemRecord] = []

    def add(self, record: ItemRecord) -> None:
        """Add one; raises `OSError` where the temporary file cannot be written."""
        self._waiting.append(record)
        if len(self._waiting) == CHUNK:
            written = msgspec.msgpack.encode(self._waiting)
            with self._lock:
                self._chunks.append((self._file.seek(0, 2), len(written)))
                self._file.write(written)
            self._waiting = []

    def __iter__(self) -> Iterator[ItemRecord]:
        """All records so far."""
        for start, size in self._chunks:
            with self._lock:
                self._file.seek(start)
                written = self._file.read(size)
            yield from _DECODER.decode(written)
        yield from self._waiting

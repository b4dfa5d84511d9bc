"""`texts.parquet`: what was asked, as text and as token ids.

`results/README.md` specifies the file. This module does not know how texts became ids.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from harness.files import ParquetFile, file_errors, temporary
from harness.plan import PlannedItem

TEXT_TYPES: Mapping[str, str] = {
    "task": "string",
    "subject": "string",
    "index": "int64",
    "contexts": "list<string>",
    "choices": "list<string>",
    "context_ids": "list<list<uint32>>",
    "forced_ids": "list<list<uint32>>",
    "tokenizer": "string",
}
"""Columns of `texts.parquet` and their types."""
_GROUP = 1024
"""Rows of a row group, or fewer long ones: with shots, each is tens of kilobytes."""
_LONG = 512
"""Characters of a context for each row that it stands for."""
RECURRING = ("task", "subject", "tokenizer")


class TextWriter:
    """Writes `texts.parquet`: contexts, choices and token ids, once for each item and tokenizer.

    Endpoints plan the same items in the same order, each at its own pace: whoever comes first writes an
    item, the others' are passed over. Methods may be called from any thread.
    """

    def __init__(self, path: Path, turn: Callable[[int], int] = lambda ordinal: ordinal) -> None:
        """Nothing is written before the first item.

        Args:
            path: of the file.
            turn: where the item of an ordinal stands in the order in which items come.
        """
        self._path = path
        self._turn = turn
        self._lock = threading.Lock()
        self._last: dict[str, int] = {}
        self._file: ParquetFile | None = None

    def add(self, item: PlannedItem, tokenizer: str) -> None:
        """Take an item as planned with a tokenizer (its hash); items must come in the order of their turns.

        Raises:
            StoreError: it cannot be written.
        """
        with self._lock, file_errors(self._path):
            turn = self._turn(item.record.ordinal)
            if turn <= self._last.get(tokenizer, -1):
                return
            self._last[tokenizer] = turn
            if self._file is None:
                self._file = text_file(temporary(self._path))
            add_text(self._file, item, tokenizer)

    def close(self, *, complete: bool = True) -> None:
        """Put the file in its place; an incomplete one never replaces an earlier one.

        Raises:
            StoreError: it cannot be written.
        """
        with self._lock, file_errors(self._path):
            if self._file is None:
                return
            file, self._file = self._file, None
            file.close()
            if complete or not self._path.exists():
                temporary(self._path).replace(self._path)
            else:
                temporary(self._path).unlink()


def text_file(where: Path | IO[bytes]) -> ParquetFile:
    """An empty file of texts."""
    return ParquetFile(where, TEXT_TYPES, _GROUP, recurring=RECURRING)


def add_text(file: ParquetFile, item: PlannedItem, tokenizer: str) -> None:
    """Add the texts of an item."""
    weight = 1 + len(item.encoded.contexts[0]) // _LONG
    file.add(_text_row(item, tokenizer), part=tokenizer, weight=weight)


def _text_row(item: PlannedItem, tokenizer: str) -> list[Any]:
    record, encoded = item.record, item.encoded
    return [
        record.task,
        record.subject,
        record.index,
        encoded.contexts,
        [pair.choice for pair in encoded.prompt.item.pairs],
        [pair.context_ids for pair in encoded.pairs],
        [pair.forced_ids for pair in encoded.pairs],
        tokenizer,
    ]

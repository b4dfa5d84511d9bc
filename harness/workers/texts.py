"""The texts of a run's pieces, gathered from workers, and put together in the order of the run."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.files import file_errors, replacing
from harness.sharding import Piece
from harness.texts import RECURRING

PARTS = "texts.parts"
"""The folder of a run that has them."""


class TextPieces:
    """Files of single pieces, in a folder of the run's until all of them are there."""

    def __init__(self, path: Path, pieces: Sequence[Piece], tokenizers: Mapping[str, str]) -> None:
        """Nothing is written yet.

        Args:
            path: of `texts.parquet`.
            pieces: of the run, in order.
            tokenizers: hashes by label; endpoints that have the same have the same texts.
        """
        self._path = path
        self._folder = path.with_name(PARTS)
        self._pieces = pieces
        self._tokenizers = tokenizers
        self._there: set[tuple[Piece, str]] = set()

    def wanted(self, piece: Piece, label: str) -> bool:
        """Whether nobody has sent the texts of a piece yet, as an endpoint's tokenizer sees them."""
        return (piece, self._tokenizers[label]) not in self._there

    def put(self, piece: Piece, tokenizer: str, content: bytes) -> None:
        """Keep the texts of a piece.

        Raises:
            StoreError: they cannot be written.
        """
        with file_errors(self._path):
            self._folder.mkdir(exist_ok=True)
            self._file(piece, tokenizer).write_bytes(content)
        self._there.add((piece, tokenizer))

    def close(self, *, complete: bool) -> None:
        """Put them together, if they are all there; what is not whole never replaces an earlier file.

        Raises:
            StoreError: it cannot be written.
        """
        with file_errors(self._path):
            whole = complete and any(each[0] == self._pieces[-1] for each in self._there)
            if self._there and (whole or not self._path.exists()):
                self._join()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _join(self) -> None:
        from pyarrow import parquet

        files = [
            self._file(piece, tokenizer)
            for piece in self._pieces
            for tokenizer in dict.fromkeys(self._tokenizers.values())
            if (piece, tokenizer) in self._there
        ]
        with replacing(self._path) as unfinished:
            schema = parquet.read_schema(files[0])
            with parquet.ParquetWriter(
                unfinished, schema, compression="zstd", use_dictionary=RECURRING
            ) as writer:
                for each in files:
                    writer.write_table(parquet.read_table(each))

    def _file(self, piece: Piece, tokenizer: str) -> Path:
        return self._folder / f"{piece.task}-{piece.start}-{piece.stop}-{tokenizer[:16]}.parquet"

"""The pieces that a worker has for one endpoint: planned one after another, done in any order."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import islice

from harness.items import BadItem
from harness.plan import PlannedItem
from harness.sharding import Piece
from harness.shards import Numbered, PieceReader
from harness.suite import Suite
from harness.texts import add_text, text_file
from harness.workers.messages import Handed

Counted = tuple[Counter[str], Counter[str]]
"""Counters of `Progress` under their names, and of the unscorable items by reason."""


@dataclass(frozen=True, slots=True)
class HandedSuite(Suite):
    """A suite of which an endpoint is asked what is handed to its worker, piece after piece."""

    reader: PieceReader
    take: Callable[[], Handed | None]
    """Waits for the next piece; None: there is none any more."""
    pieces: Pieces

    def batches(self, size: int) -> Iterator[Sequence[Numbered]]:
        """The prompts of the pieces, so many at a time; runs in a planning thread."""
        while (handed := self.take()) is not None:
            prompts = list(self.reader.prompts(handed.piece))
            self.pieces.begun(handed, prompts)
            coming = iter(prompts)
            while batch := list(islice(coming, size)):
                yield batch
            self.pieces.planned(handed)


@dataclass(slots=True)
class _Open:
    """A piece that is not done."""

    handed: Handed
    ordinals: range
    left: int
    """Items that are not done."""
    counted: Counter[str]
    """`items_done`, and what else of `Progress` counts items; bad rows from the start, as none is asked."""
    unscorable: Counter[str]


class Pieces:
    """Counts the items of pieces until all of one are done, and gathers their texts. For any thread."""

    def __init__(
        self,
        done: Callable[[Piece], object],
        texts: Callable[[Piece, str, bytes], object],
        so_far: Callable[[], Counted],
    ) -> None:
        """Nothing is handed out yet.

        Args:
            done: called with a piece when all its items are done.
            texts: called with a piece, the hash of a tokenizer and a Parquet file, in the planning thread.
            so_far: counters over all pieces; bad rows are not counted.
        """
        self._done = done
        self._texts = texts
        self._so_far = so_far
        self._counted: Counted = Counter(), Counter()
        """What of them belongs to a piece by now."""
        self._lock = threading.Lock()
        self._open: list[_Open] = []
        self._writing: _PieceTexts | None = None

    def begun(self, handed: Handed, prompts: Sequence[Numbered]) -> None:
        """A piece is going to be planned."""
        numbers = [ordinal for ordinal, _ in prompts]
        items = sum(not isinstance(prompt, BadItem) for _, prompt in prompts)
        bad = len(prompts) - items
        opened = _Open(
            handed,
            range(numbers[0], numbers[-1] + 1),
            items,
            Counter(items_done=bad, items_unscored=bad),
            Counter({"bad row": bad}),
        )
        if items:
            with self._lock:
                self._open.append(opened)
        else:
            self._done(handed.piece)
        if handed.texts:
            self._writing = _PieceTexts()

    def planned(self, handed: Handed) -> None:
        """All items of a piece are planned, and their texts were added."""
        writing, self._writing = self._writing, None
        if writing is not None and (found := writing.end()) is not None:
            self._texts(handed.piece, *found)

    def add(self, item: PlannedItem, tokenizer: str) -> None:
        """Keep the texts of an item of the piece that is being planned."""
        if self._writing is not None:
            self._writing.add(item, tokenizer)

    def finished(self, ordinal: int) -> None:
        """An item is done."""
        with self._lock:
            opened = next((each for each in self._open if ordinal in each.ordinals), None)
            if opened is None:
                return
            opened.left -= 1
            opened.counted["items_done"] += 1
            before, self._counted = self._counted, self._so_far()
            opened.counted += self._counted[0] - before[0]
            opened.unscorable += self._counted[1] - before[1]
        if not opened.left:
            self._done(opened.handed.piece)

    def told(self, piece: Piece) -> None:
        """The run is told that a piece is done."""
        with self._lock:
            self._open = [each for each in self._open if each.handed.piece != piece]

    def close(self) -> None:
        """Nothing more is planned: a piece may have been broken off."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.end()

    def counts(self) -> Counted:
        """What is counted of pieces that the run does not know to be done, bad rows among them."""
        with self._lock:
            counted = sum((each.counted for each in self._open), Counter[str]())
            return counted, sum((each.unscorable for each in self._open), Counter[str]())


class _PieceTexts:
    """The texts of one piece, as a file in memory."""

    def __init__(self) -> None:
        self._content = BytesIO()
        self._file = text_file(self._content)
        self._tokenizer = ""

    def add(self, item: PlannedItem, tokenizer: str) -> None:
        self._tokenizer = tokenizer
        add_text(self._file, item, tokenizer)

    def end(self) -> tuple[str, bytes] | None:
        """The tokenizer and the file; None where no text was added."""
        self._file.close()
        return (self._tokenizer, self._content.getvalue()) if self._tokenizer else None

"""What comes back from workers, put where a run keeps it: rows into journals, texts of pieces into files."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from harness.errors import StoreError
from harness.journal import Rows
from harness.manifest import EndpointRun
from harness.opening import Lost
from harness.sharding import Piece
from harness.workers.hands import Hand
from harness.workers.messages import Answer, Forget, Keep, Lookup, Texts
from harness.workers.texts import TextPieces


class Stores:
    """The journals of the endpoints that are asked, and the texts. For one event loop."""

    def __init__(self, parts: Sequence[EndpointRun], texts: TextPieces | None, lost: Lost) -> None:
        """Take where things are kept.

        Args:
            parts: the endpoints.
            texts: takes the texts of pieces; None: they are not kept.
            lost: is told what breaks the run: what cannot be written.
        """
        self._journals = {part.endpoint.label: part.journal for part in parts}
        self._texts = texts
        self._lost = lost

    def keep(self, hand: Hand, number: int, what: Keep) -> None:
        """Hand rows to the journal; the answer goes when they are on disk."""
        loop = asyncio.get_running_loop()

        def kept() -> None:
            with suppress(RuntimeError):  # the run has ended meanwhile
                loop.call_soon_threadsafe(hand.outgoing.put_nowait, Answer(number))

        hand.tallies[what.label].keep(what.replies)
        try:
            self._journals[what.label].put_rows(Rows(what.replies, what.items, kept))
        except StoreError as error:
            hand.outgoing.put_nowait(Answer(number, error=str(error)))
            self._lost(str(error))

    async def answered(self, what: Lookup) -> list[bytes]:
        """Which of these keys have a reply."""
        return list(await asyncio.to_thread(self._journals[what.label].answered, what.keys))

    async def forget(self, what: Forget) -> None:
        """Drop what is stored under these keys."""
        await asyncio.to_thread(self._journals[what.label].forget, what.keys)

    def wants_texts(self, piece: Piece, label: str) -> bool:
        """Whether the texts of a piece, as an endpoint's tokenizer sees them, are kept and not here yet."""
        return self._texts is not None and self._texts.wanted(piece, label)

    async def keep_texts(self, message: Texts) -> None:
        """Keep the texts of a piece."""
        if self._texts is None:
            return
        try:
            await asyncio.to_thread(self._texts.put, message.piece, message.tokenizer, message.parquet)
        except StoreError as error:
            self._lost(str(error))

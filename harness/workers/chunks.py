"""Messages as a stream of bytes, carried in chunks: what goes through where a call costs more than its bytes.

A call of an actor takes about a millisecond of processor time on either side, whether it carries ten bytes or
ninety thousand. So what has gathered goes as one chunk, long messages go as several, and the other end puts
them together again. It does not know who carries the chunks; they must arrive in order.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from contextlib import suppress

from harness.workers.channel import ChannelLost

CHUNK = 90_000
"""Bytes: Ray carries up to 100 kB in the call itself. More would go through shared memory, at twice the cost,
and would stay there for a while."""
GATHER = 0.04
"""Seconds after a chunk for which the next one, unless it is full, waits for more."""
FEW = 8
"""Workers; of more, each gathers longer, so that their run, which speaks to all, is not called more often."""
LONGEST = 1.0
"""Seconds that are gathered at most."""
MOST = 4_000_000
"""Bytes that may wait at one end; who has more waits too."""
_HEAD = 4
"""Bytes before each message, which say how long it is."""


def gathering(workers: int) -> float:
    """Seconds that a chunk gathers where there are so many workers."""
    return min(LONGEST, GATHER * max(1.0, workers / FEW))


class Outbox:
    """The sending end: messages go in, chunks come out."""

    def __init__(self, *, chunk: int = CHUNK, gather: float = GATHER, most: int = MOST) -> None:
        """Hold nothing yet; what is given stands at the constants of this module."""
        self._chunk, self._gather, self._most = chunk, gather, most
        self._waiting = bytearray()
        self._why: str | None = None
        self._some, self._full, self._room = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._due = -math.inf
        """When a chunk may go that is not full, on the clock of the event loop."""
        self._tell()

    @property
    def why(self) -> str:
        """Why the stream has ended; empty while it has not."""
        return self._why or ""

    async def put(self, message: bytes) -> None:
        """Add a message; wait before, while too much waits already.

        Raises:
            ChannelLost: the stream has ended.
        """
        while not self._room.is_set():
            await self._room.wait()
        if self._why is not None:
            raise ChannelLost(self._why)
        self._waiting += len(message).to_bytes(_HEAD, "big") + message
        self._tell()

    def end(self, why: str) -> None:
        """Take no more; what waits can still be taken. Only the first reason is kept."""
        self._why = self._why if self._why is not None else why
        self._tell()

    async def take(self, seconds: float | None = None) -> bytes | None:
        """The next chunk; empty if there is none within so many seconds, None at the end of the stream."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._some.wait()
        if not self._waiting:
            return None if self._why is not None else b""
        loop = asyncio.get_running_loop()
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._due):
                await self._full.wait()
        self._due = loop.time() + self._gather
        chunk = bytes(self._waiting[: self._chunk])
        del self._waiting[: self._chunk]
        self._tell()
        return chunk

    def _tell(self) -> None:
        """Wake whoever waits for what is so now."""
        ended, waiting = self._why is not None, len(self._waiting)
        for event, holds in (
            (self._some, waiting > 0),
            (self._full, waiting >= self._chunk),
            (self._room, waiting < self._most),
        ):
            if holds or ended:
                event.set()
            else:
                event.clear()


class Inbox:
    """The receiving end: chunks go in, messages come out."""

    def __init__(self, *, most: int = MOST) -> None:
        """Hold nothing yet; `most`: bytes of messages that may wait."""
        self._most = most
        self._part = bytearray()
        """Of a message that is not whole."""
        self._messages: deque[bytes] = deque()
        self._waiting = 0
        """Bytes of these."""
        self._why: str | None = None
        self._some, self._room = asyncio.Event(), asyncio.Event()
        self._room.set()

    def feed(self, chunk: bytes) -> None:
        """Take a chunk; never waits: who carries chunks awaits `room` before."""
        self._part += chunk
        begin = 0
        while len(self._part) - begin >= _HEAD:
            end = begin + _HEAD + int.from_bytes(self._part[begin : begin + _HEAD], "big")
            if end > len(self._part):
                break
            self._messages.append(bytes(self._part[begin + _HEAD : end]))
            self._waiting += end - begin
            begin = end
        del self._part[:begin]
        self._tell()

    def end(self, why: str) -> None:
        """No more will come; whole messages can still be read. Only the first reason is kept."""
        self._why = self._why if self._why is not None else why
        self._tell()

    async def room(self) -> None:
        """Wait while too much is unread."""
        await self._room.wait()

    async def next(self) -> bytes:
        """The next message.

        Raises:
            ChannelLost: the stream has ended.
        """
        while not self._messages:
            if self._why is not None:
                raise ChannelLost(self._why)
            await self._some.wait()
        message = self._messages.popleft()
        self._waiting -= len(message) + _HEAD
        self._tell()
        return message

    def _tell(self) -> None:
        """Wake whoever waits for what is so now."""
        ended = self._why is not None
        for event, holds in ((self._some, bool(self._messages)), (self._room, self._waiting < self._most)):
            if holds or ended:
                event.set()
            else:
                event.clear()

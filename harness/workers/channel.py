"""The way between a run and one of its workers: messages, in order, both ways."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Protocol

from harness.errors import HarnessError

_LENGTH = struct.Struct("<I")
"""Bytes of a message."""
LONGEST = 1 << 30
"""Bytes of a message; a longer one is none of ours."""
SENT_AHEAD = 1 << 22
"""Bytes that may wait to be read by the other end before who sends has to wait."""


class ChannelLost(HarnessError):
    """The other end is gone; the text says why, as far as that is known."""


class Channel(Protocol):
    """One end; each of its methods is called by one task at a time."""

    async def send(self, message: bytes) -> None:
        """Send a message; raises `ChannelLost`."""

    async def receive(self) -> bytes:
        """The next message; raises `ChannelLost` once the other end is gone."""

    async def close(self) -> None:
        """Let go of this end; the other one is then gone."""


class SocketChannel:
    """A channel by a connected socket, each message behind its length."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """`connected` makes them."""
        self._reader = reader
        self._writer = writer

    async def send(self, message: bytes) -> None:
        """Send a message; raises `ChannelLost`."""
        try:
            self._writer.write(_LENGTH.pack(len(message)) + message)
            await self._writer.drain()
        except OSError as error:
            raise ChannelLost(f"the connection broke ({error.strerror or error})") from error

    async def receive(self) -> bytes:
        """The next message; raises `ChannelLost` once the other end is gone."""
        try:
            (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            if length > LONGEST:
                raise ChannelLost("what came is no message")
            return await self._reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError) as error:
            raise ChannelLost("the connection was closed") from error

    async def close(self) -> None:
        """Let go of this end."""
        self._writer.close()


async def connected(end: socket.socket) -> SocketChannel:
    """The channel by one end of a pair of sockets."""
    reader, writer = await asyncio.open_connection(sock=end, limit=SENT_AHEAD)
    writer.transport.set_write_buffer_limits(SENT_AHEAD)
    return SocketChannel(reader, writer)

"""POSTs to one address over aiohttp's connections, without the session that usually stands before them.

What a request costs is what this program is measured by. Of the 260 us that `ClientSession.post` takes, 150
are spent on what never changes here: merged headers, a request, a writer, a task and a response are made each
time. So the head is written once, and what is left is a connection from the connector (it knows of TLS,
proxies, names, keep-alive), one write, and the reply as the connection's protocol reads it (lengths, chunks,
compression). `tests/test_posting.py` holds what goes out, and what comes of it, against the session's. Three
things are better than there: a proxy that is asked for a tunnel is told no token, what is said unasked is not
taken for the next reply, and an early reply ends the sending of its body.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http import RawResponseMessage
from yarl import URL

from harness.deadlines import Deadline, Deadlines
from harness.errors import ReplyError

LARGEST_REPLY = 16 * 2**20
"""Bytes; a larger body is no reply to a question about a few tokens."""

LARGEST_ERROR = 64 * 2**10
"""Bytes of an error body that are looked at."""

LARGE = 2**20
"""Bytes; bodies above it are rare, and only so many of an endpoint's are read at a time:"""
LARGE_AT_ONCE = 8

ANNOUNCING = frozenset(range(100, 200)) - {101}
"""Statuses behind which the reply itself has yet to come."""
IN_A_ROW = 8
"""Connections that are of no use before anything is sent, until that is what went wrong."""


class NotHttp(aiohttp.ClientError):
    """The reply breaks off the protocol."""


class Posted(NamedTuple):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    """By names in any case."""
    content: bytes
    """`LARGEST_REPLY` bytes at most; of an error what arrived, to a little more than `LARGEST_ERROR`."""


class Poster:
    """Sends bodies to one URL; for one event loop."""

    def __init__(
        self, session: aiohttp.ClientSession, url: URL, headers: Mapping[str, str], proxy: str | None
    ) -> None:
        """Use a session's connections and time limits.

        Args:
            session: open as long as anything is sent.
            url: where everything goes; without credentials, which would be sent as they stand.
            headers: sent with every request, but never to a proxy that only passes bytes on.
            proxy: what it goes through, credentials in it; None: nothing.
        """
        assert session.connector is not None
        self._connector = session.connector
        self._timeout = session.timeout
        assert self._timeout.total is not None
        self._deadlines = Deadlines(self._timeout.total)
        self._large = asyncio.Semaphore(LARGE_AT_ONCE)
        self._head = b""
        self._request = aiohttp.ClientRequest(
            "POST",
            url,
            headers=headers,
            loop=asyncio.get_running_loop(),
            session=session,
            proxy=URL(proxy) if proxy else None,
        )

    async def post(self, body: bytes) -> Posted:
        """Send once, and read what comes to its end; no status is an error.

        Raises:
            aiohttp.ClientError: no connection, or it broke before the reply was whole; as NotHttp: what came
                is none.
            OSError: likewise; as TimeoutError: the last byte was not there in time.
            ReplyError: it is larger than any.
        """
        message = None
        try:
            with Deadline(self._deadlines):
                connection = await self._connect()
                try:
                    assert connection.protocol is not None
                    self._write(connection.protocol, body)
                    message, stream = await _reply(connection.protocol)
                    if stream.is_eof():  # as almost always: it came in one piece, with its head
                        content = stream.read_nowait()
                    elif message.code == 200:
                        content = await self._whole(stream)
                    else:
                        content = await read(stream, LARGEST_ERROR)
                except BaseException:
                    connection.close()
                    raise
                self._let_go(connection)
        except (aiohttp.ClientError, OSError):
            if message is None or message.code == 200:
                raise
            content = b""  # the status alone decides
        return Posted(message.code, message.headers, content)

    async def _connect(self) -> Connection:
        """A connection that is free, or a new one; none that was lost meanwhile, nor one over which something
        was said unasked: that is nobody's reply."""
        error: aiohttp.ClientError = NotHttp()
        for _ in range(IN_A_ROW):
            try:
                connection = await self._connector.connect(self._request, [], self._timeout)
            except TimeoutError as late:
                raise aiohttp.ConnectionTimeoutError from late
            assert connection.protocol is not None
            if not connection.protocol.should_close:
                return connection
            error = aiohttp.ServerDisconnectedError() if connection.transport is None else NotHttp()
            connection.close()
        raise error

    def _write(self, protocol: ResponseHandler, body: bytes) -> None:
        """Send a request whole; whether it arrives shows when the reply is read."""
        assert protocol.transport is not None
        if not self._head:  # only now: the connector adds a proxy's credentials
            self._head = _head(self._request)
        protocol.set_response_params(read_until_eof=True)
        protocol.transport.write(b"%b%d\r\n\r\n%b" % (self._head, len(body), body))

    def _let_go(self, connection: Connection) -> None:
        """Leave a connection to the next request, unless this one is not through with it: the rest of a body
        that was answered early would go out first. (One whose reply was not read to its end closes anyway.)
        """
        protocol = connection.protocol
        transport = protocol.transport if protocol is not None else None
        if transport is not None and transport.get_write_buffer_size():
            connection.close()
        else:
            connection.release()

    async def _whole(self, stream: aiohttp.StreamReader) -> bytes:
        """A body; few that are large are read at a time."""
        content = await read(stream, LARGE)
        if stream.at_eof():
            return content
        chunks = [content]
        async with self._large:
            await _read_on(stream, chunks, LARGEST_REPLY)
        if sum(map(len, chunks)) > LARGEST_REPLY:
            raise ReplyError(f"the reply is larger than {LARGEST_REPLY // 2**20} MiB")
        return b"".join(chunks)


def _head(request: aiohttp.ClientRequest) -> bytes:
    """All that comes before the number of the body's bytes."""
    absolute = request.proxy is not None and not request.is_ssl()
    target = str(request.url) if absolute else request.url.raw_path_qs
    fields = [field for field in request.headers.items() if field[0].lower() != "content-length"]
    lines = [f"POST {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
    if any(sign in line for line in lines for sign in "\r\n\0"):
        raise ValueError("a header would go on in a line of its own")
    return "\r\n".join([*lines, "Content-Length: "]).encode()


async def _reply(protocol: ResponseHandler) -> tuple[RawResponseMessage, aiohttp.StreamReader]:
    """Status and headers of a reply, and its body as it comes; those that only announce one are passed by."""
    while True:
        try:
            message, stream = await protocol.read()
        except aiohttp.http.HttpProcessingError as error:
            raise NotHttp from error
        if message.code not in ANNOUNCING:
            return message, stream


async def read(stream: aiohttp.StreamReader, limit: int) -> bytes:
    """A body, or a little more than `limit` bytes of a larger one."""
    chunks: list[bytes] = []
    await _read_on(stream, chunks, limit)
    return b"".join(chunks)


async def _read_on(stream: aiohttp.StreamReader, chunks: list[bytes], limit: int) -> None:
    """Add chunks until there are more than `limit` bytes, or all."""
    size = sum(map(len, chunks))
    while size <= limit and (chunk := await stream.readany()):
        chunks.append(chunk)
        size += len(chunk)

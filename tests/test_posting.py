"""Requests without a session: the same goes out, and the same comes of every reply, as with aiohttp's own."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from types import TracebackType
from typing import Any, Self

import aiohttp
import pytest
from aiohttp.connector import Connection
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from harness.posting import NotHttp, Posted, Poster

TOKEN = {"Authorization": "Bearer sesame", "Content-Type": "application/json"}
OK = b"HTTP/1.1 200 OK\r\n"
LONG = b"x" * 70_000
"""More than one read of a socket."""


class Server:
    """Says the same to every request, piece by piece; an async context manager.

    Attributes:
        heads: of all requests, as they came.
        bodies: likewise.
        connections: how many were opened.
        asked: set once a request has come.
        gone: set whenever a client has closed a connection.
    """

    def __init__(self, *pieces: bytes, ends: bool = False) -> None:
        """What is said; `ends`: then the connection is closed."""
        self._pieces = pieces
        self._ends = ends
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.connections = 0
        self.asked = asyncio.Event()
        self.gone = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = URL(f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1/completions?a=%20b")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                self.heads.append(head)
                self.bodies.append(await reader.readexactly(size))
                self.asked.set()
                for piece in self._pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)  # the client may read it by itself
                if self._ends:
                    break
        except (asyncio.IncompleteReadError, OSError):
            self.gone.set()
        finally:
            writer.close()


@asynccontextmanager
async def session(seconds: float = 10.0, at_once: int = 4) -> AsyncIterator[aiohttp.ClientSession]:
    """A session as the program makes it."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=at_once),
        timeout=aiohttp.ClientTimeout(total=seconds, sock_connect=seconds),
    ) as made:
        yield made


async def posted(url: URL, bodies: Sequence[bytes]) -> list[Posted]:
    """What comes of one body after the other."""
    async with session() as made:
        poster = Poster(made, url, TOKEN, None)
        return [await poster.post(body) for body in bodies]


async def test_what_goes_out_is_what_a_session_sends() -> None:
    """Line by line, in the same order: target, host, headers of ours and those that aiohttp adds."""
    async with Server(OK + b"Content-Length: 2\r\n\r\n{}") as server, session() as made:
        async with made.post(server.url, data=b'{"a":1}', headers=TOKEN) as reply:
            await reply.read()
        await Poster(made, server.url, TOKEN, None).post(b'{"a":1}')
        first, second = (head.splitlines() for head in server.heads)
        assert second == first
        assert first[0] == b"POST /v1/completions?a=%20b HTTP/1.1"
        assert server.bodies == [b'{"a":1}'] * 2


ENDING = {"until it ends", "an old one"}
"""Replies that end with their connection."""
PACKED = gzip.compress(LONG)
REPLIES: Mapping[str, Sequence[bytes]] = {
    "a length": [OK + b"Content-Length: 2\r\n\r\n{}"],
    "nothing": [OK + b"Content-Length: 0\r\n\r\n"],
    "chunks": [
        OK + b"Transfer-Encoding: chunked\r\n\r\n",
        b"1\r\n{\r\n",
        b"1;x=y\r\n}\r\n0\r\nTrailer: x\r\n\r\n",
    ],
    "compressed": [OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(PACKED), PACKED)],
    "until it ends": [OK + b"\r\n", b"{", b"}"],
    "an old one": [b"HTTP/1.0 200 OK\r\n\r\n{}"],
    "only announced at first": [
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n",
        OK + b"Content-Length: 2\r\n\r\n{}",
    ],
    "long": [OK + b"Content-Length: %d\r\n\r\n" % len(LONG), LONG[:30_000], LONG[30_000:]],
    "no content": [b"HTTP/1.1 204 No\r\n\r\n"],
    "refused": [b"HTTP/1.1 429 Slow\r\nRetry-After: 3\r\nContent-Length: 4\r\n\r\nlate"],
    "below all": [b"HTTP/1.1 099 Odd\r\nContent-Length: 2\r\n\r\n{}"],
    "elsewhere": [b"HTTP/1.1 307 Go\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"],
}


@pytest.mark.parametrize("name", REPLIES)
async def test_what_comes_of_a_reply(name: str) -> None:
    """Status, headers and body are those that a session finds, time after time."""
    async with Server(*REPLIES[name], ends=name in ENDING) as server, session() as made:
        async with made.post(server.url, data=b"{}", allow_redirects=False) as reply:
            expected = Posted(reply.status, reply.headers, await reply.read())
        assert await posted(server.url, [b"{}"] * 3) == [expected] * 3
        assert server.connections == 1 + (3 if name in ENDING else 1)


@given(
    cuts=st.lists(st.integers(1, 120), max_size=8, unique=True), kind=st.sampled_from(["a length", "chunks"])
)
def test_a_reply_in_any_pieces(cuts: list[int], kind: str) -> None:
    """Wherever the network cuts a reply, it is the same reply."""
    whole = b"".join(REPLIES[kind])
    places = [0, *sorted(cuts), len(whole)]
    cut = [whole[start:end] for start, end in pairwise(places)]

    async def ask() -> list[Posted]:
        async with Server(*filter(None, cut)) as server:
            return await posted(server.url, [b"{}"] * 2)

    assert [(each.status, each.content) for each in asyncio.run(ask())] == [(200, b"{}")] * 2


BROKEN: Mapping[str, tuple[type[aiohttp.ClientError], bytes]] = {
    "no HTTP": (NotHttp, b"SSH-2.0-OpenSSH\r\n\r\n"),
    "two lengths": (NotHttp, OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}"),
    "nothing at all": (aiohttp.ServerDisconnectedError, b""),
    "half a head": (aiohttp.ServerDisconnectedError, OK + b"Content-Le"),
    "half a body": (aiohttp.ClientPayloadError, OK + b"Content-Length: 9\r\n\r\n{}"),
    "half a chunk": (aiohttp.ClientPayloadError, OK + b"Transfer-Encoding: chunked\r\n\r\n9\r\n{}"),
    "no gzip": (
        aiohttp.ClientPayloadError,
        OK + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_what_breaks_is_an_error(name: str) -> None:
    """A reply that is none is raised as one of aiohttp's errors; the next request has a new connection."""
    error, said = BROKEN[name]
    async with Server(said, ends=True) as server:
        async with session(at_once=1) as made:  # none is kept back
            poster = Poster(made, server.url, TOKEN, None)
            for _ in range(3):
                with pytest.raises(error):
                    await poster.post(b"{}")
        assert server.connections == 3


@pytest.mark.parametrize(
    ("pieces", "ends"),
    [
        ([b"HTTP/1.1 503 No\r\nContent-Length: 999\r\n\r\nhalf of"], True),
        ([b"HTTP/1.1 503 No\r\nContent-Length: 999\r\n\r\nhalf of"], False),
        ([b"HTTP/1.1 503 No\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnone"], False),
    ],
    ids=["cut", "stalled", "garbled"],
)
async def test_of_an_error_the_status_is_enough(pieces: list[bytes], ends: bool) -> None:
    """A refusal whose body is cut, never comes or cannot be read is that refusal all the same."""
    async with Server(*pieces, ends=ends) as server, session(seconds=0.3) as made:
        found = await Poster(made, server.url, TOKEN, None).post(b"{}")
        assert found.status == 503


async def test_what_comes_with_a_reply_is_not_the_next_one() -> None:
    """Bytes behind a reply are not the next one's beginning: the connection they came by is given up."""
    reply = OK + b"Content-Length: 2\r\n\r\n{}"
    async with Server(reply + reply.replace(b"{}", b"[]")) as server:
        found = await posted(server.url, [b"{}"] * 4)
        assert [each.content for each in found] == [b"{}"] * 4
        assert server.connections == 4


async def test_what_comes_unasked_is_nobodys_reply() -> None:
    """Nor are bytes that come while a connection waits for its next request."""
    reply = OK + b"Content-Length: 2\r\n\r\n{}"
    writers: list[asyncio.StreamWriter] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with suppress(asyncio.IncompleteReadError, OSError):
            while await reader.readuntil(b"\r\n\r\n"):
                await reader.readexactly(2)
                writer.write(reply)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server, session() as made:
        url = URL(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        poster = Poster(made, url, {}, None)
        assert (await poster.post(b"{}")).content == b"{}"
        writers[0].write(reply.replace(b"{}", b"[]"))
        for _ in range(50):  # turns of the loop, in which it arrives
            await asyncio.sleep(0)
        assert (await poster.post(b"{}")).content == b"{}"
    assert len(writers) == 2


async def test_who_talks_first_is_no_endpoint() -> None:
    """A server that greets, as many do that are none of the web, is told from one that answers."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.host ESMTP\r\n")
        with suppress(OSError):
            await reader.read()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server, session() as made:
        url = URL(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        with pytest.raises(NotHttp):
            await Poster(made, url, {}, None).post(b"{}")


async def test_an_early_reply_does_not_hold_up_the_next_request() -> None:
    """Where an endpoint answers without reading a body to its end, the rest does not go out before others."""
    seen: list[int] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        seen.append(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        writer.write(b"HTTP/1.1 413 Large\r\nContent-Length: 2\r\n\r\n{}")
        with suppress(OSError):
            await writer.drain()
            await gone.wait()  # reads nothing more, and closes nothing
        writer.close()

    gone = asyncio.Event()
    async with await asyncio.start_server(refuse, "127.0.0.1", 0, limit=2**12) as server, session() as made:
        url = URL(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        poster = Poster(made, url, {}, None)
        assert [(await poster.post(b" " * size)).status for size in (2**25, 1)] == [413, 413]
        gone.set()
    assert seen == [2**25, 1]


async def test_a_connection_that_is_lost_while_it_is_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has been sent then, so another is tried; if all are lost, that is the error."""
    async with Server(OK + b"Content-Length: 2\r\n\r\n{}") as server, session() as made:
        assert made.connector is not None
        connect = made.connector.connect

        lost: list[Connection] = []
        lose_all = False

        async def losing(*given: Any) -> Connection:
            connection = await connect(*given)
            assert connection.protocol is not None
            if lose_all or len(lost) < 3:
                connection.protocol.connection_lost(None)
                lost.append(connection)
            return connection

        monkeypatch.setattr(made.connector, "connect", losing)
        poster = Poster(made, server.url, TOKEN, None)
        assert (await poster.post(b"{}")).content == b"{}"
        lose_all = True
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await poster.post(b"{}")
        assert len(server.bodies) == 1


async def test_no_connection_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """That no connection came about is told from that no reply came."""
    async with Server() as server, session() as made:

        async def late(*given: Any) -> Connection:
            raise TimeoutError

        monkeypatch.setattr(made.connector, "connect", late)
        with pytest.raises(aiohttp.ConnectionTimeoutError):
            await Poster(made, server.url, TOKEN, None).post(b"{}")


async def test_who_gives_up_leaves_no_connection_behind() -> None:
    """What is cancelled, or too late, closes its connection: its reply would be taken for another's."""
    async with Server() as server, session(seconds=0.2, at_once=1) as made:  # answers nothing
        poster = Poster(made, server.url, TOKEN, None)
        asking = asyncio.create_task(poster.post(b"{}"))
        await server.asked.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await server.gone.wait()
        server.gone.clear()
        with pytest.raises(TimeoutError):
            await poster.post(b"{}")
        await server.gone.wait()
        assert server.connections == 2


async def test_no_more_connections_than_allowed() -> None:
    """Many at once share the connections there may be, and all are answered."""
    async with Server(OK + b"Content-Length: 2\r\n\r\n{}") as server, session(at_once=3) as made:
        poster = Poster(made, server.url, TOKEN, None)
        found = await asyncio.gather(*(poster.post(b"%d" % number) for number in range(40)))
        assert {each.content for each in found} == {b"{}"}
        assert sorted(map(int, server.bodies)) == list(range(40))
        assert server.connections == 3


async def test_a_header_of_two_lines_does_not_go_out() -> None:
    """Nothing in a header can begin another one, or a body."""
    async with Server(OK + b"Content-Length: 2\r\n\r\n{}") as server, session() as made:
        with pytest.raises(ValueError, match="a line of its own"):
            await Poster(made, server.url, {"X-Team": "a\r\nX-Other: b"}, None).post(b"{}")
        assert server.bodies == []

"""An endpoint on loopback that answers with any bytes at all: no HTTP, endless, or what it was sent."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self


class Asked(NamedTuple):
    """One request, as it came."""

    number: int
    """From 1."""
    line: str
    """Such as "POST /v1/completions HTTP/1.1"."""
    headers: Mapping[str, str]
    """By lower-case names."""
    body: Any


Answer = bytes | AsyncIterator[bytes]
Script = Callable[[Asked], Answer]


def http(
    content: bytes | Any, *, status: str = "200 OK", kind: str = "application/json", **headers: str
) -> bytes:
    """A whole reply; what is no `bytes` becomes JSON. Names of headers have `_` for `-`."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + body


class RawEndpoint:
    """The server, an async context manager; each connection carries one request after another.

    Attributes:
        asked: every request that came.
        url: ends in /v1.
    """

    def __init__(self, script: Script, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        """Take what answers; with `tls` it is an https server."""
        self._script = script
        self._tls = tls
        self._host = host
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed: list[Exception] = []
        self.asked: list[Asked] = []
        self.url = ""
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self._host, 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http{'s' if self._tls else ''}://{self._host}:{self.port}/v1"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._failed:  # the test's own mistake
            raise self._failed[0]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._answered(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client has had enough
        finally:
            self._tasks.discard(task)
            writer.close()  # sends what is buffered first

    async def _answered(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; whether another may follow."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        pairs = (line.partition(":") for line in head[1:] if line)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        content = await reader.readexactly(int(headers.get("content-length", 0)))
        asked = Asked(len(self.asked) + 1, head[0], headers, json.loads(content) if content else None)
        self.asked.append(asked)
        try:
            answer = self._script(asked)
        except Exception as error:
            self._failed.append(error)
            raise
        if isinstance(answer, bytes):
            writer.write(answer)
            await writer.drain()
            return True
        async for piece in answer:
            writer.write(piece)
            await writer.drain()
        return False

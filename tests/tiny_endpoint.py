"""The tiny Llama behind the embedded endpoint on loopback, and a client that says what came back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from typing import Any

from aiohttp import ClientResponse, ClientSession

from harness.serving.server import Served, listening


class Client:
    """Sends to one base URL's host."""

    def __init__(self, session: ClientSession, url: str) -> None:
        self.session = session
        self.host = url.removesuffix("/v1")

    async def post(self, path: str, body: Any, **headers: str) -> tuple[int, Any]:
        """Status and decoded body; `bytes` are sent as they are."""
        data = BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
        async with self.session.post(self.host + path, data=data, headers=headers) as reply:
            return reply.status, await decoded(reply)

    async def complete(self, **body: Any) -> tuple[int, Any]:
        """A completion on the container path."""
        return await self.post("/v1/completions", body)


async def decoded(reply: ClientResponse) -> Any:
    """The JSON body of a reply."""
    assert reply.content_type == "application/json"
    return json.loads(await reply.read())


@asynccontextmanager
async def client_of(served: Served, *, token: str | None = None) -> AsyncIterator[Client]:
    """A client of the endpoint, which listens on loopback meanwhile."""
    async with listening(served.app(token=token)) as url, ClientSession() as session:
        yield Client(session, url)

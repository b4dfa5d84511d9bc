"""The tiny Llama behind the embedded endpoint on loopback, and a client that says what came back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from typing import Any

from aiohttp import ClientResponse, ClientSession, web

from harness.serving.server import Options, Served, listening


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


async def events(client: Client, path: str = "/v1/completions", **body: Any) -> list[Any]:
    """The events of a stream, decoded but for the last, which is "[DONE]"."""
    async with client.session.post(client.host + path, json={**body, "stream": True}) as reply:
        assert (reply.status, reply.content_type) == (200, "text/event-stream")
        lines = (await reply.read()).decode().split("\n\n")
    assert lines.pop() == ""
    assert all(line.startswith("data: ") for line in lines)
    said = [line.removeprefix("data: ") for line in lines]
    return [each if each == "[DONE]" else json.loads(each) for each in said]


@asynccontextmanager
async def client_of(served: Served[Any], options: Options = Options()) -> AsyncIterator[Client]:
    """A client of the endpoint, which listens on loopback meanwhile."""
    async with client_of_app(served.app(options)) as client:
        yield client


@asynccontextmanager
async def client_of_app(app: web.Application) -> AsyncIterator[Client]:
    """A client of an application, which listens on loopback meanwhile."""
    async with listening(app) as url, ClientSession() as session:
        yield Client(session, url)

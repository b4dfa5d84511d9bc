"""A completion as server-sent events: a token each as it comes, the end of each output, the usage, [DONE]."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

import msgspec
from aiohttp import web

from harness.serving import wire
from harness.serving.completions import Asked, Completions, in_time, usage
from harness.serving.decoding.job import Completion, Job, Piece

logger = logging.getLogger(__name__)

PATIENCE = 20.0
"""Seconds that a client may leave what is written unread; then it is given up, and so is its completion."""

_HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
_DONE = b"data: [DONE]\n\n"


async def stream(completions: Completions, asked: Asked, request: web.Request) -> web.StreamResponse:
    """Answer with a stream; what goes wrong before its first event is an error reply.

    What goes wrong later can have no status any more: it becomes the last event, and there is no [DONE].

    Raises:
        Refused: nothing has been sent: 429 where the request's time is over, 503 where the endpoint stops.
    """
    response = web.StreamResponse(headers=_HEADERS)
    async with aclosing(_Events(completions, asked).all()) as events:
        first = await anext(events)
        try:
            await response.prepare(request)
            await _write(response, first)
            async for event in events:
                await _write(response, event)
            await _write(response, _DONE)
        except wire.Refused as refusal:
            await _write(response, _event(refusal.body))
        except (ConnectionError, TimeoutError):  # the client has left, or does not read
            if request.transport is not None:
                request.transport.abort()
        except Exception as error:
            logger.exception("a stream failed")
            await _write(response, _event(wire.Message(f"internal error ({type(error).__name__}: {error})")))
    return response


async def _write(response: web.StreamResponse, event: bytes) -> None:
    """Write an event, and let others have their turn: a stream may have its next event at once."""
    async with asyncio.timeout(PATIENCE):
        await response.write(event)
    await asyncio.sleep(0)


class _Events:
    """The events of one stream."""

    def __init__(self, completions: Completions, asked: Asked) -> None:
        self._completions = completions
        self._asked = asked
        self._id = f"cmpl-{secrets.token_hex(12)}"
        self._created = int(time.time())
        self._queue: asyncio.Queue[tuple[int, Piece] | wire.ChunkChoice | None] = asyncio.Queue()
        """Tokens with the number of their prompt's first output, ends of outputs, and None behind all."""

    async def all(self) -> AsyncGenerator[bytes]:
        """All but [DONE]."""
        work = asyncio.create_task(self._work())
        try:
            while (said := await self._queue.get()) is not None:
                yield self._chunk([said if isinstance(said, wire.ChunkChoice) else self._token(*said)])
            done = await work
        finally:
            work.cancel()
        options = self._asked.request.stream_options
        if options is not None and options.include_usage:
            yield self._chunk([], usage(self._asked, done))

    async def _work(self) -> list[Completion]:
        try:
            async with in_time(self._asked.deadline):
                jobs = [self._watched(place, job) for place, job in enumerate(self._asked.jobs)]
                return await self._completions.all(self._asked, jobs, self._end)
        finally:
            self._queue.put_nowait(None)

    def _watched(self, place: int, job: Job) -> Job:
        """The job of a prompt, whose tokens go into the queue."""
        first = place * self._asked.request.outputs
        return replace(job, emit=lambda piece: self._queue.put_nowait((first, piece)))

    def _end(self, place: int, done: Completion) -> None:
        first = place * self._asked.request.outputs
        for index, output in enumerate(done.outputs, first):
            self._queue.put_nowait(wire.ChunkChoice(index, "", finish_reason=output.finish_reason))

    def _token(self, first: int, piece: Piece) -> wire.ChunkChoice:
        logprobs = self._asked.request.logprobs is not None
        return wire.ChunkChoice(
            first + piece.output,
            piece.text,
            piece.scored.token,
            self._completions.texts.piece(piece) if logprobs else None,
        )

    def _chunk(self, choices: list[wire.ChunkChoice], total: wire.Usage | None = None) -> bytes:
        return _event(
            wire.Chunk(self._id, "text_completion", self._created, self._asked.model, choices, total)
        )


def _event(body: msgspec.Struct) -> bytes:
    return b"data: " + msgspec.json.encode(body) + b"\n\n"

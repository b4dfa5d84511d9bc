"""The completions route: a request to jobs, to the engine, to a reply or to a stream of events."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import msgspec
from aiohttp import web

from harness.serving import wire
from harness.serving.asking import CompletionRequest
from harness.serving.decoding.job import Completion, Job, Piece
from harness.serving.engine import Engine
from harness.serving.models.seam import P
from harness.serving.scheduler import Cancelled
from harness.serving.texts import Texts

_INLINE = 500
"""Entries of `top_logprobs` up to which a reply is rendered on the event loop: below about 2 ms."""

_OVERDUE = "timeout_microseconds elapsed"
_DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Asked:
    """A completion that is going to be made."""

    request: CompletionRequest
    jobs: Sequence[Job]
    route: str
    model: str
    """As the reply calls it."""


class Completions:
    """Makes completions on an engine."""

    def __init__(self, engine: Engine[P], texts: Texts) -> None:
        self._complete = engine.complete
        self._texts = texts

    async def reply(self, asked: Asked) -> bytes:
        """The body of the whole reply.

        Raises:
            Refused: 429 where the request's time is over, 503 where the endpoint stops.
        """
        async with _in_time(asked.request):
            done = await _all([self._complete(asked.route, job) for job in asked.jobs])
        if _entries(asked, done) <= _INLINE:
            return self._reply(asked, done)
        return await asyncio.to_thread(self._reply, asked, done)

    async def stream(self, asked: Asked, request: web.Request) -> web.StreamResponse:
        """The reply as server-sent events, a token each; an error before the first one is an error reply.

        Raises:
            Refused: likewise, as long as nothing has been sent.
        """
        async with aclosing(self._events(asked)) as events:
            first = await anext(events)  # what is refused is refused before the status is sent
            headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
            response = web.StreamResponse(headers=headers)
            await response.prepare(request)
            await response.write(first)
            try:
                async for event in events:
                    await response.write(event)
                await response.write(_DONE)
            except wire.Refused as refusal:  # too late for a status: the stream says so, and has no [DONE]
                await response.write(_event(refusal.body))
        await response.write_eof()
        return response

    async def _events(self, asked: Asked) -> AsyncGenerator[bytes]:
        """Every event but the last: tokens and ends of outputs as they come, then the usage."""
        queue: asyncio.Queue[wire.ChunkChoice | None] = asyncio.Queue()
        chunk = partial(
            wire.Chunk, f"cmpl-{secrets.token_hex(12)}", "text_completion", int(time.time()), asked.model
        )

        async def one(place: int, job: Job) -> Completion:
            first = place * asked.request.outputs

            def tell(piece: Piece) -> None:
                queue.put_nowait(self._token(piece, first, logprobs=asked.request.logprobs is not None))

            done = await self._complete(asked.route, replace(job, emit=tell))
            for index, output in enumerate(done.outputs):
                queue.put_nowait(wire.ChunkChoice(first + index, "", finish_reason=output.finish_reason))
            return done

        async def everything() -> list[Completion]:
            try:
                async with _in_time(asked.request):
                    return await _all([one(place, job) for place, job in enumerate(asked.jobs)])
            finally:
                queue.put_nowait(None)

        work = asyncio.create_task(everything())
        try:
            while (choice := await queue.get()) is not None:
                yield _event(chunk([choice]))
            done = await work
        finally:
            work.cancel()
        options = asked.request.stream_options
        if options is not None and options.include_usage:
            yield _event(chunk([], _usage(asked, done)))

    def _token(self, piece: Piece, first: int, *, logprobs: bool) -> wire.ChunkChoice:
        return wire.ChunkChoice(
            first + piece.output,
            piece.text,
            piece.scored.token,
            self._texts.piece(piece) if logprobs else None,
        )

    def _reply(self, asked: Asked, done: Sequence[Completion]) -> bytes:
        choices = [
            msgspec.Raw(msgspec.json.encode(choice))
            for place, (each, job) in enumerate(zip(done, asked.jobs, strict=True))
            for choice in self._texts.choices(
                each,
                job,
                first=place * asked.request.outputs,
                logprobs=asked.request.logprobs is not None,
            )
        ]
        return msgspec.json.encode(
            wire.CompletionReply(
                f"cmpl-{secrets.token_hex(12)}", "text_completion", asked.model, choices, _usage(asked, done)
            )
        )


def _usage(asked: Asked, done: Sequence[Completion]) -> wire.Usage:
    """Tokens in and out; a prompt of several outputs was read once."""
    read = sum(len(job.context_ids) for job in asked.jobs)
    written = sum(len(output.tokens) for each in done for output in each.outputs)
    return wire.Usage(
        read, written, read + written, wire.PromptDetails(sum(each.cached_tokens for each in done))
    )


def _entries(asked: Asked, done: Sequence[Completion]) -> int:
    """How much there is to render."""
    return sum(
        (len(each.echoed) + len(output.tokens)) * (asked.request.top + 1)
        for each in done
        for output in each.outputs
    )


@asynccontextmanager
async def _in_time(asked: CompletionRequest) -> AsyncIterator[None]:
    """Within the request's `timeout_microseconds`; what ends the work becomes a refusal."""
    limit = None if asked.timeout_microseconds is None else asked.timeout_microseconds / 1e6
    try:
        async with asyncio.timeout(limit):
            yield
    except TimeoutError:
        raise wire.refused(429, _OVERDUE) from None
    except Cancelled:
        raise wire.refused(503, "the endpoint is stopping") from None


async def _all(works: Sequence[Coroutine[Any, Any, Completion]]) -> list[Completion]:
    """The results of all; the first that fails ends the others."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _event(body: msgspec.Struct) -> bytes:
    return b"data: " + msgspec.json.encode(body) + b"\n\n"

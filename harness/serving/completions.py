"""A completion's reply: from jobs to the engine, within the request's time, and to the body."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec

from harness.serving import wire
from harness.serving.asking import CompletionRequest
from harness.serving.decoding.job import Completion, Job
from harness.serving.engine import Engine
from harness.serving.models.seam import P
from harness.serving.scheduler import Cancelled
from harness.serving.texts import Texts

_INLINE = 500
"""Entries of `top_logprobs` up to which a reply is rendered on the event loop: below about 2 ms."""
_A_DAY = 86_400.0
"""Seconds; a longer time limit is none."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A completion that is going to be made."""

    request: CompletionRequest
    jobs: Sequence[Job]
    """One for each prompt."""
    route: str
    model: str
    """As the reply calls it."""
    deadline: float | None = None
    """On the event loop's clock."""


class Completions:
    """Makes completions on an engine.

    Attributes:
        texts: renders ids.
    """

    def __init__(self, engine: Engine[P], texts: Texts) -> None:
        self._complete = engine.complete
        self.texts = texts

    async def reply(self, asked: Asked) -> bytes:
        """The body of the whole reply; the caller sees to the deadline.

        Raises:
            Cancelled: the endpoint stops.
        """
        done = await self.all(asked, asked.jobs)
        if _entries(asked, done) <= _INLINE:
            return self._reply(asked, done)
        return await asyncio.to_thread(self._reply, asked, done)

    async def all(
        self,
        asked: Asked,
        jobs: Sequence[Job],
        on_end: Callable[[int, Completion], object] = lambda place, done: None,
    ) -> list[Completion]:
        """The completions of all prompts, `on_end` told of each; the first that fails ends the others."""

        async def one(place: int, job: Job) -> Completion:
            done = await self._complete(asked.route, job)
            on_end(place, done)
            return done

        tasks = [asyncio.create_task(one(place, job)) for place, job in enumerate(jobs)]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    def _reply(self, asked: Asked, done: Sequence[Completion]) -> bytes:
        choices = [
            msgspec.Raw(msgspec.json.encode(choice))
            for place, (each, job) in enumerate(zip(done, asked.jobs, strict=True))
            for choice in self.texts.choices(
                each,
                job,
                first=place * asked.request.outputs,
                logprobs=asked.request.logprobs is not None,
            )
        ]
        return msgspec.json.encode(
            wire.CompletionReply(
                f"cmpl-{secrets.token_hex(12)}", "text_completion", asked.model, choices, usage(asked, done)
            )
        )


def usage(asked: Asked, done: Sequence[Completion]) -> wire.Usage:
    """Tokens in and out; a prompt of several outputs was read once."""
    read = sum(len(job.context_ids) for job in asked.jobs)
    written = sum(len(output.tokens) for each in done for output in each.outputs)
    return wire.Usage(
        read, written, read + written, wire.PromptDetails(sum(each.cached_tokens for each in done))
    )


def deadline_of(asked: CompletionRequest) -> float | None:
    """When the time of a request that was just read is over, on the event loop's clock."""
    seconds = None if asked.timeout_microseconds is None else asked.timeout_microseconds / 1e6
    if seconds is None or seconds > _A_DAY:
        return None
    return asyncio.get_running_loop().time() + seconds


@asynccontextmanager
async def in_time(deadline: float | None) -> AsyncIterator[None]:
    """What must be done by then; what ends it becomes a refusal.

    Raises:
        Refused: 429 where the time is over, 503 where the endpoint stops.
    """
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except TimeoutError:
        raise wire.refused(429, "timeout_microseconds elapsed") from None
    except Cancelled:
        raise wire.refused(503, "the endpoint is stopping") from None


def _entries(asked: Asked, done: Sequence[Completion]) -> int:
    """How much there is to render."""
    return sum(
        (len(each.echoed) + len(output.tokens)) * (asked.request.top + 1)
        for each in done
        for output in each.outputs
    )

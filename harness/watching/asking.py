"""Requests that are asked beside a pool, all at once, as far as the endpoint's gate lets them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from harness.client import Client
from harness.errors import Stopped
from harness.exchange import Outcome, ScoreRequest
from harness.watching.judging import Looked
from harness.work import Work


async def ask_all(
    work: Work, client: Client, requests: Sequence[ScoreRequest], stop: asyncio.Event
) -> Looked:
    """Send requests until each is answered or has failed for good, and keep what came.

    Args:
        work: whose journal keeps it, and whose counters count it.
        client: whom to ask.
        requests: what to ask.
        stop: of the run: once it is set nothing more is sent.

    Raises:
        EndpointRefused: the endpoint must not be asked any more; what else came is kept.
    """

    async def ask(request: ScoreRequest) -> Outcome:
        async with client.gate:
            if stop.is_set():
                raise Stopped
            work.progress.sending()
            try:
                return await client.score(request)
            finally:
                work.progress.in_flight -= 1

    ended = await asyncio.gather(*map(ask, requests), return_exceptions=True)
    work.journal.put(*(each for each in ended if isinstance(each, Outcome)))
    for each in ended:
        if isinstance(each, BaseException) and not isinstance(each, Stopped):
            raise each
    return [
        tuple(each.reply.token_logprobs) if isinstance(each, Outcome) and each.reply else None
        for each in ended
    ]

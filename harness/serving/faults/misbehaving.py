"""A middleware that makes an endpoint misbehave as `Faults` says, and counts what it did.

On a request's way in: what depends on time or count turns it away (`limits`), else one fault may take the
place of the whole reply (`wholes`), else the request may be refused (`refusing`) or changed (`asked`). On the
way out the reply's values may be (`values`). Only completions, tokenize and detokenize are touched.
"""

from __future__ import annotations

import asyncio
import time
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from aiohttp import web

from harness.serving.faults import asked as asking
from harness.serving.faults import values, wholes
from harness.serving.faults.asked import ROUTES, Asked, Encode, Vocabulary
from harness.serving.faults.draws import Draws
from harness.serving.faults.limits import Limits
from harness.serving.faults.plan import Faults
from harness.serving.faults.refusing import refused

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Misbehaving:
    """Goes wrong on purpose.

    Attributes:
        requests: to completions, tokenize and detokenize so far.
        in_flight: of these, while any fault is on: being answered now.
    """

    def __init__(
        self,
        faults: Faults,
        *,
        routes: frozenset[str] = frozenset(),
        encode: Encode | None = None,
        vocab_size: int = 0,
        clock: Callable[[], float] = time.monotonic,
        sleep: wholes.Sleep = asyncio.sleep,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Take what is to go wrong, and what that needs.

        Args:
            faults: what is to go wrong.
            routes: of the adapters served, which `/v1` knows without an endpoint id.
            encode: texts to ids; for `tokenizer`.
            vocab_size: ids of the model; for `tokenizer`.
            clock: seconds, by any clock.
            sleep: waits so many seconds.
            wall: seconds since 1970.
        """
        if faults.tokenizer and (encode is None or vocab_size < 1):
            raise ValueError("the fault 'tokenizer' needs encode and vocab_size")
        self.requests = 0
        self._faults = faults
        self._routes = routes
        self._encode = encode
        self._vocabulary = Vocabulary(vocab_size, faults.seed) if faults.tokenizer else None
        self._clock = clock
        self._on = faults.on()
        self._counts: Counter[str] = Counter()
        self._draws = Draws(faults.seed)
        self._limits = Limits(faults)
        self._wholes = wholes.Wholes(faults, sleep, wall)
        self._turns = asyncio.Semaphore(faults.queue) if faults.queue else None
        self._values = not values.NAMES.isdisjoint(self._on)
        self.in_flight = 0
        self._completions = 0

    def attach(self, app: web.Application) -> None:
        """Put everything below into an application that has not started: innermost of its middlewares."""
        app.middlewares.append(self.middleware)
        app.on_response_prepare.append(self.prepare)
        app.on_shutdown.append(self.stop)

    def counts(self) -> dict[str, int]:
        """How often each fault that is on has struck, by name."""
        return {name: self._counts[name] for name in self._on}

    def note(self, name: str) -> None:
        """Count a fault that the model's side has injected."""
        self._counts[name] += 1

    async def prepare(self, request: web.Request, response: web.StreamResponse) -> None:
        """For `on_response_prepare`: every reply, errors too, says how the rate limits stand."""
        if _is_struck(request):
            response.headers.update(self._limits.headers(self._clock()))

    async def stop(self, _: web.Application) -> None:
        """For `on_shutdown`: let go of the requests that hang."""
        self._wholes.stop()

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer, or misbehave."""
        if not _is_struck(request):
            return await handler(request)
        self.requests += 1
        if not self._on:
            return await handler(request)
        body = await request.read()
        path = request.path
        draw = self._draws.of(path, body)
        asked = Asked(ROUTES[path.rpartition("/")[2]], path, draw, asking.parsed(body))
        self.in_flight += 1
        try:
            return await self._answer(request, handler, asked)
        finally:
            self.in_flight -= 1

    async def _answer(self, request: web.Request, handler: Handler, asked: Asked) -> web.StreamResponse:
        why = self._limits.meet(self._clock(), tokens=asked.tokens, others=self.in_flight - 1)
        if why is not None:
            self.note(why.name)
            return wholes.turned_away(why, request)
        whole = self._wholes.drawn(asked)
        if whole is not None and not wholes.needs_reply(whole, asked):
            self.note(whole)
            return await self._wholes.instead(whole, request, asked)
        reply = await self._asked(request, handler, asked, alter=whole in (None, "slow"))
        body = _json_of(reply)
        if whole is None or body is None:
            return reply
        self.note(whole)
        return await self._wholes.spoil(whole, request, body)

    async def _asked(
        self, request: web.Request, handler: Handler, asked: Asked, *, alter: bool
    ) -> web.StreamResponse:
        """What the endpoint itself answers, to what a fault may have made of the request."""
        before = self._completions
        self._completions += asked.route == "completions"
        if (why := refused(asked, self._faults)) is not None:
            self.note(why.name)
            return wholes.refusal(why)
        changed = await self._changed(asked)
        if changed is not asked:
            _put_in_place(request, asking.written(changed.fields))
        if self._turns is not None and self._turns.locked():
            self.note("queue")
        async with self._turns or nullcontext():
            reply = await handler(request)
        body = _json_of(reply)
        if alter and body is not None:
            assert isinstance(reply, web.Response)
            reply.body = self._altered(body, asked, before)
        return reply

    async def _changed(self, asked: Asked) -> Asked:
        """The request as the endpoint is to read it; the very same where no fault strikes it."""
        faults = self._faults
        if asked.draw.strikes("ignore_adapter", faults.ignore_adapter):
            asked = self._struck("ignore_adapter", asked, asking.without_adapter(asked, self._routes))
        if faults.bos is not None:
            asked = self._struck("bos", asked, asking.with_id_in_front(asked, faults.bos))
        if faults.shortened is not None:
            asked = self._struck("shortened", asked, asking.shortened(asked, faults.shortened))
        if self._vocabulary is not None and self._encode is not None:
            texts = asking.texts_of(asked)
            changed = asking.with_other_tokens(asked, self._vocabulary)
            if texts:
                ids = await asyncio.to_thread(self._encode, texts)
                changed = asking.with_ids(asked, [self._vocabulary.there(each) for each in ids])
            asked = self._struck("tokenizer", asked, changed)
        return asked

    def _struck(self, name: str, asked: Asked, fields: dict[str, Any] | None) -> Asked:
        if fields is None:
            return asked
        self.note(name)
        return replace(asked, fields=fields)

    def _altered(self, body: bytes, asked: Asked, before: int) -> bytes:
        """The body of a 200 with what faults make of its values; the very same where none strikes."""
        if asked.route == "tokenize" and self._vocabulary is not None:
            self.note("tokenizer")
            return asking.written(asking.in_other_tokens(asking.parsed(body) or {}, self._vocabulary))
        if asked.route != "completions" or not self._values:
            return body
        reply = asking.parsed(body) or {}
        struck = values.alter(reply, self._faults, asked.draw, before, crowded=self.in_flight > 1)
        self._counts.update(struck)
        return asking.written(reply) if struck else body


def _is_struck(request: web.Request) -> bool:
    """Whether faults strike such requests at all."""
    return (
        request.method == "POST"
        and request.path.rpartition("/")[2] in ROUTES
        and request.match_info.http_exception is None
    )


def _put_in_place(request: web.Request, body: bytes) -> None:
    """Let the handler find another body under `request["body"]`."""
    with warnings.catch_warnings():  # newer versions of aiohttp recommend a kind of key that older ones lack
        warnings.simplefilter("ignore")
        request["body"] = body


def _json_of(reply: web.StreamResponse) -> bytes | None:
    """The body of a reply that faults may change: JSON, whole, status 200."""
    if not isinstance(reply, web.Response) or reply.status != 200 or reply.prepared:
        return None
    if reply.content_type != "application/json" or not isinstance(reply.body, bytes | bytearray):
        return None
    return bytes(reply.body)

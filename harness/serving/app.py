"""The routes of the endpoint: HTTP in, HTTP out, every error with the body the contract gives it."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Generic

import msgspec
from aiohttp import web
from aiohttp.typedefs import Middleware
from aiohttp.web import RequestPayloadError

from harness.serving import wire
from harness.serving.asking import CompletionRequest
from harness.serving.completions import Asked, Completions, deadline_of, in_time
from harness.serving.engine import Engine
from harness.serving.faults.misbehaving import Misbehaving
from harness.serving.faults.plan import Faults
from harness.serving.jobs import Jobs
from harness.serving.lifecycle import Lifecycle
from harness.serving.management import BETA, EndpointSpec, Management
from harness.serving.models.seam import Model, P
from harness.serving.prefixes import PrefixCache
from harness.serving.scheduler import MAX_RUNNING
from harness.serving.streaming import stream
from harness.serving.texts import Texts
from harness.tokenizing import Tokenizer

logger = logging.getLogger(__name__)

CONTAINER = "/v1"
DEDICATED = "/dedicated/v1"
PREFIXES = (CONTAINER, DEDICATED, "/serverless/v1")
ADMIN = "/admin"
MAX_BODY = 4 * 2**20
"""Bytes of a request's body."""
GRACE = 1.0
"""Seconds that completions in flight get once the endpoint is told to stop; the rest is answered with 503."""

_BASE = ""
"""The route of the model itself."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, kw_only=True)
class Service(Generic[P]):
    """What is served, and how."""

    model: Model[P]
    tokenizer: Tokenizer
    """Of `prompt`, of the tokenize routes and of the texts in replies."""
    name: str
    """What a reply calls the model where the request names none."""
    adapters: Mapping[str, Model[P]] = field(default_factory=dict)
    """What computes for `ENDPOINT_ID:ROUTE`, by route."""
    token: str | None = None
    """The bearer token to ask for; None accepts any or none."""
    team: str | None = None
    """The team id to ask for in `X-Friendli-Team`; None accepts any or none."""
    cache: PrefixCache[P] | None = None
    """Where contexts are kept; None: nowhere."""
    faults: Faults = Faults()
    lifecycle: Lifecycle | None = None
    """Of the dedicated endpoint; None: always running."""
    clock: Callable[[], float] = time.monotonic


def create_app(service: Service[P]) -> web.Application:
    """An application that serves a model and its adapters; models are used from a thread of its own."""
    texts = Texts(service.tokenizer)
    engine = Engine({_BASE: service.model, **service.adapters}, texts.text, service.cache)
    misbehaving = Misbehaving(
        service.faults,
        routes=frozenset(service.adapters),
        encode=service.tokenizer.encode,
        vocab_size=service.model.vocab_size,
        clock=service.clock,
    )
    lifecycle = service.lifecycle or Lifecycle(service.clock())
    routes = _Routes(service, engine, texts, misbehaving, lifecycle)
    spec = EndpointSpec(service.name, service.model.max_length, MAX_RUNNING)
    management = Management(spec, lifecycle, service.clock)
    app = web.Application(middlewares=[_errors, *_checks(service), routes.awake], client_max_size=MAX_BODY)
    misbehaving.attach(app)
    for prefix in PREFIXES:
        app.router.add_post(f"{prefix}/completions", routes.completions)
        app.router.add_post(f"{prefix}/tokenize", routes.tokenize)
        app.router.add_post(f"{prefix}/detokenize", routes.detokenize)
    app.router.add_get(BETA, management.spec)
    app.router.add_get(f"{BETA}/status", management.status)
    app.router.add_put(f"{BETA}/wake", management.wake)
    app.router.add_put(f"{BETA}/sleep", management.sleep)
    app.router.add_get(ADMIN, routes.admin)

    async def stop_soon(_: web.Application) -> None:
        asyncio.get_running_loop().call_later(GRACE, engine.stop)

    async def close(_: web.Application) -> None:
        await engine.close()

    app.on_shutdown.append(stop_soon)
    app.on_cleanup.append(close)
    return app


def _checks(service: Service[P]) -> Iterator[Middleware]:
    """Who may pass."""
    if service.token is not None:
        yield _bearer(service.token)
    if service.team is not None:
        yield _team(service.team)


class _Routes(Generic[P]):
    """What each path does."""

    def __init__(
        self,
        service: Service[P],
        engine: Engine[P],
        texts: Texts,
        misbehaving: Misbehaving,
        lifecycle: Lifecycle,
    ) -> None:
        self._service = service
        self._engine = engine
        self._misbehaving = misbehaving
        self._lifecycle = lifecycle
        self._completions = Completions(engine, texts)
        self._jobs = Jobs(service.model, service.tokenizer, service.faults, misbehaving.note)

    async def completions(self, request: web.Request) -> web.StreamResponse:
        """Score forced tokens, or generate."""
        asked = wire.parse(CompletionRequest, await _body(request))
        model, route = self._addressed(request, asked.model)
        deadline = deadline_of(asked)
        async with in_time(deadline):
            work = Asked(asked, await self._jobs.of(asked), route, model, deadline)
            if not asked.stream:
                return _whole(await self._completions.reply(work))
        return await stream(self._completions, work, request)

    async def tokenize(self, request: web.Request) -> web.Response:
        """Text to ids, with the tokenizer's leading special tokens."""
        asked = wire.parse(wire.TokenizeRequest, await _body(request))
        self._addressed(request, asked.model)
        (ids,) = await self._jobs.encode([asked.prompt])
        return _json(wire.TokenizeReply(ids))

    async def detokenize(self, request: web.Request) -> web.Response:
        """Ids to text, without special tokens."""
        asked = wire.parse(wire.DetokenizeRequest, await _body(request))
        self._addressed(request, asked.model)
        return _json(wire.DetokenizeReply(await self._jobs.decode(asked.tokens)))

    async def admin(self, request: web.Request) -> web.Response:
        """What was done, what is kept, and which faults were injected."""
        cache, counts = self._engine.cache, self._engine.counts
        kept = None if cache is None else {"tokens": cache.tokens, "bytes": cache.nbytes, "pages": len(cache)}
        body = {"counts": asdict(counts), "cache": kept, "faults": self._misbehaving.counts()}
        return web.json_response(body)

    @property
    def awake(self) -> Middleware:
        """A middleware: on the dedicated path a request wakes an endpoint that sleeps, and gets 503."""

        @web.middleware
        async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
            known = request.match_info.http_exception is None
            if not known or not request.path.startswith(f"{DEDICATED}/"):
                return await handler(request)
            status, phase = self._lifecycle.come(self._service.clock())
            try:
                if status != "RUNNING":
                    doing = f" ({phase})" if phase else ""
                    raise wire.refused(503, f"the endpoint is {status}{doing}")
                return await handler(request)
            finally:
                self._lifecycle.leave(self._service.clock())

        return check

    def _addressed(self, request: web.Request, model: str | None) -> tuple[str, str]:
        """The endpoint's name in the reply, and the adapter's route.

        `ENDPOINT_ID:ROUTE` names an adapter; on the container's path, which knows no endpoint id, its route
        alone does so too.
        """
        routes = self._service.adapters
        contained = request.path.startswith(f"{CONTAINER}/")
        if model is None:
            if not contained:
                raise wire.invalid("model", "this field is required", kind="missing")
            return self._service.name, _BASE
        if contained and model in routes:
            return self._service.name, model
        endpoint, colon, route = model.partition(":")
        if colon and not endpoint:
            raise wire.refused(404, "no endpoint id before the colon")
        if colon and route not in routes:
            there = f"; there are {', '.join(sorted(routes))}" if routes else ""
            raise wire.refused(404, f"no adapter {route!r} is served here{there}")
        return endpoint, route


async def _body(request: web.Request) -> bytes:
    """The body, or what was put in its place."""
    given = request.get("body")
    return given if isinstance(given, bytes) else await request.read()


def _json(body: msgspec.Struct, status: int = 200) -> web.Response:
    return _whole(msgspec.json.encode(body), status)


def _whole(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json")


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error becomes a body of the contract; an unexpected one is logged with its traceback."""
    try:
        return await handler(request)
    except wire.Refused as refusal:
        return _json(refusal.body, refusal.status)
    except web.HTTPException as error:
        reply = _json(
            wire.Message(f"{error.reason}: {request.method} {request.rel_url.raw_path}"), error.status
        )
        if isinstance(error, web.HTTPMethodNotAllowed):
            reply.headers["Allow"] = error.headers["Allow"]
        return reply
    except RequestPayloadError as error:  # such as a body that is not compressed as it says
        return _json(wire.Message(f"the body cannot be read ({error})"), 400)
    except Exception as error:
        logger.exception("%s %s failed", request.method, request.path)
        return _json(wire.Message(f"internal error ({type(error).__name__}: {error})"), 500)


def _bearer(token: str) -> Middleware:
    """A middleware that lets only this bearer token pass; compared in constant time."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        known = hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode())
        if scheme.lower() != "bearer" or not known:
            raise wire.refused(401, "the bearer token is missing or wrong")
        return await handler(request)

    return check


def _team(team: str) -> Middleware:
    """A middleware that lets only requests of this team pass."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.headers.get("X-Friendli-Team") != team:
            raise wire.refused(403, "the team in X-Friendli-Team is missing or has no access")
        return await handler(request)

    return check

"""The routes of the endpoint: HTTP in, HTTP out, every error with the body the contract gives it."""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec
from aiohttp import web
from aiohttp.typedefs import Middleware

from harness.serving import wire
from harness.serving.completing import Cancelled, Completion, Job
from harness.serving.engine import Engine
from harness.serving.model import Model, P
from harness.serving.texts import Texts
from harness.tokenizing import Tokenizer

logger = logging.getLogger(__name__)

CONTAINER = "/v1"
PREFIXES = (CONTAINER, "/dedicated/v1", "/serverless/v1")
MAX_BODY = 4 * 2**20
"""Bytes of a request's body."""
MAX_PROMPTS = 128
"""Prompts of a request."""
GRACE = 1.0
"""Seconds that completions in flight get once the endpoint is told to stop; the rest is answered with 503."""
_INLINE = 2_000
"""Entries of `top_logprobs` up to which a reply is rendered on the event loop: below about 5 ms."""

_BASE = ""
"""The route of the model itself."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def create_app(
    model: Model[P],
    tokenizer: Tokenizer,
    *,
    name: str,
    adapters: Mapping[str, Model[P]] | None = None,
    token: str | None = None,
) -> web.Application:
    """An application that serves one model and its adapters.

    Args:
        model: what computes; it is used from one thread of the application's own.
        tokenizer: of `prompt`, of the tokenize routes and of the texts in replies.
        name: what a reply calls the model where the request names none.
        adapters: what computes for `ENDPOINT_ID:ROUTE`, by route.
        token: the bearer token to ask for; None accepts any or none.
    """
    engine = Engine({_BASE: model, **(adapters or {})})
    service = _Service(model, engine, tokenizer, name, routes=frozenset(adapters or ()))
    middlewares = [_errors] if token is None else [_errors, _bearer(token)]
    app = web.Application(middlewares=middlewares, client_max_size=MAX_BODY)
    for prefix in PREFIXES:
        app.router.add_post(f"{prefix}/completions", service.completions)
        app.router.add_post(f"{prefix}/tokenize", service.tokenize)
        app.router.add_post(f"{prefix}/detokenize", service.detokenize)

    async def stop_soon(_: web.Application) -> None:
        asyncio.get_running_loop().call_later(GRACE, engine.stop)

    async def close(_: web.Application) -> None:
        await engine.close()

    app.on_shutdown.append(stop_soon)
    app.on_cleanup.append(close)
    return app


class _Service:
    """What each path does, on one model and its adapters."""

    def __init__(
        self, model: Model[P], engine: Engine[P], tokenizer: Tokenizer, name: str, *, routes: frozenset[str]
    ) -> None:
        self._vocab_size = model.vocab_size
        self._max_length = model.max_length
        self._complete = engine.complete
        self._tokenizer = tokenizer
        self._texts = Texts(tokenizer)
        self._name = name
        self._routes = routes

    async def completions(self, request: web.Request) -> web.Response:
        """Score forced tokens, or generate."""
        asked = wire.parse(wire.CompletionRequest, await request.read())
        model, route = self._addressed(request, asked.model)
        jobs = [self._job(asked, context) for context in await self._contexts(asked)]
        try:
            done = await asyncio.gather(*(self._complete(route, job) for job in jobs))
        except Cancelled:
            raise wire.refused(503, "the endpoint is stopping") from None
        entries = sum(
            (len(each.echoed) + len(each.output)) * (job.top + 1)
            for each, job in zip(done, jobs, strict=True)
        )
        if entries <= _INLINE:
            return _json(self._reply(asked, jobs, done, model))
        return await asyncio.to_thread(lambda: _json(self._reply(asked, jobs, done, model)))

    async def tokenize(self, request: web.Request) -> web.Response:
        """Text to ids, with the tokenizer's leading special tokens."""
        asked = wire.parse(wire.TokenizeRequest, await request.read())
        self._addressed(request, asked.model)
        return _json(wire.TokenizeReply(await self._encode(asked.prompt)))

    async def detokenize(self, request: web.Request) -> web.Response:
        """Ids to text, without special tokens."""
        asked = wire.parse(wire.DetokenizeRequest, await request.read())
        self._addressed(request, asked.model)
        self._in_vocabulary("tokens", asked.tokens)
        return _json(wire.DetokenizeReply(await asyncio.to_thread(self._tokenizer.decode, asked.tokens)))

    def _addressed(self, request: web.Request, model: str | None) -> tuple[str, str]:
        """The endpoint's name in the reply, and the adapter's route.

        `ENDPOINT_ID:ROUTE` names an adapter; on the container's path, which knows no endpoint id, its route
        alone does so too.
        """
        contained = request.path.startswith(f"{CONTAINER}/")
        if model is None:
            if not contained:
                raise wire.invalid("model", "this field is required", kind="missing")
            return self._name, _BASE
        if contained and model in self._routes:
            return self._name, model
        endpoint, colon, route = model.partition(":")
        if colon and not endpoint:
            raise wire.refused(404, "no endpoint id before the colon")
        if colon and route not in self._routes:
            there = f"; there are {', '.join(sorted(self._routes))}" if self._routes else ""
            raise wire.refused(404, f"no adapter {route!r} is served here{there}")
        return endpoint, route

    async def _contexts(self, asked: wire.CompletionRequest) -> list[Sequence[int]]:
        """The ids of each input, from whichever of the two fields was given."""
        if (asked.prompt is None) == (asked.tokens is None):
            raise wire.invalid("prompt", "exactly one of 'prompt' and 'tokens' is required")
        if asked.tokens is not None:
            self._in_vocabulary("tokens", asked.tokens)
            return [asked.tokens]
        contexts = await self._prompts(asked.prompt)
        if len(contexts) > MAX_PROMPTS:
            raise wire.invalid("prompt", f"{len(contexts)} prompts; at most {MAX_PROMPTS} fit into a request")
        if len(contexts) > 1 and asked.forced_output_tokens:
            raise wire.invalid("forced_output_tokens", "goes with one prompt, not with several")
        for ids in contexts:
            if not ids:
                raise wire.invalid("prompt", "the text has no tokens")
            self._in_vocabulary("prompt", ids)
        return contexts

    async def _prompts(self, prompt: str | list[int | str | list[int]] | None) -> list[Sequence[int]]:
        """The ids of each prompt: of texts, with the tokenizer's leading special tokens."""
        given = [prompt] if isinstance(prompt, str) else prompt or []
        texts = [each for each in given if isinstance(each, str)]
        ids = [each for each in given if isinstance(each, int)]
        lists = [each for each in given if isinstance(each, list)]
        if len(given) not in (len(texts), len(ids), len(lists)):
            raise wire.invalid("prompt", "a list holds texts, or ids, or lists of ids, not some of each")
        if texts:
            return list(await asyncio.to_thread(self._tokenizer.encode, texts))
        return [ids] if ids else list(lists)

    def _job(self, asked: wire.CompletionRequest, context_ids: Sequence[int]) -> Job:
        """The work asked for, once it is known to be possible."""
        if asked.stream:
            raise wire.invalid("stream", "only false is honoured by this endpoint", kind="unsupported")
        forced = asked.forced_output_tokens or []
        self._in_vocabulary("forced_output_tokens", forced)
        if asked.echo and (forced or asked.tokens):
            raise wire.invalid("echo", "goes with 'prompt', and without forced_output_tokens")
        return Job(
            context_ids,
            self._output_length(asked, len(context_ids)),
            forced_ids=forced,
            top=asked.logprobs or 0,
            temperature=1.0 if asked.temperature is None else asked.temperature,
            seed=secrets.randbelow(2**31) if asked.seed is None else asked.seed,
            echo=bool(asked.echo),
        )

    def _output_length(self, asked: wire.CompletionRequest, context_length: int) -> int:
        """The most tokens of output: as asked, else as many as are forced, else as the model has room for."""
        forced = len(asked.forced_output_tokens or [])
        room = self._max_length - context_length
        wanted = asked.max_tokens or forced or max(room, 1)
        if forced > wanted:
            raise wire.invalid("max_tokens", f"smaller than the {forced} forced_output_tokens")
        if wanted > room:
            fields = ("max_tokens", "forced_output_tokens", "tokens")
            raise wire.invalid(
                next((field for field in fields if getattr(asked, field)), "prompt"),
                f"{context_length} tokens of input and {wanted} of output exceed the model's"
                f" maximum length of {self._max_length}",
            )
        return wanted

    def _reply(
        self, asked: wire.CompletionRequest, jobs: Sequence[Job], done: Sequence[Completion], model: str
    ) -> wire.CompletionReply:
        read = sum(len(job.context_ids) for job in jobs)
        written = sum(len(each.output) for each in done)
        cached = sum(each.cached_tokens for each in done)
        return wire.CompletionReply(
            id=f"cmpl-{secrets.token_hex(12)}",
            object="text_completion",
            model=model,
            choices=[
                self._texts.choice(each, job, index=index, logprobs=asked.logprobs is not None)
                for index, (each, job) in enumerate(zip(done, jobs, strict=True))
            ],
            usage=wire.Usage(read, written, read + written, wire.PromptDetails(cached)),
        )

    async def _encode(self, text: str) -> list[int]:
        """Off the event loop: a long text takes a while."""
        return (await asyncio.to_thread(self._tokenizer.encode, [text]))[0]

    def _in_vocabulary(self, field: str, ids: Sequence[int]) -> None:
        if ids and max(ids) >= self._vocab_size:
            raise wire.invalid(field, f"id {max(ids)} is outside the vocabulary of {self._vocab_size} ids")


def _json(body: msgspec.Struct, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json")


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
    except Exception as error:
        logger.exception("%s %s failed", request.method, request.path)
        return _json(wire.Message(f"internal error ({type(error).__name__}: {error})"), 500)


def _bearer(token: str) -> Middleware:
    """A middleware that lets only this bearer token pass."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        known = hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode())
        if scheme.lower() != "bearer" or not known:
            raise wire.refused(401, "the bearer token is missing or wrong")
        return await handler(request)

    return check

"""A completions endpoint on loopback that answers truthfully, or goes wrong exactly as a script says.

Its log-probabilities are a pure function of the ids (`true_logprobs`), so a test knows every right answer.
Texts become ids by a real tokenizer of the `tokenizers` library, by default one id a character.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from types import TracebackType
from typing import Any, Self

from aiohttp import web
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

Body = dict[str, Any]


def true_logprobs(context_ids: Sequence[int], forced_ids: Sequence[int]) -> list[float]:
    """What the endpoint says of these ids: each value depends on all ids up to its own, wherever the context
    ends."""
    state = zlib.crc32("".join([f"{each}," for each in context_ids]).encode())
    values = []
    for each in forced_ids:
        state = zlib.crc32(b"%d," % each, state)
        values.append(-(1 + state % 100_000) / 20_000)
    return values


def echoed_logprobs(prompt_ids: Sequence[int]) -> list[float]:
    """What the endpoint says of each token of an echoed prompt; the first one's value is never shown."""
    return true_logprobs([], prompt_ids)


# ------------------------------------------------------------------------------------------------- texts


def characters() -> Backend:
    """One id a character: printable ASCII and the line break, in the order of `tests.running`."""
    vocabulary = {chr(code): code - 32 for code in range(32, 127)} | {"\n": 95}
    backend = Backend(models.WordLevel(vocabulary, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return backend


@dataclass(frozen=True)
class Texts:
    """How an endpoint turns text into ids, and counts the characters of an echo.

    Attributes:
        backend: splits texts; its own special tokens are added.
        front, back: ids put around every text besides.
        name: the text of a token in front.
        counted: the offsets of an echo count the text of the tokens in front too, as vLLM's do.
    """

    backend: Backend = field(default_factory=characters)
    front: tuple[int, ...] = ()
    back: tuple[int, ...] = ()
    name: str = "<s>"
    counted: bool = False

    def ids(self, text: str) -> list[int]:
        """The ids of a text, special tokens included."""
        return [*self.front, *self.backend.encode(text).ids, *self.back]

    def echoed(self, text: str) -> tuple[list[int], list[str], list[int]]:
        """Ids, texts and offsets of an echoed prompt, and the offset of what follows it."""
        found = self.backend.encode(text)
        ids = [*self.front, *found.ids]
        shift = len(self.name) if self.counted else 0
        spans = [(0, 0)] * len(self.front) + list(found.offsets)
        own = next((at for at, span in enumerate(spans) if span[0] != span[1]), 0)
        tokens = [self.name] * own
        end = 0
        for (start, stop), (following, _) in pairwise([*spans[own:], (len(text), 0)]):
            parts = text[max(start, end) : min(stop, following)]  # a character that is shared is nobody's
            tokens.append("\ufffd" * (start < end) + parts + "\ufffd" * (following < stop))
            end = stop
        offsets = [shift * min(at, own) + start for at, (start, _) in enumerate(spans)]
        return ids, tokens, [*offsets, shift * own + len(text)]


# ------------------------------------------------------------------------------------------------ faults


@dataclass(frozen=True)
class Status:
    """Answers with this status, headers and body."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Reset:
    """Drops the connection, before or after the headers of the reply."""

    after_headers: bool = False


@dataclass(frozen=True)
class Hang:
    """Never answers; let go when the endpoint closes."""


@dataclass(frozen=True)
class Cut:
    """Promises the whole body, sends half of it, and closes the connection."""


@dataclass(frozen=True)
class EchoToken:
    """Answers with this status and repeats the Authorization header in body and headers."""

    status: int


@dataclass(frozen=True)
class Gzip:
    """Answers truthfully, compressed."""


@dataclass(frozen=True)
class Altered:
    """Answers with what `change` makes of the truthful reply, in place."""

    change: Callable[[Body], object]


Fault = Status | Reset | Hang | Cut | EchoToken | Gzip | Altered
Script = Callable[[int, Body], Fault | None]
"""From the number of the request (from 1) and its body to what goes wrong, None for nothing."""


def first(n: int, fault: Fault) -> Script:
    """The first n requests go wrong."""
    return lambda number, body: fault if number <= n else None


def values(change: Callable[[list[Any]], object]) -> Altered:
    """The list of log-probabilities is changed in place."""
    return Altered(lambda reply: change(reply["choices"][0]["logprobs"]["token_logprobs"]))


# ---------------------------------------------------------------------------------------------- endpoint


class FakeEndpoint:
    """The endpoint, an async context manager; it counts what it is sent.

    Attributes:
        bodies: every completions body, in order of arrival.
        tokenized: every body of the tokenize route, likewise.
        headers: the headers of each, with lower-case names.
        in_flight, most_in_flight: requests now, and at most, being answered.
        connections: how many TCP connections requests came by.
    """

    def __init__(
        self,
        script: Script = lambda number, body: None,
        *,
        token: str | None = None,
        texts: Texts | None = None,
        tokenizing: Script = lambda number, body: None,
    ) -> None:
        """Take the script of faults, the bearer token that is demanded, if any, how texts become ids, and
        the script of the tokenize route, which counts its own requests."""
        self._script = script
        self._token = token
        self._tokenizing = tokenizing
        self.texts = texts or Texts()
        self.tokenized: list[Body] = []
        self._closing = asyncio.Event()
        self._peers: set[object] = set()
        self.bodies: list[Body] = []
        self.headers: list[dict[str, str]] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.base_url = ""

    @property
    def connections(self) -> int:
        """How many TCP connections requests came by."""
        return len(self._peers)

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/completions", self._completions)
        app.router.add_post("/v1/tokenize", self._tokenize)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.base_url = f"http://{host}:{port}/v1"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        await self._runner.cleanup()

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        return await self._counted(
            request, self._script(len(self.bodies), body), lambda: completion(body, self.texts)
        )

    async def _tokenize(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.tokenized.append(body)
        fault = self._tokenizing(len(self.tokenized), body)
        return await self._counted(request, fault, lambda: {"tokens": self.texts.ids(body["prompt"])})

    async def _counted(
        self, request: web.Request, fault: Fault | None, truth: Callable[[], Body]
    ) -> web.StreamResponse:
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        assert request.transport is not None
        self._peers.add(request.transport.get_extra_info("peername"))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await self._answer(request, fault, truth)
        finally:
            self.in_flight -= 1

    async def _answer(
        self, request: web.Request, fault: Fault | None, truth: Callable[[], Body]
    ) -> web.StreamResponse:
        given = request.headers.get("Authorization", "")
        if self._token is not None and given != f"Bearer {self._token}":
            return web.json_response({"message": "invalid token"}, status=401)
        match fault:
            case Status(status, headers, content):
                return web.Response(status=status, headers=headers, body=content)
            case Reset() | Cut():
                return await _break_off(request, truth(), fault)
            case Hang():
                await self._closing.wait()
                return web.Response()
            case EchoToken(status):
                repeated = {"Location": f"/elsewhere?key={given}", "X-Repeated": given}
                said = {"error": {"message": f"not with {given}!", "headers": given}}
                return web.json_response(said, status=status, headers=repeated)
        reply = truth()
        if isinstance(fault, Altered):
            fault.change(reply)
        response = web.Response(text=json.dumps(reply), content_type="application/json")
        if isinstance(fault, Gzip):
            response.enable_compression(web.ContentCoding.gzip)
        return response


async def _break_off(request: web.Request, reply: Body, fault: Reset | Cut) -> web.StreamResponse:
    """Close the connection before the reply is whole."""
    content = json.dumps(reply).encode()
    response = web.StreamResponse(headers={"Content-Length": str(len(content))})
    assert request.transport is not None
    if isinstance(fault, Cut) or fault.after_headers:
        await response.prepare(request)
    if isinstance(fault, Cut):
        await response.write(content[: len(content) // 2])
        request.transport.close()  # sends what is buffered first
    else:
        request.transport.abort()
    return response


def completion(body: Body, texts: Texts | None = None) -> Body:
    """The truthful reply to a forced request, or to one whose prompt is to be echoed."""
    if "echo" in body:
        return echo(body, texts)
    forced = body["forced_output_tokens"]
    context = body["tokens"] if "tokens" in body else (texts or Texts()).ids(body["prompt"])
    logprobs = true_logprobs(context, forced)
    tokens = [f" t{each}" for each in forced]
    others = range(body["logprobs"] - 1)
    return {
        "id": "cmpl-1",
        "object": "text_completion",
        "model": body.get("model"),
        "choices": [
            {
                "index": 0,
                "text": "".join(tokens),
                "seed": 0,
                "finish_reason": "length",
                "tokens": forced,
                "logprobs": {
                    "text_offset": [0] * len(forced),
                    "token_logprobs": logprobs,
                    "tokens": tokens,
                    "top_logprobs": [
                        {token: value, **{f" other{n}": value - 1 - n for n in others}}
                        for token, value in zip(tokens, logprobs, strict=True)
                    ],
                },
            }
        ],
        "usage": {
            "prompt_tokens": len(context),
            "completion_tokens": len(forced),
            "total_tokens": len(context) + len(forced),
        },
    }


def echo(body: Body, texts: Texts | None = None) -> Body:
    """The reply of an OpenAI-style server: the prompt's values, then a generated token's.

    A prompt of ids is echoed without offsets worth the name, one of text with true ones.
    """
    prompt = body["prompt"]
    tokens = [f" t{each}" for each in prompt]
    offsets = [0] * (len(prompt) + 1)
    if isinstance(prompt, str):
        prompt, tokens, offsets = (texts or Texts()).echoed(prompt)
    values: list[float | None] = [None, *echoed_logprobs(prompt)[1:], -0.25]
    tokens.append(" and")
    top = [None if value is None else {token: value} for token, value in zip(tokens, values, strict=True)]
    return {
        "id": "cmpl-1",
        "object": "text_completion",
        "choices": [
            {
                "index": 0,
                "text": "".join(tokens),
                "finish_reason": "length",
                "logprobs": {
                    "text_offset": offsets,
                    "token_logprobs": values,
                    "tokens": tokens,
                    "top_logprobs": top,
                },
            }
        ],
        "usage": {"prompt_tokens": len(prompt), "completion_tokens": 1, "total_tokens": len(prompt) + 1},
    }


class FakeClock:
    """Time that passes only where somebody sleeps; `sleep` returns at once."""

    def __init__(self) -> None:
        """Begin at second 1000, so that nothing works by the accident of a zero."""
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Let the time pass."""
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

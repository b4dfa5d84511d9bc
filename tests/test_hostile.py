"""Hostile endpoints: whatever one answers costs bounded memory and time, and ends in one clear line."""

from __future__ import annotations

import asyncio
import json
import time
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

from harness.dialects import dialect
from harness.exchange import Outcome, ScoreRequest
from harness.layout import reply_row
from harness.secrets import Secret
from harness.transport import Attempt, Transport, Wire
from tests.fake_endpoint import completion
from tests.ledger import note
from tests.raw_endpoint import Answer, Asked, RawEndpoint, http

TOKEN = "sesame-0123456789"
SECONDS, LATE_SECONDS = 10.0, 0.7
"""An attempt may take so long here, the latter where it is to be too late; by default it is two minutes."""
MEMORY = 80 * 2**20
"""Bytes; a body of 16 MiB is there twice for a moment, and its JSON besides."""
REQUEST = ScoreRequest(b"k" * 16, [1, 2], [3], top=5)
BODY = {"tokens": [1, 2], "forced_output_tokens": [3], "logprobs": 5}

Believed = "believed"
CUT, PROTOCOL, BROKEN, LATE = "cut body", "protocol", "connection", "timeout"


@dataclass(frozen=True)
class Case:
    """One thing that an endpoint does.

    Attributes:
        answer: what it says.
        reason: what comes of it: a status or a fault, or that it is believed.
        says: what the line has to say.
    """

    answer: Callable[[Asked], Answer]
    reason: str
    says: str = ""


def truth() -> dict[str, Any]:
    """The truthful reply."""
    return completion(BODY)


def altered(change: Callable[[dict[str, Any]], object], **known: Any) -> Callable[[Asked], bytes]:
    """A reply with something else in it."""

    def answer(asked: Asked) -> bytes:
        reply = truth()
        change(reply)
        return http(reply)

    return answer


def logprobs(**fields: Any) -> Callable[[Asked], bytes]:
    """A reply with other fields in `logprobs`."""
    return altered(lambda reply: reply["choices"][0]["logprobs"].update(fields))


def raw(content: bytes, **given: Any) -> Callable[[Asked], bytes]:
    """A 200 with these bytes."""
    return lambda asked: http(content, **given)


def wire(content: bytes) -> Callable[[Asked], Answer]:
    """These bytes and no more."""

    async def pieces() -> AsyncIterator[bytes]:
        yield content

    return lambda asked: pieces()


def endless(head: bytes, piece: bytes) -> Callable[[Asked], Answer]:
    """A beginning, and then the same for ever."""

    async def pieces() -> AsyncIterator[bytes]:
        yield head
        while True:
            yield piece
            await asyncio.sleep(0)

    return lambda asked: pieces()


def stalls(head: bytes) -> Callable[[Asked], Answer]:
    """A beginning, and then nothing."""

    async def pieces() -> AsyncIterator[bytes]:
        yield head
        await asyncio.sleep(3600)

    return lambda asked: pieces()


def says(message: str, status: str = "400 Bad") -> Callable[[Asked], bytes]:
    """An error with a message."""
    return lambda asked: http({"error": {"message": message}}, status=status)


def text(content: str | bytes, status: str = "400 Bad") -> Callable[[Asked], bytes]:
    """An error that is no JSON."""
    body = content.encode() if isinstance(content, str) else content
    return lambda asked: http(body, status=status, kind="text/html")


@cache
def bomb(kind: int, mebibytes: int = 512) -> bytes:
    """So much of nothing, compressed."""
    packer = zlib.compressobj(9, zlib.DEFLATED, kind)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(mebibytes)) + packer.flush()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
DEEP = b"[" * 100_000
DEEP_OBJECT = b'{"a":' * 100_000
TOO_LARGE = "the reply is larger than 16 MiB"

CASES: Mapping[str, Case] = {
    # sizes
    "gigabytes declared": Case(
        endless(HEAD + b"Content-Length: 99999999999\r\n\r\n", bytes(65536)), PROTOCOL, TOO_LARGE
    ),
    "gigabytes promised, nothing sent": Case(
        stalls(HEAD + b"Content-Length: 99999999999\r\n\r\n"), LATE, "within"
    ),
    "endless chunks": Case(endless(CHUNKED, b"10000\r\n" + bytes(65536) + b"\r\n"), PROTOCOL, TOO_LARGE),
    "endless without a length": Case(endless(HEAD + b"\r\n", bytes(65536)), PROTOCOL, TOO_LARGE),
    "endless error": Case(endless(b"HTTP/1.1 400 Bad\r\n\r\n", b"no " * 20_000), "400", "no no no"),
    "endless refusal": Case(endless(b"HTTP/1.1 401 No\r\n\r\n", b"no " * 20_000), "401", "no no no"),
    "tiny chunks": Case(endless(CHUNKED, b"1\r\nx\r\n" * 50), LATE),
    "one huge chunk": Case(wire(CHUNKED + b"FFFFFFFFFFFF\r\n{"), CUT),
    "no chunk size": Case(wire(CHUNKED + b"zzz\r\n{}\r\n0\r\n\r\n"), BROKEN),
    "endless chunk extension": Case(endless(CHUNKED + b"5;", b"y" * 65536), LATE),
    "endless trailers": Case(endless(CHUNKED + b"2\r\n{}\r\n0\r\n", b"X-A: " + b"y" * 1000 + b"\r\n"), CUT),
    "gzip bomb": Case(raw(bomb(31), Content_Encoding="gzip"), PROTOCOL, TOO_LARGE),
    "deflate bomb": Case(raw(bomb(15), Content_Encoding="deflate"), PROTOCOL, TOO_LARGE),
    "raw deflate bomb": Case(raw(bomb(-15), Content_Encoding="deflate"), PROTOCOL, TOO_LARGE),
    "bomb in an error": Case(raw(bomb(31), Content_Encoding="gzip", status="500 Oops"), "500"),
    "bomb in a bomb": Case(raw(zlib.compress(bomb(15)), Content_Encoding="deflate, deflate"), CUT),
    "many empty members": Case(raw(zlib.compress(b"") * 20_000, Content_Encoding="deflate"), CUT),
    "gzip that is none": Case(raw(b"{}", Content_Encoding="gzip"), CUT, "decompressed"),
    "unknown encoding": Case(raw(b"\x00\x01", Content_Encoding="xyz"), CUT),
    "many numbers": Case(
        logprobs(token_logprobs=[-1.0] * 200_000), PROTOCOL, "200000 log-probabilities for 1"
    ),
    "many ids": Case(
        altered(lambda reply: reply["choices"][0].update(tokens=[7] * 200_000)), PROTOCOL, "(200000 ids)"
    ),
    "many choices": Case(
        altered(lambda reply: reply.update(choices=reply["choices"] * 10_000)), PROTOCOL, "10000 choices"
    ),
    "many alternatives": Case(
        logprobs(top_logprobs=[{f"{n:012}": -9.0 for n in range(100_000)}]), PROTOCOL, "alternatives"
    ),
    "a huge alternative": Case(logprobs(top_logprobs=[{"x" * 2_000_000: -9.0}]), PROTOCOL, "alternatives"),
    "a huge name": Case(logprobs(tokens=["x" * 2_000_000]), PROTOCOL, "alternatives"),
    "megabytes of message": Case(says("no " * 1_000_000), "400", "no no no"),
    # JSON
    "deep lists": Case(raw(DEEP), PROTOCOL, "not of the expected form"),
    "deep objects": Case(raw(DEEP_OBJECT), PROTOCOL, "nested too deeply"),
    "deep where nobody looks": Case(
        raw(b'{"x":' + DEEP + b"]" * 100_000 + b',"choices":[]}'), PROTOCOL, "nested too deeply"
    ),
    "deep error": Case(text(DEEP_OBJECT), "400", '{"a":'),
    "deep alternatives": Case(
        raw(b'{"choices":[{"tokens":[3],"logprobs":{"token_logprobs":[-1],"top_logprobs":' + DEEP), PROTOCOL
    ),
    "nothing": Case(raw(b""), CUT, "0 bytes"),
    "a number": Case(raw(b"7"), PROTOCOL, "not of the expected form"),
    "a text": Case(raw(b'"\\u001b[31m"'), PROTOCOL, "not of the expected form"),
    "null": Case(raw(b"null"), PROTOCOL, "not of the expected form"),
    "NUL bytes": Case(raw(bytes(1000)), CUT, "no JSON"),
    "UTF-16": Case(raw(json.dumps(truth()).encode("utf-16")), PROTOCOL, "no UTF-8"),
    "a byte order mark": Case(raw(b"\xef\xbb\xbf{}"), PROTOCOL, "no UTF-8"),
    "NaN": Case(logprobs(token_logprobs=[float("nan")]), PROTOCOL, "holds NaN"),
    "too large a number": Case(
        raw(b'{"choices":[{"tokens":[3],"logprobs":{"token_logprobs":[-1e999]}}]}'), PROTOCOL
    ),
    "an id beyond any": Case(raw(b'{"choices":[{"tokens":[' + b"9" * 5000 + b"]}]}"), PROTOCOL),
    "a negative id": Case(
        altered(lambda reply: reply["choices"][0].update(tokens=[-3])), PROTOCOL, "put out [-3]"
    ),
    "true for a number": Case(logprobs(token_logprobs=[True]), PROTOCOL),
    "a text for a number": Case(logprobs(token_logprobs=["-1"]), PROTOCOL),
    "names in no UTF-8": Case(
        raw(json.dumps(truth()).replace(" t3", "\udcff\udcfe").encode(errors="surrogateescape")), CUT
    ),
    "half a character": Case(
        raw(json.dumps(truth()).replace(" t3", "\\ud800").encode()), PROTOCOL, "half a character"
    ),
    "names that are NUL": Case(
        logprobs(tokens=["\0"], top_logprobs=[{"\0": -9.0, "\x1b[31m": -9.5}]), Believed
    ),
    "a key twice": Case(raw(json.dumps(truth()).replace('"id"', '"usage": null, "id"').encode()), Believed),
    "counts beyond any": Case(altered(lambda reply: reply.update(usage={"prompt_tokens": 2**63})), Believed),
    "negative counts": Case(altered(lambda reply: reply.update(usage={"prompt_tokens": -1})), Believed),
    "half a body": Case(raw(json.dumps(truth()).encode()[:-20]), CUT, "no JSON"),
    "two bodies": Case(raw(json.dumps(truth()).encode() * 2), CUT, "no JSON"),
    # kinds
    "a web page": Case(raw(b"<html>Sign in</html>", kind="text/html"), CUT, "(text/html)"),
    "a kind with escapes": Case(raw(b"x", kind="text/\x1b[31mred"), CUT),
    "an event stream": Case(
        raw(b"data: {}\n\ndata: [DONE]\n\n", kind="text/event-stream"), CUT, "(text/event-stream)"
    ),
    # what a terminal obeys
    "colours": Case(says("\x1b[31mred\x1b[0m"), "400", "[31mred"),
    "a title": Case(says("\x1b]0;owned\x07"), "400", "]0;owned"),
    "a link": Case(says("\x1b]8;;http://other\x1b\\click\x1b]8;;\x1b\\"), "400", "click"),
    "the clipboard": Case(says("\x1b]52;c;aGk=\x07"), "400", "]52;c;aGk="),
    "a C1 escape": Case(says("\x9b31mred \x9d0;owned\x9c"), "400", "31mred 0;owned"),
    "backspaces": Case(says("good\b\b\b\bevil\x7f"), "400", "good evil"),
    "carriage returns": Case(says("line\rforged: 200 OK\r\nsecond"), "400", "line forged: 200 OK second"),
    "a change of direction": Case(says("\u202eevil\u2066"), "400", "evil"),
    "markup of rich": Case(
        says("[red]x[/red] [link=http://other]y[/link] :smile:"), "400", "[red]x[/red] [link=http://other]y"
    ),
    "broken markup": Case(says("[/red] [bold"), "400", "[/red] [bold"),
    "NUL in a message": Case(says("a\0b"), "400", "a b"),
    "half a character in a message": Case(text(b'{"message": "a\\ud800b"}'), "400", "a"),
    "no UTF-8 in a message": Case(text(b"caf\xe9 \xff\xfe"), "400", "caf\ufffd"),
    "percent signs": Case(says("%s %d %(x)s {0} {x}"), "400", "%s %d %(x)s {0} {x}"),
    "a forged line of log": Case(says('x"}\n{"level":"info"}'), "400", 'x"} {"level":"info"}'),
    # redirects and other statuses
    **{
        f"a redirect {status}": Case(
            raw(b"", status=f"{status} Go", Location="http://127.0.0.1:9/v1"), str(status), "none is followed"
        )
        for status in (301, 302, 303, 307, 308)
    },
    "a redirect to nowhere": Case(raw(b"", status="302 Go"), "302", "a redirect to nowhere"),
    "a redirect with escapes": Case(
        raw(b"", status="302 Go", Location="http://other/\x1b]0;x\x07"), "302", "http://other/ ]0;x"
    ),
    "a redirect to a file": Case(
        raw(b"", status="302 Go", Location="file:///etc/passwd"), "302", "file:///etc/passwd"
    ),
    "not modified": Case(raw(b"", status="304 Not Modified"), "304"),
    "no content": Case(raw(b"", status="204 No Content"), "204"),
    "switching protocols": Case(wire(b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\n\r\n"), "101"),
    "a flood of 100": Case(endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 20), LATE),
    "a proxy wants a password": Case(raw(b"", status="407 No", Proxy_Authenticate="Basic"), "407"),
    "a status of six digits": Case(wire(b"HTTP/1.1 200000 OK\r\n\r\n"), BROKEN, "not valid HTTP"),
    "a status that is none": Case(wire(b"HTTP/1.1 abc OK\r\n\r\n"), BROKEN, "not valid HTTP"),
    "a reason with escapes": Case(wire(b"HTTP/1.1 400 \x1b[31mred\r\nContent-Length: 0\r\n\r\n"), "400"),
    # what is no HTTP
    "another protocol": Case(wire(b"SSH-2.0-OpenSSH_9.6\r\n"), BROKEN, "not valid HTTP"),
    "a TLS alert": Case(wire(b"\x15\x03\x01\x00\x02\x02\x28"), BROKEN, "not valid HTTP"),
    "only NUL": Case(endless(b"", bytes(1000)), BROKEN, "not valid HTTP"),
    "no reply at all": Case(wire(b""), BROKEN),
    "half a head": Case(stalls(b"HTTP/1.1 200 OK\r\nX: "), LATE),
    "one header without end": Case(
        endless(b"HTTP/1.1 200 OK\r\nX: ", b"y" * 65536), BROKEN, "not valid HTTP"
    ),
    "headers without end": Case(
        endless(b"HTTP/1.1 200 OK\r\n", b"X-A: " + b"y" * 1000 + b"\r\n"), BROKEN, "not valid HTTP"
    ),
    "a negative length": Case(wire(HEAD + b"Content-Length: -1\r\n\r\n{}"), BROKEN, "not valid HTTP"),
    "two lengths": Case(
        wire(HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} "), BROKEN, "not valid HTTP"
    ),
    "a folded header": Case(wire(HEAD + b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n"), CUT),
    "a header with NUL": Case(wire(HEAD + b"X: a\0b\r\nContent-Length: 0\r\n\r\n"), BROKEN, "not valid HTTP"),
    # headers
    "a wait for ever": Case(raw(b"", status="429 Slow", Retry_After="9" * 400), "429"),
    "a wait of nonsense": Case(raw(b"", status="429 Slow", Retry_After="\u0663"), "429"),
    "a date beyond any": Case(
        raw(b"", status="503 Slow", Retry_After="Fri, 31 Dec 99999 23:59:59 GMT"), "503"
    ),
    "limits of nonsense": Case(
        raw(
            json.dumps(truth()).encode(),
            X_RateLimit_Limit_Requests="9" * 4000,
            X_RateLimit_Reset_Tokens="1e999",
        ),
        Believed,
    ),
    "many cookies": Case(lambda asked: http(truth(), Set_Cookie="a=" + "b" * 4000), Believed),
}
"""What an endpoint does, and what comes of it."""


async def attempts_at(endpoint: RawEndpoint, seconds: float, at_once: int = 1) -> list[Attempt]:
    """What comes of so many requests side by side."""
    transport = Transport(
        Wire(
            url=f"{endpoint.url}/completions",
            headers={"Authorization": f"Bearer {TOKEN}"},
            secrets=[Secret(TOKEN)],
            timeout=seconds,
            connect_timeout=seconds,
            connections=at_once,
        ),
        dialect("friendli"),
        time.monotonic,
    )
    body = json.dumps(BODY).encode()
    await transport.open()
    try:
        return await asyncio.gather(*(transport.send(REQUEST, body) for _ in range(at_once)))
    finally:
        await transport.close()


@pytest.mark.parametrize("name", CASES)
async def test_a_hostile_endpoint(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It costs bounded memory and time, is one short inert line, and the token goes to nobody else."""
    case = CASES[name]
    seconds = LATE_SECONDS if case.reason == LATE else SECONDS
    tracemalloc.start()
    try:
        async with RawEndpoint(case.answer) as endpoint:
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            [attempt] = await attempts_at(endpoint, seconds)
            _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < MEMORY
    assert attempt.seconds < seconds + 2
    if case.reason == Believed:
        assert attempt.reply is not None, str(attempt)
        assert reply_row(Outcome(REQUEST, attempt.reply))
    else:
        assert attempt.reply is None
        assert attempt.reason == case.reason, str(attempt)
    assert case.says in attempt.detail
    assert len(str(attempt)) < 330
    assert str(attempt).isprintable()
    note("hostile inputs", tried=1, lost=0, unit="inputs")


async def test_large_bodies_do_not_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many workers a hostile endpoint gives large bodies to, few of them are in memory at a time."""
    monkeypatch.setattr("harness.posting.LARGE_AT_ONCE", 1)
    large = 8 * 2**20

    async def pieces() -> AsyncIterator[bytes]:
        yield HEAD + f"Content-Length: {large}\r\n\r\n".encode()
        for _ in range(large // 2**16):
            yield b" " * 2**16

    async with RawEndpoint(lambda asked: pieces()) as endpoint:
        tracemalloc.start()
        try:
            attempts = await attempts_at(endpoint, SECONDS, at_once=12)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert [each.reason for each in attempts] == [CUT] * 12
    # A mebibyte of each, one of them whole (and once more while it is put together), what waits in sockets.
    assert peak < 50 * 2**20 < 12 * large


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(status: int) -> None:
    """Nobody but the endpoint is ever contacted, let alone shown the token."""
    async with RawEndpoint(lambda asked: http(truth())) as other:
        go = f"{other.url}/completions"
        async with RawEndpoint(lambda asked: http(b"", status=f"{status} Go", Location=go)) as endpoint:
            [attempt] = await attempts_at(endpoint, SECONDS)
    assert (attempt.reply, attempt.reason) == (None, str(status))
    assert f"a redirect to {go}; none is followed" in attempt.detail
    assert len(endpoint.asked) == 1
    assert other.asked == []
